"""Records as they are, for who looks at a corpus before anything is known of its fields."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts import Ad, Rejected
from pipelines.sources.base import ReadOptions
from tests.sources import read

WHOLE = ReadOptions(whole=True)


@pytest.mark.parametrize(
    ("name", "content", "records"),
    [
        ("a.jsonl", '{"b": {"c": [1, null]}, "id": 7}\n{"d": true}\n', [{"b": {"c": [1, None]}, "id": 7}, {"d": True}]),
        # A row without any content is none.
        ("a.csv", 'h,"i, j"\n1,x\n,\n', [{"h": "1", "i, j": "x"}]),
        ("a.tsv", "h\ti\n1\tx\n", [{"h": "1", "i": "x"}]),
        ("a.txt", "One ad\n\nAnother\n", [{"text": "One ad"}, {"text": "Another"}]),
    ],
)  # fmt: skip
def test_no_field_is_looked_for(
    name: str, content: str, records: list[object], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    found = read(path, WHOLE)
    assert [json.loads(ad.text) for ad in found if isinstance(ad, Ad)] == records
    assert all(isinstance(ad, Ad) and ad.source == str(path) and ad.position for ad in found)


def test_parquet_gives_every_column(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a"],
            "nested": [{"x": [1, 2]}],
            "when": [datetime.datetime(2026, 1, 2)],
            "price": [decimal.Decimal("1.50")],
            "raw": [b"\xff"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    [ad] = read(tmp_path / "a.parquet", WHOLE)
    assert isinstance(ad, Ad)
    assert json.loads(ad.text) == {
        "text": "a",
        "nested": {"x": [1, 2]},
        "when": "2026-01-02 00:00:00",
        "price": "1.50",
        "raw": "b'\\xff'",
    }


def test_what_is_no_record_is_rejected_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{broken\n[1]\n{"a": 1}\n')
    found = read(path, WHOLE)
    assert [ad.reason for ad in found if isinstance(ad, Rejected)] == ["not_json", "not_an_object"]
    assert len(found) == 3
