"""All sources, and which of them reads a ``--corpus`` value."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from models.registry import Registry
from pipelines.sources.base import Listed, Range, ReadOptions, Source

# Scheme of the ``--corpus`` value -> module and class. What has no scheme of its own is files.
_DEFAULT = "files"
_SOURCES: Registry[Source] = Registry(
    "source",
    {
        "files": "pipelines.sources.files:Files",
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


def list_corpus(patterns: Sequence[str]) -> list[Listed]:
    """Return what ``--corpus`` values name, sorted, each once.

    Raises:
        UsageError: a value names nothing that can be read.
    """
    found: dict[tuple[str, str], Listed] = {}
    for pattern in patterns:
        scheme, mark, _ = pattern.partition("://")
        source = get(scheme if mark and scheme in _SOURCES else _DEFAULT)
        found.update(((item.source, item.place), item) for item in source.list_items(pattern))
    return sorted(found.values())


def plan(listed: Sequence[Listed], options: ReadOptions, range_bytes: int) -> list[Range]:
    """Cut a listed corpus into ranges that workers read independently.

    Raises:
        UsageError: the options do not go with what was listed.
    """
    return [part for item in listed for part in get(item.source).ranges(item, options, range_bytes)]


def told(parts: Sequence[Range], options: ReadOptions) -> list[str]:
    """Return what a person should know of how ranges will be read, a sentence each."""
    names = dict.fromkeys(part.source for part in parts)
    return [
        line
        for name in names
        for line in get(name).told([part for part in parts if part.source == name], options)
    ]
