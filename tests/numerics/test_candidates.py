import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.numerics.candidates import keep_nearest, mutual, seats

seeds = st.integers(0, 2**32 - 1)


def make(seed, c, ads=6, distances=4):
    """Distinct pairs whose distances tie."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(ads * ads)[: min(c, ads * ads)]
    owner, partner = (
        np.array([f"{n:02}" for n in ad], dtype="S2") for ad in (pairs // ads, pairs % ads)
    )
    return owner, partner, rng.integers(0, distances, len(pairs)).astype(np.float32)


@given(seeds, st.integers(0, 30), st.integers(1, 4))
@settings(deadline=None)
def test_keep_nearest_against_sorting_each(seed, c, m):
    owner, partner, distance = make(seed, c)
    kept, rank = keep_nearest(owner, partner, distance, m)
    expected, ranks = [], []
    for one in sorted(set(owner.tolist())):
        rows = [row for row in range(len(owner)) if owner[row] == one]
        rows.sort(key=lambda row: (distance[row], partner[row]))
        expected += rows[:m]
        ranks += [1 + sum(distance[other] < distance[row] for other in rows) for row in rows[:m]]
    assert kept.tolist() == expected and rank.tolist() == ranks


@given(seeds, st.integers(0, 30))
@settings(deadline=None)
def test_mutual_against_looking_everywhere(seed, c):
    owner, partner, distance = make(seed, c)
    kept, _ = keep_nearest(owner, partner, distance, 1)
    nearest = np.isin(np.arange(len(owner)), kept)
    found = mutual(owner, partner, distance, nearest)
    for row in range(len(owner)):
        rivals = [other for other in range(len(owner)) if partner[other] == partner[row]]
        best = min(rivals, key=lambda other: (distance[other], owner[other]))
        assert found[row] == (nearest[row] and best == row)


def allocate(counts, masses, limit):
    """Sainte-Laguë, seat by seat."""
    got = [0] * len(counts)
    while sum(got) < min(limit, sum(counts)):
        room = [o for o in range(len(counts)) if got[o] < counts[o]]
        got[min(room, key=lambda o: (-masses[o] / (2 * got[o] + 1), o))] += 1
    return got


@given(
    seeds,
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 50)), min_size=1, max_size=5),
    st.integers(1, 20),
)
@settings(deadline=None)
def test_seats_go_by_mass_and_to_the_best(seed, sizes, limit):
    counts, masses = zip(*sizes, strict=True)
    rng = np.random.default_rng(seed)
    overlap = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    order = rng.permutation(len(overlap))
    kept = seats(overlap, np.array(masses, dtype=np.int64)[overlap], (order,), limit)
    assert len(set(kept.tolist())) == len(kept) == min(limit, len(overlap))
    for one, number in enumerate(allocate(counts, masses, limit)):
        own = np.flatnonzero(overlap == one)
        best = own[np.argsort(order[own])][:number]
        assert set(kept[overlap[kept] == one].tolist()) == set(best.tolist())


@given(seeds, st.integers(1, 40), st.integers(1, 12), st.integers(2, 4))
@settings(deadline=None)
def test_pools_of_parts_make_the_pool_of_the_whole(seed, c, limit, parts):
    rng = np.random.default_rng(seed)
    overlap, order = rng.integers(0, 4, c), rng.permutation(c)
    mass = rng.integers(0, 9, 4)[overlap]
    whole = seats(overlap, mass, (order,), limit)
    held = np.empty(0, dtype=np.int64)
    for part in np.array_split(rng.permutation(c), parts):
        rows = np.concatenate([held, part])
        held = rows[seats(overlap[rows], mass[rows], (order[rows],), limit)]
    assert held.tolist() == whole.tolist()


def test_what_cannot_be_kept_is_refused():
    empty = np.empty(0, dtype=np.int64)
    with pytest.raises(ValueError, match="m must be at least 1 partner, got 0"):
        keep_nearest(empty, empty, empty, 0)
    with pytest.raises(ValueError, match="limit must be at least 1 candidate, got 0"):
        seats(empty, empty, (empty,), 0)
