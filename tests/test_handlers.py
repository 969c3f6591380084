"""Scoring a block: one bad ad costs itself, nothing that is not finite gets out."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from models import embedded
from models.backends.base import BackendError, LabelBatch, LabelerIdentity
from models.backends.fake import FakeLabeler
from models.embedded import EMBEDDED_LLM
from pipelines.config import Task
from pipelines.errors import RunFailed
from pipelines.handlers import (
    LabelerHandler,
    LazyLabeler,
    LoadLabeler,
    ScoredBlock,
    label_each,
    score_block,
)
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.store import blocks
from tests import helpers


@given(st.lists(st.booleans(), max_size=40))
def test_poisoned_texts_cost_only_themselves(poisoned: list[bool]) -> None:
    texts = [f"<poison> {n}" if bad else f"ad {n}" for n, bad in enumerate(poisoned)]
    labeler = FakeLabeler()
    if len(texts) >= 8 and all(poisoned):
        with pytest.raises(ValueError, match="poisoned text"):
            label_each(labeler.label, texts)
        return
    labels, good, bad_rows = label_each(labeler.label, texts)
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
    label_each(labeler.label, texts)
    assert labeler.calls <= 2 * 10 + 1


def test_a_scored_block_keeps_order_and_rejects_what_is_not_finite() -> None:
    texts = ["one", "two <nan>", "three", "four <poison>", "five"]
    ads = [helpers.unique_ad(text, id=f"id{n}", copies=n + 1) for n, text in enumerate(texts)]
    result = score_block(FakeLabeler(), helpers.unique_block(ads))
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
    result = score_block(_Extreme(), helpers.unique_block([helpers.unique_ad(t) for t in "ab"]))
    assert [r.reason for r in result.rejected] == ["not_finite"]
    assert blocks.from_block(result.scored).column("margin").to_pylist() == [64.0]


def test_a_small_block_may_fail_whole() -> None:
    result = score_block(FakeLabeler(), helpers.unique_block([helpers.unique_ad("<poison>")]))
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
    model.prepare()
    assert loads == [1]


class _Compiled(FakeLabeler):
    """Holds what no process can send to another, as a traced TensorFlow function is."""

    def __init__(self) -> None:
        super().__init__()
        self.traced = lambda: None


def test_a_labeler_that_does_not_pickle_is_shared_by_processes() -> None:
    # With `large_model` Beam reaches it through a server, even from the process that it lives in.
    ads = [helpers.unique_ad(f"ad number {n}") for n in range(9)]
    wanted = FakeLabeler().label([ad.text for ad in ads]).margin.tolist()
    with beam.Pipeline(runner=DEFAULT_RUNNER) as pipeline:
        scored = (
            pipeline
            | beam.Create([helpers.unique_block(ads)])
            | RunInference(LabelerHandler(_Compiled, share_processes=True))
        )
        margins = scored | beam.FlatMap(_margins)
        assert_that(margins, equal_to(wanted))


def _margins(result: ScoredBlock) -> list[float]:
    found: list[float] = blocks.from_block(result.scored).column("margin").to_pylist()
    return found


def no_download(*_: object) -> None:
    raise AssertionError("a worker fetched weights")


def embedded_task() -> Task:
    task = helpers.provenance().task
    model = task.model.model_copy(update={"preset": EMBEDDED_LLM})
    return task.model_copy(
        update={"model": model, "prompt": task.prompt.model_copy(update={"form": "completion"})}
    )


def test_a_worker_without_weights_says_so_and_fetches_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "download", no_download)
    planned = LabelerIdentity("m", "p", "e")
    load = LoadLabeler(embedded_task(), planned, elsewhere=True)
    for attempt in (load.look, load):
        with pytest.raises(RunFailed) as caught:
            attempt()
        told = caught.value.message
        assert told.startswith(f"the worker on {socket.gethostname()}: no {EMBEDDED_LLM} in ")
        assert str(tmp_path) in told and "workers download nothing" in told
    # The launcher does fetch them.
    with pytest.raises(BackendError, match="a worker fetched weights"):
        dataclasses.replace(load, elsewhere=False).load_new()


def test_a_worker_looks_for_what_was_planned() -> None:
    task = helpers.provenance().task
    planned = task.backend().identify()
    LoadLabeler(task, planned, elsewhere=True).look()
    other = dataclasses.replace(planned, model_id="another")
    with pytest.raises(RunFailed, match="the launcher planned another with prompt"):
        LoadLabeler(task, other, elsewhere=True).look()
