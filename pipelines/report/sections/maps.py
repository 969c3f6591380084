"""The ads on a plane: all of them, the clusters that overlap, and those that experts are asked about."""

from __future__ import annotations

import numpy as np

from pipelines.report.data import LABELS, Evidence
from pipelines.report.html import Section, section
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
    sample, pictured = found.sample, drawn_names(found)
    if sample is None:
        return section("map", found=found)
    shown = zip(LABELS, (pictured.positive, pictured.negative), strict=True)
    undrawable = [label for label, name in shown if name == label != found.names[label]]
    png = maps.ad_map(sample.points, sample.positive, pictured)
    return section("map", {"map": png}, found=found, undrawable=undrawable)


def clusters(found: Evidence) -> Section:
    """Return the maps of the clusters that mix most; only of a round that has clusters."""
    sample = found.sample
    if found.pairs.facts.boundary is None or sample is None or found.clusters is None:
        return section("clusters", found=found)
    shown = sample.overlaps[:OUTLINED]
    png = maps.cluster_map(
        sample.points, sample.positive, sample.cluster, shown, drawn_names(found)
    )
    return section("clusters", {"clusters": png}, found=found, shown=shown)


def chosen(found: Evidence) -> Section:
    """Return the map of what experts are asked about."""
    sample, items = found.sample, found.items
    if sample is None:
        return section("pairs", found=found)
    explored = np.array(found.explored, dtype=bool)
    distances = [item.distance for item in items if item.distance is not None]
    return section(
        "pairs",
        {
            "pairs": maps.item_map(
                sample.points, sample.positive, sample.items, explored, drawn_names(found)
            )
        },
        found=found,
        median=np.median(distances) if distances else None,
        joined=any(len(item.ads) > 1 for item in items),
    )
