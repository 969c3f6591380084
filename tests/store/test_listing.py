"""Listings in a stream: what matches, what its version says, and that nothing is held.

Of Cloud Storage: ``tests/engines/test_gcs.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from apache_beam.io.filesystem import FileMetadata, MatchResult
from apache_beam.io.filesystems import FileSystems

from pipelines.store import listing


def test_a_disk(tmp_path: Path) -> None:
    for name in ("a.csv", "b/c.csv", "b/d/e.csv", "f [1].csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"four")

    def names(pattern: str) -> list[str]:
        return sorted(os.path.relpath(found.path, tmp_path) for found in listing.matching(pattern))

    assert names(f"{tmp_path}/*.csv") == ["a.csv", "f [1].csv"]
    assert names(f"{tmp_path}/**/*.csv") == ["a.csv", "b/c.csv", "b/d/e.csv", "f [1].csv"]
    assert names(f"{tmp_path}/f [1].csv") == ["f [1].csv"]
    assert names(f"{tmp_path}/none*") == names(f"{tmp_path}/b") == []
    deep = [os.path.relpath(found.path, tmp_path) for found in listing.inside(str(tmp_path))]
    assert deep == ["a.csv", "f [1].csv", "b/c.csv", "b/d/e.csv"]
    [found] = listing.matching(f"{tmp_path}/a.csv")
    assert (found.bytes, found.content) == (4, "")
    assert found.version == listing.version_of(found.path)
    os.utime(found.path, ns=(1, 1))
    assert listing.version_of(found.path) == "1"
    assert listing.version_of(f"{tmp_path}/none") == ""


def test_a_storage_that_beam_alone_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = FileMetadata("far://b/a.csv", 7, 1.5)
    monkeypatch.setattr(
        FileSystems, "match", lambda patterns: [MatchResult(patterns[0], [metadata])]
    )
    monkeypatch.setattr(
        FileSystems, "get_filesystem", lambda path: SimpleNamespace(metadata=lambda path: metadata)
    )
    assert list(listing.matching("far://b/*")) == [listing.Stored("far://b/a.csv", 7, "1.5")]
    assert listing.version_of("far://b/a.csv") == "1.5"
