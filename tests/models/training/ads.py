"""Labelled ads that can be learnt from, and settings that learn from them quickly."""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import Any

import numpy as np

from models.prompting import PromptSpec
from models.training.data import LabelledAds, TrainingSettings

WORDS = (
    *("win", "free", "miracle", "secret", "shocking", "prize"),
    *("museum", "library", "report", "budget", "terms", "minister"),
    *("the", "a", "today", "at", "near", "new", "old", "for", "street", "town", "with", "and"),
)
PROMPT = PromptSpec(
    policy="No clickbait.", question="Clickbait:", template="Headline: {ad}\n{question}"
)


def key_of(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def make_ads(n: int, seed: int = 1) -> LabelledAds:
    """Distinct ads, 40% of them loud."""
    rng = random.Random(seed)
    texts: dict[str, int] = {}
    for place in itertools.count():
        if len(texts) == n:
            break
        label = int(place % 5 < 2)
        telling = WORDS[:6] if label else WORDS[6:12]
        words = [*rng.sample(telling, 2), *rng.sample(WORDS[12:], rng.randrange(2, 7))]
        rng.shuffle(words)
        texts.setdefault(" ".join(words), label)
    return LabelledAds(
        tuple(key_of(t) for t in texts), tuple(texts), np.array(list(texts.values()), np.int8)
    )


def shuffled(ads: LabelledAds) -> LabelledAds:
    order = list(range(len(ads.keys)))
    random.Random(5).shuffle(order)
    return LabelledAds(
        tuple(ads.keys[i] for i in order),
        tuple(ads.texts[i] for i in order),
        ads.labels[order],
    )


def settings(learner: str, preset: str, **changes: Any) -> TrainingSettings:
    values: dict[str, Any] = {
        "learner": learner,
        "preset": preset,
        "dtype": "float32",
        "max_epochs": 3,
        "prompt": PROMPT if learner == "llm" else None,
        "learning_rate": 5e-3,
        "max_ad_tokens": 20,
    }
    return TrainingSettings(**{**values, **changes})
