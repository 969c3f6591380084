"""Runners that run in this process and say of it what an engine, or Dataflow, would."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from apache_beam.metrics.execution import MetricKey, MetricResult
from apache_beam.metrics.metricbase import MetricName
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.console import metrics


def counter(name: str, committed: int | None, attempted: int | None) -> MetricResult:
    return MetricResult(
        MetricKey("step", MetricName(metrics.NAMESPACE, name)), committed, attempted
    )


class Result:
    """What a run returns: its counters, and an end that nobody may wait for unless it says so."""

    def __init__(self, counters: Sequence[MetricResult], ended: bool = True) -> None:
        self._counters, self._ended = counters, ended

    def wait_until_finish(self, duration: int | None = None) -> str:
        assert self._ended, "nobody waits for a job that was only handed over"
        return "DONE"

    def metrics(self) -> Any:
        assert self._ended, "nobody asks what a job counts that was only handed over"
        return self

    def query(self, filter: Any = None) -> dict[str, Sequence[MetricResult]]:
        return {"counters": self._counters}


class Silent(FnApiRunner):
    """Runs, and gives no counters."""

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        super().run_pipeline(pipeline, options).wait_until_finish()
        return Result([])


class HalfSilent(FnApiRunner):
    """Runs, and gives counters without a value among others, as engines do."""

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        super().run_pipeline(pipeline, options).wait_until_finish()
        return Result(
            [
                counter("ReadAds/rejected", None, None),
                counter("ScoreAds/rejected", 0, None),
                counter("ScoreAds/scored", 0, 150),
                counter("ScoreAds/scored", 50, None),
                counter("ReadAds/records", 200, 300),
            ]
        )


class Chatty(FnApiRunner):
    """Runs, and talks as engines and their threads do."""

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        logging.log(logging.ERROR, "a task was lost and is run again")
        logging.getLogger("FlinkJarJobServer").info("one of hundreds of lines")

        def hang_up() -> None:
            raise ConnectionError("Multiplexer hanging up")

        thread = threading.Thread(target=hang_up, name="read_inputs")
        thread.start()
        thread.join()
        return super().run_pipeline(pipeline, options)


class Broken(FnApiRunner):
    """Fails as an engine does: Java around Python."""

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        raise RuntimeError(
            "Pipeline job-1 failed in state FAILED: java.lang.RuntimeException: Error received from SDK "
            "harness: Traceback (most recent call last):\n"
            '  File "x.py", line 1, in process\n'
            "OSError: [Errno 28] No space left on device\n\n"
            "\tat java.base/java.util.concurrent.CompletableFuture.reportGet(Unknown Source)\n"
        )


class Dataflow(FnApiRunner):
    """Takes a job and says nothing more, as the runner of this name does with a template."""

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        return Result([], ended=False)
