"""Trained models in the workspace: written after a training, fetched before a scoring."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from models import locks
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
        for file in own:
            _verified(workspace.root, file)
        return Path(workspace.path(f"{attempt}/{FOLDER}"))
    name = files.sha256("\n".join(sorted(file.sha256 for file in own)).encode())[:24]
    target = cache_dir() / "trained" / name
    if _is_copy(target, own):
        return target
    # Something has damaged it.
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locks.scratch(f".{name}.", target.parent) as scratch:
        partial = scratch / FOLDER
        for file in own:
            place = Path(files.place(str(partial), _name(file)))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(files.read(workspace.root, file))
        try:
            os.replace(partial, target)
        except OSError:
            # Another worker of this machine was faster.
            if not target.is_dir():
                raise
    return target


def _verified(root: str, file: BlockFile) -> None:
    """Read a file of this machine's disk, as often as its time of change is another; raises as ``files.read``."""
    try:
        stat = os.stat(files.full_path(root, file))
    except FileNotFoundError:
        raise files.gone(root, file.path) from None
    _read_as(root, file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=256)
def _read_as(root: str, file: BlockFile, changed_ns: int, size: int) -> None:
    del changed_ns, size
    files.read(root, file)


def _name(file: BlockFile) -> str:
    """Return a file's path within its model's folder."""
    return file.path.rsplit(f"/{FOLDER}/", 1)[1]


def _is_copy(folder: Path, own: Sequence[BlockFile]) -> bool:
    """Tell whether a folder of the cache holds a model's files as they were written."""
    try:
        for file in own:
            _verified(str(folder), dataclasses.replace(file, path=_name(file)))
    except files.Damaged:
        return False
    return True


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
