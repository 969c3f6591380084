"""Which ad a row is about, what it says, and why it cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts import Verdict
from pipelines.text import content_key
from pipelines.verdicts.resolve_rows import Reading, Resolved, resolve
from pipelines.verdicts.rows import LabelNames
from pipelines.verdicts.shown import Shown, shown_ads
from pipelines.verdicts.tables import read_csv, read_jsonl
from tests.verdicts import item_of, mined

PAIRS = [
    item_of("p1", ("a1", "One weird trick"), ("a2", "=1+1 kettles"), positive="right"),
    item_of("p2", ("12345678901234567", "Third ad"), ("a4", "Fourth\nad")),
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return shown_ads(mined(tmp_path_factory.mktemp("w"), PAIRS))


def read(text: str, shown: Shown, reader: Any = read_csv, **reading: Any) -> Resolved:
    return resolve(reader(text.encode(), "f.csv"), Reading(shown, **reading))


def said(resolved: Resolved) -> list[tuple[str, str, str]]:
    return [(v.ad_id, v.label, v.expert) for v in resolved.verdicts]


def why(resolved: Resolved) -> list[tuple[str, str]]:
    return [(r.position, r.reason) for r in resolved.rejected]


def test_a_filled_sheet_becomes_verdicts(shown: Shown) -> None:
    sheet = (
        "\ufeffitem_id,side,ad_id,text,label,expert,comment\r\n"
        "p1,left,a1,One weird trick,Bait,Anna,see\r\n"
        "p1,right,a2,'=1+1 kettles,fine,ANNA ,\r\n"
        'p2,left,12345678901234567,Third ad,,Anna,\r\np2,right,a4,"Fourth\r\nad",fine,anna,\r\n'
    )
    resolved = read(sheet, shown)
    assert resolved.verdicts[0] == Verdict(
        key=content_key("One weird trick"),
        ad_id="a1",
        item_id="p1",
        label="positive",
        expert="anna",
        time="",
        comment="see",
        source="f.csv",
        position="line 2",
    )
    assert said(resolved)[1:] == [
        ("a2", "negative", "anna"),
        ("12345678901234567", "skip", "anna"),
        ("a4", "negative", "anna"),
    ]
    assert (resolved.rejected, resolved.unanswered, resolved.changed_mind) == ((), 0, 0)


def test_an_untouched_sheet_is_unanswered_not_wrong(shown: Shown) -> None:
    sheet = "item_id,side,ad_id,text,label,expert\np1,left,a1,,,\np1,right,a2,,,\n"
    resolved = read(sheet, shown, expert="anna")
    assert (said(resolved), why(resolved), resolved.unanswered) == ([], [], 2)


def test_labels_named_the_other_way_round_come_out_the_other_way_round(shown: Shown) -> None:
    rows = list(read_csv(b"ad_id,label,expert\na1,bait,x\n", "f"))

    def label(names: LabelNames) -> str:
        named = {
            id: tuple(replace(ad, labels=names) for ad in ads) for id, ads in shown.by_ad.items()
        }
        return resolve(rows, Reading(replace(shown, by_ad=named))).verdicts[0].label

    # What the labels were called when the ad was shown is what counts.
    assert label(LabelNames("bait", "fine")) == "positive"
    assert label(LabelNames("fine", "bait")) == "negative"


def test_sides_follow_how_the_pair_was_shown(shown: Shown) -> None:
    # p1 shows its positive ad on the right: a reader that takes left for positive fails here.
    resolved = read("item_id,label_a,label_b,expert\np1,bait,fine,x\n", shown)
    assert said(resolved) == [("a1", "positive", "x"), ("a2", "negative", "x")]
    long = read("item_id,side,label,expert\np1,right,bait,x\np1,a,fine,x\n", shown)
    assert said(long) == [("a2", "positive", "x"), ("a1", "negative", "x")]
    lines = '{"item_id": "p1", "label_left": "fine", "label_right": "?", "expert": "x"}\n'
    assert said(read(lines, shown, read_jsonl)) == [("a1", "negative", "x"), ("a2", "skip", "x")]


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ("p1,left,a9,,bait,x,", "unknown_ad", "no ad 'a9' was shown; shown ids look like"),
        (",,1.23457E+16,,bait,x,", "rounded_id", "import the column as text, or give item_id"),
        (
            ",,12345678901234567.0,,bait,x,",
            "rounded_id",
            "one rounding away from the shown '12345678901234567'",
        ),
        (",,5.5E+16,,bait,x,", "unknown_ad", "turned the id into a number"),
        ("p1,,a4,,bait,x,", "unknown_ad", "the item p1 shows 'a1' and 'a2', not 'a4'"),
        ("p9,left,a1,,bait,x,", "unknown_item", "no review item 'p9' was shown"),
        ("p1,,,,bait,x,", "ambiguous_ad", "a pair holds two ads; name the side"),
        ("p1,right,a1,,bait,x,", "ambiguous_ad", "says right, but this ad was shown on the left"),
        (",,,,bait,x,", "not_readable_row", "neither an ad_id nor an item_id"),
        (",,a1,Third ad,bait,x,", "text_mismatch", "'Third ad' is not that of the ad 'a1', which"),
        ("p1,,,Third ad,bait,x,", "text_mismatch", "rows may have been shifted"),
        (",,a1,,perhaps,x,", "unknown_label", "'perhaps' is none of bait, fine, positive, neg"),
        (",,a1,,=bait,x,", "unknown_label", "'=bait' is none of"),
        (f",,a1,,{'b' * 5000},x,", "unknown_label", "is none of"),
        (",,a1,,bait,,", "blank_expert", "a label without the expert who gave it"),
        (",,a1,,bait,\u200b,", "blank_expert", "a label without"),
        (
            ",,a1,,bait,NaN,",
            "blank_expert",
            "'NaN' is what programs write where a value is missing",
        ),
        (f",,a1,,bait,{'x' * 101},", "bad_expert", "101 characters, at most 100"),
        (",,a1,,bait,True,", "bad_expert", "'true' is a truth value, no name"),
        (
            ",,a1,,bait,1.2345678901234568e+17,",
            "bad_expert",
            "has lost its last digits: from 9,007,1",
        ),
        (",,a1,,bait,x,tomorrow", "bad_time", "'tomorrow' is no time"),
    ],
)
def test_rows_that_cannot_be_used_say_why(row: str, reason: str, detail: str, shown: Shown) -> None:
    text = f"item_id,side,ad_id,text,label,expert,time\n,,a2,,fine,y,\n{row}\n"
    resolved = read(text, shown)
    assert said(resolved) == [("a2", "negative", "y")]
    [letter] = resolved.rejected
    assert (letter.position, letter.reason, letter.stage) == ("line 3", reason, "ReadVerdicts")
    assert detail in letter.detail
    assert len(letter.excerpt) <= 200


def test_swapped_columns_label_nothing(shown: Shown) -> None:
    swapped = read("ad_id,expert,label\na1,bait,anna\na2,fine,anna\n", shown)
    assert [reason for _, reason in why(swapped)] == ["unknown_label"] * 2
    shifted = read(
        "item_id,side,ad_id,text,label,expert\n"
        "p1,left,a1,=1+1 kettles,bait,x\np1,right,a2,Third ad,fine,x\n",
        shown,
    )
    assert [reason for _, reason in why(shifted)] == ["text_mismatch"] * 2
    assert said(swapped) == said(shifted) == []


def test_half_pairs_are_refused_and_skips_are_answers(shown: Shown) -> None:
    head = "item_id,side,label,expert\n"
    half = read(f"{head}p1,left,bait,x\np1,right,,\np2,left,bait,x\np2,right,,x\n", shown)
    assert said(half) == [("12345678901234567", "positive", "x"), ("a4", "skip", "x")]
    assert (why(half), half.unanswered) == ([("line 2", "half_pair")], 1)
    assert "'x' says nothing of the pair's other ad" in half.rejected[0].detail
    wide = read("item_id,label_a,label_b,expert\np1,bait,,x\np2,fine,skip,x\n", shown)
    assert why(wide) == [("line 2", "half_pair")] and len(wide.verdicts) == 2
    # What somebody else says of the other ad does not complete the pair.
    others = read(f"{head}p1,left,bait,x\np1,right,fine,y\n", shown)
    assert [reason for _, reason in why(others)] == ["half_pair"] * 2
    # The same ad twice is not both ads.
    twice = read(f"{head}p1,left,bait,x\np1,left,fine,x\n", shown)
    assert [reason for _, reason in why(twice)] == ["half_pair"] * 2


def test_an_answer_that_was_refused_is_not_half_a_pair(shown: Shown) -> None:
    head = "item_id,side,label,expert\np1,left,bait,x\n"
    for other, reason in (("p1,right,perhaps,x", "unknown_label"), ("p1,b,fine,", "blank_expert")):
        resolved = read(f"{head}{other}\n", shown)
        assert said(resolved) == [("a1", "positive", "x")]
        assert why(resolved) == [("line 3", reason)]


def test_an_ad_alone_stands_for_itself(shown: Shown) -> None:
    assert said(read("ad_id,label,expert\na1,bait,x\n", shown)) == [("a1", "positive", "x")]


def test_two_people_in_one_sheet(shown: Shown) -> None:
    head = "item_id,side,label,expert\n"
    body = "".join(f"p1,{side},bait,{name}\n" for name in "xy" for side in ("left", "right"))
    resolved = read(head + body, shown)
    assert len(resolved.verdicts) == 4 and resolved.changed_mind == 0


def test_a_changed_mind_is_counted_and_the_last_word_stays_last(shown: Shown) -> None:
    resolved = read("ad_id,label,expert\na1,bait,x\na1,bait,X\na1,fine,x\na1,fine,y\n", shown)
    assert [v.label for v in resolved.verdicts] == ["positive"] * 2 + ["negative"] * 2
    assert resolved.changed_mind == 1


def test_the_given_expert_speaks_only_where_the_file_names_nobody(shown: Shown) -> None:
    nobody = read("ad_id,label\na1,bait\n", shown, expert=" Anna ")
    assert said(nobody) == [("a1", "positive", "anna")]
    some = read("ad_id,label,expert\na1,bait,\na2,fine,bo\n", shown, expert="anna")
    assert said(some) == [("a2", "negative", "bo")]
    assert why(some) == [("line 2", "blank_expert")]


def test_numbers_of_a_tool_s_users_become_names(shown: Shown) -> None:
    resolved = read("ad_id,label,expert\na1,bait,3\n", shown, experts={"3": "anna"})
    assert said(resolved) == [("a1", "positive", "anna")]


def test_an_id_that_stands_for_two_ads_needs_more(tmp_path: Path) -> None:
    place = mined(tmp_path, [item_of("p1", ("a1", "old text"), ("a2", "two"))])
    mined(tmp_path, [item_of("p2", ("a1", "new text"), ("a3", "three"))], number=2)
    shown = shown_ads(place)
    text = "ad_id,item_id,text,label,expert\na1,,,bait,x\na1,,new text,bait,x\na3,p2,,fine,x\n"
    resolved = read(text + "a1,p2,,bait,x\n", shown)
    assert why(resolved) == [("line 2", "ambiguous_ad")]
    assert {v.key for v in resolved.verdicts if v.ad_id == "a1"} == {content_key("new text")}


def test_verdicts_on_another_version_of_the_policy_do_not_count(tmp_path: Path) -> None:
    place = mined(tmp_path, [item_of("p1", ("a1", "one"), ("a2", "two"))], version=1)
    mined(tmp_path, [item_of("p2", ("a1", "one"), ("a3", "three"))], version=2)
    shown = shown_ads(place)
    resolved = read("item_id,label_a,label_b,expert\np1,bait,fine,x\np2,bait,fine,x\n", shown)
    assert [reason for _, reason in why(resolved)] == ["other_version"] * 2
    assert [(v.ad_id, v.item_id) for v in resolved.verdicts] == [("a1", "p2"), ("a3", "p2")]


def test_hostile_cells_can_be_stored(shown: Shown) -> None:
    line = '{"ad_id": "a1", "label": "bait", "expert": "=cmd()|x", "comment": "\\ud800\\u0000"}\n'
    bad = '{"ad_id": "\\ud800", "label": "bait", "expert": "x"}\n'
    resolved = read(line + bad, shown, read_jsonl)
    [verdict] = resolved.verdicts
    assert verdict.expert == "=cmd()|x"
    for item in (verdict.comment, resolved.rejected[0].id, resolved.rejected[0].detail):
        item.encode()


def test_an_item_of_one_ad_has_no_side_and_no_half(tmp_path: Path) -> None:
    one, two = item_of("i1", ("a1", "one")), item_of("p1", ("a2", "two"), ("a3", "three"))
    shown = shown_ads(mined(tmp_path, [one, two]))
    head = "item_id,side,ad_id,text,label,expert\n"
    resolved = read(f"{head}i1,,,,bait,x\ni1,,a1,one,fine,y\ni1,,,,,\np1,left,,,bait,x\n", shown)
    assert said(resolved) == [("a1", "positive", "x"), ("a1", "negative", "y")]
    assert [v.item_id for v in resolved.verdicts] == ["i1", "i1"]
    assert (why(resolved), resolved.unanswered) == ([("line 5", "half_pair")], 1)
    # Who knows pairs alone calls it the left one; there is no other.
    assert said(read(f"{head}i1,a,,,bait,x\n", shown)) == [("a1", "positive", "x")]
    wide = read("item_id,label_a,label_b,expert\ni1,bait,,x\ni1,,,\n", shown)
    assert (said(wide), why(wide), wide.unanswered) == ([("a1", "positive", "x")], [], 1)
    [other] = read(f"{head}i1,b,,,bait,x\n", shown).rejected
    assert other.detail == "the row says right, but this ad was shown alone"


def test_where_nothing_was_shown_no_ad_is_known(tmp_path: Path) -> None:
    [letter] = read("ad_id,label,expert\na1,bait,x\n", shown_ads(mined(tmp_path, []))).rejected
    assert letter.reason == "unknown_ad"


@pytest.mark.parametrize("gap", ["", "NaN", "nan", "NA", "<NA>", "None", "null", "NaT", "#N/A"])
def test_what_is_missing_is_missing_in_every_column(gap: str, shown: Shown) -> None:
    head = "item_id,side,ad_id,text,label,expert,time,comment,skipped\n"
    rows = f"{gap},{gap},a1,{gap},bait,x,{gap},{gap},{gap}\np2,left,{gap},{gap},fine,x,{gap},,\n"
    found = read(f"{head}{rows}p2,right,{gap},{gap},{gap},x,,,\n,,a2,,{gap},{gap},,,\n", shown)
    assert found.rejected == () and found.unanswered == 1
    assert said(found) == [
        ("a1", "positive", "x"),
        ("12345678901234567", "negative", "x"),
        # Signed: the ad cannot be told.
        ("a4", "skip", "x"),
    ]
    assert {(v.time, v.comment) for v in found.verdicts} == {("", "")}
    wide = read(f"item_id,label_a,label_b,expert,time\np1,{gap},bait,x,{gap}\n", shown)
    assert why(wide) == [("line 2", "half_pair")]
    both = read(f"item_id,label_a,label_b,id_a,expert\np1,{gap},{gap},{gap},x\n", shown)
    assert said(both) == [("a1", "skip", "x"), ("a2", "skip", "x")]


def test_what_is_called_like_a_gap_is_meant_by_it(tmp_path: Path) -> None:
    items = [
        item_of("i1", ("NA", "null")),
        item_of("i2", ("b", "two")),
        item_of("i3", ("c", "None")),
    ]
    shown = shown_ads(mined(tmp_path, items, labels={"positive": "none", "negative": "NULL ad"}))
    head = "item_id,ad_id,text,label,expert\n"
    rows = ",NA,,none,x\ni1,,null,None,x\n,b,two,NONE,x\ni2,NA,two,none,x\ni3,,nan,null ad,x\n"
    found = read(head + rows, shown)
    assert said(found) == [
        ("NA", "positive", "x"),
        ("NA", "positive", "x"),
        ("b", "positive", "x"),
        ("c", "negative", "x"),
    ]
    # The item shows another ad than the one that is called NA.
    assert why(found) == [("line 5", "unknown_ad")]
    # A label of this name is no empty cell: the pair is whole.
    pair = item_of("p1", ("a1", "one"), ("a2", "two"))
    named = shown_ads(mined(tmp_path / "p", [pair], labels={"positive": "bad", "negative": "none"}))
    wide = read("item_id,label_a,label_b,expert\np1,none,bad,x\np1,None,none,y\n", named)
    assert [label for _, label, _ in said(wide)] == ["negative", "positive", "negative", "negative"]


@pytest.mark.parametrize("one", ["1.0", " 1", "１", "01", "1,0", "'1", "1\u200b"])
def test_a_number_is_one_expert_however_it_is_written(one: str, shown: Shown) -> None:
    found = read(f'ad_id,label,expert\na1,bait,1\na1,bait,"{one}"\n', shown)
    assert {v.expert for v in found.verdicts} == {"1"} and len(found.verdicts) == 2
    assert said(read(f'ad_id,label,expert\na1,bait,"{one}"\n', shown, experts={"1": "anna"})) == [
        ("a1", "positive", "anna")
    ]
