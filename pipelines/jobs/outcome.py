"""What a mining came to, from the manifests that it left and what its pipeline counted."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from models.backends import usage
from pipelines.console import summary
from pipelines.errors import RunFailed
from pipelines.handlers import STAGE
from pipelines.jobs import pilot
from pipelines.jobs.results import Mined, Spent, plain
from pipelines.store import storage

if TYPE_CHECKING:
    from pipelines.jobs.mine import Plan


def outcome(plan: Plan, counted: Mapping[str, int] | None, seconds: float) -> Mined:
    """Return what a mining came to, and write it beside the review where a pipeline ran.

    Args:
        plan: what was decided before.
        counted: counters of the pipeline, as far as its engine gave them; None where none was run, for
            the round was mined already.
        seconds: what it took.

    Raises:
        RunFailed: a stage left no manifest.
    """
    workspace, number = plan.workspace, plan.round_number
    scored = workspace.scored.find(number, plan.scored_hash)
    pairs = workspace.pairs.find(number, plan.mine_hash)
    review = workspace.review.find(number, plan.mine_hash)
    if not (scored and pairs and review):
        raise RunFailed(
            "the pipeline ended without a manifest for each of scored, pairs and review"
        )
    clusters = workspace.clusters.find(number, plan.mine_hash)
    counters = counted or {}
    busy = summary.stage_seconds(counters)
    unknown = counted == {} and plan.scored is None
    scored_now = None if unknown else counters.get("ScoreAds/scored", 0)
    records = counters.get("ReadAds/records", 0)
    threshold, boundary = pairs.facts.threshold, pairs.facts.boundary
    committee = None if plan.model else plan.task.prompt.committee
    items = tuple(workspace.read_items(pairs))
    mined = Mined(
        task=plan.task.name,
        round=number,
        records=scored.facts.records,
        rejected=scored.facts.rejected,
        rejected_by_reason=scored.facts.reasons,
        unique=scored.facts.unique,
        scored_now=scored_now,
        reused=None if scored_now is None else scored.rows - scored_now,
        truncated=clusters.facts.truncated if clusters else None,
        positives=threshold.n_positive,
        positive_share=threshold.share,
        threshold_probability=round(threshold.probability, 6),
        threshold_source=threshold.source,
        positive_clusters=clusters.facts.positive_clusters if clusters else None,
        negative_clusters=clusters.facts.negative_clusters if clusters else None,
        overlaps=clusters.facts.overlaps if clusters else None,
        candidates=pairs.facts.candidates,
        pairs=pairs.rows,
        exploration_pairs=pairs.facts.sources.get("exploration", 0),
        budget=plan.task.selection.budget,
        exploration_share=round(plan.explored, 6),
        single_ads=sum(len(item.ads) == 1 for item in items),
        note=pairs.facts.note,
        threshold_bound=threshold.bound,
        covered_share=boundary.covered_share if boundary else None,
        partner_rank=_median([item.overlap.partner_rank for item in items if item.overlap]),
        pair_distance=_median([item.distance for item in items if item.overlap]),
        seconds_by_stage=busy,
        seconds=round(seconds, 2),
        scoring_rate=_rate(scored_now, busy.get("ScoreAds", 0.0)),
        reading_rate=_rate(records, busy.get("ReadAds", 0.0)),
        model_id=plan.identity.model_id,
        prompt_hash=plan.identity.prompt_hash,
        prompts=tuple(member.name for member in committee.members) if committee else (),
        agreement=committee.agreement if committee else None,
        guessing=committee is not None and committee.agreement < pilot.GUESSING,
        pairs_file=workspace.path(pairs.file("items.jsonl").path),
        review_sheet=workspace.path(review.file("review.csv").path),
        overlaps_file=workspace.path(f"{clusters.attempt}/overlaps.jsonl") if clusters else None,
        dead_letters=tuple(workspace.path(path) for path in scored.facts.dead_letters),
        items=items,
        names=plan.task.labels.model_dump(),
        rejected_examples=scored.facts.examples,
        unread=scored.facts.unread,
        spent=_spent(plan, counters),
        cascade=scored.facts.cascade,
        saved_seconds=_saved(counters, busy),
    )
    if counted is not None:
        data = json.dumps(plain(mined), indent=1, ensure_ascii=False).encode() + b"\n"
        storage.write(workspace.path(f"{review.attempt}/summary.json"), data)
    return mined


def _spent(plan: Plan, counters: Mapping[str, int]) -> Spent | None:
    """Return what a service was asked for, by the pipeline and by the pilot before it."""
    if plan.model is not None or not plan.task.backend_kind().remote:
        return None
    found = {
        name: counters.get(f"{STAGE}/{name}", 0) + plan.piloted.get(name, 0) for name in usage.NAMES
    }
    tokens = found[usage.TOKENS_IN], found[usage.TOKENS_OUT]
    return Spent(
        place=plan.task.model.url,
        requests=found[usage.ASKED],
        again=found[usage.ASKED_AGAIN],
        remembered=found[usage.REMEMBERED],
        tokens_in=tokens[0],
        tokens_out=tokens[1],
        cost=plan.task.server.terms().cost(*tokens),
    )


def _saved(counters: Mapping[str, int], busy: Mapping[str, float]) -> float | None:
    """Return what LLM-0 would have taken for the ads that were foretold, seconds."""
    read, foretold = (counters.get(f"CascadeAds/{name}", 0) for name in ("read", "foretold"))
    return round(busy.get(STAGE, 0.0) / read * foretold, 1) if read and foretold else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 6) if known else None


def _rate(number: int | None, seconds: float) -> float | None:
    return round(number / seconds, 1) if number and seconds else None
