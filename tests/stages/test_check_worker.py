"""CheckWorker: a worker without weights ends the job before anything costs time."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.errors import RunFailed, find_run_failed
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.stages.check_worker import CheckWorker

looks: list[int] = []


def look() -> None:
    looks.append(1)


def lack() -> None:
    raise RunFailed("the worker lacks weights")


def test_a_worker_looks_once_and_passes_nothing_on() -> None:
    looks.clear()
    with beam.Pipeline(runner=DEFAULT_RUNNER) as pipeline:
        assert_that(pipeline | CheckWorker(look), equal_to([]))
    assert looks == [1]


def test_its_sentence_ends_the_job() -> None:
    pipeline = beam.Pipeline(runner=DEFAULT_RUNNER)
    _ = pipeline | CheckWorker(lack)
    with pytest.raises(RuntimeError) as caught:
        pipeline.run()
    assert find_run_failed(caught.value) == "the worker lacks weights"
