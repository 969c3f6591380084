"""Files and folders that are held while somebody works in them, so that what a killed process left can go.

``flock`` is dropped by the system when a process dies, however it dies: what nobody holds is nobody's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:
    # Windows: nothing is held there, and nothing is swept.
    fcntl = None  # type: ignore[assignment]

# Whether anything is held on this system.
HOLDS = fcntl is not None
# What a scratch folder's name ends in: no person's does.
_SUFFIX = ".scout-tmp"
_YOUNG_SEC = 1.0


@contextlib.contextmanager
def held(descriptor: int) -> Iterator[None]:
    """Hold an open file or folder while the body runs; where a disk knows no locks, nothing is held."""
    if fcntl:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Closing it gives it back.
    yield


def remove_abandoned(path: str | Path) -> bool:
    """Remove a file or a folder of this user's that no process holds; -> whether it did."""
    if not fcntl:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        # One that was made this moment may not be held yet.
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < _YOUNG_SEC:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def scratch(prefix: str, folder: str | Path | None = None) -> Iterator[Path]:
    """Make a folder for a while, and remove those of the same name that killed processes left.

    Args:
        prefix: of its name.
        folder: where it goes; None for the system's folder for such.
    """
    parent = Path(folder or tempfile.gettempdir())
    name = re.compile(rf"{re.escape(prefix)}[^.]+{re.escape(_SUFFIX)}")
    for left in parent.iterdir():
        if name.fullmatch(left.name):
            remove_abandoned(left)
    made = tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=parent)
    descriptor = os.open(made, os.O_RDONLY) if fcntl else -1
    try:
        with held(descriptor):
            yield Path(made)
    finally:
        if fcntl:
            os.close(descriptor)
        shutil.rmtree(made, ignore_errors=True)
