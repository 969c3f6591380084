"""What a simulation found: its table over seeds, and how a person reads it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.jobs.results import Result
from pipelines.simulation.measure import SETS
from pipelines.simulation.options import OURS


@dataclass(frozen=True, slots=True, repr=False)
class Simulated(Result):
    """What a simulation leaves behind.

    Attributes:
        task: name of the task.
        negative: what it calls a negative ad.
        options: everything that was asked for.
        ads: distinct labelled ads.
        summary: mean and spread over seeds, a row a condition, learner and round.
        stops: what the stopping rule said, a row a seed and strategy.
        rows: what was measured, a row a seed, condition, learner and round.
        seconds: in all.
    """

    task: str
    negative: str
    options: Mapping[str, Any]
    ads: int
    summary: Sequence[Mapping[str, Any]]
    stops: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    seconds: float

    def text(self) -> str:
        """Return the table of conditions."""
        return describe(self.to_json())


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread over seeds of every condition, learner and round."""
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["learner"], row["condition"], row["round"]), []).append(row)
    found = []
    for (learner, condition, number), members in groups.items():
        entry: dict[str, Any] = {
            "learner": learner,
            "condition": condition,
            "round": number,
            "seeds": len(members),
            "untrained": sum(row["threshold"] is None for row in members),
        }
        names = ["labels", "positive_share", *SETS, *(f"{name}_experts" for name in SETS)]
        for name in names:
            values = [row[name] for row in members if row[name] is not None]
            entry[name] = statistics.fmean(values) if values else None
            entry[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
            entry[f"{name}_undefined"] = len(members) - len(values)
        found.append(entry)
    return found


def describe(outcome: Mapping[str, Any]) -> str:
    """Return the outcome as a table."""
    summary, stops = outcome["summary"], outcome["stops"]
    table: list[tuple[str, ...]] = [
        ("learner", "condition", "labels", "positive", "natural", "balanced", "evaluation half")
    ]
    for entry in summary:
        share = entry["positive_share"]
        table.append(
            (
                entry["learner"],
                entry["condition"],
                f"{entry['labels']:,.0f}",
                "-" if share is None else f"{share:.0%}",
                *_means(entry),
            )
        )
    experts = next((entry for entry in summary if entry["condition"] == OURS), summary[0])
    table.append(("", "experts among themselves", "", "", *_means(experts, "_experts")))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    seeds = len({row["seed"] for row in outcome["rows"]})
    lines = [
        f"Task {outcome['task']}: Cohen's kappa with the experts, mean over {seeds} "
        f"seed{'s and standard deviation' if seeds > 1 else ''}\n"
    ]
    for row in table:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join([*left, *right]).rstrip())
    untrained = "; ".join(
        f"{entry['condition']}, round {entry['round']} ({entry['learner']}): "
        f"{entry['untrained']} of {entry['seeds']}"
        for entry in summary
        if entry["untrained"]
    )
    if untrained:
        lines.append(
            "too few labels of a class to train on, counted as a model that calls every ad "
            f"{outcome['negative']}, in seeds of: {untrained}"
        )
    several = len({stop["condition"] for stop in stops}) > 1
    for stop in stops:
        lines.append(
            f"seed {stop['seed']}{', ' + stop['condition'] if several else ''}: the rule "
            f"{stop['reason']}\n        (no later round is better beyond its interval than round "
            f"{stop['no_later_better_after']})"
        )
    return "\n".join(lines)


def _means(entry: Mapping[str, Any], of: str = "") -> Iterator[str]:
    """Yield a line's figures on the three sets, with their spread over seeds."""
    for name in (f"{name}{of}" for name in SETS):
        value, spread = entry[name], entry[f"{name}_sd"]
        shown = "undefined" if value is None else f"{value:z.2f}"
        yield shown if value is None or spread is None else f"{shown} ±{spread:.2f}"
