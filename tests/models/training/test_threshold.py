"""The threshold against scikit-learn's kappa, and how steady it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from models.training.threshold import choose_threshold
from pipelines.numerics.calibration import MARGIN_STEP

MARGINS = st.integers(-40, 40).map(lambda i: i * 4 * MARGIN_STEP)


def slow_kappa(labels: np.ndarray, called: np.ndarray) -> float:
    """Kappa as scikit-learn computes it; 0 where every ad is called positive."""
    return float(cohen_kappa_score(labels, called)) if called.min() == 0 else 0.0


@settings(max_examples=30)
@given(st.lists(st.tuples(MARGINS, st.integers(0, 1)), min_size=4, max_size=40))
def test_threshold_reports_the_kappas_it_has(drawn: list[tuple[float, int]]) -> None:
    drawn += [(1.0, 0), (2.0, 1)]
    margins = np.array([m for m, _ in drawn])
    labels = np.array([y for _, y in drawn], np.int8)
    cut = choose_threshold(margins, labels)
    kappas = [slow_kappa(labels, (margins >= m).astype(int)) for m in np.unique(margins)]
    assert cut.best_kappa == pytest.approx(max(kappas), abs=1e-9)
    called = (margins >= cut.margin).astype(int)
    assert called.sum() >= 1
    assert cut.kappa == pytest.approx(slow_kappa(labels, called), abs=1e-9)
    assert cut.margin % MARGIN_STEP == 0
    assert cut == choose_threshold(margins, labels)


def test_threshold_is_steadier_than_the_single_best_one() -> None:
    # Over many small samples of one population the averaged threshold scatters less, and agrees
    # better with ads that it was not chosen on.
    rng = np.random.default_rng(3)
    n = 60
    unseen = np.array([0, 1]).repeat(5000)
    margins = rng.normal(size=len(unseen)) + 1.5 * unseen
    order = np.sort(margins)
    chosen, single = [], []
    for _ in range(40):
        labels = np.array([0, 1], np.int8).repeat(n // 2)
        scores = rng.normal(size=n) + 1.5 * labels
        chosen.append(choose_threshold(scores, labels).margin)
        found = [slow_kappa(labels, (scores >= s).astype(int)) for s in np.sort(scores)]
        single.append(float(np.sort(scores)[int(np.argmax(found))]))
    assert np.std(chosen) < 0.9 * np.std(single)
    best = max(slow_kappa(unseen, (margins >= t).astype(int)) for t in order[::500])
    kappas = [slow_kappa(unseen, (margins >= t).astype(int)) for t in chosen]
    assert best - 0.05 < np.mean(kappas) <= best + 0.01


def test_threshold_between_classes_that_do_not_overlap_lies_between_them() -> None:
    cut = choose_threshold(
        np.array([-3.0, -2.0, 1.0, 4.0, 5.0]), np.array([0, 0, 1, 1, 1], np.int8)
    )
    assert -2.0 < cut.margin <= 1.0
    assert (cut.kappa, cut.best_kappa) == (1.0, 1.0)


def test_inverted_scores_find_no_agreement() -> None:
    labels = np.array([0] * 10 + [1] * 10, np.int8)
    assert choose_threshold(np.linspace(-1, 1, 20), labels).best_kappa == 1.0
    assert choose_threshold(np.linspace(1, -1, 20), labels).best_kappa <= 0.0


def test_the_interval_holds_the_threshold_and_narrows_with_labels() -> None:
    rng = np.random.default_rng(5)

    def width(n: int) -> float:
        labels = np.array([0, 1], np.int8).repeat(n // 2)
        cut = choose_threshold(rng.normal(size=n) + 1.5 * labels, labels)
        assert cut.low <= cut.margin <= cut.high
        return cut.high - cut.low

    few, many = (np.mean([width(n) for _ in range(5)]) for n in (30, 1000))
    assert many < 0.6 * few
