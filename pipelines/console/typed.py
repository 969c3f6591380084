"""Commands in what people read, as they can be typed: with the paths that are meant, quoted for a shell."""

from __future__ import annotations

import shlex

from pipelines.errors import without_secrets


def typed(command: str, *values: str, workspace: str = "") -> str:
    """Return a command in backticks.

    Args:
        command: name, flags and placeholders that only the reader can fill (``FILE...``), with ``{}`` for
            each value.
        values: paths, URLs and names that are known.
        workspace: what the command is about, where it needs one.
    """
    words = command.format(*(shlex.quote(without_secrets(value)) for value in values))
    return f"`scout {words}{f' --workspace {shlex.quote(without_secrets(workspace))}' if workspace else ''}`"
