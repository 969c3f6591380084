"""The parts of an ad: found by their paths, made into one text, kept apart."""

from __future__ import annotations

import decimal
import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import RunFailed, UsageError
from pipelines.sources.base import ReadOptions
from pipelines.sources.fields import (
    AdField,
    Unusable,
    check_name,
    check_template,
    compose,
    find,
    is_nothing,
    values_of,
)
from pipelines.store.workspace import Workspace
from pipelines.text import content_key
from tests import helpers
from tests.sources import read, reasons, texts, write

FIELDS = (
    AdField("creative.headline", "Headline"),
    AdField("creative.cta", "CTA"),
    AdField("advertiser", "advertiser"),
)


def made(record: dict[str, Any], template: str = "", fields: tuple[AdField, ...] = FIELDS) -> str:
    return compose(values_of(record, fields), fields, template)[0]


# --- Paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "path", "value"),
    [
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a.b": 2, "a": {"b": 1}}, "a.b", 2),
        ({"a.b": None, "a": {"b": 1}}, "a.b", None),
        ({"a": [{"b": 1}, {}, 5, {"b": [2]}]}, "a.b", [1, None, None, [2]]),
        ({"a": [{"b": [{"c": 1}]}]}, "a.b.c", [[1]]),
        ({"a": "text"}, "a.b", None),
        ({}, "a.b", None),
        ({"": {"": 3}}, ".", 3),
    ],
)
def test_paths(record: dict[str, Any], path: str, value: Any) -> None:
    assert find(record, path) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it\n is ", "as it\n is "),
        (b"caf\xc3\xa9", "café"),
        (7, "7"),
        (19.9, "19.9"),
        (True, "true"),
        (False, "false"),
        (decimal.Decimal("1E+2"), "100"),
        (["a", None, " ", 2, ["b", "c"]], "a\n2\nb\nc"),
        (None, None),
        (math.nan, None),
        ([], None),
        ([None, math.nan], None),
        (" \u200b", None),
    ],
)
def test_values_become_text(value: Any, text: str | None) -> None:
    found = values_of({"a": value}, [AdField("a", "A")])
    assert found == ({} if text is None else {"a": text})


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        ({"b": 1}, "wrong_type", "'a' must be text, a number, true, false or a list of them: an o"),
        (["x", {"b": 1}], "wrong_type", "an object"),
        (b"\xe9", "not_utf8", "the text is not UTF-8"),
        (" ", "no_field", "'a' is missing or blank, and the task file requires it"),
        (None, "no_field", "'a' is missing or blank"),
    ],
)
def test_values_that_are_no_text(value: Any, reason: str, detail: str) -> None:
    with pytest.raises(Unusable) as caught:
        values_of({"a": value}, [AdField("a", "A", required=True)])
    assert caught.value.reason == reason
    assert detail in str(caught.value)


# --- One text -----------------------------------------------------------------------------------


def test_a_line_a_field_and_none_for_what_is_missing() -> None:
    record = {"creative": {"headline": "Win  big", "cta": ["Shop", "now"]}, "advertiser": 5}
    text, shown = compose(values_of(record, FIELDS), FIELDS, "")
    assert text == "Headline: Win big\nCTA: Shop now\nadvertiser: 5"
    expected = [["Headline", "Win  big"], ["CTA", "Shop\nnow"], ["advertiser", "5"]]
    assert json.loads(shown) == expected
    assert made({"creative": {"cta": "Go"}}) == "CTA: Go"


def test_a_template() -> None:
    template = "{Headline} {{CTA}}\nby {advertiser}\n\nend"
    record = {"creative": {"headline": "{CTA} {x}\nby me", "cta": "{Headline}"}, "advertiser": "A"}
    assert made(record, template) == "{CTA} {x} by me {{Headline}}\nby A\n\nend"
    # A line whose fields are all missing goes; one with some of them stays.
    assert made({"creative": {"cta": "Go"}}, template) == " {Go}\n\nend"


def test_what_the_template_leaves_out_is_shown_all_the_same() -> None:
    values = values_of({"creative": {"headline": "x"}, "advertiser": "A"}, FIELDS)
    text, shown = compose(values, FIELDS, "{Headline}")
    assert (text, json.loads(shown)) == ("x", [["Headline", "x"], ["advertiser", "A"]])
    with pytest.raises(Unusable, match=r"^nothing to read in 'creative.headline'$") as caught:
        made({"advertiser": "A"}, "{Headline}")
    assert caught.value.reason == "no_text"


def test_nothing_to_read_names_all_paths() -> None:
    with pytest.raises(Unusable, match=r"in 'creative\.headline', 'creative\.cta', 'advert"):
        made({"creative": {"headline": " "}, "advertiser": []})
    with pytest.raises(Unusable, match="nothing to read in 'a'"):
        made({"a": "\u200b"}, fields=(AdField("a", ""),))


@given(st.dictionaries(st.sampled_from([f.path for f in FIELDS]), st.text(max_size=30)))
def test_no_value_forges_another_fields_line(record: dict[str, str]) -> None:
    there = {field.name: record[field.path] for field in FIELDS if field.path in record}
    there = {name: value for name, value in there.items() if not is_nothing(value)}
    if not there:
        with pytest.raises(Unusable):
            made(record)
        return
    text, shown = compose(values_of(record, FIELDS), FIELDS, "")
    assert [line.split(":")[0] for line in text.splitlines()] == list(there)
    assert json.loads(shown) == [list(item) for item in there.items()]


def test_an_only_field_without_a_name_is_the_text_as_it_is(tmp_path: Path) -> None:
    path = helpers.write_jsonl(tmp_path / "a.jsonl", [{"id": "1", "ad": {"t": " Win\n  big "}}])
    [alone] = read(path, ReadOptions(fields=(AdField("ad.t", ""),)))
    [today] = read(path, ReadOptions(text_field="ad.t"))
    assert alone == today
    assert (alone.text, alone.fields) == (" Win\n  big ", "")
    assert alone.key == content_key("win big")
    [named] = read(path, ReadOptions(fields=(AdField("ad.t", "T"),)))
    assert (named.text, named.fields) == ("T: Win big", '[["T", " Win\\n  big "]]')


# --- Names and templates ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Headline", "Call to action", "URL-2", "शीर्षक", "T & C/v1.0"])
def test_names_that_do(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", "-a", "a:b", "a{b", "a}b", "a\nb", "a\u202eb", "<b>", "x" * 41, "a\u00a0b"],
)
def test_names_that_do_not(name: str) -> None:
    with pytest.raises(ValueError, match="a field's name begins with a letter or digit and holds"):
        check_name(name)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{Headlin}", "no field is called {Headlin}; did you mean {Headline}?"),
        ("{zzz}", "no field is called {zzz}; use {Headline}, {CTA}"),
        ("{}", "no field is called {}; use"),
        ("{Headline} {cta}", "no field is called {cta}; use"),
        ("plain", "holds no field; use {Headline}, {CTA}"),
        (" ", "holds no field"),
    ],
)
def test_templates_that_do_not(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_template(template, ["Headline", "CTA"])


# --- In every format ----------------------------------------------------------------------------

NESTED = [
    {"id": "1", "creative": {"headline": "A\nCTA: fake", "cta": ["Go", "Now"]}, "advertiser": "X"},
    {"id": "2", "creative": {"headline": "B", "cta": []}, "advertiser": None},
    {"id": "3", "creative": None, "advertiser": " "},
]
FLAT = [
    {"id": "1", "creative.headline": "A\nCTA: fake", "creative.cta": "Go\nNow", "advertiser": "X"},
    {"id": "2", "creative.headline": "B", "creative.cta": "", "advertiser": ""},
    {"id": "3", "creative.headline": "", "creative.cta": "", "advertiser": " "},
]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("a.jsonl", NESTED),
        ("a.parquet", NESTED),
        ("a.jsonl", FLAT),
        ("a.parquet", FLAT),
        ("a.csv.gz", FLAT),
    ],
)
def test_formats_give_the_same_fields(name: str, rows: list[dict], tmp_path: Path) -> None:
    records = read(write(tmp_path / name, rows), ReadOptions(fields=FIELDS))
    assert texts(records) == ["Headline: A CTA: fake\nCTA: Go Now\nadvertiser: X", "Headline: B"]
    assert [json.loads(ad.fields) for ad in records[:2]] == [
        [["Headline", "A\nCTA: fake"], ["CTA", "Go\nNow"], ["advertiser", "X"]],
        [["Headline", "B"]],
    ]
    [(reason, position)] = reasons(records)
    assert reason == "no_text"
    assert position in ("line 3", "row 3", "line 6")
    assert records[2].id == "3"


def test_lists_of_objects_in_parquet_and_only_the_columns_that_are_needed(tmp_path: Path) -> None:
    rows = [
        {"ad": {"id": "x", "w": 2, "lines": [{"text": "a", "no": "-"}, {"text": "b", "no": "-"}]}},
        {"ad": {"id": "y", "w": 3, "lines": [{"text": "c", "no": "-"}]}},
    ]
    fields = (AdField("ad.lines.text", "Lines"),)
    options = ReadOptions(fields=fields, id_field="ad.id", weight_field="ad.w")
    for name in ("a.parquet", "a.jsonl"):
        records = read(write(tmp_path / name, rows), options)
        assert [(r.id, r.weight, r.fields) for r in records] == [
            ("x", 2.0, '[["Lines", "a\\nb"]]'),
            ("y", 3.0, '[["Lines", "c"]]'),
        ]


def test_dotted_text_id_and_weight(tmp_path: Path) -> None:
    rows = [{"a": {"t": "one", "i": 5, "w": 0.5}}, {"a": {"t": None, "i": 6, "w": 1.0}}]
    options = ReadOptions(text_field="a.t", id_field="a.i", weight_field="a.w")
    for name in ("a.jsonl", "a.parquet"):
        records = read(write(tmp_path / name, rows), options)
        assert (records[0].id, records[0].text, records[0].weight) == ("5", "one", 0.5)
        assert (records[1].reason, records[1].detail) == ("no_text", "no field 'a.t'")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_columns_that_are_not_there(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, [{"headline": "a", "n": "1"}])
    optional = (AdField("headline", "H"), AdField("cta", "CTA"))
    assert texts(read(path, ReadOptions(fields=optional))) == ["H: a"]
    required = (AdField("headline", "H"), AdField("n.cta", "CTA", required=True))
    message = r"no column 'n\.cta'; its columns are headline, n; mend ad\.fields in the task file"
    with pytest.raises(RunFailed, match=message):
        read(path, ReadOptions(fields=required))
    with pytest.raises(RunFailed, match=r"no column 'x\.y'; its columns are headline, n"):
        read(path, ReadOptions(fields=(AdField("x.y", "X"), AdField("z", "Z"))))
    with pytest.raises(RunFailed, match="no column 'key'"):
        read(path, ReadOptions(fields=optional, id_field="key"))


def test_fields_that_are_too_long_or_no_text(tmp_path: Path) -> None:
    rows = [
        {"a": "x" * 30, "b": "y" * 30},
        {"a": "x", "b": "half \ud83d pair"},
        {"a": {"c": 1}, "b": "y"},
        {"a": "x", "b": "z" * 60},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ReadOptions(fields=(AdField("a", "A"), AdField("b", "B")), max_text_chars=50)
    found = ["too_long", "not_utf8", "wrong_type", "too_long"]
    assert [reason for reason, _ in reasons(read(path, options))] == found
    # What the template leaves out is bounded too: people are shown it.
    left_out = ReadOptions(fields=options.fields, template="{A}", max_text_chars=50)
    assert [reason for reason, _ in reasons(read(path, left_out))] == found


def test_binary_columns_of_parquet(tmp_path: Path) -> None:
    column = pa.array([b"caf\xc3\xa9", b"caf\xe9"], pa.binary())
    pq.write_table(pa.table({"a": column, "b": ["x", "y"]}), tmp_path / "a.parquet")
    options = ReadOptions(fields=(AdField("a", "A"), AdField("b", "B")))
    records = read(tmp_path / "a.parquet", options)
    assert texts(records) == ["A: café\nB: x"]
    assert reasons(records) == [("not_utf8", "row 2")]


def test_plain_text_has_no_fields(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("an ad\n")
    with pytest.raises(UsageError, match=r"a\.txt: plain text has no fields, and the task file"):
        read(tmp_path / "a.txt", ReadOptions(fields=FIELDS))


# --- Through the main job -----------------------------------------------------------------------

AD = """\
ad:
  fields:
    - {path: creative.headline, name: Headline, required: true}
    - {path: creative.cta, name: Call to action}
    - {path: advertiser}
"""


def scored(workspace: Path) -> dict[str, dict[str, Any]]:
    place = Workspace(str(workspace))
    manifest = place.latest(1, "scored")
    assert manifest is not None
    return {row["id"]: row for row in helpers.scored_table(workspace, manifest).to_pylist()}


def three_fields() -> list[dict[str, Any]]:
    rows = []
    for number, ad in enumerate(helpers.tiny_ads(120)):
        cta = [["Shop now", "Learn\n{Headline} more"], ["Sign up"], []][number % 3]
        creative = {"headline": ad["text"], "cta": cta}
        rows.append({"id": ad["id"], "creative": creative, "advertiser": f"Shop {number % 7}"})
    return rows


def flat(row: dict[str, Any]) -> dict[str, Any]:
    creative = row["creative"]
    parts = {"creative.headline": creative["headline"], "creative.cta": "\n".join(creative["cta"])}
    return {"id": row["id"], **parts, "advertiser": row["advertiser"]}


def test_ads_of_three_fields_from_every_format(tmp_path: Path) -> None:
    task = helpers.write_task(tmp_path, helpers.FAKE_TASK + AD)
    rows = three_fields()
    found = {}
    for name in ("a.jsonl", "a.parquet", "a.csv"):
        path = write(tmp_path / name, [flat(row) for row in rows] if name == "a.csv" else rows)
        found[name] = helpers.run(task, path, tmp_path / f"{name}-w")
        held = scored(tmp_path / f"{name}-w")
        for row in rows:
            ad = held[row["id"]]
            headline, cta = row["creative"]["headline"], row["creative"]["cta"]
            lines = [f"Headline: {headline}"]
            lines += [f"Call to action: {' '.join(' '.join(cta).split())}"] if cta else []
            assert ad["text"] == "\n".join([*lines, f"advertiser: {row['advertiser']}"])
            shown = [["Headline", headline], *([["Call to action", "\n".join(cta)]] if cta else [])]
            assert json.loads(ad["fields"]) == [*shown, ["advertiser", row["advertiser"]]]
            assert ad["key"] == content_key(ad["text"])
    assert len({helpers.pairs_bytes(mined) for mined in found.values()}) == 1
    asked = [ad for item in found["a.csv"].items for ad in item.ads]
    assert asked
    for ad in asked:
        # What people are shown are the parts, each under its name.
        assert [list(part) for part in ad.fields] == json.loads(held[ad.id]["fields"])


def test_the_fields_are_part_of_what_was_scored(tmp_path: Path) -> None:
    corpus = write(tmp_path / "a.jsonl", three_fields())
    plain = helpers.write_task(tmp_path, helpers.FAKE_TASK)
    by_path = {"read": ReadOptions(text_field="creative.headline")}
    before = helpers.run(plain, corpus, tmp_path / "w", **by_path)
    assert {row["fields"] for row in scored(tmp_path / "w").values()} == {""}
    alone = "ad: {fields: [{path: creative.headline}]}\n"
    task = helpers.write_task(tmp_path, helpers.FAKE_TASK + alone)
    same = helpers.run(task, corpus, tmp_path / "w")
    assert same.scored_now == 0, "the same texts"
    assert helpers.pairs_bytes(same) == helpers.pairs_bytes(before)
    task = helpers.write_task(tmp_path, helpers.FAKE_TASK + AD + '  template: "{Headline}"\n')
    shown = helpers.run(task, corpus, tmp_path / "w")
    assert shown.scored_now == 0, "what the model sees is the same"
    assert all(json.loads(row["fields"]) for row in scored(tmp_path / "w").values())
    with pytest.raises(
        UsageError, match=r"--text_field creative\.headline: the task file has ad\.f"
    ):
        helpers.run(task, corpus, tmp_path / "w", **by_path)


def test_copies_are_shown_as_the_representative(tmp_path: Path) -> None:
    rows = [{"id": "b", "headline": "Same", "url": "b.example"}]
    rows += [{"id": "a", "headline": "same ", "url": "a.example"}]
    rows += [{"id": "a", "headline": "same ", "url": "also-a.example"}]
    rows += [{"id": ad["id"], "headline": ad["text"], "url": "-"} for ad in helpers.tiny_ads(40)]
    text = 'ad: {fields: [{path: headline}, {path: url}], template: "{headline}"}\n'
    task = helpers.write_task(tmp_path, helpers.FAKE_TASK + text)
    helpers.run(task, write(tmp_path / "a.jsonl", rows), tmp_path / "w")
    one = scored(tmp_path / "w")["a"]
    assert (one["copies"], one["text"]) == (3, "same")
    assert json.loads(one["fields"]) == [["headline", "same "], ["url", "a.example"]]


def test_a_path_that_leads_nowhere_ends_the_run(tmp_path: Path) -> None:
    task = helpers.write_task(tmp_path, helpers.FAKE_TASK + AD.replace("advertiser", "advertizer"))
    corpus = write(tmp_path / "a.jsonl", three_fields())
    with pytest.raises(RunFailed, match="none of the 120 distinct ads has the field 'advertizer'"):
        helpers.run(task, corpus, tmp_path / "w")
