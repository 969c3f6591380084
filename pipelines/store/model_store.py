"""Trained models in the workspace: written after a training, fetched before a scoring."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from models.embedded import cache_dir
from pipelines.contracts import BlockFile
from pipelines.store import files, storage
from pipelines.store.facts import ModelFacts
from pipelines.store.workspace import Manifest, Workspace

FOLDER = "model"


def store(workspace: Workspace, attempt: str, folder: Path) -> list[BlockFile]:
    """Copy a trained model's folder into an attempt; returns its files for the manifest."""
    return [
        files.write(
            workspace.root,
            f"{attempt}/{FOLDER}/{source.relative_to(folder).as_posix()}",
            source.read_bytes(),
        )
        for source in sorted(path for path in folder.rglob("*") if path.is_file())
    ]


def fetch(workspace: Workspace, own: Sequence[BlockFile]) -> Path:
    """Return a local folder with a stored model; from object storage it is copied once.

    Args:
        workspace: the workspace.
        own: the model's files, as :func:`store` and :func:`model_files` return them.

    Raises:
        Damaged: a file of it is gone or has changed.
    """
    # A retraining that changed nothing but the evaluation lists the files of an older attempt.
    attempt = own[0].path.rsplit(f"/{FOLDER}/", 1)[0]
    if storage.is_local(workspace.root):
        return Path(workspace.path(f"{attempt}/{FOLDER}"))
    name = files.sha256("\n".join(sorted(file.sha256 for file in own)).encode())[:24]
    target = cache_dir() / "trained" / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}."))
    try:
        for file in own:
            place = partial / file.path.rsplit(f"/{FOLDER}/", 1)[1]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(files.read(workspace.root, file))
        try:
            os.replace(partial, target)
        except OSError:
            # Another worker of this machine was faster.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def is_whole(workspace: Workspace, manifest: Manifest[ModelFacts]) -> bool:
    """Tell whether all files of a model are there as they were written."""
    try:
        for file in model_files(manifest):
            files.read(workspace.root, file)
    except files.Damaged:
        return False
    return True


def model_files(manifest: Manifest[ModelFacts]) -> list[BlockFile]:
    """Return the files of the model itself among a manifest's.

    Raises:
        Damaged: it lists none.
    """
    # The stage has the same name: rounds/0001/model/attempt-0001-abcdef12/model/...
    own = [file for file in manifest.files if file.path.split("/")[4:5] == [FOLDER]]
    if not own:
        raise files.Damaged(f"{manifest.attempt}/manifest.json: lists no model; train again")
    return own


def models(
    workspace: Workspace, task_version: int, before_round: int = 10_000
) -> list[Manifest[ModelFacts]]:
    """Return each round's newest model for this version of the policy, oldest round first."""
    return [
        manifest
        for number, manifest in workspace.model.by_round().items()
        if number < before_round and manifest.facts.task.version == task_version
    ]
