"""Asking a service: what its tokens say, patience, pace, money, and that nothing is asked twice."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models.backends import usage
from models.backends.answers import AnswerStore
from models.backends.base import Terms, Unavailable
from models.backends.service import Asking, Busy, Heard, Question, Refused, Service, log_odds

ASK = Question((("", "Ad: tea\nViolates:"),), " Yes", " No")
CHAT = Question((("user", "Tea?"),), "Yes", "No")


def logs(**shares: float) -> list[tuple[str, float]]:
    return [(token.replace("_", " "), math.log(share)) for token, share in shares.items()]


@pytest.mark.parametrize(
    ("question", "likely", "expected"),
    [
        (ASK, logs(_Yes=0.4, _No=0.1, _The=0.3), math.log(4)),
        # Where a completion goes on, white space and case are part of the answer.
        (ASK, logs(_Yes=0.4, _No=0.1, yes=0.2, No=0.2), math.log(4)),
        (CHAT, logs(Yes=0.3, yes=0.1, _No=0.1), math.log(4)),
        # The longest beginning of an answer speaks: Y may begin many a word.
        (ASK, logs(_Y=0.5, _Yes=0.2, _No=0.1), math.log(2)),
        (ASK, logs(_Y=0.5, _No=0.1, _The=0.3), math.log(0.1 / 0.1)),
        (
            Question(ASK.turns, "\u8fdd\u89c4", "\u5408\u89c4"),
            [("\u8fdd", -1.0), ("\u5408", -3.0)],
            2.0,
        ),
        (Question(ASK.turns, " clickbait", " benign"), logs(_click=0.2, _ben=0.1), math.log(2)),
        # A beginning that both share tells nothing.
        (Question(ASK.turns, " bad", " basic"), logs(_ba=0.5, _bad=0.2, _basic=0.1), math.log(2)),
        # What is not told has at most the least that is, or what is missing to 1.
        (ASK, logs(_Yes=0.5, _The=0.2), math.log(0.5 / 0.2)),
        (ASK, logs(_Yes=0.7, _The=0.25), math.log(0.7 / 0.05)),
        (ASK, logs(_The=0.3, _No=0.6), math.log(0.1 / 0.6)),
        (ASK, [("\u2581Yes", -1.0), ("\u2581No", -2.0)], 1.0),
    ],
)
def test_log_odds(question: Question, likely: list[tuple[str, float]], expected: float) -> None:
    assert log_odds(question, likely) == pytest.approx(expected, abs=1e-9)


def test_tokens_that_say_neither_are_no_answer() -> None:
    assert math.isnan(log_odds(ASK, logs(_The=0.5, Yes=0.2)))
    # What OpenAI gives a token that cannot be.
    assert math.isnan(log_odds(ASK, [(" Yes", -9999.0), (" The", -0.1)]))


class Scripted(Service):
    """Does what a script says, request by request, then answers."""

    def __init__(self, *script: Exception) -> None:
        self.script, self.asked = list(script), 0
        self.lock = threading.Lock()

    def ask(self, question: Question) -> Heard:
        with self.lock:
            self.asked += 1
            error = self.script.pop(0) if self.script else None
        if error:
            raise error
        return Heard(logs(_Yes=0.4, _No=0.1), 100, 1)


@pytest.fixture
def asking(tmp_path: Path) -> Callable[..., Asking]:
    usage.drain()

    def make(service: Service, **terms: float) -> Asking:
        store = AnswerStore(tmp_path / "a" / "answers.sqlite")
        return Asking(service, Terms(**terms), "https://api.example.org", "m", store)  # type: ignore[arg-type]

    return make


def questions(number: int) -> list[Question]:
    return [Question((("", f"Ad: tea {i}\nBad:"),), " Yes", " No") for i in range(number)]


def test_what_was_answered_is_asked_by_nobody_again(asking: Callable[..., Asking]) -> None:
    service = Scripted()
    first = asking(service)(questions(5) * 2)
    assert first == pytest.approx([math.log(4)] * 10)
    # Another process of this machine opens the same file.
    assert asking(service)(questions(6)) == pytest.approx([math.log(4)] * 6)
    assert service.asked == 6
    assert usage.drain() == {"asked": 6, "remembered": 5, "tokens_in": 600, "tokens_out": 6}


def test_a_killed_run_has_kept_what_was_answered(asking: Callable[..., Asking]) -> None:
    service, killed = Scripted(), Scripted()
    real = killed.ask

    def ask(question: Question) -> Heard:
        if killed.asked == 3:
            raise KeyboardInterrupt
        return real(question)

    killed.ask = ask  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        asking(killed, requests_at_once=1)(questions(8))
    asking(service)(questions(8))
    assert (killed.asked, service.asked) == (3, 5)


def test_a_busy_service_is_asked_again_and_every_request_counted(
    asking: Callable[..., Asking],
) -> None:
    service = Scripted(Busy("HTTP 429", 0.0), Busy("HTTP 500", 0.0), Busy("nonsense", 0.0))
    assert asking(service)(questions(4)) == pytest.approx([math.log(4)] * 4)
    counted = usage.drain()
    assert (counted["asked"], counted["asked_again"], service.asked) == (7, 3, 7)


def test_the_wait_that_a_service_asks_for_holds_all_requests(asking: Callable[..., Asking]) -> None:
    service = Scripted(Busy("HTTP 429", 0.4))
    started = time.monotonic()
    asking(service, requests_at_once=1)(questions(2))
    assert time.monotonic() - started >= 0.4


def test_patience_ends_with_one_sentence_and_nothing_lost(asking: Callable[..., Asking]) -> None:
    service = Scripted(Busy("HTTP 503", 30.0))
    with pytest.raises(
        Unavailable, match=r"example\.org: HTTP 503 \(asks to wait 30 s; .*is 5\)\. What it has"
    ):
        asking(service, patience_seconds=5, requests_at_once=1)(questions(3))
    assert service.asked == 1
    asking(service)(questions(3))
    assert service.asked == 4


def test_a_refused_text_costs_itself_alone_and_is_not_asked_again(
    asking: Callable[..., Asking],
) -> None:
    service = Scripted(Refused("HTTP 400 (it says: flagged)"))
    held = asking(service, requests_at_once=1)
    found = held(questions(3))
    assert found[0] == "HTTP 400 (it says: flagged)"
    assert found[1:] == pytest.approx([math.log(4)] * 2)
    assert held(questions(3))[0] == found[0]
    assert service.asked == 3
    # Another day it may be answered.
    assert asking(service)(questions(1)) == pytest.approx([math.log(4)])


def test_requests_keep_to_the_pace(asking: Callable[..., Asking]) -> None:
    started = time.monotonic()
    asking(Scripted(), requests_per_minute=1200)(questions(9))
    # Eight gaps of a twentieth of a second.
    assert time.monotonic() - started >= 0.4


def test_no_more_money_is_spent_than_is_allowed(asking: Callable[..., Asking]) -> None:
    service = Scripted()
    terms = {"price_in": 10_000.0, "price_out": 0.0, "max_cost": 2.5, "requests_at_once": 1}
    with pytest.raises(Unavailable, match=r"3\.00 is spent, server\.max_cost is 2\.50"):
        asking(service, **terms)(questions(8))
    # A request of 100 tokens costs 1: the third passes the limit, and the next run goes on.
    assert service.asked == 3
    with pytest.raises(Unavailable):
        asking(service, **terms)(questions(8))
    assert service.asked == 6


def test_a_cost_needs_both_prices() -> None:
    assert Terms(price_in=2.0).cost(10, 1) is None
    assert Terms(price_in=2.0, price_out=8.0).cost(1_000_000, 500_000) == 6.0


def test_answers_hold_no_text(asking: Callable[..., Asking], tmp_path: Path) -> None:
    asking(Scripted())(questions(3))
    data = b"".join(path.read_bytes() for path in (tmp_path / "a").iterdir())
    assert b"tea" not in data


def test_answers_last_as_long_as_the_process_where_none_can_be_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = AnswerStore(tmp_path / "file" / "answers.sqlite")
    store.add(b"k", 1.5)
    store.add(b"n", math.nan)
    assert "answers are not kept beyond this process" in caplog.text
    known = store.known([b"k", b"n", b"other"])
    assert known[b"k"] == 1.5
    assert math.isnan(known[b"n"])
    assert set(known) == {b"k", b"n"}


def test_several_write_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    stores = [AnswerStore(path) for _ in range(4)]

    def write(number: int) -> None:
        for i in range(50):
            stores[number].add(f"{number}-{i}".encode(), float(i))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [(rows,)] = sqlite3.connect(path).execute("SELECT count(*) FROM answers").fetchall()
    assert rows == 200
