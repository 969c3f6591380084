"""The contract of a source: list, cut into ranges, read each range's records; or read by itself.

To add a source, write one file with a subclass of :class:`Source` and one line in
``pipelines.sources.registry``; ``tests/sources/test_contract.py`` then runs over it.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pipelines.contracts import Ad, Rejected
from pipelines.errors import UsageError
from pipelines.sources.fields import AdField

if TYPE_CHECKING:
    import apache_beam as beam

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
        version: the state that it is in: another one after every writing, a time or a generation.
        content: a checksum of what it holds, where its store keeps one; else "".
    """

    source: str
    place: str
    bytes: int
    version: str
    content: str = ""


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
        version: of the listed item: whoever reads another one says so.
        line: lines of a table before the range.
        header: names of a table's columns, where the range begins behind them; else ().
    """

    source: str
    place: str
    format: str
    start: int
    stop: int
    bytes: int
    layout: Layout | None = None
    version: str = ""
    line: int = 0
    header: tuple[str, ...] = ()


class NothingThere(UsageError):
    """A ``--corpus`` value names nothing."""


class Source(abc.ABC):
    """Where ads come from. Its objects hold nothing but settings and travel to the workers."""

    # What ranges call it, and the scheme of its ``--corpus`` values (``name://...``).
    name: ClassVar[str]

    @abc.abstractmethod
    def list_items(self, pattern: str) -> Iterable[Listed]:
        """Yield what a ``--corpus`` value names, in any order, each as it is found.

        Runs in the launcher, and again on a worker.

        Raises:
            NothingThere: nothing.
            UsageError: nothing that can be read.
        """

    def everywhere(self, pattern: str) -> str:
        """Return a ``--corpus`` value as every worker understands it: whole paths, no ``~``."""
        return pattern

    def content_of(self, item: Listed) -> str:
        """Return what changes when a thing's content does, and with nothing else where that can be told.

        May read it all: it is asked for few bytes alone (see ``pipelines.sources.survey``).
        """
        return item.content or item.version

    def ranges(self, item: Listed, options: ReadOptions, range_bytes: int) -> Iterable[Range]:
        """Cut one listed thing into ranges of about ``range_bytes``, at the price of a look at it.

        By default it stays whole. Runs in the launcher for a few things, on the workers for all.

        Raises:
            UsageError: the options do not go with it.
        """
        del options, range_bytes
        return [Range(self.name, item.place, "", 0, -1, item.bytes, version=item.version)]

    def cut(self, part: Range, options: ReadOptions, range_bytes: int) -> Iterable[Range]:
        """Cut a range further where that takes reading it; on the workers alone.

        Raises:
            RunFailed: it cannot be read at all.
        """
        del options, range_bytes
        return [part]

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

    def reading(self, patterns: Sequence[str], options: ReadOptions) -> beam.PTransform | None:
        """Return a transform from a pipeline to a ``PCollection[Ad | Rejected]``, or None.

        With None, the default, the workers list, cut and read by the methods above. A source that Beam
        has a connector for returns that; the launcher's few looks still go through them.
        """
        del patterns, options
        return None
