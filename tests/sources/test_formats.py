"""Open files to records: every format and every cut."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import Rejected
from pipelines.errors import RunFailed
from pipelines.sources.base import ReadOptions
from pipelines.text import content_id, content_key
from tests.sources import ADS, read, texts, write


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.ndjson.bz2", "a.csv", "a.csv.gz", "a.parquet"]
)
def test_formats_give_the_same_ads(name: str, tmp_path: Path) -> None:
    records = read(write(tmp_path / name, ADS), ReadOptions(weight_field="w"))
    assert [(ad.id, ad.text, ad.weight) for ad in records] == [
        (row["id"], row["text"], float(row["w"])) for row in ADS
    ]
    assert all(ad.key == content_key(ad.text) for ad in records)


def test_plain_text_is_one_ad_a_line_with_content_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes('\ufeffFirst ad\r\n\n  \nSecond: {"id": 1}\nno newline at the end'.encode())
    records = read(path)
    assert texts(records) == ["First ad", 'Second: {"id": 1}', "no newline at the end"]
    assert records[0].id == content_id(content_key("first AD"))
    assert [record.position for record in records] == ["line 1", "line 4", "line 5"]


def test_csv_rows_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n1,good\n2,caf\xe9\n3,a,b\n4\n5,\n\n6,also good\n")
    records = read(path, ReadOptions(encoding="utf-8"))
    assert texts(records) == ["good", "also good"]
    assert [(r.reason, r.position) for r in records if isinstance(r, Rejected)] == [
        ("not_utf8", "line 3"),
        ("wrong_columns", "line 4"),
        ("wrong_columns", "line 5"),
        ("empty_text", "line 6"),
    ]


def test_tabs_do_not_quote(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('id\ttext\n1\t"Win today\n2\tplain\n')
    assert texts(read(path)) == ['"Win today', "plain"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_two_columns_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("id,text,text\n1,a,b\n".replace(",", "\t" if "tsv" in name else ","))
    with pytest.raises(RunFailed, match="2 columns are named 'text'"):
        read(path)


def test_parquet_rows_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    column = pa.array([b"good", b"caf\xe9", None], pa.binary())
    pq.write_table(pa.table({"id": ["1", "2", "3"], "text": column}), path)
    records = read(path)
    assert texts(records) == ["good"]
    assert [r.reason for r in records if isinstance(r, Rejected)] == ["not_utf8", "no_text"]
    pq.write_table(pa.table({"text": [1, 2]}), path)
    assert [r.reason for r in read(path)] == ["wrong_type", "wrong_type"]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_missing_column_names_those_there_are(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, [{"headline": "a", "n": "1"}])
    with pytest.raises(RunFailed, match="no column 'text'; its columns are headline, n"):
        read(path)
    assert texts(read(path, ReadOptions(text_field="headline"))) == ["a"]


@given(
    lines=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12), max_size=12
    ),
    range_bytes=st.integers(1, 40),
    last=st.booleans(),
)
def test_cutting_a_file_neither_loses_nor_doubles(
    lines: list[str], range_bytes: int, last: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(("\n".join(lines) + ("\n" if last else "")).encode())
    assert texts(read(path, range_bytes=range_bytes)) == texts(read(path))


def test_an_over_long_line_is_skipped_whole_also_across_ranges(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"first\n" + b"x" * 5000 + b"\nlast\n")
    for range_bytes in (1 << 30, 700):
        options = ReadOptions(max_record_bytes=100)
        records = read(path, options, range_bytes)
        assert texts(records) == ["first", "last"]
        assert [r.reason for r in records if isinstance(r, Rejected)] == ["too_long"]


def test_positions_in_later_ranges_are_byte_offsets(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"aaaa\nbbbb\ncccc\n")
    assert [ad.position for ad in read(path, range_bytes=5)] == ["line 1", "byte 5", "byte 10"]
