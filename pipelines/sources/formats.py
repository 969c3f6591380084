"""Open files to records: JSON lines and arrays, plain text, CSV, TSV, Parquet, workbooks.

Pure functions over an open file: each yields an :class:`Ad` or a :class:`Rejected` for every record
of a range. Blank lines between records are no records.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed
from pipelines.sources import json_array, workbook
from pipelines.sources.base import CONTENT_IDS, Layout, Range, ReadOptions
from pipelines.sources.csv_lines import CsvLines, NoRecord, Records
from pipelines.sources.decoding import UTF_8, GivenTwice, as_utf_8, is_wide, parse_json
from pipelines.sources.fields import find, kind
from pipelines.sources.layout import wanted_in
from pipelines.sources.records import Place, check_columns, exchanged, to_ad

# What Arrow raises of a value that Python has no object for: years beyond 9999, unknown time zones, two
# parts of a structure that have one name.
_NO_VALUE = (ValueError, TypeError, ArithmeticError, LookupError, NotImplementedError)


def _lines(
    source: BinaryIO, part: Range, layout: Layout, limit: int
) -> Iterator[tuple[Place, str | Rejected]]:
    """Yield where a line stands, and its text unless it is too long or not in the file's encoding.

    An over-long line is skipped without being held in memory.
    """
    encoding = layout.encoding
    if is_wide(encoding):
        source, encoding = as_utf_8(source, encoding), UTF_8
    offset = part.start
    if part.start > 0:
        # The line that crosses the range's start belongs to the range before.
        source.seek(part.start - 1)
        offset = part.start - 1 + _skip_line(source)
    number = 0
    while part.stop < 0 or offset < part.stop:
        line = source.readline(limit + 1)
        if not line:
            return
        number += 1
        begin, offset = offset, offset + len(line)
        position = f"line {number}" if part.start == 0 else f"byte {begin}"
        if begin == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")  # byte order mark
        whole = offset - begin <= limit or line.endswith(b"\n")
        line = line.rstrip(b"\r\n")
        place = Place(part.place, position, line)
        if not whole:
            offset += _skip_line(source)
            yield place, place.reject("too_long", f"the line is longer than {limit:,} bytes")
            continue
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            yield (
                place,
                place.reject(*_undecodable(layout, f"byte {error.start} of the line is")),
            )
            continue
        if text.strip():
            yield place, text


def _undecodable(layout: Layout, what: str) -> tuple[str, str]:
    """Return reason and detail of a record that is not in its file's encoding."""
    if layout.encoding == UTF_8:
        return "not_utf8", f"{what} not UTF-8; if the file is in another encoding, give --encoding"
    return "wrong_encoding", f"{what} not {layout.encoding}; --encoding names another"


def _skip_line(source: BinaryIO) -> int:
    """Read to the line's end, without keeping it; -> its bytes."""
    skipped = 0
    while piece := source.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def read_jsonl(
    source: BinaryIO, part: Range, layout: Layout, options: ReadOptions
) -> Iterator[Ad | Rejected]:
    """Yield the records of a file of JSON objects, one a line."""
    constant = dict(layout.columns)
    for place, text in _lines(source, part, layout, options.max_record_bytes):
        if isinstance(text, Rejected):
            yield text
            continue
        try:
            record = parse_json(text)
        except GivenTwice as error:
            yield place.reject("field_twice", str(error))
            continue
        except ValueError as error:
            yield place.reject("not_json", str(error))
            continue
        yield _of_json(record, constant, place, options)


def read_json(
    source: BinaryIO, part: Range, layout: Layout, options: ReadOptions
) -> Iterator[Ad | Rejected]:
    """Yield the items of a JSON array.

    Raises:
        RunFailed: what is no JSON, or a value of more than a record's bytes.
    """
    constant = dict(layout.columns)
    if layout.encoding != UTF_8:
        source = as_utf_8(source, layout.encoding)
    for item in json_array.items(source, part.place, options.max_record_bytes):
        raw = json.dumps(item.value, ensure_ascii=False, default=str) if not item.reason else ""
        place = Place(part.place, f"item {item.number}", raw)
        if item.reason:
            yield place.reject(item.reason, item.detail)
        else:
            yield _of_json(item.value, constant, place, options)


def _of_json(
    record: Any, constant: Mapping[str, str], place: Place, options: ReadOptions
) -> Ad | Rejected:
    if isinstance(record, dict):
        return to_ad({**constant, **record} if constant else record, options, place)
    return place.reject("not_an_object", f"expected a JSON object, found {kind(record)}")


def read_text(
    source: BinaryIO, part: Range, layout: Layout, options: ReadOptions
) -> Iterator[Ad | Rejected]:
    """Yield the lines of a text file: an ad each."""
    plain = dataclasses.replace(options, id_field=CONTENT_IDS, text_field="text", weight_field="")
    for place, text in _lines(source, part, layout, options.max_record_bytes):
        yield text if isinstance(text, Rejected) else to_ad({"text": text}, plain, place)


def read_csv(
    source: BinaryIO, part: Range, layout: Layout, options: ReadOptions
) -> Iterator[Ad | Rejected]:
    """Yield the rows of a file of columns, or of a part of one that ``csv_cuts`` cut.

    Raises:
        RunFailed: the header is no CSV, or lacks a column.
    """
    encoding = layout.encoding
    if is_wide(encoding):
        source, encoding = as_utf_8(source, encoding), UTF_8
    if part.stop >= 0:
        source.seek(part.start)
        source = cast(BinaryIO, io.BufferedReader(_Part(source, part.stop - part.start), 1 << 18))
    # A cell may hold any bytes: surrogate escapes keep the row readable, and the check below
    # rejects the rows that have them instead of the whole file.
    wrapped = io.TextIOWrapper(
        source,
        encoding="utf-8-sig" if encoding == UTF_8 and not part.start else encoding,
        errors="surrogateescape",
        newline="",
    )
    lines = CsvLines(wrapped, options.max_record_bytes, part.line)
    yield from _rows(lines.records(layout.style), part, layout, options)


class _Part(io.RawIOBase):
    """The next bytes of a file, and no more."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        self._source, self._left = source, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._source.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def read_xlsx(
    source: BinaryIO, part: Range, layout: Layout, options: ReadOptions
) -> Iterator[Ad | Rejected]:
    """Yield the rows of a workbook: of each sheet that has the columns, else of the first.

    Raises:
        RunFailed: it cannot be read, or lacks a column.
    """
    for records in workbook.tables(source, part.place, wanted_in(options)):
        yield from _rows(records, part, layout, options)


def _rows(
    records: Records, part: Range, layout: Layout, options: ReadOptions
) -> Iterator[Ad | Rejected]:
    """Yield the records of a table whose first one is its header, unless the range begins behind it."""
    header = list(part.header) or None
    constant = dict(layout.columns)
    if header:
        check_columns(part.place, header, options, set(header).__contains__, constant)
    for position, cells in records:
        if isinstance(cells, NoRecord):
            if header is None:
                raise RunFailed(
                    f"{part.place}: {position}: the header is no CSV: {cells.error}"
                ) from cells.error
            reason = "too_long" if "longer than" in str(cells.error) else "not_csv"
            place = Place(part.place, position, cells.line)
            yield place.reject(reason, f"not a CSV row: {cells.error}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            check_columns(part.place, header, options, set(header).__contains__, constant)
            continue
        joined = ",".join(cells)
        place = Place(part.place, position, joined)
        if any("\udc80" <= char <= "\udcff" for char in joined):
            yield place.reject(*_undecodable(layout, "the row holds bytes that are"))
        elif len(cells) != len(header):
            detail = f"{len(cells)} cells in the row, {len(header)} in the header"
            yield place.reject("wrong_columns", detail)
        elif [cell.strip().casefold() for cell in cells] == [name.casefold() for name in header]:
            # Files that were put one after the other, each with its own.
            yield place.reject("header_again", "the row is the header once more")
        else:
            record = constant | dict(zip(header, cells, strict=True))
            if layout.style.comma and options.weight_field in record:
                record[options.weight_field] = exchanged(record[options.weight_field])
            yield to_ad(record, options, place)


def read_parquet(
    source: BinaryIO, part: Range, layout: Layout, options: ReadOptions
) -> Iterator[Ad | Rejected]:
    """Yield the rows of a Parquet file or of some of its row groups; only the columns needed are read.

    Raises:
        RunFailed: a column is missing, or there are other rows than the footer says.
    """
    file = pq.ParquetFile(source)
    schema = file.schema_arrow
    constant = dict(layout.columns)
    check_columns(
        part.place, schema.names, options, lambda path: bool(_column(schema, path)), constant
    )
    paths = (*options.text_paths, options.id_path, options.weight_field)
    wanted = sorted({column for path in paths if (column := _column(schema, path))})
    groups = range(part.start, part.stop if part.stop >= 0 else file.num_row_groups)
    meta = file.metadata
    rows = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
    if sum(rows) != meta.num_rows:
        raise RunFailed(_torn(part.place, sum(rows), meta.num_rows))
    number = sum(rows[: part.start])
    for batch in file.iter_batches(
        batch_size=4096, row_groups=list(groups), columns=None if options.whole else wanted
    ):
        for row in range(batch.num_rows):
            number += 1
            position = f"row {number}"
            values: dict[str, Any] = {}
            try:
                for name in batch.schema.names:
                    values[name] = batch.column(name)[row].as_py()
            except UnicodeDecodeError:
                yield Place(part.place, position, b"").reject("not_utf8", "the text is not UTF-8")
                continue
            except _NO_VALUE as error:
                place = Place(part.place, position, str(values))
                yield place.reject("bad_value", _untold(schema, name, error))
                continue
            record = constant | values
            shown = record if options.fields else find(record, options.text_paths[0])
            raw = shown if isinstance(shown, bytes) else str(shown)
            yield to_ad(record, options, Place(part.place, position, raw))
    if number != sum(rows[: groups.stop]):
        raise RunFailed(_torn(part.place, number, sum(rows[: groups.stop])))


def _torn(place: str, found: int, told: int) -> str:
    """Return what is wrong with a file that has other rows than its footer says."""
    return f"{place}: holds {found:,} rows where its footer says {told:,}; the file is damaged"


def _untold(schema: pa.Schema, name: str, error: Exception) -> str:
    """Return what is wrong with a value that cannot be told."""
    found = schema.field(name).type if schema.names.count(name) == 1 else "a value"
    return (
        f"{name!r} holds {found!s:.60} that cannot be told ({type(error).__name__}: {error!s:.100})"
    )


def _column(schema: pa.Schema, path: str) -> str:
    """Return what to read for a path: a column, or the part of a nested one; "" if there is none.

    Below a list the whole list is read: Parquet's own names go on differently there.
    """
    if not path or path in schema.names:
        return path
    found: list[str] = []
    inside: Any = schema
    in_list = False
    for part in path.split("."):
        while isinstance(inside, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
            inside, in_list = inside.value_type, True
        # Of two parts of one name Arrow gives neither.
        if not isinstance(inside, pa.Schema | pa.StructType) or inside.names.count(part) != 1:
            return ""
        inside = inside.field(part).type
        found += [] if in_list else [part]
    return ".".join(found)
