"""What the files that go out to several labeling tools have in common.

Tools take the ads as they are, but for one character: NUL, which PostgreSQL (behind Label Studio,
Argilla and doccano) and verdict files refuse. It travels as U+FFFD.
"""

from __future__ import annotations

import json
import re
import shlex
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.contracts import LEFT, RIGHT, ReviewAd, ReviewItem
from pipelines.tools.batch import Batch
from pipelines.verdicts.names import fold_name
from pipelines.verdicts.rows import SKIP

TEMPLATES = Path(__file__).resolve().parent.parent.parent / "templates" / "labeling"
ITEM = "item_id"
MARK = "\ufffd"
_SKIP_WORDS = (SKIP, "unsure", "n/a", "?")


@dataclass(frozen=True, slots=True)
class Slot:
    """What the fields of an ad are called in a task that shows a whole item.

    Attributes:
        side: of the ad.
        title: what experts call the ad.
        text, id, label: names of its fields.
    """

    side: str
    title: str
    text: str
    id: str
    label: str


PAIR = (
    Slot(LEFT, "Ad A", "text_a", "id_a", "label_a"),
    Slot(RIGHT, "Ad B", "text_b", "id_b", "label_b"),
)
SINGLE = (Slot("", "Ad", "text", "ad_id", "label"),)


def slots_of(batch: Batch) -> tuple[Slot, ...]:
    """Return the slots of a batch whose items show equally many ads."""
    return PAIR if batch.sizes() == {2} else SINGLE


def holdable(text: str) -> str:
    """Return a text as every tool can store it: NUL becomes U+FFFD."""
    return text.replace("\0", MARK)


def to_json(value: Any) -> bytes:
    """Return indented JSON in ASCII, which no reader can take for another encoding."""
    return (json.dumps(value, indent=1) + "\n").encode()


def to_json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Return JSON lines in ASCII: some readers also break lines at U+2028."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def provenance(batch: Batch) -> dict[str, Any]:
    """Return what every task says of where it comes from."""
    return {"task": holdable(batch.task), "version": batch.task_version, "round": batch.round}


def item_fields(item: ReviewItem, slots: tuple[Slot, ...]) -> dict[str, str]:
    """Return an item for a tool that shows it as one task."""
    texts = {slot.text: holdable(ad.lines()) for slot, ad in zip(slots, item.ads, strict=True)}
    ids = {slot.id: holdable(ad.id) for slot, ad in zip(slots, item.ads, strict=True)}
    return {ITEM: item.item_id, **texts, **ids}


def ad_fields(item: ReviewItem, side: str, ad: ReviewAd) -> dict[str, str]:
    """Return one ad of an item for a tool that shows one text a task."""
    text, id = holdable(ad.lines()), holdable(ad.id)
    return {"text": text, ITEM: item.item_id, "side": side, "ad_id": id}


def model_fields(batch: Batch, ad: ReviewAd) -> dict[str, Any]:
    """Return what the model says of an ad, for a tool that shows metadata; {} when blind."""
    told = batch.prediction(ad)
    return {"model_label": holdable(told.label), "model_score": told.score} if told else {}


def label_words(batch: Batch) -> tuple[str, str, str]:
    """Return what experts choose from: the labels' names and a word for "cannot tell".

    A task may call a label ``skip``; the word is then another one that the reader knows.
    """
    word = free_word(_SKIP_WORDS, batch.positive, batch.negative)
    return holdable(batch.positive), holdable(batch.negative), word


def free_word(words: Sequence[str], *labels: str) -> str:
    """Return the first of some words that is none of two labels; there must be three."""
    taken = set(map(fold_name, labels))
    return next(word for word in words if word not in taken)


def filled(name: str, batch: Batch, quote: Callable[[str], str] = holdable) -> bytes:
    """Return a template of ``templates/labeling`` with the task's words in it.

    What stands in ``[[pair:…]]`` or ``[[single:…]]`` is kept where the batch has such items.

    Args:
        name: its file name.
        batch: the batch.
        quote: applied to every word. In Markdown the policy is a quotation besides.
    """
    positive, negative, skip = label_words(batch)
    words = {
        "task": batch.task,
        "version": str(batch.task_version),
        "round": str(batch.round),
        "items": batch.counted(len(batch.items)),
        "experts": str(batch.experts_per_ad),
        "positive": positive,
        "negative": negative,
        "skip": skip,
        "workspace": shlex.quote(batch.workspace),
    }
    kept = {size for size, number in (("pair", 2), ("single", 1)) if number in batch.sizes()}
    text = re.sub(
        r"\[\[(pair|single):(.*?)\]\]",
        lambda found: found[2] if found[1] in kept else "",
        (TEMPLATES / name).read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    policy = holdable(batch.policy).strip()
    if name.endswith(".md"):
        policy = "\n".join(f"> {line}" for line in policy.splitlines())
    # Substituted in one pass: a dollar sign in a policy stays one.
    return (
        string.Template(text)
        .substitute({word: quote(value) for word, value in words.items()}, policy=quote(policy))
        .encode()
    )
