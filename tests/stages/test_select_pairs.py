"""Selection: exploration, propensities, and ads that were asked about already."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest

from pipelines.numerics import kmeans
from pipelines.numerics.overlap import Overlap
from pipelines.stages import select_pairs as stage
from pipelines.store import blocks
from tests.helpers import by_label
from tests.stages.test_cluster_per_label import labelled
from tests.stages.test_find_opposite_pairs import SPACE, search

SETTINGS = stage.SelectionSettings(
    budget=20,
    exploration_share=0.2,
    near_identical=0.999,
    cover_quantile=0.25,
    nearest_window=8,
    sample_rows=1000,
    seed=3,
    guideline="policy 1",
)


def inputs() -> tuple[list, pa.Table, list[Overlap], int]:
    rows, threshold = labelled(300)
    positive = rows.column("margin").to_numpy() >= threshold.margin
    sample = rows.append_column("positive", pa.array(positive))
    sample = sample.append_column("cluster", pa.array(np.zeros(300, dtype=np.int32)))
    found = search(rows.filter(pa.array(~positive)), rows.filter(pa.array(positive)), 4)
    found = found.append_column("mutual", pa.array(np.zeros(found.num_rows, dtype=bool)))
    overlaps = [Overlap(0, 0, 0.5, 1.0, 0.1, 1, 0.1, 1000, 1)]
    weight = int(rows.column("weight").to_numpy().sum())
    return [((0, 0), found)], sample.sort_by("key"), overlaps, weight


def choose(shown: pa.Table | None = None, **changes: object) -> stage.Selected:
    candidates, sample, overlaps, weight = inputs()
    settings = dataclasses.replace(SETTINGS, **changes)
    return stage.select(candidates, sample, shown, overlaps, SPACE, weight, 300, settings)


def test_budget_exploration_and_one_use_an_ad() -> None:
    selected = choose()
    items = selected.items
    assert [item.rank for item in items] == list(range(1, 21))
    assert [item.source for item in items] == ["boundary"] * 16 + ["exploration"] * 4
    used = [ad.key for item in items for ad in item.ads]
    assert len(set(used)) == len(used)
    for item in items:
        ads = by_label(item)
        assert ads["positive"].margin >= 0 > ads["negative"].margin
    shares = [item.overlap.cumulative_share for item in items if item.overlap]
    assert len(shares) == 16 and shares == sorted(shares)
    assert {item.ads[0].label for item in items} == {"positive", "negative"}


def test_propensities_are_the_share_of_the_stratum_drawn() -> None:
    pairs = [item for item in choose(exploration_share=0.5).items if item.source == "exploration"]
    # 300 ads in 5 strata of 60, 10 draws: 2 of 60 each.
    assert len(pairs) == 10
    assert {pair.propensity for pair in pairs} == {float(f"{2 / 60:.6g}")}


def test_no_exploration_and_nothing_but_exploration_candidates() -> None:
    assert {item.source for item in choose(exploration_share=0.0).items} == {"boundary"}
    _, sample, overlaps, weight = inputs()
    only = stage.select([], sample, None, overlaps, SPACE, weight, 300, SETTINGS)
    assert {item.source for item in only.items} == {"exploration"}
    assert only.candidates == 0


def test_what_was_shown_is_not_drawn_and_nothing_like_it_is_chosen() -> None:
    first = choose(exploration_share=0.5)
    keys = {ad.key for item in first.items for ad in item.ads}
    _, sample, _, _ = inputs()
    shown = sample.filter(pa.array([key in keys for key in sample.column("key").to_pylist()]))
    second = choose(shown=shown, exploration_share=0.5)
    again = {ad.key for item in second.items for ad in item.ads}
    assert not again & keys
    near = choose(shown=shown, near_identical=0.8, exploration_share=0.0)
    vectors = dict(
        zip(
            sample.column("key").to_pylist(),
            kmeans.project(SPACE, blocks.vectors(sample)),
            strict=True,
        )
    )
    known = kmeans.project(SPACE, blocks.vectors(shown))
    for item in near.items:
        for ad in item.ads:
            assert (known @ vectors[ad.key]).max() <= 0.8 + 1e-5


def test_the_order_of_inputs_does_not_matter() -> None:
    candidates, sample, overlaps, weight = inputs()
    [(place, found)] = candidates
    order = pa.array(np.random.default_rng(1).permutation(sample.num_rows))
    cut = [(place, found)]
    shuffled = stage.select(cut, sample.take(order), None, overlaps, SPACE, weight, 300, SETTINGS)
    assert json.dumps([dataclasses.asdict(p) for p in shuffled.items]) == json.dumps(
        [dataclasses.asdict(p) for p in choose().items]
    )


@pytest.mark.parametrize("draws", [0, 1, 7, 20])
def test_every_drawn_ad_gets_a_partner_of_its_own(draws: int) -> None:
    _, sample, _, _ = inputs()
    vectors = kmeans.project(SPACE, blocks.vectors(sample))
    positive = sample.column("positive").to_numpy(zero_copy_only=False)
    pairs = stage.explore(sample, vectors, draws, 0)
    assert len(pairs) == draws
    used = [row for pair in pairs for row in pair[:2]]
    assert len(set(used)) == len(used)
    assert all(positive[drawn] != positive[partner] for drawn, partner, _ in pairs)


def test_more_draws_than_partners_are_refused() -> None:
    _, sample, _, _ = inputs()
    vectors = kmeans.project(SPACE, blocks.vectors(sample))
    with pytest.raises(ValueError, match="draws need"):
        stage.explore(sample, vectors, 100, 0)


def test_another_version_of_the_policy_asks_under_other_ids() -> None:
    first, second = choose(), choose(guideline="policy 2")
    pairs = [[{ad.key for ad in item.ads} for item in found.items] for found in (first, second)]
    assert pairs[0] == pairs[1]
    assert not {p.item_id for p in first.items} & {p.item_id for p in second.items}
