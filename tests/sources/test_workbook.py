"""Workbooks: sheets, headers, cells, and what is damaged or far too large."""

from __future__ import annotations

import datetime
import io
import sys
import zipfile
from collections.abc import Sequence

import pytest

from pipelines.errors import RunFailed
from pipelines.sources import workbook
from tests import helpers


def known(cells: Sequence[str]) -> int:
    return sum(cell in ("id", "text") for cell in cells)


def read(data: bytes) -> list[list[tuple[str, object]]]:
    return [list(records) for records in workbook.tables(io.BytesIO(data), "a.xlsx", known)]


def test_every_sheet_with_the_columns_is_read() -> None:
    may, june = [["id", "text"], ["1", "a"]], [["a title"], [], ["text", "id"], ["b", 2]]
    [first, second] = read(helpers.xlsx(may, [["other"], ["x"]], june, []))
    assert first == [
        ("sheet 'Sheet 1', row 1", ["id", "text"]),
        ("sheet 'Sheet 1', row 2", ["1", "a"]),
    ]
    assert second == [
        ("sheet 'Sheet 3', row 3", ["text", "id"]),
        ("sheet 'Sheet 3', row 4", ["b", "2"]),
    ]


def test_without_the_columns_the_first_sheet_is_read_for_the_error() -> None:
    assert read(helpers.xlsx([], [["name"], ["x"]], [["more"]])) == [
        [("sheet 'Sheet 2', row 1", ["name"]), ("sheet 'Sheet 2', row 2", ["x"])]
    ]
    assert read(helpers.xlsx([])) == []


def test_cells_are_text_and_rows_as_wide_as_the_header() -> None:
    day = datetime.datetime(2026, 11, 26, 12, 30)
    rows = [
        ["id", "text", "n", None],
        [12.0, "a"],
        [1.5, True, day, None, "beyond"],
        [None, "=1+1"],
    ]
    [found] = read(helpers.xlsx(rows))
    assert [cells for _, cells in found] == [
        ["id", "text", "n"],
        ["12", "a", ""],
        ["1.5", "TRUE", "2026-11-26T12:30:00", "", "beyond"],
        # A formula that was never computed has no value.
        ["", "", ""],
    ]


def test_damage_is_named() -> None:
    whole = helpers.xlsx([["id", "text"], ["1", "a"]])
    for data in (whole[:-40], b"PK\x03\x04", b"", whole[:200] + bytes(60) + whole[260:]):
        with pytest.raises(RunFailed, match=r"a.xlsx: cannot be read to its end as xlsx"):
            read(data)
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(RunFailed, match="no workbook; save it as CSV"):
        read(empty.getvalue())


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = helpers.xlsx([["id", "text"], ["1", "a" * 30_000]])
    monkeypatch.setattr(workbook, "_MAX_SHEET_BYTES", 20_000)
    with pytest.raises(
        RunFailed, match=r"xl/worksheets/sheet1.xml unpacks to 30,\d+ bytes, at most 20,000"
    ):
        read(data)


def test_rows_that_a_file_only_claims_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    source, sink = io.BytesIO(helpers.xlsx([["id", "text"], ["1", "a"]])), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(sink, "w") as new:
        for name in old.namelist():
            part = (
                old.read(name).replace(b'r="2"', b'r="900000000"').replace(b'"A2"', b'"A900000000"')
            )
            new.writestr(name, part.replace(b'"B2"', b'"B900000000"'))
    monkeypatch.setattr(workbook, "_MAX_ROWS", 1000)
    [found] = read(sink.getvalue())
    assert len(found) <= 1000


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        RunFailed, match=r"needs openpyxl: pip install 'ad-scout\[xlsx\]', or save it"
    ):
        read(helpers.xlsx.__doc__.encode() if helpers.xlsx.__doc__ else b"")
