"""Scoring: what is known is not scored again, and lies where its key says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from models.backends.base import LabelBatch
from models.backends.fake import FakeLabeler
from pipelines.contracts import UNIQUE_SCHEMA, UNSCORED_SCHEMA, ScoredPart, Tally, UniqueAd
from pipelines.handlers import score_block
from pipelines.numerics.weights import total
from pipelines.stages import score_ads
from pipelines.stages.score_ads import ScoreAds, by_prefix, weighed
from pipelines.store import blocks, scores
from tests import helpers
from tests.helpers import unique_ad

KEY = "0123456789abcdef"


def ads(number: int, first: int = 0, weight: int = 1000) -> list[UniqueAd]:
    return [
        unique_ad(f"ad number {n}", id=f"id {n}", weight=weight)
        for n in range(first, first + number)
    ]


class Counting(FakeLabeler):
    """Remembers on disk what it was asked: a runner may load it anew."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Score texts."""
        with self._path.open("a") as sink:
            sink.write("".join(f"{text}\n" for text in texts))
        return super().label(texts)


def score(
    root: Path, given: list[UniqueAd], attempt: str = "rounds/0001/scored/a", **settings: Any
) -> tuple[pa.Table, list[str], int]:
    """Score ads; returns the corpus as it can be read, what the model was asked, and parts."""
    asked, saved = root / "asked", root / "parts"
    asked.write_text("")
    tally = Tally(len(given), 0, "{}", "{}", len(given), total(ad.exact for ad in given))
    with TestPipeline() as pipeline:
        found = (
            pipeline | "Ads" >> beam.Create([helpers.unique_block(given)]),
            pipeline | "Tally" >> beam.Create([tally]),
        ) | ScoreAds(lambda: Counting(asked), str(root), attempt, KEY, **settings)
        _ = (
            found[score_ads.PARTS]
            | beam.combiners.ToList()
            | beam.Map(
                lambda parts, path, a: scores.write_parts(str(path), a, 0, parts), saved, "a"
            )
            | beam.Map(lambda file, path: path.write_text(file.sha256), root / "sha")
        )
    [listed] = saved.rglob("parts-*.jsonl")
    lines = listed.read_text().splitlines()
    parts = [ScoredPart(**json.loads(line)) for line in lines]
    table = pa.concat_tables(scores.read(str(root), part) for part in parts)
    return table.sort_by("key"), asked.read_text().splitlines(), len(parts)


def test_rows_are_cut_by_their_keys() -> None:
    table = blocks.from_block(helpers.unique_block(ads(50)))
    assert [(prefix, rows.num_rows) for prefix, rows in by_prefix(table, 0)] == [("", 50)]
    cut = dict(by_prefix(table, 1))
    assert list(cut) == sorted(cut) and sum(rows.num_rows for rows in cut.values()) == 50
    for prefix, rows in cut.items():
        assert {key[:1] for key in rows.column("key").to_pylist()} == {prefix}


def test_weights_are_in_the_unit_of_the_corpus() -> None:
    table = blocks.from_block(helpers.unique_block([*ads(2, weight=2500), *ads(1, 5)]))
    assert table.schema.equals(UNIQUE_SCHEMA)
    found = weighed(table, -1)
    assert found.schema.equals(UNSCORED_SCHEMA)
    assert found.column("weight").to_pylist() == [25, 25, 10]


@pytest.mark.parametrize("partition_ads", [1000, 20])
def test_what_is_known_is_referenced_and_what_is_new_is_scored(
    tmp_path: Path, partition_ads: int
) -> None:
    settings = {"block_rows": 16, "partition_ads": partition_ads}
    _, asked, _ = score(tmp_path, ads(100), **settings)
    assert sorted(asked) == sorted(ad.text for ad in ads(100))
    there = {path: path.read_bytes() for path in (tmp_path / "scores").rglob("*.parquet")}
    folders = {path.parent.name for path in there if path.parent.name.startswith("keys-")}
    assert folders == {"keys-all"} if partition_ads == 1000 else len(folders) == 16

    # Twenty are gone, thirty are new, and all are called and weighed otherwise.
    today = [unique_ad(f"ad number {n}", id=f"other {n}", weight=3000) for n in range(20, 130)]
    second, asked, _ = score(tmp_path, today, "rounds/0001/scored/b", **settings)
    assert sorted(asked) == sorted(f"ad number {n}" for n in range(100, 130))
    expected = blocks.from_block(
        score_block(
            FakeLabeler(),
            blocks.to_block(weighed(blocks.from_block(helpers.unique_block(today)), -3)),
        ).scored
    ).sort_by("key")
    assert second.equals(expected)
    assert all(path.read_bytes() == data for path, data in there.items()), "nothing is rewritten"
    new = sum(
        scores.rows_of(str(path)) for path in helpers.blocks_in(tmp_path) if path not in there
    )
    assert new == 30
    # Coarser or finer than before makes no difference.
    settings["partition_ads"] = 1020 - partition_ads
    third, asked, _ = score(tmp_path, today, "rounds/0001/scored/c", **settings)
    assert third.equals(second) and not asked


def test_another_spelling_of_a_known_ad_is_scored(tmp_path: Path) -> None:
    score(tmp_path, [unique_ad("Buy it now"), unique_ad("Read this")])
    table, asked, _ = score(tmp_path, [unique_ad("BUY it now"), unique_ad("Read this")])
    assert asked == ["BUY it now"]
    assert sorted(table.column("text").to_pylist()) == ["BUY it now", "Read this"]


def test_many_small_nights_are_written_together(tmp_path: Path) -> None:
    for night in range(scores.SMALL_BLOCKS + 2):
        given = ads(3, first=3 * night)
        table, asked, _ = score(tmp_path, given, f"rounds/0001/scored/n{night}", block_rows=64)
        assert len(asked) == 3 and table.num_rows == 3
    there = scores.blocks_of(str(tmp_path), KEY, "")
    assert [scores.rows_of(path) for path in there] in ([3, 48, 3], [3, 3, 48], [48, 3, 3])
    table, asked, parts = score(tmp_path, ads(54), "rounds/0001/scored/all", block_rows=64)
    assert not asked and parts == 3
    assert sorted(table.column("text").to_pylist()) == sorted(ad.text for ad in ads(54))


def test_no_block_of_nothing() -> None:
    with pytest.raises(ValueError, match="block_rows must be at least 1, got 0"):
        ScoreAds(FakeLabeler, "w", "a", KEY, block_rows=0)
