"""What is printed at the end of a run."""

from __future__ import annotations

from pipelines.console.summary import stage_seconds


def test_stage_seconds() -> None:
    assert stage_seconds({"ReadAds/msec": 1500, "ReadAds/records": 3}) == {"ReadAds": 1.5}
