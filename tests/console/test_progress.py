"""Progress: steps, what is left of them, and what a person sees."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.console import metrics, progress
from pipelines.console.progress import Reporter, Step, step, steps

ROOT = Path(__file__).resolve().parents[2]


def wait_for(what: str, stream: io.StringIO) -> str:
    """Return what a stream holds once it holds ``what``."""
    until = time.monotonic() + 10
    while what not in stream.getvalue() and time.monotonic() < until:
        time.sleep(0.01)
    return stream.getvalue()


# --- Steps ------------------------------------------------------------------------------------


def test_steps_are_live_from_the_outer_to_the_inner_one() -> None:
    assert steps() == []
    with step("training", 3) as outer:
        outer(2)
        with step("epoch 1") as inner:
            inner()
            found = [(one.words, one.done, one.total) for one in steps()]
            assert found == [("training", 2, 3), ("epoch 1", 1, None)]
            outer.words = "nearly done"
        assert [one.words for one in steps()] == ["nearly done"]
    assert steps() == []


def test_a_step_that_fails_is_gone() -> None:
    with pytest.raises(ZeroDivisionError), step("dividing"):
        raise ZeroDivisionError
    assert steps() == []


def test_steps_count_from_all_threads() -> None:
    with step("counting", 4000) as advance:

        def work() -> None:
            for _ in range(1000):
                advance()
                with step("inside"):
                    pass

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [found] = steps()
    assert found.done == 4000


# --- What is left -----------------------------------------------------------------------------


def step_of(total: float | None = 100) -> Step:
    return Step("working", total)


@given(
    warm_up=st.floats(0, 500),
    each=st.floats(0.01, 100),
    advances=st.integers(2, 40),
    total=st.integers(50, 1000),
)
def test_a_steady_pace_is_foreseen(warm_up: float, each: float, advances: int, total: int) -> None:
    found, now, left = step_of(total), warm_up, None
    for _ in range(advances):
        found()
        left = found.left_sec(now)
        now += each
    assert left == pytest.approx((total - advances) * each)


def test_nothing_is_said_before_two_advances_and_without_a_total() -> None:
    found = step_of()
    assert found.left_sec(0.0) is None
    found(30)
    assert found.left_sec(50.0) is None
    found(10)
    assert found.left_sec(60.0) == pytest.approx(60.0)
    found.total = None
    assert found.left_sec(61.0) is None
    found.total = 40
    assert found.left_sec(62.0) is None


def test_time_counts_down_between_advances_but_not_below_the_next_one() -> None:
    found = step_of(5)
    for place in (1, 2, 3):
        found()
        found.left_sec(10.0 * place)
    assert found.left_sec(34.0) == pytest.approx(16.0)
    assert found.left_sec(500.0) == pytest.approx(10.0)


def test_the_pace_is_that_of_the_last_minute() -> None:
    found, now, left = step_of(), 0.0, None
    for place in range(50):
        now += 1.0 if place < 30 else 10.0
        found()
        left = found.left_sec(now)
    assert left == pytest.approx(500.0)


def test_what_an_earlier_run_did_is_no_pace() -> None:
    found = step_of()
    found(90, given=True)
    assert found.left_sec(0.1) is None
    found(2)
    assert found.left_sec(10.0) is None
    found(2)
    assert found.left_sec(20.0) == pytest.approx(30.0)


def test_who_knows_the_end_is_believed() -> None:
    found = step_of()
    found.ends = 50.0
    assert found.left_sec(20.0) == 30.0
    assert found.left_sec(51.0) is None


def test_what_is_read_of_a_step_stays_as_it_was_and_its_pace_is_kept() -> None:
    with step("counting", 10) as counting:
        [before] = steps()
        for now in (10.0, 20.0, 30.0):
            counting()
            [after] = steps()
            left = after.left_sec(now)
    assert (before.done, after.done) == (0, 3)
    assert left == pytest.approx(70.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"), (9.4, "9 s"), (9.6, "10 s"), (143, "140 s"), (294, "290 s"), (300, "5 min"),
        (5940, "99 min"), (5980, "1.7 h"), (90000, "25.0 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("words", "done", "total", "left", "text"),
    [
        ("loading", 0, None, None, "loading"),
        ("reading", 1234, None, None, "reading: 1,234"),
        ("scoring", 0, 2000, None, "scoring: 0 of 2,000 (0%)"),
        ("scoring", 300, 2000, 141.0, "scoring: 300 of 2,000 (15%), about 140 s left"),
        ("playing", 1 / 3 + 1 / 3 + 1 / 3, 7, None, "playing: 1 of 7 (14%)"),
        ("writing", 0, 0, None, "writing: 0 of 0"),
    ],
)
def test_sentences(
    words: str, done: float, total: float | None, left: float | None, text: str
) -> None:
    found = Step(words, total)
    found(done)
    found.ends = None if left is None else 5.0 + left
    assert found.sentence(5.0) == text


# --- In lines ---------------------------------------------------------------------------------


def test_lines_say_what_how_far_and_what_is_left() -> None:
    stream = io.StringIO()
    with Reporter(stream, interval_sec=0.05), step("simulating", 10) as outer:
        outer.ends = time.monotonic() + 140
        outer(3)
        with step("loading the model"):
            text = wait_for("\n", stream)
    assert re.fullmatch(
        r"scout: simulating: 3 of 10 \(30%\), about 1[34]0 s left; loading the model; "
        r"\d+ s since start",
        text.splitlines()[0],
    )


def test_lines_name_what_has_no_step() -> None:
    stream = io.StringIO()
    with Reporter(stream, interval_sec=0.02):
        assert re.match(r"scout: starting; \d+ s since start\n", wait_for("starting", stream))
        with step("loading"):
            wait_for("loading", stream)
        wait_for("working", stream)
    assert re.search(r"\nscout: working; \d+ s since start\n", stream.getvalue())


@pytest.mark.parametrize(("interval_sec", "quiet"), [(30.0, False), (0.01, True)])
def test_short_and_quiet_commands_print_nothing(interval_sec: float, quiet: bool) -> None:
    stream = io.StringIO()
    with Reporter(stream, interval_sec, quiet), step("loading"):
        time.sleep(0.1)
    assert stream.getvalue() == ""


def test_one_reporter_at_a_time() -> None:
    outer, inner = io.StringIO(), io.StringIO()
    with Reporter(outer, interval_sec=0.02), step("loading"):
        with Reporter(inner, interval_sec=0.02):
            wait_for("loading", outer)
        seen = outer.getvalue()
        until = time.monotonic() + 10
        while outer.getvalue() == seen and time.monotonic() < until:
            time.sleep(0.01)
        assert outer.getvalue() != seen, "the inner one's end does not end the outer one"
    assert inner.getvalue() == ""
    with Reporter(inner, interval_sec=0.02):
        assert "starting" in wait_for("starting", inner), "the next one may"


def test_a_stream_that_is_gone_disturbs_nobody() -> None:
    class Gone(io.StringIO):
        tries = 0

        def write(self, text: str) -> int:
            Gone.tries += 1
            raise BrokenPipeError

    failed: list[object] = []
    before, threading.excepthook = threading.excepthook, failed.append
    try:
        with Reporter(Gone(), interval_sec=0.01):
            time.sleep(0.1)
    finally:
        threading.excepthook = before
    assert (Gone.tries, failed) == (1, [])


# --- On a terminal ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal of 80 columns; what is written to its stream is read from ``seen``."""

    stream: IO[str]
    seen: bytearray

    def wait_for(self, what: str) -> str:
        until = time.monotonic() + 10
        while what.encode() not in self.seen and time.monotonic() < until:
            time.sleep(0.01)
        return self.seen.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    reading, writing = pty.openpty()
    seen = bytearray()

    def read() -> None:
        try:
            while data := os.read(reading, 4096):
                seen.extend(data)
        except OSError:  # how a pty says that its other end is closed
            return

    thread = threading.Thread(target=read)
    thread.start()
    stream = os.fdopen(writing, "w", encoding="utf-8")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    yield Terminal(stream, seen)
    stream.close()
    thread.join()
    os.close(reading)


def test_bars_leave_room_for_lines_and_go(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_FIRST_DRAW_SEC", 0.01)
    monkeypatch.setattr(progress, "_DRAW_SEC", 0.02)
    long = "scout: written to /a/path/" + "that/is/long/" * 9 + "end"
    with redirect_stderr(terminal.stream), Reporter(), step("training [red] x", 20) as advance:
        for _ in range(3):
            advance(4)
            time.sleep(0.1)
        terminal.wait_for("12 of 20")
        progress.write(long)
        print("a library's line", file=sys.stderr)
        with step("loading"):
            terminal.wait_for("loading")
    print("ready", file=terminal.stream, flush=True)
    text = terminal.wait_for("ready\r\n")
    assert "training [red] x" in text and "━" in text
    assert f"{long}\r\n" in text, "whole, and on a line of its own"
    assert "a library's line\r\n" in text
    # The cursor is back, and the bars' rows are erased, the last thing that happens.
    end = text[text.rindex("\x1b[?25h") :]
    assert "\x1b[2K" in end and "━" not in end


def test_nothing_is_drawn_for_what_ends_at_once(terminal: Terminal) -> None:
    with redirect_stderr(terminal.stream):
        with Reporter(), step("training"):
            time.sleep(0.1)
        progress.write("scout: done")
    assert terminal.wait_for("done\r\n") == "scout: done\r\n"


def test_results_follow_when_the_bars_are_gone(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_FIRST_DRAW_SEC", 0.01)
    with redirect_stderr(terminal.stream), Reporter() as reporter, step("training"):
        terminal.wait_for("training")
        progress.finish()
        assert reporter.console is None
        print("ready", file=terminal.stream, flush=True)
        seen = terminal.wait_for("ready\r\n")
        time.sleep(0.3)
        assert terminal.seen.decode() == seen


def test_a_dumb_terminal_gets_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Reporter(terminal.stream, interval_sec=0.02), step("training"):
        text = terminal.wait_for("\r\n")
    assert re.match(r"scout: training; \d+ s since start\r\n", text) and "\x1b" not in text


def test_who_leaves_at_once_leaves_a_line_and_a_status() -> None:
    code = "from pipelines.console import progress; progress.leave('scout: end', 143)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "scout: end\n")


# --- The stages of a pipeline -----------------------------------------------------------------


def phase_of_a_run() -> tuple[str, float, float | None] | None:
    [one] = metrics.phase() or [None]
    return (one.words, one.done, one.total) if one else None


def test_the_stage_that_a_run_has_reached_is_shown() -> None:
    metrics.reset()
    assert phase_of_a_run() is None
    metrics.count("ReadAds", "records", 30)
    assert phase_of_a_run() == ("reading ads", 30, None)
    with metrics.shown():
        assert [one.words for one in steps()] == ["reading ads"]
    assert steps() == []
    metrics.count("CollapseDuplicates", "unique", 25)
    with metrics.timed("LoadModel"):
        assert phase_of_a_run() == ("preparing the model", 0, None)
    with metrics.timed("ScoreAds"):
        assert phase_of_a_run() == ("scoring ads", 0, 25), "as soon as it begins"
    metrics.count("ScoreAds", "done", 10)
    metrics.count("ScoreAds", "reused", 4)
    assert phase_of_a_run() == ("scoring ads", 10, 25)
    assert metrics.phase()[0].given == 4
    metrics.reset()
    assert phase_of_a_run() is None
