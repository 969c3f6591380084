"""Whole files on local disk or object storage, through Beam's FileSystems.

A file appears whole or not at all: locally by writing beside and renaming, on object storage
because an object exists only once its upload is complete.
"""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from pipelines.errors import RunFailed, UsageError


def is_local(path: str) -> bool:
    """Tell whether a path is on this machine's disk."""
    return "://" not in path


def join(base: str, *parts: str) -> str:
    """Join path parts, local or remote.

    Raises:
        UsageError: the base is on a kind of storage that is not known.
    """
    if not parts or is_local(base):
        return os.path.join(base, *parts)
    try:
        return FileSystems.join(base, *parts)
    except ValueError as error:
        raise UsageError(
            f"{base}: {base.partition('://')[0]}:// is no storage that is known here; give a local "
            "path, gs://, or install the Apache Beam extra of that storage"
        ) from error


def write(path: str, data: bytes) -> None:
    """Write a whole file, atomically; an existing file of that name is replaced.

    Raises:
        OSError: the disk does not take it.
        RunFailed: object storage does not.
    """
    if not is_local(path):
        with (
            _reaching(path),
            FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as sink,
        ):
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
        RunFailed: object storage cannot be reached, or does not let us in.
    """
    if is_local(path):
        return Path(path).read_bytes()
    with _reaching(path):
        if not FileSystems.exists(path):
            raise FileNotFoundError(path)
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source:
            return source.read()


def open_ranges(path: str) -> BinaryIO:
    """Open a file to read ranges of it; raises as :func:`read` does.

    Of object storage the whole file comes at once: Beam's readers fetch 16 MiB from wherever they
    seek to, so that two ranges of a block of one megabyte would cost more than the block.
    """
    if is_local(path):
        return open(path, "rb", buffering=0)
    return io.BytesIO(read(path))


def exists(path: str) -> bool:
    """Tell whether a file is there; raises as :func:`read` does."""
    if is_local(path):
        return Path(path).exists()
    with _reaching(path):
        return FileSystems.exists(path)


def match(pattern: str) -> list[FileMetadata]:
    """List the files that match a glob, sorted by path; none is an empty list.

    Raises as :func:`read` does.
    """
    if is_local(pattern):
        found = FileSystems.match([pattern])
    else:
        with _reaching(pattern):
            found = FileSystems.match([pattern])
    return sorted(found[0].metadata_list, key=lambda item: item.path)


@contextlib.contextmanager
def _reaching(path: str) -> Iterator[None]:
    """Tell what object storage complains of: every kind has exceptions of its own."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        cause: BaseException = error
        # Beam wraps the reason twice, in dictionaries by path.
        while isinstance(cause, BeamIOError) and cause.exception_details:
            [cause, *_] = cause.exception_details.values()
        what = str(cause).strip() or type(cause).__name__
        raise RunFailed(
            f"{path}: object storage does not answer as it should ({type(cause).__name__}: {what}); "
            "look at the address, your credentials and the network"
        ) from error
