"""Files on Cloud Storage, through the client that Beam makes, which is kept.

Beam's FileSystems make a client, with its connections, for every call, and ask three times for a small
file. Whatever Google's library raises goes through: ``pipelines.store.storage.reaching`` makes a sentence
of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from apache_beam.io.filesystem import FileSystem
from apache_beam.io.filesystems import FileSystems

GS = "gs://"
# What is asked of an object: an answer with all that is known of it is six times as long.
_FIELDS = "name,size,generation,md5Hash,crc32c"


class Stored(NamedTuple):
    """A file on a disk or on object storage.

    Attributes:
        path: its full path.
        bytes: its size.
        version: the state that it is in: another one after every writing, also of the same bytes.
        content: a checksum that the storage keeps; "" where it keeps none.
    """

    path: str
    bytes: int
    version: str
    content: str = ""


def read(path: str) -> bytes:
    """Return a whole file.

    Raises:
        FileNotFoundError: there is none, or no such bucket.
    """
    from google.api_core.exceptions import NotFound

    try:
        # As it is stored: unpacked on the way, a file would not be the one that was written.
        return bytes(_blob(path).download_as_bytes(raw_download=True))
    except NotFound as error:
        raise FileNotFoundError(path) from error


def write(path: str, data: bytes) -> None:
    """Write a whole file, in one request where it is small; it is there once all of it is."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    # The same bytes twice are the same file.
    _blob(path).upload_from_string(
        data, content_type="application/octet-stream", retry=DEFAULT_RETRY
    )


def write_generation(path: str, data: bytes, generation: int) -> int | None:
    """Write a small file in the place of one generation of it, 0 where there is to be none.

    Returns:
        the generation that was written; None where another one is there.
    """
    from google.api_core.exceptions import PreconditionFailed

    blob = _blob(path)
    try:
        blob.upload_from_string(
            data, content_type="application/octet-stream", if_generation_match=generation
        )
    except PreconditionFailed:
        return None
    return int(blob.generation)


def remove(path: str) -> None:
    """Remove a file that is there."""
    _blob(path).delete()


def remove_generation(path: str, generation: int) -> None:
    """Remove a file unless another generation of it is there, or none."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    with contextlib.suppress(NotFound, PreconditionFailed):
        _blob(path).delete(if_generation_match=generation)


def opened(path: str, fetched: int) -> Any:
    """Open a file to read it from any place, at least so many bytes a request.

    What is read is of one generation, to the end.
    """
    return _io().open(path, "rb", fetched)


def find(path: str) -> Stored | None:
    """Return what is known of a file, None where there is none."""
    bucket, _, name = path.removeprefix(GS).partition("/")
    found = _io().client.bucket(bucket).get_blob(name) if name else None
    return _of(path, found) if found else None


def matching(pattern: str) -> Iterator[Stored]:
    """Yield the files that a glob matches, by name, a page of the bucket's listing after the other."""
    prefix = re.split(r"[\[*?]", pattern, maxsplit=1)[0]
    if prefix == pattern:
        found = find(pattern)
        yield from [found] if found else []
        return
    bucket, _, names = prefix.removeprefix(GS).partition("/")
    matches = re.compile(FileSystem.translate_pattern(pattern)).match
    fields = f"items({_FIELDS}),nextPageToken"
    for item in _io().client.list_blobs(bucket, prefix=names, fields=fields):
        path = f"{GS}{bucket}/{item.name}"
        if matches(path):
            yield _of(path, item)


def _of(path: str, found: Any) -> Stored:
    # An object that was put together of parts has no MD5.
    checksum = found.md5_hash or found.crc32c or ""
    return Stored(path, int(found.size), str(found.generation), checksum)


def _blob(path: str) -> Any:
    bucket, _, name = path.removeprefix(GS).partition("/")
    return _io().client.bucket(bucket).blob(name)


def _io() -> Any:
    return _io_of(os.getpid(), threading.get_ident(), os.environ.get("STORAGE_EMULATOR_HOST", ""))


@functools.lru_cache(maxsize=64)
def _io_of(process: int, thread: int, emulator: str) -> Any:
    # A session is for one thread of one process.
    del process, thread, emulator
    return FileSystems.get_filesystem(GS)._gcsIO()
