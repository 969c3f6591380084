"""What nights left behind: as a table, as lines of history, and as Prometheus reads it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pipelines.errors import UsageError
from pipelines.jobs.results import Result
from pipelines.jobs.watching import ALERTS
from pipelines.store import files, storage
from pipelines.store.facts import BEGUN, COMPLETED, Alert, NightFacts, NightFigures
from pipelines.store.workspace import Manifest, Workspace

# Of the newest date, and of all: made anew from the manifests, so that a lost one does no harm.
HISTORY, NEWEST = "nights/history.jsonl", "nights/newest.prom"
_GAUGES = {
    "records": "Records read of the night's files.",
    "rejected": "Records of them that are no ads.",
    "ads": "Distinct ads of the night's files.",
    "new": "Ads that the model read for the night.",
    "late": "Ads that came late, into files of earlier dates.",
    "window_ads": "Distinct ads of all dates of the window.",
    "positives": "Ads of the night at or above the yardstick.",
    "drift": "Population stability index of the scores against the nights before.",
    "pairs": "Items chosen for experts.",
    "seconds": "Seconds that the completing run took.",
    "cost": "Cost of the ads that the model read, in the money of --price.",
}


@dataclass(frozen=True, slots=True)
class Night:
    """A night, as its newest attempt tells.

    Attributes:
        date: logical date.
        state: ``completed``, ``failed``, ``empty``, ``stopped``, or ``begun`` (at work, or killed).
        task_version: of the policy.
        round: whose items it chose; 0 for none.
        figures: None unless it is completed.
        alerts: what to look at.
        told: why it failed, or what else there is to say.
    """

    date: str
    state: str
    task_version: int
    round: int
    figures: NightFigures | None
    alerts: Sequence[Alert]
    told: str

    @classmethod
    def of(cls, facts: NightFacts) -> Night:
        """Return what a manifest says."""
        return cls(
            facts.date,
            facts.state,
            facts.task_version,
            facts.round,
            facts.figures,
            facts.alerts,
            facts.told,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it flat, as `metrics.json` and the history hold it."""
        found = asdict(self)
        figures = found.pop("figures") or {}
        if self.figures:
            figures["positive_share"] = round(self.figures.positive_share, 6)
            figures["rejected_share"] = round(self.figures.rejected_share, 6)
        return {**found, **figures}


@dataclass(frozen=True, slots=True, repr=False)
class Nights(Result):
    """Nights of a workspace.

    Attributes:
        task: name of the task.
        nights: by date.
        review_sheet: of the newest round that one of them chose, "" where none did.
        next_step: what to type.
    """

    task: str
    nights: tuple[Night, ...]
    review_sheet: str = ""
    next_step: str = ""

    @property
    def alerted(self) -> bool:
        """Whether any of them has an alert."""
        return any(night.alerts for night in self.nights)

    @property
    def failed(self) -> bool:
        """Whether any of them came to nothing."""
        return any(night.state in ("failed", "stopped") for night in self.nights)


@dataclass(frozen=True, slots=True)
class PlannedNight:
    """What would become of a date: ``run``, ``run again`` or ``leave``, why, and how much there is to read."""

    date: str
    what: str
    why: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, repr=False)
class PlannedNights(Result):
    """What a dry run found.

    Attributes:
        task: name of the task.
        nights: in the order in which they would run.
        window: dates that the last of them would mine together.
        hand_out: whether experts would get new pairs, and why not.
    """

    task: str
    nights: tuple[PlannedNight, ...]
    window: tuple[str, ...]
    hand_out: str
    failed: ClassVar[bool] = False
    alerted: ClassVar[bool] = False


def nights_of(workspace: Workspace) -> Nights:
    """Return all nights of a workspace, by date.

    Raises:
        UsageError: there are none.
    """
    found = workspace.night.by_date()
    if not found:
        raise UsageError(
            f"--workspace {workspace.root}: no nights here; start with `scout nightly`"
        )
    newest = list(found.values())[-1].facts
    return Nights(newest.task_name, tuple(Night.of(night.facts) for night in found.values()))


def metrics_files(root: str, attempt: str, task: str, night: Night) -> list[Any]:
    """Write a night's figures into its attempt, as JSON and for Prometheus."""
    data = json.dumps({"task": task, **night.to_json()}, indent=1).encode() + b"\n"
    return [
        files.write(root, f"{attempt}/metrics.json", data),
        files.write(root, f"{attempt}/metrics.prom", prometheus(task, night)),
    ]


def refresh(workspace: Workspace, nights: Mapping[str, Manifest[NightFacts]]) -> None:
    """Write the history of all nights, a line each, and the newest one's figures for Prometheus.

    Args:
        workspace: the workspace.
        nights: their newest attempts.
    """
    ended = [Night.of(nights[date].facts) for date in sorted(nights)]
    ended = [night for night in ended if night.state != BEGUN]
    if not ended:
        return
    storage.write(workspace.path(HISTORY), files.json_lines(night.to_json() for night in ended))
    task = nights[ended[-1].date].facts.task_name
    storage.write(workspace.path(NEWEST), prometheus(task, ended[-1]))


def prometheus(task: str, night: Night) -> bytes:
    """Return a night in Prometheus's text format, for node_exporter's textfile collector.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    labels = f'task="{task}",version="{night.task_version}"'
    day = datetime.datetime.fromisoformat(f"{night.date}T00:00:00+00:00")
    lines = [
        *_gauge("date_seconds", "Logical date, seconds since 1970.", labels, day.timestamp()),
        *_gauge("completed", "Whether the night is done.", labels, night.state == COMPLETED),
    ]
    for name, told in _GAUGES.items():
        value = getattr(night.figures, name) if night.figures else None
        if value is not None:
            lines += _gauge(name, told, labels, value)
    raised = {alert.name for alert in night.alerts}
    lines += _head("alert", "Whether a person should look, by what it is about.")
    lines += [f'scout_night_alert{{{labels},alert="{a}"}} {int(a in raised)}' for a in ALERTS]
    return "".join(f"{line}\n" for line in lines).encode()


def _head(name: str, told: str) -> list[str]:
    return [f"# HELP scout_night_{name} {told}", f"# TYPE scout_night_{name} gauge"]


def _gauge(name: str, told: str, labels: str, value: float) -> Iterable[str]:
    return [*_head(name, told), f"scout_night_{name}{{{labels}}} {float(value):.10g}"]
