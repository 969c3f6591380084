"""What is read of a workspace: no verdict, every ad of the items, and damage is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import RunFailed
from pipelines.report.pictures import maps
from pipelines.report.sections import scores
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.helpers import by_label
from tests.report.drawn import draw, items_of, read, rewrite


@pytest.mark.usefixtures("undrawn")
def test_no_verdict_is_opened(stages: dict[str, Path], tmp_path: Path) -> None:
    with helpers.watched_reads() as paths:
        draw(stages["learnt"], tmp_path)
    opened = [Path(path).name for path in paths if str(stages["learnt"]) in path]
    assert "items.jsonl" in opened
    assert not [name for name in opened if "verdict" in name or name.startswith(("eval", "fine"))]


class Caught:
    """What a picture was drawn from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self.args: tuple[Any, ...] = ()
        original: Callable[..., bytes] = getattr(module, name)

        def draw_and_keep(*args: Any) -> bytes:
            self.args = args
            return original(*args)

        monkeypatch.setattr(module, name, draw_and_keep)


@pytest.mark.usefixtures("undrawn")
def test_a_sample_says_so_and_holds_every_ad_of_the_pairs(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = Caught(monkeypatch, maps, "item_map")
    histogram = Caught(monkeypatch, scores, "score_histogram")
    found = draw(stages["learnt"], tmp_path / "a", sample=60)
    parts = read(found)
    assert found.summary["drawn"] == 60
    assert "drawn on 60 of 200 ads" in parts.texts["map"]
    assert "drawn on 60 of 200 ads" in parts.texts[""]
    points, _, rows, exploration, _ = pairs.args
    assert points.shape == (60, 2) and [len(ads) for ads in rows] == [2] * 12
    assert len({row for ads in rows for row in ads}) == 24
    chosen = items_of(stages["learnt"], 2)
    assert exploration.tolist() == [item.source == "exploration" for item in chosen]
    # Scores are those of all ads, not of the sample.
    assert histogram.args[0].sum() == 200
    # A sample smaller than the pairs' ads holds these alone.
    assert draw(stages["learnt"], tmp_path / "b", sample=1).summary["drawn"] == 24


@pytest.mark.usefixtures("undrawn")
def test_labels_and_clusters_on_the_map_are_those_of_the_pairs(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Caught(monkeypatch, maps, "close_map")
    pairs = Caught(monkeypatch, maps, "item_map")
    draw(stages["learnt"], tmp_path, sample=50)
    points, positive, members, joined, box, _ = close.args
    chosen = items_of(stages["learnt"], 2)
    for rows, item in zip(pairs.args[2], chosen, strict=True):
        assert positive[list(rows)].tolist() == [ad.label == "positive" for ad in item.ads]
    # The last close look: its clusters' ads, and the pairs that were chosen from them.
    assert not (members[0] & ~positive).any() and not (members[1] & positive).any()
    of_item = dict(zip(map(tuple, pairs.args[2]), chosen, strict=True))
    of_them = {
        tuple(ad.cluster for ad in by_label(of_item[tuple(rows)]).values()) for rows in joined
    }
    assert len(of_them) <= 1
    for rows in joined:
        assert (members[0] | members[1])[list(rows)].all()
    assert box.holds(points).any()


def test_clusters_of_a_run_that_was_killed_are_not_taken(
    stages: dict[str, Path], learnt: Path, tmp_path: Path
) -> None:
    before = Path(draw(learnt, tmp_path / "a").path).read_bytes()
    workspace = Workspace(str(learnt))
    clusters = workspace.latest(2, "clusters")
    assert clusters is not None
    attempt = workspace.new_attempt(2, "clusters")
    # Newer, of another configuration, and without a file: pairs never came of it.
    threshold = dataclasses.replace(clusters.facts.threshold, margin=9.0)
    facts = dataclasses.replace(clusters.facts, threshold=threshold)
    changed = dataclasses.replace(clusters, attempt=attempt, config_hash="other", facts=facts)
    workspace.commit(changed)
    assert workspace.latest(2, "clusters") == changed
    assert Path(draw(learnt, tmp_path / "b").path).read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_block_is_named(learnt: Path, tmp_path: Path) -> None:
    block = helpers.block_of(learnt, 2)
    data = bytearray(block.read_bytes())
    data[len(data) // 2] ^= 1
    block.write_bytes(data)
    with pytest.raises(RunFailed, match=f"{block.name}: has changed since it was written"):
        draw(learnt, tmp_path / "out")


@pytest.mark.usefixtures("undrawn")
def test_damaged_centroids_are_named(learnt: Path, tmp_path: Path) -> None:
    next((learnt / "rounds/0002/clusters").rglob("centroids.npz")).write_bytes(b"PK\x03\x04")
    with pytest.raises(RunFailed, match=r"centroids\.npz: has changed since it was written"):
        draw(learnt, tmp_path / "out")


@pytest.mark.usefixtures("undrawn")
def test_scores_of_another_corpus_are_noticed(learnt: Path, tmp_path: Path) -> None:
    first, *others = items_of(learnt, 2)
    stranger = dataclasses.replace(first.ads[0], key="0" * 32)
    rewrite(learnt, 2, [dataclasses.replace(first, ads=(stranger, first.ads[1])), *others])
    with pytest.raises(RunFailed, match=r"\(key 0{32}\) is not among its scored ads"):
        draw(learnt, tmp_path / "out")
