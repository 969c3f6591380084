"""Corpus files to records: JSONL, CSV, Parquet and plain text, plain or compressed.

Pure functions over open files, without Beam pipelines: :func:`plan` cuts files into ranges that
workers read independently, :func:`read_range` yields an :class:`Ad` or a :class:`Rejected` for
every record of a range.
"""

from __future__ import annotations

import bz2
import csv
import decimal
import glob
import gzip
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.store import storage
from pipelines.text import content_id, content_key, is_blank

STAGE = "ReadAds"
CONTENT_IDS = "none"
MAX_WEIGHT = 1e9
FORMATS = ("jsonl", "csv", "tsv", "parquet", "text")
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
_EXCERPT_CHARS = 200


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How records become ads.

    Attributes:
        id_field: field with the ad's id, which then every record must have; "" takes ``id`` where
            a record has it; ``none`` makes every id from the text.
        text_field: field with the ad's text.
        weight_field: field with the ad's weight; "" counts every record once.
        format: one of ``FORMATS``, or "" to go by the file name.
        max_text_chars: longer texts are rejected, characters.
        max_record_bytes: longer lines are rejected without being held in memory, bytes.
    """

    id_field: str = ""
    text_field: str = "text"
    weight_field: str = ""
    format: str = ""
    max_text_chars: int = 20_000
    max_record_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class FileRange:
    """A part of a corpus file: bytes ``start <= record start < stop``; stop -1 is the whole file."""

    path: str
    format: str
    start: int
    stop: int


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


def plan(files: list[tuple[str, int]], format: str, range_bytes: int) -> list[FileRange]:
    """Cut corpus files into ranges.

    Uncompressed JSONL and plain text are cut every ``range_bytes``; a CSV cell may hold line
    breaks and a compressed file has no seekable middle, so those stay whole, as does Parquet.

    Args:
        files: (path, bytes) of each file.
        format: format of all files, or "" to go by each name.
        range_bytes: size of a range, bytes.
    """
    ranges: list[FileRange] = []
    for path, size in files:
        known = format or file_format(path)
        splittable = known in ("jsonl", "text") and not path.lower().endswith(_COMPRESSED)
        if not splittable or size <= range_bytes:
            ranges.append(FileRange(path, known, 0, -1))
            continue
        for start in range(0, size, range_bytes):
            ranges.append(FileRange(path, known, start, min(size, start + range_bytes)))
    return ranges


def read_range(part: FileRange, options: ReadOptions) -> Iterator[Ad | Rejected]:
    """Yield an ad or a rejection for every record of a range.

    Blank lines between records are no records. Raises RunFailed for what concerns the whole
    file: it cannot be opened or decompressed, or it has no such column.
    """
    reader = _READERS[part.format]
    try:
        with FileSystems.open(part.path, compression_type=CompressionTypes.UNCOMPRESSED) as raw:
            yield from reader(_decompressed(raw, part.path), part, options)
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise RunFailed(
            f"{part.path}: cannot be read to its end as {part.format} ({error}); "
            "the file is damaged, cut short or not what its name says"
        ) from error


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


def _lines(source: BinaryIO, part: FileRange, limit: int) -> Iterator[tuple[bytes, str, bool]]:
    """Yield (line, position, complete); an over-long line comes as its first ``limit`` bytes."""
    offset = part.start
    if part.start > 0:
        # The line that crosses the range's start belongs to the range before.
        source.seek(part.start - 1)
        offset = part.start - 1 + len(_skip_line(source))
    number = 0
    while part.stop < 0 or offset < part.stop:
        line = source.readline(limit + 1)
        if not line:
            return
        complete = len(line) <= limit or line.endswith(b"\n")
        rest = 0 if complete else len(_skip_line(source))
        number += 1
        if number == 1 and offset == 0:
            line_text = line.removeprefix(b"\xef\xbb\xbf")  # byte order mark
        else:
            line_text = line
        position = f"line {number}" if part.start == 0 else f"byte {offset}"
        yield line_text.rstrip(b"\r\n"), position, complete
        offset += len(line) + rest


class _Length:
    """Counts bytes without keeping them."""

    def __init__(self) -> None:
        self.bytes = 0

    def __len__(self) -> int:
        return self.bytes


def _skip_line(source: BinaryIO) -> _Length:
    skipped = _Length()
    while True:
        piece = source.readline(1 << 20)
        skipped.bytes += len(piece)
        if not piece or piece.endswith(b"\n"):
            return skipped


def _read_jsonl(source: BinaryIO, part: FileRange, options: ReadOptions) -> Iterator[Ad | Rejected]:
    for line, position, complete in _lines(source, part, options.max_record_bytes):
        refuse = _refuser(part, position, line)
        if not complete:
            yield refuse("too_long", f"the line is longer than {options.max_record_bytes:,} bytes")
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield refuse("not_utf8", f"byte {error.start} of the line is not UTF-8")
            continue
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield refuse("not_json", f"{error}" or type(error).__name__)
            continue
        if not isinstance(record, dict):
            yield refuse("not_an_object", f"expected a JSON object, found {_kind(record)}")
            continue
        yield _to_ad(record, options, refuse, part, position)


def _read_text(source: BinaryIO, part: FileRange, options: ReadOptions) -> Iterator[Ad | Rejected]:
    for line, position, complete in _lines(source, part, options.max_record_bytes):
        refuse = _refuser(part, position, line)
        if not complete:
            yield refuse("too_long", f"the line is longer than {options.max_record_bytes:,} bytes")
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield refuse("not_utf8", f"byte {error.start} of the line is not UTF-8")
            continue
        if not text.strip():
            continue
        plain = ReadOptions(
            id_field=CONTENT_IDS, text_field="text", max_text_chars=options.max_text_chars
        )
        yield _to_ad({"text": text}, plain, refuse, part, position)


class CsvLines:
    """Physical lines of a CSV file, with a way back.

    A quote that is never closed would swallow the rows after it. So the lines of a record are
    kept while it is parsed, and given back when it turns out not to be one.
    """

    def __init__(self, wrapped: io.TextIOBase, limit: int) -> None:
        self._wrapped, self._limit = wrapped, limit
        self._waiting: list[tuple[int, str]] = []
        self._number = 0
        self._record: list[tuple[int, str]] = []

    def feed(self) -> Iterator[str]:
        """Yield the lines of one record; csv.reader takes as many as it needs.

        Raises:
            csv.Error: the record is longer than the limit.
        """
        self._record = []
        size = 0
        while line := self._next():
            self._record.append(line)
            size += len(line[1])
            if size > self._limit:
                raise csv.Error(f"longer than {self._limit:,} characters")
            yield line[1]

    def _next(self) -> tuple[int, str] | None:
        if self._waiting:
            return self._waiting.pop()
        text = self._wrapped.readline(self._limit + 1)
        self._number += bool(text)
        return (self._number, text) if text else None

    def position(self) -> str:
        """Return where the record just fed begins."""
        return f"line {self._record[0][0]}"

    def give_back(self) -> str:
        """Take back all lines of the record but the first, which is returned."""
        first, *rest = self._record
        self._waiting.extend(reversed(rest))
        if len(first[1]) > self._limit and not first[1].endswith("\n"):
            while (more := self._wrapped.readline(1 << 20)) and not more.endswith("\n"):
                pass
        return first[1]


def _read_csv(source: BinaryIO, part: FileRange, options: ReadOptions) -> Iterator[Ad | Rejected]:
    # A cell may hold any bytes: surrogate escapes keep the row readable, and the check below
    # rejects the rows that have them instead of the whole file.
    wrapped = io.TextIOWrapper(
        io.BufferedReader(_Readable(source), 1 << 20),
        encoding="utf-8-sig",
        errors="surrogateescape",
        newline="",
    )
    csv.field_size_limit(options.max_record_bytes)
    lines = CsvLines(wrapped, options.max_record_bytes)
    # Exports with tabs do not quote; strict refuses what a lenient reader would mangle.
    tabs = part.format == "tsv"
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    header: list[str] | None = None
    while True:
        try:
            cells = next(csv.reader(lines.feed(), strict=True, **style), None)
        except csv.Error as error:
            position = lines.position()
            if header is None:
                raise RunFailed(
                    f"{part.path}: {position}: the header is no CSV: {error}"
                ) from error
            reason = "too_long" if "longer than" in str(error) else "not_csv"
            first = lines.give_back()
            yield _refuser(part, position, first)(reason, f"not a CSV row: {error}")
            continue
        if cells is None:
            return
        if header is None:
            header = cells
            _check_columns(part, header, options)
            continue
        if not cells:
            continue
        joined = ",".join(cells)
        position = lines.position()
        refuse = _refuser(part, position, joined)
        if any("\udc80" <= char <= "\udcff" for char in joined):
            yield refuse("not_utf8", "the row holds bytes that are not UTF-8")
        elif len(cells) != len(header):
            yield refuse(
                "wrong_columns", f"{len(cells)} cells in the row, {len(header)} in the header"
            )
        else:
            yield _to_ad(dict(zip(header, cells, strict=True)), options, refuse, part, position)


def _read_parquet(
    source: BinaryIO, part: FileRange, options: ReadOptions
) -> Iterator[Ad | Rejected]:
    file = pq.ParquetFile(source)
    names = file.schema_arrow.names
    _check_columns(part, names, options)
    fields = (options.text_field, options.id_field or "id", options.weight_field)
    wanted = [name for name in names if name in fields]
    number = 0
    for batch in file.iter_batches(batch_size=4096, columns=wanted):
        for row in range(batch.num_rows):
            number += 1
            position = f"row {number}"
            record = {}
            try:
                record = {name: batch.column(name)[row].as_py() for name in wanted}
                if isinstance(record[options.text_field], bytes):
                    record[options.text_field] = record[options.text_field].decode("utf-8")
            except UnicodeDecodeError:
                yield _refuser(part, position, b"")("not_utf8", "the text is not UTF-8")
                continue
            refuse = _refuser(part, position, str(record.get(options.text_field)))
            yield _to_ad(record, options, refuse, part, position)


def _check_columns(part: FileRange, names: list[str], options: ReadOptions) -> None:
    required = [options.text_field, options.weight_field]
    if options.id_field != CONTENT_IDS:
        required.append(options.id_field)
    for name in required:
        if name and name not in names:
            raise RunFailed(
                f"{part.path}: no column {name!r}; its columns are {', '.join(names)}; "
                "give --text_field, --id_field or --weight_field"
            )
        if name and names.count(name) > 1:
            raise RunFailed(
                f"{part.path}: {names.count(name)} columns are named {name!r}; rename one"
            )


class _Readable(io.RawIOBase):
    """Gives a Beam file the raw interface that ``io.BufferedReader`` wants."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


_READERS: dict[str, Callable[[Any, FileRange, ReadOptions], Iterator[Ad | Rejected]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_csv,
    "parquet": _read_parquet,
    "text": _read_text,
}


def _refuser(part: FileRange, position: str, raw: bytes | str) -> Callable[..., Rejected]:
    def refuse(reason: str, detail: str, id: str = "") -> Rejected:
        text = raw[: 4 * _EXCERPT_CHARS]
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="backslashreplace")
        return Rejected(
            id=_storable(id),
            stage=STAGE,
            reason=reason,
            detail=_storable(detail),
            source=part.path,
            position=position,
            excerpt=_storable(text[:_EXCERPT_CHARS]),
            records=1,
        )

    return refuse


def _storable(text: str) -> str:
    """Write lone surrogates as escapes, so that the text can be stored as UTF-8."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _to_ad(
    record: dict[str, Any],
    options: ReadOptions,
    refuse: Callable[..., Rejected],
    part: FileRange,
    position: str,
) -> Ad | Rejected:
    id = ""
    if options.id_field != CONTENT_IDS:
        name = options.id_field or "id"
        value = record.get(name)
        if value is None or value == "":
            if options.id_field:
                return refuse("no_id", f"no field {name!r}")
        elif isinstance(value, bool) or not isinstance(value, str | int):
            return refuse("wrong_type", f"{name!r} must be text or an integer: {_kind(value)}")
        else:
            id = str(value)
            if _storable(id) != id:
                return refuse("not_utf8", f"{name!r} holds half a surrogate pair", id)
    text = record.get(options.text_field)
    if text is None:
        return refuse("no_text", f"no field {options.text_field!r}", id)
    if not isinstance(text, str):
        return refuse("wrong_type", f"{options.text_field!r} must be text: {_kind(text)}", id)
    if len(text) > options.max_text_chars:
        return refuse(
            "too_long", f"{len(text):,} characters, at most {options.max_text_chars:,}", id
        )
    if _storable(text) != text:
        return refuse("not_utf8", "the text holds half a surrogate pair", id)
    if is_blank(text):
        return refuse("empty_text", "nothing is left of the text after normalising", id)
    weight = 1.0
    if options.weight_field:
        found = _weight(record.get(options.weight_field))
        if found is None:
            return refuse(
                "bad_weight",
                f"{options.weight_field!r} must be a finite number from 0 to {MAX_WEIGHT:g}: "
                f"{record.get(options.weight_field)!r}"[:200],
                id,
            )
        weight = found
    key = content_key(text)
    return Ad(
        id=id or content_id(key),
        key=key,
        text=text,
        weight=weight,
        source=part.path,
        position=position,
    )


def _weight(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | decimal.Decimal):
        return None
    try:
        weight = float(value)
    except (ValueError, OverflowError):
        return None
    return weight if math.isfinite(weight) and 0 <= weight <= MAX_WEIGHT else None


def list_corpus(patterns: list[str]) -> list[tuple[str, int, float]]:
    """Return (path, bytes, last change) of all corpus files, sorted, each once.

    A local file that two patterns, two spellings or a link reach is listed once, by its real
    path.

    Raises:
        UsageError: a pattern matches no file, or names a folder.
    """
    found: dict[str, tuple[str, int, float]] = {}
    for pattern in patterns:
        files = _match_local(pattern) if storage.is_local(pattern) else _match_remote(pattern)
        if not files:
            raise UsageError(f"--corpus {pattern}: no file matches")
        found.update((file[0], file) for file in files)
    return sorted(found.values())


def _match_local(pattern: str) -> list[tuple[str, int, float]]:
    path = os.path.expanduser(pattern)
    if os.path.isdir(path):
        raise UsageError(f"--corpus {pattern}: is a folder; give {pattern.rstrip('/')}/*")
    # A name may hold brackets: what exists to the letter is meant to the letter.
    names = [path] if os.path.exists(path) else glob.glob(path, recursive=True)
    files = [os.path.realpath(name) for name in names if os.path.isfile(name)]
    return [(name, os.path.getsize(name), os.path.getmtime(name)) for name in files]


def _match_remote(pattern: str) -> list[tuple[str, int, float]]:
    return [
        (item.path, item.size_in_bytes, float(item.last_updated_in_seconds or 0.0))
        for item in storage.match(pattern)
    ]
