"""One bad CSV record costs only itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.contracts import Rejected
from pipelines.sources.base import ReadOptions
from pipelines.sources.csv_lines import style_of
from tests.sources import read, texts


def test_an_unclosed_quote_costs_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = ['1,"fine, quoted"', '2,"unclosed', "3,after", '4,"also "wrong" inside"', "5,last"]
    path.write_text("id,text\r\n" + "\r\n".join(rows) + "\r\n", newline="")
    records = read(path)
    assert texts(records) == ["fine, quoted", "after", "last"]
    assert [(r.reason, r.position) for r in records if isinstance(r, Rejected)] == [
        ("not_csv", "line 3"),
        ("not_csv", "line 5"),
    ]


def test_a_cell_over_lines_and_an_endless_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,"two\nlines"\n2,' + b"x" * 9000 + b'\n3,"open ' + b"y\n" * 2000)
    records = read(path, ReadOptions(max_record_bytes=1000))
    assert texts(records)[:1] == ["two\nlines"]
    reasons = [(r.reason, r.position) for r in records if isinstance(r, Rejected)]
    assert reasons[:2] == [("too_long", "line 4"), ("too_long", "line 5")]
    # The lines after the open quote are rows of their own: one cell each.
    assert {reason for reason, _ in reasons[2:]} == {"wrong_columns"}
    assert len(reasons) == 2 + 1999


def table(delimiter: str, *before: str, rows: list[tuple[str, ...]]) -> str:
    lines = [delimiter.join(cells) for cells in (("Headline", "Action", "Cost"), *rows)]
    return "".join(f"{line}\r\n" for line in (*before, *lines))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize(
    ("before", "skipped"),
    [
        ((), 0),
        (("Ad performance report", "1 November 2026 - 20 November 2026"), 2),
        (("Ad performance report", "November 1, 2026 - November 20, 2026"), 2),
        (("Ads, all of them",), 1),
    ],
)
def test_a_comma_in_every_row_parts_no_cells(
    delimiter: str, before: tuple[str, ...], skipped: int
) -> None:
    # Nothing is known of the columns, as when `scout init` looks.
    rows = [
        (f"Cheap tickets to {city}, booked in advance", "Book now", f"{price},50")
        for price, city in enumerate(("Leeds", "York", "Bath", "Hull", "Derby"))
    ]
    style = style_of(table(delimiter, *before, rows=rows), lambda names: 0)
    assert (style.delimiter, style.skipped) == (delimiter, skipped)


def test_other_signs_in_every_text_part_no_cells() -> None:
    lines = ["id,text", *(f'{n},"buy now; pay later; {n}|{n}"' for n in range(5))]
    style = style_of("\n".join(lines) + "\n", lambda names: 0)
    assert (style.delimiter, style.skipped) == (",", 0)
