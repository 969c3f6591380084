"""What an item costs an expert: minutes measured between answers, or what is assumed without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PAIR, SINGLE, POSITIVES = "pair", "single", "positives"
# Assumed, not measured: two short ads share one reading of the policy, and an ad that violates it takes
# longer than one that plainly does not (Settles, Craven and Friedland, 2008: costs differ with the
# item, and are worth measuring).
DEFAULTS: Mapping[str, float] = {PAIR: 0.8, SINGLE: 0.5, POSITIVES: 0.7}
# Whoever answers later than that has been away.
AWAY_SEC = 300.0
LEAST_GAPS = 20


@dataclass(frozen=True, slots=True)
class Rate:
    """Minutes an item, of one expert.

    Attributes:
        minutes: an item.
        source: ``task``, ``measured`` or ``assumed``.
        answers: that it was measured on; 0 otherwise.
    """

    minutes: float
    source: str
    answers: int = 0


def gaps_sec(times: Sequence[float], kinds: Sequence[str]) -> dict[str, list[float]]:
    """Return the seconds that one expert took for items, by kind.

    An item took from the answer before it to its own. Gaps above ``AWAY_SEC`` are breaks, and gaps of 0
    are answers that a tool saved together: both say nothing. Where answers saved together are the most of
    them, the times are those of saving, and nothing is measured.

    Args:
        times: seconds, when each item was answered last, in any order.
        kinds: of the items.
    """
    order = np.argsort(np.asarray(times, np.float64), kind="stable")
    gaps = np.diff(np.asarray(times, np.float64)[order])
    if 2 * int((gaps > 0).sum()) < len(gaps):
        return {}
    found: dict[str, list[float]] = {}
    for gap, place in zip(gaps.tolist(), order[1:].tolist(), strict=True):
        if 0 < gap <= AWAY_SEC:
            found.setdefault(kinds[place], []).append(gap)
    return found


def rates(
    given: Mapping[str, float | None], measured: Iterable[Mapping[str, Sequence[float]]]
) -> dict[str, Rate]:
    """Return what each kind of item costs: as the task says, else as measured, else as assumed.

    Args:
        given: kind -> minutes of the task, None where it leaves that open.
        measured: of :func:`gaps_sec`, an entry an expert. The mean counts, for a budget is a sum.
    """
    together: dict[str, list[float]] = {}
    for own in measured:
        for kind, gaps in own.items():
            together.setdefault(kind, []).extend(gaps)
    found = {}
    for kind, assumed in DEFAULTS.items():
        minutes, gaps = given.get(kind), together.get(kind, [])
        if minutes is not None:
            found[kind] = Rate(minutes, "task")
        elif len(gaps) >= LEAST_GAPS:
            found[kind] = Rate(float(np.mean(gaps)) / 60.0, "measured", len(gaps))
        else:
            found[kind] = Rate(assumed, "assumed")
    return found


def affordable(minutes: float, rate: float, experts: int) -> int:
    """Return how many items so many minutes buy, each answered by so many experts; at least 1."""
    # A thousandth more: 60 minutes at .6 are a hundred items, not 99.
    return max(1, int(minutes / (rate * experts) + 1e-3))
