"""Scoring a block: one bad ad costs itself, nothing that is not finite gets out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.backends.base import LabelBatch
from models.backends.fake import FakeLabeler
from pipelines.handlers import LabelerHandler, LazyLabeler, label_each, score_block
from pipelines.stages.score_ads import to_ad_block
from pipelines.store import blocks
from tests import helpers


@given(st.lists(st.booleans(), max_size=40))
def test_poisoned_texts_cost_only_themselves(poisoned: list[bool]) -> None:
    texts = [f"<poison> {n}" if bad else f"ad {n}" for n, bad in enumerate(poisoned)]
    labeler = FakeLabeler()
    if len(texts) >= 8 and all(poisoned):
        with pytest.raises(ValueError, match="poisoned text"):
            label_each(labeler, texts)
        return
    labels, good, bad_rows = label_each(labeler, texts)
    assert sorted(good) == [n for n, bad in enumerate(poisoned) if not bad]
    assert set(bad_rows) == {n for n, bad in enumerate(poisoned) if bad}
    if good:
        assert labels is not None
        expected = FakeLabeler().label([texts[n] for n in good])
        np.testing.assert_array_equal(labels.margin, expected.margin)
        np.testing.assert_array_equal(labels.vectors, expected.vectors)


def test_one_bad_text_among_many_costs_few_calls() -> None:
    texts = [f"ad {n}" for n in range(1023)] + ["<poison>"]
    labeler = FakeLabeler()
    label_each(labeler, texts)
    assert labeler.calls <= 2 * 10 + 1


def test_a_scored_block_keeps_order_and_rejects_what_is_not_finite() -> None:
    texts = ["one", "two <nan>", "three", "four <poison>", "five"]
    ads = [helpers.unique_ad(text, id=f"id{n}", copies=n + 1) for n, text in enumerate(texts)]
    result = score_block(FakeLabeler(), to_ad_block(ads))
    table = blocks.from_block(result.scored)
    assert table.column("id").to_pylist() == ["id0", "id2", "id4"]
    expected = FakeLabeler().label(["one", "three", "five"])
    np.testing.assert_array_equal(table.column("margin").to_numpy(), expected.margin)
    np.testing.assert_array_equal(blocks.vectors(table), expected.vectors)
    assert [(r.id, r.reason, r.records) for r in result.rejected] == [
        ("id1", "not_finite", 2),
        ("id3", "scoring_failed", 4),
    ]


class _Extreme(FakeLabeler):
    def label(self, texts: Sequence[str]) -> LabelBatch:
        batch = super().label(texts)
        vectors = batch.vectors.copy()
        vectors[0, 3] = np.inf
        margin = np.full(len(texts), 1e6, dtype=np.float32)
        return LabelBatch(margin, vectors, batch.n_tokens, batch.truncated)


def test_infinite_vectors_are_rejected_and_margins_are_clipped_to_the_grid() -> None:
    result = score_block(_Extreme(), to_ad_block([helpers.unique_ad(t) for t in "ab"]))
    assert [r.reason for r in result.rejected] == ["not_finite"]
    assert blocks.from_block(result.scored).column("margin").to_pylist() == [64.0]


def test_a_small_block_may_fail_whole() -> None:
    result = score_block(FakeLabeler(), to_ad_block([helpers.unique_ad("<poison>")]))
    assert result.scored.rows == 0
    assert len(result.rejected) == 1


def test_nothing_is_loaded_until_an_ad_needs_it() -> None:
    loads = []

    def load() -> FakeLabeler:
        loads.append(1)
        return FakeLabeler()

    model = LabelerHandler(load).load_model()
    assert isinstance(model, LazyLabeler)
    assert loads == []
    assert model.label(["a"]).margin.shape == (1,)
    assert loads == [1]
