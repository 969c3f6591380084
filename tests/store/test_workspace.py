"""Manifests, attempts, and files that appear whole or not at all."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed, UsageError
from pipelines.store import storage
from pipelines.store.workspace import Manifest, Workspace, block_record, config_hash

FILE = BlockFile("rounds/0001/scored/attempt-0001-00000000/block-a.parquet", 3, 4, "ab")


def manifest(place: Workspace, stage: str = "scored", number: int = 1, hash: str = "h") -> Manifest:
    return Manifest(
        stage=stage,
        round=number,
        attempt=place.new_attempt(number, stage),
        config_hash=hash,
        files=(FILE,),
        rows=3,
        facts={"model_id": "m"},
        created="2026-11-22T00:00:00Z",
    )


def test_an_attempt_counts_only_with_its_manifest(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    first = manifest(place)
    storage.write(place.path(f"{first.attempt}/block-a.parquet"), b"1234")
    assert place.latest(1, "scored") is None
    assert place.rounds() == []
    place.commit(first)
    assert place.latest(1, "scored") == first
    assert place.rounds() == [1]


def test_attempts_are_numbered_and_found_by_their_configuration(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    written = []
    for hash in ("a", "b", "a"):
        written.append(manifest(place, hash=hash))
        place.commit(written[-1])
    assert [m.attempt.split("/")[-1][:12] for m in written] == [
        "attempt-0001",
        "attempt-0002",
        "attempt-0003",
    ]
    assert place.find(1, "scored", "a") == written[2]
    assert place.find(1, "scored", "b") == written[1]
    assert place.find(1, "scored", "c") is None
    assert place.find(2, "scored", "a") is None


def test_a_round_closes_with_its_labels(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    assert place.current_round() == 1
    place.commit(manifest(place, "review"))
    assert place.current_round() == 1
    place.commit(manifest(place, "verdicts"))
    assert place.current_round() == 2


def test_a_broken_or_newer_manifest_is_named(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    good = manifest(place)
    path = place.path(f"{good.attempt}/manifest.json")
    storage.write(path, b"{}")
    with pytest.raises(RunFailed, match=r"manifest\.json: not a manifest"):
        place.latest(1, "scored")
    storage.write(path, dataclasses.replace(good, format_version=99).to_json())
    with pytest.raises(RunFailed, match=r"newer version \(format 99"):
        place.latest(1, "scored")


def test_scored_blocks_are_those_with_a_record(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    full = place.path(FILE.path)
    storage.write(full, b"1234")
    assert place.scored_blocks("key") == []
    storage.write(full.replace(".parquet", ".json"), block_record(FILE, "key"))
    assert place.scored_blocks("key") == [FILE]
    assert place.scored_blocks("another key") == []
    storage.write(full.replace(".parquet", ".json"), b"{")
    with pytest.raises(RunFailed, match="not the record of a scored block"):
        place.scored_blocks("key")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "deep" / "file"
    storage.write(str(target), b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.write(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read(str(tmp_path / "none"))
    assert storage.match(str(tmp_path / "*")) == []
    with pytest.raises(UsageError, match="empty"):
        Workspace("")


def test_hashes_do_not_depend_on_key_order() -> None:
    assert config_hash({"a": 1, "b": [2]}) == config_hash({"b": [2], "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        config_hash({"a": float("nan")})
