"""A sentence encoder: the alternative embedding, and what two of the learners read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import bert, letters, presets
from models.ad_text import MAX_CHARS_PER_TOKEN, prepare_ad
from models.backends.base import Progress

# Another value gives a batch other shapes, and they shape rounding.
TOKENS_PER_BATCH = 528
_STEP = 8
# Two batches at once keep the cores busy while one of them is between two operations.
_WORKERS = 2


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
    ) -> None:
        """Read the weights as they are now; later changes to the backbone are not seen.

        Args:
            bundle: Backbone and tokenizer.
            dtype: of the products, "float32" or "bfloat16"; a backbone that is no BERT runs as it
                is, in float32.
            max_tokens: Longest sequence, special tokens included; None takes the encoder's own.
        """
        import tensorflow as tf
        import tokenizers

        self.dtype = dtype if bert.fits(bundle.backbone) else "float32"
        self.dim = bundle.dim
        self.normalize = bundle.normalize
        self.max_tokens = min(max_tokens or bundle.max_tokens, bundle.max_tokens)
        self.embedding_id = embedding_id(
            bundle.model_id, self.dtype, bundle.normalize, self.max_tokens, bundle.max_tokens
        )
        source = json.loads(bundle.tokenizer.to_str())
        source["truncation"] = source["padding"] = None
        self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(source))
        # [SEP] inside an ad is text.
        self._tokenizer.encode_special_tokens = True
        self._n_special = self._tokenizer.num_special_tokens_to_add(False)
        unknown = self._tokenizer.token_to_id(source["model"].get("unk_token") or "")
        self._unknown = source["model"].get("unk_id") if unknown is None else unknown
        # Pieces that begin a word: those that go on with one, numbers and signs are none.
        self._words = {
            id
            for piece, id in self._tokenizer.get_vocab(with_added_tokens=False).items()
            if not piece.startswith("##") and any(map(str.isalpha, piece))
        } - {token["id"] for token in source.get("added_tokens") or []}
        self._tokenizer.enable_truncation(self.max_tokens)
        # Shapes are left open: one graph for all batches.
        self._run = tf.function(
            _scoring(bundle.backbone, tf.as_dtype(self.dtype))
        ).get_concrete_function(
            tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
        )

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Turn texts into ids; nothing in a text becomes a special token."""
        limit = self.max_tokens * MAX_CHARS_PER_TOKEN
        ads = [prepare_ad(text[:limit]) for text in texts]
        encoded = self._tokenizer.encode_batch_fast(ads) if ads else []
        cut = [bool(e.overflowing) or len(t) > limit for e, t in zip(encoded, texts, strict=True)]
        return Tokens(
            ids=[e.ids for e in encoded],
            n_own=np.array([len(e.ids) - self._n_special for e in encoded], dtype=np.int32),
            truncated=np.array(cut, dtype=bool),
        )

    def unread(self, texts: Sequence[str]) -> np.ndarray:
        """Tell which texts' words the vocabulary lacks, most of them or all.

        Returns:
            bool (n,): at least half of its words are unknown, or it has unknown signs and no word.
        """
        found = np.zeros(len(texts), dtype=bool)
        asked = [i for i, text in enumerate(texts) if not letters.is_plain(text)]
        if self._unknown is None or not asked:
            return found
        ads = [prepare_ad(texts[i][: self.max_tokens * MAX_CHARS_PER_TOKEN]) for i in asked]
        for i, ad, encoding in zip(asked, ads, self._tokenizer.encode_batch(ads), strict=True):
            read = sum(id in self._words for id in encoding.ids)
            unknown = [
                any(map(str.isalpha, ad[start:end]))
                for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
                if id == self._unknown
            ]
            found[i] = bool(unknown) and sum(unknown) >= read
        return found

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

        with ThreadPoolExecutor(max(1, min(_WORKERS, len(batches)))) as workers:
            for (_, places), found in zip(batches, workers.map(run, batches), strict=True):
                vectors[places] = found
        return unit(vectors) if self.normalize else vectors

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts; float32 (n, dim) in their order."""
        return self.pool(self.tokenize(texts).ids)

    def told_apart(self, texts: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """Return vectors by which ads are compared: those of unread ads are made of their letters.

        Args:
            texts: n texts.
            vectors: float32 (n, dim), as :meth:`encode` gives them; left as they are.
        """
        unread = np.flatnonzero(self.unread(texts)).tolist()
        if not unread:
            return vectors
        apart = vectors.copy()
        apart[unread] = letters.vectors([texts[i] for i in unread], self.dim)
        return apart

    def _rows(self, length: int) -> int:
        unit = bert.PRODUCT_ROWS // math.gcd(bert.PRODUCT_ROWS, length)
        return max(1, TOKENS_PER_BATCH // (unit * length)) * unit


def embedding_id(model_id: str, dtype: str, normalize: bool, window: int, longest: int) -> str:
    """Name vectors by all that decides them; a shorter window is part of the name."""
    short = "" if window == longest else f"/{window}"
    return f"mean-pooled:{model_id}/{dtype}/{'unit' if normalize else 'raw'}{short}"


def identify(preset: str, progress: Progress | None = None) -> str:
    """Return the `embedding_id` of a base encoder in float32 without loading its weights.

    Raises:
        presets.PresetError: the encoder cannot be had.
    """
    model_id, normalize = presets.identify_encoder(preset, progress)
    return embedding_id(model_id, "float32", normalize, 0, 0)


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


class VectorCache:
    """Frozen encoders, and the vectors they gave to texts before, by embedding and text.

    Memory: n_texts * (4 * dim + 100) bytes and the texts, 22 MB for 12,000 headlines of 384
    dimensions. Not shared between processes, not safe for several threads.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], np.ndarray] = {}
        self._bundles: dict[str, presets.EncoderBundle] = {}
        self._encoders: dict[tuple[str, str, int], SentenceEncoder] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def bundle(self, preset: str, progress: Progress | None = None) -> presets.EncoderBundle:
        """Return a base encoder, loaded once; its weights must stay as they are."""
        if preset not in self._bundles:
            self._bundles[preset] = presets.load_encoder(preset, progress)
        return self._bundles[preset]

    def encoder(
        self, bundle: presets.EncoderBundle, dtype: str, max_tokens: int
    ) -> SentenceEncoder:
        """Return the fast pass of a bundle of `bundle`, traced once."""
        name = (bundle.model_id, dtype, max_tokens)
        if name not in self._encoders:
            self._encoders[name] = SentenceEncoder(bundle, dtype=dtype, max_tokens=max_tokens)
        return self._encoders[name]

    def vectors(
        self, name: str, texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray]
    ) -> np.ndarray:
        """Return vectors, embedding only texts not seen under this name.

        Args:
            name: an embedding id.
            texts: n texts.
            embed: texts to float32 (n, dim).

        Returns:
            float32 (n, dim).
        """
        if not texts:
            return embed(texts)
        new = list(dict.fromkeys(text for text in texts if (name, text) not in self._rows))
        if new:
            for text, row in zip(new, embed(new), strict=True):
                self._rows[name, text] = row
        return np.stack([self._rows[name, text] for text in texts])
