"""A round asks as much as its budget, whatever pairs there are; and it says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.config import Selection
from pipelines.contracts import CANDIDATE_SCHEMA
from pipelines.numerics.calibration import Threshold
from pipelines.numerics.overlap import Overlap
from pipelines.store import blocks
from pipelines.strategies.base import Chosen, Context, PairPool
from pipelines.strategies.boundary import Boundary
from pipelines.strategies.exploration import explored_share
from pipelines.strategies.single_ads import fill
from tests.stages.test_find_opposite_pairs import SPACE, in_band, scored_rows, search

OVERLAP = Overlap(0, 0, 0.5, 1.0, 0.1, 1, 0.1, 1000, 1)


def pool(margins: np.ndarray, shown: int = 0, alike: bool = False) -> PairPool:
    """Return a pool of one overlap, in which ads from margin 0 on are positive.

    Args:
        margins: of the ads.
        shown: the first so many ads were shown before.
        alike: all ads have one vector.
    """
    rows = scored_rows(margins)
    if alike:
        place = rows.column_names.index("vector")
        same = np.ones((len(margins), 6), dtype=np.float16)
        rows = rows.set_column(place, "vector", blocks.vector_array(same))
    positive = margins >= 0
    sample = in_band(rows, positive).sort_by("key")
    unseen = np.arange(len(margins)) >= shown
    candidates = CANDIDATE_SCHEMA.empty_table()
    if (positive & unseen).any() and (~positive & unseen).any():
        negatives = rows.filter(pa.array(~positive & unseen))
        candidates = search(rows.filter(pa.array(positive & unseen)), negatives, 4)
    seen = rows.slice(0, shown) if shown else None
    overlaps = [OVERLAP] if candidates.num_rows else []
    return PairPool(candidates, sample, sample, seen, overlaps, SPACE, 1000 * len(rows), len(rows))


def context(margins: np.ndarray, source: str = "prior", **changes: Any) -> Context:
    selection = Selection(budget=20, exploration_share=0.25).model_copy(update=changes)
    positives = int((margins >= 0).sum())
    threshold = Threshold(0.0, positives, len(margins) - positives, source)
    return Context(selection, 3, "policy", threshold, len(margins))


def choose(margins: np.ndarray, shown: int = 0, alike: bool = False, **changes: Any) -> Chosen:
    found, at = pool(margins, shown, alike), context(margins, **changes)
    return fill(Boundary().choose(found, at), found, at)


def uneven(positives: int, ads: int = 200) -> np.ndarray:
    """Return margins of which so many are at least 0, no two of them alike."""
    return (np.arange(ads, dtype=np.float32) - ads + positives) / 4


@pytest.mark.parametrize("positives", [0, 1, 3, 19, 100, 197, 200])
def test_a_round_yields_its_budget_however_uneven_the_labels_are(positives: int) -> None:
    margins = uneven(positives)
    chosen = choose(margins)
    assert len(chosen.items) == 20
    assert [item.rank for item in chosen.items] == list(range(1, 21))
    used = [ad.key for item in chosen.items for ad in item.ads]
    assert len(set(used)) == len(used), "an ad is asked about once"
    assert len({item.item_id for item in chosen.items}) == 20
    singles = [item for item in chosen.items if item.source == "uncertainty"]
    drawn = [item for item in chosen.items if item.source == "exploration"]
    assert len(drawn) == 5 and all(item.propensity == pytest.approx(5 / 200) for item in drawn)
    pairs = [item for item in chosen.items if len(item.ads) == 2]
    assert len(pairs) <= min(positives, 200 - positives)
    assert bool(chosen.note) == bool(singles)
    if singles:
        # The nearest to the threshold of all that no pair took.
        taken = {ad.key for item in [*pairs, *drawn] for ad in item.ads}
        left = [
            abs(margin)
            for key, margin in zip(scored_rows(margins)["key"].to_pylist(), margins, strict=True)
            if key not in taken
        ]
        assert sorted(abs(item.ads[0].margin) for item in singles) == sorted(left)[: len(singles)]
        assert all(item.propensity is None and item.score is not None for item in singles)


def test_what_was_drawn_comes_last() -> None:
    sources = [item.source for item in choose(uneven(12)).items]
    assert sources == sorted(sources, key=["boundary", "uncertainty", "exploration"].index)
    assert sources.count("exploration") == 5


def test_copies_of_one_ad_make_one_pair_and_a_whole_round() -> None:
    chosen = choose(uneven(100), alike=True, exploration_share=0.0)
    # What is like an ad that is asked about already is in no other pair.
    assert [len(item.ads) for item in chosen.items] == [2] + [1] * 19
    assert "near the threshold no more ads of opposite labels lie near each other" in chosen.note
    assert "raise search.neighbors or selection.band" in chosen.note


def test_equal_scores_are_no_order() -> None:
    margins = np.full(200, -1.0, dtype=np.float32)
    chosen = choose(margins, source="none", exploration_share=0.0)
    assert [len(item.ads) for item in chosen.items] == [1] * 20
    keys = [item.ads[0].key for item in chosen.items]
    assert keys == sorted(scored_rows(margins).column("key").to_pylist())[:20]
    assert "gives all ads the same score" in chosen.note


def test_the_note_says_which_label_is_rare_and_what_would_help() -> None:
    by_prior = choose(uneven(3), exploration_share=0.0).note
    assert by_prior == (
        "3 of 20 items are pairs, 17 single ads (17 nearest to the threshold, the others drawn): of the ads that experts have "
        "not seen the model calls 3 positive, and an ad is shown once; a higher prior gives more pairs"
    )
    assert "a lower prior gives more pairs" in choose(uneven(198)).note
    assert "more labels move the threshold" in choose(uneven(3), source="fitted").note


def test_a_corpus_that_is_used_up_says_what_is_missing() -> None:
    chosen = choose(uneven(100), shown=195)
    assert sum(len(item.ads) for item in chosen.items) == 5
    assert "items are missing: no unseen ad is left; give a newer or larger corpus" in chosen.note
    assert not choose(uneven(100), shown=200).items


def test_a_whole_round_of_pairs_needs_no_words() -> None:
    chosen = choose(uneven(100))
    assert chosen.note == "" and all(len(item.ads) == 2 for item in chosen.items)


def test_exploration_falls_from_the_first_rounds_share_as_labels_come() -> None:
    selection = Selection(exploration_share=0.1, first_round_share=0.5)
    shares = [explored_share(selection, labels) for labels in (0, 10, 20, 40, 400)]
    assert shares == pytest.approx([0.5, 0.4, 0.3, 0.1, 0.1])
    # Whoever wants more in the long run gets it from the start.
    assert explored_share(Selection(exploration_share=0.5, first_round_share=0.1), 0) == 0.5
