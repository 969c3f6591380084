import logging
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import neighbors
from models.neighbors import ExactIndex, ScannIndex, build_index, scann_problem

# On Linux ScaNN is pinned and must load; elsewhere there is no build of it.
needs_scann = pytest.mark.skipif(
    sys.platform != "linux" and scann_problem() is not None, reason=str(scann_problem())
)
KINDS = [ExactIndex, pytest.param(ScannIndex, marks=needs_scann)]


def unit_rows(seed, n, d, *, grid=False):
    rng = np.random.default_rng(seed)
    rows = (rng.integers(-1, 2, (n, d)) if grid else rng.normal(size=(n, d))).astype(np.float64)
    rows[~rows.any(axis=1), 0] = 1.0
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def two_labels(seed, n, n_queries, d=48):
    """Rows around topics, and queries moved off them: another distribution, as opposite labels."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(40, d))
    shift = rng.normal(size=d)
    rows = topics[rng.integers(0, 40, n)] + rng.normal(size=(n, d))
    queries = topics[rng.integers(0, 40, n_queries)] + rng.normal(size=(n_queries, d)) + shift
    return tuple(
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (rows, queries)
    )


def search_by_hand(queries, data, m):
    wide = queries[:, None].astype(np.float64) - data[None]
    gaps = np.sqrt(np.square(wide).sum(axis=2)).astype(np.float32)
    order = np.argsort(gaps, axis=1, kind="stable")[:, :m]
    return order, np.take_along_axis(gaps, order, axis=1)


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 2**32 - 1),
    q=st.integers(0, 6),
    n=st.integers(0, 40),
    d=st.integers(1, 5),
    m=st.integers(1, 45),
    grid=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_search_against_every_pair(kind, seed, q, n, d, m, grid):
    data, queries = unit_rows(seed, n, d, grid=grid), unit_rows(seed + 1, q, d, grid=grid)
    index = kind(data)
    indices, distances = index.search(queries, m)
    assert len(index) == n
    assert indices.shape == distances.shape == (q, min(m, n))
    assert indices.dtype == np.int32 and distances.dtype == np.float32
    expected, expected_distances = search_by_hand(queries, data, m)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(distances, expected_distances)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 15, 16, 17])
def test_few_points_and_more_neighbours_than_points(kind, n):
    data = unit_rows(0, n, 8)
    indices, distances = kind(data).search(data, 100)
    assert indices.shape == (n, n)
    assert indices[:, 0].tolist() == list(range(n))
    assert not distances[:, 0].any()
    assert np.sort(indices, axis=1).tolist() == [list(range(n))] * n
    assert (np.diff(distances, axis=1) >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_empty_sides(kind):
    data = unit_rows(0, 20, 8)
    for index, n_queries in ((kind(data), 0), (kind(data[:0]), 3)):
        indices, distances = index.search(data[:n_queries], 4)
        assert indices.shape == distances.shape == (n_queries, 4 if n_queries == 0 else 0)
        assert indices.dtype == np.int32 and distances.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments_are_refused_before_any_search(kind):
    data = unit_rows(0, 20, 8)
    for value in (np.nan, np.inf):
        bad = data.copy()
        bad[3, 1] = value
        with pytest.raises(ValueError, match="vectors must be finite, row 3 is not"):
            kind(bad)
        with pytest.raises(ValueError, match="queries must be finite, row 3 is not"):
            kind(data).search(bad, 1)
    with pytest.raises(ValueError, match="queries must have 8 dimensions, got 7"):
        kind(data).search(data[:, :7], 1)
    with pytest.raises(ValueError, match="m must be at least 1 neighbour, got 0"):
        kind(data).search(data, 0)
    with pytest.raises(ValueError, match="vectors must be a matrix"):
        kind(data[0])


@pytest.mark.parametrize("kind", KINDS)
def test_copies_come_in_the_order_of_their_rows(kind):
    data = unit_rows(0, 60, 8)
    data[10:50] = data[5]
    indices, distances = kind(data).search(data[5:6], 12)
    assert indices[0].tolist() == [5, *range(10, 21)]
    assert not distances.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_is_answered_alone_as_among_others(kind):
    rows, queries = two_labels(0, 3000, 70)
    index = kind(rows)
    whole = index.search(queries, 5)
    again = kind(rows.copy()).search(queries, 5)
    for i in (0, 33, 69):
        alone = index.search(queries[i : i + 1], 5)
        assert all(np.array_equal(a[0], b[i]) for a, b in zip(alone, whole, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


@needs_scann
@pytest.mark.parametrize("m", [1, 7])
def test_scann_answers_as_the_exact_index_bit_for_bit(m):
    rows, queries = two_labels(1, 10_000, 400)
    expected = ExactIndex(rows).search(queries, m)
    got = ScannIndex(rows).search(queries, m)
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


@needs_scann
def test_scann_needs_no_second_search_for_ordinary_queries():
    rows, queries = two_labels(1, 5000, 100)
    index = ScannIndex(rows)
    index._exact = lambda: pytest.fail("searched again")
    index.search(queries, 3)


class IncompleteSearcher:
    """Misses neighbours the way ScaNN does: index 0 at a distance of NaN."""

    def __init__(self, columns):
        self.columns = columns

    def search_batched_parallel(self, queries, final_num_neighbors):
        shape = (len(queries), min(self.columns, final_num_neighbors))
        return np.zeros(shape, dtype=np.uint32), np.full(shape, np.nan, dtype=np.float32)


@needs_scann
@pytest.mark.parametrize("columns", [2, 50])
def test_missing_neighbours_are_searched_again(columns):
    rows, queries = two_labels(3, 200, 5)
    index = ScannIndex(rows)
    index._searcher = IncompleteSearcher(columns)
    expected = ExactIndex(rows).search(queries, 4)
    got = index.search(queries, 4)
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


class BackwardSearcher:
    """Of equally near rows takes the last ones, as ScaNN is free to do."""

    def __init__(self, rows):
        self.rows = rows

    def search_batched_parallel(self, queries, final_num_neighbors):
        squared = np.square(queries[:, None] - self.rows).sum(axis=2)
        backward = len(self.rows) - 1 - np.argsort(squared[:, ::-1], axis=1, kind="stable")
        found = backward[:, :final_num_neighbors]
        return found.astype(np.uint32), np.take_along_axis(squared, found, axis=1)


@needs_scann
def test_what_rounding_could_have_cut_off_is_searched_again():
    rows = unit_rows(0, 60, 8)
    rows[10:50] = rows[5]
    index = ScannIndex(rows)
    index._searcher = BackwardSearcher(rows)
    expected = ExactIndex(rows).search(rows, 12)
    got = index.search(rows, 12)
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_indexes_pickle(kind):
    rows, queries = two_labels(4, 300, 5)
    index = kind(rows)
    copy = pickle.loads(pickle.dumps(index))
    for a, b in zip(index.search(queries, 3), copy.search(queries, 3), strict=True):
        assert np.array_equal(a, b)


def test_auto_takes_the_exact_index_for_small_sets():
    assert isinstance(build_index(unit_rows(0, 50, 4)), ExactIndex)
    assert isinstance(build_index(unit_rows(0, 5000, 4), kind="exact"), ExactIndex)


@needs_scann
def test_auto_takes_scann_for_large_sets():
    assert isinstance(build_index(unit_rows(0, neighbors.EXACT_BELOW, 4)), ScannIndex)
    assert isinstance(build_index(unit_rows(0, 50, 4), kind="scann"), ScannIndex)


@pytest.fixture
def without_scann(monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)
    for cached in (scann_problem, neighbors._log_fallback):
        cached.cache_clear()
    yield
    for cached in (scann_problem, neighbors._log_fallback):
        cached.cache_clear()


def test_auto_falls_back_once_with_a_reason(without_scann, caplog):
    data = unit_rows(0, neighbors.EXACT_BELOW, 4)
    with caplog.at_level(logging.WARNING):
        assert isinstance(build_index(data), ExactIndex)
        assert isinstance(build_index(data), ExactIndex)
    (record,) = caplog.records
    assert "ScaNN cannot be loaded" in record.getMessage()
    assert "searching exactly instead" in record.getMessage()
    with pytest.raises(ImportError, match="ask for kind='exact'"):
        build_index(data, kind="scann")


def test_a_processor_without_avx_is_noticed_before_loading(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbors.platform, "machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu sse2 avx\n")
    assert neighbors._missing_instructions(str(cpuinfo)) == ["fma"]
    cpuinfo.write_text("flags : avx fma\n")
    assert neighbors._missing_instructions(str(cpuinfo)) == []
    assert neighbors._missing_instructions(str(tmp_path / "none")) == []
    monkeypatch.setattr(neighbors.platform, "machine", lambda: "aarch64")
    assert neighbors._missing_instructions(str(cpuinfo)) == []
    monkeypatch.setattr(neighbors, "_missing_instructions", lambda: ["fma"])
    scann_problem.cache_clear()
    assert scann_problem() == "ScaNN needs processor instructions that are missing here: fma"
    scann_problem.cache_clear()
