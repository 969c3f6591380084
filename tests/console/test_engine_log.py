"""An engine's lines are in a file; ours, and what others log later, are where they were."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from apache_beam.runners.worker import sdk_worker

from pipelines.console.engine_log import engine_log


class Screen(logging.Handler):
    """What a person would see."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def screen() -> Iterator[Screen]:
    root, hook = logging.getLogger(), threading.excepthook
    before, level = [*root.handlers], root.level
    shown = Screen()
    root.handlers[:] = [shown]
    root.setLevel(logging.WARNING)
    yield shown
    root.handlers[:] = before
    root.setLevel(level)
    threading.excepthook = hook


def test_theirs_go_to_a_file_and_ours_stay(screen: Screen) -> None:
    with engine_log("Flink") as log:
        logging.getLogger("FlinkJarJobServer").info("java says")
        logging.error("a task was lost")
        logging.getLogger("models.presets").warning("ours")
        logging.getLogger("pipelines.x").info("ours, below what is shown")
        held = Path(log.path).read_text()
    assert screen.lines == ["ours"]
    assert "INFO FlinkJarJobServer: java says" in held and "ERROR root: a task was lost" in held
    assert "ours" not in held
    assert log.errors == 1 and Path(log.path).exists(), "errors stay to be found"
    Path(log.path).unlink()


def test_a_run_that_is_well_leaves_no_file(screen: Screen) -> None:
    with engine_log("Spark") as log:
        logging.getLogger("apache_beam.runners").warning("said in passing")
    assert (screen.lines, Path(log.path).exists(), log.errors) == ([], False, 0)


def test_after_the_run_only_engines_stay_off_the_screen(screen: Screen) -> None:
    with engine_log("Spark"):
        pass
    logging.getLogger("apache_beam.runners.worker.data_plane").error("Multiplexer hanging up")
    logging.getLogger("SparkJarJobServer").error("shut down")
    logging.getLogger("another.library").warning("shown")
    logging.getLogger("another.library").info("never shown")
    assert screen.lines == ["shown"]


def test_a_failed_run_leaves_its_file(screen: Screen) -> None:
    log = None
    try:
        with engine_log("Prism") as log:
            logging.getLogger("PrismRunner").info("the last words")
            raise RuntimeError("failed")
    except RuntimeError:
        assert log is not None
    assert "the last words" in Path(log.path).read_text()
    Path(log.path).unlink()


def test_what_threads_end_by_is_no_error_of_the_run(
    screen: Screen, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ConnectionError("hung up")

    with engine_log("Spark") as log:
        thread = threading.Thread(target=fail, name="read_inputs")
        thread.start()
        thread.join()
        assert "read_inputs ended" in Path(log.path).read_text()
    assert (log.errors, screen.lines, capsys.readouterr().err) == (0, [], "")


def test_a_worker_in_this_process_prints_no_traceback(
    screen: Screen, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ValueError("a step says no")

    def execute() -> None:
        worker = object.__new__(sdk_worker.SdkHarness)
        worker._responses = queue.Queue()
        worker._execute(fail, SimpleNamespace(instruction_id="bundle 1"))
        assert "a step says no" in worker._responses.get().error

    with engine_log("Flink") as log:
        execute()
        assert "a step says no" in Path(log.path).read_text()
    assert capfd.readouterr().err == ""
    Path(log.path).unlink()
    # Afterwards Beam is what it was.
    execute()
    assert "a step says no" in capfd.readouterr().err
