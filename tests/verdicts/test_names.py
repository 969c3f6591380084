"""When two spellings are one name, and what stands for nothing."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text import is_missing
from pipelines.verdicts.names import (
    READ_AS_MISSING,
    exact_number,
    fold_name,
    is_float,
    tidy_name,
    whole_number,
)


@pytest.mark.parametrize(
    ("spelled", "wanted"),
    [
        ("Anna@Example.ORG", "anna@example.org"),
        ("  Anna\u00a0 Maria ", "anna maria"),
        ("Ｂad", "bad"),
        ("Cafe\u0301", "caf\u00e9"),
        ("ba\u200bd", "bad"),
        ("\u200fbad\u200e", "bad"),
        ("\u2067bad\u2069", "bad"),
        ("b\u00ada\u2060d\ufeff", "bad"),
        ("❤\ufe0f", "❤"),
        ("ba\u034fd\u3164", "bad"),
        ("1", "1"),
        ("1.0", "1"),
        ("1.00", "1"),
        ("1,0", "1"),
        ("1.", "1"),
        (" 1", "1"),
        ("１", "1"),
        ("１．０", "1"),
        ("١", "1"),
        ("01", "1"),
        ("+1", "1"),
        ("1e0", "1"),
        ("1.2E+03", "1200"),
        ("-1", "-1"),
        # One or a thousand: nobody knows.
        ("1.000", "1.000"),
        ("1.5", "1.5"),
        ("1e999999999", "1e999999999"),
        ("\u200b\u200f", ""),
        ("\ud800", ""),
    ],
)
def test_one_name_is_one_string(spelled: str, wanted: str) -> None:
    assert fold_name(spelled) == wanted


@given(st.text(max_size=20))
def test_folding_twice_is_folding_once(name: str) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)
    assert fold_name(tidy_name(name)) == fold_name(name)
    assert tidy_name(tidy_name(name)) == tidy_name(name)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("clickbait", "clickbait"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("not  bad", "not bad"),
        ("\u200fgood\u200e", "good"),
        ("ba\u200bd\ufeff", "bad"),
        # Width and case are as the task has them; these joiners are part of the writing.
        ("Ｂad", "Ｂad"),
        ("\u0645\u06cc\u200c\u0634\u0648\u062f", "\u0645\u06cc\u200c\u0634\u0648\u062f"),
    ],
)
def test_people_see_a_tidy_name(written: str, shown: str) -> None:
    assert tidy_name(written) == shown


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "  ",
        "nan",
        "NaN",
        "NAN",
        "-nan",
        "NA",
        "N/A",
        "n/a",
        "<NA>",
        "NaT",
        "None",
        "null",
        "NULL",
        "#N/A",
        "#NV",
        "#N/D",
        "\\N",
        "undefined",
        "NA_character_",
        "#REF!",
        "#VALUE!",
        "(blank)",
        "n.a.",
        "1.#QNAN",
        "ＮＡ",
        "\u200b",
        " NaN\xa0",
        "-",
        "—",
        ".",
    ],
)
def test_missing_in_every_spelling_is_missing(spelled: str) -> None:
    assert is_missing(spelled)


@pytest.mark.parametrize("text", ["0", "no", "nana", "Nan Li", "none of them", "?", "na na", "..."])
def test_what_says_something_is_not_missing(text: str) -> None:
    assert not is_missing(text)


def test_whatever_pandas_reads_as_missing_is_missing() -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    assert set(STR_NA_VALUES) - {""} == READ_AS_MISSING | {"#N/A N/A"}
    assert all(map(is_missing, STR_NA_VALUES))
    frame = pd.DataFrame({"x": [pd.NA, None, float("nan"), pd.NaT]}, dtype=object)
    for text in (frame.to_csv(na_rep="nan"), frame.to_csv(), frame.astype(str).to_csv()):
        cells = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str)["x"]
        assert all(map(is_missing, cells)), text


def test_numbers_are_whole_or_none() -> None:
    assert whole_number("9.007199254740993E+15") == 9007199254740993
    assert whole_number("12345678901234567890") == 12345678901234567890
    for text in ("1.5", "1,000", "1.000", "1_000", "0x10", "ten", "1e", "", "9" * 41, "inf", "½"):
        assert exact_number(text) is None
    assert [text for text in ("1", "1.0", "1.", "1e3", "１．０", "1.5") if is_float(text)] == [
        "1.0",
        "1.",
        "1e3",
        "１．０",
    ]
