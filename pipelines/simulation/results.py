"""What a simulation found: its table over seeds, and how a person reads it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.jobs.results import Result
from pipelines.simulation.measure import SETS


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
