"""The first of what experts are asked about, as text."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.console.visible import visible
from pipelines.contracts import ReviewAd, ReviewItem
from pipelines.report.data import Evidence
from pipelines.report.html import Section, ShownAd, ShownItem, word

TOP_ITEMS = 10
# Of an ad so much is shown; what else it says stands in items.jsonl.
AD_CHARS = 700


def top_items(found: Evidence) -> Section:
    """Return the first items in review order, with the model's labels."""
    items, noun = found.items, found.noun()
    id, title, shown = "top", f"The first {noun}", items[:TOP_ITEMS]
    if not shown:
        return Section(id, title, missing=f"No {found.noun(1)} was chosen in this round.")
    return Section(
        id,
        title,
        items=tuple(_shown_item(item, found.names) for item in shown),
        paragraphs=(
            f"The first {len(shown)} of {len(items):,} {noun} in review order, with the model's "
            "labels: not for experts who still have to label them. Characters that would be "
            f"invisible are shown as marks; of a long ad the first {AD_CHARS} characters.",
        ),
    )


def _shown_item(item: ReviewItem, names: Mapping[str, str]) -> ShownItem:
    about = [] if item.distance is None else [f"distance {item.distance:.3f}"]
    if item.overlap:
        covers, so_far = item.overlap.covered_share, item.overlap.cumulative_share
        about.append(f"covers {covers:.2%} of the corpus, {so_far:.1%} so far")
    else:
        about.append(word(item.source))
    if item.propensity is not None:
        about.append(f"drawn with probability {item.propensity:.3g}")
    mutual = "; each is the other's nearest" if item.overlap and item.overlap.mutual else ""
    # The model's positive first, wherever the review page has it.
    ads = sorted(item.ads, key=lambda ad: ad.label != "positive")
    return ShownItem(
        f"{item.rank}. {word(item.item_id)}",
        ", ".join(about) + mutual,
        tuple(_shown_ad(ad, names) for ad in ads),
    )


def _shown_ad(ad: ReviewAd, names: Mapping[str, str]) -> ShownAd:
    title = f"called {names[ad.label]}, p = {ad.probability:.3f}, id {word(ad.id)}"
    if ad.copies > 1:
        title += f", {ad.copies:,} copies"
    fields = tuple((word(name), visible(text, AD_CHARS)) for name, text in ad.fields)
    return ShownAd(ad.label, title, visible(ad.text, AD_CHARS), fields)
