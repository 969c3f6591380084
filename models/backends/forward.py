"""Which forward pass a model gets: the fastest that agrees with the plain one on a probe.

`SharedPrefixForward` for the Llama family (every row attends to one copy of the prefix's keys and
values, matrices are joined, weights are constants of the graph), `CachedForward` for any KerasHub
causal language model with `call_with_cache`, `WholeForward` for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.backends.passes import (
    CachedForward,
    Forward,
    OneByOne,
    WholeForward,
    answer_head,
    margin_of,
    pool,
    signature,
)
from models.bert import PRODUCT_ROWS, lay_out

LLAMAS = ("LlamaBackbone", "Llama3Backbone")


class SharedPrefixForward(Forward):
    """Llama's forward pass with one copy of the prefix's keys and values for all rows."""

    name = "shared-prefix"
    packs = True

    def __init__(
        self,
        model: Any,
        prefix: Sequence[int],
        suffixes: Sequence[Sequence[int]],
        answers: Sequence[tuple[int, int]],
    ) -> None:
        """Prepares the pass; suffixes and their answers in the order in which rows hold them."""
        import tensorflow as tf

        backbone = model.backbone
        head = answer_head(backbone, answers)
        if head is None:
            raise TypeError("the backbone has no reversible embedding")
        attention = backbone.transformer_layers[0]._self_attention_layer
        if attention.rotary_embedding_layer.scaling_factor != 1.0:
            raise TypeError("linear rope scaling")
        dtype = tf.as_dtype(backbone.compute_dtype)
        weights = _LlamaWeights(backbone, dtype)
        seen = _prefix_states(weights, prefix, backbone.num_layers, dtype)
        n_prefix = len(prefix)
        counts = [len(suffix) for suffix in suffixes]
        ends = np.cumsum(counts).tolist()
        # Of each token behind the ad: its suffix, from 1, and its place in it.
        suffix_of = np.repeat(np.arange(len(counts)), counts) + 1
        place_of = np.concatenate([np.arange(count) for count in counts])

        @tf.function(input_signature=[*signature(), tf.TensorSpec([], tf.int32)])
        def run(tokens: Any, n_ad: Any, n_flat: Any) -> Any:
            n_row = tf.where(n_ad > 0, n_ad + ends[-1], 0)
            branches = None
            if len(counts) > 1:
                behind = tf.range(tf.shape(tokens)[1])[None] - n_ad[:, None]
                index = tf.clip_by_value(behind, 0, ends[-1] - 1)
                branch = tf.where(behind < 0, 0, tf.gather(tf.constant(suffix_of, tf.int32), index))
                offset = tf.gather(tf.constant(place_of, tf.int32), index)
                position = n_ad[:, None] + tf.where(behind < 0, behind, offset)
                branches = (branch, position)
            hidden, _ = _llama_pass(weights, tokens, n_row, n_flat, seen, n_prefix, branches)
            mean, last = pool(hidden, n_ad, ends)
            return margin_of(last, head), mean

        self._run = run


class EarlyForward:
    """The Llama family's first layers on ads alone, for what an ad is like before it is asked about."""

    def __init__(self, model: Any, prefix: Sequence[int], layers: int) -> None:
        """Prepares the pass.

        Args:
            model: `keras_hub.models.CausalLM`.
            prefix: Ids before the ad.
            layers: After how many of the model's layers it ends, at least 1.

        Raises:
            AttributeError, TypeError, ValueError: If the model is of another family, or has fewer.
        """
        import tensorflow as tf

        backbone = model.backbone
        if type(backbone).__name__ not in LLAMAS or not 1 <= layers <= backbone.num_layers:
            raise ValueError(f"no {layers} layers of Llama's")
        dtype = tf.as_dtype(backbone.compute_dtype)
        weights = _LlamaWeights(backbone, dtype, layers)
        seen = _prefix_states(weights, prefix, layers, dtype)
        n_prefix = len(prefix)

        @tf.function(input_signature=[*signature(), tf.TensorSpec([], tf.int32)])
        def run(tokens: Any, n_ad: Any, n_flat: Any) -> Any:
            hidden, _ = _llama_pass(weights, tokens, n_ad, n_flat, seen, n_prefix)
            return pool(hidden, n_ad, [0])[0]

        self._run = run

    def __call__(
        self, ads: Sequence[Sequence[int]], length: int, rows: int, n_flat: int
    ) -> np.ndarray:
        """Returns the mean states, float32 (n, dim), of n ads in a batch.

        Args:
            ads: Ids, at most `rows` ads of at most `length` tokens each.
            length: Of the batch's rows.
            rows: Of the batch; the same for each length, so that an ad's state depends on the ad alone.
            n_flat: The flat list's length, at least `rows * length`.
        """
        tokens, n_ad = lay_out(ads, rows, length)
        return np.asarray(self._run(tokens, n_ad, np.int32(n_flat)).numpy()[: len(ads)])


def _prefix_states(weights: _LlamaWeights, prefix: Sequence[int], layers: int, dtype: Any) -> Any:
    """Returns each layer's keys and values of the prefix, as `_llama_pass` takes them."""
    import tensorflow as tf

    empty = [
        (
            tf.zeros([weights.n_kv, weights.head_dim, 0], dtype),
            tf.zeros([weights.n_kv, 0, weights.head_dim], dtype),
        )
    ] * layers
    if not len(prefix):
        return empty
    row = tf.constant([list(prefix)], tf.int32)
    n_row = tf.constant([len(prefix)], tf.int32)
    parts = _llama_pass(weights, row, n_row, len(prefix), empty, 0)[1]
    return [(tf.transpose(k[:, 0], [0, 2, 1]), v[:, 0]) for k, v in parts]


class _LlamaWeights:
    """A Llama backbone's weights, laid out so that a layer needs few and large products.

    Projections lead with the key heads' axis, so that attention needs no transposition before it.
    The norms' scales are part of the matrices behind them. Within a head the two halves that
    rotary embedding pairs are interleaved, so that a rotation is one complex product.
    """

    def __init__(self, backbone: Any, dtype: Any, layers: int | None = None) -> None:
        import tensorflow as tf

        def constant(value: np.ndarray) -> Any:
            return tf.cast(tf.constant(value), dtype)

        def read(variable: Any) -> np.ndarray:
            return np.asarray(tf.cast(variable.value, tf.float32))

        dim, heads = backbone.hidden_dim, backbone.num_query_heads
        self.dtype = dtype
        self.n_kv = n_kv = backbone.num_key_value_heads
        self.group = heads // n_kv
        self.head_dim = size = dim // heads
        self.epsilon = backbone.layer_norm_epsilon
        # The largest matrix is not copied: rows are gathered from the model's own variable.
        self.embedding = backbone.token_embedding.embeddings.value
        self.final_scale = tf.constant(read(backbone.layer_norm.scale))
        self.layers = []
        for layer in backbone.transformer_layers[:layers]:
            attention = layer._self_attention_layer
            norm = read(layer._self_attention_layernorm.scale)[:, None, None]
            query = read(attention._query_dense.kernel) * norm * np.float32(size**-0.5)
            key = read(attention._key_dense.kernel) * norm
            value = read(attention._value_dense.kernel) * norm
            query = query.reshape(dim, n_kv, self.group, 2, size // 2).swapaxes(-1, -2)
            key = key.reshape(dim, n_kv, 1, 2, size // 2).swapaxes(-1, -2)
            norm = read(layer._feedforward_layernorm.scale)[:, None]
            self.layers.append(
                (
                    constant(query.transpose(1, 0, 2, 3, 4).reshape(n_kv, dim, -1)),
                    constant(key.transpose(1, 0, 2, 3, 4).reshape(n_kv, dim, -1)),
                    constant(value.transpose(1, 0, 2)),
                    constant(read(attention._output_dense.kernel).reshape(-1, dim)),
                    constant(read(layer._feedforward_gate_dense.kernel) * norm),
                    constant(read(layer._feedforward_intermediate_dense.kernel) * norm),
                    constant(read(layer._feedforward_output_dense.kernel)),
                )
            )
        rotary = backbone.transformer_layers[0]._self_attention_layer.rotary_embedding_layer
        # KerasHub's own frequencies, so that the Llama 3.1 variants come out right.
        self.inverse_freq = tf.constant(np.asarray(rotary._get_inverse_freq(size), np.float32))


def _llama_pass(
    weights: _LlamaWeights,
    tokens: Any,
    n_row: Any,
    n_flat: Any,
    seen: Any,
    start: int,
    branches: tuple[Any, Any] | None = None,
) -> tuple[Any, Any]:
    """Runs rows behind a shared prefix.

    All but attention runs on a flat list of tokens without padding; attention sees rows.

    Args:
        weights: The model.
        tokens: int32 (rows, length).
        n_row: int32 (rows,), how many tokens of each row are not padding.
        n_flat: int32, the flat list's length; at least the sum of `n_row`.
        seen: For each layer the prefix's keys (kv heads, head dim, prefix) and values
            (kv heads, prefix, head dim).
        start: The position of the first token.
        branches: Where rows branch, int32 (rows, length) each: 0 for the trunk, else a branch's
            number, which sees the trunk and itself; and the token's position behind `start`. (Tree
            attention; Miao et al., SpecInfer, 2024.)

    Returns:
        hidden float32 (rows, length, dim) after the final norm, anything where there is padding;
        for each layer the rows' own keys and values, both (kv heads, rows, length, head dim).
    """
    import tensorflow as tf

    n_kv, group, size, dtype = weights.n_kv, weights.group, weights.head_dim, weights.dtype
    rows, length = tf.shape(tokens)[0], tf.shape(tokens)[1]
    dim = n_kv * group * size
    n_seen = seen[0][0].shape[2]

    # Where each flat token lies in the rows; the list's unused end repeats the first place.
    real = tf.sequence_mask(n_row, length)
    place = tf.cast(tf.where(tf.reshape(real, [-1]))[:, 0], tf.int32)
    place = tf.pad(place, [[0, n_flat - tf.size(place)]])
    # Where each place of the rows lies in the list. Padding gets a neighbour's numbers: finite,
    # and behind every real token, so that causal attention never looks at them.
    slot = tf.reshape(tf.cumsum(tf.cast(tf.reshape(real, [-1]), tf.int32)) - 1, [-1])
    slot = tf.maximum(slot, 0)

    column = place % length if branches is None else tf.gather(tf.reshape(branches[1], [-1]), place)
    position = tf.cast(start + column, tf.float32)
    angle = position[:, None] * weights.inverse_freq[None, :]
    turn = tf.complex(tf.cos(angle), tf.sin(angle))[None, :, None, :]
    order = tf.range(length)
    visible = order[None, :] <= order[:, None]
    if branches is not None:
        branch = branches[0]
        visible &= (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    # Queries of one key's group lie beside each other: (..., length * group, length).
    mask = tf.cast(tf.repeat(tf.where(visible, 0.0, -1e9), group, axis=-2), dtype)

    def norm(x: Any) -> Any:
        mean = tf.reduce_mean(tf.square(x), axis=-1, keepdims=True)
        return x * tf.math.rsqrt(mean + weights.epsilon)

    def rotate(x: Any, heads: int) -> Any:
        x = tf.reshape(tf.cast(x, tf.float32), [n_kv, n_flat, heads, size // 2, 2])
        x = tf.bitcast(tf.bitcast(x, tf.complex64) * turn, tf.float32)
        return tf.cast(tf.reshape(x, [n_kv, n_flat, heads * size]), dtype)

    def to_rows(x: Any, *shape: Any) -> Any:
        return tf.reshape(tf.gather(x, slot, axis=1), [n_kv, *shape, size])

    # The residual stream and the rotations stay in float32; products run in the compute dtype.
    flat = tf.gather(tf.reshape(tokens, [-1]), place)
    x = tf.cast(tf.gather(weights.embedding, flat), tf.float32)
    own = []
    for (w_q, w_k, w_v, w_out, w_gate, w_up, w_down), (k_seen, v_seen) in zip(
        weights.layers, seen, strict=True
    ):
        h = tf.cast(norm(x), dtype)[None]
        q = to_rows(rotate(tf.matmul(h, w_q), group), rows, length * group)
        k = to_rows(rotate(tf.matmul(h, w_k), 1), rows, length)
        v = to_rows(tf.matmul(h, w_v), rows, length)
        own.append((k, v))

        scores = tf.matmul(q, k, transpose_b=True) + mask
        if n_seen:
            # One product for all rows: they share the prefix's keys.
            to_seen = tf.reshape(
                _product(tf.reshape(q, [n_kv, rows * length * group, size]), k_seen),
                [n_kv, rows, length * group, n_seen],
            )
            share = tf.nn.softmax(tf.concat([to_seen, scores], axis=-1))
            on_seen = tf.reshape(share[..., :n_seen], [n_kv, rows * length * group, n_seen])
            out = tf.matmul(share[..., n_seen:], v) + tf.reshape(
                _product(on_seen, v_seen), [n_kv, rows, length * group, size]
            )
        else:
            out = tf.matmul(tf.nn.softmax(scores), v)
        out = tf.gather(tf.reshape(out, [n_kv, rows * length, group * size]), place, axis=1)
        out = tf.reshape(tf.transpose(out, [1, 0, 2]), [n_flat, dim])
        x = x + tf.cast(tf.matmul(out, w_out), tf.float32)

        h = tf.cast(norm(x), dtype)
        inner = tf.nn.silu(tf.matmul(h, w_gate)) * tf.matmul(h, w_up)
        x = x + tf.cast(tf.matmul(inner, w_down), tf.float32)
    hidden = norm(x) * weights.final_scale
    return tf.reshape(tf.gather(hidden, slot), [rows, length, dim]), own


def _product(left: Any, right: Any) -> Any:
    """Multiply matrices whose rows must not feel their places; left is (heads, rows, inner)."""
    import tensorflow as tf

    rows = tf.shape(left)[1]
    left = tf.pad(left, [[0, 0], [0, -rows % PRODUCT_ROWS], [0, 0]])
    return tf.matmul(left, right)[:, :rows]


def choose_forward(
    model: Any,
    prefix: Sequence[int],
    suffixes: Sequence[Sequence[int]],
    answers: Sequence[tuple[int, int]],
    probe: Sequence[int],
    log: Callable[[str], None],
) -> Forward:
    """Returns the fastest pass that agrees with the plain one on a probe.

    Args:
        model: `keras_hub.models.CausalLM`.
        prefix: Ids before the ad.
        suffixes: Ids after it, of each question asked of the ad.
        answers: First ids of the two answers to each.
        probe: Ids of any ad.
        log: Told when a faster way was refused, and why.

    Returns:
        The pass to use.
    """
    rows = 2
    # Padding on the right shows whether a pass looks at what it must not.
    row = [*probe, *(token for suffix in suffixes for token in suffix)]
    tokens = np.array([[*row, *row[:1] * 3]] * rows, np.int32)
    n_ad = np.full(rows, len(probe), np.int32)
    asked = list(zip(suffixes, answers, strict=True))
    whole = OneByOne([WholeForward(model, prefix, len(s), a) for s, a in asked], suffixes)
    margin, mean = whole.once(tokens, n_ad)
    loose = np.dtype(np.float32) if model.compute_dtype == "float32" else np.dtype(np.float16)
    limit = 1e-3 if loose == np.float32 else 0.05

    def shared() -> Forward:
        return SharedPrefixForward(model, prefix, suffixes, answers)

    def cached() -> Forward:
        passes = [CachedForward(model, prefix, len(s), a) for s, a in asked]
        return OneByOne(passes, suffixes)

    kinds: dict[str, Callable[[], Forward]] = {}
    if type(model.backbone).__name__ in LLAMAS:
        kinds[SharedPrefixForward.name] = shared
    if hasattr(model, "call_with_cache") and hasattr(model, "_build_cache") and prefix:
        kinds[CachedForward.name] = cached
    for name, make in kinds.items():
        try:
            forward = make()
            got_margin, got_mean = forward(tokens, n_ad, rows * len(row) + 5)
        except Exception as e:
            # Families differ in what their cache wants; the plain pass always works.
            reason = (str(e).strip().splitlines() or [type(e).__name__])[-1].strip()
            log(f"{name} pass not usable for {type(model).__name__}: {reason}")
            continue
        size = float(np.linalg.norm(mean)) or 1.0
        off = float(np.linalg.norm(got_mean - mean)) / size
        if off <= limit and np.all(np.abs(got_margin - margin) <= 10 * limit):
            return forward
        log(
            f"{name} pass refused for {type(model).__name__}: its vector is {off:.2g} off "
            f"and its margin {float(np.max(np.abs(got_margin - margin))):.2g}"
        )
    return whole
