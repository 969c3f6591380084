"""Kappas in words."""

from __future__ import annotations

import pytest

from pipelines.report.words import kappa_text


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (0.5, -0.001, 0.75, "0.50 [0.00, 0.75]"),
        (-0.004, -0.25, -0.0, "0.00 [-0.25, 0.00]"),
        (-0.006, None, None, "-0.01 (no interval: why)"),
    ],
)
def test_nothing_is_minus_zero(
    value: float, low: float | None, high: float | None, shown: str
) -> None:
    kappa = {"value": value, "low": low, "high": high, "interval_reason": "why"}
    assert kappa_text(kappa) == shown
