"""Adapters and heads: what is trained, what the held-out scores know, the same scores once merged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import bert, lora, presets, trained
from models.backends.trained import Trained
from models.training import learners, trainer
from pipelines.numerics.calibration import MARGIN_STEP
from tests.models.training.ads import PROMPT, make_ads, settings


def test_an_ads_own_label_does_not_move_its_held_out_score() -> None:
    # More dimensions than ads: a head remembers whatever it was told.
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 64)).astype(np.float32)
    labels, fold = (np.arange(40) % 2).astype(np.int8), np.arange(40) // 2 % 5
    margins = learners.held_out_margins(vectors, labels, fold)
    for number in range(5):
        inside = fold == number
        flipped = np.where(inside, 1 - labels, labels).astype(np.int8)
        again = learners.held_out_margins(vectors, flipped, fold)
        np.testing.assert_array_equal(again[inside], margins[inside])
        assert not np.array_equal(again[~inside], margins[~inside])


@pytest.mark.model
def test_lora_lowers_the_loss_and_merges_to_the_same_scores(
    llm_preset: str, tmp_path: Path
) -> None:
    ads = make_ads(60)
    how = settings("llm", llm_preset, max_epochs=4, patience=4, learning_rate=2e-2)
    lines: list[str] = []
    manifest = trainer.train(ads, how, tmp_path / "m", progress=lines.append)
    losses = [epoch.loss for epoch in manifest.epochs]
    assert losses[-1] < 0.8 * losses[0]
    assert len(lines) == len(losses) and "epoch 1 of at most 4: loss" in lines[0]
    # Adapters sit on queries and values, are the only thing saved, and changed the scores.
    names = set(trained.read_weights(tmp_path / "m", manifest))
    assert len(names) == 2 * 2 * 2
    assert all("query" in name or "value" in name for name in names)

    bundle = presets.load_causal_lm(llm_preset, "float32")
    run = lora.PromptPass(bundle, PROMPT, how.max_ad_tokens)
    before = score(run, ads.texts)
    tensors = trained.read_weights(tmp_path / "m", manifest)
    adapter = lora.Adapter(bundle.model.backbone, how.lora_rank, 0)
    np.testing.assert_array_equal(scoped(run, adapter, ads.texts), before)
    for variable, (_, value) in zip(adapter.variables, ordered(adapter, tensors), strict=True):
        variable.assign(value)
    after = scoped(run, adapter, ads.texts)
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(
        Trained(tmp_path / "m").load().margins(ads.texts), after, atol=MARGIN_STEP / 2 + 2e-3
    )


def ordered(adapter: lora.Adapter, tensors: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    return [(name, tensors[name]) for name in adapter.tensors()]


def score(run: lora.PromptPass, texts: tuple[str, ...]) -> np.ndarray:
    ids = run.encode(texts)
    tokens, n_tokens = bert.lay_out(ids, len(ids), max(map(len, ids)))
    return np.asarray(run.margins(tokens, n_tokens).numpy())


def scoped(run: lora.PromptPass, adapter: lora.Adapter, texts: tuple[str, ...]) -> np.ndarray:
    with adapter.scope():
        return score(run, texts)


def told(n: int, seed: int, sign: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit vectors, labels along one direction of many, and what LLM-0 would say of them."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 64)).astype(np.float32)
    vectors[:, 0] += 1.5 * rng.choice([-1, 1], size=n)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = (vectors[:, 0] > 0).astype(np.int8)
    return vectors, labels, sign * (vectors[:, 0] + 0.05 * rng.normal(size=n))


def test_a_head_of_few_labels_leans_on_what_llm_0_said_where_labels_agree() -> None:
    vectors, _, margins = told(1000, seed=0)
    lean = learners.lean_of(vectors, margins)
    assert (vectors @ lean).std() == pytest.approx(0.25)
    assert np.corrcoef(vectors @ lean, margins)[0, 1] > 0.9
    few, labels, _ = told(16, seed=1)
    more, truth, _ = told(1000, seed=2)

    def right(kernel: np.ndarray, bias: float) -> float:
        return float(((more @ kernel + bias > 0) == truth).mean())

    alone, helped = (right(*learners.fit_head(few, labels, given)) for given in (None, lean))
    assert helped > alone + 0.05, (alone, helped)
    # One that says the contrary, or nothing, is not heard.
    plain = learners.fit_head(few, labels)
    against = learners.fit_head(few, labels, -lean)
    assert np.array_equal(against[0], plain[0]) and against[1] == plain[1]
    for silent in (np.zeros(1000), np.full(1000, -3.0)):
        assert not learners.lean_of(vectors, silent).any()


def test_held_out_scores_are_those_of_the_head_that_leans() -> None:
    vectors, labels, _ = told(40, seed=3)
    lean = learners.lean_of(*told(500, seed=4)[::2])
    fold = np.arange(40) % 4
    margins = learners.held_out_margins(vectors, labels, fold, lean)
    kernel, bias = learners.fit_head(vectors[fold != 2], labels[fold != 2], lean)
    assert margins[fold == 2] == pytest.approx(vectors[fold == 2] @ kernel + bias, abs=1e-5)
