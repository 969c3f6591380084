"""What all servers of labeling tools do alike: push what they lack, pull what was answered.

Items of one version of a task gather in a *place* of the server: a project, a data set. Its name is that
of the task and its version; single ads, whose form asks one question instead of two, have a place of
their own. A push sends only the items that a place lacks, so nothing is ever doubled or changed under
somebody's hands, and an interrupted push goes on where it stopped.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pipelines.console.progress import step
from pipelines.console.visible import printable
from pipelines.errors import RunFailed
from pipelines.tools.access import Access
from pipelines.tools.batch import Batch
from pipelines.tools.outgoing import PAIR, SINGLE

Say = Callable[[str], None]
# Item id -> its records on the server, the oldest first.
Held = dict[str, list[dict[str, Any]]]
_SHOWN = {name for slot in (*PAIR, *SINGLE) for name in (slot.text, slot.id)}


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push left behind in one place.

    Attributes:
        place: its name.
        url: where experts label.
        created: whether this push made it.
        added: items that were sent now.
        present: items of the batch that were there already.
        changed: settings of an older place that this push changed, by their names in the API.
    """

    place: str
    url: str
    created: bool
    added: int
    present: int
    changed: tuple[str, ...]


class Server(abc.ABC):
    """A tool's server, entered as one user.

    What a place is to it, and a record (an item as the server takes it), is the subclass's own matter.
    """

    # What people call a place, and where they look for it when there is none.
    noun: ClassVar[str]
    missing: ClassVar[str]
    # Said of people whose names are not told; ``{}`` are their numbers.
    strangers: ClassVar[str]
    records_a_call: ClassVar[int] = 250
    url: str

    @classmethod
    @abc.abstractmethod
    def connected(
        cls, url: str, token: str, environment: Mapping[str, str]
    ) -> AbstractContextManager[Self]:
        """Give the server; whatever goes wrong with it is one sentence.

        Raises:
            UsageError: an address that the token must not be sent to, or what it takes is missing.
            RunFailed: the server cannot be reached or refuses.
        """

    def push(self, batch: Batch, say: Say) -> list[Pushed]:
        """Create or update the batch's places and send the items that they lack.

        Args:
            batch: the items.
            say: told, in one line each, what a person should know.

        Raises:
            UsageError: the batch cannot be shown, or it is not clear where.
            RunFailed: the server refuses, or a place is not this task's.
        """
        return [self._push(part, say) for part in batch.by_size()]

    def pull(self, task: str, version: int, say: Say) -> bytes:
        """Return all answers to a version of a task, as an export file (JSON) that the tool's reader reads.

        The same answers are the same bytes; what changes when nobody answers is not in them.

        Raises:
            RunFailed: the server refuses, or holds nothing of the task.
        """
        names = [place_name(task, version, single) for single in (False, True)]
        places = [place for name in names if (place := self.find(name)) is not None]
        if not places:
            raise RunFailed(f"{self.url}: {self.missing.format(names[0])}; push the pairs first")
        records: list[dict[str, Any]] = []
        for place in places:
            found, strangers = self.answers(place)
            records += found
            if strangers:
                people = ", ".join(sorted(strangers))
                say(f"{self.address(place)}: {self.strangers.format(people)}")
        lines = ",\n".join(
            json.dumps(record, sort_keys=True) for record in sorted(records, key=lambda r: r["id"])
        )
        return f"[\n{lines}\n]\n".encode()

    # --- what a subclass knows of its server ---

    @abc.abstractmethod
    def address(self, place: Any) -> str:
        """Return where experts label in a place."""

    @abc.abstractmethod
    def find(self, name: str) -> Any:
        """Return the place of this name, or None.

        Raises:
            UsageError, RunFailed: several are, or one only looks like it.
        """

    @abc.abstractmethod
    def create(self, name: str, batch: Batch) -> Any:
        """Return a new place."""

    @abc.abstractmethod
    def adapt(self, place: Any, batch: Batch, say: Say) -> list[str]:
        """Bring a place's settings up to date; return which changed.

        Raises:
            RunFailed: answers given there could not be read as this task's.
        """

    @abc.abstractmethod
    def records(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the batch's records, an item each, in order."""

    @abc.abstractmethod
    def held(self, place: Any, batch: Batch) -> Held:
        """Return the records in a place, each with the server's own ``id``."""

    @abc.abstractmethod
    def fields(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a record, ours or the server's, by our names."""

    @abc.abstractmethod
    def send(self, place: Any, records: Sequence[dict[str, Any]]) -> bool:
        """Send some records; return whether the server took a request of this size."""

    def settle(self, place: Any, batch: Batch, before: Held, after: Held, say: Say) -> list[str]:
        """Do what is left once all is sent, from what was there before and is now; return what changed."""
        del place, batch, before, after, say
        return []

    @abc.abstractmethod
    def answers(self, place: Any) -> tuple[list[dict[str, Any]], set[str]]:
        """Return a place's records as the reader reads them, and people whose names are not told."""

    # --- the same for all ---

    def _push(self, batch: Batch, say: Say) -> Pushed:
        name = place_name(batch.task, batch.task_version, batch.sizes() == {1})
        # First of all: what cannot be shown must not leave an empty place.
        records = self.records(batch)
        place = self.find(name)
        created = place is None
        if created:
            place = self.create(name, batch)
            say(f"created the {self.noun} {name!r}: {self.address(place)}")
        changed = self.adapt(place, batch, say)
        if changed:
            say(f"{self.address(place)}: changed {', '.join(changed)}")
        wanted = {str(self.fields(record)["item_id"]): record for record in records}
        held = self.held(place, batch)
        self._say_differences(batch, wanted, held, say)
        missing = [record for id, record in wanted.items() if id not in held]
        self._send(place, batch, missing, say)
        there = self.held(place, batch) if missing else held
        lost = [id for id in wanted if id not in there]
        if lost:
            raise RunFailed(
                f"{self.address(place)}: lacks {batch.counted(len(lost))} of those sent ({lost[0]}, "
                "...); push again"
            )
        changed += self.settle(place, batch, held, there, say)
        present = len(wanted) - len(missing)
        return Pushed(name, self.address(place), created, len(missing), present, tuple(changed))

    def _say_differences(
        self,
        batch: Batch,
        wanted: Mapping[str, Mapping[str, Any]],
        held: Held,
        say: Say,
    ) -> None:
        """Say which items are there with other texts; an answer to them will be refused as such."""
        other = []
        for id, record in wanted.items():
            ours = {name: value for name, value in self.fields(record).items() if name in _SHOWN}
            theirs = [self.fields(found) for found in held.get(id, ())]
            if any(found.get(name) != ours[name] for found in theirs for name in ours):
                other.append(id)
        if other:
            say(
                f"in the {self.noun} with other texts or sides: {batch.counted(len(other))} "
                f"({other[0]}, ...); what is there stays as it is"
            )

    def _send(self, place: Any, batch: Batch, records: Sequence[dict[str, Any]], say: Say) -> None:
        """Send records in parts, smaller ones where the server takes no large requests."""
        size, done = self.records_a_call, 0
        with step(f"sending {batch.noun}s", len(records)) as advance:
            while done < len(records):
                part = records[done : done + size]
                if not self.send(place, part):
                    size = len(part) // 2
                    continue
                done += len(part)
                advance(len(part))
                if done < len(records):
                    say(f"{done:,} of {batch.counted(len(records))} sent")


def place_name(task: str, version: int, single: bool) -> str:
    """Return what the place of a task's pairs, or of its single ads, is called."""
    return f"{task} v{version}{', single ads' if single else ''}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what is behind it, as HTTP libraries wrap it, some without saying why."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return
        yield seen
        inner = getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in seen.args if isinstance(arg, BaseException)), None)
        seen = inner or seen.__cause__ or seen.__context__


def told(value: Any) -> str:
    """Return what a server's JSON answer says is wrong, "" for nothing."""
    if isinstance(value, dict):
        value = value.get("validation_errors") or value.get("detail") or value
    if not value:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_AGAIN = "run the command again (what has arrived is not sent twice)"
# Names of exceptions, of Python's and the HTTP libraries' -> what they mean, the first that fits.
_UNREACHED = (
    (
        {"SSLError", "SSLCertVerificationError"},
        "no trusted TLS connection ({last}); check the address, or name your own authority's "
        "certificate in {certificates}",
    ),
    ({"gaierror", "NameResolutionError"}, "no such host; check the address and the network"),
    ({"ProxyError"}, "the proxy that the environment names (HTTPS_PROXY) does not answer"),
    (
        {"ConnectionRefusedError"},
        "nothing listens there; is the server running, and is the port right?",
    ),
    (
        {"ConnectTimeout", "ConnectTimeoutError"},
        "no connection within {connect:g} s; check address and network",
    ),
    ({"ReadTimeout", "ReadTimeoutError"}, f"no answer within {{answer:g}} s; {_AGAIN}"),
)


def unreached(error: BaseException, connect: float, answer: float, certificates: str) -> str:
    """Return why there was no answer, and what to do about it.

    Args:
        error: what an HTTP library raised.
        connect: seconds that were waited for a connection.
        answer: seconds that were waited for an answer.
        certificates: the environment variable with which the library is told of authorities.
    """
    found = list(causes(error))
    kinds = {type(cause).__name__ for cause in found}
    last = printable(str(found[-1]), 160)
    broke = f"the connection broke ({type(found[-1]).__name__}); {_AGAIN}"
    said = next((sentence for names, sentence in _UNREACHED if names & kinds), "")
    filling = {"last": last, "connect": connect, "answer": answer, "certificates": certificates}
    return said.format(**filling) if said else broke


def refused(status: int, said: str, access: Access, target: str = "") -> str:
    """Return what an HTTP status means here, and what to do about it.

    Args:
        status: no success.
        said: what the server says, as a message may hold it.
        access: how the server is entered.
        target: where it redirects to.
    """
    quoted = f" (it says: {said})" if said else ""
    if 300 <= status < 400:
        return (
            f"redirects to {target or 'another address'}; the {access.token} is sent to the named "
            "server only: give the address that it redirects to, if it is the same server"
        )
    if status == 401:
        return (
            f"does not accept the {access.token} in {access.key}{quoted}; copy it again from this "
            f"server, where it may also have expired ({access.where})"
        )
    if status == 403:
        return f"the {access.token}'s user may not do that{quoted}; it takes {access.manager}"
    if status == 413:
        return "takes no request of this size; raise the limit of the proxy before the server"
    if status == 429 or status >= 500:
        return (
            f"HTTP {status}{quoted}; the server is overloaded or broken: look into "
            f"its log, and {_AGAIN.replace('again', 'again later')}"
        )
    return f"HTTP {status}{quoted or ', without a reason'}"
