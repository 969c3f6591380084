import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from pipelines.numerics.threads import cores, in_order, one_blas_thread


def blas_threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


def test_cores_are_counted():
    assert cores() >= 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads):
    def slow(number):
        # The first takes longest.
        time.sleep(0.002 * (12 - number))
        return number * number

    assert list(in_order(slow, range(12), threads)) == [n * n for n in range(12)]
    assert list(in_order(slow, [], threads)) == []


def test_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=30)
    # Alone, either would wait for the other in vain.
    assert list(in_order(lambda _: both.wait() >= 0, range(4), 2)) == [True] * 4


@pytest.mark.parametrize("threads", [2, 3])
def test_no_more_than_the_threads_is_made_ahead(threads):
    made = []
    results = in_order(made.append, range(100), threads)
    next(results)
    assert len(made) <= threads + 2
    results.close()
    assert len(made) < 100


def test_an_error_comes_out():
    def fail(number):
        if number == 3:
            raise KeyError("three")
        return number

    with pytest.raises(KeyError, match="three"):
        list(in_order(fail, range(9), 2))
    assert list(in_order(fail, range(3), 2)) == [0, 1, 2]


def test_blas_is_held_to_one_thread_until_the_last_goes_out():
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        assert blas_threads() == {1}
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before == {2}
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {2}
