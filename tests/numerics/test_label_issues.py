from __future__ import annotations

import numpy as np
import pytest

from pipelines.numerics.label_issues import (
    LEAST_SHARED,
    confident_disagreement,
    differing_copies,
    drift,
)


def test_the_confident_joint_of_a_case_by_hand() -> None:
    # Means: positive (.9 + .8 + .1) / 3 = .6, negative (.9 + .8 + .8 + .3) / 4 = .7.
    p = np.array([0.9, 0.8, 0.1, 0.1, 0.2, 0.2, 0.7])
    y = np.array([1, 1, 1, 0, 0, 0, 0], dtype=np.int8)
    found = confident_disagreement(p, y)
    assert found.rows.tolist() == [2, 6]
    assert found.confidence.tolist() == pytest.approx([0.1, 0.3])
    # One of three given positive and one of four given negative are counted for the other.
    assert found.expected == 2


def test_a_model_that_favours_a_class_is_made_up_for() -> None:
    # It calls nearly all positive: .6 is little for it, and no label is in doubt for that alone.
    p = np.array([0.95, 0.9, 0.97, 0.6, 0.55, 0.62, 0.96, 0.58])
    y = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=np.int8)
    assert confident_disagreement(p, y).rows.tolist() == [6]


def test_what_the_model_calls_as_it_was_labelled_is_left_alone() -> None:
    p = np.array([0.45, 0.40, 0.35, 0.05, 0.10, 0.15, 0.42, 0.05])
    y = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=np.int8)
    assert confident_disagreement(p, y).rows.tolist() == [], "below one half, as it was given"


def test_what_is_not_confident_is_not_in_doubt() -> None:
    p = np.array([0.9, 0.9, 0.55, 0.1, 0.1, 0.45])
    y = np.array([1, 1, 0, 0, 0, 1], dtype=np.int8)
    assert confident_disagreement(p, y).rows.tolist() == []


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_one_class_is_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="both labels"):
        confident_disagreement(np.array([0.2, 0.7]), np.array(labels))


def test_planted_errors_are_found_at_several_times_their_rate() -> None:
    rng, rate = np.random.default_rng(0), 0.08
    truth = (rng.random(600) < 0.25).astype(np.int8)
    p = 1 / (1 + np.exp(-(rng.normal(0, 1.2, 600) + np.where(truth == 1, 2.0, -2.0))))
    wrong = rng.random(600) < rate
    given = np.where(wrong, 1 - truth, truth).astype(np.int8)
    found = confident_disagreement(p, given)
    assert wrong[found.rows].mean() > 5 * rate
    assert found.expected == pytest.approx(wrong.sum(), rel=0.6)


def test_copies_with_two_labels_are_paired_likest_first() -> None:
    texts = [
        "win a free phone today, claim it now",
        "win a free phone today, claim it now!",
        "our bakery opens at seven on weekdays",
        "win a free phone today, claim it",
        "our bakery opens at seven on weekdays",
    ]
    labels = np.array([1, 0, 0, 1, 0], dtype=np.int8)
    edges, likeness = differing_copies(texts, labels)
    assert edges.tolist() == [[0, 1], [1, 3]]
    assert likeness[0] > likeness[1] > 0.6


def panel(n: int, experts: int, wrong_late: float, seed: int = 0) -> np.ndarray:
    """Return what experts say who err in 10% of ads, the first one later more often."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.3
    rates = np.full((n, experts), 0.1)
    rates[n // 2 :, 0] = wrong_late
    return (truth[:, None] ^ (rng.random((n, experts)) < rates)).astype(np.int8)


def test_who_leaves_the_others_drifts_and_they_do_not() -> None:
    values = panel(240, 3, 0.45)
    first, second, third = (drift(values, column, np.arange(240)) for column in range(3))
    assert first is not None and second is not None and third is not None
    assert first.drifts and first.change == pytest.approx(-0.28, abs=0.15)
    assert not second.drifts and not third.drifts
    assert not first.alone and (first.before, first.after) == (120, 120)


def test_harder_ads_are_no_drift() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(400) < 0.5
    rates = np.where(np.arange(400) < 200, 0.02, 0.3)[:, None]
    values = (truth[:, None] ^ (rng.random((400, 4)) < rates)).astype(np.int8)
    found = drift(values, 0, np.arange(400))
    assert found is not None and not found.drifts
    assert found.low < 0 < found.high


def test_order_decides_not_the_row() -> None:
    values, order = panel(240, 3, 0.45), np.random.default_rng(2).permutation(240)
    straight = drift(values, 0, np.arange(240))
    mixed = drift(values[order], 0, order.astype(str).astype(object))
    assert straight is not None and mixed is not None
    assert drift(values[order], 0, order) == straight
    assert mixed != straight, "as strings 10 comes before 9"


def test_two_people_alone_cannot_be_told_apart() -> None:
    values = panel(240, 2, 0.45)
    one, other = (drift(values, column, np.arange(240)) for column in (0, 1))
    assert one is not None and one.alone and one.drifts
    assert one == other


def test_few_shared_ads_say_nothing() -> None:
    values = panel(2 * LEAST_SHARED - 1, 3, 0.45)
    assert drift(values, 0, np.arange(len(values))) is None


def test_intervals_hold_zero_as_often_as_they_say() -> None:
    out = 0
    for seed in range(200):
        found = drift(panel(120, 3, 0.1, seed), 0, np.arange(120))
        assert found is not None
        out += found.low > 0 or found.high < 0
    assert out <= 0.09 * 200
