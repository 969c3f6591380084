"""How prompts rank ads, one under the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from pipelines.report.pictures import canvas
from pipelines.report.pictures.canvas import BLUE, GREY, ORANGE, Estimate


def side_by_side(
    prompts: Sequence[Estimate], heard: Sequence[bool], axis: str, guess: float
) -> bytes:
    """Draw a figure of each prompt with its interval.

    Args:
        prompts: from top to bottom; an undefined one leaves a gap.
        heard: whether a prompt speaks in what is chosen.
        axis: what the figure is.
        guess: the figure of a prompt that guesses.
    """

    def draw(axes: Axes) -> None:
        looks = ((True, "o", BLUE, "in what is chosen"), (False, "^", ORANGE, "not in it"))
        for spoken, marker, colour, label in looks:
            rows = [
                row
                for row, one in enumerate(prompts)
                if heard[row] == spoken and one.value is not None
            ]
            for row in rows:
                ends = prompts[row].ends
                axes.plot([min(ends), max(ends)], [row] * 2, color=colour, lw=1.8)
            if rows:
                values = np.array([prompts[row].value for row in rows], dtype=np.float64)
                canvas.marks(axes, values, rows, marker, colour, label=label)
        axes.axvline(guess, color=GREY, lw=1.4, ls=(0, (4, 3)), label="a guess")
        names = [canvas.drawable(one.name, f"prompt {n}") for n, one in enumerate(prompts, start=1)]
        axes.set_yticks(range(len(prompts)), names)
        axes.set_ylim(len(prompts) - 0.5, -0.5)
        axes.set_xlabel(axis)
        axes.grid(axis="x")

    return canvas.picture(draw, height=1.5 + 0.36 * max(len(prompts), 3))
