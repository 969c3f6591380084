"""Label Studio by its API: a round's pairs into a project, its answers out of it.

There is one project for each version of a task; its rounds accumulate there. A line in the project's
description, ``ad-scout: TASK vVERSION``, is how it is found again; titles may change. Importing a pair
twice would double its task, so only pairs that the project lacks are sent, and an interrupted push goes
on where it stopped.

A server with SQLite, the default, repeats a request by itself while somebody else writes, after half of
it was done: one call then makes two projects, or two tasks of each pair. Two pushes at the same time do
the same. So a push looks at what it left, and where something is there twice the older one stays; it
deletes only what came while it ran, and no task that anybody has begun. What is doubled all the same is
said (tasks) or refused by the next push (projects).

Why not Label Studio's own SDK: 2.1.2 brings 23 more packages, OpenCV, a code formatter and a data faker among
them, and needs a numpy below 2.3, against our 2.4. What is needed are a dozen calls.

The token is what can do harm here, so it comes from the environment, travels in one header over TLS or
to this very machine, follows no redirect, and is in no message.
"""

from __future__ import annotations

import html
import json
import os
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from pipelines.console.progress import step
from pipelines.console.summary import printable
from pipelines.errors import RunFailed
from pipelines.tools import label_studio, rows
from pipelines.tools.batch import Batch
from pipelines.tools.server_access import Access

KEY = "LABEL_STUDIO_API_KEY"
PLAIN_HTTP = "LABEL_STUDIO_ALLOW_PLAIN_HTTP"
ACCESS = Access(
    KEY,
    PLAIN_HTTP,
    "access token",
    "Label Studio shows it under Account & Settings",
    ("projects", "api", "user"),
)
TASKS_A_CALL = 250
TASKS_A_PAGE = 100
PROJECTS_A_PAGE = 100
_MARK = "ad-scout: "
_MAX_TITLE_CHARS = 50
_MAX_SAID_CHARS = 300
_CONNECT_SECONDS = 10.0
_MAX_WAIT_SECONDS = 60
_MAX_IMPORT_SECONDS = 600
# What the reader of exports looks at. The policy, predictions, drafts, times of viewing and whatever
# else changes without anybody answering stay on the server.
_DATA = ("pair_id", "id_a", "id_b", "text_a", "text_b", "task", "version", "round")
_ANNOTATION = ("id", "was_cancelled", "created_at", "updated_at")
_RESULT = ("from_name", "to_name", "type", "value")
_NO_LABEL_STUDIO = (
    "there is no Label Studio at this address; give the one that its front page has in the browser"
)
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


@dataclass(frozen=True, slots=True)
class PushResult:
    """What a push left behind.

    Attributes:
        project_id: number of the project.
        project_url: where experts label.
        created_project: whether there was none before.
        added: pairs that were imported now.
        present: pairs of the batch that the project held already.
        changed: settings of an older project that this push changed, by their names in the API.
    """

    project_id: int
    project_url: str
    created_project: bool
    added: int
    present: int
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A project's answers.

    Attributes:
        data: an export file (JSON), as :func:`pipelines.tools.label_studio.read` reads it, with
            e-mail addresses for experts. The same answers are the same bytes.
        names: number of each user who answered -> e-mail address; also for exports made by hand,
            which hold the numbers.
        project_url: where they come from.
        tasks, annotations: how many.
    """

    data: bytes
    names: dict[str, str]
    project_url: str
    tasks: int
    annotations: int


class Refusal(RunFailed):
    """The server says no, with an HTTP status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def token_from_environment(environment: Mapping[str, str] = os.environ) -> str:
    """Return the access token.

    Raises:
        UsageError: there is none, or it cannot be one.
    """
    return ACCESS.read_token(environment)


def push(url: str, token: str, batch: Batch, say: Callable[[str], None]) -> PushResult:
    """Create or update the task's project and import the pairs that it lacks.

    Args:
        url: the server's address.
        token: from :func:`token_from_environment`.
        batch: the pairs.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: an address that the token must not be sent to.
        RunFailed: the server cannot be reached or refuses, or the project is not this task's.
    """
    return push_to(Server(url, token), batch, say)


def pull(url: str, token: str, task: str, version: int, say: Callable[[str], None]) -> Pulled:
    """Return all answers in a task's project.

    Args:
        url: the server's address.
        token: from :func:`token_from_environment`.
        task: its name.
        version: of its policy.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: an address that the token must not be sent to.
        RunFailed: the server cannot be reached or refuses, or holds no such project.
    """
    return pull_from(Server(url, token), task, version, say)


def push_to(server: Server, batch: Batch, say: Callable[[str], None]) -> PushResult:
    """Push to a server that was opened before; see :func:`push`."""
    server.check()
    wanted = _settings(batch)
    project = _find(server, batch.task, batch.task_version)
    created = project is None
    if project is None:
        project = _create(server, batch, wanted, say)
    _check_labels(server, project, batch)
    changed = _update(server, project, wanted)
    if changed:
        say(f"{_address(server, project)}: changed {', '.join(changed)}")
    number, ids = _number(project), [pair.pair_id for pair in batch.pairs]
    held = _by_pair(server, number)
    tasks = json.loads(label_studio.export(batch)["tasks.json"])
    missing = [task for task in tasks if task["data"]["pair_id"] not in held]
    _say_differences(tasks, held, say)
    _import(server, number, missing, say)
    if batch.pairs and batch.pairs[0].left.label:
        changed += _show_model(server, number, batch.model_id)
    _settle(server, number, ids, {task["id"] for found in held.values() for task in found}, say)
    return PushResult(
        project_id=number,
        project_url=_address(server, project),
        created_project=created,
        added=len(missing),
        present=len(ids) - len(missing),
        changed=changed,
    )


def pull_from(server: Server, task: str, version: int, say: Callable[[str], None]) -> Pulled:
    """Pull from a server that was opened before; see :func:`pull`."""
    server.check()
    project = _find(server, task, version)
    if project is None:
        raise RunFailed(
            f"{server.url}: no project of this user's organization has the line "
            f"{marker(task, version)!r} in its description; push the pairs first"
        )
    emails = _emails(server)
    found, unknown = [], set()
    names: dict[str, str] = {}
    for raw in _tasks(server, _number(project), everything=True):
        annotations = _objects(server, "/api/tasks/", raw.get("annotations"))
        task_found = _canonical(raw, annotations, emails)
        for annotation in task_found["annotations"]:
            by = annotation["completed_by"]
            if isinstance(by, dict) and by["email"]:
                names[str(by["id"])] = by["email"]
            elif isinstance(by, dict):
                unknown.add(str(by["id"]))
        found.append(task_found)
    if unknown:
        say(
            f"{_address(server, project)}: user numbers {', '.join(sorted(unknown))} answered, but "
            "are not in the organization any more; their numbers stand for their names"
        )
    found.sort(key=lambda item: item["id"])
    lines = ",\n".join(json.dumps(item, sort_keys=True) for item in found)
    return Pulled(
        data=f"[\n{lines}\n]\n".encode(),
        names=dict(sorted(names.items())),
        project_url=_address(server, project),
        tasks=len(found),
        annotations=sum(len(item["annotations"]) for item in found),
    )


def marker(task: str, version: int) -> str:
    """Return the line of a description by which a project is found again."""
    return f"{_MARK}{task} v{version}"


# --- the server -------------------------------------------------------------------------------


class Server:
    """A Label Studio server, asked as one user.

    Args:
        url: its address, with a path where it does not stand at the root.
        token: a legacy token, or a personal access token (a JWT).
        timeout: seconds without any answer after which a call has failed.
        retries: how often a call is tried again that failed for a passing reason.
        backoff: seconds before the second new try; doubles with each.

    Raises:
        UsageError: no address of a server, or one that the token must not be sent to.
    """

    def __init__(
        self, url: str, token: str, timeout: float = 120.0, retries: int = 5, backoff: float = 0.5
    ) -> None:
        self.url, host, loopback = ACCESS.check(url, os.environ)
        self._timeout = timeout
        self._auth = _Auth(token)
        # A proxy of this machine's environment would be sent what is for this machine.
        self._proxies = {"no_proxy": host} if loopback else {}
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "ad-scout"
        # A session's cookie beside a token makes Label Studio ask for a CSRF token as well.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        retry = _Retry(
            total=retries,
            # A wrong port should not take long, nor a hanging server several times the time.
            connect=min(1, retries),
            read=min(1, retries),
            backoff_factor=backoff,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("GET",),
            redirect=0,
            raise_on_status=False,
            raise_on_redirect=False,
            retry_after_max=_MAX_WAIT_SECONDS,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def check(self) -> str:
        """Return the e-mail address of the token's user; find out whether the server answers.

        Raises:
            RunFailed: it does not, or knows no such token.
        """
        return str(self.object("GET", "/api/current-user/whoami").get("email", ""))

    def object(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Return the JSON object that a call answers with; see :meth:`call`."""
        answer = self.call(method, path, **arguments)
        if not isinstance(answer, dict):
            raise self._odd(method, path, f"a JSON {type(answer).__name__}, expected an object")
        return answer

    def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> Any:
        """Return the JSON value that a call answers with; None where it answers without a body.

        Raises:
            RunFailed: no answer, a refusal, or no JSON.
        """
        if self._auth.is_personal and not self._auth.header:
            self._refresh()
        response = self._send(method, path, params, body)
        if response.status_code == 401 and self._auth.is_personal:
            # An access token lives for five minutes. What was refused was not done: ask again.
            self._refresh()
            response = self._send(method, path, params, body)
        return self._value(method, path, response)

    def _refresh(self) -> None:
        self._auth.header = ""
        path = "/api/token/refresh/"
        answer = self._value("POST", path, self._send("POST", path, None, self._auth.refresh()))
        access = answer.get("access") if isinstance(answer, dict) else None
        if not isinstance(access, str) or not re.fullmatch(r"[!-~]+", access):
            raise self._odd("POST", path, "no access token")
        self._auth.grant(access)

    def _send(
        self, method: str, path: str, params: Mapping[str, Any] | None, body: Any
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                self.url + path,
                params=params,
                json=body,
                auth=self._auth,
                proxies=self._proxies,
                timeout=(_CONNECT_SECONDS, self._timeout),
                allow_redirects=False,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            # Its text holds the request's; ours says what to do. No cause: it would be printed.
            raise RunFailed(self._safe(f"{self.url}: {self._unreached(error)}")) from None

    def _value(self, method: str, path: str, response: requests.Response) -> Any:
        status = response.status_code
        if 200 <= status < 300 and not response.content:
            return None
        kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
        value = None
        if kind == "application/json":
            try:
                value = response.json()
            except (ValueError, RecursionError):
                raise self._odd(method, path, "broken JSON") from None
        if 200 <= status < 300:
            if kind != "application/json":
                raise self._odd(
                    method,
                    path,
                    f"{printable(kind, 40) or 'something'} instead of JSON, as login pages and proxies "
                    f"do; {_NO_LABEL_STUDIO}",
                )
            return value
        sentence = self._refusal(status, path, value, response)
        raise Refusal(self._safe(f"{self.url}{path}: {sentence}"), status)

    def _refusal(self, status: int, path: str, value: Any, response: requests.Response) -> str:
        """Return what a refusal means and what to do about it."""
        said = self.shown(_said(value))
        quoted = f" (it says: {said})" if said else ""
        if 300 <= status < 400:
            target = self.shown(response.headers.get("Location", ""))
            return (
                f"redirects to {target or 'nowhere'}; the token is sent to the named server only: give "
                "the address that it redirects to, if it is the same server"
            )
        if status == 401 and "legacy" in said.lower():
            return (
                f"legacy tokens are switched off for this organization{quoted}; create a personal "
                f"access token under Account & Settings and put it into {KEY}, or have the "
                "organization's owner switch legacy tokens on (Organization, Access Token Settings)"
            )
        if status == 401:
            return (
                f"does not accept the token in {KEY}{quoted}; copy it again from Account & Settings of "
                "this server, where a personal access token may also have expired"
            )
        if status == 403:
            return (
                f"the token's user may not do that{quoted}; use the token of somebody who manages the "
                "project"
            )
        if status == 404 and path == "/api/current-user/whoami":
            return f"not found: {_NO_LABEL_STUDIO}"
        if status == 404:
            return f"not found{quoted}; was the project deleted meanwhile? Run the command again"
        if status == 413:
            return "takes no request of this size; raise the limit of the proxy before the server"
        if status == 429 or status >= 500:
            return (
                f"HTTP {status} after several tries{quoted}; the server is overloaded or broken: look "
                "into its log, and run the command again later (what has arrived is not sent twice)"
            )
        return f"HTTP {status}{quoted or ', without a reason'}"

    def _unreached(self, error: Exception) -> str:
        """Return why there was no answer."""
        causes = list(_causes(error))

        def is_one(*kinds: type[BaseException]) -> bool:
            return any(isinstance(cause, kinds) for cause in causes)

        if is_one(requests.exceptions.SSLError, urllib3.exceptions.SSLError):
            detail = printable(str(causes[-1]), 160)
            return (
                f"no trusted TLS connection ({detail}); check the address, or name your own "
                "authority's certificate in REQUESTS_CA_BUNDLE"
            )
        if is_one(urllib3.exceptions.NameResolutionError):
            return "no such host; check the address and the network"
        if is_one(requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
            return "the proxy that the environment names (HTTPS_PROXY) does not answer"
        if is_one(ConnectionRefusedError):
            return "nothing listens there; is Label Studio running, and is the port right?"
        if is_one(requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
            return f"no connection within {_CONNECT_SECONDS:g} s; check address and network"
        if is_one(requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
            return (
                f"no answer within {self._timeout:g} s; run the command again (what has arrived is not "
                "sent twice)"
            )
        return (
            f"the connection broke ({type(causes[-1]).__name__}); run the command again (what has "
            "arrived is not sent twice)"
        )

    def _odd(self, method: str, path: str, what: str) -> RunFailed:
        return RunFailed(self._safe(f"{self.url}{path}: answered {method} with {what}"))

    def shown(self, text: str) -> str:
        """Return what the server says as a message may hold it: one line, short, without the token."""
        # Hidden first: what is cut off may be the half by which a token would be recognized.
        return printable(self._safe(text), _MAX_SAID_CHARS)

    def _safe(self, text: str) -> str:
        for secret in self._auth.secrets:
            text = text.replace(secret, "***")
        return text


class _Auth(AuthBase):
    """Sets the header itself: otherwise ``requests`` would prefer a password from ``~/.netrc``."""

    def __init__(self, token: str) -> None:
        self._token: Final = token
        self.is_personal = bool(_JWT.fullmatch(token))
        self.header = "" if self.is_personal else f"Token {token}"
        self.secrets = [token]

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.header:
            request.headers["Authorization"] = self.header
        return request

    def refresh(self) -> dict[str, str]:
        """Return what asks for a new access token."""
        return {"refresh": self._token}

    def grant(self, access: str) -> None:
        """Use a new access token from now on."""
        self.header = f"Bearer {access}"
        self.secrets.append(access)


class _Retry(urllib3.Retry):
    """Retries reading calls; of the others only what the server says it did not even begin."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        if status_code == 429:
            return bool(self.total)
        return super().is_retry(method, status_code, has_retry_after)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what is behind it, as the HTTP libraries wrap it."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return
        yield seen
        inner = getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in seen.args if isinstance(arg, BaseException)), None)
        seen = inner or seen.__cause__ or seen.__context__


def _said(value: Any) -> str:
    """Return what the server says is wrong."""
    if isinstance(value, dict):
        value = value.get("validation_errors") or value.get("detail") or value
    if not value:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- projects ---------------------------------------------------------------------------------


def _settings(batch: Batch) -> dict[str, Any]:
    """Return a project's settings as the API takes them."""
    shown = any(pair.left.label for pair in batch.pairs)
    return {
        "title": _title(batch.task, batch.task_version),
        "description": (
            "Pairs of ads for experts to label. Keep the next line: it is how ad-scout finds this "
            f"project again.\n{marker(batch.task, batch.task_version)}"
        ),
        "label_config": label_studio.config(batch).decode(),
        "expert_instruction": _instruction(batch),
        "show_instruction": True,
        "maximum_annotations": batch.experts_per_ad,
        "show_collab_predictions": shown,
    }


def _instruction(batch: Batch) -> str:
    """Return the instructions, as HTML that shows every sign of the policy as itself."""

    def quote(text: str) -> str:
        return html.escape(rows.holdable(text.strip())).replace("\n", "<br>")

    return rows.filled("label_studio_instructions.html", batch, quote).decode()


def _plain(markup: Any) -> str:
    """Return the words of an instruction: the server spells markup its own way."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", str(markup or ""))).split())


def _find(server: Server, task: str, version: int) -> dict[str, Any] | None:
    """Return the task's project.

    Raises:
        RunFailed: there are several, or one that only looks like it.
    """
    ours, others = _named(server, task, version)
    line, title = marker(task, version), _title(task, version)
    if len(ours) > 1:
        places = " and ".join(_address(server, project) for project in ours)
        raise RunFailed(
            f"{places}: each has the line {line!r} in its description; delete it from all but one"
        )
    if not ours and others:
        raise RunFailed(
            f"{_address(server, others[0])}: is called {title!r}, but its description lacks the line "
            f"{line!r}; add the line if it is the task's project, otherwise rename the project"
        )
    return ours[0] if ours else None


def _create(
    server: Server, batch: Batch, wanted: Mapping[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the task's new project."""
    config = {"label_config": wanted["label_config"]}
    server.call("POST", "/api/projects/validate/", body=config)
    made = server.object("POST", "/api/projects/", body=wanted)
    ours, _ = _named(server, batch.task, batch.task_version)
    # Whoever else makes one at this moment chooses the same.
    project = min(ours, key=_number, default=made)
    if _number(project) != _number(made):
        server.call("DELETE", f"/api/projects/{_number(made)}/")
    say(f"created the project {wanted['title']!r}: {_address(server, project)}")
    return project


def _named(
    server: Server, task: str, version: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the projects with the task's line, and those that have only its title."""
    line, title = marker(task, version), _title(task, version)
    ours, others = [], []
    for project in _projects(server):
        lines = [part.strip() for part in str(project.get("description") or "").splitlines()]
        if line in lines:
            ours.append(project)
        elif project.get("title") == title and not any(part.startswith(_MARK) for part in lines):
            # Long names are cut, so that another version's project may have this title too.
            others.append(project)
    return ours, others


def _title(task: str, version: int) -> str:
    return f"{task} v{version}"[:_MAX_TITLE_CHARS]


def _projects(server: Server) -> Iterator[dict[str, Any]]:
    page, seen, path = 1, 0, "/api/projects/"
    while True:
        answer = server.object("GET", path, params={"page": page, "page_size": PROJECTS_A_PAGE})
        found = _objects(server, path, answer.get("results"))
        yield from found
        seen += len(found)
        if not found or seen >= int(answer.get("count") or 0):
            return
        page += 1


def _check_labels(server: Server, project: Mapping[str, Any], batch: Batch) -> None:
    """Refuse a project whose answers could not be read as this task's."""
    root = ET.fromstring(label_studio.config(batch))  # noqa: S314 (written by this project)
    controls = project.get("parsed_label_config")
    for control in root.iter("Choices"):
        name, to_name = control.attrib["name"], control.attrib["toName"]
        wanted = [choice.attrib["value"] for choice in control.iter("Choice")]
        known = controls.get(name) if isinstance(controls, dict) else None
        found = known.get("labels") if isinstance(known, dict) else None
        if not isinstance(known, dict) or not isinstance(found, list) or set(found) != set(wanted):
            shown = ", ".join(printable(str(label), 40) for label in found or []) or "none"
        elif known.get("to_name") != [to_name]:
            shown = f"labels of {printable(json.dumps(known.get('to_name')), 40)}"
        else:
            continue
        raise RunFailed(
            f"{_address(server, project)}: its choices for {name} are {shown}, the task's are "
            f"{', '.join(wanted)}; give the task another version, or set the labeling interface to "
            "config.xml of `scout export --tool label-studio`"
        )


def _update(
    server: Server, project: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[str, ...]:
    """Bring a project's settings up to date; return which changed.

    Title, description and layout stay as somebody may have changed them.
    """
    changes = {
        name: wanted[name]
        for name in ("show_instruction", "maximum_annotations", "show_collab_predictions")
        if project.get(name) != wanted[name]
    }
    if _plain(project.get("expert_instruction")) != _plain(wanted["expert_instruction"]):
        changes["expert_instruction"] = wanted["expert_instruction"]
    if changes:
        server.call("PATCH", f"/api/projects/{_number(project)}/", body=changes)
    return tuple(sorted(changes))


def _show_model(server: Server, number: int, model_id: str) -> tuple[str, ...]:
    """Have the predictions of this model shown: Label Studio shows those of one version."""
    path = f"/api/projects/{number}/"
    if server.object("GET", path).get("model_version") == model_id:
        return ()
    server.call("PATCH", path, body={"model_version": model_id})
    return ("model_version",)


def _number(thing: Mapping[str, Any]) -> int:
    """Return the number of a project or task."""
    number = thing.get("id")
    if not isinstance(number, int):
        raise RunFailed(
            f"the server names something without a number: {printable(str(number), 40)}"
        )
    return number


def _address(server: Server, project: Mapping[str, Any]) -> str:
    return f"{server.url}/projects/{_number(project)}"


# --- tasks ------------------------------------------------------------------------------------


def _tasks(server: Server, number: int, everything: bool) -> Iterator[dict[str, Any]]:
    """Yield a project's tasks, each once, with their annotations if asked for.

    Raises:
        RunFailed: tasks disappear while they are listed.
    """
    path, page = "/api/tasks/", 1
    seen: set[Any] = set()
    params: dict[str, Any] = {"project": number, "page_size": TASKS_A_PAGE}
    # Otherwise an ad that begins like the address of a storage would be rewritten.
    params["resolve_uri"] = "false"
    if everything:
        params["fields"] = "all"
    with step("listing the project's pairs") as listed:
        while True:
            answer = server.object("GET", path, params={**params, "page": page})
            found = _objects(server, path, answer.get("tasks"))
            total = int(answer.get("total") or 0)
            listed.total = total
            listed(len(found))
            for task in found:
                if task.get("id") not in seen:
                    seen.add(task.get("id"))
                    yield task
            if len(seen) >= total:
                return
            if not found:
                raise RunFailed(
                    f"{server.url}/projects/{number}: lists {len(seen):,} of {total:,} tasks; they "
                    "change while they are read: run the command again"
                )
            page += 1


def _objects(server: Server, path: str, values: Any) -> list[dict[str, Any]]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise RunFailed(
            f"{server.url}{path}: answered without a list of objects; {_NO_LABEL_STUDIO}"
        )
    return values


def _data(task: Mapping[str, Any]) -> dict[str, Any]:
    data = task.get("data")
    return data if isinstance(data, dict) else {}


def _by_pair(server: Server, number: int) -> dict[str, list[dict[str, Any]]]:
    """Return pair_id -> its tasks, the oldest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for task in _tasks(server, number, everything=False):
        pair = _data(task).get("pair_id")
        if isinstance(pair, str):
            found.setdefault(pair, []).append(task)
    return {pair: sorted(tasks, key=_number) for pair, tasks in found.items()}


def _settle(
    server: Server, number: int, ids: Sequence[str], known: set[int], say: Callable[[str], None]
) -> None:
    """Make sure that every pair is there once.

    Args:
        server: the server.
        number: of the project.
        ids: the pairs that were pushed.
        known: numbers of the tasks that were there before.
        say: told what is still there more than once.

    Raises:
        RunFailed: a pair is not there.
    """
    now = _by_pair(server, number)
    place = f"{server.url}/projects/{number}"
    lost = [id for id in ids if id not in now]
    if lost:
        raise RunFailed(
            f"{place}: lacks {len(lost):,} pairs that were imported ({lost[0]}, ...); push again"
        )
    doubled = [id for id in ids if len(now[id]) > 1 and _copies_left(server, now[id], known)]
    if doubled:
        say(
            f"{place}: {len(doubled):,} pairs are there more than once ({doubled[0]}, ...), imported by "
            "hand or by two pushes at the same time; experts may label them twice, their last answer "
            "counts"
        )


def _copies_left(server: Server, tasks: Sequence[Mapping[str, Any]], known: set[int]) -> bool:
    """Delete new copies of a pair that nobody has begun; return whether more than one is left."""
    idle = [task for task in tasks if task["id"] not in known and not _is_begun(server, task)]
    if len(idle) == len(tasks):
        # Whoever else settles this at the moment keeps the same one.
        idle = idle[1:]
    for task in idle:
        _unless_gone(server, "DELETE", task)
    return len(tasks) - len(idle) > 1


def _is_begun(server: Server, task: Mapping[str, Any]) -> bool:
    found = _unless_gone(server, "GET", task)
    return isinstance(found, dict) and any(
        found.get(name) for name in ("annotations", "drafts", "draft_exists")
    )


def _unless_gone(server: Server, method: str, task: Mapping[str, Any]) -> Any:
    try:
        return server.call(method, f"/api/tasks/{_number(task)}/")
    except Refusal as refusal:
        if refusal.status != 404:
            raise
        return None


def _say_differences(
    tasks: Sequence[Mapping[str, Any]],
    held: Mapping[str, Sequence[Mapping[str, Any]]],
    say: Callable[[str], None],
) -> None:
    """Say which pairs are there with other texts; an answer to them will be refused as such."""
    names = ("id_a", "id_b", "text_a", "text_b")
    other = []
    for task in tasks:
        wanted = task["data"]
        shown = [_data(found) for found in held.get(wanted["pair_id"], ())]
        if any(data.get(name) != wanted[name] for data in shown for name in names):
            other.append(wanted["pair_id"])
    if other:
        say(
            f"{len(other):,} pairs are in the project with other texts or sides ({other[0]}, ...); "
            "they stay as they are"
        )


def _import(
    server: Server, number: int, tasks: Sequence[Mapping[str, Any]], say: Callable[[str], None]
) -> None:
    """Import tasks in parts, smaller ones where the server takes no large requests."""
    path = f"/api/projects/{number}/import"
    size, done = TASKS_A_CALL, 0
    with step("sending pairs", len(tasks)) as advance:
        while done < len(tasks):
            part = list(tasks[done : done + size])
            try:
                answer = server.object(
                    "POST", path, params={"commit_to_project": "true"}, body=part
                )
            except Refusal as refusal:
                if refusal.status != 413 or len(part) == 1:
                    raise
                size = len(part) // 2
                continue
            if "import" in answer:
                _await_import(server, f"/api/projects/{number}/imports/{answer['import']}/")
            elif answer.get("task_count") != len(part):
                raise RunFailed(
                    f"{server.url}{path}: imported {printable(str(answer.get('task_count')), 20)} of "
                    f"{len(part)} tasks; look into the server's log"
                )
            done += len(part)
            advance(len(part))
            if done < len(tasks):
                say(f"{done:,} of {len(tasks):,} pairs imported")


def _await_import(server: Server, path: str) -> None:
    """Wait for an import that the server does in the background, as the paid editions do."""
    end = time.monotonic() + _MAX_IMPORT_SECONDS
    pause = 0.1
    while time.monotonic() < end:
        answer = server.object("GET", path)
        if answer.get("status") == "completed":
            return
        if answer.get("status") == "failed":
            raise RunFailed(
                f"{server.url}{path}: failed: {server.shown(_said(answer.get('error')))}"
            )
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
    raise RunFailed(
        f"{server.url}{path}: not done after {_MAX_IMPORT_SECONDS} s; push again when it is, not before: "
        "pairs could be doubled"
    )


def _emails(server: Server) -> dict[int, str]:
    """Return number -> e-mail address of the organization's users."""
    path = "/api/users/"
    answer = server.call("GET", path)
    if isinstance(answer, dict):
        answer = answer.get("results")
    return {
        user["id"]: str(user.get("email") or "")
        for user in _objects(server, path, answer)
        if isinstance(user.get("id"), int)
    }


def _canonical(
    task: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], emails: Mapping[int, str]
) -> dict[str, Any]:
    """Return what a task says, without what changes when nobody answers."""
    found = []
    for annotation in annotations:
        results = annotation.get("result")
        if isinstance(results, list):
            results = [
                {name: item[name] for name in _RESULT if name in item}
                if isinstance(item, dict)
                else item
                for item in results
            ]
        kept = {name: annotation.get(name) for name in _ANNOTATION}
        by = annotation.get("completed_by")
        if isinstance(by, dict):
            by = by.get("id")
        if isinstance(by, int):
            by = {"id": by, "email": emails.get(by, "")}
        found.append({**kept, "completed_by": by, "result": results})
    found.sort(key=lambda item: (str(item["updated_at"]), str(item["id"])))
    data = {name: value for name, value in _data(task).items() if name in _DATA}
    return {"id": task.get("id"), "data": data, "annotations": found}
