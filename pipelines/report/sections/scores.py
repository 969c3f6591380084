"""Scores and threshold, and how near to it the round's items lie."""

from __future__ import annotations

import numpy as np

from pipelines.numerics import calibration
from pipelines.report.data import LABELS, Evidence
from pipelines.report.html import Section, drawn, word
from pipelines.report.pictures.scores import score_histogram
from pipelines.report.sections.maps import drawn_names

_SOURCES = {
    "prior": "the quantile that matches the prior",
    "fixed": "a probability that the task names",
    "fitted": "fitted on the experts' labels",
    "bounded": "fitted on the experts' labels, and moved to the nearest share that the prior allows",
    "none": "of no meaning: the model gives all ads the same score",
}


def scores(found: Evidence) -> Section:
    """Return the histogram of all scores."""
    id, title, sample = "scores", "Scores and threshold", found.sample
    if sample is None:
        return Section(id, title, missing=found.why_no_sample)
    threshold = found.pairs.facts.threshold
    source = _SOURCES.get(threshold.source, word(threshold.source))
    split = (
        f"{sample.positives:,} of {sample.ads:,} ads ({sample.positives / sample.ads:.1%}) score at or "
        f"above the threshold, p = {threshold.probability:.4g}"
    )
    called = f"and are called {found.names['positive']}"
    return drawn(
        id,
        title,
        score_histogram(sample.histogram, sample.threshold, drawn_names(found)),
        f"Histogram of the scores of all {sample.ads:,} ads: {split}, {called}.",
        f"All {sample.ads:,} ads by the model's score. {split} (dashed), {called} (hatched orange). The "
        f"threshold is {source}. Scores rank well and are badly calibrated: p is no share of what "
        "experts would say.",
        *_bound(found),
        _band(found),
        _nearness(found),
    )


def _bound(found: Evidence) -> tuple[str, ...]:
    """Say how sure a threshold is that few labels fitted, and what the prior does to it."""
    bound = found.pairs.facts.threshold.bound
    if bound is None:
        return ()
    text = str(bound)
    return (f"{text[0].upper()}{text[1:]}.",)


def _band(found: Evidence) -> str:
    """Say how near to the threshold a strategy that has a band looked for pairs."""
    if found.pairs.facts.boundary is None:
        return ""
    band = found.task.selection.band
    if band == 1:
        return "Pairs were looked for among all ads (selection.band is 1)."
    return (
        f"Pairs were looked for among the ads nearest to the threshold: {100 * band:g}% of those called "
        f"{found.names['positive']} and as many of the others (selection.band), or more where "
        "these would be too few to choose from."
    )


def _nearness(found: Evidence) -> str:
    """Say how near to the threshold the items lie that were not drawn at random."""
    sample = found.sample
    assert sample is not None
    chosen = [item for item, drawn in zip(found.items, found.explored, strict=True) if not drawn]
    margins = (np.arange(calibration.N_BINS) - calibration.N_BINS // 2) * calibration.MARGIN_STEP
    parts = []
    for label in LABELS:
        called = sample.positives if label == "positive" else sample.ads - sample.positives
        ends = sorted(
            (ad.margin, ad.probability) for item in chosen for ad in item.ads if ad.label == label
        )
        if not ends:
            continue
        if label == "positive":
            near = (margins >= sample.threshold) & (margins <= ends[-1][0])
        else:
            near = (margins < sample.threshold) & (margins >= ends[0][0])
        parts.append(
            f"those called {found.names[label]} score p = {ends[0][1]:.4g} to {ends[-1][1]:.4g} "
            f"({sample.histogram[near].sum():,} of all {called:,} are that near to the threshold)"
        )
    if not parts:
        return ""
    noun, where = found.noun(), " there" if found.pairs.facts.boundary else ""
    apart = len(chosen) < len(found.items)
    limits = f" The {noun} drawn at random keep to no such limit." if apart else ""
    return f"In the {len(chosen):,} {found.noun(len(chosen))} chosen{where}, {' and '.join(parts)}.{limits}"
