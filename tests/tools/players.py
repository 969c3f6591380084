"""The labeling tools, played: what they make of exported files once experts have answered.

They know their formats from their documentation, take what they show from the exported files alone, and
add to their answers what the real ones add: snapshots of predictions (of the opposite label), drafts,
hashes, their own ids.
"""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipelines.tools import registry
from pipelines.tools.batch import Batch
from tests.tools import ALIASES, lines

POSITIVE, NEGATIVE, SKIP = 0, 1, 2
HOSTILE_LABELS = ('bait & <"switch">', "$text_b {{fine}}")


@dataclass(frozen=True, slots=True)
class Event:
    """An expert answers an item: which choice for each side, None for none.

    A single ad has no right side. Later events of one expert on one item replace earlier ones.
    """

    expert: str
    item: int
    left: int | None
    right: int | None
    skipped: bool = False
    comment: str = ""


# Two experts; one skip of an item and one of an ad, one half answer, one answer given twice.
EVENTS = (
    Event("anna", 0, POSITIVE, NEGATIVE, comment='"=1+1\n$text_a'),
    Event("bo", 0, POSITIVE, POSITIVE),
    Event("anna", 1, None, None, skipped=True),
    Event("bo", 1, NEGATIVE, SKIP),
    Event("anna", 2, POSITIVE, None),
    Event("bo", 2, NEGATIVE, POSITIVE),
    Event("anna", 3, POSITIVE, POSITIVE),
    Event("bo", 3, NEGATIVE, NEGATIVE),
    Event("anna", 3, NEGATIVE, POSITIVE),
)
HALF = 2


def wanted(batch: Batch, skips: bool = True) -> dict[tuple[str, str], str]:
    """Return (ad, expert) -> label as the events say, counted without any of the readers."""
    names = ("positive", "negative", "skip")
    found = {}
    for event in EVENTS:
        item = batch.items[event.item]
        if is_half(event, batch) or (event.skipped and not skips):
            continue
        for ad, choice in zip(item.ads, (event.left, event.right), strict=False):
            found[ad.id, event.expert] = "skip" if choice is None else names[choice]
    return found


def is_half(event: Event, batch: Batch) -> bool:
    """Tell whether an event leaves an ad of its pair without an answer."""
    return event.item == HALF and event.expert == "anna" and len(batch.items[HALF].ads) == 2


def final() -> list[Event]:
    """Return the events without those that a later one replaces, as tools without history do."""
    last = {(event.expert, event.item): event for event in EVENTS}
    return [event for event in EVENTS if last[event.expert, event.item] is event]


def number_of(item_id: str) -> int:
    """Return the place in the batch of an item of these tests."""
    return int(item_id.partition("_")[2], 16)


def slots_of(fields: dict[str, Any]) -> list[str]:
    """Return what is behind ``label`` and ``text`` in the names of a task's fields."""
    return ["_a", "_b"] if "text_a" in fields else [""]


def moment(number: int) -> str:
    return f"2026-11-22T10:00:00.{number:06d}Z"


# --- the tools, played ------------------------------------------------------------------------


def choices_of(config: bytes) -> list[str]:
    control = next(ET.fromstring(config).iter("Choices"))
    return [tag.attrib["value"] for tag in control.iter("Choice")]


def chosen(name: str, choice: str) -> dict[str, Any]:
    return {
        "id": "x1",
        "from_name": f"label{name}",
        "to_name": f"text{name}",
        "type": "choices",
        "origin": "manual",
        "value": {"choices": [choice]},
    }


def studio_projects(
    files: dict[str, bytes], people: dict[str, Any]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the tasks of each project that is made of the files."""
    for suffix in ("", "-single"):
        if f"tasks{suffix}.json" in files:
            words = choices_of(files[f"config{suffix}.xml"])
            yield studio_tasks(json.loads(files[f"tasks{suffix}.json"]), words, people)


def studio_tasks(
    exported: list[dict[str, Any]], words: list[str], people: dict[str, Any]
) -> list[dict[str, Any]]:
    tasks = []
    for task in exported:
        number, slots = number_of(task["data"]["item_id"]), slots_of(task["data"])
        annotations = []
        for place, event in enumerate(EVENTS):
            if event.item != number:
                continue
            sides = list(zip(slots, (event.left, event.right), strict=False))
            result = [chosen(name, words[c]) for name, c in sides if c is not None]
            opposite = [chosen(name, words[1 - c]) for name, c in sides if c in (0, 1)]
            if event.comment:
                text = {"text": [event.comment]}
                result.append(
                    {
                        "from_name": "rationale",
                        "to_name": f"text{slots[0]}",
                        "type": "textarea",
                        "value": text,
                    }
                )
            annotations.append(
                {
                    "id": 100 + place,
                    "completed_by": people[event.expert],
                    "result": result,
                    "was_cancelled": event.skipped,
                    "created_at": moment(0),
                    "updated_at": moment(place),
                    "lead_time": 3.5,
                    "prediction": {"model_version": "m", "result": opposite},
                }
            )
        draft = {"id": 1, "result": [chosen(slots[0], words[0])], "user": "anna@example.org"}
        # The newest first: what counts is the time, not the order.
        tasks.append(
            {
                "id": 17 + number,
                "data": task["data"],
                "annotations": annotations[::-1],
                "drafts": [draft],
                "predictions": [5],
            }
        )
    return tasks


def play_studio(files: dict[str, bytes]) -> list[bytes]:
    projects = studio_projects(files, {"anna": 3, "bo": 4})
    return [json.dumps(tasks).encode() for tasks in projects]


def play_studio_snapshot(files: dict[str, bytes]) -> list[bytes]:
    people = {
        name: {"id": n, "email": f"{name}@example.org", "first_name": "", "last_name": ""}
        for n, name in enumerate(("bo", "anna"), start=3)
    }
    projects = studio_projects(files, people)
    return [json.dumps(tasks, ensure_ascii=False).encode() for tasks in projects]


def short_records(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    records = []
    for task in tasks:
        for annotation in task["annotations"]:
            if annotation["was_cancelled"]:
                continue
            record = {**task["data"], "id": task["id"]}
            for item in annotation["result"]:
                [value] = item["value"].values()
                record[item["from_name"]] = value[0]
            record["annotator"] = annotation["completed_by"]
            record["annotation_id"] = annotation["id"]
            record |= {name: annotation[name] for name in ("created_at", "updated_at")}
            records.append(record)
    # The newest of a task first, as Label Studio lists them.
    return records


def play_studio_short(files: dict[str, bytes]) -> list[bytes]:
    projects = studio_projects(files, {"anna": 3, "bo": 4})
    return [json.dumps(short_records(tasks), ensure_ascii=False).encode() for tasks in projects]


def play_studio_table(files: dict[str, bytes], delimiter: str = ",") -> list[bytes]:
    projects = studio_projects(files, {"anna": 3, "bo": 4})
    return [studio_table(short_records(tasks), delimiter) for tasks in projects]


def studio_table(records: list[dict[str, Any]], delimiter: str) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(
        sink,
        sorted({name for record in records for name in record}),
        quoting=csv.QUOTE_NONNUMERIC,
        delimiter=delimiter,
    )
    writer.writeheader()
    writer.writerows(records)
    return sink.getvalue().encode()


def play_argilla(files: dict[str, bytes]) -> list[bytes]:
    return [
        argilla_export(lines(files[f"records{suffix}.jsonl"]), files[f"settings{suffix}.json"])
        for suffix in ("", "-single")
        if f"records{suffix}.jsonl" in files
    ]


def argilla_export(records: list[dict[str, Any]], settings: bytes) -> bytes:
    uuids = {name: uuid for uuid, name in ALIASES.items() if uuid.startswith("0c5e")}
    first, *_ = json.loads(settings)["questions"]
    words = [option["value"] for option in first["settings"]["options"]]
    exported = []
    for record in records:
        number, slots = number_of(record["id"]), slots_of(record["fields"])
        flat = {
            "id": record["id"],
            "status": "completed",
            "_server_id": "0c5e6a3e-7b0f-4bd4-8b5a-4a5f6a1d2cff",
            **record["fields"],
            **record["metadata"],
            f"{first['name']}.suggestion": words[1],
            f"{first['name']}.suggestion.score": 0.9,
            f"{first['name']}.suggestion.agent": "m",
        }
        events = [event for event in final() if event.item == number]
        labels = [f"label{slot}" for slot in slots]
        for name in (*labels, "comment"):
            for event in events:
                choice = event.left if name == labels[0] else event.right
                value = None if choice is None else words[choice]
                if name == "comment":
                    value = event.comment or None
                if value is None and not event.skipped:
                    continue
                flat.setdefault(f"{name}.responses", []).append(value)
                flat.setdefault(f"{name}.responses.users", []).append(uuids[event.expert])
                state = "discarded" if event.skipped else "submitted"
                flat.setdefault(f"{name}.responses.status", []).append(state)
        # Somebody has begun, with the opposite of everything.
        for name in labels:
            flat[f"{name}.responses"].append(words[1])
            flat[f"{name}.responses.users"].append("0c5e6a3e-7b0f-4bd4-8b5a-4a5f6a1d2c99")
            flat[f"{name}.responses.status"].append("draft")
        exported.append(flat)
    names = {name for record in exported for name in record}
    exported = [dict.fromkeys(names - set(record)) | record for record in exported]
    return json.dumps(exported).encode()


def play_doccano(files: dict[str, bytes]) -> list[bytes]:
    words = [label["text"] for label in json.loads(files["labels.json"])]
    examples = lines(files["examples.jsonl"])
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for expert in ("bo", "anna"):
            events = {event.item: event for event in final() if event.expert == expert}
            rows = []
            for number, example in enumerate(examples):
                event = events[number_of(example["item_id"])]
                choice = event.right if example["side"] == "right" else event.left
                labels = [] if choice is None else [words[choice]]
                if event.skipped:
                    labels = [words[SKIP]]
                meta = {k: v for k, v in example.items() if k not in ("text", "label")}
                comments = [event.comment] if event.comment else []
                text = {"id": number + 1, "text": example["text"]}
                rows.append(
                    {**text, **meta, "label": labels, "Comments": comments, "model_label": "x"}
                )
            frame = pd.DataFrame(rows)
            archive.writestr(
                f"{expert}.jsonl", frame.to_json(orient="records", force_ascii=False, lines=True)
            )
    return [sink.getvalue()]


def play_prodigy(files: dict[str, bytes]) -> list[bytes]:
    tasks = lines(files["tasks.jsonl"])
    answers = []
    for place, event in enumerate(EVENTS):
        for task in (task for task in tasks if number_of(task["item_id"]) == event.item):
            words = [option["id"] for option in task["options"]]
            choice = event.right if task["side"] == "right" else event.left
            if choice is None and not event.skipped:
                continue
            # Who ignores a task may have chosen something before.
            accept = [words[0 if choice is None else choice]]
            answers.append(
                {
                    **task,
                    "meta": {**task["meta"], "model_label": words[1]},
                    "accept": accept,
                    "answer": "ignore" if event.skipped else "accept",
                    "comment": event.comment,
                    "_timestamp": 1763800000 + place,
                    "_annotator_id": f"tiny-1-{event.expert}",
                    "_session_id": f"tiny-1-{event.expert}",
                }
            )
    # Newer versions list the newest first.
    return ["".join(json.dumps(answer) + "\n" for answer in answers[::-1]).encode()]


def play_sheet(files: dict[str, bytes]) -> list[bytes]:
    words = HOSTILE_LABELS
    text = files["review.csv"].decode("utf-8-sig")
    header, *body = csv.reader(io.StringIO(text, newline=""))
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(header)
    for event in EVENTS:
        for row in (row for row in body if number_of(row[0]) == event.item):
            cells = dict(zip(header, row, strict=True))
            choice = event.right if cells["side"] == "right" else event.left
            if choice is None and not event.skipped:
                # Not reached yet: an empty row.
                writer.writerow(row)
                continue
            cells["label"] = "" if choice in (None, SKIP) else words[choice]
            cells |= {"expert": event.expert, "comment": event.comment}
            writer.writerow(cells.values())
    return [b"\xef\xbb\xbf" + sink.getvalue().encode()]


def play_page(files: dict[str, bytes]) -> list[bytes]:
    """Return what the page saves; tests/real_tools/browser has it done by a browser."""
    saved = []
    answers = ("positive", "negative", "unsure")
    for expert in ("anna", "bo"):
        events = {event.item: event for event in final() if event.expert == expert}
        for page in files.values():
            script = page.decode().partition('id="data">')[2].partition("</script>")[0]
            data = json.loads(script)
            rows = []
            for item in data["items"]:
                event = events[number_of(item["id"])]
                for ad in item["ads"]:
                    choice = event.right if ad["side"] == "right" else event.left
                    row = {name: ad[name] for name in ("side", "key", "text")}
                    row |= {"item_id": item["id"], "ad_id": ad["id"], "comment": event.comment}
                    row["answer"] = "" if choice is None else answers[choice]
                    row["answer"] = "skip" if event.skipped else row["answer"]
                    rows.append(row | {"time": "2026-11-22T14:05:00.250Z"})
            head = {"format": "ad-scout review page verdicts", "format_version": 2}
            content = {**head, "labels": data["labels"], "expert": expert, "rows": rows}
            saved.append(json.dumps(content).encode())
    return saved


@dataclass(frozen=True, slots=True)
class Route:
    """A way through a tool: which one, how it is played, whether skips come back."""

    tool: str
    play: Callable[[dict[str, bytes]], list[bytes]]
    skips: bool = True

    def through(self, batch: Batch) -> list[bytes]:
        """Return the answers to a batch, as files."""
        return self.play(registry.get(self.tool).export(batch))

    def read(self, files: list[bytes]) -> list[Any]:
        """Return the rows of all files."""
        return [row for data in files for row in registry.get(self.tool).read(data, "f")]


ROUTES = {
    "page": Route("page", play_page),
    "csv": Route("csv", play_sheet),
    "label-studio": Route("label-studio", play_studio),
    "label-studio snapshot": Route("label-studio", play_studio_snapshot),
    "label-studio JSON_MIN": Route("label-studio", play_studio_short, skips=False),
    "label-studio CSV": Route("label-studio", play_studio_table, skips=False),
    "label-studio TSV": Route(
        "label-studio", lambda files: play_studio_table(files, "\t"), skips=False
    ),
    "argilla": Route("argilla", play_argilla),
    "doccano": Route("doccano", play_doccano),
    "prodigy": Route("prodigy", play_prodigy),
}
