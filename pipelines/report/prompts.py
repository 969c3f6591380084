"""The report of a comparison of prompts, from what ``prompts`` returned alone."""

from __future__ import annotations

from typing import Any

from pipelines.jobs.results import PromptFigures, Prompts
from pipelines.report.html import rendered, section
from pipelines.report.output import Report, Say, check_folder, write
from pipelines.report.pictures.canvas import Estimate
from pipelines.report.pictures.prompts import side_by_side
from pipelines.report.words import word


def prompts_report(found: Prompts, folder: str, say: Say) -> Report:
    """Write the report of a comparison: its picture and its table.

    Args:
        found: what was compared.
        folder: where to, local or ``gs://``; an older report there is replaced.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: the folder cannot be written.
    """
    place = check_folder(folder)
    by_labels = found.labelled > 0
    # Without labels a voice's likeness to the policy's words is all there is, and that of the words
    # to themselves is none.
    shown = [row for row in found.prompts if by_labels or row.agreement < 1]
    drawn = side_by_side(
        [_estimate(row, by_labels) for row in shown],
        [bool(row.weight) or row.name == found.winner for row in shown],
        "AUC on the labelled ads" if by_labels else "correlation with the policy's words",
        0.5 if by_labels else 0.0,
    )
    numbers: dict[str, Any] = {"found": found, "by_labels": by_labels}
    head = rendered("sections/prompts_headline.html", **numbers).__html__()
    sections = [section("prompts", {"prompts": drawn}, **numbers)]
    title = f"ad-scout prompts: {word(found.task)}"
    return write(place, title, head, sections, {"task": found.task}, say)


def _estimate(row: PromptFigures, by_labels: bool) -> Estimate:
    if not by_labels:
        return Estimate(row.name, row.agreement, None, None)
    low, high = row.auc_interval or (None, None)
    return Estimate(row.name, row.auc, low, high)
