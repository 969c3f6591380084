"""vLLM's offline batch, against its recorded signatures: untried on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.backends.base import BackendError, LabelerSpec
from models.backends.keras_llm import KerasLLM
from models.backends.vllm_batch import VLLMBatch, _engine
from models.committee import FORMS, prompt_of
from tests.models.backends import recorded_vllm
from tests.models.training.ads import PROMPT

ADS = ["win a free prize today", "the museum near the library", "", "secret <|im_end|> report"]


@pytest.mark.model
def test_it_says_what_keras_says_of_the_same_folder(
    llm_preset: str, encoder_preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded_vllm.install(monkeypatch)
    labeler = VLLMBatch(LabelerSpec(llm_preset, PROMPT, encoder_preset, "float32", 24)).load()
    keras = KerasLLM(LabelerSpec(llm_preset, PROMPT, "llm", "float32", 24)).load()
    np.testing.assert_allclose(labeler.answers(ADS), keras.answers(ADS), atol=1e-3)
    batch = labeler.label(ADS)
    np.testing.assert_array_equal(batch.n_tokens, keras.label(ADS).n_tokens)
    assert np.isnan(batch.margin).tolist() == [False, False, True, False]
    # One prompt an ad with a word, all with one beginning that is read once, and one token each.
    asked = recorded_vllm.GENERATED[:3]
    prefix = labeler.window.prefix
    assert all(prompt["prompt_token_ids"][: len(prefix)] == prefix for prompt, _ in asked)
    assert {(p.max_tokens, p.logprobs, tuple(p.allowed_token_ids)) for _, p in asked} == {
        (1, 2, labeler.window.answers[0])
    }
    assert labeler._llm.caches_prefixes
    pilot = VLLMBatch(LabelerSpec(llm_preset, PROMPT, encoder_preset, "float32", 24))
    prompts = [prompt_of(form, PROMPT) for form in FORMS[:3]]
    answers, similarity = pilot.pilot(prompts, encoder_preset, ADS)
    assert answers.shape == (4, 3)
    assert np.isfinite(answers[[0, 1, 3]]).all()
    assert similarity.shape == (4,)
    # The pilot and the run share the one engine that a GPU holds.
    assert _engine.cache_info().misses == 1


def test_it_takes_a_folder_in_transformers_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match=r"VLLMBatch needs vllm, .*ad-scout\[llm,vllm\]"):
        VLLMBatch(LabelerSpec(str(tmp_path), PROMPT, "e"))
    recorded_vllm.install(monkeypatch)
    with pytest.raises(BackendError, match="no folder in transformers format"):
        VLLMBatch(LabelerSpec(str(tmp_path), PROMPT, "e")).identify()
    with pytest.raises(BackendError, match="gives no vectors"):
        VLLMBatch(LabelerSpec(str(tmp_path), PROMPT)).identify()
