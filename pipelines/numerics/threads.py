"""Several cores: parts of an array side by side, each on one BLAS thread.

A BLAS that splits every product among the cores waits for its slowest thread at each of them, and spins
meanwhile: on a busy machine most of its time. Parts that go on by themselves need no such meeting, and what
stands between the products is spread, too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Given = TypeVar("Given")
Made = TypeVar("Made")

_lock = threading.Lock()
_inside = 0
_limits = contextlib.ExitStack()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread, which keeps the bits of a sum: several add in an order of their own.

    The setting is the process's: the first that comes in makes it, the last that goes out takes it back.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _limits.enter_context(_controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _limits.close()


def in_order(
    function: Callable[[Given], Made], items: Iterable[Given], threads: int
) -> Iterator[Made]:
    """Yield the results of a function in the order of the items, several of them in the making.

    Args:
        function: releases the interpreter's lock where it works long, as NumPy does.
        items: what it is called with.
        threads: how many are made at once; 1 makes them in this thread, one after the other.

    Memory: ``threads + 1`` results wait at most.
    """
    if threads < 2:
        yield from map(function, items)
        return
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@functools.cache
def _controller() -> ThreadpoolController:
    # Looking for the libraries takes milliseconds; SciPy brings one of its own, so it must be there.
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()
