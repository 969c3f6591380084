"""What the files of several labeling tools have in common: JSON in and out, and rows of answers.

Tools take the ads as they are, but for one character: NUL, which PostgreSQL (behind Label Studio,
Argilla and doccano) and verdict files refuse. It travels as U+FFFD. A text that holds one of those
cannot be compared on its way back, so it is left out there; pair, side and id are still checked.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.contracts import LEFT, RIGHT, Rejected
from pipelines.errors import RunFailed
from pipelines.text import normalize_text
from pipelines.tools.batch import Batch, PairToReview, Side
from pipelines.verdicts.rows import SKIP, RawVerdict, decode, storable

TEMPLATES = Path(__file__).resolve().parent.parent.parent / "templates" / "labeling"
LABEL_A, LABEL_B = "label_a", "label_b"
MARK = "\ufffd"
_MAX_POSITION_CHARS = 80
_SKIP_WORDS = (SKIP, "unsure", "n/a", "?")


@dataclass(frozen=True, slots=True)
class Said:
    """What is true of all rows of one answer.

    Attributes:
        expert: who said it, as the tool names them; "" when nobody did.
        time: when, as written, or "".
        comment: as written, or "".
        source: the file.
        position: where in the file.
    """

    expert: str
    time: str
    comment: str
    source: str
    position: str


# --- out --------------------------------------------------------------------------------------


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


def pair_fields(pair: PairToReview) -> dict[str, str]:
    """Return a pair for a tool that shows it as one task; side a is the left one."""
    return {
        "pair_id": pair.pair_id,
        "text_a": holdable(pair.left.text),
        "text_b": holdable(pair.right.text),
        "id_a": holdable(pair.left.id),
        "id_b": holdable(pair.right.id),
    }


def ad_fields(pair: PairToReview, name: str, side: Side) -> dict[str, str]:
    """Return one ad of a pair for a tool that shows one text a task."""
    return {
        "text": holdable(side.text),
        "pair_id": pair.pair_id,
        "side": name,
        "ad_id": holdable(side.id),
    }


def label_words(batch: Batch) -> tuple[str, str, str]:
    """Return what experts choose from: the labels' names and a word for "cannot tell".

    A task may call a label ``skip``; the word is then another one that the reader knows.
    """
    taken = {normalize_text(batch.positive), normalize_text(batch.negative)}
    word = next(word for word in _SKIP_WORDS if word not in taken)
    return holdable(batch.positive), holdable(batch.negative), word


def shown_score(side: Side, batch: Batch) -> float | None:
    """Return the probability that the model gives to the label it gave, or None when blind."""
    if side.probability is None:
        return None
    return round(side.probability if side.label == batch.positive else 1 - side.probability, 6)


def filled(name: str, batch: Batch, quote: Callable[[str], str] = holdable) -> bytes:
    """Return a template of ``templates/labeling`` with the task's words in it.

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
        "pairs": str(len(batch.pairs)),
        "experts": str(batch.experts_per_ad),
        "positive": positive,
        "negative": negative,
        "skip": skip,
    }
    # Substituted in one pass: a dollar sign in a policy stays one.
    template = string.Template((TEMPLATES / name).read_text(encoding="utf-8"))
    policy = holdable(batch.policy).strip()
    if name.endswith(".md"):
        policy = "\n".join(f"> {line}" for line in policy.splitlines())
    return template.substitute(
        {word: quote(value) for word, value in words.items()}, policy=quote(policy)
    ).encode()


# --- in ---------------------------------------------------------------------------------------


def load_json(data: bytes, source: str) -> Any:
    """Return what a JSON file holds.

    Raises:
        RunFailed: it is no text or no JSON.
    """
    text = decode(data, source)
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise RunFailed(f"{source}: is no JSON: {error or type(error).__name__}") from error


def json_records(
    data: bytes, source: str, fits: Callable[[Mapping[str, Any]], bool], otherwise: str
) -> Iterator[tuple[str, dict[str, Any] | Rejected]]:
    """Yield position and object of each record, from JSON lines or a JSON list.

    Args:
        data: the file.
        source: its name.
        fits: tells whether an object is what the tool exports.
        otherwise: what to say when no object is; what was found is put before it.

    Raises:
        RunFailed: the file is no text or no JSON, or none of its objects fits.
    """
    found = list(_parsed(data, source))
    objects = [record for _, record in found if isinstance(record, dict)]
    if found and not any(fits(record) for record in objects):
        raise RunFailed(f"{source}: {_described(objects)}; {otherwise}")
    for position, record in found:
        if not isinstance(record, dict):
            yield position, unreadable(record, source, position)
        elif not fits(record):
            yield position, unreadable(f"{_described([record])}", source, position)
        else:
            yield position, record


def unreadable(detail: str, source: str, position: str) -> Rejected:
    """Return the dead letter for a record that says nothing usable."""
    return _raw({}, "", "", Said("", "", "", source, position)).refuse("not_readable_row", detail)


def as_text(fields: Mapping[str, Any], name: str) -> str:
    """Return a field as text, "" when it is missing or null.

    Raises:
        ValueError: it is neither text nor a number.
    """
    value = fields.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name!r} must be text, found {type(value).__name__}")
    return value if isinstance(value, str) else repr(value)


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


def pair_verdicts(
    fields: Mapping[str, Any], labels: tuple[str, str], said: Said
) -> tuple[RawVerdict, ...]:
    """Return both rows of a pair's answer, side a first.

    As in a sheet, whoever answers without any label says that neither ad can be told.

    Args:
        fields: as :func:`pair_fields` made them.
        labels: what was chosen for a and b, "" for nothing.
        said: by whom, when, where.

    Raises:
        ValueError: a field is no text, or there is no ``pair_id``.
    """
    rows = []
    for letter, side, label in zip("ab", (LEFT, RIGHT), _completed(labels, said), strict=True):
        part = {"pair_id": fields.get("pair_id"), "ad_id": fields.get(f"id_{letter}")}
        rows.append(ad_verdict({**part, "text": fields.get(f"text_{letter}")}, side, label, said))
    return tuple(rows)


def ad_verdict(fields: Mapping[str, Any], side: str, label: str, said: Said) -> RawVerdict:
    """Return the row of an answer on one ad.

    Args:
        fields: ``pair_id``, ``ad_id``, ``text``, as :func:`ad_fields` made them.
        side: left or right.
        label: what was chosen, "" for nothing.
        said: by whom, when, where.

    Raises:
        ValueError: a field is no text, there is no ``pair_id``, or ``side`` is none.
    """
    if not as_text(fields, "pair_id").strip():
        raise ValueError("holds no pair_id: it is none of the pairs that `scout export` wrote")
    if side not in (LEFT, RIGHT):
        raise ValueError(f"side must be left or right, found {side[:40]!r}")
    return _raw(fields, side, label, said)


def place(*parts: str) -> str:
    """Return a position for messages, of bounded length."""
    return storable(", ".join(parts))[:_MAX_POSITION_CHARS]


def _completed(labels: tuple[str, str], said: Said) -> Sequence[str]:
    return (SKIP, SKIP) if said.expert.strip() and not any(labels) else labels


def _raw(fields: Mapping[str, Any], side: str, label: str, said: Said) -> RawVerdict:
    return RawVerdict(
        ad_id=comparable(as_text(fields, "ad_id")),
        item_id=as_text(fields, "pair_id").strip(),
        side=side,
        text=comparable(as_text(fields, "text")),
        label=label.strip(),
        expert=said.expert,
        time=said.time.strip(),
        comment=said.comment,
        source=said.source,
        position=said.position,
    )


def comparable(text: str) -> str:
    """Return a text that came back, "" where it may differ from what was sent out."""
    return "" if MARK in text else text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _parsed(data: bytes, source: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield position and object, or what is wrong with a record."""
    text = decode(data, source)
    if text.lstrip().startswith("["):
        for number, record in enumerate(load_json(data, source), start=1):
            found = f"expected a JSON object, found {type(record).__name__}"
            yield f"record {number}", record if isinstance(record, dict) else found
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            yield f"line {number}", str(error) or type(error).__name__
            continue
        found = f"expected a JSON object, found {type(record).__name__}"
        yield f"line {number}", record if isinstance(record, dict) else found


def _described(objects: Sequence[Mapping[str, Any]]) -> str:
    if not objects:
        return "holds no JSON object"
    names = ", ".join(name[:30] for name in list(objects[0])[:12])
    return f"found the fields {storable(names) or 'of an empty object'}"
