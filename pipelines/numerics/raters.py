"""Simulated experts and crowds of a chosen Cohen's kappa, for rehearsing the loop on labelled ads.

Every verdict is a function of the ad's key, the rater and the seed: a rater who is asked again says
the same, in whatever order and company the ads come, as long as the population it was calibrated on
stays. Calibrate on all ads once and look verdicts up.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import logit
from scipy.stats import rankdata

from pipelines.numerics.hashing import unit_hash

# Spread of the logistic jitter on the rank's log-odds: the chance of an error falls from 90% to 10%
# over about a factor of 3 in the rank's odds.
_JITTER = 0.25
_MAX_ERROR = 0.5
# Of the experts' errors so many follow the ads' ambiguity, the others fall anywhere.
_NEAR_SHARE = 0.7


def expert_ratings(
    gold: np.ndarray,
    ambiguity: np.ndarray,
    keys: Sequence[str],
    n_experts: int,
    kappa: float,
    reference: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Simulate experts who err near the boundary, and sometimes anywhere.

    An expert is wrong about an ad with the probability that `expert_error_rates` gives; experts err
    independently given the ad. More experts leave the first ones' verdicts as they are.

    Args:
        gold: bool (n,) true labels.
        ambiguity: float (n,) in [0, 1], how near the ad lies to the boundary.
        keys: n distinct keys of the ads.
        n_experts: at least 1.
        kappa: expected Cohen's kappa between two of them over the reference population, in (0, 1].
        reference: bool or weights (n,) >= 0 of the population that kappa is of.
        seed: any integer.

    Returns:
        int8 (n, n_experts) of 0 and 1; nothing is missing.

    Raises:
        ValueError: as `expert_error_rates`, or if n_experts < 1 or the keys do not fit.
    """
    if n_experts < 1:
        raise ValueError(f"n_experts must be at least 1, got {n_experts}")
    truth = _check_gold(gold)
    rates = expert_error_rates(truth, ambiguity, kappa, reference)
    _check_keys(keys, len(truth))
    drawn = np.column_stack([_hashes(keys, f"expert {i}", seed) for i in range(n_experts)])
    return (truth[:, None] ^ (drawn < rates[:, None])).astype(np.int8)


def expert_error_rates(
    gold: np.ndarray, ambiguity: np.ndarray, kappa: float, reference: np.ndarray
) -> np.ndarray:
    """Find the error probability of each ad at which two experts have the kappa asked for.

    It is scale * (0.7 * ambiguity / its mean + 0.3), at most 0.5; the mean is over the reference
    population, so that 70% of the errors there follow the ambiguity (fewer once ads reach 0.5). For
    two raters who call ad i positive with probability p_i, independently, the expected 2x2 table
    has kappa = Var(p) / (E[p] (1 - E[p])), and the scale is the root of that.

    Args:
        gold: bool (n,) true labels.
        ambiguity: float (n,) in [0, 1].
        kappa: in (0, 1].
        reference: bool or weights (n,) >= 0, with ads of both classes.

    Returns:
        float64 (n,) in [0, 0.5].

    Raises:
        ValueError: if an argument is out of bounds, the reference has one class only, or none of
            its ads any ambiguity.
    """
    truth = _check_gold(gold)
    _check_kappa(kappa)
    near = _check_values("ambiguity", ambiguity, len(truth))
    if (near < 0).any() or (near > 1).any():
        wrong = near[(near < 0) | (near > 1)][0]
        raise ValueError(f"ambiguity must lie in [0, 1], got {wrong}")
    weights = _check_reference(reference, truth)
    mean = float(weights @ near)
    if mean == 0:
        raise ValueError("the ambiguity of every reference ad is 0: errors have nothing to follow")
    base = 1.0 - _NEAR_SHARE + _NEAR_SHARE * near / mean
    if kappa == 1.0:
        return np.zeros(len(truth))

    def excess(scale: float) -> float:
        return _expected_kappa(truth, np.minimum(scale * base, _MAX_ERROR), weights) - kappa

    # There every error is at its largest, and two experts agree by chance alone.
    largest = _MAX_ERROR / float(base[weights > 0].min())
    return np.minimum(float(brentq(excess, 0.0, largest)) * base, _MAX_ERROR)


def crowd_labels(
    gold: np.ndarray,
    cue: np.ndarray,
    keys: Sequence[str],
    kappa: float,
    seed: int,
    systematic: float = 0.8,
    *,
    tolerance: float = 0.01,
) -> np.ndarray:
    """Simulate a crowd whose errors follow the text.

    Positives of the lowest cue are called negative and as many negatives of the highest cue
    positive, so the crowd's share of positives is the true one. A share `systematic` of the errors
    follows the cue: the ranking is steep, but jittered by the ads' hashes, so there is no cue below
    which all are wrong. The rest are drawn evenly from the remaining ads of the class.

    Args:
        gold: bool (n,) true labels, of both classes.
        cue: float (n,) finite; higher looks more positive to the crowd. Its scale does not matter.
        keys: n distinct keys of the ads.
        kappa: Cohen's kappa of crowd and gold over these ads, in (0, 1].
        seed: any integer.
        systematic: in [0, 1]; with 0 the errors are even within each class (see
            `uniform_crowd_labels` for one rate over all ads).
        tolerance: how far the reached kappa may lie from the asked one. Labels come in whole
            numbers: with n q (1 - q) >= 50, for q the share of positives, 0.01 is always reached.

    Returns:
        int8 (n,) of 0 and 1.

    Raises:
        ValueError: if an argument is out of bounds, a class is empty, or the nearest kappa that
            whole ads allow is further away than the tolerance.
    """
    truth = _check_gold(gold)
    _check_kappa(kappa)
    if not 0.0 <= systematic <= 1.0:
        raise ValueError(f"systematic must lie in [0, 1], got {systematic!r}")
    values = _check_values("cue", cue, len(truth))
    _check_keys(keys, len(truth))
    _check_classes(truth)
    share = truth.mean()
    # With m flips in each class, kappa is 1 - m / (n q (1 - q)).
    room = len(truth) * share * (1 - share)
    n_flips = round((1 - kappa) * room)
    _check_reached(1 - n_flips / room, kappa, tolerance, truth)
    n_follow = round(systematic * n_flips)
    # A hash can be 0, half a step of 2**-53 below the next one; its log-odds must stay finite.
    jitter = _JITTER * logit(np.maximum(_hashes(keys, "crowd cue", seed), 2.0**-54))
    even = _hashes(keys, "crowd even", seed)
    order = np.array(keys)
    labels = truth.copy()
    for positive in (True, False):
        rows = np.flatnonzero(truth == positive)
        tempting = values[rows] if positive else -values[rows]
        # Mid-ranks, so that equal cues are told apart by the hashes alone.
        place = (rankdata(tempting) - 0.5) / len(rows)
        rows = rows[np.lexsort((order[rows], logit(place) + jitter[rows]))]
        rest = rows[n_follow:]
        rest = rest[np.lexsort((order[rest], even[rest]))]
        labels[rows[:n_follow]] ^= True
        labels[rest[: n_flips - n_follow]] ^= True
    return labels.astype(np.int8)


def uniform_crowd_labels(
    gold: np.ndarray, keys: Sequence[str], kappa: float, seed: int, *, tolerance: float = 0.01
) -> np.ndarray:
    """Simulate a crowd whose errors are noise: one error rate for all ads.

    The ads with the lowest hashes are wrong, as many as bring kappa nearest to the one asked for.
    With few positives, most errors fall on negatives, so the crowd calls more ads positive than
    are.

    Args:
        gold: bool (n,) true labels, of both classes.
        keys: n distinct keys of the ads.
        kappa: Cohen's kappa of crowd and gold over these ads, in (0, 1].
        seed: any integer.
        tolerance: how far the reached kappa may lie from the asked one.

    Returns:
        int8 (n,) of 0 and 1.

    Raises:
        ValueError: as `crowd_labels`.
    """
    truth = _check_gold(gold)
    _check_kappa(kappa)
    _check_keys(keys, len(truth))
    _check_classes(truth)
    rows = np.lexsort((np.array(keys), _hashes(keys, "crowd uniform", seed)))
    reached = _kappa_after_flips(truth, rows)
    n_flips = int(np.argmin(np.abs(reached - kappa)))
    _check_reached(float(reached[n_flips]), kappa, tolerance, truth)
    labels = truth.copy()
    labels[rows[:n_flips]] ^= True
    return labels.astype(np.int8)


def _expected_kappa(gold: np.ndarray, rates: np.ndarray, weights: np.ndarray) -> float:
    positive = np.where(gold, 1.0 - rates, rates)
    mean = float(weights @ positive)
    return float(weights @ (positive - mean) ** 2) / (mean * (1.0 - mean))


def _kappa_after_flips(gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
    # float64 (n + 1,): kappa with gold once the first 0, 1, ... n of the rows are wrong.
    n, positives = len(gold), int(gold.sum())
    wrong = np.arange(n + 1)
    lost = np.concatenate([[0], np.cumsum(gold[rows])])
    called = positives + wrong - 2 * lost
    expected = positives * called + (n - positives) * (n - called)
    return (n * (n - wrong) - expected) / (n * n - expected)


def _hashes(keys: Sequence[str], who: str, seed: int) -> np.ndarray:
    return np.array([unit_hash(f"{who}\0{key}", seed) for key in keys], dtype=np.float64)


def _check_gold(gold: np.ndarray) -> np.ndarray:
    labels = np.asarray(gold)
    if labels.ndim != 1 or labels.dtype.kind not in "biu" or ((labels != 0) & (labels != 1)).any():
        raise ValueError(
            f"gold must be a vector of true labels, bool or 0 and 1, got {labels.dtype} "
            f"{labels.shape}"
        )
    return labels.astype(bool)


def _check_kappa(kappa: float) -> None:
    if not 0.0 < kappa <= 1.0:
        raise ValueError(f"kappa must lie in (0, 1], got {kappa!r}")


def _check_values(name: str, values: np.ndarray, n: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"{name} must be a vector of {n} numbers, one an ad, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    return array


def _check_keys(keys: Sequence[str], n: int) -> None:
    if len(keys) != n:
        raise ValueError(f"keys must be {n} strings, one an ad, got {len(keys)}")
    if len(set(keys)) != n:
        raise ValueError(
            f"keys must be distinct, got {n - len(set(keys))} repeated: two ads with one key would "
            "get the same errors"
        )


def _check_classes(gold: np.ndarray) -> None:
    if gold.all() or not gold.any():
        raise ValueError(
            f"a crowd's kappa needs ads of both classes, got {int(gold.sum())} positive of "
            f"{len(gold)}"
        )


def _check_reference(reference: np.ndarray, gold: np.ndarray) -> np.ndarray:
    weights = _check_values("reference", reference, len(gold))
    if (weights < 0).any():
        raise ValueError(f"reference weights must be >= 0, got {weights.min()}")
    if not (weights[gold].any() and weights[~gold].any()):
        raise ValueError(
            "the reference must hold ads of both classes, got "
            f"{int((weights[gold] > 0).sum())} positive and {int((weights[~gold] > 0).sum())} "
            "negative ones: kappa is undefined on one class"
        )
    return weights / weights.sum()


def _check_reached(reached: float, kappa: float, tolerance: float, gold: np.ndarray) -> None:
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0, got {tolerance!r}")
    if abs(reached - kappa) > tolerance:
        raise ValueError(
            f"kappa {kappa:g} cannot be reached within {tolerance:g}: whole labels of "
            f"{int(gold.sum())} positive and {int((~gold).sum())} negative ads come no nearer than "
            f"{reached:.3f}; give more ads, ask for that kappa, or raise the tolerance"
        )
