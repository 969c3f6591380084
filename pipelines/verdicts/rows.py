"""A row of a verdict file, as every reader gives it, and what its cells mean.

A *reader* turns a file's bytes into :class:`RawVerdict` rows, one an ad, as the file says it:
``pipelines.verdicts.tables`` reads CSV and JSON lines, labeling tools have readers of their own in
``pipelines.tools``. Which ad a row is about and what its label means, ``resolve_rows`` finds out.
"""

from __future__ import annotations

import datetime
import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.contracts import SKIP_WORDS, Rejected
from pipelines.errors import RunFailed
from pipelines.sources.decoding import Encoding, decoded
from pipelines.text import normalize_text, storable
from pipelines.verdicts.spreadsheet import unprotected

# What dead letters of an import call the step that refused a row.
STAGE = "ReadVerdicts"
POSITIVE, NEGATIVE, SKIP = "positive", "negative", "skip"
MAX_FILE_BYTES = 256 << 20
MAX_COMMENT_CHARS = 10_000
MAX_EXPERT_CHARS = 100
MAX_LABEL_CHARS = 100
_EXCERPT_CHARS = 200


@dataclass(frozen=True, slots=True)
class RawVerdict:
    """One row of a verdict file, about one ad, as the file says it.

    Attributes:
        ad_id: the ad's id, "" when the row names a side of a review item instead.
        item_id: the review item, or "".
        side: ``left``, ``right``, or "" when the row does not say or the item is one ad.
        text: the ad's text as the file repeats it, or "".
        label: what was chosen: a label's name or ``skip``; "" when nothing was said.
        expert: who said it, "" when the row does not say.
        time: as written, or "".
        comment: as written, or "".
        source: the file.
        position: where in the file, e.g. ``line 12``.
    """

    ad_id: str
    item_id: str
    side: str
    text: str
    label: str
    expert: str
    time: str
    comment: str
    source: str
    position: str

    def refuse(self, reason: str, detail: str) -> Rejected:
        """Return the dead letter for this row."""
        shown = (self.item_id, self.side, self.ad_id, self.label, self.expert)
        excerpt = " | ".join(part for part in shown if part)
        return dead_letter(reason, detail, self.source, self.position, excerpt, self.ad_id)


# What a reader gives.
RawRows = Iterable[RawVerdict | Rejected]


@dataclass(frozen=True, slots=True)
class LabelNames:
    """What the task calls its two labels."""

    positive: str
    negative: str

    def __post_init__(self) -> None:
        if normalize_text(self.positive) == normalize_text(self.negative):
            raise RunFailed(
                f"the task's labels {self.positive!r} and {self.negative!r} differ only in case or "
                "spacing, so verdicts cannot be told apart; give them two names and mine again"
            )

    def read(self, label: str) -> str | None:
        """Return ``positive``, ``negative`` or ``skip``, or None for anything else.

        The task's own names come first: it may call a label ``unsure``.
        """
        if len(label) > MAX_LABEL_CHARS:
            return None
        word = normalize_text(unprotected(label))
        for name, meaning in (
            (self.positive, POSITIVE),
            (self.negative, NEGATIVE),
            (POSITIVE, POSITIVE),
            (NEGATIVE, NEGATIVE),
        ):
            if word == normalize_text(name):
                return meaning
        return SKIP if word in SKIP_WORDS else None


def decode(data: bytes, source: str) -> str:
    """Return a file's text, as :func:`pipelines.sources.decoding.decoded` reads it.

    Raises:
        RunFailed: empty, too large, or no text.
    """
    return decode_as(data, source)[0]


def decode_as(data: bytes, source: str) -> tuple[str, Encoding]:
    """Return a file's text and how it was written; raises as :func:`decode` does."""
    if len(data) > MAX_FILE_BYTES:
        raise RunFailed(
            f"{source}: {len(data):,} bytes, at most {MAX_FILE_BYTES:,}; import it in parts"
        )
    try:
        text, encoding = decoded(data, MAX_FILE_BYTES)
    except ValueError as error:
        raise RunFailed(f"{source}: {error}") from error
    if not text.strip():
        raise RunFailed(f"{source}: the file is empty")
    return text, encoding


def dead_letter(
    reason: str, detail: str, source: str, position: str, excerpt: str, id: str = ""
) -> Rejected:
    """Return the dead letter for a row of a verdict file; what is long is cut."""
    return Rejected(
        id=storable(id[:_EXCERPT_CHARS]),
        stage=STAGE,
        reason=reason,
        detail=storable(detail),
        source=storable(source),
        position=position,
        excerpt=storable(excerpt[:_EXCERPT_CHARS]),
        records=1,
    )


def normalize_expert(name: str) -> str:
    """Fold an expert's name, so that one person is one string; "" when nothing is left.

    Unicode NFKC, case folding, white space folded, control and format characters removed.
    """
    folded = normalize_text(unprotected(name))
    # What folding leaves may hide two people behind one look, or hold half a surrogate pair.
    visible = "".join(c for c in folded if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return normalize_text(visible)


def parse_time(text: str) -> str:
    """Return a time as UTC in ISO 8601 to the second; "" for "".

    Args:
        text: ISO 8601, taken for UTC where it names no offset, or Unix seconds (10 digits) or
            milliseconds (13 digits).

    Raises:
        ValueError: it is none of these, or not between 2000 and 2100.
    """
    if not text:
        return ""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if 1e12 <= number < 1e13:
        number /= 1000
    moment: datetime.datetime | None
    try:
        if 1e8 <= number < 1e10:
            moment = datetime.datetime.fromtimestamp(number, datetime.UTC)
        else:
            moment = datetime.datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=datetime.UTC)
            moment = moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or not 2000 <= moment.year < 2100:
        raise ValueError(
            f"{text[:40]!r} is no time between 2000 and 2100; write 2026-11-22T14:05:00Z, or Unix "
            "seconds"
        )
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def cut_comment(comment: str) -> str:
    """Return a comment of at most ``MAX_COMMENT_CHARS`` characters and a note where it was cut."""
    comment = storable(unprotected(comment.strip()))
    if len(comment) <= MAX_COMMENT_CHARS:
        return comment
    return f"{comment[:MAX_COMMENT_CHARS]} [cut: {len(comment):,} characters]"
