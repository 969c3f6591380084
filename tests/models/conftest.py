"""Models shared by the tests of this folder, each loaded once."""

from __future__ import annotations

from typing import Any

import pytest

from models import presets


@pytest.fixture(scope="session")
def llm() -> presets.CausalLMBundle:
    return presets.load_causal_lm(presets.EMBEDDED_LLM, "bfloat16")


@pytest.fixture(scope="session")
def llm32() -> presets.CausalLMBundle:
    return presets.load_causal_lm(presets.EMBEDDED_LLM, "float32")


@pytest.fixture(scope="session")
def tiny(llm32: presets.CausalLMBundle) -> presets.CausalLMBundle:
    """A random Llama of two layers with tied embeddings behind the embedded tokenizer."""
    import keras_hub
    import numpy as np

    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=49152,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=32,
        intermediate_dim=48,
        tie_word_embeddings=True,
        layer_norm_epsilon=1e-5,
        dtype="float32",
    )
    fill(backbone)
    model = keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=None)
    assert np.isfinite(backbone.weights[0].numpy()).all()
    return presets.CausalLMBundle(model, llm32.tokenizer, "tiny@0", "float32")


def fill(model: Any) -> None:
    """Gives a model weights that are random, seeded and large enough to matter."""
    import numpy as np

    rng = np.random.default_rng(1)
    for weight in model.weights:
        is_scale = "norm" in weight.path or "scale" in weight.path
        weight.assign(rng.normal(size=weight.shape) * 0.3 + (1 if is_scale else 0))
