"""All labeling tools by name, and which of them reads a verdict file."""

from __future__ import annotations

from contextlib import AbstractContextManager

from models.registry import Registry
from pipelines.errors import UsageError
from pipelines.tools.base import Tool

# A line each: the module and the class in it. Who is asked first whether a file is theirs stands first.
_TOOLS: Registry[Tool] = Registry(
    "tool",
    {
        "page": "pipelines.tools.page.format:ReviewPage",
        "csv": "pipelines.tools.sheet.format:Sheet",
        "jsonl": "pipelines.tools.sheet.format:JsonLines",
        "label-studio": "pipelines.tools.label_studio.format:LabelStudio",
        "argilla": "pipelines.tools.argilla.format:Argilla",
        "doccano": "pipelines.tools.doccano.format:Doccano",
        "prodigy": "pipelines.tools.prodigy.format:Prodigy",
    },
    instances=True,
)


def names() -> list[str]:
    """Return the names of all tools."""
    return list(_TOOLS)


def exporting() -> list[str]:
    """Return the names of the tools that items can be exported for."""
    return [name for name in _TOOLS if get(name).files]


def served() -> list[str]:
    """Return the names of the tools that have a server."""
    return [name for name in _TOOLS if get(name).access]


def token_names() -> str:
    """Return the environment variables that hold servers' tokens, for a sentence."""
    return " or ".join(tool.access.key for tool in map(get, _TOOLS) if tool.access)


def get(name: str) -> Tool:
    """Return a tool by its name.

    Raises:
        UsageError: there is none.
    """
    if name not in _TOOLS:
        raise UsageError(f"--tool {name}: unknown; give one of {', '.join(_TOOLS)}")
    return _TOOLS.get(name)


def get_served(name: str, flag: str) -> Tool:
    """Return a tool that has a server, for a flag that needs one; "" is none.

    Raises:
        UsageError: it has none.
    """
    tool = get(name) if name else None
    if tool is None or tool.access is None:
        raise UsageError(
            f"{flag}: {f'--tool {name} has no server' if name else 'needs --tool'}; "
            f"give --tool {' or '.join(served())}, or leave {flag} out"
        )
    return tool


def reader_of(path: str, data: bytes, name: str = "") -> Tool:
    """Return the tool that reads a verdict file: the named one, or the one that knows it as its own.

    Raises:
        UsageError: an unknown tool, or a file that none knows.
    """
    if name:
        return get(name)
    for tool in map(get, _TOOLS):
        if tool.recognizes(path, data):
            return tool
    raise UsageError(
        f"{path}: the name does not tell the format; give --tool, one of {', '.join(_TOOLS)}"
    )


def registered(tool: Tool) -> AbstractContextManager[None]:
    """Make a tool known under its own name, as long as the context lasts.

    Raises:
        ValueError: the name is taken.
    """
    return _TOOLS.registered(tool.name, tool)
