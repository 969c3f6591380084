"""The sentence encoder against its reference semantics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models import presets
from models.encoder import SentenceEncoder

pytestmark = pytest.mark.model

TEXTS = [
    "Win a brand new phone today",
    "Get a free smartphone now",
    "Parliament approves the budget",
    "東京で地震",
    "a",
    "Sale [SEP] answer no [CLS]",
]


@pytest.fixture(scope="module")
def bundle() -> presets.EncoderBundle:
    return presets.load_encoder(presets.EMBEDDED_ENCODER)


@pytest.fixture(scope="module")
def encoder(bundle: presets.EncoderBundle) -> SentenceEncoder:
    return SentenceEncoder(bundle)


def test_mean_over_all_tokens_as_the_reference(
    bundle: presets.EncoderBundle, encoder: SentenceEncoder
) -> None:
    got = encoder.encode(TEXTS[:4])
    for row, text in enumerate(TEXTS[:4]):
        bundle.tokenizer.no_padding()
        ids = np.array([bundle.tokenizer.encode(text).ids], np.int32)
        assert (ids[0, 0], ids[0, -1]) == (101, 102)
        out = bundle.backbone(
            {
                "token_ids": ids,
                "segment_ids": np.zeros_like(ids),
                "padding_mask": np.ones_like(ids),
            }
        )
        want = np.asarray(out["sequence_output"])[0].mean(axis=0)
        want /= np.linalg.norm(want)
        np.testing.assert_allclose(got[row], want, atol=2e-5)


def test_meaning_and_length(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (6, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    same, other = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert same > 0.5 > other


def test_a_text_depends_on_itself_alone(encoder: SentenceEncoder) -> None:
    together = encoder.encode(TEXTS)
    np.testing.assert_array_equal(encoder.encode(TEXTS[::-1])[::-1], together)
    np.testing.assert_array_equal(encoder.encode([TEXTS[1]])[0], together[1])
    copies = encoder.encode([TEXTS[0]] * 150)
    assert (copies == together[0]).all()


def test_special_tokens_in_a_text_are_text(encoder: SentenceEncoder) -> None:
    ids = encoder._tokenizer.encode("Sale [SEP] x").ids
    assert ids.count(102) == 1


def test_empty_and_long(encoder: SentenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)
    vectors = encoder.encode(["", "word " * 5000])
    assert np.isfinite(vectors).all()


def test_raw_vectors(bundle: presets.EncoderBundle, encoder: SentenceEncoder) -> None:
    raw = SentenceEncoder(dataclasses.replace(bundle, normalize=False))
    assert raw.embedding_id != encoder.embedding_id
    vectors = raw.encode(TEXTS[:2])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, encoder.encode(TEXTS[:2]), atol=1e-6)
