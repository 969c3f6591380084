"""The source ``files``: files and folders of ads in any layout, anywhere."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import itertools
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.sources import csv_cuts, formats, layout, row_groups
from pipelines.sources.base import Layout, Listed, NothingThere, Range, ReadOptions, Source
from pipelines.sources.decoding import unpacked
from pipelines.store import listing, storage

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
_DAMAGED = (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError)
# Remote files that are looked at to tell of them.
_LOOKED_AT = 3
# Records in a row, from a range's beginning on, of which none makes an ad.
_MAX_REJECTED = 10_000
# Names that begin so are no data: markers, temporary files, indices.
_HIDDEN = ("_", ".")


class Files(Source):
    """Files, folders and globs, local or on object storage."""

    name = "files"

    def list_items(self, pattern: str) -> Iterator[Listed]:
        """Yield the files that a glob matches, or that are in a folder, however deep.

        A local file that two spellings or a link reach is listed by its real path. In a folder what
        begins with ``_`` or ``.`` is left out, and where a glob matches it, too, unless its name tells
        a format.
        """
        found = _local(pattern) if storage.is_local(pattern) else _remote(pattern)
        first = next(found, None)
        if first is None:
            raise NothingThere(f"--corpus {pattern}: no file matches")
        for path, size, version, content in itertools.chain([first], found):
            place = os.path.realpath(path) if storage.is_local(path) else path
            yield Listed(self.name, place, size, version, content)

    def everywhere(self, pattern: str) -> str:
        """Return a local path from the root, any other as it is."""
        if not storage.is_local(pattern):
            return pattern
        return os.path.abspath(os.path.expanduser(pattern))

    def content_of(self, item: Listed) -> str:
        """Return the checksum that a store keeps, or the hash of a local file."""
        if item.content or not storage.is_local(item.place):
            return item.content or item.version
        try:
            with open(item.place, "rb") as source:
                return hashlib.file_digest(source, "sha256").hexdigest()
        except OSError:
            # Whoever reads it says so.
            return item.version

    def ranges(self, item: Listed, options: ReadOptions, range_bytes: int) -> Iterator[Range]:
        """Cut JSON lines and text every ``range_bytes``, and Parquet between its row groups.

        Tables wait for :meth:`cut`. What is packed has no seekable middle, and a wide encoding no single
        byte that ends a line, so those stay whole, as do JSON arrays and workbooks. Local files are looked
        at here; remote ones, of which a look costs as much as reading, only where they may be cut or their
        names tell nothing.
        """
        format, size = options.format or layout.name_format(item.place), item.bytes
        large = size > range_bytes
        if (
            storage.is_local(item.place)
            or not format
            or (large and format in (*layout.LINES, *layout.TABLES))
        ):
            found = self._look(item.place, options)
        else:
            found = None
        format = found.format if found else format
        if format == layout.TEXT and options.fields:
            raise UsageError(
                f"{item.place}: plain text has no fields, and the task file names ad.fields; give "
                "JSON lines, CSV or Parquet, or take ad.fields out"
            )
        cuts: Iterator[tuple[int, int, int]] = iter([(0, -1, size)])
        if large and found and layout.can_be_cut(found):
            starts = range(0, size, range_bytes)
            cuts = ((a, b, b - a) for a in starts for b in [min(size, a + range_bytes)])
        elif large and format == layout.PARQUET:
            cuts = self._row_groups(item, range_bytes) or cuts
        for start, stop, cost in cuts:
            yield Range(self.name, item.place, format, start, stop, cost, found, item.version)

    def _row_groups(self, item: Listed, range_bytes: int) -> Iterator[tuple[int, int, int]] | None:
        try:
            with storage.opened(item.place, storage.FEW_BYTES) as raw:
                return iter(list(row_groups.cuts(raw, item.bytes, range_bytes)))
        except _DAMAGED:
            # Whoever reads it says so.
            return None

    def cut(self, part: Range, options: ReadOptions, range_bytes: int) -> Iterator[Range]:
        """Cut a large table where its rows surely begin, for which it is read to its end."""
        found = part.layout
        if found is None or part.bytes <= range_bytes or not csv_cuts.may_be_cut(found):
            yield part
            return
        try:
            with storage.opened(part.place) as raw:
                cuts = csv_cuts.cuts(raw, found, range_bytes, options.max_record_bytes)
        except OSError:
            # Whoever reads it says so.
            cuts = []
        if not cuts:
            yield part
            return
        starts = [0, *(cut.start for cut in cuts)]
        for start, stop, cut in zip(starts, [*starts[1:], part.bytes], [None, *cuts], strict=True):
            one = dataclasses.replace(part, start=start, stop=stop, bytes=stop - start)
            yield dataclasses.replace(one, line=cut.line, header=cut.header) if cut else one

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
            with storage.opened(place, storage.FEW_BYTES) as raw:
                return layout.layout_of(raw, place, options)
        except layout.Unreadable as error:
            raise UsageError(f"--corpus {error}") from error
        except _DAMAGED:
            # Whoever reads it says so, after all that can be read.
            return None

    def read(self, part: Range, options: ReadOptions) -> Iterator[Ad | Rejected]:
        """Yield the records of a range.

        Raises:
            RunFailed: the file cannot be opened or unpacked, it has no such column, or it is another one
                now than when it was listed.
        """
        try:
            yield from _some_usable(part, _records(part, options))
        except layout.Unreadable as error:
            raise RunFailed(str(error)) from error
        except RunFailed:
            _check_unchanged(part)
            raise
        except _DAMAGED as error:
            _check_unchanged(part)
            raise RunFailed(
                f"{part.place}: cannot be read to its end as {part.format} ({' '.join(str(error).split())}); "
                "the file is damaged, cut short or not what its name says"
            ) from error
        _check_unchanged(part)


def _records(part: Range, options: ReadOptions) -> Iterator[Ad | Rejected]:
    few = part.format == layout.PARQUET
    with storage.opened(part.place, storage.FEW_BYTES if few else storage.FETCHED_BYTES) as raw:
        found = part.layout
        if found is None:
            found = layout.layout_of(raw, part.place, options)
            raw.seek(0)
        source = unpacked(raw, found.packing)
        yield from _READERS[found.format](source, part, found, options)


def _some_usable(part: Range, records: Iterator[Ad | Rejected]) -> Iterator[Ad | Rejected]:
    """Yield records as they are; refuse a file of which a great many make no ad, and none does.

    A few packed bytes can hold a million lines, each of which would be a dead letter.
    """
    rejected, first = 0, None
    for record in records:
        yield record
        if isinstance(record, Ad):
            break
        rejected, first = rejected + 1, first or record
        if rejected >= _MAX_REJECTED:
            raise RunFailed(
                f"{part.place}: none of {rejected:,} records makes an ad (the first: {first.position}: "
                f"{first.reason}: {first.detail}); is it a corpus?"
            )
    yield from records


def _check_unchanged(part: Range) -> None:
    """Refuse a file of which parts may be of two states."""
    if part.version and (now := listing.version_of(part.place)) != part.version:
        what = "was written again" if now else "was deleted"
        raise RunFailed(f"{part.place}: {what} while it was read; run it again when it is complete")


def _local(pattern: str) -> Iterator[listing.Stored]:
    path = os.path.expanduser(pattern)
    if not os.path.isdir(path):
        # A name that is meant to the letter may be hidden.
        shown = os.path.exists(path)
        for found in listing.matching(path):
            if shown or not _is_marker(found.path):
                yield found
        return
    for found in listing.inside(path):
        if not _is_hidden(os.path.relpath(found.path, path)):
            yield found


def _remote(pattern: str) -> Iterator[listing.Stored]:
    try:
        FileSystems.get_filesystem(pattern)
    except ValueError as error:
        scheme = pattern.partition("://")[0]
        raise UsageError(
            f"--corpus {pattern}: no source and no storage is called {scheme}; give a local path or "
            "gs://, or install the Apache Beam extra of that storage"
        ) from error
    folder = pattern.rstrip("/") + "/"
    exact = False
    if pattern != folder:
        for found in listing.matching(pattern):
            exact = True
            if found.path == pattern or not _is_marker(found.path):
                yield found
    if not exact and not glob.has_magic(pattern):
        for found in listing.matching(f"{folder}**"):
            if not _is_hidden(found.path.removeprefix(folder)):
                yield found


def _is_hidden(path: str) -> bool:
    """Tell whether a path below a folder leads to no data, as Spark and Hive call it."""
    parts = path.replace("\\", "/").split("/")
    return any(part.startswith(_HIDDEN) and "=" not in part for part in parts) or _is_marker(path)


def _is_marker(path: str) -> bool:
    """Tell whether a file is beside the data: ``_SUCCESS``, ``.part-0.crc``, a placeholder of a folder."""
    name = path.replace("\\", "/").rpartition("/")[2]
    return not name or (name.startswith(_HIDDEN) and not layout.name_format(name))
