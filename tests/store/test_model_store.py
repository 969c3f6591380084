"""Trained models in a workspace: what is written is what is fetched, or it is refused."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import trained
from models.backends.trained import Trained
from models.training import trainer
from pipelines import handlers
from pipelines.config import parse_task
from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed
from pipelines.jobs import ingest, train
from pipelines.jobs.train import TrainOptions
from pipelines.store import files, model_store, storage
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import content_key
from pipelines.verdicts.rows import RawVerdict
from pipelines.verdicts.shown import shown_ads
from tests import helpers
from tests.engines import test_gcs

bucket = test_gcs.bucket
GOLD = helpers.gold_ads(200)
TEXTS = tuple(ad["text"] for ad in GOLD.ads)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return helpers.tiny_encoder(tmp_path_factory.mktemp("preset") / "tiny-bert")


@pytest.fixture(scope="module")
def model(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a trained head."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    labels = np.array([GOLD.positive[ad["id"]] for ad in GOLD.ads], dtype=np.int8)
    ads = trainer.LabelledAds(tuple(map(content_key, TEXTS)), TEXTS, labels)
    settings = trainer.TrainingSettings("head", encoder, dtype="float32", max_ad_tokens=20)
    trainer.train(ads, settings, folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def commit(place: Workspace, folder: Path, number: int = 1, version: int = 1) -> Manifest:
    """Commit a model as training does, with a report beside it."""
    attempt = place.new_attempt(number, "model")
    own = model_store.store(place, attempt, folder)
    report = files.write(place.root, f"{attempt}/evaluation.json", b"{}")
    facts = helpers.model_facts(version=version)
    manifest = Manifest.of(attempt, f"hash of round {number}", [*own, report], 200, facts)
    place.commit(manifest)
    return manifest


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_stored_is_what_is_fetched(model: Path, tmp_path: Path) -> None:
    place = Workspace(str(tmp_path / "w"))
    manifest = commit(place, model)
    own = model_store.model_files(manifest)
    assert [Path(file.path).name for file in own] == ["head.safetensors", "model.json"]
    for file in own:
        data = (model / Path(file.path).name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), files.sha256(data))
    folder = model_store.fetch(place, model_store.model_files(manifest))
    assert content(folder) == content(model)
    assert folder.is_relative_to(tmp_path / "w"), "nothing is copied from local disk"
    texts = TEXTS[:7]
    np.testing.assert_array_equal(
        Trained(folder).load().margins(texts), Trained(model).load().margins(texts)
    )


def test_an_evaluation_without_training_keeps_the_older_files(model: Path, tmp_path: Path) -> None:
    place = Workspace(str(tmp_path / "w"))
    first = commit(place, model)
    again = replace(
        first,
        attempt=place.new_attempt(1, "model"),
        files=(*model_store.model_files(first), BlockFile("x/y/z/a/evaluation.json", 1, 2, "")),
    )
    assert model_store.model_files(again) == model_store.model_files(first)


def test_a_manifest_without_a_model_is_refused(model: Path, tmp_path: Path) -> None:
    place = Workspace(str(tmp_path / "w"))
    manifest = commit(place, model)
    bare = replace(manifest, files=manifest.files[-1:])
    with pytest.raises(RunFailed, match=r"manifest\.json: lists no model; train again"):
        model_store.model_files(bare)
    assert not model_store.is_whole(place, bare)


@pytest.mark.parametrize("name", ["head.safetensors", "model.json"])
def test_a_damaged_local_model_is_refused(name: str, model: Path, tmp_path: Path) -> None:
    place = Workspace(str(tmp_path / "w"))
    manifest = commit(place, model)
    task = parse_task(helpers.FAKE_TASK, "task.yaml")
    own = model_store.model_files(manifest)
    path = model_store.fetch(place, own) / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RunFailed, match=rf"{name}: has changed since it was written .*train again"):
        handlers.load_trained(place, task, own)
    path.unlink()
    with pytest.raises(RunFailed, match=rf"{name}: is gone; restore it or train again"):
        handlers.load_trained(place, task, own)


def test_each_rounds_newest_model_of_one_policy_version(model: Path, tmp_path: Path) -> None:
    place = Workspace(str(tmp_path / "w"))
    commit(place, model, 1)
    newest = commit(place, model, 1)
    second = commit(place, model, 2)
    other = commit(place, model, 3, version=2)
    attempts = [m.attempt for m in model_store.models(place, 1)]
    assert attempts == [newest.attempt, second.attempt]
    assert [m.attempt for m in model_store.models(place, 2)] == [other.attempt]
    assert [m.attempt for m in model_store.models(place, 1, before_round=2)] == [newest.attempt]
    assert model_store.models(place, 3) == []


def test_from_object_storage_it_is_copied_once(
    bucket: str, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Workspace(f"{bucket}/w")
    manifest = commit(place, model)
    folder = model_store.fetch(place, model_store.model_files(manifest))
    assert content(folder) == content(model), "and no report among its files"
    assert folder.parent == cache / "trained"

    read = storage.read

    def no_read(path: str) -> bytes:
        assert storage.is_local(path), f"read {path} again"
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read", no_read)
        assert model_store.fetch(place, model_store.model_files(manifest)) == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: storage.write(path, b"other"),
            r"has changed since it was written \(5 bytes, .*; restore ",
        ),
        (None, "is gone; restore it or train again"),
    ],
)
def test_a_damaged_remote_model_is_refused(
    damage: Any, message: str, bucket: str, model: Path, cache: Path
) -> None:
    place = Workspace(f"{bucket}/w")
    manifest = commit(place, model)
    path = manifest.files[0].path
    if damage:
        damage(place.path(path))
    else:
        manifest = replace(
            manifest, files=(replace(manifest.files[0], path=path + "x"), *manifest.files[1:])
        )
    with pytest.raises(RunFailed, match=rf"gs://.*head\.safetensors\w?: {message}"):
        model_store.fetch(place, model_store.model_files(manifest))
    assert list((cache / "trained").iterdir()) == [], "nothing half-copied is left"


@pytest.mark.parametrize("another", [True, False])
def test_two_workers_fetch_at_once(
    another: bool, bucket: str, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Workspace(f"{bucket}/w")
    manifest = commit(place, model)

    def replace_late(source: Any, target: Any) -> None:
        if another:
            shutil.copytree(model, target)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(os, "replace", replace_late)
    if not another:
        # Not a race but a broken disk.
        with pytest.raises(OSError, match="Directory not empty"):
            model_store.fetch(place, model_store.model_files(manifest))
        assert list((cache / "trained").iterdir()) == []
        return
    folder = model_store.fetch(place, model_store.model_files(manifest))
    assert content(folder) == content(model)
    assert list((cache / "trained").iterdir()) == [folder]


def test_a_round_on_object_storage(bucket: str, encoder: str, cache: Path, tmp_path: Path) -> None:
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", GOLD.ads)
    task = helpers.write_task(tmp_path, helpers.head_task(encoder))
    root = f"{bucket}/w"
    helpers.run(task, corpus, root)  # type: ignore[arg-type]
    place = Workspace(root)
    names = {True: "positive", False: "negative"}
    rows = [
        RawVerdict(ad.ad_id, "", "", "", names[GOLD.positive[ad.ad_id]], expert, "", "", "", "r 1")
        for ad in shown_ads(place).ads()
        for expert in ("anna", "bo")
    ]
    ingest.ingest_verdicts(place, rows)
    summary = train.train(TrainOptions(root), lambda line: None).to_json()
    assert summary["model"].startswith("gs://")
    assert summary["evaluation"]["models"][1]["kappa"]["value"] > 0.6
    mined = helpers.run(task, corpus, root)  # type: ignore[arg-type]
    assert (mined.round, mined.scored_now) == (2, 200)
    assert mined.model_id.startswith(summary["model_id"])
    [copied] = (cache / "trained").iterdir()
    assert trained.read_manifest(copied).model_id == summary["model_id"]


@pytest.mark.parametrize("name", ["head.safetensors", "model.json"])
def test_a_byte_that_has_changed_is_noticed(name: str, model: Path, tmp_path: Path) -> None:
    place = Workspace(str(tmp_path / "w"))
    own = model_store.model_files(commit(place, model))
    path = model_store.fetch(place, own) / name
    data = bytearray(path.read_bytes())
    # Weights, or a threshold: a model all the same, and another one.
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(files.Damaged, match=rf"{name}: has changed .*its SHA-256 is another"):
        model_store.fetch(place, own)


def test_a_copy_that_was_damaged_is_fetched_again(bucket: str, model: Path, cache: Path) -> None:
    place = Workspace(f"{bucket}/w")
    own = model_store.model_files(commit(place, model))
    folder = model_store.fetch(place, own)
    for damage in (
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.unlink(),
    ):
        damage(folder / "head.safetensors")
        assert content(model_store.fetch(place, own)) == content(model)


@pytest.mark.parametrize(
    "outward", ["../../x", "/x", "a/../../../x", "a//x", "./x", "C:/x", "..\\x", "gs://other/x"]
)
def test_no_manifest_leads_out_of_the_cache(
    outward: str, bucket: str, model: Path, cache: Path, tmp_path: Path
) -> None:
    place = Workspace(f"{bucket}/w")
    first, *own = model_store.model_files(commit(place, model))
    path = f"{first.path.rpartition('/')[0]}/{outward}"
    # What a hostile writer of the bucket would have put there.
    from apache_beam.io.gcp.gcsio import GcsIO
    from google.cloud.storage.exceptions import InvalidResponse

    # (The emulator takes no name that leads upwards.)
    with contextlib.suppress(InvalidResponse), GcsIO().open(f"{bucket}/w/{path}", "w") as sink:
        sink.write(b"owned")
    hostile = BlockFile(path, 1, 5, files.sha256(b"owned"))
    before = {found for found in tmp_path.rglob("*") if found.name == "x"}
    with pytest.raises(RunFailed, match="which is no place inside; it was changed by other means"):
        model_store.fetch(place, [first, hostile, *own])
    assert {found for found in tmp_path.rglob("*") if found.name == "x"} == before
