"""Scores: how near to the threshold the items lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts import ReviewItem
from pipelines.jobs.status import standing
from pipelines.numerics.calibration import PriorBound
from pipelines.report.output import Report
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.helpers import by_label
from tests.report.drawn import draw, items_of, read, rename, rewrite


def test_how_near_the_pairs_came_to_the_threshold_is_said_in_figures(
    whole: Report, stages: dict[str, Path]
) -> None:
    text = " ".join(read(whole).texts["scores"].split())
    assert "25% of those called positive and as many of the others (selection.band)" in text
    workspace = Workspace(str(stages["learnt"]))
    scored, clusters = workspace.scored.latest(2), workspace.clusters.latest(2)
    assert scored is not None and clusters is not None
    blocks = [helpers.scored_table(stages["learnt"], scored)]
    margins = np.concatenate([block.column("margin").to_numpy() for block in blocks])
    positive = margins >= clusters.facts.threshold.margin
    chosen = [by_label(p) for p in items_of(stages["learnt"], 2) if p.source == "boundary"]
    assert f"In the {len(chosen)} pairs chosen there" in text
    highest = max(pair["positive"].margin for pair in chosen)
    lowest = min(pair["negative"].margin for pair in chosen)
    for label, side, near in (
        ("positive", positive, margins <= highest),
        ("negative", ~positive, margins >= lowest),
    ):
        scores = [pair[label].probability for pair in chosen]
        assert (
            f"those called {label} score p = {min(scores):.4g} to {max(scores):.4g} "
            f"({(side & near).sum()} of all {side.sum()} are that near to the threshold)"
        ) in text


@pytest.mark.usefixtures("undrawn")
def test_without_a_band_or_without_pairs_none_is_claimed(learnt: Path, tmp_path: Path) -> None:
    items = items_of(learnt, 2)

    def scores(found: list[ReviewItem], out: str) -> str:
        rewrite(learnt, 2, found)
        return " ".join(read(draw(learnt, tmp_path / out)).texts["scores"].split())

    everything = [dataclasses.replace(item, source="boundary") for item in items]
    nothing = [dataclasses.replace(item, source="exploration") for item in items]
    assert "keep to no such limit" in scores([*everything[1:], *nothing[:1]], "a")
    assert "keep to no such limit" not in scores(everything, "b")
    random = scores(nothing, "c")
    assert "as many of the others (selection.band)" in random and "chosen there" not in random
    selection = Workspace(str(learnt)).pairs_of(2).facts.origin.task.selection
    rename(learnt, selection={**selection.model_dump(), "band": 1.0})
    text = scores(everything, "d")
    assert "among all ads (selection.band is 1)" in text and "too few" not in text


@pytest.mark.usefixtures("undrawn")
def test_what_the_prior_does_to_a_threshold_is_told_of_the_round_and_of_its_model(
    learnt: Path, tmp_path: Path
) -> None:
    assert "of the rarer class" not in read(draw(learnt, tmp_path / "a")).texts[""]
    bound = PriorBound(0.2, 0.09, 0.39, 2, 40, 0.63, 0.5, 0.8, 0.39)
    place = Workspace(str(learnt))
    pairs, model = place.pairs_of(2), place.model.latest(2)
    assert model is not None
    threshold = dataclasses.replace(pairs.facts.threshold, source="bounded", bound=bound)
    place.commit(
        dataclasses.replace(pairs, facts=dataclasses.replace(pairs.facts, threshold=threshold))
    )
    learnt_by = dataclasses.replace(model.facts.learnt, bound=bound)
    place.commit(
        dataclasses.replace(model, facts=dataclasses.replace(model.facts, learnt=learnt_by))
    )
    texts = read(draw(learnt, tmp_path / "b")).texts
    scores, agreement = (" ".join(texts[id].split()) for id in ("scores", "agreement"))
    said = str(bound)
    assert f"{said[0].upper()}{said[1:]}." in scores
    assert "moved to the nearest share that the prior allows" in scores
    assert f"The threshold of the model of round 2: {said}." in agreement
    assert said in " ".join(standing(place).text().split())
