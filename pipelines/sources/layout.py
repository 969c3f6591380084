"""How a corpus file is written, by its first bytes: format, packing, encoding, what parts its cells.

The name only says what bytes cannot: whether text is CSV, tab-separated or an ad a line.
"""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO
from urllib.parse import unquote

from pipelines.sources import decoding
from pipelines.sources.base import COMMA, TAB, Layout, ReadOptions, Style
from pipelines.sources.csv_lines import CsvLines
from pipelines.sources.csv_lines import style_of as csv_style_of
from pipelines.sources.decoding import UTF_8
from pipelines.sources.records import has_decimal_commas

JSONL, JSON, CSV, TSV, PARQUET, TEXT, XLSX = (
    "jsonl",
    "json",
    "csv",
    "tsv",
    "parquet",
    "text",
    "xlsx",
)
FORMATS = (JSONL, JSON, CSV, TSV, PARQUET, TEXT, XLSX)
_BY_SUFFIX = {
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".json": JSONL,
    ".csv": CSV,
    ".tsv": TSV,
    ".tab": TSV,
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".txt": TEXT,
    ".text": TEXT,
    ".xlsx": XLSX,
    ".xlsm": XLSX,
    # What calls itself so is a workbook, or tabs or CSV that a program wrote for Excel.
    ".xls": XLSX,
}
_PACKED = (".gz", ".gzip", ".bz2", ".zst", ".zstd")
# Rows by which the decimal mark is told.
_WEIGHTS = 1000
# The formats that can be cut at line ends, and those that can be where these are surely ends of rows.
LINES, TABLES = (JSONL, TEXT), (CSV, TSV)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_PARTITION = re.compile(r"([^/\\=]+)=([^/\\]*)")
# Beginnings that mean JSON: of an array, and of an object that goes on over several lines.
_ARRAY, _LONG_OBJECT = (
    re.compile(r"\s*\["),
    re.compile(r"\s*\{\s*?(\n|\"[^\"]*\"\s*:\s*[\[{]\s*\n)"),
)


class Unreadable(ValueError):
    """A file that nothing here reads; says what it is, and after which step which command reads it."""


def name_format(place: str) -> str:
    """Return the format that a file's name tells, or ""."""
    name = place.lower()
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    return next((known for suffix, known in _BY_SUFFIX.items() if name.endswith(suffix)), "")


def layout_of(source: BinaryIO, place: str, options: ReadOptions) -> Layout:
    """Return how a file is written; reads its beginning alone.

    Args:
        source: the file, at its beginning; it is left anywhere.
        place: its name.
        options: what a person says of it counts.

    Raises:
        Unreadable: nothing here reads it.
        OSError, EOFError: it is packed, and damaged.
    """
    head = source.read(decoding.HEAD_BYTES)
    packing = decoding.packing_of(head)
    source.seek(0)
    head = decoding.read_head(decoding.unpacked(source, packing))
    format = options.format or name_format(place)
    binary = _binary_format(head, place)
    if binary:
        if packing:
            raise Unreadable(f"{place}: is {binary} packed by {packing}; unpack it, then give that")
        return Layout(binary, columns=partition_of(place))
    if format == PARQUET and not packing:
        # Left to its reader, which says what is damaged.
        return Layout(PARQUET, columns=partition_of(place))
    encoding = decoding.encoding_of(head, options.encoding)
    if encoding is None:
        raise Unreadable(
            f"{place}: is a binary file of no format that is read here; write the ads as JSON lines, CSV "
            "or Parquet, then give that to --corpus"
        )
    text = head.decode(
        encoding.name, "ignore" if decoding.is_wide(encoding.name) else "replace"
    ).lstrip("\ufeff")
    format = _text_format(format, text, place)
    found = Layout(format, packing, encoding.name, encoding.guessed, columns=partition_of(place))
    if format not in TABLES:
        return found
    default = TAB if format == TSV else COMMA
    whole = len(head) < decoding.HEAD_BYTES
    style = csv_style_of(text, wanted_in(options), default, options.delimiter, whole)
    comma = has_decimal_commas(_weights(text, style, options.weight_field))
    return found._replace(style=style._replace(comma=comma))


def _weights(text: str, style: Style, field: str) -> list[str]:
    """Return the cells of a column in a table's beginning."""
    if not field:
        return []
    lines = CsvLines(io.StringIO(text, newline=""), len(text) + 1).records(style)
    rows = [cells for _, cells in itertools.islice(lines, _WEIGHTS) if isinstance(cells, list)]
    place = [cell.strip() for cell in rows[0]].index(field) if rows and field in rows[0] else -1
    return [row[place] for row in rows[1:] if 0 <= place < len(row)]


def _binary_format(head: bytes, place: str) -> str:
    """Return the format of a file that is no text, "" for text; raises Unreadable as ``layout_of``."""
    if head.startswith(b"PAR1") and b"\0" in head[:64]:
        return PARQUET
    if head.startswith(b"PK\x03\x04"):
        if b"[Content_Types].xml" in head or b"xl/" in head or place.lower().endswith(".xlsx"):
            return XLSX
        if b"opendocument.spreadsheet" in head:
            raise Unreadable(
                f"{place}: is an OpenDocument sheet; save it as .xlsx or as CSV, or by "
                f"`soffice --convert-to xlsx {place}`, then give that to --corpus"
            )
        raise Unreadable(f"{place}: is a zip archive; `unzip {place} -d ads`, then `--corpus ads`")
    if found := decoding.foreign(head):
        raise Unreadable(
            f"{place}: is {found[0]}; {found[1].replace('FILE', place)}, then give that to --corpus"
        )
    return ""


def _text_format(format: str, text: str, place: str) -> str:
    """Return the format of a text: by its name, and by how it begins where that says more."""
    if format in (JSONL, JSON, ""):
        if _ARRAY.match(text):
            return JSON
        if _LONG_OBJECT.match(text):
            raise Unreadable(
                f"{place}: is one JSON object over several lines; write an object a line, by "
                f"`jq -c '.[][]' {place} > ads.jsonl` (the list inside it) or "
                f"`jq -c . {place} > ads.jsonl` (objects one after the other), then `--corpus ads.jsonl`"
            )
        if format or text.lstrip().startswith("{"):
            return JSONL
    if format == XLSX:
        return CSV
    if format:
        return format
    raise Unreadable(
        f"{place}: the name does not tell the format; give --format, one of {', '.join(FORMATS)}"
    )


def wanted_in(options: ReadOptions) -> Callable[[Sequence[str]], int]:
    """Return what counts the cells of a header that name columns which options ask for."""
    names = {*options.text_paths, options.id_path, options.weight_field} - {""}
    return lambda cells: len(names & {cell.strip() for cell in cells})


def can_be_cut(found: Layout) -> bool:
    """Tell whether a file can be cut anywhere and read from the next line end on."""
    return found.format in LINES and not found.packing and not decoding.is_wide(found.encoding)


def partition_of(place: str) -> tuple[tuple[str, str], ...]:
    """Return the columns that the folders of a file's path name: ``dt=2026-11-21/`` is one."""
    folders = re.split(r"[/\\]", place)[:-1]
    found = (match for match in map(_PARTITION.fullmatch, folders) if match)
    pairs = ((unquote(match[1]), unquote(match[2])) for match in found)
    return tuple((name, value) for name, value in pairs if value != _NO_VALUE)


def told(layouts: Iterable[tuple[str, Layout]]) -> list[str]:
    """Return what a person should know of how files were read, a sentence each kind.

    Args:
        layouts: place and layout of every file that was looked at.
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for place, layout in layouts:
        if words := _words(layout):
            counts[words] += 1
            first.setdefault(words, place)
    return [
        f"{first[words]}{f' and {number - 1:,} more' if number > 1 else ''}: {words}"
        for words, number in counts.items()
    ]


def _words(layout: Layout) -> str:
    words, remedies = [], []
    if layout.encoding != UTF_8:
        words.append(f"read as {layout.encoding}")
        if layout.guessed:
            words[-1] += ", as it looks"
            remedies.append("--encoding")
    usual = TAB if layout.format == TSV else COMMA
    if layout.format in TABLES:
        style = layout.style
        if style.delimiter != usual:
            sign = "tabs" if style.delimiter == TAB else repr(style.delimiter)
            words.append(f"cells parted by {sign}")
            remedies.append("--delimiter")
        if style.quoted and style.delimiter == usual == TAB:
            words.append("with quotation marks around cells")
        if style.skipped:
            words.append(f"the header in line {style.skipped + 1}")
        if style.comma:
            words.append("weights with a decimal comma")
    said = f" ({' and '.join(remedies)} if that is wrong)" if remedies else ""
    return ", ".join(words) + said if words else ""
