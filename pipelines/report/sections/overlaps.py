"""Where the model is confused: the clusters of opposite labels that mix most, and what they are about."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.contracts import ReviewItem
from pipelines.report.data import Evidence
from pipelines.report.html import Section, section
from pipelines.report.pictures import maps
from pipelines.report.sample import Overlap
from pipelines.report.sections.maps import close_boxes, drawn_names

# Of an ad beside others so much is shown.
AD_CHARS = 240
# Pairs of an overlap whose ads are shown.
_SHOWN_PAIRS = 3


@dataclass(frozen=True, slots=True)
class Look:
    """A close look at an overlap.

    Attributes:
        place: its number on the map, from 1.
        overlap: what mixes.
        picture: name of the picture.
        pairs: the first pairs that were chosen from it, with their numbers in the picture.
        outside: numbers of those that reach out of the picture.
    """

    place: int
    overlap: Overlap
    picture: str
    pairs: tuple[tuple[int, ReviewItem], ...]
    outside: tuple[int, ...]


def overlaps(found: Evidence) -> Section:
    """Return the overlaps that mix most, the first of them closely; only of a round with clusters."""
    sample = found.sample
    if found.pairs.facts.boundary is None or sample is None:
        return section("overlaps", found=found)
    looks, pictures = [], {}
    close = zip(sample.close, close_boxes(sample), strict=True)
    for place, (overlap, box) in enumerate(close, start=1):
        rows = sample.pairs(overlap)[:_SHOWN_PAIRS]
        members, name = sample.members(overlap), f"overlap-{place}"
        pictures[name] = maps.close_map(
            sample.points, sample.positive, members, rows, box, drawn_names(found)
        )
        shown = [found.items[item] for item in overlap.items[:_SHOWN_PAIRS]]
        inside = [bool(box.holds(sample.points[list(pair)]).all()) for pair in rows]
        outside = tuple(n for n, held in enumerate(inside, start=1) if not held)
        looks.append(Look(place, overlap, name, tuple(enumerate(shown, start=1)), outside))
    return section("overlaps", pictures, found=found, looks=looks, ad_chars=AD_CHARS)
