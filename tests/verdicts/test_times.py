"""Moments as files write them."""

from __future__ import annotations

import pytest

from pipelines.verdicts.times import parse_time


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("2026-11-22T14:05:09Z", "2026-11-22T14:05:09Z"),
        ("2026-11-22T14:05:09.75+02:00", "2026-11-22T12:05:09Z"),
        ("2026-11-22 14:05", "2026-11-22T14:05:00Z"),
        ("2026-11-22", "2026-11-22T00:00:00Z"),
        ("20261122", "2026-11-22T00:00:00Z"),
        ("1763800000", "2025-11-22T08:26:40Z"),
        ("1763800000.25", "2025-11-22T08:26:40Z"),
        ("1763800000123", "2025-11-22T08:26:40Z"),
        ("1763800000123456", "2025-11-22T08:26:40Z"),
        ("1763800000123456789", "2025-11-22T08:26:40Z"),
        ("1.7638e9", "2025-11-22T08:26:40Z"),
        # Days as spreadsheets count them, in English and in German.
        ("45983.5868055556", "2025-11-22T14:05:00Z"),
        ("45983,5868055556", "2025-11-22T14:05:00Z"),
        ("2026-11-22 14:05:00 UTC", "2026-11-22T14:05:00Z"),
        ("2026-11-22 14:05:00 +0200", "2026-11-22T12:05:00Z"),
        ("2026/11/22 14:05", "2026-11-22T14:05:00Z"),
        ("2026-1-5 9:05", "2026-01-05T09:05:00Z"),
        ("Sat, 22 Nov 2025 14:05:00 +0100", "2025-11-22T13:05:00Z"),
        ("Sat Nov 22 2025 14:05:00 GMT+0100 (CET)", "2025-11-22T13:05:00Z"),
        ("'2026-11-22T14:05:09Z", "2026-11-22T14:05:09Z"),
        ("２０２６-11-22", "2026-11-22T00:00:00Z"),
        # Missing in every spelling.
        ("NaT", ""),
        ("nan", ""),
        ("#N/A", ""),
        ("None", ""),
    ],
)
def test_times_become_utc(text: str, wanted: str) -> None:
    assert parse_time(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "22/11/2026",
        "17",
        "inf",
        "Nov 22, 2025",
        "-1763800000",
        "1999-12-31",
        "9999-01-01",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time between 2000 and 2100; write 2026"):
        parse_time(text)
