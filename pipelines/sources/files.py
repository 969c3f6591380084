"""The source ``files``: files and folders of ads in any layout, anywhere."""

from __future__ import annotations

import glob
import itertools
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.sources import formats, layout
from pipelines.sources.base import Layout, Listed, Range, ReadOptions, Source
from pipelines.sources.decoding import unpacked
from pipelines.store import storage

_READERS: dict[str, Callable[[Any, Range, Layout, ReadOptions], Iterator[Ad | Rejected]]] = {
    layout.JSONL: formats.read_jsonl,
    layout.JSON: formats.read_json,
    layout.CSV: formats.read_csv,
    layout.TSV: formats.read_csv,
    layout.PARQUET: formats.read_parquet,
    layout.TEXT: formats.read_text,
    layout.XLSX: formats.read_xlsx,
}
# What reading a damaged file raises: packings, Parquet and archives have errors of their own.
_DAMAGED = (OSError, EOFError, zlib.error, pa.ArrowInvalid, UnicodeDecodeError)
# Remote files that are looked at to tell of them.
_LOOKED_AT = 3
# Names that begin so are no data: markers, temporary files, indices.
_HIDDEN = ("_", ".")


class Files(Source):
    """Files, folders and globs, local or on object storage."""

    name = "files"

    def list_items(self, pattern: str) -> list[Listed]:
        """Return the files that a glob matches, or that are in a folder, however deep.

        A local file that two spellings or a link reach is listed by its real path. In a folder what
        begins with ``_`` or ``.`` is left out, and where a glob matches it, too, unless its name tells
        a format.
        """
        files = _match_local(pattern) if storage.is_local(pattern) else _match_remote(pattern)
        if not files:
            raise UsageError(f"--corpus {pattern}: no file matches")
        return [Listed(self.name, path, size, repr(changed)) for path, size, changed in files]

    def ranges(self, item: Listed, options: ReadOptions, range_bytes: int) -> list[Range]:
        """Cut JSON lines and text every ``range_bytes``, where a line end is one byte.

        A CSV cell may hold line breaks, a packed file has no seekable middle, and a wide encoding no
        single byte that ends a line, so those stay whole, as does Parquet. Local files are looked at
        here; remote ones, of which a look costs as much as reading, only where they may be cut or
        their names tell nothing.
        """
        format, size = options.format or layout.name_format(item.place), item.bytes
        large = size > range_bytes
        if storage.is_local(item.place) or not format or (large and format in layout.LINES):
            found = self._look(item.place, options)
        else:
            found = None
        format = found.format if found else format
        if format == layout.TEXT and options.fields:
            raise UsageError(
                f"{item.place}: plain text has no fields, and the task file names ad.fields; give "
                "JSON lines, CSV or Parquet, or take ad.fields out"
            )
        if not large or found is None or not layout.can_be_cut(found):
            return [Range(self.name, item.place, format, 0, -1, size, found)]
        cuts = [(start, min(size, start + range_bytes)) for start in range(0, size, range_bytes)]
        return [Range(self.name, item.place, format, a, b, b - a, found) for a, b in cuts]

    def told(self, parts: Sequence[Range], options: ReadOptions) -> list[str]:
        """Return what was taken for an encoding or a delimiter, of remote files by the first few."""
        found = {part.place: part.layout for part in parts if part.layout}
        rest = dict.fromkeys(part.place for part in parts if part.place not in found)
        for place in itertools.islice(rest, _LOOKED_AT):
            if look := self._look(place, options):
                found[place] = look
        return layout.told(found.items())

    def _look(self, place: str, options: ReadOptions) -> Layout | None:
        try:
            with _opened(place) as raw:
                return layout.layout_of(raw, place, options)
        except layout.Unreadable as error:
            raise UsageError(f"--corpus {error}") from error
        except _DAMAGED:
            # Whoever reads it says so, after all that can be read.
            return None

    def read(self, part: Range, options: ReadOptions) -> Iterator[Ad | Rejected]:
        """Yield the records of a range.

        Raises:
            RunFailed: the file cannot be opened or unpacked, or it has no such column.
        """
        format = part.format
        try:
            with _opened(part.place) as raw:
                found = part.layout
                if found is None:
                    found = layout.layout_of(raw, part.place, options)
                    raw.seek(0)
                format = found.format
                source = unpacked(raw, found.packing)
                yield from _READERS[format](source, part, found, options)
        except layout.Unreadable as error:
            raise RunFailed(str(error)) from error
        except _DAMAGED as error:
            raise RunFailed(
                f"{part.place}: cannot be read to its end as {format} ({error}); "
                "the file is damaged, cut short or not what its name says"
            ) from error


def _opened(place: str) -> Any:
    return FileSystems.open(place, compression_type=CompressionTypes.UNCOMPRESSED)


def _match_local(pattern: str) -> list[tuple[str, int, float]]:
    path = os.path.expanduser(pattern)
    # A name may hold brackets: what exists to the letter is meant to the letter.
    if os.path.isdir(path):
        inside = (os.path.join(place, name) for place, _, here in os.walk(path) for name in here)
        names = [name for name in inside if not _is_hidden(os.path.relpath(name, path))]
    elif os.path.exists(path):
        names = [path]
    else:
        names = [name for name in glob.glob(path, recursive=True) if not _is_marker(name)]
    files = {os.path.realpath(name) for name in names if os.path.isfile(name)}
    return [(name, os.path.getsize(name), os.path.getmtime(name)) for name in sorted(files)]


def _match_remote(pattern: str) -> list[tuple[str, int, float]]:
    try:
        FileSystems.get_filesystem(pattern)
    except ValueError as error:
        scheme = pattern.partition("://")[0]
        raise UsageError(
            f"--corpus {pattern}: no source and no storage is called {scheme}; give a local path or "
            "gs://, or install the Apache Beam extra of that storage"
        ) from error
    folder = pattern.rstrip("/") + "/"
    found = [] if pattern == folder else storage.match(pattern)
    if not found and not glob.has_magic(pattern):
        found = storage.match(f"{folder}**")
        found = [item for item in found if not _is_hidden(item.path.removeprefix(folder))]
    return [
        (item.path, item.size_in_bytes, float(item.last_updated_in_seconds or 0.0))
        for item in found
        if item.path == pattern or not _is_marker(item.path)
    ]


def _is_hidden(path: str) -> bool:
    """Tell whether a path below a folder leads to no data, as Spark and Hive call it."""
    parts = path.replace("\\", "/").split("/")
    return any(part.startswith(_HIDDEN) and "=" not in part for part in parts) or _is_marker(path)


def _is_marker(path: str) -> bool:
    """Tell whether a file is beside the data: ``_SUCCESS``, ``.part-0.crc``, a placeholder of a folder."""
    name = path.replace("\\", "/").rpartition("/")[2]
    return not name or (name.startswith(_HIDDEN) and not layout.name_format(name))
