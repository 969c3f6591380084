"""The review sheet: blind, in drawn order, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import ReviewAd, ReviewPair
from pipelines.spreadsheet import safe_cell
from pipelines.stages.write_review import pair_lines, review_sheet
from pipelines.tools.sheet import COLUMNS, review_instructions


def ad(id: str, text: str, label: str) -> ReviewAd:
    return ReviewAd(id, "k" * 32, text, 0.25, -1.0, label, 0, 1, 1.0, False)


def pair(left: str, texts: tuple[str, str] = ("loud", "quiet")) -> ReviewPair:
    return ReviewPair(
        pair_id="pair_0",
        rank=1,
        source="overlap",
        positive=ad("p", texts[0], "positive"),
        negative=ad("n", texts[1], "negative"),
        left=left,
        distance=0.5,
        mutual=True,
        overlap_score=0.5,
        overlap_nearer_share=0.1,
        covered_weight=2.0,
        covered_share=0.1,
        cumulative_share=0.1,
        propensity=None,
        drawn=None,
    )


def rows(sheet: bytes) -> list[list[str]]:
    assert sheet.startswith(b"\xef\xbb\xbf")
    return list(csv.reader(io.StringIO(sheet.decode("utf-8-sig"), newline="")))


def test_the_sheet_is_blind_and_in_drawn_order() -> None:
    sheet = review_sheet([pair("positive"), pair("negative")])
    header, *body = rows(sheet)
    assert tuple(header) == COLUMNS
    assert [row[:4] for row in body] == [
        ["pair_0", "left", "p", "loud"],
        ["pair_0", "right", "n", "quiet"],
        ["pair_0", "left", "n", "quiet"],
        ["pair_0", "right", "p", "loud"],
    ]
    assert all(row[4:] == ["", "", ""] for row in body)
    assert b"0.25" not in sheet


@pytest.mark.parametrize(
    "text", ["=1+1", "+49 30", "-5%", "@sum", "\t=1", " =1", "＝1", "\ufeff=1", "\r=1", "\n=1"]
)
def test_formulas_are_disarmed(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


def test_ordinary_text_is_left_alone() -> None:
    assert safe_cell("50% off = good") == "50% off = good"


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_survives_the_sheet(first: str, second: str) -> None:
    first, second = (t.encode("utf-8", "replace").decode() for t in (first, second))
    [_, left, right] = rows(review_sheet([pair("positive", (first, second))]))
    for cell, text in ((left[3], first), (right[3], second)):
        sent = text.replace("\0", "\ufffd")
        assert cell in (sent, f"'{sent}")
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_instructions_name_the_policy_and_the_labels() -> None:
    text = review_instructions("clickbait", 3, "Teasing is clickbait.", "bait", "fine", 2)
    assert "Policy clickbait, version 3" in text
    assert "Teasing is clickbait." in text
    assert "write bait or fine" in text


def test_pair_lines_are_one_line_each() -> None:
    assert pair_lines([pair("positive", ("a\nb\u2028c", "d"))]).count(b"\n") == 1
