"""Acquisition scores: right values, finite at the ends, and functions of their own row alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import entropy as scipy_entropy

from pipelines.numerics import acquisition

MARGINS = st.lists(st.floats(-40, 40), min_size=3, max_size=3)


def both(share: np.ndarray) -> np.ndarray:
    return np.stack([share, 1.0 - share], axis=-1)


def test_heads_say_the_same_of_a_row_in_any_block() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5000, 384)).astype(np.float32)
    kernels, biases = rng.normal(size=(3, 384)), rng.normal(size=3)
    whole = acquisition.linear_margins(vectors, kernels, biases)
    assert whole == pytest.approx(vectors.astype(np.float64) @ kernels.T + biases)
    for cuts in ([1], [7, 4096], [4095, 4999]):
        parts = np.split(vectors, cuts)
        found = [acquisition.linear_margins(part, kernels, biases) for part in parts]
        assert np.concatenate(found).tolist() == whole.tolist()


def test_votes_are_counted_from_zero_on() -> None:
    margins = np.array([[1.0, 2.0, 0.0, 3.0], [-1.0, -2.0, 0.0, 5.0], [1.0, -1.0, -1.0, -9.0]])
    expected = scipy_entropy(both(np.array([1.0, 0.5, 0.25])), axis=1)
    assert acquisition.vote_entropy(margins) == pytest.approx(expected)


@given(st.lists(MARGINS, min_size=1, max_size=5))
@settings(deadline=None, max_examples=25)
def test_information_is_the_mean_divergence_from_the_consensus(rows: list[list[float]]) -> None:
    margins = np.array(rows)
    share = expit(margins)
    mean = both(share.mean(axis=1))
    expected = [
        np.mean([scipy_entropy(member, mean[row]) for member in both(share[row])])
        for row in range(len(rows))
    ]
    found = acquisition.mutual_information(margins)
    assert found == pytest.approx(expected, abs=1e-9) and (found >= 0).all()


def test_who_agrees_tells_nothing_and_who_is_split_tells_most() -> None:
    margins = np.array([[3.0, 3.0], [0.0, 0.0], [-50.0, 50.0], [-1e4, 1e4]])
    found = acquisition.mutual_information(margins)
    assert found == pytest.approx([0.0, 0.0, np.log(2), np.log(2)], abs=1e-12)


def test_divergence_from_neighbours() -> None:
    near, own = np.array([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]]), np.array([0.5, 0.5, 0.0])
    found = acquisition.mean_divergence(near, own)
    assert found[:2] == pytest.approx([scipy_entropy([0.9, 0.1], [0.5, 0.5]), 0.0])
    assert np.isfinite(found).all() and found[2] > 5


def test_the_gradients_length_is_its_expectation_over_labels() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(6, 4)).astype(np.float32)
    margins = rng.normal(size=6) * 3
    share = expit(margins)
    lengths = np.linalg.norm(np.column_stack([vectors, np.ones(6)]), axis=1)
    # |d log loss / d weights| is |p - y| |(x, 1)|: y is 1 with p, and 0 with 1 - p.
    expected = share * (1 - share) * lengths + (1 - share) * share * lengths
    assert acquisition.gradient_length(margins, vectors) == pytest.approx(expected)
    single = [acquisition.gradient_length(margins[i : i + 1], vectors[i : i + 1]) for i in range(6)]
    assert np.concatenate(single).tolist() == acquisition.gradient_length(margins, vectors).tolist()
