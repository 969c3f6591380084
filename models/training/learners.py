"""The three learners: an LLM by LoRA, a sentence encoder with a head, a head on a frozen one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import bert, lora, presets, trained
from models.backends.base import Progress
from models.encoder import SentenceEncoder, VectorCache
from models.trained import Epoch
from models.training.data import (
    LabelledAds,
    TrainingDataError,
    TrainingSettings,
    draw_folds,
    draw_validation,
)
from models.training.fit import Report, fit, logistic


class _EncoderLearner:
    """A sentence encoder and a head on its mean-pooled vector.

    Of the token table only the rows that occur are trained: to Adam the others have no gradient
    and never move, but moving nothing 28,000 times a step took a third of the time.
    """

    def __init__(
        self,
        bundle: presets.EncoderBundle,
        ids: Sequence[Sequence[int]],
        kernel: np.ndarray,
        bias: float,
        dtype: str,
    ) -> None:
        import keras
        import tensorflow as tf

        self._backbone, self._normalize = bundle.backbone, bundle.normalize
        self._dtype = tf.as_dtype(dtype)
        self._fits = bert.fits(bundle.backbone)
        self.kernel = keras.Variable(kernel, dtype="float32", name="head_kernel")
        self.bias = keras.Variable([bias], dtype="float32", name="head_bias")
        if self._fits:
            self._used = np.unique(np.concatenate([np.asarray(own) for own in ids]))
            table = bundle.backbone.token_embedding.embeddings.numpy()[self._used]
            self._table = keras.Variable(table, dtype="float32", name="used_rows")
            self.variables = [*bert.trainable(bundle.backbone), self._table]
        else:
            self.variables = list(bundle.backbone.trainable_variables)
        self.variables += [self.kernel, self.bias]

    def localize(self, ids: Sequence[Sequence[int]]) -> list[list[int]]:
        """Number tokens by their place among the rows in training."""
        if not self._fits:
            return [list(own) for own in ids]
        return [np.searchsorted(self._used, own).tolist() for own in ids]

    def margins(self, tokens: Any, n_tokens: Any) -> Any:
        import tensorflow as tf

        if self._fits:
            weights = bert.read(self._backbone, self._dtype)
            table = tf.convert_to_tensor(self._table.value)
            vectors = bert.pool(weights, table, tokens, n_tokens, packed=True)
        else:
            vectors = bert.plain_pool(self._backbone, tokens, n_tokens)
        if self._normalize:
            vectors = tf.math.l2_normalize(vectors, axis=-1)
        return tf.reduce_sum(vectors * self.kernel.value, axis=-1) + self.bias.value[0]

    def tensors(self) -> dict[str, np.ndarray]:
        """Return all weights by Keras path, and the head's."""
        if self._fits:
            embeddings = self._backbone.token_embedding.embeddings
            table = embeddings.numpy().copy()
            table[self._used] = self._table.numpy()
            embeddings.assign(table)
        found = {w.path: np.asarray(w.numpy()) for w in self._backbone.weights}
        return {**found, **_head_tensors(self.kernel.numpy(), float(self.bias.numpy()[0]))}


class _LLMLearner:
    """A causal language model with adapters, scored on its two answers."""

    def __init__(self, run: lora.PromptPass, adapter: lora.Adapter) -> None:
        self._run, self._adapter = run, adapter
        self.variables = adapter.variables

    def margins(self, tokens: Any, n_tokens: Any) -> Any:
        with self._adapter.scope():
            return self._run.margins(tokens, n_tokens)


def fit_head(vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit a class-balanced logistic regression: margin = vector @ kernel + bias.

    The penalty is fixed: on 100 and 200 headlines chosen by mining, kappa at 5% positives is .74
    and .79; with a penalty that cross-validation chose on so few ads .69 and .77; on 400 the same.

    Args:
        vectors: float32 (n, dim).
        labels: int8 (n,), both classes.

    Returns:
        The kernel, float32 (dim,), and the bias in log-odds.
    """
    model = logistic(vectors.astype(np.float64), labels)
    return model.coef_[0].astype(np.float32), float(np.float32(model.intercept_[0]))


def held_out_margins(vectors: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Score each ad by a head that did not see it, float64 (n,).

    Args:
        vectors: float32 (n, dim).
        labels: int8 (n,), both classes in the complement of every fold.
        fold: int64 (n,).
    """
    wide = vectors.astype(np.float64)
    margins = np.empty(len(labels))
    for number in np.unique(fold):
        inside = fold == number
        margins[inside] = logistic(wide[~inside], labels[~inside]).decision_function(wide[inside])
    return margins


def _head_tensors(kernel: np.ndarray, bias: float) -> dict[str, np.ndarray]:
    return {
        trained.KERNEL: np.asarray(kernel, np.float32),
        trained.BIAS: np.array([bias], np.float32),
    }


# --- From ads to what is saved ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Base:
    """What was trained from; attributes as in `TrainedModel`."""

    base_model_id: str
    dtype: str
    window: int
    longest: int
    normalize: bool
    prompt_hash: str = trained.NO_PROMPT


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a learner leaves to be saved.

    Attributes:
        tensors: the learnt weights by name.
        base: what they belong to.
        margins: float (n,), held-out scores that the threshold is fitted on.
        scored: bool (n_ads,), which ads they belong to.
        fitted: bool (n_ads,), which ads weights were fitted on.
        epochs: what each epoch gave; none of a head.
        best_epoch: the one whose weights these are; 0 for a head.
    """

    tensors: dict[str, np.ndarray]
    base: Base
    margins: np.ndarray
    scored: np.ndarray
    fitted: np.ndarray
    epochs: tuple[Epoch, ...] = ()
    best_epoch: int = 0


def _base_of(bundle: presets.EncoderBundle, encoder: SentenceEncoder) -> Base:
    return Base(
        bundle.model_id, encoder.dtype, encoder.max_tokens, bundle.max_tokens, bundle.normalize
    )


def _refuse_wordless(ads: LabelledAds, has_words: Sequence[bool]) -> None:
    """Refuse ads that no model can score.

    Raises:
        TrainingDataError: An ad has no token of its own.
    """
    for key, fine in zip(ads.keys, has_words, strict=True):
        if not fine:
            raise TrainingDataError(
                f"nothing of ad {key} is left to read once markup is cut: leave it out"
            )


def train_head(
    ads: LabelledAds, settings: TrainingSettings, say: Progress, cache: VectorCache | None
) -> Outcome:
    """Fit a head on the frozen encoder's vectors."""
    cache = VectorCache() if cache is None else cache
    bundle = cache.bundle(settings.preset, say)
    encoder = cache.encoder(bundle, settings.dtype, window(bundle, settings))
    _refuse_wordless(ads, (encoder.tokenize(ads.texts).n_own > 0).tolist())
    vectors = cache.vectors(encoder.embedding_id, ads.texts, encoder.encode)
    folds = draw_folds(ads, settings.folds, settings.seed)
    margins = held_out_margins(vectors, ads.labels, folds)
    everything = np.ones(len(ads.keys), bool)
    tensors = _head_tensors(*fit_head(vectors, ads.labels))
    return Outcome(tensors, _base_of(bundle, encoder), margins, everything, everything)


def window(bundle: presets.EncoderBundle, settings: TrainingSettings) -> int:
    """Return a window that leaves room for the special tokens."""
    return settings.max_ad_tokens + int(bundle.tokenizer.num_special_tokens_to_add(False))


def train_encoder(
    ads: LabelledAds,
    settings: TrainingSettings,
    say: Progress,
    report: Report,
) -> Outcome:
    """Tune an encoder and a head on it."""
    bundle = presets.load_encoder(settings.preset, say)
    encoder = SentenceEncoder(bundle, dtype=settings.dtype, max_tokens=window(bundle, settings))
    tokens = encoder.tokenize(ads.texts)
    _refuse_wordless(ads, (tokens.n_own > 0).tolist())
    held = draw_validation(ads, settings.validation_share, settings.seed)
    # The head starts where a frozen encoder's would end: a random one would first pull good
    # features apart (Kumar et al., ICLR 2022). Shrunk much: one that already separates the few ads
    # leaves the encoder nothing to learn.
    vectors = encoder.pool([own for own, out in zip(tokens.ids, held, strict=True) if not out])
    kernel, bias = fit_head(vectors, ads.labels[~held])
    learner = _EncoderLearner(bundle, tokens.ids, kernel, bias, encoder.dtype)
    found = fit(learner, learner.localize(tokens.ids), ads.labels, held, settings, report)
    base = _base_of(bundle, encoder)
    return Outcome(learner.tensors(), base, found.margins, held, ~held, found.epochs, found.best)


def train_llm(
    ads: LabelledAds,
    settings: TrainingSettings,
    say: Progress,
    report: Report,
) -> Outcome:
    """Tune an adapter of a language model on its two answers."""
    assert settings.prompt is not None
    bundle = presets.load_causal_lm(settings.preset, settings.dtype, say)
    run = lora.PromptPass(bundle, settings.prompt, settings.max_ad_tokens)
    ids = run.encode(ads.texts)
    _refuse_wordless(ads, [bool(own) for own in ids])
    held = draw_validation(ads, settings.validation_share, settings.seed)
    adapter = lora.Adapter(bundle.model.backbone, settings.lora_rank, settings.seed)
    found = fit(_LLMLearner(run, adapter), ids, ads.labels, held, settings, report)
    room = run.window.max_ad_tokens
    prompt_hash = run.window.prompts[0].hash
    base = Base(bundle.model_id, settings.dtype, room, room, False, prompt_hash)
    return Outcome(adapter.tensors(), base, found.margins, held, ~held, found.epochs, found.best)
