"""``scout prompts``: which prompts rank a task's ads, with labels and without."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from models import committee as forms
from models.backends.base import BackendError, Unavailable
from pipelines.config import Task, called
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import pilot
from pipelines.jobs.results import PromptFigures, Prompts
from pipelines.numerics.agreement import cohen_kappa
from pipelines.numerics.committee import Voices
from pipelines.numerics.ranking import Ranked, compare_ranks
from pipelines.store import storage

COMMITTEE, WITH_LABELS, WORDS, OWN = (
    "committee, without labels",
    "committee, with the labels",
    "similarity to the policy's words",
    "the task's own prompt",
)
# What says nothing of an ad: a prompt's bias shows in what it answers them (Zhao and others, "Calibrate
# before use", 2021).
CONTENTLESS = ("N/A", "none")
# Folds in which the labelled committee is chosen by the other labels.
_FOLDS = 5
# Labels of each class without which nothing is compared.
_LEAST = 2
_BLOCK = re.compile(r"^prompt:.*?(?=^[^\s#]|\Z)", re.MULTILINE | re.DOTALL)


class _Quoting(yaml.SafeDumper):
    """Writes texts of several lines in quotes, on one."""


_Quoting.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if "\n" in text else None
    ),
)


@dataclass(frozen=True, slots=True)
class PromptsOptions:
    """What ``scout prompts`` was told.

    Attributes:
        task: the task.
        source: the task, or its file, as it was given.
        texts: the ads, distinct.
        labels: of the same ads, 1 positive, 0 negative, -1 unknown; None without labels.
        write: task file to write the choice into, or "".
    """

    task: Task
    source: Task | str
    texts: tuple[str, ...]
    labels: np.ndarray | None
    write: str


def compare(options: PromptsOptions, say: Callable[[str], None]) -> Prompts:
    """Compare what ships, and the task's own prompt, on a few ads; raises as ``mine`` does."""
    task, texts = options.task, list(options.texts)
    try:
        kind = type(task.backend())
    except BackendError as error:
        raise UsageError(f"{called(options.source)}: model: {error}") from error
    if not kind.debates:
        raise UsageError(
            f"{called(options.source)}: model: {kind.__name__} takes one prompt, so there is nothing to "
            "compare"
        )
    plain = task.without_prompt()
    try:
        asked = [*texts, *CONTENTLESS]
        answers, similarity = pilot.ask(plain, asked, say)
        own = _own(task, asked, say)
    except Unavailable as error:
        raise RunFailed(str(error)) from error
    except BackendError as error:
        raise UsageError(f"{called(options.source)}: model: {error}") from error
    except ValueError as error:
        raise UsageError(f"{called(options.source)}: prompt: {error}") from error
    nothing = np.append(answers, own[:, None], axis=1)[len(texts) :].mean(axis=0)
    answers, similarity, own = (part[: len(texts)] for part in (answers, similarity, own))
    told = np.isfinite(similarity) & np.isfinite(answers).any(axis=1)
    answers, similarity, own = answers[told].astype(np.float64), similarity[told], own[told]
    labels = None if options.labels is None else options.labels[told]
    try:
        voices = pilot.weigh(task, answers, similarity)
    except ValueError as error:
        raise RunFailed(f"{told.sum():,} ads: {error}; give more ads") from error

    names = [form.name for form in task.forms()]
    scores = {COMMITTEE: voices.margins(answers, similarity), WORDS: similarity}
    if labels is not None:
        scores[WITH_LABELS] = _cross_fitted(task, answers, similarity, labels)
    if np.isfinite(own).all():
        scores[OWN] = own
    usable = np.flatnonzero(np.isfinite(voices.agreements))
    scores |= {names[i]: answers[:, i] for i in usable}
    ranked = None if labels is None else _ranked(scores, labels, task.seed)
    empty = dict(zip([*names, OWN], nothing, strict=True))
    chosen = voices if labels is None else pilot.weigh(task, answers, similarity, labels)
    rows = _figures(
        scores,
        similarity,
        labels,
        ranked,
        task,
        dict(zip(names, chosen.weights, strict=True)),
        empty,
    )
    winner, verdict = _decide(rows, labels)
    section = _section(winner, chosen, len(similarity), task)
    if options.write:
        _write(options.write, section)
        say(f"prompt written into {options.write}")
    return Prompts(
        task=task.name,
        ads=len(similarity),
        labelled=0 if labels is None else int((labels >= 0).sum()),
        positives=None if labels is None else int((labels == 1).sum()),
        prompts=tuple(rows),
        agreement=round(voices.agreement, 4),
        stability=_stability(task, answers, similarity),
        guessing=labels is None and voices.agreement < pilot.GUESSING,
        winner=winner,
        verdict=verdict,
        section=section,
        written=options.write or None,
    )


def _own(task: Task, texts: Sequence[str], say: Callable[[str], None]) -> np.ndarray:
    """Return the margins of a prompt that the task states; NaN where it states none."""
    if task.prompt.committee is not None or task.wants_committee():
        return np.full(len(texts), np.nan)
    answers, _ = pilot.ask_prompts(task, [task.prompt_spec()], texts, say)
    if np.isnan(answers).all():
        raise ValueError(
            "its two answers start with the same token, or it leaves no room for an ad"
        )
    return answers[:, 0].astype(np.float64)


def _cross_fitted(
    task: Task, answers: np.ndarray, similarity: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Score each labelled ad by a committee that did not know its label."""
    scores = np.zeros(len(labels))
    fold = np.arange(len(labels)) % _FOLDS
    for own in range(_FOLDS):
        known = np.where(fold == own, -1, labels)
        voices = pilot.weigh(task, answers, similarity, known)
        scores[fold == own] = voices.margins(answers, similarity)[fold == own]
    return scores


def _ranked(scores: Mapping[str, np.ndarray], labels: np.ndarray, seed: int) -> Ranked:
    known = labels >= 0
    counts = [int((labels == label).sum()) for label in (0, 1)]
    if min(counts) < _LEAST:
        raise UsageError(
            f"--labels: {counts[1]:,} positive and {counts[0]:,} negative among the ads that are asked "
            f"about; at least {_LEAST} of each are compared"
        )
    table = np.column_stack([values[known] for values in scores.values()])
    return compare_ranks(table, labels[known], list(scores).index(COMMITTEE), seed)


def _figures(
    scores: Mapping[str, np.ndarray],
    similarity: np.ndarray,
    labels: np.ndarray | None,
    ranked: Ranked | None,
    task: Task,
    weights: Mapping[str, float],
    empty: Mapping[str, float],
) -> list[PromptFigures]:
    table = np.column_stack(list(scores.values()))
    like = np.corrcoef(np.column_stack([table, similarity]).T)
    single = [name in weights for name in scores]
    rows = []
    for i, (name, values) in enumerate(scores.items()):
        others = [j for j, alone in enumerate(single) if alone and j != i]
        said = float((values > 0).mean())
        found: dict[str, Any] = {}
        if ranked is not None and labels is not None:
            known = labels >= 0
            cut = np.quantile(values, 1 - task.prior)
            found = {
                "auc": _round(ranked.auc[i]),
                "auc_interval": (_round(ranked.low[i]), _round(ranked.high[i])),
                "ahead": _round(ranked.ahead[i]),
                "ahead_interval": (_round(ranked.ahead_low[i]), _round(ranked.ahead_high[i])),
                "kappa": _rounded(
                    cohen_kappa(
                        (values[known] >= cut).astype(np.int8), labels[known].astype(np.int8)
                    )[0]
                ),
            }
        rows.append(
            PromptFigures(
                name=name,
                weight=_round(weights.get(name, 0.0)),
                agreement=_round(like[i, -1]),
                others=_round(float(np.mean(like[i, others]))) if others else None,
                above_nothing=_above(values, empty.get(name, np.nan)),
                same_answer=_round(max(said, 1 - said)) if name in weights or name == OWN else None,
                **found,
            )
        )
    key = "auc" if ranked is not None else "weight"
    lead = [row for row in rows if row.name not in weights]
    return lead + sorted(
        (row for row in rows if row.name in weights), key=lambda row: -(getattr(row, key) or 0.0)
    )


def _above(values: np.ndarray, nothing: float) -> float | None:
    return _round((values > nothing).mean()) if np.isfinite(nothing) else None


def _decide(rows: Sequence[PromptFigures], labels: np.ndarray | None) -> tuple[str, str]:
    """Return what to label by, and why."""
    if labels is None:
        return COMMITTEE, (
            "without labels nothing here is an accuracy: the committee weighs the forms by their agreement "
            "with the policy's words; 50 labelled ads (--labels) say which prompt ranks best"
        )
    others = [row for row in rows if row.name != COMMITTEE]
    best = max(others, key=lambda row: row.auc or 0.0)
    assert best.ahead is not None and best.ahead_interval is not None
    if best.ahead <= 0:
        return (
            COMMITTEE,
            "no prompt ranks the labelled ads better than the committee without labels",
        )
    if best.ahead_interval[0] > 0:
        return best.name, f"{best.name} ranks the labelled ads better, beyond its interval"
    half = (best.ahead_interval[1] - best.ahead_interval[0]) / 2
    needed = int(np.ceil((labels >= 0).sum() * (half / best.ahead) ** 2 / 10) * 10)
    return WITH_LABELS, (
        f"{best.name} is ahead of the committee without labels by {best.ahead:.3f}, within chance; about "
        f"{needed:,} labels in all would decide; until then the labels nudge the committee"
    )


def _stability(task: Task, answers: np.ndarray, similarity: np.ndarray) -> float | None:
    """Return how alike two committees rank all ads that were chosen on half of them each."""
    scores = []
    for half in (0, 1):
        own = np.arange(len(similarity)) % 2 == half
        try:
            voices = pilot.weigh(task, answers[own], similarity[own])
        except ValueError:
            return None
        scores.append(voices.margins(answers, similarity))
    return _round(np.corrcoef(scores)[0, 1])


def _section(winner: str, voices: Voices, ads: int, task: Task) -> str:
    """Return the task file's section that labels by what was chosen."""
    by_name = {form.name: form for form in task.forms()}
    if winner == OWN:
        prompt = task.prompt.model_dump(mode="json", exclude_defaults=True)
    elif winner in by_name:
        form = by_name[winner]
        answers = {"positive": form.positive, "negative": form.negative}
        template = forms.OPENING + form.cue
        prompt = {"form": "completion", "template": template, "answers": answers}
    else:
        seated = pilot.committee_of(task.forms(), voices, ads)
        prompt = task.without_prompt().prompt.model_dump(mode="json", exclude_defaults=True)
        prompt["committee"] = seated.model_dump(mode="json")
    return yaml.dump(
        {"prompt": prompt},
        Dumper=_Quoting,
        sort_keys=False,
        allow_unicode=True,
        # A member a line.
        default_flow_style=None,
        width=400,
    )


def _write(path: str, section: str) -> None:
    try:
        text = storage.read(path).decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"--write {path}: no such task file; nothing was written") from None
    if _BLOCK.search(text):
        text = _BLOCK.sub(lambda _: section, text, count=1)
    else:
        text = text.rstrip("\n") + "\n" + section
    storage.write(path, text.encode())


def _round(value: float | np.floating) -> float:
    return round(float(value), 4)


def _rounded(value: float | None) -> float | None:
    return None if value is None else _round(value)
