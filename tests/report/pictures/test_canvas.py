"""The pictures as bytes: small, the same every time, and drawn whatever a label is called."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from matplotlib.text import Text

from pipelines.report.pictures import agreement, canvas, conditions, maps
from pipelines.report.pictures.canvas import Estimate, Names
from pipelines.report.pictures.conditions import Curve
from tests.report.pictures.samples import (
    BOX,
    DRAWN,
    EXPERTS,
    LEAST,
    MEMBERS,
    MODELS,
    NAMES,
    PAIRS,
    POINTS,
    POSITIVE,
    image,
    laid_out,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_small_and_the_same_bytes_again(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    png = DRAWN[name]()
    assert not caplog.records, "Matplotlib says nothing to the user"
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert image(png).shape[1] == canvas.WIDTH_INCHES * canvas.DPI
    assert len(png) < 100_000
    # No program, version or time inside: the picture is all that there is.
    assert b"tEXt" not in png and b"iTXt" not in png and b"tIME" not in png
    assert png == DRAWN[name]()


@pytest.mark.parametrize("name", LEAST)
def test_the_least_there_can_be_is_drawn_without_a_complaint(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert image(LEAST[name]()).min() < 100
    assert not caplog.records


def test_a_settings_file_of_the_user_changes_nothing() -> None:
    before = DRAWN["scores"]()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert DRAWN["scores"]() == before
        assert matplotlib.rcParams["font.size"] == 30, "and the user's settings are given back"


def test_no_current_figure_is_opened() -> None:
    code = "import sys; from pipelines.report.pictures import agreement, conditions, coverage, maps, scores; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", ["$x^2$", "$\\frac{", "a$b", "\\$", "_hidden", "50% %s {x}", "%d"])
def test_a_label_name_is_only_text(name: str) -> None:
    names = Names(canvas.drawable(name, "positive"), "honest")
    assert names.positive == name
    # Were it a formula, it would raise, or look like another name's picture.
    odd = maps.ad_map(POINTS, POSITIVE, names)
    assert odd != maps.ad_map(POINTS, POSITIVE, Names("", "honest"))
    curve = Curve(name, (1, 2), (0.1, 0.2), (None, None))
    assert image(conditions.learning_curves([curve], EXPERTS)).min() < 100


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
    assert canvas.drawable(name, "positive") == shown


MANY = [Estimate(f"round {i}" if i else "LLM-0", 0.05 * i, 0.0, 0.1 * i) for i in range(11)]


CROWDS = [
    Curve("boundary", (25, 50, 100), (0.3, 0.6, 0.6), (0.1, 0.1, 0.1)),
    *(Curve(f"crowd 0.{i}9 uniform", (25_600,), (0.5,), (0.05,)) for i in range(5)),
]


LETTERED: dict[str, Callable[[], bytes]] = {
    **DRAWN,
    "seven models": lambda: agreement.agreement_by_round(MANY[:7], EXPERTS),
    "eleven models": lambda: agreement.agreement_by_round(MANY, EXPERTS),
    "crowds": lambda: conditions.learning_curves(CROWDS, EXPERTS),
    "crowds in rows": lambda: conditions.side_by_side(
        [curve.name for curve in CROWDS],
        [
            (name, MODELS * 2)
            for name in ("natural prevalence", "class-balanced", "evaluation half")
        ],
    ),
    "long names": lambda: maps.close_map(
        POINTS, POSITIVE, MEMBERS, PAIRS.tolist(), BOX, Names("x" * 28, "y" * 28)
    ),
    "names in one place": lambda: maps.ad_map(
        POINTS,
        POSITIVE,
        NAMES,
        [maps.Label(9.0, 9.0, ("w" * 24, "i" * 24, "g" * 24))] * 9,
        [BOX, BOX, BOX],
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
