"""Ads that an encoder cannot read are told apart by their letters."""

from __future__ import annotations

import numpy as np
import pytest

from models import letters

THAI = ["ตั๋วรถไฟราคาถูกไปกรุงเทพ", "ลดราคารองเท้าครึ่งราคา", "ประกันรถยนต์ออนไลน์", "①②③", "🎉🔥", "🚗💨"]


def test_different_texts_are_far_and_copies_near() -> None:
    found = letters.vectors([*THAI, THAI[0] + "!"], 384)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    like = found @ found.T
    assert (like[:6, :6] - np.eye(6)).max() < 0.5
    assert like[0, 6] > 0.9
    np.testing.assert_array_equal(letters.vectors(THAI[:1], 384)[0], found[0])


def test_vectors_that_were_made_here_are_known_again() -> None:
    texts = [THAI[0], "café crème", "plain ad", "x" * 200]
    stored = letters.vectors(texts, 64).astype(np.float16)
    stored[1] += 1
    assert letters.made(texts, stored).tolist() == [True, False, False, True]
    assert letters.made([], np.zeros((0, 64), np.float16)).tolist() == []


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (THAI[0], "Thai"),
        ("ตั๋ว iPhone ราคาถูก", "Thai"),
        ("①②③ 50%", "symbols"),
        ("x" * 20_000, "long words"),
        ("ያልተነበበ", "Ethiopic"),
    ],
)
def test_scripts_are_named(text: str, script: str) -> None:
    assert letters.script_of(text) == script
