"""BERT in few and large products, against KerasHub's layers."""

from __future__ import annotations

import numpy as np

from models import bert, presets


def test_fast_pass_and_its_gradients_are_kerashubs(encoder_preset: str) -> None:
    import tensorflow as tf

    backbone = presets.load_encoder(encoder_preset).backbone
    tokens, n_tokens = bert.lay_out([[2, 5, 9, 3], [2, 11, 3], [2, 6, 7, 8, 20, 21, 3]], 4, 8)
    variables = [v.value for v in bert.trainable(backbone)]
    table = backbone.token_embedding.embeddings.value
    weighing = tf.constant(np.random.default_rng(0).normal(size=(4, 16)), tf.float32)
    found = []
    for kind in ("plain", "fast", "packed"):
        with tf.GradientTape() as tape:
            if kind == "plain":
                vectors = bert.plain_pool(backbone, tf.constant(tokens), tf.constant(n_tokens))
            else:
                weights = bert.read(backbone, tf.float32)
                vectors = bert.pool(weights, table, tokens, n_tokens, packed=kind == "packed")
            loss = tf.reduce_sum(vectors * weighing)
        slopes = tape.gradient(loss, [*variables, table])
        found.append([vectors.numpy(), *(tf.convert_to_tensor(g).numpy() for g in slopes)])
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            np.testing.assert_allclose(got, want, atol=2e-4, rtol=2e-4)
