"""One simulation for all tests of the room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from models.backends.fake import FakeLabeler
from models.training import trainer
from pipelines.jobs import evaluate as evaluator
from pipelines.jobs import label_standing
from pipelines.numerics import agreement
from pipelines.simulation import play
from pipelines.simulation.measure import Measurer, Round
from tests import helpers
from tests.simulation.bench import GOLD, Bench, Played


@pytest.fixture(scope="package")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    encoder = helpers.tiny_encoder(folder / "tiny-bert")
    text = helpers.head_task(encoder).replace("budget: 30", "budget: 20")
    helpers.write_task(folder, text)
    helpers.write_jsonl(folder / "ads.jsonl", GOLD.labelled())
    return Bench(folder)


@pytest.fixture(scope="package")
def played(bench: Bench) -> Played:
    trained: list[trainer.LabelledAds] = []
    asked: list[str] = []
    recorded: list[tuple[str, set[str], np.ndarray]] = []
    measured: list[tuple[np.ndarray, np.ndarray, float | None]] = []
    inside: list[str] = []
    train, label = trainer.train, FakeLabeler.label
    model_agreement = agreement.model_agreement
    record = Measurer._record

    def training(ads: trainer.LabelledAds, *args: Any, **kwargs: Any) -> Any:
        trained.append(ads)
        return train(ads, *args, **kwargs)

    def labelling(self: FakeLabeler, texts: Sequence[str]) -> Any:
        asked.extend(texts)
        return label(self, texts)

    def recording(
        self: Measurer, condition: str, learner: str, played: Round, rows: np.ndarray
    ) -> None:
        recorded.append((condition, set(played.ads.keys), rows))
        record(self, condition, learner, played, rows)

    def measuring(labels: np.ndarray, table: np.ndarray, bootstrap: agreement.Bootstrap) -> Any:
        found = model_agreement(labels, table, bootstrap)
        if bootstrap.n_boot == agreement.MIN_BOOT:
            measured.append((labels, table, found.value))
        return found

    def evaluating(read: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            before = len(reads)
            found = read(*args, **kwargs)
            inside.extend(helpers.of_evaluation(reads[before:]))
            del reads[before:]
            return found

        return watched

    with pytest.MonkeyPatch.context() as patch, helpers.watched_reads() as reads:
        patch.setattr(trainer, "train", training)
        patch.setattr(FakeLabeler, "label", labelling)
        patch.setattr(agreement, "model_agreement", measuring)
        patch.setattr(Measurer, "_record", recording)
        patch.setattr(evaluator, "evaluate", evaluating(evaluator.evaluate))
        # A refused training counts the labels of both halves.
        counted = evaluating(label_standing.evaluation_ratings)
        patch.setattr(label_standing, "evaluation_ratings", counted)
        outcome = play.simulate(bench.options(seeds=2), lambda line: None)
        outside = helpers.of_evaluation(reads)
    return Played(bench, outcome, trained, asked, recorded, measured, (inside, outside))
