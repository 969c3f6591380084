"""SideBySide: a FlatMap that works on several elements at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.transforms.core import CallableWrapperDoFn
from apache_beam.transforms.window import GlobalWindow
from apache_beam.typehints.decorators import IOTypeHints
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from pipelines.console import metrics
from pipelines.numerics.threads import one_blas_thread


class SideBySide(beam.DoFn):
    """Call a function on elements, several at a time; outputs come in the elements' order.

    Beam's in-memory runner hands a bundle's elements to one thread, one after the other. What reads and
    computes without the interpreter's lock can go on for several of them. BLAS is held to one thread
    meanwhile. For global windows alone: outputs that are late have no other.

    Memory: ``threads + 1`` elements' outputs wait at most.

    Args:
        function: (element, side inputs...) to an iterable of outputs, tagged ones among them.
        threads: how many elements at once; 1 works in the runner's own thread.
    """

    def __init__(self, function: Callable[..., Iterable[Any]], threads: int) -> None:
        super().__init__()
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self._function, self._threads = function, threads

    def default_type_hints(self) -> IOTypeHints:
        """Return what a FlatMap of the function would take and give."""
        return CallableWrapperDoFn(self._function).default_type_hints()

    def start_bundle(self) -> None:
        """Start the threads."""
        self._waiting: deque[Future[tuple[list[Any], list[metrics.Count]]]] = deque()
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None

    def process(self, element: Any, *beside: Any) -> Iterator[Any]:
        """Begin with an element; yield what is done."""
        if self._pool is None:
            with one_blas_thread():
                yield from self._function(element, *beside)
            return
        self._waiting.append(self._pool.submit(_made, self._function, element, beside))
        if len(self._waiting) > self._threads:
            yield from self._next()

    def finish_bundle(self) -> Iterator[Any]:
        """Yield the rest."""
        while self._waiting:
            for output in self._next():
                tagged = isinstance(output, pvalue.TaggedOutput)
                value = _windowed(output.value if tagged else output)
                yield pvalue.TaggedOutput(output.tag, value) if tagged else value
        if self._pool is not None:
            self._pool.shutdown()

    def _next(self) -> list[Any]:
        outputs, counts = self._waiting.popleft().result()
        # Beam knows counters in its own threads alone.
        metrics.replay(counts)
        return outputs


def _made(
    function: Callable[..., Iterable[Any]], element: Any, beside: tuple[Any, ...]
) -> tuple[list[Any], list[metrics.Count]]:
    with one_blas_thread(), metrics.recorded() as counts:
        return list(function(element, *beside)), counts


def _windowed(value: Any) -> WindowedValue:
    return WindowedValue(value, MIN_TIMESTAMP, [GlobalWindow()])
