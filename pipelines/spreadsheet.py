"""Cells that no spreadsheet takes for a formula, and back."""

from __future__ import annotations

# A cell that starts with one of these is a formula to a spreadsheet.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_BLANKS = " \u00a0\ufeff\u200b"


def _is_formula(text: str) -> bool:
    return text.lstrip(_BLANKS).startswith(_FORMULA_STARTS)


def safe_cell(text: str) -> str:
    """Return text that no spreadsheet takes for a formula, by a leading apostrophe."""
    return f"'{text}" if _is_formula(text) else text


def unprotected(cell: str) -> str:
    """Return a cell without the apostrophe that :func:`safe_cell` put there."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell
