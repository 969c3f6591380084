"""Whole files on local disk or object storage, through Beam's FileSystems.

A file appears whole or not at all: locally by writing beside and renaming, on object storage
because an object exists only once its upload is complete.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems


def is_local(path: str) -> bool:
    """Tell whether a path is on this machine's disk."""
    return "://" not in path


def join(base: str, *parts: str) -> str:
    """Join path parts, local or remote."""
    return FileSystems.join(base, *parts) if parts else base


def write(path: str, data: bytes) -> None:
    """Write a whole file, atomically; an existing file of that name is replaced."""
    if not is_local(path):
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as sink:
            sink.write(data)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(partial, "wb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def read(path: str) -> bytes:
    """Read a whole file.

    Raises:
        FileNotFoundError: there is none.
    """
    if is_local(path):
        return Path(path).read_bytes()
    if not FileSystems.exists(path):
        raise FileNotFoundError(path)
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source:
        return source.read()


def exists(path: str) -> bool:
    """Tell whether a file is there."""
    return Path(path).exists() if is_local(path) else FileSystems.exists(path)


def match(pattern: str) -> list[FileMetadata]:
    """List the files that match a glob, sorted by path; none is an empty list."""
    found = FileSystems.match([pattern])[0].metadata_list
    return sorted(found, key=lambda item: item.path)
