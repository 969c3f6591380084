"""The report of a simulation: its conditions side by side, from what ``simulate`` returned alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.report.html import Picture, Section, Table, word
from pipelines.report.output import Report, Say, check_folder, write
from pipelines.report.pictures.canvas import Estimate
from pipelines.report.pictures.conditions import (
    Curve,
    learning_curves,
    side_by_side,
    stand_aside,
)

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
        several: whether there are several seeds.
        spread: what the spread is, in words.
    """

    name: str
    entries: Sequence[Entry]
    several: bool
    spread: str

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
        entries = [entry for entry in summary if entry["learner"] == name]
        learner = _Learner(name, entries, several, spread)
        sections += [_conditions(learner), _curves(learner), _scale(learner)]
    sections += [_stops(outcome["stops"]), _provenance(outcome)]
    return write(
        place,
        f"ad-scout simulation: {word(outcome['task'])}",
        [
            ("task", word(outcome["task"])),
            ("labelled corpus", f"{outcome['ads']:,} ads"),
            ("learners", ", ".join(map(word, names))),
            ("seeds", f"{len(seeds)}: {', '.join(map(str, seeds))}"),
            ("figures", f"Cohen's kappa with the experts, {spread}"),
        ],
        sections,
        {
            "task": outcome["task"],
            "learners": names,
            "conditions": list(dict.fromkeys(entry["condition"] for entry in summary)),
            "seeds": seeds,
        },
        say,
    )


def _conditions(learner: _Learner) -> Section:
    last = learner.last
    sets = [(words, [_estimate(entry, name) for entry in last]) for name, words in _SETS.items()]
    natural = ", ".join(f"{word(entry['condition'])} {_mean(entry, 'natural')}" for entry in last)
    listed = "; ".join(
        f"{word(entry['condition'])} with {entry['labels']:,.0f} labels "
        + ", ".join(f"{words} {_mean(entry, name)}" for name, words in _SETS.items())
        for entry in last
    )
    bars = ", bars one standard deviation to each side" if learner.several else ""
    picture = Picture(
        f"report-{learner.slug}-conditions.png",
        side_by_side([entry["condition"] for entry in last], sets),
        alt=f"Kappa of each condition after its last round, {learner.spread}: {listed}.",
        caption=f"Each condition after its last round, on three sets of ads that trained nothing "
        f"({learner.spread}{bars}). At natural prevalence: {natural}. Compare within a set: kappa falls "
        "where positives are rare, and each condition's evaluation half holds the ads that it chose "
        "itself.",
    )
    title = f"Conditions side by side: learner {word(learner.name)}"
    return Section(f"conditions-{learner.slug}", title, (picture,))


def _curves(learner: _Learner) -> Section:
    title = f"Kappa against labels: learner {word(learner.name)}"
    pictures = tuple(_curve_picture(learner, name) for name in _SETS)
    return Section(f"curves-{learner.slug}", title, pictures)


def _curve_picture(learner: _Learner, name: str) -> Picture:
    curves = [
        Curve(
            condition,
            tuple(entry["labels"] for entry in entries),
            tuple(entry[name] for entry in entries),
            tuple(entry[f"{name}_sd"] for entry in entries),
        )
        for condition, entries in learner.conditions.items()
    ]
    listed = "; ".join(
        f"{word(condition)} "
        + ", ".join(f"{entry['labels']:,.0f} labels {_mean(entry, name)}" for entry in entries)
        for condition, entries in learner.conditions.items()
    )
    experts = learner.experts[f"{name}_experts"]
    among = _mean(learner.experts, f"{name}_experts")
    drawn_as = " as bands and bars" if learner.several else ""
    aside = (
        " Conditions with a single number of labels are marks; where they share it, they are drawn "
        "side by side around it."
        if any(stand_aside(curves))
        else ""
    )
    undefined = sum(entry[f"{name}_undefined"] for entry in learner.entries)
    left_out = (
        f" Undefined for {undefined:,} models (a class alone): left out of the means."
        if undefined
        else ""
    )
    return Picture(
        f"report-{learner.slug}-{name}.png",
        learning_curves(curves, Estimate("experts among themselves", experts, None, None)),
        alt=f"Kappa against training labels, {_SETS[name]}: {listed}. Experts among themselves {among}.",
        caption=f"{_SETS[name].capitalize()}: kappa against the labels that trained "
        f"({learner.spread}{drawn_as}). The line is the experts among themselves, {among}. A curve "
        f"further to the left reaches the same with fewer labels.{aside}{left_out}",
    )


def _scale(learner: _Learner) -> Section:
    rows = [
        (
            f"{word(entry['condition'])}, round {entry['round']}",
            _mean(entry, "labels", "{:,.0f}"),
            _mean(entry, "positive_share", "{:.0%}"),
            *(_mean(entry, name) for name in _SETS),
        )
        for entry in learner.entries
    ]
    among = (_mean(learner.experts, f"{name}_experts") for name in _SETS)
    rows.append(("experts among themselves", "-", "-", *among))
    table = Table(
        f"Labels, share positive, and kappa with the experts ({learner.spread})",
        ("condition", "labels", "positive", *_SETS.values()),
        tuple(rows),
    )
    title = f"Data scale and quality by condition: learner {word(learner.name)}"
    return Section(f"scale-{learner.slug}", title, tables=(table,))


def _stops(stops: Sequence[Mapping[str, Any]]) -> Section:
    id, title = "stops", "What the stopping rule said"
    if not stops:
        return Section(
            id,
            title,
            missing="No selection strategy was played, and a crowd does not ask the rule: "
            "`scout simulate` with --conditions boundary,...",
        )
    rows = tuple(
        (
            str(stop["seed"]),
            word(stop["condition"]),
            str(stop["stopped_after"]),
            word(stop["rule"]),
            str(stop["no_later_better_after"]),
            word(stop["reason"], 600),
        )
        for stop in stops
    )
    table = Table(
        "Where the rule stopped each strategy, and after which round no later one was better beyond its "
        "interval",
        ("seed", "condition", "stopped after round", "by", "no later better after", "in its words"),
        rows,
    )
    return Section(id, title, tables=(table,))


def _provenance(outcome: Mapping[str, Any]) -> Section:
    lines = [
        (word(name), word(json.dumps(value, ensure_ascii=False), 500))
        for name, value in outcome["options"].items()
    ]
    return Section(
        "provenance",
        "Provenance",
        facts=(*lines, ("seconds", f"{outcome['seconds']:,.0f}")),
        paragraphs=(
            "Every strategy of a seed has a workspace of its own: `scout report --workspace` on the "
            "folder of its name, in the seed's folder, draws its maps and pairs.",
        ),
    )


def _estimate(entry: Entry, name: str) -> Estimate:
    value, spread = entry[name], entry[f"{name}_sd"]
    if value is None or spread is None:
        return Estimate(entry["condition"], value, None, None)
    return Estimate(entry["condition"], value, value - spread, value + spread)


def _mean(entry: Entry, name: str, form: str = "{:z.2f}") -> str:
    value, spread = entry[name], entry[f"{name}_sd"]
    if value is None:
        return "undefined"
    shown = form.format(value)
    return shown if spread is None else f"{shown} ±{form.format(spread)}"
