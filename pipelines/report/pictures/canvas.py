"""What the report's pictures share: their paper, colours, letters, legends and the kappa axis.

Plain arrays in, bytes of a PNG out; no text of any ad gets in here. Colours are those of Okabe and
Ito (2008), which colour-blind people tell apart; what differs in colour differs in marker, line or
hatching, too. Matplotlib's object interface alone is used: there is no current figure, and no
settings file of the user's changes a picture. The same arguments give the same bytes with the same
version of Matplotlib.
"""

from __future__ import annotations

import functools
import io
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import text_to_path
from PIL import Image

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
BLACK, GREY, SKY, YELLOW = "#000000", "#6b7480", "#56B4E9", "#E69F00"
# Large letters for the width: a telephone of 360 pixels shows an inch on 52, and 12 points on nearly 9.
WIDTH_INCHES, DPI = 6.4, 160
_LETTERS, SMALLEST = 12.5, 12.0
_NAME_CHARS = 28
# A legend's parts, in letters' sizes.
_HANDLE, _HANDLE_GAP, _COLUMN_GAP = 2.2, 0.6, 1.2

STYLE = {
    "figure.dpi": DPI,
    "font.size": _LETTERS,
    "axes.labelsize": _LETTERS,
    "axes.titlesize": _LETTERS,
    "xtick.labelsize": SMALLEST,
    "ytick.labelsize": SMALLEST,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": "#d5d9df",
    "legend.edgecolor": "white",
    "legend.framealpha": 0.9,
    "legend.fontsize": SMALLEST,
    "legend.handlelength": _HANDLE,
    "legend.handletextpad": _HANDLE_GAP,
    "legend.columnspacing": _COLUMN_GAP,
    # Label names come from the task file: a dollar sign in one is a dollar sign.
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Names:
    """What the pictures call the two labels; see :func:`drawable`."""

    positive: str
    negative: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval.

    Attributes:
        name: what stands under it on the axis.
        value: the estimate; None where it is undefined, and then nothing is drawn.
        low, high: ends of the interval; None when there is none.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None

    @property
    def ends(self) -> list[float]:
        """All of its numbers that are there."""
        return [end for end in (self.value, self.low, self.high) if end is not None]


def picture(
    draw: Callable[..., Sequence[Any] | None],
    height: float,
    colours: int = 256,
    shape: tuple[int, int] = (1, 1),
) -> bytes:
    """Return a PNG of what ``draw`` draws, with a legend above.

    Args:
        draw: takes an ``Axes`` for each panel, row by row; returns the legend's entries, or None for
            whatever has a label.
        height: inches.
        colours: of the file's palette, at most.
        shape: rows and columns of panels.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        panels = figure.subplots(*shape, squeeze=False).flat
        handles = draw(*panels)
        _legend(figure, panels[0].get_legend_handles_labels()[0] if handles is None else handles)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    sink = io.BytesIO()
    # A palette of the picture's own colours: a third of the bytes, and no difference to see.
    image = Image.fromarray(np.ascontiguousarray(pixels))
    palette = image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(sink, format="PNG", optimize=True)
    return sink.getvalue()


def drawable(name: str, otherwise: str) -> str:
    """Return a label's name as pictures show it, or a plain word if their font cannot draw it.

    The font (DejaVu Sans, which comes with Matplotlib) has Latin, Greek, Cyrillic and more, but no
    Chinese, Japanese or Korean; and Matplotlib does not turn text that runs from right to left.
    """
    folded = " ".join(name.split())
    turned = any(unicodedata.bidirectional(char) in ("R", "AL", "RLE", "RLO") for char in folded)
    hidden = any(unicodedata.category(char)[0] == "C" for char in folded)
    if not folded or turned or hidden or not {ord(char) for char in folded} <= _glyphs():
        return otherwise
    return folded if len(folded) <= _NAME_CHARS else folded[: _NAME_CHARS - 1] + "…"


@functools.cache
def _glyphs() -> frozenset[int]:
    font = FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")))
    return frozenset(font.get_charmap())


def condition_name(name: str) -> str:
    """Return a condition's name as pictures show it."""
    shown = drawable(name, "condition")
    # Matplotlib takes a leading underscore for "not in the legend".
    return f" {shown}" if shown.startswith("_") else shown


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Put a legend over the whole picture, in as many columns as fit beside each other."""
    if handles:
        columns = _columns([str(handle.get_label()) for handle in handles])
        figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def text_width(text: str) -> float:
    """Return how wide the smallest letters draw a line, in points."""
    font = FontProperties(family="DejaVu Sans", size=SMALLEST)
    return float(text_to_path.get_text_width_height_descent(text, font, False)[0])


def _columns(labels: Sequence[str]) -> int:
    widths = [text_width(text) for text in labels]
    for columns in range(len(labels), 1, -1):
        # As Matplotlib deals them out.
        longest = sum(max(part) for part in np.array_split(np.array(widths), columns))
        gaps = columns * (_HANDLE + _HANDLE_GAP) + (columns - 1) * _COLUMN_GAP
        if longest + gaps * SMALLEST <= 72 * WIDTH_INCHES - 2 * SMALLEST:
            return columns
    return 1


def marks(axes: Axes, x: Any, y: Any, marker: str, colour: str, **look: Any) -> None:
    """Draw values as marks with a white edge."""
    axes.plot(x, y, marker=marker, color=colour, mec="white", **{"ls": "none", "ms": 8, **look})


def experts_line(axes: Axes, experts: Estimate, colour: str = BLUE) -> None:
    """Draw what the experts reach among themselves, with its interval; nothing where undefined."""
    if experts.value is None:
        return
    label = f"{experts.name}: {experts.value:z.2f}"
    axes.axhline(experts.value, color=colour, lw=1.8, ls=(0, (7, 3)), label=label)
    if experts.low is not None and experts.high is not None:
        band = "their 95% interval"
        axes.axhspan(experts.low, experts.high, color=colour, alpha=0.15, lw=0, label=band)


def kappa_axis(axes: Axes, ends: Sequence[float]) -> None:
    """Let the upright axis hold these kappas, 0 and 1."""
    low = min([0.0, *ends])
    # Room below zero where something lies there; kappa 1 is always in sight.
    axes.set_ylim(low - 0.05 if low < 0 else 0.0, 1.04)
    axes.set_ylabel("Cohen's kappa")
    axes.grid(axis="y")
    if low < 0:
        axes.axhline(0, color=GREY, lw=1)
