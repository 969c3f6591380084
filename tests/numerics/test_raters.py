import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import cohen_kappa_score

from pipelines.numerics.raters import (
    crowd_labels,
    expert_error_rates,
    expert_ratings,
    uniform_crowd_labels,
)


def corpus(n=2500, share=0.05, seed=0):
    rng = np.random.default_rng(seed)
    gold = rng.random(n) < share
    ambiguity = rng.beta(0.5, 3, size=n)
    balanced = np.where(gold, 0.5 / gold.sum(), 0.5 / (~gold).sum())
    return gold, ambiguity, [f"ad {i}" for i in range(n)], balanced


def pairwise(ratings, weights=None):
    k = ratings.shape[1]
    return np.mean(
        [
            cohen_kappa_score(ratings[:, i], ratings[:, j], sample_weight=weights)
            for i in range(k)
            for j in range(i + 1, k)
        ]
    )


@pytest.mark.parametrize("kappa", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_experts_reach_the_kappa_asked_for(kappa):
    gold, ambiguity, keys, _ = corpus(n=2500, share=0.4)
    everyone = np.ones(len(gold), dtype=bool)
    ratings = expert_ratings(gold, ambiguity, keys, 3, kappa, everyone, seed=1)
    assert ratings.dtype == np.int8 and ratings.shape == (2500, 3)
    assert set(np.unique(ratings)) == {0, 1}
    assert pairwise(ratings) == pytest.approx(kappa, abs=0.03)


@pytest.mark.parametrize("kappa", [0.5, 0.8])
def test_kappa_is_of_the_reference_population(kappa):
    # Balanced by weights, although 10% of the ads are positive: at natural balance it is lower.
    gold, ambiguity, keys, balanced = corpus(n=6000, share=0.1)
    ratings = expert_ratings(gold, ambiguity, keys, 4, kappa, balanced, seed=2)
    assert pairwise(ratings, balanced) == pytest.approx(kappa, abs=0.03)
    assert pairwise(ratings) < kappa - 0.05
    # A subset as reference: the ads outside it do not matter.
    subset = np.arange(6000) < 3000
    rates = expert_error_rates(gold, ambiguity, kappa, subset)
    assert rates[:3000] == pytest.approx(
        expert_error_rates(gold[:3000], ambiguity[:3000], kappa, np.ones(3000))
    )


@given(
    st.floats(0.3, 0.99),
    st.floats(0.05, 0.95),
    st.integers(0, 1000),
)
def test_expected_kappa_of_the_2x2_table(kappa, share, seed):
    rng = np.random.default_rng(seed)
    gold = np.concatenate([[True, False], rng.random(60) < share])
    weights = rng.random(62) + 0.05
    rates = expert_error_rates(gold, rng.random(62), kappa, weights)
    assert (rates >= 0).all() and (rates <= 0.5).all()
    table = np.zeros((2, 2))
    for truth, error, weight in zip(gold, rates, weights / weights.sum(), strict=True):
        said = np.array([error, 1 - error]) if truth else np.array([1 - error, error])
        table += weight * np.outer(said, said)
    chance = (table.sum(axis=0) * table.sum(axis=1)).sum()
    assert (np.trace(table) - chance) / (1 - chance) == pytest.approx(kappa, abs=1e-9)


def test_experts_err_near_the_boundary():
    gold, ambiguity, keys, _ = corpus(n=4000, share=0.4)
    everyone = np.ones(4000)
    # A mild ambiguity, so that no ad reaches the cap of 0.5.
    mild = 0.3 + 0.7 * ambiguity
    rates = expert_error_rates(gold, mild, 0.8, everyone)
    assert rates.max() < 0.5
    # What an ad of no ambiguity would get is the constant part: the line through the rates.
    slope, constant = np.polyfit(mild, rates, 1)
    assert constant / rates.mean() == pytest.approx(0.3, abs=1e-6)
    assert slope > 0
    wrong = expert_ratings(gold, ambiguity, keys, 5, 0.7, everyone, seed=0) != gold[:, None]
    near = ambiguity > np.quantile(ambiguity, 0.8)
    assert wrong[near].mean() > 3 * wrong[~near].mean() > 0.03


def test_a_verdict_depends_on_ad_rater_and_seed_alone():
    gold, ambiguity, keys, balanced = corpus(n=1500, share=0.3)
    three = expert_ratings(gold, ambiguity, keys, 3, 0.7, balanced, seed=4)
    order = np.random.default_rng(0).permutation(1500)
    again = expert_ratings(
        gold[order], ambiguity[order], [keys[i] for i in order], 3, 0.7, balanced[order], seed=4
    )
    assert (again != three[order]).sum() == 0
    five = expert_ratings(gold, ambiguity, keys, 5, 0.7, balanced, seed=4)
    assert np.array_equal(five[:, :3], three)
    other = expert_ratings(gold, ambiguity, keys, 3, 0.7, balanced, seed=5)
    assert (other != three).any()
    # A stricter kappa takes errors away and adds none.
    strict = expert_ratings(gold, ambiguity, keys, 3, 0.9, balanced, seed=4)
    assert ((strict != gold[:, None]) <= (three != gold[:, None])).all()


def test_experts_err_independently_given_the_ad():
    gold, _, keys, _ = corpus(n=4000, share=0.4)
    ratings = expert_ratings(gold, np.ones(4000), keys, 3, 0.6, np.ones(4000), seed=0)
    wrong = ratings != gold[:, None]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(pearsonr(wrong[:, i], wrong[:, j])[0]) < 0.05


def test_perfect_experts_are_the_gold():
    gold, ambiguity, keys, balanced = corpus(n=300)
    ratings = expert_ratings(gold, ambiguity, keys, 2, 1.0, balanced, seed=0)
    assert np.array_equal(ratings, np.column_stack([gold, gold]).astype(np.int8))


def experts(**changes):
    gold = np.arange(20) % 2 == 0
    arguments = {
        "gold": gold,
        "ambiguity": np.full(20, 0.5),
        "keys": [str(i) for i in range(20)],
        "n_experts": 2,
        "kappa": 0.7,
        "reference": np.ones(20),
        "seed": 0,
        **changes,
    }
    return expert_ratings(**arguments)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"n_experts": 0}, "n_experts must be at least 1, got 0"),
        ({"kappa": 0.0}, r"kappa must lie in \(0, 1\], got 0.0"),
        ({"kappa": 1.1}, "got 1.1"),
        ({"gold": np.full(20, 2)}, "gold must be a vector of true labels"),
        ({"gold": np.full(20, 0.5)}, "got float64"),
        ({"ambiguity": np.full(20, 1.5)}, r"ambiguity must lie in \[0, 1\], got 1.5"),
        ({"ambiguity": np.full(20, np.nan)}, "ambiguity must be finite, got nan"),
        ({"ambiguity": np.zeros(3)}, r"vector of 20 numbers, one an ad, got \(3,\)"),
        ({"ambiguity": np.zeros(20)}, "the ambiguity of every reference ad is 0"),
        ({"keys": ["a"]}, "keys must be 20 strings, one an ad, got 1"),
        ({"keys": ["a"] * 20}, "keys must be distinct, got 19 repeated"),
        ({"reference": -np.ones(20)}, "weights must be >= 0, got -1"),
        ({"reference": np.arange(20) % 2 == 0}, "got 10 positive and 0 negative ones"),
        ({"reference": np.zeros(20)}, "got 0 positive and 0 negative ones"),
    ],
)
def test_bad_arguments_of_experts_are_named(changes, match):
    with pytest.raises(ValueError, match=match):
        experts(**changes)


def test_any_kappa_is_in_reach_where_few_ads_are_ambiguous():
    gold, near = np.arange(80) % 2 == 0, np.where(np.arange(80) < 20, 1.0, 0.0)
    for kappa in (0.01, 0.5, 0.99):
        rates = expert_error_rates(gold, near, kappa, np.ones(80))
        assert 0 < rates[30] < rates[0] <= 0.5 or rates[30] == pytest.approx(0.5, abs=0.1)


def crowd(n=2000, share=0.05, seed=0):
    rng = np.random.default_rng(seed)
    gold = rng.random(n) < share
    # The cue is right on average, and no more.
    return gold, rng.normal(size=n) + 1.2 * gold, [f"ad {i}" for i in range(n)]


@pytest.mark.parametrize("kappa", [0.32, 0.41, 0.59, 0.8, 0.95])
@pytest.mark.parametrize("share", [0.05, 0.4])
def test_crowds_reach_the_kappa_asked_for(kappa, share):
    gold, cue, keys = crowd(share=share)
    for systematic in (0.0, 0.5, 0.8, 1.0):
        labels = crowd_labels(gold, cue, keys, kappa, 1, systematic)
        assert labels.dtype == np.int8
        assert cohen_kappa_score(gold, labels) == pytest.approx(kappa, abs=0.01)
        # As many errors of both kinds: the crowd's prevalence is the true one.
        assert labels.sum() == gold.sum()
    uniform = uniform_crowd_labels(gold, keys, kappa, 1)
    assert cohen_kappa_score(gold, uniform) == pytest.approx(kappa, abs=0.01)


def test_crowd_errors_follow_the_cue():
    gold, cue, keys = crowd(n=4000, share=0.4)
    for positive, sign in ((True, 1), (False, -1)):
        rows = gold == positive
        place = np.argsort(np.argsort(sign * cue[rows])) / rows.sum()

        def wrong(systematic, rows=rows):
            return (crowd_labels(gold, cue, keys, 0.6, 0, systematic) != gold)[rows]

        rate = wrong(0.8).mean()
        follows, even = wrong(1.0), wrong(0.0)
        # Steep: nearly all at the tempting end, nearly none at the other, and a blur between.
        assert follows[place < 0.5 * rate].mean() > 0.9 > 0.05 > follows[place > 2.5 * rate].mean()
        # The end of the tempting ones is no step: some before it are right, some after it wrong.
        assert 0.5 < follows[(place > 0.7 * rate) & (place < rate)].mean() < 0.97
        assert 0.03 < follows[(place > rate) & (place < 1.3 * rate)].mean() < 0.5
        tempted = place < rate
        assert even[tempted].mean() == pytest.approx(rate, abs=0.06)
        # Four fifths of the errors follow the cue, most of the rest lie elsewhere.
        assert follows[tempted].sum() > wrong(0.8)[tempted].sum() > even[tempted].sum()
        assert wrong(0.8)[place > 2.5 * rate].sum() > 0.08 * wrong(0.8).sum()


def test_uniform_errors_are_one_rate_for_all():
    gold, cue, keys = crowd(n=6000, share=0.1)
    wrong = uniform_crowd_labels(gold, keys, 0.4, 3) != gold
    assert wrong[gold].mean() == pytest.approx(wrong[~gold].mean(), abs=0.04)
    assert abs(pearsonr(wrong[~gold], cue[~gold])[0]) < 0.04
    # Most ads are negative, so most errors are: the crowd says yes more often than the truth.
    assert (wrong ^ gold).mean() > gold.mean() + 0.05


def test_crowd_labels_depend_on_content_and_seed_alone():
    gold, cue, keys = crowd()
    order = np.random.default_rng(1).permutation(len(gold))
    moved = [keys[i] for i in order]
    ours = crowd_labels(gold, cue, keys, 0.6, 0)
    assert np.array_equal(crowd_labels(gold[order], cue[order], moved, 0.6, 0), ours[order])
    assert (crowd_labels(gold, cue, keys, 0.6, 1) != ours).any()
    # Only the ranking of the cue counts.
    assert np.array_equal(crowd_labels(gold, np.exp(cue) * 7, keys, 0.6, 0), ours)
    # Equal cues: the hashes alone decide, whatever the order.
    flat = np.zeros(len(gold))
    assert np.array_equal(
        crowd_labels(gold[order], flat, moved, 0.6, 0),
        crowd_labels(gold, flat, keys, 0.6, 0)[order],
    )
    uniform = uniform_crowd_labels(gold, keys, 0.6, 0)
    assert np.array_equal(uniform_crowd_labels(gold[order], moved, 0.6, 0), uniform[order])
    assert (uniform_crowd_labels(gold, keys, 0.6, 1) != uniform).any()


@given(st.integers(4, 60), st.integers(1, 3), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_small_crowds_reach_it_or_say_what_they_reach(n, n_positive, kappa, systematic):
    gold = np.arange(n) < n_positive
    keys = [str(i) for i in range(n)]
    share = n_positive / n
    nearest = min(abs(1 - m / (n * share * (1 - share)) - kappa) for m in range(n_positive + 1))
    call = (gold, np.arange(n) % 7, keys, kappa, 0, systematic)
    if nearest > 0.01 + 1e-9:
        with pytest.raises(ValueError, match=r"come no nearer than .* give more ads"):
            crowd_labels(*call)
    labels = crowd_labels(*call, tolerance=2.0)
    reached = cohen_kappa_score(gold, labels)
    assert abs(reached - kappa) == pytest.approx(nearest) and labels.sum() == n_positive


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kappa": 0.0}, r"kappa must lie in \(0, 1\], got 0.0"),
        ({"systematic": -0.1}, r"systematic must lie in \[0, 1\], got -0.1"),
        ({"cue": np.full(20, np.inf)}, "cue must be finite, got inf"),
        ({"gold": np.ones(20, dtype=bool)}, "both classes, got 20 positive of 20"),
        ({"keys": ["a"] * 20}, "got 19 repeated"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
        ({"kappa": 0.73}, r"of 10 positive and 10 negative ads come no nearer than 0\.\d+; give"),
    ],
)
def test_bad_arguments_of_crowds_are_named(changes, match):
    arguments = {
        "gold": np.arange(20) < 10,
        "cue": np.arange(20.0),
        "keys": [str(i) for i in range(20)],
        "kappa": 0.6,
        "seed": 0,
        **changes,
    }
    with pytest.raises(ValueError, match=match):
        crowd_labels(**arguments)
    if {"cue", "systematic"} & set(changes):
        return
    del arguments["cue"]
    with pytest.raises(ValueError, match=match):
        uniform_crowd_labels(**arguments)


def test_a_perfect_crowd_is_the_gold():
    gold, cue, keys = crowd(n=200)
    assert np.array_equal(crowd_labels(gold, cue, keys, 1.0, 0), gold)
    assert np.array_equal(uniform_crowd_labels(gold, keys, 1.0, 0), gold)
