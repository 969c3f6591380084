"""Label Studio: tasks and configuration out, its export formats back."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from pipelines.contracts import Rejected
from pipelines.errors import RunFailed
from pipelines.tools.label_studio import format
from tests.tools import (
    ALIASES,
    MODEL,
    POLICY,
    batch_of,
    check_blind,
    check_schema,
    said,
    sample,
    understood,
    why,
)

STUDIO = format.LabelStudio()
SAID = [
    ("a1", "positive", "anna"),
    ("a2", "negative", "anna"),
    ("a1", "positive", "bo"),
    ("a2", "positive", "bo"),
    ("a1", "negative", "bo"),
    ("a2", "positive", "bo"),
]
SKIPPED = [("12345678901234567", "skip", "anna"), ("a4", "skip", "anna")]


def read(value: Any) -> Any:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return STUDIO.read(data, "f.json")


def exported() -> list[dict[str, Any]]:
    return json.loads(sample("label-studio/export.json"))


# --- out --------------------------------------------------------------------------------------


def test_the_export_is_the_recorded_one() -> None:
    files = STUDIO.export(batch_of())
    assert sorted(files) == ["config.xml", "guidelines.md", "setup.md", "tasks.json"]
    for name in ("tasks.json", "config.xml", "guidelines.md"):
        assert files[name] == sample(f"label-studio/{name}"), name
    check_schema("label-studio", "import", json.loads(files["tasks.json"]))
    assert "maximum_annotations` to 2" in files["setup.md"].decode()


def test_a_blind_export_holds_nothing_of_the_model() -> None:
    check_blind(STUDIO.export(batch_of()))


def test_predictions_are_shown_when_asked_for() -> None:
    tasks = json.loads(STUDIO.export(batch_of(shown=True))["tasks.json"])
    check_schema("label-studio", "import", tasks)
    [prediction] = tasks[0]["predictions"]
    assert prediction["model_version"] == MODEL
    found = [(r["from_name"], r["value"]["choices"], r["score"]) for r in prediction["result"]]
    # The probability of the label that is shown: the model gives 0.3371 to the right ad's positive.
    assert found == [("label_a", ["bait"], 0.8137), ("label_b", ["fine"], 0.6629)]


def test_the_configuration_fits_its_tasks() -> None:
    files = STUDIO.export(batch_of())
    root = ET.fromstring(files["config.xml"])
    data = json.loads(files["tasks.json"])[0]["data"]
    variables = set(re.findall(r"\$([\w[\].{}]+)", files["config.xml"].decode()))
    assert {"text_a", "text_b", "policy"} <= variables <= set(data)
    texts = {tag.get("name") for tag in root.iter("Text")}
    controls = [*root.iter("Choices"), *root.iter("TextArea")]
    assert {tag.get("name") for tag in controls} == {"label_a", "label_b", "rationale"}
    assert all(tag.get("toName") in texts for tag in controls)
    hotkeys = [tag.get("hotkey") for tag in root.iter("Choice")]
    assert hotkeys == ["1", "2", "5", "3", "4", "6"]
    # In secure mode Label Studio takes a text for an address and fetches it.
    assert all(tag.get("valueType") == "text" for tag in root.iter("Text"))


def test_words_of_the_task_are_words_in_the_configuration() -> None:
    labels = ('a"b<&>', "$text_b costs $5\x07")
    batch = batch_of(labels=labels, policy="</View>$item_id {{x}}")
    files = STUDIO.export(batch)
    root = ET.fromstring(files["config.xml"])
    values = [tag.attrib["value"] for tag in root.iter("Choice")][:3]
    assert values == [labels[0], "\uff04text_b costs \uff045\ufffd", "skip"]
    # A policy is data: there nothing is replaced, and no markup is markup.
    assert b"</View>$" not in files["config.xml"]
    assert json.loads(files["tasks.json"])[0]["data"]["policy"] == batch.policy


def test_a_label_called_skip_leaves_another_word_for_skips() -> None:
    root = ET.fromstring(format.config(batch_of(labels=("Skip", "keep"))))
    assert [tag.get("value") for tag in root.iter("Choice")][:3] == ["Skip", "keep", "unsure"]


def test_the_policy_goes_along_as_it_is() -> None:
    files = STUDIO.export(batch_of())
    assert json.loads(files["tasks.json"])[1]["data"]["policy"] == POLICY
    assert "for $100, {{ad}}." in files["guidelines.md"].decode()


# --- back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["export", "export_snapshot"])
def test_recorded_json(name: str) -> None:
    data = sample(f"label-studio/{name}.json")
    check_schema("label-studio", "export", json.loads(data))
    resolved = understood(read(data))
    assert said(resolved) == SAID + SKIPPED
    assert why(resolved) == [("task 2, annotation 35", "half_pair")]
    assert (resolved.unanswered, resolved.changed_mind) == (1, 1)
    first = resolved.verdicts[0]
    assert (first.time, first.comment) == ("2026-11-22T09:01:09Z", "no such trick")
    assert first.position == "task 1, annotation 31"


@pytest.mark.parametrize("name", ["export_min.json", "export.csv"])
def test_recorded_short_formats_lack_skips(name: str) -> None:
    data = sample(f"label-studio/{name}")
    if name.endswith("json"):
        check_schema("label-studio", "export_min", json.loads(data))
    resolved = understood(read(data))
    # Listed newest first, and two within one second: the last change still comes last.
    assert said(resolved) == SAID
    assert [reason for _, reason in why(resolved)] == ["half_pair"]
    assert resolved.verdicts[0].comment == "no such trick"


def test_rows_name_pair_side_id_and_text() -> None:
    for name in ("export.json", "export_min.json", "export.csv"):
        left, right, *_ = read(sample(f"label-studio/{name}"))
        assert (left.item_id, left.side, left.ad_id) == ("pair_0000000000000000", "left", "a1")
        assert (right.side, right.ad_id, right.text) == ("right", "a2", "=1+1 kettles\nsold here")
        assert left.expert == "3", name


def test_what_a_skip_said_before_does_not_count() -> None:
    tasks = exported()
    tasks[0]["annotations"][0]["was_cancelled"] = True
    assert said(understood(read(tasks)))[:2] == [("a1", "skip", "anna"), ("a2", "skip", "anna")]


def test_predictions_and_drafts_alone_are_no_answers() -> None:
    tasks = exported()
    for task in tasks:
        task["annotations"] = []
        task["predictions"] = [
            {"result": [{"from_name": "label_a", "value": {"choices": ["bait"]}}]}
        ]
    resolved = understood(read(tasks))
    assert (resolved.verdicts, resolved.rejected, resolved.unanswered) == ((), (), 4)


def test_a_submitted_answer_without_labels_is_a_skip() -> None:
    tasks = exported()[:1]
    tasks[0]["annotations"] = tasks[0]["annotations"][:1]
    tasks[0]["annotations"][0]["result"] = []
    assert [label for _, label, _ in said(understood(read(tasks)))] == ["skip", "skip"]


def test_nobody_s_annotation_is_the_named_expert_s() -> None:
    tasks = exported()[:1]
    tasks[0]["annotations"] = tasks[0]["annotations"][:1]
    tasks[0]["annotations"][0]["completed_by"] = None
    assert [reason for _, reason in why(understood(read(tasks)))] == ["blank_expert"] * 2
    assert said(understood(read(tasks), expert="anna")) == SAID[:2]


def test_people_are_e_mail_addresses_where_the_file_has_them() -> None:
    [row, *_] = read(sample("label-studio/export_snapshot.json"))
    assert row.expert == "anna@example.org" and ALIASES[row.expert] == "anna"


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        (lambda a: a.update(result=None), "result must be a list of objects"),
        (lambda a: a["result"][0].update(value=7), "the result of label_a holds no value"),
        (lambda a: a["result"][0]["value"].update(choices=[1]), "must be a list of labels"),
        (lambda a: a.update(completed_by=[3]), "'completed_by' must be text, found list"),
        (
            lambda a: a.update(result=[{"from_name": "sentiment", "value": {"choices": ["bait"]}}]),
            "answers to sentiment, none to label_a or label_b; label with the configuration",
        ),
    ],
)
def test_annotations_of_another_kind_are_dead_letters(spoil: Any, detail: str) -> None:
    tasks = exported()
    spoil(tasks[0]["annotations"][0])
    resolved = understood(read(tasks))
    assert why(resolved)[0] == ("task 1, annotation 31", "not_readable_row")
    assert detail in resolved.rejected[0].detail
    assert said(resolved) == SAID[2:] + SKIPPED


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: t["data"].update(pair_id="pair_9"), "unknown_item"),
        (lambda t: t["data"].pop("pair_id"), "not_readable_row"),
        (lambda t: t["data"].update(text_a="Another text", text_b="And another"), "text_mismatch"),
        (lambda t: t["data"].update(id_a="a2", id_b="a1"), "ambiguous_ad"),
    ],
)
def test_foreign_tasks_are_dead_letters(spoil: Any, reason: str) -> None:
    tasks = exported()
    spoil(tasks[0])
    resolved = understood(read(tasks))
    assert {found for _, found in why(resolved)} == {reason, "half_pair"}
    assert said(resolved) == SKIPPED


def test_two_choices_for_one_ad_are_an_unknown_label() -> None:
    tasks = exported()[:1]
    tasks[0]["annotations"] = tasks[0]["annotations"][:1]
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"] = ["bait", "fine"]
    resolved = understood(read(tasks))
    assert [reason for _, reason in why(resolved)] == ["unknown_label"]
    assert "'bait + fine' is none of" in resolved.rejected[0].detail
    assert said(resolved) == SAID[1:2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"id": 1}', "one JSON object, expected a list of tasks; export the project"),
        (b"[1, 2", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'[{"a": 1, "a": 2}]', "is no JSON: a field is given twice"),
        (b'[{"text": "x", "label": []}]', "no task has annotations .found: text, label.;"),
        (b"[1]", "no task has annotations .found: no objects"),
        (b"pair_id,side,label\n", "neither JSON nor a table with the columns annotation_id, ann"),
        (b"PK\x03\x04", "a zip archive"),
        (b"", "is empty"),
    ],
)
def test_files_that_are_no_export_are_named(data: bytes, message: str) -> None:
    with pytest.raises(RunFailed, match=f"f.json: .*{message}"):
        list(read(data))


def test_the_tasks_that_went_out_are_no_answers() -> None:
    with pytest.raises(RunFailed, match="are these the tasks that went out"):
        list(read(sample("label-studio/tasks.json")))


def test_an_export_without_tasks_holds_no_rows() -> None:
    assert list(read([])) == []


def test_what_is_no_task_in_the_list_is_a_dead_letter() -> None:
    first, *_ = read([17, *exported()])
    assert isinstance(first, Rejected) and first.position == "task 1 of the list"
