"""What experts said, checked and divided; and how to learn from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from models.prompting import PromptSpec
from pipelines.numerics.hashing import unit_hash


class TrainingDataError(ValueError):
    """The labelled ads cannot be learnt from; the message says what is missing."""


class TooFewLabelsError(TrainingDataError):
    """There are labels, or will be, but not yet enough of each class."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How to train; the task file's `training` section has checked the bounds.

    Attributes:
        learner: "llm" (LoRA on the label tokens), "encoder" (all its weights and a head) or
            "head" (a linear head on the frozen encoder).
        preset: the LLM's for "llm", the sentence encoder's for the others, as in `presets`.
        dtype: precision of products in training and scoring, "bfloat16" or "float32".
        prompt: the task's prompt; needed by "llm" alone.
        max_ad_tokens: ads are cut after so many tokens of their own.
        lora_rank: of each adapter.
        learning_rate: of Adam; None takes `LEARNING_RATES`.
        batch_size: ads a step.
        max_epochs: passes over the fitting part at most.
        patience: epochs without a lower validation loss before stopping.
        validation_share: of each class, held out for early stopping and the threshold.
        folds: of a head's cross-validation.
        min_per_class: ads of each class that are needed at least.
        seed: of everything drawn.
    """

    learner: str
    preset: str
    dtype: str = "bfloat16"
    prompt: PromptSpec | None = None
    max_ad_tokens: int = 256
    lora_rank: int = 8
    learning_rate: float | None = None
    batch_size: int = 16
    max_epochs: int = 8
    patience: int = 2
    validation_share: float = 0.2
    folds: int = 5
    min_per_class: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LabelledAds:
    """What experts said, one label an ad.

    Attributes:
        keys: content keys, n different ones.
        texts: the ads' texts.
        labels: int8 (n,), 1 positive, 0 negative.
    """

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a corpus before experts label: by it a threshold is bounded.

    Attributes:
        texts: of a uniform sample of its ads.
        prior: share of positives that the task expects, in (0, 1).
    """

    texts: tuple[str, ...]
    prior: float


@dataclass(frozen=True, slots=True)
class WeakLabels:
    """What LLM-0 said of ads before experts labelled any: a head leans on it while labels are few.

    Attributes:
        texts: of a uniform sample of the corpus.
        margins: float (n,), LLM-0's margins of them.
    """

    texts: tuple[str, ...]
    margins: np.ndarray


def check_ads(ads: LabelledAds, settings: TrainingSettings) -> LabelledAds:
    """Return the ads ordered by key, so that the order they came in does not matter.

    Raises:
        TooFewLabelsError: Nothing there, or too few ads of a class.
        TrainingDataError: A label that is neither 0 nor 1.
    """
    labels = np.asarray(ads.labels)
    n = len(ads.keys)
    if not n:
        raise TooFewLabelsError("no labelled ads: import experts' verdicts first")
    odd = ~np.isin(labels, (0, 1))
    if odd.any():
        where = int(np.flatnonzero(odd)[0])
        raise TrainingDataError(
            f"the label of ad {ads.keys[where]} is {labels[where].item()!r}: use 1 for positive and 0 for "
            "negative, and leave out ads without a consensus"
        )
    order = sorted(range(n), key=lambda i: ads.keys[i])
    keys = tuple(ads.keys[i] for i in order)
    labels = labels[order].astype(np.int8)
    for name, value in (("positive", 1), ("negative", 0)):
        found = int((labels == value).sum())
        if found < settings.min_per_class:
            raise TooFewLabelsError(
                f"{found} of {n} labelled ads are {name}, training needs at least "
                f"{settings.min_per_class} (min_per_class): have more ads reviewed"
            )
    return LabelledAds(keys, tuple(ads.texts[i] for i in order), labels)


def label_set_hash(ads: LabelledAds) -> str:
    """Hash which ads have which label, whatever their order; 64 hex digits."""
    lines = sorted(f"{k} {int(y)}\n" for k, y in zip(ads.keys, ads.labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def draw_folds(ads: LabelledAds, folds: int, seed: int) -> np.ndarray:
    """Divide ads into folds of equal size and class balance, by a hash of key and seed.

    Returns:
        int64 (n,) in [0, folds).
    """
    fold = np.empty(len(ads.keys), np.int64)
    drawn = np.array([unit_hash(key, seed) for key in ads.keys])
    for value in (0, 1):
        places = np.flatnonzero(ads.labels == value)
        # The second class starts where the first one ended, so that sizes differ by one at most.
        start = 0 if value == 0 else int((ads.labels == 0).sum())
        fold[places[np.argsort(drawn[places], kind="stable")]] = (
            start + np.arange(len(places))
        ) % folds
    return fold


def draw_validation(ads: LabelledAds, share: float, seed: int) -> np.ndarray:
    """Hold out a share of each class, at least one ad, by a hash of key and seed.

    Returns:
        bool (n,), true for the ads held out.
    """
    held = np.zeros(len(ads.keys), bool)
    drawn = np.array([unit_hash(key, seed) for key in ads.keys])
    for value in (0, 1):
        places = np.flatnonzero(ads.labels == value)
        count = min(max(1, round(share * len(places))), len(places) - 1)
        held[places[np.argsort(drawn[places], kind="stable")[:count]]] = True
    return held
