import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit

from pipelines.numerics import calibration
from pipelines.numerics.calibration import (
    MARGIN_LIMIT,
    MARGIN_STEP,
    N_BINS,
    OneClassError,
    fixed_threshold,
    margin_histogram,
    prior_threshold,
    probability,
    quantize,
)

grid = st.integers(-40, 40).map(lambda i: i * MARGIN_STEP)
margins = st.lists(grid, min_size=2, max_size=40)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=30))
def test_quantize_gives_grid_points_that_stay(values):
    once = quantize(np.array(values, dtype=np.float32))
    assert once.dtype == np.float32
    assert np.array_equal(quantize(once), once)
    assert not np.signbit(once[once == 0]).any()
    inside = np.abs(values) <= MARGIN_LIMIT
    assert (np.abs(once - np.array(values, dtype=np.float64))[inside] <= MARGIN_STEP / 2).all()
    assert margin_histogram(once).sum() == len(values)


@given(margins, margins)
def test_histograms_add_up(left, right):
    both = margin_histogram(np.array(left + right))
    assert np.array_equal(
        both, margin_histogram(np.array(right)) + margin_histogram(np.array(left))
    )
    assert both.dtype == np.int64 and both.shape == (N_BINS,)


@given(margins, st.floats(0.001, 0.999))
def test_prior_threshold_against_every_grid_point(values, prior):
    array = np.array(values)
    histogram = margin_histogram(array)
    n = len(values)
    best = None
    for i in range(-41, 42):
        n_positive = int((array >= i * MARGIN_STEP).sum())
        if 0 < n_positive < n:
            gap = round(abs(n_positive - prior * n), 6)
            if best is None or gap <= best[0]:
                best = (gap, i * MARGIN_STEP, n_positive)
    if best is None:
        with pytest.raises(OneClassError, match="have the same score"):
            prior_threshold(histogram, prior)
        return
    got = prior_threshold(histogram, prior)
    assert (got.margin, got.n_positive) == best[1:]
    assert got.n_positive + got.n_negative == n
    assert got.share == got.n_positive / n
    assert int((array.astype(np.float32) >= got.margin).sum()) == got.n_positive


def test_prior_ties_go_to_the_higher_threshold():
    histogram = margin_histogram(np.arange(4) * MARGIN_STEP)
    # Shares 1/4 and 2/4 are equally near 3/8.
    assert prior_threshold(histogram, 0.375).margin == 3 * MARGIN_STEP
    # Between two used bins lies a gap: its upper end splits alike and is higher.
    assert prior_threshold(margin_histogram(np.array([-1.0, 2.0])), 0.5).margin == 2.0


@given(margins, st.integers(-40, 40), st.floats(-0.999, 0.0))
def test_fixed_threshold_against_float64_probabilities(values, i, below):
    # A probability just under a grid point's, or equal to it, asks for that point.
    asked = float(expit((i + below) * MARGIN_STEP))
    array = np.array(values)
    n_positive = int((array >= i * MARGIN_STEP).sum())
    histogram = margin_histogram(array)
    if 0 < n_positive < len(values):
        got = fixed_threshold(histogram, asked)
        assert (got.margin, got.n_positive) == (i * MARGIN_STEP, n_positive)
        assert got.probability >= asked - 1e-12
    else:
        side = "highest" if n_positive == 0 else "lowest"
        with pytest.raises(OneClassError, match=f"the {side} of {len(values)} scores is p = "):
            fixed_threshold(histogram, asked)


def test_one_half_is_margin_zero():
    got = fixed_threshold(margin_histogram(np.array([-MARGIN_STEP, 0.0])), 0.5)
    assert (got.margin, got.n_positive, got.n_negative) == (0.0, 1, 1)


@pytest.mark.parametrize("asked", [1e-300, 1 - 1e-16])
def test_probabilities_beyond_the_grid_name_the_nearest_score(asked):
    with pytest.raises(OneClassError, match=r"scores is p = .* \(margin -?1\)"):
        fixed_threshold(margin_histogram(np.array([-1.0, 1.0])), asked)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "at least 2 scored ads, got 0"),
        ([0.5], "at least 2 scored ads, got 1"),
        ([0.5] * 3, r"all 3 ads have the same score, p = 0.6225 \(margin 0.5\)"),
    ],
)
def test_one_class_is_explained(values, text):
    histogram = margin_histogram(np.array(values))
    with pytest.raises(OneClassError, match=text):
        prior_threshold(histogram, 0.1)


def test_no_ad_at_all():
    with pytest.raises(OneClassError, match="got 0"):
        fixed_threshold(margin_histogram(np.array([])), 0.5)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_shares_must_lie_inside(share):
    histogram = margin_histogram(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="prior must lie strictly between 0 and 1"):
        prior_threshold(histogram, share)
    with pytest.raises(ValueError, match="probability must lie strictly between 0 and 1"):
        fixed_threshold(histogram, share)


@pytest.mark.parametrize("value", [0.001, 65.0, -64.5])
def test_margins_off_the_grid_are_refused(value):
    with pytest.raises(ValueError, match=r"pass them through calibration\.quantize"):
        margin_histogram(np.array([0.0, value]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_margins_must_be_finite(value):
    with pytest.raises(ValueError, match="margins must be finite"):
        quantize(np.array([value]))
    with pytest.raises(ValueError, match="margins must be finite"):
        margin_histogram(np.array([value]))


@pytest.mark.parametrize(
    "histogram", [np.zeros(3, dtype=np.int64), np.zeros(N_BINS), -np.ones(N_BINS, dtype=np.int64)]
)
def test_other_histograms_are_refused(histogram):
    with pytest.raises(ValueError, match="build it with margin_histogram"):
        prior_threshold(histogram, 0.5)


def test_probability_is_a_float32_sigmoid():
    values = np.array([-64.0, -1.0, 0.0, 1.0, 64.0], dtype=np.float32)
    got = probability(values)
    assert got.dtype == np.float32
    assert got[2] == 0.5 and got[4] == 1.0 and 0 < got[0] < 1e-27
    assert probability(0.0).shape == ()


@given(
    hnp.arrays(np.int16, st.integers(2, 60), elements=st.integers(-300, 300)),
    st.floats(0.05, 0.95),
    st.integers(1, 80),
)
def test_the_band_holds_the_nearest_of_each_label(bins, prior, n_each) -> None:
    margins = (bins * calibration.MARGIN_STEP).astype(np.float32)
    if len(np.unique(margins)) < 2:
        return
    histogram = calibration.margin_histogram(margins)
    threshold = calibration.prior_threshold(histogram, prior)
    band = calibration.boundary_band(histogram, threshold, n_each)
    inside = band.holds(margins)
    positive = margins >= threshold.margin
    for side in (positive, ~positive):
        gap = np.abs(margins[side] - threshold.margin)
        wanted = min(n_each, len(gap))
        # At least as many as asked, nothing nearer left out, and no more than ties make it.
        assert inside[side].sum() >= wanted
        farthest = np.sort(gap)[wanted - 1]
        np.testing.assert_array_equal(inside[side], gap <= farthest)


def test_a_fitted_threshold_counts_both_sides() -> None:
    histogram = calibration.margin_histogram(np.array([-1.0, 0.5, 2.0], dtype=np.float32))
    found = calibration.fitted_threshold(histogram, 0.4999)
    assert (found.margin, found.n_positive, found.n_negative) == (0.5, 2, 1)
    assert found.source == "fitted"
    with pytest.raises(calibration.OneClassError, match=r"no ad of 3 .* margin 5"):
        calibration.fitted_threshold(histogram, 5.0)
    with pytest.raises(calibration.OneClassError, match="every ad of 3"):
        calibration.fitted_threshold(histogram, -70.0)
    with pytest.raises(ValueError, match="finite"):
        calibration.fitted_threshold(histogram, float("nan"))


def test_the_bounds_widen_with_the_labels_of_the_rarer_class():
    # Odds of 1 to 19, within a factor of 2.5, of its square at half of what is enough, and without end.
    for labels, factor in ((0, 2.5), (20, 2.5**2), (30, 2.5**4)):
        low, high = calibration.prior_bounds(0.05, labels)
        assert low == pytest.approx(1 / (1 + 19 * factor))
        assert high == pytest.approx(1 / (1 + 19 / factor))
    assert calibration.prior_bounds(0.05, 40) == (0.0, 1.0)
    assert calibration.prior_bounds(0.05, 4_000) == (0.0, 1.0)
    with pytest.raises(ValueError, match="labels must be at least 0"):
        calibration.prior_bounds(0.05, -1)


@pytest.mark.parametrize(("truth", "recovers_at"), [(0.15, 10), (0.05 / 3, 8), (0.5, 28)])
def test_a_wrong_prior_gives_way_to_labels(truth, recovers_at):
    """Three times off, either way, and ten times: from so many labels on the fitted threshold stays."""
    margins = quantize(np.random.default_rng(0).normal(size=20_000))
    histogram = margin_histogram(margins)
    at = float(quantize(np.quantile(margins, 1 - truth)))

    def share(labels):
        fitted = calibration.Fitted(at, at - 0.5, at + 0.5, labels)
        return calibration.bounded_threshold(histogram, fitted, 0.05)

    assert share(recovers_at).share == pytest.approx(truth, rel=0.03)
    assert share(recovers_at).source == "fitted"
    first = share(0)
    assert first.source == "bounded" and first.bound.binds
    low, high = calibration.prior_bounds(0.05, 0)
    assert first.share == pytest.approx(high if truth > 0.05 else low, rel=0.03)
    assert first.bound.fitted_share == pytest.approx(truth, rel=0.03)
    # The more labels, the nearer to what they say.
    off = [abs(share(labels).share - truth) for labels in range(0, 40, 4)]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(off))


def test_a_bound_is_told_with_both_uncertainties():
    histogram = margin_histogram(np.arange(-50.0, 50.0))
    found = calibration.bounded_threshold(
        histogram, calibration.Fitted(-13.0, -30.0, 10.0, labels=2), 0.05
    )
    assert str(found.bound) == (
        "the fitted threshold would call 63% of the corpus positive (95% interval 40% to 80%, from 2 "
        "labels of the rarer class); bounded to 12% by the prior: 1.97% to 12.1%, around the prior of "
        "5%, until there are 40 such labels"
    )
    allowed = calibration.bounded_threshold(
        histogram, calibration.Fitted(44.0, 40.0, 47.0, labels=2), 0.05
    )
    assert "the prior allows that: 1.97% to 12.1%" in str(allowed.bound)
    assert allowed.margin == 44.0


def test_equal_margins_have_a_rule_that_prefers_none():
    found = calibration.no_threshold(margin_histogram(np.full(5, 3.0)))
    assert (found.n_positive, found.n_negative, found.source) == (0, 5, "none")
    assert found.margin == 3.0 + calibration.MARGIN_STEP
    with pytest.raises(ValueError, match="margins differ"):
        calibration.no_threshold(margin_histogram(np.array([1.0, 2.0])))
