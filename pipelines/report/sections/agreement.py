"""Agreement of models and experts: by round, and in tables with the labels that it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.numerics.calibration import PriorBound
from pipelines.report.data import Evidence
from pipelines.report.html import Section, Table, drawn, word
from pipelines.report.pictures.agreement import agreement_by_round
from pipelines.report.pictures.canvas import Estimate
from pipelines.report.words import kappa_text, model_name, percent, value_text


def agreement(found: Evidence) -> Section:
    """Return the kappas of all models of this version of the policy, beside the experts'."""
    id, title = "agreement", "Agreement of model and experts by round"
    newest = found.evaluation
    if newest is None:
        labelled = any(entry["labelled"] for entry in found.comparable)
        lacks = "no model is trained yet" if labelled else "no expert has labelled yet"
        return Section(
            id,
            title,
            missing=f"Nothing to compare: {lacks}. Next: {word(found.stand['next'], 500)}.",
        )
    models = [_estimate(model_name(m["round"]), m["kappa"]) for m in newest["models"]]
    experts = _estimate("experts among themselves", newest["expert_kappa"])
    share = newest["positive_share"]
    balance = "" if share is None else f", {share:.0%} of their verdicts positive"
    basis = f"{newest['ads']:,} evaluation ads, {newest['experts']:,} experts{balance}"
    listed = "; ".join(
        f"{model_name(m['round'])} {kappa_text(m['kappa'])}" for m in newest["models"]
    )
    among = kappa_text(newest["expert_kappa"])
    band = "" if experts.low is None else ", the light band its interval"
    by_rule = f"By the stopping rule: {word(newest['decision']['reason'], 600)}."
    older = [e["round"] for e in found.stand["rounds"] if e not in found.comparable]
    not_shown = (
        f"Not shown: round {', '.join(map(str, older))}, mined for another version of the policy; "
        "kappas of different versions do not compare."
    )
    paragraphs: tuple[str, ...] = (by_rule, not_shown) if older else (by_rule,)
    paragraphs += _bounded(found)
    if all(m.value is None for m in models):
        return Section(
            id,
            title,
            paragraphs=paragraphs,
            missing=f"Every kappa of the models is undefined on the {basis}. {listed}. Experts among "
            f"themselves: {among}.",
        )
    return drawn(
        id,
        title,
        agreement_by_round(models, experts),
        f"Cohen's kappa of each model with the experts, on the same {basis}: {listed}. Experts among "
        f"themselves (dashed line): {among}.",
        f"Cohen's kappa with 95% intervals, every model on the same {basis}. The dashed line is what the "
        f"experts reach among themselves{band}: {among}. Whether a model is at parity is told by the "
        "interval of the difference, not by bars that meet the line; a kappa compares with others at a "
        "like share of positives only.",
        *paragraphs,
    )


def _bounded(found: Evidence) -> tuple[str, ...]:
    """Say how sure the newest model's threshold is, while few labels fitted it."""
    newest = next((e for e in reversed(found.comparable) if e["model"]), None)
    if newest is None or not newest["model"]["bound"]:
        return ()
    said = PriorBound(**newest["model"]["bound"])
    return (f"The threshold of the {model_name(newest['round'])}: {said}.",)


def scale(found: Evidence) -> Section:
    """Return the tables of data scale and quality: labels, balance and kappas of each round."""
    by_round = Table(
        "After each round, with the evaluation ads there were then (fine-tuning ads are those with a "
        "settled label; + counts what the round brought in)",
        (
            "round",
            found.noun(),
            "fine-tuning ads",
            "positive",
            "evaluation ads",
            "positive",
            "experts among themselves, kappa",
            "model and experts, kappa",
        ),
        tuple(_round_row(entry, found.task.version) for entry in found.stand["rounds"]),
    )
    tables = (by_round, _model_table(found)) if found.evaluation else (by_round,)
    return Section("scale", "Data scale and quality by condition", tables=tables)


def _round_row(entry: Mapping[str, Any], version: int) -> tuple[str, ...]:
    name = f"round {entry['round']}"
    if entry["task_version"] != version:
        name += f" (policy version {entry['task_version']}, does not compare)"
    head = (name, f"{entry['pairs']:,}")
    model, labelled = entry["model"], entry["labelled"]
    if model:
        evaluation = model["evaluation"]
        own = next(m for m in evaluation["models"] if m["round"] == entry["round"])
        return (
            *head,
            *_labels(model["labels"]),
            f"{evaluation['ads']:,}",
            percent(evaluation["positive_share"]),
            kappa_text(evaluation["expert_kappa"]),
            kappa_text(own["kappa"]),
        )
    if labelled:
        known = (f"+{labelled['fine_tuning']:,}", "-", f"+{labelled['evaluation']:,}", "-")
        return (*head, *known, "not trained yet", "not trained yet")
    return (*head, *["-"] * 4, "not labelled yet", "not labelled yet")


def _model_table(found: Evidence) -> Table:
    newest = found.evaluation
    assert newest is not None
    labels = {e["round"]: e["model"]["labels"] for e in found.comparable if e["model"]}
    rows = tuple(
        (
            model_name(model["round"]),
            *(_labels(labels[model["round"]]) if model["round"] in labels else ("none", "-")),
            percent(model["positive_share"]),
            kappa_text(model["kappa"]),
            value_text(model["kappa_with_majority"]),
        )
        for model in newest["models"]
    )
    return Table(
        f"Every model on the newest {newest['ads']:,} evaluation ads; experts among themselves: kappa "
        f"{kappa_text(newest['expert_kappa'])}, Krippendorff's alpha "
        f"{value_text(newest['krippendorff_alpha'])}",
        (
            "model",
            "training labels",
            "positive among them",
            "calls positive",
            "kappa with experts (mean over experts)",
            "kappa with their majority (usually higher)",
        ),
        rows,
    )


def _labels(labels: Mapping[str, Any]) -> tuple[str, str]:
    number = labels["fine_tuning"]
    return f"{number:,}", f"{labels['fine_tuning_positive'] / number:.0%}" if number else "-"


def _estimate(name: str, kappa: Mapping[str, Any]) -> Estimate:
    shown = name.replace("model of ", "")
    return Estimate(shown, kappa["value"], kappa["low"], kappa["high"])
