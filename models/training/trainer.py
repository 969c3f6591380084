"""Fine-tune a model on experts' labels: an LLM by LoRA, a sentence encoder, or a head on one.

Always from base weights on all labels given, so that rounds do not drift. The order of the ads
does not matter, and the same ads, settings and machine give the same weights.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from models import presets, trained
from models.backends.base import Progress
from models.backends.trained import Trained
from models.encoder import VectorCache
from models.trained import Epoch, Part, TrainedModel
from models.training import learners
from models.training.data import (
    Expected,
    LabelledAds,
    TooFewLabelsError,
    TrainingDataError,
    TrainingSettings,
    WeakLabels,
    check_ads,
    label_set_hash,
)
from models.training.learners import window
from models.training.threshold import choose_threshold
from pipelines.console.progress import step
from pipelines.numerics import calibration

__all__ = [
    "Expected",
    "LabelledAds",
    "TooFewLabelsError",
    "TrainingDataError",
    "TrainingSettings",
    "WeakLabels",
    "label_set_hash",
    "train",
    "window",
]

_LIBRARIES = ("keras", "keras-hub", "tensorflow", "numpy", "scikit-learn", "safetensors")
# Every epoch is told of up to this one, then every so many: 300 are not worth 300 lines.
_TOLD = 10


def train(
    ads: LabelledAds,
    settings: TrainingSettings,
    folder: Path,
    *,
    progress: Progress | None = None,
    logs: Path | None = None,
    cache: VectorCache | None = None,
    expected: Expected | None = None,
    weak: WeakLabels | None = None,
) -> TrainedModel:
    """Train a model from its base weights and save it.

    Args:
        ads: experts' labels, in any order.
        settings: what to train, and how.
        folder: where the model goes, new or empty; local.
        progress: told of downloads, and of epochs: the first ten, then every tenth.
        logs: where TensorBoard's scalars go; None writes none.
        cache: of the frozen encoder's vectors, for the head learner.
        expected: what bounds the threshold while labels of the rarer class are few; None bounds
            nothing.
        weak: what LLM-0 said of a sample of the corpus, for the head learner.

    Returns:
        The manifest of what was saved; `Trained(folder).load()` scores with it.

    Raises:
        TrainingDataError: If the ads cannot be learnt from.
        FileExistsError: If the folder holds something.
        presets.PresetError: If the base weights cannot be had.
        FloatingPointError: If training diverges.
    """
    import keras

    ads = check_ads(ads, settings)
    # Before minutes of work, not after.
    trained.make_folder(folder)
    keras.utils.set_random_seed(settings.seed & 0xFFFFFFFF)
    say: Progress = progress or (lambda _line: None)
    what = "a head on " if settings.learner == "head" else ""
    with (
        step(f"training {what}{presets.short_name(settings.preset)}"),
        _Reporter(settings, say, logs) as report,
    ):
        if settings.learner == "llm":
            outcome = learners.train_llm(ads, settings, say, report)
        elif settings.learner == "encoder":
            outcome = learners.train_encoder(ads, settings, say, report)
        else:
            outcome = learners.train_head(ads, settings, say, cache, weak)
    cut = choose_threshold(outcome.margins, ads.labels[outcome.scored])
    rarer = min(int((ads.labels == 1).sum()), int((ads.labels == 0).sum()))
    fitted = calibration.Fitted(cut.margin, cut.low, cut.high, rarer)
    weights_hash = trained.hash_weights(outcome.tensors)
    manifest = TrainedModel(
        format=trained.FORMAT,
        learner=settings.learner,
        model_id=trained.name_model(settings.learner, outcome.base.base_model_id, weights_hash),
        **dataclasses.asdict(outcome.base),
        preset=settings.preset,
        prompt=settings.prompt if settings.learner == "llm" else None,
        label_set_hash=label_set_hash(ads),
        threshold_margin=cut.margin,
        threshold_probability=float(expit(cut.margin)),
        threshold_kappa=cut.kappa,
        fitting=_part(ads.labels[outcome.fitted]),
        validation=_part(ads.labels[outcome.scored]),
        epochs=outcome.epochs,
        best_epoch=outcome.best_epoch,
        settings=dataclasses.asdict(settings),
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
        seed=settings.seed,
        weights_hash=weights_hash,
        files={},
        fitted=fitted,
    )
    manifest = trained.save(manifest, outcome.tensors, folder)
    if expected is None or rarer >= calibration.ENOUGH_LABELS:
        return manifest
    return _bounded(manifest, fitted, folder, expected, cache)


def _bounded(
    manifest: TrainedModel,
    fitted: calibration.Fitted,
    folder: Path,
    expected: Expected,
    cache: VectorCache | None,
) -> TrainedModel:
    """Move a saved model's threshold to a share of the corpus that the prior allows."""
    with step("scoring a sample of the corpus"):
        margins = Trained(folder, cache=cache).load().margins(expected.texts)
    histogram = calibration.margin_histogram(calibration.quantize(margins[np.isfinite(margins)]))
    try:
        found = calibration.bounded_threshold(histogram, fitted, expected.prior)
    except calibration.OneClassError:
        # A model that says the same of each ad, or no ad: no threshold is better than another.
        return manifest
    moved = dataclasses.replace(
        manifest,
        threshold_margin=found.margin,
        threshold_probability=float(expit(found.margin)),
        bound=found.bound,
    )
    trained.write_manifest(moved, folder)
    return moved


def _part(labels: np.ndarray) -> Part:
    return Part(len(labels), int(labels.sum()))


class _Reporter:
    """Tells of epochs, in lines and as TensorBoard's scalars."""

    def __init__(self, settings: TrainingSettings, say: Progress, logs: Path | None) -> None:
        self._say, self._max_epochs = say, settings.max_epochs
        self._writer: Any = None
        if logs is not None:
            import tensorflow as tf

            self._writer = tf.summary.create_file_writer(str(logs))

    def __enter__(self) -> _Reporter:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def __call__(self, epoch: Epoch) -> None:
        if epoch.number <= _TOLD or epoch.number % _TOLD == 0:
            self._say(
                f"epoch {epoch.number} of at most {self._max_epochs}: loss {epoch.loss:.3f}, "
                f"validation loss {epoch.validation_loss:.3f}, kappa {epoch.validation_kappa:.2f}, "
                f"{epoch.seconds:.1f} s"
            )
        if self._writer is not None:
            import tensorflow as tf

            with self._writer.as_default(step=epoch.number):
                tf.summary.scalar("loss", epoch.loss)
                tf.summary.scalar("validation_loss", epoch.validation_loss)
                tf.summary.scalar("validation_kappa", epoch.validation_kappa)
