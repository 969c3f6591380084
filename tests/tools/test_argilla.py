"""Argilla: records and settings out, the flattened list back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.errors import RunFailed
from pipelines.tools.argilla import format
from tests.tools import (
    MODEL,
    batch_of,
    check_blind,
    check_schema,
    lines,
    said,
    sample,
    understood,
    why,
)


def read(value: Any) -> Any:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ARGILLA.read(data, "f.json")


def exported() -> list[dict[str, Any]]:
    return json.loads(sample("argilla/answers.json"))


ARGILLA = format.Argilla()
SAID = [
    ("a1", "positive", "anna"),
    ("a2", "negative", "anna"),
    ("a1", "negative", "bo"),
    ("a2", "positive", "bo"),
]
SKIPPED = [("12345678901234567", "skip", "anna"), ("a4", "skip", "anna")]


def test_the_export_is_the_recorded_one() -> None:
    files = ARGILLA.export(batch_of())
    assert sorted(files) == ["records.jsonl", "settings.json", "setup.md"]
    for name in ("records.jsonl", "settings.json"):
        assert files[name] == sample(f"argilla/{name}"), name
    for record in lines(files["records.jsonl"]):
        check_schema("argilla", "record", record)
    check_schema("argilla", "settings", json.loads(files["settings.json"]))
    check_blind(files)


def test_records_fit_the_settings() -> None:
    files = ARGILLA.export(batch_of(shown=True))
    settings = json.loads(files["settings.json"])
    fields = {field["name"] for field in settings["fields"]}
    metadata = {item["name"] for item in settings["metadata"]}
    questions = {item["name"]: item["settings"] for item in settings["questions"]}
    for record in lines(files["records.jsonl"]):
        assert set(record["fields"]) == fields and set(record["metadata"]) == metadata
        # Flattened, all of these names lie in one object.
        assert not metadata & (fields | set(questions) | {"id", "status", "_server_id", "score"})
        for suggestion in record["suggestions"]:
            options = questions[suggestion["question_name"]]["options"]
            assert suggestion["value"] in [option["value"] for option in options]


def test_suggestions_are_there_when_asked_for() -> None:
    record = lines(ARGILLA.export(batch_of(shown=True))["records.jsonl"])[0]
    check_schema("argilla", "record", record)
    assert record["suggestions"] == [
        {"question_name": "label_a", "value": "bait", "score": 0.8137, "agent": MODEL},
        {"question_name": "label_b", "value": "fine", "score": 0.6629, "agent": MODEL},
    ]


def test_as_many_experts_as_the_task_asks_for() -> None:
    settings = format.settings(batch_of(experts_per_ad=3))
    assert settings["distribution"] == {"strategy": "overlap", "min_submitted": 3}
    assert "for $100, {{ad}}." in settings["guidelines"]


@pytest.mark.parametrize("form", ["list", "lines"])
def test_recorded_answers(form: str) -> None:
    records = exported()
    check_schema("argilla", "export", records)
    data = b"\n".join(json.dumps(record).encode() for record in records)
    resolved = understood(read(data if form == "lines" else records))
    assert said(resolved) == SAID + SKIPPED
    record = "line 2" if form == "lines" else "record 2"
    assert why(resolved) == [(record, "half_pair")]
    # The half that was left out, and the draft of a third person.
    assert resolved.unanswered == 3
    assert resolved.verdicts[0].comment == "no such trick"


def test_rows_name_pair_side_id_and_text() -> None:
    left, right, *_ = read(sample("argilla/answers.json"))
    assert (left.item_id, left.side, left.ad_id) == ("pair_0000000000000000", "left", "a1")
    assert (right.side, right.text) == ("right", "=1+1 kettles\nsold here")
    assert left.expert == "0c5e6a3e-7b0f-4bd4-8b5a-4a5f6a1d2c01"


def test_a_discarded_answer_is_a_skip_whatever_was_chosen() -> None:
    records = exported()
    records[1]["label_a.responses"][0] = "bait"
    assert said(understood(read(records)))[-2:] == SKIPPED


def test_records_that_nobody_answered_are_unanswered() -> None:
    records = [
        {name: value for name, value in record.items() if ".responses" not in name}
        for record in exported()
    ]
    resolved = understood(read(records))
    assert (resolved.verdicts, resolved.rejected, resolved.unanswered) == ((), (), 4)


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        (lambda r: r.update({"label_a.responses": "bait"}), "must be lists"),
        (lambda r: r["label_a.responses.users"].pop(), "hold 2 and 1 and 2 items"),
        (
            lambda r: r["label_a.responses.users"].__setitem__(1, r["label_a.responses.users"][0]),
            "answers label_a twice",
        ),
        (
            lambda r: r["label_a.responses.status"].__setitem__(0, "draft"),
            "must be submitted, discarded or draft, found 'draft', 'submitted'",
        ),
        (
            lambda r: r.update({f"label_{x}.responses.status": ["done"] * 2 for x in "ab"}),
            "found 'done'",
        ),
        (lambda r: r["label_a.responses"].__setitem__(0, {"x": 1}), "must be a list of labels"),
        (lambda r: r.pop("pair_id"), "holds no item_id"),
        (lambda r: r.update(text_a=["x"]), "'text_a' must be text, found list"),
    ],
)
def test_records_of_another_kind_are_dead_letters(spoil: Any, detail: str) -> None:
    records = exported()
    spoil(records[0])
    resolved = understood(read(records))
    assert why(resolved)[0] == ("record 1", "not_readable_row")
    assert detail in resolved.rejected[0].detail
    assert said(resolved) == SKIPPED


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"id": "p", "fields": {"text_a": "x"}, "responses": {}}, "id, fields, responses"),
        ({"id": "p", "fields": {"text_a": "x"}, "metadata": {}}, "id, fields, metadata"),
        ({"answer": "accept"}, "answer"),
        ({}, "of an empty object"),
    ],
)
def test_files_of_another_form_say_how_to_write_them(record: dict, found: str) -> None:
    # The first is the nested form, without the status; the second is what went out.
    with pytest.raises(RunFailed, match=f"found the fields {found}; write .*flatten=True"):
        list(read([record]))


def test_bad_lines_among_good_ones_cost_themselves() -> None:
    good = json.dumps(exported()[0]).encode()
    resolved = understood(read(b"\n".join([good, b"{", b"17", b'{"id": 1}'])))
    assert said(resolved) == SAID
    assert why(resolved) == [(f"line {n}", "not_readable_row") for n in (2, 3, 4)]
