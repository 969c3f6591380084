"""Experts, labels, gaps and ids mean the same in every tool's files, out and back."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines.text import content_key
from pipelines.tools import registry
from pipelines.tools.batch import Batch
from pipelines.tools.outgoing import label_words
from pipelines.verdicts.resolve_rows import Resolved
from pipelines.verdicts.rows import RawVerdict
from tests.tools import ADS, batch_of, said, understood

ITEM = "pair_0000000000000000"
(ID_A, TEXT_A), (ID_B, TEXT_B) = ADS[:2]


def pair(label: Any, gap: Any, **more: Any) -> dict[str, Any]:
    """Return a flat record of the first pair; ``gap`` stands where nothing is said."""
    return {
        "item_id": ITEM,
        "id_a": ID_A,
        "text_a": gap,
        "id_b": ID_B,
        "text_b": TEXT_B,
        "label_a": label,
        "label_b": label,
        **more,
    }


def label_studio(label: Any, expert: Any, gap: Any) -> bytes:
    results = [
        {"from_name": name, "type": "choices", "value": {"choices": [label]}}
        for name in ("label_a", "label_b")
    ]
    annotation = {"id": 1, "completed_by": expert, "result": results, "updated_at": gap}
    data = {name: value for name, value in pair("", gap).items() if "label" not in name}
    return json.dumps([{"id": 1, "data": data, "annotations": [annotation]}]).encode()


def snapshot(label: Any, expert: Any, gap: Any) -> bytes:
    [task] = json.loads(label_studio(label, expert, gap))
    task["annotations"][0]["completed_by"] = {"id": expert, "email": gap}
    return json.dumps([task]).encode()


def json_min(label: Any, expert: Any, gap: Any) -> bytes:
    more = {"annotator": expert, "annotation_id": 1, "updated_at": gap, "rationale": gap}
    # A data frame of pairs and single ads.
    more |= {"text": gap, "ad_id": gap, "label": gap}
    return json.dumps([pair(label, gap) | more]).encode()


def argilla(label: Any, expert: Any, gap: Any) -> bytes:
    record = {name: value for name, value in pair("", gap).items() if "label" not in name}
    for name in ("label_a", "label_b"):
        parts = {"": label, ".users": expert, ".status": "submitted"}
        record |= {f"{name}.responses{part}": [value] for part, value in parts.items()}
    record |= {"comment.responses": None, "pair_id": gap}
    return json.dumps([record]).encode()


def singles(gap: Any, **more: Any) -> list[dict[str, Any]]:
    return [
        {"item_id": ITEM, "side": side, "ad_id": id, "text": text, **more}
        for side, id, text in (("left", ID_A, gap), ("right", gap, TEXT_B))
    ]


def doccano(label: Any, expert: Any, gap: Any) -> bytes:
    records = singles(gap, label=[label], id=1, user=expert, Comments=[], pair_id=gap)
    return "\n".join(map(json.dumps, records)).encode()


def prodigy(label: Any, expert: Any, gap: Any) -> bytes:
    more = {"answer": "accept", "accept": [label], "_timestamp": gap, "_annotator_id": gap}
    records = singles(gap, **more, _session_id=expert, comment=gap)
    return "\n".join(map(json.dumps, records)).encode()


def json_lines(label: Any, expert: Any, gap: Any) -> bytes:
    records = singles(gap, label=label, expert=expert, time=gap, comment=gap, skipped=gap)
    return "\n".join(map(json.dumps, records)).encode()


def sheet(label: Any, expert: Any, gap: Any) -> bytes:
    spelled = "" if gap is None else str(gap)
    rows = singles(spelled, label=label, expert=expert, time=spelled, comment=spelled)
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def page(label: Any, expert: Any, gap: Any) -> bytes:
    rows = [
        {"item_id": ITEM, "side": side, "ad_id": id, "text": text, "key": content_key(text)}
        | {"answer": "positive", "time": gap, "comment": gap}
        for side, id, text in (("left", ID_A, TEXT_A), ("right", ID_B, TEXT_B))
    ]
    document = {"format": "ad-scout review page verdicts", "format_version": 2}
    labels = {"positive": label, "negative": "fine"}
    return json.dumps({**document, "labels": labels, "expert": str(expert), "rows": rows}).encode()


Made = Callable[[Any, Any, Any], bytes]
READERS: dict[str, tuple[str, Made]] = {
    "label-studio": ("label-studio", label_studio),
    "label-studio snapshot": ("label-studio", snapshot),
    "label-studio JSON_MIN": ("label-studio", json_min),
    "argilla": ("argilla", argilla),
    "doccano": ("doccano", doccano),
    "prodigy": ("prodigy", prodigy),
    "jsonl": ("jsonl", json_lines),
    "csv": ("csv", sheet),
    "page": ("page", page),
}
each = pytest.mark.parametrize("name", READERS)


def read(name: str, label: Any, expert: Any, gap: Any = "", batch: Batch | None = None) -> Resolved:
    tool, made = READERS[name]
    return understood(registry.get(tool).read(made(label, expert, gap), "f"), batch)


def test_every_reader_is_here() -> None:
    assert {tool for tool, _ in READERS.values()} == set(registry.names())


@each
@pytest.mark.parametrize("expert", [8, 8.0, "8", "8.0", " 8", "８", "08", "8,0", "8\u200b"])
def test_a_number_is_one_expert(name: str, expert: Any) -> None:
    assert said(read(name, "bait", expert)) == [(ID_A, "positive", "8"), (ID_B, "positive", "8")]


@each
@pytest.mark.parametrize(
    "expert", ["Cleo@Example.org", "cleo@example.ORG ", "cleo@example\u200b.org"]
)
def test_an_address_is_one_expert(name: str, expert: str) -> None:
    assert {v.expert for v in read(name, "bait", expert).verdicts} == {"cleo@example.org"}


@each
@pytest.mark.parametrize("expert", ["NaN", "nan", "<NA>", "None", "null", "#N/A", "NaT", "NA"])
def test_what_stands_for_nobody_names_nobody(name: str, expert: str) -> None:
    found = read(name, "bait", expert)
    assert found.verdicts == ()
    assert {r.reason for r in found.rejected} == {"blank_expert"}


@each
def test_null_and_a_truth_value_name_nobody(name: str) -> None:
    if name not in ("csv", "page"):
        assert read(name, "bait", None).verdicts == read(name, "bait", float("nan")).verdicts == ()
    assert read(name, "bait", True).verdicts == ()


@each
@pytest.mark.parametrize(
    "gap", [None, float("nan"), "NaN", "nan", "NA", "<NA>", "NaT", "None", "#N/A"]
)
def test_missing_is_missing(name: str, gap: Any) -> None:
    if name == "csv" and gap is None:
        gap = ""
    found = read(name, "bait", "cleo", gap)
    assert said(found) == [(ID_A, "positive", "cleo"), (ID_B, "positive", "cleo")]
    assert {(v.time, v.comment) for v in found.verdicts} == {("", "")}
    assert (found.rejected, found.unanswered) == ((), 0)


@each
@pytest.mark.parametrize(
    "label",
    ["Café gut", "Cafe\u0301 gut", "ＣＡＦＥ\u0301 gut", "café\u200b  gut", "\u200fCafé gut"],
)
def test_a_label_is_one_name(name: str, label: str) -> None:
    batch = batch_of(labels=("Cafe\u0301 gut", "fine"))
    assert {v.label for v in read(name, label, "cleo", batch=batch).verdicts} == {"positive"}


@pytest.mark.parametrize("name", [name for name in READERS if name != "page"])
@pytest.mark.parametrize("label", ["none", "None", "NONE"])
def test_a_label_that_is_called_like_a_gap_is_a_label(name: str, label: str) -> None:
    batch = batch_of(labels=("bait", "none"))
    found = read(name, label, "cleo", batch=batch)
    assert said(found) == [(ID_A, "negative", "cleo"), (ID_B, "negative", "cleo")]
    # Of any other task it is an empty answer with a name: nobody can tell.
    assert {v.label for v in read(name, label, "cleo").verdicts} == {"skip"}


def test_the_word_for_skips_is_none_of_the_labels() -> None:
    assert label_words(batch_of(labels=("ｓｋｉｐ", "un\u200bsure")))[2] == "n/a"


# --- ids that go out ----------------------------------------------------------------------------


def values_of(file: str, data: bytes) -> Iterator[Any]:
    """Yield every value of a file, by the form in which programs read it."""
    text = data.decode("utf-8-sig")
    if file.endswith(".csv"):
        for row in csv.reader(io.StringIO(text, newline="")):
            # The apostrophe keeps a cell a text; without it a program takes digits for a number.
            yield from (int(cell) if cell.isdecimal() else cell for cell in row)
        return
    if file.startswith("review") and file.endswith(".html"):
        text = text.partition('<script type="application/json" id="data">')[2].partition("</")[0]
        file = "data.json"
    if file.endswith((".json", ".jsonl")):
        lines = text.splitlines() if file.endswith(".jsonl") else [text]
        waiting = [json.loads(line) for line in lines]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict | list):
                waiting += value.values() if isinstance(value, dict) else value
            else:
                yield value


@pytest.mark.parametrize("tool", registry.exporting())
@pytest.mark.parametrize("sizes", [(2, 2), (1, 1, 1, 1)])
def test_ids_go_out_as_text(tool: str, sizes: tuple[int, ...]) -> None:
    ids = [str(2**53 + n) for n in range(3)] + ["0070"]
    batch = batch_of([(id, f"ad {n}") for n, id in enumerate(ids)], sizes=sizes)
    files = registry.get(tool).export(batch)
    values = [value for name, data in files.items() for value in values_of(name, data)]
    assert {int(id) for id in ids}.isdisjoint(v for v in values if type(v) in (int, float))
    assert set(ids) <= {value.lstrip("'") for value in values if isinstance(value, str)}


# --- tools' other ways -------------------------------------------------------------------------


def test_a_project_that_members_share_names_nobody() -> None:
    records = doccano("bait", None, "")

    def zipped(*names: str) -> bytes:
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            for name in names:
                archive.writestr(name, records)
        return sink.getvalue()

    def rows(*names: str) -> list[Any]:
        return list(registry.get("doccano").read(zipped(*names), "f.zip"))

    shared = understood(rows("all.jsonl"))
    assert {r.reason for r in shared.rejected} == {"blank_expert"} and shared.verdicts == ()
    # Whoever labelled can be said; the ads themselves may say it, too.
    assert {v.expert for v in understood(rows("project/ALL.jsonl"), expert="cleo").verdicts} == {
        "cleo"
    }
    records = doccano("bait", "Cleo", "")
    assert {v.expert for v in understood(rows("all.jsonl")).verdicts} == {"cleo"}
    assert {row.expert for row in rows("bo.jsonl") if isinstance(row, RawVerdict)} == {"bo"}


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"answer": "accept"}, "positive"),
        # Of two labels the other one.
        ({"answer": "reject"}, "negative"),
        ({"answer": "accept", "label": "Fine"}, "negative"),
        ({"answer": "reject", "label": "fine"}, "positive"),
        ({"answer": "ignore"}, "skip"),
        ({"answer": "accept", "_view_id": "classification", "options": []}, "positive"),
    ],
)
def test_prodigy_s_binary_view_asks_about_one_label(change: dict[str, Any], label: str) -> None:
    records = singles("", label="bait", _view_id="classification", _session_id="cleo")
    data = "\n".join(json.dumps({**record, **change}) for record in records).encode()
    found = understood(registry.get("prodigy").read(data, "f"))
    assert said(found) == [(ID_A, label, "cleo"), (ID_B, label, "cleo")]


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"label": "SPAM"}, "unknown_label", "'SPAM' is none of bait, fine"),
        ({"label": None}, "not_readable_row", "so nothing says what reject means"),
        (
            {"label": ""},
            "not_readable_row",
            "neither choices (accept) nor the label that was asked",
        ),
    ],
)
def test_a_rejection_of_something_else_is_a_dead_letter(
    change: dict[str, Any], reason: str, detail: str
) -> None:
    records = singles("", answer="reject", label="bait", _session_id="cleo")
    data = "\n".join(json.dumps({**record, **change}) for record in records).encode()
    found = understood(registry.get("prodigy").read(data, "f"))
    assert found.verdicts == () and {r.reason for r in found.rejected} == {reason}
    assert detail in found.rejected[0].detail
