"""Break the mission's promises on purpose, one at a time, and see whether a test notices: ``make mutants``.

A mutant is one small change of one file, in ``mutants.yaml`` with what it breaks and the tests that
should notice. The working tree as it is now is copied once, and all changes are made in the copy. A
mutant that survives is a promise without a test. (Mutation testing: DeMillo, Lipton and Sayward, 1978.)
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutants.yaml")
# Tests of a mutant take seconds; one that makes them run for ever has not been noticed.
MAX_SECONDS = 300
KILLED, SURVIVED, STALE, UNTESTED = "killed", "survived", "no longer applies", "untested"
_SECOND_NS = 1_000_000_000
# pytest's exit status when tests ran.
_PASSED, _FAILED = 0, 1


@dataclasses.dataclass(frozen=True, slots=True)
class Mutant:
    """One broken promise.

    Attributes:
        name: for ``--only`` and the table.
        file: what is changed, relative to the root.
        old: an exact piece of it, which must be there once.
        new: what stands there instead.
        breaks: what it would mean, in one line.
        tests: paths or pytest's names of the tests that should fail.
    """

    name: str
    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str | None:
        """Return the file's text with the change, or None where its place is not there once."""
        return text.replace(self.old, self.new) if text.count(self.old) == 1 else None


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant."""

    mutant: Mutant
    result: str
    seconds: float
    detail: str = ""

    def __str__(self) -> str:
        line = f"{self.result:<18} {self.mutant.name:<44} {self.seconds:5.1f} s"
        if self.result == KILLED:
            return line
        about = [f"breaks: {self.mutant.breaks}", f"tests: {' '.join(self.mutant.tests)}"]
        return "\n".join([line, *(f"    {more}" for more in [*about, *self.detail.splitlines()])])


def read_list(path: Path) -> list[Mutant]:
    """Read the mutants of a YAML file.

    Raises:
        ValueError: a name is there twice.
        TypeError: an entry lacks a field, or has one more.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    mutants = [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
    twice = [name for name, times in Counter(m.name for m in mutants).items() if times > 1]
    if twice:
        raise ValueError(f"{path}: mutants of the same name: {', '.join(twice)}")
    return mutants


def copy_tree(root: Path, target: Path) -> None:
    """Copy what git tracks or would track, as it is now, changed or not."""
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        source = root / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def run_mutants(root: Path, mutants: Sequence[Mutant]) -> Iterator[Outcome]:
    """Yield what becomes of each mutant, in order; they live in one copy of the tree, one at a time.

    Raises:
        RuntimeError: the tests fail on the tree as it is, so that a failure would tell nothing.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        copy_tree(root, copy)
        fitting = [mutant for mutant in mutants if mutant.applied(_text(copy, mutant)) is not None]
        if fitting:
            tests = sorted({test for mutant in fitting for test in mutant.tests})
            status, told = _pytest(copy, tests, keep_compiled=True)
            if status:
                raise RuntimeError(f"the tests fail without any mutant:\n{told}")
        for mutant in mutants:
            yield _outcome(copy, mutant)


def _outcome(copy: Path, mutant: Mutant) -> Outcome:
    before = _text(copy, mutant)
    changed = mutant.applied(before)
    if changed is None:
        return Outcome(mutant, STALE, 0.0, f"{mutant.file}: its `old` is not there exactly once")
    started = time.monotonic()
    place = copy / mutant.file
    times = place.stat()
    place.write_text(changed, encoding="utf-8")
    # Python takes what it compiled before for that of a file of the same size and the same second.
    os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns + _SECOND_NS))
    try:
        status, told = _pytest(copy, mutant.tests)
    finally:
        place.write_text(before, encoding="utf-8")
        # By this Python knows that what it compiled before is right again.
        os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    seconds = time.monotonic() - started
    if status in (_PASSED, _FAILED):
        return Outcome(mutant, KILLED if status == _FAILED else SURVIVED, seconds)
    # Too slow, no such test, or nothing could even be imported: no promise was tested.
    return Outcome(mutant, UNTESTED, seconds, told)


def _text(copy: Path, mutant: Mutant) -> str:
    place = copy / mutant.file
    return place.read_text(encoding="utf-8") if place.is_file() else ""


def _pytest(
    folder: Path, tests: Sequence[str], keep_compiled: bool = False
) -> tuple[int | None, str]:
    """Run tests in a copy; -> pytest's exit status (None: too slow) and the end of what it said."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if not keep_compiled:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    options = ("-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=None if keep_compiled else MAX_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None, f"no end after {MAX_SECONDS} s"
    return done.returncode, (done.stdout + done.stderr)[-2000:]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the mutants and print the table; -> 0 when all were killed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", help="this one; may be repeated")
    parser.add_argument("--list", type=Path, default=LIST, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    mutants = read_list(arguments.list)
    wanted = arguments.only or [mutant.name for mutant in mutants]
    unknown = set(wanted) - {mutant.name for mutant in mutants}
    if unknown:
        parser.error(f"--only: no mutant is called {', '.join(sorted(unknown))}")
    mutants = [mutant for mutant in mutants if mutant.name in wanted]
    started = time.monotonic()
    results: Counter[str] = Counter()
    try:
        for outcome in run_mutants(arguments.root, mutants):
            results[outcome.result] += 1
            print(outcome, flush=True)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    told = ", ".join(f"{number} {result}" for result, number in results.items())
    print(f"{len(mutants)} mutants in {time.monotonic() - started:,.0f} s: {told}")
    return 0 if set(results) <= {KILLED} else 1


if __name__ == "__main__":
    sys.exit(main())
