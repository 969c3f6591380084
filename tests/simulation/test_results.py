"""The table of a simulation, for machines and for people."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from pipelines.console.summary import rendered
from pipelines.simulation.results import at_equal_minutes, summarize
from tests.simulation.bench import SETS, Played


def test_the_summary_is_mean_and_spread_over_seeds(played: Played) -> None:
    rows, summary = played.outcome["rows"], played.outcome["summary"]
    assert [(e["condition"], e["round"]) for e in summary] == [
        (row["condition"], row["round"]) for row in rows if row["seed"] == 1
    ]
    for entry in summary:
        own = [
            row
            for row in rows
            if (row["condition"], row["round"]) == (entry["condition"], entry["round"])
        ]
        assert entry["seeds"] == len(own) == 2
        for name in ("labels", *SETS, "natural_experts"):
            values = [row[name] for row in own]
            assert entry[name] == pytest.approx(statistics.fmean(values))
            assert entry[f"{name}_sd"] == pytest.approx(statistics.stdev(values))
            assert entry[f"{name}_undefined"] == 0


def row_of(**changes: Any) -> dict[str, Any]:
    row = {"seed": 1, "learner": "head", "condition": "random", "round": 1, "labels": 9}
    row |= {"positive_share": 0.5, "threshold": 0.25}
    return row | {f"{name}{end}": 0.5 for name in SETS for end in ("", "_experts")} | changes


def test_what_is_undefined_is_counted_not_averaged() -> None:
    [entry] = summarize([row_of(natural=None), row_of(natural=0.7), row_of()])
    assert (entry["natural"], entry["natural_undefined"]) == (pytest.approx(0.6), 1)
    [entry] = summarize([row_of(natural=None)])
    assert (entry["natural"], entry["natural_sd"], entry["natural_undefined"]) == (None, None, 1)


def outcome_of(*rows: dict[str, Any], stops: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    found = {"task": "tiny", "negative": "other", "rows": rows, "summary": summarize(rows)}
    found["at_minutes"] = at_equal_minutes(rows)
    return found | {"stops": stops}


def test_rounds_without_a_model_are_named() -> None:
    untrained = row_of(threshold=None, natural=None)
    lines = rendered("simulated", outcome_of(untrained, row_of(round=2))).splitlines()
    assert (
        "too few labels of a class to train on, counted as a model that calls every ad other, in "
        "seeds of: random, round 1 (head): 1 of 1"
    ) in lines
    assert "undefined" in lines[3]


@pytest.mark.parametrize(
    ("conditions", "words"),
    [(("boundary",), ["seed 1: "]), (("boundary", "twins"), ["seed 1, boundary: ", "seed 1, twins: "])],
)  # fmt: skip
def test_stops_name_the_strategy_where_several_were_played(
    conditions: tuple[str, ...], words: list[str]
) -> None:
    stop = {"seed": 1, "reason": "stopped at parity", "no_later_better_after": 2}
    stops = tuple(stop | {"condition": condition} for condition in conditions)
    lines = rendered("simulated", outcome_of(row_of(), stops=stops)).splitlines()
    found = [line for line in lines if line.endswith("the rule stopped at parity")]
    assert found == [f"{word}the rule stopped at parity" for word in words]


def test_the_table_for_a_person(played: Played) -> None:
    text = rendered("simulated", played.outcome)
    assert text.startswith(
        "Task tiny: Cohen's kappa with the experts, mean over 2 seeds and standa"
    )
    lines = text.splitlines()
    for entry in played.outcome["summary"]:
        cells = " ".join(f"{entry[n]:.2f} ±{entry[f'{n}_sd']:.2f}" for n in SETS).split()
        [line] = [
            line
            for line in lines
            if line.startswith(f"head     {entry['condition']} ") and line.split()[-6:] == cells
            and f" {entry['labels']:.0f} " in line
        ]  # fmt: skip
        assert f"{entry['positive_share']:.0%}" in line
    assert any(line.strip().startswith("experts among themselves") for line in lines)
    for stop in played.outcome["stops"]:
        assert f"seed {stop['seed']}, {stop['condition']}: the rule {stop['reason']}" in text


def row(condition: str, minutes: float | None, kappa: float, seed: int = 1) -> dict[str, object]:
    sets = dict.fromkeys(("natural", "balanced", "evaluation"), kappa)
    known = {"learner": "head", "condition": condition, "seed": seed, "labels": 100 * kappa}
    return {**known, "minutes": minutes, **sets}


def test_strategies_are_compared_at_the_minutes_that_all_of_them_spent() -> None:
    rows = [
        *(row("boundary", *at) for at in ((40.0, 0.2), (80.0, 0.6))),
        *(row("random", *at) for at in ((30.0, 0.1), (60.0, 0.3))),
        row("crowd 0.59 text", None, 0.9),
    ]
    boundary, random = at_equal_minutes(rows)
    assert (boundary["condition"], random["condition"]) == ("boundary", "random")
    assert boundary["minutes"] == random["minutes"] == 60
    assert boundary["natural"] == pytest.approx(0.4), "half-way between its rounds"
    assert random["natural"] == pytest.approx(0.3) and random["natural_sd"] is None
    more = [*rows, row("boundary", 20.0, 0.2, 2), row("random", 30.0, 0.1, 2)]
    boundary, random = at_equal_minutes(more)
    assert boundary["seeds"] == 2 and boundary["minutes"] == 40
    assert random["natural"] == pytest.approx((0.3 + 0.1 * 20 / 30) / 2)


def test_without_minutes_nothing_is_compared_at_them() -> None:
    assert at_equal_minutes([row("boundary", None, 0.5), {"condition": "old"}]) == []
