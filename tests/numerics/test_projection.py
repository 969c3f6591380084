"""The planes of the pictures: main directions against a plain decomposition, and kept neighbours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.numerics.projection import neighbour_plane, pca_plane


def random_rows(seed: int, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # Dimensions of clearly different spread, so that the two main directions are unique.
    return (rng.normal(size=(n, d)) * 0.5 ** np.arange(d) + rng.normal(size=d)).astype(np.float32)


@given(st.integers(0, 50), st.integers(3, 40), st.integers(2, 8))
def test_the_plane_is_that_of_a_singular_value_decomposition(seed: int, n: int, d: int) -> None:
    rows = random_rows(seed, n, d)
    plane = pca_plane(rows)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    wanted = left[:, :2] * sizes[:2]
    scale = sizes[0]
    for axis in (0, 1):
        # Up to its sign, which a decomposition leaves open; near-equal directions may turn.
        if axis == 1 and len(sizes) > 2 and sizes[1] < 1.05 * sizes[2]:
            continue
        if sizes[0] < 1.05 * sizes[1]:
            continue
        got = plane[:, axis] * np.sign(plane[:, axis] @ wanted[:, axis])
        assert np.allclose(got, wanted[:, axis], atol=2e-3 * scale)
    assert plane.dtype == np.float32 and plane.shape == (n, 2)


def test_a_direction_points_to_where_its_largest_coordinate_is_positive() -> None:
    rows = np.zeros((40, 3))
    rows[:, 1] = np.linspace(5, -5, 40)
    rows[:, 2] = np.cos(np.arange(40))
    points = pca_plane(rows)
    assert np.corrcoef(points[:, 0], rows[:, 1])[0, 1] > 0.999
    assert np.corrcoef(points[:, 1], rows[:, 2])[0, 1] > 0.9


def test_the_same_rows_give_the_same_bits_and_a_shift_moves_nothing() -> None:
    rows = random_rows(3, 200, 16)
    first = pca_plane(rows)
    assert first.tobytes() == pca_plane(rows.copy()).tobytes()
    assert np.allclose(first, pca_plane(rows + 8.0), atol=1e-4)
    half = pca_plane(rows.astype(np.float16))
    assert np.allclose(first, half, atol=0.01)


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((1, 5)),
        np.full((30, 7), 0.1),
        np.array([[0.0, 0.0], [3.0, 4.0]]),
        np.array([[1.0], [2.0], [4.0]]),
    ],
    ids=["one row", "equal rows", "two rows", "one dimension"],
)
def test_where_there_is_no_plane_the_rest_is_zero(rows: np.ndarray) -> None:
    for points in (pca_plane(rows), neighbour_plane(rows, 0)):
        assert np.allclose(points[:, 1], 0.0, atol=1e-6)
        spread = np.ptp(points[:, 0])
        assert spread == pytest.approx(np.linalg.norm(rows[-1] - rows[0]), rel=1e-5)


def test_refusals_say_what_was_found() -> None:
    with pytest.raises(ValueError, match=r"at least one row and one dimension, got \(0, 4\)"):
        pca_plane(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="vectors must be finite, row 1 is not"):
        pca_plane(np.array([[0.0, 1.0], [np.nan, 1.0]]))
    with pytest.raises(ValueError, match=r"must be a matrix \(n, d\)"):
        pca_plane(np.zeros(4))
    with pytest.raises(ValueError, match="vectors must be finite, row 1 is not"):
        neighbour_plane(np.array([[0.0, 1.0], [np.nan, 1.0]]), 0)


def groups(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors around k directions, and the direction of each."""
    rng = np.random.default_rng(2)
    group = np.arange(n) % k
    rows = rng.normal(size=(k, d))[group] + 0.3 * rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), group


def test_neighbours_stay_neighbours_where_two_directions_cannot_hold_them() -> None:
    rows, group = groups(240, 40, 30)

    def kept(points: np.ndarray) -> float:
        apart = np.linalg.norm(points[:, None] - points, axis=2)
        np.fill_diagonal(apart, np.inf)
        return float((group[apart.argmin(axis=1)] == group).mean())

    points = neighbour_plane(rows, 0)
    assert kept(points) > 0.98 > 0.8 > kept(pca_plane(rows))
    assert points.dtype == np.float32 and points.shape == (240, 2)
    assert np.allclose(points.mean(axis=0), 0.0, atol=1e-3)
    assert points.tobytes() == neighbour_plane(rows.copy(), 0).tobytes(), "the same bits again"


@pytest.mark.parametrize("n", [11, 12, 13, 40])
def test_few_rows_and_doubles_have_a_place(n: int) -> None:
    rows = np.repeat(groups(n, 8, 3)[0][: -(-n // 2)], 2, axis=0)[:n]
    points = neighbour_plane(rows, 0)
    assert points.shape == (n, 2) and np.isfinite(points).all() and np.ptp(points[:, 0]) > 0
