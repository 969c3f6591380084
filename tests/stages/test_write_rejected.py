"""Dead letters on storage: all of them, once, in an order that nothing changes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from pipelines.contracts import BlockFile, Rejected
from pipelines.stages.write_rejected import WriteRejected, to_lines

LETTERS = [
    Rejected(f"id{n}", "ReadAds", "not_json", '\u2028 no "JSON"', "a.jsonl", f"line {n}", "{x", 1)
    for n in range(40)
]


def written(
    root: Path, letters: list[Rejected], shards: int, file_rows: int = 100
) -> dict[str, list[dict]]:
    def check(files: list[BlockFile]) -> None:
        for file in files:
            data = (root / file.path).read_bytes()
            assert (len(data), data.count(b"\n")) == (file.bytes, file.rows)

    with TestPipeline() as pipeline:
        given = pipeline | beam.Create(letters)
        write = WriteRejected(str(root), "rounds/0001/scored/a", "records", shards, file_rows)
        assert_that(given | write, check)
    folder = root / "rounds/0001/scored/a"
    return {
        path.name: [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        for path in sorted(folder.glob("*"))
    }


@pytest.mark.parametrize("shards", [1, 4])
def test_every_letter_is_written_once_whatever_the_order(shards: int, tmp_path: Path) -> None:
    found = written(tmp_path / "a", LETTERS, shards)
    assert 1 <= len(found) <= shards and (shards == 1 or len(found) > 1)
    assert sorted(row["id"] for rows in found.values() for row in rows) == sorted(
        letter.id for letter in LETTERS
    )
    assert all(row["detail"] == LETTERS[0].detail for rows in found.values() for row in rows)
    assert written(tmp_path / "b", LETTERS[::-1], shards) == found


def test_a_file_holds_so_many_and_no_letter_is_lost(tmp_path: Path) -> None:
    found = written(tmp_path, LETTERS, shards=1, file_rows=15)
    # A part's number where there are several, and a hash of what it holds.
    names = [re.fullmatch(r"rejected-records-00000(-\d)?-[0-9a-f]{20}\.jsonl", n) for n in found]
    assert sorted(name[1] or "" for name in names if name) == ["", "-1", "-2"]
    assert sorted(len(rows) for rows in found.values()) == [10, 15, 15]
    assert {row["id"] for rows in found.values() for row in rows} == {ad.id for ad in LETTERS}


def test_nothing_rejected_writes_nothing(tmp_path: Path) -> None:
    assert written(tmp_path, [], 2) == {}
    assert to_lines([]) == b""


def test_no_shards_are_refused() -> None:
    with pytest.raises(ValueError, match="shards must be at least 1, got 0"):
        WriteRejected("w", "f", "records", 0)
