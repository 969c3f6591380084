"""Commands as they can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipelines import options
from pipelines.console.typed import typed
from pipelines.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def test_what_a_shell_would_take_apart_is_quoted() -> None:
    told = typed("import {} --tool {}", "it's here/$HOME.csv", "csv", workspace="my runs/one")
    assert told.startswith("`scout import ") and told.endswith("`")
    words = shlex.split(told.strip("`"))
    assert words[1:] == [
        "import",
        "it's here/$HOME.csv",
        "--tool",
        "csv",
        "--workspace",
        "my runs/one",
    ]
    args, _ = options.parse(words[1:])
    assert (args.files, args.workspace) == (["it's here/$HOME.csv"], "my runs/one")


def test_braces_of_a_path_are_its_own() -> None:
    assert typed("mine TASK --corpus {}", "a{b}.csv") == "`scout mine TASK --corpus 'a{b}.csv'`"


def test_no_command_is_told_with_a_made_up_workspace() -> None:
    folders = [ROOT / "pipelines", ROOT / "templates"]
    files = [path for folder in folders for path in folder.rglob("*.*") if path.suffix != ".pyc"]
    assert len(files) > 100
    for path in files:
        text = path.read_bytes().decode("utf-8", "replace")
        assert not re.search(r"--workspace (DIR|WORKSPACE|\.\.\.)", text), path


def test_an_error_leaves_what_is_typed_as_it_is() -> None:
    error = UsageError(f"--workspace w: nothing; {typed('mine TASK', workspace='w')} --round 1")
    error.for_callers()
    assert str(error) == "workspace w: nothing; `scout mine TASK --workspace w` round 1"


@pytest.mark.parametrize("name", ["argilla", "doccano", "label-studio", "prodigy"])
def test_a_setup_says_where_answers_go(name: str) -> None:
    text = (ROOT / "templates" / "labeling" / f"{name}.md").read_text("utf-8")
    told = [" ".join(span.split()) for span in re.findall(r"`(scout [^`]+)`", text)]
    assert told and all("--workspace $workspace" in command for command in told)
