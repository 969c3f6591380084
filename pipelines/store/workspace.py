"""The workspace: run folders, manifests, resume, and what was shown to experts before.

``<workspace>/rounds/0001/<stage>/attempt-0001-<random>/…``. Every run of a stage writes into a
fresh attempt folder, and the attempt counts only once its ``manifest.json`` is there, which is
written last. Readers follow manifests and never list data files. Nothing is overwritten.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.contracts import FORMAT_VERSION, BlockFile, ReviewItem
from pipelines.errors import RunFailed, UsageError
from pipelines.store import review_items, storage

STAGES = ("scored", "clusters", "pairs", "review", "verdicts", "model")
_ATTEMPT = re.compile(r"/rounds/(\d{4})/([a-z]+)/attempt-(\d{4})-[0-9a-f]{8}/")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished attempt of a stage holds.

    Attributes:
        stage: one of ``STAGES``.
        round: 1, 2, ….
        attempt: path of the attempt folder relative to the workspace.
        config_hash: hash of everything that shaped the output; equal hash, equal output.
        files: data files (paths relative to the workspace), in a stable order.
        rows: rows in all files.
        facts: provenance and counts (model id, prompt hash, versions, …), JSON values.
        created: UTC, ISO 8601.
        format_version: of the files.
    """

    stage: str
    round: int
    attempt: str
    config_hash: str
    files: tuple[BlockFile, ...]
    rows: int
    facts: Mapping[str, Any]
    created: str
    format_version: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """Return the manifest file's content."""
        return (json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, path: str) -> Manifest:
        """Read a manifest file's content.

        Raises:
            RunFailed: the content is no manifest, or one of a newer version.
        """
        try:
            fields = json.loads(data)
            fields["files"] = tuple(BlockFile(**item) for item in fields["files"])
            manifest = cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise RunFailed(
                f"{path}: not a manifest of ad-scout ({error}); move this attempt folder away"
            ) from error
        if manifest.format_version > FORMAT_VERSION:
            raise RunFailed(
                f"{path}: written by a newer version (format {manifest.format_version}, this one "
                f"reads up to {FORMAT_VERSION}); upgrade ad-scout"
            )
        return manifest


def config_hash(facts: Mapping[str, Any]) -> str:
    """Return the 16-character hash of a JSON-able description, independent of key order."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def block_record(file: BlockFile, score_key: str) -> bytes:
    """Return the record written beside a scored block once the block itself is complete.

    It is what lets the next run use the blocks of a run that was killed: a block without its
    record does not exist for any reader.
    """
    fields = {"score_key": score_key, **dataclasses.asdict(file)}
    return (json.dumps(fields, sort_keys=True) + "\n").encode()


class Workspace:
    """One workspace folder, local or ``gs://``."""

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

    def check_writable(self) -> None:
        """Try whether a local workspace can be written, before anything costs time.

        Raises:
            UsageError: it cannot, and why.
        """
        if not storage.is_local(self.root):
            return
        probe = self.path(f".probe-{uuid.uuid4().hex[:8]}")
        try:
            storage.write(probe, b"")
            os.unlink(probe)
        except OSError as error:
            raise UsageError(
                f"--workspace {self.root}: cannot be written ({error.strerror or error})"
            ) from error

    def is_whole(self, files: Iterable[BlockFile], sizes: Mapping[str, int]) -> bool:
        """Tell whether files are there in full size, by a listing of :meth:`block_sizes`."""
        return all(sizes.get(file.path) == file.bytes for file in files)

    def block_sizes(self) -> dict[str, int]:
        """List all scored blocks, relative path -> bytes."""
        found = storage.match(self.path("rounds/*/scored/attempt-*/block-*.parquet"))
        return {
            "/".join(item.path.replace("\\", "/").split("/")[-5:]): item.size_in_bytes
            for item in found
        }

    def path(self, relative: str) -> str:
        """Return the full path of something in the workspace."""
        return storage.join(self.root, *relative.split("/"))

    def new_attempt(self, round_number: int, stage: str) -> str:
        """Return the relative path of a fresh attempt folder (created by its first file)."""
        number = 1 + max((self._numbers(round_number, stage)), default=0)
        return f"rounds/{round_number:04d}/{stage}/attempt-{number:04d}-{uuid.uuid4().hex[:8]}"

    def commit(self, manifest: Manifest) -> None:
        """Make an attempt count, by writing its manifest."""
        storage.write(self.path(f"{manifest.attempt}/manifest.json"), manifest.to_json())

    def latest(self, round_number: int, stage: str) -> Manifest | None:
        """Return the newest committed attempt of a stage, or None."""
        found = storage.match(self._manifest_pattern(round_number, stage))
        return self._manifest(found[-1].path) if found else None

    def find(self, round_number: int, stage: str, wanted_hash: str) -> Manifest | None:
        """Return the newest committed attempt with this configuration, or None."""
        return next(
            (
                manifest
                for manifest in reversed(self.manifests(round_number, stage))
                if manifest.config_hash == wanted_hash
            ),
            None,
        )

    def manifests(self, round_number: int, stage: str) -> list[Manifest]:
        """Return the committed attempts of a stage, oldest first."""
        pattern = self._manifest_pattern(round_number, stage)
        return [self._manifest(found.path) for found in storage.match(pattern)]

    def rounds(self) -> list[int]:
        """Return the numbers of the rounds that have at least one committed stage."""
        found = storage.match(self.path("rounds/*/*/attempt-*/manifest.json"))
        return sorted({int(m[1]) for item in found if (m := _ATTEMPT.search(item.path))})

    def current_round(self) -> int:
        """Return the round that ``mine`` works in.

        A round stays open until its labels or its model are there; then the next one begins.
        """
        known = self.rounds()
        if not known:
            return 1
        last = known[-1]
        closed = any(self.latest(last, stage) for stage in ("verdicts", "model"))
        return last + 1 if closed else last

    def shown_keys(self, before_round: int) -> frozenset[str]:
        """Return the content keys of all ads shown to experts in earlier rounds."""
        keys: set[str] = set()
        for number in self.rounds():
            if number >= before_round:
                continue
            # Every attempt: a sheet with a smaller budget may have been handed out too.
            for manifest in self.manifests(number, "pairs"):
                for item in self.read_items(manifest):
                    keys.update(ad.key for ad in item.ads)
        return frozenset(keys)

    def read_items(self, manifest: Manifest) -> list[ReviewItem]:
        """Return the review items of a committed ``pairs`` attempt, in review order."""
        path = self.path(f"{manifest.attempt}/items.jsonl")
        return review_items.from_lines(storage.read(path), path)

    def scored_blocks(self, score_key: str) -> list[BlockFile]:
        """Return every finished block of this model and prompt, of all rounds and attempts.

        Blocks of attempts that were never committed count too: their own record says that they
        are whole. Sorted by path, so that of two blocks with the same ad the same one is used.
        """
        files = []
        sizes = self.block_sizes()
        for found in storage.match(self.path("rounds/*/scored/attempt-*/block-*.json")):
            try:
                fields = json.loads(storage.read(found.path))
                if fields.pop("score_key") == score_key:
                    file = BlockFile(**fields)
                    # A block that was deleted is scored anew.
                    if self.is_whole([file], sizes):
                        files.append(file)
            except (ValueError, TypeError, KeyError) as error:
                raise RunFailed(
                    f"{found.path}: not the record of a scored block ({error}); delete this file"
                ) from error
        return sorted(files, key=lambda file: file.path)

    def _manifest_pattern(self, round_number: int, stage: str) -> str:
        return self.path(f"rounds/{round_number:04d}/{stage}/attempt-*/manifest.json")

    def _manifest(self, path: str) -> Manifest:
        return Manifest.from_json(storage.read(path), path)

    def _numbers(self, round_number: int, stage: str) -> Iterable[int]:
        pattern = self.path(f"rounds/{round_number:04d}/{stage}/attempt-*/*")
        return [int(m[3]) for item in storage.match(pattern) if (m := _ATTEMPT.search(item.path))]


def utc_now() -> str:
    """Return the current UTC time, to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
