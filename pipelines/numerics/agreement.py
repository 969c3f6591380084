"""How well raters agree beyond chance: Cohen's kappa between experts, and of the model with them.

Kappa falls with the imbalance of the classes at equal accuracy, so every result carries the balance
beside it: compare kappas on ads of similar balance only. What is undefined is None with a reason,
never NaN, and never 1.0 by convention.

Ratings are an int8 matrix (n_ads, n_raters): 1 positive, 0 negative, -1 missing. A skip is missing,
not a class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipelines.errors import UsageError

# Of a rating, wherever one is stored.
MISSING = -1
MAX_DROPPED_SHARE = 0.1
# The 2.5% quantile of fewer replicates lies below the smallest of them.
MIN_BOOT = 40
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Kappa:
    """A mean of pairwise Cohen's kappas, with what it rests on.

    Attributes:
        value: plain mean over the pairs that count, in [-1, 1]; None when no pair counts.
        reason: why `value` is None; "" when it is not.
        low: lower end of the 95% bootstrap interval over ads; None when there is none.
        high: its upper end.
        interval_reason: why there is no interval; "" when there is one.
        weighted: mean over the same pairs weighted by their overlaps.
        n_pairs: pairs that count: enough common ads, and a defined kappa.
        n_undefined: pairs with enough common ads whose kappa is undefined.
        n_small: pairs with fewer common ads than the minimum, none included.
        smallest_overlap: common ads of the smallest pair that counts; 0 when none does.
        n_ads: ads in at least one pair that counts.
        positive_share: balance, the share of positives among the experts' ratings in those pairs,
            in [0, 1], each rating counted once; None when there is none.
    """

    value: float | None = None
    reason: str = ""
    low: float | None = None
    high: float | None = None
    interval_reason: str = ""
    weighted: float | None = None
    n_pairs: int = 0
    n_undefined: int = 0
    n_small: int = 0
    smallest_overlap: int = 0
    n_ads: int = 0
    positive_share: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined ({self.reason})"
        if self.low is None or self.high is None:
            return f"{self.value:z.2f}"
        return f"{self.value:z.2f} [{self.low:z.2f}, {self.high:z.2f}]"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What a mean kappa rests on, and how its interval is drawn.

    Attributes:
        min_overlap: common ads that a pair (of experts, or of model and expert) needs, at least 1.
        n_boot: bootstrap replicates of ads, at least 40.
        seed: of the bootstrap.

    Raises:
        ValueError: if one is out of bounds.
    """

    min_overlap: int = 10
    n_boot: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.min_overlap < 1:
            raise ValueError(f"min_overlap must be at least 1 ad, got {self.min_overlap}")
        if self.n_boot < MIN_BOOT:
            raise ValueError(f"n_boot must be at least {MIN_BOOT} replicates, got {self.n_boot}")


USUAL = Bootstrap()


@dataclass(frozen=True, slots=True)
class Resamples:
    """A sample of ads and its bootstrap replicates, as counts of distinct rows.

    Ads with equal labels in all columns are one pattern: drawing ads with replacement is drawing
    patterns from a multinomial. The patterns are sorted, so the order of the ads changes nothing.

    Attributes:
        patterns: int8 (p, c) distinct rows; columns are raters or models, -1 is missing.
        counts: float64 (1 + n_boot, p) whole numbers, each row with sum n_ads; row 0 is the sample
            itself.
    """

    patterns: np.ndarray
    counts: np.ndarray


def cohen_kappa(a: np.ndarray, b: np.ndarray) -> tuple[float | None, str]:
    """Measure the agreement of two complete label vectors beyond chance.

    A constant rater against a mixed one is 0.0 by the formula, and stays it.

    Args:
        a: (n,) labels 0 or 1, bool or integer.
        b: (n,) labels of the same ads.

    Returns:
        Kappa in [-1, 1] and "", or None and the reason: no ads, or both constant at the same class.

    Raises:
        ValueError: if the lengths differ or a label is neither 0 nor 1.

    Source: Cohen, Educational and Psychological Measurement 1960; scikit-learn's implementation.
    """
    first, second = _check_labels("a", a), _check_labels("b", b)
    if len(first) != len(second):
        raise ValueError(
            f"two raters must have labelled the same ads, got {len(first)} and {len(second)} labels"
        )
    reason = _undefined(len(first), int(first.sum()), int(second.sum()), "both raters")
    if reason:
        return None, reason
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(first, second, labels=[0, 1])), ""


def expert_agreement(ratings: np.ndarray, bootstrap: Bootstrap = USUAL) -> Kappa:
    """Average Cohen's kappa over pairs of experts, each on the ads both labelled.

    The bootstrap resamples ads and keeps all ratings of an ad together. It draws from the ads that
    are in a pair that counts; a replicate in which a kappa of those pairs is undefined is dropped,
    so that every replicate estimates the same mean.

    Args:
        ratings: int8 (n_ads, n_raters), 1, 0 or -1 for missing.
        bootstrap: of which pairs, and how.

    Raises:
        ValueError: if the ratings are not of that form.

    Memory: 8 bytes times n_boot times the distinct rows of `ratings` (at most 3**n_raters, and at
    most n_ads). 1,000 replicates of 500 ads by 3 raters take a few milliseconds.
    """
    matrix = check_ratings(ratings)
    pairs = list(combinations(range(matrix.shape[1]), 2))
    if not pairs:
        return _no_kappa(f"agreement needs at least 2 raters, got {matrix.shape[1]}")
    return _mean_kappa(matrix, pairs, 0, bootstrap)


def model_agreement(
    predictions: np.ndarray, ratings: np.ndarray, bootstrap: Bootstrap = USUAL
) -> Kappa:
    """Average Cohen's kappa of the model with each expert, on that expert's ads.

    So it compares with `expert_agreement`. The kappa with the experts' majority is another number,
    usually a higher one.

    Args:
        predictions: (n_ads,) the model's labels, 0 or 1, bool or integer.
        ratings: int8 (n_ads, n_raters), 1, 0 or -1 for missing.
        bootstrap: of which experts, and how.

    Returns:
        The mean; its pairs are (model, expert), its balance that of the experts' ratings.

    Raises:
        ValueError: if labels or ratings are not of that form or the numbers of ads differ.
    """
    matrix = check_ratings(ratings)
    labels = check_predictions(predictions, len(matrix))
    if not matrix.shape[1]:
        return _no_kappa("agreement with experts needs at least 1 rater, got 0")
    columns = np.column_stack([labels, matrix])
    pairs = [(0, 1 + i) for i in range(matrix.shape[1])]
    return _mean_kappa(columns, pairs, 1, bootstrap)


def krippendorff_alpha(ratings: np.ndarray) -> tuple[float | None, str]:
    """Measure the agreement of all raters at once, whoever labelled what.

    Args:
        ratings: int8 (n_ads, n_raters), 1, 0 or -1 for missing. Ads with one rating say nothing
            about agreement and do not enter.

    Returns:
        Nominal alpha, at most 1, and "", or None and the reason.

    Raises:
        ValueError: if the ratings are not of that form.

    Source: Krippendorff, Content Analysis, 2004, for two classes: 1 - (n - 1) * disagreeing pairs /
    (positive * negative ratings), where an ad with m ratings has its pairs counted 1 / (m - 1) times.
    """
    matrix = check_ratings(ratings)
    sizes = (matrix != MISSING).sum(axis=1)
    paired = matrix[sizes >= 2]
    sizes = sizes[sizes >= 2]
    given = paired[paired != MISSING]
    if not len(given):
        return None, f"none of {len(matrix)} ads has ratings of two raters"
    if (given == given[0]).all():
        return None, (
            f"all {len(given)} ratings of the {len(paired)} ads that two raters labelled are "
            f"{_class_name(int(given[0]))}, so there is no disagreement to expect"
        )
    ones, positive = (paired == 1).sum(axis=1), int((given == 1).sum())
    # Exactly rounded, so that no order of the ads changes the value.
    disagreement = math.fsum(ones * (sizes - ones) / (sizes - 1))
    return 1 - (len(given) - 1) * disagreement / (positive * (len(given) - positive)), ""


def consensus(ratings: np.ndarray, method: str = "majority") -> np.ndarray:
    """Merge the raters' verdicts into one label an ad.

    Dawid-Skene weighs each rater by an estimated confusion matrix. With two raters who differ there
    is little to estimate it from, and it may side with one of them throughout: prefer the majority.

    Args:
        ratings: int8 (n_ads, n_raters), 1, 0 or -1 for missing.
        method: "majority" or "dawid-skene".

    Returns:
        int8 (n_ads,): 1, 0, or -1 where the verdicts tie or nobody gave one; such an ad goes back to
        review.

    Raises:
        ValueError: if the method is unknown or the ratings are not of that form.
        UsageError: crowd-kit, of the extra `consensus`, is not installed.

    Source: Dawid and Skene, Applied Statistics 1979; crowd-kit's implementation.
    """
    matrix = check_ratings(ratings)
    if method == "majority":
        lead = (matrix == 1).sum(axis=1) - (matrix == 0).sum(axis=1)
        return np.where(lead == 0, MISSING, lead > 0).astype(np.int8)
    if method == "dawid-skene":
        return _dawid_skene(matrix)
    raise ValueError(f"consensus knows the methods 'majority' and 'dawid-skene', got {method!r}")


def resample(columns: np.ndarray, bootstrap: Bootstrap) -> Resamples:
    """Draw bootstrap replicates of ads, all columns of an ad together.

    Args:
        columns: int8 (n_ads, c), 1, 0 or -1 for missing; at least one ad.
        bootstrap: how many replicates, and the seed of their draw.

    Raises:
        ValueError: if there is no ad.

    Memory: 16 bytes times (1 + n_boot) times the distinct rows.
    """
    if not len(columns):
        raise ValueError("a bootstrap needs at least 1 ad, got none")
    patterns, found = np.unique(columns, axis=0, return_counts=True)
    rng = np.random.default_rng(bootstrap.seed)
    drawn = rng.multinomial(len(columns), found / len(columns), size=bootstrap.n_boot)
    return Resamples(patterns, np.vstack([found[None], drawn]).astype(np.float64))


def pair_kappas(sample: Resamples, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Compute Cohen's kappa of pairs of columns in the sample and in every replicate.

    Args:
        sample: from `resample`.
        pairs: q pairs of column indices.

    Returns:
        float64 (1 + n_boot, q); row 0 is the sample's. NaN where a kappa is undefined: no common
        ads, or both columns constant at the same class. Tables hold whole numbers, and numerator
        and denominator are exact below 2**53, so no order of anything changes a value.
    """
    left = sample.patterns[:, [i for i, _ in pairs]]
    right = sample.patterns[:, [j for _, j in pairs]]
    common = (left != MISSING) & (right != MISSING)
    n = sample.counts @ common.astype(np.float64)
    ones_left = sample.counts @ (common & (left == 1)).astype(np.float64)
    ones_right = sample.counts @ (common & (right == 1)).astype(np.float64)
    equal = sample.counts @ (common & (left == right)).astype(np.float64)
    # (observed - expected) / (1 - expected), both multiplied by n squared.
    expected = ones_left * ones_right + (n - ones_left) * (n - ones_right)
    room = n * n - expected
    return np.divide(n * equal - expected, room, out=np.full(room.shape, np.nan), where=room > 0)


def pairs_that_count(
    columns: np.ndarray, pairs: Sequence[tuple[int, int]], min_overlap: int
) -> tuple[dict[tuple[int, int], int], list[tuple[int, int]]]:
    """Find the pairs of columns that a mean kappa may rest on.

    Args:
        columns: int8 (n_ads, c), 1, 0 or -1 for missing.
        pairs: q pairs of column indices.
        min_overlap: common ads a pair needs, at least 1.

    Returns:
        Each pair's common ads, and the pairs that have enough of them and a defined kappa.
    """
    # One product for all pairs: of a thousand raters there are half a million. Whole numbers below
    # 2**24 are exact in float32.
    given = (columns != MISSING).astype(np.float32)
    shared = given.T @ given
    overlaps = {(i, j): int(shared[i, j]) for i, j in pairs}
    enough = [pair for pair in pairs if overlaps[pair] >= min_overlap]
    if not enough:
        return overlaps, []
    kappas = pair_kappas(Resamples(columns, np.ones((1, len(columns)))), enough)[0]
    return overlaps, [
        pair for pair, value in zip(enough, kappas, strict=True) if not np.isnan(value)
    ]


def percentile_interval(replicates: np.ndarray) -> tuple[float | None, float | None, str]:
    """Cut the middle 95% out of bootstrap replicates.

    Where all replicates are alike (two raters who never differ) the interval is a point: the data
    hold no sign of the error, which does not make it zero.

    Args:
        replicates: float64 (n_boot,), NaN where the statistic is undefined.

    Returns:
        (low, high, ""), or (None, None, reason) when more than 10% are undefined: the others are
        then no fair picture of the whole.
    """
    defined = replicates[~np.isnan(replicates)]
    dropped = len(replicates) - len(defined)
    if dropped > MAX_DROPPED_SHARE * len(replicates):
        reason = (
            f"{dropped} of {len(replicates)} bootstrap replicates are undefined, more than "
            f"{MAX_DROPPED_SHARE:.0%}: more ads of the rarer class are needed"
        )
        return None, None, reason
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high), ""


def check_ratings(ratings: np.ndarray) -> np.ndarray:
    """Return ratings as int8 (n_ads, n_raters).

    Raises:
        ValueError: if they are no matrix of integers or a value is not 1, 0 or -1.
    """
    matrix = np.asarray(ratings)
    if matrix.ndim != 2 or matrix.dtype.kind not in "iub":
        raise ValueError(
            f"ratings must be an integer matrix (n_ads, n_raters), got {matrix.dtype} "
            f"{matrix.shape}: put -1 where a rating is missing"
        )
    wrong = matrix[(matrix.astype(np.int64) < MISSING) | (matrix.astype(np.int64) > 1)]
    if len(wrong):
        raise ValueError(
            f"ratings must be 1, 0 or -1 for missing, got {int(wrong[0])}: a skip is missing, too"
        )
    return matrix.astype(np.int8)


def check_predictions(predictions: np.ndarray, n_ads: int) -> np.ndarray:
    """Return a model's labels as int8 (n_ads,).

    Raises:
        ValueError: if they are not n_ads labels 0 or 1.
    """
    labels = _check_labels("predictions", predictions)
    if len(labels) != n_ads:
        raise ValueError(
            f"predictions and ratings must be of the same ads, got {len(labels)} labels for "
            f"{n_ads} ads"
        )
    return labels


def _mean_kappa(
    columns: np.ndarray, pairs: list[tuple[int, int]], n_models: int, bootstrap: Bootstrap
) -> Kappa:
    """Average the kappas of pairs of columns; the first ``n_models`` columns are no raters."""
    overlaps, used = pairs_that_count(columns, pairs, bootstrap.min_overlap)
    enough = [pair for pair in pairs if overlaps[pair] >= bootstrap.min_overlap]
    n_small = len(pairs) - len(enough)
    if not enough:
        most = max(overlaps.values())
        return _no_kappa(
            f"no pair of raters has {_ads(bootstrap.min_overlap)} in common: the largest overlap of "
            f"{len(pairs)} is {_ads(most)}",
            n_small=n_small,
        )
    if not used:
        left, right = enough[0]
        both = columns[(columns[:, [left, right]] != MISSING).all(axis=1)]
        names = [f"rater {i - n_models + 1}" if i >= n_models else "the model" for i in enough[0]]
        sums = int(both[:, left].sum()), int(both[:, right].sum())
        reason = _undefined(len(both), *sums, " and ".join(names))
        return _no_kappa(reason, n_undefined=len(enough), n_small=n_small)
    entered = np.zeros(columns.shape, dtype=bool)
    for pair in used:
        entered[:, pair] |= (columns[:, pair] != MISSING).all(axis=1, keepdims=True)
    rows = entered.any(axis=1)
    kappas = pair_kappas(resample(columns[rows], bootstrap), used)
    # Replicates are means over the same pairs: NaN in one makes the mean NaN, and drops it.
    low, high, interval_reason = percentile_interval(kappas[1:].mean(axis=1))
    sizes = [overlaps[pair] for pair in used]
    weighted = math.fsum(k * size for k, size in zip(kappas[0], sizes, strict=True)) / sum(sizes)
    return Kappa(
        value=math.fsum(kappas[0]) / len(used),
        low=low,
        high=high,
        interval_reason=interval_reason,
        weighted=weighted,
        n_pairs=len(used),
        n_undefined=len(enough) - len(used),
        n_small=n_small,
        smallest_overlap=min(sizes),
        n_ads=int(rows.sum()),
        positive_share=float(columns[:, n_models:][entered[:, n_models:]].mean()),
    )


def _no_kappa(reason: str, n_undefined: int = 0, n_small: int = 0) -> Kappa:
    counts = {"n_undefined": n_undefined, "n_small": n_small}
    return Kappa(reason=reason, interval_reason=reason, **counts)


def _undefined(n: int, left: int, right: int, names: str) -> str:
    if n == 0:
        return f"{names} have no ads in common"
    if left == right and left in (0, n):
        return (
            f"{names} call all {_ads(n)} {_class_name(int(left > 0))}, so chance alone explains "
            "their agreement"
        )
    return ""


def _ads(n: int) -> str:
    return f"{n} ad" if n == 1 else f"{n} ads"


def _class_name(label: int) -> str:
    return "positive" if label else "negative"


def _check_labels(name: str, labels: np.ndarray) -> np.ndarray:
    array = np.asarray(labels)
    # An empty list arrives as float64, and has no wrong label in it.
    if array.ndim != 1 or (array.dtype.kind not in "iub" and array.size):
        raise ValueError(
            f"{name} must be a vector of labels 0 or 1, got {array.dtype} {array.shape}"
        )
    wrong = array[(array != 0) & (array != 1)]
    if len(wrong):
        raise ValueError(
            f"{name} must be 0 or 1, got {wrong[0]}: leave out ads without a label first"
        )
    return array.astype(np.int8)


def _dawid_skene(matrix: np.ndarray) -> np.ndarray:
    try:
        import pandas as pd
        from crowdkit.aggregation import DawidSkene
    except ImportError as error:
        raise UsageError(
            f"review.consensus: dawid-skene needs crowd-kit ({error}); run pip install "
            "'ad-scout[consensus]', or set review.consensus: majority"
        ) from error
    out = np.full(len(matrix), MISSING, dtype=np.int8)
    ads, raters = np.nonzero(matrix != MISSING)
    labels = matrix[ads, raters]
    if not len(labels):
        return out
    if (labels == labels[0]).all():
        # One class has nothing to confuse; crowd-kit would return a table without the other column.
        out[ads] = labels[0]
        return out
    data = pd.DataFrame({"task": ads, "worker": raters, "label": labels.astype(np.int64)})
    posterior = DawidSkene().fit_predict_proba(data)[1]
    tie = np.abs(posterior.to_numpy() - 0.5) <= _TIE
    out[posterior.index.to_numpy()] = np.where(tie, MISSING, posterior.to_numpy() > 0.5)
    return out
