"""Every format that goes out or comes back has a recorded sample, and a schema that it fits."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from pipelines.tools import registry
from tests.tools import FIELDS, SAMPLES, batch_of, check_schema, lines, said, sample, understood


def table(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def each(data: bytes) -> list[Any]:
    return lines(data)


# Tool -> (sample, what it is in the tool's schema, how its bytes are a value).
OUT: dict[str, tuple[tuple[str, str, Callable[[bytes], Any]], ...]] = {
    "label-studio": (("tasks.json", "import", json.loads),),
    "argilla": (("records.jsonl", "record", each), ("settings.json", "settings", json.loads)),
    "doccano": (("examples.jsonl", "import", each), ("labels.json", "labels", json.loads)),
    "prodigy": (("tasks.jsonl", "in", each),),
    "csv": (("review.csv", "out", table),),
    # The page is HTML; tests/real_tools/browser holds it to what a browser does with it.
    "page": (),
}
BACK: dict[str, tuple[tuple[str, str, Callable[[bytes], Any]], ...]] = {
    "label-studio": (
        ("export.json", "export", json.loads),
        ("export_snapshot.json", "export", json.loads),
        ("export_min.json", "export_min", json.loads),
    ),
    "argilla": (("answers.json", "export", json.loads), ("pulled.json", "pulled", json.loads)),
    "doccano": (("anna.jsonl", "export", each), ("bo.jsonl", "export", each)),
    "prodigy": (("answers.jsonl", "out", each),),
    "csv": (("answers.csv", "back", table),),
    "page": (
        ("answers.json", "answers", json.loads),
        ("answers_version_2.json", "answers", json.loads),
    ),
}
CASES = [(tool, *case) for known in (OUT, BACK) for tool, cases in known.items() for case in cases]


def test_no_format_lacks_a_sample() -> None:
    assert set(OUT) == set(registry.exporting())
    # JSON lines are this project's own, with the columns of the sheet: tests/verdicts/test_tables.py.
    assert set(BACK) == set(registry.names()) - {"jsonl"} and all(BACK.values())
    assert {path.name for path in SAMPLES.glob("*.schema.json")} == {
        f"{t}.schema.json" for t in BACK
    }


@pytest.mark.parametrize(("tool", "name", "part", "parse"), CASES)
def test_samples_fit_their_schema(
    tool: str, name: str, part: str, parse: Callable[[bytes], Any]
) -> None:
    value = parse(sample(f"{tool}/{name}"))
    assert value
    for item in value if parse is each else [value]:
        check_schema(tool, part, item)


@pytest.mark.parametrize(("tool", "name", "part", "parse"), CASES)
def test_schemas_refuse_what_is_damaged(
    tool: str, name: str, part: str, parse: Callable[[bytes], Any]
) -> None:
    # A schema that lets everything pass would check nothing.
    value = parse(sample(f"{tool}/{name}"))
    item = value[0] if parse is each else value
    for damaged in (None, 17, {}, [{}], [{"pair_id": 1}]):
        with pytest.raises(jsonschema.ValidationError):
            check_schema(tool, part, damaged)
    check_schema(tool, part, item)


@pytest.mark.parametrize("tool", [tool for tool in registry.exporting() if tool != "page"])
def test_exports_are_the_recorded_ones(tool: str) -> None:
    files = registry.get(tool).export(batch_of())
    for name, _, _ in OUT[tool]:
        assert files[name] == sample(f"{tool}/{name}"), name


def test_the_page_is_the_one_whose_answers_are_recorded() -> None:
    # Saved by a browser from the page of this batch: another page would need another recording.
    batch = batch_of(sizes=(2, 1, 1), fields=FIELDS)
    saved = json.loads(sample("page/answers_version_2.json"))
    [html] = registry.get("page").export(batch).values()
    assert saved["batch"].encode() in html
    for name, shown in (("answers.json", batch_of()), ("answers_version_2.json", batch)):
        resolved = understood(registry.get("page").read(sample(f"page/{name}"), name), shown)
        assert said(resolved) == [
            ("a1", "positive", "anna"),
            ("a2", "negative", "anna"),
            ("12345678901234567", "skip", "anna"),
            ("a4", "skip", "anna"),
        ]
        assert resolved.rejected == ()
        assert {v.comment for v in resolved.verdicts} == {"no such trick", ""}


@pytest.mark.parametrize("tool", BACK)
def test_anna_says_the_same_in_every_format(tool: str) -> None:
    wanted = {("a1", "positive"), ("a2", "negative")}
    for name, part, _ in BACK[tool]:
        if tool == "doccano" and name == "bo.jsonl":
            continue
        rows = registry.get(tool).read(sample(f"{tool}/{name}"), name)
        batch = batch_of(sizes=(2, 1, 1)) if "version_2" in name else None
        resolved = understood(rows, batch, expert="anna" if tool == "doccano" else "")
        found = {(v.ad_id, v.label) for v in resolved.verdicts if v.expert == "anna"}
        assert wanted <= found, (name, part)
