"""Files that a manifest lists: one function writes and hashes, one reads and verifies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed
from pipelines.store import storage

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


def full_path(root: str, file: BlockFile) -> str:
    """Return where a file of a workspace lies."""
    return storage.join(root, *file.path.split("/"))


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


def json_lines(records: Iterable[Any]) -> bytes:
    """Return dataclasses or mappings as lines of JSON, in their order."""
    values = (record if isinstance(record, Mapping) else asdict(record) for record in records)
    return "".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in values).encode()


def gone(root: str, path: str) -> Damaged:
    """Return the error of a file that is not there; ``path`` is relative to the workspace."""
    return Damaged(f"{storage.join(root, *path.split('/'))}: is gone; {_cure(path)}")


def changed(root: str, path: str, found: str) -> Damaged:
    """Return the error of a file that is not what was written; ``path`` as in :func:`gone`."""
    first = "delete it and " if _stage(path) == "scored" else ""
    return Damaged(
        f"{storage.join(root, *path.split('/'))}: has changed since it was written ({found}); "
        f"{first}{_cure(path)}"
    )


def _stage(path: str) -> str:
    # rounds/0001/<stage>/attempt-..., or scores/<score key>/...
    return "scored" if path.startswith("scores/") else [*path.split("/"), "", ""][2]


def _cure(path: str) -> str:
    return _CURES.get(_stage(path), "restore it, a manifest counts on it")
