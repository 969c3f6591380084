import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.numerics import split
from pipelines.numerics.hashing import unit_hash
from pipelines.numerics.split import (
    EVALUATION,
    FINE_TUNING,
    WITHHELD,
    assign_sides,
    components,
    near_duplicates,
)
from pipelines.text import normalize_text

SAMPLE = Path(__file__).resolve().parents[2] / "templates" / "samples" / "ads.jsonl"
NAMES = [f"k{i:02d}" for i in range(14)]
graphs = st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=20)


def grams(text):
    return {text[i : i + 4] for i in range(max(1, len(text) - 3))}


def jaccard(a, b):
    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def reachable(n, edges):
    """Label nodes by the smallest node that a walk reaches."""
    found = []
    for start in range(n):
        seen, todo = {start}, [start]
        while todo:
            node = todo.pop()
            for a, b in edges:
                for there in ((b,) if a == node else ()) + ((a,) if b == node else ()):
                    if there not in seen:
                        seen.add(there)
                        todo.append(there)
        found.append(min(seen))
    return found


def as_edges(pairs):
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


@given(
    st.lists(st.text("ab ", max_size=12), max_size=12),
    st.sampled_from([0.3, 0.5, 0.6, 1.0]),
    st.sampled_from([1, 30, 1 << 22]),
)
def test_near_duplicates_are_those_of_the_definition(texts, threshold, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "_BLOCK_ENTRIES", block)
        got = near_duplicates(texts, threshold)
    wanted = [
        [i, j]
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if jaccard(texts[i], texts[j]) >= threshold
    ]
    assert got.tolist() == wanted
    assert got.dtype == np.intp


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_near_duplicates_refuse_other_thresholds(threshold):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        near_duplicates(["a", "b"], threshold)


def test_the_sample_s_reworded_ads_are_found_and_nothing_else():
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    texts = sorted({normalize_text(json.loads(line)["text"]) for line in lines})
    edges = near_duplicates(texts)
    assert len(edges) == 56
    # Twins, no chains: a component of a whole topic would put it on one side.
    assert np.bincount(components(len(texts), edges)).max() == 2
    assert all(jaccard(texts[i], texts[j]) >= 0.6 for i, j in edges)


def test_formulas_of_headlines_stay_apart():
    texts = [
        "19 tweets about movies that will make you laugh every time",
        "21 tweets about contact lenses that will make you laugh out loud",
        "which character from glee are you based on your zodiac sign",
        "which major doctor who character are you based on your zodiac sign",
    ]
    assert len(near_duplicates(texts)) == 0


@given(graphs)
def test_components_are_what_a_walk_reaches(pairs):
    got = components(14, as_edges(pairs))
    wanted = reachable(14, pairs)
    assert [got[i] == got[0] for i in range(14)] == [w == wanted[0] for w in wanted]
    assert len(set(got)) == len(set(wanted))


def test_an_edge_given_many_times_stays_an_edge():
    # Counts are summed in the sparse matrix: 256 of them vanish in an 8-bit integer.
    assert len(set(components(2, as_edges([(0, 1)] * 256)))) == 1


def test_edges_to_nowhere_are_refused():
    with pytest.raises(ValueError, match="nodes 0 to 1, got 0 to 2"):
        components(2, as_edges([(0, 2)]))


@given(graphs, st.randoms(use_true_random=False), st.floats(0.1, 0.9), st.integers(0, 5))
def test_sides_follow_components_whatever_the_order(pairs, random, share, seed):
    sides = assign_sides(NAMES, as_edges(pairs), {}, share, seed)
    group = reachable(14, pairs)
    for i, name in enumerate(NAMES):
        smallest = NAMES[group[i]]
        assert sides[name].component == smallest
        wanted = EVALUATION if unit_hash(smallest, seed) < share else FINE_TUNING
        assert sides[name].side == wanted
    order = list(range(14))
    random.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    turned = [(place[b], place[a]) for a, b in pairs[::-1]]
    assert assign_sides([NAMES[i] for i in order], as_edges(turned), {}, share, seed) == sides


@given(graphs, graphs, st.integers(1, 13))
def test_later_rounds_never_move_an_ad_nor_join_the_halves(first, second, known):
    early = [(a, b) for a, b in first if a < known and b < known]
    before = assign_sides(NAMES[:known], as_edges(early), {}, 0.5, 1)
    fixed = {key: side.side for key, side in before.items()}
    after = assign_sides(NAMES, as_edges(early + second), fixed, 0.5, 1)
    assert {key: after[key].side for key in fixed} == fixed
    for a, b in early + second:
        # Only recorded ads may meet across the halves, and then there is nothing to be done.
        if NAMES[a] not in fixed or NAMES[b] not in fixed:
            found = {after[NAMES[a]].side, after[NAMES[b]].side}
            assert found != {EVALUATION, FINE_TUNING}


def test_an_ad_that_joins_both_sides_is_withheld():
    fixed = {"a": EVALUATION, "c": FINE_TUNING}
    sides = assign_sides(["a", "b", "c", "d"], as_edges([(0, 1), (1, 2), (2, 3)]), fixed, 0.5, 0)
    assert {key: side.side for key, side in sides.items()} == {
        "a": EVALUATION,
        "b": WITHHELD,
        "c": FINE_TUNING,
        "d": WITHHELD,
    }


def test_who_is_withheld_stays_so_and_pulls_nobody_along():
    sides = assign_sides(["a", "b"], as_edges([(0, 1)]), {"b": WITHHELD}, 0.999, 0)
    assert (sides["a"].side, sides["b"].side) == (EVALUATION, WITHHELD)


def test_the_share_is_kept_and_the_seed_matters():
    keys = [f"{i:032x}" for i in range(4000)]
    counts = []
    for seed in (1, 2):
        sides = assign_sides(keys, as_edges([]), {}, 0.3, seed)
        counts.append([sides[key].side == EVALUATION for key in keys])
    assert abs(np.mean(counts[0]) - 0.3) < 0.03
    assert abs(np.corrcoef(counts)[0, 1]) < 0.05


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
        assign_sides(keys, as_edges([]), fixed, share, 0)
