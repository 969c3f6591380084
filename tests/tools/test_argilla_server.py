"""Argilla's own SDK against a server in this process that answers as Argilla's does.

What the fake does was read in the server's sources (argilla-server, 2.x): its limits, its upsert by
``external_id`` that leaves fields alone, discarded responses whose ``values`` are null, who may list
users.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipelines.errors import RunFailed, UsageError
from pipelines.tools.argilla import format
from pipelines.tools.argilla import server as argilla_server
from pipelines.tools.argilla.server import ArgillaServer
from pipelines.tools.batch import Batch
from pipelines.tools.server import Pushed, Say
from tests.tools import FIELDS, MODEL, batch_of, check_schema, said, sample, understood, why

TOKEN = "argilla.key-that-nobody-may-see"
NOW = "2026-11-22T09:00:00"
ANNA, BO, EVE = (f"0c5e6a3e-7b0f-4bd4-8b5a-4a5f6a1d2c0{n}" for n in (1, 2, 3))
Answer = tuple[int, Any]
READER = format.Argilla()


def push(url: str, token: str, batch: Batch, say: Say, environment: dict[str, str]) -> Pushed:
    """Push a batch whose items go into one data set."""
    with ArgillaServer.connected(url, token, environment) as server:
        [pushed] = server.push(batch, say)
    return pushed


def pull(
    url: str, token: str, task: str, version: int, say: Say, environment: dict[str, str]
) -> bytes:
    with ArgillaServer.connected(url, token, environment) as server:
        return server.pull(task, version, say)


def ident(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))))


class Argilla(ThreadingHTTPServer):
    """A server with one user, who owns it, and two experts in its workspace."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.calls: list[tuple[str, str]] = []
        self.workspaces = ["ads"]
        self.datasets: dict[str, dict[str, Any]] = {}
        self.users = {ANNA: "anna", BO: "bo"}
        self.members = [ANNA, BO]
        self.owner = True
        self.frozen_distribution = False
        # Path pattern -> what is answered instead, once or always.
        self.broken: dict[str, Callable[[], Answer]] = {}

    # --- what tests do on the server's side ---

    @property
    def dataset(self) -> dict[str, Any]:
        [found] = self.datasets.values()
        return found

    def records(self) -> list[dict[str, Any]]:
        return list(self.dataset["records"].values())

    def answer(self, pair: int, user: str, status: str, values: Any) -> None:
        """Answer a pair as the web page does: one response a person, the last one stays."""
        record = self.records()[pair]
        if isinstance(values, dict):
            values = {name: {"value": value} for name, value in values.items()}
        record["responses"] = [r for r in record["responses"] if r["user_id"] != user]
        record["responses"].append(
            {
                "id": ident(record["id"], user),
                "values": values,
                "status": status,
                "record_id": record["id"],
                "user_id": user,
                "inserted_at": NOW,
                "updated_at": NOW,
            }
        )

    # --- what the SDK asks ---

    def reply(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        rules: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", r"/me", lambda: (200, self._user(ident("me"), "me"))),
            ("GET", r"/me/workspaces", lambda: items(map(self._workspace, self.workspaces))),
            ("GET", r"/me/datasets", lambda: items(map(self._dataset, self.datasets.values()))),
            ("GET", r"/workspaces/([^/]+)", self._get_workspace),
            ("GET", r"/workspaces/([^/]+)/users", lambda _: items(map(self._named, self.members))),
            ("GET", r"/users", self._list_users),
            ("POST", r"/datasets", lambda: self._create(body)),
            ("GET", r"/datasets/([^/]+)", lambda id: self._with(id, self._dataset)),
            ("PATCH", r"/datasets/([^/]+)", lambda id: self._patch(id, body)),
            (
                "DELETE",
                r"/datasets/([^/]+)",
                lambda id: (200, self._dataset(self.datasets.pop(id))),
            ),
            ("PUT", r"/datasets/([^/]+)/publish", self._publish),
            ("GET", r"/datasets/([^/]+)/progress", self._progress),
            ("PUT", r"/datasets/([^/]+)/records/bulk", lambda id: self._upsert(id, body)),
            ("GET", r"/datasets/([^/]+)/records", lambda id: self._list_records(id, query)),
            (
                "POST",
                r"/datasets/([^/]+)/(fields|questions|metadata-properties)",
                lambda id, kind: self._add(id, kind, body),
            ),
            (
                "GET",
                r"/(?:me/)?datasets/([^/]+)/(fields|questions|metadata-properties|vectors-settings)",
                lambda id, kind: self._with(id, lambda found: {"items": found.get(kind, [])}),
            ),
        ]
        for pattern, answer in self.broken.items():
            if re.fullmatch(pattern, f"{method} {path}"):
                return answer()
        for verb, pattern, rule in rules:
            found = re.fullmatch("/api/v1" + pattern, path)
            if found and verb == method:
                return rule(*found.groups())
        raise AssertionError(f"the fake knows no {method} {path}")

    def _user(self, id: str, name: str) -> dict[str, Any]:
        role = "owner" if self.owner else "admin"
        plain = {"id": id, "username": name, "first_name": name, "last_name": None, "role": role}
        return plain | {"inserted_at": NOW, "updated_at": NOW}

    def _named(self, id: str) -> dict[str, Any]:
        return self._user(id, self.users[id])

    def _list_users(self) -> Answer:
        if not self.owner:
            return refusal(403, "Operation not allowed")
        return items(map(self._named, self.users))

    def _workspace(self, name: str) -> dict[str, Any]:
        return {"id": ident("w", name), "name": name, "inserted_at": NOW, "updated_at": NOW}

    def _get_workspace(self, id: str) -> Answer:
        return 200, next(self._workspace(n) for n in self.workspaces if ident("w", n) == id)

    def _with(self, id: str, show: Callable[[dict[str, Any]], Any]) -> Answer:
        if id not in self.datasets:
            return refusal(404, f"Dataset with id `{id}` not found")
        return 200, show(self.datasets[id])

    def _dataset(self, found: dict[str, Any]) -> dict[str, Any]:
        hidden = ("records", "fields", "questions", "metadata-properties")
        shown = {name: value for name, value in found.items() if name not in hidden}
        return shown | {"last_activity_at": NOW, "inserted_at": NOW, "updated_at": NOW}

    def _create(self, body: dict[str, Any]) -> Answer:
        for found in self.datasets.values():
            if (found["name"], found["workspace_id"]) == (body["name"], body["workspace_id"]):
                return refusal(409, f"Dataset with name `{body['name']}` already exists")
        id = ident(body["workspace_id"], body["name"])
        assert 1 <= len(body["name"]) <= 200
        one = {"strategy": "overlap", "min_submitted": 1}
        new = {"status": "draft", "guidelines": None, "distribution": one, "records": {}}
        self.datasets[id] = {"allow_extra_metadata": True, **new, **body, "id": id}
        return 201, self._dataset(self.datasets[id])

    def _patch(self, id: str, body: dict[str, Any]) -> Answer:
        found = self.datasets[id]
        if len(body.get("guidelines") or "x") > 10_000:
            return refusal(422, "String should have at most 10000 characters")
        answered = any(record["responses"] for record in found["records"].values())
        if body.get("distribution") and self.frozen_distribution and answered:
            return refusal(422, "Distribution settings can't be modified")
        found |= {name: value for name, value in body.items() if name != "id"}
        return 200, self._dataset(found)

    def _publish(self, id: str) -> Answer:
        found = self.datasets[id]
        required = any(question["required"] for question in found.get("questions", []))
        if found["status"] == "ready" or not found.get("fields") or not required:
            return refusal(422, "Dataset cannot be published")
        found["status"] = "ready"
        return 200, self._dataset(found)

    def _progress(self, id: str) -> Answer:
        total = len(self.datasets[id]["records"])
        return 200, {"total": total, "completed": 0, "pending": total, "users": []}

    def _add(self, id: str, kind: str, body: dict[str, Any]) -> Answer:
        assert re.fullmatch(r"(?=.*[a-z0-9])[a-z0-9_-]+", body["name"])
        made = {**body, "id": ident(id, kind, body["name"]), "dataset_id": id}
        self.datasets[id].setdefault(kind, []).append(
            made | {"inserted_at": NOW, "updated_at": NOW}
        )
        return 201, self.datasets[id][kind][-1]

    def _upsert(self, id: str, body: dict[str, Any]) -> Answer:
        found = self.datasets[id]
        assert found["status"] == "ready" and 1 <= len(body["items"]) <= 500
        known = {item["name"] for item in found["metadata-properties"]}
        options = {q["id"]: q["settings"].get("options") for q in found["questions"]}
        made, updated = [], []
        for item in body["items"]:
            assert set(item["metadata"]) <= known and not item["responses"]
            for suggestion in item["suggestions"]:
                values = [option["value"] for option in options[suggestion["question_id"]]]
                assert suggestion["value"] in values
            record = found["records"].get(item["external_id"])
            if record is None:
                record = {
                    "id": ident(id, item["external_id"]),
                    "status": "pending",
                    "fields": item["fields"],
                    "external_id": item["external_id"],
                    "responses": [],
                    "suggestions": item["suggestions"],
                    "dataset_id": id,
                    "inserted_at": NOW,
                    "updated_at": NOW,
                }
                found["records"][item["external_id"]] = record
            else:
                updated.append(record["id"])
            record["metadata"] = item["metadata"]
            made.append(shown_record(record, {"suggestions"}))
        return 200, {"items": made, "updated_item_ids": updated}

    def _list_records(self, id: str, query: dict[str, list[str]]) -> Answer:
        offset, limit = int(query["offset"][0]), int(query["limit"][0])
        assert 1 <= limit <= 1000
        everything = list(self.datasets[id]["records"].values())[offset : offset + limit]
        return items(shown_record(r, set(query.get("include", ()))) for r in everything)


def shown_record(record: dict[str, Any], include: set[str]) -> dict[str, Any]:
    """Return a record as the server shows it: relations that were not asked for are left out."""
    relations = {"responses", "suggestions"}
    return {name: value for name, value in record.items() if name not in relations - include}


def items(found: Any) -> Answer:
    return 200, {"items": list(found)}


def refusal(status: int, detail: str) -> Answer:
    return status, {"detail": detail}


class _Handler(BaseHTTPRequestHandler):
    server: Argilla
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: otherwise each answer waits 40 ms for an acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(size)
        parts = urllib.parse.urlsplit(self.path)
        self.server.calls.append((self.command, parts.path))
        if self.headers.get("X-Argilla-Api-Key") != TOKEN:
            status, value = refusal(401, f"no user for {self.headers.get('X-Argilla-Api-Key')}")
        else:
            status, value = self.server.reply(
                self.command,
                parts.path,
                urllib.parse.parse_qs(parts.query),
                json.loads(raw) if raw else None,
            )
        page = isinstance(value, str)
        data = value.encode() if page else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if page else "application/json")
        if 300 <= status < 400:
            self.send_header("Location", "https://elsewhere.example.org/")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Argilla]:
    with Argilla() as fake:
        thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        fake.shutdown()
        thread.join()


@pytest.fixture
def heard() -> list[str]:
    return []


def sent(server: Argilla) -> int:
    return sum(method == "PUT" and path.endswith("/bulk") for method, path in server.calls)


# --- out --------------------------------------------------------------------------------------


def test_a_push_makes_the_data_set(
    server: Argilla, heard: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    result = push(server.url, TOKEN, batch_of(experts_per_ad=3), heard.append, {})
    made = server.dataset
    assert (result.place, result.created) == ("tiny v3", True)
    assert (result.added, result.present, result.changed) == (2, 0, ())
    assert result.url == f"{server.url}/dataset/{made['id']}/annotation-mode"
    assert heard == [f"created the data set 'tiny v3': {result.url}"]
    assert (made["name"], made["status"], made["workspace_id"]) == (
        "tiny v3",
        "ready",
        ident("w", "ads"),
    )
    assert made["distribution"] == {"strategy": "overlap", "min_submitted": 3}
    assert "for $100, {{ad}}." in made["guidelines"]
    assert [field["name"] for field in made["fields"]] == ["text_a", "text_b"]
    assert not any(field["settings"]["use_markdown"] for field in made["fields"])
    labels = [q["settings"].get("options") for q in made["questions"]]
    assert [[o["value"] for o in options or []] for options in labels] == [
        ["bait", "fine", "skip"],
        ["bait", "fine", "skip"],
        [],
    ]
    assert [q["required"] for q in made["questions"]] == [True, True, False]
    assert not any(item["visible_for_annotators"] for item in made["metadata-properties"])
    # What experts see is what the files hold.
    exported = [json.loads(line) for line in sample("argilla/records.jsonl").splitlines()]
    for record, line in zip(server.records(), exported, strict=True):
        assert record["external_id"] == line["id"]
        assert (record["fields"], record["metadata"]) == (line["fields"], line["metadata"])
        assert record["suggestions"] == []
    # Neither the SDK's progress bars nor its log.
    assert capsys.readouterr() == ("", "")


def test_a_second_push_sends_nothing(server: Argilla, heard: list[str]) -> None:
    push(server.url, TOKEN, batch_of(), heard.append, {})
    server.answer(0, ANNA, "submitted", {"label_a": "bait", "label_b": "fine"})
    before = json.dumps(server.dataset)
    heard.clear()
    server.calls.clear()
    result = push(server.url, TOKEN, batch_of(), heard.append, {})
    assert (result.created, result.added, result.present) == (False, 0, 2)
    assert json.dumps(server.dataset) == before and heard == []
    assert {method for method, _ in server.calls} == {"GET"}


def test_rounds_gather_in_one_data_set(server: Argilla, heard: list[str]) -> None:
    first = batch_of()
    other = batch_of([("b1", "five"), ("b2", "six")], round=2)
    renamed = dataclasses.replace(other.items[0], item_id="pair_other")
    second = dataclasses.replace(other, items=(*first.items, renamed))
    push(server.url, TOKEN, first, heard.append, {})
    result = push(server.url, TOKEN, second, heard.append, {})
    assert (result.added, result.present) == (1, 2)
    assert [record["metadata"]["round"] for record in server.records()] == ["1", "1", "2"]
    # Another version of the policy has its own.
    push(server.url, TOKEN, batch_of(task_version=4), heard.append, {})
    assert sorted(found["name"] for found in server.datasets.values()) == ["tiny v3", "tiny v4"]


def test_single_ads_have_a_data_set_of_their_own(server: Argilla, heard: list[str]) -> None:
    batch = batch_of([(f"a{n}", f"ad {n}") for n in range(4)], sizes=(1, 2, 1), fields=FIELDS)
    with ArgillaServer.connected(server.url, TOKEN, {}) as opened:
        pairs, single = opened.push(batch, heard.append)
    assert [(p.place, p.added) for p in (pairs, single)] == [
        ("tiny v3", 1),
        ("tiny v3, single ads", 2),
    ]
    [made] = [d for d in server.datasets.values() if d["name"] == "tiny v3, single ads"]
    assert [question["name"] for question in made["questions"]] == ["label", "comment"]
    [first, _] = made["records"].values()
    assert first["fields"] == {"text": batch.items[0].ads[0].lines()}
    values = {"label": {"value": "bait"}}
    response = {"id": ident("r"), "values": values, "status": "submitted", "user_id": ANNA}
    first["responses"] = [
        {**response, "record_id": first["id"], "inserted_at": NOW, "updated_at": NOW}
    ]
    pulled = pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    resolved = understood(READER.read(pulled, "f"), batch)
    assert said(resolved) == [("a0", "positive", "anna")]
    assert (resolved.rejected, resolved.unanswered) == ((), 3)


def test_a_push_goes_on_where_it_stopped(
    server: Argilla, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ArgillaServer, "records_a_call", 2)
    monkeypatch.setattr(argilla_server, "RECORDS_A_PAGE", 2)
    batch = batch_of([(f"a{n}", f"ad {n}") for n in range(10)])
    upsert, room = server._upsert, [2]

    def full(id: str, body: Any) -> Answer:
        room[0] -= 1
        return upsert(id, body) if room[0] >= 0 else refusal(503, "out of space")

    monkeypatch.setattr(server, "_upsert", full)
    with pytest.raises(RunFailed, match=r"HTTP 503 .*out of space.*run the command again later"):
        push(server.url, TOKEN, batch, heard.append, {})
    assert len(server.records()) == 4
    assert heard[1:] == ["2 of 5 pairs sent", "4 of 5 pairs sent"]
    room[0] = 99
    result = push(server.url, TOKEN, batch, heard.append, {})
    assert (result.added, result.present, len(server.records())) == (1, 4, 5)


def test_suggestions_go_along_when_asked_for(server: Argilla, heard: list[str]) -> None:
    push(server.url, TOKEN, batch_of(shown=True), heard.append, {})
    values = [(s["value"], s["score"], s["agent"]) for s in server.records()[0]["suggestions"]]
    assert values == [("bait", 0.8137, MODEL), ("fine", 0.6629, MODEL)]


def test_pairs_that_were_shown_stay_as_they_were_shown(server: Argilla, heard: list[str]) -> None:
    push(server.url, TOKEN, batch_of(), heard.append, {})
    heard.clear()
    edited = batch_of([("a1", "changed"), ("a2", "=1+1 kettles\nsold here")])
    result = push(server.url, TOKEN, edited, heard.append, {})
    assert (result.added, result.present) == (0, 1)
    assert server.records()[0]["fields"]["text_a"] == "One weird trick & <b>win</b>"
    assert heard == [
        "in the data set with other texts or sides: 1 pair (pair_0000000000000000, ...); what is "
        "there stays as it is"
    ]


def test_policy_and_number_of_experts_follow_the_task(server: Argilla, heard: list[str]) -> None:
    push(server.url, TOKEN, batch_of(), heard.append, {})
    changed = batch_of(policy="Another policy.", experts_per_ad=4)
    result = push(server.url, TOKEN, changed, heard.append, {})
    assert result.changed == ("guidelines", "distribution")
    assert "Another policy." in server.dataset["guidelines"]
    assert server.dataset["distribution"]["min_submitted"] == 4
    assert server.dataset["status"] == "ready" and len(server.dataset["questions"]) == 3
    # Some servers keep the number once there are answers: that is no reason to fail.
    server.frozen_distribution = True
    server.answer(0, ANNA, "submitted", {"label_a": "bait", "label_b": "fine"})
    result = push(server.url, TOKEN, batch_of(experts_per_ad=5), heard.append, {})
    assert result.changed == ("guidelines",)
    assert any("still asks for 4 experts, not 5" in line for line in heard)


def test_a_data_set_with_other_labels_is_refused(server: Argilla, heard: list[str]) -> None:
    push(server.url, TOKEN, batch_of(), heard.append, {})
    server.calls.clear()
    with pytest.raises(RunFailed) as failed:
        push(server.url, TOKEN, batch_of(labels=("bait", "honest")), heard.append, {})
    assert failed.value.message.endswith(
        "/annotation-mode: its labels for label_a are bait, fine, skip, the task's are bait, honest, "
        "skip; give the task another version, or rename the data set"
    )
    assert {method for method, _ in server.calls} == {"GET"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d["fields"].pop(), "lacks the fields text_b"),
        (lambda d: d["metadata-properties"].pop(0), "lacks the metadata item_id"),
        (lambda d: d["questions"].pop(0), "its labels for label_a are none"),
        (lambda d: d.update(status="draft"), "was begun and never published"),
    ],
)
def test_a_data_set_that_only_has_the_name_is_refused(
    server: Argilla, heard: list[str], spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    push(server.url, TOKEN, batch_of(), heard.append, {})
    spoil(server.dataset)
    with pytest.raises(RunFailed, match=message):
        push(server.url, TOKEN, batch_of(), heard.append, {})


def test_a_data_set_that_cannot_be_made_leaves_nothing(
    server: Argilla,
    heard: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Argilla's SDK prints where nobody started a file, as in a process that runs a share of the tests.
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "scout", raising=False)
    server.broken = {"POST .*/questions": lambda: refusal(422, "title is too long")}
    with pytest.raises(RunFailed, match=r"HTTP 422 .*title is too long"):
        push(server.url, TOKEN, batch_of(), heard.append, {})
    assert server.datasets == {} and heard == []
    assert capsys.readouterr() == ("", "")


def test_a_policy_that_is_too_long_is_refused_before_anything(
    server: Argilla, heard: list[str]
) -> None:
    with pytest.raises(
        UsageError, match=r"guidelines of 12,\d+ characters, and Argilla takes 10,000"
    ):
        push(server.url, TOKEN, batch_of(policy="x" * 12_000), heard.append, {})
    assert {method for method, _ in server.calls} == {"GET"} and heard == []


def test_the_workspace_is_chosen_by_its_name(server: Argilla, heard: list[str]) -> None:
    server.workspaces = ["ads", "mail"]
    with pytest.raises(
        UsageError, match="in the workspaces ads, mail; put the name of one into ARG"
    ):
        push(server.url, TOKEN, batch_of(), heard.append, {})
    with pytest.raises(UsageError, match="no workspace 'posts' for this user, only ads, mail"):
        push(server.url, TOKEN, batch_of(), heard.append, {"ARGILLA_WORKSPACE": "posts"})
    push(server.url, TOKEN, batch_of(), heard.append, {"ARGILLA_WORKSPACE": "mail"})
    assert server.dataset["workspace_id"] == ident("w", "mail")
    # Found again without it, until there are two.
    assert push(server.url, TOKEN, batch_of(), heard.append, {}).present == 2
    push(server.url, TOKEN, batch_of(), heard.append, {"ARGILLA_WORKSPACE": "ads"})
    with pytest.raises(UsageError, match="workspaces ads and mail both hold a data set 'tiny v3'"):
        pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    server.workspaces = []
    with pytest.raises(RunFailed, match="this user is in no workspace"):
        push(server.url, TOKEN, batch_of(), heard.append, {})


# --- back -------------------------------------------------------------------------------------


def answered(server: Argilla) -> None:
    """Push, and have three people answer as the recorded sample says, and more."""
    push(server.url, TOKEN, batch_of(), lambda line: None, {})
    both = {"label_a": "bait", "label_b": "fine", "comment": "no such trick"}
    server.answer(0, BO, "submitted", {"label_a": "fine", "label_b": "bait"})
    server.answer(0, ANNA, "submitted", both)
    server.answer(1, ANNA, "discarded", None)
    server.answer(1, BO, "draft", {"label_a": "bait"})


def test_answers_come_back_with_names(server: Argilla, heard: list[str]) -> None:
    answered(server)
    found = pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    assert heard == []
    assert found == sample("argilla/pulled.json")
    resolved = understood(READER.read(found, "argilla.json"))
    assert said(resolved) == [
        ("a1", "positive", "anna"),
        ("a2", "negative", "anna"),
        ("a1", "negative", "bo"),
        ("a2", "positive", "bo"),
        ("12345678901234567", "skip", "anna"),
        ("a4", "skip", "anna"),
    ]
    assert (resolved.rejected, resolved.verdicts[0].comment) == ((), "no such trick")


def test_it_is_the_form_that_the_sdk_flattens_to(server: Argilla, heard: list[str]) -> None:
    import argilla as sdk

    answered(server)
    # A discard with a choice is one that the SDK does not lose.
    server.answer(1, ANNA, "discarded", {"label_a": "bait", "label_b": "bait"})
    server.answer(1, BO, "submitted", {"label_a": "fine", "label_b": "fine", "comment": "x"})
    ours = json.loads(pull(server.url, TOKEN, "tiny", 3, heard.append, {}))
    client = sdk.Argilla(api_url=server.url, api_key=TOKEN)
    theirs = client.datasets(name="tiny v3", workspace="ads").records.to_list(flatten=True)
    check_schema("argilla", "export", theirs)
    for record, other in zip(ours, theirs, strict=True):
        for name, value in record.items():
            if ".responses" not in name:
                assert other[name] == value
        for question in ("label_a", "label_b", "comment"):
            parts = [f"{question}.responses{part}" for part in (".users", ".status", "")]
            mine = sorted(zip(*(record.get(part, []) for part in parts), strict=True))
            other_parts = [other.get(part) or [] for part in parts]
            other_parts[0] = [server.users[id] for id in other_parts[0]]
            assert mine == sorted(zip(*other_parts, strict=True))
    # Both are read as the same.
    by_hand = understood(READER.read(json.dumps(theirs).encode(), "f"))
    assert sorted(said(by_hand)) == sorted(
        said(understood(READER.read(json.dumps(ours).encode(), "f")))
    )


@pytest.mark.parametrize("values", [None, {}])
def test_discards_without_a_choice_are_skips(
    server: Argilla, heard: list[str], values: dict | None
) -> None:
    # The SDK's own to_list fails on the first, and forgets the second.
    push(server.url, TOKEN, batch_of(), heard.append, {})
    server.answer(1, BO, "discarded", values)
    found = pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    resolved = understood(READER.read(found, "f"))
    assert said(resolved) == [("12345678901234567", "skip", "bo"), ("a4", "skip", "bo")]


def test_equal_answers_are_equal_bytes(server: Argilla, heard: list[str]) -> None:
    answered(server)
    first = pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    # Drafts, states and the order of what the server lists say nothing.
    server.answer(1, BO, "draft", {"label_a": "fine", "label_b": "bait"})
    server.records()[0]["status"] = "completed"
    server.records()[0]["responses"].reverse()
    held = server.dataset["records"]
    server.dataset["records"] = dict(reversed(held.items()))
    assert pull(server.url, TOKEN, "tiny", 3, heard.append, {}) == first
    server.dataset["records"] = held
    server.answer(1, BO, "submitted", {"label_a": "fine", "label_b": "bait"})
    assert pull(server.url, TOKEN, "tiny", 3, heard.append, {}) != first
    assert first.endswith(b"}\n]\n") and first.isascii()


def test_all_pages_are_read(
    server: Argilla, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_server, "RECORDS_A_PAGE", 3)
    push(server.url, TOKEN, batch_of([(f"a{n}", f"ad {n}") for n in range(14)]), heard.append, {})
    assert len(json.loads(pull(server.url, TOKEN, "tiny", 3, heard.append, {}))) == 7
    # A listing that ends early is no listing.
    server.broken = {"GET .*/records": lambda: items([])}
    with pytest.raises(RunFailed, match="lists 0 of 7 records; they change while they are read"):
        pull(server.url, TOKEN, "tiny", 3, heard.append, {})


def test_who_left_the_workspace_is_still_named_to_its_owner(
    server: Argilla, heard: list[str]
) -> None:
    answered(server)
    server.members = [ANNA]
    assert b'"bo"' in pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    server.owner = False
    found = pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    assert b'"anna"' in found and BO.encode() in found
    assert len(heard) == 1 and f"users {BO} answered, but are not in the workspace" in heard[0]


def test_records_of_others_are_dead_letters(server: Argilla, heard: list[str]) -> None:
    answered(server)
    record = server.records()[0]
    server.dataset["records"]["strange"] = {
        **record,
        "id": ident("strange"),
        "external_id": "strange",
        "metadata": {},
    }
    found = pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    resolved = understood(READER.read(found, "f"))
    assert len(resolved.verdicts) == 6
    assert why(resolved) == [("record 3", "not_readable_row")]


def test_nothing_was_pushed_yet(server: Argilla, heard: list[str]) -> None:
    with pytest.raises(
        RunFailed, match="no workspace of this user holds a data set 'tiny v3'; push"
    ):
        pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    push(server.url, TOKEN, batch_of(), heard.append, {})
    found = pull(server.url, TOKEN, "tiny", 3, heard.append, {})
    resolved = understood(READER.read(found, "f"))
    assert (resolved.verdicts, resolved.rejected, resolved.unanswered) == ((), (), 4)


# --- what can go wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (401, {"detail": "x"}),
            r"does not accept the API key in ARGILLA_API_KEY.*; copy it again from this server",
        ),
        (
            (403, {"detail": "no"}),
            r"the API key's user may not do that \(it says: no\); it takes an owner",
        ),
        ((404, "<html>nginx</html>"), r"not found; there is no Argilla at this address"),
        ((404, {"detail": "Not Found"}), r"not found \(it says: Not Found\); there is no Argilla"),
        ((200, "<html>Sign in</html>"), "answered something else than Argilla does .* login pages"),
        ((200, {"hello": "world"}), "answered something else than Argilla does"),
        ((200, []), "answered something else than Argilla does"),
        ((302, ""), r"redirects to another address; .* give the address that it redirects to"),
        ((413, "<html>"), r"takes no request of this size; raise"),
        ((429, {"detail": "slow"}), r"HTTP 429 \(it says: slow\); the server is overloaded"),
        ((502, "<html>Bad gateway</html>"), r"HTTP 502; the server is overloaded"),
        (
            (422, {"detail": {"code": "x", "n": ["\u202e" * 400]}}),
            r"HTTP 422 \(it says: .*\\u202e.*…\)",
        ),
    ],
)
@pytest.mark.parametrize("call", ["me", "me/workspaces", "me/datasets"])
def test_refusals_are_one_sentence(
    server: Argilla, heard: list[str], answer: Answer, message: str, call: str
) -> None:
    server.broken = {f"GET /api/v1/{call}": lambda: answer}
    with pytest.raises(RunFailed, match=message) as failed:
        push(server.url, TOKEN, batch_of(), heard.append, {})
    said = failed.value.message
    assert said.startswith(f"{server.url}: ") and "\n" not in said and len(said) < 600
    assert TOKEN not in said and "<html" not in said
    assert not server.datasets and heard == []


def test_a_wrong_key_is_not_repeated(server: Argilla, heard: list[str]) -> None:
    with pytest.raises(RunFailed, match=r"does not accept the API key") as failed:
        push(server.url, "another-secret", batch_of(), heard.append, {})
    assert "another-secret" not in str(failed.value)
    # Where the server repeats the right one, it is not shown either.
    server.broken = {"GET .*/me/datasets": lambda: refusal(400, f"key {TOKEN} has expired")}
    with pytest.raises(RunFailed, match=r"HTTP 400 \(it says: key \(key\) has expired\)"):
        push(server.url, TOKEN, batch_of(), heard.append, {})


def test_nobody_listens(heard: list[str]) -> None:
    with Argilla() as closed:
        url = closed.url
    with pytest.raises(RunFailed, match=f"^.*{url}: nothing listens there; is the server running"):
        push(url, TOKEN, batch_of(), heard.append, {})


def test_a_name_that_does_not_exist(heard: list[str]) -> None:
    with pytest.raises(RunFailed, match=r"no such host; check the address"):
        push("https://no-such-host.invalid", TOKEN, batch_of(), heard.append, {})


def test_a_server_without_tls(server: Argilla, heard: list[str]) -> None:
    secure = server.url.replace("http://", "https://")
    with pytest.raises(RunFailed, match=r"no trusted TLS connection .*SSL_CERT_FILE"):
        push(secure, TOKEN, batch_of(), heard.append, {})


def test_a_server_that_hangs(
    server: Argilla, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argilla_server, "_TIMEOUT_SECONDS", 0.2)
    free = threading.Event()

    def hang() -> Answer:
        free.wait(10)
        return 200, {}

    server.broken = {"GET .*/me": hang}
    with pytest.raises(RunFailed, match=r"no answer within 0\.2 s; run the command again"):
        push(server.url, TOKEN, batch_of(), heard.append, {})
    free.set()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("labels.example.org", "is no address of a server; write https://"),
        ("ftp://labels.example.org", "is no address of a server"),
        ("https://", "is no address of a server"),
        ("https://[bad", "is no address"),
        ("https://labels.example.org:99999", "is no address"),
        ("https://labels.example.org/a b", "holds neither blanks nor special signs"),
        ("https://labels.example.org/dataset/0c5e/annotation-mode", "is a page of the server"),
        ("https://labels.example.org/?x=1", "is a page of the server"),
        (
            "http://labels.example.org",
            "cross the network in plain text; .* ARGILLA_ALLOW_PLAIN_HTTP=1",
        ),
    ],
)
def test_addresses_that_will_not_do(url: str, message: str, heard: list[str]) -> None:
    with pytest.raises(UsageError, match=message):
        push(url, TOKEN, batch_of(), heard.append, {})
    with pytest.raises(UsageError, match=message):
        pull(url, TOKEN, "tiny", 3, heard.append, {})


def test_a_password_in_the_address_is_not_shown(heard: list[str]) -> None:
    with pytest.raises(UsageError, match="may hold no user or password") as failed:
        push("https://me:hunter2@labels.example.org", TOKEN, batch_of(), heard.append, {})
    assert "hunter2" not in str(failed.value)


def test_plain_http_is_a_decision(heard: list[str]) -> None:
    allowed = {"ARGILLA_ALLOW_PLAIN_HTTP": "1"}
    with pytest.raises(RunFailed, match="no such host"):
        push("http://no-such-host.invalid", TOKEN, batch_of(), heard.append, allowed)


def test_the_key_comes_from_the_environment() -> None:
    read = format.ACCESS.read_token
    assert read({"ARGILLA_API_KEY": f" {TOKEN}\n"}) == TOKEN
    with pytest.raises(UsageError, match="ARGILLA_API_KEY: is not set"):
        read({})
    with pytest.raises(UsageError, match="ARGILLA_API_KEY: holds blanks") as failed:
        read({"ARGILLA_API_KEY": "two words"})
    assert "two words" not in str(failed.value)


@pytest.mark.parametrize("missing", ["argilla", "requests"])
def test_without_the_sdk(
    missing: str, server: Argilla, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == missing or n.startswith("argilla")]:
        monkeypatch.delitem(sys.modules, name)

    class Refuse:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.split(".")[0] == missing:
                raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(sys, "meta_path", [Refuse(), *sys.meta_path])
    with pytest.raises(
        UsageError, match=r"No module named .*; run pip install 'ad-scout\[argilla\]'"
    ):
        push(server.url, TOKEN, batch_of(), heard.append, {})
    assert server.calls == []
