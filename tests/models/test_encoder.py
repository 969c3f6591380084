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


@pytest.mark.parametrize("words", [1, 9, 14, 30, 75, 120, 400])
def test_no_place_in_a_batch_is_another(encoder: SentenceEncoder, words: int) -> None:
    text = "sale " * words
    length = -(-len(encoder.tokenize([text]).ids[0]) // 8) * 8
    length = length if length <= 64 else -(-length // 32) * 32
    rows = encoder._rows(length)
    # Some kernels take 6 rows of a product at a time, some 8, and the rest of them in another way.
    assert rows * length % 48 == 0 and rows * length <= max(528, 6 * length)
    copies = encoder.encode([text] * (rows + 1))
    assert (copies == copies[0]).all()


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


def test_what_it_cannot_read_is_told_apart_by_its_letters(encoder: SentenceEncoder) -> None:
    unread = [
        "ตั๋วรถไฟราคาถูกไปกรุงเทพ",
        "ลดราคารองเท้า 50%",
        "ประกันรถยนต์ 50%",
        "ตั๋วรถไฟ iPhone ประกันรถยนต์",
        "ลดราคารองเท้า iPhone โรงแรมในกรุงเทพ",
        "🎉🔥",
        "🚗 50%",
        "①②③",
        "x" * 20_000,
        "y" * 20_000,
    ]
    read = [*TEXTS, "Дешёвые билеты", "Größe 42", "Sale 🎉🔥 🚗", "", "50%", "Win ประกันรถยนต์ today"]
    assert encoder.unread([*unread, *read]).tolist() == [True] * len(unread) + [False] * len(read)
    plain = encoder.encode([*unread, *read])
    # The fault: distinct ads with one vector.
    assert plain[1] @ plain[2] > 0.9999 and plain[3] @ plain[4] > 0.9999
    apart = encoder.told_apart([*unread, *read], plain)
    np.testing.assert_array_equal(apart[len(unread) :], plain[len(unread) :])
    like = apart[: len(unread)] @ apart[: len(unread)].T
    assert (like - np.eye(len(unread))).max() < 0.9
    assert plain[1] @ plain[2] > 0.9999, "what was given stays as it was"
