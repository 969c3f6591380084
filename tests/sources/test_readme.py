"""What the README says of formats is so: every kind that it names gives the same ads."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipelines.contracts import Ad
from pipelines.sources.base import ReadOptions
from tests.sources import records, texts
from tests.test_docs import README

TEXTS = [
    "Café crème for £2 – “buy one, get one”",
    "Cheap flights; hotels | cars\tand more",
    "Ten reasons why naïve people don’t wait",
    "The minister's budget in the library",
    "Grüße aus Köln: neue Öfen für die Küche",
] * 3
ADS = [(f"ad {n:03d}", f"{text} {n}") for n, text in enumerate(TEXTS)]


def statement(name: str) -> str:
    """Return what the README says under a name in bold."""
    text = README.read_text(encoding="utf-8")
    [found] = re.findall(rf"^- \*\*{name}\*\*: (.*?)\n(?:- \*\*|\n)", text, re.M | re.S)
    return " ".join(found.split())


def table(delimiter: str) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter)
    writer.writerows([("id", "text"), *ADS])
    return sink.getvalue()


def json_lines() -> str:
    return "".join(
        json.dumps({"id": id, "text": text}, ensure_ascii=False) + "\n" for id, text in ADS
    )


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": [id for id, _ in ADS], "text": [t for _, t in ADS]}), sink)
    return sink.getvalue()


def workbook() -> bytes:
    book, sink = openpyxl.Workbook(), io.BytesIO()
    for row in [("id", "text"), *ADS]:
        book.active.append(row)
    book.save(sink)
    return sink.getvalue()


# What the README names -> a file's name and content.
FORMATS: dict[str, tuple[str, str | bytes]] = {
    "JSON lines": ("a.jsonl", json_lines()),
    "arrays": ("a.json", json.dumps([{"id": id, "text": text} for id, text in ADS])),
    "comma": ("a.csv", table(",")),
    "semicolon": ("a.csv", table(";")),
    "tab": ("a.csv", table("\t")),
    "bar": ("a.csv", table("|")),
    "Parquet": ("a.parquet", parquet()),
    "`.xlsx`": ("a.xlsx", workbook()),
    "plain text (an ad a line)": ("a.txt", "".join(f"{text}\n" for _, text in ADS)),
}
ENCODINGS = {"UTF-8": "utf-8", "UTF-16": "utf-16", "8-bit": "cp1252"}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def read(*corpus: Path) -> list[Ad]:
    found = [ad for ad in records([str(place) for place in corpus]) if isinstance(ad, Ad)]
    assert len(found) == len(ADS)
    return sorted(found, key=lambda ad: ad.text.rsplit(" ", 1)[1].zfill(3))


def test_every_kind_that_the_readme_names_is_tried_here() -> None:
    said = statement("Formats")
    for name in (*FORMATS, *ENCODINGS, *PACKINGS):
        assert name in said, name
    named = re.findall(r"`(\.\w+)`", said) + re.findall(r"\b(?:CSV|Parquet|JSON \w+)\b", said)
    assert set(named) == {".xlsx", "CSV", "Parquet", "JSON lines"}, "another one: try it, too"


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        (name, encoding)
        for name, (file, _) in FORMATS.items()
        for encoding in ENCODINGS
        # JSON is Unicode by its standard.
        if not (encoding == "8-bit" and file.endswith((".jsonl", ".json")))
    ],
)
def test_a_format_in_an_encoding(name: str, encoding: str, tmp_path: Path) -> None:
    file, content = FORMATS[name]
    if isinstance(content, bytes):
        data = content
    else:
        data = content.encode(ENCODINGS[encoding])
    (tmp_path / file).write_bytes(data)
    found = read(tmp_path / file)
    assert [ad.text for ad in found] == [text for _, text in ADS]
    if file != "a.txt":
        assert [ad.id for ad in found] == [id for id, _ in ADS]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", ["JSON lines", "semicolon", "plain text (an ad a line)"])
def test_a_packed_file_whatever_its_name(name: str, packing: str, tmp_path: Path) -> None:
    file, content = FORMATS[name]
    assert isinstance(content, str)
    (tmp_path / file).write_bytes(PACKINGS[packing](content.encode()))
    assert [ad.text for ad in read(tmp_path / file)] == [text for _, text in ADS]


def test_files_globs_and_folders_with_columns_in_their_names(tmp_path: Path) -> None:
    said = statement("Formats")
    assert "files, globs and folders" in said and "a folder `dt=2026-11-21` is a column" in said
    lines = json_lines().splitlines(keepends=True)
    for day, some in (("2026-11-20", lines[:7]), ("2026-11-21", lines[7:])):
        (tmp_path / f"dt={day}").mkdir()
        (tmp_path / f"dt={day}" / "a.jsonl").write_text("".join(some))
        for hidden in ("_SUCCESS", ".a.jsonl.crc"):
            (tmp_path / f"dt={day}" / hidden).write_text("no data\n")
    for places in (
        [tmp_path],
        [tmp_path / "dt=*" / "*.jsonl"],
        [tmp_path / "dt=2026-11-20", tmp_path / "dt=2026-11-21" / "a.jsonl"],
    ):
        assert [(ad.id, ad.text) for ad in read(*places)] == ADS
    days = set(texts(records([str(tmp_path)], ReadOptions(text_field="dt"))))
    assert days == {"2026-11-20", "2026-11-21"}
