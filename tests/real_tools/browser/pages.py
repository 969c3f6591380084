"""What the tests of the review page share: batches, and the importer's side of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.text import content_key
from pipelines.tools import page
from pipelines.tools.batch import Batch, PairToReview, Side
from pipelines.verdicts.resolve_rows import Reading, Resolved, resolve
from pipelines.verdicts.rows import LabelNames
from pipelines.verdicts.shown import Shown, ShownAd


def batch_of(texts: Sequence[str], predicted: bool = False, **changes: Any) -> Batch:
    """Return a batch of the texts, two a pair."""
    assert len(texts) % 2 == 0
    sides = [
        Side(f"ad-{i}", text, "bait" if predicted else "", 0.875 if predicted else None)
        for i, text in enumerate(texts)
    ]
    pairs = [
        PairToReview(f"pair_{i // 2}", sides[i], sides[i + 1]) for i in range(0, len(sides), 2)
    ]
    settings: dict[str, Any] = {
        "task": "tiny",
        "task_version": 1,
        "round": 1,
        "policy": "Bait promises what nobody can promise.",
        "positive": "bait",
        "negative": "fine",
        "experts_per_ad": 2,
        "model_id": "fake",
        "pairs": tuple(pairs),
    }
    return Batch(**{**settings, **changes})


def reading_of(batch: Batch) -> Reading:
    """Return what the importer knows of a batch that was shown."""
    labels = LabelNames(batch.positive, batch.negative)
    showings = (
        ShownAd(content_key(ad.text), ad.id, ad.text, pair.pair_id, side, 1, 1, True, labels)
        for pair in batch.pairs
        for side, ad in pair.sides()
    )
    return Reading(Shown.of(showings))


def imported(data: bytes, batch: Batch) -> Resolved:
    """Return what the importer makes of a file that the page saved."""
    return resolve(page.read(data, "verdicts.json"), reading_of(batch))
