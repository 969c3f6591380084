"""The first of what experts are asked about, as text."""

from __future__ import annotations

from pipelines.report.data import Evidence
from pipelines.report.html import Section, section

TOP_ITEMS = 10
# Of an ad so much is shown; what else it says stands in items.jsonl.
AD_CHARS = 700


def top_items(found: Evidence) -> Section:
    """Return the first items in review order, with the model's labels."""
    return section("top", found=found, items=found.items[:TOP_ITEMS], ad_chars=AD_CHARS)
