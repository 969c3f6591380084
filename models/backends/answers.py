"""Answers of services that were paid for, kept on this machine by model, prompt and ad.

The score store of a workspace keeps whole blocks; this keeps each answer as it comes, so that a run
that is killed in a block, a pilot, or a look at one ad asks nothing twice. It holds hashes and numbers,
no text. Processes share it: SQLite's own locks and log.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

_AT_ONCE = 500
_WAIT_SEC = 60.0

_log = logging.getLogger(__name__)


class AnswerStore:
    """Log-odds by key, in a file; safe for several threads and processes of one machine.

    Where the file cannot be written or is damaged, answers last as long as the process.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it."""
        self._lock = threading.Lock()
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _opened(str(path))
        except (OSError, sqlite3.Error) as error:
            self._forget(error)

    def known(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        """Return the answers that are there; NaN for a question that got neither answer."""
        wanted = list(keys)
        found: dict[bytes, float] = {}
        with self._lock:
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, answer FROM answers WHERE key IN ({marks})"  # noqa: S608
                try:
                    found.update(self._db.execute(query, part))
                except sqlite3.Error as error:
                    self._forget(error)
                    break
        return {key: float("nan") if value is None else value for key, value in found.items()}

    def add(self, key: bytes, answer: float) -> None:
        """Keep an answer, on disk when this returns."""
        # SQLite makes NULL of NaN.
        row = "INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, answer)
        with self._lock:
            try:
                with self._db:
                    self._db.execute(*row)
            except sqlite3.Error as error:
                self._forget(error)
                self._db.execute(*row)

    def _forget(self, error: Exception) -> None:
        """Go on in memory: the disk is full or read-only, or something has damaged the file."""
        _log.warning(
            "%s: answers are not kept beyond this process (%s); free the disk, or delete a damaged file",
            self._path,
            error,
        )
        self._db = _opened(":memory:")


def _opened(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_WAIT_SEC, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    with db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer REAL) WITHOUT ROWID"
        )
    return db
