"""A condition's rounds, played as the product plays them: mine, verdicts, import, train."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from models.training import trainer
from pipelines.handlers import load_trained
from pipelines.jobs.ingest import ingest_verdicts
from pipelines.jobs.labels import fine_tuning_labels
from pipelines.jobs.mine import MineOptions, mine
from pipelines.jobs.minutes import spending
from pipelines.jobs.train import TooFewLabels, TrainOptions, train
from pipelines.simulation.conditions import strategy_of
from pipelines.simulation.experts import answer
from pipelines.simulation.measure import Model, Round, Seed
from pipelines.simulation.options import OURS
from pipelines.store import model_store, storage
from pipelines.store.facts import Decided
from pipelines.store.workspace import Workspace
from pipelines.strategies import registry
from pipelines.strategies.base import PairStrategy
from pipelines.verdicts.shown import shown_ads


class Loop:
    """A condition's rounds in a workspace of its own; what an earlier run did is not done again.

    Strategies other than ours run as the literature has them, without exploration.
    """

    def __init__(self, seed: Seed, condition: str, folder: Path, corpus: Path) -> None:
        """Prepare a workspace.

        Args:
            seed: the seed.
            condition: a strategy, or strategies after one another.
            folder: the seed's, in which the workspace gets the condition's name.
            corpus: the ads that it may ask about.
        """
        self._seed, self._condition = seed, condition
        self._task, self._task_file = seed.task, folder / f"{condition}.yaml"
        self._corpus_file, self._workspace = corpus, Workspace(str(folder / condition))

    def _strategy(self, number: int) -> str:
        """Return the strategy of a round, and write its task file."""
        strategy = strategy_of(self._condition, number)
        changes: dict[str, Any] = {"strategy": strategy}
        if strategy != OURS:
            changes |= {"exploration_share": 0.0, "first_round_share": 0.0}
        selection = self._seed.task.selection.model_copy(update=changes)
        self._task = self._seed.task.model_copy(update={"selection": selection})
        task = yaml.safe_dump(self._task.model_dump(mode="json"), sort_keys=False)
        storage.write(str(self._task_file), task.encode())
        return strategy

    def play(self, number: int, labels: int | None) -> Round:
        """Play a round, or the rest of it; once every ad was shown, nothing is new.

        Args:
            number: of the round.
            labels: fine-tuning labels that it should add, or None to go by the task's budget.
        """
        place, seed, strategy = self._workspace, self._seed, self._strategy(number)
        exhausted = len(place.shown_keys(number)) >= len(seed.division.pool)
        if not exhausted and not place.model.latest(number):
            if not place.verdicts.latest(number):
                self._mine(None if labels is None else self._budget(strategy, number, labels))
            items = place.read_items(place.pairs_of(number))
            said = answer(items, seed.verdicts, seed.row_of, self._task.labels)
            ingest_verdicts(place, said, f"round {number}")
            # Too few labels of a class: the next round mines with the model there is.
            with contextlib.suppress(TooFewLabels):
                train(TrainOptions(place.root), lambda _: None, seed.pool)
        model, models = None, place.model.by_round()
        if done := models.get(max(models, default=0) if exhausted else number):
            learnt, own = done.facts.learnt, model_store.model_files(done)
            labeler = load_trained(place, self._task, own, seed.pool)
            model = Model(labeler.margins, learnt.threshold_margin)
        spent = spending(place, self._task, before=number + 1).minutes
        return Round(number, self._labels(number), model, spent)

    def _budget(self, strategy: str, number: int, labels: int) -> int:
        """Return how many items should add so many labels."""
        # Where pairs run out single ads take their place, and the next round will be like the last.
        last = self._workspace.pairs.latest(number - 1)
        ads_an_item = 2.0 if isinstance(registry.create(strategy), PairStrategy) else 1.0
        if last and last.rows:
            ads_an_item = last.facts.ads / last.rows
        training_share = 1 - self._task.review.evaluation_share
        return max(1, round(labels / (ads_an_item * training_share)))

    def _mine(self, budget: int | None) -> None:
        mine(
            MineOptions(
                task=str(self._task_file),
                corpus=(str(self._corpus_file),),
                workspace=self._workspace.root,
                budget=budget,
            ),
            say=lambda _: None,
            pool=self._seed.pool,
        )

    def _labels(self, number: int) -> trainer.LabelledAds:
        """Return the labels of the rounds up to a number: a resumed run has later ones, too."""
        place = self._workspace
        ads = fine_tuning_labels(place, self._task, shown_ads(place).texts()).ads
        shown = place.shown_keys(number + 1)
        rows = [i for i, key in enumerate(ads.keys) if key in shown]
        return trainer.LabelledAds(
            tuple(ads.keys[i] for i in rows), tuple(ads.texts[i] for i in rows), ads.labels[rows]
        )

    def evaluation(self) -> np.ndarray:
        """Return the rows of the evaluation half of all rounds played, sorted.

        The keys are in the manifests; the verdicts are the evaluator's alone to open.
        """
        found = [
            self._seed.row_of[key]
            for manifest in self._workspace.verdicts.by_round().values()
            for key in manifest.facts.keys.evaluation
        ]
        return np.sort(np.array(found, dtype=np.intp))

    def stop(self, rounds: int) -> dict[str, Any]:
        """Compare where the rule stopped with where no later round was better by its interval.

        By the last round's evaluation, in which every round's model meets all evaluation ads.

        Args:
            rounds: how many were played.
        """
        models = self._workspace.model.by_round()
        decisions = [(n, model.facts.evaluation.decision) for n, model in sorted(models.items())]
        stopped, decision = next(
            ((number, found) for number, found in decisions if found.stop),
            (rounds, Decided(False, "rounds", f"did not stop in {rounds} rounds", 0)),
        )
        last = models[max(models)].facts.evaluation.models if models else ()
        kappas = {
            model.round: (model.kappa.value, model.kappa.high)
            for model in last
            if model.round and model.kappa.value is not None and model.kappa.high is not None
        }
        best = next(
            (
                number
                for number, (_, high) in sorted(kappas.items())
                if all(value <= high for later, (value, _) in kappas.items() if later > number)
            ),
            rounds,
        )
        return {
            "seed": self._seed.number,
            "condition": self._condition,
            "stopped_after": stopped,
            "rule": decision.rule,
            "reason": decision.reason,
            "no_later_better_after": best,
            "kappas": {str(number): value for number, (value, _) in sorted(kappas.items())},
        }
