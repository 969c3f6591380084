"""Tables with cells parted by a sign: how one is written, and its lines, which can be given back.

Corpora and verdicts are read by the same two steps: :func:`style_of` tells by a file's beginning what
parts its cells and where its header is, :class:`CsvLines` yields its records, one bad record costing
only itself.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import re
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pipelines.sources.base import COMMA, TAB, Style

DELIMITERS = (COMMA, ";", TAB, "|")
# Lines that may stand before the header (a title, the dates of a report), and records that are looked at.
_PREAMBLE, _LOOKED_AT, _LOOKED_AT_CHARS = 20, 200, 1 << 17
_HINT = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


class NoRecord(NamedTuple):
    """What is wrong with a line that begins no record, and the line."""

    error: csv.Error
    line: str


# Where a record begins, and its cells or what is wrong with it.
Records = Iterator[tuple[str, list[str] | NoRecord]]


class CsvLines:
    """Physical lines of a CSV file, with a way back.

    A quote that is never closed would swallow the rows after it. So the lines of a record are kept until it
    turns out to be one; else its first line alone is none, and the next one begins another. What a line does
    to a cell that is open in quotes before it does not depend on where that was opened: each line is looked
    at so once at most, and whatever a file holds takes time in proportion to its length.

    Memory: the lines of a record of the longest kind.

    Args:
        wrapped: the file, or a part of it.
        limit: longest record, characters.
        number: lines of the file before the part.
    """

    def __init__(self, wrapped: io.TextIOBase, limit: int, number: int = 0) -> None:
        self._wrapped, self._limit = wrapped, limit
        self._number = number
        self._quoting: dict[str, Any] = {}
        self._quoted = ""
        # Which lines leave a cell open: those that begin a record, and those that a cell is open before.
        self._opens: Callable[[str], Any] = _NEVER
        self._goes_on: Callable[[str], Any] = _NEVER
        self._long = csv.Error(f"longer than {limit:,} characters")
        # Lines that were read ahead; the first `_open` of them, of `_open_chars`, leave a cell open that is
        # open before them. Of the line behind those: whether it ends the record, why not, or None.
        self._ahead: deque[tuple[int, str]] = deque()
        self._open = self._open_chars = 0
        self._end: csv.Error | bool | None = None

    def records(self, style: Style) -> Records:
        """Yield the records behind what stands before the header; they are read strictly."""
        csv.field_size_limit(max(csv.field_size_limit(), self._limit))
        self._quoting = {
            "strict": True,
            "delimiter": style.delimiter,
            "quoting": csv.QUOTE_MINIMAL if style.quoted else csv.QUOTE_NONE,
        }
        self._quoted = f'{style.delimiter}"'
        self._opens, self._goes_on = (
            _left_open(style.delimiter) if style.quoted else (_NEVER, _NEVER)
        )
        while self._number < style.skipped and self._next():
            pass
        ahead, record = self._ahead, self._record
        while True:
            # As `_next`, without a call a line.
            if not ahead:
                if (line := self._read()) is None:
                    return
                number, text = line
            else:
                number, text = ahead.popleft()
                if self._open:
                    self._open -= 1
                    self._open_chars -= len(text)
                else:
                    self._end = None
            cells = record(text)
            yield (
                f"line {number}",
                NoRecord(cells, text) if isinstance(cells, csv.Error) else cells,
            )

    def _record(self, text: str) -> list[str] | csv.Error:
        """Return the cells of the record that a line begins; takes the other lines of it.

        Returns:
            or what is wrong: it is none, or longer than the limit.
        """
        if len(text) > self._limit:
            while not text.endswith("\n") and (text := self._wrapped.readline(1 << 20)):
                pass
            return self._long
        # The reader of the standard library takes longer to make than most lines to read. A quote that does not
        # begin a cell is a sign like any other.
        if self._opens is _NEVER or (text[0] != '"' and self._quoted not in text):
            bare = text.rstrip("\r\n")
            return bare.split(self._quoting["delimiter"]) if bare else []
        if not self._opens(text):
            try:
                cells = self._cells([text])
            except csv.Error as error:
                return error
            if cells is not None:
                return cells
        end = self._look_ahead(len(text))
        if isinstance(end, csv.Error):
            return end
        lines = [text, *(self._ahead.popleft()[1] for _ in range(self._open + 1))]
        self._open, self._open_chars, self._end = 0, 0, None
        return self._cells(lines) or []

    def _cells(self, lines: Sequence[str]) -> list[str] | None:
        """Return the cells of a record; None where the last line leaves one of them open.

        Raises:
            csv.Error: it is no record.
        """
        left_open = False

        def feed() -> Iterator[str]:
            nonlocal left_open
            yield from lines
            left_open = True

        try:
            return next(csv.reader(feed(), **self._quoting))
        except csv.Error:
            if left_open:
                return None
            raise

    def _look_ahead(self, size: int) -> csv.Error | bool:
        """Look for the line that ends a record whose first line has a size; why there is none, or True."""
        ahead, limit, goes_on = self._ahead, self._limit, self._goes_on
        while self._end is None:
            if len(ahead) > self._open:
                text = ahead[self._open][1]
            elif text := self._wrapped.readline(limit + 1):
                self._number += 1
                ahead.append((self._number, text))
            else:
                self._end = csv.Error("unexpected end of data")
                break
            if size + self._open_chars + len(text) > limit:
                return self._long
            if not goes_on(text) and '"' in text:
                try:
                    if self._cells(['"' + text]) is not None:
                        self._end = True
                        break
                except csv.Error as error:
                    self._end = error
                    break
            self._open += 1
            self._open_chars += len(text)
        return self._end or True

    def _next(self) -> tuple[int, str] | None:
        if not self._ahead:
            return self._read()
        line = self._ahead.popleft()
        if self._open:
            self._open -= 1
            self._open_chars -= len(line[1])
        else:
            self._end = None
        return line

    def _read(self) -> tuple[int, str] | None:
        text = self._wrapped.readline(self._limit + 1)
        self._number += bool(text)
        return (self._number, text) if text else None


@functools.cache
def _left_open(delimiter: str) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """Return what matches a line that leaves a cell open: one that begins a record, and one within a cell.

    They match no line that the reader of the standard library, strict, would take or refuse. Nothing is tried
    twice (possessive), so the time is in proportion to the line.
    """
    sign = re.escape(delimiter)
    quoted = r'[^"]*+(?:""[^"]*+)*+'
    cells = rf'(?:(?:"{quoted}"|(?!")[^{sign}\r\n]*+){sign})*+'
    return (
        re.compile(rf'{cells}"{quoted}\Z').match,
        re.compile(rf'{quoted}(?:"{sign}{cells}"{quoted})?+\Z').match,
    )


def _NEVER(_: str) -> None:  # noqa: N802
    return None


def style_of(
    text: str,
    known: Callable[[Sequence[str]], int],
    default: str = COMMA,
    named: str = "",
    whole: bool = False,
) -> Style:
    """Tell by a table's beginning how it is written.

    A first line ``sep=;`` is obeyed. Otherwise what gives the header most of the columns that are
    looked for, then what gives most rows as many cells as the header, then what needs no title before
    the header, then what makes most columns: a comma in every row's text, or in every price, parts cells, too.

    Args:
        text: the beginning, without a byte order mark.
        known: tells how many of a header's cells name columns that are looked for.
        default: what is taken where nothing speaks for another.
        named: the delimiter that a person says; "" for none.
        whole: whether the text is the whole file.
    """
    if not whole or len(text) > _LOOKED_AT_CHARS:
        # The last line may be cut.
        text = text[:_LOOKED_AT_CHARS]
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    lines = io.StringIO(text, newline="").readlines()
    before = len(list(itertools.takewhile(lambda line: not line.strip(), lines)))
    if before < len(lines) and (hint := _HINT.fullmatch(lines[before])):
        before, named = before + 1, named or hint[1]
    tried = [
        _tried(lines, Style(delimiter, quoted, before), known)
        for delimiter in ([named] if named else dict.fromkeys((default, *DELIMITERS)))
        for quoted in ((False, True) if delimiter == TAB else (True,))
    ]
    return max(tried, key=lambda one: one[0])[1]


# Columns that are known, whether there are several, the share of rows as wide as the header, quoted, whether
# the header comes first, how many columns, lines before the header (less is more).
_Rank = tuple[int, bool, float, bool, bool, int, int]


def _tried(
    lines: Sequence[str], style: Style, known: Callable[[Sequence[str]], int]
) -> tuple[_Rank, Style]:
    """Return how well a style reads a beginning, and the style with its header's place."""
    text = "".join(lines)
    records = CsvLines(io.StringIO(text, newline=""), len(text) + 1).records(style)
    rows = [
        (int(position.removeprefix("line ")), [] if isinstance(cells, NoRecord) else cells)
        for position, cells in itertools.islice(records, _LOOKED_AT)
        if isinstance(cells, NoRecord) or any(cell.strip() for cell in cells)
    ]
    if not rows:
        return (0, False, 0.0, False, False, 0, 0), style
    counts = [known(cells) for _, cells in rows[:_PREAMBLE]]
    header = counts.index(max(counts))
    if not counts[header]:
        # Nothing is known of the columns: what most rows are as wide as is their header, not a title.
        widths = [len(cells) for _, cells in rows]
        usual = statistics.mode(widths)
        header = widths.index(usual) if usual > 1 and usual in widths[:_PREAMBLE] else 0
    number, names = rows[header]
    below = [cells for _, cells in rows[header + 1 :]]
    alike = sum(len(cells) == len(names) for cells in below) / len(below) if below else 1.0
    quoted_tabs = style.delimiter == TAB and style.quoted
    if quoted_tabs:
        # Tabs are mostly written without quotes: it takes rows that could not do without, all of them whole.
        needed = any(set("\t\r\n") & set("".join(cells)) for cells in below) or '""' in text
        if alike < 1 or not (needed or lines[number - 1].startswith('"')):
            alike = -1.0
    several = len(names) > 1
    rank = (max(counts), several, alike, quoted_tabs, header == 0, len(names), -header)
    return rank, style._replace(skipped=number - 1)
