"""How the report writes kappas, shares and models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.report.html import word


def kappa_text(kappa: Mapping[str, Any]) -> str:
    """Return a kappa with its interval, or why it, or the interval, is not there."""
    if kappa["value"] is None:
        return f"undefined ({word(kappa['reason'])})"
    if kappa["low"] is None:
        return f"{kappa['value']:z.2f} (no interval: {word(kappa['interval_reason'])})"
    return f"{kappa['value']:z.2f} [{kappa['low']:z.2f}, {kappa['high']:z.2f}]"


def value_text(found: Mapping[str, Any]) -> str:
    """Return a value without an interval, or why it is not there."""
    value = found["value"]
    return f"undefined ({word(found['reason'])})" if value is None else f"{value:z.2f}"


def percent(share: float | None) -> str:
    """Return a share in whole percent."""
    return "-" if share is None else f"{share:.0%}"


def model_name(number: int) -> str:
    """Return what the model of a round is called."""
    return f"model of round {number}" if number else "LLM-0"
