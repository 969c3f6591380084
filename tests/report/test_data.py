"""What is read of a workspace: no verdict, every ad of the items, and damage is named."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import RunFailed, UsageError
from pipelines.report.pictures import maps
from pipelines.report.sections import scores
from pipelines.report.sections.maps import OUTLINED
from pipelines.store.workspace import Workspace
from tests import helpers
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
    clusters = Caught(monkeypatch, maps, "cluster_map")
    pairs = Caught(monkeypatch, maps, "item_map")
    draw(stages["learnt"], tmp_path, sample=50)
    _, positive, cluster, overlaps, _ = clusters.args
    for rows, item in zip(pairs.args[2], items_of(stages["learnt"], 2), strict=True):
        assert positive[list(rows)].tolist() == [ad.label == "positive" for ad in item.ads]
        assert cluster[list(rows)].tolist() == [ad.cluster for ad in item.ads]
    assert 0 < len(overlaps) <= OUTLINED


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
    block = next((learnt / "rounds/0002/scored").rglob("*.parquet"))
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


def test_without_umap_the_cure_is_said_before_anything_is_read(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with (
        helpers.watched_reads() as paths,
        pytest.raises(UsageError, match=r"--projection umap: .*`pip install umap-learn`"),
    ):
        draw(stages["learnt"], tmp_path, projection="umap")
    assert not [path for path in paths if path.endswith(".parquet")]


@pytest.mark.usefixtures("undrawn")
def test_umap_gets_the_vectors_and_a_seed_and_the_report_says_what_it_shows(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    class FakeUmap:
        def __init__(self, **settings: Any) -> None:
            asked.append(settings)

        def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)
            return vectors[:, :2]

    fake = types.ModuleType("umap")
    fake.UMAP = FakeUmap  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", fake)
    found = draw(stages["learnt"], tmp_path, projection="umap")
    assert asked[0]["random_state"] == 0 and asked[0]["n_jobs"] == 1
    assert found.summary["projection"] == "umap" and found.summary["explained"] is None
    text = read(found).texts
    assert "The plane is UMAP's" in text["map"] and "by UMAP" in text[""]
