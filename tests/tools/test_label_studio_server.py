"""Pushing to and pulling from Label Studio, against a server that behaves like it where it matters.

``tests/real_tools`` does the same with the real one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from pipelines.errors import RunFailed, UsageError
from pipelines.tools.batch import Batch
from pipelines.tools.label_studio import format
from pipelines.tools.label_studio.client import Client
from pipelines.tools.label_studio.server import LabelStudioServer
from pipelines.tools.server import Pushed, Say
from pipelines.verdicts.rows import RawVerdict
from tests.tools import MODEL, POLICY, batch_of, said, understood, why

TOKEN = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"
ADDRESS = "https://labels.example.org"


@dataclass
class Fault:
    """What the server answers once instead of doing its work, or ``after`` doing it.

    Attributes:
        path: the calls it is for: method and path.
        status, kind, body, headers: of the answer.
        after: whether the work is done all the same.
        times: how often.
        seconds: how long the answer takes.
    """

    path: str
    status: int = 500
    kind: str = "application/json"
    body: bytes = b'{"detail": "out of order"}'
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    times: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


class Refused(Exception):
    """The server says no."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(status)
        self.status, self.detail = status, detail


class Fake:
    """Projects, tasks and annotations in memory, with the ways of version 1.23.

    Importing the same pair again makes another task; pages end where they end (404 beyond); lists
    of projects have at most 100 a page; a project shows one model's predictions; while it is busy,
    what changes something is done twice.
    """

    def __init__(self) -> None:
        self.projects: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, list[dict[str, Any]]] = {}
        self.users = [
            {"id": 1, "email": "admin@example.org"},
            {"id": 3, "email": "Anna@example.org"},
            {"id": 4, "email": "bo@example.org"},
        ]
        self.access = TOKEN
        self.refreshes = 0
        self.faults: list[Fault] = []
        self.calls: list[Call] = []
        self.page_limit = 10_000
        self.body_limit = 1 << 30
        self.background = False
        self.busy = 0
        self._next = 100

    def number(self) -> int:
        self._next += 1
        return self._next

    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def answer(self, call: Call, size: int) -> tuple[int, str, dict[str, str], bytes]:
        self.calls.append(call)
        for fault in self.faults:
            if fault.times and re.fullmatch(fault.path, call.name):
                fault.times -= 1
                time.sleep(fault.seconds)
                if fault.after:
                    self.do(call, size)
                return fault.status, fault.kind, fault.headers, fault.body
        try:
            status, value = 201 if call.method == "POST" else 200, self.do(call, size)
        except Refused as refused:
            status, value = refused.status, {"detail": refused.detail}
        # As the real one does, which answers a token together with a session's cookie differently.
        cookie = {"Set-Cookie": "sessionid=stale; Path=/"}
        return (
            status,
            "application/json",
            cookie,
            b"" if value is None else json.dumps(value).encode(),
        )

    def do(self, call: Call, size: int) -> Any:
        if call.name == "POST /api/token/refresh/":
            if call.body != {"refresh": PERSONAL}:
                raise Refused(401, "Token is invalid")
            self.refreshes += 1
            self.access = f"access-{self.refreshes}"
            return {"access": self.access}
        kind, _, given = call.headers.get("Authorization", "").partition(" ")
        if (kind, given) != ("Bearer" if self.refreshes else "Token", self.access):
            raise Refused(401, "Invalid token.")
        if "Cookie" in call.headers:
            raise Refused(403, "CSRF Failed: CSRF token missing.")
        if size > self.body_limit:
            raise Refused(413, "Request body exceeded settings.DATA_UPLOAD_MAX_MEMORY_SIZE.")
        if call.path == "/api/current-user/whoami":
            return {"id": 1, "email": "admin@example.org"}
        one = re.fullmatch(r"/api/tasks/(\d+)/", call.path)
        if one:
            return self.task(call.method, int(one[1]))
        if call.path == "/api/users/":
            return self.users
        if call.path == "/api/projects/validate/":
            if "<Choices" not in call.body["label_config"]:
                raise Refused(400, "Validation failed")
            return None
        if call.name == "GET /api/projects/":
            return self.page(call, list(self.projects.values()), 100, "count", "results")
        if call.name == "POST /api/projects/":
            if not 3 <= len(call.body["title"]) <= 50:
                raise Refused(400, {"title": ["Project name is too long"]})
            if self.busy:
                self.add_project(**call.body)
            return self.add_project(**call.body)
        if call.path == "/api/tasks/":
            found = []
            for task in self.tasks[int(call.query["project"])]:
                shown = dict(task)
                if call.query.get("fields") != "all":
                    shown.pop("annotations")
                if call.query.get("resolve_uri") != "false":
                    shown["data"] = {k: f"/resolved/{v}" for k, v in task["data"].items()}
                found.append(shown)
            return self.page(call, found, self.page_limit, "total", "tasks")
        found_path = re.fullmatch(r"/api/projects/(\d+)/(import)?(?:s/(\d+)/)?", call.path)
        if not found_path or int(found_path[1]) not in self.projects:
            raise Refused(404, "Not found.")
        project = self.projects[int(found_path[1])]
        if found_path[3]:
            self.background_polls += 1
            return {
                "status": ("created", "in_progress", "completed")[min(self.background_polls, 2)]
            }
        if found_path[2]:
            for _ in range(2 if self.busy else 1):
                self.add_tasks(project["id"], call.body)
            if self.background:
                self.background_polls = 0
                return {"import": 7}
            return {"task_count": len(call.body), "task_ids": []}
        if call.method == "PATCH":
            project.update(call.body)
        if call.method == "DELETE":
            del self.projects[project["id"]], self.tasks[project["id"]]
            return None
        return project

    def task(self, method: str, number: int) -> Any:
        for tasks in self.tasks.values():
            for task in tasks:
                if task["id"] == number:
                    if method == "DELETE":
                        tasks.remove(task)
                        return None
                    return task
        raise Refused(404, "Not found.")

    def page(
        self, call: Call, rows: list[Any], limit: int, total: str, name: str
    ) -> dict[str, Any]:
        number, size = int(call.query["page"]), min(int(call.query["page_size"]), limit)
        part = rows[(number - 1) * size : number * size]
        if not part and number > 1:
            raise Refused(404, "Invalid page.")
        return {total: len(rows), name: part}

    def add_project(self, **settings: Any) -> dict[str, Any]:
        number = self.number()
        config = settings.get("label_config", "")
        controls = {}
        for match in re.finditer(
            r'<Choices name="(\w+)" toName="(\w+)".*?</Choices>', config, re.S
        ):
            labels = re.findall(r'<Choice value="([^"]*)"', match[0])
            controls[match[1]] = {"to_name": [match[2]], "labels": labels}
        self.projects[number] = {
            "id": number,
            "description": "",
            "model_version": "",
            "parsed_label_config": controls,
            **settings,
        }
        self.tasks[number] = []
        return self.projects[number]

    def add_tasks(self, project: int, tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            self.tasks[project].append(
                {"id": self.number(), "data": task["data"], "annotations": [], "drafts": []}
            )
            for prediction in task.get("predictions", ()):
                held = self.projects[project]
                held["model_version"] = held["model_version"] or prediction["model_version"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: otherwise each answer waits for an acknowledgement
    fake: Fake

    def _handle(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(size)
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        body = json.loads(raw) if raw else None
        call = Call(self.command, parts.path, query, dict(self.headers), body)
        status, kind, headers, data = self.fake.answer(call, size)
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        # Whoever has hung up meanwhile is part of these tests.
        with contextlib.suppress(ConnectionError):
            self.wfile.flush()

    do_GET = do_POST = do_PATCH = do_DELETE = _handle

    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass
class Served:
    fake: Fake
    url: str

    def open(self, token: str = TOKEN, **changes: Any) -> Client:
        return Client(self.url, token, **{"timeout": 5.0, "backoff": 0.0, **changes})

    def server(self) -> LabelStudioServer:
        client = self.open()
        client.check()
        return LabelStudioServer(client)

    def push(self, batch: Batch, say: Say = lambda line: None) -> Pushed:
        [pushed] = self.server().push(batch, say)
        return pushed

    def pull(self, say: Say = lambda line: None) -> bytes:
        return self.server().pull("tiny", 3, say)

    def held(self, project: int) -> list[str]:
        return [task["data"].get("item_id", "") for task in self.fake.tasks[project]]


def number_of(pushed: Pushed) -> int:
    """Return the number of the project that was pushed to."""
    return int(pushed.url.rpartition("/")[2])


@pytest.fixture
def served() -> Iterator[Served]:
    fake = Fake()
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Served(fake, f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()
    thread.join()


def many(number: int, **changes: Any) -> Batch:
    """Return a batch of so many pairs."""
    ads = [(f"a{place}", f"ad {place}") for place in range(2 * number)]
    return batch_of(ads, **changes)


def ids(batch: Batch) -> list[str]:
    return [item.item_id for item in batch.items]


# --- push -------------------------------------------------------------------------------------


def test_a_project_is_made_once_and_every_pair_is_in_it_once(served: Served) -> None:
    batch, lines = many(3), []
    first = served.push(batch, lines.append)
    [project] = served.fake.projects.values()
    url = f"{served.url}/projects/{project['id']}"
    assert first == Pushed("tiny v3", url, True, 3, 0, ())
    assert project["title"] == "tiny v3"
    assert project["description"].splitlines()[-1] == "ad-scout: tiny v3"
    assert (project["maximum_annotations"], project["show_collab_predictions"]) == (2, False)
    assert project["label_config"].encode() == format.config(batch)
    assert served.held(number_of(first)) == ids(batch)
    assert lines == [f"created the project 'tiny v3': {first.url}"]
    again = served.push(batch, lines.append)
    assert again == dataclasses.replace(first, created=False, added=0, present=3)
    assert served.held(number_of(first)) == ids(batch)
    assert len(lines) == 1


def test_the_policy_is_shown_sign_by_sign(served: Served) -> None:
    served.push(many(1))
    [project] = served.fake.projects.values()
    shown = project["expert_instruction"]
    assert "Bait is:<br>  &lt;b&gt;promises&lt;/b&gt; &amp; &quot;secrets&quot; for $100" in shown
    # The real server cleans the markup and spells it another way.
    project["expert_instruction"] = shown.replace("&quot;", '"').replace("<br>", "<br/>\n")
    assert served.push(many(1)).changed == ()


def test_rounds_of_a_version_share_a_project_and_versions_do_not(served: Served) -> None:
    first = served.push(many(2))
    both = served.push(many(5, round=2))
    assert (both.url, both.added, both.present) == (first.url, 3, 2)
    assert served.held(number_of(first)) == ids(many(5))
    other = served.push(many(2, task_version=4))
    assert other.url != first.url


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_push_goes_on(served: Served, after: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(LabelStudioServer, "records_a_call", 4)
    batch = many(10)
    project = number_of(served.push(many(1)))
    served.fake.faults = [Fault(r"POST .*/import", after=after)]
    with pytest.raises(RunFailed, match=r"import: HTTP 500 .*out of order.*not sent twice"):
        served.push(batch)
    assert len(served.held(project)) == (5 if after else 1)
    lines: list[str] = []
    again = served.push(batch, lines.append)
    assert (again.added, again.present) == ((5, 5) if after else (9, 1))
    assert served.held(project) == ids(batch)
    assert lines[0].endswith("pairs sent")


def test_single_ads_have_a_project_of_their_own_and_come_back_with_the_pairs(
    served: Served,
) -> None:
    batch = batch_of([(f"a{n}", f"ad {n}") for n in range(4)], sizes=(1, 2, 1))
    lines: list[str] = []
    pairs, single = served.server().push(batch, lines.append)
    assert (pairs.place, pairs.added) == ("tiny v3", 1)
    assert (single.place, single.added) == ("tiny v3, single ads", 2)
    assert [line.partition(":")[0] for line in lines] == [
        "created the project 'tiny v3'",
        "created the project 'tiny v3, single ads'",
    ]
    project = served.fake.projects[number_of(single)]
    assert set(project["parsed_label_config"]) == {"label"}
    assert "both ads" not in project["expert_instruction"]
    answer = choice("", "bait") | {"from_name": "label", "to_name": "text"}
    task = served.fake.tasks[number_of(single)][1]
    task["annotations"].append(
        {"id": 1, "completed_by": 3, "result": [answer], "was_cancelled": False}
    )
    resolved = understood(format.LabelStudio().read(served.pull(), "pulled.json"), batch)
    assert said(resolved) == [("a3", "positive", "anna")]
    assert (resolved.rejected, resolved.unanswered) == ((), 3)
    again = served.server().push(batch, lines.append)
    assert [(pushed.added, pushed.present) for pushed in again] == [(0, 1), (0, 2)]


def test_tasks_of_an_earlier_version_are_found_again(served: Served) -> None:
    number = number_of(served.push(many(2)))
    for task in served.fake.tasks[number]:
        task["data"]["pair_id"] = task["data"].pop("item_id")
    assert served.push(many(2)).added == 0


def test_a_project_is_found_by_its_line_on_any_page_under_any_title(served: Served) -> None:
    first = served.push(many(1))
    served.fake.projects[number_of(first)]["title"] = "Ads, spring"
    served.fake.projects[number_of(first)]["description"] = (
        "Ours.\r\n  ad-scout: tiny v3 \r\nCall Ann."
    )
    for place in range(250):
        served.fake.add_project(title=f"other {place}", description="ad-scout: tiny v33")
    served.fake.projects[number_of(first)] = served.fake.projects.pop(number_of(first))
    assert served.push(many(1)).url == first.url
    assert served.fake.projects[number_of(first)]["title"] == "Ads, spring"


def test_a_project_without_the_line_is_not_taken_for_ours(served: Served) -> None:
    number = number_of(served.push(many(1)))
    served.fake.projects[number]["description"] = "somebody tidied up"
    with pytest.raises(
        RunFailed,
        match=rf"/projects/{number}: is called 'tiny v3', .*lacks the line 'ad-scout: tiny v3'",
    ):
        served.push(many(1))
    assert len(served.fake.projects) == 1


def test_two_projects_with_the_line_are_refused(served: Served) -> None:
    first = number_of(served.push(many(1)))
    second = served.fake.add_project(title="copy", description="ad-scout: tiny v3")["id"]
    with pytest.raises(
        RunFailed, match=rf"projects/{first} and .*projects/{second}: each has the line"
    ):
        served.push(many(1))


def test_long_names_that_are_cut_to_one_title_stay_apart(served: Served) -> None:
    task = "n" * 64
    first = served.push(many(1, task=task))
    second = served.push(many(1, task=task, task_version=4))
    assert first.url != second.url
    assert {p["title"] for p in served.fake.projects.values()} == {"n" * 50}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda c: c["label_b"].update(labels=["bait", "ok", "skip"]),
            "label_b are bait, ok, skip, the",
        ),
        (
            lambda c: c["label_a"].update(to_name=["text_b"]),
            "label_a are labels of .*text_b.*, the task",
        ),
        (
            lambda c: c.pop("label_a"),
            "label_a are none, the task's are bait, fine, skip; give the task",
        ),
    ],
)
def test_a_project_with_other_labels_is_refused(
    served: Served, spoil: Callable[[Any], Any], message: str
) -> None:
    number = number_of(served.push(many(1)))
    spoil(served.fake.projects[number]["parsed_label_config"])
    with pytest.raises(RunFailed, match=rf"projects/{number}: its choices for {message}"):
        served.push(many(2))
    assert len(served.held(number)) == 1


def test_settings_follow_the_task_and_a_changed_layout_stays(served: Served) -> None:
    number = number_of(served.push(many(1)))
    layout = served.fake.projects[number]["label_config"] + "<!-- larger -->"
    served.fake.projects[number]["label_config"] = layout
    lines: list[str] = []
    policy = POLICY + " Mostly."
    changed = served.push(many(1, experts_per_ad=3, policy=policy), lines.append).changed
    assert changed == ("expert_instruction", "maximum_annotations")
    assert lines == [
        f"{served.url}/projects/{number}: changed expert_instruction, maximum_annotations"
    ]
    assert served.fake.projects[number]["maximum_annotations"] == 3
    assert "Mostly." in served.fake.projects[number]["expert_instruction"]
    assert served.fake.projects[number]["label_config"] == layout


def test_a_blind_push_holds_nothing_of_the_model(served: Served) -> None:
    served.push(many(2))
    sent = json.dumps([call.body for call in served.fake.calls])
    assert MODEL not in sent
    assert "predictions" not in sent.replace("show_collab_predictions", "")


def test_of_several_models_the_pushed_one_is_shown(served: Served) -> None:
    number = number_of(served.push(many(1, shown=True)))
    project = served.fake.projects[number]
    assert (project["show_collab_predictions"], project["model_version"]) == (True, MODEL)
    again = served.push(many(2, shown=True, model_id="model-8", round=2))
    assert (again.changed, project["model_version"]) == (("model_version",), "model-8")
    blind = served.push(many(3, round=3))
    assert (blind.changed, project["show_collab_predictions"]) == (
        ("show_collab_predictions",),
        False,
    )


def test_requests_that_are_too_large_are_divided(served: Served) -> None:
    served.fake.body_limit = 6_000
    number = number_of(served.push(many(40)))
    assert served.held(number) == ids(many(40))
    sizes = [len(call.body) for call in served.fake.calls if call.path.endswith("/import")]
    assert sizes[:2] == [40, 20]
    served.fake.body_limit = 100
    with pytest.raises(RunFailed, match="import: takes no request of this size; raise the limit"):
        served.push(many(41))


def test_an_import_in_the_background_is_awaited(served: Served) -> None:
    served.fake.background = True
    assert served.push(many(2)).added == 2
    polls = [name for name in served.fake.names() if name.endswith("/imports/7/")]
    assert len(polls) == 2
    served.fake.faults = [
        Fault(r"GET .*/imports/7/", 200, body=b'{"status": "failed", "error": "disk"}')
    ]
    with pytest.raises(RunFailed, match=r"imports/7/: failed: disk"):
        served.push(many(3))


def test_what_the_server_lost_and_what_it_doubled_is_said(served: Served) -> None:
    number = number_of(served.push(many(2)))
    served.fake.add_tasks(number, [{"data": dict(served.fake.tasks[number][0]["data"])}])
    served.fake.tasks[number][1]["data"]["text_b"] = "another ad"
    lines: list[str] = []
    assert served.push(many(2), lines.append).added == 0
    assert [
        line.split(" (")[0].removeprefix(f"{served.url}/projects/{number}: ") for line in lines
    ] == [
        "in the project with other texts or sides: 1 pair",
        "there more than once: 1 pair",
    ]
    answer = b'{"task_count": 1, "task_ids": [5]}'
    served.fake.faults = [Fault(r"POST .*/import", 201, body=answer)]
    with pytest.raises(RunFailed, match=r"lacks 1 pair of those sent .pair_0{15}2, "):
        served.push(many(3))
    served.fake.faults = [Fault(r"POST .*/import", 201, body=answer)]
    with pytest.raises(RunFailed, match="imported 1 of 2 tasks"):
        served.push(many(4))


def test_what_a_busy_server_did_twice_is_there_once(served: Served) -> None:
    served.fake.busy = True
    lines: list[str] = []
    number = number_of(served.push(many(3), lines.append))
    assert list(served.fake.projects) == [number]
    assert served.held(number) == ids(many(3))
    assert lines == [f"created the project 'tiny v3': {served.url}/projects/{number}"]
    before = list(served.fake.tasks[number])
    assert served.push(many(5), lines.append).added == 2
    assert served.held(number) == ids(many(5))
    # The older one of each stays.
    assert served.fake.tasks[number][:3] == before
    assert len(lines) == 1


@pytest.mark.parametrize("begun", ["annotations", "drafts"])
def test_a_copy_that_somebody_has_begun_stays(served: Served, begun: str, monkeypatch: Any) -> None:
    number = number_of(served.push(many(1)))
    served.fake.busy = True
    settle = LabelStudioServer.settle

    def meanwhile(*arguments: Any) -> list[str]:
        tasks = served.fake.tasks[number]
        assert [task["data"]["item_id"] for task in tasks] == [*ids(many(3)), *ids(many(3))[1:]]
        # Of the second pair the later copy, of the third both.
        for place in (2, 3, 4):
            tasks[place][begun].append({"id": 1})
        return settle(*arguments)

    monkeypatch.setattr(LabelStudioServer, "settle", meanwhile)
    lines: list[str] = []
    served.push(many(3), lines.append)
    left = [(task["data"]["item_id"], bool(task[begun])) for task in served.fake.tasks[number]]
    first, second, third = ids(many(3))
    assert left == [(first, False), (third, True), (second, True), (third, True)]
    assert [line.split(" (")[0].partition(": ")[2] for line in lines] == [
        "there more than once: 1 pair"
    ]


def test_copies_that_another_push_deleted_are_no_failure(served: Served, monkeypatch: Any) -> None:
    served.fake.busy = True
    served.fake.faults = [Fault(r"DELETE /api/tasks/\d+/", 404, times=1, after=True)]
    number = number_of(served.push(many(2)))
    assert served.held(number) == ids(many(2))
    served.fake.faults = [Fault(r"DELETE /api/tasks/\d+/", 403)]
    with pytest.raises(
        RunFailed, match=r"/api/tasks/\d+/: the access token's user may not do that"
    ):
        served.push(many(3))


# --- pull -------------------------------------------------------------------------------------


def choice(letter: str, label: str) -> dict[str, Any]:
    value = {"choices": [label]}
    return {
        "id": f"x{letter}",
        "from_name": f"label_{letter}",
        "to_name": f"text_{letter}",
        "type": "choices",
        "value": value,
    }


def answered(served: Served) -> int:
    """Have anna and bo answer four pairs in every way there is; return the project's number."""
    batch = batch_of([*((f"a{n}", f"ad number {n}") for n in range(8))])
    number = number_of(served.push(batch))
    tasks = served.fake.tasks[number]
    served.fake.add_tasks(number, [{"data": {"text": "somebody else's task"}}])

    def say(task: int, who: Any, result: list[Any], moment: int, skipped: bool = False) -> None:
        tasks[task]["annotations"].append(
            {
                "id": served.fake.number(),
                "completed_by": who,
                "result": result,
                "was_cancelled": skipped,
                "created_at": "2026-11-22T10:00:00.000000Z",
                "updated_at": f"2026-11-22T10:00:{moment:02d}.500000Z",
                "lead_time": 4.5,
                "created_ago": "1 minute",
                "parent_prediction": 9,
                "prediction": {"model_version": "m", "result": [choice("a", "fine")]},
            }
        )

    say(0, 3, [choice("a", "bait"), choice("b", "fine")], 9)
    say(0, 3, [choice("a", "fine"), choice("b", "fine")], 1)  # changed her mind since
    say(0, {"id": 4, "email": "ignored"}, [choice("a", "bait"), choice("b", "bait")], 2)
    say(1, 3, [], 3, skipped=True)
    say(1, 4, [choice("a", "fine")], 4)  # half
    say(2, 4, [choice("a", "odd"), choice("b", "bait")], 5)  # unknown label
    tasks[2]["drafts"] = [{"result": [choice("a", "bait")]}]
    return number


def test_answers_come_back_as_an_export_that_the_reader_knows(served: Served) -> None:
    answered(served)
    pulled = served.pull()
    tasks = json.loads(pulled)
    assert len(tasks) == 5 and sum(len(task["annotations"]) for task in tasks) == 6
    batch = batch_of([*((f"a{n}", f"ad number {n}") for n in range(8))])
    resolved = understood(format.LabelStudio().read(pulled, "pulled.json"), batch)
    assert said(resolved) == [
        ("a0", "negative", "anna"),
        ("a1", "negative", "anna"),
        ("a0", "positive", "bo"),
        ("a1", "positive", "bo"),
        ("a0", "positive", "anna"),
        ("a1", "negative", "anna"),
        ("a2", "skip", "anna"),
        ("a3", "skip", "anna"),
        ("a5", "positive", "bo"),
    ]
    assert sorted(reason for _, reason in why(resolved)) == [
        "half_pair",
        "not_readable_row",
        "unknown_label",
    ]
    assert (resolved.unanswered, resolved.changed_mind) == (3, 1)


def test_equal_answers_are_equal_bytes(served: Served) -> None:
    number = answered(served)
    before = served.pull()
    tasks = served.fake.tasks[number]
    for task in tasks:
        task["annotations"].reverse()
        task |= {"updated_at": "later", "is_labeled": True, "predictions": [1], "drafts": [1]}
        for annotation in task["annotations"]:
            annotation |= {"created_ago": "2 hours", "lead_time": 99.0, "updated_by": 4}
    tasks.reverse()
    served.fake.page_limit = 2  # a server may give smaller pages than it is asked for
    assert served.pull() == before
    for word in (b"prediction", b"draft", b"policy", b"lead_time"):
        assert word not in before
    tasks[-1]["annotations"].pop()
    assert served.pull() != before


def test_who_left_the_organization_keeps_a_number(served: Served) -> None:
    answered(served)
    served.fake.users = served.fake.users[:2]
    lines: list[str] = []
    pulled = served.pull(lines.append)
    assert "user numbers 4 answered, but are not in the organization any more" in lines[0]
    rows = list(format.LabelStudio().read(pulled, "f"))
    people = {row.expert for row in rows if isinstance(row, RawVerdict)}
    assert people >= {"Anna@example.org", "4"}


def test_an_ad_like_an_address_is_not_resolved(served: Served) -> None:
    served.push(batch_of([("a1", "s3://bucket/win"), ("a2", "gs://b/c")]))
    assert b'"s3://bucket/win"' in served.pull()


def test_pull_needs_a_project(served: Served) -> None:
    served.push(many(1, task_version=4))
    with pytest.raises(RunFailed, match=r"no project .* has the line 'ad-scout: tiny v3' in its"):
        served.pull()


def test_tasks_that_vanish_while_they_are_listed_are_noticed(served: Served) -> None:
    number = answered(served)
    body = json.dumps({"total": 9, "tasks": []}).encode()
    served.fake.faults = [Fault("GET /api/tasks/", 200, body=body)]
    with pytest.raises(
        RunFailed, match=rf"projects/{number}: lists 0 of 9 tasks; they change while"
    ):
        served.pull()


# --- the token --------------------------------------------------------------------------------


def test_the_token_is_in_the_environment() -> None:
    name = format.ACCESS.key
    assert format.ACCESS.read_token({name: f" {TOKEN}\n"}) == TOKEN
    with pytest.raises(UsageError, match="LABEL_STUDIO_API_KEY: is not set; put an access token"):
        format.ACCESS.read_token({name: ""})
    with pytest.raises(UsageError, match="holds blanks or other signs") as caught:
        format.ACCESS.read_token({name: "secret one\nX-Header: 1"})
    assert "secret" not in str(caught.value)


def test_a_personal_token_is_changed_for_short_lived_ones(served: Served) -> None:
    server = served.open(PERSONAL)
    assert server.check() == "admin@example.org"
    assert served.fake.names() == ["POST /api/token/refresh/", "GET /api/current-user/whoami"]
    served.fake.access = "expired meanwhile"
    [pushed] = LabelStudioServer(server).push(many(2), lambda line: None)
    assert pushed.added == 2
    assert served.fake.refreshes == 2
    sent = [call.headers.get("Authorization", "") for call in served.fake.calls]
    assert set(sent) == {"", "Bearer access-1", "Bearer access-2"}


def test_a_personal_token_that_is_none_is_refused(served: Served) -> None:
    with pytest.raises(
        RunFailed, match="refresh/: does not accept the access token in LABEL_STUDIO_API_KEY"
    ) as e:
        served.open("a.b.c").check()
    assert "a.b.c" not in str(e.value)
    served.fake.faults = [Fault("POST /api/token/refresh/", 200, body=b'{"access": "a\\nb"}')]
    with pytest.raises(RunFailed, match="answered POST with no access token"):
        served.open(PERSONAL).check()


@pytest.mark.parametrize("token", [TOKEN, PERSONAL])
def test_no_message_holds_the_token(served: Served, token: str, monkeypatch: Any) -> None:
    for status in (302, 400, 401, 403, 404, 413, 418, 429, 500):
        access = f"access-{served.fake.refreshes + 1}"
        echo = json.dumps({"detail": f"you sent {token} and {access}"}).encode()
        headers = {"Location": f"http://else.example.org/{token}"}
        served.fake.faults = [Fault(".*whoami", status, body=echo, headers=headers, times=9)]
        with pytest.raises(RunFailed) as caught:
            served.open(token, retries=0).check()
        assert token not in f"{caught.value!r}{caught.value.message}"
        assert token != PERSONAL or access not in caught.value.message
        assert caught.value.__cause__ is None
    # Not even its beginning, where a long answer is cut.
    for length in range(250, 300, 7):
        body = json.dumps({"detail": "x" * length + token}).encode()
        served.fake.faults = [Fault(".*whoami", 400, body=body)]
        with pytest.raises(RunFailed) as caught:
            served.open(token, retries=0).check()
        assert token[:4] not in caught.value.message
    assert token not in repr(served.open(token))


def test_neither_proxies_nor_netrc_nor_cookies_come_between(
    served: Served, monkeypatch: Any, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login ann password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(served.url, timeout=5)
    assert served.push(many(1)).added == 1
    for call in served.fake.calls:
        assert call.headers["Authorization"] == f"Token {TOKEN}"
        assert "Cookie" not in call.headers


# --- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("labels.example.org", "is no address of a server; write https://"),
        ("", "is no address of a server"),
        ("ftp://labels.example.org", "is no address of a server"),
        ("https://", "is no address of a server"),
        ("https://[::1", "is no address"),
        ("https://x:99999", "is no address"),
        ("https://ann:secret@labels.example.org", "may hold no user or password"),
        (f"{ADDRESS}/projects/3/data", "is a page of the server; give the server's own address"),
        (f"{ADDRESS}/?next=1", "is a page of the server"),
        (f"{ADDRESS}/user/login", "is a page of the server"),
        (f"{ADDRESS}/a b", "holds neither blanks nor special signs"),
        ("http://labels.example.org", "token would cross the network in plain text; use https"),
        ("http://10.0.0.7:8080", "set LABEL_STUDIO_ALLOW_PLAIN_HTTP=1"),
        ("http://localhost.example.org", "in plain text"),
    ],
)
def test_addresses_that_the_token_is_not_sent_to(url: str, message: str, monkeypatch: Any) -> None:
    monkeypatch.delenv(format.ACCESS.plain_http, raising=False)
    with pytest.raises(UsageError, match=message) as caught:
        Client(url, TOKEN)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (f"{ADDRESS}/", ADDRESS),
        (f"{ADDRESS}:8443/labels/", f"{ADDRESS}:8443/labels"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.9", "http://127.0.0.9"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_addresses_that_it_is_sent_to(url: str, kept: str) -> None:
    assert Client(url, TOKEN).url == kept


def test_plain_http_can_be_asked_for(monkeypatch: Any) -> None:
    monkeypatch.setenv(format.ACCESS.plain_http, "1")
    assert Client("http://labels.example.org", TOKEN).url == "http://labels.example.org"


def test_a_server_below_a_path(served: Served) -> None:
    served.fake.faults = [Fault("GET /labels/api/current-user/whoami", 200, body=b'{"email": "e"}')]
    assert Client(f"{served.url}/labels/", TOKEN).check() == "e"


# --- what goes wrong --------------------------------------------------------------------------

HTML = (b"<!doctype html><html>Sign in</html>", "text/html; charset=utf-8")
LEGACY = b'{"detail": "legacy token authentication has been disabled for this organization"}'


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault("", 401),
            r"does not accept the access token in LABEL_STUDIO_API_KEY .it says: out of order",
        ),
        (
            Fault("", 401, body=LEGACY),
            r"legacy tokens are switched off .* create a personal access",
        ),
        (
            Fault("", 403),
            r"the access token's user may not do that .it says: out of order.; it takes somebody",
        ),
        (Fault("", 404), r"whoami: not found: there is no Label Studio at this address"),
        (
            Fault("", 404, HTML[1], HTML[0]),
            r"there is no Label Studio at this address; give the one",
        ),
        (
            Fault("", 200, HTML[1], HTML[0]),
            r"answered GET with text/html instead of JSON, as login",
        ),
        (Fault("", 200, body=b"{]"), r"answered GET with broken JSON"),
        (Fault("", 200, body=b"[1]"), r"answered GET with a JSON list, expected an object"),
        (Fault("", 400, body=b'{"label_config": ["bad\\u001b[2J"]}'), r'HTTP 400 .*"bad.*u001b'),
        (
            Fault("", 400, body=b'{"detail": "' + b"x" * 999 + b'"}'),
            r"HTTP 400 .it says: x{290,300}…",
        ),
        (Fault("", 400, "text/plain", b"no"), r"HTTP 400, without a reason"),
        (
            Fault("", 302, headers={"Location": f"{ADDRESS}/login"}),
            r"redirects to https://labels.*only: gi",
        ),
        (
            Fault("", 503, HTML[1], HTML[0]),
            r"HTTP 503; the server is overloaded",
        ),
        (Fault("", 429), r"HTTP 429 .it says: out of order"),
    ],
)
def test_what_servers_answer_is_one_sentence(served: Served, fault: Fault, message: str) -> None:
    fault = dataclasses.replace(fault, path="GET /api/current-user/whoami", times=9)
    served.fake.faults = [fault]
    with pytest.raises(RunFailed, match=message) as caught:
        served.push(many(1))
    assert caught.value.message.startswith(served.url)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 620


def test_a_deleted_project_is_not_found(served: Served) -> None:
    served.fake.faults = [Fault("POST .*/import", 404)]
    with pytest.raises(RunFailed, match=r"import: not found .*was the project deleted meanwhile"):
        served.push(many(1))


def test_a_redirect_is_not_followed(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        where = f"http://127.0.0.1:{other.getsockname()[1]}/"
        served.fake.faults = [Fault(".*whoami", 307, headers={"Location": where})]
        with pytest.raises(
            RunFailed, match=f"redirects to {where}; the access token is sent to the named"
        ):
            served.push(many(1))
        with pytest.raises(BlockingIOError):
            other.accept()


def test_reading_is_tried_again_and_writing_only_when_it_was_not_begun(served: Served) -> None:
    served.fake.faults = [
        Fault("GET /api/projects/", 503, times=3),
        Fault("POST .*/import", 429, headers={"Retry-After": "0"}, times=2),
    ]
    number = number_of(served.push(many(2)))
    names = served.fake.names()
    assert names.index("POST /api/projects/validate/") == 5  # after whoami and four tries
    assert names.count(f"POST /api/projects/{number}/import") == 3
    assert served.held(number) == ids(many(2))
    served.fake.calls.clear()
    served.fake.faults = [Fault("POST .*/import", 503, headers={"Retry-After": "0"}, times=9)]
    with pytest.raises(RunFailed, match="HTTP 503"):
        served.push(many(3))
    assert served.fake.names().count(f"POST /api/projects/{number}/import") == 1


def test_the_server_says_when_to_try_again(served: Served) -> None:
    served.fake.faults = [Fault(".*whoami", 429, headers={"Retry-After": "1"})]
    begin = time.monotonic()
    served.open().check()
    assert time.monotonic() - begin >= 1


def test_a_server_that_does_not_answer(served: Served) -> None:
    served.fake.faults = [Fault(".*whoami", seconds=1.0, times=2)]
    with pytest.raises(RunFailed, match=r"127.0.0.1:\d+: no answer within 0.2 s; run the command"):
        served.open(timeout=0.2).check()
    served.fake.faults = [Fault("POST .*", seconds=1.0)]
    with pytest.raises(RunFailed, match=r"no answer within 0.2 s; .*not sent twice"):
        LabelStudioServer(served.open(timeout=0.2)).push(many(1), lambda line: None)


def test_a_connection_that_breaks(served: Served) -> None:
    served.fake.faults = [Fault(".*whoami", 200, headers={"Content-Length": "5000"}, times=9)]
    served.fake.faults[0].headers["Connection"] = "close"
    with pytest.raises(RunFailed, match=r"the connection broke .*; run the command again"):
        served.open(timeout=1.0).check()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RunFailed, match=rf"127.0.0.1:{port}: nothing listens there; is the server"):
        Client(f"http://127.0.0.1:{port}", TOKEN, backoff=0.0).check()


def test_plain_http_behind_an_address_with_tls(served: Served) -> None:
    with pytest.raises(RunFailed, match=r"no trusted TLS connection .*REQUESTS_CA_BUNDLE"):
        Client(served.url.replace("http:", "https:"), TOKEN, backoff=0.0).check()


def test_an_unknown_host(monkeypatch: Any) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunFailed, match=r"labels.example.org: no such host; check the address"):
        Client(ADDRESS, TOKEN, backoff=0.0).check()


def test_a_proxy_that_does_not_answer(monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for name in ("https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunFailed, match="the proxy that the environment names"):
        Client(ADDRESS, TOKEN, backoff=0.0).check()
