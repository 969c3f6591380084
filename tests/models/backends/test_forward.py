"""Fast forward passes against the plain one, in every family of models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.backends.forward import SharedPrefixForward, choose_forward
from models.backends.passes import WholeForward
from models.presets import CausalLMBundle
from tests.models.conftest import fill

pytestmark = pytest.mark.model

FAMILIES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "llama 3.1 rope, untied": (
        "Llama3CausalLM",
        "Llama3Backbone",
        {
            "rope_frequency_adjustment_factor": 8.0,
            "rope_low_freq_factor": 1.0,
            "rope_high_freq_factor": 4.0,
            "rope_pretraining_sequence_length": 64,
        },
        "shared-prefix",
    ),
    "llama, linear rope": (
        "LlamaCausalLM",
        "LlamaBackbone",
        {"rope_position_scaling_factor": 2.0},
        "cached",
    ),
    "mistral": ("MistralCausalLM", "MistralBackbone", {}, "cached"),
    "gpt2": (
        "GPT2CausalLM",
        "GPT2Backbone",
        {"num_heads": 4, "max_sequence_length": 64, "num_query_heads": None},
        "cached",
    ),
    "gemma2": (
        "GemmaCausalLM",
        "GemmaBackbone",
        {
            "head_dim": 8,
            "final_logit_soft_cap": 3.0,
            "use_sliding_window_attention": True,
            "sliding_window_size": 16,
        },
        "cached",
    ),
    "gemma3": (
        "Gemma3CausalLM",
        "Gemma3Backbone",
        {"head_dim": 8, "image_size": 16, "sliding_window_size": 16},
        "cached",
    ),
    "qwen3": ("Qwen3CausalLM", "Qwen3Backbone", {"head_dim": 8}, "cached"),
}

# Float32 sums in another order; processors differ, gemma2's by 8e-5 on one. A wrong mask is off by .1.
ATOL = 2e-4


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_agrees_with_its_plain_pass(family: str) -> None:
    import keras_hub

    task, backbone, extra, expected = FAMILIES[family]
    settings: dict[str, Any] = {
        "vocabulary_size": 300,
        "num_layers": 2,
        "num_query_heads": 4,
        "hidden_dim": 32,
        "intermediate_dim": 48,
        "dtype": "float32",
    }
    if extra.get("num_query_heads", 4):
        settings["num_key_value_heads"] = 2
    settings |= extra
    settings = {name: value for name, value in settings.items() if value is not None}
    model = getattr(keras_hub.models, task)(
        backbone=getattr(keras_hub.models, backbone)(**settings), preprocessor=None
    )
    fill(model)
    prefix, suffix, answers = list(range(5, 30)), [7, 8, 9], (3, 4)
    log: list[str] = []
    chosen = choose_forward(model, prefix, [suffix], [answers], [40, 41, 42], log.append)
    assert chosen.name == expected, log
    rng = np.random.default_rng(2)
    tokens = rng.integers(5, 290, (4, 14)).astype(np.int32)
    n_ad = np.array([3, 8, 11, 1], np.int32)
    for row, count in enumerate(n_ad):
        tokens[row, count : count + 3] = suffix
    margin, mean = chosen(tokens, n_ad, 40)
    oracle = WholeForward(model, prefix, 3, answers)
    want_margin, want_mean = oracle.once(tokens, n_ad)
    assert margin.shape == (4, 1)
    np.testing.assert_allclose(margin, want_margin, atol=ATOL)
    np.testing.assert_allclose(mean, want_mean, atol=ATOL)

    suffixes, pairs = [suffix, [11], [12, 13, 7, 9]], [answers, (20, 21), (4, 30)]
    several = choose_forward(model, prefix, suffixes, pairs, [40, 41, 42], log.append)
    assert several.name == expected, log
    rows = np.zeros((4, 22), np.int32)
    for row, ad, count in zip(rows, tokens, n_ad, strict=True):
        row[: count + 8] = [*ad[:count], *suffix, 11, 12, 13, 7, 9]
    # One row is left out, and padding stands behind the longest.
    n_ad[3] = 0
    margins, mean = several(rows, n_ad, 60)
    assert margins.shape == (4, 3)
    for column, (own, asked) in enumerate(zip(suffixes, pairs, strict=True)):
        alone = rows.copy()
        for row, count in zip(alone, n_ad, strict=True):
            row[count : count + len(own)] = own
        want, want_mean = WholeForward(model, prefix, len(own), asked).once(alone, n_ad)
        np.testing.assert_allclose(margins[:3, column], want[:3, 0], atol=ATOL)
    np.testing.assert_allclose(mean[:3], want_mean[:3], atol=ATOL)


def test_a_wrong_fast_pass_is_refused(
    tiny: CausalLMBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off(*args: Any) -> Any:
        margin, mean = real(*args)
        return margin + 1, mean

    real = SharedPrefixForward.__call__
    monkeypatch.setattr(SharedPrefixForward, "__call__", off)
    log: list[str] = []
    chosen = choose_forward(tiny.model, [5, 6], [[7]], [(3, 4)], [8, 9], log.append)
    assert chosen.name == "cached"
    assert "shared-prefix pass refused" in log[0]
