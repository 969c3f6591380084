"""Selection: exploration, propensities, and ads that were asked about already."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.config import Selection
from pipelines.numerics import kmeans
from pipelines.numerics.overlap import Overlap
from pipelines.store import blocks
from pipelines.strategies.base import Chosen, Context, PairPool
from pipelines.strategies.boundary import Boundary, explore
from tests.helpers import by_label
from tests.stages.test_cluster_per_label import labelled
from tests.stages.test_find_opposite_pairs import SPACE, in_band, search

SELECTION = Selection(
    budget=20,
    exploration_share=0.2,
    near_identical=0.999,
    cover_quantile=0.25,
    nearest_window=8,
    coverage_sample_rows=1000,
)


def pool(shown: pa.Table | None = None) -> PairPool:
    rows, threshold = labelled(300)
    positive = rows.column("margin").to_numpy() >= threshold.margin
    sample = in_band(rows, positive).sort_by("key")
    found = search(rows.filter(pa.array(positive)), rows.filter(pa.array(~positive)), 4)
    # No pair before its turn: what is nearest comes first.
    place = found.column_names.index("mutual")
    found = found.set_column(place, "mutual", pa.array(np.zeros(found.num_rows, dtype=bool)))
    keys = pa.concat_arrays([found.column(name).combine_chunks() for name in ("p_key", "n_key")])
    ads = sample.filter(pc.is_in(sample.column("key"), value_set=keys))
    overlaps = [Overlap(0, 0, 0.5, 1.0, 0.1, 1, 0.1, 1000, 1)]
    weight = int(rows.column("weight").to_numpy().sum())
    return PairPool(found, ads, sample, shown, overlaps, SPACE, weight, 300)


def context(guideline: str = "policy 1", **changes: Any) -> Context:
    _, threshold = labelled(300)
    selection = SELECTION.model_copy(update=changes)
    return Context(selection, 3, guideline, threshold, 300)


def choose(shown: pa.Table | None = None, guideline: str = "policy 1", **changes: Any) -> Chosen:
    return Boundary().choose(pool(shown), context(guideline, **changes))


def test_budget_exploration_and_one_use_an_ad() -> None:
    selected = choose()
    items = selected.items
    assert [item.rank for item in items] == list(range(1, 21))
    assert [item.source for item in items] == ["boundary"] * 16 + ["exploration"] * 4
    used = [ad.key for item in items for ad in item.ads]
    assert len(set(used)) == len(used)
    rows, _ = labelled(300)
    margin = dict(
        zip(rows.column("key").to_pylist(), rows.column("margin").to_pylist(), strict=True)
    )
    for item in items:
        ads = by_label(item)
        assert margin[ads["positive"].key] >= 0 > margin[ads["negative"].key]
    shares = [item.overlap.cumulative_share for item in items if item.overlap]
    assert len(shares) == 16 and shares == sorted(shares)
    assert {item.ads[0].label for item in items} == {"positive", "negative"}


def test_propensities_are_the_share_of_the_stratum_drawn() -> None:
    pairs = [item for item in choose(exploration_share=0.5).items if item.source == "exploration"]
    # 300 ads in 5 strata of 60, 10 draws: 2 of 60 each.
    assert len(pairs) == 10
    assert {pair.propensity for pair in pairs} == {float(f"{2 / 60:.6g}")}


def test_propensities_count_what_was_not_sampled() -> None:
    # The sample of 300 stands for 1,200 ads: a chance of a quarter to be in it comes first.
    whole = dataclasses.replace(pool(), population=1200)
    items = Boundary().choose(whole, context(exploration_share=0.5)).items
    drawn = {item.propensity for item in items if item.source == "exploration"}
    assert drawn == {float(f"{2 / 60 * 300 / 1200:.6g}")}


def test_no_exploration_and_nothing_but_exploration_candidates() -> None:
    assert {item.source for item in choose(exploration_share=0.0).items} == {"boundary"}
    none = pool().candidates.slice(0, 0)
    only = Boundary().choose(dataclasses.replace(pool(), candidates=none), context())
    assert {item.source for item in only.items} == {"exploration"}
    assert only.candidates == 0


def test_what_was_shown_is_not_drawn_and_nothing_like_it_is_chosen() -> None:
    first = choose(exploration_share=0.5)
    keys = {ad.key for item in first.items for ad in item.ads}
    sample = pool().sample
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
    given = pool()
    found = given.candidates
    rng = np.random.default_rng(1)
    mixed = dataclasses.replace(
        given,
        candidates=found.take(pa.array(rng.permutation(found.num_rows))),
        sample=given.sample.take(pa.array(rng.permutation(given.sample.num_rows))),
    )
    shuffled = Boundary().choose(mixed, context())
    assert json.dumps([dataclasses.asdict(p) for p in shuffled.items]) == json.dumps(
        [dataclasses.asdict(p) for p in choose().items]
    )


def test_what_exploration_drew_is_in_no_pair() -> None:
    # Where even equal ads may be asked about, nothing but its key keeps a drawn ad out of a pair.
    settings = {"exploration_share": 0.5, "near_identical": 1.0}
    drawn = [item for item in choose(**settings).items if item.source == "exploration"]
    keys = pa.array([ad.key for item in drawn for ad in item.ads])
    given = pool()
    found = given.candidates
    for side in ("p_key", "n_key"):
        taken = found.filter(pc.is_in(found.column(side), value_set=keys))
        assert taken.num_rows
        again = Boundary().choose(dataclasses.replace(given, candidates=taken), context(**settings))
        used = [ad.key for item in again.items for ad in item.ads]
        assert len(set(used)) == len(used)


def test_coverage_is_a_share_of_the_weight() -> None:
    given = pool()
    chosen = Boundary().choose(given, context(exploration_share=0.0))
    vectors = kmeans.project(SPACE, blocks.vectors(given.sample)).astype(np.float64)
    row_of = {key: row for row, key in enumerate(given.sample.column("key").to_pylist())}
    weight = given.sample.column("weight").to_numpy()
    assert chosen.coverage
    near = chosen.coverage.radius + 1e-6
    covered = np.zeros(len(vectors), dtype=bool)
    for item in chosen.items:
        assert item.overlap
        for ad in item.ads:
            gaps = np.linalg.norm(vectors - vectors[row_of[ad.key]], axis=1)
            covered |= gaps <= near
        share = weight[covered].sum() / weight.sum()
        assert item.overlap.cumulative_share == pytest.approx(share, abs=2e-6)


@pytest.mark.parametrize("draws", [0, 1, 7, 20])
def test_every_drawn_ad_gets_a_partner_of_its_own(draws: int) -> None:
    sample = pool().sample
    vectors = kmeans.project(SPACE, blocks.vectors(sample))
    positive = sample.column("positive").to_numpy(zero_copy_only=False)
    pairs = explore(sample, vectors, draws, 0)
    assert len(pairs) == draws
    used = [row for pair in pairs for row in pair[:2]]
    assert len(set(used)) == len(used)
    assert all(positive[drawn] != positive[partner] for drawn, partner, _ in pairs)


def test_more_draws_than_partners_are_refused() -> None:
    sample = pool().sample
    vectors = kmeans.project(SPACE, blocks.vectors(sample))
    with pytest.raises(ValueError, match="draws need"):
        explore(sample, vectors, 100, 0)


def test_another_version_of_the_policy_asks_under_other_ids() -> None:
    first, second = choose(), choose(guideline="policy 2")
    pairs = [[{ad.key for ad in item.ads} for item in found.items] for found in (first, second)]
    assert pairs[0] == pairs[1]
    assert not {p.item_id for p in first.items} & {p.item_id for p in second.items}
