"""Several elements at once: order, tags, counts and errors as if one came after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam import pvalue
from apache_beam.metrics import MetricsFilter
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from threadpoolctl import threadpool_info

from pipelines.console import metrics
from pipelines.stages.side_by_side import SideBySide

SEEN: list[int] = []
MET = threading.Barrier(2, timeout=30)


def doubled(number: int, plus: int) -> Iterator[int | pvalue.TaggedOutput]:
    metrics.count("SideBySide", "numbers", number)
    yield 2 * number + plus
    if number % 3 == 0:
        yield pvalue.TaggedOutput("third", number)


def _remember(number: int) -> int:
    SEEN.append(number)
    return number


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_outputs_come_as_from_a_flat_map(threads: int) -> None:
    SEEN.clear()
    pipeline = TestPipeline()
    plus = pvalue.AsSingleton(pipeline | "Plus" >> beam.Create([1]))
    numbers = pipeline | "Numbers" >> beam.Create(range(20), reshuffle=False)
    found = numbers | beam.ParDo(SideBySide(doubled, threads), plus).with_outputs(
        "third", main="all"
    )
    kept = found["all"] | beam.Map(_remember)
    assert_that(kept, equal_to([2 * n + 1 for n in range(20)]), label="all")
    assert_that(found["third"], equal_to([n for n in range(20) if n % 3 == 0]), label="third")
    result = pipeline.run()
    result.wait_until_finish()
    assert sorted(SEEN) == SEEN, "in the elements' order"
    [counter] = [
        found
        for found in result.metrics().query(MetricsFilter())["counters"]
        if found.key.metric.name == "SideBySide/numbers"
    ]
    assert counter.result == sum(range(20)), "also what other threads counted"


def together(number: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    MET.wait()
    blas = {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}
    yield number, tuple(sorted(blas))


def test_elements_are_worked_on_at_once_on_one_blas_thread_each() -> None:
    with TestPipeline() as pipeline:
        numbers = pipeline | beam.Create(range(4), reshuffle=False)
        found = numbers | beam.ParDo(SideBySide(together, 2))
        assert_that(found, equal_to([(n, (1,)) for n in range(4)]))


def failing(number: int) -> Iterator[int]:
    if number == 3:
        raise KeyError("the fourth")
    yield number


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_ends_the_pipeline(threads: int) -> None:
    with pytest.raises(Exception, match="the fourth"), TestPipeline() as pipeline:
        _ = pipeline | beam.Create(range(6)) | beam.ParDo(SideBySide(failing, threads))


def test_no_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        SideBySide(failing, 0)
