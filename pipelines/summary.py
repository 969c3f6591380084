"""The closing summary of a run, for a person and as JSON, and text that is safe to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str, limit: int = 200) -> str:
    """Return ad text that cannot steer a terminal.

    Control, bidirectional and other invisible characters are shown as escapes; white space is
    folded; what is longer than ``limit`` characters ends in an ellipsis.
    """
    folded = " ".join(text.split())
    shown = "".join(
        f"\\u{ord(char):04x}"
        if unicodedata.category(char) in _HIDDEN and char != "\u200d"
        else char
        for char in folded
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def stage_seconds(counters: Mapping[str, int]) -> dict[str, float]:
    """Return busy seconds by stage."""
    return {
        name.removesuffix("/msec"): round(value / 1000, 2)
        for name, value in sorted(counters.items())
        if name.endswith("/msec")
    }


def describe(summary: Mapping[str, Any]) -> str:
    """Return the closing summary as text."""
    reasons = summary["rejected_by_reason"]
    rejected = f"{summary['rejected']:,}"
    if reasons:
        rejected += " (" + ", ".join(f"{k} {v:,}" for k, v in sorted(reasons.items())) + ")"
    budget = summary["budget"]
    chosen = f"{summary['pairs']:,} of a budget of {budget:,}"
    if summary["pairs"] < budget:
        chosen += (
            " (no candidate is left: an ad is shown once; a higher prior gives more positives)"
        )
    rows = [
        ("ads read", f"{summary['records']:,}"),
        ("rejected", rejected),
        ("unique ads", f"{summary['unique']:,}"),
        ("scored now", f"{summary['scored_now']:,} ({summary['reused']:,} scored before)"),
        ("truncated", f"{summary['truncated']:,} longer than the model's window"),
        (
            "positives",
            f"{summary['positives']:,} ({summary['positive_share']:.2%}) at p >= "
            f"{summary['threshold_probability']:.4g}",
        ),
        (
            "clusters",
            f"{summary['positive_clusters']} positive, {summary['negative_clusters']} negative",
        ),
        ("overlaps", f"{summary['overlaps']:,} cluster pairs searched"),
        ("candidate pairs", f"{summary['candidates']:,}"),
        ("chosen pairs", f"{chosen}, {summary['exploration_pairs']} of them exploration"),
        ("corpus covered", f"{summary['covered_share']:.1%} of its weight"),
    ]
    seconds = summary["seconds_by_stage"]
    if seconds:
        shown = ", ".join(f"{k} {v:.1f}" for k, v in seconds.items() if v >= 0.05)
        rows.append(("seconds by stage", shown or "none above 0.05"))
    rows.append(("seconds in all", f"{summary['seconds']:.1f}"))
    if summary["scoring_rate"]:
        rows.append(("scoring", f"{summary['scoring_rate']:.0f} ads per second"))
    if summary["reading_rate"]:
        rows.append(("reading", f"{summary['reading_rate']:,.0f} records per second"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def describe_pairs(pairs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """Return review pairs as text, two lines of ads a pair.

    Args:
        pairs: as ``pairs.jsonl`` holds them.
        names: what the task calls ``positive`` and ``negative``.
    """
    width = max(len(name) for name in names.values())
    lines = []
    for pair in pairs:
        how = (
            "exploration"
            if pair["source"] == "exploration"
            else (f"covers {pair['covered_share']:.2%}, {pair['cumulative_share']:.1%} so far")
        )
        lines.append(
            f"{pair['rank']:>4}. {pair['pair_id']}  distance {pair['distance']:.3f}, {how}"
        )
        for side in ("positive", "negative"):
            ad = pair[side]
            lines.append(
                f"      {names[side]:>{width}} {ad['probability']:.3f}  "
                f"{printable(ad['text'], 140)}"
            )
    return "\n".join(lines)
