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
        raise gone(root, file) from None
    if len(data) != file.bytes:
        raise changed(root, file, sizes(len(data), file))
    if sha256(data) != file.sha256:
        raise changed(root, file, "its SHA-256 is another")
    return data


def json_lines(records: Iterable[Any]) -> bytes:
    """Return dataclasses or mappings as lines of JSON, in their order."""
    values = (record if isinstance(record, Mapping) else asdict(record) for record in records)
    return "".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in values).encode()


def gone(root: str, file: BlockFile) -> Damaged:
    """Return the error of a file that is not there."""
    return Damaged(f"{full_path(root, file)}: is gone; {_cure(file)}")


def changed(root: str, file: BlockFile, found: str) -> Damaged:
    """Return the error of a file that is not what was written."""
    first = "delete it and " if _stage(file) == "scored" else ""
    return Damaged(
        f"{full_path(root, file)}: has changed since it was written ({found}); {first}{_cure(file)}"
    )


def sizes(found: int, file: BlockFile) -> str:
    """Return what :func:`changed` says of another size."""
    return f"{found:,} bytes, {file.bytes:,} written"


def _stage(file: BlockFile) -> str:
    # rounds/0001/<stage>/attempt-...
    return [*file.path.split("/"), "", ""][2]


def _cure(file: BlockFile) -> str:
    return _CURES.get(_stage(file), "restore it, a manifest counts on it")
