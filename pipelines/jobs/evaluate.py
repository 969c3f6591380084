"""The evaluator: every round's model against the experts, on the evaluation half.

Nothing else in this project reads that half's verdicts, but for the audit, which counts them. What is
told of labels before a training (``label_standing``) are counts and agreement that come from here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.ad_text import is_wordless
from models.backends.base import BackendError, Labeler
from models.backends.pool import LabelerPool
from pipelines.config import Task
from pipelines.console.progress import step
from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed, UsageError
from pipelines.handlers import LoadLabeler, load_trained
from pipelines.numerics import agreement, stopping
from pipelines.numerics.agreement import MISSING
from pipelines.store import model_store
from pipelines.store.facts import Decided, Evaluation, Learnt, ModelFigures, PairsFacts, Statistic
from pipelines.store.workspace import Manifest, Workspace
from pipelines.verdicts.halves import Ratings, ratings, read_half
from pipelines.verdicts.shown import Shown

_BASE_ROUND = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to evaluate.

    Attributes:
        round: the round after which it was trained; 0 for LLM-0, before any expert label.
        model_id: which weights.
        threshold: an ad is positive when its margin is at least this, log-odds.
        margins: texts to margins, float (n,); called once, with all texts.
    """

    round: int
    model_id: str
    threshold: float
    margins: Callable[[Sequence[str]], np.ndarray]


def stopping_rule(task: Task) -> stopping.StoppingRule:
    """Return the task's stopping rule as the numerics take it."""
    rule = task.stopping.model_dump()
    return stopping.StoppingRule(min_ads=rule.pop("min_evaluation_ads"), **rule)


def evaluate(
    workspace: Workspace,
    task: Task,
    texts: Mapping[str, str],
    candidates: Sequence[Candidate],
    fine_tuning_ads: int,
) -> Evaluation:
    """Measure every model on the same evaluation ads, those of all rounds of this policy version.

    Args:
        workspace: the workspace.
        task: the task; its version says which rounds count.
        texts: content key -> text of every ad shown to experts.
        candidates: the models, by round.
        fine_tuning_ads: ads that trained the last of them, for the label budget.
    """
    table = evaluation_ratings(workspace, task, texts)
    return measure(task, table, [texts[key] for key in table.keys], candidates, fine_tuning_ads)


def evaluation_ratings(workspace: Workspace, task: Task, texts: Mapping[str, str]) -> Ratings:
    """Return what experts said of the evaluation ads; what no model can read measures none."""
    table = ratings(read_half(workspace, "evaluation", task.version))
    return table.where([not is_wordless(texts.get(key, "")) for key in table.keys])


def measure(
    task: Task,
    table: Ratings,
    texts: Sequence[str],
    candidates: Sequence[Candidate],
    fine_tuning_ads: int,
) -> Evaluation:
    """Measure every model against the verdicts in ``table``; ``texts`` in its order of ads."""
    values = table.values
    if not values.shape[1]:
        values = np.full((len(table.keys), 1), MISSING, dtype=np.int8)
    labels = np.zeros((len(candidates), len(table.keys)), dtype=np.int8)
    if len(table.keys):
        with step("evaluating models", len(candidates)) as advance:
            for row, candidate in enumerate(candidates):
                labels[row] = candidate.margins(texts) >= candidate.threshold
                advance()
    labelled = int((values != MISSING).any(axis=1).sum())
    given = values[values != MISSING]
    with step("comparing models and experts"):
        decision = stopping.decide(
            [candidate.round for candidate in candidates],
            labels,
            values,
            stopping_rule(task),
            n_labels=fine_tuning_ads + labelled,
            bootstrap=agreement.Bootstrap(task.review.min_overlap, seed=task.seed),
        )
    alpha, alpha_reason = agreement.krippendorff_alpha(values)
    majority = agreement.consensus(values)
    settled = majority != MISSING
    models = []
    for row, candidate in enumerate(candidates):
        value, reason = agreement.cohen_kappa(labels[row][settled], majority[settled])
        models.append(
            ModelFigures(
                round=candidate.round,
                model_id=candidate.model_id,
                threshold=candidate.threshold,
                kappa=decision.models[row],
                kappa_with_majority=Statistic(value, reason),
                positive_share=float(labels[row].mean()) if len(table.keys) else None,
            )
        )
    return Evaluation(
        ads=labelled,
        experts=len(table.experts),
        verdicts=len(given),
        positive_share=float(given.mean()) if len(given) else None,
        tied=int((~settled & (values != MISSING).any(axis=1)).sum()),
        expert_kappa=decision.experts,
        krippendorff_alpha=Statistic(alpha, alpha_reason),
        models=tuple(models),
        gap_to_experts=decision.gap,
        gain=decision.gain,
        decision=Decided(decision.stop, decision.rule, decision.reason, decision.best_round),
        stopping=stopping_rule(task),
    )


def evaluate_models(
    workspace: Workspace,
    task: Task,
    shown: Shown,
    current: Candidate,
    fine_tuning_ads: int,
    say: Callable[[str], None],
    pool: LabelerPool | None,
) -> Evaluation:
    """Measure LLM-0 and every round's model on the evaluation ads of all rounds.

    Args:
        workspace: the workspace.
        task: the task; its version says which rounds count.
        shown: all ads that were put before experts.
        current: the model that was trained last.
        fine_tuning_ads: ads that it learnt from, for the label budget.
        say: told the decision, and which model is gone.
        pool: of labelers that are loaded already, or None.

    Raises:
        UsageError: LLM-0 cannot be had.
        RunFailed: nothing was mined for this version of the policy.
    """
    candidates = [_base_candidate(workspace, base_pairs(workspace, task), say, pool)]
    for manifest in model_store.models(workspace, task.version, before_round=current.round):
        if not model_store.is_whole(workspace, manifest):
            say(f"the model of round {manifest.round} is gone or damaged: not evaluated again")
            continue
        own = model_store.model_files(manifest)
        candidates.append(
            trained_candidate(workspace, task, manifest.round, manifest.facts.learnt, own, pool)
        )
    found = evaluate(workspace, task, shown.texts(), [*candidates, current], fine_tuning_ads)
    say(found.decision.reason)
    return found


def trained_candidate(
    workspace: Workspace,
    task: Task,
    round_number: int,
    learnt: Learnt,
    own: Sequence[BlockFile],
    pool: LabelerPool | None,
) -> Candidate:
    """Return a round's model, which is loaded when it is asked; ``own`` are its files."""
    load = functools.partial(load_trained, workspace, task, own, pool)
    return Candidate(round_number, learnt.model_id, learnt.threshold_margin, _margins_of(load))


def _margins_of(load: Callable[[], Labeler]) -> Callable[[Sequence[str]], np.ndarray]:
    """Return what gives texts their margins, by a labeler that is loaded when it is asked."""
    return lambda texts: load().margins(texts)


def _base_candidate(
    workspace: Workspace,
    base: Manifest[PairsFacts],
    say: Callable[[str], None],
    pool: LabelerPool | None,
) -> Candidate:
    """Return LLM-0 as the first round of this policy version used it, with its threshold then."""
    task = base.facts.origin.task
    try:
        identity = task.backend().identify(say)
    except BackendError as error:
        raise UsageError(f"model: {error}") from error
    return Candidate(
        round=_BASE_ROUND,
        model_id=identity.model_id,
        threshold=base.facts.threshold.margin,
        margins=_margins_of(LoadLabeler(task, identity, workspace.root, pool=pool)),
    )


def base_pairs(workspace: Workspace, task: Task) -> Manifest[PairsFacts]:
    """Return the manifest of the first pairs of this policy version: LLM-0 labelled them."""
    for pairs in workspace.pairs.by_round().values():
        if pairs.facts.origin.task.version == task.version:
            return pairs
    raise RunFailed(f"--workspace {workspace.root}: no pairs of policy version {task.version}")
