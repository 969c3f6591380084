"""Coverage against budget."""

from __future__ import annotations

from pipelines.report.data import Evidence
from pipelines.report.html import Section, drawn, word
from pipelines.report.pictures.coverage import coverage_curve


def coverage(found: Evidence) -> Section:
    """Return how much the first pairs cover; only of a strategy that counts it."""
    id, title, facts = "coverage", "Coverage against budget", found.pairs.facts.boundary
    if facts is None:
        strategy = word(found.task.selection.strategy)
        missing = f"The strategy of this round, {strategy}, does not count what it covers."
        return Section(id, title, missing=missing)
    budget = found.task.selection.budget
    shares = [item.overlap.cumulative_share for item in found.items if item.overlap]
    n_explored = len(found.items) - len(shares)
    if not found.items:
        return Section(
            id,
            title,
            missing="No pair was chosen in this round: no candidate was left, or the budget is 0. "
            "`scout mine` with a higher prior or a larger corpus finds more.",
        )
    half = next((i for i, share in enumerate(shares, 1) if share >= shares[-1] / 2), 0)
    found_text = (
        f"{len(found.items):,} pairs of a budget of {budget:,} cover {facts.covered_share:.1%} of the "
        "corpus's weight"
    )
    return drawn(
        id,
        title,
        coverage_curve(shares, n_explored, budget),
        f"Curve of the corpus weight covered by the first pairs: {found_text}; the first {half:,} cover "
        "half of that.",
        f"{found_text}, the first {half:,} of them half of that. An ad covers those of the same two "
        f"clusters that lie nearer than {facts.cover_radius:.3f}. The {n_explored:,} pairs of "
        "exploration are drawn at random, to measure, not to cover. Where the curve flattens, more "
        "pairs of this round would teach little new.",
    )
