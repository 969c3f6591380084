"""Which columns are what, for corpora as people have them."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.jobs.columns import ad_fields, columns_of, with_roles
from pipelines.sources.base import ReadOptions
from pipelines.sources.fields import AdField, check_name


def many(number: int = 60, **columns: Any) -> list[dict[str, Any]]:
    return [{name: make(i) for name, make in columns.items()} for i in range(number)]


def phrase(i: int) -> str:
    return f"Some words about thing {i} and what it is good for"


GOOGLE = many(
    **{
        "Ad ID": lambda i: str(10**14 + i),
        "Campaign": lambda i: f"Summer Sale {i % 2}",
        "Headline 1": phrase,
        "Description": lambda i: f"Longer words about thing {i}, {phrase(i)}",
        "Call to action": lambda i: ("Book now", "Buy")[i % 2],
        "Final URL": lambda i: f"https://example.com/{i}",
        "Clicks": lambda i: str(i),
        "Impr.": lambda i: f"1,{100 + i}",
        "Cost": lambda i: f"{i}.50",
        "Ad status": lambda i: ("ENABLED", "PAUSED")[i % 2],
    }
)
NESTED = many(
    meta=lambda i: {"uid": f"u{i}", "day": "2026-01-02"},
    creative=lambda i: {
        "headline": phrase(i),
        "assets": [{"text": phrase(i)}, {"text": "Free delivery"}],
    },
    spend=lambda i: i * 1.5,
)
PLAIN = many(id=lambda i: i, text=phrase, title=phrase, vertical=lambda i: "ab"[i % 2])
GERMAN = many(
    Nr=lambda i: i, Überschrift=phrase, Kosten=lambda i: f"{i},50", Link=lambda i: "www.laden.de"
)
UNNAMED = many(a=lambda i: i, b=phrase, c=lambda i: f"{phrase(i)} {phrase(i)}")
THAI = many(key=lambda i: f"k{i}", v=lambda i: f"ราคาถูกที่สุดในวันนี้{i}")


@pytest.mark.parametrize(
    ("records", "text", "roles"),
    [
        (
            GOOGLE,
            ("Headline 1", "Description", "Call to action"),
            {"Ad ID": "id", "Impr.": "weight", "Final URL": "url", "Ad status": "label"},
        ),
        (
            NESTED,
            ("creative.headline", "creative.assets.text"),
            {"meta.uid": "id", "spend": "weight"},
        ),
        (PLAIN, ("text",), {"id": "id"}),
        (GERMAN, ("Überschrift",), {"Nr": "id", "Kosten": "weight", "Link": "url"}),
        (UNNAMED, ("c",), {}),
        (THAI, ("v",), {"key": "id"}),
        (many(a=lambda i: i, b=lambda _: "x"), (), {}),
        (many(a=lambda _: None, text=lambda i: phrase(i)), ("text",), {}),
    ],
    ids=["google", "nested", "plain", "german", "unnamed", "thai", "no text", "empty column"],
)
def test_roles(records: list[dict[str, Any]], text: tuple[str, ...], roles: dict[str, str]) -> None:
    columns, found = with_roles([*columns_of(records)], ReadOptions())
    assert found == text
    assert {c.path: c.role for c in columns if c.role} == {**roles, **dict.fromkeys(text, "text")}


def test_what_a_person_names_is_taken() -> None:
    read = ReadOptions(id_field="Campaign", text_field="Description", weight_field="Clicks")
    columns, text = with_roles([*columns_of(GOOGLE)], read)
    assert text == ("Description",)
    roles = {c.path: c.role for c in columns}
    assert (roles["Campaign"], roles["Clicks"], roles["Impr."], roles["Ad ID"]) == (
        "id",
        "weight",
        "",
        "",
    )


def test_figures_of_a_column() -> None:
    records: list[dict[str, Any]] = [{"a": "xx"}, {"a": "xx"}, {"a": "yyyy"}, {"a": None}]
    [column] = columns_of(records)
    assert (column.filled, column.distinct, column.chars) == (0.75, 2 / 3, 8 / 3)
    assert (column.kind, column.example) == ("words", "xx")


@pytest.mark.parametrize(
    ("paths", "fields"),
    [
        (["headline"], [AdField("headline", "")]),
        (
            ["a.headline", "b.headline"],
            [AdField("a.headline", "headline"), AdField("b.headline", "headline 2")],
        ),
        (["hea\x1bd: #"], [AdField("hea\x1bd: #", "hea d")]),
        (["#!", "x" * 60], [AdField("#!", "Field"), AdField("x" * 60, "x" * 40)]),
    ],
)
def test_fields_have_names_that_a_task_file_takes(paths: list[str], fields: list[AdField]) -> None:
    found = list(ad_fields(paths))
    assert found == fields
    for field in found:
        check_name(field.name or field.path)
