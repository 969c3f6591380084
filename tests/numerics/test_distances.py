import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from pipelines.numerics import distances
from pipelines.numerics.distances import (
    ExactIndex,
    as_matrix,
    distinct_rows,
    nearest,
    nearest_set,
    row_distances,
    row_order,
    squared_norms,
    within,
)

seeds = st.integers(0, 2**32 - 1)


def make_rows(seed, n, d, *, grid):
    """Unit rows; on a coarse grid they repeat and tie."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (n, d)) if grid else rng.normal(size=(n, d))
    rows = rows.astype(np.float64)
    rows[~rows.any(axis=1), 0] = 1.0
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def distance(a, b):
    return np.float32(np.sqrt(np.square(a.astype(np.float64) - b).sum()))


def search_by_hand(queries, data, m):
    indices, distances = [], []
    for query in queries:
        found = sorted((float(distance(query, row)), i) for i, row in enumerate(data))[:m]
        indices.append([i for _, i in found])
        distances.append([value for value, _ in found])
    shape = (len(queries), min(m, len(data)))
    return np.array(indices, dtype=np.int32).reshape(shape), np.array(
        distances, dtype=np.float32
    ).reshape(shape)


@given(
    seeds,
    st.integers(0, 9),
    st.integers(0, 25),
    st.integers(1, 6),
    st.integers(1, 30),
    st.booleans(),
)
@settings(deadline=None)
def test_exact_index_against_sorting_everything(seed, q, n, d, m, grid):
    data, queries = make_rows(seed, n, d, grid=grid), make_rows(seed + 1, q, d, grid=grid)
    index = ExactIndex(data)
    got, values = index.search(queries, m)
    expected, expected_values = search_by_hand(queries, data, m)
    assert len(index) == n
    assert got.dtype == np.int32 and values.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(values, expected_values)


@given(seeds, st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_near_ties_are_decided_in_float64(seed, m):
    # Rows that differ by less than a float32 product can tell apart.
    rng = np.random.default_rng(seed)
    base = make_rows(seed, 1, 384, grid=False)
    data = base + rng.normal(size=(40, 384)).astype(np.float32) * np.float32(1e-6)
    queries = make_rows(seed + 1, 3, 384, grid=False)
    got, values = nearest(queries, data, m)
    expected, expected_values = search_by_hand(queries, data, m)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(values, expected_values)


def test_a_query_is_answered_alike_in_any_block_and_on_any_threads():
    data, queries = make_rows(0, 700, 96, grid=False), make_rows(1, 60, 96, grid=False)
    whole = nearest(queries, data, 7)
    for block_bytes in (1, 5000, 70000):
        parts = nearest(queries, data, 7, block_bytes=block_bytes)
        assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    with threadpool_limits(limits=1):
        single = nearest(queries[17:18], data, 7)
    assert np.array_equal(single[0][0], whole[0][17])
    assert np.array_equal(single[1][0], whole[1][17])


@given(seeds, st.integers(0, 20), st.integers(1, 60), st.integers(1, 6), st.booleans())
@settings(deadline=None)
def test_a_set_of_nearest_rows_is_that_of_the_search(seed, q, n, d, grid):
    # On a grid most distances are ties, and the m-th is decided by the index.
    rows = make_rows(seed, q + n, d, grid=grid)
    queries, data = rows[:q], rows[q:]
    for m in {1, (n + 1) // 2, n}:
        expected = np.sort(nearest(queries, data, m)[0], axis=1)
        assert np.array_equal(nearest_set(queries, data, m, block_bytes=64), expected)


def test_many_copies_are_cheap():
    data = np.ones((30_000, 64), dtype=np.float32)
    data[100:] *= -1
    indices, distances = ExactIndex(data).search(-np.ones((300, 64), dtype=np.float32), 3)
    assert (indices == [100, 101, 102]).all()
    assert (distances == 0).all()


@given(seeds, st.integers(0, 9), st.integers(0, 9), st.integers(1, 5), st.booleans())
@settings(deadline=None)
def test_within_against_pairs(seed, a, b, d, grid):
    left, right = make_rows(seed, a, d, grid=grid), make_rows(seed + 1, b, d, grid=grid)
    pairs = np.array([[distance(x, y) for y in right] for x in left]).reshape(a, b)
    radii = [0.0, 0.5, 2.0, *np.unique(pairs)[:3].tolist()]
    for radius in radii:
        np.testing.assert_array_equal(within(left, right, radius), pairs <= np.float32(radius))
    each = np.random.default_rng(seed).choice(radii, a).astype(np.float32)
    expected = pairs <= each[:, None]
    np.testing.assert_array_equal(within(left, right, each), expected)
    np.testing.assert_array_equal(
        within(left, right, each, right_sq=squared_norms(right)), expected
    )


def bundles(seed, n, number, *, d=48, spread=1e-3):
    """Unit rows in bundles so tight that products of whole rows cannot tell a bundle's apart."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(number).normal(size=(number, d))
    rows = centers[rng.integers(0, number, n)] * 3.0 + spread * rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("number", [1, 3, 40])
@pytest.mark.parametrize("m", [1, 6])
def test_rows_that_are_nearly_equal_are_told_apart(number, m):
    data, queries = bundles(0, 1500, number), bundles(1, 90, number)
    # One row far off, so that rows are not short without what they have in common.
    data[77] *= -1
    got = nearest(queries, data, m)
    wide = queries[:, None].astype(np.float64) - data[None]
    gaps = np.sqrt(np.square(wide).sum(axis=2)).astype(np.float32)
    order = np.argsort(gaps, axis=1, kind="stable")[:, :m]
    np.testing.assert_array_equal(got[0], order)
    np.testing.assert_array_equal(got[1], np.take_along_axis(gaps, order, axis=1))
    for radius in np.quantile(gaps, [0.001, 0.2, 0.6]):
        each = np.random.default_rng(2).permutation(gaps[:, 5])
        for limit in (radius, each):
            limits = np.broadcast_to(np.float32(limit), len(queries))
            found = within(queries, data, limit)
            np.testing.assert_array_equal(found, gaps <= limits[:, None])


@pytest.mark.parametrize("number", [1, 4])
def test_few_pairs_of_nearly_equal_rows_are_measured_one_by_one(number, monkeypatch):
    data, queries = bundles(0, 4000, number), bundles(1, 200, number)
    measured = []

    def counted(left, right, left_rows, right_rows):
        measured.append(len(left_rows))
        return row_distances(left, right, left_rows, right_rows)

    monkeypatch.setattr(distances, "row_distances", counted)
    nearest(queries, data, 5)
    # A product of whole rows leaves a bundle's hundreds a query.
    assert sum(measured) < 20 * len(queries)


def test_threads_change_no_bit():
    data, queries = make_rows(0, 3000, 32, grid=False), make_rows(1, 200, 32, grid=False)
    one = nearest(queries, data, 4, block_bytes=1 << 18)
    two = ExactIndex(data).search(queries, 4, threads=2)
    three = nearest(queries, data, 4, block_bytes=1 << 17, threads=3)
    for a, b, c in zip(one, two, three, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_row_functions_depend_on_the_row_alone():
    rows = make_rows(3, 20_000, 17, grid=False)
    assert np.array_equal(squared_norms(rows)[9001:9003], squared_norms(rows[9001:9003]))
    pairs = np.arange(20_000)
    all_distances = row_distances(rows, rows[::-1], pairs, pairs)
    assert np.array_equal(
        all_distances[9001:9003], row_distances(rows, rows[::-1], pairs, pairs)[9001:9003]
    )
    assert all_distances[12_345] == distance(rows[12_345], rows[20_000 - 1 - 12_345])


@given(seeds, st.integers(0, 30), st.integers(1, 3))
def test_distinct_rows_group_equal_rows_by_first_index(seed, n, d):
    rows = np.random.default_rng(seed).integers(-1, 2, (n, d)).astype(np.float32)
    rows[rows == 0] *= -1.0 if seed % 2 else 1.0
    first, inverse = distinct_rows(rows)
    seen: dict[tuple[float, ...], int] = {}
    for i, row in enumerate(rows):
        seen.setdefault(tuple(row.tolist()), i)
    assert first.tolist() == list(seen.values())
    assert [int(first[g]) for g in inverse] == [seen[tuple(row.tolist())] for row in rows]


def test_distinct_rows_across_chunk_borders():
    rows = np.repeat(np.arange(3.0, dtype=np.float32), 8192)[:, None]
    first, inverse = distinct_rows(rows[::-1])
    assert first.tolist() == [0, 8192, 16384]
    assert np.array_equal(first[inverse], np.repeat([0, 8192, 16384], 8192))


@given(seeds, st.integers(0, 30))
def test_row_order_orders_contents(seed, n):
    rows = make_rows(seed, n, 3, grid=True)
    shuffled = rows[np.random.default_rng(seed).permutation(n)]
    assert np.array_equal(rows[row_order(rows)], shuffled[row_order(shuffled)])


@given(seeds, st.integers(0, 40), st.integers(1, 4), st.sampled_from([np.float16, np.float32]))
@settings(deadline=None)
def test_row_order_is_that_of_the_bytes(seed, n, d, dtype):
    # Few values: most rows begin as others do.
    rows = np.random.default_rng(seed).integers(-1, 2, (n, d)).astype(dtype)
    expected = sorted(range(n), key=lambda row: (rows[row] + dtype(0)).tobytes())
    assert row_order(rows).tolist() == expected


def test_matrices_are_checked():
    good = np.ones((2, 3), dtype=np.float32)
    assert as_matrix("x", good) is good
    assert as_matrix("x", good.astype(np.float16)).dtype == np.float32
    big = np.full((3, 2), 3e38, dtype=np.float32)
    assert as_matrix("x", big) is big
    with pytest.raises(
        ValueError, match=r"x must be a matrix \(n, d\) with d >= 1, got shape \(3,\)"
    ):
        as_matrix("x", np.ones(3))
    with pytest.raises(ValueError, match="x must have 4 dimensions, got 3"):
        as_matrix("x", good, 4)
    for value in (np.nan, np.inf, -np.inf):
        bad = good.copy()
        bad[1, 2] = value
        with pytest.raises(ValueError, match="x must be finite, row 1 is not"):
            as_matrix("x", bad)
    cancelling = np.array([[np.inf, -np.inf]], dtype=np.float32)
    with pytest.raises(ValueError, match="must be finite"):
        as_matrix("x", cancelling)
