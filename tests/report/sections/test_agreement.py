"""Agreement by round: every model on the same ads, and why one is not there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipelines.jobs.status import standing
from pipelines.report.output import Report
from pipelines.report.words import kappa_text
from pipelines.store.facts import ModelFigures, to_json
from pipelines.store.workspace import Workspace
from pipelines.verdicts import balance
from tests import helpers
from tests.report.drawn import draw, evaluation, learn, read, say_so


def test_every_model_stands_under_the_experts_with_its_interval(
    whole: Report, stages: dict[str, Path]
) -> None:
    parts = read(whole)
    found = evaluation(stages["task"], 2, say_so(80))
    experts = kappa_text(to_json(found.expert_kappa))
    assert experts.startswith("0.7") and "[" in experts
    for text in (parts.texts["agreement"], parts.texts["scale"], parts.texts[""]):
        assert experts in text
    [image] = [i for i in parts.images() if "each model with the experts" in str(i["alt"])]
    for model in found.models:
        kappa = kappa_text(to_json(model.kappa))
        assert kappa in parts.texts["scale"] and kappa in str(image["alt"])
    assert found.decision.reason in parts.texts["agreement"]
    # The first round's row has its own, older evaluation.
    older = evaluation(stages["task"], 1, say_so(40))
    assert kappa_text(to_json(older.models[1].kappa)) in parts.texts["scale"]


@pytest.mark.usefixtures("undrawn")
def test_rounds_of_another_policy_version_are_named_and_left_out(
    stages: dict[str, Path], learnt: Path, tmp_path: Path
) -> None:
    newer = helpers.FAKE_TASK.replace("version: 1", "version: 2")
    # The models of version 1 do not mine for version 2, so none is loaded.
    helpers.run(helpers.write_task(tmp_path, newer), stages["corpus"], learnt)
    parts = read(draw(learnt, tmp_path / "a"))
    assert "no expert has labelled yet" in parts.texts["agreement"]
    assert "round 1 (policy version 1, does not compare)" in parts.texts["scale"]
    older = read(draw(learnt, tmp_path / "b", round=2))
    assert "Not shown: round 3, mined for another version" in older.texts["agreement"]
    assert "model of round 2" in older.texts["scale"]


@pytest.mark.usefixtures("undrawn")
def test_an_undefined_kappa_shows_its_reason(learnt: Path, stages: dict[str, Path]) -> None:
    # Everyone calls everything negative: agreement beyond chance cannot be said.
    nobody = np.zeros((40, 2), dtype=np.int8)
    found = evaluation(stages["task"], 2, nobody)
    undefined = dataclasses.replace(found.models[1], kappa=found.expert_kappa)

    def of_round(number: int) -> ModelFigures:
        return dataclasses.replace(undefined, round=number)

    models = (found.models[0], undefined, of_round(2))
    learn(learnt, 2, dataclasses.replace(found, models=models))
    reason = found.expert_kappa.reason
    assert reason
    out = learnt / "out"
    parts = read(draw(learnt, out))
    assert f"undefined ({reason})" in parts.texts["agreement"]
    assert f"undefined ({reason})" in parts.texts["scale"]
    learn(learnt, 2, dataclasses.replace(found, models=(of_round(0), of_round(2))))
    report_of_none = draw(learnt, out)
    assert (
        "Every kappa of the models is undefined" in report_of_none.summary["missing"]["agreement"]
    )
    assert not (out / "report-agreement.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_what_experts_said_is_shown_before_any_training(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    found = standing(Workspace(str(stages["labelled"]))).labels
    assert found is not None
    parts = read(draw(stages["labelled"], tmp_path))
    kappa = kappa_text(to_json(found.expert_kappa))
    assert "[" in kappa
    text = " ".join(parts.texts["agreement"].split())
    assert (
        f"What 2 experts have said, not all of it seen by a training yet; among themselves: kappa {kappa}"
        in text
    )
    assert f"experts among themselveskappa {kappa}" in parts.texts[""]
    for name, half in (("fine-tuning", found.fine_tuning), ("evaluation", found.evaluation)):
        # Cells follow one another without a space.
        row = f"{name} half{half.positive}{half.negative}{half.tied}{half.skipped}"
        assert row in text
    [sheet] = found.ties
    assert f"The tied ads of the fine-tuning half, for one more expert: {sheet}" in text
    assert all(line[1:] in text for line in found.missing)
    # Of another version of the policy nothing is told.
    assert (
        "What 2 experts" not in read(draw(stages["mined"], tmp_path / "mined")).texts["agreement"]
    )


@pytest.mark.usefixtures("undrawn")
def test_what_is_wrong_with_the_halves_is_shown(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lopsided = balance.Balance(50, 10, 0, 0.5, 40, "<b>cheap", 1, 4)
    monkeypatch.setattr(balance, "balance", lambda *_: lopsided)
    text = " ".join(read(draw(stages["learnt"], tmp_path)).texts["agreement"].split())
    assert len(lopsided.warnings()) == 3
    for line in lopsided.warnings():
        assert f"{line[0].upper()}{line[1:]}." in text
