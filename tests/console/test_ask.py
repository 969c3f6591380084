"""Shares as people write them."""

from __future__ import annotations

import pytest

from pipelines.console.ask import share


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.05", 0.05), ("5%", 0.05), (" 5 % ", 0.05), ("0,5%", 0.005), ("0,02", 0.02), ("2", 2.0)],
)
def test_fractions_and_percent(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "few", "5 of 100", "%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match="float"):
        share(text)
