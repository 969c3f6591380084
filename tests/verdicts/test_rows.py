"""What the cells of a row mean: labels, experts, times, comments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import RunFailed
from pipelines.verdicts.rows import LabelNames, normalize_expert
from pipelines.verdicts.spreadsheet import unprotected


@pytest.mark.parametrize(
    ("cell", "meaning"),
    [
        ("bait", "positive"),
        (" BAIT ", "positive"),
        ("Fine", "negative"),
        ("ｆｉｎｅ", "negative"),
        ("fi\u200bne", "negative"),
        ("\u200fBait\u200e", "positive"),
        ("ｓｋｉｐ", "skip"),
        ("positive", "positive"),
        ("Negative", "negative"),
        ("?", "skip"),
        ("N/A", "skip"),
        ("Unsure", "skip"),
        ("yes", None),
        ("1", None),
        ("=bait", None),
        ("bait" * 26, None),
    ],
)
def test_labels_are_the_task_s_names(cell: str, meaning: str | None) -> None:
    assert LabelNames("bait", "fine").read(cell) == meaning


def test_swapping_the_label_names_swaps_the_labels() -> None:
    assert LabelNames("fine", "bait").read("bait") == "negative"
    # The task's own names go before the general ones.
    assert LabelNames("negative", "unsure").read("negative") == "positive"
    assert LabelNames("negative", "unsure").read("unsure") == "negative"
    assert LabelNames("-1", "+1").read("'-1") == "positive"
    for names in (("Bad", "bad "), ("Ｂad", "bad"), ("ba\u200bd", "bad"), ("1", "1.0")):
        with pytest.raises(RunFailed, match="differ only in case, width"):
            LabelNames(*names)
    assert LabelNames("Cafe\u0301", "0").read("CAF\u00c9") == "positive"
    assert LabelNames("1", "0").read("0.0") == "negative"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("  Anna\u00a0 Maria ", "anna maria"),
        ("ANNA\u200b MARIA", "anna maria"),
        ("anna\tmaria", "anna maria"),
        ("Ａnna", "anna"),
        ("an\x00na\u202e", "anna"),
        ("\u200b \ufeff", ""),
        ("'=cmd()", "=cmd()"),
        ("=cmd()", "=cmd()"),
        ("\ud800", ""),
        ("'1.0", "1"),
        ("Anna@Example.ORG", "anna@example.org"),
        ("NaN", ""),
        ("<NA>", ""),
        ("null", ""),
        ("#N/A", ""),
    ],
)
def test_one_person_is_one_name(name: str, wanted: str) -> None:
    assert normalize_expert(name) == wanted


@given(st.text(max_size=30))
def test_names_are_folded_once_for_all(name: str) -> None:
    once = normalize_expert(name)
    if unprotected(once) == once:
        assert normalize_expert(once) == once
    once.encode()
