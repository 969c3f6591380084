"""Agreement of models and experts: by round, and in tables with the labels that it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.report.data import Evidence
from pipelines.report.html import Section, section
from pipelines.report.pictures.agreement import agreement_by_round
from pipelines.report.pictures.canvas import Estimate
from pipelines.report.words import model_name


def agreement(found: Evidence) -> Section:
    """Return the kappas of all models of this version of the policy, beside the experts'."""
    newest, pictures = found.evaluation, {}
    models = newest["models"] if newest else []
    if newest and any(model["kappa"]["value"] is not None for model in models):
        pictures["agreement"] = agreement_by_round(
            [_estimate(model_name(model["round"]), model["kappa"]) for model in models],
            _estimate("experts among themselves", newest["expert_kappa"]),
        )
    return section("agreement", pictures, found=found)


def scale(found: Evidence) -> Section:
    """Return the tables of data scale and quality: labels, balance and kappas of each round."""
    learnt_from = {e["round"]: e["model"]["labels"] for e in found.comparable if e["model"]}
    return section("scale", found=found, learnt_from=learnt_from)


def _estimate(name: str, kappa: Mapping[str, Any]) -> Estimate:
    shown = name.replace("model of ", "")
    return Estimate(shown, kappa["value"], kappa["low"], kappa["high"])
