"""Manifests, attempts, and files that appear whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Task
from pipelines.contracts import BlockFile, ReviewItem
from pipelines.errors import RunFailed, UsageError
from pipelines.numerics.audit import Known
from pipelines.numerics.calibration import Threshold
from pipelines.store import storage
from pipelines.store.facts import (
    COMPLETED,
    Alert,
    AnsweredKeys,
    AuditFacts,
    AuditStratum,
    ClustersFacts,
    NightFacts,
    NightFigures,
    ReviewFacts,
    ScoredFacts,
    VerdictsFacts,
)
from pipelines.store.workspace import STAGES, Manifest, Workspace, config_hash
from tests import helpers

FILE = BlockFile("rounds/0001/scored/attempt-0001-00000000/block-a.parquet", 3, 4, "ab")


ORIGIN = helpers.provenance()
FACTS_OF: dict[str, Any] = {
    "scored": ScoredFacts(ORIGIN, 5, 2, {"not_json": 2}, 3, 3.0, ("letters.jsonl",)),
    "clusters": ClustersFacts(ORIGIN, Threshold(0.5, 1, 2), 1, 2, 2, 0),
    "pairs": dataclasses.replace(helpers.pairs_facts(), boundary=None, sources={"random": 3}),
    "review": ReviewFacts(ORIGIN, "rounds/0001/pairs/attempt-0001-00000000"),
    "verdicts": VerdictsFacts("tiny", 1, 0.5, 0, keys=AnsweredKeys(("a",), ("b", "c"))),
    "model": helpers.model_facts(),
    "audit": AuditFacts(
        ORIGIN,
        Threshold(0.5, 1, 2),
        "rounds/0001/scored/attempt-0001-00000000",
        "base",
        3,
        (AuditStratum(0, 5, 2), AuditStratum(16_500, 2, 1)),
        Known(((1, 0), (0, 1)), ((1.5, 0.0), (0.0, 1.0))),
        4,
    ),
    "night": NightFacts(
        "2026-11-21",
        COMPLETED,
        "tiny",
        1,
        ("ads/{date}.jsonl",),
        stored={"key": 3},
        taken={"2026-11-21": "nights/2026-11-21/scored/attempt-0001-00000000"},
        figures=NightFigures(5, 1, 4, 4, 0, 9, 1, 0.5, None, 2, "", 1.5, None),
        alerts=(Alert("drift", "scores shifted"),),
    ),
}


def manifest(
    place: Workspace, stage: str = "scored", number: int = 1, hash: str = "h"
) -> Manifest[Any]:
    return Manifest(
        stage=stage,
        round=number,
        attempt=place.new_attempt(number, stage),
        config_hash=hash,
        files=(FILE,),
        rows=3,
        facts=FACTS_OF[stage],
        created="2026-11-22T00:00:00Z",
    )


def test_an_attempt_counts_only_with_its_manifest(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    first = manifest(place)
    storage.write(place.path(f"{first.attempt}/block-a.parquet"), b"1234")
    assert place.latest(1, "scored") is None
    assert place.rounds() == []
    place.commit(first)
    assert place.latest(1, "scored") == first
    assert place.rounds() == [1]


def test_a_nights_attempts_lie_beside_the_rounds(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    place.commit(manifest(place, "pairs"))
    for date in ("2026-11-22", "2026-11-21"):
        for stage in ("scored", "night"):
            attempt = place.new_attempt(date, stage)
            assert attempt.startswith(f"nights/{date}/{stage}/attempt-0001-")
            place.commit(Manifest.of(attempt, date, [], 0, FACTS_OF[stage]))
    assert place.rounds() == [1] and not place.scored.by_round()
    assert list(place.night.by_date()) == ["2026-11-21", "2026-11-22"]
    found = place.scored.find("2026-11-22", "2026-11-22")
    assert found and found.round == 0 and place.manifest(found.attempt) == found
    assert place.new_attempt("2026-11-22", "night").split("/")[-1].startswith("attempt-0002")


def test_attempts_are_numbered_and_found_by_their_configuration(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    written = []
    for hash in ("a", "b", "a"):
        written.append(manifest(place, hash=hash))
        place.commit(written[-1])
    assert [m.attempt.split("/")[-1][:12] for m in written] == [
        "attempt-0001",
        "attempt-0002",
        "attempt-0003",
    ]
    assert place.scored.find(1, "a") == written[2]
    assert place.scored.find(1, "b") == written[1]
    assert place.scored.find(1, "c") is None
    assert place.scored.find(2, "a") is None


def test_a_round_closes_with_its_labels(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    assert place.current_round() == 1
    place.commit(manifest(place, "review"))
    assert place.current_round() == 1
    place.commit(manifest(place, "verdicts"))
    assert place.current_round() == 2


def test_what_any_sheet_of_an_earlier_round_showed_is_shown(tmp_path: Path) -> None:
    # A sheet of an earlier attempt may be in experts' hands when the round is mined again.
    sheets = {"a b": 1, "b c": 1, "d": 2}
    for ids, number in sheets.items():
        ads = tuple(helpers.review_ad_of(id, key=id) for id in ids.split())
        item = ReviewItem(f"item of {ids}", 1, "random", ads)
        place = helpers.commit_items(tmp_path, [item], number)
    assert place.shown_keys(1) == frozenset()
    assert place.shown_keys(2) == {"a", "b", "c"}
    assert place.shown_keys(3) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_says_is_read_back_as_it_was_written(tmp_path: Path, stage: str) -> None:
    place = Workspace(str(tmp_path))
    place.commit(manifest(place, stage))
    found = place.latest(1, stage)
    assert found is not None and found.facts == FACTS_OF[stage]
    assert type(found.facts) is type(FACTS_OF[stage])


def test_the_task_of_a_manifest_is_a_task(tmp_path: Path) -> None:
    place = helpers.commit_items(tmp_path, [], seed=9, labels={"positive": "bait"})
    task = place.pairs_of().facts.origin.task
    assert isinstance(task, Task) and (task.seed, task.labels.positive) == (9, "bait")


def test_a_manifest_of_another_version_says_what_helps(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    good = manifest(place)
    path = place.path(f"{good.attempt}/manifest.json")
    storage.write(path, dataclasses.replace(good, format_version=99).to_json())
    with pytest.raises(
        RunFailed, match=r"json: written by a newer .*\(format 99.*upgrade ad-scout"
    ):
        place.latest(1, "scored")
    # As version 1 wrote it: facts were another matter then, and are not looked at.
    old = {"format_version": 1, "stage": "scored", "facts": {"task": "tiny"}}
    storage.write(path, json.dumps(old).encode())
    with pytest.raises(
        RunFailed, match=r"earlier .*\(format 1, this one reads 3\); mine into a new"
    ):
        place.scored.by_round()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"facts": None}, "facts: Input should be"),
        ({"rows": "3"}, "rows: Input should be a valid integer"),
        ({"more": 1}, "more: Unexpected keyword argument"),
        ({"stage": "salted"}, "'salted'"),
        ({"format_version": None}, "not supported between"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    place = Workspace(str(tmp_path))
    good = manifest(place)
    fields = json.loads(good.to_json())
    path = place.path(f"{good.attempt}/manifest.json")
    storage.write(path, json.dumps({**fields, **change}).encode())
    with pytest.raises(RunFailed, match=rf"manifest\.json: not a manifest of ad-scout \(.*{what}"):
        place.latest(1, "scored")
    storage.write(path, good.to_json()[:-9])
    with pytest.raises(
        RunFailed, match=r"manifest\.json: not a manifest.* move this attempt folder"
    ):
        place.latest(1, "scored")
    del fields["facts"]["origin"]["task"]["prior"]
    storage.write(path, json.dumps(fields).encode())
    with pytest.raises(RunFailed, match=r"facts\.origin\.task\.prior: Field required"):
        place.latest(1, "scored")


def test_facts_belong_to_their_stage(tmp_path: Path) -> None:
    attempt = Workspace(str(tmp_path)).new_attempt(1, "pairs")
    with pytest.raises(ValueError, match="no attempt to hold ReviewFacts"):
        Manifest.of(attempt, "h", [], 0, FACTS_OF["review"])
    made = Manifest.of(attempt, "h", [FILE], 3, FACTS_OF["pairs"])
    assert (made.stage, made.round, made.format_version) == ("pairs", 1, 3)
    assert made.file("block-a.parquet") == FILE
    with pytest.raises(RunFailed, match=r"manifest\.json: lists no items\.jsonl"):
        made.file("items.jsonl")


def test_the_newest_pairs_and_the_verdicts_of_a_version(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    with pytest.raises(UsageError, match="holds no pairs; start with `scout mine`"):
        place.pairs_of()
    for number, version in ((1, 1), (2, 1), (3, 2)):
        helpers.commit_items(tmp_path, [], number, version=version)
    for number in (1, 3, 4):
        place.commit(manifest(place, "verdicts", number))
    assert [place.pairs_of(n).round for n in (None, 1)] == [3, 1]
    with pytest.raises(UsageError, match=r"--round 9: .*rounds with pairs: 1, 2, 3\)"):
        place.pairs_of(9)
    # Of round 4 nobody knows what it was mined for.
    assert [*place.verdicts_of(1)] == [1] and [*place.verdicts_of(2)] == [3]
    assert [*place.verdicts.by_round()] == [1, 3, 4]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "deep" / "file"
    storage.write(str(target), b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match="no room is left on the disk: this file takes 3 bytes"):
        storage.write(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read(str(tmp_path / "none"))
    assert storage.match(str(tmp_path / "*")) == []
    with pytest.raises(UsageError, match="empty"):
        Workspace("")


def test_hashes_do_not_depend_on_key_order() -> None:
    assert config_hash({"a": 1, "b": [2]}) == config_hash({"b": [2], "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        config_hash({"a": float("nan")})
