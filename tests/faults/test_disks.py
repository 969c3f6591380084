"""A disk that is full, read-only or broken: which path, how much, and that a rerun goes on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models import locks
from pipelines import cli
from pipelines.errors import RunFailed, UsageError, disk_fault
from pipelines.store import lock, storage
from pipelines.store.workspace import Workspace
from tests import helpers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A disk that takes so many more files, then none; -1 for all."""
    disk = {"left": -1, "errno": errno.ENOSPC}
    write = storage._write_near

    def written(target: Path, data: bytes) -> None:
        if disk["left"] == 0:
            raise OSError(disk["errno"], os.strerror(disk["errno"]), str(target))
        disk["left"] -= 1
        write(target, data)

    monkeypatch.setattr(storage, "_write_near", written)
    return disk


def test_a_file_that_finds_no_room(full: dict[str, int], tmp_path: Path) -> None:
    full["left"] = 0
    path = tmp_path / "new" / "a.bin"
    with pytest.raises(RunFailed) as caught:
        storage.write(str(path), b"x" * 12_345)
    told = caught.value.message
    assert told.startswith(f"{path}: no room is left on the disk: this file takes 12,345 bytes, ")
    assert " bytes are free; free some, then run the same command again" in told


def test_the_real_thing() -> None:
    with (
        pytest.raises(OSError, match="No space left") as caught,
        open("/dev/full", "wb", buffering=0) as sink,
    ):
        sink.write(b"x")
    fault = disk_fault(caught.value, "/dev/full")
    assert fault and fault.message.startswith("/dev/full: no room is left on the disk: ")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "the disk's quota is used up"),
        (errno.EROFS, "the disk is read-only: mount it for writing, or name another folder"),
        (errno.EIO, "the disk does not answer as it should: look at the disk"),
    ],
)
def test_other_faults(number: int, words: str, full: dict[str, int], tmp_path: Path) -> None:
    full.update(left=0, errno=number)
    with pytest.raises(RunFailed, match=words):
        storage.write(str(tmp_path / "a"), b"x")


def test_what_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        storage.write(str(tmp_path / "a" / "b"), b"x")
    assert disk_fault(ValueError("x")) is None
    assert disk_fault(RuntimeError("tensor: No space left on device")) is not None


@pytest.mark.parametrize("left", [2, 8])
def test_mining_on_a_full_disk_goes_on(
    left: int, full: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = helpers.write_task(tmp_path)
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())
    arguments = ["mine", str(task), "--corpus", str(corpus), "--block_rows", "64", "--workspace"]
    assert cli.main([*arguments, str(tmp_path / "other")]) == cli.OK
    full["left"] = left
    assert cli.main([*arguments, str(tmp_path / "w")]) == cli.FAILED
    said = capsys.readouterr().err
    [told] = [line for line in said.splitlines() if line.startswith("scout: error")]
    assert "no room is left on the disk" in told and "bytes are free" in told
    assert "not foreseen" not in said and "Traceback" not in said
    full["left"] = -1
    assert cli.main([*arguments, str(tmp_path / "w")]) == cli.OK
    found, wanted = (Workspace(str(tmp_path / name)) for name in ("w", "other"))
    assert found.read_items(found.pairs_of(1)) == wanted.read_items(wanted.pairs_of(1))


def killed_while_writing(folder: Path) -> str:
    """Return a partial file that a killed process leaves."""
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom pipelines.store import storage\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage._write_near(Path(sys.argv[1]), b'half')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "a.bin")], cwd=ROOT, check=False
    )
    assert done.returncode == -9
    [left] = list(folder.glob(".a.bin.*.tmp"))
    return str(left)


def test_what_a_killed_command_left_goes(tmp_path: Path) -> None:
    deep = tmp_path / "w" / "rounds" / "0001"
    deep.mkdir(parents=True)
    left = killed_while_writing(deep)
    other = deep / ".a.bin.tmp"
    other.write_text("somebody's")
    held = deep / ".b.bin.01234567.tmp"
    with open(held, "wb") as sink, locks.held(sink.fileno()):
        for path in (left, str(held), str(other)):
            os.utime(path, (time.time() - 60,) * 2)
        with lock.held(str(tmp_path / "w"), "mine", print):
            assert not os.path.exists(left)
            assert held.exists(), "it is being written"
    assert other.exists()


def test_scratch_folders_of_killed_commands(tmp_path: Path) -> None:
    left = tmp_path / "scout-train-abcd1234.scout-tmp"
    (left / "model").mkdir(parents=True)
    mine = tmp_path / "scout-train-mine"
    mine.mkdir()
    for path in (left, mine):
        os.utime(path, (time.time() - 60,) * 2)
    with locks.scratch("scout-train-", tmp_path) as first:
        assert not left.exists() and mine.exists()
        os.utime(first, (time.time() - 60,) * 2)
        with locks.scratch("scout-train-", tmp_path) as second:
            assert first.is_dir() and second != first
    assert [path.name for path in tmp_path.iterdir()] == ["scout-train-mine"]


def test_a_disk_that_is_full_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(path: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_text", write_text)
    with (
        pytest.raises((RunFailed, UsageError), match="no room is left on the disk"),
        lock.held(str(tmp_path / "w"), "mine", print),
    ):
        pass
