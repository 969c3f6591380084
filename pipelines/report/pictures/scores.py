"""The scores of all ads, and the threshold between the labels."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogitLocator
from scipy.special import expit, logit

from pipelines.numerics.calibration import MARGIN_STEP, N_BINS
from pipelines.report.pictures import canvas
from pipelines.report.pictures.canvas import BLACK, BLUE, ORANGE, Names

_BINS = 80
# Bars this much lower than the highest could not be seen beside it.
_INVISIBLE = 1 / 50
_FARTHEST = 18.0


def score_histogram(histogram: np.ndarray, threshold: float, names: Names) -> bytes:
    """Draw how many ads have which score, with the threshold between the labels.

    Args:
        histogram: int64 (N_BINS,), exact counts on the margin grid, at least one ad; see
            :func:`calibration.margin_histogram`.
        threshold: an ad is positive when its margin is at least this, log-odds.
        names: of the labels.
    """
    edges, counts = rebinned(histogram, threshold)
    called = edges[:-1] >= threshold
    highest = [int(counts[side].max()) if side.any() else 0 for side in (called, ~called)]
    logarithmic = 0 < min(highest) < _INVISIBLE * max(highest)

    def draw(axes: Axes) -> None:
        for rows, colour, hatch, name in (
            (~called, BLUE, "", names.negative),
            (called, ORANGE, "////", names.positive),
        ):
            axes.bar(
                edges[:-1][rows],
                counts[rows],
                np.diff(edges)[rows],
                align="edge",
                color=colour,
                ec="white",
                lw=0.4,
                hatch=hatch,
                label=f"called {name}",
            )
        share = 1.0 / (1.0 + math.exp(-threshold))
        axes.axvline(threshold, color=BLACK, lw=1.6, ls="--", label=f"threshold, p = {share:.3g}")
        axes.set_xlabel("score: log-odds of the positive answer")
        axes.set_ylabel("ads (log scale)" if logarithmic else "ads")
        if logarithmic:
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.5)
        axes.grid(axis="y")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
        above = axes.secondary_xaxis("top")
        ticks = probabilities(float(edges[0]), float(edges[-1]))
        above.set_xticks(logit(ticks), [f"{p:.9g}" for p in ticks])
        above.set_xlabel("as a probability")

    return canvas.picture(draw, height=4.9)


def probabilities(low: float, high: float) -> np.ndarray:
    """Return the probabilities to mark between two margins."""
    # Beyond, float64 has no room between a probability and 1.
    ends = expit(np.clip([low, high], -_FARTHEST, _FARTHEST))
    ticks = LogitLocator(nbins=7).tick_values(*ends)
    margins = logit(ticks)
    return ticks[(margins >= low) & (margins <= high)]


def rebinned(histogram: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Gather the margin grid into wider bins, one edge of which is the threshold.

    Args:
        histogram: int64 (N_BINS,), at least one count.
        threshold: a margin on the grid.

    Returns:
        edges float64 (b + 1,) and counts int64 (b,); b is at most 82. A bin holds its lower edge,
        not its upper one.

    Raises:
        ValueError: another shape, or no counts.
    """
    counts = np.asarray(histogram)
    if counts.shape != (N_BINS,) or not counts.any():
        raise ValueError(
            f"histogram must hold {N_BINS} counts, one a point of the grid, and at least one ad; "
            f"got shape {counts.shape} with a sum of {counts.sum()}"
        )
    used = np.flatnonzero(counts)
    cut = round(threshold / MARGIN_STEP) + N_BINS // 2
    first, last = min(int(used[0]), cut), max(int(used[-1]), cut)
    width = max(1, -(-(last - first + 1) // _BINS))
    # Bins are counted from the threshold, so that no bar holds both labels.
    low = cut - width * -(-(cut - first) // width)
    high = cut + width * -(-(last + 1 - cut) // width)
    starts = np.arange(low, high + 1, width)
    padded = np.concatenate([[0], np.cumsum(counts)])
    total = padded[np.clip(starts, 0, N_BINS)]
    return (starts - N_BINS // 2) * MARGIN_STEP, np.diff(total)
