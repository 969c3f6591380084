"""Forms are weighed by the policy's words, and by labels as they come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from pipelines.numerics.committee import MAX_MEMBERS, rank_agreements, weigh_forms


def pilot(n: int = 400, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two good forms, one that says the opposite, one that is noise; a weak similarity; the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.2
    signal = truth * 2.0

    def heard(strength: float) -> np.ndarray:
        return strength * signal + rng.normal(size=n)

    answers = np.column_stack([7 + 3 * heard(1.0), heard(0.9), -heard(1.2), heard(0.0)])
    return answers, heard(0.6), truth.astype(np.int8)


def test_what_speaks_against_the_policys_words_is_not_heard() -> None:
    answers, similarity, truth = pilot()
    voices = weigh_forms(answers, similarity, 0.2)
    assert voices.weights[0] > 0.3 and voices.weights[1] > 0.3
    assert voices.weights[2] == 0
    assert voices.weights[3] < 0.15
    assert voices.agreements[2] < -0.3
    margins = voices.margins(answers, similarity)
    best = max(roc_auc_score(truth, column) for column in answers.T)
    assert roc_auc_score(truth, margins) > best > roc_auc_score(truth, similarity)
    # The forms' sum is standardised, and the mean probability is the prior.
    standard = (answers - voices.centers) / voices.scales
    assert np.isclose((standard @ voices.weights).std(), 1.0)
    assert np.isclose(expit(margins).mean(), 0.2)
    assert 0.3 < voices.agreement < 0.6


def test_a_tasks_own_forms_displace_what_agrees_less() -> None:
    answers, similarity, truth = pilot()
    every = weigh_forms(answers, similarity, 0.2)
    order = np.argsort(-every.agreements[:2])
    # The better of the two good forms is the task's own: the other one falls silent ...
    own = weigh_forms(answers[:, [order[0], order[1], 2, 3]], similarity, 0.2, own=1)
    assert own.weights[0] > 0
    assert not own.weights[1:].any()
    # ... the weaker one leaves the better one its voice, and drops the noise.
    own = weigh_forms(answers[:, [order[1], order[0], 2, 3]], similarity, 0.2, own=1)
    assert own.weights[1] > own.weights[0] > 0
    assert not own.weights[2:].any()
    # One that says the opposite is not heard, and silences nobody.
    own = weigh_forms(answers[:, [2, 0, 1, 3]], similarity, 0.2, own=1)
    assert np.allclose(own.weights, every.weights[[2, 0, 1, 3]])
    assert roc_auc_score(truth, own.margins(answers[:, [2, 0, 1, 3]], similarity)) > 0.8


def test_labels_bring_back_a_form_that_the_words_misjudge() -> None:
    rng = np.random.default_rng(5)
    truth = np.arange(400) < 80
    form = truth * 2.0 + rng.normal(size=400)
    # The words are near to what is not meant.
    words = -0.5 * truth + rng.normal(size=400)
    answers = np.column_stack([form, -form + rng.normal(size=400)])
    without = weigh_forms(answers, words, 0.2)
    assert without.weights[0] == 0
    labels = np.full(400, -1)
    labels[::8] = truth[::8]
    with_labels = weigh_forms(answers, words, 0.2, labels)
    assert with_labels.weights[0] > 0
    assert with_labels.weights[1] == 0
    assert roc_auc_score(truth, with_labels.margins(answers, words)) > 0.85
    # One class says nothing.
    alone = weigh_forms(answers, words, 0.2, np.where(truth, 1, -1))
    np.testing.assert_array_equal(alone.weights, without.weights)


def test_few_labels_only_nudge() -> None:
    answers, similarity, _ = pilot()
    labels = np.full(400, -1)
    # One label a class that contradicts everything.
    labels[[int(np.argmax(answers[:, 0])), int(np.argmin(answers[:, 0]))]] = [0, 1]
    voices = weigh_forms(answers, similarity, 0.2, labels)
    assert voices.weights[0] > 0


def test_at_most_so_many_are_kept() -> None:
    rng = np.random.default_rng(1)
    similarity = rng.normal(size=200)
    answers = similarity[:, None] + rng.normal(size=(200, 14))
    voices = weigh_forms(answers, similarity, 0.1)
    assert np.count_nonzero(voices.weights) == MAX_MEMBERS
    assert set(np.flatnonzero(voices.weights)) == set(np.argsort(-voices.agreements)[:MAX_MEMBERS])


def test_forms_that_all_disagree_speak_alike_beside_the_words() -> None:
    rng = np.random.default_rng(2)
    similarity = rng.normal(size=100)
    answers = -similarity[:, None] + 0.5 * rng.normal(size=(100, 3))
    voices = weigh_forms(answers, similarity, 0.1)
    assert len(set(voices.weights)) == 1 and voices.weights[0] > 0
    assert voices.similarity_weight > 0
    assert voices.agreement < 0


def test_a_form_without_answers_is_left_out() -> None:
    answers, similarity, _ = pilot()
    answers[:, 0] = np.nan
    answers[:, 1] = 4.0
    voices = weigh_forms(answers, similarity, 0.2)
    assert np.isnan(voices.agreements[:2]).all()
    assert voices.weights[:2].tolist() == [0, 0]


@pytest.mark.parametrize("which", ["one ad", "same words", "same answers"])
def test_what_does_not_vary_tells_nothing(which: str) -> None:
    answers, similarity, _ = pilot()
    if which == "one ad":
        answers, similarity = answers[:1], similarity[:1]
    elif which == "same words":
        similarity[:] = 0.5
    else:
        answers[:] = 1.0
    with pytest.raises(ValueError, match="do not differ"):
        weigh_forms(answers, similarity, 0.2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_rank_agreement_is_two_auc_less_one(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([[float(score)] for score, _ in rows])
    labels = np.array([int(label) for _, label in rows])
    if len(set(labels.tolist())) == 2:
        found = rank_agreements(scores, labels)[0]
        assert np.isclose(found, 2 * roc_auc_score(labels, scores[:, 0]) - 1)
