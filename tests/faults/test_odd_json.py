"""Every JSON file that is read back, with odd values in every place: what it says, or one error with its name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models import embedded, presets, tokenization, trained
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import ingest
from pipelines.jobs.status import standing
from pipelines.simulation import play
from pipelines.store.workspace import Manifest, Workspace
from tests.faults import odd_forms, refusal
from tests.jobs.test_damaged_files import workspace

# No JSON, or nothing that any file of ours holds.
BROKEN = (b"", b"[]", b"{}", b"null", b"7", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000)


def manifests(place: Workspace) -> dict[str, Path]:
    verdicts = place.verdicts.latest(1)
    assert verdicts is not None
    found = {"pairs": place.pairs_of(1), "verdicts": verdicts}
    return {
        name: Path(place.path(f"{manifest.attempt}/manifest.json"))
        for name, manifest in found.items()
    }


@pytest.mark.parametrize("stage", ["pairs", "verdicts"])
def test_manifests(stage: str, tmp_path: Path) -> None:
    place = workspace(tmp_path)
    path = manifests(place)[stage]
    document = json.loads(path.read_bytes())
    refused = taken = 0
    for where, value, odd in odd_forms(document):
        data = json.dumps(odd).encode()
        if told := refusal(lambda data=data: Manifest.from_json(data, str(path))):
            assert told.startswith(f"{path}: "), (where, value)
            refused += 1
            continue
        taken += 1
        if taken % 20:
            continue
        # A text may be any text: what reads on says so, too, or takes it.
        path.write_bytes(data)
        with contextlib.suppress(RunFailed, UsageError):
            standing(place)
    assert refused > taken > 0


@pytest.mark.parametrize("data", BROKEN)
def test_a_manifest_that_is_none(data: bytes, tmp_path: Path) -> None:
    place = workspace(tmp_path)
    for path in manifests(place).values():
        kept = path.read_bytes()
        path.write_bytes(data)
        with pytest.raises(RunFailed) as caught:
            standing(place)
        assert caught.value.message.startswith(f"{path}: not a manifest of ad-scout")
        assert "\n" not in caught.value.message
        path.write_bytes(kept)


def _facts_of_nothing(path: Path) -> None:
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "facts": []}))


def test_facts_that_are_a_list(tmp_path: Path) -> None:
    place = workspace(tmp_path)
    path = manifests(place)["pairs"]
    _facts_of_nothing(path)
    with pytest.raises(RunFailed) as caught:
        standing(place)
    assert caught.value.message == (
        f"{path}: not a manifest of ad-scout (facts: Input should be an object); move this attempt "
        "folder away"
    )


def _tokenizer(folder: Path) -> None:
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(
        str(folder / "tokenizer.json")
    )
    tokenization.read_fast_tokenizer(folder)


def _encoder(folder: Path) -> None:
    source = presets._Source("x", str(folder), folder, True)
    presets._sentence_settings(source)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "config.json": ("{}", lambda folder: presets._resolve(str(folder), None)),
    "model.json": ("{}", trained.read_manifest),
    "tokenizer_config.json": ('{"chat_template": "x"}', _tokenizer),
    "sentence_bert_config.json": ('{"max_seq_length": 7}', _encoder),
    "modules.json": ('[{"type": "x.Normalize", "path": "2"}]', _encoder),
}


@pytest.mark.parametrize("name", READERS)
def test_files_of_models(name: str, tmp_path: Path) -> None:
    text, read = READERS[name]
    path = tmp_path / (trained.MANIFEST if name == "model.json" else name)
    odd = [json.dumps(form).encode() for *_, form in odd_forms(json.loads(text))]
    told = 0
    for data in (*BROKEN, *odd):
        path.write_bytes(data)
        if said := refusal(lambda: read(tmp_path)):
            assert str(tmp_path) in said
            told += 1
    assert told


@pytest.mark.parametrize("data", BROKEN)
def test_hashes_of_a_converted_folder(data: bytes, tmp_path: Path) -> None:
    (tmp_path / embedded._HASHES).write_bytes(data)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert str(tmp_path) in embedded._damage_of(tmp_path)


@pytest.mark.parametrize("data", BROKEN)
def test_hashes_that_are_only_a_cache(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path))
    (tmp_path / "hashes.json").write_bytes(data)
    (tmp_path / "config.json").write_text("{}")
    first = presets._files_hash([tmp_path / "config.json"])
    assert first == presets._files_hash([tmp_path / "config.json"])
    assert isinstance(json.loads((tmp_path / "hashes.json").read_text()), dict)


@pytest.mark.parametrize("data", BROKEN)
def test_names_of_experts(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_bytes(data)
    if data == b"{}":
        assert ingest.read_experts(str(path)) == {}
        return
    with pytest.raises(UsageError, match=f"^--experts {path}: "):
        ingest.read_experts(str(path))


@pytest.mark.parametrize("data", BROKEN)
def test_results_of_a_simulation(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    path.write_bytes(data)
    with pytest.raises(RunFailed, match=f"^.run failed. {path}: is damaged .*; delete it"):
        play._read_json(path, "settings", "finished")
