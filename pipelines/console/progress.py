"""What a command is doing, how far it is and when it will end.

Whatever takes time opens a :func:`step`, wherever in the code it stands. Steps cost next to nothing
and are drawn only while a :class:`Reporter` is live, which is the command line's business: bars on a
terminal, a line every 30 seconds elsewhere.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Step:
    """Something that takes time, as it stands.

    Attributes:
        key: tells it from the other live steps.
        words: what a person reads.
        done: how much is done, in things that a person would count.
        total: how much there is, or None while that is unknown.
        started: when it began, seconds of ``time.monotonic``.
        given: part of ``done`` that took no time, because an earlier run had done it.
        ends: when it should end, seconds of ``time.monotonic``, or None to go by its pace.
    """

    key: str
    words: str
    done: float = 0.0
    total: float | None = None
    started: float = 0.0
    given: float = 0.0
    ends: float | None = None


_lock = threading.Lock()
_numbers = itertools.count()
# In the order in which they began, so that what is inside comes after what it is part of.
_sources: dict[int, Callable[[], Sequence[Step]]] = {}
_live: Reporter | None = None


class Advance:
    """Says that more of a step is done; safe to call from any thread.

    Attributes:
        words: what a person reads; may change while the step lasts.
        total: how much there is to do, or None; a server may tell it only with its first answer.
        ends: as in :class:`Step`, for a step whose parts are known to differ.
    """

    def __init__(self, number: int, words: str, total: float | None) -> None:
        self.words, self.total = words, total
        self.ends: float | None = None
        self._key = f"step {number}"
        self._started = time.monotonic()
        self._done = self._given = 0.0

    def __call__(self, number: float = 1.0, given: bool = False) -> None:
        """Add to what is done; ``given`` when an earlier run did it."""
        with _lock:
            self._done += number
            self._given += number if given else 0.0

    def snapshot(self) -> list[Step]:
        """Return the step as it stands."""
        with _lock:
            return [
                Step(
                    self._key,
                    self.words,
                    self._done,
                    self.total,
                    self._started,
                    self._given,
                    self.ends,
                )
            ]


@contextlib.contextmanager
def step(words: str, total: float | None = None) -> Iterator[Advance]:
    """Show a step while the body runs; yields what counts it up.

    Args:
        words: what a person reads, such as "scoring ads".
        total: how much there is to do, if it is known.
    """
    advance = Advance(next(_numbers), words, total)
    with watching(advance.snapshot):
        yield advance


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
    """Return all live steps, outer ones first."""
    with _lock:
        sources = list(_sources.values())
    return [found for source in sources for found in source()]


class Pace:
    """Estimates what is left of a step from how fast it moved lately.

    The time before the first advance does not count: it went into loading and tracing, too.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def left_sec(self, now: Step, time_sec: float) -> float | None:
        """Return the seconds that are left, or None while nothing can be said.

        Args:
            now: the step as it stands; each call should be later than the one before.
            time_sec: when that is, seconds of ``time.monotonic``.
        """
        if now.ends is not None:
            return now.ends - time_sec if now.ends > time_sec else None
        worked = now.done - now.given
        if worked > (self._seen[-1][1] if self._seen else 0.0):
            self._seen.append((time_sec, worked))
        if now.total is None or now.done >= now.total or len(self._seen) < 2:
            return None
        while len(self._seen) > _PACE_ADVANCES + 1 and self._seen[1][0] < time_sec - _PACE_SEC:
            self._seen.popleft()
        (first_sec, first), (last_sec, last) = self._seen[0], self._seen[-1]
        sec_each = (last_sec - first_sec) / (last - first)
        # Between two advances time counts down, but not below what the next one should leave.
        gap = (last_sec - first_sec) / (len(self._seen) - 1)
        return max(0.0, (now.total - now.done) * sec_each - min(time_sec - last_sec, gap))


def duration(seconds: float) -> str:
    """Return a length of time in two digits, as befits an estimate: "7 s", "140 s", "25 min"."""
    if seconds < 9.5:
        return f"{seconds:.0f} s"
    if seconds < 295:
        return f"{10 * round(seconds / 10)} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def amount(now: Step) -> str:
    """Return how much of a step is done, such as "300 of 2,000"; empty when nothing is counted."""
    # Thirds do not add up to one.
    done = int(now.done + 1e-6)
    if now.total is not None:
        return f"{done:,} of {int(now.total):,}"
    return f"{done:,}" if done else ""


def sentence(now: Step, left_sec: float | None) -> str:
    """Return a step in words: what, how far, what is left."""
    done = amount(now)
    text = f"{now.words}: {done}" if done else now.words
    if now.total:
        text += f" ({100 * now.done / now.total:.0f}%)"
    return text if left_sec is None else f"{text}, about {duration(left_sec)} left"


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
        self._paces: dict[str, Pace] = {}
        self._started = 0.0
        # Set while bars are drawn.
        self.console: Any = None

    def __enter__(self) -> Reporter:
        global _live
        with _lock:
            if self._quiet or _live is not None:
                return self
            _live = self
        self._started = time.monotonic()
        work = self._bars if _can_draw(self._stream) else self._lines
        self._thread = threading.Thread(target=_undisturbed, args=(work,), daemon=True)
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

    def state(self) -> list[tuple[Step, float | None]]:
        """Return all live steps with the seconds that are left of each."""
        now = time.monotonic()
        found = steps()
        if not found:
            # Python's libraries take seconds to load, and what takes none needs no step.
            words = "working" if self._paces else "starting"
            found = [Step("idle", words, started=self._started)]
        for one in found:
            self._paces.setdefault(one.key, Pace())
        return [(one, self._paces[one.key].left_sec(one, now)) for one in found]

    def _lines(self) -> None:
        due = self._started + self._interval_sec
        # Looked at more often than told, for the pace.
        while not self._stop.wait(min(_POLL_SEC, self._interval_sec)):
            state = self.state()
            now = time.monotonic()
            if now < due:
                continue
            due += self._interval_sec
            text = "; ".join(sentence(one, left) for one, left in state)
            line = f"scout: {text}; {now - self._started:.0f} s since start"
            print(line, file=self._stream, flush=True)

    def _bars(self) -> None:
        if self._stop.wait(_FIRST_DRAW_SEC):
            return
        # Only now: a command that ends at once need not load it.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(_BAR_WIDTH),
            TextColumn("{task.fields[amount]}", markup=False),
            TextColumn("{task.fields[elapsed]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
        )
        shown: dict[str, TaskID] = {}
        self.console = Console(file=self._stream)
        try:
            with Progress(
                *columns,
                console=self.console,
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
            ) as bars:
                while True:
                    state = self.state()
                    for gone in shown.keys() - {one.key for one, _ in state}:
                        bars.remove_task(shown.pop(gone))
                    for one, left_sec in state:
                        fields: dict[str, Any] = {
                            "description": _cut(one.words),
                            "completed": one.done,
                            "total": one.total,
                            "amount": amount(one),
                            "elapsed": _clock(time.monotonic() - one.started),
                            "left": "" if left_sec is None else f"{duration(left_sec)} left",
                        }
                        if one.key in shown:
                            bars.update(shown[one.key], **fields)
                        else:
                            shown[one.key] = bars.add_task(**fields)
                    bars.refresh()
                    if self._stop.wait(_DRAW_SEC):
                        return
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


def _can_draw(stream: IO[str]) -> bool:
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def _undisturbed(work: Callable[[], None]) -> None:
    # A stream that has gone (`scout ... 2>&1 | head`) must not end a run, nor fill it with noise.
    with contextlib.suppress(OSError):
        work()


def _cut(words: str) -> str:
    return words if len(words) <= _WORDS_WIDTH else words[: _WORDS_WIDTH - 1] + "…"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
