"""What is printed at the end of a run."""

from __future__ import annotations

from typing import Any

from pipelines.console.summary import TEMPLATES, rendered, stage_seconds
from pipelines.contracts import OverlapFacts, ReviewItem
from pipelines.jobs.results import plain
from pipelines.numerics.calibration import PriorBound
from tests.helpers import review_ad_of

NAMES = {"positive": "deceptive", "negative": "honest"}
MINED: dict[str, Any] = {
    "prompts": [],
    "records": 2000, "rejected": 2, "rejected_by_reason": {"no_text": 2}, "unique": 1990,
    "scored_now": 10, "reused": 1980, "truncated": 0, "positives": 40, "positive_share": 0.02,
    "threshold_probability": 0.4, "threshold_source": "prior", "pairs": 30, "budget": 50,
    "exploration_pairs": 3, "seconds_by_stage": {}, "seconds": 1.25, "scoring_rate": None,
    "reading_rate": None, "covered_share": None, "single_ads": 0, "note": "", "threshold_bound": None,
}  # fmt: skip
BY_OVERLAPS = {
    "positive_clusters": 4, "negative_clusters": 9, "overlaps": 12, "candidates": 300,
    "covered_share": 0.25,
}  # fmt: skip


def test_stage_seconds() -> None:
    assert stage_seconds({"ReadAds/msec": 1500, "ReadAds/records": 3}) == {"ReadAds": 1.5}


def test_what_was_mined_is_told_in_lines() -> None:
    why = {"single_ads": 12, "note": "18 of 50 items are pairs, 12 single ads: a higher prior …"}
    text = rendered("mining", MINED | BY_OVERLAPS | why)
    lines = [line.split("  ") for line in text.splitlines()]
    found = {line[1]: line[-1].strip() for line in lines}
    assert found["rejected"] == "2 (no_text 2)"
    assert found["clusters"] == "4 positive, 9 negative"
    assert found["candidate pairs"] == "300" and found["corpus covered"] == "25.0% of its weight"
    assert found["chosen pairs"] == (
        "30 of a budget of 50, 12 of them single ads, 3 of them exploration"
    )
    assert found["why"] == why["note"]
    assert "nearness" not in found and "unread" not in text
    more = {"partner_rank": 2.0, "pair_distance": 0.9432, "unread": {"EMOJI": 2, "THAI": 80}}
    told = " ".join(rendered("mining", MINED | BY_OVERLAPS | more).split())
    assert "partner is in place 2 among the nearest that could be shown, at distance 0.943" in told
    assert "unread, THAI 80 that the encoder cannot read unread, EMOJI 2 that" in told


def test_a_threshold_that_the_prior_bounds_is_told() -> None:
    bound = PriorBound(0.05, 0.02, 0.12, 2, 40, 0.63, 0.4, 0.8, 0.12)
    text = rendered("mining", MINED | {"threshold_bound": plain(bound)})
    assert "would call 63% of the corpus positive (95% interval 40% to 80%" in text
    assert "bounded to 12% by the prior: 2% to 12%" in text and "until there are 40" in text


def test_a_strategy_without_clusters_is_told_without_them() -> None:
    text = rendered("mining", MINED | {"covered_share": None, "pairs": 50})
    assert "  chosen " in text and "50 of a budget of 50, 3 of them exploration" in text
    assert not [word for word in ("clusters", "overlaps", "candidate", "covered") if word in text]
    text = rendered("mining", MINED)
    assert "clusters" not in text and "why" not in text


def test_items_of_any_strategy_are_printed() -> None:
    one, two = review_ad_of("a"), review_ad_of("b\x1b[2J", label="positive", text="x\x1b[2J")
    overlap = OverlapFacts(True, 0.5, 0.5, 10.0, 0.0222, 0.5)
    items = [
        ReviewItem("pair_1", 1, "boundary", (one, two), distance=0.998, overlap=overlap),
        ReviewItem("item_2", 2, "committee", (one,), score=0.3),
    ]
    assert rendered("items", {"items": items, "names": NAMES}).splitlines() == [
        "   1. pair_1  distance 0.998, covers 2.22%, 50.0% so far",
        "      deceptive 0.250  x\\u001b[2J",
        "         honest 0.250  text of a",
        "   2. item_2  committee",
        "         honest 0.250  text of a",
    ]


def test_every_result_has_words() -> None:
    from pipelines.jobs.results import Result
    from pipelines.report.output import Report
    from pipelines.simulation.results import Simulated

    found = {kind.__name__.lower() for kind in (Report, Simulated, *Result.__subclasses__())}
    assert len(found) >= 7
    assert found <= {path.stem for path in TEMPLATES.glob("*.txt")}


def test_a_committee_is_named_and_a_guess_is_called_one() -> None:
    told = {"prompts": ["category", "label, yes or no"], "agreement": 0.64, "guessing": False}
    text = rendered("mining", MINED | told)
    assert "category; label, yes or no (agreement with the policy's words 0.64)" in text
    text = rendered("mining", MINED | told | {"guessing": True, "agreement": 0.1})
    assert "words 0.10: the model seems to guess, see `scout prompts`)" in text
    assert "prompts" not in rendered("mining", MINED)
