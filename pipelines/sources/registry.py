"""All sources, and which of them reads a ``--corpus`` value."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence

from pipelines.sources.base import Listed, Range, ReadOptions, Source

# Scheme of the ``--corpus`` value -> module and class. What has no scheme of its own is files.
_DEFAULT = "files"
_SOURCES: dict[str, str | Source] = {
    "files": "pipelines.sources.files:Files",
}


def names() -> list[str]:
    """Return the names of all sources."""
    return list(_SOURCES)


def get(name: str) -> Source:
    """Return a source by its name."""
    found = _SOURCES[name]
    if isinstance(found, str):
        module, _, member = found.partition(":")
        found = _SOURCES[name] = getattr(importlib.import_module(module), member)()
    return found


@contextlib.contextmanager
def registered(source: Source) -> Iterator[None]:
    """Make a source known under its own name, as long as the context lasts.

    Raises:
        ValueError: the name is taken.
    """
    if source.name in _SOURCES:
        raise ValueError(f"there is a source {source.name!r} already")
    _SOURCES[source.name] = source
    try:
        yield
    finally:
        del _SOURCES[source.name]


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
