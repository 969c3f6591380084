"""Labels that look wrong come back for a second look; nothing is changed.

Of the fine-tuning half alone: a model that decided which evaluation labels are looked at again would be
judged by labels that it had a hand in.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import expit

from models.backends.base import BackendError
from models.encoder import VectorCache
from models.training.data import LabelledAds, draw_folds
from models.training.learners import held_out_margins, window
from pipelines.config import Task
from pipelines.console.progress import step
from pipelines.console.typed import typed
from pipelines.contracts import Verdict
from pipelines.errors import UsageError
from pipelines.jobs.labels import Labels, fine_tuning_labels
from pipelines.jobs.results import Result
from pipelines.jobs.train import training_settings
from pipelines.numerics import agreement, label_issues
from pipelines.numerics.agreement import MISSING
from pipelines.store import files, storage
from pipelines.store.workspace import Workspace
from pipelines.text import normalize_text
from pipelines.tools.sheet.format import (
    RECHECK,
    RECHECK_INSTRUCTIONS,
    ad_sheet,
    recheck_instructions,
)
from pipelines.verdicts.halves import Ratings, latest, read_half
from pipelines.verdicts.shown import Shown, shown_ads
from pipelines.verdicts.spreadsheet import safe_cell

REASONS = "reasons.csv"
COLUMNS = ("ad_id", "text", "label", "experts", "reasons")
# Of each class: a head of fewer, out of fold, contradicts what it likes.
LEAST = 10
_FOLDS = 5
_LEVEL = 0.95
_MAX_TEXT_CHARS = 200
_MODEL, _COPY, _EXPERT = "model", "copy", "expert"


@dataclass(frozen=True, slots=True)
class RecheckOptions:
    """Everything ``scout recheck`` was told; see ``pipelines.api.recheck``."""

    workspace: str
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Suspect:
    """A label for a second look.

    Attributes:
        ad_id, text: of the ad.
        label: as the task calls it, by the majority.
        experts: who gave it that label.
        kinds: ``model``, ``copy``, ``expert``: what speaks against it.
        reasons: the same as sentences.
        confidence: the probability that a head gives the label, which did not learn from it; None where
            no head could be trained.
    """

    ad_id: str
    text: str
    label: str
    experts: tuple[str, ...]
    kinds: tuple[str, ...]
    reasons: tuple[str, ...]
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Drifting(label_issues.Drift):
    """An expert who leaves the others, and by how much."""

    expert: str


@dataclass(frozen=True, slots=True, repr=False)
class Rechecked(Result):
    """What ``recheck`` found.

    Attributes:
        task: its name.
        ads: with a settled label, of the fine-tuning half.
        expected: about how many of their labels are wrong, by the head; None where none could be trained.
        found: labels that something speaks against.
        suspects: the first of them, the most doubtful first.
        drifting: experts who leave the others beyond chance.
        sheet: a blind review sheet of the suspects; "" without any.
        listing: what speaks against each, for who hands the sheet out.
        next_step: how the second look comes back.
    """

    task: str
    ads: int
    expected: int | None
    found: int
    suspects: tuple[Suspect, ...]
    drifting: tuple[Drifting, ...]
    sheet: str
    listing: str
    next_step: str


def recheck(options: RecheckOptions, say: Callable[[str], None]) -> Rechecked:
    """Find labels that look wrong, and write a sheet of them for a second look.

    The same labels are the same files.

    Args:
        options: see :class:`RecheckOptions`.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: nothing was imported yet, or the encoder cannot be had.
        RunFailed: something in the workspace is damaged.
    """
    workspace = Workspace(options.workspace)
    task = workspace.pairs_of().facts.origin.task
    with step("reading verdicts"):
        shown = shown_ads(workspace)
        labels = fine_tuning_labels(workspace, task, shown.texts())
        verdicts = read_half(workspace, "fine_tuning", task.version)
    if not labels.ads.keys:
        back = typed("import FILE...", workspace=workspace.root)
        raise UsageError(
            f"--workspace {options.workspace}: no ad of the fine-tuning half has a settled label; {back} "
            "first"
        )
    reasons = _Reasons()
    expected = _by_model(task, labels.ads, reasons, say)
    _by_copies(task, labels.ads, shown, reasons)
    drifting = _by_experts(labels.table, verdicts, reasons, say)
    suspects = _suspects(task, labels, shown, reasons)
    sheet, listing, next_step = _write(workspace, task, suspects[: options.limit])
    return Rechecked(
        task=task.name,
        ads=len(labels.ads.keys),
        expected=expected,
        found=len(suspects),
        suspects=tuple(suspect for _, suspect in suspects[: options.limit]),
        drifting=drifting,
        sheet=sheet,
        listing=listing,
        next_step=next_step,
    )


class _Reasons:
    """What speaks against the labels, by content key."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, str]] = {}
        self.confidence: dict[str, float] = {}
        self._rank: dict[str, float] = {}

    def add(self, key: str, kind: str, sentence: str, rank: float) -> None:
        """Add a reason; of a kind the first one stands, and the lowest rank of all counts."""
        self.of.setdefault(key, {}).setdefault(kind, sentence)
        self._rank[key] = min(rank, self._rank.get(key, rank))

    def order(self) -> list[str]:
        """Return the keys, those with most against them first."""
        return sorted(self.of, key=lambda key: (-len(self.of[key]), self._rank[key], key))


def _by_model(
    task: Task, ads: LabelledAds, reasons: _Reasons, say: Callable[[str], None]
) -> int | None:
    """Look for labels that a head contradicts which did not learn from them; -> how many are expected."""
    rarer = int(min(ads.labels.sum(), len(ads.labels) - ads.labels.sum()))
    if rarer < LEAST:
        say(
            f"no head is asked: {rarer} labels of the rarer class, and {LEAST} are needed to contradict "
            "any"
        )
        return None
    # As the trainer orders them.
    order = sorted(range(len(ads.keys)), key=ads.keys.__getitem__)
    ads = LabelledAds(
        tuple(ads.keys[i] for i in order), tuple(ads.texts[i] for i in order), ads.labels[order]
    )
    probability = out_of_fold(task, ads, say)
    found = label_issues.confident_disagreement(probability, ads.labels)
    own = np.where(ads.labels == 1, probability, 1.0 - probability)
    reasons.confidence |= zip(ads.keys, own.tolist(), strict=True)
    for rank, row in enumerate(found.rows.tolist()):
        sentence = f"a model that did not see this label gives it {own[row]:.0%}"
        reasons.add(ads.keys[row], _MODEL, sentence, rank)
    return found.expected


def out_of_fold(task: Task, ads: LabelledAds, say: Callable[[str], None]) -> np.ndarray:
    """Return p(positive) of each ad, float64 (n,), by a head on the frozen encoder that did not see it.

    Args:
        task: its encoder and seed count.
        ads: n ads, by key, with several labels of each class.
        say: told of downloads.

    Raises:
        UsageError: the encoder cannot be had.
    """
    training = task.training.model_copy(update={"learner": "head"})
    settings = training_settings(task.model_copy(update={"training": training}))
    cache = VectorCache()
    try:
        bundle = cache.bundle(settings.preset, say)
    except BackendError as error:
        raise UsageError(f"training.encoder: {error}") from error
    encoder = cache.encoder(bundle, settings.dtype, window(bundle, settings))
    with step("embedding labelled ads"):
        vectors = cache.vectors(encoder.embedding_id, ads.texts, encoder.encode)
    folds = draw_folds(ads, _FOLDS, task.seed)
    return expit(held_out_margins(vectors, ads.labels, folds))


def _by_copies(task: Task, ads: LabelledAds, shown: Shown, reasons: _Reasons) -> None:
    """Look for ads that read nearly the same, with two labels."""
    with step("comparing labelled ads"):
        texts = [normalize_text(text) for text in ads.texts]
        edges, likeness = label_issues.differing_copies(texts, ads.labels)
    ids = {ad.key: ad.ad_id for ad in shown.ads()}
    for (left, right), alike in zip(edges.tolist(), likeness.tolist(), strict=True):
        for own, other in ((left, right), (right, left)):
            key = ads.keys[own]
            said = _name(task, int(ads.labels[other]))
            sentence = f"reads nearly like {ids[ads.keys[other]]} ({alike:.0%}), labelled {said}"
            # Of the two the one that the model doubts more is looked at first.
            reasons.add(key, _COPY, sentence, len(ads.keys) * reasons.confidence.get(key, 0.5))


def _by_experts(
    table: Ratings, verdicts: Sequence[Verdict], reasons: _Reasons, say: Callable[[str], None]
) -> tuple[Drifting, ...]:
    """Look for experts who leave the others as time goes on, and for what they then said alone."""
    order = {(verdict.key, verdict.expert): number for number, verdict in enumerate(verdicts)}
    times = {(v.key, v.expert): v.time for v in latest(verdicts)}
    level = 1.0 - (1.0 - _LEVEL) / max(len(table.experts), 1)
    found = []
    for column, expert in enumerate(table.experts):
        said = [times.get((key, expert), "") for key in table.keys]
        given = table.values[:, column] != MISSING
        timed = all(time for time, own in zip(said, given, strict=True) if own)
        when = (
            np.array(said)
            if timed
            else np.array([order.get((key, expert), -1) for key in table.keys])
        )
        drift = label_issues.drift(table.values, column, when, level)
        if drift is None or not drift.drifts:
            continue
        found.append(Drifting(**asdict(drift), expert=expert))
        middle = np.sort(when[given])[int(given.sum()) // 2]
        others = np.delete(table.values, column, axis=1)
        majority = agreement.consensus(others)
        apart = given & (majority != MISSING) & (majority != table.values[:, column])
        for row in np.flatnonzero(apart & (when >= middle)).tolist():
            sentence = f"{expert}, who drifts from the others, says otherwise than they do"
            reasons.add(table.keys[row], _EXPERT, sentence, len(table.keys))
    if not found and len(table.experts) < 2:
        say("one expert alone: nobody to drift from")
    return tuple(found)


def _suspects(
    task: Task, labels: Labels, shown: Shown, reasons: _Reasons
) -> list[tuple[str, Suspect]]:
    settled = dict(zip(labels.ads.keys, labels.ads.labels.tolist(), strict=True))
    row = {key: number for number, key in enumerate(labels.table.keys)}
    ads = {ad.key: ad for ad in shown.ads()}
    found = []
    for key in reasons.order():
        if key not in settled:
            # Its tie goes back by itself.
            continue
        values = labels.table.values[row[key]]
        who = tuple(
            expert
            for expert, value in zip(labels.table.experts, values, strict=True)
            if value == settled[key]
        )
        against = reasons.of[key]
        suspect = Suspect(
            ad_id=ads[key].ad_id,
            text=ads[key].text,
            label=_name(task, settled[key]),
            experts=who,
            kinds=tuple(against),
            reasons=tuple(against.values()),
            confidence=reasons.confidence.get(key),
        )
        found.append((key, suspect))
    return found


def _name(task: Task, label: int) -> str:
    return task.labels.positive if label else task.labels.negative


def _write(
    workspace: Workspace, task: Task, suspects: Sequence[tuple[str, Suspect]]
) -> tuple[str, str, str]:
    """Write sheet, instructions and listing; -> sheet, listing and how the sheet comes back."""
    if not suspects:
        return "", "", ""
    # By key, and without what speaks against a label: whoever looks again shall not guess it.
    blind = sorted(suspects, key=lambda found: found[0])
    data = ad_sheet([("", "", suspect.ad_id, suspect.text) for _, suspect in blind])
    folder = workspace.path(f"recheck/{files.sha256(data)[:16]}")
    sheet = f"{folder}/{RECHECK}"
    back = typed("import {}", sheet, workspace=workspace.root)
    if not storage.exists(sheet):
        told = recheck_instructions(
            task.name,
            task.version,
            task.policy,
            task.labels.positive,
            task.labels.negative,
            back,
        )
        storage.write(f"{folder}/{RECHECK_INSTRUCTIONS}", told.encode())
        storage.write(sheet, data)
    listing = f"{folder}/{REASONS}"
    storage.write(listing, reasons_sheet([suspect for _, suspect in suspects]))
    step_back = f"let somebody look again at {sheet} ({RECHECK_INSTRUCTIONS} beside it says how), then {back}"
    return sheet, listing, step_back


def reasons_sheet(suspects: Sequence[Suspect]) -> bytes:
    """Return what speaks against each label as CSV for people: no cell is a formula."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for suspect in suspects:
        cells = (
            suspect.ad_id,
            suspect.text[:_MAX_TEXT_CHARS],
            suspect.label,
            ", ".join(suspect.experts),
            "; ".join(suspect.reasons),
        )
        writer.writerow(map(safe_cell, cells))
    return b"\xef\xbb\xbf" + sink.getvalue().encode("utf-8", "backslashreplace")
