"""How a function of the API is called: its arguments checked, what its job says kept or printed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.console import progress as console
from pipelines.errors import (
    RunFailed,
    UsageError,
    disk_fault,
    keep_secrets,
    missing_package,
    without_secrets,
)
from pipelines.jobs.results import Result

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_Result = TypeVar("_Result", bound=Result)


def quiet_libraries() -> None:
    """Keep TensorFlow, gRPC and Beam from printing what they find at their start.

    It (no GPU found, ...) would bury our own lines; what really fails raises.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger().addFilter(_worth_logging)


def _worth_logging(record: logging.LogRecord) -> bool:
    return "Resource module is not available" not in record.getMessage()


class Notes:
    """Collects what a job says, and prints it if it is asked to."""

    def __init__(self, printed: bool) -> None:
        self._printed = printed
        self._lines: list[str] = []

    def __call__(self, line: str) -> None:
        line = without_secrets(line)
        self._lines.append(line)
        if self._printed:
            console.write(f"scout: {line}")

    def end(self, result: _Result) -> _Result:
        """Return the result with what was said."""
        return dataclasses.replace(result, notes=tuple(self._lines))


@contextlib.contextmanager
def call(function: Callable[..., Result], given: Mapping[str, Any]) -> Iterator[Notes]:
    """Check a function's arguments and run its body; yields what its job is to tell."""
    quiet_libraries()
    loud = bool(given["progress"])
    try:
        _check(function, given)
        with console.Reporter(quiet=not loud):
            yield Notes(loud)
    except (UsageError, RunFailed) as error:
        error.for_callers()
        keep_secrets(error)
        raise
    except Exception as error:
        from models.backends.base import BackendError, Unavailable

        found: UsageError | RunFailed | None
        if isinstance(error, Unavailable):
            found = RunFailed(str(error))
        elif isinstance(error, BackendError):
            found = UsageError(str(error))
        else:
            found = missing_package(error) or disk_fault(error)
        if found is None:
            raise
        found.for_callers()
        if without_secrets(str(error)) != str(error):
            raise found from None
        raise found from error


def _check(function: Callable[..., Result], given: Mapping[str, Any]) -> None:
    for name in _kinds(function):
        told = refusal(function, name, given[name])
        if told:
            raise UsageError(f"--{name}: {given[name]!r} is refused: {told}")


def refusal(function: Callable[..., Result], name: str, value: Any) -> str:
    """Return why a function takes no such argument, or ""."""
    from pydantic import ValidationError

    try:
        _kinds(function)[name].validate_python(value, strict=True)
    except ValidationError as error:
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        return f"{message[0].lower()}{message[1:]}"
    return ""


@functools.cache
def _kinds(function: Callable[..., Result]) -> dict[str, TypeAdapter[Any]]:
    """Return what checks each argument, by its annotation."""
    from pydantic import TypeAdapter

    from pipelines import config

    own = {name: kind for name, kind in function.__annotations__.items() if name != "return"}
    hints = typing.get_type_hints(
        types.SimpleNamespace(__annotations__=own),
        {**vars(config), **vars(sys.modules[function.__module__])},
        None,
        True,
    )
    return {name: TypeAdapter(hint) for name, hint in hints.items()}
