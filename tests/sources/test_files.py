"""Corpus files: what is listed, how they are cut, what is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import RunFailed, UsageError
from pipelines.sources import registry
from pipelines.sources.base import Listed, ReadOptions
from pipelines.sources.files import Files, file_format
from tests import helpers
from tests.sources import ADS, read, write


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.csv.gz"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, ADS * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunFailed, match=f"{name}: cannot be read to its end as"):
        read(path)
    path.write_bytes(b"this is neither")
    with pytest.raises(RunFailed, match=name):
        read(path)


def test_only_what_can_be_cut_is_cut() -> None:
    def cut(path: str) -> list[tuple[str, int, int, int]]:
        ranges = Files().ranges(Listed("files", path, 25, ""), ReadOptions(), 10)
        assert {part.place for part in ranges} == {path}
        return [(part.format, part.start, part.stop, part.bytes) for part in ranges]

    assert cut("a.jsonl") == [("jsonl", 0, 10, 10), ("jsonl", 10, 20, 10), ("jsonl", 20, 25, 5)]
    assert [part[1:] for part in cut("e.txt")] == [(0, 10, 10), (10, 20, 10), (20, 25, 5)]
    assert cut("b.jsonl.gz") == [("jsonl", 0, -1, 25)]
    assert cut("c.csv") == [("csv", 0, -1, 25)]
    assert cut("d.parquet") == [("parquet", 0, -1, 25)]


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not tell the format"):
        file_format("ads.dat")
    with pytest.raises(UsageError, match="no file matches"):
        registry.list_corpus([str(tmp_path / "*.jsonl")])
    with pytest.raises(UsageError, match=r"is a folder; give .*/\*"):
        registry.list_corpus([f"{tmp_path}/"])
    with pytest.raises(
        UsageError, match="--corpus hold://x: no source and no storage is called ho"
    ):
        registry.list_corpus(["hold://x"])


def test_every_spelling_of_a_file_is_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = helpers.write_jsonl(tmp_path / "a [1].jsonl", [{"text": "a"}])
    (tmp_path / "link.jsonl").symlink_to(one)
    (tmp_path / "folder.jsonl").mkdir()
    monkeypatch.chdir(tmp_path)
    found = registry.list_corpus(
        ["*.jsonl", "./*.jsonl", "a [1].jsonl", str(one), f"{tmp_path}/*.jsonl"]
    )
    assert [item.place for item in found] == [str(one.resolve())]
