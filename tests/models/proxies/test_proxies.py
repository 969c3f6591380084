"""The contract over every proxy, and what each is made of."""

from __future__ import annotations

import numpy as np
import pytest

from models.backends.base import BackendError, Labeler, LabelerSpec
from models.backends.fake import FakeLabeler
from models.backends.keras_llm import KerasLLM
from models.proxies import layers, registry
from tests.models.training.ads import PROMPT

TEXTS = [
    "a miracle kettle",
    "terms at the desk",
    "won",
    "a second-hand sofa, slightly scratched",
    "won",
]


@pytest.fixture(scope="module")
def labeler(llm_preset: str, encoder_preset: str) -> Labeler:
    return KerasLLM(LabelerSpec(llm_preset, PROMPT, encoder_preset, "float32", 24)).load()


@pytest.mark.model
@pytest.mark.parametrize("name", registry.names())
def test_features_are_of_the_ad_alone(
    name: str, labeler: Labeler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "LAYER", 1)
    proxy = registry.create(name, labeler)
    whole = proxy.features(TEXTS, labeler.glance(TEXTS))
    assert whole.dtype == np.float32 and len(whole) == len(TEXTS)
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(whole[2], whole[4])
    assert len({row.tobytes() for row in whole}) == 4
    for some in ([3], [1, 0], [0] * 70 + [3]):
        texts = [TEXTS[i] for i in some]
        np.testing.assert_array_equal(proxy.features(texts, labeler.glance(texts)), whole[some])


@pytest.mark.model
def test_layers_are_the_models_own(labeler: Labeler, llm_preset: str) -> None:
    # Behind the last layer the state of an ad is the vector that the model gives without an encoder.
    alone = KerasLLM(LabelerSpec(llm_preset, PROMPT, "llm", "float32", 24)).load()
    last = labeler.states(TEXTS, 2)
    np.testing.assert_allclose(last, alone.label(TEXTS).vectors, atol=0.02)
    assert np.abs(labeler.states(TEXTS, 1) - last).max() > 0.1
    assert np.isnan(labeler.states(["won", " "], 1)).all(axis=1).tolist() == [False, True]


@pytest.mark.model
def test_a_model_that_has_fewer_layers_is_refused(labeler: Labeler) -> None:
    with pytest.raises(BackendError, match=r"cannot be left after a layer; set cascade\.by to enc"):
        labeler.states(TEXTS, 3)


def test_so_is_one_that_has_none() -> None:
    with pytest.raises(BackendError, match=r"fake@1 cannot be left after a layer"):
        registry.create("layers", FakeLabeler()).features(TEXTS, FakeLabeler().glance(TEXTS))


def test_words_count_in_pairs() -> None:
    proxy = registry.create("words", FakeLabeler())
    found = proxy.features(["free tent", "tent free", "free"], FakeLabeler().glance(["a"] * 3))
    assert (found != 0).sum(axis=1).tolist() == [3, 3, 1]
    assert (found[0] != found[1]).any()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
