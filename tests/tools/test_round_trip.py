"""For every tool: exported, answered in the tool's own format, imported: the same verdicts.

The tools are played here by functions that know their formats from their documentation, take what
they show from the exported files alone, and add to their answers what the real ones add: snapshots of
predictions (of the opposite label), drafts, hashes, their own ids.
"""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts import Rejected
from pipelines.errors import RunFailed
from pipelines.tools import argilla, doccano, label_studio, prodigy, sheet
from pipelines.tools.batch import Batch
from pipelines.verdicts.halves import latest
from pipelines.verdicts.rows import RawVerdict
from tests.tools import ALIASES, batch_of, lines, understood

POSITIVE, NEGATIVE, SKIP = 0, 1, 2
HOSTILE_LABELS = ('bait & <"switch">', "$text_b {{fine}}")


@dataclass(frozen=True, slots=True)
class Event:
    """An expert answers a pair: which choice for each side, None for none.

    Later events of one expert on one pair replace earlier ones.
    """

    expert: str
    pair: int
    left: int | None
    right: int | None
    skipped: bool = False
    comment: str = ""


# Two experts; one skip of a pair and one of an ad, one half answer, one answer given twice.
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
        if event.pair == HALF and event.expert == "anna":
            continue
        if event.skipped and not skips:
            continue
        pair = batch.pairs[event.pair]
        for side, choice in ((pair.left, event.left), (pair.right, event.right)):
            found[side.id, event.expert] = "skip" if choice is None else names[choice]
    return found


def final() -> list[Event]:
    """Return the events without those that a later one replaces, as tools without history do."""
    last = {(event.expert, event.pair): event for event in EVENTS}
    return [event for event in EVENTS if last[event.expert, event.pair] is event]


def moment(number: int) -> str:
    return f"2026-11-22T10:00:00.{number:06d}Z"


# --- the tools, played ------------------------------------------------------------------------


def choices_of(files: dict[str, bytes]) -> list[str]:
    root = ET.fromstring(files["config.xml"])
    [control] = [tag for tag in root.iter("Choices") if tag.get("name") == "label_a"]
    return [tag.attrib["value"] for tag in control.iter("Choice")]


def chosen(name: str, choice: str) -> dict[str, Any]:
    return {
        "id": "x1",
        "from_name": f"label_{name}",
        "to_name": f"text_{name}",
        "type": "choices",
        "origin": "manual",
        "value": {"choices": [choice]},
    }


def studio_tasks(files: dict[str, bytes], people: dict[str, Any]) -> list[dict[str, Any]]:
    words = choices_of(files)
    tasks = []
    for number, task in enumerate(json.loads(files["tasks.json"])):
        annotations = []
        for place, event in enumerate(EVENTS):
            if event.pair != number:
                continue
            sides = [("a", event.left), ("b", event.right)]
            result = [chosen(name, words[c]) for name, c in sides if c is not None]
            opposite = [chosen(name, words[1 - c]) for name, c in sides if c in (0, 1)]
            if event.comment:
                text = {"text": [event.comment]}
                result.append(
                    {
                        "from_name": "rationale",
                        "to_name": "text_a",
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
        draft = {"id": 1, "result": [chosen("a", words[0])], "user": "anna@example.org"}
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


def play_studio(files: dict[str, bytes]) -> bytes:
    return json.dumps(studio_tasks(files, {"anna": 3, "bo": 4})).encode()


def play_studio_snapshot(files: dict[str, bytes]) -> bytes:
    people = {
        name: {"id": n, "email": f"{name}@example.org", "first_name": "", "last_name": ""}
        for n, name in enumerate(("bo", "anna"), start=3)
    }
    return json.dumps(studio_tasks(files, people), ensure_ascii=False).encode()


def short_records(files: dict[str, bytes]) -> list[dict[str, Any]]:
    records = []
    for task in studio_tasks(files, {"anna": 3, "bo": 4}):
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


def play_studio_short(files: dict[str, bytes]) -> bytes:
    return json.dumps(short_records(files), indent=2, ensure_ascii=False).encode()


def play_studio_table(files: dict[str, bytes], delimiter: str = ",") -> bytes:
    records = short_records(files)
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


def play_argilla(files: dict[str, bytes]) -> bytes:
    uuids = {name: uuid for uuid, name in ALIASES.items() if uuid.startswith("0c5e")}
    questions = {q["name"]: q for q in json.loads(files["settings.json"])["questions"]}
    words = [option["value"] for option in questions["label_a"]["settings"]["options"]]
    exported = []
    for number, record in enumerate(lines(files["records.jsonl"])):
        flat = {
            "id": record["id"],
            "status": "completed",
            "_server_id": "0c5e6a3e-7b0f-4bd4-8b5a-4a5f6a1d2cff",
            **record["fields"],
            **record["metadata"],
            "label_a.suggestion": words[1],
            "label_a.suggestion.score": 0.9,
            "label_a.suggestion.agent": "m",
        }
        events = [event for event in final() if event.pair == number]
        for name in ("label_a", "label_b", "comment"):
            for event in events:
                choice = event.left if name == "label_a" else event.right
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
        for name in ("label_a", "label_b"):
            flat[f"{name}.responses"].append(words[1])
            flat[f"{name}.responses.users"].append("0c5e6a3e-7b0f-4bd4-8b5a-4a5f6a1d2c99")
            flat[f"{name}.responses.status"].append("draft")
        exported.append(flat)
    names = {name for record in exported for name in record}
    exported = [dict.fromkeys(names - set(record)) | record for record in exported]
    return json.dumps(exported).encode()


def play_doccano(files: dict[str, bytes]) -> bytes:
    words = [label["text"] for label in json.loads(files["labels.json"])]
    examples = lines(files["examples.jsonl"])
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for expert in ("bo", "anna"):
            events = {event.pair: event for event in final() if event.expert == expert}
            rows = []
            for number, example in enumerate(examples):
                event = events[number // 2]
                choice = event.left if example["side"] == "left" else event.right
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
    return sink.getvalue()


def play_prodigy(files: dict[str, bytes]) -> bytes:
    tasks = lines(files["tasks.jsonl"])
    answers = []
    for place, event in enumerate(EVENTS):
        for task in tasks[2 * event.pair : 2 * event.pair + 2]:
            words = [option["id"] for option in task["options"]]
            choice = event.left if task["side"] == "left" else event.right
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
    return "".join(json.dumps(answer) + "\n" for answer in answers[::-1]).encode()


def play_sheet(files: dict[str, bytes], words: Sequence[str]) -> bytes:
    text = files["review.csv"].decode("utf-8-sig")
    header, *body = csv.reader(io.StringIO(text, newline=""))
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(header)
    for event in EVENTS:
        for row in body[2 * event.pair : 2 * event.pair + 2]:
            cells = dict(zip(header, row, strict=True))
            choice = event.left if cells["side"] == "left" else event.right
            if choice is None and not event.skipped:
                # Not reached yet: an empty row.
                writer.writerow(row)
                continue
            cells["label"] = "" if choice in (None, SKIP) else words[choice]
            cells |= {"expert": event.expert, "comment": event.comment}
            writer.writerow(cells.values())
    return b"\xef\xbb\xbf" + sink.getvalue().encode()


ROUTES: dict[str, tuple[Any, Callable[[dict[str, bytes]], bytes], bool]] = {
    "label-studio": (label_studio, play_studio, True),
    "label-studio snapshot": (label_studio, play_studio_snapshot, True),
    "label-studio JSON_MIN": (label_studio, play_studio_short, False),
    "label-studio CSV": (label_studio, play_studio_table, False),
    "label-studio TSV": (label_studio, lambda files: play_studio_table(files, "\t"), False),
    "argilla": (argilla, play_argilla, True),
    "doccano": (doccano, play_doccano, True),
    "prodigy": (prodigy, play_prodigy, True),
    "csv": (sheet, lambda files: play_sheet(files, HOSTILE_LABELS), True),
}

SNIPPETS = (
    "\u202eevil\u202c \u2066isolate",
    "a\0b",
    "\0",
    "=cmd|'/c calc'!A1",
    "+1\t-2",
    "@SUM(A1)\r\n=1",
    "'=quoted already",
    '"; DROP TABLE ads; --',
    "one\rtwo\nthree\r\nfour\u2028five\u0085six\x0b\x0cseven",
    "word " * 2_000,
    "x" * 10_000,
    '{"pair_id": "pair_0", "label_a": "bait"}',
    "]}, <![CDATA[ </View> & &amp; <script>alert(1)</script>",
    "$text_a $policy ${text_b} $$ {{ad}} {% raw %} {0} %s",
    "\ufeffbom \u200bzero\u200d width \u00ad",
    "\U0001f469\u200d\U0001f469\u200d\U0001f466 e\u0301\u0301\u0301 \U000e0041",
    "null",
    "12345678901234567890",
    "\ufffd",
    "a,b;c\td|e",
)
TEXTS = st.one_of(
    st.sampled_from(SNIPPETS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.builds("".join, st.lists(st.sampled_from(SNIPPETS[:9]), max_size=3)),
)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(TEXTS, min_size=8, max_size=8), ids=st.lists(TEXTS, min_size=8, max_size=8))
def test_answers_come_back_as_they_were_given(route: str, texts: list[str], ids: list[str]) -> None:
    tool, play, skips = ROUTES[route]
    # Different ads under different ids, as a corpus gives them.
    ads = [
        (f"{id[:200]}#{n}", f"{text} #{n}")
        for n, (id, text) in enumerate(zip(ids, texts, strict=True))
    ]
    batch = batch_of(ads, shown=route != "csv", labels=HOSTILE_LABELS)
    files = tool.export(batch)
    assert files == tool.export(batch)
    resolved = understood(tool.read(play(files), "answers"), batch)
    assert {r.reason for r in resolved.rejected} == {"half_pair"}, resolved.rejected
    assert [r.excerpt.split(" | ")[0] for r in resolved.rejected] == [batch.pairs[HALF].pair_id]
    found = {(v.ad_id, v.expert): v.label for v in latest(resolved.verdicts)}
    assert found == wanted(batch, skips)
    comments = {v.comment for v in resolved.verdicts if v.comment}
    assert comments == {EVENTS[0].comment}


@pytest.mark.parametrize("route", ROUTES)
def test_swapped_label_names_swap_the_verdicts(route: str) -> None:
    # The tools' answers are words: read for another task, they mean the opposite.
    tool, play, skips = ROUTES[route]
    ads = [(f"a{n}", f"ad number {n}") for n in range(8)]
    batch = batch_of(ads, labels=HOSTILE_LABELS)
    swapped = batch_of(ads, labels=HOSTILE_LABELS[::-1])
    answers = play(tool.export(batch))
    resolved = understood(tool.read(answers, "f"), swapped)
    other = {"positive": "negative", "negative": "positive", "skip": "skip"}
    found = {(v.ad_id, v.expert): other[v.label] for v in latest(resolved.verdicts)}
    assert found == wanted(batch, skips)


@pytest.mark.parametrize("route", ROUTES)
def test_answers_to_other_pairs_are_dead_letters(route: str) -> None:
    tool, play, _ = ROUTES[route]
    ads = [(f"a{n}", f"ad number {n}") for n in range(8)]
    answers = play(tool.export(batch_of(ads, labels=HOSTILE_LABELS)))
    # Other texts under the same ids, and other pairs of the same ads.
    edited = batch_of([(id, f"{text}, edited") for id, text in ads], labels=HOSTILE_LABELS)
    shuffled = batch_of(ads[1:] + ads[:1], labels=HOSTILE_LABELS)
    strange = batch_of([("x1", "x"), ("x2", "y")], labels=HOSTILE_LABELS)
    for batch, reasons in (
        (edited, {"text_mismatch"}),
        (shuffled, {"unknown_ad", "ambiguous_ad"}),
        (strange, {"unknown_item", "unknown_ad"}),
    ):
        resolved = understood(tool.read(answers, "f"), batch)
        assert not resolved.verdicts
        assert resolved.rejected and {r.reason for r in resolved.rejected} <= reasons


@pytest.mark.parametrize("tool", [label_studio, argilla, doccano, prodigy, sheet])
@settings(max_examples=60, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=80), st.text(max_size=80).map(lambda s: s.encode("utf-8", "replace"))
    )
)
def test_any_bytes_give_rows_or_a_clear_error(tool: Any, data: bytes) -> None:
    for start in (
        b"",
        b"[",
        b'[{"data": {"pair_id": "p"}, "annotations": [',
        b'{"answer": ',
        b"PK\x03\x04",
    ):
        assert rows_or_words(tool, start + data)


def rows_or_words(tool: Any, data: bytes) -> bool:
    try:
        return all(isinstance(row, RawVerdict | Rejected) for row in tool.read(data, "f"))
    except RunFailed as error:
        return error.message.startswith("f: ")


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("\ud800")
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "route",
    [r for r in ROUTES if "CSV" not in r and "TSV" not in r and r not in ("csv", "doccano")],
)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_value_in_any_place_costs_its_own_task_only(route: str, data: st.DataObject) -> None:
    tool, play, _ = ROUTES[route]
    ads = [(f"a{n}", f"ad number {n}") for n in range(8)]
    batch = batch_of(ads, labels=HOSTILE_LABELS)
    answers = play(tool.export(batch))
    records = lines(answers) if route == "prodigy" else json.loads(answers)
    spoiled = records[0]
    pair_id = spoiled.get("pair_id") or spoiled["data"]["pair_id"]
    # Walk to a random place and put a random value there.
    here: Any = spoiled
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = data.draw(st.sampled_from(keys))
        deeper = isinstance(here[key], dict | list) and here[key] and data.draw(st.booleans())
        if not deeper:
            here[key] = data.draw(JSON)
            break
        here = here[key]
    text = json.dumps(records) if route != "prodigy" else "\n".join(map(json.dumps, records))
    resolved = understood(tool.read(text.encode(), "f"), batch)
    for row in resolved.rejected:
        row.detail.encode() and row.position.encode() and row.excerpt.encode()
    found = {(v.ad_id, v.expert): v.label for v in latest(resolved.verdicts)}
    for pair in batch.pairs:
        if pair.pair_id != pair_id:
            for side in (pair.left, pair.right):
                for expert in ("anna", "bo"):
                    expected = wanted(batch, skips=route != "label-studio JSON_MIN")
                    assert found.get((side.id, expert)) == expected.get((side.id, expert))
