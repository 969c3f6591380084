"""The review page: one HTML file that works from disk, and the verdicts that it saves.

``templates/review/`` holds its markup, style and script; the export puts them and the batch into
one file. Ads are hostile input, so they travel as JSON in which no character means anything to HTML,
the script shows them as text only, and a Content-Security-Policy that names the page's own script and
style by their hashes forbids everything else: other scripts, any request, any frame, any form.

The file that experts download is one JSON object::

    field            holds
    ---------------  -------------------------------------------------------------------------
    format           "ad-scout review page verdicts"
    format_version   1
    task             name of the task; beside it task_version, round, part, parts
    batch            hash of all that the page showed, 32 hex characters
    labels           {"positive": name, "negative": name}
    expert           the name, as typed
    saved            when, ISO 8601 in UTC, or "" where the computer's clock is decades off
    rows             an ad each, of a pair the left one first: item_id, side (left, right, or "" for
                     a single ad), ad_id, answer (positive, negative, unsure, skip, or "" while
                     open), time, comment (one an item), key (content key of the text), text (as in
                     the corpus, to the character)

In version 1 all items were pairs, and ``item_id`` was called ``pair_id``.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.console.typed import typed
from pipelines.contracts import LEFT, RIGHT, Rejected, ReviewAd, ReviewItem
from pipelines.errors import RunFailed, UsageError
from pipelines.text import content_key, digest, is_missing, storable
from pipelines.tools.base import Tool
from pipelines.tools.batch import Batch
from pipelines.tools.outgoing import free_word
from pipelines.verdicts.rows import RawVerdict, decode, parse_json

FORMAT, FORMAT_VERSION = "ad-scout review page verdicts", 2
ITEMS_PER_PAGE = 100
TEMPLATES = Path(__file__).resolve().parents[3] / "templates" / "review"

_LABELS = ("positive", "negative")
_SKIPS = ("unsure", "skip")
_UNSURE_WORDS = ("unsure", "cannot tell", "no answer")
_ROW_FIELDS = ("item_id", "side", "ad_id", "answer", "time", "comment", "key", "text")
# Of them, those that may be null once a program went through the file.
_OPTIONAL = ("side", "time", "comment")
# Where the page puts its mark: long before the first ad.
_HEAD_BYTES = 400
_CURE = "import the file that the review page saves with 'Download verdicts'"


class ReviewPage(Tool):
    """The page that this project writes itself: reviewing without any tool."""

    name = "page"
    files = ("review.html", "review-*-of-*.html")

    def export(self, batch: Batch, items_per_page: int = ITEMS_PER_PAGE) -> dict[str, bytes]:
        """Return the review pages of a batch: file name -> one self-contained HTML file.

        The same batch is the same bytes. More items than ``items_per_page`` are spread evenly over
        several pages, in their order.

        Raises:
            UsageError: the batch has no items.
        """
        if items_per_page < 1:
            raise ValueError(f"items_per_page must be at least 1, got {items_per_page}")
        if not batch.items:
            raise UsageError(f"round {batch.round} has no pairs, so there is nothing to review")
        n_items = len(batch.items)
        parts = -(-n_items // items_per_page)
        starts = [n_items * part // parts for part in range(parts + 1)]
        pages = {}
        for part in range(1, parts + 1):
            name = "review.html" if parts == 1 else f"review-{part}-of-{parts}.html"
            shown = batch.items[starts[part - 1] : starts[part]]
            pages[name] = _page(batch, shown, part, parts)
        return pages

    def read(self, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
        """Yield the rows of a file that the review page saved.

        Skipped and unsure are both a skip. A row whose text is not the one that its ``key`` was made
        from is a dead letter; whether the text is that of the ad, the resolver finds out.

        Raises:
            RunFailed: no such file.
        """
        document = _document(data, source)
        labels: Mapping[str, str] = document["labels"]
        # A task may call a label ``skip``.
        word = free_word(("skip", "unsure", "skipped"), *labels.values())
        meanings = {"": "", **labels, **dict.fromkeys(_SKIPS, word)}
        for number, row in enumerate(document["rows"], start=1):
            yield _read_row(row, meanings, document["expert"], source, f"row {number}")

    def recognizes(self, path: str, data: bytes) -> bool:
        """Tell by the mark; of the page itself the reader says what to import instead."""
        return FORMAT.encode() in data[:_HEAD_BYTES] or path.lower().endswith((".html", ".htm"))

    def next_step(self, workspace: str) -> str:
        """Return what to do with the page."""
        return "open the page in a browser (every expert a copy); what it saves goes to " + typed(
            "import FILE...", workspace=workspace
        )


# --- the page ---------------------------------------------------------------------------------


def _page(batch: Batch, items: Sequence[ReviewItem], part: int, parts: int) -> bytes:
    style, script = _template("page.css"), _template("page.js")
    policy = {
        "default-src": "'none'",
        "script-src": _source_hash(script),
        "style-src": _source_hash(style),
        "base-uri": "'none'",
        "form-action": "'none'",
        # Text can become markup or code through a few doors only; browsers that know this lock them.
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    title = f"Review: {batch.task}, round {batch.round}"
    if parts > 1:
        title += f", part {part} of {parts}"
    return _filled(
        _template("page.html"),
        {
            "csp": html.escape("; ".join(f"{name} {value}" for name, value in policy.items())),
            "title": html.escape(title),
            "style": style,
            "script": script,
            "data": _harmless_json(_page_data(batch, items, part, parts)),
        },
    ).encode()


def _page_data(batch: Batch, items: Sequence[ReviewItem], part: int, parts: int) -> dict[str, Any]:
    shown = {
        "task": batch.task,
        "task_version": batch.task_version,
        "round": batch.round,
        "part": part,
        "parts": parts,
        "policy": batch.policy,
        "labels": {"positive": batch.positive, "negative": batch.negative},
        # A task may call a label of its own ``unsure``.
        "unsure": free_word(_UNSURE_WORDS, batch.positive, batch.negative),
        "items": [
            {
                "id": item.item_id,
                "ads": [{"side": side, **_ad(batch, ad)} for side, ad in item.sides()],
            }
            for item in items
        ],
    }
    # What the browser keeps is filed under this hash: another batch never meets these answers.
    return {**shown, "batch": digest(json.dumps(shown, sort_keys=True))}


def _ad(batch: Batch, ad: ReviewAd) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": ad.id, "key": content_key(ad.text), "text": ad.text}
    if ad.fields:
        shown["fields"] = ad.fields
    if told := batch.prediction(ad):
        shown["model"] = {"label": told.label, "probability": told.score}
    return shown


def _harmless_json(value: Any) -> str:
    """Return JSON in ASCII, in which no character can end or open anything in HTML."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _filled(template: str, parts: Mapping[str, str]) -> str:
    # In one go: what is put in is not searched again, so an ad with braces is only an ad.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# --- its verdicts -----------------------------------------------------------------------------


def _document(data: bytes, source: str) -> dict[str, Any]:
    """Return a verdict file's content, its head checked."""
    text = decode(data, source)
    if text.lstrip().startswith("<"):
        raise RunFailed(f"{source}: is a web page, not the verdicts of one; open it and {_CURE}")
    try:
        document = parse_json(text)
    except ValueError as error:
        raise RunFailed(
            f"{source}: is not JSON, or not all of it is there ({storable(str(error))}); {_CURE}"
        ) from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        shown = f"format {found!r}" if found is not None else f"a {type(document).__name__}"
        raise RunFailed(
            f"{source}: holds no verdicts of the review page, found {storable(shown[:60])}; {_CURE}"
        )
    version = document.get("format_version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise RunFailed(
            f"{source}: is of format version {storable(repr(version)[:40])}, this scout reads 1 to "
            f"{FORMAT_VERSION}; import it with the version of scout that exported the page"
        )
    labels = document.get("labels")
    for what, good in (
        ("labels must name positive and negative", _are_labels(labels)),
        ("expert must be text", isinstance(document.get("expert"), str)),
        ("rows must be a list", isinstance(document.get("rows"), list)),
    ):
        if not good:
            raise RunFailed(f"{source}: was changed after it was saved: {what}; {_CURE}")
    document["labels"] = {name: labels[name] for name in _LABELS}
    return document


def _are_labels(labels: object) -> bool:
    return isinstance(labels, dict) and all(
        isinstance(labels.get(name), str) and labels[name].strip() for name in _LABELS
    )


def _read_row(
    row: object, meanings: Mapping[str, str], expert: str, source: str, position: str
) -> RawVerdict | Rejected:
    fields = row if isinstance(row, dict) else {}
    if "item_id" not in fields and "pair_id" in fields:
        fields = {**fields, "item_id": fields["pair_id"]}
    fields = {**fields, **{name: "" for name in _OPTIONAL if fields.get(name, "") is None}}
    texts = {
        name: value if isinstance(value := fields.get(name), str) else "" for name in _ROW_FIELDS
    }
    raw = RawVerdict(
        ad_id=texts["ad_id"],
        item_id=texts["item_id"],
        side="" if is_missing(texts["side"]) else texts["side"],
        text=texts["text"],
        label=meanings.get(texts["answer"], ""),
        expert=expert,
        time=texts["time"],
        comment=texts["comment"],
        source=source,
        position=position,
    )
    wrong = [name for name in _ROW_FIELDS if not isinstance(fields.get(name), str)]
    if wrong:
        detail = f"expected a row of text fields, without text: {', '.join(wrong)}"
        return raw.refuse("not_readable_row", detail)
    if raw.side not in (LEFT, RIGHT, ""):
        detail = f"side must be {LEFT} or {RIGHT}, found {raw.side[:40]!r}"
        return raw.refuse("not_readable_row", detail)
    if texts["answer"] not in meanings:
        detail = (
            f"answer must be positive, negative, unsure or skip, found {texts['answer'][:40]!r}"
        )
        return raw.refuse("unknown_label", detail)
    if content_key(raw.text) != texts["key"]:
        detail = (
            f"the row's text {raw.text.strip()[:40]!r} does not belong to its key "
            f"{texts['key'][:40]!r}: the file was edited after it was saved"
        )
        return raw.refuse("text_mismatch", detail)
    return raw
