"""Prodigy: choice tasks out, what db-out writes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.errors import RunFailed
from pipelines.tools.prodigy.format import Prodigy
from pipelines.verdicts.halves import latest
from tests.tools import batch_of, check_blind, check_schema, lines, said, sample, understood, why

PRODIGY = Prodigy()
SAID = [
    ("a1", "positive", "anna"),
    ("a2", "negative", "anna"),
    ("a1", "positive", "bo"),
    ("a2", "positive", "bo"),
    ("12345678901234567", "skip", "anna"),
    ("a4", "skip", "anna"),
    ("a1", "negative", "bo"),
]


def read(value: Any) -> Any:
    data = value if isinstance(value, bytes) else "\n".join(map(json.dumps, value)).encode()
    return PRODIGY.read(data, "f.jsonl")


def exported() -> list[dict[str, Any]]:
    return lines(sample("prodigy/answers.jsonl"))


def test_the_export_is_the_recorded_one() -> None:
    files = PRODIGY.export(batch_of())
    assert sorted(files) == ["instructions.html", "prodigy.json", "setup.md", "tasks.jsonl"]
    for name in ("instructions.html", "prodigy.json", "tasks.jsonl"):
        assert files[name] == sample(f"prodigy/{name}"), name
    for task in lines(files["tasks.jsonl"]):
        check_schema("prodigy", "in", task)
    check_blind(files)


def test_both_ads_of_a_pair_follow_each_other() -> None:
    tasks = lines(PRODIGY.export(batch_of())["tasks.jsonl"])
    assert [(task["item_id"][-1], task["side"]) for task in tasks] == [
        ("0", "left"),
        ("0", "right"),
        ("1", "left"),
        ("1", "right"),
    ]


def test_what_the_model_thinks_is_shown_and_not_chosen() -> None:
    tasks = lines(PRODIGY.export(batch_of(shown=True))["tasks.jsonl"])
    for task in tasks:
        check_schema("prodigy", "in", task)
    assert tasks[0]["meta"] == {
        "pair": "1 of 2, left",
        "model_label": "bait",
        "model_score": 0.8137,
    }


def test_the_policy_is_no_markup() -> None:
    text = PRODIGY.export(batch_of())["instructions.html"].decode()
    assert "&lt;b&gt;promises&lt;/b&gt; &amp; &quot;secrets&quot; for $100, {{ad}}." in text


def test_recorded_answers() -> None:
    records = exported()
    for record in records:
        check_schema("prodigy", "out", record)
    resolved = understood(read(records))
    assert said(resolved) == SAID
    assert why(resolved) == [("line 8", "half_pair")]
    assert resolved.changed_mind == 1
    first = resolved.verdicts[0]
    assert (first.time, first.comment) == ("2025-11-22T08:26:41Z", "no such trick")
    # The order of the lines does not decide whose last word it is.
    words = {(v.ad_id, v.expert): v.label for v in latest(resolved.verdicts)}
    turned = understood(read(records[::-1]))
    assert {(v.ad_id, v.expert): v.label for v in latest(turned.verdicts)} == words
    assert words["a1", "bo"] == "negative"


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"answer": "accept", "accept": ["bait"]}, "positive"),
        ({"answer": "accept", "accept": ["skip"]}, "skip"),
        ({"answer": "accept", "accept": []}, "skip"),
        # Neither says that the other label is right.
        ({"answer": "reject", "accept": ["bait"]}, "skip"),
        ({"answer": "ignore", "accept": ["fine"]}, "skip"),
    ],
)
def test_only_accepted_choices_are_labels(change: dict, label: str) -> None:
    records = exported()[:2]
    records[0] |= change
    assert said(understood(read(records)))[0] == ("a1", label, "anna")


def test_people_without_a_session_are_called_as_the_file_does() -> None:
    records = exported()[:2]
    for record in records:
        del record["_annotator_id"]
        record["_session_id"] = "tiny-1-2026-11-22_10-00-00"
    [row, _] = read(records)
    assert row.expert == "tiny-1-2026-11-22_10-00-00"
    for record in records:
        record["_session_id"] = None
    assert {reason for _, reason in why(understood(read(records)))} == {"blank_expert"}
    assert said(understood(read(records), expert="anna")) == SAID[:2]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"answer": "maybe"}, "answer must be accept, reject or ignore, found 'maybe'"),
        ({"answer": ["accept"]}, "answer must be accept, reject or ignore, found"),
        ({"accept": [1]}, "'accept' must be a list of labels"),
        ({"side": "middle"}, "side must be left or right, found 'middle'"),
        ({"pair_id": ""}, "holds no item_id"),
        ({"_timestamp": {}}, "'_timestamp' must be text, found dict"),
    ],
)
def test_answers_of_another_kind_are_dead_letters(change: dict, detail: str) -> None:
    records = exported()
    records[2] |= change
    resolved = understood(read(records))
    assert why(resolved)[0] == ("line 3", "not_readable_row")
    assert detail in resolved.rejected[0].detail
    assert said(resolved) == SAID[:2] + SAID[3:]


def test_a_task_of_another_stream_is_a_dead_letter() -> None:
    other = {"text": "x", "answer": "accept", "accept": ["bait"], "_annotator_id": "tiny-1-bo"}
    resolved = understood(read([other, *exported()]))
    assert why(resolved)[0] == ("line 1", "not_readable_row")
    assert said(resolved) == SAID


@pytest.mark.parametrize(
    "data", [sample("prodigy/tasks.jsonl"), b"text\nx\n", b'[{"text": "x"}]', b"{\n}\n"]
)
def test_files_that_are_no_answers_are_named(data: bytes) -> None:
    with pytest.raises(
        RunFailed, match=r"f\.jsonl: .*; expected answer; write the file with `prod"
    ):
        list(read(data))
