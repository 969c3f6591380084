"""One corpus, one task, five engines: the same pairs to the byte, also where a machine dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.store import scores
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.engines.runners.clusters import (
    SHORT_LIVED,
    FlinkCluster,
    Processes,
    boot_program,
    python_job_service,
    wait_for,
    worker_pool,
)

ROOT = Path(__file__).resolve().parents[3]
LIMIT_SECONDS = 1800
pytestmark = pytest.mark.timeout(2 * LIMIT_SECONDS)
REAL_TASK = """\
name: real
version: 1
policy: An ad breaks this policy when it promises what nobody can promise, or pretends to be what it is not.
question: Does this ad set out to deceive?
labels: {positive: deceptive, negative: honest}
prior: 0.3
prompt: {form: completion}
model: {max_ad_tokens: 32}
selection: {budget: 20}
"""


@dataclass(frozen=True)
class Case:
    """What is mined.

    Attributes:
        argv: ``scout mine`` up to the workspace.
        ads: distinct ads of the corpus.
    """

    argv: tuple[str, ...]
    ads: int

    def mine(self, workspace: Path, flags: Sequence[str] = ()) -> list[str]:
        """Return the whole command."""
        scout = [sys.executable, "-m", "pipelines.cli"]
        return [*scout, *self.argv, "--workspace", str(workspace), "--json", *flags]


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("corpora")
    real = folder / "real.yaml"
    real.write_text(REAL_TASK)
    lines = (ROOT / "templates/samples/ads.jsonl").read_text(encoding="utf-8").splitlines()
    sample = helpers.write_jsonl(folder / "sample.jsonl", map(json.loads, lines[:300]))
    tiny = helpers.write_jsonl(folder / "tiny.jsonl", helpers.tiny_ads(400))
    fake = helpers.write_task(folder)
    blocks = ("--block_rows", "32")
    return {
        "fake": Case(("mine", str(fake), "--corpus", str(tiny), *blocks), 400),
        "real": Case(("mine", str(real), "--corpus", str(sample), *blocks), 300),
    }


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
        env={**os.environ, **SHORT_LIVED},
    )


def pairs_of(workspace: Path) -> bytes:
    [path] = workspace.glob("rounds/0001/pairs/*/items.jsonl")
    return path.read_bytes()


def orphans(workspace: Path) -> set[str]:
    """Return the scored blocks, and the vectors beside them, that no manifest leads to."""
    place = Workspace(str(workspace))
    parts = [p for scored in place.scored.all(1) for p in scores.parts_of(place, scored)]
    named = {
        path for part in parts for path in (part.block, part.block.replace(".rows.", ".vectors."))
    }
    there = {str(path.relative_to(workspace)) for path in blocks_in(workspace)}
    assert named <= there
    return there - named


def blocks_in(workspace: Path, kind: str = "*") -> list[Path]:
    return [*workspace.glob(f"scores/*/keys-*/*.{kind}.parquet")]


def foreign_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if not line.startswith("scout: ")]


@pytest.fixture(scope="session")
def local(
    cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], bytes]:
    """Return the pairs of the in-memory runner, by case."""
    found: dict[str, bytes] = {}

    def pairs(name: str) -> bytes:
        if name not in found:
            workspace = tmp_path_factory.mktemp(f"local-{name}") / "w"
            done = run(cases[name].mine(workspace))
            assert done.returncode == 0, done.stderr
            found[name] = pairs_of(workspace)
        return found[name]

    return pairs


@pytest.fixture
def flags_of(
    engines: Path, jars: dict[str, Path], started: Processes, request: pytest.FixtureRequest
) -> Callable[[str], list[str]]:
    """Return Beam's flags for an engine, which is started if it is not there."""

    def portable() -> list[str]:
        # Workers are processes of their own here; elsewhere they are threads of the command.
        service, pool = python_job_service(started), worker_pool(started)
        external = ["--environment_type=EXTERNAL", f"--environment_config={pool}"]
        return ["--runner=PortableRunner", f"--job_endpoint={service}", *external]

    def flink() -> list[str]:
        cluster: FlinkCluster = request.getfixturevalue("flink")
        jar = f"--flink_job_server_jar={jars['flink']}"
        master = f"--flink_master=localhost:{cluster.rest}"
        # Each TaskManager counts its workers for itself: a pool that several share would take the end of
        # one's worker 1 for the end of another's.
        boot = json.dumps({"command": str(boot_program(started.folder))})
        workers = ["--environment_type=PROCESS", f"--environment_config={boot}"]
        own = ["--parallelism=2", "--max_bundle_size=100", *workers]
        return ["--runner=FlinkRunner", "--flink_version=1.19", jar, master, *own]

    def spark() -> list[str]:
        jar = f"--spark_job_server_jar={jars['spark']}"
        return ["--runner=SparkRunner", jar, "--spark_master_url=local[2]"]

    def prism() -> list[str]:
        return ["--runner=PrismRunner", f"--prism_location={engines / 'prism'}"]

    known = {"portable": portable, "flink": flink, "spark": spark, "prism": prism}
    return lambda name: known[name]()


ENGINES = ("portable", "prism", "spark", "flink")


@pytest.mark.parametrize("case", ["fake", "real"])
@pytest.mark.parametrize("engine", ENGINES)
def test_pairs_are_the_same_to_the_byte(
    engine: str,
    case: str,
    cases: dict[str, Case],
    local: Callable[[str], bytes],
    flags_of: Callable[[str], list[str]],
    tmp_path: Path,
) -> None:
    done = run(cases[case].mine(tmp_path / "w", flags_of(engine)))
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["unique"], told["scored_now"]) == (cases[case].ads, cases[case].ads)
    assert [*(tmp_path / "w").glob("rounds/0001/review/*/summary.json")]
    assert foreign_lines(done.stderr) == []
    assert orphans(tmp_path / "w") == set()
    assert pairs_of(tmp_path / "w") == local(case)


@pytest.mark.parametrize("engine", ["spark", "flink"])
def test_a_steps_sentence_comes_through_java_and_back(
    engine: str, cases: dict[str, Case], flags_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    useless = helpers.write_jsonl(tmp_path / "useless.jsonl", [{"id": n} for n in range(5)])
    task = cases["fake"].argv[1]
    case = Case(("mine", task, "--corpus", str(useless)), 0)
    done = run(case.mine(tmp_path / "w", flags_of(engine)))
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("scout: error: none of the 5 records is usable: no_text 5")
    assert foreign_lines(done.stderr) == []


def test_a_worker_without_weights_ends_the_job_in_one_line(
    cases: dict[str, Case], started: Processes, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    pool = worker_pool(started, SCOUT_CACHE=str(nowhere))
    flags = ["--runner=PortableRunner", f"--job_endpoint={python_job_service(started)}"]
    external = ["--environment_type=EXTERNAL", f"--environment_config={pool}"]
    done = run(cases["real"].mine(tmp_path / "w", [*flags, *external]))
    assert done.returncode == 1
    [told] = [line for line in done.stderr.splitlines() if "error" in line]
    assert "scout: error: the worker on " in told and f"in {nowhere}" in told
    assert "workers download nothing" in told
    assert not (nowhere / "models").exists()


def test_a_task_manager_that_dies_changes_nothing(
    cases: dict[str, Case],
    local: Callable[[str], bytes],
    flink: FlinkCluster,
    flags_of: Callable[[str], list[str]],
    tmp_path: Path,
) -> None:
    wanted = local("real")
    workspace = tmp_path / "w"
    before = flink.failures()
    with subprocess.Popen(
        cases["real"].mine(workspace, flags_of("flink")),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **SHORT_LIVED},
    ) as command:
        try:
            # In the middle of scoring: some blocks are written, not all.
            wait_for(
                lambda: bool(blocks_in(workspace, "rows")) or command.poll() is not None,
                "scored block",
                LIMIT_SECONDS,
            )
            victims = flink.at_work()
            assert len(victims) == 2, "both TaskManagers have tasks"
            flink.kill(victims[0])
            held = len(blocks_in(workspace, "rows"))
            _, stderr = command.communicate(timeout=LIMIT_SECONDS)
        finally:
            command.kill()
    assert command.returncode == 0, stderr
    assert 0 < held < 9, "it was killed while ads were scored"
    assert flink.failures() > before
    assert victims[0] not in flink.alive()
    assert foreign_lines(stderr) == []
    assert pairs_of(workspace) == wanted
    assert orphans(workspace) == set()
