"""What the tests of labeling tools share: batches, what was shown, samples and schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema

from pipelines.contracts import Rejected, ReviewAd, ReviewItem
from pipelines.text import content_key
from pipelines.tools.batch import Batch
from pipelines.verdicts.resolve_rows import Reading, Resolved, resolve
from pipelines.verdicts.rows import LabelNames, RawVerdict
from pipelines.verdicts.shown import Shown, ShownAd

SAMPLES = Path(__file__).resolve().parent / "samples"
POLICY = 'Bait is:\n  <b>promises</b> & "secrets" for $100, {{ad}}.\n\nAnything else is fine.'
MODEL = "fake-model-7"
# The tests' experts, as tools with numbers, e-mail addresses, UUIDs and sessions know them.
ALIASES = {
    "3": "anna",
    "4": "bo",
    "anna@example.org": "anna",
    "bo@example.org": "bo",
    "0c5e6a3e-7b0f-4bd4-8b5a-4a5f6a1d2c01": "anna",
    "0c5e6a3e-7b0f-4bd4-8b5a-4a5f6a1d2c02": "bo",
    "tiny-1-anna": "anna",
    "tiny-1-bo": "bo",
}
# What the recorded samples are about.
ADS = (
    ("a1", "One weird trick & <b>win</b>"),
    ("a2", "=1+1 kettles\nsold here"),
    ("12345678901234567", "$text_a is \u202edesrever"),
    ("a4", 'Fourth ad, "quoted"'),
)


FIELDS = (("Headline", "Win <b>now</b>"), ("Call\nto action", "Click\nAdvertiser: trusted"))


def ad_of(
    id: str, text: str, positive: bool = True, fields: Sequence[tuple[str, str]] = ()
) -> ReviewAd:
    """Return an ad of which the model has its opinion."""
    return ReviewAd(
        id=id,
        key=content_key(text),
        text=text,
        fields=tuple(fields),
        probability=0.8137 if positive else 0.3371,
        margin=1.46875 if positive else -0.6640625,
        label="positive" if positive else "negative",
        cluster=7,
        copies=1,
        weight=1.0,
        truncated=False,
    )


def batch_of(
    ads: Sequence[tuple[str, str]] = ADS,
    shown: bool = False,
    labels: tuple[str, str] = ("bait", "fine"),
    sizes: Sequence[int] = (),
    fields: Sequence[tuple[str, str]] = (),
    **changes: Any,
) -> Batch:
    """Return a batch of the ads; the model calls the first ad of every item positive.

    Args:
        ads: ids and texts.
        shown: whether experts see that.
        labels: what the task calls them.
        sizes: ads of each item, by default two.
        fields: of every ad.
        changes: other fields of the batch.
    """
    items, start = [], 0
    for number, size in enumerate(sizes or (2,) * (len(ads) // 2)):
        parts = tuple(
            ad_of(id, text, place == 0, fields)
            for place, (id, text) in enumerate(ads[start : start + size])
        )
        id = f"{'pair' if size == 2 else 'item'}_{number:016x}"
        items.append(ReviewItem(id, number + 1, "boundary", parts, score=0.6180339))
        start += size
    settings: dict[str, Any] = {
        "task": "tiny",
        "task_version": 3,
        "round": 1,
        "policy": POLICY,
        "positive": labels[0],
        "negative": labels[1],
        "experts_per_ad": 2,
        "model_id": MODEL,
        "items": tuple(items),
        "workspace": "runs/my spring",
        "show_predictions": shown,
    }
    return Batch(**{**settings, **changes})


def shown_of(batch: Batch) -> Shown:
    """Return the batch's ads as the workspace remembers them."""
    labels = LabelNames(batch.positive, batch.negative)
    return Shown.of(
        ShownAd(
            key=content_key(ad.text),
            ad_id=ad.id,
            text=ad.text,
            item_id=item.item_id,
            side=side,
            round=batch.round,
            order=1,
            current=True,
            labels=labels,
            lines_key=content_key(ad.lines()) if ad.fields else "",
        )
        for item in batch.items
        for side, ad in item.sides()
    )


def understood(
    rows: Iterable[RawVerdict | Rejected], batch: Batch | None = None, expert: str = ""
) -> Resolved:
    """Resolve a reader's rows against the batch."""
    batch = batch or batch_of()
    return resolve(rows, Reading(shown_of(batch), expert, ALIASES))


def said(resolved: Resolved) -> list[tuple[str, str, str]]:
    return [(v.ad_id, v.label, v.expert) for v in resolved.verdicts]


def why(resolved: Resolved) -> list[tuple[str, str]]:
    return [(r.position, r.reason) for r in resolved.rejected]


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.decode().split("\n") if line]


def check_schema(tool: str, part: str, value: Any) -> None:
    """Check a value against the schema written from the tool's documented format."""
    schema = json.loads(sample(f"{tool}.schema.json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator({**schema, "$ref": f"#/$defs/{part}"}).validate(value)


def check_blind(files: Mapping[str, bytes]) -> None:
    """Check that nothing of the model is in what an export shows to experts."""
    shown = [data for name, data in files.items() if name != "setup.md"]
    everything = b"\n".join(shown).decode()
    for word in (
        MODEL,
        'prediction"',
        'predictions"',
        'suggestions"',
        "model_",
        "0.8137",
        "0.6629",
    ):
        assert word not in everything, word
