"""Rounds in memory: what they choose is what mining chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.config import load_task
from pipelines.jobs.mine import MineOptions, mine
from pipelines.simulation import advice, rehearsal
from pipelines.simulation.rehearsal import Prices, ScoredAds, rehearse, split
from pipelines.store.workspace import Workspace
from pipelines.strategies import registry
from pipelines.text import content_key
from tests.simulation.bench import Bench


@pytest.fixture(scope="module")
def scored(bench: Bench) -> ScoredAds:
    task, corpus = load_task(bench.folder / "task.yaml"), bench.corpus()
    ads = advice.Labelled(corpus.keys, corpus.texts, corpus.gold.astype(np.int8))
    return advice.score(task, ads, lambda line: None)


@pytest.mark.parametrize("strategy", ["boundary", "uncertainty", "core-set"])
def test_it_chooses_what_mining_chooses(
    bench: Bench, scored: ScoredAds, strategy: str, tmp_path: Path
) -> None:
    task = load_task(bench.folder / "task.yaml")
    changes: dict[str, object] = {"strategy": strategy}
    if strategy != "boundary":
        changes |= {"exploration_share": 0.0, "first_round_share": 0.0}
    selection = task.selection.model_copy(update=changes)
    task = task.model_copy(update={"selection": selection})
    file = tmp_path / "task.yaml"
    file.write_text(yaml.safe_dump(task.model_dump(mode="json")))
    place = Workspace(str(tmp_path / "w"))
    mine(MineOptions(str(file), (str(bench.folder / "ads.jsonl"),), place.root), lambda line: None)
    mined = [[ad.key for ad in item.ads] for item in place.read_items(place.pairs_of())]
    found = rehearsal.choose(
        scored,
        scored.margins,
        np.zeros(len(scored), dtype=bool),
        registry.create(strategy),
        task,
        None,
    )
    assert [sorted(scored.keys[row] for row in item) for item in found] == [
        sorted(keys) for keys in mined
    ]
    assert any(len(keys) == 2 for keys in mined) == (strategy == "boundary")


def made(n: int = 400, share: float = 0.2, seed: int = 0) -> ScoredAds:
    """Return ads of two blobs, the positive one told by the vectors and hardly by LLM-0."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < share).astype(np.int8)
    vectors = rng.normal(0, 0.6, (n, 16))
    vectors[:, 0] += np.where(labels == 1, 1.5, -1.5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    margins = np.rint(256 * rng.normal(0.5 * labels, 1.0, n)) / 256
    keys = sorted(content_key(f"ad {number}") for number in range(n))
    return ScoredAds(tuple(keys), margins.astype(np.float32), vectors.astype(np.float16), labels)


def test_a_split_keeps_both_shares_and_is_another_with_another_seed() -> None:
    ads = made()
    parts, other = (split(ads.labels, ads.keys, 0.4, seed) for seed in (1, 2))
    assert sorted([*parts.pool, *parts.test]) == list(range(len(ads)))
    for value in (0, 1):
        own = int((ads.labels == value).sum())
        assert int((ads.labels[parts.test] == value).sum()) == round(0.4 * own)
    assert set(parts.test) != set(other.test)


@pytest.mark.parametrize("name", ["boundary", "random", "badge", "committee"])
def test_rounds_spend_what_they_may_and_learn(bench: Bench, name: str) -> None:
    ads, task = made(), advice.played_task(load_task(bench.folder / "task.yaml"), 0.2)
    parts = split(ads.labels, ads.keys, 0.4, 1)
    curve = rehearse(ads, parts, registry.create(name), task, (20, 40, 80), Prices())
    assert [at.labels for at in curve] == pytest.approx([20, 40, 80], abs=3)
    assert [at.spent for at in curve] == [at.labels for at in curve]
    assert curve[-1].kappa > 0.7, "the two blobs are easily told apart"
    again = rehearse(ads, parts, registry.create(name), task, (20, 40, 80), Prices())
    assert again == curve


def test_a_pair_costs_what_it_is_said_to(bench: Bench) -> None:
    ads, task = made(), advice.played_task(load_task(bench.folder / "task.yaml"), 0.2)
    parts = split(ads.labels, ads.keys, 0.4, 1)
    cheap, dear = (
        rehearse(ads, parts, registry.create("boundary"), task, (30,), Prices(1.0, price))[0]
        for price in (1.0, 3.0)
    )
    assert cheap.labels > 1.5 * dear.labels
    assert dear.spent == pytest.approx(30, abs=3)


def test_what_is_left_of_a_pool_ends_it(bench: Bench) -> None:
    ads, task = made(60), advice.played_task(load_task(bench.folder / "task.yaml"), 0.2)
    parts = split(ads.labels, ads.keys, 0.4, 1)
    curve = rehearse(ads, parts, registry.create("uncertainty"), task, (30, 60, 90), Prices())
    assert [at.labels for at in curve] == [30, len(parts.pool), len(parts.pool)]
