"""Corpus and workspace on gs://, against an emulator of Cloud Storage on this machine."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.internal.gcp import auth
from gcp_storage_emulator.server import create_server
from google.cloud import storage as gcs

from pipelines.sources import registry
from pipelines.sources.base import ReadOptions
from pipelines.sources.fields import AdField
from pipelines.store import storage
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.sources import parts, records, texts


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    # Without credentials Google's library asks a metadata server for 23 seconds first.
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    monkeypatch.setattr(auth._Credentials, "_credentials", None)
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    try:
        gcs.Client.create_anonymous_client().create_bucket("scout")
        yield "gs://scout"
    finally:
        server.stop()


def test_the_main_job_on_object_storage(bucket: str, tmp_path: Path) -> None:
    ads = helpers.tiny_ads()
    for shard in range(2):
        lines = "".join(json.dumps(ad) + "\n" for ad in ads[shard::2])
        storage.write(f"{bucket}/ads/{shard}.jsonl", lines.encode())
    task = helpers.write_task(tmp_path)
    mined = helpers.run(task, f"{bucket}/ads/*.jsonl", f"{bucket}/w")  # type: ignore[arg-type]
    local = helpers.run(task, helpers.write_jsonl(tmp_path / "ads.jsonl", ads), tmp_path / "w")
    assert storage.read(mined.pairs_file) == helpers.pairs_bytes(local)
    again = helpers.run(task, f"{bucket}/ads/*.jsonl", f"{bucket}/w")  # type: ignore[arg-type]
    assert again.scored_now == 0
    assert Workspace(f"{bucket}/w").rounds() == [1]
    with pytest.raises(FileNotFoundError):
        storage.read(f"{bucket}/none")


def test_ranges_of_a_remote_file_meet_without_loss(bucket: str) -> None:
    lines = [f"remote ad number {n}" for n in range(300)]
    storage.write(f"{bucket}/ads.txt", "\n".join(lines).encode())
    options = ReadOptions()
    assert len(parts([f"{bucket}/ads.txt"], options, 512)) > 5
    assert texts(records([f"{bucket}/ads.txt"], options, 512)) == lines


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
    ranges = parts([f"{bucket}/{spelling}"], options)
    found = records([f"{bucket}/{spelling}"], options)
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
