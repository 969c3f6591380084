"""The report's one HTML file: what a section holds, and the page that is made of sections.

Ads, names from the task file and paths are hostile input: the template escapes everything, the page
holds no script, a Content-Security-Policy forbids all but its own style and pictures, and what an ad
holds of invisible characters is shown as marks.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import markupsafe

from pipelines.console.visible import Piece, printable

# Name and value of each.
Facts = Sequence[tuple[str, str]]
TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "report"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with the words that go with it.

    Attributes:
        name: file name beside the report, without folder.
        png: the file's bytes.
        alt: what it shows, with its key numbers, for who does not see it.
        caption: what is to be seen.
    """

    name: str
    png: bytes
    alt: str
    caption: str

    @property
    def base64(self) -> str:
        """The file as text."""
        return base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """Pixels, from the file's head (PNG specification, IHDR)."""
        return int(struct.unpack(">I", self.png[16:20])[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(struct.unpack(">I", self.png[20:24])[0])


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first cell of a row names the row."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ShownAd:
    """One ad of a review item: its label's side, the model's words about it, and its text.

    Attributes:
        label: ``positive`` or ``negative``.
        title: what stands over it.
        pieces: its text.
        fields: name and text of each of its fields, shown instead of the text; empty for a plain one.
    """

    label: str
    title: str
    pieces: tuple[Piece, ...]
    fields: tuple[tuple[str, tuple[Piece, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class ShownItem:
    """A review item: one ad, or two beside each other."""

    title: str
    about: str
    ads: tuple[ShownAd, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report; ``missing`` says what it lacks, and which command gives it if one does."""

    id: str
    title: str
    pictures: tuple[Picture, ...] = ()
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: Facts = ()
    items: tuple[ShownItem, ...] = ()
    missing: str = ""


def drawn(id: str, title: str, png: bytes, alt: str, caption: str, *paragraphs: str) -> Section:
    """Return a section of one picture; a paragraph without words is left out."""
    picture = Picture(f"report-{id}.png", png, alt, caption)
    return Section(id, title, (picture,), tuple(filter(None, paragraphs)))


def word(value: object, limit: int = 200) -> str:
    """Return something from a task file, a path or a corpus as text that is safe to show."""
    return printable(str(value), limit)


def page(title: str, summary: Facts, sections: Sequence[Section]) -> bytes:
    """Return the HTML file: the same parts give the same bytes."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template("report.html").render(
        csp=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        title=title,
        # The project's own file, the only text that is not escaped.
        style=markupsafe.Markup(style),  # noqa: S704
        summary=summary,
        sections=sections,
    )
    return text.encode()
