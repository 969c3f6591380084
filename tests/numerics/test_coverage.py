import dataclasses
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.numerics.coverage import (
    Candidates,
    CoverageSample,
    cover_radius,
    select_pairs,
)

seeds = st.integers(0, 2**32 - 1)
KEY = "{:032x}"


def unit_rows(rng, n, d, *, grid):
    rows = (rng.integers(-1, 2, (n, d)) if grid else rng.normal(size=(n, d))).astype(np.float64)
    rows[~rows.any(axis=1), 0] = 1.0
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def distance(a, b):
    return np.float32(np.sqrt(np.square(a.astype(np.float64) - b).sum()))


def make_problem(seed, n_candidates, n_sample, *, grid, n_overlaps=3, n_ads=8, d=4):
    """Random cluster pairs, ads and sample; on a grid distances, gains and masses tie."""
    rng = np.random.default_rng(seed)
    clusters = [(int(rng.integers(0, 2)), j) for j in range(n_overlaps)]
    vectors = unit_rows(rng, 2 * n_ads, d, grid=grid)
    positive = rng.integers(0, n_ads, n_candidates)
    negative = rng.integers(n_ads, 2 * n_ads, n_candidates)
    # One pair of ads lies in one overlap only.
    overlap = negative % n_overlaps
    gap = np.array(
        [distance(vectors[p], vectors[q]) for p, q in zip(positive, negative, strict=True)]
    )
    candidates = Candidates(
        positive=positive.astype(np.int32),
        negative=negative.astype(np.int32),
        distance=gap.astype(np.float32),
        overlap=overlap.astype(np.int32),
        mutual=(positive + negative) % 3 == 0,
    )
    sample = CoverageSample(
        vectors=unit_rows(rng, n_sample, d, grid=grid),
        weight=rng.integers(0, 4, n_sample) * (1.0 if grid else 0.37),
        label=rng.random(n_sample) < 0.5,
        cluster=rng.integers(0, n_overlaps, n_sample).astype(np.int32),
    )
    keys = [KEY.format(i) for i in rng.permutation(2 * n_ads)]
    mass = rng.integers(0, 5, n_overlaps)
    return candidates, vectors, keys, mass, np.array(clusters), sample


def select_by_hand(
    candidates,
    vectors,
    keys,
    mass,
    clusters,
    sample,
    *,
    budget,
    radius,
    near_identical,
    window,
    asked=(),
):
    """The method, recounted from the start for every seat."""
    too_near = np.float32(np.sqrt(2 - 2 * near_identical))
    weights = [round(w * 1e6) for w in sample.weight]
    seats: Counter[int] = Counter()
    chosen: list[int] = []
    result = []
    alive = set(range(len(mass)))

    def ads(c):
        return int(candidates.positive[c]), int(candidates.negative[c])

    def key(c):
        p, q = ads(c)
        return float(candidates.distance[c]), keys[p], keys[q]

    def covered(pairs):
        found = set()
        for c in pairs:
            positive, negative = clusters[candidates.overlap[c]]
            for s in range(len(sample.weight)):
                mine = positive if sample.label[s] else negative
                if sample.cluster[s] == mine and any(
                    distance(vectors[a], sample.vectors[s]) <= np.float32(radius) for a in ads(c)
                ):
                    found.add(s)
        return sum(weights[s] for s in found)

    def usable(c):
        for a in ads(c):
            if any(distance(vectors[a], row) < too_near for row in asked):
                return False
            for other in chosen:
                for b in ads(other):
                    if a == b or distance(vectors[a], vectors[b]) < too_near:
                        return False
        return True

    while alive and len(chosen) < budget:
        best = max(alive, key=lambda o: (Fraction(int(mass[o]), 2 * seats[o] + 1), -o))
        remaining = [
            c for c in range(len(candidates)) if candidates.overlap[c] == best and usable(c)
        ]
        if not remaining:
            alive.remove(best)
            continue
        remaining.sort(key=lambda c: (not candidates.mutual[c], *key(c)))
        before = covered(chosen)
        take = min(remaining[:window], key=lambda c: (before - covered([*chosen, c]), *key(c)))
        seats[best] += 1
        chosen.append(take)
        after = covered(chosen)
        result.append((ads(take), after - before, after))
    return result, sum(weights)


def content(choices, candidates):
    return [
        (
            int(candidates.positive[c.candidate]),
            int(candidates.negative[c.candidate]),
            c.covered_weight,
            c.cumulative_share,
        )
        for c in choices
    ]


@given(
    seeds,
    st.integers(0, 25),
    st.integers(0, 12),
    st.booleans(),
    st.integers(0, 8),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.sampled_from([0.5, 0.97, 1.0]),
    st.integers(1, 5),
    st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_selection_against_recounting(
    seed, n_candidates, n_sample, grid, budget, radius, near_identical, window, with_asked
):
    problem = make_problem(seed, n_candidates, n_sample, grid=grid)
    candidates, vectors = problem[:2]
    asked = vectors[:2] if with_asked else None
    choices = select_pairs(
        *problem,
        budget=budget,
        radius=radius,
        near_identical=near_identical,
        nearest_window=window,
        asked=asked,
    )
    # At 1.0 nothing is too near to differ, not even an asked ad itself.
    expected, total = select_by_hand(
        *problem,
        budget=budget,
        radius=radius,
        near_identical=near_identical,
        window=window,
        asked=vectors[:2] if with_asked else (),
    )
    got = content(choices, candidates)
    assert [(p, q) for p, q, *_ in got] == [pair for pair, *_ in expected]
    for (*_, gain, share), (_, gain_by_hand, after) in zip(got, expected, strict=True):
        assert gain == pytest.approx(gain_by_hand * 1e-6, abs=1e-9)
        assert share == (after / total if total else 0.0)
    used = [ad for p, q, *_ in got for ad in (p, q)]
    assert len(used) == len(set(used)) and len(got) <= budget


@given(seeds, st.booleans())
@settings(deadline=None, max_examples=40)
def test_orders_do_not_matter(seed, grid):
    candidates, vectors, keys, mass, clusters, sample = make_problem(
        seed, 30, 40, grid=grid, n_ads=15
    )
    options = {"budget": 6, "radius": cover_radius(sample, 0.3, seed), "nearest_window": 3}
    choices = select_pairs(candidates, vectors, keys, mass, clusters, sample, **options)
    rng = np.random.default_rng(seed)
    of_candidates, of_sample = (
        rng.permutation(len(candidates)),
        rng.permutation(len(sample.vectors)),
    )
    of_vectors = rng.permutation(len(vectors))
    place = np.argsort(of_vectors)
    shuffled = Candidates(
        positive=place[candidates.positive][of_candidates].astype(np.int32),
        negative=place[candidates.negative][of_candidates].astype(np.int32),
        distance=candidates.distance[of_candidates],
        overlap=candidates.overlap[of_candidates],
        mutual=candidates.mutual[of_candidates],
    )
    sample2 = CoverageSample(
        *(getattr(sample, f.name)[of_sample] for f in dataclasses.fields(sample))
    )
    assert cover_radius(sample2, 0.3, seed) == options["radius"]
    again = select_pairs(
        shuffled,
        vectors[of_vectors],
        [keys[i] for i in of_vectors],
        mass,
        clusters,
        sample2,
        **options,
    )
    original = [
        (int(of_vectors[p]), int(of_vectors[q]), *rest) for p, q, *rest in content(again, shuffled)
    ]
    assert original == content(choices, candidates)


def flat_problem(n, mass, per_overlap):
    """Pairs of ads that are all far apart, `per_overlap` a cluster pair."""
    overlap = np.repeat(np.arange(len(mass)), per_overlap)
    ads = np.arange(len(overlap))
    candidates = Candidates(
        positive=ads.astype(np.int32),
        negative=(ads + len(ads)).astype(np.int32),
        distance=np.full(len(ads), 1.0, dtype=np.float32),
        overlap=overlap.astype(np.int32),
        mutual=np.zeros(len(ads), dtype=bool),
    )
    vectors = np.eye(2 * len(ads), dtype=np.float32)
    sample = CoverageSample(vectors[:n], np.ones(n), np.ones(n, bool), np.zeros(n, np.int32))
    keys = [KEY.format(i) for i in range(len(vectors))]
    return candidates, vectors, keys, np.array(mass), np.zeros((len(mass), 2), int), sample


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.integers(0, 25))
@settings(deadline=None)
def test_seats_follow_sainte_lague(mass, budget):
    problem = flat_problem(3, mass, 6)
    choices = select_pairs(*problem, budget=budget, radius=0.1)
    got = [int(problem[0].overlap[c.candidate]) for c in choices]
    # All quotients in one list, highest first, and at most six seats an overlap.
    quotients = [(Fraction(-m, 2 * s + 1), o) for o, m in enumerate(mass) for s in range(6)]
    assert got == [o for _, o in sorted(quotients, key=lambda q: (q[0], q[1]))][:budget]


def test_a_budget_beyond_the_pairs_takes_them_all_once():
    problem = flat_problem(4, [5, 1], 3)
    choices = select_pairs(*problem, budget=100, radius=0.0)
    assert sorted(c.candidate for c in choices) == list(range(6))
    assert choices[-1].cumulative_share == 1.0
    assert sum(c.covered_weight for c in choices) == pytest.approx(4.0)


def test_equal_vectors_give_one_pair():
    candidates, _, keys, mass, clusters, _ = flat_problem(4, [1], 5)
    vectors = np.full((10, 4), 0.5, dtype=np.float32)
    sample = CoverageSample(vectors[:4], np.ones(4), np.ones(4, bool), np.zeros(4, np.int32))
    assert cover_radius(sample) == 0.0
    (choice,) = select_pairs(
        candidates, vectors, keys, mass, clusters, sample, budget=5, radius=0.0
    )
    assert (choice.covered_weight, choice.cumulative_share) == (4.0, 1.0)


def test_nothing_to_choose_from():
    _, vectors, keys, _, _, sample = flat_problem(1, [1], 2)
    none = Candidates(*(np.empty(0, dtype=t) for t in ("i4", "i4", "f4", "i4", "?")))
    assert (
        select_pairs(
            none, vectors, keys, np.array([3]), np.zeros((1, 2), int), sample, budget=3, radius=1.0
        )
        == []
    )
    empty = np.zeros((0, 2), dtype=int)
    assert (
        select_pairs(none, vectors, keys, np.array([], int), empty, sample, budget=3, radius=1.0)
        == []
    )


def test_an_empty_sample_still_gives_pairs():
    candidates, vectors, keys, mass, clusters, _ = flat_problem(1, [1], 2)
    sample = CoverageSample(vectors[:0], np.empty(0), np.empty(0, bool), np.empty(0, np.int32))
    choices = select_pairs(candidates, vectors, keys, mass, clusters, sample, budget=2, radius=1.0)
    assert [c.candidate for c in choices] == [0, 1]
    assert {c.cumulative_share for c in choices} == {0.0}
    assert cover_radius(sample) == 0.0


def test_the_widest_cover_in_the_window_wins():
    candidates, vectors, keys, mass, clusters, _ = flat_problem(1, [1], 3)
    candidates = dataclasses.replace(candidates, distance=np.array([0.1, 0.2, 0.3], np.float32))
    sample = CoverageSample(
        vectors[[2, 1, 2]], np.array([1.0, 1.5, 1.0]), np.ones(3, bool), np.zeros(3, np.int32)
    )

    def first(window):
        choices = select_pairs(
            candidates,
            vectors,
            keys,
            mass,
            clusters,
            sample,
            budget=1,
            radius=0.0,
            nearest_window=window,
        )
        return choices[0].candidate, choices[0].covered_weight

    assert [first(w) for w in (1, 2, 3)] == [(0, 0.0), (1, 1.5), (2, 2.0)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"budget": -1}, "budget must not be negative, got -1"),
        ({"radius": -0.1}, "radius must be a distance >= 0"),
        ({"radius": float("nan")}, "radius must be a distance >= 0"),
        ({"near_identical": 1.5}, r"near_identical must be a cosine in \(0, 1\]"),
        ({"nearest_window": 0}, "nearest_window must be at least 1"),
        ({"asked": np.ones((1, 3))}, "asked must have 4 dimensions, got 3"),
    ],
)
def test_selection_refuses_bounds(change, text):
    problem = make_problem(0, 5, 5, grid=False)
    with pytest.raises(ValueError, match=text):
        select_pairs(*problem, **{"budget": 1, "radius": 1.0, **change})


def test_selection_refuses_disagreeing_parts():
    candidates, vectors, keys, mass, clusters, sample = make_problem(0, 5, 5, grid=False)
    options = {"budget": 1, "radius": 1.0}

    def refused(text, **change):
        parts = {
            "candidates": candidates,
            "vectors": vectors,
            "keys": keys,
            "overlaps_mass": mass,
            "overlap_clusters": clusters,
            "sample": sample,
        }
        with pytest.raises(ValueError, match=text):
            select_pairs(**{**parts, **change}, **options)

    refused("one key a vector, got 15 for 16", keys=keys[:-1])
    refused("overlaps_mass must hold 3 masses", overlaps_mass=mass[:2])
    refused("overlaps_mass must hold 3 masses", overlaps_mass=mass - 9)
    refused(r"candidates.overlap must lie in \[0, 1\)", overlap_clusters=clusters[:1])
    refused(
        "parts of one length", candidates=dataclasses.replace(candidates, mutual=np.ones(2, bool))
    )
    bad = candidates.positive + 20
    refused(
        r"candidates.positive must lie in \[0, 16\)",
        candidates=dataclasses.replace(candidates, positive=bad),
    )
    bad = candidates.distance * np.nan
    refused("distance must be finite", candidates=dataclasses.replace(candidates, distance=bad))
    refused("one weight, label and cluster", sample=dataclasses.replace(sample, weight=np.ones(2)))
    refused("not negative", sample=dataclasses.replace(sample, weight=-np.ones(5)))
    refused(
        "sample.vectors must have 4 dim",
        sample=dataclasses.replace(sample, vectors=sample.vectors[:, :3]),
    )


@given(seeds, st.integers(0, 25), st.floats(0, 1), st.booleans())
@settings(deadline=None)
def test_radius_is_the_quantile_of_pairs(seed, n, quantile, grid):
    *_, sample = make_problem(seed, 0, n, grid=grid)
    pairs = sorted(
        float(distance(sample.vectors[a], sample.vectors[b]))
        for a in range(n)
        for b in range(a)
        if (sample.label[a], sample.cluster[a]) == (sample.label[b], sample.cluster[b])
    )
    got = cover_radius(sample, quantile, seed)
    expected = float(np.quantile(pairs, quantile, method="lower")) if pairs else 0.0
    assert got == pytest.approx(expected, abs=1e-7)
    assert not pairs or got in pairs


def test_radius_of_a_large_cluster_is_estimated_from_a_seeded_part():
    rng = np.random.default_rng(0)
    rows = unit_rows(rng, 1500, 16, grid=False)
    sample = CoverageSample(rows, np.ones(1500), np.ones(1500, bool), np.zeros(1500, np.int32))
    got = cover_radius(sample, 0.25, 1)
    left, right = np.triu_indices(1500, k=1)
    exact = np.quantile(np.linalg.norm(rows[left] - rows[right], axis=1), 0.25)
    assert got == pytest.approx(exact, rel=0.01)
    reverse = dataclasses.replace(sample, vectors=rows[::-1])
    assert cover_radius(reverse, 0.25, 1) == got != cover_radius(sample, 0.25, 2)
    with pytest.raises(ValueError, match=r"quantile must lie in \[0, 1\], got 2"):
        cover_radius(sample, 2)
