"""Two commands at once in one workspace: both are done, one after the other, and nothing is lost.

``SCOUT_RACES`` says how often each kind is run: an import takes half a second, a mining two.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.errors import RunFailed
from pipelines.jobs.ingest import IngestOptions, ingest
from pipelines.numerics.split import EVALUATION, FINE_TUNING
from pipelines.store.workspace import Workspace
from pipelines.verdicts import commit_imports
from pipelines.verdicts.halves import read_half
from tests import helpers
from tests.jobs.loop import write_verdicts
from tests.verdicts.test_commit_imports import recorded

ROOT = Path(__file__).resolve().parents[2]
RACES = int(os.environ.get("SCOUT_RACES", "1"))
# A process that runs a command when it is told to, so that two of them start within a millisecond.
RACER = r"""
import json, sys
from pipelines import api, cli
from pipelines.jobs import audit, ingest, mine, train
from pipelines.store import lock
# Of a machine that has much else to do no test is to depend.
lock.WAIT_SEC = 600
print("ready", flush=True)
for line in sys.stdin:
    print("\nstatus", cli.main(json.loads(line)), flush=True)
"""
DONE = f"status {cli.OK}"


class Racer:
    """A process in which commands are run."""

    def __init__(self, folder: Path, number: int) -> None:
        self._errors = folder / f"racer-{number}.txt"
        with open(self._errors, "w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", RACER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )

    def answer(self) -> str:
        """Wait for what it says next."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def begin(self, arguments: list[str]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([*arguments, "--json"]) + "\n")
        self._process.stdin.flush()

    def end(self) -> str:
        """Return the exit status of what was begun, with what it said where that is not 0."""
        while not (line := self.answer()).startswith("status "):
            assert self._process.poll() is None, line
        return line if line == DONE else line + self._errors.read_text()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait(60)


@pytest.fixture(scope="module")
def racers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Racer]]:
    folder = tmp_path_factory.mktemp("racers")
    found = [Racer(folder, number) for number in range(2)]
    try:
        assert [racer.answer() for racer in found] == ["ready", "ready"]
        yield found
    finally:
        for racer in found:
            racer.stop()


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace of one mined round, its task, corpus and two experts' sheets."""
    folder = tmp_path_factory.mktemp("mined")
    task = helpers.write_task(folder)
    corpus = helpers.write_jsonl(folder / "ads.jsonl", helpers.tiny_ads())
    found = helpers.run(task, corpus, folder / "w")
    ids = [ad.id for item in found.items for ad in item.ads]
    for expert in ("anna", "bo"):
        rows = [(id, ("positive", "negative")[n % 2], expert) for n, id in enumerate(ids)]
        write_verdicts(folder / f"{expert}.csv", rows)
    return folder


def command(kind: str, folder: Path) -> list[str]:
    """Return a command line; ``kind`` is its name and what it is told."""
    name, _, told = kind.partition(" ")
    given = {
        "import": [str(folder / f"{told}.csv")],
        "mine": [
            str(folder / "task.yaml"),
            *("--corpus", str(folder / "ads.jsonl")),
            *("--budget", told),
        ],
        "audit": [str(folder / "task.yaml"), "--budget", told],
    }[name]
    return [name, *given, "--workspace", str(folder / "w")]


KINDS = [
    ("import anna", "import bo"),
    ("mine 16", "import anna"),
    ("mine 16", "mine 20"),
    ("audit 20", "audit 30"),
    ("audit 20", "import bo"),
]


@pytest.mark.parametrize("kinds", KINDS, ids=" and ".join)
def test_nothing_is_lost(
    kinds: tuple[str, str], racers: list[Racer], mined: Path, tmp_path: Path
) -> None:
    for number in range(RACES):
        folder = tmp_path / str(number)
        shutil.copytree(mined, folder)
        # By turns, for whoever is told first is a little ahead.
        turns = list(zip(kinds, racers, strict=True))[:: 1 - 2 * (number % 2)]
        for kind, racer in turns:
            racer.begin(command(kind, folder))
        assert [racer.end() for _, racer in turns] == [DONE, DONE]
        _check(Workspace(str(folder / "w")), kinds)


def _check(place: Workspace, kinds: tuple[str, str]) -> None:
    """Check that what both commands did is there."""
    imported = {kind.split()[1] for kind in kinds if kind.startswith("import")}
    said = [v for half in (FINE_TUNING, EVALUATION) for v in read_half(place, half, 1)]
    shown = [ad.key for item in place.read_items(place.pairs.all(1)[0]) for ad in item.ads]
    assert {v.expert for v in said} == imported
    for expert in imported:
        assert {v.key for v in said if v.expert == expert} == set(shown), expert
    if imported:
        # Each ad has one side, for good.
        assert len(recorded(place)) >= len(shown)
    mined = sorted(int(kind.split()[1]) for kind in kinds if kind.startswith("mine"))
    later = [m for number in place.rounds() for m in place.pairs.all(number)][1:]
    assert sorted(m.facts.origin.task.selection.budget for m in later) == mined
    numbers = [m.attempt.split("/")[-1][:12] for m in place.pairs.all(1)]
    assert len(set(numbers)) == len(numbers), "attempts are counted one after the other"
    if imported and mined and 2 in place.rounds():
        # Mined after the import: a round of its own, of other ads.
        items = place.read_items(place.pairs_of(2))
        assert not {ad.key for item in items for ad in item.ads} & set(shown)
    audits = sorted(int(kind.split()[1]) for kind in kinds if kind.startswith("audit"))
    drawn = [place.keys_of(manifest) for manifest in place.audit.all(1)]
    # The smaller one draws nothing where the larger was first, and is part of it where it was not.
    assert len(drawn) in range(1, len(audits) + 1) if audits else not drawn
    assert all(a <= b for a, b in itertools.pairwise(drawn))
    assert not drawn or len(drawn[-1]) == audits[-1]


def test_an_import_in_the_middle_of_another_one_waits(
    mined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race at its worst moment: what was there is read, and nothing is written yet."""
    shutil.copytree(mined, tmp_path / "m")
    root = str(tmp_path / "m" / "w")
    reached, go_on = [], threading.Event()
    write = commit_imports._write_round

    def slow(*args: object) -> object:
        reached.append(threading.current_thread().name)
        go_on.wait(60)
        return write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(commit_imports, "_write_round", slow)
    failed: list[BaseException] = []

    def give(expert: str) -> None:
        try:
            ingest(IngestOptions(root, (str(mined / f"{expert}.csv"),)), lambda _: None)
        except (RunFailed, ValueError) as error:
            failed.append(error)

    threads = [threading.Thread(target=give, args=(name,), name=name) for name in ("anna", "bo")]
    threads[0].start()
    while not reached:
        threads[0].join(0.01)
        assert threads[0].is_alive(), failed
    threads[1].start()
    threads[1].join(2.0)
    assert reached == ["anna"]
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert not failed and reached == ["anna", "bo"]
    said = read_half(Workspace(root), FINE_TUNING, 1)
    assert {v.expert for v in said} == {"anna", "bo"}


def test_a_training_is_not_overtaken(mined: Path, tmp_path: Path) -> None:
    """A training that began before an import ends says so of itself: it has not seen those labels."""
    shutil.copytree(mined, tmp_path / "m")
    place = Workspace(str(tmp_path / "m" / "w"))
    with place.writing("train", lambda _: None):
        process = subprocess.run(
            [
                *(sys.executable, "-c"),
                "import sys; from pipelines import cli; from pipelines.store import lock; "
                "lock.WAIT_SEC = 0.2; sys.exit(cli.main(sys.argv[1:]))",
                *command("import anna", tmp_path / "m"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert process.returncode == cli.FAILED
    [line] = [line for line in process.stderr.splitlines() if "error" in line]
    assert f"scout: error: {place.root}: `scout train` of" in line
    assert "Run this again once that one has ended" in line
    assert not place.verdicts.by_round()
