"""What is pruned of older nights, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import api
from pipelines.errors import UsageError
from pipelines.store import scores
from pipelines.store.workspace import Workspace
from tests import helpers

ADS = 60


def files_of(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_scores_of_older_nights_go_and_the_newest_rounds_corpus_stays(tmp_path: Path) -> None:
    task, ads = helpers.write_task(tmp_path), helpers.tiny_ads(3 * ADS)
    corpus, root = str(tmp_path / "ads" / "{date}.jsonl"), tmp_path / "w"
    for n in (1, 2, 3):
        own = ads[(n - 1) * ADS : n * ADS]
        path = helpers.write_jsonl(tmp_path / "ads" / f"2026-11-0{n}.jsonl", own)
        with path.open("a") as sink:
            sink.write("{broken\n")
        # The first one opens a round; the others wait for its labels.
        api.nightly(task, corpus, root, date=f"2026-11-0{n}", max_rejected_share=0.05)
    place = Workspace(str(root))
    [key] = scores.stored_ads(str(root))
    before = files_of(root)
    told = api.prune(root, keep_days=1, dry_run=True)
    assert (told.before, told.nights, told.kept) == ("2026-11-03", 2, {key: 3 * ADS})
    assert files_of(root) == before
    done = api.prune(root, keep_days=1)
    assert (done.files, done.bytes, done.kept) == (told.files, told.bytes, {key: 2 * ADS})
    left = files_of(root)
    gone = before.keys() - left.keys()
    assert len(gone) == done.files and left.items() <= before.items()
    assert {path.split("/")[0] for path in gone} == {"nights", "scores"}
    assert list(place.scored.by_date()) == ["2026-11-03"]
    assert list(place.night.by_date()) == ["2026-11-01", "2026-11-02", "2026-11-03"]
    # The round whose pairs experts have is whole, though its date is pruned.
    scored = scores.scored_of(place, place.pairs_of(1))
    assert scored and len(helpers.scored_table(root, scored)) == ADS
    assert "rejected-records" in str(sorted(path for path in gone if "rejected" in path))
    assert api.prune(root, keep_days=1).files == 0
    assert api.prune(root, keep_days=9).files == 0


def test_there_is_nothing_to_prune_without_nights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no nights here; start with `scout nightly`"):
        api.prune(tmp_path / "w", keep_days=3)
