"""What lies where a pattern points, one file after the other: no list of a corpus is held.

Cloud Storage is asked for pages of names, sizes and checksums; a disk is walked a folder at a time. Of
other object storage Beam's FileSystems hold a pattern's list while it is read.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

from pipelines.store import storage

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


def matching(pattern: str) -> Iterator[Stored]:
    """Yield the files that a glob matches, in the storage's own order; none is no error.

    ``*`` stays within a folder, ``**`` does not. A local file that links lead to comes once for each.

    Raises:
        RunFailed: object storage cannot be reached, or does not let us in.
    """
    if storage.is_local(pattern):
        # A name may hold brackets: what exists to the letter is meant to the letter.
        names = [pattern] if os.path.exists(pattern) else glob.iglob(pattern, recursive=True)
        yield from (_on_disk(name) for name in names if os.path.isfile(name))
        return
    with storage.reaching(pattern):
        if pattern.startswith(storage.GS):
            yield from _in_bucket(pattern)
        else:
            found = FileSystems.match([pattern])[0].metadata_list
            yield from map(_of_metadata, found)


def inside(folder: str) -> Iterator[Stored]:
    """Yield the files of a local folder, however deep; raises as :func:`matching` does."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path):
                yield _on_disk(path)


def version_of(path: str) -> str:
    """Return the state that a file is in now, "" where it is gone; raises as :func:`matching` does."""
    try:
        if storage.is_local(path):
            return _on_disk(path).version
        with storage.reaching(path):
            if path.startswith(storage.GS):
                found = _object(path)
                return str(found.generation) if found else ""
            return _of_metadata(FileSystems.get_filesystem(path).metadata(path)).version
    except FileNotFoundError:
        return ""


def _on_disk(path: str) -> Stored:
    found = os.stat(path)
    return Stored(path, found.st_size, str(found.st_mtime_ns))


def _of_metadata(found: FileMetadata) -> Stored:
    return Stored(found.path, found.size_in_bytes, repr(float(found.last_updated_in_seconds or 0)))


def _in_bucket(pattern: str) -> Iterator[Stored]:
    literal = re.match(r"[^[*?]*", pattern)
    prefix = literal[0] if literal else ""
    if prefix == pattern:
        found = _object(pattern)
        yield from [_of_object(pattern, found)] if found else []
        return
    bucket, _, names = prefix.removeprefix(storage.GS).partition("/")
    matches = re.compile(FileSystem.translate_pattern(pattern)).match
    answer = _client(pattern).list_blobs(
        bucket, prefix=names, fields=f"items({_FIELDS}),nextPageToken"
    )
    for item in answer:
        path = f"{storage.GS}{bucket}/{item.name}"
        if matches(path):
            yield _of_object(path, item)


def _of_object(path: str, found: Any) -> Stored:
    # An object that was put together of parts has no MD5.
    content = found.md5_hash or found.crc32c or ""
    return Stored(path, int(found.size), str(found.generation), content)


def _object(path: str) -> Any:
    bucket, _, name = path.removeprefix(storage.GS).partition("/")
    return _client(path).bucket(bucket).get_blob(name) if name else None


def _client(path: str) -> Any:
    # As Beam makes it: with the credentials of the run's own options.
    return FileSystems.get_filesystem(path)._gcsIO().client
