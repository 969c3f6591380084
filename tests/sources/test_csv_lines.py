"""One bad CSV record costs only itself."""

from __future__ import annotations

from pathlib import Path

from pipelines.contracts import Rejected
from pipelines.sources.base import ReadOptions
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
