"""The pictures as bytes: small, the same every time, and drawn whatever a label is called."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines import figures
from pipelines.figures import Curve, Estimate, Names
from pipelines.numerics import calibration

ROOT = Path(__file__).resolve().parent.parent
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
HISTOGRAM = calibration.margin_histogram(calibration.quantize(POINTS[:, 0]))
DRAWN: dict[str, Callable[[], bytes]] = {
    "map": lambda: figures.ad_map(POINTS, POSITIVE, NAMES),
    "clusters": lambda: figures.cluster_map(POINTS, POSITIVE, CLUSTER, [(0, 1), (0, 2)], NAMES),
    "pairs": lambda: figures.pair_map(POINTS, PAIRS, np.arange(5) > 3, NAMES),
    "scores": lambda: figures.score_histogram(HISTOGRAM, 2.0, NAMES),
    "coverage": lambda: figures.coverage_curve([0.1, 0.15, 0.2, 0.2], 1, 5),
    "agreement": lambda: figures.agreement_by_round(MODELS, EXPERTS),
    "curves": lambda: figures.learning_curves(CURVES, EXPERTS),
    "conditions": lambda: figures.side_by_side(["a", "b", "c"], [("natural", MODELS)]),
}
# What there is least of: nothing positive, nothing chosen, nothing defined.
NOTHING = Estimate("x", None, None, None)
LEAST: dict[str, Callable[[], bytes]] = {
    "one ad": lambda: figures.ad_map(np.zeros((1, 2)), np.array([True]), NAMES),
    "equal ads": lambda: figures.cluster_map(
        np.zeros((9, 2)), np.arange(9) > 4, np.zeros(9, np.int32), [(0, 0)], NAMES
    ),
    "clusters without ads": lambda: figures.cluster_map(POINTS, POSITIVE, CLUSTER, [(9, 9)], NAMES),
    "no pairs": lambda: figures.pair_map(
        POINTS, np.zeros((0, 2), np.intp), np.zeros(0, dtype=bool), NAMES
    ),
    "one score": lambda: figures.score_histogram(
        calibration.margin_histogram(np.zeros(3)), 0.0, NAMES
    ),
    "exploration alone": lambda: figures.coverage_curve([0.0, 0.0], 2, 2),
    "no coverage": lambda: figures.coverage_curve([], 0, 3),
    "nothing defined": lambda: figures.agreement_by_round([NOTHING], NOTHING),
    "no curve": lambda: figures.learning_curves([Curve("a", (0,), (None,), (None,))], NOTHING),
    "no condition": lambda: figures.side_by_side(["a"], [("natural", [NOTHING])]),
}


def image(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def pixels(png: bytes, hue: str) -> int:
    """Count pixels that are clearly bluish or orange, however faint."""
    red, _, blue = np.moveaxis(image(png), 2, 0)
    return int(((blue - red if hue == "blue" else red - blue) > 50).sum())


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_small_and_the_same_bytes_again(name: str) -> None:
    png = DRAWN[name]()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert image(png).shape[1] == figures.WIDTH_INCHES * figures.DPI
    assert len(png) < 100_000
    # No program, version or time inside: the picture is all that there is.
    assert b"tEXt" not in png and b"iTXt" not in png and b"tIME" not in png
    assert png == DRAWN[name]()


@pytest.mark.parametrize("name", LEAST)
def test_the_least_there_can_be_is_drawn_without_a_complaint(name: str) -> None:
    assert image(LEAST[name]()).min() < 100


def test_twenty_thousand_ads_stay_below_300_kb() -> None:
    points, positive, cluster = cloud(20_000)
    pairs = np.stack([np.flatnonzero(positive)[:500], np.flatnonzero(~positive)[:500]], axis=1)
    for png in (
        figures.ad_map(points, positive, NAMES),
        figures.cluster_map(points, positive, cluster, [(i % 4, i % 3) for i in range(6)], NAMES),
        figures.pair_map(points, pairs, np.zeros(500, dtype=bool), NAMES),
    ):
        assert len(png) < 300_000


def test_positive_is_orange_and_benign_is_blue() -> None:
    none, all_of_them = (
        figures.ad_map(POINTS, np.full(len(POINTS), value), NAMES) for value in (False, True)
    )
    assert pixels(none, "blue") > 10 * pixels(all_of_them, "blue") > 0
    assert pixels(all_of_them, "orange") > 10 * pixels(none, "orange") > 0


def test_an_outline_lies_where_its_cluster_is() -> None:
    # Two far groups: the overlap is in the left one, so the right half gains no black line.
    rng = np.random.default_rng(1)
    cluster = np.repeat([0, 1], 100).astype(np.int32)
    points = rng.normal(size=(200, 2)) + 20 * cluster[:, None]
    positive = np.arange(200) % 2 == 0
    plain = image(figures.cluster_map(points, positive, cluster, [], NAMES))
    marked = image(figures.cluster_map(points, positive, cluster, [(0, 0)], NAMES))
    changed = np.abs(plain - marked).max(axis=2) > 100
    changed[: marked.shape[0] // 8] = False  # the legend
    columns = np.flatnonzero(changed.any(axis=0))
    assert len(columns)
    assert columns.max() < marked.shape[1] / 2


def test_a_settings_file_of_the_user_changes_nothing() -> None:
    before = DRAWN["scores"]()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert DRAWN["scores"]() == before
        assert matplotlib.rcParams["font.size"] == 30, "and the user's settings are given back"


def test_no_current_figure_is_opened() -> None:
    code = "import sys; from pipelines import figures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", ["$x^2$", "$\\frac{", "a$b", "\\$", "_hidden", "50% %s {x}", "%d"])
def test_a_label_name_is_only_text(name: str) -> None:
    names = Names(figures.drawable(name, "positive"), "honest")
    assert names.positive == name
    # Were it a formula, it would raise, or look like another name's picture.
    odd = figures.ad_map(POINTS, POSITIVE, names)
    assert odd != figures.ad_map(POINTS, POSITIVE, Names("", "honest"))
    curve = Curve(name, (1, 2), (0.1, 0.2), (None, None))
    assert image(figures.learning_curves([curve], EXPERTS)).min() < 100


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("deceptive", "deceptive"),
        ("größer Ωμέγα да", "größer Ωμέγα да"),
        ("two\n words\t", "two words"),
        ("x" * 28, "x" * 28),
        ("x" * 29, "x" * 27 + "…"),
        ("詐欺", "positive"),
        ("مضلل", "positive"),
        ("\u202eevil", "positive"),
        ("a\x00b", "positive"),
        ("lone \ud800", "positive"),
        ("  ", "positive"),
        ("", "positive"),
    ],
)
def test_a_name_that_the_font_cannot_draw_gives_way_to_a_plain_word(name: str, shown: str) -> None:
    assert figures.drawable(name, "positive") == shown


margins = st.lists(st.integers(-16384, 16384), min_size=1, max_size=60)


@given(margins, st.integers(-16384, 16384))
def test_bars_hold_every_ad_once_and_no_bar_both_labels(steps: list[int], cut: int) -> None:
    values = np.array(steps) * calibration.MARGIN_STEP
    threshold = cut * calibration.MARGIN_STEP
    edges, counts = figures.rebinned(calibration.margin_histogram(values), threshold)
    assert len(counts) == len(edges) - 1 <= 82
    assert (np.diff(edges) > 0).all()
    assert threshold in edges.tolist()
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        assert count == ((values >= low) & (values < high)).sum()
    assert counts.sum() == len(values)


def test_an_empty_histogram_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least one ad; got shape .* with a sum of 0"):
        figures.rebinned(np.zeros(calibration.N_BINS, dtype=np.int64), 0.0)
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        figures.rebinned(np.ones(3, dtype=np.int64), 0.0)


def test_few_positives_are_made_visible_by_a_log_scale() -> None:
    values = np.repeat(np.arange(-40, 0) / 4, 500)
    few = calibration.margin_histogram(calibration.quantize(np.append(values, [1.0, 2.0])))
    png = figures.score_histogram(few, 0.5, NAMES)
    # Beside bars of 500 a bar of one would be a pixel high.
    legend_alone = figures.score_histogram(
        calibration.margin_histogram(calibration.quantize(values)), 0.5, NAMES
    )
    assert pixels(png, "orange") > pixels(legend_alone, "orange") + 200


def test_conditions_differ_in_more_than_colour() -> None:
    names = ["boundary", "random", "uncertainty", "crowd a", "crowd b", "crowd c", "crowd d"]
    looks = figures.condition_looks(names)
    assert len({looks[name].marker for name in names}) == len(names)
    assert len({looks[name].colour for name in names}) == len(names)
    assert looks["boundary"] == figures.condition_looks(["boundary"])["boundary"]
    assert figures.condition_looks([*names, "an eighth"])["an eighth"]
