"""OpenVINO's pass against Keras's on the same weights, and what its results may depend on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models import embedded
from models.backends import openvino_llm
from models.backends.base import BackendError, LabelerSpec
from models.backends.keras_llm import KerasLLM, LLMLabeler
from models.backends.openvino_llm import OpenVINOLabeler, OpenVINOLLM
from models.committee import FORMS, prompt_of
from models.presets import CausalLMBundle
from tests.models.backends.test_keras_llm import ADS, COMPLETION
from tests.models.conftest import random_llama, save_llama
from tests.models.training.ads import PROMPT

pytestmark = pytest.mark.model

TEXTS = [
    "win a free prize today",
    "the museum near the library",
    "",
    "secret <|im_end|> report",
    "a " * 30,
]


def spec_of(preset: str, dtype: str = "float32") -> LabelerSpec:
    return LabelerSpec(preset, PROMPT, "llm", dtype, 24)


def test_it_says_what_keras_says_of_the_same_folder(llm_preset: str) -> None:
    labeler, keras = OpenVINOLLM(spec_of(llm_preset)).load(), KerasLLM(spec_of(llm_preset)).load()
    found, expected = labeler.label(TEXTS), keras.label(TEXTS)
    np.testing.assert_allclose(labeler.answers(TEXTS), keras.answers(TEXTS), atol=1e-3)
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=5e-3, rtol=2e-3)
    np.testing.assert_array_equal(found.n_tokens, expected.n_tokens)
    np.testing.assert_array_equal(found.truncated, expected.truncated)
    assert np.isnan(found.margin).tolist() == [False, False, True, False, False]


def test_prompts_asked_side_by_side_do_not_see_one_another(
    llm_preset: str, encoder_preset: str
) -> None:
    prompts = [prompt_of(form, PROMPT) for form in FORMS[:4]]
    found, near = OpenVINOLLM(spec_of(llm_preset)).pilot(prompts, encoder_preset, TEXTS)
    expected, near_expected = KerasLLM(spec_of(llm_preset)).pilot(prompts, encoder_preset, TEXTS)
    assert found.shape == (5, 4)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_array_equal(near, near_expected)


def test_weights_in_several_files_of_bfloat16_with_an_output_matrix(
    llm32: CausalLMBundle, tmp_path: Path
) -> None:
    folder = Path(save_llama(random_llama(llm32, tied=False), tmp_path / "untied", files=3))
    for path in folder.glob("*.safetensors"):
        halves = {name: v.astype(ml_dtypes.bfloat16) for name, v in load_file(path).items()}
        save_file(halves, path, metadata={"format": "pt"})
    found = OpenVINOLLM(spec_of(str(folder))).load().answers(TEXTS)
    expected = KerasLLM(spec_of(str(folder))).load().answers(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.fixture(scope="module")
def low() -> OpenVINOLabeler:
    spec = LabelerSpec(embedded.EMBEDDED_LLM, COMPLETION, "llm", "bfloat16")
    return OpenVINOLLM(spec).load()


def test_bfloat16_ranks_as_float32_does(low: OpenVINOLabeler, llm32: CausalLMBundle) -> None:
    full, found = LLMLabeler(llm32, COMPLETION).label(ADS), low.label(ADS)
    assert np.corrcoef(found.margin, full.margin)[0, 1] > 0.99
    np.testing.assert_allclose(found.margin, full.margin, atol=0.3)
    a, b = found.vectors.astype(np.float32), full.vectors.astype(np.float32)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.999


def test_in_bfloat16_too_an_ad_depends_on_itself_alone(low: OpenVINOLabeler) -> None:
    together = low.label(ADS)
    for place in (1, 6, 15):
        # Many copies fill whole batches, so that the ad sits in every row.
        copies = low.label([ADS[place]] * 70)
        assert set(copies.margin) == {together.margin[place]}
        assert (copies.vectors == together.vectors[place]).all()
    beside = low.label(["a much longer one, " * 30, *ADS[::-1]])
    np.testing.assert_array_equal(beside.margin[:0:-1], together.margin)
    np.testing.assert_array_equal(beside.vectors[:0:-1], together.vectors)


def test_its_scores_have_a_name_of_their_own_with_the_precision_they_were_made_in(
    llm_preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras = KerasLLM(spec_of(llm_preset)).identify()
    own = OpenVINOLLM(spec_of(llm_preset)).identify()
    assert own.model_id == f"openvino:{keras.model_id}"
    assert own.prompt_hash == keras.prompt_hash and own.embedding_id != keras.embedding_id
    wanted = OpenVINOLLM(spec_of(llm_preset, "bfloat16"))
    for capabilities, precision in ((("FP32", "BF16"), "bfloat16"), (("FP32",), "float32")):
        monkeypatch.setattr(openvino_llm, "_capabilities", lambda given=capabilities: given)
        assert wanted.identify().model_id == own.model_id.replace("float32", precision)
    # And so they are made.
    labeler = wanted.load()
    assert labeler.identity == wanted.identify()
    np.testing.assert_array_equal(
        labeler.label(TEXTS).margin, OpenVINOLLM(spec_of(llm_preset)).load().label(TEXTS).margin
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "qwen2"),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
    ],
)
def test_what_the_graph_does_not_compute_is_refused(
    key: str, value: object, llm_preset: str, tmp_path: Path
) -> None:
    config = json.loads((Path(llm_preset) / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}), encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    shown = "'llama3'" if key == "rope_scaling" else repr(value)
    with pytest.raises(BackendError, match=rf"config\.json: {key} is {shown}.*backend to keras"):
        OpenVINOLLM(spec_of(str(tmp_path))).identify()


@pytest.mark.parametrize("preset", ["gemma3_instruct_1b", "no/such/folder"])
def test_other_presets_are_refused(preset: str) -> None:
    with pytest.raises(BackendError, match="OpenVINO takes smollm2-135m-instruct, or a folder"):
        OpenVINOLLM(spec_of(preset)).identify()


def test_a_tensor_that_is_not_there_is_named(llm_preset: str, tmp_path: Path) -> None:
    for path in Path(llm_preset).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BackendError, match=r"no file of it holds .*layers\.1\.mlp\.up_proj"):
        OpenVINOLLM(spec_of(str(tmp_path))).load()


def test_neither_tensorflow_nor_keras_is_loaded(llm_preset: str) -> None:
    code = (
        "import sys\n"
        "from models.backends.base import LabelerSpec\n"
        "from models.backends.openvino_llm import OpenVINOLLM\n"
        "from models.prompting import PromptSpec\n"
        "prompt = PromptSpec(policy='No prizes.', question='Prize?')\n"
        "spec = LabelerSpec(sys.argv[1], prompt, 'llm', 'float32', 24)\n"
        "print(OpenVINOLLM(spec).load().margins(['win a prize'])[0])\n"
        "assert not {'tensorflow', 'keras', 'keras_hub'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, llm_preset], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert np.isfinite(float(done.stdout))
