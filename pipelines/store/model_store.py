"""Trained models in the workspace: written after a training, fetched before a scoring."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from models.embedded import cache_dir
from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed
from pipelines.store import blocks, storage
from pipelines.store.workspace import Manifest, Workspace

FOLDER = "model"


def store(workspace: Workspace, attempt: str, folder: Path) -> tuple[BlockFile, ...]:
    """Copy a trained model's folder into an attempt; returns its files for the manifest."""
    files = []
    for source in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = source.read_bytes()
        path = f"{attempt}/{FOLDER}/{source.relative_to(folder).as_posix()}"
        storage.write(workspace.path(path), data)
        files.append(BlockFile(path, 1, len(data), blocks.sha256(data)))
    return tuple(files)


def fetch(workspace: Workspace, manifest: Manifest) -> Path:
    """Return a local folder with a committed model; from object storage it is copied once.

    Raises:
        RunFailed: a file of it is gone or has changed.
    """
    files = model_files(manifest)
    if not files:
        raise RunFailed(
            f"{workspace.path(manifest.attempt)}/manifest.json: lists no model; train again"
        )
    # A retraining that changed nothing but the evaluation lists the files of an older attempt.
    attempt = files[0].path.rsplit(f"/{FOLDER}/", 1)[0]
    if storage.is_local(workspace.root):
        return Path(workspace.path(f"{attempt}/{FOLDER}"))
    name = blocks.sha256("\n".join(sorted(file.sha256 for file in files)).encode())[:24]
    target = cache_dir() / "trained" / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}."))
    try:
        for file in files:
            try:
                data = storage.read(workspace.path(file.path))
            except FileNotFoundError:
                raise RunFailed(
                    f"{workspace.path(file.path)}: is gone; restore it or train again"
                ) from None
            if blocks.sha256(data) != file.sha256:
                raise RunFailed(
                    f"{workspace.path(file.path)}: has changed since it was written; restore it "
                    "or train again"
                )
            place = partial / file.path.rsplit(f"/{FOLDER}/", 1)[1]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        try:
            os.replace(partial, target)
        except OSError:
            # Another worker of this machine was faster.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def is_whole(workspace: Workspace, manifest: Manifest) -> bool:
    """Tell whether all files of a model are there as they were written."""
    for file in model_files(manifest):
        try:
            if blocks.sha256(storage.read(workspace.path(file.path))) != file.sha256:
                return False
        except FileNotFoundError:
            return False
    return True


def model_files(manifest: Manifest) -> list[BlockFile]:
    """Return the files of the model itself among a manifest's."""
    # The stage has the same name: rounds/0001/model/attempt-0001-abcdef12/model/...
    return [file for file in manifest.files if file.path.split("/")[4:5] == [FOLDER]]


def models(workspace: Workspace, task_version: int, before_round: int = 10_000) -> list[Manifest]:
    """Return each round's newest model for this version of the policy, oldest round first."""
    found = []
    for number in workspace.rounds():
        manifest = workspace.latest(number, "model") if number < before_round else None
        if manifest and manifest.facts["task_version"] == task_version:
            found.append(manifest)
    return found
