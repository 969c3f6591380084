"""All sources, and which of them reads a ``--corpus`` value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from models.registry import Registry
from pipelines.contracts import Ad, Rejected
from pipelines.sources.base import Listed, Range, ReadOptions, Source

# Scheme of the ``--corpus`` value -> module and class. What has no scheme of its own is files.
_DEFAULT = "files"
_SOURCES: Registry[Source] = Registry(
    "source",
    {
        "files": "pipelines.sources.files:Files",
        "bq": "pipelines.sources.bigquery:BigQuery",
    },
    instances=True,
)


def names() -> list[str]:
    """Return the names of all sources."""
    return list(_SOURCES)


def get(name: str) -> Source:
    """Return a source by its name."""
    return _SOURCES.get(name)


def registered(source: Source) -> AbstractContextManager[None]:
    """Make a source known under its own name, as long as the context lasts.

    Raises:
        ValueError: the name is taken.
    """
    return _SOURCES.registered(source.name, source)


def source_of(pattern: str) -> Source:
    """Return the source that reads a ``--corpus`` value."""
    scheme, mark, _ = pattern.partition("://")
    return get(scheme if mark and scheme in _SOURCES else _DEFAULT)


def each(patterns: Sequence[str]) -> Iterator[Listed]:
    """Yield what ``--corpus`` values name, as it is found; what two of them name comes twice.

    Raises:
        UsageError: a value names nothing that can be read.
    """
    for pattern in dict.fromkeys(patterns):
        yield from source_of(pattern).list_items(pattern)


def records(patterns: Sequence[str], options: ReadOptions) -> Iterator[Ad | Rejected]:
    """Yield every record of a corpus, one after the other, in this process.

    Raises:
        UsageError: a value names nothing that can be read.
        RunFailed: something cannot be read.
    """
    for item in each(patterns):
        source = get(item.source)
        for part in source.ranges(item, options, max(item.bytes, 1)):
            yield from source.read(part, options)


def told(parts: Sequence[Range], options: ReadOptions) -> list[str]:
    """Return what a person should know of how ranges will be read, a sentence each."""
    names = dict.fromkeys(part.source for part in parts)
    return [
        line
        for name in names
        for line in get(name).told([part for part in parts if part.source == name], options)
    ]
