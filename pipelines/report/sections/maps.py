"""The ads on a plane: all of them with what they are about, and those that experts are asked about."""

from __future__ import annotations

from string import ascii_uppercase

import numpy as np

from pipelines.report.data import LABELS, Evidence
from pipelines.report.html import Section, section
from pipelines.report.pictures import maps
from pipelines.report.pictures.canvas import Names, drawable
from pipelines.report.sample import Area, Sample

# Of a theme a map has room for so many words.
_DRAWN_WORDS = 3


def drawn_names(found: Evidence) -> Names:
    """Return the label names as the pictures show them."""
    labels = found.task.labels.model_dump()
    return Names(*(drawable(labels[label], label) for label in LABELS))


def close_boxes(sample: Sample) -> list[maps.Box]:
    """Return where on the map the overlaps lie that are shown closely."""
    boxes: list[maps.Box] = []
    for found in sample.close:
        members, pairs = sample.members(found), sample.pairs(found)
        boxes.append(maps.close_box(sample.points, members, pairs, boxes))
    return boxes


def all_ads(found: Evidence) -> Section:
    """Return the map of the scored ads by predicted label, its parts named by what they are about."""
    sample, pictured = found.sample, drawn_names(found)
    if sample is None:
        return section("map", found=found)
    shown = zip(LABELS, (pictured.positive, pictured.negative), strict=True)
    undrawable = [label for label, name in shown if name == label != found.names[label]]
    labels, lettered = _labels(sample.areas)
    boxes = close_boxes(sample)
    png = maps.ad_map(sample.points, sample.positive, pictured, labels, boxes)
    return section(
        "map",
        {"map": png},
        found=found,
        undrawable=undrawable,
        lettered=lettered,
        labels=labels,
    )


def _labels(areas: tuple[Area, ...]) -> tuple[list[maps.Label], dict[str, Area]]:
    """Return the areas' names as the map shows them, and those that its font cannot write, by letter."""
    labels, lettered = [], dict[str, Area]()
    for area in areas:
        words = [word for word in area.theme.words if drawable(word, "")]
        if not words and area.theme.words:
            letter = ascii_uppercase[len(lettered)]
            words, lettered[letter] = [letter], area
        if words:
            labels.append(maps.Label(area.x, area.y, tuple(words[:_DRAWN_WORDS])))
    return labels, lettered


def chosen(found: Evidence) -> Section:
    """Return the map of what experts are asked about."""
    sample, items = found.sample, found.items
    if sample is None:
        return section("pairs", found=found)
    explored = np.array(found.explored[: len(sample.items)], dtype=bool)
    distances = [item.distance for item in items if item.distance is not None]
    png = maps.item_map(sample.points, sample.positive, sample.items, explored, drawn_names(found))
    return section(
        "pairs",
        {"pairs": png},
        found=found,
        median=np.median(distances) if distances else None,
        joined=any(len(item.ads) > 1 for item in items),
        apart=maps.apart(sample.points, sample.items),
    )
