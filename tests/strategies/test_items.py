from __future__ import annotations

import dataclasses

import pytest

from pipelines.contracts import OverlapFacts, ReviewItem
from pipelines.store import files
from pipelines.store.facts import adapter
from pipelines.strategies.items import as_shown, item_id, named_ad, read, review_ad, weighed
from tests.helpers import review_ad_of


def test_neither_id_nor_side_tells_the_label() -> None:
    # An expert knows id, seed, guideline and (from the texts) the keys: swapping what the model calls
    # the two ads must change nothing of what is seen.
    keys = [(f"{n:032x}", f"{n * 7919 % 65521 + 70000:032x}") for n in range(200)]
    sides = []
    for one, other in keys:
        id = item_id((one, other), "policy")
        assert id == item_id((other, one), "policy")
        ads = review_ad_of("a", key=one, label="positive"), review_ad_of("b", key=other)
        swapped = tuple(dataclasses.replace(ad, label=x) for ad, x in zip(ads, "np", strict=True))
        shown = as_shown(ads, id, 3)
        assert [ad.key for ad in shown] == [ad.key for ad in as_shown(swapped[::-1], id, 3)]
        sides.append(shown[0].key == one)
    assert 70 < sum(sides) < 130


def test_ids_differ_by_guideline_and_by_what_is_shown() -> None:
    ids = {
        item_id(keys, policy)
        for keys in (("a",), ("b",), ("a", "b"), ("a", "c"))
        for policy in ("one", "two")
    }
    assert len(ids) == 8
    assert item_id(("a",), "one").startswith("item_") and item_id(("a", "b"), "one").startswith(
        "pair_"
    )


def test_a_row_becomes_an_ad_with_its_fields() -> None:
    row = {"id": "7", "key": "k", "text": "t", "margin": 0.5, "copies": 3, "weight": 1500}
    row |= {"truncated": False, "fields": '[["Headline", "Buy"], ["", "now"]]'}
    ad = review_ad(row, "positive", 2)
    assert (ad.weight, ad.probability, ad.cluster) == (1500.0, 0.622459, 2)
    assert ad.fields == (("Headline", "Buy"), ("", "now"))
    assert review_ad({**row, "fields": ""}, "positive", None).fields == ()


def test_chosen_ads_are_known_by_their_keys_until_they_are_read() -> None:
    rows = {
        key: {"id": f"i{key}", "key": key, "text": f"text {key}", "margin": 1.5, "copies": 2}
        | {"weight": 7, "truncated": key == "b", "fields": ""}
        for key in ("a", "b", "c")
    }
    ads = named_ad("b", "negative", 4, -0.5), named_ad("a", "positive", None)
    items = [
        ReviewItem("pair_0", 1, "boundary", ads, distance=0.5),
        ReviewItem("item_1", 2, "uncertainty", (named_ad("c", "negative", 0),), score=-2.0),
    ]
    assert {ad.text for item in items for ad in item.ads} == {""}
    assert [(ad.key, ad.margin) for ad in ads] == [("b", -0.5), ("a", 0.0)]
    pair, alone = read(items, rows)
    assert pair.ads == (review_ad(rows["b"], "negative", 4), review_ad(rows["a"], "positive", None))
    assert dataclasses.replace(pair, ads=ads) == items[0]
    assert alone.ads == (review_ad(rows["c"], "negative", 0),) and alone.score == -2.0


@pytest.mark.parametrize(
    ("unit", "weight", "covered"), [(-3, 1.5, 2.468), (-7, 0.00015, 0.0002468), (2, 150000, 246800)]
)
def test_items_are_written_with_the_corpus_s_weights(
    unit: int, weight: float, covered: float
) -> None:
    ad = dataclasses.replace(review_ad_of("a"), weight=1500.0)
    facts = OverlapFacts(True, 0.5, 0.1, 2468.0, 0.1, 0.1)
    pair = ReviewItem("pair_0", 1, "boundary", (ad, ad), overlap=facts)
    [one] = weighed([pair], unit)
    assert [ad.weight for ad in one.ads] == [weight, weight]
    assert one.overlap is not None and one.overlap.covered_weight == covered


def test_items_come_back_as_they_were_written() -> None:
    one = review_ad_of("a", text="a\nb\u2028c", fields=(("Headline", "x"),))
    pair = ReviewItem(
        "pair_0",
        1,
        "boundary",
        (one, review_ad_of("b")),
        None,
        0.5,
        overlap=OverlapFacts(True, 0.5, 0.1, 2.0, 0.1, 0.1),
    )
    alone = ReviewItem("item_0", 2, "random", (one,), score=0.25, propensity=0.1, drawn=one.key)
    data = files.json_lines([pair, alone])
    assert data.count(b"\n") == 2
    assert [adapter(ReviewItem).validate_json(line) for line in data.splitlines()] == [pair, alone]
    assert [side for side, _ in pair.sides()] == ["left", "right"]
    assert [side for side, _ in alone.sides()] == [""]
