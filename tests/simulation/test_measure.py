"""What is learnt, and how it is measured."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from models.backends.pool import LabelerPool
from models.training import trainer
from pipelines.config import load_task
from pipelines.errors import RunFailed
from pipelines.simulation import measure
from pipelines.simulation.labelled_corpus import divide
from pipelines.simulation.measure import Measurer, Model, Round, Seed
from tests.simulation.bench import SETS, Bench, Played


def test_kappas_are_those_with_the_experts(played: Played) -> None:
    corpus, rows = played.bench.corpus(), played.outcome["rows"]
    assert len(played.measured) == len(SETS) * len(rows)
    taken = iter(played.measured)
    for row, (condition, _, evaluation) in zip(rows, played.recorded, strict=True):
        assert row["condition"] == condition
        division = divide(corpus, None, 0.2, row["seed"])
        sizes = (len(division.natural), len(division.balanced), len(evaluation))
        for name, size in zip(SETS, sizes, strict=True):
            labels, table, value = next(taken)
            assert labels.shape == (size,) and table.shape == (size, 2)
            wanted = np.mean([cohen_kappa_score(labels, column) for column in table.T])
            assert row[name] == value == pytest.approx(wanted)
            assert row[f"{name}_experts"] == pytest.approx(cohen_kappa_score(*table.T))
    natural = [row["natural"] for row in rows if row["condition"] == "boundary"]
    assert min(natural) > 0.6, "separable ads are learnt"
    # Ads that the experts disagree on are measured on too, whoever chose them.
    assert all(row["evaluation_experts"] < 1 for row in rows)


@pytest.fixture
def seed(bench: Bench) -> Seed:
    corpus = bench.corpus()
    row_of = {key: row for row, key in enumerate(corpus.keys)}
    verdicts = np.repeat(corpus.gold[:, None].astype(np.int8), 2, axis=1)
    task, division = load_task(bench.folder / "task.yaml"), divide(corpus, None, 0.2, 1)
    return Seed(1, task, corpus, row_of, division, verdicts, LabelerPool())


def labelled(seed: Seed, number: int, swapped: bool = False) -> trainer.LabelledAds:
    rows = seed.division.pool[:number]
    labels = (seed.corpus.gold[rows] != swapped).astype(np.int8)
    return trainer.LabelledAds(tuple(seed.keys(rows)), tuple(seed.texts(rows)), labels)


def measurer(
    seed: Seed,
    others: tuple[str, ...] = (),
    others_from: int = 1,
    shares: list[float] | None = None,
) -> Measurer:
    forecast: Any = SimpleNamespace(
        show=lambda seed, condition: None,
        done=lambda condition, share: None if shares is None else shares.append(share),
    )
    return Measurer(seed, others, others_from, lambda line: None, forecast)


def test_swapped_gold_labels_would_be_seen(seed: Seed) -> None:
    found = measurer(seed)
    for swapped in (False, True):
        ads = labelled(seed, 100, swapped)
        played = Round(1, ads, measure.learn(seed, "head", ads))
        found.measure("one", [played], seed.division.balanced)
    straight, wrong = found.rows
    assert straight["natural"] > 0.6 and straight["evaluation"] == straight["balanced"]
    assert wrong["natural"] < -0.4
    assert straight["natural_experts"] == 1.0


def test_without_a_model_all_is_called_negative(seed: Seed) -> None:
    few = labelled(seed, 2)
    assert measure.learn(seed, "head", few) is None
    found = measurer(seed)
    found.measure("one", [Round(1, few, None)], np.zeros(0, dtype=np.intp))
    [row] = found.rows
    assert row["threshold"] is None and row["natural"] == row["balanced"] == 0.0
    assert row["evaluation"] is row["evaluation_experts"] is None
    nothing = dataclasses.replace(few, keys=(), texts=(), labels=few.labels[:0])
    found.measure("one", [Round(1, nothing, None)], seed.division.natural)
    assert found.rows[-1]["positive_share"] is None


def test_ads_that_cannot_be_learnt_from_end_a_run_with_the_reason(
    seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*args: Any, **kwargs: Any) -> Any:
        raise trainer.TrainingDataError("nothing of ad k is left to read")

    monkeypatch.setattr(trainer, "train", refusing)
    with pytest.raises(RunFailed, match="seed 1: nothing of ad k is left to read"):
        measure.learn(seed, "head", labelled(seed, 9))


def test_another_learner_on_the_same_labels(seed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[tuple[str, trainer.LabelledAds]] = []
    model = Model(lambda texts: np.ones(len(texts)), 0.5)

    def learn(seed: Seed, learner: str, ads: trainer.LabelledAds) -> Model:
        taught.append((learner, ads))
        return model

    monkeypatch.setattr(measure, "learn", learn)
    shares: list[float] = []
    found = measurer(seed, ("encoder",), 30, shares)
    rounds = [
        found.played("one", lambda n=n: Round(n, labelled(seed, 20 * n), model)) for n in (1, 2)
    ]
    found.measure("one", rounds, seed.division.balanced)
    assert [(row["learner"], row["round"], row["labels"]) for row in found.rows] == [
        ("head", 1, 20), ("head", 2, 40), ("encoder", 2, 40),
    ]  # fmt: skip
    assert taught == [("encoder", rounds[1].ads)], "the task's own learner has learnt already"
    # Of three parts a round: learning, and measuring each of two learners.
    assert shares == pytest.approx([1 / 3] * 6)
