"""Where weights come from, and what happens when they do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models import encoder, presets
from models.backends.keras_llm import LLMLabeler
from models.encoder import SentenceEncoder
from models.presets import CausalLMBundle, PresetError
from models.prompting import PromptSpec
from tests.models.conftest import random_llama, save_llama

SPEC = PromptSpec(policy="p", question="Clickbait:", template="Headline: {ad}\n{question}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("./no/such/folder", "no model folder ./no/such/folder; give a KerasHub preset name"),
        ("gemma3_instruct_1bb", "did you mean gemma3_instruct_1b"),
        ("smollm2-135m-instrukt", "did you mean smollm2-135m-instruct"),
    ],
)
def test_models_that_are_not_there(spec: str, message: str) -> None:
    with pytest.raises(PresetError) as raised:
        presets.load_causal_lm(spec)
    assert message in str(raised.value)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"has no config.json"):
        presets.load_causal_lm(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(PresetError, match="cannot be read as JSON"):
        presets.load_causal_lm(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "seagull"}')
    with pytest.raises(PresetError, match="seagull"):
        presets.load_causal_lm(str(tmp_path))


def id_of(folder: Path) -> str:
    found = presets._model_id(presets._Source(str(folder), str(folder), folder, True))
    name, _, hashes = found.partition("@")
    assert name == folder.name
    return hashes


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("model.safetensors", True),
        ("config.json", True),
        ("tokenizer.json", False),
        ("tokenizer_config.json", False),
        ("vocab.txt", False),
        ("assets/tokenizer/merges.txt", False),
    ],
)
def test_identity_follows_weights_and_tokenizer(
    name: str, weights: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "m"
    (folder / "assets" / "tokenizer").mkdir(parents=True)
    for path in ("model.safetensors", "config.json", name):
        (folder / path).write_bytes(b"1")
    first = id_of(folder)
    assert id_of(folder) == first
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert id_of(moved) == first
    (moved / name).write_bytes(b"22")
    # What was trained from the same weights, before tokenizers were looked at, has the first half alone.
    assert id_of(moved) != first
    assert (id_of(moved)[:12] != first[:12]) == weights
    assert json.loads((tmp_path / "cache" / "hashes.json").read_text())


@pytest.mark.parametrize("content", ["[]", "{", "3", '{"PATH": 3}', '{"PATH": "short"}'])
def test_a_cache_of_hashes_that_is_none_is_not_believed(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(b"1")
    first = id_of(tmp_path / "m")
    known = tmp_path / "cache" / "hashes.json"
    [key] = json.loads(known.read_text())
    known.write_text(content.replace("PATH", key))
    assert id_of(tmp_path / "m") == first
    assert len(json.loads(known.read_text())[key]) == 64


@pytest.mark.model
def test_a_folder_in_transformers_format_scores_as_its_model(
    tiny: CausalLMBundle, llm_preset: str
) -> None:
    ads = ["You won't believe this", "Parliament votes in 2025"]
    loaded = presets.load_causal_lm(llm_preset, "float32")
    assert loaded.model_id.startswith("tiny-llama@")
    assert presets.identify_causal_lm(llm_preset) == (loaded.model_id, "chatml")
    here, there = (LLMLabeler(bundle, SPEC).label(ads) for bundle in (tiny, loaded))
    np.testing.assert_array_equal(there.margin, here.margin)
    np.testing.assert_array_equal(there.vectors, here.vectors)


@pytest.mark.model
def test_a_large_models_folder_has_several_files_and_an_output_of_its_own(
    llm32: CausalLMBundle, tmp_path: Path
) -> None:
    whole = random_llama(llm32, tied=False)
    folder = save_llama(whole, tmp_path / "large-llama", files=2)
    ads = ["You won't believe this", "Parliament votes in 2025"]
    loaded = presets.load_causal_lm(folder, "float32")
    here, there = (LLMLabeler(bundle, SPEC).label(ads) for bundle in (whole, loaded))
    np.testing.assert_array_equal(there.margin, here.margin)
    # Each file's content is part of the name.
    renamed = presets.identify_causal_lm(folder)[0]
    second = Path(folder) / "model-00002-of-00002.safetensors"
    second.write_bytes(second.read_bytes()[:-1] + b"\1")
    assert presets.identify_causal_lm(folder)[0] != renamed == loaded.model_id


@pytest.mark.model
def test_tied_model_saved_by_keras_hub_itself(tiny: CausalLMBundle, tmp_path: Path) -> None:
    import keras_hub

    tiny.model.backbone.save_to_preset(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    assert "tie_word_embeddings" not in config["config"], "or the fix is no longer needed"
    fixes = presets._llama_fixes(tmp_path)
    assert fixes == {"tie_word_embeddings": True}
    loaded = keras_hub.models.Backbone.from_preset(str(tmp_path), dtype="float32", **fixes)
    for was, now in zip(tiny.model.backbone.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(was.value), np.asarray(now.value))


@pytest.mark.model
def test_an_encoders_identity_is_known_before_it_is_loaded(encoder_preset: str) -> None:
    for preset in (encoder_preset, presets.EMBEDDED_ENCODER):
        bundle = presets.load_encoder(preset)
        assert presets.identify_encoder(preset) == (bundle.model_id, bundle.normalize)
        assert encoder.identify(preset) == SentenceEncoder(bundle).embedding_id


@pytest.mark.model
def test_embedded_tokenizer_splits_digits_and_keeps_any_text(llm32: CausalLMBundle) -> None:
    tokenizer = llm32.tokenizer
    # Every digit is a token of its own in this family.
    assert len(tokenizer.encode("2025")) == 4
    assert tokenizer.bos == ()
    assert llm32.model_id.startswith("smollm2-135m-instruct@")
    assert llm32.model.backbone.layer_norm_epsilon == pytest.approx(1e-5)
    assert llm32.model.backbone.count_params() == 134_515_008
    for text in ("naïve — “quotes” 😀", "東京", "\t x"):
        ids = tokenizer.encode(text)
        assert tokenizer._plain.decode(ids) == text  # type: ignore[attr-defined]
