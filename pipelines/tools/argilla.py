"""Argilla: a pair is a record with two text fields and a label question for each.

Formats of the SDK, 2.8: records as ``rg.Record`` takes them (its arguments, a JSON object a line) and
settings as ``rg.Settings.from_json`` reads them. Coming back: ``dataset.records.to_list(flatten=True)``
as JSON; the nested form does not tell drafts from submitted answers. Suggestions are never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.contracts import Rejected
from pipelines.tools import rows
from pipelines.tools.batch import Batch, PairToReview
from pipelines.tools.rows import LABEL_A, LABEL_B, Said
from pipelines.verdicts.rows import SKIP, RawVerdict

TOOL = "argilla"
COMMENT = "comment"
SUBMITTED, DISCARDED, DRAFT = "submitted", "discarded", "draft"
_QUESTIONS = (LABEL_A, LABEL_B, COMMENT)
# Flattening lays fields and metadata into one object, beside id and status: no name may occur twice.
_METADATA = ("pair_id", "id_a", "id_b", "task", "version", "round")


def export(batch: Batch) -> dict[str, bytes]:
    """Return ``records.jsonl``, ``settings.json`` and ``setup.md``."""
    return {
        "records.jsonl": rows.to_json_lines(_record(pair, batch) for pair in batch.pairs),
        "settings.json": rows.to_json(settings(batch)),
        "setup.md": rows.filled("argilla.md", batch),
    }


def settings(batch: Batch) -> dict[str, Any]:
    """Return the data set's settings, the policy among them as its guidelines."""
    fields = [
        {
            "name": f"text_{letter}",
            "title": f"Ad {letter.upper()}",
            "required": True,
            # An ad is shown to the letter: in Markdown it could draw links and pictures.
            "settings": {"type": "text", "use_markdown": False},
        }
        for letter in "ab"
    ]
    options = [
        {"value": word, "text": word, "description": None} for word in rows.label_words(batch)
    ]
    questions: list[dict[str, Any]] = [
        {
            "name": f"label_{letter}",
            "title": f"Ad {letter.upper()} is",
            "description": None,
            "required": True,
            "settings": {
                "type": "label_selection",
                "options": options,
                "visible_options": len(options),
            },
        }
        for letter in "ab"
    ]
    questions.append(
        {
            "name": COMMENT,
            "title": "Comment",
            "description": None,
            "required": False,
            "settings": {"type": "text", "use_markdown": False},
        }
    )
    metadata = [
        {
            "name": name,
            "title": name,
            "visible_for_annotators": False,
            "settings": {"type": "terms", "values": None, "visible_for_annotators": False},
        }
        for name in _METADATA
    ]
    return {
        "guidelines": rows.filled("guidelines.md", batch).decode(),
        "fields": fields,
        "questions": questions,
        "metadata": metadata,
        "vectors": [],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": batch.experts_per_ad},
    }


def read(data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
    """Yield two rows for each person's answer to a record, and for each record without any.

    Experts are called by the UUIDs of their accounts.

    Raises:
        RunFailed: the file is no flattened export of Argilla.
    """
    cure = (
        "write json.dump(dataset.records.to_list(flatten=True), file), which holds text_a, and "
        "label_a.responses where somebody answered"
    )
    for position, record in rows.json_records(data, source, _is_flat, cure):
        if isinstance(record, Rejected):
            yield record
            continue
        try:
            yield from _record_rows(record, position, source)
        except ValueError as error:
            yield rows.unreadable(str(error), source, position)


def _record(pair: PairToReview, batch: Batch) -> dict[str, Any]:
    fields = rows.pair_fields(pair)
    # Terms are texts.
    origin = {name: str(value) for name, value in rows.provenance(batch).items()}
    record: dict[str, Any] = {
        "id": pair.pair_id,
        "fields": {name: fields.pop(name) for name in ("text_a", "text_b")},
        "metadata": fields | origin,
    }
    positive, negative, _ = rows.label_words(batch)
    suggestions = [
        {
            "question_name": f"label_{letter}",
            "value": positive if side.label == batch.positive else negative,
            "score": rows.shown_score(side, batch),
            "agent": batch.model_id,
        }
        for letter, side in zip("ab", (pair.left, pair.right), strict=True)
        if side.label
    ]
    return record | ({"suggestions": suggestions} if suggestions else {})


def _is_flat(record: Mapping[str, Any]) -> bool:
    return "text_a" in record or f"{LABEL_A}.responses" in record


def _record_rows(record: Mapping[str, Any], position: str, source: str) -> tuple[RawVerdict, ...]:
    """Return all rows of a record: a record that cannot be read costs all its answers.

    Raises:
        ValueError: a field is not as Argilla writes it, or the record is none of ours.
    """
    found: list[RawVerdict] = []
    for person, answers in _answers(record).items():
        states = {state for state, _ in answers.values()}
        if len(states) > 1 or not states <= {SUBMITTED, DISCARDED, DRAFT}:
            shown = ", ".join(sorted(map(repr, states)))
            raise ValueError(
                f"the answer of {person[:60]!r} must be {SUBMITTED}, {DISCARDED} or "
                f"{DRAFT}, found {shown}"
            )
        label_a, label_b, comment = (answers.get(name, ("", ""))[1] for name in _QUESTIONS)
        said = Said(person, "", comment, source, position)
        labels = (SKIP, SKIP) if states == {DISCARDED} else (label_a, label_b)
        if states == {DRAFT}:
            # Not given yet, so nobody's and nothing.
            labels, said = ("", ""), Said("", "", "", source, position)
        found += rows.pair_verdicts(record, labels, said)
    if not found:
        found += rows.pair_verdicts(record, ("", ""), Said("", "", "", source, position))
    return tuple(found)


def _answers(record: Mapping[str, Any]) -> dict[str, dict[str, tuple[str, str]]]:
    """Return person -> question -> (status, value)."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for question in _QUESTIONS:
        # A question that nobody answered is missing, or null where another record has it.
        columns = [
            record.get(f"{question}.responses{part}") or [] for part in ("", ".users", ".status")
        ]
        if not all(isinstance(column, list) for column in columns):
            raise ValueError(f"{question}.responses, its .users and its .status must be lists")
        if len({len(column) for column in columns}) > 1:
            sizes = " and ".join(str(len(column)) for column in columns)
            raise ValueError(f"{question}.responses, .users and .status hold {sizes} items")
        for value, person, state in zip(*columns, strict=True):
            answers = found.setdefault(rows.as_text({"users": person}, "users"), {})
            if question in answers:
                raise ValueError(f"{str(person)[:60]!r} answers {question} twice")
            read = rows.joined if question == COMMENT else rows.one_label
            answers[question] = (str(state), read(value, question))
    return found
