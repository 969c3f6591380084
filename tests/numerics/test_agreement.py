import json
import sys
import time
import warnings
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from crowdkit.metrics.data import alpha_krippendorff
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import cohen_kappa_score

from pipelines.errors import UsageError
from pipelines.numerics.agreement import (
    Bootstrap,
    Resamples,
    cohen_kappa,
    consensus,
    expert_agreement,
    krippendorff_alpha,
    model_agreement,
    pair_kappas,
    percentile_interval,
    resample,
)

labels = hnp.arrays(np.int8, st.integers(0, 30), elements=st.integers(0, 1))
matrices = hnp.arrays(
    np.int8, st.tuples(st.integers(1, 40), st.integers(2, 4)), elements=st.integers(-1, 1)
)


def swap(array):
    return np.where(array == -1, -1, 1 - array).astype(np.int8)


def noisy(gold, error, rng):
    return (gold ^ (rng.random(len(gold)) < error)).astype(np.int8)


def raters(n=500, n_raters=3, error=0.08, missing=0.1, seed=0, share=0.4):
    rng = np.random.default_rng(seed)
    gold = rng.random(n) < share
    ratings = np.column_stack([noisy(gold, error, rng) for _ in range(n_raters)])
    ratings[rng.random(ratings.shape) < missing] = -1
    return gold, ratings


def sklearn_kappa(a, b):
    """The oracle: None where undefined."""
    both = (a != -1) & (b != -1)
    if not both.any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = cohen_kappa_score(a[both], b[both], labels=[0, 1])
    return None if np.isnan(value) else float(value)


def slow_mean(pairs, min_overlap):
    found = []
    for a, b in pairs:
        overlap = int(((a != -1) & (b != -1)).sum())
        if overlap >= min_overlap and sklearn_kappa(a, b) is not None:
            found.append((sklearn_kappa(a, b), overlap))
    if not found:
        return None, None
    return np.mean([k for k, _ in found]), np.average(
        [k for k, _ in found], weights=[w for _, w in found]
    )


@given(labels, st.data())
def test_cohen_kappa_against_its_definition(a, data):
    b = data.draw(hnp.arrays(np.int8, len(a), elements=st.integers(0, 1)))
    value, reason = cohen_kappa(a, b)
    n = len(a)
    chance = (a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())) if n else 1.0
    if n == 0 or np.isclose(chance, 1.0):
        assert value is None and reason
    else:
        assert value == pytest.approx(((a == b).mean() - chance) / (1 - chance)) and reason == ""


def test_cohen_kappa_by_hand_and_where_it_is_undefined():
    # 20 + 15 of 50 agree; chance 0.5 * 0.6 + 0.5 * 0.4: the textbook's 0.4.
    a = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    b = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohen_kappa(a, b)[0] == pytest.approx(0.4)
    assert cohen_kappa([], []) == (None, "both raters have no ads in common")
    assert cohen_kappa([0, 0], [0, 0]) == (
        None,
        "both raters call all 2 ads negative, so chance alone explains their agreement",
    )
    assert "all 1 ad positive" in cohen_kappa([True], [True])[1]
    assert cohen_kappa([0, 0, 0], [0, 1, 1]) == (0.0, "")
    assert cohen_kappa([0, 0], [1, 1]) == (0.0, "")


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        ([0, 1], [0, 1, 1], "same ads, got 2 and 3 labels"),
        ([0, -1], [0, 1], "a must be 0 or 1, got -1: leave out"),
        ([0, 1], [0, 2], "b must be 0 or 1, got 2"),
        ([0.0, 1.0], [0, 1], "vector of labels 0 or 1, got float64"),
        ([[0, 1]], [0, 1], r"got int64 \(1, 2\)"),
    ],
)
def test_cohen_kappa_refuses_other_labels(a, b, match):
    with pytest.raises(ValueError, match=match):
        cohen_kappa(a, b)


@given(matrices, st.data())
def test_fast_kappas_equal_sklearn_on_the_resampled_ads(columns, data):
    counts = data.draw(hnp.arrays(np.int64, (3, len(columns)), elements=st.integers(0, 4)))
    pairs = [(i, j) for i in range(columns.shape[1]) for j in range(columns.shape[1]) if i != j]
    got = pair_kappas(Resamples(columns, counts.astype(np.float64)), pairs)
    for row, weights in enumerate(counts):
        again = np.repeat(columns, weights, axis=0)
        for column, (i, j) in enumerate(pairs):
            expected = sklearn_kappa(again[:, i], again[:, j])
            if expected is None:
                assert np.isnan(got[row, column])
            else:
                assert got[row, column] == pytest.approx(expected, abs=1e-12)


@given(matrices, st.integers(0, 100))
def test_replicates_are_draws_of_as_many_ads(columns, seed):
    sample = resample(columns, Bootstrap(n_boot=50, seed=seed))
    assert (sample.counts.sum(axis=1) == len(columns)).all()
    rebuilt = np.repeat(sample.patterns, sample.counts[0].astype(int), axis=0)
    assert sorted(map(tuple, rebuilt)) == sorted(map(tuple, columns))
    assert len(np.unique(sample.patterns, axis=0)) == len(sample.patterns)


def test_replicates_of_patterns_spread_like_replicates_of_ads():
    _, ratings = raters(n=200)
    pairs = [(0, 1), (0, 2), (1, 2)]
    ours = pair_kappas(resample(ratings, Bootstrap(n_boot=2000, seed=1)), pairs)[1:].mean(axis=1)
    rng = np.random.default_rng(5)
    drawn = [ratings[rng.integers(0, 200, 200)] for _ in range(300)]
    theirs = [np.mean([sklearn_kappa(r[:, i], r[:, j]) for i, j in pairs]) for r in drawn]
    assert ours.mean() == pytest.approx(np.mean(theirs), abs=0.006)
    assert ours.std() == pytest.approx(np.std(theirs), rel=0.12)


@given(matrices, st.integers(1, 12))
def test_expert_agreement_against_sklearn(ratings, min_overlap):
    got = expert_agreement(ratings, Bootstrap(min_overlap=min_overlap, n_boot=40))
    k = ratings.shape[1]
    pairs = [(ratings[:, i], ratings[:, j]) for i in range(k) for j in range(i + 1, k)]
    value, weighted = slow_mean(pairs, min_overlap)
    assert got.n_pairs + got.n_undefined + got.n_small == len(pairs)
    if value is None:
        assert got.value is None and got.low is None and got.weighted is None and got.reason
        assert (got.n_pairs, got.n_ads, got.smallest_overlap, got.positive_share) == (0, 0, 0, None)
        return
    assert got.value == pytest.approx(value) and got.weighted == pytest.approx(weighted)
    assert got.reason == "" and got.smallest_overlap >= min_overlap
    entered = set()
    for i in range(k):
        for j in range(i + 1, k):
            both = (ratings[:, i] != -1) & (ratings[:, j] != -1)
            if (
                both.sum() >= min_overlap
                and sklearn_kappa(ratings[:, i], ratings[:, j]) is not None
            ):
                entered |= {(row, column) for row in np.flatnonzero(both) for column in (i, j)}
    assert got.n_ads == len({row for row, _ in entered})
    assert got.positive_share == pytest.approx(np.mean([ratings[place] for place in entered]))
    assert (got.low is None) == bool(got.interval_reason)


@given(matrices, st.data())
def test_model_agreement_against_sklearn(ratings, data):
    predictions = data.draw(hnp.arrays(np.int8, len(ratings), elements=st.integers(0, 1)))
    got = model_agreement(predictions, ratings, Bootstrap(min_overlap=3, n_boot=40))
    value, weighted = slow_mean([(predictions, column) for column in ratings.T], 3)
    assert (got.value is None) == (value is None)
    if value is not None:
        assert got.value == pytest.approx(value) and got.weighted == pytest.approx(weighted)


@given(matrices, st.data())
def test_order_and_names_do_not_matter(ratings, data):
    predictions = data.draw(hnp.arrays(np.int8, len(ratings), elements=st.integers(0, 1)))
    ads = np.array(data.draw(st.permutations(range(len(ratings)))))
    people = np.array(data.draw(st.permutations(range(ratings.shape[1]))))
    options = Bootstrap(2, 60, 3)
    experts = expert_agreement(ratings, options)
    model = model_agreement(predictions, ratings, options)
    # Another order of the ads changes nothing at all, the interval included.
    assert expert_agreement(ratings[ads], options) == experts
    assert model_agreement(predictions[ads], ratings[ads], options) == model
    for other_experts, other_model in (
        (
            expert_agreement(ratings[:, people], options),
            model_agreement(predictions, ratings[:, people], options),
        ),
        (
            expert_agreement(swap(ratings), options),
            model_agreement(swap(predictions), swap(ratings), options),
        ),
    ):
        assert (other_experts.value, other_experts.weighted) == (experts.value, experts.weighted)
        assert (other_model.value, other_model.n_ads) == (model.value, model.n_ads)


def test_inverted_predictions_agree_less_than_chance():
    gold, ratings = raters()
    right = model_agreement(gold, ratings)
    wrong = model_agreement(~gold, ratings)
    assert right.value > 0.75 and wrong.value < -0.6 and wrong.high < 0 < right.low
    # Accuracy a becomes 1 - a; with balanced classes kappa changes its sign exactly.
    even = np.array([[1, 0, 1, 0, 1, 1, 0, 0, 1, 0]] * 2, dtype=np.int8).T
    half = np.array([1, 0, 1, 0, 1, 0, 0, 0, 1, 1])
    assert model_agreement(half, even).value == -model_agreement(1 - half, even).value == 0.6


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    # Two raters of error 0.1 on 40% positives: p is 0.9 or 0.1, so kappa is Var(p) / (E[p](1-E[p])).
    mean = 0.4 * 0.9 + 0.6 * 0.1
    truth = (0.4 * 0.9**2 + 0.6 * 0.1**2 - mean**2) / (mean * (1 - mean))
    hits = 0
    for seed in range(200):
        _, ratings = raters(n=200, n_raters=2, error=0.1, missing=0.0, seed=seed)
        found = expert_agreement(ratings, Bootstrap(n_boot=200))
        hits += found.low <= truth <= found.high
    assert 180 <= hits <= 198


def test_undefined_agreement_comes_with_its_numbers():
    def reason(ratings, **options):
        found = expert_agreement(np.array(ratings, dtype=np.int8), Bootstrap(**options))
        assert found.value is None and found.low is None and found.reason == found.interval_reason
        assert str(found) == f"undefined ({found.reason})"
        return found.reason

    assert reason(np.zeros((5, 1))) == "agreement needs at least 2 raters, got 1"
    assert reason(np.ones((4, 3))) == (
        "no pair of raters has 10 ads in common: the largest overlap of 3 is 4 ads"
    )
    assert reason(np.full((20, 2), -1)).endswith("the largest overlap of 1 is 0 ads")
    assert reason(np.zeros((0, 2)), min_overlap=1).endswith("is 0 ads")
    assert reason(np.zeros((12, 2))) == (
        "rater 1 and rater 2 call all 12 ads negative, so chance alone explains their agreement"
    )
    none = model_agreement(np.zeros(12, dtype=bool), np.zeros((12, 0), dtype=np.int8))
    assert none.reason == "agreement with experts needs at least 1 rater, got 0"
    same = model_agreement(np.zeros(12, dtype=bool), np.zeros((12, 1), dtype=np.int8))
    assert same.reason.startswith("the model and rater 1 call all 12 ads negative")


def test_pairs_that_do_not_count_are_counted():
    ratings = np.full((40, 4), -1, dtype=np.int8)
    ratings[:30, 0] = np.arange(30) % 2
    ratings[:20, 1] = np.arange(20) % 2
    ratings[10:, 2] = 0
    ratings[35:, 3] = 1
    found = expert_agreement(ratings, Bootstrap(min_overlap=10))
    # 0-1: 20 ads, kappa 1; 0-2: 20 ads, constant against mixed, 0; 1-2: 10 ads, 0; rater 3: too few.
    assert (found.n_pairs, found.n_undefined, found.n_small) == (3, 0, 3)
    assert found.value == pytest.approx(1 / 3) and found.weighted == pytest.approx(20 / 50)
    assert (found.smallest_overlap, found.n_ads) == (10, 30)
    # Ratings in those pairs: 15 + 10 positives of 30 + 20 + 20; the last ten of rater 2 are alone.
    assert found.positive_share == pytest.approx(25 / 70)
    ratings[:20, 1] = -1
    ratings[20:, 1] = 0
    mixed = expert_agreement(ratings, Bootstrap(min_overlap=10))
    assert (mixed.n_pairs, mixed.n_undefined, mixed.n_small) == (2, 1, 3)


def test_too_many_undefined_replicates_leave_no_interval():
    # One positive in 12 ads: it is missing in (11/12)^12 = 35% of the replicates.
    ratings = np.zeros((12, 2), dtype=np.int8)
    ratings[0] = 1
    found = expert_agreement(ratings, Bootstrap(n_boot=1000))
    assert found.value == 1.0 and found.low is None and found.high is None
    assert "of 1000 bootstrap replicates are undefined, more than 10%" in found.interval_reason
    assert 300 < int(found.interval_reason.split()[0]) < 400
    assert str(found) == "1.00"
    # With three positives 3% are: those are dropped, and the interval stands.
    ratings[:3] = 1
    assert expert_agreement(ratings, Bootstrap(n_boot=1000)).interval_reason == ""
    few = np.concatenate([np.full(10, np.nan), np.linspace(0, 1, 90)])
    assert percentile_interval(few) == (pytest.approx(0.025), pytest.approx(0.975), "")
    assert percentile_interval(np.append(few, np.nan))[0] is None


def test_a_skip_is_missing():
    gold, ratings = raters(missing=0.0)
    skipped = ratings.copy()
    skipped[:50, 0] = -1
    found = expert_agreement(skipped)
    expected = [
        sklearn_kappa(ratings[50:, 0], ratings[50:, 1]),
        sklearn_kappa(ratings[50:, 0], ratings[50:, 2]),
        sklearn_kappa(ratings[:, 1], ratings[:, 2]),
    ]
    assert found.value == pytest.approx(np.mean(expected))
    assert model_agreement(gold, skipped).smallest_overlap == 450


def test_kappas_go_to_json():
    _, ratings = raters(n=50)
    found = expert_agreement(ratings)
    back = json.loads(json.dumps(asdict(found)))
    assert back["value"] == found.value and back["n_pairs"] == 3 and back["reason"] == ""
    assert str(found) == f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
    empty = json.loads(json.dumps(asdict(expert_agreement(np.zeros((3, 2), dtype=np.int8)))))
    assert empty["value"] is None and empty["positive_share"] is None


def test_a_thousand_replicates_take_far_less_than_a_second():
    gold, ratings = raters(n=500)
    expert_agreement(ratings)
    start = time.process_time()
    first = expert_agreement(ratings, Bootstrap(n_boot=1000, seed=7))
    model_agreement(gold, ratings, Bootstrap(n_boot=1000))
    assert time.process_time() - start < 0.5
    assert expert_agreement(ratings, Bootstrap(n_boot=1000, seed=7)) == first
    assert expert_agreement(ratings, Bootstrap(n_boot=1000, seed=8)).low != first.low


@pytest.mark.parametrize(
    ("ratings", "options", "match"),
    [
        (np.zeros(4, dtype=np.int8), {}, r"integer matrix \(n_ads, n_raters\), got int8 \(4,\)"),
        (np.zeros((4, 2)), {}, "got float64"),
        (np.full((4, 2), 2), {}, "must be 1, 0 or -1 for missing, got 2"),
        (np.full((4, 2), 255, dtype=np.uint8), {}, "got 255"),
        (np.full((4, 2), -2), {}, "got -2"),
        (np.zeros((4, 2), dtype=np.int8), {"min_overlap": 0}, "min_overlap must be at least 1 ad"),
        (np.zeros((4, 2), dtype=np.int8), {"n_boot": 39}, "at least 40 replicates, got 39"),
    ],
)
def test_bad_arguments_are_named(ratings, options, match):
    with pytest.raises(ValueError, match=match):
        expert_agreement(ratings, Bootstrap(**options))


def test_predictions_must_fit():
    ratings = np.zeros((4, 2), dtype=np.int8)
    with pytest.raises(ValueError, match="got 3 labels for 4 ads"):
        model_agreement(np.zeros(3, dtype=bool), ratings)
    with pytest.raises(ValueError, match="predictions must be 0 or 1, got -1"):
        model_agreement(np.full(4, -1), ratings)
    with pytest.raises(ValueError, match="at least 40 replicates, got 0"):
        resample(ratings, Bootstrap(n_boot=0, seed=0))
    with pytest.raises(ValueError, match="at least 1 ad, got none"):
        resample(ratings[:0], Bootstrap(n_boot=100, seed=0))


@given(matrices)
def test_alpha_against_the_coincidence_matrix(ratings):
    coincidence = np.zeros((2, 2))
    for row in ratings:
        given_labels = row[row != -1]
        for i in range(len(given_labels)):
            for j in range(len(given_labels)):
                if i != j:
                    coincidence[given_labels[i], given_labels[j]] += 1 / (len(given_labels) - 1)
    value, reason = krippendorff_alpha(ratings)
    marginal, n = coincidence.sum(axis=1), coincidence.sum()
    if n == 0:
        assert value is None and "has ratings of two raters" in reason
    elif (marginal == 0).any():
        assert value is None and "no disagreement to expect" in reason
    else:
        expected = 1 - (n - 1) * coincidence[0, 1] / (marginal[0] * marginal[1])
        assert value == pytest.approx(expected) and reason == ""
        assert krippendorff_alpha(ratings[::-1])[0] == krippendorff_alpha(swap(ratings))[0] == value


@pytest.mark.parametrize("seed", range(3))
def test_alpha_against_a_library(seed):
    ratings = np.random.default_rng(seed).integers(-1, 2, size=(40, 4)).astype(np.int8)
    # Ads of one rating are no pairs: the library counts them among what it expects.
    tasks, workers = np.nonzero((ratings != -1) & ((ratings != -1).sum(axis=1) > 1)[:, None])
    said = {"task": tasks, "worker": workers, "label": ratings[tasks, workers]}
    library = alpha_krippendorff(pd.DataFrame(said))
    assert krippendorff_alpha(ratings)[0] == pytest.approx(library)


def test_alpha_is_near_kappa_for_alike_raters():
    _, ratings = raters(missing=0.2)
    assert krippendorff_alpha(ratings)[0] == pytest.approx(
        expert_agreement(ratings).value, abs=0.02
    )


@given(matrices)
def test_majority_counts_votes(ratings):
    got = consensus(ratings)
    assert got.dtype == np.int8
    for row, label in zip(ratings, got, strict=True):
        ones, zeros = list(row).count(1), list(row).count(0)
        assert label == (-1 if ones == zeros else int(ones > zeros))


def test_dawid_skene_learns_whom_to_trust():
    rng = np.random.default_rng(1)
    gold = rng.random(400) < 0.4
    # Two careful raters and three who are right little more often than a coin.
    errors = [0.03, 0.05, 0.42, 0.42, 0.42]
    ratings = np.column_stack([noisy(gold, error, rng) for error in errors])
    ratings[rng.random(ratings.shape) < 0.05] = -1
    weighed, counted = consensus(ratings, "dawid-skene"), consensus(ratings)
    assert (weighed == gold).mean() > 0.93 > 0.88 > (counted == gold).mean()
    order = rng.permutation(400)
    assert np.array_equal(consensus(ratings[order], "dawid-skene"), weighed[order])


def test_dawid_skene_at_the_edges():
    nobody = np.full((3, 2), -1, dtype=np.int8)
    assert consensus(nobody, "dawid-skene").tolist() == [-1, -1, -1]
    assert consensus(np.zeros((0, 2), dtype=np.int8), "dawid-skene").shape == (0,)
    agreed = np.array([[1, 1], [-1, 1], [-1, -1]], dtype=np.int8)
    assert consensus(agreed, "dawid-skene").tolist() == [1, 1, -1]
    # Alike in everything, the two differ on the last two ads: nothing breaks the tie.
    even = np.array([[1, 1]] * 4 + [[0, 0]] * 4 + [[1, 0], [0, 1], [-1, -1]], dtype=np.int8)
    assert consensus(even, "dawid-skene").tolist() == [1] * 4 + [0] * 4 + [-1] * 3
    with pytest.raises(ValueError, match="'majority' and 'dawid-skene', got 'vote'"):
        consensus(even, "vote")


@pytest.mark.parametrize("missing", ["crowdkit.aggregation", "pandas"])
def test_dawid_skene_says_which_extra_it_needs(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    # Also where no rating would need it yet: the experts' work is not to end in this.
    for ratings in (np.zeros((2, 2), dtype=np.int8), np.full((1, 2), -1, dtype=np.int8)):
        with pytest.raises(
            UsageError, match=r"dawid-skene needs crowd-kit \(.*'ad-scout\[consensus\]'"
        ):
            consensus(ratings, "dawid-skene")
    assert consensus(np.ones((1, 2), dtype=np.int8)).tolist() == [1]


@settings(max_examples=15)
@given(matrices)
def test_dawid_skene_takes_any_ratings(ratings):
    got = consensus(ratings, "dawid-skene")
    assert got.dtype == np.int8 and set(got.tolist()) <= {-1, 0, 1}
    assert (got[(ratings == -1).all(axis=1)] == -1).all()
