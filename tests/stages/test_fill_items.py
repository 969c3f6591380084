"""What people see of chosen ads is read from the blocks that hold them, and from no other."""

from __future__ import annotations

import functools
from pathlib import Path

import apache_beam as beam
import numpy as np
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from pipelines.contracts import ReviewItem
from pipelines.stages.fill_items import FillItems
from pipelines.store import scores
from pipelines.strategies.base import Chosen
from pipelines.strategies.items import named_ad
from tests.helpers import watched_reads, write_scored_blocks
from tests.stages.test_find_opposite_pairs import scored_rows

FOUND: dict[str, list[Chosen]] = {}


def _keep(got: list[Chosen]) -> None:
    FOUND["chosen"] = got


def test_items_get_their_ads_as_they_were_scored(tmp_path: Path) -> None:
    whole = scored_rows(np.arange(90, dtype=np.float32))
    files = write_scored_blocks(tmp_path, [whole.slice(at, 30) for at in (0, 30, 60)])
    rows = whole.to_pylist()
    pair = named_ad(rows[65]["key"], "positive", 3), named_ad(rows[2]["key"], "negative", 0)
    items = (
        ReviewItem("pair_0", 1, "boundary", pair, distance=0.5),
        ReviewItem("item_1", 2, "uncertainty", (named_ad(rows[60]["key"], "positive", 1),)),
    )
    places = {scores.number_of(files[0]): [2], scores.number_of(files[2]): [0, 5]}
    with watched_reads() as opened, TestPipeline() as pipeline:
        given = (
            pipeline | "Files" >> beam.Create(files),
            pipeline | "Chosen" >> beam.Create([Chosen(items, 7)]),
            pipeline | "Places" >> beam.Create([places]),
        )
        assert_that(given | FillItems(str(tmp_path)), functools.partial(_keep))
    [chosen] = FOUND["chosen"]
    assert chosen.candidates == 7
    first, second = chosen.items
    assert (first.item_id, first.rank, first.distance) == ("pair_0", 1, 0.5)
    for ad, row, label, cluster in (
        (first.ads[0], rows[65], "positive", 3),
        (first.ads[1], rows[2], "negative", 0),
        (second.ads[0], rows[60], "positive", 1),
    ):
        assert (ad.key, ad.id, ad.text) == (row["key"], row["id"], row["text"])
        assert (ad.margin, ad.weight, ad.label, ad.cluster) == (row["margin"], 1000, label, cluster)
    assert not [name for name in opened if name.endswith(files[1].block)]
    assert [name for name in opened if name.endswith(files[0].block)]
