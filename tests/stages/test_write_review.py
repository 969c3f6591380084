"""The review sheet: blind, in drawn order, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import ReviewItem
from pipelines.numerics.calibration import Threshold
from pipelines.stages.write_review import WriteReview, review_sheet
from pipelines.store import storage
from pipelines.store.workspace import Workspace
from pipelines.strategies.base import Chosen
from pipelines.text import content_key
from pipelines.tools.sheet.format import COLUMNS, review_instructions
from pipelines.verdicts.spreadsheet import safe_cell, unprotected
from tests.helpers import provenance, review_ad_of


def pair(left: str, texts: tuple[str, str] = ("loud", "quiet")) -> ReviewItem:
    ads = review_ad_of("p", text=texts[0], label="positive"), review_ad_of("n", text=texts[1])
    return ReviewItem("pair_0", 1, "boundary", ads if left == "positive" else ads[::-1])


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


# Nothing but their first character makes these formulas.
_WIDE = ("＝sum(a)", "＋sum(a)", "－sum(a)", "＠sum(a)")


@pytest.mark.parametrize(
    "text", ["=1+1", "+49 30", "-5%", "@sum", " =1", "＝1", "\ufeff=1", *_WIDE]
)
def test_formulas_are_disarmed(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


# What LibreOffice or Excel make numbers, amounts, dates, times or truth values of, in one language or
# another (tests/test_spreadsheet_office.py asks LibreOffice).
GUESSED = (
    "00123",
    "1e5",
    "1E-5",
    "1234567890123456789",
    "1,5",
    "1 234",
    "10\u00a0000",
    "１２３",
    "٣",
    "50 %",
    "(5)",
    "$5",
    "5 €",
    "R$ 5",
    "kr5",
    "CHF 5",
    "1-2",
    "1/2/2024",
    "2024-01-05T10:00:00Z",
    "5.1.",
    "10:30 PM",
    "1 1/2",
    "TRUE",
    "Wahr",
    "Mar 1",
    "MARCH1",
    "1-Sept-2024",
    "Monday, January 5, 2024",
    "5. März",
    "5 janvier 2024",
    "5 января",
    "2024年1月5日",
    "#N/A",
    "#DIV/0!",
    " 5",
    "9" * 50,
)


@pytest.mark.parametrize("text", GUESSED)
def test_numbers_and_dates_stay_as_they_are(text: str) -> None:
    assert safe_cell(text) == f"'{text}"
    assert unprotected(f"'{text}") == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "50% off = good",
        "Only 5 left, order by 1/2/2024!",
        "ad-00017",
        "ad_680536cf2d9e8bd6",
        "a1",
        "0c5e6a3e-7b0f-4bd4-8b5a-4a5f6a1d2c01",
        "May",
        "market 5",
        "2 for 1 on ads",
        "- so\n- much;\n+ more (today)!",
        "one; two\tthree\nfour\rfive",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    bare = text.removeprefix("-")
    assert safe_cell(bare) == bare and unprotected(bare) == bare


def test_a_formula_inside_a_text_begins_no_cell() -> None:
    # A program that separates at semicolons or tabs, or takes the comma for no separator and so a
    # line end for the row's, would make a cell of it.
    for separator, stands in ((";", "；"), ("\t", "\u2003"), ("\n", "\u2028"), ("\r", "\u2029")):
        for formula in ("=A1", " =A1", "＝A1", "+f(1)", "-cmd|'/c calc'!A1", "@sum(A1)", "+'x'!A1"):
            cell = safe_cell(f"x{separator}{formula}")
            assert cell == f"x{stands}{formula}" and unprotected(cell) == f"x{separator}{formula}"
            assert content_key(cell) == content_key(f"x{separator}{formula}")
        first = safe_cell(f"{separator}=1")
        assert first == f"'{stands}=1" and unprotected(first) == f"{separator}=1"
    assert safe_cell("a\r\n\n;=1") == "a\u2029\u2028\u2028；=1"


def test_protection_takes_linear_time() -> None:
    started = time.monotonic()
    for text in ("\n" * 200_000, "\n-" * 100_000 + "f(", "\t =" * 100_000, "1 " * 100_000):
        assert unprotected(safe_cell(text)) == text
    assert time.monotonic() - started < 5


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_survives_the_sheet(first: str, second: str) -> None:
    first, second = (t.encode("utf-8", "replace").decode() for t in (first, second))
    [_, left, right] = rows(review_sheet([pair("positive", (first, second))]))
    for cell, text in ((left[3], first), (right[3], second)):
        # Spreadsheets keep their cells as XML, which lacks these.
        kept = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", text)
        assert kept in (cell, unprotected(cell))
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert not re.search("[;\t\r\n][ \u00a0]*=", cell)


@given(st.text(alphabet=" ;\t\n\r=+-@'x5(!|\u00a0,\"", max_size=12))
def test_protection_is_undone(text: str) -> None:
    if text != unprotected(text):
        return  # an ad that begins like a protected cell: both readings are tried
    assert unprotected(safe_cell(text)) == text
    assert content_key(safe_cell(text)) in (content_key(text), content_key(f"'{text}"))


def test_instructions_name_the_policy_and_the_labels() -> None:
    text = review_instructions("clickbait", 3, "Teasing is clickbait.", "bait", "fine", 2)
    assert "Policy clickbait, version 3" in text
    assert "Teasing is clickbait." in text
    assert "write bait or fine" in text


def test_a_manifest_is_written_once_and_after_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever is killed in between leaves nothing that counts.
    written: list[str] = []
    real = storage.write

    def watched(path: str, data: bytes) -> None:
        written.append(Path(path).name)
        real(path, data)

    monkeypatch.setattr(storage, "write", watched)
    place = Workspace(str(tmp_path))
    attempts = {stage: place.new_attempt(1, stage) for stage in ("clusters", "pairs", "review")}
    with TestPipeline() as pipeline:
        chosen = pipeline | "Chosen" >> beam.Create([Chosen((pair("positive"),), 1)])
        threshold = pipeline | "Threshold" >> beam.Create([Threshold(0.0, 1, 1)])
        unit = pipeline | "Unit" >> beam.Create([-3])
        _ = (chosen, threshold, unit) | WriteReview(place.root, attempts, "hash", provenance())
    assert written == [
        "items.jsonl",
        "manifest.json",
        "review.csv",
        "instructions.txt",
        "manifest.json",
    ]
