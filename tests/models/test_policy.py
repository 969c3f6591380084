"""What of a policy says what violates, and how near ads are to it."""

from __future__ import annotations

import numpy as np
import pytest

from models import presets
from models.encoder import SentenceEncoder
from models.policy import PolicySimilarity, violating_clauses


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("Ads must not sell weapons.", ["Ads must not sell weapons."]),
        (
            "An ad lies when it does one of these: it promises a cure; it hides a fee. Jokes are not lies.",
            ["An ad lies when it does one of these:", "it promises a cure;", "it hides a fee."],
        ),
        ("No gambling. Lotteries of the state are allowed.", ["No gambling."]),
        (
            "No gambling. Casinos are not allowed. Raffles may not be shown.",
            ["No gambling.", "Casinos are not allowed.", "Raffles may not be shown."],
        ),
        # The first sentence counts whatever it says; another language counts whole.
        ("It is not fine to threaten.", ["It is not fine to threaten."]),
        ("Keine Waffen. Spielzeug ist erlaubt.", ["Keine Waffen.", "Spielzeug ist erlaubt."]),
    ],
)
def test_sentences_that_allow_are_left_out(policy: str, expected: list[str]) -> None:
    assert violating_clauses(policy) == expected


@pytest.mark.model
def test_an_ad_is_compared_with_the_nearest_clause() -> None:
    encoder = SentenceEncoder(presets.load_encoder(presets.EMBEDDED_ENCODER))
    similarity = PolicySimilarity(
        encoder, "Ads must not sell guns; ads must not promise a cure. Toys are allowed."
    )
    texts = ["Buy a rifle today", "This herb cures cancer", "Fresh bread every morning"]
    near = similarity.of_vectors(encoder.encode(texts))
    assert near[0] > near[2] and near[1] > near[2]
    # Of the ad alone, to the bit.
    alone = [similarity.of_vectors(encoder.encode([text]))[0] for text in texts]
    np.testing.assert_array_equal(near, alone)
