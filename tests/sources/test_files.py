"""Corpus files: what is listed, how they are cut, what is damaged."""

from __future__ import annotations

import dataclasses
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import RunFailed, UsageError
from pipelines.sources import registry
from pipelines.sources.base import Listed, ReadOptions
from pipelines.sources.files import Files
from pipelines.sources.survey import survey
from tests import helpers
from tests.sources import ADS, parts, read, write


def listed(*patterns: str) -> list[Listed]:
    return list(registry.each(patterns))


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
        item = Listed("files", path, len(data), "")
        found = list(Files().ranges(item, ReadOptions(), 10))
        ranges = [part for one in found for part in Files().cut(one, ReadOptions(), 10)]
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
    # Rows of at least ten bytes a part; what follows the last line end is none.
    in_two = [("csv", 0, 11, 11), ("csv", 11, 22, 11)]
    assert cut("c.csv", b'text\n"a\nb"\nlonger row\n'[:22]) == in_two
    assert cut("c2.csv", b'text\n5" screens\nlonger\n') == [("csv", 0, -1, 23)]
    assert cut("c.csv.gz", gzip.compress(b"text\n" * 5))[0][1:3] == (0, -1)
    assert cut("d.parquet", b"x" * 25) == [("parquet", 0, -1, 25)]
    assert cut("f.txt", "an ad a line\n".encode("utf-16")) == [("text", 0, -1, 28)]
    assert cut("h.csv", "text\nan ad a row\n".encode("utf-16")) == [("csv", 0, -1, 36)]
    assert cut("g.json", b'[{"text": "an array"}    ]') == [("json", 0, -1, 26)]


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "ads.dat").write_text("an ad")
    with pytest.raises(UsageError, match="does not tell the format; give --format, one of jsonl"):
        read(tmp_path / "ads.dat")
    with pytest.raises(UsageError, match="no file matches"):
        listed(str(tmp_path / "*.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no file matches"):
        listed(f"{tmp_path}/empty")
    with pytest.raises(
        UsageError, match="--corpus hold://x: no source and no storage is called ho"
    ):
        listed("hold://x")


def test_every_spelling_of_a_file_is_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = helpers.write_jsonl(tmp_path / "a [1].jsonl", [{"text": "a"}])
    (tmp_path / "link.jsonl").symlink_to(one)
    (tmp_path / "folder.jsonl").mkdir()
    monkeypatch.chdir(tmp_path)
    patterns = ["*.jsonl", "./*.jsonl", "a [1].jsonl", str(one), f"{tmp_path}/*.jsonl"]
    assert {item.place for item in registry.each(patterns)} == {str(one.resolve())}
    assert [part.place for part in parts(patterns)] == [str(one.resolve())]
    assert Files().everywhere("./*.jsonl") == f"{tmp_path}/*.jsonl"
    assert Files().everywhere("gs://b/x") == "gs://b/x"


def test_parquet_is_cut_between_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": [f"i{n}" for n in range(100)], "text": [f"ad {n}" for n in range(100)]})
    pq.write_table(table, path, row_group_size=30)
    found = parts([str(path)], range_bytes=1)
    assert [(part.start, part.stop) for part in found] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert sum(part.bytes for part in found) == path.stat().st_size
    [*_, last] = registry.get("files").read(found[2], ReadOptions())
    assert (last.id, last.position) == ("i89", "row 90")
    [whole] = parts([str(path)], range_bytes=path.stat().st_size)
    assert (whole.start, whole.stop) == (0, -1)
    assert read(path, range_bytes=1) == read(path)


def test_a_touch_is_no_change_and_a_byte_is_one(tmp_path: Path) -> None:
    def fingerprint() -> str:
        return survey([str(tmp_path)], ReadOptions(), 1, fingerprinted=True).fingerprint

    path = helpers.write_jsonl(tmp_path / "a.jsonl", helpers.tiny_ads(40))
    (tmp_path / "other.jsonl").write_bytes(path.read_bytes())
    before, data = fingerprint(), path.read_bytes()
    os.utime(path, ns=(1, 1))
    assert fingerprint() == before
    path.write_bytes(data.replace(b"t0020", b"t0O20"))
    changed = fingerprint()
    assert changed != before
    path.write_bytes(data)
    assert fingerprint() == before
    (tmp_path / "other.jsonl").rename(tmp_path / "third.jsonl")
    assert fingerprint() not in (before, changed)


def test_a_large_corpus_is_not_read_to_tell_whether_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        helpers.write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])
    monkeypatch.setattr("pipelines.sources.survey.HASHED_BYTES", 20)
    looked = survey([str(tmp_path)], ReadOptions(), 1 << 20)
    with helpers.watched_reads() as paths:
        before = survey([str(tmp_path)], ReadOptions(), 1 << 20, fingerprinted=True)
    # Each was looked at, and the first alone was read for its hash.
    assert sorted(Path(path).name for path in paths if path.endswith("jsonl")) == [
        *("a.jsonl", "a.jsonl", "b.jsonl", "c.jsonl")
    ]
    assert dataclasses.replace(before, fingerprint="") == looked
    os.utime(tmp_path / "c.jsonl", ns=(1, 1))
    again = survey([str(tmp_path)], ReadOptions(), 1 << 20, fingerprinted=True)
    assert again.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes() + b'{"text": "b"}\n'),
            "was written again",
        ),
        (lambda path: path.write_bytes(b"\x1f\x8b\x08 no gzip"), "was written again"),
        (lambda path: path.unlink(), "was deleted"),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_not_mixed(
    change: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    path = helpers.write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b"}] * 99)
    first, *rest = parts([str(path)], range_bytes=500)
    assert list(registry.get("files").read(first, ReadOptions()))
    change(path)
    with pytest.raises(RunFailed, match=f"a.jsonl: {words} while it was read; run it again"):
        list(registry.get("files").read(rest[0], ReadOptions()))
