"""The report's section on the whole corpus."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from pipelines.console.summary import rendered
from pipelines.report.html import page, section
from tests.console.test_audit import found
from tests.report.drawn import Parts


def drawn(known: dict[str, Any] | None) -> Parts:
    made = section("audit", audit=known)
    assert not made.missing
    return Parts(page("a report", Markup(), [made]))


def cells(parts: Parts) -> list[str]:
    return [
        line for line in parts.texts["audit"].splitlines() if "[" in line or "undefined" in line
    ]


def test_without_an_audit_it_says_what_kappa_does_not() -> None:
    parts = drawn(None)
    assert rendered("audit", {"audit": None}) in parts.texts["audit"]
    assert not [tag for tag, _ in parts.tags if tag == "table"]


def test_an_audit_is_a_table_with_intervals() -> None:
    parts = drawn(found(left_out=24, positive_name="a < b"))
    text = parts.texts["audit"]
    assert "Of 12,345 distinct ads, with 95% intervals" in text
    assert "stratifiedprediction-powered" in text
    estimate = "2.10% [1.30%, 3.40%]"
    assert cells(parts) == [
        f"share of a < b, by distinct ads{estimate}{estimate}",
        f"share of a < b, by weight of copies{estimate}{estimate}",
        f"precision at p >= 0.6123{estimate}{estimate}",
        f"recall at p >= 0.6123{estimate}undefined",
        "kappa of model and experts on the whole corpus0.02 [0.01, 0.03]0.02 [0.01, 0.03]",
    ]
    assert "of them a < b. These labels train no model and choose no threshold." in text
    assert "\nLeft out: 24 ads" in text


def test_an_audit_without_labels_says_so() -> None:
    parts = drawn(found(reason="no ad of it is labelled yet"))
    assert ": no ad of it is labelled yet.\n" in parts.texts["audit"]
    assert not [tag for tag, _ in parts.tags if tag == "table"]
