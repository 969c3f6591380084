"""The contract of a source: list, cut into ranges, read each range's records.

To add a source, write one file with a subclass of :class:`Source` and one line in
``pipelines.sources.registry``; ``tests/sources/test_contract.py`` then runs over it.
"""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from pipelines.contracts import Ad, Rejected
from pipelines.sources.fields import AdField
from pipelines.text import digest

# The stage that reads, as dead letters and counters name it.
STAGE = "ReadAds"
# Value of ``ReadOptions.id_field`` that makes every id from the text.
CONTENT_IDS = "none"
COMMA, TAB = ",", "\t"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How records become ads. Fields are named by their column, or by a dotted path.

    Attributes:
        id_field: field with the ad's id, which then every record must have; "" takes ``id`` where
            a record has it; ``none`` makes every id from the text.
        text_field: field with the ad's text; "" is ``text``, or what ``fields`` say.
        weight_field: field with the ad's weight; "" counts every record once.
        format: the files' format, or "" to go by each file's name.
        max_text_chars: longer texts are rejected, characters.
        max_record_bytes: longer lines are rejected without being held in memory, bytes.
        fields: the parts that the text is made of (see ``pipelines.sources.fields``), or ().
        template: the text with the parts' names in braces; "" is a line a part.
        encoding: how text is written, a codec's name, or "" to go by the files' first bytes.
        delimiter: what parts the cells of CSV, one character, or "" to go by the header.
        whole: give every record as it is, as an ad whose text is a JSON object: for who looks at a corpus
            before anything is known of its fields.
    """

    id_field: str = ""
    text_field: str = ""
    weight_field: str = ""
    format: str = ""
    max_text_chars: int = 20_000
    max_record_bytes: int = 1 << 20
    fields: tuple[AdField, ...] = ()
    template: str = ""
    encoding: str = ""
    delimiter: str = ""
    whole: bool = False

    def shaping(self) -> dict[str, Any]:
        """Return what shapes the ads, for a hash: what is left to the files is not in it."""
        found = dataclasses.asdict(self)
        unsaid = [name for name in ("encoding", "delimiter", "whole") if not found[name]]
        return {name: value for name, value in found.items() if name not in unsaid}

    @property
    def id_path(self) -> str:
        """Where a record's id is; "" when ids are made from the text."""
        return "" if self.id_field == CONTENT_IDS else self.id_field or "id"

    @property
    def text_paths(self) -> tuple[str, ...]:
        """Where a record's text is: one path, or that of every field."""
        return tuple(field.path for field in self.fields) or (self.text_field or "text",)


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """One thing that a source found: a file, a table.

    Attributes:
        source: name of the source.
        place: where it is, as the source and the dead letters call it.
        bytes: what reading it costs, bytes.
        version: changes when its content does: a time, a generation, a hash.
    """

    source: str
    place: str
    bytes: int
    version: str


class Style(NamedTuple):
    """How a table is written.

    Attributes:
        delimiter: parts the cells, one character.
        quoted: whether quotation marks around a cell are not part of it.
        skipped: lines before the header.
        comma: whether weights are written with a decimal comma.
    """

    delimiter: str = COMMA
    quoted: bool = True
    skipped: int = 0
    comma: bool = False


class Layout(NamedTuple):
    """How a file is written, as its first bytes show.

    Attributes:
        format: one of ``pipelines.sources.layout.FORMATS``.
        packing: ``gzip``, ``bzip2``, ``zstd`` or "".
        encoding: of its text, a codec's name.
        guessed: whether the encoding was neither marked, nor certain, nor said.
        style: of CSV.
        columns: (name, value) that its path gives every record.
    """

    format: str
    packing: str = ""
    encoding: str = "utf-8"
    guessed: bool = False
    style: Style = Style()
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Range:
    """What one worker reads at a time: a part of something listed, or all of it.

    Attributes:
        source: name of the source that reads it.
        place: the listed place.
        format: how it is written, where the source knows several ways; else "".
        start, stop: the source's own numbers: a record belongs to the range if it starts at
            ``start <= number < stop``; stop -1 is the whole.
        bytes: what reading it costs, bytes; an item's ranges add up to the item.
        layout: how it is written, where whoever cut it looked; else whoever reads it does.
    """

    source: str
    place: str
    format: str
    start: int
    stop: int
    bytes: int
    layout: Layout | None = None


class Source(abc.ABC):
    """Where ads come from. Its objects hold nothing but settings and travel to the workers."""

    # What ranges call it, and the scheme of its ``--corpus`` values (``name://...``).
    name: ClassVar[str]

    @abc.abstractmethod
    def list_items(self, pattern: str) -> Sequence[Listed]:
        """Return what a ``--corpus`` value names, in any order.

        Raises:
            UsageError: nothing, or nothing that can be read.
        """

    def ranges(self, item: Listed, options: ReadOptions, range_bytes: int) -> Sequence[Range]:
        """Cut one listed thing into ranges of about ``range_bytes``; by default it stays whole.

        Raises:
            UsageError: the options do not go with it.
        """
        del options, range_bytes
        return [Range(self.name, item.place, "", 0, -1, item.bytes)]

    def told(self, parts: Sequence[Range], options: ReadOptions) -> list[str]:
        """Return what a person should know of how ranges will be read, a sentence each."""
        del parts, options
        return []

    @abc.abstractmethod
    def read(self, part: Range, options: ReadOptions) -> Iterator[Ad | Rejected]:
        """Yield an ad or a rejection for every record that starts in a range.

        Every record of an item belongs to exactly one of its ranges, however they are cut;
        :func:`pipelines.sources.records.to_ad` makes either from a dictionary.

        Raises:
            RunFailed: it cannot be read at all, so that no record can be blamed.
        """


def fingerprint(listed: Sequence[Listed]) -> str:
    """Return a hash that changes when the corpus does; 32 hex characters."""
    return digest(
        json.dumps([[item.source, item.place, item.bytes, item.version] for item in listed])
    )
