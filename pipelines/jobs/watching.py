"""What to look at in a night: its figures beside those of the nights before, and their bounds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipelines.console.parser import did_you_mean
from pipelines.errors import UsageError
from pipelines.numerics import calibration, drift, skeletons
from pipelines.store import files, scores
from pipelines.store.facts import COMPLETED, Alert, NightFacts, NightFigures
from pipelines.store.workspace import Manifest, Workspace

# Nights that one is compared with, and how many there must be.
AGAINST, ENOUGH = 7, 3
# Standard errors beyond which a share has changed; of many shares, of which one is the largest, more.
_SURE, _SURE_OF_MANY = 3.0, 4.0
# Ads of a night, and of each before it, whose templates and fields are compared.
_SAMPLED, _SAMPLED_BEFORE = 2000, 500
MARGINS = "margins.json"
NO_NEW_ADS, NO_PAIRS, POSITIVE_SHARE, REJECTED_SHARE, DRIFT, JUMP = ALERTS = (
    "no_new_ads",
    "no_pairs",
    "positive_share",
    "rejected_share",
    "drift",
    "jump",
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Beyond which there is an alert.

    Attributes:
        positive_share: factor between the positive share and that of the nights before, either way.
        rejected_share: share of the date's records.
        drift: population stability index of the scores; from 0.25 on a shift is called large.
        jump: by how much the share of one template, or of one value of a field, grows.
    """

    positive_share: float = 1.5
    rejected_share: float = 0.005
    drift: float = 0.25
    jump: float = 0.1


def bounds_of(said: Sequence[str]) -> Bounds:
    """Read ``NAME=VALUE``.

    Raises:
        UsageError: no such bound, or no number.
    """
    bounds = Bounds()
    known = list(Bounds.__dataclass_fields__)
    for each in said:
        name, _, value = each.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in known:
            raise UsageError(
                f"--alert {each}: no bound is called {name!r}{did_you_mean(name, known)}; there are "
                f"{', '.join(known)}"
            )
        if not 0 < number < float("inf"):
            raise UsageError(f"--alert {each}: give {name}=VALUE with a number above 0")
        bounds = replace(bounds, **{name: number})
    return bounds


@dataclass(frozen=True, slots=True)
class Before:
    """Completed nights of earlier dates, with the same model and prompt; at most `AGAINST`, oldest first."""

    nights: tuple[tuple[Manifest[NightFacts], NightFigures], ...]

    @classmethod
    def of(cls, nights: Mapping[str, Manifest[NightFacts]], date: str, score_key: str) -> Before:
        """Return those of all nights' newest attempts."""
        fitting = [
            (night, night.facts.figures)
            for earlier, night in sorted(nights.items())
            if earlier < date and night.facts.score_key == score_key and night.facts.figures
        ]
        return cls(tuple(fitting[-AGAINST:]))

    def __bool__(self) -> bool:
        return len(self.nights) >= ENOUGH

    def total(self, name: str) -> int:
        """Return the sum of a figure."""
        return sum(getattr(figures, name) for _, figures in self.nights)

    def yardstick(self) -> float | None:
        """Return the threshold that the last of them counted by."""
        return self.nights[-1][1].yardstick if self.nights else None

    def histogram(self, root: str) -> np.ndarray:
        """Return the ads of all of them by margin, int64 (bins,); raises as :func:`files.read` does."""
        held = [files.read(root, night.file(MARGINS)) for night, _ in self.nights]
        return np.sum([unpacked(data) for data in held], axis=0)


def packed(histogram: np.ndarray) -> bytes:
    """Return a histogram by margin as JSON: the bins that hold ads, and how many."""
    [bins] = np.nonzero(histogram)
    return json.dumps({"bins": bins.tolist(), "ads": histogram[bins].tolist()}).encode()


def unpacked(data: bytes) -> np.ndarray:
    """Return what :func:`packed` wrote, int64 (bins,)."""
    held = json.loads(data)
    found = np.zeros(calibration.N_BINS, dtype=np.int64)
    found[held["bins"]] = held["ads"]
    return found


def alerts_of(
    figures: NightFigures,
    before: Before,
    drifted: drift.Stability | None,
    jumped: str,
    bounds: Bounds,
    expects_new: bool = True,
) -> tuple[Alert, ...]:
    """Return what a person should look at.

    Args:
        figures: of the night.
        before: what it is compared with.
        drifted: its scores against those, or None.
        jumped: which template or field grew, or "".
        bounds: beyond which there is an alert.
        expects_new: whether ads of this date were not scored by an earlier run for another date.
    """
    told: dict[str, str] = {}
    last = f"the last {len(before.nights)} nights"
    if not figures.ads or (expects_new and not figures.new):
        told[NO_NEW_ADS] = f"none of {figures.ads:,} ads is new"
    if not figures.pairs and not figures.held:
        told[NO_PAIRS] = "nothing was chosen for experts: they saw every ad of the window"
    was = before.total("positives") / max(1, before.total("ads"))
    is_ = figures.positive_share
    if before and abs(_deviation(figures, before)) > _SURE:
        factor = max(is_, was) / max(min(is_, was), 1e-9)
        if factor > bounds.positive_share:
            told[POSITIVE_SHARE] = f"{is_:.1%} positive, {was:.1%} in {last}"
    if figures.rejected_share > bounds.rejected_share:
        told[REJECTED_SHARE] = (
            f"{figures.rejected:,} of {figures.records:,} records rejected ({figures.rejected_share:.1%})"
        )
    if drifted and drifted.index > max(bounds.drift, drifted.chance):
        told[DRIFT] = (
            f"scores shifted against {last}: population stability index {drifted.index:.2f}"
        )
    if jumped:
        told[JUMP] = f"{jumped} in {last}"
    return tuple(Alert(name, told[name]) for name in ALERTS if name in told)


def _deviation(figures: NightFigures, before: Before) -> float:
    return drift.deviation(
        figures.positives, figures.ads, before.total("positives"), before.total("ads")
    )


def jumped(workspace: Workspace, scored: str, before: Before, bound: float, seed: int) -> str:
    """Say which template, or value of a field, makes up a far larger share than before; "" for none.

    Args:
        workspace: the workspace.
        scored: attempt with the date's ads.
        before: the nights that it is compared with; what is gone of them is left out.
        bound: by how much a share may grow.
        seed: of the samples that are compared.
    """
    now = _sample(workspace, scored, _SAMPLED, seed)
    held = [
        _sample(workspace, night.facts.taken[night.facts.date], _SAMPLED_BEFORE, seed)
        for night, _ in before.nights
    ]
    then = pa.concat_tables(table for table in held if table) if any(held) else None
    if not now or not then:
        return ""
    return grown(_groups(now, then), bound)


def grown(groups: Mapping[str, tuple[Sequence[str], Sequence[str]]], bound: float) -> str:
    """Say which value of which group makes up a far larger share now; see :func:`jumped`.

    Args:
        groups: what values are of -> those of the ads now, and those before; "" is none.
        bound: by how much a share may grow.
    """
    worst, told = bound, ""
    for name, (new, old) in groups.items():
        counts = Counter(old)
        for value, number in Counter(new).items():
            share, earlier = number / len(new), counts[value] / len(old)
            sure = drift.deviation(number, len(new), counts[value], len(old)) > _SURE_OF_MANY
            if value and sure and share - earlier > worst:
                worst = share - earlier
                told = f"{name} {value[:80]!r}: {share:.0%} of the ads, {earlier:.0%}"
    return told


def _sample(workspace: Workspace, attempt: str, rows: int, seed: int) -> pa.Table | None:
    try:
        scored = workspace.manifest(attempt)
        return scores.sample_rows(workspace, scored, rows, seed, ["text", "fields"])
    except (FileNotFoundError, files.Damaged):
        return None


def _groups(now: pa.Table, then: pa.Table) -> dict[str, tuple[list[str], list[str]]]:
    """Return the templates of both samples, and the values of each field."""
    texts = [*now.column("text").to_pylist(), *then.column("text").to_pylist()]
    templates = skeletons.skeletons(texts)
    found = {"template": (templates[: len(now)], templates[len(now) :])}
    for side, table in enumerate((now, then)):
        for row, fields in enumerate(table.column("fields").to_pylist()):
            for name, value in json.loads(fields or "[]"):
                lists = found.setdefault(f"field {name}", ([""] * len(now), [""] * len(then)))
                lists[side][row] = value
    return found


def is_completed(night: Manifest[NightFacts] | None) -> bool:
    """Tell whether a night is done."""
    return night is not None and night.facts.state == COMPLETED
