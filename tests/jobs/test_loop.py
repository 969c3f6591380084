"""The round trip through the command: mine, verdicts, import, train, the next round."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.backends.trained import Trained
from pipelines import cli
from pipelines.jobs import evaluate, ingest, labels
from pipelines.store.facts import LabelCounts
from pipelines.store.workspace import Workspace
from pipelines.verdicts import commit_imports
from pipelines.verdicts.halves import Ratings, read_half
from tests import helpers
from tests.jobs.loop import (
    EXPERTS,
    GOLD,
    Loop,
    check_kappa,
    check_second_import,
    check_training_set,
    expected_kappas,
    labels_of,
    said_by,
)


def test_the_reports_figures_are_those_of_the_verdict_files(played: Loop) -> None:
    for number in (1, 2):
        report = played.manifest(number, "model").facts.evaluation
        experts, kappas, ids = expected_kappas(played, models=number, upto=number)
        assert report.ads == len(ids)
        assert report.expert_kappa.value == pytest.approx(experts)
        # LLM-0 and the older model are scored again, on the same ads as the newest one.
        assert [model.round for model in report.models] == list(range(number + 1))
        assert [m.kappa.value for m in report.models] == pytest.approx(kappas)
        assert {model.kappa.n_ads for model in report.models} == {len(ids)}
        given = [said_by(expert, id) == "positive" for expert in EXPERTS for id in ids]
        assert report.positive_share == pytest.approx(np.mean(given))
        assert report.decision.reason.startswith(f"go on after round {number}: {len(ids)} ev")
    first, second = (played.manifest(n, "model").facts.evaluation.ads for n in (1, 2))
    assert first < second, "evaluation ads add up over rounds"


def test_what_training_prints(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    assert loop.command("train") == cli.OK
    out = capsys.readouterr().out
    facts = loop.manifest(2, "model").facts
    report, labels = facts.evaluation, facts.labels
    share = labels.fine_tuning_positive / labels.fine_tuning
    assert f"{labels.fine_tuning}, {share:.0%} positive, {labels.tied} more tied\n" in out
    # 48 labels are few: what bounds the threshold stands beside it.
    assert facts.learnt.bound is not None
    assert f"p >= {facts.learnt.threshold_probability:.4g}; {facts.learnt.bound}\n" in out
    for name, kappa in (
        ("experts among themselves", report.expert_kappa),
        ("LLM-0 and experts", report.models[0].kappa),
        ("model of round 2 and experts", report.models[2].kappa),
    ):
        shown = rf"\[{kappa.low:.2f}, {kappa.high:.2f}\]"
        assert re.search(rf"  {name} +{kappa.value:.2f} {shown}\n", out)
    assert re.search(
        r"\nGo on after round 2: .*\.\nTied ads:  \S+ties\.csv\nModel:     \S+\n$", out
    )


def test_the_labels_counted_are_the_fine_tuning_halfs(played: Loop) -> None:
    sides = played.sides()
    for number in (1, 2):
        ids = [id for n in range(1, number + 1) for id in played.shown(n)]
        mine = [id for id in ids if sides[id] == "fine_tuning"]
        agreed = [id for id in mine if said_by("anna", id) == said_by("bo", id)]
        assert played.manifest(number, "model").facts.labels == LabelCounts(
            fine_tuning=len(agreed),
            fine_tuning_positive=sum(said_by("bo", id) == "positive" for id in agreed),
            fine_tuning_experts=2,
            tied=len(mine) - len(agreed),
        )
        assert len(mine) > len(agreed), "the experts err often enough for a tie"


def test_the_second_round_mines_with_the_first_model(played: Loop) -> None:
    model = played.manifest(1, "model")
    threshold = model.facts.learnt.threshold_margin
    for stage in ("scored", "clusters", "pairs", "review"):
        assert played.manifest(1, stage).facts.origin.model_round == 0
        origin = played.manifest(2, stage).facts.origin
        assert origin.model_round == 1
        assert origin.model_id.startswith(model.facts.learnt.model_id)
    assert played.manifest(1, "clusters").facts.threshold.source == "prior"
    clusters = played.manifest(2, "clusters").facts
    assert (clusters.threshold.source, clusters.threshold.margin) == ("fitted", threshold)
    items = played.place.read_items(played.manifest(2, "pairs"))
    for side, positive in (("positive", True), ("negative", False)):
        margins = [helpers.by_label(item)[side].margin for item in items]
        assert {margin >= threshold for margin in margins} == {positive}
        ids = [helpers.by_label(item)[side].id for item in items]
        assert set(labels_of(model, played, ids).tolist()) == {positive}


def test_pairs_of_a_later_round_lie_near_the_fitted_threshold(played: Loop) -> None:
    model = played.manifest(1, "model")
    threshold = model.facts.learnt.threshold_margin
    folder = played.root / model.files[0].path.rsplit("/", 1)[0]
    shown = {*played.shown(1)}
    unseen = [ad["text"] for ad in GOLD.ads if ad["id"] not in shown]
    margins = Trained(folder).load().label(unseen).margin
    items = played.place.read_items(played.manifest(2, "pairs"))
    chosen = [item for item in items if item.source == "boundary"]
    # Of 30 items a good third is drawn at random in the second round.
    assert len(chosen) > 15
    # Of the ads called negative and not shown before the nearest 90: three for each of the 30 pairs.
    below = np.sort(threshold - margins[margins < threshold])
    assert len(below) > 120
    used = [threshold - helpers.by_label(item)["negative"].margin for item in chosen]
    assert max(used) <= below[89] < below[-1]


def test_no_ad_is_shown_twice(loop: Loop) -> None:
    first, second = loop.shown(1), loop.shown(2)
    assert len({*first, *second}) == len(first) + len(second) == 120
    assert loop.mine() == cli.OK
    third = loop.shown(3)
    assert third and not {*first, *second} & {*third}
    assert loop.manifest(3, "pairs").facts.origin.model_round == 2


# --- Who reads which half ----------------------------------------------------------------------


def test_only_the_evaluator_opens_the_evaluation_half(
    untrained: Loop, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[str] = []
    real = evaluate.evaluate

    def watched(*args: Any, **kwargs: Any) -> Any:
        assert helpers.of_evaluation(opened) == [], "opened before the evaluator was asked"
        del opened[:]
        found = real(*args, **kwargs)
        inside.extend(helpers.of_evaluation(opened))
        del opened[:]
        return found

    monkeypatch.setattr(evaluate, "evaluate", watched)
    assert untrained.command("train") == cli.OK
    assert len(inside) == len(set(inside)) == 2, "one file a round, each read once"
    assert helpers.of_evaluation(opened) == []
    assert untrained.mine() == cli.OK
    assert untrained.manifest(3, "pairs").facts.origin.model_round == 2
    assert untrained.command("status") == cli.OK
    assert untrained.command("status", "--json") == cli.OK
    assert any(path.endswith("manifest.json") for path in opened), "the watch must see"
    assert helpers.of_evaluation(opened) == []
    # And the watch would see it.
    read_half(untrained.place, "evaluation", 1)
    assert len(helpers.of_evaluation(opened)) == 2


def test_no_other_module_asks_for_the_evaluation_half() -> None:
    folder = Path(labels.__file__).parents[1]
    asking = [
        path.name
        for path in folder.rglob("*.py")
        if re.search(r"read_half\(\s*\w+,\s*(\"evaluation\"|EVALUATION|half)", path.read_text())
    ]
    # The audit counts what is known already; it hands no verdict to anything that learns or chooses.
    assert sorted(asking) == ["audit.py", "evaluate.py"]
    counting = [p.name for p in folder.rglob("*.py") if "evaluation_ratings(" in p.read_text()]
    # Nor does what is told of labels before a training.
    assert sorted(counting) == ["evaluate.py", "label_standing.py"]


def test_training_sees_the_fine_tuning_half_alone(
    untrained: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_training_set(untrained, 1)
    untrained.train()
    check_training_set(untrained, 2)
    honest = untrained.manifest(2, "model").facts.learnt.label_set_hash
    real = labels.read_half

    def leaking(workspace: Workspace, half: str, version: int) -> list[Any]:
        leaked = real(workspace, "evaluation", version)
        one = [v for v in leaked if v.key == leaked[0].key]
        assert len({v.label for v in one}) == 1 and len(one) == 2
        return real(workspace, half, version) + one

    monkeypatch.setattr(labels, "read_half", leaking)
    _, said = untrained.train()
    assert any("training a head" in line for line in said)
    with pytest.raises(AssertionError):
        check_training_set(untrained, 2)
    assert untrained.manifest(2, "model").facts.learnt.label_set_hash != honest


# --- Mutations: swapped labels, a file twice ---------------------------------------------------


def swap(table: Ratings) -> Ratings:
    flipped = np.where(table.values == -1, -1, 1 - table.values).astype(np.int8)
    return replace(table, values=flipped)


@pytest.mark.parametrize("where", [None, labels, evaluate])
def test_a_swapped_label_order_would_be_seen(
    where: Any, untrained: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where is not None:
        real = where.ratings
        monkeypatch.setattr(where, "ratings", lambda found: swap(real(found)))
    untrained.train()
    if where is None:
        check_kappa(untrained, 2)
        return
    with pytest.raises(AssertionError):
        check_kappa(untrained, 2)
    report = untrained.manifest(2, "model").facts.evaluation
    assert report.models[-1].kappa.value < -0.4


def test_a_file_imported_twice_changes_nothing(loop: Loop) -> None:
    check_second_import(loop)


def test_a_file_that_counted_twice_would_be_seen(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (ingest, commit_imports):
        monkeypatch.setattr(module, "is_imported", lambda sha256, manifests: False)
    monkeypatch.setattr(commit_imports, "_holds", lambda manifest, sha256: False)
    with pytest.raises(AssertionError):
        check_second_import(loop)
