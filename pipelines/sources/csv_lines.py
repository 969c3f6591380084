"""Tables with cells parted by a sign: how one is written, and its lines, which can be given back.

Corpora and verdicts are read by the same two steps: :func:`style_of` tells by a file's beginning what
parts its cells and where its header is, :class:`CsvLines` yields its records, one bad record costing
only itself.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

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

    A quote that is never closed would swallow the rows after it. So the lines of a record are
    kept while it is parsed, and given back when it turns out not to be one.

    Args:
        wrapped: the file, or a part of it.
        limit: longest record, characters.
        number: lines of the file before the part.
    """

    def __init__(self, wrapped: io.TextIOBase, limit: int, number: int = 0) -> None:
        self._wrapped, self._limit = wrapped, limit
        self._waiting: list[tuple[int, str]] = []
        self._number = number
        self._record: list[tuple[int, str]] = []

    def records(self, style: Style) -> Records:
        """Yield the records behind what stands before the header; they are read strictly."""
        csv.field_size_limit(max(csv.field_size_limit(), self._limit))
        while self._number < style.skipped and self._next():
            pass
        while True:
            try:
                reader = csv.reader(
                    self._feed(),
                    strict=True,
                    delimiter=style.delimiter,
                    quoting=csv.QUOTE_MINIMAL if style.quoted else csv.QUOTE_NONE,
                )
                cells = next(reader, None)
            except csv.Error as error:
                yield self._position(), NoRecord(error, self._give_back())
                continue
            if cells is None:
                return
            yield self._position(), cells

    def _feed(self) -> Iterator[str]:
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

    def _position(self) -> str:
        """Return where the record just fed begins."""
        return f"line {self._record[0][0]}"

    def _give_back(self) -> str:
        """Take back all lines of the record but the first, which is returned."""
        first, *rest = self._record
        self._waiting.extend(reversed(rest))
        if len(first[1]) > self._limit and not first[1].endswith("\n"):
            while (more := self._wrapped.readline(1 << 20)) and not more.endswith("\n"):
                pass
        return first[1]


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
