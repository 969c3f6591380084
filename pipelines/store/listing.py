"""What lies where a pattern points, one file after the other: no list of a corpus is held.

Cloud Storage is asked for pages of names, sizes and checksums; a disk is walked a folder at a time. Of
other object storage Beam's FileSystems hold a pattern's list while it is read.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from pipelines.store import cloud, storage
from pipelines.store.cloud import Stored


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
        if pattern.startswith(cloud.GS):
            yield from cloud.matching(pattern)
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
            if path.startswith(cloud.GS):
                found = cloud.find(path)
                return found.version if found else ""
            return _of_metadata(FileSystems.get_filesystem(path).metadata(path)).version
    except FileNotFoundError:
        return ""


def _on_disk(path: str) -> Stored:
    found = os.stat(path)
    return Stored(path, found.st_size, str(found.st_mtime_ns))


def _of_metadata(found: FileMetadata) -> Stored:
    return Stored(found.path, found.size_in_bytes, repr(float(found.last_updated_in_seconds or 0)))
