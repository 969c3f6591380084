"""What a command asks on a terminal, where a flag is not given."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.errors import UsageError

_QUESTIONS = (
    ("policy", "The policy, as your experts know it (or a .txt or .md file that holds it)"),
    ("positive", "What experts call an ad that violates it"),
    ("negative", "What they call any other"),
    ("prior", "Expected share of such ads, in percent or as a fraction; a guess will do"),
)


def for_task(args: argparse.Namespace, refusal: Callable[[str, Any], str]) -> None:
    """Ask what ``init`` needs and was not told, and put it into the arguments.

    Args:
        args: of the command.
        refusal: says what is wrong with a value of an argument, or "".

    Raises:
        UsageError: the input ended, or the file is not to be replaced.
    """
    from rich.console import Console
    from rich.prompt import Confirm, Prompt

    console = Console(stderr=True)
    try:
        if os.path.exists(args.task_file) and not args.force:
            if not Confirm.ask(f"{args.task_file} is there already. Replace it?", console=console):
                raise UsageError(f"{args.task_file}: left as it is; name another file")
            args.force = True
        if not args.name:
            default = re.sub(r"[^a-z0-9_-]+", "-", Path(args.task_file).stem.lower()).strip("-_")
            args.name = _answer(Prompt, console, "name", "Name of the task", refusal, default)
        for name, question in _QUESTIONS:
            if not getattr(args, name):
                setattr(args, name, _answer(Prompt, console, name, question, refusal))
        if not args.corpus:
            given = Prompt.ask(
                "Corpus (a file or a glob; empty for later)", default="", console=console
            )
            args.corpus = [given] if given.strip() else []
    except EOFError:
        raise UsageError(
            "the input ended before everything was answered; nothing is written"
        ) from None


def _answer(
    prompt: Any,
    console: Any,
    name: str,
    question: str,
    refusal: Callable[[str, Any], str],
    default: str = "",
) -> Any:
    while True:
        told = prompt.ask(question, console=console, **({"default": default} if default else {}))
        value = (told or "").strip()
        if not value:
            continue
        try:
            found = share(value) if name == "prior" else value
        except ValueError:
            console.print(f"  not a number: {value!r}", markup=False)
            continue
        why = refusal(name, found)
        if not why:
            return found
        console.print(f"  {value!r} is refused: {why}", markup=False)


def share(text: str) -> float:
    """Return a share that is written as a fraction or in percent.

    Raises:
        ValueError: it is no number.
    """
    number = text.strip().removesuffix("%").strip().replace(",", ".")
    return float(number) / 100 if text.strip().endswith("%") else float(number)
