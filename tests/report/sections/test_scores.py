"""Scores: how near to the threshold the items lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.report.output import Report
from pipelines.store.workspace import Workspace
from tests.report.drawn import draw, pairs_of, read, rename


def test_how_near_the_pairs_came_to_the_threshold_is_said_in_figures(
    whole: Report, stages: dict[str, Path]
) -> None:
    text = " ".join(read(whole).texts["scores"].split())
    assert "25% of those called positive and as many of the others (selection.band)" in text
    workspace = Workspace(str(stages["learnt"]))
    scored, clusters = (workspace.latest(2, stage) for stage in ("scored", "clusters"))
    assert scored is not None and clusters is not None
    blocks = [pq.read_table(workspace.path(file.path)) for file in scored.files]
    margins = np.concatenate([block.column("margin").to_numpy() for block in blocks])
    positive = margins >= clusters.facts["threshold_margin"]
    chosen = [p for p in pairs_of(stages["learnt"], 2) if p["source"] == "overlap"]
    assert f"In the {len(chosen)} pairs chosen there" in text
    highest = max(pair["positive"]["margin"] for pair in chosen)
    lowest = min(pair["negative"]["margin"] for pair in chosen)
    for label, side, near in (
        ("positive", positive, margins <= highest),
        ("negative", ~positive, margins >= lowest),
    ):
        scores = [pair[label]["probability"] for pair in chosen]
        assert (
            f"those called {label} score p = {min(scores):.4g} to {max(scores):.4g} "
            f"({(side & near).sum()} of all {side.sum()} are that near to the threshold)"
        ) in text


@pytest.mark.usefixtures("undrawn")
def test_without_a_band_or_without_pairs_none_is_claimed(learnt: Path, tmp_path: Path) -> None:
    path = next((learnt / "rounds/0002/pairs").rglob("pairs.jsonl"))
    pairs = [json.loads(line) for line in path.read_text().splitlines()]

    def scores(found: list[dict[str, Any]], out: str) -> str:
        path.write_text("".join(json.dumps(pair) + "\n" for pair in found))
        return " ".join(read(draw(learnt, tmp_path / out)).texts["scores"].split())

    numbers = {"covered_share": 0.1, "cumulative_share": 0.1, "propensity": 0.1}
    everything = [{**pair, **numbers, "source": "overlap"} for pair in pairs]
    nothing = [{**pair, "source": "exploration"} for pair in everything]
    assert "keep to no such limit" in scores([*everything[1:], *nothing[:1]], "a")
    assert "keep to no such limit" not in scores(everything, "b")
    random = scores(nothing, "c")
    assert "as many of the others (selection.band)" in random and "chosen there" not in random
    manifest = json.loads((path.parent / "manifest.json").read_text())
    selection = manifest["facts"]["definition"]["selection"]
    rename(learnt, selection={**selection, "band": 1.0})
    text = scores(everything, "d")
    assert "among all ads (selection.band is 1)" in text and "too few" not in text
