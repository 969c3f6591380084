"""The agreement of each round's model with the experts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from pipelines.report.pictures import canvas
from pipelines.report.pictures.canvas import ORANGE, Estimate

# More models' names than this have no room beside each other.
_NAMES_ABREAST = 6


def agreement_by_round(models: Sequence[Estimate], experts: Estimate) -> bytes:
    """Draw each model's agreement with the experts under theirs among themselves.

    Args:
        models: one a model, in the order of rounds; an undefined one leaves a gap.
        experts: the experts among themselves, on the same ads.
    """
    many = len(models) > _NAMES_ABREAST

    def draw(axes: Axes) -> None:
        canvas.experts_line(axes, experts)
        places = [place for place, model in enumerate(models) if model.value is not None]
        values = np.array([models[place].value for place in places], dtype=np.float64)
        axes.plot(places, values, color=ORANGE, lw=1.2, alpha=0.6)
        for place, model in enumerate(models):
            if model.low is not None and model.high is not None:
                axes.plot([place] * 2, [model.low, model.high], "-_", color=ORANGE, lw=2, ms=10)
        label = "model and experts, 95% interval"
        canvas.marks(axes, places, values, "^", ORANGE, ms=9, label=label)
        names = [
            f"{model.name}{': ' if many else chr(10)}"
            + ("undefined" if model.value is None else f"{model.value:z.2f}")
            for model in models
        ]
        axes.set_xticks(range(len(models)), names)
        if many:
            axes.tick_params(axis="x", rotation=60)
        axes.set_xlim(-0.5, len(models) - 0.5)
        canvas.kappa_axis(axes, [end for one in [*models, experts] for end in one.ends])

    return canvas.picture(draw, height=4.9)
