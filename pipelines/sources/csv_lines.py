"""Lines of a CSV file that can be given back: one bad record costs only itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, NamedTuple


class NoRecord(NamedTuple):
    """What is wrong with a line that begins no record, and the line."""

    error: csv.Error
    line: str


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

    def skip(self) -> None:
        """Leave out the next line."""
        next(self._feed())

    def records(self, **style: Any) -> Iterator[tuple[str, list[str] | NoRecord]]:
        """Yield where a record begins, and its cells or what is wrong with it.

        Args:
            style: as ``csv.reader`` takes it; a record is read strictly.
        """
        while True:
            try:
                cells = next(csv.reader(self._feed(), strict=True, **style), None)
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
