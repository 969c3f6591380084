"""Where an engine's own lines go: into a file that is named when they matter, not onto the screen.

A job server, its workers and the client's threads print hundreds of lines of a run that is well, and a
traceback a thread of one that ends. Ours would be lost among them, and theirs are wanted when it failed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator

_OURS = ("pipelines", "models")
# What still logs when a run is over: job servers live as long as this process.
_ENGINES = (
    "apache_beam",
    "FlinkJarJobServer",
    "SparkJarJobServer",
    "PrismJobServer",
    "PrismRunner",
    "SdkWorker",
)


class EngineLog:
    """A file for the lines of an engine.

    Attributes:
        path: the file.
        errors: lines of level ERROR or above so far.
    """

    def __init__(self, name: str) -> None:
        """Make the file.

        Args:
            name: of the engine, for the file's name.
        """
        handle, self.path = tempfile.mkstemp(prefix=f"scout-{name}-", suffix=".log")
        os.close(handle)
        self.errors = 0
        self._running = True
        self._threshold = logging.getLogger().level
        self._file = logging.FileHandler(self.path, encoding="utf-8")
        self._file.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        )
        self._file.addFilter(self._is_theirs)
        self._before = threading.excepthook

    def _is_theirs(self, record: logging.LogRecord) -> bool:
        own = record.name.partition(".")[0]
        # Beam logs what a job says by the root logger.
        theirs = own not in _OURS if self._running else record.name.startswith(_ENGINES)
        self.errors += theirs and self._running and record.levelno >= logging.ERROR
        return theirs

    def _may_be_printed(self, record: logging.LogRecord) -> bool:
        if record.name.startswith(_ENGINES):
            return False
        theirs = self._running and record.name.partition(".")[0] not in _OURS
        return not theirs and record.levelno >= self._threshold

    def _of_thread(self, thrown: threading.ExceptHookArgs) -> None:
        if self._running or type(thrown.exc_value).__module__.startswith("grpc"):
            told = (thrown.exc_type, thrown.exc_value or thrown.exc_type(), thrown.exc_traceback)
            name = thrown.thread.name if thrown.thread else "a thread"
            # No error of the run: one that matters ends it.
            logging.getLogger("apache_beam").warning("%s ended", name, exc_info=told)
        else:
            self._before(thrown)

    def start(self) -> None:
        """Take what is logged from now on, and what threads end by."""
        root = logging.getLogger()
        for handler in root.handlers:
            handler.addFilter(self._may_be_printed)
        root.addHandler(self._file)
        root.setLevel(logging.INFO)
        threading.excepthook = self._of_thread
        from apache_beam.runners.worker import sdk_worker

        # A worker in this process prints the traceback that it logs in its next line.
        vars(sdk_worker)["print"] = lambda *_, **__: None

    def end(self, keep: bool) -> None:
        """Leave other logging alone again; drop the file unless it is to be kept.

        The engine's own loggers stay off the screen: its processes end with this one, and say so.
        """
        self._running = False
        logging.getLogger().setLevel(self._threshold)
        from apache_beam.runners.worker import sdk_worker

        vars(sdk_worker).pop("print", None)
        if not keep:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


@contextlib.contextmanager
def engine_log(name: str) -> Iterator[EngineLog]:
    """Take an engine's lines while the body runs; the file stays if it raised or logged an error.

    Args:
        name: of the engine, for the file's name.
    """
    log = EngineLog(name)
    log.start()
    try:
        yield log
    except BaseException:
        log.end(keep=True)
        raise
    log.end(keep=log.errors > 0)
