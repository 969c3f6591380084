"""What the pictures' tests share: one of each picture, the least of each, and how it is laid out."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipelines.numerics import calibration
from pipelines.report.pictures import agreement, conditions, coverage, maps, prompts, scores
from pipelines.report.pictures.canvas import Estimate, Names
from pipelines.report.pictures.conditions import Curve

NAMES = Names("deceptive", "honest")
EXPERTS = Estimate("experts among themselves", 0.8, 0.7, 0.9)
MODELS = [
    Estimate("LLM-0", 0.1, -0.1, 0.3),
    Estimate("round 1", None, None, None),
    Estimate("round 2", 0.6, None, None),
]
CURVES = [
    Curve("boundary", (25, 50), (0.3, 0.6), (0.1, 0.1)),
    Curve("random", (25, 50), (None, 0.2), (None, None)),
    Curve("crowd 0.59 text", (14_000,), (0.5,), (0.05,)),
]


def cloud(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points, predicted labels and clusters of n made-up ads."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.1
    cluster = rng.integers(0, 4, n).astype(np.int32)
    return rng.normal(size=(n, 2)) + cluster[:, None] + positive[:, None], positive, cluster


POINTS, POSITIVE, CLUSTER = cloud(300)
PAIRS = np.stack([np.flatnonzero(POSITIVE)[:5], np.flatnonzero(~POSITIVE)[:5]], axis=1)
MEMBERS = (POSITIVE & (CLUSTER == 1), ~POSITIVE & (CLUSTER == 1))
BOX = maps.close_box(POINTS, MEMBERS, PAIRS.tolist())
LABELS = [maps.Label(i / 2, i / 3, ("pills", "miracle", "kilos")[: 1 + i % 3]) for i in range(12)]
NO_ADS = (np.zeros(300, dtype=bool), np.zeros(300, dtype=bool))
HISTOGRAM = calibration.margin_histogram(calibration.quantize(POINTS[:, 0]))
DRAWN: dict[str, Callable[[], bytes]] = {
    "map": lambda: maps.ad_map(POINTS, POSITIVE, NAMES, LABELS, [BOX]),
    "close": lambda: maps.close_map(POINTS, POSITIVE, MEMBERS, PAIRS.tolist(), BOX, NAMES),
    "pairs": lambda: maps.item_map(POINTS, POSITIVE, PAIRS.tolist(), np.arange(5) > 3, NAMES),
    "scores": lambda: scores.score_histogram(HISTOGRAM, 2.0, NAMES),
    "coverage": lambda: coverage.coverage_curve([0.1, 0.15, 0.2], 1, 5),
    "agreement": lambda: agreement.agreement_by_round(MODELS, EXPERTS),
    "curves": lambda: conditions.learning_curves(CURVES, EXPERTS),
    "conditions": lambda: conditions.side_by_side(["a", "b", "c"], [("natural", MODELS)]),
    "prompts": lambda: prompts.side_by_side(MODELS, [True, False, True], "AUC", 0.5),
}
# What there is least of: nothing positive, nothing chosen, nothing defined.
NOTHING = Estimate("x", None, None, None)
LEAST: dict[str, Callable[[], bytes]] = {
    "one ad": lambda: maps.ad_map(np.zeros((1, 2)), np.array([True]), NAMES),
    "equal ads": lambda: maps.ad_map(np.zeros((9, 2)), np.arange(9) > 4, NAMES, LABELS, [BOX]),
    "clusters without ads": lambda: maps.close_map(
        POINTS, POSITIVE, NO_ADS, [], maps.close_box(POINTS, NO_ADS, []), NAMES
    ),
    "no items": lambda: maps.item_map(POINTS, POSITIVE, [], np.zeros(0, dtype=bool), NAMES),
    "single ads": lambda: maps.item_map(
        POINTS, POSITIVE, [[0], [1], [2, 3]], np.array([True, False, True]), NAMES
    ),
    "one score": lambda: scores.score_histogram(
        calibration.margin_histogram(np.zeros(3)), 0.0, NAMES
    ),
    "exploration alone": lambda: coverage.coverage_curve([], 2, 2),
    "no coverage": lambda: coverage.coverage_curve([], 0, 3),
    "nothing defined": lambda: agreement.agreement_by_round([NOTHING], NOTHING),
    "no curve": lambda: conditions.learning_curves([Curve("a", (0,), (None,), (None,))], NOTHING),
    "no prompt": lambda: prompts.side_by_side([NOTHING], [False], "AUC", 0.5),
    "no condition": lambda: conditions.side_by_side(["a"], [("natural", [NOTHING])]),
}


def laid_out(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> tuple[Figure, Axes]:
    """Return what a picture is made of, laid out as when it is drawn."""
    made: list[Figure] = []
    original = FigureCanvasAgg.draw

    def keep(self: FigureCanvasAgg) -> None:
        original(self)
        made.append(self.figure)

    monkeypatch.setattr(FigureCanvasAgg, "draw", keep)
    call()
    return made[0], made[0].axes[0]


def image(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def pixels(png: bytes, hue: str) -> int:
    """Count pixels that are clearly bluish or orange, however faint."""
    red, _, blue = np.moveaxis(image(png), 2, 0)
    return int(((blue - red if hue == "blue" else red - blue) > 50).sum())
