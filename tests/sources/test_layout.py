"""Corpora as they come: whatever a file is called, its first bytes say how it is written."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts import Ad
from pipelines.errors import RunFailed, UsageError
from pipelines.sources import registry
from pipelines.sources.base import ReadOptions
from pipelines.sources.csv_lines import style_of
from pipelines.sources.fields import AdField
from pipelines.sources.survey import survey
from tests import helpers
from tests.sources import read, reasons, texts

ROWS = [
    {"id": "1", "text": "Günstige Schuhe; für alle", "spend": "1,234"},
    {"id": "2", "text": 'Ein "gutes" Angebot, heute', "spend": "2"},
    {"id": "3", "text": "Große\nFreiheit", "spend": "3.5"},
]
ADS = [(row["id"], row["text"], weight) for row, weight in zip(ROWS, (1234, 2, 3.5), strict=True)]


def table(delimiter: str, rows: list[dict[str, str]] = ROWS) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def lines(rows: list[dict[str, str]] = ROWS) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def told(path: Path, options: ReadOptions | None = None) -> list[str]:
    options = options or ReadOptions()
    parts = survey([str(path)], options, 1 << 30).ranges
    return [line.removeprefix(f"{path.parent}/") for line in registry.told(parts, options)]


FILES: dict[str, tuple[str, bytes, str]] = {
    "plain": ("a.jsonl", lines().encode(), ""),
    "utf-16": ("a.jsonl", lines().encode("utf-16"), "read as utf-16"),
    "utf-16 without its mark": (
        "a.csv",
        table(",").encode("utf-16-le"),
        "read as utf-16-le, as it looks (--encoding if that is wrong)",
    ),
    "an export of Google Ads": (
        "a.csv",
        ('Ad report\r\n"November 1, 2026"\r\n' + table("\t")).encode("utf-16"),
        "read as utf-16, cells parted by tabs, the header in line 3 (--delimiter if that is wrong)",
    ),
    "semicolons in cp1252": (
        "a.csv",
        table(";").encode("cp1252"),
        "read as cp1252, as it looks, cells parted by ';' (--encoding and --delimiter if that is wrong)",
    ),
    "json in cp1252": (
        "a.jsonl",
        lines().encode("cp1252"),
        "read as cp1252, as it looks (--encoding if that is wrong)",
    ),
    "tabs": ("a.csv", table("\t").encode(), "cells parted by tabs (--delimiter if that is wrong)"),
    "bars": ("a.csv", table("|").encode(), "cells parted by '|' (--delimiter if that is wrong)"),
    "a hint": (
        "a.csv",
        ("\ufeffsep=;\r\n" + table(";")).encode(),
        "cells parted by ';', the header in line 2 (--delimiter if that is wrong)",
    ),
    "blank lines first": ("a.csv", ("\r\n \r\n" + table(",")).encode(), "the header in line 3"),
    "quoted tabs": ("a.tsv", table("\t").encode(), "with quotation marks around cells"),
    "commas called tabs": (
        "a.tsv",
        table(",").encode(),
        "cells parted by ',' (--delimiter if that is wrong)",
    ),
    "gzip without its name": ("a.csv", gzip.compress(table(",").encode()), ""),
    "its name without gzip": ("a.csv.gz", table(",").encode(), ""),
    "zstd": ("a.jsonl.zst", pa.compress(lines().encode(), "zstd", asbytes=True), ""),
    "zstd without its name": ("a.jsonl", pa.compress(lines().encode(), "zstd", asbytes=True), ""),
    "utf-16 in gzip": ("a.jsonl.gz", gzip.compress(lines().encode("utf-16")), "read as utf-16"),
    "an array": ("a.json", json.dumps(ROWS, indent=1).encode(), ""),
    "an array on a line": ("a.jsonl", json.dumps(ROWS).encode(), ""),
    "an array in utf-16": ("a.json", json.dumps(ROWS).encode("utf-16"), "read as utf-16"),
    "an array in gzip": ("a.json.gz", gzip.compress(json.dumps(ROWS).encode()), ""),
    "JSON lines without a name": ("part-00000", lines().encode(), ""),
    "a workbook": ("a.xlsx", helpers.xlsx([list(ROWS[0]), *(list(r.values()) for r in ROWS)]), ""),
    "a workbook with a title and another sheet": (
        "a.xlsx",
        helpers.xlsx([["notes"]], [[], ["Ads"], list(ROWS[0]), *(list(r.values()) for r in ROWS)]),
        "",
    ),
    "CSV called a workbook": (
        "a.xls",
        table("\t").encode("utf-16"),
        "read as utf-16, cells parted by tabs (--delimiter if that is wrong)",
    ),
}


@pytest.mark.parametrize("kind", list(FILES))
def test_the_same_ads_from_every_file(kind: str, tmp_path: Path) -> None:
    name, data, words = FILES[kind]
    path = tmp_path / name
    path.write_bytes(data)
    options = ReadOptions(weight_field="spend")
    found = read(path, options)
    assert [(ad.id, ad.text, ad.weight) for ad in found if isinstance(ad, Ad)] == ADS
    assert len(found) == 3
    assert told(path, options) == ([f"{name}: {words}"] if words else [])
    # However small the ranges are.
    assert texts(read(path, options, range_bytes=16)) == texts(found)


def test_parquet_without_a_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "part-00000")
    assert texts(read(tmp_path / "part-00000")) == ["a"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"\xd0\xcf\x11\xe0\0", "is an old Excel workbook .*; save it as .xlsx or as CSV"),
        (
            "a.zip",
            b"PK\x03\x04 ads.csv",
            r"is a zip archive; `unzip .*/a.zip -d ads`, then `--corpus ads`",
        ),
        (
            "a.ods",
            b"PK\x03\x04 mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
            "is an OpenDocument sheet; save it as .xlsx .*`soffice --convert-to xlsx",
        ),
        ("a.json", b'{"data": [\n{"text": "a"}]}', r"`jq -c '.\[\]\[\]' .*/a.json > ads.jsonl`"),
        ("a.jsonl", b'{\n  "text": "a"\n}\n', r"`jq -c . .*/a.jsonl > ads.jsonl`"),
        ("a.txt", bytes(range(256)) + bytes(99), "is a binary file of no format"),
        ("a.csv", b"Obj\x01\0\0", "is an Avro file; write it as JSON lines .`fastavro .*/a.csv"),
        ("a.csv.gz", gzip.compress(b"PAR1\0\0", mtime=0), "is parquet packed by gzip; unpack it"),
        ("ads", b"an ad\n", "the name does not tell the format; give --format"),
    ],
)
def test_what_is_refused_says_what_to_do(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(
        UsageError, match=f"--corpus {path}: .*{message}|--corpus {path}: {message}"
    ):
        read(path)


def test_text_in_utf_16_is_never_taken_for_ads(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        path = tmp_path / f"{encoding}.txt"
        path.write_bytes("Günstige Schuhe\r\nDer beste Tee\r\n".encode(encoding))
        assert texts(read(path)) == ["Günstige Schuhe", "Der beste Tee"]


def test_what_a_person_says_of_encoding_and_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id;text\n1;Łódź, dziś\n".encode("cp1250"))
    assert texts(read(path, ReadOptions(encoding="cp1250"))) == ["Łódź, dziś"]
    assert told(path, ReadOptions(encoding="cp1250", delimiter=";")) == [
        "a.csv: read as cp1250, cells parted by ';' (--delimiter if that is wrong)"
    ]
    with pytest.raises(RunFailed, match="no column 'text'; its columns are id;text"):
        read(path, ReadOptions(delimiter=","))
    wrong = read(path, ReadOptions(encoding="utf-8"))
    assert reasons(wrong) == [("not_utf8", "line 2")]
    path.write_bytes(b"id;text\n1;ok\n" + b"2;\x81\n")
    wrong = read(path, ReadOptions(encoding="cp1252"))
    assert reasons(wrong) == [("wrong_encoding", "line 3")]
    assert "not cp1252; --encoding names another" in wrong[1].detail
    # What is left to the files does not change what was read before.
    plain = ReadOptions()
    assert set(plain.shaping()) == {*plain.__slots__} - {"encoding", "delimiter", "whole"}
    assert ReadOptions(encoding="cp1252").shaping()["encoding"] == "cp1252"


def test_headers_that_come_again(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text\n1,one\n" + "id,text\n2,two\n" + "ID, Text\n3,three\n")
    found = read(path)
    again = [("header_again", "line 3"), ("header_again", "line 5")]
    assert (texts(found), reasons(found)) == (["one", "two", "three"], again)


@pytest.mark.parametrize(
    ("delimiter", "weights", "read_as", "words"),
    [
        (",", ["1,234", "5"], [1234, 5], ""),
        (";", ["1.234,56", "12"], [1234.56, 12], "weights with a decimal comma"),
        (";", ["3,50", "1.234"], [3.5, 1234], "weights with a decimal comma"),
        (";", ["0.125", "1.234"], [0.125, 1.234], ""),
        (";", ["1.234", "1,234"], [1.234, 1234], ""),
        ("\t", ["1 234,5", "1\u202f000"], [1234.5, 1000], "weights with a decimal comma"),
        (";", ["1'234.50", "12’000"], [1234.5, 12000], ""),
        (",", ["12,34,567", "1,234,567.8"], [1234567, 1234567.8], ""),
        (";", ["1.234.567", "0,125"], [1234567, 0.125], "weights with a decimal comma"),
    ],
)
def test_separators_of_thousands(
    delimiter: str, weights: list[str], read_as: list[float], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    rows = [{"text": f"ad {n}", "w": weight} for n, weight in enumerate(weights)]
    path.write_text(table(delimiter, rows), encoding="utf-8", newline="")
    options = ReadOptions(weight_field="w")
    assert [ad.weight for ad in read(path, options)] == read_as
    assert ("decimal comma" in "".join(told(path, options))) == bool(words)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [{"text": "a", "w": w} for w in ("1,23,4", "$5", "5%", "", "1,234,56", "1e16", "-1")]
    path.write_text(table(";", rows), newline="")
    assert {reason for reason, _ in reasons(read(path, ReadOptions(weight_field="w")))} == {
        "bad_weight"
    }


def test_a_folder_with_partitions_and_markers(tmp_path: Path) -> None:
    for day in ("2026-11-21", "2026-11-22"):
        folder = tmp_path / "ads" / f"dt={day}" / "market=de%20at"
        folder.mkdir(parents=True)
        rows: dict[str, Any] = {"id": [f"{day}-1"], "headline": [f"Schuhe {day}"]}
        pq.write_table(pa.table(rows), folder / "part-0.parquet")
    folder = tmp_path / "ads" / "dt=2026-11-23" / "market=__HIVE_DEFAULT_PARTITION__"
    folder.mkdir(parents=True)
    (folder / "part-1.jsonl").write_text('{"id": "x", "headline": "Hüte", "dt": "own"}\n')
    for name in (
        "_SUCCESS",
        ".part-0.parquet.crc",
        "_temporary/0/part.parquet",
        ".x/a.csv",
        "_a.csv",
    ):
        path = tmp_path / "ads" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no data")
    fields = (AdField("headline", "Headline"), AdField("market", "Market"), AdField("dt", "Day"))
    options = ReadOptions(fields=fields)
    expected = [
        "Headline: Schuhe 2026-11-21\nMarket: de at\nDay: 2026-11-21",
        "Headline: Schuhe 2026-11-22\nMarket: de at\nDay: 2026-11-22",
        "Headline: Hüte\nDay: own",
    ]
    assert texts(read(tmp_path / "ads", options)) == expected
    assert (
        texts(read(tmp_path / "ads/dt=*/**", ReadOptions(fields=fields)))[:3]
        == expected[:2] + expected[2:]
    )
    assert (
        texts(read(tmp_path / "ads", ReadOptions(text_field="headline", weight_field="")))[2]
        == "Hüte"
    )
    with pytest.raises(RunFailed, match="its columns are id, headline, dt, market"):
        read(tmp_path / "ads", ReadOptions(text_field="body"))


def test_a_glob_leaves_markers_out_and_takes_what_is_named(tmp_path: Path) -> None:
    helpers.write_jsonl(tmp_path / "_mine.jsonl", [{"text": "a"}])
    (tmp_path / "_SUCCESS").write_bytes(b"")
    assert texts(read(tmp_path / "*")) == ["a"]
    with pytest.raises(UsageError, match="no file matches"):
        read(tmp_path)
    assert texts(read(tmp_path / "_mine.jsonl")) == ["a"]


def test_ids_of_parquet_that_are_no_text(tmp_path: Path) -> None:
    import decimal
    import uuid

    def ids(column: pa.Array, **options: Any) -> list[str]:
        path = tmp_path / "a.parquet"
        pq.write_table(
            pa.table({"id": column, "text": [f"ad {n}" for n in range(len(column))]}), path
        )
        return [getattr(r, "reason", None) or r.id for r in read(path, ReadOptions(**options))]

    assert ids(pa.array([1.0, 20.0, 1e15])) == ["1", "20", "1000000000000000"]
    assert ids(pa.array([1.5, float(2**53), None, float("nan")]), id_field="id") == [
        "wrong_type",
        "rounded_id",
        "no_id",
        "no_id",
    ]
    assert ids(pa.array([2**53 + 1], pa.int64())) == [str(2**53 + 1)]
    decimals = [decimal.Decimal("7.00"), decimal.Decimal(10**20 + 1), decimal.Decimal("1.50")]
    assert ids(pa.array(decimals, pa.decimal128(30, 2))) == ["7", str(10**20 + 1), "1.50"]
    assert ids(pa.array([b"ad-1", b"\xff\x00"])) == ["ad-1", "ff00"]
    assert ids(pa.array([uuid.UUID(int=1).bytes], pa.uuid())) == [str(uuid.UUID(int=1))]


def test_a_wide_file_with_broken_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        lines().encode("utf-16-le") + b"\x00\xd8\n\x00" + '{"text": 1}\n'.encode("utf-16-le")
    )
    found = read(path)
    assert [reason for reason, _ in reasons(found)] == ["wrong_encoding", "wrong_type"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunFailed, match=r"a.jsonl: cannot be read to its end as jsonl"):
        read(path)


def test_a_title_is_no_header_where_no_column_is_known() -> None:
    export = "Campaign report\nAd ID\tHeadline\tCall\n1\tGood; cheap\tGo\n2\tNew\tBuy\n"
    style = style_of(export, lambda cells: 0, whole=True)
    assert (style.delimiter, style.skipped) == ("\t", 1)
    plain = style_of("a,b\n1,2\n3,4\n", lambda cells: 0, whole=True)
    assert (plain.delimiter, plain.skipped) == (",", 0)
    alone = style_of("one\ntwo\n", lambda cells: 0, whole=True)
    assert (alone.delimiter, alone.skipped) == (",", 0)
