"""What was put before experts, and for which task."""

from __future__ import annotations

from pathlib import Path

from pipelines.text import content_key
from pipelines.verdicts.rows import LabelNames
from pipelines.verdicts.shown import shown_ads
from tests.verdicts import item_of, mined


def test_what_was_shown_is_every_attempt_of_every_round(tmp_path: Path) -> None:
    one = item_of("p1", ("a1", "one"), ("a2", "two"), positive="right")
    two = item_of("p2", ("a1", "one"), ("a3", "three"))
    mined(tmp_path, [one], version=1)
    mined(tmp_path, [two], version=2)
    place = mined(tmp_path, [item_of("p3", ("a4", "four"), ("a5", "five"))], number=2)
    shown = shown_ads(place)
    assert [(ad.item_id, ad.side, ad.current) for ad in shown.by_ad["a1"]] == [
        ("p1", "left", False),
        ("p2", "left", True),
    ]
    assert {ad.ad_id: ad.side for ad in shown.by_item["p1"]} == {"a1": "left", "a2": "right"}
    assert shown.round_of[content_key("four")] == 2
    assert set(shown.texts().values()) == {"one", "two", "three", "four", "five"}
    assert {ad.labels for ad in shown.ads()} == {LabelNames("bait", "fine")}


def test_an_ad_may_be_shown_alone(tmp_path: Path) -> None:
    shown = shown_ads(mined(tmp_path, [item_of("i1", ("a1", "one"))]))
    [ad] = shown.by_item["i1"]
    assert (ad.ad_id, ad.side, shown.by_ad["a1"]) == ("a1", "", (ad,))
    assert list(shown.ads()) == [ad]
