"""What tests of the sources share: ads in every format, and what is read of them."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts import Ad, Rejected
from pipelines.sources import registry
from pipelines.sources.base import Range, ReadOptions


def parts(
    patterns: Sequence[str], options: ReadOptions | None = None, range_bytes: int = 1 << 30
) -> list[Range]:
    """Return the ranges that workers read: of each thing once, sorted."""
    options = options or ReadOptions()
    found = {(item.source, item.place): item for item in registry.each(patterns)}
    return [
        part
        for (name, _), item in sorted(found.items())
        for one in registry.get(name).ranges(item, options, range_bytes)
        for part in registry.get(name).cut(one, options, range_bytes)
    ]


def records(
    patterns: Sequence[str], options: ReadOptions | None = None, range_bytes: int = 1 << 30
) -> list[Ad | Rejected]:
    options = options or ReadOptions()
    return [
        record
        for part in parts(patterns, options, range_bytes)
        for record in registry.get(part.source).read(part, options)
    ]


def read(path: Path, options: ReadOptions | None = None, range_bytes: int = 1 << 30) -> list:
    return records([str(path)], options, range_bytes)


def texts(records: list) -> list[str]:
    return [record.text for record in records if isinstance(record, Ad)]


def reasons(records: list) -> list[tuple[str, str]]:
    """Return (reason, position) of the rejected ones."""
    return [(r.reason, r.position) for r in records if isinstance(r, Rejected)]


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
