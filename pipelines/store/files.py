"""Files that a manifest lists: one function writes and hashes, one reads and verifies."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed
from pipelines.store import storage

# What would lead out of a folder, or be no name on some system.
_OUTWARD = re.compile(r"(^|/)(\.{1,2})?(/|$)|[\\\x00]|^[A-Za-z]:|://")
# The start of the content's hash in a file's name.
_NAMED = re.compile(r"(?:^|[/-])([0-9a-f]{20})\.\w+$")
# Stage -> what helps where a file of it is lost.
_CURES = {
    "scored": "run again: its ads are scored anew",
    "model": "restore it or train again",
}


class Damaged(RunFailed):
    """What a manifest counts on is gone or has changed."""


def sha256(data: bytes) -> str:
    """Return the hex SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def place(root: str, path: str) -> str:
    """Return where something lies that a file names relative to a folder: always inside.

    Whatever names a file in a manifest, or in what a manifest lists, passes here: who may write into a shared
    bucket must not choose which files of a reader's machine are read or written.

    Args:
        root: the folder, a workspace mostly.
        path: relative, with forward slashes.

    Raises:
        RunFailed: the path leads, or could lead, out of the folder.
    """
    if _OUTWARD.search(path):
        raise RunFailed(
            f"{root}: a file in it names {path!r}, which is no place inside; it was changed by other means than "
            "ad-scout: restore it"
        )
    return storage.join(root, *path.split("/"))


def full_path(root: str, file: BlockFile) -> str:
    """Return where a file of a workspace lies; raises as :func:`place` does."""
    return place(root, file.path)


def write(root: str, path: str, data: bytes, rows: int = 1) -> BlockFile:
    """Write a file into an attempt; returns what its manifest says of it.

    Args:
        root: the workspace.
        path: relative to it; ``*`` stands for the start of the content's hash.
        data: the content.
        rows: rows in it.
    """
    digest = sha256(data)
    file = BlockFile(path.replace("*", digest[:20]), rows, len(data), digest)
    storage.write(full_path(root, file), data)
    return file


def read(root: str, file: BlockFile) -> bytes:
    """Return a file that a manifest lists, as it was written.

    Raises:
        Damaged: it is gone or has changed; says what helps.
    """
    try:
        data = storage.read(full_path(root, file))
    except FileNotFoundError:
        raise gone(root, file.path) from None
    if len(data) != file.bytes:
        raise changed(root, file.path, f"{len(data):,} bytes, {file.bytes:,} written")
    if sha256(data) != file.sha256:
        raise changed(root, file.path, "its SHA-256 is another")
    return data


def named(root: str, path: str) -> bytes:
    """Return a file whose name holds the start of its SHA-256, 20 hex digits; raises as :func:`read` does."""
    try:
        data = storage.read(place(root, path))
    except FileNotFoundError:
        raise gone(root, path) from None
    if (held := _NAMED.search(path)) is None or held[1] != sha256(data)[:20]:
        raise changed(root, path, "its SHA-256 is another")
    return data


def json_lines(records: Iterable[Any]) -> bytes:
    """Return dataclasses or mappings as lines of JSON, in their order."""
    values = (record if isinstance(record, Mapping) else asdict(record) for record in records)
    return "".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in values).encode()


def gone(root: str, path: str) -> Damaged:
    """Return the error of a file that is not there; ``path`` is relative to the workspace."""
    return Damaged(f"{place(root, path)}: is gone; {_cure(path)}")


def changed(root: str, path: str, found: str) -> Damaged:
    """Return the error of a file that is not what was written; ``path`` as in :func:`gone`."""
    first = "delete it and " if _stage(path) == "scored" else ""
    return Damaged(
        f"{place(root, path)}: has changed since it was written ({found}); {first}{_cure(path)}"
    )


def _stage(path: str) -> str:
    # rounds/0001/<stage>/attempt-..., or scores/<score key>/...
    return "scored" if path.startswith("scores/") else [*path.split("/"), "", ""][2]


def _cure(path: str) -> str:
    return _CURES.get(_stage(path), "restore it, a manifest counts on it")
