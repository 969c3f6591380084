"""One bad CSV record costs only itself."""

from __future__ import annotations

import csv
import io
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.contracts import Rejected
from pipelines.sources.base import ReadOptions, Style
from pipelines.sources.csv_lines import CsvLines, NoRecord, style_of
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


def slowly(text: str, limit: int, style: Style) -> Iterator[tuple[str, object]]:
    """Read records as the module says it does, each line that begins none from the next line on again."""
    lines = io.StringIO(text, newline="").readlines()
    at = style.skipped
    while at < len(lines):
        size = 0

        def feed(first: int) -> Iterator[str]:
            nonlocal at, size
            for at in range(first, len(lines)):
                size += len(lines[at])
                if size > limit:
                    raise csv.Error(f"longer than {limit:,} characters")
                yield lines[at]

        first = at
        quoting = csv.QUOTE_MINIMAL if style.quoted else csv.QUOTE_NONE
        try:
            cells = next(
                csv.reader(feed(first), strict=True, delimiter=style.delimiter, quoting=quoting)
            )
            yield f"line {first + 1}", cells
            at += 1
        except csv.Error as error:
            yield f"line {first + 1}", (str(error), lines[first])
            at = first + 1


def test_quotes_of_any_kind_are_read_as_line_by_line() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        signs = rng.choice(['a",\n', 'a",\n\r', '"\n,', ' "a\n;,\t', 'ab,"\n\0'])
        text = "".join(rng.choice(signs) for _ in range(rng.randrange(40)))
        style = Style(rng.choice([",", ";", "\t"]), rng.random() < 0.85, rng.choice([0, 0, 2]))
        # Records may be too long, lines are not.
        lines = io.StringIO(text, newline="").readlines()
        limit = max([1, *map(len, lines)]) + rng.randrange(8)
        found = [
            (position, (str(cells.error), cells.line) if isinstance(cells, NoRecord) else cells)
            for position, cells in CsvLines(io.StringIO(text, newline=""), limit).records(style)
        ]
        assert found == list(slowly(text, limit, style)), (text, limit, style)


@pytest.mark.parametrize("line", ['a","b\n', 'a,"b\n', '"a\n', 'a,"b""\n'])
def test_quotes_that_never_close_take_time_in_proportion(line: str) -> None:
    # 48,000 characters of them took 12 seconds, ten times as many a hundred times as long. Ten million take
    # about three, of a machine with nothing else to do.
    text = line * (1_000_000 // len(line))
    began = time.process_time()
    number = sum(1 for _ in CsvLines(io.StringIO(text), 1 << 20).records(Style(",", True, 0)))
    assert number >= len(text) // len(line) // 2
    assert time.process_time() - began < 3
