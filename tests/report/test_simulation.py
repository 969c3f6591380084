"""The report of a simulation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.output import Report
from pipelines.report.simulation import simulation_report
from pipelines.simulation.results import summarize
from tests.report.drawn import Parts, read


def outcome(
    conditions: tuple[str, ...] = ("boundary", "random", "crowd 0.59 text"), **changes: Any
) -> dict[str, Any]:
    """Return what a simulation of two seeds and two rounds would."""
    rows = []
    for seed in (1, 2):
        for place, condition in enumerate(conditions):
            for number in (1,) if condition.startswith("crowd") else (1, 2):
                value = 0.8 / (1 + place) - 0.1 / number + 0.01 * seed
                rows.append(
                    {
                        "seed": seed, "condition": condition, "learner": "head", "round": number,
                        "labels": 5000 if condition.startswith("crowd") else 25 * number,
                        "positive_share": 0.4, "threshold": 0.1,
                        "natural": value, "balanced": value + 0.1,
                        "evaluation": None if condition == "random" and number == 1 else value,
                        "natural_experts": 0.85, "balanced_experts": 0.8, "evaluation_experts": 0.75,
                    }
                )  # fmt: skip
    stop = {"seed": 1, "condition": "boundary", "stopped_after": 2, "rule": "parity", "reason": "stopped at parity: because",
            "no_later_better_after": 1, "kappas": {"1": 0.5, "2": 0.6}}  # fmt: skip
    return {
        "task": "tiny", "options": {"task": "t.yaml", "seeds": 2, "labels": [25, 50]}, "ads": 400,
        "summary": summarize(rows), "stops": [stop] if "boundary" in conditions else [],
        "rows": rows, "seconds": 12.3,
    } | changes  # fmt: skip


def simulated(value: Mapping[str, Any], folder: Path) -> tuple[Report, Parts]:
    found = simulation_report(value, str(folder), lambda line: None)
    return found, read(found)


def test_a_simulation_has_its_conditions_side_by_side(tmp_path: Path) -> None:
    found, parts = simulated(outcome(), tmp_path)
    assert list(parts.texts)[1:] == [
        "conditions-head", "curves-head", "scale-head", "stops", "provenance",
    ]  # fmt: skip
    assert found.summary["conditions"] == ["boundary", "random", "crowd 0.59 text"]
    table = " ".join(parts.texts["scale-head"].split())
    assert "boundary, round 2" in table and "40% ±0%" in table and "5,000 ±0" in table
    for entry in outcome()["summary"]:
        assert f"{entry['natural']:.2f} ±{entry['natural_sd']:.2f}" in table
    assert "experts among themselves" in table and "0.85 ±0.00" in table
    assert "undefined" in table, "the evaluation half of random's first round"
    assert "1boundary2parity1stopped" in parts.texts["stops"]
    assert "stopped at parity: because" in parts.texts["stops"]
    assert '"t.yaml"' in parts.texts["provenance"]
    assert len(parts.images()) == 4 == len(list(tmp_path.glob("report-head-*.png")))
    assert all("boundary" in str(image["alt"]) for image in parts.images())
    assert "Undefined for 2 models" in parts.texts["curves-head"]


@pytest.mark.usefixtures("undrawn")
def test_marks_that_stand_aside_are_explained_and_others_are_not(tmp_path: Path) -> None:
    _, one = simulated(outcome(), tmp_path / "a")
    _, two = simulated(outcome(("boundary", "crowd 0.59 text", "crowd 0.41 text")), tmp_path / "b")
    assert "side by side around it" not in one.texts["curves-head"]
    assert two.texts["curves-head"].count("side by side around it") == 3


@pytest.mark.usefixtures("undrawn")
def test_a_simulation_is_redrawn_from_its_file(tmp_path: Path) -> None:
    written = json.loads(json.dumps(outcome()))
    again, _ = simulated(written, tmp_path / "a")
    first, _ = simulated(outcome(), tmp_path / "b")
    assert Path(again.path).read_bytes() == Path(first.path).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_a_simulation_of_crowds_alone_says_what_it_lacks(tmp_path: Path) -> None:
    found, parts = simulated(outcome(("crowd 0.59 text",)), tmp_path)
    assert set(found.summary["missing"]) == {"stops"}
    assert "No selection strategy was played" in parts.texts["stops"]


def test_one_seed_has_no_spread_and_nothing_defined_is_drawn_too(tmp_path: Path) -> None:
    rows = [
        {**row, "natural": None, "balanced": None, "evaluation": None, "evaluation_experts": None}
        for row in outcome()["rows"]
        if row["seed"] == 1
    ]
    _, parts = simulated(outcome(rows=rows, summary=summarize(rows)), tmp_path)
    assert "one seed, no spread" in parts.texts[""]
    assert "±" not in parts.texts["scale-head"]
    assert len(parts.images()) == 4


@pytest.mark.usefixtures("undrawn")
def test_two_learners_have_parts_of_their_own(tmp_path: Path) -> None:
    rows = outcome()["rows"]
    rows += [{**row, "learner": "encoder", "natural": 0.9} for row in rows]
    found, parts = simulated(outcome(rows=rows, summary=summarize(rows)), tmp_path)
    assert found.summary["learners"] == ["head", "encoder"]
    assert "0.90 ±0.00" in parts.texts["scale-encoder"]
    assert "0.90 ±0.00" not in parts.texts["scale-head"]
    assert len(parts.images()) == 8
    ids = [a["id"] for _, a in parts.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_a_hostile_simulation_is_only_text(tmp_path: Path) -> None:
    odd = "<script>alert(1)</script>\u202e$x$"
    options = {"corpus": [odd], "task": odd}
    _, parts = simulated(outcome((odd, "random"), task=odd, options=options), tmp_path)
    assert not [tag for tag, _ in parts.tags if tag == "script"]
    assert "<script>alert(1)</script>\\u202e$x$" in parts.texts["scale-head"]
    assert "\u202e" not in "".join(parts.texts.values())
