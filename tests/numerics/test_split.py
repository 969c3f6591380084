import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.half_leaks import templated
from pipelines.numerics.families import Near, components, near_duplicates
from pipelines.numerics.split import (
    EVALUATION,
    FINE_TUNING,
    WITHHELD,
    Ads,
    assign_sides,
)

NAMES = [f"k{i:02d}" for i in range(14)]
graphs = st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=20).map(
    lambda pairs: sorted({(min(p), max(p)) for p in pairs if p[0] != p[1]})
)
HALVES = {EVALUATION, FINE_TUNING}


def ads_of(keys, pairs, similarity=0.9, positive=None):
    strengths = np.full(len(pairs), similarity) if np.isscalar(similarity) else similarity
    kinds = np.arange(len(keys)) % 2 == 0 if positive is None else np.array(positive, dtype=bool)
    near = Near(np.array(pairs, dtype=np.intp).reshape(-1, 2), np.array(strengths, dtype=float))
    return Ads(list(keys), kinds, near)


def sides_of(ads, fixed=(), share=0.5, seed=0, counted=None):
    fixed = dict(fixed)
    found = assign_sides(ads, fixed, fixed if counted is None else counted, share, seed)
    return {key: side.side for key, side in found.items()}


def count(sides, side):
    return sum(found == side for found in sides.values())


@given(graphs, st.randoms(use_true_random=False), st.floats(0.1, 0.9), st.integers(0, 5))
def test_sides_do_not_depend_on_any_order(pairs, random, share, seed):
    ads = ads_of(NAMES, pairs, [1 / (1 + (a + b) % 3) for a, b in pairs])
    found = assign_sides(ads, {}, (), share, seed)
    order = list(range(14))
    random.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    turned = [(place[b], place[a]) for a, b in pairs[::-1]]
    again = Ads(
        [NAMES[i] for i in order],
        ads.positive[order],
        Near(np.array(turned, dtype=np.intp).reshape(-1, 2), ads.near.similarity[::-1]),
    )
    assert assign_sides(again, {}, (), share, seed) == found
    families = components(14, ads.near.edges)
    for i, name in enumerate(NAMES):
        assert found[name].component == min(np.array(NAMES)[families == families[i]])


@given(graphs, st.integers(0, 5))
def test_families_that_fit_stay_whole_and_the_halves_keep_their_share(pairs, seed):
    # Among so many other ads no family of fourteen is too large for a half.
    keys = [*NAMES, *(f"x{i:03d}" for i in range(200))]
    sides = sides_of(ads_of(keys, pairs), seed=seed)
    assert all(sides[NAMES[a]] == sides[NAMES[b]] for a, b in pairs)
    assert abs(count(sides, EVALUATION) - 107) <= 1
    for kind in (0, 1):
        of_kind = {key: sides[key] for key in keys[kind::2]}
        assert abs(count(of_kind, EVALUATION) - 53.5) <= 7


@given(graphs, graphs, st.integers(1, 13), st.integers(0, 3))
def test_later_rounds_never_move_an_ad(first, second, known, seed):
    early = [(a, b) for a, b in first if a < known and b < known]
    fixed = sides_of(ads_of(NAMES[:known], early), seed=seed)
    pairs = sorted({*early, *second})
    after = sides_of(ads_of(NAMES, pairs), fixed, seed=seed)
    assert {key: after[key] for key in fixed} == fixed
    # And once more, with nothing new.
    assert sides_of(ads_of(NAMES, pairs), after, seed=seed) == after


def test_a_new_ad_goes_to_the_half_of_what_it_reads_like():
    for side in HALVES:
        fixed = {"a": side, "b": side}
        sides = sides_of(ads_of("abcd", [(0, 2)]), fixed)
        assert sides["c"] == side
        # The other one goes where the labels are wanting.
        assert {sides["d"]} == HALVES - {side}


def test_an_ad_between_the_halves_is_withheld():
    fixed = {"a": EVALUATION, "c": FINE_TUNING}
    sides = sides_of(ads_of("abcd", [(0, 1), (1, 2), (2, 3)], [0.7, 0.8, 0.9]), fixed)
    assert sides == {"a": EVALUATION, "b": WITHHELD, "c": FINE_TUNING, "d": FINE_TUNING}


def test_many_ads_between_the_halves_are_not_wasted():
    # Twenty new ads, each a little like both of two ads that the halves hold already.
    new = [f"n{i:02d}" for i in range(20)]
    keys, fixed = ["a", "b", *new], {"a": EVALUATION, "b": FINE_TUNING}
    pairs = [(i, row) for i in (0, 1) for row in range(2, 22)]
    nearer = [0.8 if (row % 2) == i else 0.7 for i, row in pairs]
    sides = sides_of(ads_of(keys, pairs, nearer, [True] * 22), fixed)
    assert count(sides, WITHHELD) == 0
    # Each is where the ad is that it reads like most.
    assert all(sides[new[i]] == (FINE_TUNING, EVALUATION)[i % 2 == 0] for i in range(20))


def test_who_is_withheld_stays_so_and_pulls_nobody_along():
    for other in HALVES:
        fixed = {"b": WITHHELD, "c": other}
        sides = sides_of(ads_of("abc", [(0, 1), (1, 2)]), fixed)
        assert sides["b"] == WITHHELD and {sides["a"]} == HALVES - {other}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_family_that_no_half_can_hold_is_cut_at_its_weakest_links(share):
    # Sixty ads of one template in three wordings of twenty: .9 alike within, .6 between.
    keys = [f"{wording}{i:02d}" for wording in "abc" for i in range(20)]
    pairs = [(i, j) for i in range(60) for j in range(i + 1, 60)]
    alike = [0.9 if i // 20 == j // 20 else 0.6 for i, j in pairs]
    sides = sides_of(ads_of(keys, pairs, alike, [True] * 60), share=share)
    assert abs(count(sides, EVALUATION) / 60 - share) <= 0.1
    # The next sixty go on as they began, and the halves keep their share.
    more = [key.upper() for key in keys]
    both = [(i, j) for i in range(120) for j in range(i + 1, 120)]
    alike = [0.9 if i % 60 // 20 == j % 60 // 20 else 0.6 for i, j in both]
    after = sides_of(ads_of(keys + more, both, alike, [True] * 120), sides, share)
    assert abs(count(after, EVALUATION) / 120 - share) <= 0.1
    assert count(after, WITHHELD) <= 6


def test_two_templates_one_of_each_label_are_both_in_both_halves():
    keys = [f"{name}{i:02d}" for name in "ab" for i in range(20)]
    pairs = [(i, j) for i in range(40) for j in range(i + 1, 40) if i // 20 == j // 20]
    sides = sides_of(ads_of(keys, pairs, positive=[i < 20 for i in range(40)]))
    for name in "ab":
        own = {key: sides[key] for key in keys if key.startswith(name)}
        assert 7 <= count(own, EVALUATION) <= 13


def test_a_few_ads_of_one_family_are_not_cut():
    keys = [f"k{i}" for i in range(6)]
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    assert len(set(sides_of(ads_of(keys, pairs)).values())) == 1


def test_halves_that_were_drawn_otherwise_heal():
    # As an earlier version left them: everything in one half.
    old = {f"o{i:02d}": EVALUATION for i in range(40)}
    keys = [*old, *(f"n{i:02d}" for i in range(40))]
    sides = sides_of(ads_of(keys, []), old)
    assert count(sides, EVALUATION) == 40
    # Of labels alone: ads that nobody answered do not count.
    sides = sides_of(ads_of(keys, []), old, counted=())
    assert count(sides, EVALUATION) == 60


def test_the_share_is_kept_and_the_seed_matters():
    keys = [f"{i:032x}" for i in range(4000)]
    counts = []
    for seed in (1, 2):
        sides = sides_of(ads_of(keys, []), share=0.3, seed=seed)
        counts.append([sides[key] == EVALUATION for key in keys])
    assert abs(np.mean(counts[0]) - 0.3) < 0.001
    assert abs(np.corrcoef(counts)[0, 1]) < 0.05


@pytest.mark.parametrize("templates", [1, 2, 3, 10, 60])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_halves_of_templated_ads_keep_their_share_round_by_round(templates, share):
    ads = sorted(templated(templates, 240, seed=templates))
    rng = np.random.default_rng(templates)
    order = rng.permutation(240)
    fixed = {}
    for number in (1, 2, 3):
        rows = np.sort(order[: 80 * number])
        keys, kinds = [ads[row][0] for row in rows], [ads[row][1] for row in rows]
        near = near_duplicates(keys)
        assert math.isclose(near.similarity.min(), 0.6, abs_tol=0.1)
        fixed = sides_of(Ads(keys, np.array(kinds), near), fixed, share)
        inside = len(keys) - count(fixed, WITHHELD)
        assert abs(count(fixed, EVALUATION) / inside - share) <= 0.1
        assert count(fixed, WITHHELD) <= 0.05 * len(keys)
        positive = {key: fixed[key] for key, kind in zip(keys, kinds, strict=True) if kind}
        assert 0 < count(positive, EVALUATION) < len(positive)


def test_sixty_templates_need_no_cut():
    keys, kinds = zip(*templated(60, 240, seed=1), strict=True)
    near = near_duplicates(keys)
    sides = sides_of(Ads(keys, np.array(kinds), near))
    assert len(near.edges) > 240
    assert all(sides[keys[a]] == sides[keys[b]] for a, b in near.edges)


@pytest.mark.parametrize(
    ("keys", "fixed", "share", "message"),
    [
        (["a", "a"], {}, 0.5, "keys must be distinct"),
        (["a"], {"b": EVALUATION}, 0.5, "1 recorded ads are not among the keys, e.g. 'b'"),
        (["a"], {"a": "left"}, 0.5, "must be one of .* got 'left'"),
        (["a"], {}, 0.0, "above 0 and below 1, got 0.0"),
        (["a"], {}, 1.0, "above 0 and below 1, got 1.0"),
    ],
)
def test_what_cannot_be_is_refused(keys, fixed, share, message):
    with pytest.raises(ValueError, match=message):
        sides_of(ads_of(keys, []), fixed, share)
