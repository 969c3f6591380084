"""What a simulation found: its table over seeds, and how a person reads it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
        at_minutes: the same at equal minutes of experts' time, a row a learner and strategy.
        stops: what the stopping rule said, a row a seed and strategy.
        rows: what was measured, a row a seed, condition, learner and round.
        seconds: in all.
    """

    task: str
    negative: str
    options: Mapping[str, Any]
    ads: int
    summary: Sequence[Mapping[str, Any]]
    at_minutes: Sequence[Mapping[str, Any]]
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
        names = [
            "labels",
            "minutes",
            "positive_share",
            *SETS,
            *(f"{name}_experts" for name in SETS),
        ]
        for name in names:
            # A seed that an earlier version played has no minutes.
            values = [row[name] for row in members if row.get(name) is not None]
            entry[name] = statistics.fmean(values) if values else None
            entry[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
            entry[f"{name}_undefined"] = len(members) - len(values)
        found.append(entry)
    return found


def at_equal_minutes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each strategy's kappas at the same minutes of experts' time, mean and spread over seeds.

    At what the cheapest strategy of a seed and learner has spent in the end, so that each reaches it;
    between two rounds by a straight line, from 0 minutes and no agreement on. Crowds take no expert's
    time and are left out. Empty where minutes are not known.
    """
    curves: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("minutes"):
            curves.setdefault((row["learner"], row["condition"], row["seed"]), []).append(row)
    ends: dict[tuple[str, int], float] = {}
    for (learner, _, seed), own in curves.items():
        last = max(row["minutes"] for row in own)
        ends[learner, seed] = min(last, ends.get((learner, seed), last))
    groups: dict[tuple[str, str], list[dict[str, float]]] = {}
    for (learner, condition, seed), own in curves.items():
        end = ends[learner, seed]
        at = {"minutes": end}
        minutes = [0.0, *(row["minutes"] for row in own)]
        for name in ("labels", *SETS):
            values = [0.0, *(row[name] or 0.0 for row in own)]
            at[name] = float(np.interp(end, minutes, values))
        groups.setdefault((learner, condition), []).append(at)
    found = []
    for (learner, condition), members in groups.items():
        entry: dict[str, Any] = {"learner": learner, "condition": condition, "seeds": len(members)}
        for name in members[0]:
            numbers = [member[name] for member in members]
            entry[name] = statistics.fmean(numbers)
            entry[f"{name}_sd"] = statistics.stdev(numbers) if len(numbers) > 1 else None
        found.append(entry)
    return found
