"""The pictures as bytes: small, the same every time, and drawn whatever a label is called."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from pipelines.numerics import calibration
from pipelines.report import figures
from pipelines.report.figures import Curve, Estimate, Names

ROOT = Path(__file__).resolve().parents[2]
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


def laid_out(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> tuple[Figure, Axes]:
    """Return what a picture is made of, laid out as when it is drawn."""
    made: list[tuple[Figure, Axes]] = []

    def keep(draw: Callable[[Axes], None], height: float, colours: int = 256) -> bytes:
        with figures._style():
            figure = Figure(figsize=(figures.WIDTH_INCHES, height), layout="constrained")
            FigureCanvasAgg(figure)
            axes = figure.add_subplot()
            draw(axes)
            figure.draw_without_rendering()
        made.append((figure, axes))
        return b""

    monkeypatch.setattr(figures, "_picture", keep)
    call()
    return made[0]


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
    code = "import sys; from pipelines.report import figures; print('matplotlib.pyplot' in sys.modules)"
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


# --- letters ----------------------------------------------------------------------------------

MANY = [Estimate(f"round {i}" if i else "LLM-0", 0.05 * i, 0.0, 0.1 * i) for i in range(11)]
CROWDS = [
    Curve("boundary", (25, 50, 100), (0.3, 0.6, 0.6), (0.1, 0.1, 0.1)),
    *(Curve(f"crowd 0.{i}9 uniform", (25_600,), (0.5,), (0.05,)) for i in range(5)),
]
LETTERED: dict[str, Callable[[], bytes]] = {
    **DRAWN,
    "seven models": lambda: figures.agreement_by_round(MANY[:7], EXPERTS),
    "eleven models": lambda: figures.agreement_by_round(MANY, EXPERTS),
    "crowds": lambda: figures.learning_curves(CROWDS, EXPERTS),
    "crowds in rows": lambda: figures.side_by_side(
        [curve.name for curve in CROWDS],
        [
            (name, MODELS * 2)
            for name in ("natural prevalence", "class-balanced", "evaluation half")
        ],
    ),
    "long names": lambda: figures.cluster_map(
        POINTS, POSITIVE, CLUSTER, [(0, 1)], Names("x" * 28, "y" * 28)
    ),
}


@pytest.mark.parametrize("name", LETTERED)
def test_letters_are_large_and_neither_cut_off_nor_on_one_another(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, axes = laid_out(monkeypatch, LETTERED[name])
    # Matplotlib keeps ticks beyond the axis' ends, and does not draw them.
    out = {
        id(tick)
        for axis, place, ends in (
            (axes.xaxis, 0, axes.get_xlim()),
            (axes.yaxis, 1, axes.get_ylim()),
        )
        for tick in axis.get_ticklabels()
        if not min(ends) <= tick.get_position()[place] <= max(ends)
    }
    found = figure.findobj(lambda artist: isinstance(artist, Text) and bool(artist.get_text()))
    shown = [text for text in found if text.get_visible() and id(text) not in out]
    assert len(shown) > 1
    boxes = {}
    for text in shown:
        assert text.get_fontsize() >= 12, text.get_text()
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, f"{text.get_text()}: cut off"
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, f"{text.get_text()}: cut off"
        if not text.get_rotation() % 90:
            boxes[text] = box
    for (one, left), (other, right) in itertools.combinations(boxes.items(), 2):
        assert not left.overlaps(right), f"{one.get_text()} and {other.get_text()}"


def test_a_number_is_not_struck_through_by_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (0.5, 0.5, 0.5, 0.3, 0.6, 0.6)
    models = [Estimate(f"round {i}", value, None, None) for i, value in enumerate(values)]
    _, axes = laid_out(monkeypatch, lambda: figures.agreement_by_round(models, NOTHING))
    at = np.linspace(0, 5, 2000)
    line = axes.transData.transform(np.stack([at, np.interp(at, range(6), values)], axis=1))
    assert [text.get_text() for text in axes.texts] == [f"{value:.2f}" for value in values]
    for text in axes.texts:
        box = text.get_window_extent().get_points()
        assert not ((line > box[0]) & (line < box[1])).all(axis=1).any(), text.get_text()


def test_the_band_of_the_experts_is_named_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def named(experts: Estimate) -> list[str]:
        figure, _ = laid_out(monkeypatch, lambda: figures.agreement_by_round(MODELS, experts))
        return [text.get_text() for text in figure.legends[0].get_texts()]

    models = "model and experts, 95% interval"
    assert named(EXPERTS) == ["experts among themselves: 0.80", "their 95% interval", models]
    assert named(Estimate("experts", -0.001, None, None)) == ["experts: 0.00", models]


# --- marks that would hide one another --------------------------------------------------------


def single(labels: float, value: float | None = 0.5) -> Curve:
    return Curve("crowd", (labels,), (value,), (None,))


def test_conditions_of_one_number_stand_side_by_side_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Curve("boundary", (25, 50), (0.3, 0.6), (None, None))
    places = figures.stand_aside([line, *(single(14_000) for _ in range(4))])
    assert places[0] == (25, 50)
    stands = np.log10([place for (place,) in places[1:]])
    assert np.mean(stands) == pytest.approx(np.log10(14_000)), "around the number"
    assert np.diff(stands) == pytest.approx(np.diff(stands)[0]) and np.diff(stands)[0] > 0
    # As far apart as a mark is wide, whatever the picture's other numbers are.
    curves = [line, *(single(14_000) for _ in range(4))]
    _, axes = laid_out(monkeypatch, lambda: figures.learning_curves(curves, EXPERTS))
    marks = [found for found in axes.lines if found.get_label() == "crowd"]
    pixels = [axes.transData.transform((mark.get_xdata()[0], 0.5))[0] for mark in marks]
    assert min(np.diff(pixels)) * 72 / figures.DPI >= 8
    left, right = axes.get_window_extent().intervalx
    assert left + 10 < pixels[0] and pixels[-1] < right - 10, "and none on the edge"


def test_a_mark_does_not_stand_on_a_curve_that_cannot_stand_aside() -> None:
    line = Curve("boundary", (50, 100), (0.3, 0.6), (None, None))
    below, above = figures.stand_aside([line, single(100), single(100)])[1:]
    assert below[0] < 99 and above[0] > 101
    [moved] = figures.stand_aside([line, single(100)])[1:]
    assert moved[0] != 100


def test_what_hides_nothing_stays_where_it_is() -> None:
    line = Curve("boundary", (25, 50), (0.3, 0.6), (None, None))
    curves = [line, single(100), single(200), single(200, None), single(0)]
    assert figures.stand_aside(curves) == [curve.labels for curve in curves]
    assert figures.stand_aside([single(7)]) == [(7,)]
    assert figures.stand_aside([]) == []


# --- numbers of overlaps ----------------------------------------------------------------------

BOUNDS = np.array([[0.0, 0.0], [450.0, 330.0]])


def rounded_box(places: np.ndarray, place: int) -> np.ndarray:
    return places[place, 1] + np.array([[-9.0, -10.0], [9.0, 10.0]])


@pytest.mark.parametrize("spread", [0.0, 8.0, 40.0, 120.0])
@pytest.mark.parametrize("seed", range(5))
def test_numbers_lie_clear_of_the_ends_of_all_lines_and_of_one_another(
    seed: int, spread: float
) -> None:
    # A spread of none is the worst there can be: all lines are one point.
    ends = np.array([225.0, 165.0]) + np.random.default_rng(seed).uniform(
        -spread, spread, (6, 2, 2)
    )
    places = figures.number_places(ends, BOUNDS)
    assert np.array_equal(places, figures.number_places(ends, BOUNDS))
    for place in range(6):
        low, high = rounded_box(places, place)
        assert (low >= BOUNDS[0]).all() and (high <= BOUNDS[1]).all()
        inside = (ends > low - 3) & (ends < high + 3)
        assert not inside.all(axis=2).any(), "a mark is covered"
        for other in range(place):
            apart = np.abs(places[place, 1] - places[other, 1])
            assert (apart >= [18.0, 20.0]).any(), "two numbers are on one another"
        # Where the leader ends is on the line's middle half.
        one, two = ends[place]
        way = np.linalg.norm(two - one)
        reached = [np.linalg.norm(places[place, 0] - end) for end in (one, two)]
        assert sum(reached) == pytest.approx(way, abs=1e-6)
        assert min(reached) >= way / 4 - 1e-6


def test_a_number_in_a_corner_stays_in_the_picture() -> None:
    ends = np.array([[[0.0, 0.0], [4.0, 0.0]], [[450.0, 330.0], [450.0, 330.0]]])
    places = figures.number_places(ends, BOUNDS)
    for place in range(2):
        low, high = rounded_box(places, place)
        assert (low >= BOUNDS[0]).all() and (high <= BOUNDS[1]).all()
