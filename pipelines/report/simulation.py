"""The report of a simulation: its conditions side by side, from what ``simulate`` returned alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.report.html import Section, rendered, section
from pipelines.report.output import Report, Say, check_folder, write
from pipelines.report.pictures.canvas import Estimate
from pipelines.report.pictures.conditions import (
    Curve,
    learning_curves,
    side_by_side,
    stand_aside,
)
from pipelines.report.words import word

Entry = Mapping[str, Any]

_SETS = {
    "natural": "natural prevalence",
    "balanced": "class-balanced",
    "evaluation": "evaluation half",
}


@dataclass(frozen=True, slots=True)
class _Learner:
    """What a simulation says of one learner.

    Attributes:
        name: of the learner.
        entries: its lines of the summary: a condition after a round, mean and spread over seeds.
    """

    name: str
    entries: Sequence[Entry]

    @property
    def slug(self) -> str:
        """Its name in ids and file names."""
        return re.sub("[^a-z0-9]+", "-", self.name.casefold()).strip("-") or "learner"

    @property
    def conditions(self) -> dict[str, list[Entry]]:
        """The entries by condition, in order of appearance."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry["condition"], []).append(entry)
        return found

    @property
    def last(self) -> list[Entry]:
        """Each condition's entry of its last round."""
        return [
            max(entries, key=lambda entry: entry["round"]) for entries in self.conditions.values()
        ]

    @property
    def experts(self) -> Entry:
        """The entry whose experts stand for all: boundary's last, as in the printed table."""
        last = self.last
        return next((entry for entry in last if entry["condition"] == "boundary"), last[0])

    def curves(self, name: str) -> list[Curve]:
        """Its conditions' kappas on one set of ads, against their labels."""
        return [
            Curve(
                condition,
                tuple(entry["labels"] for entry in entries),
                tuple(entry[name] for entry in entries),
                tuple(entry[f"{name}_sd"] for entry in entries),
            )
            for condition, entries in self.conditions.items()
        ]


def simulation_report(outcome: Mapping[str, Any], folder: str, say: Say) -> Report:
    """Write the report of a simulation, its conditions side by side.

    Args:
        outcome: what ``simulate`` returns, or ``simulation.json`` read back; nothing else is read.
        folder: where to, local or ``gs://``; an older report there is replaced.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: the folder cannot be written.
    """
    place = check_folder(folder)
    summary = outcome["summary"]
    names = list(dict.fromkeys(entry["learner"] for entry in summary))
    seeds = sorted({row["seed"] for row in outcome["rows"]})
    several = len(seeds) > 1
    spread = (
        f"mean over {len(seeds)} seeds ± standard deviation" if several else "one seed, no spread"
    )
    sections: list[Section] = []
    for name in names:
        learner = _Learner(name, [entry for entry in summary if entry["learner"] == name])
        sections += _sections(learner, sets=list(_SETS.items()), several=several, spread=spread)
    sections.append(section("stops", stops=outcome["stops"]))
    sections.append(section("simulated", id="provenance", outcome=outcome))
    head = rendered(
        "sections/simulation_headline.html",
        outcome=outcome,
        learners=names,
        seeds=seeds,
        spread=spread,
    )
    found = {
        "task": outcome["task"],
        "learners": names,
        "conditions": list(dict.fromkeys(entry["condition"] for entry in summary)),
        "seeds": seeds,
    }
    title = f"ad-scout simulation: {word(outcome['task'])}"
    return write(place, title, head.__html__(), sections, found, say)


def _sections(learner: _Learner, **words: Any) -> list[Section]:
    """Return a learner's sections: its conditions after the last round, curves, and the table."""
    slug, last = learner.slug, learner.last
    bars = [(title, [_estimate(entry, name) for entry in last]) for name, title in _SETS.items()]
    aside, curves = {}, {}
    for name in _SETS:
        drawn = learner.curves(name)
        aside[name] = any(stand_aside(drawn))
        experts = learner.experts[f"{name}_experts"]
        among = Estimate("experts among themselves", experts, None, None)
        curves[f"{slug}-{name}"] = learning_curves(drawn, among)
    side = {f"{slug}-conditions": side_by_side([entry["condition"] for entry in last], bars)}
    words["learner"] = learner
    return [
        section("conditions", side, f"conditions-{slug}", **words),
        section("curves", curves, f"curves-{slug}", aside=aside, **words),
        section("learner_scale", id=f"scale-{slug}", **words),
    ]


def _estimate(entry: Entry, name: str) -> Estimate:
    value, spread = entry[name], entry[f"{name}_sd"]
    if value is None or spread is None:
        return Estimate(entry["condition"], value, None, None)
    return Estimate(entry["condition"], value, value - spread, value + spread)
