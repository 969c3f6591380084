"""Review items from chosen rows: their ids, which ad stands where, and what is told of each ad."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.contracts import ReviewAd, ReviewItem
from pipelines.numerics import calibration, hashing
from pipelines.numerics.weights import from_units


def item_id(keys: tuple[str, ...], guideline: str) -> str:
    """Return an item's id: the same ads have the same id in every run, in whatever order.

    Experts see the id, and may compute it: nothing of the model's labels may be in it. Under another
    guideline it is another id: what is said on an old sheet must not count as said under a new policy.

    Args:
        keys: content keys of the item's ads, one or two.
        guideline: hash of what experts go by (``Task.guideline``).
    """
    named = "\0".join((guideline, *sorted(keys))).encode()
    kind = "pair" if len(keys) == 2 else "item"
    return f"{kind}_{hashlib.blake2b(named, digest_size=8).hexdigest()}"


def as_shown(ads: tuple[ReviewAd, ReviewAd], id: str, seed: int) -> tuple[ReviewAd, ReviewAd]:
    """Return two ads with the one to show on the left first.

    Drawn between the keys in their order, so that whoever knows id, keys and seed can tell which ad is
    on the left, but not what the model calls it.
    """
    low, high = sorted(ads, key=lambda ad: ad.key)
    return (low, high) if hashing.unit_hash(id, seed) < 0.5 else (high, low)


def review_ad(row: Mapping[str, Any], label: str, cluster: int | None) -> ReviewAd:
    """Return a scored row as experts get it.

    Args:
        row: a scored row as Python values; ``weight`` in the corpus's unit, as the item has it
            until :func:`weighed` changes it.
        label: predicted label.
        cluster: cluster within it, or None.
    """
    margin = float(row["margin"])
    fields = row.get("fields")
    return ReviewAd(
        id=row["id"],
        key=row["key"],
        text=row["text"],
        fields=tuple((name, value) for name, value in json.loads(fields)) if fields else (),
        probability=round(float(calibration.probability(margin)), 6),
        margin=margin,
        label=label,
        cluster=cluster,
        copies=row["copies"],
        weight=float(row["weight"]),
        truncated=row["truncated"],
    )


def named_ad(key: str, label: str, cluster: int | None, margin: float = 0.0) -> ReviewAd:
    """Return an ad by its key, without what people see of it: :func:`read` puts that in.

    Args:
        key: content key.
        label: predicted label.
        cluster: cluster within it, or None.
        margin: where the strategy knows it.
    """
    return ReviewAd(
        id="",
        key=key,
        text="",
        fields=(),
        probability=0.0,
        margin=margin,
        label=label,
        cluster=cluster,
        copies=0,
        weight=0.0,
        truncated=False,
    )


def read(items: Iterable[ReviewItem], rows: Mapping[str, Mapping[str, Any]]) -> list[ReviewItem]:
    """Return items of named ads with all that is known of each.

    Args:
        items: of :func:`named_ad`.
        rows: scored rows as Python values, by content key.
    """
    return [
        dataclasses.replace(
            item,
            ads=tuple(review_ad(rows[ad.key], ad.label, ad.cluster) for ad in item.ads),
        )
        for item in items
    ]


def weighed(items: Iterable[ReviewItem], unit: int) -> list[ReviewItem]:
    """Return items with weights as the corpus has them, from items with weights in its unit.

    Args:
        items: as strategies make them.
        unit: power of ten.
    """
    return [
        dataclasses.replace(
            item,
            ads=tuple(
                dataclasses.replace(ad, weight=from_units(ad.weight, unit)) for ad in item.ads
            ),
            overlap=item.overlap
            and dataclasses.replace(
                item.overlap,
                covered_weight=round(from_units(item.overlap.covered_weight, unit), max(-unit, 3)),
            ),
        )
        for item in items
    ]
