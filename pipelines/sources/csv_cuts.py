"""Where a table can be cut: at ends of lines that are surely ends of rows.

A cell in quotes may hold line ends, so nothing in the middle of a file tells where a row begins. What
tells is the number of quotes before it, as long as every quote either opens a cell (it stands behind a
delimiter or a line end), closes one (before either) or is one of two that mean one inside a cell. A file
with any other quote, a bare carriage return or a row over the limit is not cut: there, how rows are read
depends on what was read before.
"""

from __future__ import annotations

import codecs
import io
import itertools
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from pipelines.sources import layout
from pipelines.sources.base import Layout, Style
from pipelines.sources.csv_lines import CsvLines, NoRecord
from pipelines.sources.decoding import HEAD_BYTES, UTF_8

_PIECE_BYTES = 1 << 22
_QUOTE, _LINE_END, _RETURN = b'"\n\r'


class Cut(NamedTuple):
    """Where a part of a table begins.

    Attributes:
        start: its first byte.
        line: lines before it.
        header: the names of the table's columns.
    """

    start: int
    line: int
    header: tuple[str, ...]


def may_be_cut(found: Layout) -> bool:
    """Tell whether a file is a table of which each byte of a quote or a line end is one."""
    if found.format not in layout.TABLES or found.packing:
        return False
    if not found.style.delimiter.isascii():
        return False
    return found.encoding == UTF_8 or _is_charmap(found.encoding)


def _is_charmap(encoding: str) -> bool:
    """Tell whether an encoding has one byte a character, and ASCII's signs where ASCII has them."""
    every, signs = bytes(range(256)), '",;|\t\r\n'
    try:
        codecs.lookup(encoding)
        return len(every.decode(encoding, "replace")) == 256 and signs.encode(
            encoding
        ) == signs.encode("ascii")
    except (LookupError, UnicodeError):
        return False


def cuts(source: BinaryIO, found: Layout, range_bytes: int, limit: int) -> list[Cut]:
    """Return where a table can be cut so that its parts have at least ``range_bytes``; [] for nowhere.

    Reads the file once. Memory: 4 MiB, about 30 bytes a quote and a line end of them, and a cut each
    ``range_bytes``.

    Args:
        source: the file, at its beginning.
        found: how it is written; :func:`may_be_cut` says yes to it.
        range_bytes: least distance of cuts.
        limit: longest row, bytes.
    """
    head = source.read(HEAD_BYTES)
    begun = _header_of(head, found)
    if begun is None:
        return []
    offset, line, header = begun
    scan = _Scan(found.style, limit, offset, line)
    places: list[Cut] = []
    wanted = range_bytes
    for piece in _pieces(head[offset:], source):
        if not scan.take(piece):
            return []
        while (place := scan.row_from(wanted)) is not None:
            places.append(Cut(*place, header))
            wanted = place[0] + range_bytes
    if not scan.ended():
        return []
    # Behind the last line end there is no row.
    return [place for place in places if place.start < scan.offset]


def _pieces(first: bytes, source: BinaryIO) -> Iterator[bytes]:
    while first:
        yield first
        first = source.read(_PIECE_BYTES)


def _header_of(head: bytes, found: Layout) -> tuple[int, int, tuple[str, ...]] | None:
    """Return where the header begins, the lines before it, and its cells."""
    lines = head.splitlines(keepends=True)
    skipped = found.style.skipped
    if len(lines) <= skipped + 1 or b"\r" in head.removesuffix(b"\r").replace(b"\r\n", b""):
        return None
    offset = sum(map(len, lines[:skipped]))
    if not offset and head.startswith(codecs.BOM_UTF8):
        offset = len(codecs.BOM_UTF8)
    text = head[offset:].decode(found.encoding, "surrogateescape")
    rows = CsvLines(io.StringIO(text, newline=""), len(text) + 1).records(
        found.style._replace(skipped=0)
    )
    for _, cells in itertools.islice(rows, len(lines)):
        if isinstance(cells, NoRecord):
            return None
        if any(cell.strip() for cell in cells):
            return offset, skipped, tuple(cell.strip() for cell in cells)
    return None


class _Scan:
    """Follows quotes and line ends from a row's beginning on."""

    def __init__(self, style: Style, limit: int, offset: int, line: int) -> None:
        self._quoted, self._limit = style.quoted, limit
        self._delimiter = ord(style.delimiter)
        # Where the next piece begins, lines before it, and where the row in it began.
        self.offset, self._line, self._row = offset, line, offset
        self._inside = False
        # The byte before the next piece, and whether the quote that it may be has closed a cell.
        self._before = _LINE_END
        self._rows = np.zeros(0, dtype=np.int64)
        self._lines = np.zeros(0, dtype=np.int64)

    def take(self, piece: bytes) -> bool:
        """Read on; tells whether the rows are still certain."""
        data = np.frombuffer(bytes([self._before]) + piece, dtype=np.uint8)
        ends = np.flatnonzero(data[1:] == _LINE_END)
        if not self._returns_end_lines(data):
            return False
        quotes = np.zeros(0, dtype=np.int64)
        if self._quoted:
            quotes = np.flatnonzero(data[1:] == _QUOTE)
            if not self._quotes_mean_cells(data, quotes):
                return False
        outside = (np.searchsorted(quotes, ends) + self._inside) % 2 == 0
        self._rows = self.offset + ends[outside] + 1
        self._lines = self._line + np.flatnonzero(outside) + 1
        begins = np.concatenate([[self._row], self._rows])
        self._inside = bool((len(quotes) + self._inside) % 2)
        self.offset += len(piece)
        self._line += len(ends)
        self._before = int(data[-1])
        lengths = np.diff(np.append(begins, self.offset))
        self._row = int(begins[-1])
        return bool((lengths <= self._limit).all())

    def _returns_end_lines(self, data: np.ndarray) -> bool:
        # The last byte's neighbour comes with the next piece.
        returns = np.flatnonzero(data[:-1] == _RETURN)
        return bool((data[returns + 1] == _LINE_END).all())

    def _quotes_mean_cells(self, data: np.ndarray, quotes: np.ndarray) -> bool:
        """Tell whether quotes open and close cells in turn; ``data`` has a byte before the piece's."""
        opening = (np.arange(len(quotes)) + self._inside) % 2 == 0
        before = data[quotes[opening]]
        # One behind a quote: the second of two that mean one, for the first has closed.
        opens = (before == self._delimiter) | (before == _LINE_END) | (before == _QUOTE)
        # What follows a closing one: of the last byte it comes with the next piece.
        behind = quotes[~opening] + 2
        after = data[behind[behind < len(data)]]
        closes = self._may_follow(after)
        if self._before == _QUOTE and not self._inside and len(data) > 1:
            closes = np.append(closes, self._may_follow(data[1:2]))
        return bool(opens.all() and closes.all())

    def _may_follow(self, after: np.ndarray) -> np.ndarray:
        ends = (after == _LINE_END) | (after == _RETURN)
        return np.asarray(ends | (after == self._delimiter) | (after == _QUOTE))

    def row_from(self, wanted: int) -> tuple[int, int] | None:
        """Return the first row of the last piece that begins at or behind an offset, and its line."""
        place = int(np.searchsorted(self._rows, wanted))
        if place == len(self._rows):
            return None
        return int(self._rows[place]), int(self._lines[place])

    def ended(self) -> bool:
        """Tell whether the file may end here."""
        return not self._inside and self._before != _RETURN
