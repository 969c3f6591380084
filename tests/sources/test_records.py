"""Records to ads: ids, weights, and every kind of bad record."""

from __future__ import annotations

import decimal
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts import Rejected
from pipelines.sources.base import ReadOptions
from pipelines.sources.fields import AdField
from pipelines.text import content_id, content_key
from tests import helpers
from tests.sources import read, texts


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
    records = read(path, ReadOptions(weight_field="w", encoding="utf-8"))
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


def test_decimal_weights_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    weights = pa.array([decimal.Decimal("2.50")], pa.decimal128(10, 2))
    pq.write_table(pa.table({"text": ["a"], "w": weights}), path)
    assert [ad.weight for ad in read(path, ReadOptions(weight_field="w"))] == [2.5]


@pytest.mark.parametrize("gap", ["NaN", "#N/A", "NULL", "None", " -- ", "<NA>", "\u200bn/a"])
def test_what_programs_write_where_nothing_is_makes_no_ad_and_no_id(
    gap: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'id,text\n1,"{gap}"\n"{gap}",an ad\n"{gap}",another\n', encoding="utf-8")
    [lost, *ads] = read(path)
    assert isinstance(lost, Rejected) and lost.reason == "empty_text"
    assert "stands for no text" in lost.detail
    assert [(ad.id, ad.text) for ad in ads] == [
        (content_id(content_key(text)), text) for text in ("an ad", "another")
    ]
    strict = read(path, ReadOptions(id_field="id"))
    assert [record.reason for record in strict] == ["empty_text", "no_id", "no_id"]
    # Of several fields one may be a gap.
    parts = ReadOptions(fields=(AdField("id", "Id"), AdField("text", "Text")))
    assert texts(read(path, parts)) == ["Id: 1", "Text: an ad", "Text: another"]


def test_words_that_only_look_like_gaps_are_ads(tmp_path: Path) -> None:
    rows = [{"text": text} for text in ("None of this is true", "nan bread, 2 for 1", "N/A?", "0")]
    path = helpers.write_jsonl(tmp_path / "a.jsonl", rows)
    assert texts(read(path)) == [row["text"] for row in rows]


@pytest.mark.parametrize("id", ["1.2021E+17", "1,2021E+17", "9007199254740993.0", "1.2e17"])
def test_ids_that_lost_their_digits_are_refused(id: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'id,text\n"{id}",an ad\n9007199254740993,another\n1.5,third\n')
    [lost, *ads] = read(path)
    assert isinstance(lost, Rejected) and lost.reason == "rounded_id" and id in lost.detail
    assert [ad.id for ad in ads] == ["9007199254740993", "1.5"]


def test_long_ids_of_workbooks_are_refused_unless_they_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    ids = [9007199254740993, 120210000000000123, 123456789012345, "120210000000000123"]
    path.write_bytes(helpers.xlsx([["id", "text"], *([id, f"ad {id}"] for id in ids)]))
    records = read(path)
    assert [getattr(record, "reason", "") for record in records] == ["rounded_id"] * 2 + ["", ""]
    assert [ad.id for ad in records[2:]] == ["123456789012345", "120210000000000123"]
