"""Corpus and workspace on gs://, against an emulator of Cloud Storage on this machine: what works."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli
from pipelines.jobs import status
from pipelines.sources import registry
from pipelines.sources.base import ReadOptions
from pipelines.sources.fields import AdField
from pipelines.sources.survey import survey
from pipelines.store import cloud, listing, storage
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.engines.faulty_storage import FaultyStorage, served
from tests.jobs.loop import EXPERTS, GOLD, said_by, write_verdicts
from tests.sources import parts, records, texts


@pytest.fixture
def bucket() -> Iterator[str]:
    with served("scout"):
        yield "gs://scout"


def put_gold(root: str) -> str:
    for shard in range(2):
        lines = "".join(json.dumps(ad) + "\n" for ad in GOLD.ads[shard::2])
        storage.write(storage.join(root, "ads", f"{shard}.jsonl"), lines.encode())
    return storage.join(root, "ads", "*.jsonl")


def play(base: str, folder: Path, task: Path) -> Workspace:
    """Play two rounds through the command, everything on one storage; the workspace."""
    root, corpus = storage.join(base, "w"), put_gold(base)
    place = Workspace(root)

    def command(name: str, *rest: object) -> None:
        quiet = [] if name == "status" else ["--quiet"]
        assert cli.main([name, *map(str, rest), "--workspace", root, *quiet]) == cli.OK

    for number in (1, 2):
        command("mine", task, "--corpus", corpus, "--show", 0)
        command("export", "--tool", "page")
        shown = [ad.id for item in place.read_items(place.pairs_of(number)) for ad in item.ads]
        rows = [(id, said_by(expert, id), expert) for id in shown for expert in EXPERTS]
        sheet = write_verdicts(folder / "verdicts.csv", rows).read_bytes()
        verdicts = storage.join(base, f"verdicts-{number}.csv")
        storage.write(verdicts, sheet)
        command("import", verdicts)
        command("train")
        command("status")
        command("report")
    return place


def standing(place: Workspace, base: str) -> Any:
    text = json.dumps(status.standing(place).to_json(), default=str).replace(base, "BASE")
    # Attempts have names of their own, and times.
    return json.loads(
        re.sub(r"attempt-(\d{4})-[0-9a-f]{8}|20\d\d-\d\d-\d\dT[\d:.Z+-]+", r"\1", text)
    )


def test_the_whole_loop_on_object_storage(bucket: str, tmp_path: Path) -> None:
    encoder = helpers.tiny_encoder(tmp_path / "encoder")
    task = helpers.write_task(tmp_path, helpers.head_task(encoder))
    far = play(bucket, tmp_path, task)
    near = play(str(tmp_path / "near"), tmp_path, task)
    assert far.rounds() == near.rounds() == [1, 2]
    for number in (1, 2):
        items = [list(place.read_items(place.pairs_of(number))) for place in (far, near)]
        assert items[0] == items[1]
        page = storage.read(far.path(f"exports/round-{number:04d}/page/review.html"))
        assert items[0][0].item_id.encode() in page
    assert standing(far, bucket) == standing(near, str(tmp_path / "near"))
    report = storage.read(far.path("report/report.html"))
    assert b"<html" in report[:1000] and len(report) > 100_000
    # Nothing is left of what tried whether the workspace can be written.
    assert not [found.path for found in storage.match(f"{bucket}/**") if "probe" in found.path]


def test_a_night_after_writes_nothing(bucket: str, tmp_path: Path) -> None:
    task, corpus = helpers.write_task(tmp_path), put_gold(bucket)
    helpers.run(task, corpus, f"{bucket}/w")  # type: ignore[arg-type]
    # Written again, but the same: a copy of the bucket, a touch.
    put_gold(bucket)
    before = [found.path for found in storage.match(f"{bucket}/w/**")]
    again = helpers.run(task, corpus, f"{bucket}/w")  # type: ignore[arg-type]
    assert again.scored_now == 0
    assert Workspace(f"{bucket}/w").rounds() == [1]
    assert [found.path for found in storage.match(f"{bucket}/w/**")] == before
    storage.write(f"{bucket}/ads/1.jsonl", b'{"id": "new", "text": "A winner for your museum"}\n')
    assert helpers.run(task, corpus, f"{bucket}/w").scored_now == 1  # type: ignore[arg-type]


def test_files_one_by_one() -> None:
    with served("scout") as asked:
        _files_one_by_one("gs://scout", asked)


def _files_one_by_one(bucket: str, asked: FaultyStorage) -> None:
    path, large = f"{bucket}/a [1]/b.bin", bytes(range(256)) * 40_000
    for data in (b"", b"small", large):
        storage.write(path, data)
        asked.asked.clear()
        assert storage.read(path) == data
        assert len(asked.asked) == 1
        with storage.opened(path, 1 << 18) as source:
            assert source.read(3) == data[:3]
            assert source.seek(-2, 2) == max(len(data) - 2, 0)
            assert source.read() == data[-2:]
            source.seek(1 << 20)
            assert source.read(1 << 20) == data[1 << 20 : 1 << 21]
            source.seek(0)
            assert source.read() == data
    assert storage.exists(path)
    [found] = listing.matching(f"{bucket}/a*/*")
    assert (found.path, found.bytes) == (path, len(large))
    assert found.version == listing.version_of(path)
    before = found
    storage.write(path, large)
    [found] = listing.matching(f"{bucket}/**")
    # Written again: another state of the same content.
    assert found.content == before.content and found.version != before.version
    storage.remove(path)
    assert not storage.exists(path) and not listing.version_of(path)
    with pytest.raises(FileNotFoundError):
        storage.read(path)
    with pytest.raises(FileNotFoundError):
        storage.read("gs://nobucket/a")


def test_a_listing_comes_in_pages(bucket: str) -> None:
    for number in range(5):
        storage.write(f"{bucket}/ads/{number}.jsonl", b"{}")
    found = listing.matching(f"{bucket}/ads/*")
    assert next(found).path == f"{bucket}/ads/0.jsonl"
    assert [item.path[-7] for item in found] == ["1", "2", "3", "4"]
    assert [item.path[-7] for item in cloud.matching(f"{bucket}/ads/[1-2]*")] == ["1", "2"]


def test_ranges_of_a_remote_file_meet_without_loss(bucket: str) -> None:
    lines = [f"remote ad number {n}" for n in range(300)]
    storage.write(f"{bucket}/ads.txt", "\n".join(lines).encode())
    options = ReadOptions()
    assert len(parts([f"{bucket}/ads.txt"], options, 512)) > 5
    assert texts(records([f"{bucket}/ads.txt"], options, 512)) == lines
    table = "id,text\n" + "".join(f'{n},"ad\n{n}"\n' for n in range(300))
    storage.write(f"{bucket}/ads.csv", table.encode())
    assert len(parts([f"{bucket}/ads.csv"], options, 512)) > 5
    assert texts(records([f"{bucket}/ads.csv"], options, 512)) == [f"ad\n{n}" for n in range(300)]


@pytest.mark.parametrize("spelling", ["ads", "ads/", "ads/**", "ads/dt=*/*"])
def test_a_remote_folder_as_it_comes(bucket: str, spelling: str) -> None:
    table = "id;text\r\n{0};Günstig, {0}\r\n"
    files = {
        "ads/dt=2026-11-21/a.csv": table.format(1).encode("cp1252"),
        "ads/dt=2026-11-22/b.csv": gzip.compress(table.format(2).encode("utf-16")),
        "ads/dt=2026-11-22/_SUCCESS": b"",
        "ads/dt=2026-11-23/part-0": b'[{"id": 3, "text": "an array"}]',
        "ads/_SUCCESS": b"",
        "adsense.csv": b"id,text\n9,another\n",
    }
    for name, data in files.items():
        storage.write(f"{bucket}/{name}", data)
    fields = (AdField("text", "Text"), AdField("dt", "Day"))
    options = ReadOptions(fields=fields)
    pattern = f"{bucket}/{spelling}"
    ranges = parts([pattern], options)
    found = records([pattern], options)
    assert texts(found) == [
        "Text: Günstig, 1\nDay: 2026-11-21",
        "Text: Günstig, 2\nDay: 2026-11-22",
        "Text: an array\nDay: 2026-11-23",
    ]
    assert len(found) == 3
    assert registry.told(ranges, options) == [
        f"{bucket}/ads/dt=2026-11-21/a.csv: read as cp1252, as it looks, cells parted by ';' (--encoding and "
        "--delimiter if that is wrong)",
        f"{bucket}/ads/dt=2026-11-22/b.csv: read as utf-16, cells parted by ';' (--delimiter if that is "
        "wrong)",
    ]
    # A look costs as much as reading there: only where the name tells nothing.
    assert [part.layout is not None for part in ranges] == [False, False, True]
    assert survey([pattern], options, 1 << 20).ranges == tuple(ranges)
