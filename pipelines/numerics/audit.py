"""What a stratified random sample says of a whole corpus: how much of it violates, how good the model is.

The corpus is a finite population of distinct ads, cut into strata by the model's score; some ads of each
stratum are drawn at random and labelled, and the labels of ads that experts saw before are known. A
stratum lies wholly on one side of the model's threshold, so that shares of violating ads by stratum
are all that precision, recall and kappa depend on.

Two estimates of a stratum's share: the plain one, and stratified prediction-powered inference (Fisch,
Maynez, Hofer, Dhingra, Globerson and Cohen, arXiv 2406.04291), which moves it by what the model's
probabilities say of the ads that were not drawn, times a power lambda of each stratum. With every ad
of the corpus scored, that is the separate regression estimator of survey sampling (Cochran, Sampling
Techniques, 1977, 7.10).

Intervals are Wilson's, at the number of labels of a plain random sample that would have the estimate's
variance, as surveys have them for proportions (Korn and Graubard, Survey Methodology 24, 1998). At 1%
prevalence most strata hold no positive label, so a stratum's variance is taken at its share pulled a
little towards a logistic curve through all labels; the variance of precision, recall and kappa is that
of their linear approximation. docs/decisions.md has what else was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from pipelines.numerics.calibration import MARGIN_LIMIT, MARGIN_STEP, N_BINS

SHARE, WEIGHTED, PRECISION, RECALL, KAPPA = (
    "share",
    "weighted_share",
    "precision",
    "recall",
    "kappa",
)
MEASURES = (SHARE, WEIGHTED, PRECISION, RECALL, KAPPA)
# What is assumed of a model before anything is known of it: how well it ranks, and the share of the
# violating ads of whose violation its score says nothing.
ASSUMED_AUC = 0.85
BLIND_SHARE = 0.1
# Standard deviations of the fitted curve's shift and slope, in log-odds, around "as assumed".
_SHIFT_SD, _SLOPE_SD = 1.0, 0.5
# Labels that the curve's rate is worth in the variance of a stratum: chosen, as the shape of the intervals
# was, on simulated corpora whose results are not those that are reported.
CURVE_LABELS = 2.5
# Degrees of freedom at least, or Student's quantile grows out of all proportion where nothing was found.
MIN_FREEDOM = 10.0
# Labels of a stratum on average and at least, where the budget allows, and strata at most.
LABELS_A_STRATUM, MIN_A_STRATUM, MAX_STRATA = 20, 8, 20
# Share of the labels that go to ads above the threshold at least: the optimum for the share of violating
# ads gives them so few at 1% that it says little of precision.
MIN_ABOVE = 1 / 8
LEVEL = 0.95
# Labels without which nothing is estimated.
MIN_LABELS = 30
_MIN_RATE = 1e-6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% interval.

    Attributes:
        value: the estimate; None where it is not defined.
        low, high: the interval, None likewise.
    """

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "undefined"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Known:
    """Ads whose labels are known before the draw: counts and weights by label and by prediction.

    Attributes:
        counts: ads as ((true negative, false positive), (false negative, true positive)): the row is
            the experts' label, the column the model's.
        weights: their weight, likewise.
    """

    counts: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    weights: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Strata:
    """A frame of H strata, in the order of the score, and what the model says of them.

    Attributes:
        sizes: int64 (H,) ads in each, at least 1.
        weights: float64 (H,) their weight.
        means: float64 (H,) mean of the assumed probabilities of all ads of each, 0 to 1.
        weighted_means: float64 (H,) the same, by weight.
        above: bool (H,), whether the model calls the ads of a stratum positive.
    """

    sizes: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    weighted_means: np.ndarray
    above: np.ndarray


@dataclass(frozen=True, slots=True)
class Labels:
    """The labelled ads of a sample.

    Attributes:
        stratum: int64 (n,), which stratum each was drawn from.
        positive: bool (n,), what experts said.
        probability: float64 (n,), assumed for the ad's score.
        weight: float64 (n,), at least 0.
    """

    stratum: np.ndarray
    positive: np.ndarray
    probability: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True, slots=True)
class Estimates:
    """What is known of a corpus.

    Attributes:
        plain: measure -> stratified estimate.
        powered: measure -> stratified prediction-powered estimate.
        halving_labels: labels, in all, at which the interval of the share would be half as wide.
    """

    plain: Mapping[str, Estimate]
    powered: Mapping[str, Estimate]
    halving_labels: int


def bin_of(margins: np.ndarray) -> np.ndarray:
    """Return the bin of each grid margin, int64 of the same shape."""
    return np.rint((np.asarray(margins, np.float64) + MARGIN_LIMIT) / MARGIN_STEP).astype(np.int64)


def assumed_probabilities(histogram: np.ndarray, prior: float) -> np.ndarray:
    """Return what a model's scores would mean if it ranked as models do: by rank alone.

    Margins of language models have no scale of their own; their order has. An ad's probability is
    that of its rank when a share ``prior`` of the ads is positive and both labels' scores are normal
    with an AUC of ``ASSUMED_AUC`` (binormal model: Green and Swets, 1966), but for ``BLIND_SHARE`` of the
    positives, which score as negatives do.

    Args:
        histogram: int64 (N_BINS,) of all margins.
        prior: expected share of positives, in (0, 1).

    Returns:
        float64 (N_BINS,), ascending, in (0, 1).
    """
    distance = float(ndtri(ASSUMED_AUC)) * np.sqrt(2.0)
    score = np.linspace(-8.0, 8.0 + distance, 4001)
    hidden = ndtr(score)
    seen = (1 - BLIND_SHARE) * ndtr(score - distance) + BLIND_SHARE * hidden
    below = (1 - prior) * hidden + prior * seen
    # Ads of one margin share their middle rank.
    total = max(int(histogram.sum()), 1)
    rank = (np.cumsum(histogram) - histogram / 2) / total
    at = np.interp(np.clip(rank, 0.5 / total, 1 - 0.5 / total), below, score)
    ratio = (1 - BLIND_SHARE) * np.exp(distance * at - distance**2 / 2) + BLIND_SHARE
    return prior * ratio / (prior * ratio + 1 - prior)


def fit_curve(
    assumed: np.ndarray, positives: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Fit shift and slope of the log-odds of assumed probabilities to labels.

    Logistic recalibration (Platt, 1999) with a normal prior at "as assumed", so that it may be asked of
    no label at all, of a few, and of many.

    Args:
        assumed: float (k,) probabilities, of ads or of groups of ads.
        positives: (k,) positive labels of each.
        labels: (k,) labels of each.

    Returns:
        shift and slope: ``expit(shift + slope * logit(assumed))`` is the fitted probability.
    """
    odds = logit(np.clip(assumed, _MIN_RATE, 1 - _MIN_RATE))
    design = np.stack([np.ones_like(odds), odds])
    at, mean = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    penalty = np.diag([_SHIFT_SD**-2, _SLOPE_SD**-2])

    def loss(values: np.ndarray) -> float:
        eta = values @ design
        fit = np.sum(labels * np.logaddexp(0.0, eta) - positives * eta)
        return float(fit + (values - mean) @ penalty @ (values - mean) / 2)

    for _ in range(50):
        rate = expit(at @ design)
        slope = design @ (labels * rate - positives) + penalty @ (at - mean)
        curve = (design * (labels * rate * (1 - rate))) @ design.T + penalty
        step, before = np.linalg.solve(curve, slope), loss(at)
        size = 1.0
        while loss(at - size * step) > before and size > 1e-6:
            size /= 2
        at = at - size * step
        if np.abs(step).max() < 1e-9:
            break
    return float(at[0]), float(at[1])


def apply_curve(assumed: np.ndarray, curve: tuple[float, float]) -> np.ndarray:
    """Return recalibrated probabilities, float64 of the same shape, within [1e-6, 1 - 1e-6]."""
    odds = logit(np.clip(assumed, _MIN_RATE, 1 - _MIN_RATE))
    return np.clip(expit(curve[0] + curve[1] * odds), _MIN_RATE, 1 - _MIN_RATE)


def cut_strata(
    histogram: np.ndarray, probability: np.ndarray, threshold: float, number: int
) -> np.ndarray:
    """Cut a score into strata of equal spread, none of them across the threshold.

    The cumulative root rule (Dalenius and Hodges, 1959) with the known spread of a yes-or-no answer:
    cuts at equal steps of the sum of sqrt(p (1 - p)) over the ads. Under optimal allocation such strata
    get equally many labels.

    Args:
        histogram: int64 (N_BINS,) of the margins of the frame's ads.
        probability: float64 (N_BINS,) of each margin.
        threshold: margin from which ads are called positive.
        number: strata wanted, at least 2; there may be fewer where few margins differ.

    Returns:
        int64 (H,), ascending: the first bin of each stratum; each holds at least one ad, and below
        the first one there is none.
    """
    if number < 2:
        raise ValueError(f"number must be at least 2 strata, got {number}")
    spread = np.cumsum(histogram * np.sqrt(probability * (1 - probability)))
    if not spread[-1] > 0:
        raise ValueError("a frame without ads has no strata")
    steps = spread[-1] * np.arange(1, number) / number
    cuts = np.searchsorted(spread, steps) + 1
    first = int(np.clip(bin_of(np.array(threshold)), 0, N_BINS))
    # The cut nearest to the threshold becomes the threshold.
    at = spread[np.minimum(cuts, N_BINS) - 1]
    cuts[np.argmin(np.abs(at - (spread[first - 1] if first else 0.0)))] = first
    starts = np.unique(np.concatenate([[0], cuts[cuts < N_BINS]]))
    sizes = np.add.reduceat(histogram, starts)
    # An empty stratum goes to the one below it.
    return starts[sizes > 0].astype(np.int64)


def allocate(
    sizes: np.ndarray, spread: np.ndarray, budget: int, at_least: np.ndarray
) -> np.ndarray:
    """Share labels out among strata, as Neyman (1934) does, within bounds.

    Args:
        sizes: int64 (H,) ads of each stratum.
        spread: float64 (H,) standard deviation of the label in each.
        budget: labels in all; more where ``at_least`` asks for more.
        at_least: int64 (H,) labels of each at least, at most ``sizes``.

    Returns:
        int64 (H,), at most ``sizes``; their sum is the budget where that is possible.
    """
    low = np.minimum(at_least, sizes)
    want = sizes * np.maximum(spread, 1e-9)

    def at(factor: float) -> np.ndarray:
        return np.clip(factor * want, low, sizes)

    # What all get grows with the factor: the one that gives the budget is found by halving.
    few, many = 0.0, float(np.max(sizes / want))
    for _ in range(100):
        middle = (few + many) / 2
        few, many = (middle, many) if at(middle).sum() < budget else (few, middle)
    labels = at(many)
    whole = np.floor(labels + 1e-9).astype(np.int64)
    left = min(budget, int(sizes.sum())) - int(whole.sum())
    order = np.argsort(-(labels - whole), kind="stable")
    for row in order[whole[order] < sizes[order]][: max(left, 0)]:
        whole[row] += 1
    return whole


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Where a score is cut, and how many ads are to be labelled of each stratum.

    Attributes:
        starts: int64 (H,) first margin bin of each stratum, ascending; no ad of the frame lies below.
        sizes: int64 (H,) ads of the frame in each.
        labels: int64 (H,) ads to draw of each.
        threshold: margin from which the model calls an ad positive; a stratum begins there.
    """

    starts: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    threshold: float

    def stratum_of(self, margins: np.ndarray) -> np.ndarray:
        """Return the stratum of each grid margin of the frame, int64 of the same shape."""
        return np.searchsorted(self.starts, bin_of(margins), side="right") - 1

    def strata(self, histogram: np.ndarray, weight: np.ndarray, probability: np.ndarray) -> Strata:
        """Return the strata as :func:`estimate` takes them.

        Args:
            histogram: int64 (N_BINS,) of the margins of the frame's ads.
            weight: float64 (N_BINS,) their weight.
            probability: float64 (N_BINS,) of each margin.
        """

        def total(values: np.ndarray) -> np.ndarray:
            return np.add.reduceat(values.astype(np.float64), self.starts)

        heavy, means = total(weight), total(histogram * probability) / self.sizes
        return Strata(
            sizes=self.sizes,
            weights=heavy,
            means=means,
            weighted_means=np.divide(
                total(weight * probability), heavy, out=means.copy(), where=heavy > 0
            ),
            above=self.starts >= bin_of(np.array(self.threshold)),
        )


def plan_sample(
    histogram: np.ndarray, probability: np.ndarray, threshold: float, budget: int
) -> SamplePlan:
    """Plan an audit: strata of about ``LABELS_A_STRATUM`` labels, and Neyman's allocation.

    Args:
        histogram: int64 (N_BINS,) of the margins of the frame's ads.
        probability: float64 (N_BINS,) of each margin.
        threshold: margin from which the model calls an ad positive.
        budget: labels in all.
    """
    number = int(np.clip(budget // LABELS_A_STRATUM, 2, MAX_STRATA))
    starts = cut_strata(histogram, probability, threshold, number)
    sizes = np.add.reduceat(histogram, starts)
    return extend_sample(
        SamplePlan(starts, sizes, np.zeros_like(sizes), threshold), histogram, probability, budget
    )


def extend_sample(
    plan: SamplePlan, histogram: np.ndarray, probability: np.ndarray, budget: int
) -> SamplePlan:
    """Return a plan with the same strata and labels for a larger budget; no stratum gets fewer."""
    spread = (
        np.add.reduceat(histogram * np.sqrt(probability * (1 - probability)), plan.starts)
        / plan.sizes
    )
    least = np.maximum(plan.labels, min(MIN_A_STRATUM, budget // len(plan.starts)))
    labels = allocate(plan.sizes, spread, budget, least)
    above = plan.starts >= bin_of(np.array(plan.threshold))
    wanted = int(min(budget * MIN_ABOVE, plan.sizes[above].sum()))
    if labels[above].sum() < wanted:
        labels = labels.copy()
        for side, share in ((above, wanted), (~above, budget - wanted)):
            labels[side] = allocate(plan.sizes[side], spread[side], share, least[side])
    return SamplePlan(plan.starts, plan.sizes, labels, plan.threshold)


def estimate(strata: Strata, labels: Labels, known: Known = Known()) -> Estimates:
    """Estimate shares, precision, recall and kappa of a corpus.

    Args:
        strata: the frame.
        labels: of the drawn ads that have one, at least one; which of a stratum's drawn ads have one
            must be chance.
        known: ads beside the frame, whose labels are known.

    Returns:
        estimates with 95% intervals, widened to the value where they leave it out.
    """
    found = _Counts.of(strata, labels)
    curve = fit_curve(strata.means, found.positives, found.labels)
    rates = apply_curve(strata.means, curve)
    plain = _plain(found, rates)
    return Estimates(
        plain=_measure(strata, found, known, plain, rates),
        powered=_measure(strata, found, known, _powered(strata, labels, found, plain), rates),
        halving_labels=_halving(
            strata.sizes, found.labels, _settled(plain.share, found.labels, rates)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """What was found in each stratum, float64 (H,)."""

    labels: np.ndarray
    positives: np.ndarray
    weight: np.ndarray
    positive_weight: np.ndarray
    effective: np.ndarray

    @classmethod
    def of(cls, strata: Strata, labels: Labels) -> _Counts:
        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(labels.stratum, values, minlength=len(strata.sizes))

        weight, squares = total(labels.weight), total(labels.weight**2)
        count = total(np.ones(len(labels.stratum)))
        # Kish's effective sample size.
        effective = np.divide(weight**2, squares, out=np.zeros_like(weight), where=squares > 0)
        positive = labels.positive.astype(np.float64)
        return cls(count, total(positive), weight, total(labels.weight * positive), effective)


@dataclass(frozen=True, slots=True)
class _Rates:
    """An estimate of each stratum's share of positives, and the labels that it is worth, (H,)."""

    share: np.ndarray
    worth: np.ndarray
    weighted: np.ndarray
    weighted_worth: np.ndarray


def _plain(found: _Counts, rates: np.ndarray) -> _Rates:
    # A stratum without a label yet has the rate of the curve, for want of better.
    share = np.divide(found.positives, found.labels, out=rates.copy(), where=found.labels > 0)
    weighted = np.divide(
        found.positive_weight, found.weight, out=share.copy(), where=found.weight > 0
    )
    return _Rates(share, found.labels, weighted, found.effective)


def _powered(strata: Strata, labels: Labels, found: _Counts, plain: _Rates) -> _Rates:
    """Return prediction-powered shares: moved by lambda times how unlike the drawn ads the others are."""
    share, worth = plain.share.copy(), plain.worth.copy()
    weighted, weighted_worth = plain.weighted.copy(), plain.weighted_worth.copy()
    said = labels.positive.astype(np.float64)
    for row in np.flatnonzero(found.labels >= 3):
        own = labels.stratum == row
        y, f, w = said[own], labels.probability[own], labels.weight[own]
        power, gain = _power(y, f)
        share[row] = np.clip(share[row] + power * (strata.means[row] - f.mean()), 0.0, 1.0)
        worth[row] *= gain
        if found.weight[row] > 0:
            drawn = float(np.average(f, weights=w))
            moved = weighted[row] + power * (strata.weighted_means[row] - drawn)
            weighted[row] = np.clip(moved, 0.0, 1.0)
            weighted_worth[row] *= gain
    return _Rates(share, worth, weighted, weighted_worth)


def _power(y: np.ndarray, f: np.ndarray) -> tuple[float, float]:
    """Return lambda of a stratum, 0 to 1, and how many times as much as a plain label one is worth."""
    n, variance = len(y), float(f.var())
    if variance <= 1e-12 or not 0 < y.mean() < 1:
        return 0.0, 1.0
    power = float(np.clip(((y - y.mean()) * (f - f.mean())).mean() / variance, 0.0, 1.0))
    # One more degree of freedom is spent on lambda.
    left = float((y - power * f).var()) * (n - 1) / (n - 2)
    return power, float(np.clip(y.var() / max(left, 1e-12), 1.0, 4.0))


def _settled(share: np.ndarray, worth: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Return shares pulled towards the curve: a stratum without a positive label is not without variance."""
    return (worth * share + CURVE_LABELS * rates) / (worth + CURVE_LABELS)


def _measure(
    strata: Strata, found: _Counts, known: Known, rates: _Rates, curve: np.ndarray
) -> dict[str, Estimate]:
    sizes = strata.sizes.astype(np.float64)
    settled = _settled(rates.share, rates.worth, curve)
    # What is labelled is known: only the others vary.
    spread = sizes * np.sqrt(
        settled * (1 - settled) / np.maximum(rates.worth, 1.0) * (1 - found.labels / sizes)
    )
    free = _freedom(settled, rates.worth)
    table = _Table.of(strata, known, sizes * rates.share)
    smooth = _Table.of(strata, known, sizes * settled)
    above = strata.above.astype(np.float64)
    slopes = {
        SHARE: np.ones_like(above) / smooth.ads,
        PRECISION: above / max(smooth.called, 1.0),
        RECALL: smooth.recall_slope(above),
        KAPPA: smooth.kappa_slope(above),
    }
    result = {
        name: _interval(getattr(table, name), getattr(smooth, name), (spread * slope) ** 2, free)
        for name, slope in slopes.items()
    }
    return {**result, WEIGHTED: _weighted(strata, found, known, rates, curve)}


def _weighted(
    strata: Strata, found: _Counts, known: Known, rates: _Rates, curve: np.ndarray
) -> Estimate:
    """Return the share by weight: each stratum's is a ratio, and worth Kish's number of labels."""
    negative, positive = (sum(row) for row in known.weights)
    total = float(strata.weights.sum() + negative + positive)
    if total <= 0:
        return Estimate(None, None, None)
    worth = rates.weighted_worth
    settled = _settled(rates.weighted, worth, curve)
    labelled = np.divide(
        found.weight, strata.weights, out=np.ones_like(found.weight), where=strata.weights > 0
    )
    variance = (strata.weights / total) ** 2 * settled * (1 - settled) / np.maximum(worth, 1.0)
    value = (strata.weights @ rates.weighted + positive) / total
    smooth = (strata.weights @ settled + positive) / total
    parts = variance * np.maximum(1 - labelled, 0.0)
    return _interval(float(value), float(smooth), parts, _freedom(settled, worth))


def _freedom(share: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """Return the degrees of freedom of each stratum's variance, float64 (H,).

    Twice the squared variance over the variance of its estimate p (1 - p): about twice the number of
    positive labels where there are few.
    """
    spread = share * (1 - share)
    return 2 * (worth + CURVE_LABELS) * spread / np.maximum((1 - 2 * share) ** 2, 1e-6)


@dataclass(frozen=True, slots=True)
class _Table:
    """The two by two table of a corpus: ads, ads called positive, positive ads, and those called so."""

    ads: float
    called: float
    positive: float
    hits: float

    @classmethod
    def of(cls, strata: Strata, known: Known, positives: np.ndarray) -> _Table:
        (tn, fp), (fn, tp) = known.counts
        return cls(
            ads=float(strata.sizes.sum() + tn + fp + fn + tp),
            called=float(strata.sizes[strata.above].sum() + fp + tp),
            positive=float(positives.sum() + fn + tp),
            hits=float(positives[strata.above].sum() + tp),
        )

    @property
    def share(self) -> float:
        return self.positive / self.ads

    @property
    def precision(self) -> float | None:
        return self.hits / self.called if self.called else None

    @property
    def recall(self) -> float | None:
        return self.hits / self.positive if self.positive else None

    @property
    def disagreement(self) -> float:
        return (self.called + self.positive - 2 * self.hits) / self.ads

    @property
    def by_chance(self) -> float:
        """Disagreement of two who call as many ads positive, each at random."""
        other = self.positive * (self.ads - self.called) + (self.ads - self.positive) * self.called
        return other / self.ads**2

    @property
    def kappa(self) -> float | None:
        return 1 - self.disagreement / self.by_chance if self.by_chance else None

    def recall_slope(self, above: np.ndarray) -> np.ndarray:
        """Return the derivative of recall by each stratum's positives."""
        return (above - self.hits / self.positive) / self.positive

    def kappa_slope(self, above: np.ndarray) -> np.ndarray:
        """Return the derivative of kappa by each stratum's positives."""
        turn = self.disagreement * (self.ads - 2 * self.called) / (self.ads * self.by_chance) ** 2
        return (2 * above - 1) / (self.ads * self.by_chance) + turn


def _interval(
    value: float | None, smooth: float | None, parts: np.ndarray, free: np.ndarray
) -> Estimate:
    """Return Wilson's interval at the labels of a plain random sample that would vary as much.

    Args:
        value: the estimate.
        smooth: where its variance was taken.
        parts: float64 (H,) the strata's parts of the variance.
        free: float64 (H,) degrees of freedom of each; Student's quantile has Satterthwaite's (1946).
    """
    if value is None or smooth is None:
        return Estimate(None, None, None)
    variance = float(parts.sum())
    if variance <= 0:
        return Estimate(value, value, value)
    freedom = variance**2 / float(np.sum(parts**2 / np.maximum(free, 1e-9)))
    z = float(stdtrit(max(freedom, MIN_FREEDOM), (1 + LEVEL) / 2))
    # Kappa may be negative; then it is no proportion, and its whole range is taken for one.
    shift, scale = (0.0, 1.0) if min(value, smooth) >= 0 else (1.0, 2.0)
    p, at = (
        (value + shift) / scale,
        float(np.clip((smooth + shift) / scale, _MIN_RATE, 1 - _MIN_RATE)),
    )
    n = at * (1 - at) / (variance / scale**2)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(max(p * (1 - p), 0.0) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
    low, high = scale * (middle - half) - shift, scale * (middle + half) - shift
    return Estimate(value, min(float(low), value), max(float(high), value))


def _halving(sizes: np.ndarray, labels: np.ndarray, share: np.ndarray) -> int:
    """Return the labels at which the standard error of the share is half of what it is.

    All strata's labels grow by one factor, up to all ads of a stratum.
    """
    spread = sizes.astype(np.float64) ** 2 * share * (1 - share)

    def variance(factor: float) -> float:
        n = np.minimum(np.maximum(labels, 1e-9) * factor, sizes)
        return float(np.sum(spread * (1 - n / sizes) / n))

    low, high, target = 1.0, 1.0, variance(1.0) / 4
    while variance(high) > target and high < 1e9:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if variance(middle) > target else (low, middle)
    return int(np.ceil(np.minimum(labels * high, sizes).sum()))
