"""The runner on a tree of two files: what it calls killed, and that it touches nothing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.mutants import run

CODE = "def larger(a, b):\n    return a if a > b else b\n"
TESTS = "from code_of import larger\n\n\ndef test_larger():\n    assert larger(1, 2) == 2\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / ".gitignore").write_text("ignored\n")
    (root / "ignored").write_text("large")
    (root / "code_of.py").write_text(CODE)
    (root / "test_code_of.py").write_text(TESTS)
    return root


def write_list(folder: Path, **changes: tuple[str, str]) -> Path:
    entries = [
        {
            "name": name,
            "file": "code_of.py",
            "old": old,
            "new": new,
            "breaks": f"what {name} breaks",
            "tests": ["test_code_of.py"],
        }
        for name, (old, new) in changes.items()
    ]
    path = folder / "mutants.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_what_becomes_of_each_is_said_and_the_tree_stays(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = write_list(
        tmp_path,
        noticed=("a > b", "a < b"),
        unnoticed=("a > b", "a >= b"),
        gone=("a is larger", ""),
        twice=("a", "b"),
        torn=("return a", "return ("),
    )
    before = contents(tree)
    assert run.main(["--list", str(listed), "--root", str(tree)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    results = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    assert results == ["killed", "survived", "no longer applies", "no longer applies", "untested"]
    assert "    breaks: what unnoticed breaks" in lines
    assert "    code_of.py: its `old` is not there exactly once" in lines
    assert last.endswith("1 killed, 1 survived, 2 no longer applies, 1 untested")
    assert contents(tree) == before
    assert run.main(["--list", str(listed), "--root", str(tree), "--only", "noticed"]) == 0


def test_a_mutant_of_a_file_that_was_just_saved_is_compiled_anew(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[int] = []

    def watched(folder: Path, tests: Sequence[str], keep_compiled: bool = False) -> tuple[int, str]:
        place = folder / "code_of.py"
        if keep_compiled:
            # As if it had been saved in the second in which the mutant is written.
            time.sleep(-time.time() % 1 + 0.05)
            os.utime(place)
        seconds.append(int(place.stat().st_mtime))
        return int(not keep_compiled), ""

    monkeypatch.setattr(run, "_pytest", watched)
    listed = write_list(tmp_path, noticed=("a > b", "a < b"))
    assert run.main(["--list", str(listed), "--root", str(tree)]) == 0
    saved, mutated = seconds
    assert saved != mutated


def test_tests_that_fail_anyway_kill_nothing(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "code_of.py").write_text(CODE.replace("a > b", "a < b"))
    listed = write_list(tmp_path, noticed=("a < b", "a <= b"))
    assert run.main(["--list", str(listed), "--root", str(tree)]) == 1
    assert "the tests fail without any mutant" in capsys.readouterr().err


def test_what_git_ignores_is_not_copied(tree: Path, tmp_path: Path) -> None:
    run.copy_tree(tree, tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {
        ".gitignore",
        "code_of.py",
        "test_code_of.py",
    }


def test_the_list_can_be_read_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    mutants = run.read_list(run.LIST)
    assert all((run.ROOT / test.split("::")[0]).exists() for m in mutants for test in m.tests)
    assert all(m.breaks and m.old != m.new for m in mutants)
    listed = write_list(tmp_path, same=("a", "b"))
    entries = yaml.safe_load(listed.read_text())
    listed.write_text(yaml.safe_dump([*entries, *entries]))
    with pytest.raises(ValueError, match="same name: same"):
        run.read_list(listed)
    with pytest.raises(SystemExit):
        run.main(["--only", "nobody"])
