"""What the newest audit of a workspace says of its corpus, from its frame and its labels alone."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from pipelines.jobs.results import AuditStanding
from pipelines.numerics import agreement, audit, calibration
from pipelines.numerics.agreement import MISSING
from pipelines.numerics.audit import Estimates, Labels, SamplePlan, Strata
from pipelines.store import files
from pipelines.store.facts import FRAME_FILE, AuditFacts
from pipelines.store.workspace import Manifest, Workspace
from pipelines.verdicts.halves import ratings, read_audit

_NO_LABELS = "no ad of it is labelled yet"


@dataclass(frozen=True, slots=True)
class _Corpus:
    """The frame as the estimates take it; ``probability`` is float64 (N_BINS,), by margin."""

    plan: SamplePlan
    strata: Strata
    probability: np.ndarray


def audit_standing(workspace: Workspace) -> AuditStanding | None:
    """Return what the newest audit says, None where there is none of the newest policy version.

    A few milliseconds: the verdicts on its ads are all that is read beside it.

    Raises:
        RunFailed: something in the workspace is damaged.
    """
    pairs, audits = workspace.pairs.by_round(), workspace.audit.by_round()
    if not pairs or not audits:
        return None
    newest = audits[max(audits)]
    facts, task = newest.facts, newest.facts.origin.task
    if task.guideline() != pairs[max(pairs)].facts.origin.task.guideline():
        return None
    items = workspace.read_items(newest)
    drawn = {ad.key: ad for item in items for ad in item.ads}
    table = ratings([v for v in read_audit(workspace, task.version) if v.key in drawn])
    consensus = agreement.consensus(table.values, task.review.consensus)
    settled = [
        (drawn[k], n > 0) for k, n in zip(table.keys, consensus, strict=True) if n != MISSING
    ]
    answered = (table.values != MISSING).any(axis=1) if table.values.size else np.zeros(0, bool)
    found: Estimates | None = None
    if len(settled) >= min(audit.MIN_LABELS, len(items)) and settled:
        corpus = _corpus(workspace, newest)
        margins = np.array([ad.margin for ad, _ in settled])
        labels = Labels(
            stratum=corpus.plan.stratum_of(margins),
            positive=np.array([positive for _, positive in settled]),
            probability=corpus.probability[audit.bin_of(margins)],
            weight=np.array([ad.weight for ad, _ in settled]),
        )
        found = audit.estimate(corpus.strata, labels, facts.known)
    reason = ""
    if found is None:
        few = f"{len(settled)} of its ads have a settled label, and {audit.MIN_LABELS} are needed"
        reason = few if settled else _NO_LABELS
    known = sum(map(sum, facts.known.counts))
    models = workspace.model.by_round()
    trained = [
        number
        for number, model in models.items()
        if number > facts.origin.model_round
        and model.facts.task.version == task.version
        and number >= newest.round
    ]
    return AuditStanding(
        round=newest.round,
        model_round=facts.origin.model_round,
        newer_model=max(trained, default=0),
        ads=sum(stratum.ads for stratum in facts.strata) + known,
        drawn=len(items),
        labelled=len(settled),
        positive=sum(bool(positive) for _, positive in settled),
        unsettled=int(answered.sum()) - len(settled),
        skipped=len(table.keys) - int(answered.sum()),
        strata=len(facts.strata),
        known=known,
        left_out=facts.left_out,
        threshold_probability=round(facts.threshold.probability, 6),
        positive_name=task.labels.positive,
        plain=dict(found.plain) if found else {},
        powered=dict(found.powered) if found else {},
        halving_labels=found.halving_labels if found else None,
        reason=reason,
    )


def _corpus(workspace: Workspace, manifest: Manifest[AuditFacts]) -> _Corpus:
    facts = manifest.facts
    histogram = np.zeros(calibration.N_BINS, dtype=np.int64)
    weight = np.zeros(calibration.N_BINS, dtype=np.float64)
    data = files.read(workspace.root, manifest.file(FRAME_FILE))
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        histogram[found["bins"]] = found["ads"]
        weight[found["bins"]] = found["weight"] / 1000
    probability = audit.assumed_probabilities(histogram, facts.origin.task.prior)
    columns = np.array([(own.start, own.ads, own.drawn) for own in facts.strata], dtype=np.int64)
    plan = SamplePlan(columns[:, 0], columns[:, 1], columns[:, 2], facts.threshold.margin)
    return _Corpus(plan, plan.strata(histogram, weight, probability), probability)
