"""A labelled corpus with a task to simulate on it, and a simulation that was watched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.training import trainer
from pipelines.config import load_task
from pipelines.simulation import play
from pipelines.simulation.labelled_corpus import Corpus, Fields, read_labelled
from pipelines.simulation.options import SimulateOptions
from pipelines.store.workspace import Workspace
from tests import helpers

GOLD = helpers.gold_ads(400)
SETS = ("natural", "balanced", "evaluation")
STRATEGIES = ("boundary", "random", "uncertainty")
# Each strategy trains twice a seed, each of the four crowds once.
TRAININGS = 2 * len(STRATEGIES) + 4


@dataclass(frozen=True, slots=True)
class Bench:
    """A labelled corpus and a task, in one folder."""

    folder: Path

    def options(self, workspace: str = "s", **changes: Any) -> SimulateOptions:
        settings: dict[str, Any] = {
            "task": str(self.folder / "task.yaml"),
            "corpus": (str(self.folder / "ads.jsonl"),),
            "workspace": str(self.folder / workspace),
            "rounds": 2,
        }
        return SimulateOptions(**{**settings, **changes})

    def play(self, workspace: str = "s", **changes: Any) -> dict[str, Any]:
        return play.simulate(self.options(workspace, **changes), lambda line: None)

    def place(self, condition: str, workspace: str = "s", seed: int = 1) -> Workspace:
        return Workspace(str(self.folder / workspace / f"seed-{seed:02d}" / condition))

    def corpus(self) -> Corpus:
        task = load_task(self.folder / "task.yaml")
        return read_labelled((str(self.folder / "ads.jsonl"),), Fields(), task.labels)


@dataclass(frozen=True, slots=True)
class Played:
    """An unbroken run of all conditions, two seeds of two rounds, and what was seen of it.

    Attributes:
        bench: corpus and task.
        outcome: what it returned.
        trained: the ads of each training, in order.
        asked: the texts that LLM-0 was asked about.
        recorded: condition, training keys and evaluation ads of each row.
        measured: labels, verdicts and kappa of each measurement.
        opened: evaluation files opened while the evaluator ran, and while it did not.
    """

    bench: Bench
    outcome: dict[str, Any]
    trained: list[trainer.LabelledAds]
    asked: list[str]
    recorded: list[tuple[str, set[str], np.ndarray]]
    measured: list[tuple[np.ndarray, np.ndarray, float | None]]
    opened: tuple[list[str], list[str]]


def keys_of(corpus: Corpus, rows: np.ndarray) -> set[str]:
    return {corpus.keys[row] for row in rows}


def evaluation_keys(place: Workspace) -> set[str]:
    manifests = place.verdicts.by_round().values()
    return {key for manifest in manifests for key in manifest.facts.keys.evaluation}
