"""What experts have said before any training: labels of each class and half, ties, agreement.

Counts and agreement alone, of both halves; no verdict goes on from here to what learns or chooses.
"""

from __future__ import annotations

import numpy as np

from pipelines.config import Task
from pipelines.jobs.evaluate import evaluation_ratings
from pipelines.jobs.labels import fine_tuning_labels, ties_sheet
from pipelines.jobs.results import HalfLabels, LabelStanding
from pipelines.numerics import agreement
from pipelines.numerics.agreement import MISSING
from pipelines.store import storage
from pipelines.store.workspace import Workspace
from pipelines.verdicts.halves import Ratings
from pipelines.verdicts.shown import Shown


def label_standing(workspace: Workspace, task: Task, shown: Shown) -> LabelStanding:
    """Count the labels of a version of the policy, and measure how the experts agree.

    Args:
        workspace: the workspace.
        task: its version says which rounds count.
        shown: all ads that were put before experts.

    Raises:
        RunFailed: a file of verdicts is gone or has changed.
        UsageError: the task's way to a consensus is not installed.
    """
    texts = shown.texts()
    training = fine_tuning_labels(workspace, task, texts)
    judging = evaluation_ratings(workspace, task, texts)
    everything = training.table | judging
    fine_tuning, evaluation = (_counts(part, task) for part in (training.table, judging))
    to_train = _to_train(task, fine_tuning)
    ties = [ties_sheet(workspace, shown, training.tied)[0]] if training.tied else []
    return LabelStanding(
        positive_name=task.labels.positive,
        negative_name=task.labels.negative,
        fine_tuning=fine_tuning,
        evaluation=evaluation,
        experts=everything.experts,
        expert_kappa=agreement.expert_agreement(
            everything.values, agreement.Bootstrap(task.review.min_overlap, seed=task.seed)
        ),
        ties=tuple(filter(storage.exists, ties)),
        missing=(*to_train, *_to_judge(task, evaluation)),
        to_train=to_train,
    )


def _counts(table: Ratings, task: Task) -> HalfLabels:
    settled = agreement.consensus(table.values, task.review.consensus)
    given = (table.values != MISSING).any(axis=1)
    return HalfLabels(
        positive=int((settled == 1).sum()),
        negative=int((settled == 0).sum()),
        tied=int((given & (settled == MISSING)).sum()),
        skipped=int(np.count_nonzero(~given)),
    )


def _to_train(task: Task, fine_tuning: HalfLabels) -> tuple[str, ...]:
    """Return what training still lacks, a phrase a class."""
    lacking = {
        name: task.training.min_per_class - getattr(fine_tuning, kind)
        for kind, name in task.labels.model_dump().items()
    }
    return tuple(
        f"{number:,} more {name} in the fine-tuning half (training.min_per_class)"
        for name, number in lacking.items()
        if number > 0
    )


def _to_judge(task: Task, evaluation: HalfLabels) -> tuple[str, ...]:
    """Return what evaluation still lacks, a phrase a class."""
    return tuple(
        f"any {name} in the evaluation half, without which no kappa is defined"
        for kind, name in task.labels.model_dump().items()
        if not getattr(evaluation, kind)
    )
