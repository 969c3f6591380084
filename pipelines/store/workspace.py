"""The workspace: run folders, manifests, resume, and what was shown to experts before.

``<workspace>/rounds/0001/<stage>/attempt-0001-<random>/…``, and ``<workspace>/nights/<date>/…`` alike. Every
run of a stage writes into a fresh attempt folder, and the attempt counts only once its ``manifest.json`` is
there, which is written last. Readers follow manifests and never list data files. Nothing is overwritten.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipelines.contracts import FORMAT_VERSION, BlockFile, ReviewItem
from pipelines.errors import RunFailed, UsageError
from pipelines.store import files, lock, storage
from pipelines.store.facts import (
    FACTS,
    AuditFacts,
    ClustersFacts,
    ModelFacts,
    NightFacts,
    PairsFacts,
    ReviewFacts,
    ScoredFacts,
    VerdictsFacts,
    adapter,
)

STAGES = tuple(FACTS)
_ATTEMPT = re.compile(
    r"(?:rounds/(?P<round>\d{4})|nights/(?P<date>\d{4}-\d\d-\d\d))/(?P<stage>[a-z]+)"
    r"/attempt-(?P<number>\d{4})-[0-9a-f]{8}(?:/|$)"
)
# Of which attempts are: a round by its number, a night by its date.
Place = int | str

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Manifest(Generic[F]):
    """What a finished attempt of a stage holds.

    Attributes:
        stage: one of ``STAGES``.
        round: 1, 2, …; 0 of a night's.
        attempt: path of the attempt folder relative to the workspace.
        config_hash: hash of everything that shaped the output; equal hash, equal output.
        files: data files (paths relative to the workspace), in a stable order.
        rows: rows in all files.
        facts: provenance and counts, the stage's own dataclass of ``pipelines.store.facts``.
        created: UTC, ISO 8601.
        format_version: of the files.
    """

    # Of all that it holds, too.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    stage: str
    round: int
    attempt: str
    config_hash: str
    files: tuple[BlockFile, ...]
    rows: int
    facts: F
    created: str
    format_version: int = FORMAT_VERSION

    @classmethod
    def of(
        cls, attempt: str, config_hash: str, files: Iterable[BlockFile], rows: int, facts: F
    ) -> Manifest[F]:
        """Return the manifest of an attempt that is complete as of now."""
        place = _ATTEMPT.search(attempt)
        if place is None or FACTS.get(place["stage"]) is not type(facts):
            raise ValueError(f"{attempt}: no attempt to hold {type(facts).__name__}")
        number = int(place["round"] or 0)
        return cls(
            place["stage"], number, attempt, config_hash, tuple(files), rows, facts, utc_now()
        )

    def file(self, name: str) -> BlockFile:
        """Return the file of this name.

        Raises:
            RunFailed: the manifest lists none.
        """
        for file in self.files:
            if file.path.rpartition("/")[2] == name:
                return file
        raise RunFailed(f"{self.attempt}/manifest.json: lists no {name}; mine into a new workspace")

    def to_json(self) -> bytes:
        """Return the manifest file's content."""
        fields = _manifests_of(self.stage).dump_python(self, mode="json")
        return (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_json(data: bytes, path: str) -> Manifest[Any]:
        """Read a manifest file's content.

        Raises:
            RunFailed: the content is no manifest, or one of another version.
        """
        try:
            fields = json.loads(data)
            version = fields["format_version"]
            # Of format 2 only the scored ads are not read any more: they are scored again.
            if version in (2, FORMAT_VERSION):
                manifest: Manifest[Any] = _manifests_of(fields["stage"]).validate_json(data)
                return manifest
            newer = version > FORMAT_VERSION
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            what = str(error)
            if isinstance(error, ValidationError):
                [first, *_] = error.errors()
                what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise RunFailed(
                f"{path}: not a manifest of ad-scout ({what}); move this attempt folder away"
            ) from error
        raise RunFailed(
            f"{path}: written by {'a newer' if newer else 'an earlier'} version of ad-scout (format "
            f"{version}, this one reads {FORMAT_VERSION}); "
            f"{'upgrade ad-scout' if newer else 'mine into a new workspace'}"
        )


# What puts ads before experts.
Asked = Manifest[PairsFacts] | Manifest[AuditFacts]


def _manifests_of(stage: str) -> TypeAdapter[Any]:
    kind: Any = Manifest
    return adapter(kind[FACTS[stage]])


def config_hash(facts: Mapping[str, Any]) -> str:
    """Return the 16-character hash of a JSON-able description, independent of key order."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _folder(place: Place) -> str:
    return f"rounds/{place:04d}" if isinstance(place, int) else f"nights/{place}"


class Attempts(Generic[F]):
    """The committed attempts of one stage, in all rounds or nights.

    Args:
        workspace: the workspace.
        stage: one of ``STAGES``.
    """

    def __init__(self, workspace: Workspace, stage: str) -> None:
        self._workspace, self._stage = workspace, stage

    def all(self, place: Place) -> list[Manifest[F]]:
        """Return a round's or a night's attempts, oldest first."""
        return [self._read(path) for path in self._paths(_folder(place))]

    def latest(self, place: Place) -> Manifest[F] | None:
        """Return a round's or a night's newest attempt, or None."""
        paths = self._paths(_folder(place))
        return self._read(paths[-1]) if paths else None

    def find(self, place: Place, wanted_hash: str) -> Manifest[F] | None:
        """Return the newest attempt with this configuration of a round or night, or None."""
        newest_first = reversed(self.all(place))
        return next((found for found in newest_first if found.config_hash == wanted_hash), None)

    def by_round(self) -> dict[int, Manifest[F]]:
        """Return the newest attempt of every round that has one, by round."""
        return {int(name): found for name, found in self._newest("rounds", "round").items()}

    def by_date(self) -> dict[str, Manifest[F]]:
        """Return the newest attempt of every night that has one, by date."""
        return self._newest("nights", "date")

    def _newest(self, folder: str, kind: str) -> dict[str, Manifest[F]]:
        newest = {}
        for path in self._paths(f"{folder}/*"):
            found = _ATTEMPT.search(path)
            if found:
                newest[found[kind]] = path
        return {name: self._read(path) for name, path in newest.items()}

    def _paths(self, folder: str) -> list[str]:
        pattern = f"{folder}/{self._stage}/attempt-*/manifest.json"
        return [found.path for found in storage.match(self._workspace.path(pattern))]

    def _read(self, path: str) -> Manifest[F]:
        return Manifest.from_json(storage.read(path), path)


class Workspace:
    """One workspace folder, local or ``gs://``.

    Attributes:
        scored, clusters, pairs, review, verdicts, model, audit: the stages' attempts; ``scored`` also of the
            files of one date.
        night: what nights left behind.
    """

    def __init__(self, root: str) -> None:
        if not root:
            raise UsageError("--workspace: empty; name a folder (or gs://bucket/folder)")
        for char in "*?[]{}":
            if char in root:
                raise UsageError(
                    f"--workspace {root}: {char!r} has a meaning in file patterns; choose another "
                    "folder name"
                )
        self.root = root.rstrip("/") if root != "/" else root
        self.scored: Attempts[ScoredFacts] = Attempts(self, "scored")
        self.clusters: Attempts[ClustersFacts] = Attempts(self, "clusters")
        self.pairs: Attempts[PairsFacts] = Attempts(self, "pairs")
        self.review: Attempts[ReviewFacts] = Attempts(self, "review")
        self.verdicts: Attempts[VerdictsFacts] = Attempts(self, "verdicts")
        self.model: Attempts[ModelFacts] = Attempts(self, "model")
        self.audit: Attempts[AuditFacts] = Attempts(self, "audit")
        self.night: Attempts[NightFacts] = Attempts(self, "night")

    def writing(
        self, command: str, say: Callable[[str], None]
    ) -> contextlib.AbstractContextManager[None]:
        """Hold the workspace's lock while the body runs; see :func:`pipelines.store.lock.held`.

        What is read of a workspace to be changed by it is read inside.
        """
        return lock.held(self.root, command, say)

    def path(self, relative: str) -> str:
        """Return the full path of something in the workspace; raises as ``files.place`` does."""
        return files.place(self.root, relative)

    def new_attempt(self, place: Place, stage: str) -> str:
        """Return the relative path of a fresh attempt folder (created by its first file)."""
        folder = f"{_folder(place)}/{stage}"
        number = 1 + max((self._numbers(folder)), default=0)
        return f"{folder}/attempt-{number:04d}-{uuid.uuid4().hex[:8]}"

    def commit(self, manifest: Manifest[Any]) -> None:
        """Make an attempt count, by writing its manifest.

        Raises:
            LockLost: another command took over the lock that this process held.
        """
        lock.check(self.root)
        storage.write(self.path(f"{manifest.attempt}/manifest.json"), manifest.to_json())

    def manifest(self, attempt: str) -> Manifest[Any]:
        """Return the manifest of an attempt by its folder.

        Raises:
            FileNotFoundError: it is gone, or never counted.
        """
        path = self.path(f"{attempt}/manifest.json")
        return Manifest.from_json(storage.read(path), path)

    def latest(self, round_number: int, stage: str) -> Manifest[Any] | None:
        """Return the newest attempt of a stage that is known by its name alone, or None."""
        return Attempts[Any](self, stage).latest(round_number)

    def pairs_of(self, round_number: int | None = None) -> Manifest[PairsFacts]:
        """Return the newest pairs of a round, or those of the last round that has some.

        Raises:
            UsageError: there are none.
        """
        found = self.pairs.by_round()
        if not found:
            raise UsageError(f"--workspace {self.root}: holds no pairs; start with `scout mine`")
        number = max(found) if round_number is None else round_number
        if number not in found:
            known = ", ".join(map(str, sorted(found)))
            raise UsageError(
                f"--round {number}: has no pairs in {self.root} (rounds with pairs: {known})"
            )
        return found[number]

    def audit_of(self, round_number: int | None = None) -> Manifest[AuditFacts]:
        """Return the newest audit of a round, or that of the last round that has one.

        Raises:
            UsageError: there is none.
        """
        found = self.audit.by_round()
        number = max(found, default=0) if round_number is None else round_number
        if number not in found:
            where = f"--round {number}: has" if round_number else f"--workspace {self.root}: holds"
            raise UsageError(f"{where} no audit; `scout audit` draws one")
        return found[number]

    def verdicts_of(
        self, task_version: int, audits: bool = False
    ) -> dict[int, Manifest[VerdictsFacts]]:
        """Return the newest verdicts of every round that was mined for a version of the policy.

        Args:
            task_version: the version.
            audits: also of rounds with no verdict but on ads of an audit, which teach nothing.
        """
        pairs = self.pairs.by_round()
        return {
            number: verdicts
            for number, verdicts in self.verdicts.by_round().items()
            if number in pairs
            and pairs[number].facts.origin.task.version == task_version
            and (audits or not verdicts.facts.keys.of_audits_alone)
        }

    def rounds(self) -> list[int]:
        """Return the numbers of the rounds that have at least one committed stage."""
        found = storage.match(self.path("rounds/*/*/attempt-*/manifest.json"))
        return sorted({int(m["round"]) for item in found if (m := _ATTEMPT.search(item.path))})

    def current_round(self) -> int:
        """Return the round that ``mine`` works in.

        A round stays open until its labels or its model are there; then the next one begins.
        """
        known = self.rounds()
        if not known:
            return 1
        last = known[-1]
        verdicts = self.verdicts.latest(last)
        labelled = verdicts and not verdicts.facts.keys.of_audits_alone
        closed = labelled or self.model.latest(last)
        return last + 1 if closed else last

    def shown_keys(self, before_round: int) -> frozenset[str]:
        """Return the content keys of all ads shown to experts in earlier rounds, audits among them."""
        keys: set[str] = set()
        for number in self.rounds():
            if number >= before_round:
                continue
            # Every attempt: a sheet with a smaller budget may have been handed out too.
            keys = keys.union(*map(self.keys_of, self.asked(number)))
        return frozenset(keys)

    def asked(self, number: int) -> list[Asked]:
        """Return all attempts of a round that put ads before experts: pairs first, then audits."""
        return [*self.pairs.all(number), *self.audit.all(number)]

    def keys_of(self, manifest: Asked) -> set[str]:
        """Return the content keys of the ads that an attempt puts before experts."""
        return {ad.key for item in self.read_items(manifest) for ad in item.ads}

    def read_items(self, manifest: Asked) -> list[ReviewItem]:
        """Return the review items of a committed ``pairs`` or ``audit`` attempt, in review order.

        Raises:
            RunFailed: they are gone or have changed.
        """
        file = manifest.file("items.jsonl")
        lines = files.read(self.root, file).splitlines()
        # Not validate_json, which takes no half of a surrogate pair.
        return [adapter(ReviewItem).validate_python(json.loads(line)) for line in lines]

    def _numbers(self, folder: str) -> Iterable[int]:
        # Of attempts that count: one that was killed shares the number, not the name.
        found = storage.match(self.path(f"{folder}/attempt-*/manifest.json"))
        return [int(m["number"]) for item in found if (m := _ATTEMPT.search(item.path))]


def utc_now() -> str:
    """Return the current UTC time, to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
