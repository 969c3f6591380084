"""Models shared by the tests of this folder, each loaded once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from models import embedded, presets
from tests import helpers
from tests.models.training.ads import WORDS


@pytest.fixture(scope="session")
def llm() -> presets.CausalLMBundle:
    return presets.load_causal_lm(embedded.EMBEDDED_LLM, "bfloat16")


@pytest.fixture(scope="session")
def llm32() -> presets.CausalLMBundle:
    return presets.load_causal_lm(embedded.EMBEDDED_LLM, "float32")


@pytest.fixture(scope="session")
def tiny(llm32: presets.CausalLMBundle) -> presets.CausalLMBundle:
    """A random Llama of two layers with tied embeddings behind the embedded tokenizer."""
    return random_llama(llm32, tied=True)


def random_llama(llm32: presets.CausalLMBundle, tied: bool) -> presets.CausalLMBundle:
    import keras_hub
    import numpy as np

    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=49152,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=32,
        intermediate_dim=48,
        tie_word_embeddings=tied,
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


@pytest.fixture(scope="session")
def encoder_preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return helpers.random_encoder(tmp_path_factory.mktemp("preset") / "tiny-bert", WORDS, 16)


@pytest.fixture(scope="session")
def llm_preset(tiny: presets.CausalLMBundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_llama(tiny, tmp_path_factory.mktemp("preset") / "tiny-llama")


def save_llama(bundle: presets.CausalLMBundle, folder: Path, files: int = 1) -> str:
    """Writes a Llama behind the embedded tokenizer in transformers format, in some files; its folder."""
    import numpy as np
    from safetensors.numpy import save_file

    backbone = bundle.model.backbone
    dim = backbone.hidden_dim

    def flat(variable: Any, *shape: int) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(variable.value).reshape(shape).T)

    tensors = {
        "model.embed_tokens.weight": np.asarray(backbone.token_embedding.embeddings.value),
        "model.norm.weight": np.asarray(backbone.layer_norm.scale.value),
    }
    for number, layer in enumerate(backbone.transformer_layers):
        attention = layer._self_attention_layer
        found = {
            "input_layernorm": np.asarray(layer._self_attention_layernorm.scale.value),
            "post_attention_layernorm": np.asarray(layer._feedforward_layernorm.scale.value),
            "self_attn.q_proj": flat(attention._query_dense.kernel, dim, -1),
            "self_attn.k_proj": flat(attention._key_dense.kernel, dim, -1),
            "self_attn.v_proj": flat(attention._value_dense.kernel, dim, -1),
            "self_attn.o_proj": flat(attention._output_dense.kernel, -1, dim),
            "mlp.gate_proj": flat(layer._feedforward_gate_dense.kernel, dim, -1),
            "mlp.up_proj": flat(layer._feedforward_intermediate_dense.kernel, dim, -1),
            "mlp.down_proj": flat(layer._feedforward_output_dense.kernel, -1, dim),
        }
        tensors |= {f"model.layers.{number}.{name}.weight": v for name, v in found.items()}
    if not backbone.tie_word_embeddings:
        output = backbone.token_embedding.reverse_embeddings
        tensors["lm_head.weight"] = np.ascontiguousarray(np.asarray(output.value).T)
    folder.mkdir(parents=True)
    if files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        # As large models are published.
        where = {
            name: f"model-{place % files + 1:05d}-of-{files:05d}.safetensors"
            for place, name in enumerate(tensors)
        }
        for file in sorted(set(where.values())):
            own = {name: value for name, value in tensors.items() if where[name] == file}
            save_file(own, folder / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": backbone.vocabulary_size,
        "hidden_size": dim,
        "intermediate_size": backbone.intermediate_dim,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_query_heads,
        "num_key_value_heads": backbone.num_key_value_heads,
        "max_position_embeddings": 512,
        "rms_norm_eps": backbone.layer_norm_epsilon,
        "rope_theta": backbone.rope_max_wavelength,
        "tie_word_embeddings": bool(backbone.tie_word_embeddings),
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    source = embedded.ensure_embedded(embedded.EMBEDDED_LLM)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    return str(folder)
