"""Argilla by its SDK: a place is a data set, a record a record.

A record's id is its item's, and the SDK's ``records.log`` upserts by it, so that nothing is ever doubled;
items that are there are not even sent, because an upsert would change what experts have been shown.

Answers are read below the SDK's ``records.to_list``: that loses whoever discarded an item without
choosing anything, and fails where the server says so with ``null`` (SDK 2.8). What comes out is the form
that it has with ``flatten=True``, which the reader reads, with experts' user names.

The SDK is the extra ``argilla``: its six packages fit beside the pinned ones, but few need them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pipelines.console.progress import step
from pipelines.console.visible import printable
from pipelines.errors import RunFailed, UsageError
from pipelines.tools import outgoing
from pipelines.tools.argilla import format
from pipelines.tools.argilla.format import ACCESS, COMMENT, DISCARDED, SUBMITTED
from pipelines.tools.batch import Batch
from pipelines.tools.incoming import slots_in
from pipelines.tools.outgoing import PAIR, SINGLE
from pipelines.tools.server import Held, Say, Server, causes, refused, told, unreached
from pipelines.verdicts.names import fold_name

WORKSPACE = "ARGILLA_WORKSPACE"
RECORDS_A_PAGE = 250
# The server's own limit, in characters.
MAX_GUIDELINES_CHARS = 10_000
_TIMEOUT_SECONDS = 60
# ``pair_id``: of an earlier version.
_METADATA = {"item_id", "pair_id", "task", "version", "round"} | {
    slot.id for slot in (*PAIR, *SINGLE)
}
_FIELDS = {slot.text for slot in (*PAIR, *SINGLE)}
_NO_ARGILLA = (
    "there is no Argilla at this address; give the one that its front page has in the browser"
)


class ArgillaServer(Server):
    """An Argilla server, as one user sees it: places are the SDK's data sets.

    Args:
        url: its address, without a slash at its end.
        sdk: the SDK.
        client: the SDK's client.
        workspaces: those to look into: all that the user is in, or the one the environment names.
    """

    noun = "data set"
    missing = "no workspace of this user holds a data set {!r}"
    strangers = (
        "users {} answered, but are not in the workspace any more, or only its owner may see them; "
        "these UUIDs stand for their names"
    )

    def __init__(self, url: str, sdk: Any, client: Any, workspaces: Sequence[Any]) -> None:
        self.url, self._sdk, self._client, self._workspaces = url, sdk, client, workspaces

    @classmethod
    @contextlib.contextmanager
    def connected(cls, url: str, token: str, environment: Mapping[str, str]) -> Iterator[Self]:
        """Give the server; turn what the SDK raises into one sentence."""
        address, _, _ = ACCESS.check(url, environment)
        try:
            sdk, http = (importlib.import_module(name) for name in ("argilla", "httpx"))
        except ImportError as error:
            raise UsageError(
                f"Argilla's SDK is not installed ({error}); run pip install 'ad-scout[argilla]', or "
                "export to files without --push"
            ) from error
        argilla_error = importlib.import_module("argilla._exceptions").ArgillaError
        try:
            client = sdk.Argilla(
                api_url=address, api_key=token, timeout=_TIMEOUT_SECONDS, retries=1
            )
            with contextlib.closing(client.http_client):
                yield cls(address, sdk, client, _workspaces(address, client, environment))
        except (UsageError, RunFailed):
            raise
        except (http.HTTPError, http.InvalidURL, argilla_error) as error:
            # Its text may hold the request's; ours says what to do. No cause: it would be printed.
            said = f"{address}: {_explained(error, http)}".replace(token, "(key)")
            raise RunFailed(said) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # What the SDK does with an answer that is not Argilla's: no JSON, or other fields.
            raise RunFailed(
                f"{address}: answered something else than Argilla does ({type(error).__name__}), as "
                f"login pages and proxies do; {_NO_ARGILLA}"
            ) from error

    def address(self, place: Any) -> str:
        """Return the page where experts label."""
        return f"{self.url}/dataset/{place.id}/annotation-mode"

    # --- data sets ---

    def find(self, name: str) -> Any:
        """Return the data set of this name with its settings, or None.

        Raises:
            UsageError: several workspaces hold one.
        """
        found = [
            (workspace, dataset)
            for workspace in self._workspaces
            for dataset in workspace.datasets
            if dataset.name == name
        ]
        if len(found) > 1:
            names = " and ".join(workspace.name for workspace, _ in found)
            raise UsageError(
                f"{self.url}: the workspaces {names} both hold a data set {name!r}; put the name of the "
                f"right one into {WORKSPACE}"
            )
        return found[0][1].get() if found else None

    def create(self, name: str, batch: Batch) -> Any:
        """Return a new data set.

        Raises:
            UsageError: several workspaces to choose from.
        """
        if len(self._workspaces) > 1:
            names = ", ".join(workspace.name for workspace in self._workspaces)
            raise UsageError(
                f"{self.url}: this user is in the workspaces {names}; put the name of one into "
                f"{WORKSPACE}"
            )
        with tempfile.TemporaryDirectory() as folder:
            # The SDK reads settings from files only.
            path = Path(folder) / "settings.json"
            path.write_bytes(outgoing.to_json(format.settings(batch)))
            made = self._sdk.Settings.from_json(str(path))
        workspace = self._workspaces[0]
        dataset = self._sdk.Dataset(
            name=name, workspace=workspace, settings=made, client=self._client
        )
        with _silent():
            return dataset.create()

    def adapt(self, place: Any, batch: Batch, say: Say) -> list[str]:
        """Refuse another data set; bring guidelines and number of experts up to date."""
        settings = format.settings(batch)
        self._check(place, settings)
        changed = []
        wanted = {
            "guidelines": settings["guidelines"].strip(),
            "distribution": settings["distribution"],
        }
        found = {
            "guidelines": (place.settings.guidelines or "").strip(),
            "distribution": place.settings.distribution.to_dict(),
        }
        model = type(place.api_model())
        for name in wanted:
            if wanted[name] == found[name]:
                continue
            # Alone: the SDK's own update sends everything, and some servers refuse another number of
            # experts once somebody has answered.
            change = model(id=place.id, name=place.name, **{name: wanted[name]})
            try:
                self._client.api.datasets.update(change)
            except Exception as error:
                if getattr(error, "status_code", None) != 422 or name != "distribution":
                    raise
                say(
                    f"{self.address(place)}: still asks for {found[name]['min_submitted']} experts, "
                    f"not {wanted[name]['min_submitted']}: the server changes that no more once there "
                    "are answers"
                )
                continue
            changed.append(name)
        return changed

    def _check(self, dataset: Any, settings: Mapping[str, Any]) -> None:
        """Refuse a data set that is not ready, or whose answers could not be read as this task's."""
        address = self.address(dataset)
        if dataset.api_model().status != "ready":
            raise RunFailed(
                f"{address}: was begun and never published, by a push that was cut off; delete it in "
                "Argilla and push again"
            )
        for kind in ("fields", "metadata"):
            known = {item.name for item in getattr(dataset.settings, kind)}
            lacking = [item["name"] for item in settings[kind] if item["name"] not in known]
            if lacking:
                raise RunFailed(
                    f"{address}: lacks the {kind} {', '.join(lacking)}, so it is another data set of "
                    "this name; rename it, or give the task another version"
                )
        questions = {item.name: item for item in dataset.settings.questions}
        for question in settings["questions"]:
            name, options = question["name"], question["settings"].get("options")
            wanted = [option["value"] for option in options or []]
            found = list(getattr(questions.get(name), "labels", []))
            same = sorted(map(fold_name, found)) == sorted(map(fold_name, wanted))
            if name not in questions or not same:
                shown = ", ".join(printable(label, 40) for label in found) or "none"
                raise RunFailed(
                    f"{address}: its labels for {name} are {shown}, the task's are "
                    f"{', '.join(wanted) or 'none, but words'}; give the task another version, or "
                    "rename the data set"
                )

    # --- records ---

    def records(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the batch's records.

        Raises:
            UsageError: a policy longer than Argilla takes.
        """
        length = len(format.settings(batch)["guidelines"].strip())
        if length > MAX_GUIDELINES_CHARS:
            raise UsageError(
                f"the policy makes guidelines of {length:,} characters, and Argilla takes "
                f"{MAX_GUIDELINES_CHARS:,}; shorten the policy, or choose another --tool"
            )
        return format.records(batch)

    def fields(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a record's fields and metadata."""
        return {**record["metadata"], **record["fields"]}

    def held(self, place: Any, batch: Batch) -> Held:
        """Return item id -> its record."""
        return {
            str(record.external_id): [
                {
                    "id": str(record.id),
                    "fields": dict(record.fields or {}),
                    "metadata": {item.name: item.value for item in record.metadata},
                }
            ]
            for record in self._listed(place, answers=False)
        }

    def send(self, place: Any, records: Sequence[dict[str, Any]]) -> bool:
        """Send some records."""
        part = []
        for record in records:
            suggestions = [self._sdk.Suggestion(**item) for item in record.get("suggestions", ())]
            part.append(self._sdk.Record(**{**record, "suggestions": suggestions}))
        with _silent():
            place.records.log(part, batch_size=len(part))
        return True

    def answers(self, place: Any) -> tuple[list[dict[str, Any]], set[str]]:
        """Return a data set's records, flattened, experts by their user names."""
        found = self._listed(place, answers=True)
        people = {
            str(answer.user_id)
            for record in found
            for answer in record.responses
            if str(answer.status.value) in (SUBMITTED, DISCARDED)
        }
        names = self._names(place, people)
        return [flattened(record, names) for record in found], people - set(names)

    def _listed(self, dataset: Any, answers: bool) -> list[Any]:
        """Return a data set's records (``RecordModel``), each once, with all answers if asked for.

        Raises:
            RunFailed: records appear or disappear while they are listed.
        """
        total = dataset.progress()["total"]
        found: dict[str, Any] = {}
        offset = 0
        with step("listing the data set's records", total) as listed:
            while True:
                # Not the SDK's iterator: where the server stumbles, that ends as if there were no more.
                page = self._client.api.records.list(
                    dataset.id,
                    offset=offset,
                    limit=RECORDS_A_PAGE,
                    with_suggestions=False,
                    with_responses=answers,
                )
                found |= {str(record.id): record for record in page}
                offset += len(page)
                listed(len(page))
                if not page:
                    break
        total = dataset.progress()["total"]
        if len(found) != total:
            raise RunFailed(
                f"{self.address(dataset)}: lists {len(found):,} of {total:,} records; they change while "
                "they are read: run the command again"
            )
        return list(found.values())

    def _names(self, dataset: Any, people: set[str]) -> dict[str, str]:
        """Return UUID -> user name, as far as this user may see them."""
        if not people:
            return {}
        names = {str(user.id): user.username for user in dataset.workspace.users}
        if people - set(names):
            # Who has left the workspace, or labels as an owner without being in it. Owners see them.
            try:
                names |= {str(user.id): user.username for user in self._client.users.list()}
            except Exception as error:
                if getattr(error, "status_code", None) != 403:
                    raise
        return names


def flattened(record: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a record as ``records.to_list(flatten=True)`` should write it.

    Suggestions, drafts, states and the server's own ids are left out: they change without anybody
    answering, and nothing of them is a verdict.

    Args:
        record: the SDK's ``RecordModel``.
        names: UUID -> user name.
    """
    fields = {name: record.fields[name] for name in _FIELDS if name in (record.fields or {})}
    metadata = {item.name: item.value for item in record.metadata if item.name in _METADATA}
    flat = {"id": str(record.external_id), **fields, **metadata}
    answers = []
    for answer in record.responses:
        person, state = str(answer.user_id), str(answer.status.value)
        if state in (SUBMITTED, DISCARDED):
            answers.append((names.get(person, person), state, answer.values or {}))
    for person, state, values in sorted(answers, key=lambda item: item[:2]):
        for question in (*(slot.label for slot in slots_in(flat)), COMMENT):
            # Whoever discards an item may have chosen nothing.
            if question not in values and (state != DISCARDED or question == COMMENT):
                continue
            value = values.get(question, {}).get("value")
            for part, said in (("", value), (".users", person), (".status", state)):
                flat.setdefault(f"{question}.responses{part}", []).append(said)
    return flat


def _workspaces(url: str, client: Any, environment: Mapping[str, str]) -> tuple[Any, ...]:
    found = client.workspaces.list()
    wanted = environment.get(WORKSPACE, "").strip()
    if not found:
        raise RunFailed(
            f"{url}: this user is in no workspace; have Argilla's owner add them to one"
        )
    chosen = tuple(item for item in found if not wanted or item.name == wanted)
    if not chosen:
        names = ", ".join(item.name for item in found)
        raise UsageError(
            f"{WORKSPACE}: {url} has no workspace {printable(wanted, 60)!r} for this user, only {names}"
        )
    return chosen


def _explained(error: BaseException, http: Any) -> str:
    """Return what went wrong and what to do about it."""
    for cause in causes(error):
        if type(cause).__name__ == "ArgillaCredentialsError":
            return refused(401, "", ACCESS)
        status = getattr(cause, "status_code", None)
        if isinstance(status, int):
            said = _detail(str(cause))
            if status == 404:
                return f"not found{f' (it says: {said})' if said else ''}; {_NO_ARGILLA}"
            return refused(status, said, ACCESS)
        if isinstance(cause, http.HTTPError | http.InvalidURL):
            return unreached(cause, _TIMEOUT_SECONDS, _TIMEOUT_SECONDS, "SSL_CERT_FILE")
    return printable(str(error), 300)


def _detail(text: str) -> str:
    """Return the server's words, behind ``Details:`` in the SDK's, in one line; "" for a page."""
    text = text.partition("Details: ")[2]
    try:
        value = json.loads(text)
    except ValueError:
        value = "" if text.lstrip().startswith("<") else text
    return printable(told(value), 300)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the SDK's own progress bars and log lines off the terminal."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
