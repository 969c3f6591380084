"""Verdicts of a workspace's halves, the last word of each expert, and ratings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import RunFailed
from pipelines.store import files, storage
from pipelines.store.facts import VerdictsFacts
from pipelines.store.workspace import Manifest
from pipelines.verdicts.halves import HALVES, latest, ratings, read_audit, read_half
from tests.verdicts import mined, verdict


def test_the_last_verdict_wins_by_time_where_both_have_one() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    both = [verdict("k", "a", "positive", late), verdict("k", "a", "negative", early)]
    assert [v.label for v in latest(both)] == ["positive"]
    # One time alone says nothing: the later import wins.
    half = [verdict("k", "a", "positive", late), verdict("k", "a", "negative")]
    assert [v.label for v in latest(half)] == ["negative"]
    # What comes in after that is still measured by the latest time so far.
    third = [*half, verdict("k", "a", "positive", early)]
    assert [v.label for v in latest(third)] == ["negative"]
    tie = [verdict("k", "a", "positive", late), verdict("k", "a", "negative", late)]
    assert [v.label for v in latest(tie)] == ["negative"]


def test_ratings_hold_every_expert_s_last_word() -> None:
    said = [
        verdict("k2", "bo", "negative"),
        verdict("k1", "anna", "positive"),
        verdict("k1", "bo", "negative"),
        verdict("k1", "bo", "skip"),
        verdict("k3", "bo", "skip"),
    ]
    table = ratings(said)
    assert table.keys == ("k1", "k2", "k3") and table.experts == ("anna", "bo")
    assert table.values.dtype == np.int8
    assert table.values.tolist() == [[1, -1], [-1, 0], [-1, -1]]
    # The same verdicts once more change nothing.
    assert ratings(said + said).values.tolist() == table.values.tolist()


def test_tables_of_two_halves_are_one_table_and_rows_can_be_taken() -> None:
    one = [verdict("k2", "bo", "negative"), verdict("k3", "anna", "skip")]
    other = [verdict("k1", "cy", "positive"), verdict("k4", "anna", "negative")]
    both, whole = ratings(one) | ratings(other), ratings(one + other)
    assert (both.keys, both.experts) == (whole.keys, whole.experts)
    assert both.values.tolist() == whole.values.tolist()
    assert (ratings([]) | ratings(one)).values.tolist() == ratings(one).values.tolist()
    some = whole.where([False, True, True, False])
    assert (some.keys, some.experts) == (("k2", "k3"), ("anna", "bo", "cy"))
    assert some.values.tolist() == [[-1, 0, -1], [-1, -1, -1]]


def test_no_verdicts_are_an_empty_table() -> None:
    assert ratings([]).values.shape == (0, 0)


def test_reading_a_half_checks_its_files(tmp_path: Path) -> None:
    place = mined(tmp_path, [], version=2)
    attempt = place.new_attempt(1, "verdicts")
    said = [verdict("k", "anna", "positive"), verdict("k", "bo", "skip")]
    data = files.json_lines(said)
    path = f"{attempt}/evaluation-00.jsonl"
    file = files.write(place.root, path, data, 2)
    place.commit(Manifest.of(attempt, "h", [file], 2, VerdictsFacts("tiny", 2, 0.5, 3)))
    assert read_half(place, "evaluation", 2) == said
    assert read_half(place, "fine_tuning", 2) == []
    assert read_half(place, "evaluation", 1) == []
    with pytest.raises(ValueError, match="half must be one of"):
        read_half(place, "withheld", 2)
    storage.write(place.path(path), data[:-5])
    with pytest.raises(RunFailed, match=r"evaluation-00\.jsonl: has changed since"):
        read_half(place, "evaluation", 2)
    Path(place.path(path)).unlink()
    with pytest.raises(RunFailed, match=r"evaluation-00\.jsonl: is gone; restore it"):
        read_half(place, "evaluation", 2)


def test_what_an_audit_drew_is_in_no_half(tmp_path: Path) -> None:
    place = mined(tmp_path, [])
    attempt = place.new_attempt(1, "verdicts")
    said = {side: verdict(side, "anna", "positive") for side in (*HALVES, "withheld", "audit")}
    written = [
        files.write(place.root, f"{attempt}/{side}-00.jsonl", files.json_lines([own]), 1)
        for side, own in said.items()
    ]
    # The round has verdicts of its own, so that its files are read for both halves.
    place.commit(Manifest.of(attempt, "h", written, 4, VerdictsFacts("tiny", 1, 0.5, 3)))
    for half in HALVES:
        assert read_half(place, half, 1) == [said[half]]
    assert read_audit(place, 1) == [said["audit"]]
