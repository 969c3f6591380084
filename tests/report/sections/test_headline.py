"""The paragraph at the report's top: how many, what share, where it is confused, what experts said, what next."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from pipelines.report.data import Evidence, read_round, with_sample
from pipelines.report.html import page, rendered
from pipelines.report.output import Report
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.console.test_audit import found as audit_found
from tests.report.drawn import Parts, draw, read


def lead(parts: Parts) -> str:
    """Return the text before the table of facts."""
    return " ".join(parts.texts[""].partition("What to do next: ")[0].split())


def told(found: Evidence) -> str:
    head = rendered("sections/headline.html", found=found).__html__()
    return " ".join(Parts(page("title", Markup(head), [])).texts[""].split())


@pytest.fixture(scope="module")
def mined(stages: dict[str, Path]) -> Evidence:
    return with_sample(read_round(Workspace(str(stages["mined"])), None), 20_000)


def stood(found: Evidence, **changes: Any) -> Evidence:
    return dataclasses.replace(found, stand={**found.stand, **changes})


def test_it_says_how_many_what_share_and_that_a_prior_is_no_finding(mined: Evidence) -> None:
    text = told(mined)
    assert mined.sample is not None
    share = mined.sample.positives / 200
    assert (
        f"Of 200 distinct ads the model (LLM-0) calls {mined.sample.positives}, {share:.1%}, positive. "
        f"That share is what the task file expects (a prior of {mined.task.prior:.3g}), not a finding"
    ) in text
    audited = told(stood(mined, audit=audit_found()))
    assert "the true share is 2.10% [1.30%, 3.40%] (95% interval)." in audited
    assert "not a finding" not in audited


def test_it_names_where_the_model_is_confused_by_themes_and_never_by_numbers(
    mined: Evidence,
) -> None:
    text = told(mined)
    assert mined.sample is not None and mined.sample.close
    assert "The model is most confused where ads about" in text
    for overlap in mined.sample.close:
        for theme in (overlap.positive, overlap.negative):
            assert ", ".join(theme.words[:3]) or "ads without a word in common" in text
    assert "cluster" not in text
    assert f"asked about {len(mined.items)} pairs of ads from such places" in text
    without = dataclasses.replace(mined, sample=dataclasses.replace(mined.sample, close=()))
    assert "looks for no groups of ads" in told(without)


def test_what_experts_said_so_far_is_told_and_nothing_is_made_up(
    whole: Report, stages: dict[str, Path], tmp_path: Path, mined: Evidence
) -> None:
    assert "No expert has labelled an ad by this version of the policy yet" in told(mined)
    labelled = read_round(Workspace(str(stages["labelled"])), None)
    halves = labelled.stand["rounds"][0]["labelled"]
    ads = halves["fine_tuning"] + halves["evaluation"] + halves["withheld"]
    text = told(labelled)
    said = f"2 experts labelled {ads} ads so far. They agree with one another at kappa 0.50 [0.1"
    assert said in text

    assert "(1: always; 0: no more than by chance). No model has learnt from them yet." in text
    learnt = lead(read(whole))
    assert "They agree with one another at kappa 0.7" in learnt
    assert "and the model of round 2 with them at" in learnt


def test_a_training_that_did_harm_is_told_at_the_top(learnt: Path) -> None:
    found = with_sample(read_round(Workspace(str(learnt)), None), 20_000)
    assert found.evaluation is not None
    first, *others = found.evaluation["models"]

    def with_kappas(untrained: tuple[float, float], trained: tuple[float, float]) -> str:
        def judged(model: Any, ends: tuple[float, float]) -> Any:
            kappa = {"value": sum(ends) / 2, "low": ends[0], "high": ends[1]}
            return {**model, "kappa": {**model["kappa"], **kappa}}

        models = [judged(first, untrained), *others[:-1], judged(others[-1], trained)]
        changed = copy.deepcopy(found.stand["rounds"])
        newest = [entry for entry in changed if entry["model"]][-1]
        newest["model"]["evaluation"]["models"] = models
        return told(stood(found, rounds=changed))

    harm = "LLM-0 agrees with them at 0.62 [0.32, 0.92]: training has made it worse so far"
    assert harm in with_kappas((0.32, 0.92), (0.0, 0.31))
    # Not where chance would do.
    assert "made it worse" not in with_kappas((0.30, 0.90), (0.0, 0.31))


def test_the_next_step_is_the_one_that_status_tells(mined: Evidence) -> None:
    assert f"What to do next: {mined.stand['next']}." in told(mined)
    assert str(mined.workspace.root) in mined.stand["next"], "with real paths"


@pytest.mark.usefixtures("undrawn")
def test_without_the_ads_it_says_the_rest(learnt: Path, tmp_path: Path) -> None:
    helpers.block_of(learnt, 2).unlink()
    text = lead(read(draw(learnt, tmp_path)))
    assert "distinct ads" not in text and "most confused" not in text
    assert "2 experts labelled" in text
