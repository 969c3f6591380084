"""Counters and stage timers, and what they say of a local run's progress.

Stages call :func:`count` and :func:`timed`. Both feed Beam's metrics (every runner) and a
process-wide tally, from which :func:`shown` makes steps of ``pipelines.console.progress``: Beam's in-memory
runner offers no metrics before it has ended.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from apache_beam.metrics import Metrics

from pipelines.console.progress import Step, watching

NAMESPACE = "scout"
# Stages in the order in which they run, the counter that tells how far one is, and the words a
# person reads.
PHASES = (
    ("ReadAds", "records", "reading ads"),
    ("LoadModel", "", "preparing the model"),
    ("ScoreAds", "done", "scoring ads"),
    ("ClusterPerLabel", "assigned", "clustering ads"),
    ("FindOppositePairs", "queries", "searching pairs"),
    ("SelectPairs", "", "choosing pairs"),
)
_TOTALS = {
    "ScoreAds": "CollapseDuplicates/unique",
    "ClusterPerLabel": "LabelAds/ads",
    "FindOppositePairs": "FindOppositePairs/routed",
}
# Stage, name, number.
Count = tuple[str, str, int]

_lock = threading.Lock()
_here = threading.local()
_tally: Counter[str] = Counter()
# Stages that are at work now, and those that have begun.
_busy: Counter[str] = Counter()
_begun: dict[str, Step] = {}


def reset() -> None:
    """Forget the process-wide tally (at the start of a run)."""
    with _lock:
        _tally.clear()
        _begun.clear()


def tally() -> dict[str, int]:
    """Return a copy of the process-wide tally, ``stage/name`` -> number."""
    with _lock:
        return dict(_tally)


def count(stage: str, name: str, number: int = 1) -> None:
    """Add to a stage's counter; ``name`` ends with its unit when it is not a number of things."""
    held: list[Count] | None = getattr(_here, "held", None)
    if held is not None:
        held.append((stage, name, int(number)))
        return
    Metrics.counter(NAMESPACE, f"{stage}/{name}").inc(int(number))
    with _lock:
        _begun.setdefault(stage, Step(stage))
        _tally[f"{stage}/{name}"] += int(number)


@contextlib.contextmanager
def recorded() -> Iterator[list[Count]]:
    """Hold back what this thread counts, for :func:`replay` in a thread of Beam's."""
    counts: list[Count] = []
    _here.held = counts
    try:
        yield counts
    finally:
        _here.held = None


def replay(counts: Iterable[Count]) -> None:
    """Count what :func:`recorded` held back."""
    for one in counts:
        count(*one)


@contextlib.contextmanager
def timed(stage: str) -> Iterator[None]:
    """Add the time spent inside to the stage's ``msec`` counter."""
    start = time.perf_counter()
    with _lock:
        _begun.setdefault(stage, Step(stage))
        _busy[stage] += 1
    try:
        yield
    finally:
        with _lock:
            _busy[stage] -= 1
        count(stage, "msec", round(1000 * (time.perf_counter() - start)))


def phase() -> list[Step]:
    """Return the stage that a local run has reached, as one step; none before the first began."""
    with _lock:
        begun = [one for one in PHASES if one[0] in _begun and (one[1] or _busy[one[0]])]
        if not begun:
            return []
        stage, counter, words = begun[-1]
        found = _begun[stage]
        found.words, found.done = words, _tally[f"{stage}/{counter}"]
        found.total, found.given = _tally.get(_TOTALS.get(stage, "")), _tally[f"{stage}/reused"]
        return [found]


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show the stages as progress while a pipeline runs in this process."""
    with watching(phase):
        yield
