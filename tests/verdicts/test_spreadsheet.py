"""Cells that spreadsheets leave alone, and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.verdicts.spreadsheet import safe_cell, unprotected


@given(st.text(max_size=30))
def test_what_the_sheet_protects_is_unprotected(text: str) -> None:
    if text != unprotected(text):
        return  # an ad that begins like a protected cell: both readings are tried
    assert unprotected(safe_cell(text)) == text
