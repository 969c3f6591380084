"""The ads on a plane: all of them, the clusters that overlap, and those that experts are asked about."""

from __future__ import annotations

import numpy as np

from pipelines.report.data import LABELS, Evidence, Sample
from pipelines.report.html import Section, drawn, word
from pipelines.report.pictures import maps
from pipelines.report.pictures.canvas import Names, drawable

# More maps than this are too small to see anything on.
OUTLINED = 6


def drawn_names(found: Evidence) -> Names:
    """Return the label names as the pictures show them."""
    labels = found.task.labels.model_dump()
    return Names(*(drawable(labels[label], label) for label in LABELS))


def all_ads(found: Evidence) -> Section:
    """Return the map of the scored ads by predicted label."""
    id, title, sample, names = "map", "Map of the scored ads", found.sample, found.names
    if sample is None:
        return Section(id, title, missing=found.why_no_sample)
    called = (
        f"{sample.positives:,} ({sample.positives / sample.ads:.1%}) of the {sample.ads:,} ads are "
        f"called {names['positive']}"
    )
    return drawn(
        id,
        title,
        maps.ad_map(sample.points, sample.positive, drawn_names(found)),
        f"Scatter plot, {sample.extent}: {called} (orange triangles), the others "
        f"{names['negative']} (blue circles).",
        f"Each point is an ad, {sample.extent}: blue circles are called {names['negative']}, orange "
        f"triangles {names['positive']}; {called}. Where the two mix, near ads got different labels.",
        _naming(found),
        _explained(sample),
    )


def clusters(found: Evidence) -> Section:
    """Return the maps of the clusters that mix most; only of a round that has clusters."""
    id, title, sample, names = "clusters", "Clusters that overlap", found.sample, found.names
    if found.pairs.facts.boundary is None:
        strategy = word(found.task.selection.strategy)
        missing = f"The strategy of this round, {strategy}, looks for no clusters."
        return Section(id, title, missing=missing)
    if sample is None or found.clusters is None:
        return Section(id, title, missing=found.why_no_sample)
    facts, shown = found.clusters.facts, sample.overlaps[:OUTLINED]
    listed = "; ".join(
        f"{place}: {names['positive']} {p} and {names['negative']} {n}"
        for place, (p, n) in enumerate(shown, start=1)
    )
    return drawn(
        id,
        title,
        maps.cluster_map(sample.points, sample.positive, sample.cluster, shown, drawn_names(found)),
        f"The map once for each of the {len(shown)} highest ranked overlaps, its clusters outlined, of "
        f"{len(sample.overlaps):,} that pairs were looked for in. {listed}.",
        f"Of {facts.positive_clusters:,} clusters of {names['positive']} ads and "
        f"{facts.negative_clusters:,} of {names['negative']} ones, {len(sample.overlaps):,} cluster "
        f"pairs of opposite labels mix enough to look for pairs in. The {len(shown)} that mix most are "
        f"outlined and numbered by rank, each on a map of its own: {names['positive']} in full orange "
        f"lines, {names['negative']} in dashed blue ones, each about two thirds of its ads. "
        f"Clusters by their numbers in overlaps.jsonl: {listed}.",
    )


def chosen(found: Evidence) -> Section:
    """Return the map of what experts are asked about."""
    sample, names, items = found.sample, found.names, found.items
    noun = found.noun()
    id, title = "pairs", f"The chosen {noun} on the map"
    if sample is None:
        return Section(id, title, missing=found.why_no_sample)
    explored = np.array(found.explored, dtype=bool)
    distances = [item.distance for item in items if item.distance is not None]
    middle = f"; their median distance is {np.median(distances):.3f}" if distances else ""
    n_joined = sum(len(item.ads) > 1 for item in items)
    lines = " as lines between their two ads" if n_joined else ""
    marks = f"{names['positive']} (triangle) and {names['negative']} (circle)"
    joined = (
        f"Each line joins the two ads of a pair, called {marks}: "
        if n_joined
        else f"Marked are the chosen ads, called {marks}: "
    )
    return drawn(
        id,
        title,
        maps.item_map(sample.points, sample.positive, sample.items, explored, drawn_names(found)),
        f"The map in grey with {len(items):,} {noun}{lines}, {explored.sum():,} of them drawn at "
        f"random{middle}.",
        f"{joined}{len(items):,} {noun}, {explored.sum():,} of them drawn at random"
        f"{' (dotted)' if n_joined else ''}{middle}{' (unit vectors, 0 to 2)' if middle else ''}. "
        f"Grey: the other ads, {sample.extent}."
        + (" A line that is long here may be short in all dimensions." if n_joined else ""),
    )


def _explained(sample: Sample) -> str:
    if sample.explained is None:
        return (
            "The plane is UMAP's: neighbours mostly stay neighbours, distances between groups and "
            "their sizes mean nothing."
        )
    return (
        f"The plane is spanned by the vectors' two main directions (PCA), which hold "
        f"{sample.explained:.0%} of their variance: ads that are far apart here differ, ads that are "
        "near here need not be alike."
    )


def _naming(found: Evidence) -> str:
    names, pictured = found.names, drawn_names(found)
    changed = [
        f"{label} stands for {names[label]}"
        for label, shown in zip(LABELS, (pictured.positive, pictured.negative), strict=True)
        if shown == label and names[label] != label
    ]
    if not changed:
        return ""
    return f"The pictures' font cannot draw a label's name: in them {' and '.join(changed)}."
