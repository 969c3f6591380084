"""A round through a real Label Studio: pushed, labelled by people with accounts, pulled, imported.

``make test-tools`` installs the server and runs this. ``tests/tools`` has the cases that no server of
one's own can be made to show.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pipelines.contracts import ReviewAd
from pipelines.errors import RunFailed
from pipelines.jobs.evaluate import Candidate, measure
from pipelines.jobs.ingest import Ingested, ingest_verdicts
from pipelines.numerics.agreement import expert_agreement
from pipelines.store.workspace import Workspace
from pipelines.tools.batch import Batch, read_batch
from pipelines.tools.label_studio import server as studio
from pipelines.tools.label_studio.client import Client
from pipelines.tools.label_studio.format import LabelStudio
from pipelines.tools.label_studio.server import LabelStudioServer
from pipelines.tools.server import Pushed, Say
from pipelines.verdicts.halves import HALVES, latest, ratings, read_half
from pipelines.verdicts.rows import RawVerdict
from tests import helpers
from tests.real_tools.label_studio.conftest import Studio, User
from tests.tools import FIELDS, POLICY, batch_of

LOUD = ("won", "shocking", "secret", "free")
SKIPPED, HALF, TWICE = 3, 5, 7


@pytest.fixture(scope="module")
def experts(label_studio: Studio) -> tuple[User, User]:
    return label_studio.join("Anna"), label_studio.join("bo")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())
    helpers.run(helpers.write_task(tmp_path), corpus, tmp_path / "w")
    return Workspace(str(tmp_path / "w"))


def say_nothing(line: str) -> None:
    pass


def push(url: str, token: str, batch: Batch, say: Say) -> Pushed:
    """Push a batch of pairs, or of single ads."""
    with LabelStudioServer.connected(url, token, {}) as server:
        [pushed] = server.push(batch, say)
    return pushed


def pull(url: str, token: str, task: str, version: int, say: Say) -> bytes:
    with LabelStudioServer.connected(url, token, {}) as server:
        return server.pull(task, version, say)


def number_of(pushed: Pushed) -> int:
    """Return the number of the project that was pushed to."""
    return int(pushed.url.rpartition("/")[2])


def truth(side: ReviewAd) -> bool:
    return any(word in side.text.casefold() for word in LOUD)


def bo_says(place: int, side: ReviewAd) -> bool:
    """Return what bo calls an ad: he is wrong about every fourth one."""
    return truth(side) != (place % 4 == 1)


def results(batch: Batch, **labels: bool) -> list[dict[str, Any]]:
    """Return an answer as Label Studio's own page sends it."""
    return [
        {
            "from_name": f"label{letter}",
            "to_name": f"text{letter}",
            "type": "choices",
            "value": {"choices": [batch.positive if positive else batch.negative]},
        }
        for letter, positive in labels.items()
    ]


def annotate(who: User, task: int, result: list[dict[str, Any]], skipped: bool = False) -> None:
    body = {"result": result, "was_cancelled": skipped, "lead_time": 2.5}
    who.call("POST", f"/api/tasks/{task}/annotations/", json=body)


def tasks_of(who: User, project: int) -> dict[str, int]:
    """Return item_id -> task; fails when one is there twice."""
    found = who.call("GET", "/api/tasks/", params={"project": project, "page_size": 1000})
    numbers = {task["data"].get("item_id", "foreign"): task["id"] for task in found["tasks"]}
    assert len(numbers) == found["total"]
    return numbers


def label_all(batch: Batch, project: int, anna: User, bo: User) -> dict[tuple[str, str], str]:
    """Have both experts answer every pair; return (ad, expert) -> label that must come of it."""
    tasks = tasks_of(anna, project)
    wanted: dict[tuple[str, str], str] = {}
    name = {True: "positive", False: "negative"}
    for place, item in enumerate(batch.items):
        task, sides = tasks[item.item_id], dict(zip(("_a", "_b"), item.ads, strict=True))
        right = {letter: truth(side) for letter, side in sides.items()}
        if place == HALF:
            annotate(anna, task, results(batch, _a=right["_a"]))
        else:
            if place == TWICE:
                annotate(anna, task, results(batch, **{k: not v for k, v in right.items()}))
            annotate(anna, task, results(batch, **right))
            wanted |= {(side.id, anna.email): name[right[k]] for k, side in sides.items()}
        said = {letter: bo_says(place, side) for letter, side in sides.items()}
        if place == SKIPPED:
            annotate(bo, task, [], skipped=True)
            wanted |= {(side.id, bo.email): "skip" for side in sides.values()}
        else:
            annotate(bo, task, results(batch, **said))
            wanted |= {(side.id, bo.email): name[said[k]] for k, side in sides.items()}
    return {(ad, expert.casefold()): label for (ad, expert), label in wanted.items()}


def imported(workspace: Workspace, data: bytes) -> Ingested:
    return ingest_verdicts(workspace, list(LabelStudio().read(data, "pulled.json")), "pulled.json")


def verdicts_of(workspace: Workspace) -> list[Any]:
    return latest(v for half in HALVES for v in read_half(workspace, half, 1))


def test_a_round_there_and_back(
    label_studio: Studio, experts: tuple[User, User], workspace: Workspace, monkeypatch: Any
) -> None:
    # Several pages and several calls for twelve pairs.
    monkeypatch.setattr(studio, "TASKS_A_PAGE", 5)
    monkeypatch.setattr(LabelStudioServer, "records_a_call", 4)
    anna, bo = experts
    url, token = label_studio.url, label_studio.admin.token
    batch = read_batch(workspace)
    assert len(batch.items) == 12
    begun = dataclasses.replace(batch, items=batch.items[:5])
    first = push(url, token, begun, say_nothing)
    assert (first.created, first.added, first.present) == (True, 5, 0)
    lines: list[str] = []
    pushed = push(url, token, batch, lines.append)
    assert pushed == dataclasses.replace(first, created=False, added=7, present=5)
    assert lines == ["4 of 7 pairs sent"]
    project = number_of(pushed)
    held = label_studio.admin.call("GET", f"/api/projects/{project}/")
    assert held["maximum_annotations"] == batch.experts_per_ad
    assert held["show_collab_predictions"] is False
    assert batch.policy in held["expert_instruction"]

    # Whoever labels is shown the pairs in review order, and nothing of the model.
    shown = anna.call("GET", f"/api/projects/{project}/next/")
    assert shown["data"]["item_id"] == batch.items[0].item_id
    assert shown["predictions"] == []

    wanted = label_all(batch, project, anna, bo)
    foreign = [{"data": {**shown["data"], "item_id": "pair_of_somebody_else"}}]
    label_studio.admin.call("POST", f"/api/projects/{project}/import", json=foreign)
    foreign_task = tasks_of(bo, project)["pair_of_somebody_else"]
    annotate(bo, foreign_task, results(batch, _a=True, _b=True))

    pulled = pull(url, token, batch.task, batch.task_version, lines.append)
    found_tasks = json.loads(pulled)
    assert len(found_tasks) == 13
    assert sum(len(task["annotations"]) for task in found_tasks) == 26
    ingested = imported(workspace, pulled)
    summary = ingested.to_json()
    assert summary["experts"] == ["anna@example.org", "bo@example.org"]
    assert summary["rejected_by_reason"] == {"half_pair": 1, "unknown_item": 2}
    assert summary["skips"] == 2
    found = verdicts_of(workspace)
    assert {(v.ad_id, v.expert): v.label for v in found} == wanted

    # Kappa by the project's own path, and counted from what was said here.
    table = ratings(found)
    kappa = expert_agreement(table.values)
    common = sorted({ad for ad, _ in wanted})
    names = [expert for _, expert in sorted({(u.id, u.email.casefold()) for u in experts})]
    both = [[wanted.get((ad, name), "skip") for name in names] for ad in common]
    both = [pair for pair in both if "skip" not in pair]
    assert len(both) == 24 - 2 - 2
    expected = cohen_kappa_score([a for a, _ in both], [b for _, b in both])
    assert kappa.value == pytest.approx(expected)
    assert 0 < expected < 1
    always_no = Candidate(0, "none", 0.0, lambda texts: np.full(len(texts), -1.0))
    task = workspace.pairs_of().facts.origin.task
    report = measure(task, table, table.keys, [always_no], 0)
    assert report.expert_kappa.value == pytest.approx(expected)
    assert np.count_nonzero(table.values == -1) == 2 + 2

    # Nothing changed, so nothing changes.
    again = pull(url, token, batch.task, batch.task_version, say_nothing)
    assert again == pulled
    assert imported(workspace, again).verdicts == 0
    assert verdicts_of(workspace) == found
    repeated = push(url, token, batch, lines.append)
    assert (repeated.added, repeated.present, repeated.changed) == (0, 12, ())
    assert len(tasks_of(anna, project)) == 13

    # Another answer is another export; it counts beside the ones before it.
    late = batch.items[HALF]
    annotate(anna, tasks_of(anna, project)[late.item_id], results(batch, _a=True, _b=True))
    newest = pull(url, token, batch.task, batch.task_version, say_nothing)
    assert newest != pulled
    imported(workspace, newest)
    now = {(v.ad_id, v.expert): v.label for v in verdicts_of(workspace)}
    added = {(side.id, "anna@example.org"): "positive" for side in late.ads}
    assert now == wanted | added


def test_predictions_are_shown_and_never_read(
    label_studio: Studio, experts: tuple[User, User], workspace: Workspace
) -> None:
    anna, _ = experts
    url, token = label_studio.url, label_studio.admin.token
    batch = dataclasses.replace(read_batch(workspace, show_predictions=True), task="shown")
    one = dataclasses.replace(batch, items=batch.items[:1])
    project = number_of(push(url, token, one, say_nothing))
    shown = anna.call("GET", f"/api/projects/{project}/next/")
    [prediction] = shown["predictions"]
    assert prediction["model_version"] == batch.model_id
    # The next round's model, whose predictions are other ones.
    newer = dataclasses.replace(batch, round=2, model_id="model-2")
    assert push(url, token, newer, say_nothing).changed == ("model_version",)
    tasks = tasks_of(anna, project)
    for item in batch.items:
        opposite = {k: ad.label != "positive" for k, ad in zip(("_a", "_b"), item.ads, strict=True)}
        annotate(anna, tasks[item.item_id], results(batch, **opposite))
    wanted = {
        ad.id: "negative" if ad.label == "positive" else "positive"
        for item in batch.items
        for ad in item.ads
    }
    pulled = pull(url, token, "shown", 1, say_nothing)
    # What a person exports by hand says the same, and holds snapshots of the predictions.
    by_hand = label_studio.admin.call("GET", f"/api/projects/{project}/export?exportType=JSON")
    snapshots = [task["annotations"][0]["prediction"] for task in by_hand]
    assert sum(snapshot != {} for snapshot in snapshots) == len(batch.items) - 1
    for data in (pulled, json.dumps(by_hand).encode()):
        rows = list(LabelStudio().read(data, "f"))
        ids = {row.ad_id for row in rows}  # type: ignore[union-attr]
        assert ids == set(wanted)
        said = {row.ad_id: row.label for row in rows}  # type: ignore[union-attr]
        names = {"positive": batch.positive, "negative": batch.negative}
        assert said == {ad: names[label] for ad, label in wanted.items()}
    assert anna.email.encode() in pulled


@pytest.fixture
def personal(label_studio: Studio) -> Iterator[str]:
    """The administrator's personal access token; legacy tokens are switched off meanwhile."""
    token = label_studio.admin.call("POST", "/api/token/")["token"]
    server = Client(label_studio.url, token)
    server.call("POST", "/api/jwt/settings", body=legacy(False))
    yield token
    server.call("POST", "/api/jwt/settings", body=legacy(True))


def legacy(on: bool) -> Mapping[str, bool]:
    return {"api_tokens_enabled": True, "legacy_api_tokens_enabled": on}


def test_personal_tokens_work_and_legacy_ones_say_when_they_do_not(
    label_studio: Studio, personal: str
) -> None:
    batch = batch_of(task="personal")
    assert push(label_studio.url, personal, batch, say_nothing).added == 2
    with pytest.raises(RunFailed, match="legacy tokens are switched off for this organization"):
        push(label_studio.url, label_studio.admin.token, batch, say_nothing)


def test_hostile_ads_and_policies_come_back_to_the_letter(label_studio: Studio) -> None:
    url, token = label_studio.url, label_studio.admin.token
    batch = batch_of(task="hostile", labels=('bait & <"switch">', "$text_b {{fine}}"))
    project = number_of(push(url, token, batch, say_nothing))
    assert push(url, token, batch, say_nothing).changed == ()
    held = label_studio.admin.call("GET", f"/api/projects/{project}/")
    assert "<b>promises</b>" in POLICY
    assert "&lt;b&gt;promises&lt;/b&gt;" in held["expert_instruction"]
    rows = list(LabelStudio().read(pull(url, token, "hostile", 3, say_nothing), "f"))
    sides = [ad for item in batch.items for ad in item.ads]
    assert [row.text for row in rows] == [side.text for side in sides]  # type: ignore[union-attr]


def test_what_the_real_server_refuses_is_one_sentence(label_studio: Studio) -> None:
    url, token = label_studio.url, label_studio.admin.token
    with pytest.raises(
        RunFailed, match=r"does not accept the access token in .* .it says: Invalid token"
    ):
        Client(url, "0" * 40).check()
    with pytest.raises(RunFailed, match="there is no Label Studio at this address"):
        Client(f"{url}/labels", token).check()
    body = {"label_config": '<View><Text name="a"/></View>'}
    with pytest.raises(RunFailed, match=r"HTTP 400 .it says: .*'value' is a required property"):
        Client(url, token).call("POST", "/api/projects/validate/", body=body)
    with pytest.raises(RunFailed, match="not found"):
        Client(url, token).call("GET", "/api/projects/9999/")


def test_single_ads_and_fields_go_into_a_project_of_their_own(
    label_studio: Studio, experts: tuple[User, User]
) -> None:
    anna, _ = experts
    url, token = label_studio.url, label_studio.admin.token
    batch = batch_of(task="mixed", sizes=(2, 1, 1), fields=FIELDS)
    with LabelStudioServer.connected(url, token, {}) as server:
        pairs, single = server.push(batch, say_nothing)
    assert (pairs.added, single.added) == (1, 2)
    shown = anna.call("GET", f"/api/projects/{number_of(single)}/next/")
    assert shown["data"]["text"] == batch.items[1].ads[0].lines()
    for task in tasks_of(anna, number_of(single)).values():
        annotate(anna, task, results(batch, **{"": True}))
    rows = list(LabelStudio().read(pull(url, token, "mixed", 3, say_nothing), "f"))
    said = [(row.side, row.label) for row in rows if isinstance(row, RawVerdict) and row.label]
    assert said == [("", batch.positive)] * 2
