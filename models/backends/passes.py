"""The forward passes that any KerasHub causal language model has, and what all passes share.

* `WholeForward`: the whole prompt every time; the oracle, and what a model gets that fits no other.
* `CachedForward`: the prefix's cache, computed once, is broadcast over the rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np


class Forward:
    """Scores rows of token ids laid out as ad, suffixes, padding.

    A prompt has one suffix. Several are asked of the same ad side by side: each sees prefix and ad
    and none of the others.

    Attributes:
        name: Which of the three ways it is.
        packs: Whether padding costs little, because most work runs on a flat list of tokens.
    """

    name: str
    packs = False
    # Traced; takes the flat list's length as well where the pass packs.
    _run: Any

    def __call__(
        self, tokens: np.ndarray, n_ad: np.ndarray, n_flat: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Runs one batch.

        Args:
            tokens: int32 (rows, length): the ad's ids, each suffix's ids, then any padding.
            n_ad: int32 (rows,): how many of them are the ad's; 0 for a row to leave out.
            n_flat: The flat list's length, at least the number of tokens that are not padding;
                a pass that does not pack ignores it.

        Returns:
            margins float32 (rows, suffixes), logit of the positive minus logit of the negative
            answer; vectors float32 (rows, dim), the mean final hidden state over the ad's tokens.
            Rows left out hold anything.
        """
        margin, mean = self._run(tokens, n_ad, *([np.int32(n_flat)] if self.packs else []))
        return margin.numpy(), mean.numpy()


def answer_head(
    backbone: Any, answers: Sequence[tuple[int, int]]
) -> tuple[Any, float | None] | None:
    """Returns the answers' output rows, float32 (suffixes, 2, dim), and the soft cap on logits."""
    embedding = getattr(backbone, "token_embedding", None)
    if embedding is None or not hasattr(embedding, "tie_weights"):
        return None
    from keras import ops

    if embedding.tie_weights:
        rows = ops.take(embedding.embeddings, np.array(answers), axis=0)
    else:
        rows = ops.take(ops.transpose(embedding.reverse_embeddings), np.array(answers), axis=0)
    rows = np.asarray(ops.convert_to_numpy(ops.cast(rows, "float32")))
    return rows, getattr(embedding, "logit_soft_cap", None)


def margin_of(last: Any, head: tuple[Any, float | None]) -> Any:
    """Computes logit differences, (rows, suffixes); `last` is (rows, suffixes, dim)."""
    import tensorflow as tf

    rows, cap = head
    # Not a matrix product: its kernels sum in an order that depends on a row's place.
    last = tf.cast(last, tf.float32)[:, :, None, :]
    logits = tf.reduce_sum(last * tf.constant(rows)[None], axis=-1)
    if cap is not None:
        logits = tf.tanh(logits / cap) * cap
    return logits[..., 0] - logits[..., 1]


def pool(hidden: Any, n_ad: Any, ends: Sequence[int]) -> tuple[Any, Any]:
    """Takes the mean over the ad's tokens and the state of each suffix's last token.

    Args:
        hidden: (rows, length, dim).
        n_ad: int32 (rows,).
        ends: How many tokens behind the ad each suffix ends.

    Returns:
        mean float32 (rows, dim), last (rows, suffixes, dim) in the dtype of `hidden`.
    """
    import tensorflow as tf

    is_ad = tf.sequence_mask(n_ad, tf.shape(hidden)[1], dtype=hidden.dtype)
    total = tf.matmul(is_ad[:, None, :], hidden)[:, 0, :]
    mean = tf.cast(total, tf.float32) / tf.cast(tf.maximum(n_ad, 1), tf.float32)[:, None]
    last = tf.gather(hidden, n_ad[:, None] + (tf.constant(ends, tf.int32) - 1), batch_dims=1)
    return mean, last


class WholeForward(Forward):
    """Runs the whole prompt through the model, as a plain user of KerasHub would."""

    name = "whole"

    def __init__(
        self, model: Any, prefix: Sequence[int], n_suffix: int, answers: tuple[int, int]
    ) -> None:
        """Prepares the pass.

        Args:
            model: `keras_hub.models.CausalLM`.
            prefix: Ids before the ad.
            n_suffix: How many ids follow it.
            answers: First ids of the positive and the negative answer.
        """
        import tensorflow as tf

        self._prefix = np.asarray(prefix, np.int32)
        backbone = model.backbone
        head = answer_head(backbone, [answers])
        n_prefix = len(prefix)

        def run(tokens: Any, n_ad: Any) -> Any:
            tokens, n_ad = tf.convert_to_tensor(tokens), tf.convert_to_tensor(n_ad)
            inputs = {
                "token_ids": tokens,
                "padding_mask": tf.sequence_mask(
                    n_ad + (n_prefix + n_suffix), tf.shape(tokens)[1], dtype=tf.int32
                ),
            }
            inputs = {name: inputs[name] for name in _input_names(backbone)}
            hidden = backbone(inputs)[:, n_prefix:, :]
            mean, last = pool(hidden, n_ad, [n_suffix])
            if head is not None:
                return margin_of(last, head), mean
            logits = model(inputs)[:, n_prefix:, :]
            final = tf.gather(logits, n_ad[:, None] + (n_suffix - 1), batch_dims=1)
            return tf.cast(final[..., answers[0]] - final[..., answers[1]], tf.float32), mean

        self._eager = run
        # Traced on first use only: as the oracle for a probe it would cost seconds.
        self._run = tf.function(run, input_signature=signature())

    def _whole(self, tokens: np.ndarray) -> np.ndarray:
        prefix = np.broadcast_to(self._prefix, (len(tokens), len(self._prefix)))
        return np.concatenate([prefix, tokens], axis=1)

    def __call__(
        self, tokens: np.ndarray, n_ad: np.ndarray, n_flat: int
    ) -> tuple[np.ndarray, np.ndarray]:
        return super().__call__(self._whole(tokens), n_ad, n_flat)

    def once(self, tokens: np.ndarray, n_ad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Does the same without tracing, for a single batch."""
        margin, mean = self._eager(self._whole(tokens), n_ad)
        return margin.numpy(), mean.numpy()


class CachedForward(Forward):
    """Runs ad and suffix behind a broadcast copy of the prefix's cache."""

    name = "cached"

    def __init__(
        self, model: Any, prefix: Sequence[int], n_suffix: int, answers: tuple[int, int]
    ) -> None:
        """Prepares the pass; arguments as for `WholeForward`.

        Raises:
            TypeError, ValueError: If the model's cache does not work as expected.
        """
        import tensorflow as tf

        backbone = model.backbone
        head = answer_head(backbone, [answers])
        prefix_row = tf.constant([list(prefix)], tf.int32)
        build = _with_nones(model._build_cache, "token_ids")
        call = _with_nones(model.call_with_cache, "token_ids", "cache", "cache_update_index")
        n_prefix = len(prefix)

        # The prefix's own states do not depend on what follows, so one short cache serves all.
        seeded = tf.function(lambda: build(prefix_row)[1])()

        @tf.function(input_signature=signature())
        def run(tokens: Any, n_ad: Any) -> Any:
            rows, length = tf.shape(tokens)[0], tf.shape(tokens)[1]

            def widen(part: Any) -> Any:
                # The cache's time axis is the one as long as the prefix.
                axis = _time_axis(part.shape, n_prefix)
                paddings = [[0, length if i == axis else 0] for i in range(part.shape.rank)]
                multiples = [rows if i == 0 else 1 for i in range(part.shape.rank)]
                return tf.tile(tf.pad(part, paddings), multiples)

            cache = tf.nest.map_structure(widen, seeded)
            # As a tensor: some layers refuse a call that mixes tensors and numbers.
            logits, hidden, _ = call(tokens, cache, tf.constant(n_prefix))
            mean, last = pool(hidden, n_ad, [n_suffix])
            if head is not None:
                return margin_of(last, head), mean
            final = tf.gather(logits, n_ad[:, None] + (n_suffix - 1), batch_dims=1)
            return tf.cast(final[..., answers[0]] - final[..., answers[1]], tf.float32), mean

        self._run = run


class OneByOne(Forward):
    """Asks each suffix by a pass of its own, for models whose cache cannot branch."""

    def __init__(self, passes: Sequence[Any], suffixes: Sequence[Sequence[int]]) -> None:
        """Takes a pass for each suffix, all of one kind."""
        self.name = passes[0].name
        self._asked = list(zip(passes, suffixes, strict=True))
        self._n_behind = sum(map(len, suffixes))

    def __call__(
        self, tokens: np.ndarray, n_ad: np.ndarray, n_flat: int
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._each(tokens, n_ad, lambda one, rows: one(rows, n_ad, n_flat))

    def once(self, tokens: np.ndarray, n_ad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Does the same without tracing, for a single batch."""
        return self._each(tokens, n_ad, lambda one, rows: one.once(rows, n_ad))

    def _each(
        self, tokens: np.ndarray, n_ad: np.ndarray, ask: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        margins, mean = [], np.zeros(0)
        for one, suffix in self._asked:
            rows = tokens[:, : tokens.shape[1] - self._n_behind + len(suffix)].copy()
            for row, count in zip(rows, n_ad, strict=True):
                row[count : count + len(suffix)] = suffix
            margin, mean = ask(one, rows)
            margins.append(margin[:, 0])
        return np.stack(margins, axis=1), mean


def signature() -> list[Any]:
    """Returns the types of a pass's tokens and counts, shapes left open."""
    import tensorflow as tf

    return [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]


def _input_names(backbone: Any) -> list[str]:
    structure = backbone.input
    return list(structure) if isinstance(structure, dict) else ["token_ids"]


def _with_nones(function: Any, *names: str) -> Any:
    """Calls by position the arguments named, and gives None for others that have no default."""
    parameters = inspect.signature(function).parameters
    rest = {
        name: None
        for name, parameter in parameters.items()
        if name not in names and parameter.default is parameter.empty
    }
    return lambda *values: function(**dict(zip(names, values, strict=True)), **rest)


def _time_axis(shape: Any, n_prefix: int) -> int:
    """Finds the cache's time axis: third from the end in every KerasHub family.

    Raises:
        ValueError: If that axis is not as long as the prefix.
    """
    axis = len(shape) - 3
    if axis < 1 or shape[axis] != n_prefix:
        raise ValueError(f"a cache of shape {tuple(shape)} is not laid out as expected")
    return axis
