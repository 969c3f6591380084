"""BERT's forward pass in few and large products, for scoring and for training.

The numbers are those of KerasHub's backbone (within 1e-6 in float32). In bfloat16 only the
products and what feeds them are: sums, norms and the residual stream stay in float32, so that one
pass serves training with float32 weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import presets
from models.policy import prepare_ad

DTYPES = ("float32", "bfloat16")
# Another value gives a batch other shapes, and they shape rounding.
TOKENS_PER_BATCH = 512
# Of the lengths tried only multiples of 8 keep a row independent of the rows beside it, to the bit.
_STEP = 8
_MIN_ROWS = 4
_MAX_CHARS_PER_TOKEN = 32
_MASKED = -1e9


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts as an encoder reads them.

    Attributes:
        ids: for each text its token ids, the special ones included.
        n_own: int32 (n,), tokens that are the text's own.
        truncated: bool (n,), whether the text had more.
    """

    ids: list[list[int]]
    n_own: np.ndarray
    truncated: np.ndarray


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


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows (n, dim) to length 1; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1))


class FastEncoder:
    """Mean-pooled vectors of texts; each depends on its text alone, bit for bit.

    A text's token count decides its padded length, that the rows of its batch.
    """

    def __init__(
        self,
        bundle: presets.EncoderBundle,
        *,
        dtype: str = "float32",
        max_tokens: int | None = None,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        workers: int = 2,
    ) -> None:
        """Read the weights as they are now; later changes to the backbone are not seen.

        Args:
            bundle: Backbone in float32, and tokenizer.
            dtype: of the products; a backbone that is no BERT runs as it is, in its own.
            max_tokens: Longest sequence, special tokens included; None takes the encoder's own.
            tokens_per_batch: Rows a batch are as many as fit into so many tokens.
            workers: Batches under way at once.

        Raises:
            ValueError: An unknown dtype.
        """
        import tensorflow as tf
        import tokenizers

        if dtype not in DTYPES:
            raise ValueError(f"dtype: got {dtype!r}; use one of {', '.join(DTYPES)}")
        self.dtype = dtype if fits(bundle.backbone) else bundle.dtype
        self.dim = bundle.dim
        self.normalize = bundle.normalize
        self.max_tokens = min(max_tokens or bundle.max_tokens, bundle.max_tokens)
        self.embedding_id = embedding_id(
            bundle.model_id, self.dtype, bundle.normalize, self.max_tokens, bundle.max_tokens
        )
        self._tokens_per_batch = tokens_per_batch
        self._workers = workers
        source = json.loads(bundle.tokenizer.to_str())
        source["truncation"] = source["padding"] = None
        self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(source))
        # [SEP] inside an ad is text.
        self._tokenizer.encode_special_tokens = True
        self._n_special = self._tokenizer.num_special_tokens_to_add(False)
        self._tokenizer.enable_truncation(self.max_tokens)
        # Shapes are left open: one graph for all batches.
        self._run = tf.function(
            _scoring(bundle.backbone, tf.as_dtype(self.dtype))
        ).get_concrete_function(
            tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
        )

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Turn texts into ids; nothing in a text becomes a special token."""
        limit = self.max_tokens * _MAX_CHARS_PER_TOKEN
        ads = [prepare_ad(text[:limit]) for text in texts]
        encoded = self._tokenizer.encode_batch_fast(ads) if ads else []
        cut = [bool(e.overflowing) or len(t) > limit for e, t in zip(encoded, texts, strict=True)]
        return Tokens(
            ids=[e.ids for e in encoded],
            n_own=np.array([len(e.ids) - self._n_special for e in encoded], dtype=np.int32),
            truncated=np.array(cut, dtype=bool),
        )

    def pool(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Embed token ids.

        Args:
            ids: For each text at least one id.

        Returns:
            float32 (n, dim), of length 1 where the encoder's reference normalises.
        """
        import tensorflow as tf

        vectors = np.zeros((len(ids), self.dim), np.float32)
        batches = [
            (length, places[start : start + self._rows(length)])
            for length, places in sorted(_buckets(ids).items(), reverse=True)
            for start in range(0, len(places), self._rows(length))
        ]

        def run(batch: tuple[int, list[int]]) -> np.ndarray:
            length, places = batch
            tokens, n_tokens = lay_out([ids[i] for i in places], self._rows(length), length)
            found = self._run(tf.constant(tokens), tf.constant(n_tokens)).numpy()
            return np.asarray(found[: len(places)])

        # Two batches at once keep the cores busy while one of them is between two operations.
        with ThreadPoolExecutor(max(1, min(self._workers, len(batches)))) as workers:
            for (_, places), found in zip(batches, workers.map(run, batches), strict=True):
                vectors[places] = found
        return unit(vectors) if self.normalize else vectors

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts; float32 (n, dim) in their order."""
        return self.pool(self.tokenize(texts).ids)

    def _rows(self, length: int) -> int:
        return max(_MIN_ROWS, self._tokens_per_batch // length)


def embedding_id(model_id: str, dtype: str, normalize: bool, window: int, longest: int) -> str:
    """Name vectors the way `models.encoder` does; a shorter window is part of the name."""
    short = "" if window == longest else f"/{window}"
    return f"mean-pooled:{model_id}/{dtype}/{'unit' if normalize else 'raw'}{short}"


def lay_out(ids: Sequence[Sequence[int]], rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad ids to int32 (rows, length) with their counts int32 (rows,), 1 for an empty row."""
    tokens = np.zeros((rows, length), np.int32)
    n_tokens = np.ones(rows, np.int32)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = own
        n_tokens[row] = len(own)
    return tokens, n_tokens


def _buckets(ids: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Group texts, by place, by their padded length."""
    buckets: dict[int, list[int]] = {}
    for place, own in enumerate(ids):
        step = _STEP if len(own) <= 8 * _STEP else 4 * _STEP
        buckets.setdefault(-(-len(own) // step) * step, []).append(place)
    return buckets


def _scoring(backbone: Any, dtype: Any) -> Any:
    """Return the function (tokens, n_tokens) -> float32 (rows, dim) that a graph is made of."""
    import tensorflow as tf

    if fits(backbone):
        weights = read(backbone, dtype)
        # A copy: further training of this backbone must not move vectors named by its weights.
        table = tf.identity(backbone.token_embedding.embeddings.value)
        return lambda tokens, n_tokens: pool(weights, table, tokens, n_tokens)
    return lambda tokens, n_tokens: plain_pool(backbone, tokens, n_tokens)


def plain_pool(backbone: Any, tokens: Any, n_tokens: Any) -> Any:
    """Compute what `pool` does through the backbone's own layers; any BERT-like backbone."""
    import tensorflow as tf

    mask = tf.sequence_mask(n_tokens, tf.shape(tokens)[1], dtype=tf.int32)
    inputs = {"token_ids": tokens, "padding_mask": mask, "segment_ids": tf.zeros_like(tokens)}
    output = backbone({name: inputs[name] for name in backbone.input})
    hidden = output["sequence_output"] if isinstance(output, dict) else output
    total = tf.matmul(tf.cast(mask, tf.float32)[:, None, :], tf.cast(hidden, tf.float32))[:, 0, :]
    return total / tf.cast(n_tokens, tf.float32)[:, None]
