"""A sentence encoder: the alternative embedding, and what two of the learners read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import bert, presets
from models.policy import prepare_ad

# Another value gives a batch other shapes, and they shape rounding.
TOKENS_PER_BATCH = 512
# Of the lengths tried only multiples of 8 keep a row independent of the rows beside it, to the bit.
_STEP = 8
_MIN_ROWS = 4
_MAX_CHARS_PER_TOKEN = 32


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


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows (n, dim) to length 1; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1))


class SentenceEncoder:
    """Mean-pooled vectors as sentence-transformers computes them.

    The mean runs over all tokens, [CLS] and [SEP] too. Each vector depends on its text alone, bit
    for bit.

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

        if dtype not in bert.DTYPES:
            raise ValueError(f"dtype: got {dtype!r}; use one of {', '.join(bert.DTYPES)}")
        self.dtype = dtype if bert.fits(bundle.backbone) else bundle.dtype
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
            tokens, n_tokens = bert.lay_out([ids[i] for i in places], self._rows(length), length)
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
    """Name vectors by all that decides them; a shorter window is part of the name."""
    short = "" if window == longest else f"/{window}"
    return f"mean-pooled:{model_id}/{dtype}/{'unit' if normalize else 'raw'}{short}"


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

    if bert.fits(backbone):
        weights = bert.read(backbone, dtype)
        # A copy: further training of this backbone must not move vectors named by its weights.
        table = tf.identity(backbone.token_embedding.embeddings.value)
        return lambda tokens, n_tokens: bert.pool(weights, table, tokens, n_tokens)
    return lambda tokens, n_tokens: bert.plain_pool(backbone, tokens, n_tokens)
