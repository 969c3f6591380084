"""Agreement by round: each model's number, and the experts' band."""

from __future__ import annotations

import pytest

from pipelines.report.pictures import agreement
from pipelines.report.pictures.canvas import Estimate
from tests.report.pictures.samples import (
    EXPERTS,
    MODELS,
    laid_out,
)


def test_the_band_of_the_experts_is_named_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def named(experts: Estimate) -> list[str]:
        figure, _ = laid_out(monkeypatch, lambda: agreement.agreement_by_round(MODELS, experts))
        return [text.get_text() for text in figure.legends[0].get_texts()]

    models = "model and experts, 95% interval"
    assert named(EXPERTS) == ["experts among themselves: 0.80", "their 95% interval", models]
    assert named(Estimate("experts", -0.001, None, None)) == ["experts: 0.00", models]


def test_each_model_has_its_number_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _, axes = laid_out(monkeypatch, lambda: agreement.agreement_by_round(MODELS, EXPERTS))
    names = ["LLM-0\n0.10", "round 1\nundefined", "round 2\n0.60"]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    [marks] = [line for line in axes.lines if line.get_label().startswith("model and experts")]
    assert marks.get_xdata().tolist() == [0, 2] and marks.get_ydata().tolist() == [0.1, 0.6]
    many = [Estimate(f"round {i}", 0.1 * i, None, None) for i in range(9)]
    _, axes = laid_out(monkeypatch, lambda: agreement.agreement_by_round(many, EXPERTS))
    assert axes.get_xticklabels()[2].get_text() == "round 2: 0.20"
