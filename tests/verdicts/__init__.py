"""What the tests of verdicts share: rounds as mining leaves them, and verdicts on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.contracts import ReviewAd, ReviewItem, Verdict
from pipelines.store.workspace import Workspace
from pipelines.text import content_key
from tests import helpers

DEFINITION = {
    "seed": 3,
    "labels": {"positive": "bait", "negative": "fine"},
    "review": {"evaluation_share": 0.5},
}


def item_of(id: str, *ads: tuple[str, str], positive: str = "left") -> ReviewItem:
    """Return a review item; ads are (ad id, text), of a pair the left one first."""
    labels = ("positive", "negative") if positive == "left" else ("negative", "positive")
    shown = tuple(
        ReviewAd(ad_id, content_key(text), text, (), 0.5, 0.0, label, None, 1, 1.0, False)
        for (ad_id, text), label in zip(ads, labels, strict=False)
    )
    return ReviewItem(item_id=id, rank=1, source="boundary", ads=shown)


def mined(
    root: Path, items: Sequence[ReviewItem], number: int = 1, version: int = 1, **definition: Any
) -> Workspace:
    """Add a mined round to a workspace, as WriteReview leaves it."""
    return helpers.commit_items(
        root, items, number, **{"version": version, **DEFINITION, **definition}
    )


def verdict(key: str, expert: str, label: str, time: str = "") -> Verdict:
    return Verdict(key, f"id-{key}", "p", label, expert, time, "", "f", "line 2")
