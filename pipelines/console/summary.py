"""The closing summary of a run, for a person and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.console import audit
from pipelines.console.visible import printable
from pipelines.contracts import ReviewItem


def stage_seconds(counters: Mapping[str, int]) -> dict[str, float]:
    """Return busy seconds by stage."""
    return {
        name.removesuffix("/msec"): round(value / 1000, 2)
        for name, value in sorted(counters.items())
        if name.endswith("/msec")
    }


def describe(summary: Mapping[str, Any]) -> str:
    """Return the closing summary of mining as text."""
    rejected = _with_reasons(summary["rejected"], summary["rejected_by_reason"])
    budget = summary["budget"]
    chosen = f"{summary['pairs']:,} of a budget of {budget:,}"
    if summary["pairs"] < budget:
        # Once it is fitted to the experts' labels, the prior has no say in the threshold.
        cure = "; a higher prior gives more positives"
        by_prior = summary["threshold_source"] == "prior"
        chosen += f" (no candidate is left: an ad is shown once{cure if by_prior else ''})"
    rows = [
        ("ads read", f"{summary['records']:,}"),
        ("rejected", rejected),
        ("unique ads", f"{summary['unique']:,}"),
        ("scored now", f"{summary['scored_now']:,} ({summary['reused']:,} scored before)"),
        (
            "positives",
            f"{summary['positives']:,} ({summary['positive_share']:.2%}) at p >= "
            f"{summary['threshold_probability']:.4g}",
        ),
    ]
    if summary["truncated"] is not None:
        rows.insert(-1, ("truncated", f"{summary['truncated']:,} longer than the model's window"))
    # Not every strategy makes clusters, searches overlaps and counts what it covers.
    by_overlaps = summary.get("covered_share") is not None
    if by_overlaps:
        positive, negative = summary["positive_clusters"], summary["negative_clusters"]
        rows += [
            ("clusters", f"{positive} positive, {negative} negative"),
            ("overlaps", f"{summary['overlaps']:,} cluster pairs searched"),
            ("candidate pairs", f"{summary['candidates']:,}"),
        ]
    name = "chosen pairs" if by_overlaps else "chosen"
    rows.append((name, f"{chosen}, {summary['exploration_pairs']} of them exploration"))
    if by_overlaps:
        rows.append(("corpus covered", f"{summary['covered_share']:.1%} of its weight"))
    seconds = summary["seconds_by_stage"]
    if seconds:
        shown = ", ".join(f"{k} {v:.1f}" for k, v in seconds.items() if v >= 0.05)
        rows.append(("seconds by stage", shown or "none above 0.05"))
    rows.append(("seconds in all", f"{summary['seconds']:.1f}"))
    if summary["scoring_rate"]:
        rows.append(("scoring", f"{summary['scoring_rate']:.0f} ads per second"))
    if summary["reading_rate"]:
        rows.append(("reading", f"{summary['reading_rate']:,.0f} records per second"))
    return _table(rows)


def describe_items(items: Sequence[ReviewItem], names: Mapping[str, str]) -> str:
    """Return review items as text, a line an ad.

    Args:
        items: in review order.
        names: what the task calls ``positive`` and ``negative``.
    """
    width = max(len(name) for name in names.values())
    lines = []
    for item in items:
        about = [] if item.distance is None else [f"distance {item.distance:.3f}"]
        if item.overlap:
            covers, so_far = item.overlap.covered_share, item.overlap.cumulative_share
            about.append(f"covers {covers:.2%}, {so_far:.1%} so far")
        else:
            about.append(item.source)
        lines.append(f"{item.rank:>4}. {item.item_id}  {', '.join(about)}")
        for ad in sorted(item.ads, key=lambda ad: ad.label, reverse=True):
            lines.append(
                f"      {names[ad.label]:>{width}} {ad.probability:.3f}  {printable(ad.text, 140)}"
            )
    return "\n".join(lines)


def describe_export(summary: Mapping[str, Any]) -> str:
    """Return an export's outcome as text."""
    who = f"for {summary['experts_per_ad']} experts each"
    if not summary["blind"]:
        who += ", with what the model says"
    lines = [
        f"{summary['counted']} of {printable(summary['task'])}, round {summary['round']}, {who}"
    ]
    lines += [f"  {path}" for path in summary["files"]]
    for pushed in summary["pushed"]:
        rows = [(name.replace("_", " "), _told(value)) for name, value in pushed.items()]
        lines.append(_table(rows))
    return "\n".join([*lines, "", f"Then: {summary['next_step']}"])


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(printable(str(item)) for item in value) or "none"
    return printable(str(value))


def describe_import(summary: Mapping[str, Any]) -> str:
    """Return an import's outcome as text."""
    if not summary["files"]:
        return "Nothing new: every file was imported before."
    rows = [
        ("rounds", ", ".join(map(str, summary["rounds"])) or "none"),
        ("experts", _names(summary["experts"])),
        ("verdicts", f"{summary['verdicts']:,}, {summary['skips']:,} of them skips"),
        ("rejected rows", _with_reasons(summary["rejected"], summary["rejected_by_reason"])),
        ("not answered yet", f"{summary['unanswered']:,} ads"),
        (
            "verdicts so far",
            f"{summary['fine_tuning_ads']:,} ads for fine-tuning, "
            f"{summary['evaluation_ads']:,} for evaluation, "
            f"{summary['withheld_ads']:,} for neither"
            + (f", {summary['audit_ads']:,} of audits" if summary["audit_ads"] else ""),
        ),
    ]
    if summary["changed_mind"]:
        rows.append(("contradictions", f"{summary['changed_mind']:,}; the last verdict counts"))
    lines = [_table(rows), *(f"Dead letters:  {path}" for path in summary["dead_letters"])]
    return "\n".join(lines)


def _names(names: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(printable(name, 60) for name in names[:limit]) or "none"
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def describe_training(summary: Mapping[str, Any]) -> str:
    """Return a training's outcome as text."""
    report, labels = summary["evaluation"], summary["labels"]
    tied = f", {labels['tied']:,} more tied" if labels["tied"] else ""
    rows = [
        ("round", str(summary["round"])),
        ("model", f"{summary['model_id']}"),
        (
            "fine-tuning labels",
            f"{labels['fine_tuning']:,}, {_share(labels['fine_tuning_positive'], labels['fine_tuning'])}"
            f" positive{tied}",
        ),
        ("threshold", f"p >= {summary['threshold_probability']:.4g}"),
    ]
    if summary["epochs"]:
        seconds = sum(epoch["seconds"] for epoch in summary["epochs"])
        rows.append(("epochs", f"{len(summary['epochs'])} in {seconds:.0f} s"))
    parts = [_table(rows), "", _evaluation(report), "", _sentence(report["decision"]["reason"])]
    parts += [f"Tied ads:  {path}" for path in summary["ties"]]
    return "\n".join([*parts, f"Model:     {summary['model']}"])


def _evaluation(report: Mapping[str, Any]) -> str:
    share = report["positive_share"]
    balance = "" if share is None else f", {share:.0%} of the verdicts positive"
    lines = [
        f"On the same {report['ads']:,} evaluation ads ({report['experts']} experts{balance}), "
        "Cohen's kappa with 95% interval:"
    ]
    rows = [("experts among themselves", _kappa(report["expert_kappa"]))]
    for model in report["models"]:
        name = "LLM-0" if model["round"] == 0 else f"model of round {model['round']}"
        rows.append((f"{name} and experts", _kappa(model["kappa"])))
    alpha = report["krippendorff_alpha"]
    shown = alpha["reason"] if alpha["value"] is None else f"{alpha['value']:z.2f}"
    rows.append(("Krippendorff's alpha of the experts", shown))
    return "\n".join([*lines, _table(rows)])


def _kappa(kappa: Mapping[str, Any] | None) -> str:
    if kappa is None:
        return "-"
    if kappa["value"] is None:
        return f"undefined: {kappa['reason']}"
    if kappa["low"] is None:
        return f"{kappa['value']:z.2f}"
    return f"{kappa['value']:z.2f} [{kappa['low']:z.2f}, {kappa['high']:z.2f}]"


def describe_drawn(summary: Mapping[str, Any]) -> str:
    """Return an audit's outcome as text."""
    found = summary["audit"]
    lines = [audit.describe(found), "", f"Items:  {summary['items_file']}"]
    if found["labelled"] < found["drawn"]:
        lines.append(
            "Next:   `scout export --audit --tool ... --workspace DIR`, let experts label, `scout import` "
            "what comes back, and `scout status` tells what it says"
        )
    return "\n".join(lines)


def describe_rounds(found: Mapping[str, Any]) -> str:
    """Return the table of rounds: labels, agreement, and why the loop goes on or stops."""
    head = (
        "round",
        "pairs",
        "fine-tuning",
        "evaluation",
        "positive",
        "expert-expert kappa",
        "model-expert kappa",
    )
    rows: list[tuple[str, ...]] = [head]
    notes = []
    for entry in found["rounds"]:
        cells = [str(entry["round"]), f"{entry['pairs']:,}"]
        model, labelled = entry["model"], entry["labelled"]
        if model:
            labels, report = model["labels"], model["evaluation"]
            share = report["positive_share"]
            own = next(m for m in report["models"] if m["round"] == entry["round"])
            cells += [
                f"{labels['fine_tuning']:,} ({_share(labels['fine_tuning_positive'], labels['fine_tuning'])} pos.)",
                f"{report['ads']:,}",
                "-" if share is None else f"{share:.0%}",
                _short_kappa(report["expert_kappa"]),
                _short_kappa(own["kappa"]),
            ]
            notes.append(f"  round {entry['round']}: {report['decision']['reason']}")
        elif labelled:
            cells += [
                f"+{labelled['fine_tuning']:,}",
                f"+{labelled['evaluation']:,}",
                "-",
                "-",
                "-",
            ]
        else:
            cells += ["-"] * 5
        if not entry["comparable"]:
            cells[0] += "*"
        rows.append(tuple(cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if any(not entry["comparable"] for entry in found["rounds"]):
        lines.append(
            f"* mined for an earlier version of the policy: not comparable with version "
            f"{found['task_version']}, and neither trains nor evaluates its models"
        )
    last = next((e["model"]["evaluation"] for e in reversed(found["rounds"]) if e["model"]), None)
    if last:
        lines += ["", _evaluation(last)]
    if notes:
        lines += ["", "Why:", *notes]
    lines += ["", audit.describe(found["audit"]) if found["audit"] else audit.NONE]
    return "\n".join([*lines, "", f"Next: {found['next']}"])


def _short_kappa(kappa: Mapping[str, Any]) -> str:
    return "undefined" if kappa["value"] is None else _kappa(kappa)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def _with_reasons(count: int, reasons: Mapping[str, int]) -> str:
    listed = ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items()))
    return f"{count:,} ({listed})" if listed else f"{count:,}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
