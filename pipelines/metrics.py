"""Counters, stage timers, and the progress a person sees while a command runs.

Stages call :func:`count` and :func:`timed`. Both feed Beam's metrics (every runner) and a
process-wide tally, which the local runner's progress bar polls: Beam's in-memory runner offers no
metrics before it has ended.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import IO

from apache_beam.metrics import Metrics
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

NAMESPACE = "scout"
_lock = threading.Lock()
_tally: Counter[str] = Counter()


def reset() -> None:
    """Forget the process-wide tally (at the start of a run)."""
    with _lock:
        _tally.clear()


def tally() -> dict[str, int]:
    """Return a copy of the process-wide tally, ``stage/name`` -> number."""
    with _lock:
        return dict(_tally)


def count(stage: str, name: str, number: int = 1) -> None:
    """Add to a stage's counter; ``name`` ends with its unit when it is not a number of things."""
    Metrics.counter(NAMESPACE, f"{stage}/{name}").inc(int(number))
    with _lock:
        _tally[f"{stage}/{name}"] += int(number)


@contextlib.contextmanager
def timed(stage: str) -> Iterator[None]:
    """Add the time spent inside to the stage's ``msec`` counter."""
    start = time.perf_counter()
    try:
        yield
    finally:
        count(stage, "msec", round(1000 * (time.perf_counter() - start)))


class ProgressReporter:
    """Shows how far a local run is: a bar on a terminal, otherwise a line every 30 seconds.

    Args:
        stream: where to write (stderr; stdout belongs to results).
        interval_sec: time between two plain lines.
        quiet: show nothing.
    """

    # Polled counters in the order in which their stages run, with the words a person reads.
    PHASES = (
        ("ReadAds/records", "reading ads"),
        ("ScoreAds/done", "scoring ads"),
        ("ClusterPerLabel/assigned", "clustering"),
        ("FindOppositePairs/queries", "searching pairs"),
    )

    def __init__(
        self, stream: IO[str] | None = None, interval_sec: float = 30.0, quiet: bool = False
    ) -> None:
        self._stream = stream or sys.stderr
        self._interval = interval_sec
        self._quiet = quiet
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ProgressReporter:
        if not self._quiet:
            target = self._bars if self._stream.isatty() else self._lines
            self._thread = threading.Thread(target=target, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _bars(self) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        console = Console(file=self._stream)
        shown: dict[str, TaskID] = {}
        with Progress(*columns, console=console, transient=True) as progress:
            while True:
                stopping = self._stop.wait(0.25)
                for name, words, done, total in self._state():
                    if name not in shown:
                        shown[name] = progress.add_task(words, total=total)
                    progress.update(shown[name], completed=done, total=total)
                if stopping:
                    return

    def _lines(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(self._interval):
            state = self._state()
            if not state:
                continue
            _, words, done, total = state[-1]
            elapsed = time.monotonic() - started
            line = f"scout: {words}: {done:,}"
            if total:
                line += f" of {total:,} ({100 * done / total:.0f}%)"
            print(f"{line}, {elapsed:.0f} s since start", file=self._stream, flush=True)

    def _state(self) -> list[tuple[str, str, int, int | None]]:
        now = tally()
        totals = {"ScoreAds/done": now.get("CollapseDuplicates/unique")}
        totals["ClusterPerLabel/assigned"] = now.get("LabelAds/ads")
        return [
            (name, words, now[name], totals.get(name)) for name, words in self.PHASES if name in now
        ]
