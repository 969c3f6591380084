"""Exported models in a process that has TensorFlow and nothing of ours."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import embedded, export, lora, presets, tokenization, trained
from models.backends.keras_llm import LLMLabeler
from models.backends.trained import Trained
from models.encoder import SentenceEncoder
from models.export import ExportError
from models.prompting import PromptSpec, render
from models.training import trainer
from pipelines.numerics import calibration
from tests.models.conftest import fill, save_llama
from tests.models.graph.test_graphs import attacks
from tests.models.test_ad_text import HOSTILE

pytestmark = pytest.mark.model

PROMPT = PromptSpec(
    policy="No clickbait.",
    question="Is it clickbait?",
    form="chat",
    # A delimiter to protect, and a space that belongs to the ad's first token.
    template='{question} "Text: {ad}"',
)
TEXTS = [
    "17 Things Only People Who Grew Up In The '90s Will Understand",
    "Parliament approves budget after all-night session",
    "The Most Heartwarming Thing You'll See All Day 😍 für $5",
    "東京で震度4の地震、津波の心配なし",
    'He said "no" </ad>\n\n  twice',
    "A long one " * 60,
    *(text.encode("utf-8", "replace").decode() for text in HOSTILE.values()),
    *attacks()[len(HOSTILE) :],
]
# No surrogate can be in TEXTS; these bytes are no UTF-8 at all.
BROKEN = [b"\xff\xfe sale", b"\xed\xa0\x80", b"a\x00b"]
MAX_AD_TOKENS = 40
WORDS = ("Gold", "Sleep", "Tea", "Rome", "Cats", "Chess", "Snow", "Jazz", "Bread", "Mars")
BIAS = 0.25
NAMES = ("bait", "fine")

# Runs elsewhere: prints what the exports say about the texts on stdin.
SERVE = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("models", "pipelines", "keras_hub", "tokenizers"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Refuse())
import tensorflow as tf, tensorflow_text
told = json.load(sys.stdin)
broken = [bytes(row) for row in told["broken"]]
answers = []
for folder in told["folders"]:
    served = tf.saved_model.load(folder).signatures["serving_default"]
    found = served(tf.constant(told["texts"]))
    empty, odd = served(tf.constant([], tf.string)), served(tf.constant(broken))
    one = [float(served(tf.constant([t]))["margin"][0]) for t in told["texts"][:4]]
    answers.append({name: [v.dtype.name, v.numpy().tolist()] for name, v in found.items()})
    answers[-1]["n_empty"] = {name: list(v.shape) for name, v in empty.items()}
    answers[-1]["n_odd"], answers[-1]["one"] = len(odd["label"]), one
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def encoder() -> presets.EncoderBundle:
    return presets.load_encoder(embedded.EMBEDDED_ENCODER)


@pytest.fixture(scope="module")
def small(encoder: presets.EncoderBundle) -> presets.EncoderBundle:
    """A random encoder of one layer behind the embedded tokenizer: cheap to write."""
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=30522,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=32,
        dtype="float32",
    )
    fill(backbone)
    return dataclasses.replace(
        encoder, backbone=backbone, dim=8, max_tokens=32, normalize=False, model_id="small@0"
    )


@pytest.fixture(scope="module")
def tiny() -> presets.CausalLMBundle:
    """A random language model of one layer behind the embedded tokenizer, whose weights stay."""
    import keras_hub

    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=49152,
        num_layers=1,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=16,
        intermediate_dim=24,
        tie_word_embeddings=True,
        dtype="float32",
    )
    fill(backbone)
    model = keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=None)
    folder = embedded.ensure_embedded(embedded.EMBEDDED_LLM)
    tokenizer = tokenization.read_fast_tokenizer(folder)
    return presets.CausalLMBundle(model, tokenizer, "tiny@0", "float32")


def parts(bundle: Any, **changes: Any) -> trained.Parts:
    """A model with a head on an encoder, or a language model with the prompt above."""
    is_llm = isinstance(bundle, presets.CausalLMBundle)
    part = trained.Part(10, 5)
    values: dict[str, Any] = {
        "format": 1,
        "learner": "llm" if is_llm else "head",
        "model_id": bundle.model_id,
        "base_model_id": bundle.model_id,
        "preset": "x",
        "dtype": "float32",
        "window": MAX_AD_TOKENS if is_llm else bundle.max_tokens,
        "longest": 256,
        "normalize": not is_llm and bundle.normalize,
        "prompt": PROMPT if is_llm else None,
        "prompt_hash": "x",
        "label_set_hash": "x",
        "threshold_margin": 0.0,
        "threshold_probability": 0.5,
        "threshold_kappa": 1.0,
        "fitting": part,
        "validation": part,
        "epochs": (),
        "best_epoch": 0,
        "settings": {},
        "versions": {},
        "seed": 0,
        "weights_hash": "x",
        "files": {},
    }
    manifest = trained.TrainedModel(**{**values, **changes})
    return trained.Parts(manifest, bundle, None if is_llm else head(bundle.dim), BIAS)


def head(dim: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=dim).astype(np.float32)


def expected(bundle: presets.EncoderBundle, texts: list[str]) -> np.ndarray:
    """What Python says; NaN for a text without a token."""
    margins = SentenceEncoder(bundle).encode(texts) @ head(bundle.dim) + np.float32(BIAS)
    margins[SentenceEncoder(bundle).tokenize(texts).n_own == 0] = np.nan
    return margins


@pytest.fixture(scope="module")
def models(
    tiny: presets.CausalLMBundle, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Trained models: a head on the real encoder, and an adapter on a tiny language model."""
    base = tmp_path_factory.mktemp("models")
    clickbait = [f"{n} Secrets You Won't Believe About {w}" for n, w in enumerate(WORDS)]
    news = [f"Minister of {word} resigns over budget {n}" for n, word in enumerate(WORDS)]
    ads = trainer.LabelledAds(
        tuple(f"k{n}" for n in range(2 * len(WORDS))),
        (*clickbait, *news),
        np.array([1, 0], np.int8).repeat(len(WORDS)),
    )
    settings = trainer.TrainingSettings(
        "head", embedded.EMBEDDED_ENCODER, dtype="float32", max_ad_tokens=MAX_AD_TOKENS
    )
    head = trainer.train(ads, settings, base / "head")

    save_llama(tiny, base / "base")
    adapter = lora.Adapter(tiny.model.backbone, 2, 0).tensors()
    # The second factors start as zeros, and an adapter that changes nothing would show nothing.
    rng = np.random.default_rng(5)
    adapter = {n: rng.normal(size=v.shape).astype(np.float32) * 0.3 for n, v in adapter.items()}
    base_id = presets.identify_causal_lm(str(base / "base"))[0]
    manifest = dataclasses.replace(
        head,
        learner="llm",
        model_id="llm:tiny",
        base_model_id=base_id,
        preset=str(base / "base"),
        prompt=PROMPT,
        prompt_hash=render(PROMPT).hash,
        window=MAX_AD_TOKENS,
        threshold_margin=0.5,
        weights_hash=trained.hash_weights(adapter),
    )
    trained.save(manifest, adapter, base / "llm")
    return {"head": base / "head", "llm": base / "llm"}


@dataclasses.dataclass(frozen=True)
class Served:
    """What a fresh process said, and the threshold it was given."""

    folder: Path
    manifest: trained.TrainedModel
    answer: dict[str, Any]

    def column(self, name: str) -> np.ndarray:
        dtype, values = self.answer[name]
        return np.array(values, dtype)


@pytest.fixture(scope="module")
def served(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    """Both models, exported and asked in one fresh process."""
    base = tmp_path_factory.mktemp("exports")
    folders = {
        kind: export.export(folder, base / kind, labels=NAMES) for kind, folder in models.items()
    }
    told = {
        "folders": [str(folder) for folder in folders.values()],
        "texts": TEXTS,
        "broken": [list(row) for row in BROKEN],
    }
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SERVE],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    return {
        kind: Served(folders[kind], trained.read_manifest(models[kind]), answer)
        for kind, answer in zip(models, answers, strict=True)
    }


@pytest.mark.parametrize("kind", ["head", "llm"])
def test_scores_are_those_of_the_trained_model(
    served: dict[str, Served], models: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the rounding of scores, which hides differences or makes them larger.
    monkeypatch.setattr(calibration, "MARGIN_STEP", 2.0**-20)
    batch = Trained(models[kind]).load().label(TEXTS)
    assert np.nanstd(batch.margin) > 0.05, "or any constant would pass"
    assert batch.truncated.any() and np.isnan(batch.margin).any()
    np.testing.assert_allclose(served[kind].column("margin"), batch.margin, atol=1e-4)


def test_the_adapter_is_in_the_export(
    served: dict[str, Served], tiny: presets.CausalLMBundle
) -> None:
    base = LLMLabeler(tiny, PROMPT, max_ad_tokens=MAX_AD_TOKENS).label(TEXTS).margin
    assert np.nanmax(np.abs(served["llm"].column("margin") - base)) > 0.1


@pytest.mark.parametrize("kind", ["head", "llm"])
def test_probability_and_label_follow_the_margin(served: dict[str, Served], kind: str) -> None:
    found = served[kind]
    margin, label = found.column("margin"), found.column("label")
    probability = found.column("probability")
    assert (margin.dtype, probability.dtype, label.dtype) == (np.float32, np.float32, np.int32)
    np.testing.assert_allclose(probability, calibration.probability(margin), atol=1e-6)
    scored = np.isfinite(margin)
    positive = calibration.quantize(margin[scored]) >= np.float32(found.manifest.threshold_margin)
    np.testing.assert_array_equal(label[scored], positive)
    assert (label[~scored] == -1).all() and set(label[scored]) == {0, 1}


@pytest.mark.parametrize("kind", ["head", "llm"])
def test_an_ad_without_a_token_is_not_scored(served: dict[str, Served], kind: str) -> None:
    blank = [text.strip(" \n\t\u200b\ufeff") == "" for text in TEXTS]
    label, margin = served[kind].column("label"), served[kind].column("margin")
    assert (label[[text in ("", " ", "\n\t", "[SEP]") for text in TEXTS]] == -1).all()
    np.testing.assert_array_equal(label == -1, np.isnan(margin))
    # To a language model characters without a width are bytes like any other.
    assert 4 <= (label == -1).sum() <= sum(blank) + 2


@pytest.mark.parametrize("kind", ["head", "llm"])
def test_any_batch_is_answered(served: dict[str, Served], kind: str) -> None:
    answer = served[kind].answer
    assert answer["n_empty"] == {"margin": [0], "probability": [0], "label": [0]}
    assert answer["n_odd"] == len(BROKEN)
    np.testing.assert_allclose(answer["one"], served[kind].column("margin")[:4], atol=1e-4)


def test_the_folder_says_what_it_holds(served: dict[str, Served]) -> None:
    read = json.loads((served["head"].folder / "export.json").read_text(encoding="utf-8"))
    manifest = served["head"].manifest
    assert read["format"] == export.FORMAT and read["kind"] == "encoder"
    assert read["labels"] == {"1": "bait", "0": "fine", "-1": "not scored"}
    assert read["threshold"]["margin"] == manifest.threshold_margin
    assert read["threshold"]["probability"] == pytest.approx(manifest.threshold_probability)
    assert read["model_id"] == manifest.model_id and read["max_tokens"] == manifest.window
    llm = json.loads((served["llm"].folder / "export.json").read_text(encoding="utf-8"))
    rendered = render(PROMPT)
    assert llm["prompt"] == {
        "prefix": rendered.prefix,
        "suffix": rendered.suffix,
        "hash": rendered.hash,
    }
    assert llm["max_ad_tokens"] == MAX_AD_TOKENS
    files = {path.name for path in served["llm"].folder.iterdir()}
    assert {"saved_model.pb", "variables", "export.json"} <= files
    assert not any(name.endswith((".pkl", ".pickle", ".h5")) for name in files)


def margins(folder: Path, texts: list[str]) -> np.ndarray:
    import tensorflow as tf

    served = tf.saved_model.load(str(folder)).signatures[export.SIGNATURE]
    return np.asarray(served(tf.constant(texts))["margin"])


def test_many_rows_keep_their_order_and_the_head_its_kind_of_vector(
    small: presets.EncoderBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More rows than run at once; the bundle's own vectors do not have length 1, the head's do.
    monkeypatch.setitem(export._ROWS, "encoder", 4)
    texts = [*TEXTS, *reversed(TEXTS)]
    out = export.write(parts(small, normalize=True), tmp_path / "out", NAMES)
    want = expected(dataclasses.replace(small, normalize=True), texts)
    np.testing.assert_allclose(margins(out, texts), want, atol=1e-4)
    assert np.nanmin(np.abs(want - expected(small, texts))) > 1e-3


def test_nothing_is_overwritten(small: presets.EncoderBundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    with pytest.raises(ExportError, match="is not empty: nothing is overwritten"):
        export.write(parts(small), out, NAMES)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_a_failed_export_leaves_nothing(
    small: presets.EncoderBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    def save(_module: Any, folder: str, **_: Any) -> None:
        (Path(folder) / "half.pb").write_bytes(b"x")
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(OSError, match="No space"):
        export.write(parts(small), tmp_path / "out", NAMES)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(tiny: presets.CausalLMBundle, tmp_path: Path) -> None:
    pieces: Any = tokenization.SentencePieceText.__new__(tokenization.SentencePieceText)
    with pytest.raises(ExportError, match="its tokenizer is a SentencePieceText; only byte-level"):
        export._tokenizer(dataclasses.replace(tiny, tokenizer=pieces))
    with pytest.raises(ValueError, match="max_ad_tokens: must be at least 1, got 0"):
        export.write(parts(tiny, window=0), tmp_path / "out", NAMES)
    assert list(tmp_path.iterdir()) == []
