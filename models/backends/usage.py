"""What services were asked for, and gave, in this process: counted where it happens, drained by whoever reports.

Beam's counters are not for `models`; the handler there drains these into them, block by block.
"""

from __future__ import annotations

import threading
from collections import Counter

# Requests that were sent; sent again after none or a useless answer; answers that were known already;
# tokens that were read and written, as the service counts them.
ASKED, ASKED_AGAIN, REMEMBERED = "asked", "asked_again", "remembered"
TOKENS_IN, TOKENS_OUT = "tokens_in", "tokens_out"
NAMES = (ASKED, ASKED_AGAIN, REMEMBERED, TOKENS_IN, TOKENS_OUT)

_lock = threading.Lock()
_counts: Counter[str] = Counter()


def count(name: str, number: int = 1) -> None:
    """Add to one of `NAMES`."""
    with _lock:
        _counts[name] += number


def drain() -> dict[str, int]:
    """Return what was counted since the last call, without zeros."""
    with _lock:
        found = {name: number for name, number in _counts.items() if number}
        _counts.clear()
    return found
