import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from pipelines.numerics.distances import distinct_rows
from pipelines.numerics.kmeans import (
    MAX_CLUSTERS,
    VectorSpace,
    assign,
    auto_k,
    fit_kmeans,
    fit_space,
    inertia,
    project,
)

seeds = st.integers(0, 2**32 - 1)


def mixture(seed, n, d, k, spread=0.5):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(k, d))
    rows = centers[rng.integers(0, k, n)] + spread * rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def grid_rows(seed, n, d):
    return np.random.default_rng(seed).integers(-1, 2, (n, d)).astype(np.float32)


@given(seeds, st.integers(1, 20), st.integers(0, 20), st.integers(0, 1000), st.integers(0, 1000))
def test_space_matches_moments_of_repeated_rows(seed, n1, n2, repeat1, repeat2):
    rng = np.random.default_rng(seed)
    first = rng.normal(3.0, 2.0, (n1, 4)).astype(np.float32)
    second = rng.normal(size=(n2, 4)).astype(np.float32)
    populations = [n1 * (repeat1 + 1), n2 * repeat2]
    space = fit_space([first, second], populations, standardize=True)
    weights = np.concatenate([np.full(n1, repeat1 + 1.0), np.full(n2, float(repeat2))])
    rows = np.concatenate([first, second]).astype(np.float64)
    mean = np.average(rows, axis=0, weights=weights)
    std = np.sqrt(np.average(np.square(rows - mean), axis=0, weights=weights))
    np.testing.assert_allclose(space.mean, mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(space.scale, np.where(std <= 1e-7 * abs(mean), 1, std), rtol=1e-9)


def test_constant_dimensions_keep_scale_one():
    rows = np.full((5, 3), [0.1, 0.0, 1e6], dtype=np.float32)
    space = fit_space([rows], [5], standardize=True)
    assert space.scale.tolist() == [1.0, 1.0, 1.0]
    projected = project(space, rows)
    assert projected.tolist() == [[1.0, 0.0, 0.0]] * 5


def test_unit_space_only_scales_rows():
    space = fit_space([np.ones((2, 2))], [2], standardize=False)
    assert space == VectorSpace(None, None)
    np.testing.assert_allclose(project(space, [[3.0, 4.0], [0.0, -2.0]]), [[0.6, 0.8], [0, -1]])
    assert project(space, np.zeros((2, 3))).tolist() == [[1.0, 0.0, 0.0]] * 2
    assert project(space, np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("samples", "populations", "text"),
    [
        ([np.ones((2, 2))], [2, 3], "one count a sample, got 2 for 1"),
        ([np.ones((0, 2))], [2], "class 0 has a population of 2 and a sample of 0 rows"),
        ([np.ones((1, 2))], [-1], "class 0 has a population of -1"),
        ([np.ones((0, 2))], [0], "all classes are empty"),
        ([np.ones((1, 2)), np.ones((1, 3))], [1, 1], "share one dimension"),
        ([np.full((1, 2), np.nan)], [1], r"samples\[0\] must be finite"),
    ],
)
def test_space_refuses(samples, populations, text):
    with pytest.raises(ValueError, match=text):
        fit_space(samples, populations, standardize=True)


def test_projection_of_a_row_ignores_its_neighbours():
    rows = np.random.default_rng(0).normal(size=(9000, 33)).astype(np.float16)
    space = fit_space([rows], [9000], standardize=True)
    whole = project(space, rows)
    assert whole.dtype == np.float32
    assert np.array_equal(whole[4090:4100], project(space, rows[4090:4100]))
    assert np.array_equal(whole[::7], project(space, np.asfortranarray(rows[::7])))
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-6)
    with pytest.raises(ValueError, match="must have 33 dimensions, got 32"):
        project(space, rows[:, :32])


def test_tiny_rows_keep_their_direction():
    row = np.array([[3e-40, 4e-40]], dtype=np.float32)
    np.testing.assert_allclose(project(VectorSpace(None, None), row), [[0.6, 0.8]], rtol=1e-4)


@given(st.integers(0, 10**7))
def test_auto_k_bounds(n):
    k = auto_k(n)
    assert 1 <= k <= MAX_CLUSTERS
    assert k == 1 or k <= n // 4
    if 32 <= n <= 500_000:
        assert abs(k - np.sqrt(n / 2)) <= 0.5


def test_auto_k_examples():
    assert [auto_k(n) for n in (0, 1, 7, 8, 32_000, 10**6)] == [1, 1, 1, 2, 126, 512]
    with pytest.raises(ValueError, match="n must be a number of rows, got -1"):
        auto_k(-1)


@given(seeds, st.integers(1, 40), st.integers(1, 4), st.integers(1, 12))
@settings(deadline=None)
def test_fit_invariants_on_rows_that_repeat(seed, n, d, k):
    rows = grid_rows(seed, n, d)
    centroids = fit_kmeans(rows, k, seed)
    distinct = rows[distinct_rows(rows)[0]]
    assert centroids.dtype == np.float32 and centroids.flags.c_contiguous
    assert 1 <= len(centroids) <= min(k, len(distinct))
    assert len(distinct_rows(centroids)[0]) == len(centroids)
    assert np.isfinite(centroids).all()
    shuffled = rows[np.random.default_rng(seed).permutation(n)]
    assert np.array_equal(fit_kmeans(shuffled, k, seed), centroids)
    if k >= len(distinct):
        assert len(centroids) == len(distinct)
        assert inertia(rows, centroids) == 0.0
    labels, _ = assign(rows, centroids)
    assert (np.bincount(labels, minlength=len(centroids)) > 0).all()


def test_fit_repeats_on_any_number_of_threads_and_differs_by_seed():
    rows = mixture(0, 6000, 48, 20)
    first = fit_kmeans(rows, 15, 1)
    with threadpool_limits(limits=1):
        assert np.array_equal(fit_kmeans(rows, 15, 1), first)
    assert np.array_equal(fit_kmeans(rows[::-1], 15, 1), first)
    assert not np.array_equal(fit_kmeans(rows, 15, 2), first)
    sizes = np.bincount(assign(rows, first)[0], minlength=len(first))
    assert (np.diff(sizes) <= 2).all()


@pytest.mark.parametrize("k", [5, 40])
def test_fit_is_within_two_percent_of_full_lloyd(k):
    ratios = []
    for seed in range(3):
        rows = mixture(seed, 5000, 32, 30, spread=1.0)
        full = KMeans(k, n_init=1, random_state=seed).fit(rows)
        ratios.append(inertia(rows, fit_kmeans(rows, k, seed)) / full.inertia_)
    assert np.median(ratios) <= 1.02


def test_all_rows_equal_give_one_cluster():
    rows = np.full((1000, 8), 0.25, dtype=np.float32)
    centroids = fit_kmeans(rows, 10, 0)
    assert np.array_equal(centroids, rows[:1])
    labels, distances = assign(rows, centroids)
    assert not labels.any() and not distances.any()


@pytest.mark.parametrize(
    ("rows", "k", "text"),
    [
        (np.ones((2, 2)), 0, "k must be at least 1 cluster, got 0"),
        (np.ones((0, 2)), 1, "at least one row to cluster, got 0"),
        (np.full((3, 2), np.inf), 1, "vectors must be finite"),
        (np.ones(3), 1, "must be a matrix"),
    ],
)
def test_fit_refuses(rows, k, text):
    with pytest.raises(ValueError, match=text):
        fit_kmeans(rows, k, 0)


@given(seeds, st.integers(0, 30), st.integers(1, 10), st.integers(1, 4), st.booleans())
@settings(deadline=None)
def test_assign_against_every_pair(seed, n, k, d, grid):
    if grid:
        rows, centroids = grid_rows(seed, n, d), grid_rows(seed + 1, k, d)
    else:
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(n, d)).astype(np.float32)
        centroids = rng.normal(size=(k, d)).astype(np.float32)
    labels, distances = assign(rows, centroids)
    wide = rows[:, None].astype(np.float64) - centroids[None]
    pairs = np.sqrt(np.square(wide).sum(axis=2)).astype(np.float32)
    assert labels.dtype == np.int32 and distances.dtype == np.float32
    np.testing.assert_array_equal(labels, pairs.argmin(axis=1))
    np.testing.assert_array_equal(distances, pairs.min(axis=1))


def test_a_row_is_assigned_alike_in_any_block():
    rows = mixture(0, 5000, 64, 30)
    # Copies of one centroid, nearly: only float64 tells them apart.
    noise = np.random.default_rng(1).normal(size=(30, 64)).astype(np.float32)
    centroids = rows[:1] + noise * np.float32(1e-6)
    whole = assign(rows, centroids)
    for rows_per_chunk in (1, 7, 4999):
        part = assign(rows[1000:1300], centroids, rows_per_chunk)
        assert np.array_equal(part[0], whole[0][1000:1300])
        assert np.array_equal(part[1], whole[1][1000:1300])
    with threadpool_limits(limits=1):
        assert np.array_equal(assign(rows, centroids)[0], whole[0])


@pytest.mark.parametrize(
    ("centroids", "chunk", "text"),
    [
        (np.ones((0, 2)), 10, "centroids must hold at least one row"),
        (np.ones((2, 3)), 10, "vectors must have 3 dimensions, got 2"),
        (np.ones((2, 2)), 0, "rows_per_chunk must be at least 1, got 0"),
    ],
)
def test_assign_refuses(centroids, chunk, text):
    with pytest.raises(ValueError, match=text):
        assign(np.ones((4, 2)), centroids, chunk)
