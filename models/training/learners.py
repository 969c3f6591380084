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
    WeakLabels,
    draw_folds,
    draw_validation,
)
from models.training.fit import Report, fit, logistic

# How far vectors of length 1 spread along what LLM-0 says, and the penalty of finding that direction. Chosen
# on two corpora: with .25 a head of 50 labels gains .08 to .11 of kappa, with 1 it keeps to LLM-0 too long.
_LEAN, _RIDGE = 0.25, 1.0


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


def lean_of(vectors: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Return the direction in which vectors say what LLM-0 says, float64 (dim,).

    A ridge regression of its margins, scaled so that the vectors spread along it by `_LEAN`. As a feature
    of a head it is a prior: labels decide how much of it is kept, and the model stays a head on the vectors
    alone, without LLM-0.

    Args:
        vectors: float32 (n, dim), of a sample of the corpus.
        margins: float (n,), LLM-0's.
    """
    from sklearn.linear_model import Ridge

    wide = vectors.astype(np.float64)
    spread = margins.std()
    if not spread > 0:
        return np.zeros(wide.shape[1])
    kernel = Ridge(alpha=_RIDGE).fit(wide, (margins - margins.mean()) / spread).coef_
    along = (wide @ kernel).std()
    return kernel * (_LEAN / along) if along > 0 else np.zeros_like(kernel)


def fit_head(
    vectors: np.ndarray, labels: np.ndarray, lean: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Fit a class-balanced logistic regression: margin = vector @ kernel + bias.

    The penalty is fixed: on 100 and 200 headlines chosen by mining, kappa at 5% positives is .74
    and .79; with a penalty that cross-validation chose on so few ads .69 and .77; on 400 the same.

    Args:
        vectors: float32 (n, dim).
        labels: int8 (n,), both classes.
        lean: float64 (dim,), of `lean_of`. An LLM-0 that the labels contradict is not heard.

    Returns:
        The kernel, float32 (dim,), and the bias in log-odds.
    """
    wide = vectors.astype(np.float64)
    if lean is not None:
        model = logistic(np.column_stack([wide, wide @ lean]), labels)
        weight = model.coef_[0, -1]
        if weight > 0:
            kernel = model.coef_[0, :-1] + weight * lean
            return kernel.astype(np.float32), float(np.float32(model.intercept_[0]))
    model = logistic(wide, labels)
    return model.coef_[0].astype(np.float32), float(np.float32(model.intercept_[0]))


def held_out_margins(
    vectors: np.ndarray, labels: np.ndarray, fold: np.ndarray, lean: np.ndarray | None = None
) -> np.ndarray:
    """Score each ad by a head that did not see it, float64 (n,).

    Args:
        vectors: float32 (n, dim).
        labels: int8 (n,), both classes in the complement of every fold.
        fold: int64 (n,).
        lean: as in `fit_head`.
    """
    margins = np.empty(len(labels))
    for number in np.unique(fold):
        inside = fold == number
        kernel, bias = fit_head(vectors[~inside], labels[~inside], lean)
        margins[inside] = vectors[inside].astype(np.float64) @ kernel.astype(np.float64) + bias
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
    ads: LabelledAds,
    settings: TrainingSettings,
    say: Progress,
    cache: VectorCache | None,
    weak: WeakLabels | None = None,
) -> Outcome:
    """Fit a head on the frozen encoder's vectors; see `lean_of` for what LLM-0 gives it."""
    cache = VectorCache() if cache is None else cache
    bundle = cache.bundle(settings.preset, say)
    encoder = cache.encoder(bundle, settings.dtype, window(bundle, settings))
    _refuse_wordless(ads, (encoder.tokenize(ads.texts).n_own > 0).tolist())
    vectors = cache.vectors(encoder.embedding_id, ads.texts, encoder.encode)
    lean = None
    if weak is not None and len(weak.texts):
        sampled = cache.vectors(encoder.embedding_id, weak.texts, encoder.encode)
        told = np.isfinite(sampled).all(axis=1) & np.isfinite(weak.margins)
        lean = lean_of(sampled[told], weak.margins[told]) if told.any() else None
    folds = draw_folds(ads, settings.folds, settings.seed)
    margins = held_out_margins(vectors, ads.labels, folds, lean)
    everything = np.ones(len(ads.keys), bool)
    tensors = _head_tensors(*fit_head(vectors, ads.labels, lean))
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
