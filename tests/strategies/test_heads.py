"""Heads on the labels so far: the same everywhere, and a clear word where labels are wanting."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from models.training.learners import fit_head
from pipelines.strategies.bald import Bald
from pipelines.strategies.heads import MEMBERS, ensemble
from pipelines.strategies.uncertainty import Uncertainty
from tests.strategies.cases import blobs, context_of, rows_of


def test_without_members_it_is_the_products_head() -> None:
    vectors, axis = blobs([10, 20])
    labels, unit = (axis == 0).astype(np.int8), vectors.astype(np.float32)
    kernels, biases = ensemble(unit, labels, 0, 1)
    kernel, bias = fit_head(unit, labels)
    assert kernels.tolist() == [kernel.tolist()] and biases.tolist() == [bias]


def test_members_differ_by_their_draw_and_the_seed_decides_it() -> None:
    vectors, axis = blobs([4, 20], spread=0.6)
    labels, unit = (axis == 0).astype(np.int8), vectors.astype(np.float32)
    kernels, biases = ensemble(unit, labels, MEMBERS, 1)
    assert kernels.shape == (MEMBERS, 8) and len(np.unique(biases)) == MEMBERS
    again, other = ensemble(unit, labels, MEMBERS, 1), ensemble(unit, labels, MEMBERS, 2)
    assert again[0].tolist() == kernels.tolist() and other[0].tolist() != kernels.tolist()


@pytest.mark.parametrize("labels", [[], [1, 1, 0], [0, 0, 0]])
def test_where_labels_are_wanting_uncertainty_asks_and_it_is_said(labels: list[int]) -> None:
    vectors, _ = blobs([6, 6])
    given = rows_of(vectors, np.linspace(-2, 2, 12))
    known = rows_of(vectors[: len(labels)], np.zeros(len(labels)), seed=9) if labels else None
    at = context_of(known, labels)
    assert Bald().score(given, at).tolist() == Uncertainty().score(given, at).tolist()
    assert "'bald' learns from 2 labels of each class" in Bald().note(at)
    assert f"there are {min(sum(labels), labels.count(0))}: this round asks" in Bald().note(at)
    enough = context_of(rows_of(vectors[[0, 1, 6, 7]], np.zeros(4), seed=9), [1, 1, 0, 0])
    assert Bald().note(enough) == ""
    assert Bald().score(given, enough).tolist() != Uncertainty().score(given, enough).tolist()


def test_a_strategy_that_has_scored_still_travels_and_scores_alike() -> None:
    vectors, axis = blobs([6, 6], spread=0.5)
    given = rows_of(vectors, np.zeros(12))
    at = context_of(rows_of(vectors[::2], np.zeros(6), seed=9), (axis[::2] == 0).astype(int))
    strategy = Bald()
    before = strategy.score(given, at)
    assert pickle.loads(pickle.dumps(strategy)).score(given, at).tolist() == before.tolist()
