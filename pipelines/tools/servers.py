"""The labeling tools that have a server: pairs into it, answers out of it.

What talks to a server is imported only when its tool is named; tokens come from the environment
alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict
from types import ModuleType
from typing import Any

from pipelines.errors import UsageError
from pipelines.tools.batch import Batch

# Modules with token_from_environment, push and pull.
_MODULES = {
    "label-studio": "pipelines.tools.label_studio_server",
    "argilla": "pipelines.tools.argilla_server",
}
SERVED = tuple(_MODULES)


def push(tool: str, url: str, batch: Batch, say: Callable[[str], None]) -> dict[str, Any]:
    """Put the pairs that a tool's server lacks into its project; -> counts and its address.

    Raises:
        UsageError: a tool without a server, no token, an address that must not get the token.
        RunFailed: the server cannot be reached or refuses.
    """
    server = _server(tool, "--push")
    return asdict(server.push(url, server.token_from_environment(), batch, say))


def pull(tool: str, url: str, task: str, version: int, say: Callable[[str], None]) -> bytes:
    """Return the answers that a tool's server holds, as an export file of that tool.

    Equal answers are equal bytes, so that importing them twice changes nothing.

    Raises:
        UsageError: a tool without a server, no token, an address that must not get the token.
        RunFailed: the server cannot be reached or refuses, or holds nothing of this task.
    """
    server = _server(tool, "--pull")
    found = server.pull(url, server.token_from_environment(), task, version, say)
    return bytes(found.data)


def _server(tool: str, flag: str) -> ModuleType:
    if tool not in _MODULES:
        raise UsageError(
            f"{flag}: {f'--tool {tool} has no server' if tool else 'needs --tool'}; "
            f"give --tool {' or '.join(SERVED)}, or leave {flag} out"
        )
    return importlib.import_module(_MODULES[tool])
