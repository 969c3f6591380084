"""An answer of unexpected shape costs itself: whatever stands in any place of an export, rows or dead letters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.contracts import Rejected
from pipelines.text import content_key
from pipelines.tools import registry
from pipelines.verdicts.rows import RawVerdict
from tests.faults import ODD, odd_forms, refusal

_TASK = {
    "item_id": "i1",
    "left_id": "a1",
    "right_id": "a2",
    "text_a": "One ad",
    "text_b": "Another ad",
}
_RESULT = [
    {
        "from_name": "label_a",
        "to_name": "text_a",
        "type": "choices",
        "value": {"choices": ["bait"]},
    },
    {"from_name": "rationale", "to_name": "text_a", "value": {"text": ["why"]}},
]
_ANNOTATION = {
    "id": 7,
    "completed_by": {"id": 3, "email": "anna@example.org"},
    "updated_at": "2026-11-01T12:00:00.5Z",
    "created_at": "2026-11-01T12:00:00Z",
    "was_cancelled": False,
    "result": _RESULT,
}
EXPORTS: dict[str, tuple[str, Any]] = {
    "Label Studio": (
        "label-studio",
        [{"id": 1, "data": _TASK, "annotations": [_ANNOTATION, {**_ANNOTATION, "id": 8}]}],
    ),
    "Label Studio, short": (
        "label-studio",
        [
            {
                **_TASK,
                "annotation_id": 7,
                "annotator": 3,
                "updated_at": "2026-11-01",
                "label_a": "bait",
                "label_b": {"choices": ["fine"]},
                "rationale": "why",
            }
        ],
    ),
    "Argilla": (
        "argilla",
        [
            {
                **_TASK,
                "id": "r1",
                "status": "completed",
                "label_a.responses": ["bait"],
                "label_a.responses.users": ["u"],
                "label_a.responses.status": ["submitted"],
                "label_b.responses": ["fine"],
                "label_b.responses.users": ["u"],
                "label_b.responses.status": ["submitted"],
                "comment.responses": ["why"],
                "comment.responses.users": ["u"],
                "comment.responses.status": ["submitted"],
            }
        ],
    ),
    "doccano": (
        "doccano",
        [
            {
                "id": 1,
                "text": "One ad",
                "label": ["bait"],
                "item_id": "i1",
                "side": "left",
                "ad_id": "a1",
                "user": "anna",
                "Comments": ["why"],
            }
        ],
    ),
    "Prodigy": (
        "prodigy",
        [
            {
                "text": "One ad",
                "answer": "accept",
                "accept": ["bait"],
                "item_id": "i1",
                "side": "left",
                "ad_id": "a1",
                "_annotator_id": "d-anna",
                "_timestamp": 1764000000,
                "_view_id": "choice",
                "comment": "why",
            }
        ],
    ),
    "page": (
        "page",
        {
            "format": "ad-scout review page verdicts",
            "format_version": 2,
            "labels": {"positive": "bait", "negative": "fine"},
            "expert": "anna",
            "rows": [
                {
                    "ad_id": "a1",
                    "item_id": "i1",
                    "side": "left",
                    "text": "One ad",
                    "key": content_key("One ad"),
                    "answer": "positive",
                    "time": "2026-11-01T12:00:00Z",
                    "comment": "why",
                }
            ],
        },
    ),
    "JSON lines": (
        "jsonl",
        {"item_id": "i1", "side": "left", "label": "bait", "expert": "anna", "skipped": False},
    ),
}


def read(tool: str, document: Any) -> list[RawVerdict | Rejected]:
    return list(registry.get(tool).read(json.dumps(document).encode(), "export.json"))


@pytest.mark.parametrize("name", EXPORTS)
def test_what_is_read_is_an_answer(name: str) -> None:
    """The documents above are answers, or else nothing below says anything."""
    tool, document = EXPORTS[name]
    readable = [row for row in read(tool, document) if isinstance(row, RawVerdict)]
    assert readable


@pytest.mark.parametrize("name", EXPORTS)
def test_no_shape_is_unforeseen(name: str) -> None:
    tool, document = EXPORTS[name]
    for path, value, odd in odd_forms(document):
        rows: list[RawVerdict | Rejected] = []
        told = refusal(lambda odd=odd, rows=rows: rows.extend(read(tool, odd)))
        assert not told or told.startswith("export.json"), (path, value)
        assert all(isinstance(row, RawVerdict | Rejected) for row in rows), (path, value)


@pytest.mark.parametrize("name", [name for name in EXPORTS if name != "page"])
def test_an_odd_item_leaves_the_others_as_they_are(name: str) -> None:
    """Beside a good one, whatever an item is costs a dead letter at most."""
    tool, document = EXPORTS[name]
    if not isinstance(document, list):
        lines = [json.dumps(value) for value in (*ODD[:-2], document)]
        rows = list(registry.get(tool).read("\n".join(lines).encode(), "export.jsonl"))
        assert sum(isinstance(row, RawVerdict) for row in rows) == 1
        return
    good = [row for row in read(tool, document) if isinstance(row, RawVerdict)]
    found = read(tool, [*ODD, *document])
    kept = [row for row in found if isinstance(row, RawVerdict)]
    assert len(kept) == len(good)
    letters = [row for row in found if isinstance(row, Rejected)]
    assert len(letters) >= len(ODD)
    assert {letter.reason for letter in letters} == {"not_readable_row"}
