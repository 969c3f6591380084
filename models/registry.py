"""The members of one kind (backends, sources, strategies, tools) by name.

Each is imported when it is first asked for, so that a name costs nothing.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Members by name, in the order in which they were given.

    Args:
        kind: what a member is called, for messages.
        members: name -> ``module:class``.
        instances: whether a member is one instance of its class, made when first asked for, instead
            of the class.
    """

    def __init__(self, kind: str, members: Mapping[str, str], instances: bool = False) -> None:
        self._kind, self._instances = kind, instances
        self._members: dict[str, str | T] = dict(members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def get(self, name: str) -> T:
        """Return a member.

        Raises:
            KeyError: there is none of that name.
        """
        found = self._members[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            loaded = getattr(importlib.import_module(module), attribute)
            found = self._members[name] = loaded() if self._instances else loaded
        return found

    @contextlib.contextmanager
    def registered(self, name: str, member: T) -> Iterator[None]:
        """Know a member of another package, or of a test, while the body runs.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._members:
            raise ValueError(f"there is a {self._kind} {name!r} already")
        self._members[name] = member
        try:
            yield
        finally:
            del self._members[name]
