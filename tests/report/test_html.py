"""The page: a strict policy, and nothing that an ad or a task file holds is more than text."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import itertools
import unicodedata
from pathlib import Path

import pytest
from markupsafe import Markup
from PIL import Image

from pipelines.console.visible import visible
from pipelines.report import html
from pipelines.report.data import read_round
from pipelines.report.html import page
from pipelines.report.output import Report
from pipelines.report.sections.items import AD_CHARS, top_items
from pipelines.store.workspace import Workspace
from tests.helpers import by_label
from tests.real_tools.browser.test_review_page import HOSTILE
from tests.report.drawn import Parts, draw, items_of, read, rename, rewrite


def test_the_page_forbids_everything_but_its_own_style_and_pictures(whole: Report) -> None:
    parts = read(whole)
    names = {tag for tag, _ in parts.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "base", "a href"}
    [policy] = [a["content"] for tag, a in parts.tags if a.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(parts.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    used = {name for _, attributes in parts.tags for name in attributes}
    assert "style" not in used and not [name for name in used if name.startswith("on")]
    links = [a["href"] for tag, a in parts.tags if tag == "a"]
    ids = {a["id"] for _, a in parts.tags if "id" in a}
    assert links and all(str(link)[0] == "#" and str(link)[1:] in ids for link in links)
    assert ("html", {"lang": "en"}) in parts.tags
    assert all(a.get("scope") in ("col", "row") for tag, a in parts.tags if tag == "th")


def hostile(root: Path, number: int, skip: int = 0) -> list[str]:
    """Put hostile texts and ids into a round's items; return the texts in the report's order."""
    texts = itertools.cycle([*HOSTILE[skip:], *HOSTILE[:skip]])
    id = "\u202e</h4><script>alert(1)</script>\x00"
    items = []
    for item in items_of(root, number):
        ads = by_label(item).values()
        changed = tuple(dataclasses.replace(ad, text=next(texts), id=id) for ad in ads)
        items.append(dataclasses.replace(item, ads=changed))
    rewrite(root, number, items)
    return [ad.text for item in items for ad in item.ads]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("skip", [0, 10])
def test_nothing_an_ad_contains_breaks_the_report(
    whole: Report, learnt: Path, tmp_path: Path, skip: int
) -> None:
    texts = hostile(learnt, 2, skip)
    data = Path(draw(learnt, tmp_path / "b").path).read_bytes()
    parts = Parts(data)
    # The same structure, but for the marks in the ads, and for warnings, which are about texts that are alike.
    apart = ("mark", "warning")
    unmarked, plain = (
        [tag for tag, attributes in found.tags if attributes.get("class") not in apart]
        for found in (parts, read(whole))
    )
    assert unmarked == plain
    for text, shown in zip(texts[:20], parts.ads, strict=True):
        pieces = visible(text, AD_CHARS)
        assert shown == "".join(piece.text for piece in pieces)
    assert parts.ads[0] == HOSTILE[skip]
    assert not [c for c in data.decode() if unicodedata.category(c) in ("Cf", "Cs", "Co", "Cn")]
    assert b"\x00" not in data and b"\x1b" not in data


def test_names_from_the_task_file_and_paths_are_only_text(learnt: Path, tmp_path: Path) -> None:
    labels = {"positive": "<b>$x</b>", "negative": "</style>{{ 1 }}"}
    rename(learnt, labels=labels, policy="<script>alert(1)</script>", question="\u202e</dl>{%")
    parts = read(draw(learnt, tmp_path / "<u>out"))
    assert not {tag for tag, _ in parts.tags} & {"script", "b", "i", "u"}
    assert "called <b>$x</b>" in parts.texts["map"]
    assert "</style>{{ 1 }}" in parts.texts["map"]
    for text in ("<script>alert(1)</script>", "\\u202e</dl>{%", "<i>ads&.jsonl"):
        assert text in parts.texts["provenance"]


def test_png_sizes_are_read_from_the_file() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (7, 300)).save(sink, format="PNG")
    assert html.png_size(sink.getvalue()) == (7, 300)


def test_an_ad_of_several_fields_shows_them_apart(stages: dict[str, Path]) -> None:
    found = read_round(Workspace(str(stages["learnt"])), 2)
    fields = (("Headline", "<b>Win</b>\u202e"), ("Call to action", "Buy\nnow"))
    ad = dataclasses.replace(found.items[0].ads[0], text="all in one", fields=fields)
    alone = dataclasses.replace(found.items[0], ads=(ad,))
    shown = top_items(dataclasses.replace(found, items=(alone,)))
    data = page("title", Markup(""), [shown])
    parts = Parts(data)
    assert [tag for tag, _ in parts.tags if tag in ("dt", "dd", "b")] == ["dt", "dd"] * 2
    assert parts.ads == ["Headline<b>Win</b>RLOCall to actionBuy\nnow"]
    assert b"all in one" not in data, "what the model read is put together from the fields"
