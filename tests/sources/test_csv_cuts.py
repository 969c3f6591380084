"""Tables in parts: the same rows as in one piece, whatever stands in the cells."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts import Ad
from pipelines.sources import csv_cuts
from pipelines.sources.base import Layout, ReadOptions, Style
from tests.sources import parts, read, records

OPTIONS = ReadOptions(format="csv", delimiter=",", encoding="utf-8")
# What a cell is made of: the signs that mean something, and a letter of two bytes.
_SIGNS = st.sampled_from(['"', ",", "\n", "\r\n", "a", "é", " "])
_CELLS = st.lists(_SIGNS, max_size=6).map("".join)
_ROWS = st.lists(st.tuples(_CELLS, _CELLS), min_size=1, max_size=12)


def table(rows: list[tuple[str, str]], end: str = "\n") -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator=end)
    writer.writerows([("id", "text"), *rows])
    return sink.getvalue()


def in_parts(path: Path, range_bytes: int, options: ReadOptions = OPTIONS) -> int:
    """Check that a file in parts has the rows of the whole file; returns the largest number of parts."""
    whole, number = read(path, options), 0
    # Also where quotes and line ends lie at the ends of what is read at a time.
    for head, piece in ((1 << 18, 1 << 22), (40, 1), (40, 7)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_cuts, "HEAD_BYTES", head)
            patch.setattr(csv_cuts, "_PIECE_BYTES", piece)
            assert records([str(path)], options, range_bytes) == whole
            found = parts([str(path)], options, range_bytes)
            assert sum(part.bytes for part in found) == path.stat().st_size
            number = max(number, len(found))
    return number


@settings(max_examples=150, deadline=None)
@given(_ROWS, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"]), st.integers(1, 30))
def test_written_tables(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    end: str,
    mark: str,
    range_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_text(mark + table(rows, end), encoding="utf-8", newline="")
    in_parts(path, range_bytes)


@settings(max_examples=150, deadline=None)
@given(st.lists(_CELLS, max_size=20), st.integers(1, 30))
def test_what_no_program_would_write(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], range_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_text("id,text\n" + ",".join(pieces), encoding="utf-8", newline="")
    in_parts(path, range_bytes)


def test_line_ends_in_cells_are_cut_around(tmp_path: Path) -> None:
    rows = [(f"{n}", f'ad {n}\nsays "{n}", twice\n' if n % 3 else f"plain {n}") for n in range(90)]
    path = tmp_path / "a.csv"
    path.write_text(table(rows), encoding="utf-8", newline="")
    assert in_parts(path, 100) == 20
    found = records([str(path)], OPTIONS, 100)
    assert [(ad.id, ad.text) for ad in found if isinstance(ad, Ad)] == rows
    # Lines are counted through the parts.
    assert found[-1].position == read(path)[-1].position == f"line {2 + 30 + 59 * 3}"


def test_a_title_before_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "".join(f'{n};"ad; {n}"\r\n' for n in range(50))
    path.write_bytes(f'My 3" report\r\n\r\nid;text\r\n{rows}'.encode("cp1252"))
    options = ReadOptions(encoding="cp1252")
    assert in_parts(path, 60, options) > 5
    assert [ad.text for ad in records([str(path)], options, 60)] == [f"ad; {n}" for n in range(50)]


@pytest.mark.parametrize(
    "rows",
    [
        b'1,5" screens\n' * 20,
        b'1, "a"\n' * 20,
        b'1,"a"b\n' * 20,
        # Where the quote is the last byte of what was read at a time.
        b"1,a\n" * 20 + b'1,"a"b\n' + b"2,c\n" * 20,
        b"1,a\r2,b\n" * 20,
        b'1,"never closed\n' + b"2,b\n" * 20,
        b"1,a\n" * 20 + b'2,"never closed',
        b"1,a\n" * 20 + b"2," + b"x" * 200 + b"\n",
    ],
    ids=[
        "stray",
        "behind a blank",
        "behind a quote",
        "there, later",
        "returns",
        "open",
        "open at the end",
        "long",
    ],
)
def test_where_rows_are_not_certain_the_file_stays_whole(rows: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n" + rows)
    options = ReadOptions(delimiter=",", encoding="utf-8", max_record_bytes=100)
    assert in_parts(path, 20, options) == 1


@pytest.mark.parametrize(
    ("encoding", "delimiter", "may"),
    [
        ("utf-8", ",", True),
        ("cp1252", "|", True),
        ("koi8_r", ";", True),
        # A byte of a letter may look like a sign, or a sign is several bytes.
        ("cp932", "|", False),
        ("gb18030", ",", False),
        ("utf-16", ",", False),
        ("utf-8", "§", False),
        ("cp037", ",", False),
    ],
)
def test_encodings_of_which_a_byte_is_a_sign(encoding: str, delimiter: str, may: bool) -> None:
    codecs.lookup(encoding)
    assert csv_cuts.may_be_cut(Layout("csv", "", encoding, style=Style(delimiter))) is may
    assert not csv_cuts.may_be_cut(Layout("csv", "gzip", encoding, style=Style(delimiter)))
    assert not csv_cuts.may_be_cut(Layout("jsonl", "", encoding))


def test_tabs_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("id\ttext\n" + "".join(f'{n}\t5" of {n}\n' for n in range(60)))
    assert in_parts(path, 50, ReadOptions()) > 5
