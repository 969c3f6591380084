"""Ids that a program took for numbers: what they may have been."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.verdicts.ids import NumericIds, is_rounded, may_become
from pipelines.verdicts.resolve_rows import Reading, Resolved, resolve
from pipelines.verdicts.shown import Shown, shown_ads
from pipelines.verdicts.tables import read_csv, read_jsonl
from tests.verdicts import item_of, mined

BIG = 2**53
IDS = [str(BIG), str(BIG + 1), str(BIG + 2), "1234567890123456789", "007", "7", "8", "0009"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    ads = [(id, f"ad number {id}") for id in IDS]
    pairs = [item_of(f"p{i}", ads[2 * i], ads[2 * i + 1]) for i in range(4)]
    return shown_ads(mined(tmp_path_factory.mktemp("w"), pairs))


def read(rows: list[str], shown: Shown, head: str = "ad_id,label,expert") -> Resolved:
    return resolve(read_csv("\n".join([head, *rows]).encode(), "f.csv"), Reading(shown))


def outcome(resolved: Resolved) -> list[str]:
    return [v.ad_id for v in resolved.verdicts] + [r.reason for r in resolved.rejected]


@pytest.mark.parametrize(
    ("written", "behind"),
    [
        (str(BIG), [str(BIG), str(BIG + 1)]),
        # No float: whoever writes it has the id itself.
        (str(BIG + 1), [str(BIG + 1)]),
        (f"{BIG}.0", [str(BIG), str(BIG + 1)]),
        ("9.007199254740992e+15", [str(BIG), str(BIG + 1)]),
        ("9,00719925474099E+15", [str(BIG), str(BIG + 1), str(BIG + 2)]),
        # JavaScript's shortest form, the float itself, and 15 digits as a spreadsheet keeps them.
        ("1234567890123456800", ["1234567890123456789"]),
        ("1234567890123456768", ["1234567890123456789"]),
        ("1234567890123450000", ["1234567890123456789"]),
        ("1234567890123460000", ["1234567890123456789"]),
        ("1.23457E+18", ["1234567890123456789"]),
        ("1.2E+18", []),
        ("7", ["007", "7"]),
        ("7.0", ["007", "7"]),
        ("007", ["007"]),
        ("9", ["0009"]),
        ("８", ["8"]),
        ("a1", []),
        ("", []),
    ],
)
def test_what_may_be_behind_a_number(written: str, behind: list[str]) -> None:
    assert NumericIds(IDS).behind(written) == behind


@given(st.integers(10**12, 10**20), st.lists(st.integers(-300, 300), max_size=8))
def test_the_index_finds_what_a_scan_finds(start: int, steps: list[int]) -> None:
    ids = sorted({str(start + step) for step in steps})
    for id in ids:
        for written in (
            str(int(float(id))),
            repr(float(id)),
            f"{float(id):.5E}",
            f"{float(id):.14E}",
            id[:15] + "0" * (len(id) - 15),
        ):
            found = NumericIds(ids).behind(written)
            assert id in found
            assert found == sorted((i for i in ids if may_become(i, written)), key=int)


def test_a_rounded_id_alone_is_nobody_s(shown: Shown) -> None:
    lines = [json.dumps({"ad_id": int(id), "label": "bait", "expert": "x"}) for id in IDS[:3]]
    lines += [f'{{"ad_id": {float(id)!r}, "label": "bait", "expert": "x"}}' for id in IDS[:4]]
    resolved = resolve(read_jsonl("\n".join(lines).encode(), "f"), Reading(shown))
    # Of the first three only the odd one cannot come from rounding, and 994 stands alone.
    assert [v.ad_id for v in resolved.verdicts] == [str(BIG + 1), str(BIG + 2)]
    assert [(r.position, r.reason) for r in resolved.rejected] == [
        ("line 1", "rounded_id"),
        *((f"line {n}", "rounded_id") for n in (4, 5, 6, 7)),
    ]
    assert resolved.rejected[0].detail == (
        f"the id '{BIG}' is one rounding away from the shown '{BIG + 1}': a program that took it for a "
        "number may have changed its last digits; import the column as text, or give item_id and side, "
        "or the text"
    )


def test_item_or_text_says_which_ad_a_rounded_id_is(shown: Shown) -> None:
    head = "item_id,side,ad_id,text,label,expert"
    for row, wanted in (
        # p0 shows 992 on the left and 993 on the right, p1 shows 994 and the long one.
        (f"p0,right,{BIG},,bait,x", str(BIG + 1)),
        (f"p0,left,{BIG},,bait,x", str(BIG)),
        (f",,{BIG},ad number {BIG + 1},bait,x", str(BIG + 1)),
        (f",,9.00719925474099E+15,ad number {BIG + 2},bait,x", str(BIG + 2)),
        ("p1,,1.23457E+18,,bait,x", "1234567890123456789"),
        (f"p1,,{BIG + 2}.0,,bait,x", str(BIG + 2)),
        ("p2,,7,,bait,x", "ambiguous_ad"),
        ("p2,left,7,,bait,x", "007"),
        (f"p0,,{BIG},,bait,x", "ambiguous_ad"),
        (f"p1,,{BIG + 1},,bait,x", "unknown_ad"),
        ("p1,,1.2E+18,,bait,x", "unknown_ad"),
    ):
        # The pair's other ad, so that no half pair is refused for being one.
        item = row.split(",")[0]
        others = [f"{item},{side},,,skip,x" for side in ("left", "right") if item]
        found = read([row, *others], shown, head)
        rest = [i for i in outcome(found) if i in (wanted, "ambiguous_ad", "unknown_ad")]
        assert wanted in rest and ("_ad" in wanted) == bool(found.rejected), row


def test_numbers_that_lose_nothing_find_their_ad(shown: Shown) -> None:
    found = read(
        ["8.0,bait,x", "8,bait,y", "８,bait,z", "9,bait,x", "7,bait,x", "007,bait,x"], shown
    )
    assert outcome(found) == ["8", "8", "8", "0009", "007", "ambiguous_ad"]
    assert found.rejected[0].detail.startswith("the number '7' may be the shown id '007', too; imp")
    # An apostrophe kept it a text.
    assert outcome(read([f"'{BIG},bait,x"], shown)) == [str(BIG)]


def test_a_data_frame_with_a_gap_credits_no_other_ad(shown: Shown, tmp_path: Path) -> None:
    rows = [(int(id), f"ad number {id}") for id in IDS[:4]]
    frame = pd.DataFrame(rows, columns=["ad_id", "text"])
    frame.loc[len(frame)] = [None, None]
    frame = frame.assign(label="bait", expert=1.0)
    for columns, wanted in (
        (["ad_id", "label", "expert"], set()),
        (["ad_id", "text", "label", "expert"], set(IDS[:4])),
    ):
        frame[columns].to_csv(tmp_path / "v.csv", index=False)
        data = (tmp_path / "v.csv").read_bytes()
        found = resolve(read_csv(data, "v.csv"), Reading(shown))
        assert {v.ad_id for v in found.verdicts} == wanted
        assert {v.expert for v in found.verdicts} <= {"1"}


def test_what_has_lost_its_last_digits() -> None:
    for text in ("9007199254740992.0", "9.1e15", "1E+16", "-9.1e15"):
        assert is_rounded(text)
    for text in (str(BIG), "9007199254740991.0", "1e15", "a1", ""):
        assert not is_rounded(text)
