"""How much of the corpus the first pairs cover."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipelines.report.pictures import canvas
from pipelines.report.pictures.canvas import BLACK, BLUE, ORANGE


def coverage_curve(shares: Sequence[float], exploration: int, budget: int) -> bytes:
    """Draw how much of the corpus the first pairs cover.

    Args:
        shares: share of the corpus weight covered by all pairs up to each, in review order, (m,).
        exploration: how many pairs come after these, that cover nothing.
        budget: pairs that the task allows.
    """
    reached, top = len(shares), max(shares, default=0.0)
    blue = "pairs of overlapping clusters"

    def draw(axes: Axes) -> None:
        axes.step(range(reached + 1), [0.0, *shares], where="post", color=BLUE, lw=2, label=blue)
        if exploration:
            ends = [reached, reached + exploration]
            label = "exploration: covers nothing"
            axes.plot(ends, [top] * 2, color=ORANGE, ls=":", lw=2.5, label=label)
        canvas.marks(axes, [reached], [top], "o", BLUE, ms=7)
        axes.axvline(budget, color=BLACK, ls="--", lw=1.2, label=f"budget: {budget:,} pairs")
        axes.set_xlim(0, max(budget, reached + exploration, 1) * 1.04)
        axes.set_ylim(0, min(1.0, 1.15 * top) if top > 0 else 1.0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.6g}%"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("pairs reviewed, in review order")
        axes.set_ylabel("corpus weight covered")
        axes.grid(axis="y")

    return canvas.picture(draw, height=4.5)
