"""Trained models: saved, reloaded in another process, scored, and refused when damaged."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models import bert, presets, trained
from models.backends.keras_llm import LLMLabeler
from models.backends.trained import EncoderLabeler, Trained
from models.embedded import sha256
from models.encoder import SentenceEncoder, VectorCache
from models.trained import TrainedModelError
from models.training import trainer
from pipelines.numerics.calibration import MARGIN_STEP
from tests.models.training.ads import make_ads, settings

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = make_ads(30, seed=9).texts
LONG = "win a free prize today " * 20


@pytest.fixture(scope="module")
def models(encoder_preset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained head and a trained encoder."""
    folder = tmp_path_factory.mktemp("models")
    for learner in ("head", "encoder"):
        trainer.train(
            make_ads(40), settings(learner, encoder_preset, max_epochs=2), folder / learner
        )
    return folder


@pytest.fixture(scope="module")
def llm_model(llm_preset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llm"
    trainer.train(make_ads(20), settings("llm", llm_preset, max_epochs=1), folder)
    return folder


def copied(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


# --- Saving and loading -----------------------------------------------------------------------


@pytest.mark.model
def test_a_fresh_process_gives_the_same_scores(models: Path, llm_model: Path) -> None:
    folders = [models / "head", models / "encoder", llm_model]
    code = (
        "import json, sys; from pathlib import Path; from models.backends.trained import Trained\n"
        "texts = json.loads(sys.argv[1])\n"
        "for folder in sys.argv[2:]:\n"
        "    print('margins', json.dumps(Trained(Path(folder)).load().margins(texts).tolist()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(TEXTS[:8]), *map(str, folders)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("margins ")]
    assert len(lines) == 3, done.stderr
    for folder, line in zip(folders, lines, strict=True):
        fresh = json.loads(line.removeprefix("margins "))
        np.testing.assert_allclose(fresh, Trained(folder).load().margins(TEXTS[:8]), atol=1e-5)
        assert len(set(fresh)) > 4


def test_files_hold_no_code(models: Path) -> None:
    for folder in (models / "head", models / "encoder"):
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert set(found) == {"model.json", trained.WEIGHTS[folder.name]}
        json.loads(found.pop("model.json"))
        (data,) = found.values()
        # safetensors: the length of a JSON header, the header, bare numbers; nothing behind.
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__")
        assert len(data) == 8 + size + max(t["data_offsets"][1] for t in header.values())
        assert {t["dtype"] for t in header.values()} == {"F32"}


def test_manifest_reads_back(models: Path) -> None:
    for learner in ("head", "encoder"):
        manifest = trained.read_manifest(models / learner)
        written = json.loads((models / learner / "model.json").read_text(encoding="utf-8"))
        assert json.loads(json.dumps(dataclasses.asdict(manifest))) == written
        assert manifest.learner == learner
        assert manifest.model_id.startswith(f"{learner}:tiny-bert@")
        assert manifest.weights_hash[:12] in manifest.model_id


def test_parts_are_all_that_a_score_is_made_of(models: Path) -> None:
    import tensorflow as tf

    for learner in ("head", "encoder"):
        parts = trained.load_parts(models / learner)
        assert isinstance(parts.bundle, presets.EncoderBundle) and parts.kernel is not None
        tokens = SentenceEncoder(parts.bundle, max_tokens=parts.manifest.window).tokenize(TEXTS)
        rows = bert.lay_out(tokens.ids, len(TEXTS), max(map(len, tokens.ids)))
        vectors = bert.plain_pool(parts.bundle.backbone, *map(tf.constant, rows)).numpy()
        margin = vectors @ parts.kernel + parts.bias
        got = Trained(models / learner).load().margins(TEXTS)
        np.testing.assert_allclose(got, margin, atol=MARGIN_STEP / 2 + 1e-4)


# --- The labeler ------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["head", "encoder"])
def test_labels_like_any_labeler(learner: str, models: Path) -> None:
    labeler = Trained(models / learner).load()
    batch = labeler.label([*TEXTS[:6], "", "\x00", LONG])
    assert batch.margin.dtype == np.float32 and batch.vectors.dtype == np.float16
    assert batch.vectors.shape == (9, 16)
    np.testing.assert_array_equal(np.isnan(batch.margin), [*[False] * 6, True, True, False])
    assert np.isnan(batch.vectors[6:8]).all() and np.isfinite(batch.vectors[:6]).all()
    np.testing.assert_array_equal(batch.truncated, [*[False] * 8, True])
    np.testing.assert_array_equal(batch.n_tokens[6:], [0, 0, 20])
    assert batch.n_tokens[0] == len(TEXTS[0].split())
    steps = batch.margin[:6] / MARGIN_STEP
    np.testing.assert_array_equal(steps, np.round(steps))
    np.testing.assert_array_equal(labeler.margins([*TEXTS[:6], "", "\x00", LONG]), batch.margin)
    empty = labeler.label([])
    assert empty.margin.shape == (0,) and empty.vectors.shape == (0, 16)
    assert labeler.margins([]).shape == (0,)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_text_depends_on_itself_alone(dtype: str, models: Path, tmp_path: Path) -> None:
    folder = copied(models / "encoder", tmp_path / "m")
    edit(folder, dtype=dtype)
    labeler = Trained(folder).load()
    together = labeler.label(TEXTS)
    turned = labeler.label(TEXTS[::-1])
    np.testing.assert_array_equal(turned.margin[::-1], together.margin)
    np.testing.assert_array_equal(turned.vectors[::-1], together.vectors)
    copies = labeler.label([TEXTS[3]] * 90)
    assert set(copies.margin) == {together.margin[3]}
    assert (copies.vectors == together.vectors[3]).all()


def test_vectors_are_the_base_encoders(models: Path, encoder_preset: str) -> None:
    base = SentenceEncoder(presets.load_encoder(encoder_preset), max_tokens=22).encode(TEXTS)
    labelers = {learner: Trained(models / learner).load() for learner in ("head", "encoder")}
    for learner, labeler in labelers.items():
        np.testing.assert_array_equal(labeler.label(TEXTS).vectors, base.astype(np.float16))
        assert Trained(models / learner).identify() == labeler.identity
    ids = {labeler.identity.embedding_id for labeler in labelers.values()}
    assert len(ids) == 1


@pytest.mark.model
def test_an_llm_is_the_labeler_it_was_before(llm_model: Path, tmp_path: Path) -> None:
    labeler = Trained(llm_model).load()
    assert isinstance(labeler, LLMLabeler)
    identity = Trained(llm_model).identify()
    assert identity == labeler.identity
    coarser = copied(llm_model, tmp_path / "m")
    edit(coarser, dtype="bfloat16")
    assert Trained(coarser).identify().model_id != identity.model_id


def test_identity_needs_no_weights(models: Path, tmp_path: Path) -> None:
    folder = copied(models / "encoder", tmp_path / "m")
    (folder / "encoder.safetensors").unlink()
    assert Trained(folder).identify() == Trained(models / "encoder").identify()


def test_cached_vectors_are_embedded_once(models: Path) -> None:
    cache = VectorCache()
    labeler = Trained(models / "head", cache=cache).load()
    assert isinstance(labeler, EncoderLabeler)
    first = labeler.margins([*TEXTS, ""])
    assert len(cache) == 31
    again = labeler.margins(["", *TEXTS[::-1]])
    assert len(cache) == 31
    np.testing.assert_array_equal(again[1:][::-1], first[:-1])
    np.testing.assert_array_equal(first, Trained(models / "head").load().margins([*TEXTS, ""]))
    assert np.isnan(first[-1]) and np.isnan(again[0])


def test_a_cached_head_learns_the_same(models: Path, encoder_preset: str, tmp_path: Path) -> None:
    cache = VectorCache()
    how = settings("head", encoder_preset)
    manifest = trainer.train(make_ads(40), how, tmp_path / "m", cache=cache)
    assert len(cache) == 40
    assert manifest.model_id == trained.read_manifest(models / "head").model_id
    Trained(tmp_path / "m", cache=cache).load().margins(make_ads(40).texts)
    assert len(cache) == 40


# --- Refusals ---------------------------------------------------------------------------------


def edit(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **changes}), encoding="utf-8")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def swap_weights(folder: Path) -> None:
    """Other weights with a file hash that fits: a mix-up, not damage."""
    path = folder / "head.safetensors"
    tensors = load_file(path)
    save_file({name: value + 1 for name, value in tensors.items()}, path)
    edit(folder, files={path.name: sha256(path)})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "model.json").unlink(), "holds no model.json.*cut short"),
        (lambda f: (f / "model.json").write_text("{"), "model.json cannot be read"),
        (lambda f: (f / "model.json").write_text("[]"), "is not a manifest"),
        (lambda f: edit(f, format=trained.FORMAT + 1), "has format 2, this version.*up to 1"),
        (lambda f: edit(f, format="x"), "format is 'x'"),
        (lambda f: edit(f, learner="tree"), "learner is 'tree'"),
        (lambda f: edit(f, fitting=3), "is not a manifest"),
        (lambda f: edit(f, base_model_id="tiny-bert@000"), "was trained from tiny-bert@000, but"),
        (lambda f: (f / "head.safetensors").unlink(), "head.safetensors is missing"),
        (lambda f: flip(f / "head.safetensors"), "head.safetensors is damaged: its SHA-256"),
        (swap_weights, "belongs to other weights"),
    ],
)
def test_refuses_a_damaged_model(spoil: object, words: str, models: Path, tmp_path: Path) -> None:
    folder = copied(models / "head", tmp_path / "m")
    trained.load_parts(folder)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(TrainedModelError, match=words):
        Trained(folder).load()


def test_a_model_from_before_tokenizers_were_part_of_an_id(models: Path, tmp_path: Path) -> None:
    folder = copied(models / "head", tmp_path / "m")
    held = trained.read_manifest(folder)
    base, _, tokenizer = held.base_model_id.rpartition("-")
    assert len(tokenizer) == 8
    edit(folder, base_model_id=base, model_id=held.model_id.replace(held.base_model_id, base))
    here, there = (Trained(path).load().margins(TEXTS) for path in (folder, models / "head"))
    assert here.tolist() == there.tolist()


def test_a_killed_save_leaves_no_model(models: Path, tmp_path: Path) -> None:
    # The manifest comes last, so weights alone are what a kill leaves.
    folder = copied(models / "head", tmp_path / "m")
    (folder / "model.json").unlink()
    with pytest.raises(TrainedModelError, match="train again"):
        Trained(folder).load().margins(TEXTS)
    with pytest.raises(FileExistsError):
        trained.make_folder(folder)


# --- A real encoder ---------------------------------------------------------------------------


@pytest.mark.model
def test_real_encoder_head(tmp_path: Path) -> None:
    ads = make_ads(40)
    how = dataclasses.replace(
        settings("head", presets.EMBEDDED_ENCODER), dtype="bfloat16", max_ad_tokens=256
    )
    manifest = trainer.train(ads, how, tmp_path / "m")
    unseen = make_ads(40, seed=2)
    called = Trained(tmp_path / "m").load().margins(unseen.texts) >= manifest.threshold_margin
    assert (called == unseen.labels).mean() > 0.85
    assert manifest.normalize and manifest.window == manifest.longest == 256
    assert Trained(tmp_path / "m").identify().embedding_id.endswith("/bfloat16/unit")
