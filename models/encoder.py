"""A sentence encoder as the alternative embedding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from models import presets
from models.policy import prepare_ad

_MAX_CHARS_PER_TOKEN = 32


class SentenceEncoder:
    """Mean-pooled vectors as sentence-transformers computes them.

    The mean runs over all tokens, [CLS] and [SEP] too. As in the labeler, a text's vector depends
    on the text alone: its token count decides the padded length, that the rows of a batch.
    """

    def __init__(
        self,
        bundle: presets.EncoderBundle,
        *,
        normalize: bool | None = None,
        tokens_per_batch: int = 1024,
    ) -> None:
        """Wraps an encoder.

        Args:
            bundle: Backbone and tokenizer.
            normalize: Whether vectors get length 1; None does as the reference does.
            tokens_per_batch: Rows a batch are as many as fit into so many tokens.
        """
        import tensorflow as tf
        import tokenizers

        source = json.loads(bundle.tokenizer.to_str())
        source["truncation"] = source["padding"] = None
        # [SEP] inside an ad is text.
        self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(source))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.enable_truncation(bundle.max_tokens)
        self._normalize = bundle.normalize if normalize is None else normalize
        self._tokens_per_batch = tokens_per_batch
        self._max_chars = bundle.max_tokens * _MAX_CHARS_PER_TOKEN
        self.dim = bundle.dim
        self.model_id = bundle.model_id
        unit = "unit" if self._normalize else "raw"
        self.embedding_id = f"mean-pooled:{bundle.model_id}/{bundle.dtype}/{unit}"
        backbone = bundle.backbone
        names = list(backbone.input)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([None], tf.int32),
            ]
        )
        def run(tokens: Any, n_tokens: Any) -> Any:
            mask = tf.sequence_mask(n_tokens, tf.shape(tokens)[1], dtype=tf.int32)
            inputs = {
                "token_ids": tokens,
                "padding_mask": mask,
                "segment_ids": tf.zeros_like(tokens),
            }
            output = backbone({name: inputs[name] for name in names})
            hidden = output["sequence_output"] if isinstance(output, dict) else output
            hidden = tf.cast(hidden, tf.float32)
            total = tf.matmul(tf.cast(mask, tf.float32)[:, None, :], hidden)[:, 0, :]
            return total / tf.cast(n_tokens, tf.float32)[:, None]

        self._run = run

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts.

        Args:
            texts: Any texts; those beyond the encoder's window are cut.

        Returns:
            float32 (n, dim), in the order of `texts`; a row may be non-finite only when the
            model's own numbers are.
        """
        ads = [prepare_ad(text[: self._max_chars]) for text in texts]
        encoded = [e.ids for e in self._tokenizer.encode_batch_fast(ads)] if ads else []
        vectors = np.zeros((len(ads), self.dim), np.float32)
        buckets: dict[int, list[int]] = {}
        for place, ids in enumerate(encoded):
            length = -(-len(ids) // 8) * 8
            buckets.setdefault(length, []).append(place)
        for length, places in sorted(buckets.items()):
            rows = max(4, self._tokens_per_batch // length)
            for start in range(0, len(places), rows):
                chosen = places[start : start + rows]
                tokens = np.zeros((rows, length), np.int32)
                n_tokens = np.ones(rows, np.int32)
                for row, place in enumerate(chosen):
                    tokens[row, : len(encoded[place])] = encoded[place]
                    n_tokens[row] = len(encoded[place])
                vectors[chosen] = self._run(tokens, n_tokens).numpy()[: len(chosen)]
        if self._normalize:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors /= np.where(norms > 0, norms, 1)
        return vectors
