"""A row of a verdict file, as every reader gives it, and what its cells mean.

A *reader* turns a file's bytes into :class:`RawVerdict` rows, one an ad, as the file says it:
``pipelines.verdicts.tables`` reads CSV and JSON lines, labeling tools have readers of their own in
``pipelines.tools``. Which ad a row is about and what its label means, ``resolve_rows`` finds out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.contracts import SKIP_WORDS, Rejected
from pipelines.errors import RunFailed
from pipelines.sources import decoding
from pipelines.sources.decoding import Encoding, decoded
from pipelines.text import is_missing, storable
from pipelines.verdicts.names import fold_name
from pipelines.verdicts.spreadsheet import unprotected

# What dead letters of an import call the step that refused a row.
STAGE = "ReadVerdicts"
POSITIVE, NEGATIVE, SKIP = "positive", "negative", "skip"
MAX_FILE_BYTES = 256 << 20
MAX_COMMENT_CHARS = 10_000
# So many rows of a file that cannot be read, more than can, and it is not what it is taken for.
MAX_UNREADABLE = 1_000
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
        spelled: how the file writes a label that is missing, e.g. ``None``: a task may call a label so;
            else "".
        negated: whether the label was turned down, which of two labels means the other.
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
    spelled: str = ""
    negated: bool = False

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
        if fold_name(self.positive) == fold_name(self.negative):
            raise RunFailed(
                f"the task's labels {self.positive!r} and {self.negative!r} differ only in case, width, "
                "spacing or invisible characters, so verdicts cannot be told apart; give them two names "
                "and mine again"
            )

    def read(self, label: str) -> str | None:
        """Return ``positive``, ``negative`` or ``skip``, or None for anything else.

        The task's own names come first: it may call a label ``unsure``.
        """
        if own := self.own(label):
            return own
        word = _folded(label)
        if word in (POSITIVE, NEGATIVE):
            return word
        return SKIP if word in SKIP_WORDS else None

    def own(self, label: str) -> str | None:
        """Return ``positive`` or ``negative`` for what the task calls so, else None."""
        names = {fold_name(self.positive): POSITIVE, fold_name(self.negative): NEGATIVE}
        return names.get(_folded(label))


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


def parse_json(text: str) -> Any:
    """Return what a JSON text says; NaN, which JSON does not know and data frames write, is null.

    Raises:
        ValueError: it is no JSON, or an object gives a field twice.
    """
    return decoding.parse_json(text, constant=_constant)


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def cell_of(value: Any, name: str) -> str:
    """Return a value of JSON as a cell: "" for null, digits for a number.

    Raises:
        ValueError: it is neither text nor a number.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name!r} must be text, found {type(value).__name__}")
    return value if isinstance(value, str) else repr(value)


def is_unsaid(label: str) -> bool:
    """Tell whether a cell for a label is empty, or holds what stands for that.

    ``n/a`` is what experts say who cannot tell.
    """
    return is_missing(unprotected(label)) and _folded(label) not in SKIP_WORDS


def _folded(label: str) -> str:
    return fold_name(unprotected(label)) if len(label) <= MAX_LABEL_CHARS else ""


def normalize_expert(name: str) -> str:
    """Fold an expert's name, so that one person is one string; "" when it names nobody.

    See :func:`pipelines.verdicts.names.fold_name`; what programs write where a value is missing is no name.
    """
    plain = unprotected(name)
    return "" if is_missing(plain) else fold_name(plain)


def cut_comment(comment: str) -> str:
    """Return a comment of at most ``MAX_COMMENT_CHARS`` characters and a note where it was cut."""
    comment = storable(unprotected(comment.strip()))
    if is_missing(comment):
        return ""
    if len(comment) <= MAX_COMMENT_CHARS:
        return comment
    return f"{comment[:MAX_COMMENT_CHARS]} [cut: {len(comment):,} characters]"
