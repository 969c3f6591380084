"""Argilla by its SDK: a round's pairs into a data set, its answers out of it.

There is one data set for each version of a task, called ``TASK vVERSION``; its rounds accumulate there.
A record's id is its pair's, and the SDK's ``records.log`` upserts by it, so that nothing is ever doubled;
pairs that are there are not even sent, because an upsert would change what experts have been shown. An
interrupted push goes on where it stopped.

Answers are read below the SDK's ``records.to_list``: that loses whoever discarded a pair without
choosing anything, and fails where the server says so with ``null`` (SDK 2.8). What comes out is the form
that it has with ``flatten=True``, which :func:`pipelines.tools.argilla.read` reads, with experts'
user names.

The SDK is the extra ``argilla``: its six packages fit beside the pinned ones, but few need them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.console.progress import step
from pipelines.console.summary import printable
from pipelines.errors import RunFailed, UsageError
from pipelines.tools import argilla, rows
from pipelines.tools.argilla import COMMENT, DISCARDED, DRAFT, SUBMITTED
from pipelines.tools.batch import Batch
from pipelines.tools.rows import LABEL_A, LABEL_B
from pipelines.tools.server_access import Access

KEY = "ARGILLA_API_KEY"
WORKSPACE = "ARGILLA_WORKSPACE"
PLAIN_HTTP = "ARGILLA_ALLOW_PLAIN_HTTP"
RECORDS_A_CALL = 250
RECORDS_A_PAGE = 250
# The server's own limit, in characters.
MAX_GUIDELINES_CHARS = 10_000
_TIMEOUT_SECONDS = 60
_FIELDS = ("text_a", "text_b")
_METADATA = ("pair_id", "id_a", "id_b", "task", "version", "round")
ACCESS = Access(
    KEY,
    PLAIN_HTTP,
    "API key",
    "Argilla shows it under My settings",
    ("dataset", "datasets", "api", "user-settings"),
)
_NO_ARGILLA = (
    "there is no Argilla at this address; give the one that its front page has in the browser"
)


@dataclass(frozen=True, slots=True)
class PushResult:
    """What a push left behind.

    Attributes:
        dataset: name of the data set.
        dataset_url: where experts label.
        created_dataset: whether this push made it.
        added: pairs that were sent now.
        present: pairs of the batch that the data set held already.
        changed: settings of an older data set that this push changed, by their names in the API.
    """

    dataset: str
    dataset_url: str
    created_dataset: bool
    added: int
    present: int
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A data set's answers.

    Attributes:
        data: an export file (JSON), as :func:`pipelines.tools.argilla.read` reads it. The same answers
            are the same bytes; drafts are no answers.
        names: UUID of each user who answered -> user name; also for exports made by hand, which hold
            the UUIDs.
        dataset_url: where they come from.
        records, answers: how many.
    """

    data: bytes
    names: dict[str, str]
    dataset_url: str
    records: int
    answers: int


def token_from_environment(environment: Mapping[str, str] = os.environ) -> str:
    """Return the API key.

    Raises:
        UsageError: there is none, or it cannot be one.
    """
    return ACCESS.read_token(environment)


def push(
    url: str,
    token: str,
    batch: Batch,
    say: Callable[[str], None],
    environment: Mapping[str, str] = os.environ,
) -> PushResult:
    """Create or update the task's data set and send the pairs that it lacks.

    Args:
        url: the server's address.
        token: from :func:`token_from_environment`.
        batch: the pairs.
        say: told, in one line each, what a person should know.
        environment: may name the Argilla workspace, in ``ARGILLA_WORKSPACE``.

    Raises:
        UsageError: the SDK is missing, an address that the token must not be sent to, no or several
            workspaces to choose from, a policy longer than Argilla takes.
        RunFailed: the server cannot be reached or refuses, or the data set is not this task's.
    """
    settings = argilla.settings(batch)
    length = len(settings["guidelines"].strip())
    if length > MAX_GUIDELINES_CHARS:
        raise UsageError(
            f"the policy makes guidelines of {length:,} characters, and Argilla takes "
            f"{MAX_GUIDELINES_CHARS:,}; shorten the policy, or choose another --tool"
        )
    name = dataset_name(batch.task, batch.task_version)
    with _connected(url, token, environment) as (server, sdk):
        dataset = _find(server, name)
        created = dataset is None
        changed: tuple[str, ...] = ()
        if dataset is None:
            dataset = _create(server, sdk, name, settings)
            say(f"created the data set {name!r}: {_address(server, dataset)}")
        else:
            _check(server, dataset, settings)
            changed = _update(server, dataset, settings, say)
        wanted = [json.loads(line) for line in argilla.export(batch)["records.jsonl"].splitlines()]
        held = {} if created else _held(server, dataset)
        missing = [record for record in wanted if record["id"] not in held]
        _say_differences(wanted, held, say)
        _send(sdk, dataset, missing, say)
        there = _held(server, dataset) if missing else held
        lost = [record["id"] for record in wanted if record["id"] not in there]
        if lost:
            raise RunFailed(
                f"{_address(server, dataset)}: lacks {len(lost):,} pairs that were sent ({lost[0]}, "
                "...); push again"
            )
        return PushResult(
            dataset=name,
            dataset_url=_address(server, dataset),
            created_dataset=created,
            added=len(missing),
            present=len(wanted) - len(missing),
            changed=changed,
        )


def pull(
    url: str,
    token: str,
    task: str,
    version: int,
    say: Callable[[str], None],
    environment: Mapping[str, str] = os.environ,
) -> Pulled:
    """Return all answers in a task's data set.

    Args:
        url: the server's address.
        token: from :func:`token_from_environment`.
        task: its name.
        version: of its policy.
        say: told, in one line each, what a person should know.
        environment: may name the Argilla workspace, in ``ARGILLA_WORKSPACE``.

    Raises:
        UsageError: the SDK is missing, an address that the token must not be sent to, several
            workspaces that hold such a data set.
        RunFailed: the server cannot be reached or refuses, or holds no such data set.
    """
    name = dataset_name(task, version)
    with _connected(url, token, environment) as (server, _):
        dataset = _find(server, name)
        if dataset is None:
            raise RunFailed(
                f"{server.url}: no workspace of this user holds a data set {name!r}; push the pairs "
                "first"
            )
        found = _records(server, dataset, answers=True)
        people = {
            str(answer.user_id)
            for record in found
            for answer in record.responses
            if str(answer.status.value) != DRAFT
        }
        names = _names(server, dataset, people)
        unknown = sorted(people - set(names))
        if unknown:
            say(
                f"{_address(server, dataset)}: users {', '.join(unknown)} answered, but are not in the "
                "workspace any more, or only its owner may see them; these UUIDs stand for their names"
            )
        flat = sorted((flattened(record, names) for record in found), key=lambda item: item["id"])
        lines = ",\n".join(json.dumps(item, sort_keys=True) for item in flat)
        return Pulled(
            data=f"[\n{lines}\n]\n".encode(),
            names={uuid: names[uuid] for uuid in sorted(people & set(names))},
            dataset_url=_address(server, dataset),
            records=len(flat),
            answers=sum(
                str(answer.status.value) != DRAFT for record in found for answer in record.responses
            ),
        )


def dataset_name(task: str, version: int) -> str:
    """Return what a task's data set is called."""
    return f"{task} v{version}"


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
        for question in (LABEL_A, LABEL_B, COMMENT):
            # Whoever discards a pair may have chosen nothing.
            if question not in values and (state != DISCARDED or question == COMMENT):
                continue
            value = values.get(question, {}).get("value")
            for part, said in (("", value), (".users", person), (".status", state)):
                flat.setdefault(f"{question}.responses{part}", []).append(said)
    return flat


# --- the server -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Server:
    """An Argilla server, as one user sees it.

    Attributes:
        url: its address, without a slash at its end.
        client: the SDK's client.
        workspaces: those to look into: all that the user is in, or the one the environment names.
    """

    url: str
    client: Any
    workspaces: tuple[Any, ...]


@contextlib.contextmanager
def _connected(
    url: str, token: str, environment: Mapping[str, str]
) -> Iterator[tuple[_Server, Any]]:
    """Give a server and the SDK; turn what the SDK raises into one sentence.

    Raises:
        UsageError: the SDK is missing, or the address will not do.
        RunFailed: the server cannot be reached or refuses.
    """
    address, _, _ = ACCESS.check(url, environment)
    try:
        sdk, http = (importlib.import_module(name) for name in ("argilla", "httpx"))
    except ImportError as error:
        raise UsageError(
            f"Argilla's SDK is not installed ({error}); run pip install 'ad-scout[argilla]', or export "
            "to files without --push"
        ) from error
    argilla_error = importlib.import_module("argilla._exceptions").ArgillaError
    try:
        client = sdk.Argilla(api_url=address, api_key=token, timeout=_TIMEOUT_SECONDS, retries=1)
        with contextlib.closing(client.http_client):
            yield _Server(address, client, _workspaces(address, client, environment)), sdk
    except (UsageError, RunFailed):
        raise
    except (http.HTTPError, http.InvalidURL, argilla_error) as error:
        # Its text may hold the request's; ours says what to do. No cause: it would be printed.
        said = f"{address}: {_explained(error, http)}".replace(token, "(key)")
        raise RunFailed(said) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # What the SDK does with an answer that is not Argilla's: no JSON, or other fields.
        raise RunFailed(
            f"{address}: answered something else than Argilla does ({type(error).__name__}), as login "
            f"pages and proxies do; {_NO_ARGILLA}"
        ) from error


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
    for cause in _causes(error):
        if type(cause).__name__ == "ArgillaCredentialsError":
            return f"does not know this API key (401); copy it again into {KEY} ({ACCESS.where})"
        status = getattr(cause, "status_code", None)
        if isinstance(status, int):
            return _refused(status, str(cause))
        if isinstance(cause, http.TimeoutException):
            return f"no answer within {_TIMEOUT_SECONDS} s; try again later, nothing is doubled"
        if isinstance(cause, http.ConnectError):
            return _unreached(str(cause))
        if isinstance(cause, http.HTTPError | http.InvalidURL):
            return (
                f"the connection broke ({printable(str(cause) or type(cause).__name__, 150)}); "
                "try again, nothing is doubled"
            )
    return printable(str(error), 300)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what is behind it: the SDK wraps some without saying why."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _unreached(text: str) -> str:
    shown = printable(text, 150)
    if "CERTIFICATE" in text.upper() or "SSL" in text.upper():
        return f"no safe connection ({shown}); look at the server's certificate, or write http:// where it has none"
    if "refused" in text:
        return "nothing listens there; is the server running, is the port right?"
    return f"cannot be reached ({shown}); is the address right, is the network there?"


def _refused(status: int, text: str) -> str:
    """Return what a status means here.

    Args:
        status: of HTTP.
        text: the SDK's, with the server's answer behind ``Details:``.
    """
    said = _detail(text.partition("Details: ")[2])
    why = f": {said}" if said else ""
    if status == 401:
        return f"does not know this API key (401); copy it again into {KEY} ({ACCESS.where})"
    if status == 403:
        return (
            f"this user may not do that (403{why}); it takes an owner, or an admin of the workspace"
        )
    if status == 404:
        return f"not found (404{why}); {_NO_ARGILLA}"
    if status == 413:
        return "takes no request of this size (413); have the proxy before it allow larger ones"
    if 300 <= status < 400:
        return f"sends us elsewhere ({status}); give the address at which it ends"
    if status == 429 or status >= 500:
        return f"is busy or broken ({status}{why}); try again later, nothing is doubled"
    return f"refuses ({status}{why})"


def _detail(text: str) -> str:
    """Return the server's words in one line of bounded length, "" for a page."""
    try:
        value = json.loads(text)
    except ValueError:
        return "" if text.lstrip().startswith("<") else printable(text, 300)
    if isinstance(value, dict):
        value = value.get("detail", value)
    return printable(value if isinstance(value, str) else json.dumps(value), 300)


# --- data sets --------------------------------------------------------------------------------


def _find(server: _Server, name: str) -> Any:
    """Return the data set of this name with its settings, or None.

    Raises:
        UsageError: several workspaces hold one.
    """
    found = [
        (workspace, dataset)
        for workspace in server.workspaces
        for dataset in workspace.datasets
        if dataset.name == name
    ]
    if len(found) > 1:
        names = " and ".join(workspace.name for workspace, _ in found)
        raise UsageError(
            f"{server.url}: the workspaces {names} both hold a data set {name!r}; put the name of the "
            f"right one into {WORKSPACE}"
        )
    return found[0][1].get() if found else None


def _create(server: _Server, sdk: Any, name: str, settings: Mapping[str, Any]) -> Any:
    if len(server.workspaces) > 1:
        names = ", ".join(workspace.name for workspace in server.workspaces)
        raise UsageError(
            f"{server.url}: this user is in the workspaces {names}; put the name of one into {WORKSPACE}"
        )
    with tempfile.TemporaryDirectory() as folder:
        # The SDK reads settings from files only.
        path = Path(folder) / "settings.json"
        path.write_bytes(rows.to_json(settings))
        made = sdk.Settings.from_json(str(path))
    dataset = sdk.Dataset(
        name=name, workspace=server.workspaces[0], settings=made, client=server.client
    )
    with _silent():
        return dataset.create()


def _check(server: _Server, dataset: Any, settings: Mapping[str, Any]) -> None:
    """Refuse a data set that is not ready, or whose answers could not be read as this task's.

    Raises:
        RunFailed: it is one of these.
    """
    address = _address(server, dataset)
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
                f"{address}: lacks the {kind} {', '.join(lacking)}, so it is another data set of this "
                "name; rename it, or give the task another version"
            )
    questions = {item.name: item for item in dataset.settings.questions}
    for question in settings["questions"]:
        name, options = question["name"], question["settings"].get("options")
        wanted = [option["value"] for option in options or []]
        found = list(getattr(questions.get(name), "labels", []))
        if name not in questions or sorted(found) != sorted(wanted):
            shown = ", ".join(printable(label, 40) for label in found) or "none"
            raise RunFailed(
                f"{address}: its labels for {name} are {shown}, the task's are "
                f"{', '.join(wanted) or 'none, but words'}; give the task another version, or rename "
                "the data set"
            )


def _update(
    server: _Server, dataset: Any, settings: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[str, ...]:
    """Bring guidelines and number of experts up to date; return which changed."""
    changed = []
    wanted = {
        "guidelines": settings["guidelines"].strip(),
        "distribution": settings["distribution"],
    }
    found = {
        "guidelines": (dataset.settings.guidelines or "").strip(),
        "distribution": dataset.settings.distribution.to_dict(),
    }
    model = type(dataset.api_model())
    for name in wanted:
        if wanted[name] == found[name]:
            continue
        # Alone: the SDK's own update sends everything, and some servers refuse another number of
        # experts once somebody has answered.
        change = model(id=dataset.id, name=dataset.name, **{name: wanted[name]})
        try:
            server.client.api.datasets.update(change)
        except Exception as error:
            if getattr(error, "status_code", None) != 422 or name != "distribution":
                raise
            say(
                f"{_address(server, dataset)}: still asks for {found[name]['min_submitted']} experts, "
                f"not {wanted[name]['min_submitted']}: the server changes that no more once there are "
                "answers"
            )
            continue
        changed.append(name)
    if changed:
        say(f"{_address(server, dataset)}: changed {', '.join(changed)}")
    return tuple(changed)


def _address(server: _Server, dataset: Any) -> str:
    return f"{server.url}/dataset/{dataset.id}/annotation-mode"


# --- records ----------------------------------------------------------------------------------


def _records(server: _Server, dataset: Any, answers: bool) -> list[Any]:
    """Return a data set's records (``RecordModel``), each once, with all answers if asked for.

    Raises:
        RunFailed: records appear or disappear while they are listed.
    """
    total = dataset.progress()["total"]
    found: dict[str, Any] = {}
    offset = 0
    with step("listing the data set's pairs", total) as listed:
        while True:
            # Not the SDK's iterator: where the server stumbles, that ends as if there were no more.
            page = server.client.api.records.list(
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
            f"{_address(server, dataset)}: lists {len(found):,} of {total:,} records; they change while "
            "they are read: run the command again"
        )
    return list(found.values())


def _held(server: _Server, dataset: Any) -> dict[str, dict[str, Any]]:
    """Return pair_id -> what its record shows."""
    return {
        str(record.external_id): {item.name: item.value for item in record.metadata}
        | dict(record.fields or {})
        for record in _records(server, dataset, answers=False)
    }


def _say_differences(
    wanted: Sequence[Mapping[str, Any]],
    held: Mapping[str, Mapping[str, Any]],
    say: Callable[[str], None],
) -> None:
    """Say which pairs are there with other texts; an answer to them will be refused as such."""
    other = []
    for record in wanted:
        shown = record["fields"] | {name: record["metadata"][name] for name in ("id_a", "id_b")}
        known = held.get(record["id"])
        if known is not None and any(known.get(name) != shown[name] for name in shown):
            other.append(record["id"])
    if other:
        say(
            f"{len(other):,} pairs are in the data set with other texts or sides ({other[0]}, ...); "
            "they stay as they are"
        )


def _send(
    sdk: Any, dataset: Any, records: Sequence[Mapping[str, Any]], say: Callable[[str], None]
) -> None:
    """Send records in parts."""
    with step("sending pairs", len(records)) as advance:
        for start in range(0, len(records), RECORDS_A_CALL):
            part = []
            for record in records[start : start + RECORDS_A_CALL]:
                suggestions = [sdk.Suggestion(**item) for item in record.get("suggestions", ())]
                part.append(sdk.Record(**{**record, "suggestions": suggestions}))
            with _silent():
                dataset.records.log(part, batch_size=len(part))
            advance(len(part))
            done = start + len(part)
            if done < len(records):
                say(f"{done:,} of {len(records):,} pairs sent")


def _names(server: _Server, dataset: Any, people: set[str]) -> dict[str, str]:
    """Return UUID -> user name, as far as this user may see them."""
    if not people:
        return {}
    names = {str(user.id): user.username for user in dataset.workspace.users}
    if people - set(names):
        # Who has left the workspace, or labels as an owner without being in it. Owners see them.
        try:
            names |= {str(user.id): user.username for user in server.client.users.list()}
        except Exception as error:
            if getattr(error, "status_code", None) != 403:
                raise
    return names


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the SDK's own progress bars and log lines off the terminal."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
