"""BERT's forward pass in few and large products, for scoring and for training.

The numbers are those of KerasHub's backbone (within 1e-6 in float32). In bfloat16 only the
products and what feeds them are: sums, norms and the residual stream stay in float32, so that one
pass serves training with float32 weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Kernels of products take rows by 6 (AVX2) or 8 (AVX-512), and sum the rest of them in another order; two
# threads each take half. Of the row counts tried, multiples of 48 alone left no row to the place it has.
PRODUCT_ROWS = 48
_MASKED = -1e9


def fits(backbone: Any) -> bool:
    """Tell whether `pool` computes what this backbone does."""
    return type(backbone).__name__ == "BertBackbone"


def trainable(backbone: Any) -> list[Any]:
    """Return the Keras variables that shape the mean-pooled vector, the token table left out."""
    table = backbone.token_embedding.embeddings
    return [
        v
        for v in backbone.trainable_variables
        if v is not table and not v.path.startswith("pooled_dense")
    ]


def read(backbone: Any, dtype: Any) -> dict[str, Any]:
    """Lay out a BERT backbone's weights for `pool`; gradients reach the variables through it.

    Args:
        backbone: `keras_hub.models.BertBackbone` with float32 variables.
        dtype: tf.DType of the products.

    Returns:
        The layers' matrices in `dtype`, everything else in float32, without the token table.
    """
    import tensorflow as tf

    dim, heads = int(backbone.hidden_dim), int(backbone.num_heads)
    scale = (dim // heads) ** -0.5

    def value(variable: Any) -> Any:
        return tf.convert_to_tensor(variable.value)

    def cast(x: Any, *shape: int) -> Any:
        return tf.cast(tf.reshape(x, shape), dtype)

    layers = []
    for layer in backbone.transformer_layers:
        attention = layer._self_attention_layer
        three = (attention.query_dense, attention.key_dense, attention.value_dense)
        kernels = [tf.reshape(value(dense.kernel), [dim, dim]) for dense in three]
        biases = [tf.reshape(value(dense.bias), [dim]) for dense in three]
        kernels[0], biases[0] = kernels[0] * scale, biases[0] * scale
        up, down = layer._feedforward_intermediate_dense, layer._feedforward_output_dense
        layers.append(
            (
                cast(tf.concat(kernels, 1), dim, 3 * dim),
                cast(tf.concat(biases, 0), 3 * dim),
                cast(value(attention.output_dense.kernel), dim, dim),
                cast(value(attention.output_dense.bias), dim),
                _norm_weights(layer._self_attention_layer_norm),
                cast(value(up.kernel), dim, -1),
                cast(value(up.bias), -1),
                cast(value(down.kernel), -1, dim),
                cast(value(down.bias), dim),
                _norm_weights(layer._feedforward_layer_norm),
            )
        )
    return {
        "position": value(backbone.position_embedding.position_embeddings),
        "segment": value(backbone.segment_embedding.embeddings)[0],
        "norm": _norm_weights(backbone.embeddings_layer_norm),
        "layers": layers,
        "heads": heads,
        "dtype": dtype,
    }


def _norm_weights(layer: Any) -> tuple[Any, Any, float]:
    import tensorflow as tf

    gamma, beta = (tf.convert_to_tensor(v.value) for v in (layer.gamma, layer.beta))
    return gamma, beta, float(layer.epsilon)


def _norm(x: Any, weights: tuple[Any, Any, float]) -> Any:
    import tensorflow as tf

    gamma, beta, epsilon = weights
    x = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(x), axis=-1, keepdims=True)
    return x * tf.math.rsqrt(variance + epsilon) * gamma + beta


def pool(
    weights: dict[str, Any], table: Any, tokens: Any, n_tokens: Any, *, packed: bool = False
) -> Any:
    """Compute mean-pooled vectors, special tokens included.

    Args:
        weights: from `read`.
        table: float32 (vocabulary, dim), or the rows of it that `tokens` count in.
        tokens: int32 (rows, length).
        n_tokens: int32 (rows,), at least 1; what follows in a row is padding.
        packed: leave padding out of all but attention. Cheaper, but then a row's rounding depends
            on the rows beside it: for training, not for scores.

    Returns:
        float32 (rows, dim), not normalised.
    """
    import tensorflow as tf

    dtype, heads = weights["dtype"], weights["heads"]
    rows, length = tf.shape(tokens)[0], tf.shape(tokens)[1]
    dim = table.shape[-1]
    real = tf.sequence_mask(n_tokens, length)
    flat = tf.reshape(tokens, [-1])
    place = tf.tile(tf.range(length), [rows])
    if packed:
        where = tf.cast(tf.where(tf.reshape(real, [-1]))[:, 0], tf.int32)
        count = tf.cumsum(tf.cast(tf.reshape(real, [-1]), tf.int32))
        # Padding gets a neighbour's numbers, finite and masked.
        slot = tf.maximum(count - 1, 0)
        flat, place = tf.gather(flat, where), tf.gather(place, where)
    mask = tf.cast(tf.where(real, 0.0, _MASKED), dtype)[:, None, None, :]

    x = tf.gather(table, flat) + tf.gather(weights["position"], place) + weights["segment"]
    x = _norm(x, weights["norm"])
    for qkv, qkv_bias, out, out_bias, norm, up, up_bias, down, down_bias, last in weights["layers"]:
        h = tf.nn.bias_add(tf.matmul(tf.cast(x, dtype), qkv), qkv_bias)
        h = tf.gather(h, slot) if packed else h
        h = tf.transpose(tf.reshape(h, [rows, length, 3, heads, dim // heads]), [2, 0, 3, 1, 4])
        share = tf.nn.softmax(tf.matmul(h[0], h[1], transpose_b=True) + mask)
        h = tf.transpose(tf.matmul(share, h[2]), [0, 2, 1, 3])
        h = tf.reshape(h, [rows * length, dim])
        h = tf.gather(h, where) if packed else h
        h = tf.nn.bias_add(tf.matmul(h, out), out_bias)
        x = _norm(x + tf.cast(h, tf.float32), norm)
        # bias_add and the approximate gelu right behind a product are one kernel on a CPU.
        h = tf.nn.bias_add(tf.matmul(tf.cast(x, dtype), up), up_bias)
        h = tf.nn.gelu(h, approximate=True)
        h = tf.nn.bias_add(tf.matmul(h, down), down_bias)
        x = _norm(x + tf.cast(h, tf.float32), last)
    x = tf.gather(x, slot) if packed else x
    x = tf.reshape(x, [rows, length, dim])
    total = tf.matmul(tf.cast(real, tf.float32)[:, None, :], x)[:, 0, :]
    return total / tf.cast(n_tokens, tf.float32)[:, None]


def lay_out(ids: Sequence[Sequence[int]], rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad ids to int32 (rows, length) with their counts int32 (rows,), 1 for an empty row."""
    tokens = np.zeros((rows, length), np.int32)
    n_tokens = np.ones(rows, np.int32)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = own
        n_tokens[row] = len(own)
    return tokens, n_tokens


def plain_pool(backbone: Any, tokens: Any, n_tokens: Any) -> Any:
    """Compute what `pool` does through the backbone's own layers; any BERT-like backbone."""
    import tensorflow as tf

    mask = tf.sequence_mask(n_tokens, tf.shape(tokens)[1], dtype=tf.int32)
    inputs = {"token_ids": tokens, "padding_mask": mask, "segment_ids": tf.zeros_like(tokens)}
    output = backbone({name: inputs[name] for name in backbone.input})
    hidden = output["sequence_output"] if isinstance(output, dict) else output
    total = tf.matmul(tf.cast(mask, tf.float32)[:, None, :], tf.cast(hidden, tf.float32))[:, 0, :]
    return total / tf.cast(n_tokens, tf.float32)[:, None]
