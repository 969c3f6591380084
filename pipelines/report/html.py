"""The report's one HTML file: sections that templates make of numbers, and the page of them.

Ads, names from the task file and paths are hostile input: templates escape everything, the page
holds no script, a Content-Security-Policy forbids all but its own style and pictures, and what an ad
holds of invisible characters is shown as marks.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from pipelines.console import summary
from pipelines.console.visible import visible
from pipelines.report import words

TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "report"
_NO_PICTURES: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        id: of its heading, another one for each section of a report.
        title: its heading.
        body: what stands under it.
        pictures: PNG files in it by their file names; they lie beside the report, too.
        missing: what it lacks, and which command gives it if one does; not escaped.
    """

    id: str
    title: str
    body: markupsafe.Markup
    pictures: Mapping[str, bytes]
    missing: str = ""


def section(
    template: str, pictures: Mapping[str, bytes] = _NO_PICTURES, id: str = "", **numbers: Any
) -> Section:
    """Return the section that a template of ``sections`` makes of numbers and pictures.

    A template sets ``title``, and ``missing`` where it lacks something; the rest is the body.

    Args:
        template: its name.
        pictures: PNG files by their names, which end in the file names.
        id: of the heading; by default the template's name.
        numbers: whatever the template names.
    """
    module = rendered(f"sections/{template}.html", pictures=pictures, **numbers)
    missing = words.fold(getattr(module, "missing", "")).unescape()
    title, body = words.fold(getattr(module, "title", "")), module.__html__()
    beside = {f"report-{name}.png": png for name, png in pictures.items()}
    return Section(id or template, title, body, beside, missing)


def rendered(template: str, **numbers: Any) -> jinja2.environment.TemplateModule:
    """Return what a template makes of numbers: its text and what it sets."""
    return _environment().get_template(template).make_module(numbers)


def png_size(png: bytes) -> tuple[int, int]:
    """Return a picture's width and height in pixels, from its head (PNG specification, IHDR)."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def page(title: str, head: markupsafe.Markup, sections: Sequence[Section]) -> bytes:
    """Return the HTML file: the same parts give the same bytes."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    text = rendered(
        "report.html",
        csp=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        title=title,
        # The project's own file, the only text that is not escaped.
        style=markupsafe.Markup(style),  # noqa: S704
        head=head,
        sections=sections,
    )
    return str(text).encode()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "base64": lambda data: base64.b64encode(data).decode(),
        "fold": words.fold,
        "json": functools.partial(json.dumps, ensure_ascii=False),
        "kappa": words.kappa_text,
        "mean": summary.mean_text,
        "model": words.model_name,
        "number": summary.number,
        "png_size": png_size,
        "percent": words.percent,
        "value": words.value_text,
        "visible": visible,
        "word": words.word,
    }
    return environment
