"""One command at a time writes into a workspace: the lock that it holds meanwhile.

On a local disk the system holds it (``flock``) and drops it when the process dies. On Cloud Storage it is an
object that only one command can create, for a write may ask for the generation that it replaces; its holder
writes it again and again, and who sees one generation for ``LEASE_SEC`` of its own clock takes it over, so
that no two clocks are compared. Both say whose they are.

A job that was handed over to a cluster and not waited for holds none: what it commits are attempts of its
own, and of those that were committed in the meantime it takes nothing away.

Source of the lease by generations: https://cloud.google.com/storage/docs/request-preconditions
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock

from pipelines.console.progress import step
from pipelines.errors import RunFailed, UsageError, disk_fault
from pipelines.store import cloud, storage
from pipelines.store.cloud import GS

# In the workspace; beside the local one lies whose it is.
NAME, OWNER = ".lock", ".lock.json"
# How long another command is waited for; how often a holder on Cloud Storage says that it is there, and
# after which silence it counts as dead.
WAIT_SEC = 30.0
RENEW_SEC, LEASE_SEC = 15.0, 60.0
_POLL_SEC = 0.5

Say = Callable[[str], None]


class Busy(RunFailed):
    """Another command writes into the workspace."""


class LockLost(RunFailed):
    """The command was held up for so long that another one took its lock over."""


@contextlib.contextmanager
def held(root: str, command: str, say: Say) -> Iterator[None]:
    """Hold a workspace's lock while the body runs; whether it can be written is known by then.

    Args:
        root: the workspace, which need not exist.
        command: what holds it, such as "mine".
        say: told, in one line each, what a person should know.

    Raises:
        Busy: another command held it for `WAIT_SEC`; says which.
        UsageError: the workspace cannot be written, and why.
    """
    owner = {
        "command": f"scout {command}",
        "user": _user(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "token": uuid.uuid4().hex,
    }
    if storage.is_local(root):
        with _near(root, owner):
            yield
    elif root.startswith(GS):
        with _far(root, owner, say):
            yield
    else:
        _try_writing(root)
        say(
            f"{root}: has no lock, as local folders and gs:// have; see to it that no other command writes "
            "into it meanwhile"
        )
        yield


def check(root: str) -> None:
    """Look, before anything is made to count, whether the lock that this process holds is still its own.

    Raises:
        LockLost: it is another command's by now. Nothing is raised where this process holds none.
    """
    mine = _holding.get(root)
    if mine:
        mine.renew()


# --- On a local disk ----------------------------------------------------------------------------


@contextlib.contextmanager
def _near(root: str, owner: dict[str, Any]) -> Iterator[None]:
    # The file stays: whoever deletes a lock that others wait for lets two of them in.
    lock = filelock.FileLock(os.path.join(root, NAME), thread_local=False)
    name = os.path.join(root, OWNER)
    with contextlib.ExitStack() as stack:
        with _writable(root):
            Path(root).mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                with step(f"waiting for {_told(_read(name))}"):
                    try:
                        lock.acquire(timeout=WAIT_SEC, poll_interval=0.05)
                    except filelock.Timeout:
                        raise _busy(
                            root,
                            _read(name),
                            "its lock is gone with its process, however that ends",
                        ) from None
            stack.callback(lock.release)
            storage.sweep(root, deep=True)
            Path(name).write_text(json.dumps(owner), encoding="utf-8")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(name)


def _read(path: str) -> bytes:
    try:
        return storage.read(path)
    except (OSError, RunFailed):
        return b""


# --- On Cloud Storage ---------------------------------------------------------------------------


class _Lease:
    """The lock object while this process holds it."""

    def __init__(self, path: str, data: bytes, generation: int) -> None:
        self._path, self._data, self._generation = path, data, generation
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._seen = time.monotonic()
        self._lost = False
        self._renewing = threading.Thread(target=self._keep, name="workspace lock", daemon=True)
        self._renewing.start()

    def renew(self) -> None:
        """Write the object again, unless it is another's by now; raises as :func:`check` does."""
        with self._lock:
            if not self._lost:
                began = time.monotonic()
                found = _replace(self._path, self._data, self._generation)
                self._lost = found is None
                self._generation, self._seen = found or 0, began
            if self._lost:
                raise LockLost(
                    f"{self._path}: this command was held up for more than {LEASE_SEC:.0f} seconds, and "
                    "another one has taken its lock over; nothing more was written, run it again"
                )

    def end(self) -> None:
        """Give the lock back."""
        self._ended.set()
        self._renewing.join()
        if not self._lost:
            with contextlib.suppress(RunFailed), storage.reaching(self._path):
                cloud.remove_generation(self._path, self._generation)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_SEC):
            try:
                self.renew()
            except LockLost:
                return
            except RunFailed:
                # Of a storage that does not answer nobody takes anything over, either: it is tried again,
                # and asked before anything is made to count.
                continue


_holding: dict[str, _Lease] = {}


@contextlib.contextmanager
def _far(root: str, owner: dict[str, Any], say: Say) -> Iterator[None]:
    path, data = storage.join(root, NAME), json.dumps(owner).encode()
    with _writable(root):
        generation = _replace(path, data, 0) or _taken_over(root, path, data, say)
    lease = _holding[root] = _Lease(path, data, generation)
    try:
        yield
    finally:
        del _holding[root]
        lease.end()


def _taken_over(root: str, path: str, data: bytes, say: Say) -> int:
    """Wait for the lock of another command, until it is given back or abandoned; -> its generation."""
    began = time.monotonic()
    seen, since, holder = "", began, _read(path)
    with step(f"waiting for {_told(holder)}"):
        while True:
            with storage.reaching(path):
                found = cloud.find(path)
            now = time.monotonic()
            if found is None or (found.version == seen and now - since >= LEASE_SEC):
                generation = _replace(path, data, int(seen) if found else 0)
                if generation:
                    if found:
                        say(
                            f"{root}: took over from {_told(holder)}, which has not been heard of for "
                            f"{now - since:.0f} seconds"
                        )
                    return generation
            elif found.version != seen:
                # Another generation: its holder is alive.
                if seen and now - began >= WAIT_SEC:
                    raise _busy(
                        root,
                        _read(path),
                        f"its lock ends {LEASE_SEC:.0f} seconds after it has died",
                    )
                seen, since, holder = found.version, now, _read(path)
            time.sleep(_POLL_SEC)


def _replace(path: str, data: bytes, generation: int) -> int | None:
    """Write the lock object over a generation, 0 for none; -> the new one, None if another is there."""
    with storage.reaching(path):
        written = cloud.write_generation(path, data, generation)
        if written is None:
            # What was tried again, because no answer came, may have been written the first time.
            found = cloud.find(path)
            if found and _read(path) == data:
                return int(found.version)
    return written


# --- What people read ---------------------------------------------------------------------------


@contextlib.contextmanager
def _writable(root: str) -> Iterator[None]:
    """Say of a workspace that takes no lock that it cannot be written."""
    try:
        yield
    except Busy:
        raise
    # filelock's word for a disk that knows no `flock`, as some that are mounted over a network.
    except (OSError, NotImplementedError, RunFailed) as error:
        fault = disk_fault(error, root)
        if fault and getattr(error, "errno", None) != errno.EROFS:
            raise fault from error
        said = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--workspace {root}: cannot be written ({said})") from error


def _try_writing(root: str) -> None:
    probe = storage.join(root, f".probe-{uuid.uuid4().hex[:8]}")
    with _writable(root):
        storage.write(probe, b"")
    # Whoever may write on object storage need not be allowed to remove.
    with contextlib.suppress(OSError, RunFailed):
        storage.remove(probe)


def _busy(root: str, holder: bytes, end: str) -> Busy:
    return Busy(
        f"{root}: {_told(holder)} writes into it, and one command at a time does; nothing was written. Run "
        f"this again once that one has ended ({end})"
    )


def _told(holder: bytes) -> str:
    """Return whose a lock is, in words."""
    try:
        told = json.loads(holder)
        return (
            f"`{told['command']}` of {told['user']} on {told['host']} (process {told['process']}, since "
            f"{told['since']})"
        )
    except (ValueError, TypeError, KeyError):
        return "another command"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's number without a name.
        return str(os.getuid())
