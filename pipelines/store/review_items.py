"""Review items as a file: the same items are the same bytes, and what is read is what was written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from pipelines.contracts import ReviewItem
from pipelines.errors import RunFailed


def to_lines(items: Iterable[ReviewItem]) -> bytes:
    """Return items as JSON lines, in their order."""
    lines = (json.dumps(dataclasses.asdict(item), ensure_ascii=False) for item in items)
    return "".join(f"{line}\n" for line in lines).encode()


def from_lines(data: bytes, path: str) -> list[ReviewItem]:
    """Read what :func:`to_lines` wrote.

    Raises:
        RunFailed: a line of ``path`` is no review item.
    """
    items = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            items.append(ReviewItem.from_fields(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunFailed(
                f"{path}: line {number}: not a review item ({type(error).__name__}: {error}); "
                "restore the file, or mine again"
            ) from error
    return items
