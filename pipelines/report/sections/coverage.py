"""Coverage against budget."""

from __future__ import annotations

from pipelines.report.data import Evidence
from pipelines.report.html import Section, section
from pipelines.report.pictures.coverage import coverage_curve


def coverage(found: Evidence) -> Section:
    """Return how much the first pairs cover; only of a strategy that counts it."""
    if found.pairs.facts.boundary is None or not found.items:
        return section("coverage", found=found)
    shares = [item.overlap.cumulative_share for item in found.items if item.overlap]
    explored = len(found.items) - len(shares)
    half = next((i for i, share in enumerate(shares, 1) if share >= shares[-1] / 2), 0)
    png = coverage_curve(shares, explored, found.task.selection.budget)
    return section("coverage", {"coverage": png}, found=found, half=half, explored=explored)
