"""What the tests of the review page share: batches, and the importer's side of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.tools.batch import Batch
from pipelines.tools.page.format import ReviewPage
from pipelines.verdicts.resolve_rows import Reading, Resolved, resolve
from tests import tools


def batch_of(texts: Sequence[str], predicted: bool = False, **changes: Any) -> Batch:
    """Return a batch of the texts, two an item unless told otherwise."""
    settings = {
        "task_version": 1,
        "policy": "Bait promises what nobody can promise.",
        "model_id": "fake",
    }
    ads = [(f"ad-{i}", text) for i, text in enumerate(texts)]
    return tools.batch_of(ads, shown=predicted, **{**settings, **changes})


def imported(data: bytes, batch: Batch) -> Resolved:
    """Return what the importer makes of a file that the page saved."""
    rows = ReviewPage().read(data, "verdicts.json")
    return resolve(rows, Reading(tools.shown_of(batch)))
