"""Backends by the name that a task file gives in `model.backend`; imported when asked for."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

from models.backends.base import Backend

# A line each: the module and the class in it.
_BACKENDS: dict[str, str | type[Backend]] = {
    "keras": "models.backends.keras_llm:KerasLLM",
    "fake": "models.backends.fake:Fake",
}
# The preset "fake" means the backend of that name, any other one Keras.
AUTO, FAKE = "auto", "fake"


def names() -> tuple[str, ...]:
    """Return what `find` takes."""
    return (AUTO, *_BACKENDS)


def find(name: str, preset: str = "") -> type[Backend]:
    """Return a backend's class.

    Args:
        name: one of `names()`.
        preset: decides what "auto" means.

    Raises:
        ValueError: no such backend.
    """
    if name == AUTO:
        name = FAKE if preset == FAKE else "keras"
    if name not in _BACKENDS:
        raise ValueError(f"no backend {name!r}; use one of {', '.join(names())}")
    found = _BACKENDS[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, type) and issubclass(found, Backend)
    return found


@contextlib.contextmanager
def registered(name: str, backend: type[Backend]) -> Iterator[None]:
    """Add a backend of another package, or of a test, while the context lasts.

    Raises:
        ValueError: the name is taken.
    """
    if name in names():
        raise ValueError(f"a backend {name!r} is there already")
    _BACKENDS[name] = backend
    try:
        yield
    finally:
        del _BACKENDS[name]
