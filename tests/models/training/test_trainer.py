"""Training: what it learns, what it refuses, and what its result may depend on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from models import presets, trained
from models.backends.trained import Trained
from models.training import trainer
from models.training.data import LabelledAds, TrainingDataError
from pipelines.console.progress import Step, steps
from pipelines.numerics import calibration
from pipelines.numerics.calibration import MARGIN_STEP
from tests.models.training.ads import make_ads, settings, shuffled


def kappa(model: Path, manifest: trained.TrainedModel, ads: LabelledAds) -> float:
    called = Trained(model).load().margins(ads.texts) >= manifest.threshold_margin
    return float(cohen_kappa_score(ads.labels, called.astype(int)))


# --- Learning ---------------------------------------------------------------------------------


# A head has 16 random dimensions for 24 words.
@pytest.mark.parametrize(("learner", "least"), [("head", 0.4), ("encoder", 0.7)])
def test_learns_what_the_labels_say(
    learner: str, least: float, encoder_preset: str, tmp_path: Path
) -> None:
    ads, unseen = make_ads(120), make_ads(80, seed=2)
    how = settings(learner, encoder_preset, max_epochs=4)
    manifest = trainer.train(ads, how, tmp_path / "m")
    assert kappa(tmp_path / "m", manifest, unseen) > least
    assert manifest.label_set_hash == trainer.label_set_hash(shuffled(ads))

    swapped = dataclasses.replace(ads, labels=(1 - ads.labels).astype(np.int8))
    other = trainer.train(swapped, how, tmp_path / "swapped")
    assert kappa(tmp_path / "swapped", other, unseen) < -0.4
    assert other.label_set_hash != manifest.label_set_hash
    assert other.model_id != manifest.model_id


def test_the_encoder_is_tuned_and_the_head_alone_is_not(
    encoder_preset: str, tmp_path: Path
) -> None:
    ads = make_ads(60)
    base = presets.load_encoder(encoder_preset)
    trainer.train(ads, settings("encoder", encoder_preset, max_epochs=1), tmp_path / "e")
    tuned = trained.load_parts(tmp_path / "e").bundle
    assert isinstance(tuned, presets.EncoderBundle)
    moved = {
        w.path: float(np.abs(w.numpy() - v.numpy()).max())
        for w, v in zip(tuned.backbone.weights, base.backbone.weights, strict=True)
    }
    still = {path for path, change in moved.items() if not change}
    # Neither is part of the mean-pooled vector's way.
    assert still == {"pooled_dense/kernel", "pooled_dense/bias"}
    # No ad holds [MASK]: its row stays; "win" does not.
    table = [b.backbone.token_embedding.embeddings.numpy() for b in (tuned, base)]
    np.testing.assert_array_equal(table[0][4], table[1][4])
    assert (table[0][5] != table[1][5]).any()

    trainer.train(ads, settings("head", encoder_preset), tmp_path / "h")
    frozen = trained.load_parts(tmp_path / "h").bundle
    for w, v in zip(frozen.backbone.weights, base.backbone.weights, strict=True):  # type: ignore[union-attr]
        np.testing.assert_array_equal(w.numpy(), v.numpy())


# --- What the result may depend on ------------------------------------------------------------


@pytest.mark.parametrize("learner", ["head", "encoder"])
def test_order_changes_nothing_and_the_seed_does(
    learner: str, encoder_preset: str, tmp_path: Path
) -> None:
    ads = make_ads(60)
    how = settings(learner, encoder_preset, max_epochs=2)
    first = trainer.train(ads, how, tmp_path / "1")
    second = trainer.train(shuffled(ads), how, tmp_path / "2")
    assert first.weights_hash == second.weights_hash
    assert first.model_id == second.model_id
    assert first.threshold_margin == second.threshold_margin
    if learner == "encoder":
        third = trainer.train(ads, dataclasses.replace(how, seed=1), tmp_path / "3")
        assert third.weights_hash != first.weights_hash


@pytest.mark.model
def test_lora_repeats(llm_preset: str, tmp_path: Path) -> None:
    ads = make_ads(30)
    how = settings("llm", llm_preset, max_epochs=1)
    first = trainer.train(ads, how, tmp_path / "1")
    assert trainer.train(shuffled(ads), how, tmp_path / "2").weights_hash == first.weights_hash


def test_manifest_says_what_was_done(encoder_preset: str, tmp_path: Path) -> None:
    ads = make_ads(50)
    manifest = trainer.train(ads, settings("encoder", encoder_preset), tmp_path / "m")
    assert (manifest.fitting, manifest.validation) == (trained.Part(40, 16), trained.Part(10, 4))
    assert manifest.settings["learning_rate"] == 5e-3
    assert set(manifest.versions) >= {"keras", "tensorflow", "scikit-learn"}
    assert manifest.threshold_margin % MARGIN_STEP == 0
    assert 0 < manifest.threshold_probability < 1
    head = trainer.train(ads, settings("head", encoder_preset), tmp_path / "h")
    assert head.fitting == head.validation == trained.Part(50, 20)
    assert (head.epochs, head.best_epoch) == ((), 0)


# --- Progress ---------------------------------------------------------------------------------


def test_progress_and_tensorboard(
    encoder_preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    logs = tmp_path / "logs"
    live: list[list[Step]] = []

    def say(line: str) -> None:
        lines.append(line)
        live.append(steps())

    how = settings("encoder", encoder_preset, max_epochs=2)
    trainer.train(make_ads(30), how, tmp_path / "m", progress=say, logs=logs)
    assert [line[:19] for line in lines] == ["epoch 1 of at most ", "epoch 2 of at most "]
    assert [[one.words for one in seen] for seen in live] == [
        ["training tiny-bert", f"epoch {number} of at most 2, ads"] for number in (1, 2)
    ]
    assert [seen[1].done for seen in live] == [30, 60]
    assert steps() == []
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs)).Reload()
    assert set(events.Tags()["tensors"]) == {"loss", "validation_loss", "validation_kappa"}
    assert [event.step for event in events.Tensors("loss")] == [1, 2]


def test_many_epochs_are_not_many_lines() -> None:
    lines: list[str] = []
    with trainer._Reporter(settings("encoder", "x", max_epochs=300), lines.append, None) as report:
        for number in range(1, 301):
            report(trained.Epoch(number, 0.5, 0.6, 0.7, 1.0))
    told = [int(line.split()[1]) for line in lines]
    assert told == [*range(1, 11), *range(20, 301, 10)]


# --- Refusals ---------------------------------------------------------------------------------


def change(**changes: Any) -> LabelledAds:
    return dataclasses.replace(make_ads(20), **changes)


@pytest.mark.parametrize(
    ("ads", "words"),
    [
        (LabelledAds((), (), np.zeros(0, np.int8)), "no labelled ads"),
        (change(labels=np.zeros(20, np.int8)), "0 of 20 labelled ads are positive"),
        (change(labels=np.ones(20, np.int8)), "0 of 20 labelled ads are negative"),
        (change(labels=np.arange(20) < 4), "4 of 20 labelled ads are positive.*at least 5"),
        (change(labels=np.arange(20) % 3), r"the label of ad \w{32} is 2"),
        (change(labels=np.full(20, -1)), "is -1: use 1 for positive"),
    ],
)
def test_refuses_ads(ads: LabelledAds, words: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=words):
        trainer.train(ads, settings("head", "never-loaded"), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_refuses_an_ad_without_words(encoder_preset: str, tmp_path: Path) -> None:
    ads = make_ads(20)
    ads = dataclasses.replace(ads, texts=(" \x00 ", *ads.texts[1:]))
    with pytest.raises(TrainingDataError, match=f"nothing of ad {ads.keys[0]} is left"):
        trainer.train(ads, settings("head", encoder_preset), tmp_path / "m")


def test_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="is not empty: give a new folder"):
        trainer.train(make_ads(20), settings("head", "never-loaded"), tmp_path)


# --- What the prior allows ----------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["head", "encoder"])
def test_few_labels_of_a_class_leave_the_threshold_where_the_prior_allows(
    learner: str, encoder_preset: str, tmp_path: Path
) -> None:
    ads, corpus = make_ads(120), make_ads(400, seed=5)
    few = np.flatnonzero(ads.labels == 1)[:6]
    rows = np.sort(np.r_[few, np.flatnonzero(ads.labels == 0)])
    ads = LabelledAds(
        tuple(ads.keys[i] for i in rows), tuple(ads.texts[i] for i in rows), ads.labels[rows]
    )
    how = settings(learner, encoder_preset, max_epochs=1)
    free = trainer.train(ads, how, tmp_path / "free")
    assert free.bound is None and free.fitted is not None
    assert (free.fitted.margin, free.fitted.labels) == (free.threshold_margin, 6)

    expected = trainer.Expected(corpus.texts, 0.9)
    found = trainer.train(ads, how, tmp_path / "bounded", expected=expected)
    low, high = calibration.prior_bounds(0.9, 6)
    labeler = Trained(tmp_path / "bounded").load()
    share = float((labeler.margins(corpus.texts) >= found.threshold_margin).mean())
    assert low - 0.02 <= share <= high + 0.02
    assert found.bound is not None and found.bound.share == pytest.approx(share)
    # The weights and what the labels alone say are the same; the folder holds what is returned.
    assert (found.model_id, found.fitted) == (free.model_id, free.fitted)
    assert trained.read_manifest(tmp_path / "bounded") == found


def test_enough_labels_of_each_class_need_no_prior(encoder_preset: str, tmp_path: Path) -> None:
    ads = make_ads(120)
    assert min(ads.labels.sum(), (1 - ads.labels).sum()) >= calibration.ENOUGH_LABELS
    expected = trainer.Expected(("never scored",), 0.9)
    found = trainer.train(ads, settings("head", encoder_preset), tmp_path / "m", expected=expected)
    assert found.bound is None and found.fitted is not None
    assert found.threshold_margin == found.fitted.margin
