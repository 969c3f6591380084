"""Argilla: an item is a record with its texts, one or two, and a label question for each.

Formats of the SDK, 2.8: records as ``rg.Record`` takes them (its arguments, a JSON object a line) and
settings as ``rg.Settings.from_json`` reads them; single ads have files, and so a data set, of their own,
because a question that has to be answered cannot be left out of some records. Coming back:
``dataset.records.to_list(flatten=True)`` as JSON; the nested form does not tell drafts from submitted
answers. Suggestions are never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.contracts import Rejected, ReviewItem
from pipelines.tools import incoming, outgoing
from pipelines.tools.access import Access
from pipelines.tools.base import Tool
from pipelines.tools.batch import Batch
from pipelines.tools.incoming import Answer, slots_in
from pipelines.tools.outgoing import ITEM, PAIR, SINGLE
from pipelines.verdicts.rows import RawVerdict

ACCESS = Access(
    "ARGILLA_API_KEY",
    "ARGILLA_ALLOW_PLAIN_HTTP",
    "API key",
    "Argilla shows it under My settings",
    "an owner, or an admin of the workspace",
    ("dataset", "datasets", "api", "user-settings"),
)
COMMENT = "comment"
SUBMITTED, DISCARDED, DRAFT = "submitted", "discarded", "draft"


class Argilla(Tool):
    """Argilla, files or server."""

    name = "argilla"
    files = (
        "records.jsonl",
        "settings.json",
        "records-single.jsonl",
        "settings-single.json",
        "setup.md",
    )
    access = ACCESS
    server = "pipelines.tools.argilla.server:ArgillaServer"

    def export(self, batch: Batch) -> dict[str, bytes]:
        """Return records and settings of pairs and of single ads, and what to do with them."""
        files = {}
        for part in batch.by_size():
            suffix = "-single" if part.sizes() == {1} else ""
            files[f"records{suffix}.jsonl"] = outgoing.to_json_lines(records(part))
            files[f"settings{suffix}.json"] = outgoing.to_json(settings(part))
        return files | {"setup.md": outgoing.filled("argilla.md", batch)}

    def read(self, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
        """Yield a row an ad for each person's answer to a record, and for each record without any.

        Experts are called by the UUIDs of their accounts.

        Raises:
            RunFailed: the file is no flattened export of Argilla.
        """
        cure = (
            "write json.dump(dataset.records.to_list(flatten=True), file), which holds text_a, and "
            "label_a.responses where somebody answered"
        )

        def rows(record: Mapping[str, Any], position: str) -> list[RawVerdict]:
            answers = [*_answers(record, source, position)]
            answers = answers or [Answer(source, position, submitted=False)]
            return [row for answer in answers for row in answer.rows(record)]

        return incoming.read_records(data, source, _is_flat, cure, rows)


def settings(batch: Batch) -> dict[str, Any]:
    """Return the settings of a data set whose items show equally many ads, the policy as guidelines."""
    slots = outgoing.slots_of(batch)
    fields = [
        {
            "name": slot.text,
            "title": slot.title,
            "required": True,
            # An ad is shown to the letter: in Markdown it could draw links and pictures.
            "settings": {"type": "text", "use_markdown": False},
        }
        for slot in slots
    ]
    options = [
        {"value": word, "text": word, "description": None} for word in outgoing.label_words(batch)
    ]
    questions: list[dict[str, Any]] = [
        {
            "name": slot.label,
            "title": f"{slot.title} is",
            "description": None,
            "required": True,
            "settings": {
                "type": "label_selection",
                "options": options,
                "visible_options": len(options),
            },
        }
        for slot in slots
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
    # Flattening lays fields and metadata into one object, beside id and status: no name may occur twice.
    names = (ITEM, *(slot.id for slot in slots), *outgoing.provenance(batch))
    metadata = [
        {
            "name": name,
            "title": name,
            "visible_for_annotators": False,
            "settings": {"type": "terms", "values": None, "visible_for_annotators": False},
        }
        for name in names
    ]
    return {
        "guidelines": outgoing.filled("guidelines.md", batch).decode(),
        "fields": fields,
        "questions": questions,
        "metadata": metadata,
        "vectors": [],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": batch.experts_per_ad},
    }


def records(batch: Batch) -> list[dict[str, Any]]:
    """Return the records of a batch whose items show equally many ads."""
    return [_record(item, batch) for item in batch.items]


def _record(item: ReviewItem, batch: Batch) -> dict[str, Any]:
    slots = outgoing.slots_of(batch)
    fields = outgoing.item_fields(item, slots)
    # Terms are texts.
    origin = {name: str(value) for name, value in outgoing.provenance(batch).items()}
    record: dict[str, Any] = {
        "id": item.item_id,
        "fields": {slot.text: fields.pop(slot.text) for slot in slots},
        "metadata": fields | origin,
    }
    positive, negative, _ = outgoing.label_words(batch)
    suggestions = [
        {
            "question_name": slot.label,
            "value": positive if told.positive else negative,
            "score": told.score,
            "agent": batch.model_id,
        }
        for slot, ad in zip(slots, item.ads, strict=True)
        if (told := batch.prediction(ad))
    ]
    return record | ({"suggestions": suggestions} if suggestions else {})


def _is_flat(record: Mapping[str, Any]) -> bool:
    if any(f"{slot.label}.responses" in record for slot in (*PAIR, *SINGLE)):
        return True
    # Tools that show one ad a task have its side beside its text.
    return PAIR[0].text in record or (SINGLE[0].text in record and "side" not in record)


def _answers(record: Mapping[str, Any], source: str, position: str) -> Iterator[Answer]:
    """Yield each person's answer to a record.

    Raises:
        ValueError: a field is not as Argilla writes it.
    """
    names = [slot.label for slot in slots_in(record)]
    for person, answers in _by_person(record, (*names, COMMENT)).items():
        states = {state for state, _ in answers.values()}
        if len(states) > 1 or not states <= {SUBMITTED, DISCARDED, DRAFT}:
            shown = ", ".join(sorted(map(repr, states)))
            raise ValueError(
                f"the answer of {person[:60]!r} must be {SUBMITTED}, {DISCARDED} or "
                f"{DRAFT}, found {shown}"
            )
        if states == {DRAFT}:
            # Not given yet, so nobody's and nothing.
            yield Answer(source, position, submitted=False)
            continue
        *labels, comment = (answers.get(name, ("", ""))[1] for name in (*names, COMMENT))
        yield Answer(
            source,
            position,
            tuple(labels),
            expert=person,
            comment=comment,
            skipped=states == {DISCARDED},
        )


def _by_person(
    record: Mapping[str, Any], questions: tuple[str, ...]
) -> dict[str, dict[str, tuple[str, str]]]:
    """Return person -> question -> (status, value)."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for question in questions:
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
            answers = found.setdefault(incoming.as_text({"users": person}, "users"), {})
            if question in answers:
                raise ValueError(f"{str(person)[:60]!r} answers {question} twice")
            read = incoming.joined if question == COMMENT else incoming.one_label
            answers[question] = (str(state), read(value, question))
    return found
