"""Files that are small and unpack to a great deal, and paths that never end: a clear error, soon."""

from __future__ import annotations

import gzip
import io
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.config import load_task
from pipelines.contracts import Ad, Rejected
from pipelines.errors import UsageError
from pipelines.jobs import ingest
from pipelines.jobs.ingest import IngestOptions
from pipelines.sources.base import Listed, Range, ReadOptions
from pipelines.sources.files import Files
from pipelines.store import storage
from tests import helpers
from tests.faults import refusal
from tests.jobs.test_damaged_files import workspace


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < 20


def zipped(lines: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("anna.jsonl", lines)
    return sink.getvalue()


@pytest.mark.parametrize("tool", ["doccano", "jsonl"])
def test_lines_that_are_nothing(tool: str, tmp_path: Path) -> None:
    place = workspace(tmp_path)
    lines = b"x\n" * 100_000
    data = zipped(lines) if tool == "doccano" else gzip.compress(lines)
    assert len(data) < 500
    path = tmp_path / "bomb"
    path.write_bytes(data)
    told = refusal(
        lambda: ingest.ingest(IngestOptions(place.root, (str(path),), tool=tool), lambda _: None)
    )
    assert str(path) in told
    assert not place.verdicts.latest(2)
    rejected = [name for name in os.listdir(tmp_path) if "rejected" in name]
    assert not rejected


def test_a_corpus_of_lines_that_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ads.jsonl.gz"
    path.write_bytes(gzip.compress(b"x\n" * 10**6))
    part = Range("files", str(path), "jsonl", 0, -1, path.stat().st_size)
    found: list[Ad | Rejected] = []
    told = refusal(lambda: found.extend(Files().read(part, ReadOptions())))
    assert "none of 10,000 records makes an ad (the first: line 1: not_json: " in told
    assert len(found) <= 10_000


def test_a_corpus_with_few_ads_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "ads.jsonl"
    path.write_bytes(b"x\n" * 5000 + b'{"text": "An ad"}\n' + b"x\n" * 12_000)
    part = Range("files", str(path), "jsonl", 0, -1, path.stat().st_size)
    assert sum(1 for _ in Files().read(part, ReadOptions())) == 17_001


BOMBS = {
    "aliases of aliases": "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
    "merges of merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10)),
    "an alias of itself": "a: &a [*a]\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000 + "\n",
    "a long number": f"a: {'9' * 10_000}\n",
    "long": "# nothing\n" * 200_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_task_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(helpers.FAKE_TASK + BOMBS[name])
    with pytest.raises(UsageError) as caught:
        load_task(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 2000


def test_a_task_file_may_have_aliases(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(helpers.FAKE_TASK.replace("version: 1", "version: &one 1") + "seed: *one\n")
    assert load_task(path).seed == 1


def specials(folder: Path) -> list[tuple[str, str]]:
    os.mkfifo(folder / "pipe")
    return [(str(folder / "pipe"), "a pipe"), ("/dev/zero", "a device"), ("/dev/null", "a device")]


def test_pipes_and_devices(tmp_path: Path) -> None:
    place = workspace(tmp_path)
    for path, what in specials(tmp_path):
        for call in (
            lambda path=path: load_task(path),
            lambda path=path: storage.read(path),
            lambda path=path: storage.opened(path),
            lambda path=path: storage.open_ranges(path),
            lambda path=path: ingest.read_experts(path),
            lambda path=path: ingest.ingest(
                IngestOptions(place.root, (path,), tool="csv"), lambda _: None
            ),
        ):
            assert f"{path}: is {what}, not a" in refusal(call)
        # A corpus is what is a file there.
        assert "no file matches" in refusal(lambda path=path: list(Files().list_items(path)))
    item = Listed("files", str(tmp_path / "pipe"), 0, "")
    assert "is a pipe" in refusal(lambda: list(Files().ranges(item, ReadOptions(), 1)))
