"""For every tool: exported, answered in the tool's own format, imported: the same verdicts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.verdicts.halves import latest
from tests.tools import batch_of, lines, understood
from tests.tools.players import EVENTS, HALF, HOSTILE_LABELS, ROUTES, Route, wanted

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


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(TEXTS, min_size=8, max_size=8),
    ids=st.lists(TEXTS, min_size=8, max_size=8),
    sizes=st.lists(st.sampled_from([1, 2]), min_size=4, max_size=4),
    fields=st.just(()) | st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3),
)
def test_answers_come_back_as_they_were_given(
    route: Route, texts: list[str], ids: list[str], sizes: list[int], fields: Any
) -> None:
    # Different ads under different ids, as a corpus gives them.
    ads = [
        (f"{id[:200]}#{n}", f"{text} #{n}")
        for n, (id, text) in enumerate(zip(ids, texts, strict=True))
    ]
    batch = batch_of(ads, shown=True, labels=HOSTILE_LABELS, sizes=sizes, fields=fields)
    resolved = understood(route.read(route.through(batch)), batch)
    halves = [batch.items[HALF].item_id] if sizes[HALF] == 2 else []
    assert [(r.reason, r.excerpt.split(" | ")[0]) for r in resolved.rejected] == [
        ("half_pair", id) for id in halves
    ]
    found = {(v.ad_id, v.expert): v.label for v in latest(resolved.verdicts)}
    assert found == wanted(batch, route.skips)
    comments = {v.comment for v in resolved.verdicts if v.comment}
    assert comments == {EVENTS[0].comment}


# The page's answers are not words, so another task's names change nothing in them.
WORDS = {name: route for name, route in ROUTES.items() if route.tool != "page"}


@pytest.mark.parametrize("route", WORDS.values(), ids=WORDS)
def test_swapped_label_names_swap_the_verdicts(route: Route) -> None:
    # Read for another task, the answers mean the opposite.
    ads = [(f"a{n}", f"ad number {n}") for n in range(8)]
    batch = batch_of(ads, labels=HOSTILE_LABELS)
    swapped = batch_of(ads, labels=HOSTILE_LABELS[::-1])
    resolved = understood(route.read(route.through(batch)), swapped)
    other = {"positive": "negative", "negative": "positive", "skip": "skip"}
    found = {(v.ad_id, v.expert): other[v.label] for v in latest(resolved.verdicts)}
    assert found == wanted(batch, route.skips)


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_answers_to_other_pairs_are_dead_letters(route: Route) -> None:
    ads = [(f"a{n}", f"ad number {n}") for n in range(8)]
    answers = route.through(batch_of(ads, labels=HOSTILE_LABELS))
    # Other texts under the same ids, and other pairs of the same ads.
    edited = batch_of([(id, f"{text}, edited") for id, text in ads], labels=HOSTILE_LABELS)
    shuffled = batch_of(ads[1:] + ads[:1], labels=HOSTILE_LABELS)
    strange = batch_of([("x1", "x"), ("x2", "y")], labels=HOSTILE_LABELS)
    for batch, reasons in (
        (edited, {"text_mismatch"}),
        (shuffled, {"unknown_ad", "ambiguous_ad"}),
        (strange, {"unknown_item", "unknown_ad"}),
    ):
        resolved = understood(route.read(answers), batch)
        assert not resolved.verdicts
        assert resolved.rejected and {r.reason for r in resolved.rejected} <= reasons


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("\ud800")
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


RECORDS = ("label-studio", "label-studio snapshot", "label-studio JSON_MIN", "argilla", "prodigy")


@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), sizes=st.sampled_from([(2, 2, 2, 2), (1, 1, 1, 1)]))
def test_any_value_in_any_place_costs_its_own_task_only(
    name: str, data: st.DataObject, sizes: tuple[int, ...]
) -> None:
    route = ROUTES[name]
    ads = [(f"a{n}", f"ad number {n}") for n in range(8)]
    batch = batch_of(ads, labels=HOSTILE_LABELS, sizes=sizes)
    [answers] = route.through(batch)
    records = lines(answers) if name == "prodigy" else json.loads(answers)
    spoiled = records[0]
    item_id = spoiled.get("item_id") or spoiled["data"]["item_id"]
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
    text = json.dumps(records) if name != "prodigy" else "\n".join(map(json.dumps, records))
    resolved = understood(route.read([text.encode()]), batch)
    for row in resolved.rejected:
        row.detail.encode() and row.position.encode() and row.excerpt.encode()
    found = {(v.ad_id, v.expert): v.label for v in latest(resolved.verdicts)}
    expected = wanted(batch, route.skips)
    for item in batch.items:
        if item.item_id != item_id:
            for ad in item.ads:
                for expert in ("anna", "bo"):
                    assert found.get((ad.id, expert)) == expected.get((ad.id, expert))
