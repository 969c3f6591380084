"""README and docs say what is: commands, options, targets, paths, the tree, the task file, the extras."""

from __future__ import annotations

import argparse
import ast
import fnmatch
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines import options
from pipelines.config import load_task
from pipelines.console.beam_flags import beam_parser
from pipelines.errors import UsageError
from pipelines.numerics.calibration import Threshold
from pipelines.sources import csv_lines, decoding, layout
from pipelines.strategies import registry
from pipelines.strategies.base import Context, Rows, RowStrategy
from tests.test_layering import LEVELS

ROOT = Path(__file__).resolve().parent.parent
README, ARCHITECTURE = ROOT / "README.md", ROOT / "docs" / "architecture.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# Those that tell of what is there now; docs/decisions.md may name what is gone.
PRESENT = [page for page in PAGES if page.name != "decisions.md"]
# Folders whose rooms the tree of docs/architecture.md shows, every one.
SHOWN = ("pipelines", "models", "templates", "tests", "benchmarks")
MAX_README_LINES = 212
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SUFFIXES = frozenset(
    [
        ".py",
        ".md",
        ".yaml",
        ".json",
        ".jsonl",
        ".csv",
        ".html",
        ".txt",
        ".png",
        ".css",
        ".js",
        ".xml",
        ".gz",
        ".parquet",
        ".npz",
        ".toml",
    ]
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fences(page: Path, language: str = "") -> list[str]:
    """Return the fenced blocks of a language."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [body for named, body in found if named == language]


def spans(page: Path) -> list[str]:
    """Return what stands in backticks within running text."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def typed_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of each line that a reader types: of the fenced blocks without a language."""
    for block in fences(page):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.removeprefix(".venv/bin/")
            if re.match(r"(scout|make|python) ", line):
                yield shlex.split(line, comments=True)


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of ``scout``'s commands."""
    [found] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found.choices)


options_parser = options.build_parser


def lenient_parser() -> argparse.ArgumentParser:
    """Return the real parser, content with a part of a command line: nothing is required."""
    parser = options_parser()
    for command in commands_of(parser).values():
        for action in command._actions:
            action.required = False
            if not action.option_strings and action.nargs is None:
                action.nargs = "?"
    return parser


def commands_with(flag: str) -> list[str]:
    """Return the commands that have a flag."""
    commands = commands_of(options_parser())
    return [name for name, own in commands.items() if _has(own, flag)]


def is_beams(flag: str) -> bool:
    """Tell whether a flag is Beam's, which ``scout mine`` passes on."""
    return _has(beam_parser(), flag)


def _has(parser: argparse.ArgumentParser, flag: str) -> bool:
    return any(flag in action.option_strings for action in parser._actions)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_are_those_of_the_real_parser(page: Path) -> None:
    for words in typed_lines(page):
        if words[0] == "scout":
            try:
                options.parse(words[1:])
            except UsageError as error:
                pytest.fail(f"{name_of(page)}: {shlex.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_flags_in_running_text_are_those_of_the_real_parser(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "build_parser", lenient_parser)
    for span in spans(page):
        words = shlex.split(span) if span.startswith(("scout ", "--")) else [""]
        if words[0] == "scout" and words[1:] != ["COMMAND"]:
            try:
                options.parse(words[1:])
            except UsageError as error:
                pytest.fail(f"{name_of(page)}: `{span}`: {error}")
        elif words[0].startswith("--"):
            having = commands_with(words[0])
            assert having or is_beams(words[0]), f"{name_of(page)}: no command has {words[0]}"
            refusing = [name for name in having if len(words) > 1 and not _takes(name, words)]
            assert not refusing, f"{name_of(page)}: `{span}` is none of {refusing}'s: say whose"


def _takes(command: str, words: list[str]) -> bool:
    try:
        options.parse([command, *words])
    except UsageError:
        return False
    return True


def test_there_are_command_lines_to_check() -> None:
    commands = {words[1] for page in PAGES for words in typed_lines(page) if words[0] == "scout"}
    assert commands >= {*commands_of(options_parser())} - {"demo"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    lines = [*typed_lines(page), *(span.split() for span in spans(page))]
    named = {word for line in lines if line[0] == "make" for word in line[1:] if "=" not in word}
    assert named <= targets, f"{name_of(page)}: no make target {sorted(named - targets)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_benchmarks_exist_with_their_flags(page: Path) -> None:
    common = (ROOT / "benchmarks" / "_common.py").read_text(encoding="utf-8")
    for words in [*typed_lines(page), *(span.split() for span in spans(page))]:
        if words[:2] == ["python", "-m"]:
            file = ROOT / f"{words[2].replace('.', '/')}.py"
            assert file.is_file(), f"{name_of(page)}: no module {words[2]}"
            source = file.read_text(encoding="utf-8") + common
            for flag in (word for word in words if word.startswith("--")):
                assert f'"{flag}"' in source, f"{name_of(page)}: {words[2]} has no {flag}"


def produced(page: Path) -> list[str]:
    """Return the patterns of what a page says that runs write: ``<!-- produced: ... -->``."""
    marked = re.findall(r"<!-- produced: (.*?) -->", page.read_text(encoding="utf-8"))
    return [pattern for line in marked for pattern in line.split()]


def is_path(span: str) -> bool:
    """Tell whether a span in backticks names a file or a folder."""
    if re.search(r"[\s()'\"=$|]|://|^-", span):
        return False
    return "/" in span or Path(span).suffix in _SUFFIXES


@pytest.mark.parametrize("page", PRESENT, ids=name_of)
def test_paths_in_backticks_exist(page: Path) -> None:
    names = {path.name for top in SHOWN for path in (ROOT / top).rglob("*.*")}
    made = produced(page)
    for span in filter(is_path, spans(page)):
        there = (ROOT / span).exists() or span in names
        if not there:
            assert any(fnmatch.fnmatch(span, pattern) for pattern in made), (
                f"{name_of(page)}: no {span}; if a run writes it, mark it as produced"
            )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_marked_as_produced_is_named_there_and_in_the_code(page: Path) -> None:
    writers = [ROOT / "Makefile", *(ROOT / "pipelines").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in writers)
    for pattern in produced(page):
        assert fnmatch.filter(spans(page), pattern), f"{pattern}: marked, and nowhere named"
        literal = max(re.findall(r"[\w.-]+", pattern), key=len)
        assert literal in code, f"{pattern}: nothing writes it"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), f"{name_of(page)}: {target}"
            titles = (
                re.findall(r"^#+ (.*)$", _FENCE.sub("", file.read_text("utf-8")), re.MULTILINE)
                if anchor
                else []
            )
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert not anchor or anchor in anchors, f"{name_of(page)}: {target}"


def drawn_tree() -> set[str]:
    """Return the paths in the tree of docs/architecture.md; folders end in a slash."""
    [tree] = fences(ARCHITECTURE, "tree")
    paths: set[str] = set()
    above: list[str] = []
    for line in filter(None, tree.splitlines()):
        indent = len(line) - len(line.lstrip())
        names = re.split(r" {2,}", line.strip())[0].split()
        assert indent % 2 == 0 and indent // 2 <= len(above), f"indentation of {line!r}"
        above = above[: indent // 2]
        paths.update("".join(above) + name for name in names)
        above.append(names[-1])
    return paths


def real_rooms() -> set[str]:
    """Return every folder and loose module that the tree must show.

    A folder below ``tests/`` or ``templates/`` that holds no code belongs to the one above it.
    """
    rooms: set[str] = set()
    for top in SHOWN:
        folder = ROOT / top
        rooms.update(name_of(module) for module in folder.glob("[!_]*.py"))
        files = [file for file in folder.rglob("*") if file.is_file() and _is_ours(file)]
        code = {f"{name_of(file.parent)}/" for file in files if file.suffix == ".py"}
        first = {
            f"{top}/{p.parts[0]}/" for f in files if len((p := f.relative_to(folder)).parts) > 1
        }
        rooms |= code | first
    return rooms


def _is_ours(file: Path) -> bool:
    parts = file.relative_to(ROOT).parts
    return not any(part == "__pycache__" or part.startswith(".") for part in parts)


def test_everything_in_the_tree_is_there() -> None:
    drawn = drawn_tree()
    there = {p for p in drawn if ((ROOT / p).is_dir() if p.endswith("/") else (ROOT / p).is_file())}
    assert drawn == there, f"docs/architecture.md: there is no {sorted(drawn - there)}"


def test_everything_that_is_there_is_in_the_tree() -> None:
    missing = real_rooms() - drawn_tree()
    assert not missing, f"docs/architecture.md: the tree lacks {sorted(missing)}"


def test_the_order_of_imports_is_that_of_the_layers() -> None:
    [line] = [block for block in fences(ARCHITECTURE) if block.startswith("cli → ")]
    ranks = []
    for group in line.split("→"):
        for name in group.split(","):
            name = name.strip()
            ranks.append(LEVELS["models" if name == "models" else f"pipelines.{name}"])
    assert ranks == sorted(ranks, reverse=True)
    rooms = {level.split(".")[1] for level in LEVELS if "." in level}
    assert rooms - set(re.findall(r"\w+", line)) <= {"options", "parser", "calling"}


def test_every_strategy_is_in_the_table_of_strategies() -> None:
    text = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)`(.*?)\|", text, re.MULTILINE))
    assert registry.names() == tuple(sorted(rows, key=registry.names().index))
    for alias, name in registry.aliases().items():
        assert f"`{alias}`" in rows[name], f"docs/strategies.md: {name} is also called {alias}"


def test_the_readme_stays_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_the_readmes_task_file_is_one(tmp_path: Path) -> None:
    [text] = fences(README, "yaml")
    path = tmp_path / "my_policy.yaml"
    path.write_text(text, encoding="utf-8")
    task = load_task(str(path))
    assert (task.labels.positive, task.selection.strategy) == ("clickbait", "boundary")
    assert [field.path for field in task.ad.fields] == ["creative.headline", "creative.cta"]


def test_the_readmes_settings_are_in_the_task_file() -> None:
    reference = load_task(str(ROOT / "templates" / "policies" / "reference.yaml"))
    sections = reference.model_dump()
    for page in PAGES:
        for span in spans(page):
            section, dot, key = span.partition(":")[0].partition(".")
            if (
                dot
                and not is_path(span)
                and isinstance(sections.get(section), dict)
                and re.fullmatch(r"\w+", key)
            ):
                assert key in sections[section], f"{name_of(page)}: no setting {span}"


def test_the_readmes_extras_are_those_of_the_package() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    [found] = [
        n.value for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "extras_require"
    ]
    assert isinstance(found, ast.Dict)
    extras = {key.value for key in found.keys if isinstance(key, ast.Constant)}
    [table] = re.findall(
        r"^\| `pip install.*?\n\n", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == extras - {"all"}


def test_the_readmes_formats_are_those_that_are_read() -> None:
    text = README.read_text("utf-8")
    [found] = re.findall(r"^- \*\*Formats\*\*: .*?(?=^- )", text, re.MULTILINE | re.DOTALL)
    told = " ".join(found.split())
    # What tests/sources/test_layout.py reads, each in its words.
    words = {
        "jsonl": "JSON lines",
        "json": "and arrays",
        "csv": "CSV (comma, semicolon, tab or bar)",
        "tsv": "tab",
        "parquet": "Parquet",
        "xlsx": "`.xlsx`",
        "text": "plain text (an ad a line)",
    }
    assert set(words) == set(layout.FORMATS)
    assert [word for word in words.values() if word not in told] == []
    signs = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
    assert set(csv_lines.DELIMITERS) == set(signs)
    assert f"in {decoding.GZIP}, {decoding.BZIP2} or {decoding.ZSTD}" in told


def test_the_example_of_a_strategy_is_one() -> None:
    [code] = fences(ARCHITECTURE, "py")
    names: dict[str, type[RowStrategy]] = {}
    exec(code.partition("\nwith registered(Surest):")[0], names)
    selection = load_task(str(ROOT / "templates" / "policies" / "reference.yaml")).selection
    context = Context(selection, 0, "policy", Threshold(0.0, 1, 2, "prior"), 3)
    with registry.registered(names["Surest"]):
        strategy = registry.create("surest")
        assert isinstance(strategy, RowStrategy)
        scores = strategy.score(Rows(["a", "b", "c"], np.array([-1.0, 2.0, 0.5])), context)
    assert scores.tolist() == [-1.0, 2.0, 0.5]
