"""What a command is doing, how far it is and when it will end.

Whatever takes time opens a :func:`step`, wherever in the code it stands. Steps cost next to nothing
and are drawn only while a :class:`Reporter` is live, which is the command line's business: bars on a
terminal, a line every 30 seconds elsewhere.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

# A command that ends before shows nothing.
_FIRST_DRAW_SEC = 1.0
_DRAW_SEC = 0.25
_POLL_SEC = 1.0
# The pace is that of the last minute, but of so many advances at least: some steps have few.
_PACE_SEC = 60.0
_PACE_ADVANCES = 5
_WORDS_WIDTH = 36
_BAR_WIDTH = 12
# What a terminal needs whose bars nobody takes away: a line of its own, and its cursor back.
_AFTER_BARS = b"\r\n\x1b[?25h"


class Step:
    """Something that takes time; called, from any thread, when more of it is done.

    Attributes:
        words: what a person reads; may change while the step lasts.
        total: how much there is, in things that a person would count, or None while that is unknown.
        done: how much is done.
        given: part of ``done`` that took no time, because an earlier run had done it.
        started: when it began, seconds of ``time.monotonic``.
        ends: when it should end, for a step whose parts are known to differ; None to go by its pace.
    """

    def __init__(self, words: str, total: float | None = None) -> None:
        self.words, self.total = words, total
        self.done = self.given = 0.0
        self.ends: float | None = None
        self.started = time.monotonic()
        self._seen: deque[tuple[float, float]] = deque()

    def __call__(self, number: float = 1.0, given: bool = False) -> None:
        """Add to what is done; ``given`` when an earlier run did it."""
        with _lock:
            self.done += number
            self.given += number if given else 0.0

    def left_sec(self, now: float) -> float | None:
        """Return the seconds that are left, by how fast it moved lately, or None while nobody knows.

        The time before the first advance does not count: it went into loading and tracing, too.

        Args:
            now: seconds of ``time.monotonic``, later than in the call before.
        """
        if self.ends is not None:
            return self.ends - now if self.ends > now else None
        worked = self.done - self.given
        if worked > (self._seen[-1][1] if self._seen else 0.0):
            self._seen.append((now, worked))
        if self.total is None or self.done >= self.total or len(self._seen) < 2:
            return None
        while len(self._seen) > _PACE_ADVANCES + 1 and self._seen[1][0] < now - _PACE_SEC:
            self._seen.popleft()
        (first_sec, first), (last_sec, last) = self._seen[0], self._seen[-1]
        sec_each = (last_sec - first_sec) / (last - first)
        # Between two advances time counts down, but not below what the next one should leave.
        gap = (last_sec - first_sec) / (len(self._seen) - 1)
        return max(0.0, (self.total - self.done) * sec_each - min(now - last_sec, gap))

    def amount(self) -> str:
        """Return how much is done, such as "300 of 2,000"; empty when nothing is counted."""
        # Thirds do not add up to one.
        done = int(self.done + 1e-6)
        if self.total is not None:
            return f"{done:,} of {int(self.total):,}"
        return f"{done:,}" if done else ""

    def sentence(self, now: float) -> str:
        """Return the step in words: what, how far, what is left."""
        left = self.left_sec(now)
        text = f"{self.words}: {self.amount()}".removesuffix(": ")
        if self.total:
            text += f" ({100 * self.done / self.total:.0f}%)"
        return text if left is None else f"{text}, about {duration(left)} left"


_lock = threading.Lock()
_numbers = itertools.count()
# In the order in which they began, so that what is inside comes after what it is part of.
_sources: dict[int, Callable[[], Sequence[Step]]] = {}
_live: Reporter | None = None


@contextlib.contextmanager
def step(words: str, total: float | None = None) -> Iterator[Step]:
    """Show a step while the body runs; yields what counts it up.

    Args:
        words: what a person reads, such as "scoring ads".
        total: how much there is to do, if it is known.
    """
    opened = Step(words, total)
    with watching(lambda: [opened]):
        yield opened


@contextlib.contextmanager
def watching(source: Callable[[], Sequence[Step]]) -> Iterator[None]:
    """Show what ``source`` returns, polled from another thread, while the body runs."""
    number = next(_numbers)
    with _lock:
        _sources[number] = source
    try:
        yield
    finally:
        with _lock:
            _sources.pop(number, None)


def steps() -> list[Step]:
    """Return all live steps as they stand, outer ones first."""
    with _lock:
        sources = list(_sources.values())
    # What a copy shares is what was seen of its pace.
    return [copy.copy(found) for source in sources for found in source()]


def duration(seconds: float) -> str:
    """Return a length of time in two digits, as befits an estimate: "7 s", "140 s", "25 min"."""
    if seconds < 9.5:
        return f"{seconds:.0f} s"
    if seconds < 295:
        return f"{10 * round(seconds / 10)} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Reporter:
    """Shows all live steps while its body runs: bars on a terminal, otherwise a line now and then.

    Only one is live in a process; one inside another does nothing.

    Args:
        stream: where to write, stderr by default: stdout belongs to results.
        interval_sec: time between two plain lines.
        quiet: show nothing.
    """

    def __init__(
        self, stream: IO[str] | None = None, interval_sec: float = 30.0, quiet: bool = False
    ) -> None:
        self._stream = stream or sys.stderr
        self._interval_sec = interval_sec
        self._quiet = quiet
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._idle = Step("starting")
        # Set while bars are drawn.
        self.console: Any = None

    def __enter__(self) -> Reporter:
        global _live
        with _lock:
            if self._quiet or _live is not None:
                return self
            _live = self
        self._idle.started = time.monotonic()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop showing and take the bars off the screen; a second call does nothing."""
        global _live
        self._stop.set()
        try:
            if self._thread:
                self._thread.join()
        finally:
            self._thread = None
            with _lock:
                _live = None if _live is self else _live

    def _steps(self) -> list[Step]:
        found = steps()
        if found:
            # Python's libraries take seconds to load, and what takes none needs no step.
            self._idle.words = "working"
        return found or [self._idle]

    def _show(self) -> None:
        drawn = self._stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
        # A stream that has gone (`scout ... 2>&1 | head`) must not end a run, nor fill it with noise.
        with contextlib.suppress(OSError):
            if drawn:
                self._bars()
            else:
                self._lines()

    def _lines(self) -> None:
        due = self._idle.started + self._interval_sec
        # Looked at more often than told, for the pace.
        while not self._stop.wait(min(_POLL_SEC, self._interval_sec)):
            now = time.monotonic()
            text = "; ".join(one.sentence(now) for one in self._steps())
            if now >= due:
                due += self._interval_sec
                line = f"scout: {text}; {now - self._idle.started:.0f} s since start"
                print(line, file=self._stream, flush=True)

    def _bars(self) -> None:
        if self._stop.wait(_FIRST_DRAW_SEC):
            return
        # Only now: a command that ends at once need not load it.
        from rich.console import Console
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        spinner = Spinner("dots")

        def table() -> Table:
            now = time.monotonic()
            grid = Table.grid(padding=(0, 1))
            grid.add_column()
            grid.add_column(max_width=_WORDS_WIDTH, no_wrap=True, overflow="ellipsis")
            for one in self._steps():
                left = one.left_sec(now)
                pulse = one.total is None
                grid.add_row(
                    spinner,
                    Text(one.words),
                    ProgressBar(one.total or 1, one.done, _BAR_WIDTH, pulse, animation_time=now),
                    Text(one.amount()),
                    str(datetime.timedelta(seconds=int(now - one.started))),
                    "" if left is None else f"{duration(left)} left",
                )
            return grid

        self.console = Console(file=self._stream)
        try:
            with Live(
                get_renderable=table,
                console=self.console,
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
            ) as live:
                while not self._stop.wait(_DRAW_SEC):
                    live.refresh()
        finally:
            self.console = None


def finish() -> None:
    """Take the bars off the screen, if there are any: results follow."""
    if _live is not None:
        _live.close()


def write(line: str) -> None:
    """Print a line to stderr, above the bars if there are any."""
    console = _live.console if _live is not None else None
    if console is None:
        print(line, file=sys.stderr, flush=True)
    else:
        # Not wrapped: a path that is copied off the screen should be whole.
        console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)


def leave(line: str, status: int) -> None:
    """End the process at once, from a signal handler, with a last line on stderr unless empty."""
    drawn = _live is not None and _live.console is not None
    # Not by print: the handler may have interrupted one.
    with contextlib.suppress(OSError):
        os.write(2, (_AFTER_BARS if drawn else b"") + (f"{line}\n".encode() if line else b""))
    os._exit(status)
