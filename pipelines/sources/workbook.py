"""Workbooks (.xlsx) to rows of text, by openpyxl in a stream; the extra `xlsx` brings it."""

from __future__ import annotations

import datetime
import itertools
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

from pipelines.errors import RunFailed
from pipelines.sources.csv_lines import Records

# What a workbook may unpack to: sheets are read in a stream, the table of their texts is held.
_MAX_SHEET_BYTES, _MAX_TEXTS_BYTES = 4 << 30, 256 << 20
# Excel's own limit; a file may claim any row number.
_MAX_ROWS = 1 << 20
# Spreadsheets keep 15 digits.
_ROUNDED_FROM = 10**15
_HEADER_ROWS = 20
_DAMAGED = (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError, ParseError, TypeError)


def tables(source: BinaryIO, name: str, known: Callable[[Sequence[str]], int]) -> Iterator[Records]:
    """Yield the rows of each sheet whose header has columns that are looked for, else of the first.

    A sheet's first row is its header, which may stand some rows further down; rows are as wide as it.
    Memory: the workbook's distinct texts, and a row.

    Args:
        source: the file; seekable.
        name: its name, for errors.
        known: tells how many of a header's cells name columns that are looked for.

    Raises:
        RunFailed: openpyxl is not installed, or the file is no workbook, damaged, or far too large.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise RunFailed(
            f"{name}: reading a workbook needs openpyxl: pip install 'ad-scout[xlsx]', or save it as CSV"
        ) from error
    try:
        _check_size(source, name)
        with warnings.catch_warnings():
            # Of styles and extensions that no row depends on.
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(source, read_only=True, data_only=True)
            sheets = book.worksheets
            starts = [_header_of(sheet, known) for sheet in sheets]
            wanted = [i for i, (count, _) in enumerate(starts) if count] or [
                i for i, (count, row) in enumerate(starts) if row
            ][:1]
            for i in wanted:
                prefix = f"sheet {sheets[i].title!r}, " if len(sheets) > 1 else ""
                yield _records(sheets[i], starts[i][1], prefix)
    except _DAMAGED as error:
        raise RunFailed(
            f"{name}: cannot be read to its end as xlsx ({type(error).__name__}: {error}); the file is "
            "damaged, or no workbook; save it as CSV"
        ) from error


def _check_size(source: BinaryIO, name: str) -> None:
    """Refuse an archive that unpacks to more than is read; reading stops at the sizes it claims."""
    with zipfile.ZipFile(source) as archive:
        for entry in archive.infolist():
            is_sheet = entry.filename.startswith("xl/worksheets/")
            limit = _MAX_SHEET_BYTES if is_sheet else _MAX_TEXTS_BYTES
            if entry.file_size > limit:
                raise RunFailed(
                    f"{name}: {entry.filename} unpacks to {entry.file_size:,} bytes, at most {limit:,}; "
                    "save it as CSV"
                )
    source.seek(0)


def _rows_of(sheet: Any) -> Iterator[list[str]]:
    # What a sheet says of its own size is often wrong.
    sheet.reset_dimensions()
    for row in sheet.iter_rows(values_only=True, max_row=_MAX_ROWS):
        yield [_text(value) for value in row]


def _header_of(sheet: Any, known: Callable[[Sequence[str]], int]) -> tuple[int, int]:
    """Return how many known columns a sheet's header has, and its row from 1; 0 of an empty sheet."""
    rows = enumerate(itertools.islice(_rows_of(sheet), _HEADER_ROWS), start=1)
    found = [(known(cells), -number) for number, cells in rows if any(map(str.strip, cells))]
    count, row = max(found, default=(0, 0))
    return count, -row


def _records(sheet: Any, header: int, prefix: str) -> Records:
    width = 0
    for number, cells in enumerate(_rows_of(sheet), start=1):
        if number < header:
            continue
        while cells and not cells[-1].strip() and len(cells) > width:
            cells.pop()
        width = width or len(cells)
        yield f"{prefix}row {number}", cells + [""] * (width - len(cells))


def _text(value: Any) -> str:
    """Return a cell as a person reads it: whole numbers without a point, dates as ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float) and abs(value) >= _ROUNDED_FROM:
        # As it is lost, not as digits that it may never have had.
        return f"{value:.14E}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
