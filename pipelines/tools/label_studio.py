"""Label Studio: a pair is a task with two texts and a choice for each.

Formats as of Label Studio 1.23. Going out: tasks (a JSON list) and the labeling configuration.
Coming back: the export formats JSON, JSON_MIN, CSV and TSV. Only JSON holds skips (annotations with
``was_cancelled``). The predictions that an annotation was shown travel inside it; they are never read.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.contracts import LEFT, RIGHT, Rejected
from pipelines.errors import RunFailed
from pipelines.tools import rows
from pipelines.tools.batch import Batch, PairToReview
from pipelines.tools.rows import LABEL_A, LABEL_B, Said
from pipelines.verdicts.rows import SKIP, RawVerdict, decode
from pipelines.verdicts.tables import read_csv

TOOL = "label-studio"
COMMENT = "rationale"
_EXPORT = "export the project from Label Studio as JSON"
# XML 1.0, production 2: characters that no document can hold, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NEVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)


def export(batch: Batch) -> dict[str, bytes]:
    """Return ``tasks.json``, ``config.xml``, ``guidelines.md`` and ``setup.md``."""
    return {
        "tasks.json": rows.to_json([_task(pair, batch) for pair in batch.pairs]),
        "config.xml": config(batch),
        "guidelines.md": rows.filled("guidelines.md", batch),
        "setup.md": rows.filled("label-studio.md", batch),
    }


def config(batch: Batch) -> bytes:
    """Return the labeling configuration, with the task's words for its labels.

    The policy is no part of it: it is shown from the task's data, where no sign means anything.
    """
    root = ET.fromstring((rows.TEMPLATES / "label_studio.xml").read_text("utf-8"))  # noqa: S314
    words = dict(zip(("positive", "negative", "skip"), _choices(batch), strict=True))
    for choice in root.iter("Choice"):
        choice.set("value", words[choice.attrib["value"]])
    return (ET.tostring(root, encoding="unicode") + "\n").encode()


def read(data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
    """Yield two rows for each annotation of an export, and for each task that has none.

    Experts are called as the file calls them: a user's e-mail address or number.

    Raises:
        RunFailed: the file is no export of Label Studio.
    """
    text = decode(data, source).lstrip()
    if not text.startswith(("[", "{")):
        yield from _read_table(text, data, source)
        return
    tasks = rows.load_json(data, source)
    if not isinstance(tasks, list):
        raise RunFailed(f"{source}: one JSON object, expected a list of tasks; {_EXPORT}")
    objects = [task for task in tasks if isinstance(task, dict)]
    reader: Callable[[Mapping[str, Any], str, str], Iterator[RawVerdict | Rejected]] = _task_rows
    if any("annotation_id" in task for task in objects):
        reader = _short_rows
    elif tasks and not any("annotations" in task for task in objects):
        names = ", ".join(str(name)[:30] for task in objects[:1] for name in list(task)[:12])
        raise RunFailed(
            f"{source}: no task has annotations (found: {names or 'no objects'}); are these the tasks "
            f"that went out? {_EXPORT}"
        )
    numbered = list(enumerate(tasks, start=1))
    if reader is _short_rows:
        numbered.sort(key=lambda item: _changed(item[1]))
    for number, task in numbered:
        if not isinstance(task, dict):
            detail = f"expected a task, found {type(task).__name__}"
            yield rows.unreadable(detail, source, f"task {number} of the list")
            continue
        yield from reader(task, rows.place(f"task {task.get('id', number)}"), source)


def _choices(batch: Batch) -> tuple[str, ...]:
    """Return the three choices as the configuration can hold them.

    A dollar sign would be replaced by a task's data. The full-width one looks the same, and is the
    same after NFKC, which all labels go through on their way back.
    """
    words = (_NOT_XML.sub("\ufffd", word) for word in rows.label_words(batch))
    return tuple(word.replace("$", "\uff04") for word in words)


def _task(pair: PairToReview, batch: Batch) -> dict[str, Any]:
    policy = rows.holdable(batch.policy)
    data = rows.pair_fields(pair) | {"policy": policy} | rows.provenance(batch)
    if not pair.left.label:
        return {"data": data}
    positive, negative, _ = _choices(batch)
    results = []
    for letter, side in zip("ab", (pair.left, pair.right), strict=True):
        choice = positive if side.label == batch.positive else negative
        results.append(
            {
                "from_name": f"label_{letter}",
                "to_name": f"text_{letter}",
                "type": "choices",
                "value": {"choices": [choice]},
                "score": rows.shown_score(side, batch),
            }
        )
    return {"data": data, "predictions": [{"model_version": batch.model_id, "result": results}]}


def _task_rows(
    task: Mapping[str, Any], position: str, source: str
) -> Iterator[RawVerdict | Rejected]:
    data, annotations = task.get("data"), task.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        yield rows.unreadable("a task without data or annotations", source, position)
        return
    if not annotations:
        yield from _pair(data, ("", ""), Said("", "", "", source, position))
    for annotation in sorted(annotations, key=_changed):
        if not isinstance(annotation, dict):
            detail = f"expected an annotation, found {type(annotation).__name__}"
            yield rows.unreadable(detail, source, position)
            continue
        at = rows.place(position, f"annotation {annotation.get('id', '?')}")
        yield from _annotation_rows(data, annotation, at, source)


def _annotation_rows(
    data: Mapping[str, Any], annotation: Mapping[str, Any], position: str, source: str
) -> Iterator[RawVerdict | Rejected]:
    try:
        labels, comment = _answer(annotation.get("result"))
        if annotation.get("was_cancelled"):
            labels = (SKIP, SKIP)
        said = Said(_person(annotation), _time(annotation), comment, source, position)
    except ValueError as error:
        yield rows.unreadable(str(error), source, position)
        return
    yield from _pair(data, labels, said)


def _answer(result: Any) -> tuple[tuple[str, str], str]:
    """Return the labels of both sides and the comment of an annotation's results."""
    if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
        raise ValueError("an annotation's result must be a list of objects")
    found: dict[str, list[str]] = {LABEL_A: [], LABEL_B: [], COMMENT: []}
    for item in result:
        name, value = item.get("from_name"), item.get("value")
        if name not in found:
            continue
        if not isinstance(value, dict):
            raise ValueError(f"the result of {name} holds no value")
        if name == COMMENT:
            found[name].append(rows.joined(value.get("text"), name))
        else:
            found[name].append(rows.one_label(value.get("choices"), name))
    if result and not any(found.values()):
        names = ", ".join(sorted({str(item.get("from_name"))[:30] for item in result}))
        raise ValueError(
            f"answers to {names}, none to {LABEL_A} or {LABEL_B}; label with the configuration "
            "that was exported"
        )
    a, b = (rows.one_label([x for x in found[n] if x], n) for n in (LABEL_A, LABEL_B))
    return (a, b), "\n".join(found[COMMENT])


def _person(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        return rows.as_text(by, "email") or rows.as_text(by, "id")
    return rows.as_text(annotation, "completed_by")


def _time(annotation: Mapping[str, Any]) -> str:
    return rows.as_text(annotation, "updated_at") or rows.as_text(annotation, "created_at")


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


def _short_rows(
    record: Mapping[str, Any], position: str, source: str
) -> Iterator[RawVerdict | Rejected]:
    """Yield the rows of a JSON_MIN record: the task's data and one annotation in one object."""
    at = rows.place(position, f"annotation {record.get('annotation_id', '?')}")
    try:
        labels = tuple(_short_label(record.get(name), name) for name in (LABEL_A, LABEL_B))
        comment = rows.joined(record.get(COMMENT), COMMENT)
        said = Said(rows.as_text(record, "annotator"), _time(record), comment, source, at)
    except ValueError as error:
        yield rows.unreadable(str(error), source, at)
        return
    yield from _pair(record, (labels[0], labels[1]), said)


def _short_label(value: Any, name: str) -> str:
    # Several choices, which our configuration does not allow, come as {"choices": [...]}.
    return rows.one_label(value.get("choices") if isinstance(value, dict) else value, name)


def _pair(
    data: Mapping[str, Any], labels: tuple[str, str], said: Said
) -> Iterator[RawVerdict | Rejected]:
    try:
        yield from rows.pair_verdicts(data, labels, said)
    except ValueError as error:
        yield rows.unreadable(str(error), said.source, said.position)


def _read_table(text: str, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
    header = text.split("\n", 1)[0]
    missing = [name for name in ("annotation_id", "annotator", "pair_id") if name not in header]
    if missing:
        raise RunFailed(
            f"{source}: neither JSON nor a table with the columns {', '.join(missing)}; {_EXPORT}"
        )
    yield from sorted(_sided(read_csv(data, source)), key=_row_changed)


def _sided(table: Iterator[RawVerdict | Rejected]) -> Iterator[RawVerdict | Rejected]:
    """Name the sides of a table's rows.

    Where columns name the ads, the reader of tables takes a and b for no sides; here they are. A record
    gives its left ad, then its right one.
    """
    before = ""
    for row in table:
        if isinstance(row, RawVerdict):
            row = dataclasses.replace(
                row,
                side=RIGHT if row.position == before else LEFT,
                ad_id=rows.comparable(row.ad_id),
                text=rows.comparable(row.text),
            )
            before = row.position
        yield row


def _row_changed(row: RawVerdict | Rejected) -> datetime.datetime:
    return _moment(row.time) if isinstance(row, RawVerdict) else _NEVER
