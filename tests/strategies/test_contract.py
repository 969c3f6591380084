"""The contract that every registered strategy keeps: a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from pipelines.config import Selection
from pipelines.errors import UsageError
from pipelines.numerics.calibration import Threshold
from pipelines.strategies import registry
from pipelines.strategies.base import Context, Labelled, Need, PairStrategy, Rows, RowStrategy
from pipelines.text import content_key
from tests.strategies.test_boundary import context, pool

ADS = 400
SELECTION = Selection(budget=20, coverage_sample_rows=100)
NAMES = registry.names()
OF_ROWS = [name for name in NAMES if isinstance(registry.create(name), RowStrategy)]
OF_PAIRS = [name for name in NAMES if isinstance(registry.create(name), PairStrategy)]


def rows(ads: int = ADS, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    margins = np.rint(rng.normal(-2, 2, ads) * 256) / 256
    vectors = rng.normal(size=(ads, 8)).astype(np.float16)
    return Rows([content_key(f"{seed} {n}") for n in range(ads)], margins, vectors)


def part(of: Rows, chosen: np.ndarray) -> Rows:
    return Rows(
        [of.keys[i] for i in chosen],
        of.margins[chosen],
        None if of.vectors is None else of.vectors[chosen],
        None if of.scores is None else of.scores[chosen],
    )


def known(seed: int = 5, selection: Selection = SELECTION) -> Context:
    labelled = Labelled(rows(30, 99), (np.arange(30) % 3 == 0).astype(np.int8))
    return Context(selection, seed, "policy", Threshold(-0.5, 100, 300, "prior"), ADS, labelled)


def strategy_of(name: str) -> RowStrategy:
    found = registry.create(name)
    assert isinstance(found, RowStrategy)
    return found


def pooled(strategy: RowStrategy, given: Rows, at: Context) -> Rows:
    scores = strategy.score(given, at)
    order = np.lexsort((np.asarray(given.keys), -scores))[: strategy.pool_rows(at.selection)]
    scored = Rows(given.keys, given.margins, given.vectors, scores)
    return part(scored, order)


def test_both_kinds_are_there() -> None:
    assert OF_ROWS and OF_PAIRS and {*OF_ROWS, *OF_PAIRS} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_it_has_its_registered_name_travels_and_says_where_it_comes_from(name: str) -> None:
    strategy = registry.create(name)
    assert strategy.name == name
    assert type(pickle.loads(pickle.dumps(strategy))) is type(strategy)
    assert (type(strategy).__doc__ or "").strip()
    assert all(need.value for need in strategy.needs)


@pytest.mark.parametrize("name", OF_ROWS)
def test_an_ads_score_depends_on_the_ad_alone(name: str) -> None:
    strategy, given = strategy_of(name), rows()
    whole = strategy.score(given, known())
    assert whole.shape == (ADS,) and whole.dtype == np.float64 and np.isfinite(whole).all()
    assert len(np.unique(whole)) > 1, "a score that ranks nothing"
    order = np.random.default_rng(1).permutation(ADS)
    pieces = [strategy.score(part(given, piece), known()) for piece in np.array_split(order, 7)]
    assert np.concatenate(pieces).tolist() == whole[order].tolist()


@pytest.mark.parametrize("name", OF_ROWS)
def test_its_choice_is_within_the_budget_and_the_same_again(name: str) -> None:
    strategy = strategy_of(name)
    found = pooled(strategy, rows(), known())
    assert 0 < len(found) <= ADS
    for budget in (0, 1, 7, 20):
        picks = strategy.choose(found, budget, known())
        assert picks == strategy_of(name).choose(found, budget, known())
        assert len(picks) == budget
        used = list(itertools.chain.from_iterable(pick.rows for pick in picks))
        assert len(set(used)) == len(used) and all(0 <= row < len(found) for row in used)
        assert all(pick.propensity is None or 0 < pick.propensity <= 1 for pick in picks)
        assert {pick.propensity is not None for pick in picks} <= {strategy.draws}


@pytest.mark.parametrize("name", OF_ROWS)
def test_a_pool_smaller_than_the_budget_is_taken_whole(name: str) -> None:
    strategy, few = strategy_of(name), rows(3)
    at = Context(SELECTION, 5, "policy", Threshold(-0.5, 1, 2, "prior"), 3, known().labelled)
    picks = strategy.choose(pooled(strategy, few, at), 20, at)
    assert sorted(itertools.chain.from_iterable(pick.rows for pick in picks)) == [0, 1, 2]


@pytest.mark.parametrize("labels", [[], [0] * 6, [1] * 5 + [0], [0, 1] * 10])
@pytest.mark.parametrize("name", OF_ROWS)
def test_it_chooses_with_any_labels_or_none(name: str, labels: list[int]) -> None:
    strategy, given = strategy_of(name), rows()
    found = Labelled(rows(len(labels), 99), np.array(labels, dtype=np.int8)) if labels else None
    at = dataclasses.replace(known(), labelled=found)
    chosen = strategy.choose(pooled(strategy, given, at), 20, at)
    assert len({pick.rows for pick in chosen}) == 20
    # Who goes by labels says where they are wanting, and what is done instead.
    assert (strategy.note(at) == "") or "this round asks about the ads nearest" in strategy.note(at)
    assert strategy.note(at) == "" or Need.LABELS in strategy.needs


@pytest.mark.parametrize("name", OF_ROWS)
def test_the_order_of_ads_and_blocks_decides_nothing(name: str) -> None:
    strategy, given = strategy_of(name), rows()
    pool = pooled(strategy, given, known())
    shuffled = part(given, np.random.default_rng(2).permutation(ADS))
    again = pooled(strategy, shuffled, known())
    assert again.keys == pool.keys
    assert pool.scores is not None and (pool.scores >= strategy.floor(known())).all()
    picks = [strategy.choose(one, 20, known()) for one in (pool, again)]
    assert picks[0] == picks[1]


@pytest.mark.parametrize("name", [name for name in OF_ROWS if strategy_of(name).draws])
def test_its_propensities_are_true(name: str) -> None:
    strategy, given = strategy_of(name), rows()
    # A Horvitz-Thompson estimate of the number of ads is unbiased if each propensity is.
    estimates = []
    drawn = np.zeros(ADS)
    for seed in range(400):
        at = known(seed)
        found = pooled(strategy, given, at)
        picks = strategy.choose(found, 20, at)
        estimates.append(sum(1 / (pick.propensity or np.nan) for pick in picks))
        for pick in picks:
            drawn[given.keys.index(found.keys[pick.rows[0]])] += 1
    assert np.mean(estimates) == pytest.approx(ADS, rel=0.02)
    # Every ad can come: 400 draws of 20 out of 400 show each about 20 times.
    assert drawn.min() > 3 and drawn.max() < 60


@pytest.mark.parametrize("name", OF_PAIRS)
def test_a_pair_strategy_chooses_the_same_again_within_the_budget(name: str) -> None:
    strategy = registry.create(name)
    assert isinstance(strategy, PairStrategy)
    chosen = strategy.choose(pool(), context())
    assert chosen == strategy.choose(pool(), context())
    assert 0 < len(chosen.items) <= context().selection.budget
    assert [item.rank for item in chosen.items] == list(range(1, len(chosen.items) + 1))
    used = [ad.key for item in chosen.items for ad in item.ads]
    assert len(set(used)) == len(used)
    for item in chosen.items:
        assert {ad.label for ad in item.ads} == {"positive", "negative"}
        assert item.source in NAMES


def test_other_names_of_the_field_are_one_strategys() -> None:
    for alias, name in registry.aliases().items():
        assert alias not in NAMES
        registry.check(alias)
        assert registry.create(alias).name == name


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no strategy 'boundry'; did you mean 'boundary'"):
        registry.create("boundry")
    with pytest.raises(
        UsageError, match=r"no strategy 'zzz'; one of boundary, uncertainty, random"
    ):
        registry.create("zzz")
