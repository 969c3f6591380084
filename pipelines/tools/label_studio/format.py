"""Label Studio: an item is a task with its texts, one or two, and a choice for each.

Formats as of Label Studio 1.23. Going out: tasks (a JSON list) and the labeling configuration; single
ads have files, and so a project, of their own, because a configuration cannot hide a question that has
to be answered. Coming back: the export formats JSON, JSON_MIN, CSV and TSV. Only JSON holds skips
(annotations with ``was_cancelled``). The predictions that an annotation was shown travel inside it; they
are never read.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.contracts import LEFT, RIGHT, Rejected, ReviewItem
from pipelines.errors import RunFailed
from pipelines.tools import incoming, outgoing
from pipelines.tools.access import Access
from pipelines.tools.base import Tool
from pipelines.tools.batch import Batch
from pipelines.tools.incoming import Answer, slots_in
from pipelines.tools.outgoing import PAIR
from pipelines.verdicts.rows import RawVerdict, decode
from pipelines.verdicts.tables import read_csv

ACCESS = Access(
    "LABEL_STUDIO_API_KEY",
    "LABEL_STUDIO_ALLOW_PLAIN_HTTP",
    "access token",
    "Label Studio shows it under Account & Settings",
    "somebody who manages the project",
    ("projects", "api", "user"),
)
COMMENT = "rationale"
_EXPORT = "export the project from Label Studio as JSON"
# XML 1.0, production 2: characters that no document can hold, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NEVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)


class LabelStudio(Tool):
    """Label Studio, files or server."""

    name = "label-studio"
    files = (
        "tasks.json",
        "config.xml",
        "tasks-single.json",
        "config-single.xml",
        "guidelines.md",
        "setup.md",
    )
    access = ACCESS
    server = "pipelines.tools.label_studio.server:LabelStudioServer"

    def export(self, batch: Batch) -> dict[str, bytes]:
        """Return tasks and configuration of pairs and of single ads, guidelines and what to do."""
        files = {}
        for part in batch.by_size():
            suffix = "-single" if part.sizes() == {1} else ""
            files[f"tasks{suffix}.json"] = outgoing.to_json(tasks(part))
            files[f"config{suffix}.xml"] = config(part)
        return files | {
            "guidelines.md": outgoing.filled("guidelines.md", batch),
            "setup.md": outgoing.filled("label-studio.md", batch),
        }

    def read(self, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
        """Yield a row an ad for each annotation of an export, and for each task that has none.

        Experts are called as the file calls them: a user's e-mail address or number.

        Raises:
            RunFailed: the file is no export of Label Studio.
        """
        text = decode(data, source).lstrip()
        if not text.startswith(("[", "{")):
            yield from _read_table(text, data, source)
            return
        found = incoming.load_json(data, source)
        if not isinstance(found, list):
            raise RunFailed(f"{source}: one JSON object, expected a list of tasks; {_EXPORT}")
        objects = [task for task in found if isinstance(task, dict)]
        is_short = any("annotation_id" in task for task in objects)
        if found and not is_short and not any("annotations" in task for task in objects):
            names = ", ".join(str(name)[:30] for task in objects[:1] for name in list(task)[:12])
            raise RunFailed(
                f"{source}: no task has annotations (found: {names or 'no objects'}); are these the "
                f"tasks that went out? {_EXPORT}"
            )
        numbered = list(enumerate(found, start=1))
        if is_short:
            numbered.sort(key=lambda item: _changed(item[1]))
        for number, task in numbered:
            if not isinstance(task, dict):
                detail = f"expected a task, found {type(task).__name__}"
                yield Answer(source, f"task {number} of the list").refuse(detail)
                continue
            at = incoming.place(f"task {task.get('id', number)}")
            yield from (_short_rows if is_short else _task_rows)(task, at, source)


def config(batch: Batch) -> bytes:
    """Return the labeling configuration, with the task's words for its labels.

    The policy is no part of it: it is shown from the task's data, where no sign means anything.
    """
    name = "label_studio.xml" if batch.sizes() == {2} else "label_studio_single.xml"
    root = ET.fromstring((outgoing.TEMPLATES / name).read_text("utf-8"))  # noqa: S314
    words = dict(zip(("positive", "negative", "skip"), _choices(batch), strict=True))
    for choice in root.iter("Choice"):
        choice.set("value", words[choice.attrib["value"]])
    return (ET.tostring(root, encoding="unicode") + "\n").encode()


def tasks(batch: Batch) -> list[dict[str, Any]]:
    """Return the tasks of a batch whose items show equally many ads."""
    return [_task(item, batch) for item in batch.items]


def _choices(batch: Batch) -> tuple[str, ...]:
    """Return the three choices as the configuration can hold them.

    A dollar sign would be replaced by a task's data. The full-width one looks the same, and is the
    same after NFKC, which all labels go through on their way back.
    """
    words = (_NOT_XML.sub("\ufffd", word) for word in outgoing.label_words(batch))
    return tuple(word.replace("$", "\uff04") for word in words)


def _task(item: ReviewItem, batch: Batch) -> dict[str, Any]:
    slots = outgoing.slots_of(batch)
    data = outgoing.item_fields(item, slots) | {"policy": outgoing.holdable(batch.policy)}
    data |= outgoing.provenance(batch)
    positive, negative, _ = _choices(batch)
    results = [
        {
            "from_name": slot.label,
            "to_name": slot.text,
            "type": "choices",
            "value": {"choices": [positive if told.positive else negative]},
            "score": told.score,
        }
        for slot, ad in zip(slots, item.ads, strict=True)
        if (told := batch.prediction(ad))
    ]
    if not results:
        return {"data": data}
    return {"data": data, "predictions": [{"model_version": batch.model_id, "result": results}]}


def _task_rows(
    task: Mapping[str, Any], position: str, source: str
) -> Iterator[RawVerdict | Rejected]:
    data, annotations = task.get("data"), task.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        yield Answer(source, position).refuse("a task without data or annotations")
        return
    if not annotations:
        yield from _rows(source, position, data, lambda: Answer(source, position, submitted=False))
    for annotation in sorted(annotations, key=_changed):
        if not isinstance(annotation, dict):
            detail = f"expected an annotation, found {type(annotation).__name__}"
            yield Answer(source, position).refuse(detail)
            continue
        at = incoming.place(position, f"annotation {annotation.get('id', '?')}")
        yield from _rows(source, at, data, functools.partial(_answer, data, annotation, at, source))


def _short_rows(
    record: Mapping[str, Any], position: str, source: str
) -> Iterator[RawVerdict | Rejected]:
    """Yield the rows of a JSON_MIN record: the task's data and one annotation in one object."""
    at = incoming.place(position, f"annotation {record.get('annotation_id', '?')}")

    def answer() -> Answer:
        return Answer(
            source,
            at,
            tuple(_short_label(record.get(s.label), s.label) for s in slots_in(record)),
            expert=incoming.as_text(record, "annotator"),
            time=_time(record),
            comment=incoming.joined(record.get(COMMENT), COMMENT),
        )

    yield from _rows(source, at, record, answer)


def _rows(
    source: str, position: str, data: Mapping[str, Any], answer: Callable[[], Answer]
) -> Iterator[RawVerdict | Rejected]:
    """Yield the rows of an answer, or the dead letter for one that cannot be read."""
    try:
        yield from answer().rows(data)
    except ValueError as error:
        yield Answer(source, position).refuse(error)


def _answer(
    data: Mapping[str, Any], annotation: Mapping[str, Any], position: str, source: str
) -> Answer:
    result = annotation.get("result")
    if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
        raise ValueError("an annotation's result must be a list of objects")
    names = [slot.label for slot in slots_in(data)]
    found: dict[str, list[str]] = {name: [] for name in (*names, COMMENT)}
    for item in result:
        name, value = str(item.get("from_name")), item.get("value")
        if name not in found:
            continue
        if not isinstance(value, dict):
            raise ValueError(f"the result of {name} holds no value")
        if name == COMMENT:
            found[name].append(incoming.joined(value.get("text"), name))
        else:
            found[name].append(incoming.one_label(value.get("choices"), name))
    if result and not any(found.values()):
        others = ", ".join(sorted({str(item.get("from_name"))[:30] for item in result}))
        raise ValueError(
            f"answers to {others}, none to {' or '.join(names)}; label with the configuration that "
            "was exported"
        )
    return Answer(
        source,
        position,
        tuple(incoming.one_label([x for x in found[name] if x], name) for name in names),
        expert=_person(annotation),
        time=_time(annotation),
        comment="\n".join(found[COMMENT]),
        skipped=bool(annotation.get("was_cancelled")),
    )


def _person(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        return incoming.first_of(by, "email", "id")
    return incoming.as_text(annotation, "completed_by")


def _time(annotation: Mapping[str, Any]) -> str:
    return incoming.first_of(annotation, "updated_at", "created_at")


def _changed(annotation: Any) -> datetime.datetime:
    """Return when an annotation was last changed, to sort by.

    The last one of a person counts. Verdicts' times are whole seconds, so of two within one second the
    later one must come later; Label Studio writes its short formats newest first.
    """
    try:
        return _moment(_time(annotation))
    except (AttributeError, ValueError):
        return _NEVER


def _moment(time: str) -> datetime.datetime:
    """Return a time; what tells none comes before all others."""
    try:
        moment = datetime.datetime.fromisoformat(time)
    except ValueError:
        return _NEVER
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _short_label(value: Any, name: str) -> str:
    # Several choices, which our configuration does not allow, come as {"choices": [...]}.
    return incoming.one_label(value.get("choices") if isinstance(value, dict) else value, name)


def _read_table(text: str, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
    header = text.split("\n", 1)[0]
    needed = ("annotation_id", "annotator", "pair_id" if "pair_id" in header else "item_id")
    missing = [name for name in needed if name not in header]
    if missing:
        raise RunFailed(
            f"{source}: neither JSON nor a table with the columns {', '.join(missing)}; {_EXPORT}"
        )
    is_wide = PAIR[0].label in header
    yield from sorted(_sided(read_csv(data, source), is_wide), key=_row_changed)


def _sided(
    table: Iterator[RawVerdict | Rejected], is_wide: bool
) -> Iterator[RawVerdict | Rejected]:
    """Name the sides of a table's rows.

    Where columns name the ads, the reader of tables takes a and b for no sides; here they are. A record
    of a pair gives its left ad, then its right one.
    """
    before = ""
    for row in table:
        if isinstance(row, RawVerdict):
            side = RIGHT if row.position == before else LEFT
            row = incoming.comparable_row(dataclasses.replace(row, side=side if is_wide else ""))
            before = row.position
        yield row


def _row_changed(row: RawVerdict | Rejected) -> datetime.datetime:
    return _moment(row.time) if isinstance(row, RawVerdict) else _NEVER
