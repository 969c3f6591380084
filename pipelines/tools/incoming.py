"""What comes back from labeling tools: JSON to records, and one form of answer for all of them.

A text that may differ from what was sent out, because it holds U+FFFD, is left out; item, side and id
are still checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.contracts import LEFT, RIGHT, Rejected
from pipelines.errors import RunFailed
from pipelines.sources.decoding import each_line
from pipelines.text import is_missing, storable
from pipelines.tools.outgoing import ITEM, MARK, PAIR, SINGLE, Slot
from pipelines.verdicts.rows import (
    MAX_UNREADABLE,
    SKIP,
    RawVerdict,
    cell_of,
    decode,
    is_unsaid,
    normalize_expert,
    parse_json,
)

# What `item_id` was called before items could be single ads, and may be called by hand.
_ITEM_NAMES = (ITEM, "pair_id")
_MAX_POSITION_CHARS = 80


@dataclass(frozen=True, slots=True)
class Answer:
    """What one person said of one task; :meth:`rows` makes verdicts of it.

    This is where all tools mean the same: who skips says that no ad of the task can be told; who
    submits no label at all says so too; a pair of which one ad has a label is half an answer, whose
    other row stays empty; of two answers of one person on one item the later counts, by ``time`` and,
    where that is equal, by place in the file.

    Attributes:
        source: the file.
        position: where in the file.
        labels: what was chosen for each ad of the task, left first, "" for nothing; () for all of them.
        expert: who said it, as the tool names them; "" when nobody did.
        time: when, as written, or "".
        comment: as written, or "".
        negated: whether the labels were turned down, which of two labels means the other.
        skipped: whether the tool's own way to skip was taken.
        submitted: whether the answer was given: a draft or an untouched task says nothing.
    """

    source: str
    position: str
    labels: tuple[str, ...] = ()
    expert: str = ""
    time: str = ""
    comment: str = ""
    negated: bool = False
    skipped: bool = False
    submitted: bool = True

    def rows(self, fields: Mapping[str, Any]) -> tuple[RawVerdict, ...]:
        """Return a row an ad.

        Args:
            fields: those of the task, as ``pipelines.tools.outgoing`` made them.

        Raises:
            ValueError: a field is no text, there is no item, or ``side`` is none.
        """
        item = first_of(fields, *_ITEM_NAMES).strip()
        if not item:
            raise ValueError(f"holds no {ITEM}: it is none of the items that `scout export` wrote")
        slots = slots_in(fields)
        nothing = ("",) * len(slots)
        written = self.labels if self.labels and self.submitted and not self.skipped else nothing
        labels = tuple("" if is_unsaid(label) else label for label in written)
        someone = bool(normalize_expert(self.expert))
        if self.submitted and (self.skipped or (someone and not any(labels))):
            labels = (SKIP,) * len(slots)
        return tuple(
            self._row(fields, item, slot, label, spelled if is_unsaid(spelled) else "")
            for slot, label, spelled in zip(slots, labels, written, strict=True)
        )

    def refuse(self, detail: object) -> Rejected:
        """Return the dead letter for an answer that says nothing usable."""
        blank = RawVerdict("", "", "", "", "", "", "", "", self.source, self.position)
        return blank.refuse("not_readable_row", str(detail))

    def _row(
        self, fields: Mapping[str, Any], item: str, slot: Slot, label: str, spelled: str
    ) -> RawVerdict:
        side = slot.side or first_of(fields, "side")
        if side not in (LEFT, RIGHT, ""):
            raise ValueError(f"side must be left or right, found {side[:40]!r}")
        return RawVerdict(
            ad_id=comparable(as_text(fields, slot.id)),
            item_id=item,
            side=side,
            text=comparable(as_text(fields, slot.text)),
            label=label.strip(),
            expert=self.expert,
            time=self.time.strip(),
            comment=self.comment,
            source=self.source,
            position=self.position,
            spelled=spelled.strip(),
            negated=self.negated,
        )


def slots_in(fields: Mapping[str, Any]) -> tuple[Slot, ...]:
    """Return the slots of a task that came back."""
    wide = [fields.get(name) for slot in PAIR for name in (slot.id, slot.text)]
    # Data frames of pairs and single ads have the columns of both; the others are written as missing.
    gaps = [isinstance(value, str) and bool(value) and is_missing(value) for value in wide]
    is_pair = any(not gap for value, gap in zip(wide, gaps, strict=True) if value is not None)
    return PAIR if is_pair else SINGLE


def comparable(text: str) -> str:
    """Return a text that came back, "" where it may differ from what was sent out."""
    return "" if MARK in text else text


def comparable_row(row: RawVerdict) -> RawVerdict:
    """Return a row with id and text as :func:`comparable` leaves them."""
    return replace(row, ad_id=comparable(row.ad_id), text=comparable(row.text))


def load_json(data: bytes, source: str) -> Any:
    """Return what a JSON file holds.

    Raises:
        RunFailed: it is no text or no JSON.
    """
    text = decode(data, source)
    try:
        return parse_json(text)
    except ValueError as error:
        raise RunFailed(f"{source}: is no JSON: {error}") from error


def read_records(
    data: bytes,
    source: str,
    fits: Callable[[Mapping[str, Any]], bool],
    otherwise: str,
    rows: Callable[[Mapping[str, Any], str], Sequence[RawVerdict]],
    prefix: str = "",
) -> Iterator[RawVerdict | Rejected]:
    """Yield the rows of each record, from JSON lines or a JSON list.

    Args:
        data: the file.
        source: its name.
        fits: tells whether an object is what the tool exports.
        otherwise: what to say when no object is; what was found is put before it.
        rows: makes a record at a position rows; raises ValueError where it cannot, which costs the
            record all of its answers.
        prefix: stands before each position.

    Raises:
        RunFailed: the file is no text or no JSON, or none of its objects fits.
    """
    found, objects = [], []
    for position, record in _parsed(data, source):
        found.append((position, record))
        if isinstance(record, dict):
            objects.append(record)
        elif not objects and len(found) > MAX_UNREADABLE:
            break
    if found and not any(fits(record) for record in objects):
        raise RunFailed(f"{source}: {_described(objects)}; {otherwise}")
    for position, record in found:
        at = place(prefix, position) if prefix else position
        try:
            if not isinstance(record, dict):
                raise ValueError(record)
            if not fits(record):
                raise ValueError(_described([record]))
            yield from rows(record, at)
        except ValueError as error:
            yield Answer(source, at).refuse(error)


def as_text(fields: Mapping[str, Any], name: str) -> str:
    """Return a field as text, "" when it is missing or null.

    Raises:
        ValueError: it is neither text nor a number.
    """
    return cell_of(fields.get(name), name)


def first_of(fields: Mapping[str, Any], *names: str) -> str:
    """Return the first field that holds something, as text; "" when none does.

    Raises:
        ValueError: one is neither text nor a number.
    """
    found = (as_text(fields, name) for name in names)
    return next((text for text in found if not is_missing(text)), "")


def one_label(choices: Any, name: str) -> str:
    """Return the label of a list of choices: "" for none; several are no label that is known.

    Raises:
        ValueError: it is no list of texts.
    """
    if choices is None:
        return ""
    if isinstance(choices, str):
        choices = [choices]
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{name!r} must be a list of labels, found {choices!r:.60}")
    return " + ".join(dict.fromkeys(choices))


def joined(texts: Any, name: str) -> str:
    """Return a comment that is a text or a list of texts.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(texts, list):
        return "\n".join(as_text({name: text}, name) for text in texts)
    return as_text({name: texts}, name)


def place(*parts: str) -> str:
    """Return a position for messages, of bounded length."""
    return storable(", ".join(parts))[:_MAX_POSITION_CHARS]


def _parsed(data: bytes, source: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield position and object, or what is wrong with a record."""
    text = decode(data, source)
    is_list = text.lstrip().startswith("[")
    parts: Iterable[Any] = load_json(data, source) if is_list else each_line(text)
    for number, part in enumerate(parts, start=1):
        if not is_list and not part.strip():
            continue
        position = f"record {number}" if is_list else f"line {number}"
        try:
            found = part if is_list else parse_json(part)
        except ValueError as error:
            yield position, str(error)
            continue
        wrong = f"expected a JSON object, found {type(found).__name__}"
        yield position, found if isinstance(found, dict) else wrong


def _described(objects: Sequence[Mapping[str, Any]]) -> str:
    if not objects:
        return "holds no JSON object"
    names = ", ".join(name[:30] for name in list(objects[0])[:12])
    return f"found the fields {storable(names) or 'of an empty object'}"
