"""Composition: an audit, ads drawn at random from all that were scored, and what their labels say."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import apache_beam as beam

from pipelines.config import Task, called, given_task
from pipelines.console import metrics
from pipelines.console.progress import step
from pipelines.console.typed import typed
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.audit_standing import audit_standing
from pipelines.jobs.results import Audited, Submitted
from pipelines.jobs.running import Submission, check_remote, run_pipeline, submitted
from pipelines.numerics import agreement
from pipelines.numerics.agreement import MISSING
from pipelines.stages.draw_audit import DRAWN, FRAME, AuditPlan, DrawAudit
from pipelines.stages.read_parts import ReadParts
from pipelines.stages.write_audit import WriteAudit
from pipelines.store import scores
from pipelines.store.facts import AuditFacts, PairsFacts, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace, config_hash
from pipelines.verdicts.halves import HALVES, ratings, read_audit, read_half


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """Everything ``scout audit`` was told.

    Attributes:
        task: the task, or the path of its file.
        workspace: folder, local or ``gs://``.
        budget: ads to label in all.
        beam: Beam's own flags.
    """

    task: Task | str
    workspace: str
    budget: int
    beam: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Base:
    """What an audit draws from.

    Attributes:
        hash: of all that decides which ads could be drawn, and in which order.
        shown: content keys of ads that experts have seen.
        before: the newest audit that drew from the same, or None.
    """

    hash: str
    shown: frozenset[str]
    before: Manifest[AuditFacts] | None

    @property
    def seed(self) -> int:
        """Seed of the draw: unrelated to every other draw, those of earlier audits among them.

        An order in which earlier audits took the first ads is no random order of what they left.
        """
        digest = hashlib.blake2b(f"audit {self.hash}".encode(), digest_size=6).digest()
        return int.from_bytes(digest, "big")


def audit(options: AuditOptions, say: Callable[[str], None]) -> Audited | Submitted:
    """Draw ads for experts to label, unless enough are drawn; estimate from the labels there are.

    Args:
        options: see :class:`AuditOptions`.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: nothing is mined, or it was for another task or policy.
        RunFailed: the scored ads are gone, or something in the workspace is damaged.
    """
    task = given_task(options.task)
    check_remote(options.beam, options.workspace, (), task, options.task)
    workspace = Workspace(options.workspace)
    workspace.pairs_of()
    with workspace.writing("audit", say):
        return _audit(workspace, task, options, say)


def _audit(
    workspace: Workspace, task: Task, options: AuditOptions, say: Callable[[str], None]
) -> Audited | Submitted:
    pairs = workspace.pairs_of()
    _check_task(options, task, pairs)
    scored = scores.scored_of(workspace, pairs)
    if scored is None:
        raise RunFailed(
            f"the scored ads of round {pairs.round} are no longer all in {workspace.root}/rounds: run "
            "`scout mine` again, it scores those that are lost"
        )
    with step("reading what experts have seen"):
        base = _base(workspace, pairs, scored)
        settled = _settled(workspace, pairs, base.shown)
    before = base.before
    # A smaller budget takes nothing back; labels that were settled since are known from now on.
    budget = max(options.budget, before.rows if before else 0)
    wanted = config_hash({"base": base.hash, "budget": budget, "settled": settled})
    if before and before.config_hash == wanted:
        say(f"round {pairs.round}: {before.rows:,} ads are drawn already; nothing to do")
    else:
        metrics.reset()
        facts = pairs.facts
        plan = AuditPlan(
            threshold=facts.threshold.margin,
            prior=facts.origin.task.prior,
            budget=budget,
            seed=base.seed,
            shown=base.shown,
            settled=settled,
            strata=tuple((own.start, own.drawn) for own in before.facts.strata) if before else (),
        )
        write = WriteAudit(
            workspace.root,
            workspace.new_attempt(pairs.round, "audit"),
            wanted,
            base.hash,
            base.seed,
            scored.attempt,
            facts.origin,
            facts.threshold,
            scored.facts.weight_unit,
        )
        build = functools.partial(_build, workspace.root, scored, plan, write)
        ran = run_pipeline(options.beam, build, say)
        if isinstance(ran, Submission):
            return submitted(ran, task.name, workspace.root)
    standing, drawn = audit_standing(workspace), workspace.audit_of(pairs.round)
    if standing is None:
        raise RunFailed("the pipeline ended without a manifest of the audit")
    return Audited(
        task=task.name,
        drawn_now=drawn.rows - (before.rows if before else 0),
        items_file=workspace.path(drawn.file("items.jsonl").path),
        audit=standing,
        next_step=_next_step(workspace) if standing.labelled < standing.drawn else "",
    )


def _next_step(workspace: Workspace) -> str:
    export, back, status = (
        typed(command, workspace=workspace.root)
        for command in ("export --audit --tool TOOL", "import FILE...", "status")
    )
    return f"{export}, let experts label, {back} what comes back, and {status} tells what it says"


def _check_task(options: AuditOptions, task: Task, pairs: Manifest[PairsFacts]) -> None:
    held = pairs.facts.origin.task
    if held.name != task.name:
        raise UsageError(
            f"--workspace {options.workspace}: holds rounds of the task {held.name!r}, not of "
            f"{task.name!r}"
        )
    if held.guideline() != task.guideline():
        raise UsageError(
            f"{called(options.task)}: policy, version or label names differ from those that round "
            f"{pairs.round} was mined with; `scout mine` with this task first, or give the older one"
        )


def _base(
    workspace: Workspace, pairs: Manifest[PairsFacts], scored: Manifest[ScoredFacts]
) -> _Base:
    """Return what is drawn from, with the newest audit that drew from it.

    The ads of earlier audits of another base count as seen, those of the same base do not: a larger
    budget goes on with them.
    """
    shown = set(workspace.shown_keys(pairs.round))
    for manifest in workspace.pairs.all(pairs.round):
        shown |= workspace.keys_of(manifest)
    audits = workspace.audit.all(pairs.round)
    newest = audits[-1] if audits else None
    own = {audit.attempt for audit in audits if newest and audit.facts.base == newest.facts.base}
    for audit in audits:
        if audit.attempt not in own:
            shown |= workspace.keys_of(audit)
    found = _Base(_base_hash(pairs, scored, shown), frozenset(shown), newest)
    if newest is None or newest.facts.base == found.hash:
        return found
    # Experts were shown other ads since, or the ads were scored anew: a sample of its own.
    shown |= workspace.keys_of(newest).union(
        *(workspace.keys_of(audit) for audit in audits if audit.attempt in own)
    )
    return _Base(_base_hash(pairs, scored, shown), frozenset(shown), None)


def _base_hash(pairs: Manifest[PairsFacts], scored: Manifest[ScoredFacts], shown: set[str]) -> str:
    origin = pairs.facts.origin
    return config_hash(
        {
            "round": pairs.round,
            "scored": scored.config_hash,
            "threshold": pairs.facts.threshold.margin,
            "guideline": origin.task.guideline(),
            "prior": origin.task.prior,
            "seed": origin.task.seed,
            "shown": sorted(shown),
        }
    )


def _build(
    root: str,
    scored: Manifest[ScoredFacts],
    plan: AuditPlan,
    write: WriteAudit,
    pipeline: beam.Pipeline,
) -> None:
    found = (
        pipeline
        | "ScoredBefore" >> beam.Create(list(scored.files), reshuffle=False)
        | "ReadParts" >> ReadParts(root)
        | "DrawAudit" >> DrawAudit(root, plan)
    )
    _ = (found[DRAWN], found[FRAME]) | "WriteAudit" >> write


def _settled(
    workspace: Workspace, pairs: Manifest[PairsFacts], shown: frozenset[str]
) -> dict[str, int]:
    """Return the settled labels of shown ads, those of both halves and of earlier audits.

    Of the evaluation half, too, for these ads are counted: nothing is drawn, trained or chosen by their
    labels.
    """
    task = pairs.facts.origin.task
    verdicts = [v for half in HALVES for v in read_half(workspace, half, task.version)]
    table = ratings([*verdicts, *read_audit(workspace, task.version)])
    labels = agreement.consensus(table.values, task.review.consensus)
    found = zip(table.keys, labels.tolist(), strict=True)
    return {key: label for key, label in found if label != MISSING and key in shown}
