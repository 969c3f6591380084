"""The parser behind ``scout``: refuses with the nearest thing that is known, and shows how a command is typed."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from pipelines.errors import UsageError

# What other programs call a command, or people look for.
_ALSO = {
    "backfill": "nightly",
    "check": "validate",
    "evaluate": "train",
    "fit": "train",
    "ingest": "import",
    "label": "export",
    "new": "init",
    "review": "export",
    "run": "mine",
    "schedule": "nightly",
    "sample": "audit",
    "score": "mine",
    "select": "mine",
    "show": "explain",
    "start": "init",
    "why": "explain",
}


class _Help(argparse.HelpFormatter):
    """Fills paragraphs, and leaves lines that are typed as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = super()._fill_text
        lines = text.splitlines()
        return "\n".join(
            line if line.startswith("  ") else filled(line, width, indent) for line in lines
        )


class Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that one place prints every usage error."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **settings)

    def error(self, message: str) -> NoReturn:
        # Every error begins with the program's name anyway.
        where = "" if self.prog == "scout" else f"{self.prog}: "
        raise UsageError(f"{where}{message} (see `{self.prog} --help`)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            known = list(map(str, action.choices or ()))
            if isinstance(action, argparse._SubParsersAction) and value in _ALSO:
                error.message += f"; did you mean {_ALSO[value]}?"
            else:
                error.message += did_you_mean(str(value).lower(), known)
            raise


def add_command(
    commands: Any, name: str, summary: str, description: str, *examples: str
) -> argparse.ArgumentParser:
    """Add a command: a line in the list of all, what it does in full, and how it is typed."""
    typed = "\n".join(f"  scout {name} {example}".rstrip() for example in examples)
    told = f"example{'s' if len(examples) > 1 else ''}:\n{typed}"
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, epilog=told
    )
    return parser


def check_order(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Refuse a command's flag before the command: its value would be taken for the command."""
    flag = argv[0].partition("=")[0] if argv else ""
    if not flag.startswith("--") or flag in flags_of(parser, None):
        return
    [commands] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if any(flag in flags_of(parser, name) for name in commands.choices):
        raise UsageError(f"{flag} stands before the command; type scout COMMAND ... {flag}")


def did_you_mean(found: str, known: Sequence[str]) -> str:
    """Return the nearest known word as the end of a sentence, "" where none is near."""
    near = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def flags_of(parser: argparse.ArgumentParser, command: str | None) -> list[str]:
    """Return the flags of a command, or those before any command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and command:
            parser = action.choices[command]
    return [flag for known in parser._actions for flag in known.option_strings]
