import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.numerics import families
from pipelines.numerics.families import (
    Groups,
    Near,
    components,
    near_duplicates,
    strongest_links,
)
from pipelines.text import normalize_text

SAMPLE = Path(__file__).resolve().parents[2] / "templates" / "samples" / "ads.jsonl"
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
        patch.setattr(families, "_BLOCK_ENTRIES", block)
        got = near_duplicates(texts, threshold)
    wanted = [
        [i, j]
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if jaccard(texts[i], texts[j]) >= threshold
    ]
    assert got.edges.tolist() == wanted
    assert got.edges.dtype == np.intp
    assert got.similarity.tolist() == [jaccard(texts[i], texts[j]) for i, j in wanted]


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_near_duplicates_refuse_other_thresholds(threshold):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        near_duplicates(["a", "b"], threshold)


def test_the_sample_s_reworded_ads_are_found_and_nothing_else():
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    texts = sorted({normalize_text(json.loads(line)["text"]) for line in lines})
    edges = near_duplicates(texts).edges
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
    assert len(near_duplicates(texts).edges) == 0


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


def lengths(pairs):
    """Give every edge a strength of its own, in thirds so that some are equal."""
    return Near(as_edges(pairs), np.array([1 / (1 + (3 * a + b) % 3) for a, b in pairs]))


@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25))
def test_the_strongest_links_are_kruskal_s_forest(drawn):
    pairs = sorted((a, b) for a, b in drawn if a < b)
    near = lengths(pairs)
    order = sorted(range(len(pairs)), key=lambda i: (-near.similarity[i], pairs[i]))
    wanted, group = [], list(range(10))
    for a, b in (pairs[i] for i in order):
        if group[a] != group[b]:
            wanted.append([a, b])
            group = [group[a] if g == group[b] else g for g in group]
    assert strongest_links(10, near).tolist() == wanted
    assert strongest_links(10, near).dtype == np.intp


def test_groups_of_both_sides_are_never_joined_and_none_grows_too_large():
    groups = Groups(["left", "", "", "right", ""])
    groups.join(1, 0)
    groups.join(2, 3)
    groups.join(1, 2)
    assert groups.of([4, 3, 2, 1, 0]) == [[4], [3, 2], [1, 0]]
    assert [groups.side(row) for row in range(5)] == ["left", "left", "right", "right", ""]
    groups.join(4, 1, at_most=2)
    assert groups.side(4) == ""
    groups.join(4, 1, at_most=3)
    assert groups.side(4) == "left" and groups.find(4) == groups.find(0) == 0
