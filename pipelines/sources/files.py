"""The source ``files``: JSON lines, CSV, TSV, Parquet and text, plain or compressed, anywhere."""

from __future__ import annotations

import bz2
import glob
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.sources import formats
from pipelines.sources.base import Listed, Range, ReadOptions, Source
from pipelines.store import storage

_READERS: dict[str, Callable[[Any, Range, ReadOptions], Iterator[Ad | Rejected]]] = {
    "jsonl": formats.read_jsonl,
    "csv": formats.read_csv,
    "tsv": formats.read_csv,
    "parquet": formats.read_parquet,
    "text": formats.read_text,
}
FORMATS = tuple(_READERS)
_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".text": "text",
}
_COMPRESSED = (".gz", ".bz2")


class Files(Source):
    """Globs of files, local or on object storage."""

    name = "files"

    def list_items(self, pattern: str) -> list[Listed]:
        """Return the files that a glob matches.

        A local file that two spellings or a link reach is listed by its real path.
        """
        files = _match_local(pattern) if storage.is_local(pattern) else _match_remote(pattern)
        if not files:
            raise UsageError(f"--corpus {pattern}: no file matches")
        return [Listed(self.name, path, size, repr(changed)) for path, size, changed in files]

    def ranges(self, item: Listed, options: ReadOptions, range_bytes: int) -> list[Range]:
        """Cut uncompressed JSON lines and text every ``range_bytes``.

        A CSV cell may hold line breaks and a compressed file has no seekable middle, so those stay
        whole, as does Parquet.
        """
        format, size = options.format or file_format(item.place), item.bytes
        if format == "text" and options.fields:
            raise UsageError(
                f"{item.place}: plain text has no fields, and the task file names ad.fields; give "
                "JSON lines, CSV or Parquet, or take ad.fields out"
            )
        splittable = format in ("jsonl", "text") and not item.place.lower().endswith(_COMPRESSED)
        if not splittable or size <= range_bytes:
            return [Range(self.name, item.place, format, 0, -1, size)]
        cuts = [(start, min(size, start + range_bytes)) for start in range(0, size, range_bytes)]
        return [Range(self.name, item.place, format, a, b, b - a) for a, b in cuts]

    def read(self, part: Range, options: ReadOptions) -> Iterator[Ad | Rejected]:
        """Yield the records of a range.

        Raises:
            RunFailed: the file cannot be opened or decompressed, or it has no such column.
        """
        try:
            with FileSystems.open(
                part.place, compression_type=CompressionTypes.UNCOMPRESSED
            ) as raw:
                yield from _READERS[part.format](_decompressed(raw, part.place), part, options)
        except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
            raise RunFailed(
                f"{part.place}: cannot be read to its end as {part.format} ({error}); "
                "the file is damaged, cut short or not what its name says"
            ) from error


def file_format(path: str) -> str:
    """Return a file's format by its name.

    Raises:
        UsageError: the name tells no known format.
    """
    name = path.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    for suffix, known in _BY_SUFFIX.items():
        if name.endswith(suffix):
            return known
    raise UsageError(
        f"{path}: the name does not tell the format; give --format, one of {', '.join(FORMATS)}"
    )


def _decompressed(raw: Any, path: str) -> Any:
    """Open a compressed file with Python's own readers.

    Beam's reader takes a gzip file that was cut short for a whole one, and loses what is missing
    without a word; these raise EOFError.
    """
    if path.lower().endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)
    if path.lower().endswith(".bz2"):
        return bz2.BZ2File(raw)
    return raw


def _match_local(pattern: str) -> list[tuple[str, int, float]]:
    path = os.path.expanduser(pattern)
    if os.path.isdir(path):
        raise UsageError(f"--corpus {pattern}: is a folder; give {pattern.rstrip('/')}/*")
    # A name may hold brackets: what exists to the letter is meant to the letter.
    names = [path] if os.path.exists(path) else glob.glob(path, recursive=True)
    files = [os.path.realpath(name) for name in names if os.path.isfile(name)]
    return [(name, os.path.getsize(name), os.path.getmtime(name)) for name in files]


def _match_remote(pattern: str) -> list[tuple[str, int, float]]:
    try:
        FileSystems.get_filesystem(pattern)
    except ValueError as error:
        scheme = pattern.partition("://")[0]
        raise UsageError(
            f"--corpus {pattern}: no source and no storage is called {scheme}; give a local path or "
            "gs://, or install the Apache Beam extra of that storage"
        ) from error
    return [
        (item.path, item.size_in_bytes, float(item.last_updated_in_seconds or 0.0))
        for item in storage.match(pattern)
    ]
