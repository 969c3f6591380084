"""What a condition learns, and how well it then agrees with the experts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models import locks
from models.backends.pool import LabelerPool
from models.backends.trained import Trained
from models.training import trainer
from pipelines.config import Task
from pipelines.errors import RunFailed
from pipelines.jobs.train import training_settings
from pipelines.numerics import agreement, hashing
from pipelines.numerics.agreement import MIN_BOOT, Bootstrap
from pipelines.simulation.forecast import Forecast
from pipelines.simulation.labelled_corpus import Corpus, Division

SETS = ("natural", "balanced", "evaluation")
_SAMPLED_ADS = 2000


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model as the simulation uses it.

    Attributes:
        margins: texts -> float (n,), log-odds.
        threshold: an ad is positive when its margin is at least this.
    """

    margins: Callable[[Sequence[str]], np.ndarray]
    threshold: float

    def labels(self, texts: Sequence[str]) -> np.ndarray:
        """Label texts; int8 (n,), 1 for positive."""
        return (self.margins(texts) >= self.threshold).astype(np.int8)


@dataclass(frozen=True, slots=True)
class Round:
    """A round of a condition.

    Attributes:
        number: from 1.
        ads: all labels so far.
        model: what learnt from them; None while they teach nothing.
        minutes: of experts' time so far, those of evaluation ads among it; None of a crowd.
    """

    number: int
    ads: trainer.LabelledAds
    model: Model | None
    minutes: float | None = None


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed of a simulation: who plays which part.

    Attributes:
        number: the seed.
        task: with it.
        corpus: all ads.
        row_of: content key -> row of the corpus.
        division: which of them are asked about, and which are held out.
        verdicts: int8 (n, experts), what the experts say of each ad.
        pool: remembers what LLM-0 and encoders said.
    """

    number: int
    task: Task
    corpus: Corpus
    row_of: dict[str, int]
    division: Division
    verdicts: np.ndarray
    pool: LabelerPool

    def texts(self, rows: np.ndarray) -> list[str]:
        """Return the texts of some rows."""
        return [self.corpus.texts[row] for row in rows]

    def keys(self, rows: np.ndarray) -> list[str]:
        """Return the content keys of some rows."""
        return [self.corpus.keys[row] for row in rows]


def learn(seed: Seed, learner: str, ads: trainer.LabelledAds) -> Model | None:
    """Train a learner; None when the labels teach nothing yet (one class, too few).

    Raises:
        RunFailed: the labels are of ads that cannot be learnt from.
    """
    training = seed.task.training.model_copy(update={"learner": learner})
    settings = training_settings(seed.task.model_copy(update={"training": training}))
    with locks.scratch("scout-simulate-") as scratch:
        folder = scratch / "model"
        try:
            manifest = trainer.train(
                ads, settings, folder, cache=seed.pool.vectors, expected=_expected(seed)
            )
        except trainer.TooFewLabelsError:
            return None
        except trainer.TrainingDataError as error:
            raise RunFailed(f"seed {seed.number}: {error}") from error
        labeler = Trained(folder, cache=seed.pool.vectors).load()
    return Model(labeler.margins, manifest.threshold_margin)


def _expected(seed: Seed) -> trainer.Expected:
    """Return what bounds a threshold, as `scout train` has it: the prior and a sample of the pool."""
    rows = seed.division.pool
    drawn = np.sort(hashing.lowest_ranks(seed.keys(rows), _SAMPLED_ADS, seed.number))
    return trainer.Expected(tuple(seed.texts(rows[drawn])), seed.task.prior)


@dataclass(frozen=True, eq=False, slots=True)
class Measurer:
    """Measures all conditions of a seed on the same held-out ads, and other learners on their labels.

    Attributes:
        seed: the seed.
        others: learners beside the task's own.
        others_from: train them from so many labels on.
        say: told of each round.
        forecast: told of each share of a round.
        rows: one a condition, learner and round; JSON values.
    """

    seed: Seed
    others: Sequence[str]
    others_from: int
    say: Callable[[str], None]
    forecast: Forecast
    rows: list[dict[str, Any]] = field(default_factory=list)

    def played(self, condition: str, play: Callable[[], Round]) -> Round:
        """Have a condition play a round; returns what that gave."""
        started, number = time.monotonic(), self.seed.number
        self.forecast.show(number, condition)
        found = play()
        self.say(
            f"seed {number}: {condition}, round {found.number}: {len(found.ads.keys):,} labels "
            f"({time.monotonic() - started:.0f} s)"
        )
        self._part_done(condition)
        return found

    def _part_done(self, condition: str, parts: int = 1) -> None:
        """Count parts of a round: its own learning, and each learner's measuring."""
        if parts:
            self.forecast.done(condition, parts / (2 + len(self.others)))

    def measure(self, condition: str, rounds: Sequence[Round], evaluation: np.ndarray) -> None:
        """Measure a condition's models and those of the other learners.

        Args:
            condition: its name.
            rounds: its rounds, with what the task's learner learnt.
            evaluation: rows of the corpus that it is measured on beside the held-out ones.
        """
        for played in rounds:
            self._record(condition, self.seed.task.training.learner, played, evaluation)
        for played in rounds:
            if len(played.ads.keys) < self.others_from:
                self._part_done(condition, len(self.others))
                continue
            for learner in self.others:
                model = learn(self.seed, learner, played.ads)
                taught = Round(played.number, played.ads, model, played.minutes)
                self._record(condition, learner, taught, evaluation)

    def _record(self, condition: str, learner: str, played: Round, evaluation: np.ndarray) -> None:
        """Measure a model on the three sets, against the experts."""
        seed, ads, model = self.seed, played.ads, played.model
        row: dict[str, Any] = {
            "seed": seed.number,
            "condition": condition,
            "learner": learner,
            "round": played.number,
            "labels": len(ads.keys),
            "minutes": played.minutes,
            "positive_share": float(ads.labels.mean()) if len(ads.keys) else None,
            "threshold": model.threshold if model else None,
        }
        sets = (seed.division.natural, seed.division.balanced, evaluation)
        for name, rows in zip(SETS, sets, strict=True):
            # Without a model every ad is called negative, which agrees with nobody beyond chance.
            labels = np.zeros(len(rows), np.int8)
            if model and len(rows):
                labels = model.labels(seed.texts(rows))
            verdicts = seed.verdicts[rows]
            row[name] = agreement.model_agreement(
                labels, verdicts, Bootstrap(n_boot=MIN_BOOT, seed=seed.number)
            ).value
            row[f"{name}_experts"] = agreement.expert_agreement(
                verdicts, Bootstrap(n_boot=MIN_BOOT)
            ).value
        self.rows.append(row)
        self._part_done(condition)
