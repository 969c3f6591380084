"""The closing summary of a run as text, by the templates of ``templates/console``."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.console.visible import printable

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "console"


def stage_seconds(counters: Mapping[str, int]) -> dict[str, float]:
    """Return busy seconds by stage."""
    return {
        name.removesuffix("/msec"): round(value / 1000, 2)
        for name, value in sorted(counters.items())
        if name.endswith("/msec")
    }


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """Return what a template of ``templates/console`` makes of values."""
    return _environment().get_template(f"{template}.txt").render(values).strip("\n")


@functools.cache
def _environment() -> Environment:
    # Only now: what ends without a summary need not load it.
    import jinja2

    environment = jinja2.Environment(  # noqa: S701, a terminal has no markup
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "bound": bound_text,
        "columns": _columns,
        "kappa": _kappa,
        "mean": mean_text,
        "names": _names,
        "number": number,
        "printable": printable,
        "probability": _probability,
        "reasons": _with_reasons,
        "quoted": repr,
        "right": "{:>8}".format,
        "shares": shares_text,
        "share_of": _share,
        "table": _table,
        "told": _told,
    }
    return environment


def number(value: float, form: str = ",") -> str:
    """Return a number in Python's format language."""
    return format(value, form)


def mean_text(entry: Mapping[str, Any], name: str, form: str = "z.2f") -> str:
    """Return a simulation's mean with its spread over seeds, where there are several."""
    value, spread = entry[name], entry[f"{name}_sd"]
    if value is None:
        return "undefined"
    return format(value, form) if spread is None else f"{value:{form}} ±{spread:{form}}"


def bound_text(bound: Mapping[str, Any]) -> str:
    """Return what the prior allows a threshold that few labels fitted, as one sentence."""
    # SciPy comes with it, which a command that says little should not wait for.
    from pipelines.numerics.calibration import PriorBound

    return str(PriorBound(**bound))


def shares_text(shares: Mapping[str, float]) -> str:
    """Return shares of a whole by name, in percent."""
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) or "none"


def _probability(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def _columns(lines: str) -> str:
    """Put what stands behind the first colon of each line under one another."""
    rows = [line.partition(": ") for line in lines.splitlines() if line]
    width = max(len(name) for name, _, _ in rows)
    return "".join(f"  {name:<{width}}  {value}\n" for name, _, value in rows)


def _table(lines: str, left: int = 0) -> str:
    """Align the cells of lines, which bars part, to the right, but for the first ``left``."""
    rows = [line.split(" | ") for line in lines.splitlines()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = "<" * left + ">" * (len(widths) - left)
    shown = (
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        )
        for row in rows
    )
    return "".join(f"{line.rstrip()}\n" for line in shown)


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(printable(str(item)) for item in value) or "none"
    return printable(str(value))


def _names(names: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(printable(name, 60) for name in names[:limit]) or "none"
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def _kappa(kappa: Mapping[str, Any], why: bool = True) -> str:
    if kappa["value"] is None:
        return f"undefined: {kappa['reason']}" if why else "undefined"
    if kappa["low"] is None:
        return f"{kappa['value']:z.2f}"
    return f"{kappa['value']:z.2f} [{kappa['low']:z.2f}, {kappa['high']:z.2f}]"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def _with_reasons(count: int, reasons: Mapping[str, int]) -> str:
    listed = ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items()))
    return f"{count:,} ({listed})" if listed else f"{count:,}"
