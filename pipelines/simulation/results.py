"""What a simulation found: its table over seeds, and how a person reads it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.simulation.measure import SETS
from pipelines.simulation.options import OURS


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
    head = ("learner", "condition", "labels", "positive", "natural", "balanced", "evaluation half")
    table: list[tuple[str, ...]] = [head]
    untrained = []
    for entry in outcome["summary"]:
        share = entry["positive_share"]
        table.append(
            (
                entry["learner"],
                entry["condition"],
                f"{entry['labels']:,.0f}",
                "-" if share is None else f"{share:.0%}",
                *(_mean(entry, name) for name in SETS),
            )
        )
        if entry["untrained"]:
            untrained.append(
                f"{entry['condition']}, round {entry['round']} ({entry['learner']}): "
                f"{entry['untrained']} of {entry['seeds']}"
            )
    experts = next((e for e in outcome["summary"] if e["condition"] == OURS), None)
    experts = experts or outcome["summary"][0]
    table.append(
        ("", "experts among themselves", "", "", *(_mean(experts, f"{n}_experts") for n in SETS))
    )
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = []
    for row in table:
        left = [row[i].ljust(widths[i]) for i in (0, 1)]
        lines.append("  ".join([*left, *(row[i].rjust(widths[i]) for i in range(2, 7))]).rstrip())
    seeds = len({row["seed"] for row in outcome["rows"]})
    lines.insert(
        0,
        f"Task {outcome['task']}: Cohen's kappa with the experts, mean over {seeds} "
        f"seed{'s' if seeds > 1 else ''}{' and standard deviation' if seeds > 1 else ''}\n",
    )
    if untrained:
        lines.append(
            "too few labels of a class to train on, counted as a model that calls every ad "
            f"{outcome['negative']}, in seeds of: {'; '.join(untrained)}"
        )
    several = len({stop["condition"] for stop in outcome["stops"]}) > 1
    for stop in outcome["stops"]:
        condition = f", {stop['condition']}" if several else ""
        lines.append(
            f"seed {stop['seed']}{condition}: the rule {stop['reason']}\n"
            f"        (no later round is better beyond its interval than round "
            f"{stop['no_later_better_after']})"
        )
    return "\n".join(lines)


def _mean(entry: Mapping[str, Any], name: str) -> str:
    value, spread = entry[name], entry[f"{name}_sd"]
    if value is None:
        return "undefined"
    return f"{value:z.2f}" if spread is None else f"{value:z.2f} ±{spread:.2f}"
