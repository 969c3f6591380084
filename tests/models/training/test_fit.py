"""The training loop: its losses, which epoch it keeps, what it leaves behind."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.backends.trained import Trained
from models.training import data, fit, trainer
from models.training.data import LabelledAds
from pipelines.console.progress import steps
from pipelines.numerics.calibration import MARGIN_STEP
from tests.models.training.ads import make_ads, settings


def test_both_classes_count_alike() -> None:
    labels = np.array([1, 0, 0, 0, 0, 1, 0, 0], np.int8)
    weights = fit.class_weights(labels)
    assert weights.dtype == np.float32 and weights.mean() == pytest.approx(1.0)
    assert weights[labels == 1].sum() == pytest.approx(weights[labels == 0].sum())
    assert weights[0] / weights[1] == pytest.approx(3.0)
    # Calling every ad negative with certainty is right on most of them, and costs as much as the
    # opposite.
    sure = np.full(len(labels), -4.0)
    assert fit.balanced_loss(sure, labels) == pytest.approx(fit.balanced_loss(-sure, labels))
    assert (
        fit.balanced_loss(sure, labels)
        > np.log(2)
        > fit.balanced_loss(np.where(labels == 1, 4.0, -4.0), labels)
    )


def test_rare_positives_weigh_in_the_training(encoder_preset: str, tmp_path: Path) -> None:
    ads = make_ads(200)
    rare = np.flatnonzero(ads.labels == 1)[:8]
    kept = np.sort(np.concatenate([np.flatnonzero(ads.labels == 0), rare]))
    few = LabelledAds(
        tuple(ads.keys[i] for i in kept), tuple(ads.texts[i] for i in kept), ads.labels[kept]
    )
    shares = {}
    for name, weigh in (
        ("weighed", fit.class_weights),
        ("flat", lambda y: np.ones(len(y), np.float32)),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fit, "class_weights", weigh)
            chosen = settings("encoder", encoder_preset, max_epochs=1)
            trainer.train(few, chosen, tmp_path / name)
        margins = Trained(tmp_path / name).load().margins(few.texts)
        shares[name] = float(margins.mean())
    # Weighed, the mean margin is about even; flat, it leans to the negatives.
    assert shares["weighed"] > shares["flat"] + 0.5


def test_the_best_epoch_is_the_one_saved(encoder_preset: str, tmp_path: Path) -> None:
    # Steps this long spoil the model after its best epoch.
    ads = make_ads(60)
    how = settings("encoder", encoder_preset, max_epochs=8, patience=2, learning_rate=0.05)
    manifest = trainer.train(ads, how, tmp_path / "m")
    losses = [epoch.validation_loss for epoch in manifest.epochs]
    assert manifest.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) == min(8, manifest.best_epoch + 2)
    checked = data.check_ads(ads, how)
    held = data.draw_validation(checked, how.validation_share, how.seed)
    texts = [t for t, out in zip(checked.texts, held, strict=True) if out]
    loss = fit.refined_loss(Trained(tmp_path / "m").load().margins(texts), checked.labels[held])
    assert loss == pytest.approx(min(losses), abs=2 * MARGIN_STEP)


def test_a_training_leaves_no_graph_behind(encoder_preset: str, tmp_path: Path) -> None:
    # A simulation trains dozens of times in one process; each graph would hold all its variables.
    def graphs() -> int:
        gc.collect()
        return sum(type(held).__name__ == "FuncGraph" for held in gc.get_objects())

    how = settings("encoder", encoder_preset, max_epochs=1)
    trainer.train(make_ads(60), how, tmp_path / "first")
    before = graphs()
    trainer.train(make_ads(60), how, tmp_path / "second")
    assert graphs() == before


def test_epochs_count_their_ads(
    encoder_preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float, float | None]] = []
    plain = fit._tensors

    def watched(ids: Any) -> Any:
        seen.extend((one.words, one.done, one.total) for one in steps()[1:])
        return plain(ids)

    monkeypatch.setattr(fit, "_tensors", watched)
    how = settings("encoder", encoder_preset, max_epochs=2)
    trainer.train(make_ads(30), how, tmp_path / "m")
    # Two batches of the 24 ads that are fitted, then the 6 that are held out.
    for number in (1, 2):
        done = [
            d - 30 * (number - 1)
            for words, d, total in seen
            if (words, total) == (f"epoch {number} of at most 2, ads", 60)
        ]
        assert len(done) == 3 and done[0] == 0 and done[1] in (8, 16) and done[2] == 24
