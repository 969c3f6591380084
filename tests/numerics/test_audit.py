"""Audits: strata, allocation, estimates against sums by hand, intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score, precision_score, recall_score, roc_auc_score

from pipelines.numerics import audit, calibration
from pipelines.numerics.audit import Known, Labels, SamplePlan

PRIOR = 0.05


def corpus(
    ads: int = 4000, share: float = PRIOR, auc: float = 0.9, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return grid margins and labels."""
    rng = np.random.default_rng(seed)
    positive = np.zeros(ads, dtype=bool)
    positive[rng.choice(ads, round(share * ads), replace=False)] = True
    score = rng.normal(size=ads) + positive * norm.ppf(auc) * 2**0.5
    return calibration.quantize(score).astype(np.float64), positive


def planned(margins: np.ndarray, budget: int) -> tuple[SamplePlan, np.ndarray, np.ndarray]:
    """Return a plan, the histogram that it is made of, and the probabilities."""
    histogram = calibration.margin_histogram(margins)
    probability = audit.assumed_probabilities(histogram, PRIOR)
    threshold = calibration.prior_threshold(histogram, PRIOR)
    return (
        audit.plan_sample(histogram, probability, threshold.margin, budget),
        histogram,
        probability,
    )


def labels_of(
    plan: SamplePlan, margins: np.ndarray, positive: np.ndarray, rows: np.ndarray
) -> Labels:
    histogram = calibration.margin_histogram(margins)
    probability = audit.assumed_probabilities(histogram, PRIOR)[audit.bin_of(margins)]
    return Labels(
        plan.stratum_of(margins)[rows], positive[rows], probability[rows], np.ones(len(rows))
    )


def draw(plan: SamplePlan, margins: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    stratum = plan.stratum_of(margins)
    return np.concatenate(
        [
            rng.choice(np.flatnonzero(stratum == row), number, replace=False)
            for row, number in enumerate(plan.labels)
        ]
    )


# --- Design -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-200, 200), min_size=2, max_size=300),
    st.integers(1, 400),
    st.integers(-200, 200),
)
def test_strata_part_the_ads_and_lie_on_one_side_of_the_threshold(
    steps: list[int], budget: int, threshold_step: int
) -> None:
    margins = np.array(steps) * calibration.MARGIN_STEP
    histogram = calibration.margin_histogram(margins)
    probability = audit.assumed_probabilities(histogram, 0.1)
    threshold = threshold_step * calibration.MARGIN_STEP
    plan = audit.plan_sample(histogram, probability, threshold, budget)
    stratum = plan.stratum_of(margins)
    assert np.bincount(stratum, minlength=len(plan.sizes)).tolist() == plan.sizes.tolist()
    assert (plan.sizes > 0).all() and stratum.min() == 0
    called = margins >= threshold
    for row in range(len(plan.sizes)):
        assert len(set(called[stratum == row].tolist())) == 1
    strata = plan.strata(histogram, histogram.astype(np.float64), probability)
    assert strata.above[stratum].tolist() == called.tolist()
    assert plan.labels.sum() == min(budget, len(margins))
    assert (plan.labels <= plan.sizes).all()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 500), st.floats(0, 0.5), st.integers(0, 40)),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 800),
)
def test_an_allocation_keeps_its_bounds_and_its_sum(
    rows: list[tuple[int, float, int]], budget: int
) -> None:
    sizes, spread, least = (np.array(own) for own in zip(*rows, strict=True))
    labels = audit.allocate(sizes, spread, budget, least)
    low = np.minimum(least, sizes)
    assert (labels >= low).all() and (labels <= sizes).all()
    assert labels.sum() == max(min(budget, sizes.sum()), low.sum())


def test_an_allocation_without_bounds_is_neymans() -> None:
    sizes, spread = np.array([1000, 500, 100]), np.array([0.1, 0.2, 0.5])
    labels = audit.allocate(sizes, spread, 50, np.zeros(3, dtype=np.int64))
    assert labels.tolist() == [20, 20, 10]


def test_an_allocation_is_no_worse_than_any_neighbour() -> None:
    margins, _ = corpus()
    plan, histogram, probability = planned(margins, 200)
    spread = np.add.reduceat(histogram * np.sqrt(probability * (1 - probability)), plan.starts)
    labels = audit.allocate(plan.sizes, spread / plan.sizes, 200, np.ones_like(plan.sizes))

    def variance(own: np.ndarray) -> float:
        return float(np.sum(spread**2 / own))

    for one in range(len(labels)):
        for other in range(len(labels)):
            moved = labels.copy()
            moved[one] -= 1
            moved[other] += 1
            if moved[one] >= 1:
                assert variance(moved) > variance(labels) * (1 - 1e-3)


def test_a_larger_budget_takes_no_label_from_any_stratum() -> None:
    margins, _ = corpus()
    plan, histogram, probability = planned(margins, 60)
    for budget in (61, 150, 3999, 5000):
        more = audit.extend_sample(plan, histogram, probability, budget)
        assert more.starts.tolist() == plan.starts.tolist()
        assert (more.labels >= plan.labels).all()
        assert more.labels.sum() == min(budget, len(margins))


def test_an_eighth_of_the_labels_goes_to_what_the_model_calls_positive() -> None:
    margins, _ = corpus(20_000, 0.01)
    histogram = calibration.margin_histogram(margins)
    probability = audit.assumed_probabilities(histogram, 0.01)
    threshold = calibration.prior_threshold(histogram, 0.01).margin
    plan = audit.plan_sample(histogram, probability, threshold, 240)
    strata = plan.strata(histogram, histogram.astype(np.float64), probability)
    assert plan.labels[strata.above].sum() == 30
    assert plan.labels.min() >= audit.MIN_A_STRATUM


# --- Calibration --------------------------------------------------------------------------------


def test_assumed_probabilities_go_by_rank_alone_and_have_the_priors_mean() -> None:
    margins, positive = corpus(20_000, auc=audit.ASSUMED_AUC)
    for scale, shift in ((1.0, 0.0), (0.25, 3.0), (4.0, -2.0)):
        other = calibration.quantize(scale * margins + shift).astype(np.float64)
        histogram = calibration.margin_histogram(other)
        probability = audit.assumed_probabilities(histogram, PRIOR)
        assert (np.diff(probability) >= 0).all() and probability[0] > 0 and probability[-1] < 1
        own = probability[audit.bin_of(other)]
        assert own.mean() == pytest.approx(PRIOR, rel=0.02)
        # What ranks so well has these shares: in the highest and the lowest tenth.
        for part in (own >= np.quantile(own, 0.9), own <= np.quantile(own, 0.1)):
            assert own[part].mean() == pytest.approx(positive[part].mean(), abs=0.04)
    assert roc_auc_score(positive, own) == pytest.approx(audit.ASSUMED_AUC, abs=0.02)


def test_a_curve_without_labels_is_the_assumption_and_with_many_the_truth() -> None:
    empty = np.zeros(0)
    assert audit.fit_curve(empty, empty, empty) == (0.0, 1.0)
    assumed = np.linspace(0.02, 0.9, 40)
    truth = audit.apply_curve(assumed, (-1.0, 1.6))
    shift, slope = audit.fit_curve(assumed, 1e5 * truth, np.full(40, 1e5))
    assert (shift, slope) == (pytest.approx(-1.0, abs=0.01), pytest.approx(1.6, abs=0.01))
    few = audit.fit_curve(assumed, 3 * truth, np.full(40, 3.0))
    assert -1.0 < few[0] < 0.0 and 1.0 < few[1] < 1.6


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 0.999), st.integers(0, 20), st.integers(0, 20)), max_size=12
    )
)
def test_a_curve_is_where_its_penalised_likelihood_is_highest(
    rows: list[tuple[float, int, int]],
) -> None:
    assumed, yes, no = (
        (np.array(own, dtype=np.float64) for own in zip(*rows, strict=True))
        if rows
        else (np.zeros(0),) * 3
    )
    curve = audit.fit_curve(assumed, yes, yes + no)

    def loss(shift: float, slope: float) -> float:
        rate = audit.apply_curve(assumed, (shift, slope))
        fit = yes @ np.log(rate) + no @ np.log1p(-rate)
        return float(-fit + (shift / 1.0) ** 2 / 2 + ((slope - 1.0) / 0.5) ** 2 / 2)

    for step in ((1e-2, 0), (-1e-2, 0), (0, 1e-2), (0, -1e-2)):
        assert loss(*curve) <= loss(curve[0] + step[0], curve[1] + step[1]) + 1e-9


# --- Estimates ----------------------------------------------------------------------------------


def test_a_census_is_the_truth_without_an_interval() -> None:
    margins, positive = corpus(900)
    plan, histogram, probability = planned(margins, 900)
    known = Known(((30, 4), (3, 9)), ((30.0, 4.0), (3.0, 9.0)))
    strata = plan.strata(histogram, histogram.astype(np.float64), probability)
    found = audit.estimate(strata, labels_of(plan, margins, positive, np.arange(900)), known)
    called = np.concatenate([margins >= plan.threshold, [0] * 30, [1] * 4, [0] * 3, [1] * 9])
    said = np.concatenate([positive, [0] * 34, [1] * 12])
    wanted = {
        audit.SHARE: said.mean(),
        audit.WEIGHTED: said.mean(),
        audit.PRECISION: precision_score(said, called),
        audit.RECALL: recall_score(said, called),
        audit.KAPPA: cohen_kappa_score(said, called),
    }
    for way in (found.plain, found.powered):
        assert set(way) == set(audit.MEASURES)
        for name, value in wanted.items():
            assert way[name].value == pytest.approx(value, abs=1e-9)
            assert way[name].low == way[name].high == way[name].value
    assert found.halving_labels == 900


def test_plain_estimates_are_horvitz_and_thompsons() -> None:
    margins, positive = corpus()
    plan, histogram, probability = planned(margins, 300)
    rows = draw(plan, margins, np.random.default_rng(3))
    weight = 1.0 + (np.arange(len(margins)) % 3)
    bins = audit.bin_of(margins)
    strata = plan.strata(
        histogram, np.bincount(bins, weight, minlength=len(histogram)), probability
    )
    stratum = plan.stratum_of(margins)[rows]
    labels = Labels(stratum, positive[rows], probability[bins[rows]], weight[rows])
    found = audit.estimate(strata, labels).plain
    worth = (plan.sizes / plan.labels)[stratum]
    hits = positive[rows] & (margins[rows] >= plan.threshold)
    total = float(worth @ positive[rows])
    assert found[audit.SHARE].value == pytest.approx(total / len(margins))
    called = int((margins >= plan.threshold).sum())
    assert found[audit.PRECISION].value == pytest.approx(float(worth @ hits) / called)
    assert found[audit.RECALL].value == pytest.approx(float(worth @ hits) / total)
    own = np.bincount(stratum, weight[rows] * positive[rows], minlength=len(plan.sizes))
    ratio = own / np.bincount(stratum, weight[rows], minlength=len(plan.sizes))
    assert found[audit.WEIGHTED].value == pytest.approx(ratio @ strata.weights / weight.sum())
    for one in found.values():
        assert one.low is not None and one.value is not None and one.high is not None
        assert one.low < one.value < one.high


def test_prediction_powered_shares_are_the_mean_moved_by_lambda() -> None:
    rng = np.random.default_rng(8)
    f = np.repeat([0.1, 0.6], 200)
    y = rng.random(400) < f
    sizes = np.array([4000])
    strata = audit.Strata(
        sizes, sizes.astype(float), np.array([0.3]), np.array([0.3]), np.array([True])
    )
    found = audit.estimate(strata, Labels(np.zeros(400, dtype=np.int64), y, f, np.ones(400)))
    power = np.cov(y, f, bias=True)[0, 1] / f.var()
    assert 0 < power < 1.2
    wanted = y.mean() + min(power, 1.0) * (0.3 - f.mean())
    powered, plain = found.powered[audit.SHARE], found.plain[audit.SHARE]
    assert powered.value == pytest.approx(wanted)
    assert plain.value == pytest.approx(y.mean())
    assert powered.high - powered.low < plain.high - plain.low  # type: ignore[operator]


def test_what_a_model_says_is_left_aside_where_it_says_nothing_of_the_labels() -> None:
    f = np.tile([0.2, 0.4], 50)
    y = np.repeat([False, True], 50)
    strata = audit.Strata(
        np.array([1000]), np.array([1000.0]), np.array([0.9]), np.array([0.9]), np.array([True])
    )
    found = audit.estimate(strata, Labels(np.zeros(100, dtype=np.int64), y, f, np.ones(100)))
    assert found.powered == found.plain


def test_a_stratum_without_a_label_has_the_rate_of_the_curve() -> None:
    margins, positive = corpus()
    plan, histogram, probability = planned(margins, 300)
    rows = draw(plan, margins, np.random.default_rng(3))
    rows = rows[plan.stratum_of(margins)[rows] != 0]
    strata = plan.strata(histogram, histogram.astype(np.float64), probability)
    found = audit.estimate(strata, labels_of(plan, margins, positive, rows)).plain[audit.SHARE]
    assert found.value == pytest.approx(PRIOR, abs=0.03)
    assert found.low is not None and found.high is not None and found.low < PRIOR < found.high


def test_without_a_positive_label_the_upper_end_is_still_there() -> None:
    margins, _ = corpus()
    plan, histogram, probability = planned(margins, 300)
    rows = draw(plan, margins, np.random.default_rng(3))
    strata = plan.strata(histogram, histogram.astype(np.float64), probability)
    nothing = np.zeros(len(margins), dtype=bool)
    found = audit.estimate(strata, labels_of(plan, margins, nothing, rows)).plain
    share, recall = found[audit.SHARE], found[audit.RECALL]
    assert share.value == share.low == 0.0
    assert share.high is not None and 0.002 < share.high < 0.03
    assert (recall.value, recall.low, recall.high) == (None, None, None)
    assert found[audit.KAPPA].value == pytest.approx(0.0)
    assert str(recall) == "undefined" and str(share).startswith("0.000 [0.000, 0.0")


def test_a_model_that_is_wrong_has_a_negative_kappa_with_its_interval() -> None:
    margins, positive = corpus(2000, 0.5, auc=0.3)
    histogram = calibration.margin_histogram(margins)
    probability = audit.assumed_probabilities(histogram, 0.5)
    plan = audit.plan_sample(histogram, probability, 0.0, 400)
    rows = draw(plan, margins, np.random.default_rng(3))
    strata = plan.strata(histogram, histogram.astype(np.float64), probability)
    kappa = audit.estimate(strata, labels_of(plan, margins, positive, rows)).plain[audit.KAPPA]
    truth = cohen_kappa_score(positive, margins >= 0.0)
    assert kappa.value is not None and kappa.low is not None and kappa.high is not None
    assert -1 < kappa.low < truth < kappa.high < 0


def test_slopes_are_those_of_the_measures() -> None:
    margins, positive = corpus()
    plan, histogram, probability = planned(margins, 300)
    strata = plan.strata(histogram, histogram.astype(np.float64), probability)
    at = np.bincount(plan.stratum_of(margins), positive, minlength=len(plan.sizes))
    known = Known(((30, 4), (3, 9)))
    table = audit._Table.of(strata, known, at)
    above = strata.above.astype(np.float64)
    for row in range(len(at)):
        step = np.zeros(len(at))
        step[row] = 1e-3
        ends = [audit._Table.of(strata, known, at + sign * step) for sign in (1, -1)]
        recall = (ends[0].recall - ends[1].recall) / 2e-3  # type: ignore[operator]
        kappa = (ends[0].kappa - ends[1].kappa) / 2e-3  # type: ignore[operator]
        assert table.recall_slope(above)[row] == pytest.approx(recall, rel=1e-4)
        assert table.kappa_slope(above)[row] == pytest.approx(kappa, rel=1e-4)


def test_so_many_labels_halve_the_interval() -> None:
    margins, positive = corpus(40_000)
    plan, histogram, probability = planned(margins, 300)
    strata = plan.strata(histogram, histogram.astype(np.float64), probability)
    rng = np.random.default_rng(5)
    rows = draw(plan, margins, rng)
    first = audit.estimate(strata, labels_of(plan, margins, positive, rows))
    more = audit.extend_sample(plan, histogram, probability, first.halving_labels)
    second = audit.estimate(strata, labels_of(plan, margins, positive, draw(more, margins, rng)))
    widths = [e.plain[audit.SHARE].high - e.plain[audit.SHARE].low for e in (first, second)]  # type: ignore[operator]
    assert 300 * 3 < first.halving_labels <= 300 * 4 + 1
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.3)


def test_intervals_cover() -> None:
    # benchmarks/audit_intervals.py measures this; here is what a mistake would break.
    margins, positive = corpus(10_000)
    plan, histogram, probability = planned(margins, 300)
    strata = plan.strata(histogram, histogram.astype(np.float64), probability)
    called = margins >= plan.threshold
    truth = {
        audit.SHARE: positive.mean(),
        audit.PRECISION: precision_score(positive, called),
        audit.RECALL: recall_score(positive, called),
        audit.KAPPA: cohen_kappa_score(positive, called),
    }
    rng = np.random.default_rng(11)
    inside = dict.fromkeys(truth, 0)
    for _ in range(200):
        labels = labels_of(plan, margins, positive, draw(plan, margins, rng))
        found = audit.estimate(strata, labels)
        for name, value in truth.items():
            own = found.powered[name]
            inside[name] += own.low <= value <= own.high  # type: ignore[operator]
    assert all(180 <= count <= 200 for count in inside.values()), inside


def test_bad_requests_are_refused() -> None:
    histogram = np.zeros(calibration.N_BINS, dtype=np.int64)
    flat = np.full(calibration.N_BINS, 0.5)
    with pytest.raises(ValueError, match="without ads has no strata"):
        audit.cut_strata(histogram, flat, 0.0, 3)
    with pytest.raises(ValueError, match="at least 2 strata, got 1"):
        audit.cut_strata(histogram + 1, flat, 0.0, 1)
