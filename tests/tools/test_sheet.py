"""The sheet: one writer with the review stage, one reader with verdict files."""

from __future__ import annotations

import pytest

from pipelines.errors import RunFailed
from pipelines.tools.sheet.format import Sheet, ad_sheet
from tests.tools import batch_of, check_blind, said, sample, understood, why

SHEET = Sheet()


def test_the_export_is_the_recorded_one() -> None:
    files = SHEET.export(batch_of())
    assert sorted(files) == ["instructions.txt", "review.csv"]
    for name, data in files.items():
        assert data == sample(f"csv/{name}"), name
    check_blind(files)


def test_it_is_the_sheet_of_the_review_stage() -> None:
    batch = batch_of()
    rows = [
        (item.item_id, side, ad.id, ad.text) for item in batch.items for side, ad in item.sides()
    ]
    assert SHEET.export(batch)["review.csv"] == ad_sheet(rows)


def test_a_sheet_has_no_place_for_predictions() -> None:
    assert SHEET.export(batch_of(shown=True)) == SHEET.export(batch_of())


def test_recorded_answers() -> None:
    resolved = understood(SHEET.read(sample("csv/answers.csv"), "f.csv"))
    assert said(resolved) == [
        ("a1", "positive", "anna"),
        ("a2", "negative", "anna"),
        ("12345678901234567", "skip", "anna"),
        ("a4", "skip", "anna"),
        ("a1", "positive", "bo"),
        ("a2", "positive", "bo"),
        ("a1", "negative", "bo"),
    ]
    assert why(resolved) == [("line 11", "half_pair")]
    assert (resolved.unanswered, resolved.changed_mind) == (1, 1)


def test_an_untouched_sheet_is_unanswered() -> None:
    data = SHEET.export(batch_of())["review.csv"]
    resolved = understood(SHEET.read(data, "f.csv"))
    assert (resolved.verdicts, resolved.rejected, resolved.unanswered) == ((), (), 4)


def test_an_ad_with_a_nul_does_not_break_the_file() -> None:
    batch = batch_of([("i\0d", "a\0b"), ("other", "text")])
    data = SHEET.export(batch)["review.csv"]
    assert b"\0" not in data and "a\ufffdb".encode() in data
    filled = data.replace(b",,,\r\n", b",bait,anna,\r\n")
    resolved = understood(SHEET.read(filled, "f.csv"), batch)
    assert said(resolved) == [("i\0d", "positive", "anna"), ("other", "positive", "anna")]
    # Its pair and side are still checked.
    moved = filled.replace(b"left", b"right", 1)
    assert len(understood(SHEET.read(moved, "f.csv"), batch).verdicts) < 2


def test_a_file_of_another_kind_is_named() -> None:
    with pytest.raises(RunFailed, match=r"f\.csv: the first line must name the columns"):
        list(SHEET.read(b"a,b\n1,2\n", "f.csv"))
