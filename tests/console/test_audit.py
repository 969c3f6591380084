"""An audit in words."""

from __future__ import annotations

from typing import Any

from pipelines.console.summary import rendered
from pipelines.console.visible import printable


def found(**changes: Any) -> dict[str, Any]:
    estimate = {"value": 0.021, "low": 0.013, "high": 0.034}
    own = dict.fromkeys(("share", "weighted_share", "precision", "recall", "kappa"), estimate)
    known = {
        "round": 2,
        "model_round": 1,
        "newer_model": 0,
        "ads": 12_345,
        "drawn": 300,
        "labelled": 300,
        "positive": 31,
        "unsettled": 0,
        "skipped": 0,
        "strata": 15,
        "known": 0,
        "left_out": 0,
        "threshold_probability": 0.61234,
        "positive_name": "click\x1bbait",
        "plain": own,
        "powered": {**own, "recall": {"value": None, "low": None, "high": None}},
        "halving_labels": None,
        "reason": "",
    }
    return {**known, **changes}


def described(**changes: Any) -> str:
    return rendered("audit", {"audit": found(**changes)})


def test_estimates_stand_beside_each_other_with_their_intervals() -> None:
    text = described()
    assert text.startswith(
        "Audit of round 2, scored by the model of round 1: 300 of 300 ads drawn at random from 15 strata"
    )
    assert "Of 12,345 ads, with 95% interval:" in text
    lines = text.splitlines()
    assert lines[1].split() == ["stratified", "prediction-powered"]
    assert lines[2].endswith("2.10% [1.30%, 3.40%]  2.10% [1.30%, 3.40%]")
    assert "precision at p >= 0.6123" in lines[4]
    assert lines[5].endswith("2.10% [1.30%, 3.40%]  undefined")
    assert lines[6].endswith("0.02 [0.01, 0.03]     0.02 [0.01, 0.03]")
    assert len(lines) == 7 and "\x1b" not in text, "nothing else is to be said"


def test_what_the_estimates_leave_out_is_said() -> None:
    text = described(
        halving_labels=1150,
        known=80,
        left_out=24,
        unsettled=3,
        skipped=2,
        newer_model=2,
        model_round=0,
    )
    assert "scored by LLM-0" in text
    for line in (
        "With 1,150 labels in all the interval of the share would be about half as wide.",
        "80 of the 12,345 ads count with the label that experts gave them before.",
        "Left out: 24 ads that experts had been shown and not settled then; once they are labelled,",
        "Without a settled label: 3 ads without a majority, 2 skipped;",
        "The model of round 2 is newer: `scout mine`, then `scout audit`, tell how good it is.",
    ):
        assert line in text


def test_without_labels_it_says_why() -> None:
    text = described(reason="no ad of it is labelled yet", labelled=0, positive=0)
    name = printable("click\x1bbait", 60)
    assert text.endswith(f"are labelled, 0 of them {name}: no ad of it is labelled yet.")
    assert "undefined" not in text and "\x1b" not in text


def test_a_label_with_a_bar_in_its_name_breaks_no_table() -> None:
    assert "share of a / b, by distinct ads" in described(positive_name="a | b")
