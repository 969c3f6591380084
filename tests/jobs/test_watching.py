"""Alerts: each by its own figure, none by chance alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.jobs import nights, watching
from pipelines.jobs.watching import Before, Bounds, alerts_of
from pipelines.numerics import calibration
from pipelines.numerics.drift import Stability
from pipelines.store.facts import COMPLETED, Alert, NightFacts, NightFigures
from pipelines.store.workspace import Manifest

FIGURES = NightFigures(1000, 0, 1000, 1000, 0, 1000, 50, 0.5, 0.02, 12, "", 3.0, None)
STABLE = Stability(0.02, 0.05)


def night_of(date: str, key: str = "k", **changes: Any) -> Manifest[NightFacts]:
    figures = dataclasses.replace(FIGURES, **changes)
    facts = NightFacts(date, COMPLETED, "tiny", 1, (), score_key=key, figures=figures)
    return Manifest.of(f"nights/{date}/night/attempt-0001-00000000", "h", [], 1, facts)


NIGHTS = {date: night_of(date) for date in ("2026-11-01", "2026-11-02", "2026-11-03")}
BEFORE = Before.of(NIGHTS, "2026-11-04", "k")


@pytest.mark.parametrize(
    ("changes", "raised"),
    [
        ({}, []),
        ({"positives": 74}, []),
        ({"positives": 76}, ["positive_share"]),
        ({"positives": 33}, []),
        ({"positives": 20}, ["positive_share"]),
        # Twice the share, of so few ads that it is chance.
        ({"ads": 20, "positives": 2}, []),
        ({"rejected": 5}, []),
        ({"rejected": 6}, ["rejected_share"]),
        ({"new": 0}, ["no_new_ads"]),
        ({"pairs": 0}, ["no_pairs"]),
        ({"pairs": 0, "held": "round 1 waits"}, []),
        ({"pairs": 0, "new": 0, "rejected": 9}, ["no_new_ads", "no_pairs", "rejected_share"]),
    ],
)
def test_each_alert_by_its_own_figure(changes: dict[str, Any], raised: list[str]) -> None:
    figures = dataclasses.replace(FIGURES, **changes)
    found = alerts_of(figures, BEFORE, STABLE, "", Bounds())
    assert [alert.name for alert in found] == raised


def test_drift_is_beyond_the_bound_and_beyond_chance() -> None:
    for stability, raised in ((Stability(0.26, 0.1), True), (Stability(0.26, 0.3), False)):
        found = alerts_of(FIGURES, BEFORE, stability, "", Bounds())
        assert [alert.name for alert in found] == ["drift"] * raised
    assert not alerts_of(FIGURES, BEFORE, Stability(0.26, 0.1), "", Bounds(drift=0.3))


def test_ads_that_another_night_has_read_are_not_missed() -> None:
    figures = dataclasses.replace(FIGURES, new=0)
    assert not alerts_of(figures, BEFORE, STABLE, "", Bounds(), expects_new=False)


def test_a_night_is_compared_with_those_before_it_of_the_same_scores() -> None:
    assert BEFORE and BEFORE.total("positives") == 150 and BEFORE.yardstick() == 0.5
    assert not Before.of(NIGHTS, "2026-11-03", "k"), "two nights are too few"
    assert not Before.of(NIGHTS, "2026-11-04", "another model")
    many = {f"2026-10-{day:02d}": night_of(f"2026-10-{day:02d}") for day in range(1, 20)}
    assert len(Before.of(many, "2026-11-04", "k").nights) == watching.AGAINST


def test_a_template_or_a_fields_value_that_grew() -> None:
    texts = [f"Old kettle number {n} at the market today" for n in range(60)]
    new = [f"Secret miracle cure number {n} they hide from you" for n in range(40)]
    then = pa.table({"text": texts, "fields": ['[["Advertiser", "a"]]'] * 60})
    fields = ['[["Advertiser", "b"]]'] * 40 + ['[["Advertiser", "a"]]'] * 20
    now = pa.table({"text": [*new, *texts[:20]], "fields": fields})
    groups = watching._groups(now, then)
    assert set(groups) == {"template", "field Advertiser"}
    assert groups["field Advertiser"][0].count("b") == 40
    told = watching.grown(groups, 0.1)
    assert told in (
        "template 'secret miracle cure number … they hide from you': 67% of the ads, 0%",
        "field Advertiser 'b': 67% of the ads, 0%",
    )
    assert watching.grown(groups, 0.7) == ""
    assert watching.grown({"field x": (["a", "b"], ["b", "b"])}, 0.1) == "", "chance"


def test_histograms_are_packed_and_unpacked() -> None:
    histogram = calibration.margin_histogram(np.array([0.5, 0.5, -3.0]))
    assert (watching.unpacked(watching.packed(histogram)) == histogram).all()


def test_prometheus_reads_it() -> None:
    night = nights.Night("2026-11-21", COMPLETED, 2, 3, FIGURES, [Alert("drift", "told")], "")
    lines = nights.prometheus("tiny", night).decode().splitlines()
    assert 'scout_night_ads{task="tiny",version="2"} 1000' in lines
    assert 'scout_night_date_seconds{task="tiny",version="2"} 1795219200' in lines
    assert 'scout_night_alert{task="tiny",version="2",alert="drift"} 1' in lines
    assert 'scout_night_alert{task="tiny",version="2",alert="jump"} 0' in lines
    assert not any("scout_night_cost{" in line for line in lines), "unknown is not nothing"
    # Help and type stand once a metric, before its samples.
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    empty = nights.Night("2026-11-21", "empty", 2, 0, None, [], "")
    assert (
        'scout_night_completed{task="tiny",version="2"} 0'
        in nights.prometheus("tiny", empty).decode()
    )
