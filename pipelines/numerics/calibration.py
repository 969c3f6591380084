"""The label rule: from LLM-0's margins to a threshold.

A margin is the log-odds of the positive label, rounded to a grid. On a grid the whole distribution
is one small array of exact counts: histograms of shards add up to the same array in any order.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

MARGIN_STEP = 2.0**-8
MARGIN_LIMIT = 64.0
# A prior is believed to be right within this factor of its odds while experts have labelled nothing.
PRIOR_FACTOR = 2.5
# From so many labels of the rarer class on, a fitted threshold is believed whatever the prior.
ENOUGH_LABELS = 40
_HALF = int(MARGIN_LIMIT / MARGIN_STEP)
N_BINS = 2 * _HALF + 1


class OneClassError(ValueError):
    """A threshold would leave one class empty; the message says which, with the numbers."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A threshold that was fitted on experts' labels, before any prior has a say.

    Attributes:
        margin: positive when margin >= this, log-odds.
        low, high: 95% bootstrap interval of it.
        labels: labels of the rarer class that it rests on.
    """

    margin: float
    low: float
    high: float
    labels: int


@dataclass(frozen=True, slots=True)
class PriorBound:
    """What the prior allows a fitted threshold while labels of the rarer class are few.

    Attributes:
        prior: share of positives that the task expects, in (0, 1).
        low, high: share of the corpus that a threshold may call positive, around the prior.
        labels: labels of the rarer class so far.
        enough: from so many on there is no bound.
        fitted_share: share that the fitted threshold alone would call positive, in [0, 1].
        fitted_low, fitted_high: that share at either end of the threshold's 95% interval.
        share: share that is called positive, in (0, 1).
    """

    prior: float
    low: float
    high: float
    labels: int
    enough: int
    fitted_share: float
    fitted_low: float
    fitted_high: float
    share: float

    @property
    def binds(self) -> bool:
        """Tell whether the fitted threshold lies beyond the bounds."""
        return not self.low <= self.fitted_share <= self.high

    def __str__(self) -> str:
        """Return one sentence, for people: what experts' labels and the prior say, and what is done."""
        fitted = (
            f"the fitted threshold would call {_percent(self.fitted_share)} of the corpus positive "
            f"(95% interval {_percent(self.fitted_low)} to {_percent(self.fitted_high)}, from "
            f"{self.labels} labels of the rarer class)"
        )
        until = (
            f"{_percent(self.low)} to {_percent(self.high)}, around the prior of "
            f"{_percent(self.prior)}, until there are {self.enough} such labels"
        )
        if self.binds:
            return f"{fitted}; bounded to {_percent(self.share)} by the prior: {until}"
        return f"{fitted}; the prior allows that: {until}"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A label rule on the margin grid: positive when margin >= `margin`.

    Attributes:
        margin: the threshold in log-odds, a multiple of MARGIN_STEP.
        n_positive: ads at or above it, at least 1; 0 where `source` is ``none``.
        n_negative: ads below it, at least 1.
        source: what chose it: ``prior`` (the quantile), ``fixed`` (a probability of the task),
            ``fitted`` (on experts' labels), ``bounded`` (fitted, and moved to the nearest share
            that the prior allows), or ``none`` (all margins are equal).
        bound: what the prior allows a fitted threshold; None where it has no say, or all of it.
    """

    margin: float
    n_positive: int
    n_negative: int
    source: str = "prior"
    bound: PriorBound | None = None

    @property
    def share(self) -> float:
        """Positive share of the ads, in (0, 1)."""
        return self.n_positive / (self.n_positive + self.n_negative)

    @property
    def probability(self) -> float:
        """The threshold as a probability, in (0, 1)."""
        return float(expit(self.margin))


def quantize(margins: np.ndarray) -> np.ndarray:
    """Round margins to the grid and clip them to its limits.

    Args:
        margins: finite log-odds, any shape.

    Returns:
        float32 array of the same shape, multiples of MARGIN_STEP within ±MARGIN_LIMIT, never -0.0.

    Raises:
        ValueError: if a margin is NaN or infinite.
    """
    _check_finite(np.asarray(margins, dtype=np.float64))
    return to_grid(margins)


def to_grid(margins: np.ndarray) -> np.ndarray:
    """Do as `quantize` does, but let a margin that is no number stay one."""
    values = np.asarray(margins, dtype=np.float64)
    bins = np.rint(np.clip(values, -MARGIN_LIMIT, MARGIN_LIMIT) / MARGIN_STEP)
    return (bins * MARGIN_STEP + 0.0).astype(np.float32)


def probability(margin: np.ndarray | float) -> np.ndarray:
    """Turn log-odds into probabilities: float32 sigmoid, same shape as `margin`."""
    return expit(np.asarray(margin, dtype=np.float64)).astype(np.float32)


def margin_histogram(margins: np.ndarray) -> np.ndarray:
    """Count margins per grid point.

    Args:
        margins: (n,) grid margins, as `quantize` gives them.

    Returns:
        int64 array (N_BINS,): entry i counts margins equal to (i - N_BINS // 2) * MARGIN_STEP. Sums
        of histograms are exact, so their order does not matter. 262 kB, whatever n.

    Raises:
        ValueError: as `bins_of` does.
    """
    return np.bincount(bins_of(margins), minlength=N_BINS).astype(np.int64)


def bins_of(margins: np.ndarray) -> np.ndarray:
    """Return the entry of `margin_histogram` that counts each margin, int64 (n,).

    Args:
        margins: (n,) grid margins, as `quantize` gives them.

    Raises:
        ValueError: if a margin is not finite, off the grid, or beyond ±MARGIN_LIMIT.
    """
    values = np.asarray(margins, dtype=np.float64).ravel()
    _check_finite(values)
    bins = values / MARGIN_STEP
    off = (bins != np.rint(bins)) | (np.abs(bins) > _HALF)
    if off.any():
        raise ValueError(
            f"margins must be multiples of {MARGIN_STEP} within ±{MARGIN_LIMIT:g}, got "
            f"{values[off][0]!r}: pass them through calibration.quantize first"
        )
    return bins.astype(np.int64) + _HALF


def prior_threshold(histogram: np.ndarray, prior: float) -> Threshold:
    """Choose the threshold whose positive share is nearest to `prior`.

    Only thresholds that leave both classes non-empty count; of two equally near ones, and of the
    many that split the ads alike, the higher wins.

    Args:
        histogram: int64 (N_BINS,) from `margin_histogram`, or a sum of such.
        prior: expected positive share, in (0, 1).

    Raises:
        ValueError: if the prior or the histogram is out of bounds.
        OneClassError: if there are fewer than two ads or all margins are equal.
    """
    _check_share("prior", prior)
    counts = _check_histogram(histogram)
    used = np.flatnonzero(counts)
    n = int(counts.sum())
    if len(used) < 2:
        raise OneClassError(_one_value_message(n, used))
    # A threshold strictly between two used bins splits like the upper one, which is the higher.
    at_least = np.cumsum(counts[used][::-1])[::-1][1:]
    # Rounding makes shares that are equally near on paper equal in floating point too.
    gap = np.round(np.abs(at_least - prior * n), 6)
    best = len(gap) - 1 - int(np.argmin(gap[::-1]))
    n_positive = int(at_least[best])
    return Threshold(_margin_of(int(used[best + 1])), n_positive, n - n_positive)


def fixed_threshold(histogram: np.ndarray, probability: float) -> Threshold:
    """Turn a probability into the lowest grid margin that reaches it.

    Args:
        histogram: int64 (N_BINS,) from `margin_histogram`, or a sum of such.
        probability: label positive when p >= probability, in (0, 1).

    Raises:
        ValueError: if the probability or the histogram is out of bounds.
        OneClassError: if no ad, or every ad, reaches it.
    """
    _check_share("probability", probability)
    counts = _check_histogram(histogram)
    used = np.flatnonzero(counts)
    n = int(counts.sum())
    if not n:
        raise OneClassError(_one_value_message(n, used))
    logit = math.log(probability) - math.log1p(-probability)
    # The rounding keeps a probability that is itself a grid margin's sigmoid at that margin.
    first = math.ceil(round(logit / MARGIN_STEP, 9)) + _HALF
    n_positive = int(counts[max(first, 0) :].sum())
    if n_positive == 0:
        raise OneClassError(
            f"no ad is labelled positive at p >= {probability:g}: the highest of {n} scores is "
            f"{_score_text(int(used[-1]))}; lower the threshold or give a prior instead"
        )
    if n_positive == n:
        raise OneClassError(
            f"every ad is labelled positive at p >= {probability:g}: the lowest of {n} scores is "
            f"{_score_text(int(used[0]))}; raise the threshold or give a prior instead"
        )
    return Threshold(_margin_of(first), n_positive, n - n_positive, "fixed")


def fitted_threshold(histogram: np.ndarray, margin: float) -> Threshold:
    """Count both sides of a threshold that was fitted on experts' labels.

    Args:
        histogram: int64 (N_BINS,) from `margin_histogram`, or a sum of such.
        margin: label positive when margin >= this; rounded up to the grid.

    Raises:
        ValueError: if the margin or the histogram is out of bounds.
        OneClassError: if no ad, or every ad, reaches it.
    """
    first = _bin_of(margin)
    counts = _check_histogram(histogram)
    n, n_positive = int(counts.sum()), int(counts[first:].sum())
    if n_positive in (0, n):
        side = "no" if n_positive == 0 else "every"
        raise OneClassError(
            f"{side} ad of {n} is labelled positive at the threshold fitted on experts' labels, "
            f"margin {margin:g}"
        )
    return Threshold(_margin_of(first), n_positive, n - n_positive, "fitted")


def prior_bounds(prior: float, labels: int, enough: int = ENOUGH_LABELS) -> tuple[float, float]:
    """Return between which shares of positives a fitted threshold is believed.

    The odds may differ from the prior's by PRIOR_FACTOR where nothing is labelled, and by more the
    more is: by ``PRIOR_FACTOR ** (1 / (1 - labels / enough))``, so by its square at half of `enough`
    and by anything from `enough` on. So a prior of 5% gives way to labels: to 10 of 40 where 15% are
    positive, to 28 where half are.

    Args:
        prior: expected positive share, in (0, 1).
        labels: labels of the rarer class, at least 0.
        enough: from so many on nothing is bounded, at least 1.

    Returns:
        Lowest and highest share, in [0, 1].
    """
    _check_share("prior", prior)
    if labels < 0 or enough < 1:
        raise ValueError(f"labels must be at least 0 and enough 1, got {labels} and {enough}")
    if labels >= enough:
        return 0.0, 1.0
    reach = math.log(PRIOR_FACTOR) / (1.0 - labels / enough)
    at = math.log(prior) - math.log1p(-prior)
    return float(expit(at - reach)), float(expit(at + reach))


def bounded_threshold(histogram: np.ndarray, fitted: Fitted, prior: float) -> Threshold:
    """Return a fitted threshold, or where it calls more or less positive than the prior allows, the
    one at the nearest share that it does.

    On two positives among fifty labels the best threshold is luck, and one that calls everything
    positive leaves no pairs to ask about: the loop would stand still. The share of the corpus is
    known without any label, and the prior is what is known of the truth.

    Args:
        histogram: int64 (N_BINS,) of the corpus, or of a uniform sample of it.
        fitted: what experts' labels say.
        prior: expected positive share, in (0, 1).

    Raises:
        ValueError: if the prior, the margin or the histogram is out of bounds.
        OneClassError: if one class would be empty: with enough labels, by the fitted threshold; with
            few, because all margins are equal.
    """
    if fitted.labels >= ENOUGH_LABELS:
        return fitted_threshold(histogram, fitted.margin)
    low, high = prior_bounds(prior, fitted.labels)
    share = _share_at(histogram, fitted.margin)
    if low <= share <= high and 0.0 < share < 1.0:
        found = fitted_threshold(histogram, fitted.margin)
    else:
        found = prior_threshold(histogram, min(max(share, low), high))
        found = dataclasses.replace(found, source="bounded")
    bound = PriorBound(
        prior=prior,
        low=low,
        high=high,
        labels=fitted.labels,
        enough=ENOUGH_LABELS,
        fitted_share=share,
        # A high threshold calls few ads positive.
        fitted_low=_share_at(histogram, fitted.high),
        fitted_high=_share_at(histogram, fitted.low),
        share=found.share,
    )
    return dataclasses.replace(found, bound=bound)


def no_threshold(histogram: np.ndarray) -> Threshold:
    """Return the rule where all margins are equal: nothing tells ads apart, and none is positive.

    Raises:
        OneClassError: if there are fewer than two ads.
        ValueError: if margins differ.
    """
    counts = _check_histogram(histogram)
    used, n = np.flatnonzero(counts), int(counts.sum())
    if n < 2:
        raise OneClassError(_one_value_message(n, used))
    if len(used) > 1:
        raise ValueError("margins differ: a threshold can be chosen")
    return Threshold(_margin_of(int(used[0]) + 1), 0, n, "none")


def _share_at(histogram: np.ndarray, margin: float) -> float:
    """Return the share of ads at or above a margin, 0 of none."""
    counts = _check_histogram(histogram)
    total = int(counts.sum())
    return int(counts[_bin_of(margin) :].sum()) / total if total else 0.0


def _bin_of(margin: float) -> int:
    """Return the lowest bin at or above a margin."""
    if not math.isfinite(margin):
        raise ValueError(f"margin must be finite, got {margin!r}")
    bounded = min(max(margin, -MARGIN_LIMIT), MARGIN_LIMIT)
    return math.ceil(round(bounded / MARGIN_STEP, 9)) + _HALF


@dataclass(frozen=True, slots=True)
class Band:
    """The margins around a threshold within which pairs are looked for, both ends included.

    Attributes:
        low: lowest margin of a negative ad in the band.
        high: highest margin of a positive ad in the band.
    """

    low: float
    high: float

    def holds(self, margins: np.ndarray) -> np.ndarray:
        """Tell which margins lie in the band, bool of the same shape."""
        return (margins >= np.float32(self.low)) & (margins <= np.float32(self.high))


def boundary_band(histogram: np.ndarray, threshold: Threshold, n_each: int) -> Band:
    """Find the band that holds at least the `n_each` ads nearest to the threshold of each label.

    Ads of equal margin stand in or out of the band together, so it may hold more; a label of
    fewer ads is in it whole.

    Args:
        histogram: int64 (N_BINS,) from `margin_histogram`, or a sum of such.
        threshold: the label rule.
        n_each: ads wanted of each label, at least 1.

    Raises:
        ValueError: if n_each or the histogram is out of bounds.
    """
    if n_each < 1:
        raise ValueError(f"n_each must be at least 1 ad, got {n_each}")
    counts = _check_histogram(histogram)
    first = round(threshold.margin / MARGIN_STEP) + _HALF
    up = _reach(counts[first:], n_each)
    down = _reach(counts[:first][::-1], n_each)
    return Band(_margin_of(max(first - 1 - down, 0)), _margin_of(min(first + up, N_BINS - 1)))


def band_sizes(histogram: np.ndarray, threshold: Threshold, band: Band) -> tuple[int, int]:
    """Return how many ads called positive and negative a band holds.

    Args:
        histogram: int64 (N_BINS,) from `margin_histogram`, or a sum of such.
        threshold: the label rule.
        band: from `boundary_band`.
    """
    counts = _check_histogram(histogram)
    low, first, high = (_bin_of(margin) for margin in (band.low, threshold.margin, band.high))
    return int(counts[first : high + 1].sum()), int(counts[low:first].sum())


def _reach(counts: np.ndarray, wanted: int) -> int:
    """Return the place by which so many are counted, or all there are; 0 when there are none."""
    total = np.cumsum(counts)
    if not len(total) or not total[-1]:
        return 0
    return int(np.searchsorted(total, min(wanted, int(total[-1]))))


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _margin_of(index: int) -> float:
    return (index - _HALF) * MARGIN_STEP


def _score_text(index: int) -> str:
    margin = _margin_of(index)
    return f"p = {float(expit(margin)):.4g} (margin {margin:g})"


def _one_value_message(n: int, used: np.ndarray) -> str:
    if n < 2:
        return f"two classes need at least 2 scored ads, got {n}: give a larger corpus"
    return (
        f"all {n} ads have the same score, {_score_text(int(used[0]))}, so no threshold separates "
        "them: check the prompt and the model, or whether the corpus repeats one ad"
    )


def _check_share(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value!r}")


def _check_finite(values: np.ndarray) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(
            f"margins must be finite, got {values[~finite][0]!r}: reject such ads before the label "
            "rule"
        )


def _check_histogram(histogram: np.ndarray) -> np.ndarray:
    counts = np.asarray(histogram)
    if counts.shape != (N_BINS,) or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(
            f"histogram must be {N_BINS} non-negative integer counts, got {counts.dtype} "
            f"{counts.shape}: build it with margin_histogram"
        )
    return counts.astype(np.int64)
