"""Asking a service over a network: several questions at once, patiently, counted, and none twice.

A service is asked for the likeliest first tokens of its answer (`Service.ask`); the two answers are
looked for among them (`log_odds`). What a request may fail of is one of three: the service is `Busy` and
is asked again, it `Refused` this text, or it is `Unavailable` and the run ends, with all answers kept.
"""

from __future__ import annotations

import abc
import hashlib
import json
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import tenacity

from models.backends import usage
from models.backends.answers import AnswerStore
from models.backends.base import Terms, Unavailable
from pipelines.console.progress import step

# Of the waits before a request is sent again, where the service names none: doubled each time, with a
# random part, so that workers do not come back together.
_LONGEST_WAIT_SEC = 60.0
# A guess at characters a token, for what is said before anything is asked.
CHARS_PER_TOKEN = 4
# Of a token that stands for an answer: three letters, or one ideogram; fewer where the answer is shorter.
_LEAST_BYTES = 3
# Probability that the tokens which a service does not tell may have left.
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt with an ad in it.

    Attributes:
        turns: role and text of each turn of a chat; one without a role for text to go on with.
        positive, negative: the two answers that are compared.
    """

    turns: tuple[tuple[str, str], ...]
    positive: str
    negative: str

    @property
    def is_chat(self) -> bool:
        """Whether a service is asked by turns."""
        return bool(self.turns[0][0])

    @property
    def characters(self) -> int:
        """Length of all turns."""
        return sum(len(text) for _, text in self.turns)

    def key(self, name: str) -> bytes:
        """Return 32 bytes over all that decides the answer.

        Args:
            name: of the model, and of how much it tells.
        """
        shape = [name, self.turns, self.positive, self.negative]
        return hashlib.sha256(json.dumps(shape).encode()).digest()


@dataclass(frozen=True, slots=True)
class Heard:
    """What a service said.

    Attributes:
        likely: the likeliest first tokens of the answer, as text, with their log-probabilities.
        tokens_in, tokens_out: what it read and wrote, as it counts.
    """

    likely: Sequence[tuple[str, float]]
    tokens_in: int
    tokens_out: int


class Busy(Exception):
    """No answer this time, or nonsense: to be asked again.

    Attributes:
        after: seconds that the service asks to wait; None where it does not say.
    """

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Refused(ValueError):
    """The service will not answer this question, however often it is asked."""


class Service(abc.ABC):
    """Something that answers questions; used by several threads."""

    @abc.abstractmethod
    def ask(self, question: Question) -> Heard:
        """Ask once.

        Raises:
            Busy: to be asked again.
            Refused: this question gets no answer.
            Unavailable: no question does.
        """


def log_odds(question: Question, likely: Sequence[tuple[str, float]]) -> float:
    """Return the log-odds of the positive answer against the negative one, by a first token's text.

    A token speaks for an answer that begins with it, if the other does not and it is no mere letter or two
    (" Y" begins many a word beside " Yes"); of several beginnings the longest, which is what a vocabulary
    makes of the whole answer. In a chat neither case nor white space
    counts, so several spellings may speak together. An answer that is not among the tokens gets the most that they leave it: the least of their
    probabilities, or what is missing to 1.

    Returns:
        NaN where neither answer is among them.
    """
    answers = [_folded(question, text) for text in (question.positive, question.negative)]
    found, longest = [0.0, 0.0], [0, 0]
    for token, logprob in likely:
        text = _folded(question, token)
        size = len(text.strip().encode())
        speaks = [
            answer.startswith(text) and size >= min(_LEAST_BYTES, len(answer.strip().encode()))
            for answer in answers
        ]
        if speaks[0] == speaks[1]:
            continue
        which = speaks.index(True)
        if len(text) > longest[which]:
            found[which], longest[which] = 0.0, len(text)
        if len(text) == longest[which]:
            found[which] += math.exp(logprob)
    if not any(found):
        return math.nan
    total = math.fsum(math.exp(logprob) for _, logprob in likely)
    left = min(math.exp(min(logprob for _, logprob in likely)), max(1.0 - total, _LEAST))
    positive, negative = (math.log(p or left or _LEAST) for p in found)
    return positive - negative


def _folded(question: Question, text: str) -> str:
    text = text.replace("\u2581", " ")
    return text.strip().casefold() if question.is_chat else text


class _Pace:
    """Spreads requests over time, and holds all of them back when the service asks for it."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Wait for a turn, or until all is to stop."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            stop.wait(turn - now)

    def hold(self, seconds: float) -> None:
        """Let nobody ask for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class Asking:
    """Asks a service many questions.

    Attributes:
        cost: of what was asked so far, in the currency of the prices; 0 where these are unknown.
    """

    def __init__(
        self, service: Service, terms: Terms, place: str, name: str, store: AnswerStore
    ) -> None:
        """Prepare; nothing is asked.

        Args:
            service: whom.
            terms: how many at once, how fast, how patiently, and for how much.
            place: what messages call the service.
            name: of the model and of how much it tells, for the answers' keys.
            store: keeps the answers.
        """
        self._service, self._terms, self._place = service, terms, place
        self._name, self._store = name, store
        self._pace = _Pace(terms.requests_per_minute)
        # Not kept beyond this process: what a service refuses today it may answer tomorrow.
        self._refusals: dict[bytes, str] = {}
        self._lock = threading.Lock()
        self.cost = 0.0

    def __call__(self, questions: Sequence[Question]) -> list[float | str]:
        """Return each question's log-odds, as `log_odds` does, or why the service refused it.

        Every answer is kept as it comes, so that what follows a failure asks the others alone.

        Raises:
            Unavailable: the service answers nobody, or the run's money is spent.
        """
        keys = [question.key(self._name) for question in questions]
        found: dict[bytes, float | str] = {**self._store.known(dict.fromkeys(keys))}
        found |= {key: self._refusals[key] for key in keys if key in self._refusals}
        usage.count(usage.REMEMBERED, len(found))
        new = {k: q for k, q in zip(keys, questions, strict=True) if k not in found}
        if new:
            self._ask_all(new, found)
        return [found[key] for key in keys]

    def _ask_all(self, new: dict[bytes, Question], found: dict[bytes, float | str]) -> None:
        stop = threading.Event()
        workers = min(self._terms.requests_at_once, len(new))
        with (
            step("asking the model", len(new)) as advance,
            ThreadPoolExecutor(workers) as pool,
        ):
            asked = {pool.submit(self._one, key, q, stop): key for key, q in new.items()}
            try:
                for future in as_completed(asked):
                    found[asked[future]] = future.result()
                    advance()
            except BaseException:
                # Those that wait give up; those that are on their way are paid for, and kept.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _one(self, key: bytes, question: Question, stop: threading.Event) -> float | str:
        patience = self._terms.patience_seconds
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Busy),
            wait=_wait,
            stop=tenacity.stop_any(
                tenacity.stop_before_delay(patience), tenacity.stop_when_event_set(stop)
            ),
            sleep=tenacity.sleep_using_event(stop),
            before_sleep=self._held_back,
            reraise=True,
        )
        try:
            heard = again(self._ask, question, stop)
        except Busy as busy:
            asks = f"asks to wait {busy.after:,.0f} s" if busy.after else f"after {patience:,.0f} s"
            raise Unavailable(
                f"{self._place}: {busy} ({asks}; server.patience_seconds is {patience:,.0f}). What it "
                "has answered is kept: run the command again later"
            ) from None
        except Refused as refused:
            self._refusals[key] = str(refused)
            return str(refused)
        answer = log_odds(question, heard.likely)
        self._store.add(key, answer)
        return answer

    def _ask(self, question: Question, stop: threading.Event) -> Heard:
        limit = self._terms.max_cost
        if limit is not None and self.cost >= limit:
            raise Unavailable(
                f"{self._place}: {self.cost:,.2f} is spent, server.max_cost is {limit:,.2f}. What was "
                "answered is kept: raise the limit and run the command again"
            )
        self._pace.wait(stop)
        usage.count(usage.ASKED)
        heard = self._service.ask(question)
        usage.count(usage.TOKENS_IN, heard.tokens_in)
        usage.count(usage.TOKENS_OUT, heard.tokens_out)
        with self._lock:
            self.cost += self._terms.cost(heard.tokens_in, heard.tokens_out) or 0.0
        return heard

    def _held_back(self, state: tenacity.RetryCallState) -> None:
        usage.count(usage.ASKED_AGAIN)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Busy) and error.after:
            self._pace.hold(error.after)


_spread = tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_SEC)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Busy) and error.after is not None:
        return error.after
    return _spread(state)
