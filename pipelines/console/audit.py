"""What an audit says, in words: the same on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.console.visible import printable

NONE = (
    "No audit yet: kappa on ads near the boundary says nothing of traffic. `scout audit` draws ads at random, "
    "and from their labels comes what holds for the whole corpus."
)
WAYS = (("plain", "stratified"), ("powered", "prediction-powered"))


def about(found: Mapping[str, Any]) -> str:
    """Return what was audited, a sentence."""
    model = f"the model of round {found['model_round']}" if found["model_round"] else "LLM-0"
    return (
        f"Audit of round {found['round']}, scored by {model}: {found['labelled']:,} of {found['drawn']:,} ads drawn "
        f"at random from {found['strata']} strata of the score are labelled, {found['positive']:,} of them "
        f"{printable(found['positive_name'], 60)}"
    )


def measures(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the measures and what they are called, with what they mean."""
    name, from_here = printable(found["positive_name"], 60), found["threshold_probability"]
    return [
        ("share", f"share of {name}, by distinct ads"),
        ("weighted_share", f"share of {name}, by weight of copies"),
        ("precision", f"precision at p >= {from_here:.4g}"),
        ("recall", f"recall at p >= {from_here:.4g}"),
        ("kappa", "kappa of model and experts on the whole corpus"),
    ]


def interval(measure: str, estimate: Mapping[str, Any]) -> str:
    """Return an estimate with its interval."""
    if estimate["value"] is None:
        return "undefined"
    form = ".2f" if measure == "kappa" else ".2%" if estimate["high"] < 0.1 else ".1%"
    return f"{estimate['value']:{form}} [{estimate['low']:{form}}, {estimate['high']:{form}}]"


def caveats(found: Mapping[str, Any]) -> list[str]:
    """Return what else a person should know, a sentence each."""
    lines = []
    if found["halving_labels"]:
        lines.append(
            f"With {found['halving_labels']:,} labels in all the interval of the share would be about half as wide."
        )
    if found["known"]:
        lines.append(
            f"{found['known']:,} of the {found['ads']:,} ads count with the label that experts gave them before."
        )
    if found["left_out"]:
        lines.append(
            f"Left out: {found['left_out']:,} ads that experts had been shown and not settled then; once they are labelled, "
            "`scout audit` again counts them."
        )
    if found["unsettled"] or found["skipped"]:
        lines.append(
            f"Without a settled label: {found['unsettled']:,} ads without a majority, {found['skipped']:,} skipped; "
            "the others of their stratum stand for them."
        )
    if found["newer_model"]:
        lines.append(
            f"The model of round {found['newer_model']} is newer: `scout mine`, then `scout audit`, tell how good it is."
        )
    return lines


def describe(found: Mapping[str, Any]) -> str:
    """Return what an audit says as text."""
    if found["reason"]:
        return "\n".join([f"{about(found)}: {found['reason']}.", *caveats(found)])
    rows = [("", *(title for _, title in WAYS))]
    rows += [
        (title, *(interval(name, found[way][name]) for way, _ in WAYS))
        for name, title in measures(found)
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [f"{about(found)}. Of {found['ads']:,} ads, with 95% interval:"]
    lines += [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *caveats(found)])
