"""A workspace's lock: one command at a time, whoever waits is told for whom, and no death holds it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.store import cloud, lock, storage
from pipelines.store.lock import Busy, LockLost, held
from pipelines.store.workspace import Manifest, Workspace
from tests import helpers
from tests.engines.faulty_storage import FaultyStorage, served

ROOT = Path(__file__).resolve().parents[2]
FAR = "gs://scout/w"
HOLDS = """
import sys, time
from pipelines.store.lock import held
with held(sys.argv[1], "mine", print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def faulty() -> Iterator[FaultyStorage]:
    with served("scout") as found:
        yield found


@pytest.fixture(params=["near", "far"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "near":
        return str(tmp_path / "w")
    request.getfixturevalue("faulty")
    return FAR


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WAIT_SEC", 0.3)
    monkeypatch.setattr(lock, "RENEW_SEC", 0.1)
    monkeypatch.setattr(lock, "LEASE_SEC", 30.0)
    monkeypatch.setattr(lock, "_POLL_SEC", 0.02)


def silent(line: str) -> None:
    raise AssertionError(line)


def test_who_comes_second_is_told_who_is_first(root: str, hurried: None) -> None:
    with held(root, "mine", silent):
        told = rf"^\S+w: `scout mine` of \S+ on \S+ \(process {os.getpid()}, since 20.*\) writes into it"
        refused = _in_a_thread(lambda: _held_for(root, 0))
        assert isinstance(refused, Busy)
        assert re.match(told, refused.message), refused.message
        assert "nothing was written. Run this again once that one has ended" in refused.message
    # Given back, and nothing is left that anybody would wonder at.
    with held(root, "import", silent):
        pass
    left = [found.path for found in storage.match(f"{root}/*")]
    assert [Path(path).name for path in left] == ([lock.NAME] if storage.is_local(root) else [])


def test_who_comes_second_waits_for_the_first(
    root: str, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WAIT_SEC", 60.0)
    order: list[str] = []
    threads = []

    def second() -> None:
        with held(root, "import", silent):
            order.append("second")

    with held(root, "import", silent):
        threads.append(threading.Thread(target=second))
        threads[0].start()
        time.sleep(0.4)
        order.append("first")
    threads[0].join(60)
    assert order == ["first", "second"]


def _held_for(root: str, seconds: float) -> None:
    with held(root, "import", lambda _: None):
        time.sleep(seconds)


def _in_a_thread(act: object) -> BaseException | None:
    """Return what a function raised in a thread of its own."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()  # type: ignore[operator]
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return raised[0] if raised else None


def test_a_killed_process_holds_nothing_on_this_machine(tmp_path: Path) -> None:
    root = str(tmp_path / "w")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, root], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert json.loads((tmp_path / "w" / lock.OWNER).read_text())["process"] == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    finally:
        process.kill()
    with held(root, "import", silent):
        assert json.loads((tmp_path / "w" / lock.OWNER).read_text())["process"] == os.getpid()


def abandoned() -> str:
    """Leave the lock of a command that was killed; its generation."""
    owner = {"command": "scout mine", "user": "anna", "host": "h7", "process": 12, "since": "9:00"}
    storage.write(f"{FAR}/{lock.NAME}", json.dumps(owner).encode())
    found = cloud.find(f"{FAR}/{lock.NAME}")
    assert found is not None
    return found.version


def test_a_lock_that_nobody_renews_is_taken_over(
    faulty: FaultyStorage, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE_SEC", 0.5)
    before, said = abandoned(), []
    began = time.monotonic()
    with held(FAR, "import", said.append):
        # Not before the lease has passed, by one clock, whatever time the object says it was written at.
        assert time.monotonic() - began >= 0.5
        now = cloud.find(f"{FAR}/{lock.NAME}")
        assert now is not None and now.version != before
    [line] = said
    assert line.startswith(
        f"{FAR}: took over from `scout mine` of anna on h7 (process 12, since 9:00), which has not been heard "
    )


def test_two_who_find_an_abandoned_lock_do_not_both_take_it(
    faulty: FaultyStorage, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE_SEC", 0.5)
    monkeypatch.setattr(lock, "WAIT_SEC", 60.0)
    abandoned()
    inside, most = [0], [0]

    def take() -> None:
        with held(FAR, "import", lambda _: None):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.3)
            inside[0] -= 1

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (inside, most) == ([0], [1])


def test_who_lost_the_lock_makes_nothing_count(faulty: FaultyStorage, hurried: None) -> None:
    place = Workspace(FAR)
    manifest = Manifest.of(place.new_attempt(1, "pairs"), "h", [], 0, helpers.pairs_facts())
    with place.writing("mine", silent):
        place.commit(manifest)
        # Held up for longer than its lease, and somebody else came.
        abandoned()
        late = Manifest.of(place.new_attempt(1, "pairs"), "h2", [], 0, helpers.pairs_facts())
        with pytest.raises(LockLost, match="another one has taken its lock over; nothing more was"):
            place.commit(late)
    assert [found.config_hash for found in place.pairs.all(1)] == ["h"]
    # The other's lock is not given back in its place.
    assert cloud.find(f"{FAR}/{lock.NAME}") is not None


def test_an_answer_that_got_lost_is_no_other_command(
    faulty: FaultyStorage, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = cloud.write_generation

    def tried_again(path: str, data: bytes, generation: int) -> int | None:
        write(path, data, generation)
        return write(path, data, generation)

    monkeypatch.setattr(cloud, "write_generation", tried_again)
    with held(FAR, "import", silent):
        lock.check(FAR)
    assert cloud.find(f"{FAR}/{lock.NAME}") is None


def test_a_workspace_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match=r"^--workspace \S+file/w: cannot be written \(Not a dir"),
        held(str(tmp_path / "file" / "w"), "mine", silent),
    ):
        pass
