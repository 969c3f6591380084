"""Whole files on local disk or object storage; what is not Cloud Storage goes through Beam's FileSystems.

A file appears whole or not at all: locally by writing beside and renaming, on object storage
because an object exists only once its upload is complete.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from models import locks
from pipelines.errors import RunFailed, UsageError, disk_fault, no_file
from pipelines.store import cloud
from pipelines.store.cloud import GS

# What a request to Cloud Storage fetches of a file that is read in a stream, as Beam does, and of one of which
# little is needed at a place.
FETCHED_BYTES, FEW_BYTES = 16 << 20, 1 << 18
_BUFFER_BYTES = 1 << 20
# What a file is called while it is written.
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


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
        OSError: it may not be written there.
        RunFailed: the disk is full, read-only or broken, or object storage does not take it.
    """
    if not is_local(path):
        with reaching(path):
            _write_far(path, data)
        return
    try:
        _write_near(Path(path), data)
    except OSError as error:
        if fault := disk_fault(error, path, len(data)):
            raise fault from error
        raise


def _write_near(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        # Held while it is written, so that it can be told from what a killed command left.
        with open(partial, "wb") as sink, locks.held(sink.fileno()):
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
            if locks.HOLDS:
                os.replace(partial, target)
        if not locks.HOLDS:
            # Windows renames no open file.
            os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def sweep(folder: str, deep: bool = False) -> int:
    """Remove what killed commands left of files that they were writing, in a local folder.

    Args:
        folder: which need not be there.
        deep: whether in the folders in it, too.

    Returns:
        how many there were.
    """
    found = 0
    for place, folders, names in os.walk(folder):
        if not deep:
            folders.clear()
        for name in filter(_PARTIAL.fullmatch, names):
            found += locks.remove_abandoned(os.path.join(place, name))
    return found


def _write_far(path: str, data: bytes) -> None:
    if path.startswith(GS):
        cloud.write(path, data)
        return
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as sink:
        sink.write(data)


def remove(path: str) -> None:
    """Remove a file that is there; raises as :func:`read` does."""
    if is_local(path):
        os.unlink(path)
        return
    with reaching(path):
        if path.startswith(GS):
            cloud.remove(path)
        else:
            FileSystems.delete([path])


def read(path: str) -> bytes:
    """Read a whole file.

    Raises:
        FileNotFoundError: there is none.
        UsageError: it is a pipe or a device, of which the end may never come.
        RunFailed: object storage cannot be reached, or does not let us in.
    """
    if is_local(path):
        _check_file(path)
        return Path(path).read_bytes()
    with reaching(path):
        if path.startswith(GS):
            return cloud.read(path)
        if not FileSystems.exists(path):
            raise FileNotFoundError(path)
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source:
            return source.read()


def open_ranges(path: str) -> BinaryIO:
    """Open a file to read ranges of it; raises as :func:`read` does.

    Of object storage the whole file comes at once: two ranges of a block of one megabyte would cost more
    requests than the block.
    """
    if is_local(path):
        _check_file(path)
        return open(path, "rb", buffering=0)
    return io.BytesIO(read(path))


def exists(path: str) -> bool:
    """Tell whether a file is there; raises as :func:`read` does."""
    if is_local(path):
        return Path(path).exists()
    with reaching(path):
        if path.startswith(GS):
            return cloud.find(path) is not None
        return FileSystems.exists(path)


def match(pattern: str) -> list[FileMetadata]:
    """List the files that match a glob, sorted by path; none is an empty list.

    Raises as :func:`read` does.
    """
    if is_local(pattern):
        found = FileSystems.match([pattern])[0].metadata_list
    else:
        with reaching(pattern):
            if pattern.startswith(GS):
                found = [FileMetadata(path, size) for path, size, *_ in cloud.matching(pattern)]
            else:
                found = FileSystems.match([pattern])[0].metadata_list
    return sorted(found, key=lambda item: item.path)


def opened(path: str, fetched: int = FETCHED_BYTES) -> BinaryIO:
    """Open a file to read it from any place, in a stream; raises as :func:`read` does.

    What object storage complains of while it is read is told as one sentence, too.

    Args:
        path: the file.
        fetched: bytes that a request to Cloud Storage fetches at least.
    """
    if is_local(path):
        _check_file(path)
        return open(path, "rb")
    with reaching(path):
        if path.startswith(GS):
            found = cloud.opened(path, fetched)
        else:
            found = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        found.seek(0, os.SEEK_END)
        size = int(found.tell())
        found.seek(0)
        if size <= _BUFFER_BYTES:
            with found:
                return io.BytesIO(found.read())
    raw = _Reached(path, found, size)
    return cast(BinaryIO, io.BufferedReader(raw, min(fetched, _BUFFER_BYTES)))


def _check_file(path: str) -> None:
    if kind := no_file(path):
        raise UsageError(f"{path}: is {kind}, not a file; write what it gives into a file first")


class _Reached(io.RawIOBase):
    """An open file of object storage."""

    # Where the end is known, nothing is asked for behind it.
    def __init__(self, path: str, source: Any, size: int) -> None:
        self._path, self._source, self._bytes = path, source, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._bytes - self._at)
        if wanted <= 0:
            return 0
        with reaching(self._path):
            data = self._source.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._bytes}[whence]
        self._at = min(start + offset, self._bytes)
        with reaching(self._path):
            self._source.seek(self._at)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._source.close()
        super().close()


@contextlib.contextmanager
def reaching(path: str) -> Iterator[None]:
    """Tell what object storage complains of: every kind has exceptions of its own.

    Raises:
        RunFailed: instead of any of them but FileNotFoundError.
    """
    try:
        yield
    except (FileNotFoundError, RunFailed):
        raise
    except Exception as error:
        cause: BaseException = error
        # Beam wraps the reason twice, in dictionaries by path.
        while isinstance(cause, BeamIOError) and cause.exception_details:
            [cause, *_] = cause.exception_details.values()
        # And Google what was tried for two minutes.
        cause = getattr(cause, "cause", None) or cause
        response = getattr(cause, "response", None)
        what = _words_of(response) or str(cause).strip() or type(cause).__name__
        code = getattr(cause, "code", None) or getattr(response, "status_code", None)
        said, remedy = _FAULTS.get(code if isinstance(code, int) else 0, _FAULTS[0])
        raise RunFailed(f"{path}: {said} ({type(cause).__name__}: {what}); {remedy}") from error


def _words_of(response: Any) -> str:
    """Return what a server of Google's says of a failure, without the address that was asked."""
    try:
        return str(response.json()["error"]["message"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return ""


# HTTP status -> what it means, and what to do.
_FAULTS = {
    0: (
        "object storage does not answer as it should",
        "look at the address, your credentials and the network",
    ),
    401: ("object storage does not know who asks", "look at your credentials"),
    403: (
        "object storage does not let us in",
        "give the account that runs this access to the bucket",
    ),
    404: ("there is no such bucket or object", "create it, or mend the address"),
    429: ("object storage is asked too often, and went on saying so", "run it again later"),
    503: ("object storage is out of order, and stayed so", "run it again later"),
}
