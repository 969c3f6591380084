"""Corpus files to records: every format, every kind of bad record, every cut."""

from __future__ import annotations

import bz2
import csv
import decimal
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.sources.readers import (
    FileRange,
    ReadOptions,
    file_format,
    list_corpus,
    plan,
    read_range,
)
from pipelines.text import content_id, content_key
from tests import helpers


def read(path: Path, options: ReadOptions | None = None, range_bytes: int = 1 << 30) -> list:
    options = options or ReadOptions()
    ranges = plan([(str(path), path.stat().st_size)], options.format, range_bytes)
    return [record for part in ranges for record in read_range(part, options)]


def texts(records: list) -> list[str]:
    return [record.text for record in records if isinstance(record, Ad)]


ADS = [
    {"id": "1", "text": "Plain ad", "w": 2},
    {"id": "2", "text": 'Quoted "ad", with comma', "w": 0.5},
    {"id": "3", "text": "Zeilen\nbruch und Füße \u05e9", "w": 1},
]


def write(path: Path, rows: list[dict]) -> Path:
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if ".csv" in name or ".tsv" in name:
        lines = path.with_suffix(".tmp")
        with open(lines, "w", newline="", encoding="utf-8") as sink:
            writer = csv.DictWriter(sink, list(rows[0]), delimiter="\t" if ".tsv" in name else ",")
            writer.writeheader()
            writer.writerows(rows)
        data = lines.read_bytes()
        lines.unlink()
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name.endswith(".gz"):
        data = gzip.compress(data)
    if name.endswith(".bz2"):
        data = bz2.compress(data)
    path.write_bytes(data)
    return path


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


def test_ids(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "text": "a"},
        {"text": "b"},
        {"id": "", "text": "c"},
        {"id": "x", "text": "d"},
    ]
    path = helpers.write_jsonl(tmp_path / "a.jsonl", rows)
    assert [ad.id for ad in read(path)] == [
        "7",
        content_id(content_key("b")),
        content_id(content_key("c")),
        "x",
    ]
    strict = read(path, ReadOptions(id_field="id"))
    assert [getattr(record, "reason", "") for record in strict] == ["", "no_id", "no_id", ""]
    assert read(path, ReadOptions(id_field="none"))[0].id == content_id(content_key("a"))


BAD_LINES = [
    (b"{not json", "not_json"),
    (b'{"text": "a"', "not_json"),
    (b"[" * 100_000, "not_json"),
    (b'{"id": ' + b"9" * 5000 + b', "text": "a"}', "not_json"),
    (b"[1, 2]", "not_an_object"),
    (b'"text"', "not_an_object"),
    (b"null", "not_an_object"),
    (b'{"id": "1"}', "no_text"),
    (b'{"id": "1", "text": null}', "no_text"),
    (b'{"id": "1", "text": 5}', "wrong_type"),
    (b'{"id": "1", "text": ["a"]}', "wrong_type"),
    (b'{"id": true, "text": "a"}', "wrong_type"),
    (b'{"id": {"a": 1}, "text": "a"}', "wrong_type"),
    (b'{"id": 1.5, "text": "a"}', "wrong_type"),
    (b'{"id": "1", "text": ""}', "empty_text"),
    (b'{"id": "1", "text": " \\u200b\\t "}', "empty_text"),
    (b'{"id": "1", "text": "caf\xe9"}', "not_utf8"),
    (b'{"id": "1", "text": "half \\ud83d pair"}', "not_utf8"),
    (b'{"id": "\\ud83d", "text": "a"}', "not_utf8"),
    (b'{"id": "1", "text": "' + b"x" * 20_001 + b'"}', "too_long"),
    (b'{"id": "1", "text": "' + b"x" * (1 << 20) + b'"}', "too_long"),
    (b'{"id": "1", "text": "a", "w": -1}', "bad_weight"),
    (b'{"id": "1", "text": "a", "w": NaN}', "bad_weight"),
    (b'{"id": "1", "text": "a", "w": 1e400}', "bad_weight"),
    (b'{"id": "1", "text": "a", "w": "many"}', "bad_weight"),
    (b'{"id": "1", "text": "a", "w": true}', "bad_weight"),
    (b'{"id": "1", "text": "a"}', "bad_weight"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=lambda value: str(value)[:30])
def test_a_bad_record_costs_only_itself(line: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = b'{"id": "%d", "text": "ad %d", "w": 1}\n'
    path.write_bytes(good % (1, 1) + line + b"\n" + good % (2, 2))
    records = read(path, ReadOptions(weight_field="w"))
    assert texts(records) == ["ad 1", "ad 2"]
    [rejected] = [record for record in records if isinstance(record, Rejected)]
    assert rejected.reason == reason
    assert (rejected.stage, rejected.source, rejected.position) == ("ReadAds", str(path), "line 2")
    assert rejected.detail
    assert len(rejected.excerpt) <= 200
    # Whatever was in the record, the dead letter itself can be stored.
    json.dumps([rejected.id, rejected.detail, rejected.excerpt]).encode()
    rejected.excerpt.encode()
    rejected.id.encode()


def test_csv_rows_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n1,good\n2,caf\xe9\n3,a,b\n4\n5,\n\n6,also good\n")
    records = read(path)
    assert texts(records) == ["good", "also good"]
    assert [(r.reason, r.position) for r in records if isinstance(r, Rejected)] == [
        ("not_utf8", "line 3"),
        ("wrong_columns", "line 4"),
        ("wrong_columns", "line 5"),
        ("empty_text", "line 6"),
    ]


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


def test_decimal_weights_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    weights = pa.array([decimal.Decimal("2.50")], pa.decimal128(10, 2))
    pq.write_table(pa.table({"text": ["a"], "w": weights}), path)
    assert [ad.weight for ad in read(path, ReadOptions(weight_field="w"))] == [2.5]


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


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.csv.gz"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, ADS * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunFailed, match=f"{name}: cannot be read to its end as"):
        read(path)
    path.write_bytes(b"this is neither")
    with pytest.raises(RunFailed, match=name):
        read(path)


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
        ranges = plan([(str(path), path.stat().st_size)], "", range_bytes)
        records = [record for part in ranges for record in read_range(part, options)]
        assert texts(records) == ["first", "last"]
        assert [r.reason for r in records if isinstance(r, Rejected)] == ["too_long"]


def test_positions_in_later_ranges_are_byte_offsets(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"aaaa\nbbbb\ncccc\n")
    assert [ad.position for ad in read(path, range_bytes=5)] == ["line 1", "byte 5", "byte 10"]


def test_plan_cuts_only_what_can_be_cut() -> None:
    files = [("a.jsonl", 25), ("b.jsonl.gz", 25), ("c.csv", 25), ("d.parquet", 25), ("e.txt", 5)]
    cut = plan(files, "", 10)
    assert [part for part in cut if part.path == "a.jsonl"] == [
        FileRange("a.jsonl", "jsonl", 0, 10),
        FileRange("a.jsonl", "jsonl", 10, 20),
        FileRange("a.jsonl", "jsonl", 20, 25),
    ]
    assert [(p.path, p.start, p.stop) for p in cut[3:]] == [
        (path, 0, -1) for path in ("b.jsonl.gz", "c.csv", "d.parquet", "e.txt")
    ]


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not tell the format"):
        file_format("ads.dat")
    with pytest.raises(UsageError, match="no file matches"):
        list_corpus([str(tmp_path / "*.jsonl")])
    with pytest.raises(UsageError, match=r"is a folder; give .*/\*"):
        list_corpus([f"{tmp_path}/"])


def test_every_spelling_of_a_file_is_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = helpers.write_jsonl(tmp_path / "a [1].jsonl", [{"text": "a"}])
    (tmp_path / "link.jsonl").symlink_to(one)
    (tmp_path / "folder.jsonl").mkdir()
    monkeypatch.chdir(tmp_path)
    found = list_corpus(["*.jsonl", "./*.jsonl", "a [1].jsonl", str(one), f"{tmp_path}/*.jsonl"])
    assert [path for path, _, _ in found] == [str(one.resolve())]
