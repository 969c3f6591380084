"""Corpus files: what is listed, how they are cut, what is damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipelines.errors import RunFailed, UsageError
from pipelines.sources import registry
from pipelines.sources.base import Listed, ReadOptions
from pipelines.sources.files import Files
from tests import helpers
from tests.sources import ADS, read, write


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.csv.gz"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, ADS * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunFailed, match=f"{name}: cannot be read to its end as"):
        read(path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"this is neither")
    with pytest.raises(RunFailed, match=r"a.parquet: cannot be read to its end as parquet"):
        read(path)


def test_only_what_can_be_cut_is_cut(tmp_path: Path) -> None:
    def cut(name: str, data: bytes) -> list[tuple[str, int, int, int]]:
        path = str(tmp_path / name)
        Path(path).write_bytes(data)
        ranges = Files().ranges(Listed("files", path, len(data), ""), ReadOptions(), 10)
        assert {part.place for part in ranges} == {path}
        return [(part.format, part.start, part.stop, part.bytes) for part in ranges]

    line = b'{"text": "twenty-five"}\r\n'
    in_three = [(0, 10, 10), (10, 20, 10), (20, 25, 5)]
    assert cut("a.jsonl", line) == [("jsonl", *part) for part in in_three]
    assert [part[1:] for part in cut("e.txt", b"caf\xe9 au lait, tr\xe8s bon!\r\n")] == in_three
    packed = gzip.compress(line)
    assert cut("b.jsonl.gz", packed) == [("jsonl", 0, -1, len(packed))]
    # What a file is called does not decide whether it is packed.
    assert cut("b.jsonl", packed) == [("jsonl", 0, -1, len(packed))]
    assert cut("b2.jsonl.gz", line) == [("jsonl", *part) for part in in_three]
    assert cut("c.csv", b"text\n" * 5) == [("csv", 0, -1, 25)]
    assert cut("d.parquet", b"x" * 25) == [("parquet", 0, -1, 25)]
    assert cut("f.txt", "an ad a line\n".encode("utf-16")) == [("text", 0, -1, 28)]
    assert cut("g.json", b'[{"text": "an array"}    ]') == [("json", 0, -1, 26)]


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "ads.dat").write_text("an ad")
    with pytest.raises(UsageError, match="does not tell the format; give --format, one of jsonl"):
        read(tmp_path / "ads.dat")
    with pytest.raises(UsageError, match="no file matches"):
        registry.list_corpus([str(tmp_path / "*.jsonl")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no file matches"):
        registry.list_corpus([f"{tmp_path}/empty"])
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
