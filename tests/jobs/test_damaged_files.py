"""Every file that a manifest counts on: cut, edited or gone, it is one error with its name, never less data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed
from pipelines.jobs import export, ingest
from pipelines.jobs.export import ExportOptions
from pipelines.jobs.ingest import IngestOptions
from pipelines.jobs.status import standing
from pipelines.store import files
from pipelines.store.workspace import Workspace
from pipelines.verdicts.halves import HALVES, read_audit, read_half
from tests.jobs.loop import write_verdicts
from tests.verdicts import mined
from tests.verdicts.test_commit_imports import pairs_of

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut to half, at a line": lambda d: b"".join(d.splitlines(True)[: d.count(b"\n") // 2]),
    "cut within a line": lambda d: d[: len(d) // 2],
    "a byte changed": lambda d: d[:-4] + bytes([d[-4] ^ 1]) + d[-3:],
    "a line twice": lambda d: d + d.splitlines(True)[-1],
    "empty": lambda d: b"",
}


def workspace(folder: Path) -> Workspace:
    """Return a workspace with a round, one import with a bad row, and a second expert's sheet beside it."""
    place = mined(folder / "w", pairs_of(range(8)))
    ids = [ad.id for item in place.read_items(place.pairs_of(1)) for ad in item.ads]
    rows = [(id, ("bait", "fine")[n % 2], "anna") for n, id in enumerate(ids)]
    first = write_verdicts(folder / "anna.csv", [*rows, ("none", "bait", "anna")])
    ingest.ingest(IngestOptions(place.root, (str(first),)), lambda _: None)
    write_verdicts(folder / "bo.csv", [(id, "bait", "bo") for id in ids])
    return place


def use(place: Workspace, folder: Path) -> None:
    """Read all that commands read of it."""
    export.export(ExportOptions(place.root, "page", out=str(folder / "out")), lambda _: None)
    standing(place)
    for half in HALVES:
        read_half(place, half, 1)
    read_audit(place, 1)
    ingest.ingest(IngestOptions(place.root, (str(folder / "bo.csv"),)), lambda _: None)


def listed(place: Workspace) -> list[BlockFile]:
    verdicts = place.verdicts.latest(1)
    assert verdicts is not None
    return [*place.pairs_of(1).files, *verdicts.files]


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    place = workspace(tmp_path)
    names = sorted(Path(file.path).name.split("-")[0] for file in listed(place))
    assert names == [
        *("evaluation", "fine_tuning", "items.jsonl", "rejected", "said", "sides.jsonl")
    ]
    use(place, tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["items", "sides", "fine_tuning", "evaluation", "said"])
def test_a_damaged_file_is_named(kind: str, damage: str, tmp_path: Path) -> None:
    place = workspace(tmp_path)
    [file] = [file for file in listed(place) if Path(file.path).name.startswith(kind)]
    path = Path(files.full_path(place.root, file))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    before = place.verdicts.latest(1)
    with pytest.raises(RunFailed) as caught:
        use(place, tmp_path)
    assert caught.value.message.startswith(f"{path}: has changed since it was written (")
    assert "\n" not in caught.value.message
    assert place.verdicts.latest(1) == before, "nothing was imported on top of it"
    path.unlink()
    with pytest.raises(RunFailed, match=f"{path}: is gone; restore it, a manifest counts on it"):
        use(place, tmp_path)


@pytest.mark.parametrize("damage", ["cut within a line", "empty"])
def test_a_damaged_manifest_is_named(damage: str, tmp_path: Path) -> None:
    place = workspace(tmp_path)
    path = Path(place.path(f"{place.pairs_of(1).attempt}/manifest.json"))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(RunFailed, match=f"{path}: not a manifest of ad-scout"):
        use(place, tmp_path)


def test_a_manifest_that_leads_outside_is_refused(tmp_path: Path) -> None:
    place = workspace(tmp_path)
    path = Path(place.path(f"{place.pairs_of(1).attempt}/manifest.json"))
    manifest = json.loads(path.read_text())
    (tmp_path / "items.jsonl").write_bytes((path.parent / "items.jsonl").read_bytes())
    manifest["files"][0]["path"] = "../items.jsonl"
    path.write_text(json.dumps(manifest))
    with pytest.raises(RunFailed, match=r"a file in it names '\.\./items\.jsonl', which is no"):
        use(place, tmp_path)
