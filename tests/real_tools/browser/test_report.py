"""The report in headless Chromium: at once, without a script, on paper, and with hostile ads."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from markupsafe import Markup

from pipelines.console.visible import visible
from pipelines.contracts import ReviewItem
from pipelines.numerics import calibration
from pipelines.report.data import read_round
from pipelines.report.html import Section, section
from pipelines.report.html import page as html_page
from pipelines.report.pictures import maps, scores
from pipelines.report.pictures.canvas import WIDTH_INCHES, Names
from pipelines.report.round import ReportOptions, report
from pipelines.report.sample import MAP_ADS
from pipelines.report.sections.items import AD_CHARS, TOP_ITEMS, top_items
from pipelines.report.simulation import simulation_report
from pipelines.simulation.results import summarize
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.real_tools.browser.conftest import Desk
from tests.real_tools.browser.test_review_page import HOSTILE, serious

if TYPE_CHECKING:
    from playwright.sync_api import Page

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LOOKS = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a mined workspace whose first pairs hold hostile ads."""
    folder = tmp_path_factory.mktemp("report")
    corpus = helpers.write_jsonl(folder / "ads.jsonl", helpers.tiny_ads())
    helpers.run(helpers.write_task(folder), corpus, folder / "w")
    texts = iter(HOSTILE)

    def hostile(items: Sequence[ReviewItem]) -> list[ReviewItem]:
        # As the report shows them: the model's positive first.
        return [
            dataclasses.replace(
                item,
                ads=tuple(
                    dataclasses.replace(ad, text=next(texts, ad.text))
                    for ad in helpers.by_label(item).values()
                ),
            )
            for item in items
        ]

    helpers.change_items(folder / "w", 1, hostile)
    return folder / "w"


@pytest.fixture(scope="module")
def url(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of its report."""
    out = tmp_path_factory.mktemp("out")
    found = report(ReportOptions(str(workspace), out=str(out)), lambda line: None)
    return Path(found.path).as_uri()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a simulation's report."""
    rows: list[dict[str, Any]] = [
        {
            "seed": seed,
            "condition": condition,
            "learner": "head",
            "round": number,
            "labels": 50 * number,
            "threshold": 0.1,
            "positive_share": 0.4,
            **dict.fromkeys(("natural", "balanced", "evaluation"), 0.2 * number),
            **dict.fromkeys((f"{n}_experts" for n in ("natural", "balanced", "evaluation")), 0.8),
        }
        for seed in (1, 2)
        for condition in ("boundary", "random", "<b>crowd</b>")
        for number in (1, 2, 3)
    ]
    stop = {
        "seed": 1,
        "condition": "boundary",
        "stopped_after": 2,
        "rule": "parity",
        "reason": "stopped at parity: " + "for a long reason, " * 12,
        "no_later_better_after": 1,
    }
    outcome = {
        "task": "tiny",
        "options": {"task": "t" * 300},
        "ads": 400,
        "summary": summarize(rows),
        "stops": [stop],
        "rows": rows,
        "seconds": 1.0,
    }
    found = simulation_report(outcome, str(tmp_path_factory.mktemp("sim")), lambda line: None)
    return Path(found.path).as_uri()


def drawn_images(page: Page) -> list[int]:
    """Return the width of each picture, once it is decoded."""
    return page.evaluate(
        """async () => {
            const images = [...document.images];
            await Promise.all(images.map((image) => image.decode()));
            return images.map((image) => image.naturalWidth);
        }"""
    )


def test_it_opens_and_shows_its_pictures_and_style_and_asks_for_nothing(
    desk: Desk, url: str
) -> None:
    tab = desk.tab(desk.context(), url)
    # Map, three close looks, pairs, scores and agreement.
    assert drawn_images(tab) == [1024] * 7
    # Were the hash of the style wrong, the policy would refuse it, and the console would say so.
    assert tab.evaluate("getComputedStyle(document.querySelector('.ads')).display") == "grid"
    assert [u for u in desk.seen.requests if not u.startswith(("file:", "data:image/png"))] == []
    assert desk.seen.dialogs == desk.seen.complaints == []


def test_a_report_of_a_full_sample_is_light(desk: Desk, tmp_path: Path) -> None:
    # As many points as are ever drawn: more ads make the picture no larger.
    rng = np.random.default_rng(0)
    points, positive = rng.normal(size=(MAP_ADS, 2)), rng.random(MAP_ADS) < 0.1
    members = (positive, ~positive & (rng.random(MAP_ADS) < 0.5))
    names = Names("deceptive", "honest")
    pairs = np.stack([np.flatnonzero(positive)[:250], np.flatnonzero(~positive)[:250]], axis=1)
    histogram = calibration.margin_histogram(calibration.quantize(rng.normal(size=100_000)))
    pictures = [
        maps.ad_map(points, positive, names),
        maps.close_map(points, positive, members, pairs.tolist(), maps.whole_map(points), names),
        maps.item_map(points, positive, pairs.tolist(), np.arange(250) > 225, names),
        scores.score_histogram(histogram, 1.5, names),
    ]
    image = Markup('<img src="data:image/png;base64,{}" alt="a picture">')
    sections = [
        Section(f"s{i}", "A picture", image.format(base64.b64encode(png).decode()), {})
        for i, png in enumerate(pictures)
    ]
    told = ("condition", "stopped_after", "rule", "no_later_better_after", "reason")
    stops = [{"seed": i, **dict.fromkeys(told, str(i))} for i in range(200)]
    sections.append(section("stops", stops=stops))
    data = html_page("Full", Markup("<p>100,000 ads</p>"), sections)
    assert len(data) < 2_000_000
    path = tmp_path / "report.html"
    path.write_bytes(data)
    # How fast it opens is benchmarks/report_opening.py's to say.
    assert len(drawn_images(desk.tab(desk.context(), path.as_uri()))) == 4


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(desk: Desk, url: str, simulated: str, look: str) -> None:
    # Around the policy, because axe itself writes markup into the page.
    for address in (url, simulated):
        tab = desk.tab(desk.context(bypass_csp=True, **LOOKS[look]), address)
        assert serious(tab) == [], address


def test_hostile_ads_are_text_in_their_boxes(desk: Desk, url: str) -> None:
    tab = desk.tab(desk.context(), url)
    found = tab.evaluate(
        """() => [...document.querySelectorAll(".ad-text")].map((box) =>
            [...box.childNodes].map((node) => node.nodeType === 3 ? ["", node.data]
                : node.matches("span.mark") && !node.children.length
                    ? [node.ariaLabel, node.textContent] : ["?", node.outerHTML]))"""
    )
    assert len(found) == 2 * TOP_ITEMS
    for text, box in zip(HOSTILE, found, strict=False):
        wanted = [[piece.spoken, piece.text] for piece in visible(text, AD_CHARS)]
        assert box == wanted
    # No ad reaches over the edge of its box, or the page's.
    sizes = tab.evaluate(
        """() => [...document.querySelectorAll(".ad-text")].map((box) => {
            const { left, right, height } = box.getBoundingClientRect();
            return [left >= 0, right <= innerWidth, height < 2500];
        })"""
    )
    assert sizes == [[True, True, True]] * len(found)
    assert tab.evaluate("[document.scripts.length, document.links.length]") == [0, 11]
    assert desk.seen.dialogs == desk.seen.complaints == []


def test_markup_that_got_in_could_do_nothing(desk: Desk, url: str, tmp_path: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    pixel = f"http://127.0.0.1:{server.getsockname()[1]}/pixel.gif"
    html = tmp_path / "report.html"
    source = Path(url.removeprefix("file://")).read_text(encoding="utf-8")
    bad = (
        "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
        "<style>h1 { display: none }</style><p style='position: fixed'>x</p>"
        f"<iframe src='data:text/html,x'></iframe><img src='{pixel}'>"
    )
    html.write_text(source.replace("<main id=", f"{bad}<main id="), encoding="utf-8")
    tab = desk.tab(desk.context(), html.as_uri())
    assert tab.title() == "ad-scout report: tiny, round 1"
    assert tab.locator("h1").is_visible()
    assert tab.evaluate("getComputedStyle(document.querySelector('body > p')).position") == "static"
    assert len([line for line in desk.seen.complaints if "Content Security Policy" in line]) >= 5
    with server, pytest.raises(BlockingIOError):
        server.accept()  # nobody called


def test_a_phone_needs_no_sideways_scrolling(desk: Desk, url: str, simulated: str) -> None:
    for address in (url, simulated):
        tab = desk.tab(desk.context(**PHONE), address)
        assert tab.evaluate("document.documentElement.scrollWidth") == 360
        # Tables scroll in frames of their own, which a keyboard reaches.
        frames = tab.locator(".scroll")
        assert frames.count() >= 1
        assert {frames.nth(i).get_attribute("tabindex") for i in range(frames.count())} == {"0"}
        width = tab.evaluate("document.images[0].getBoundingClientRect().width")
        assert 280 < width <= 360
        # 12 points are the smallest letters inside: on no telephone smaller than 8.5 pixels.
        assert 12 / 72 * (width - 4) / WIDTH_INCHES >= 8.5


@pytest.mark.parametrize("look", LOOKS)
def test_fields_of_an_ad_stand_under_one_another_in_its_box(
    desk: Desk, workspace: Path, tmp_path: Path, look: str
) -> None:
    found = read_round(Workspace(str(workspace)), 1)
    fields = tuple(zip("ABC", HOSTILE, strict=False))
    ad = dataclasses.replace(found.items[0].ads[0], fields=fields)
    alone = dataclasses.replace(found.items[0], ads=(ad,))
    shown = top_items(dataclasses.replace(found, items=(alone,)))
    path = tmp_path / "report.html"
    path.write_bytes(html_page("Fields", Markup(""), [shown]))
    tab = desk.tab(desk.context(bypass_csp=True, **LOOKS[look]), path.as_uri())
    tops = tab.evaluate(
        """() => [...document.querySelectorAll(".ad-text :is(dt, dd)")].map((part) =>
            part.getBoundingClientRect().top)"""
    )
    assert len(tops) == 6 and tops == sorted(set(tops))
    assert (
        tab.evaluate("getComputedStyle(document.querySelector('.ad-text dt')).fontWeight") == "600"
    )
    assert serious(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_headings_descend_and_every_link_leads_somewhere(desk: Desk, url: str) -> None:
    tab = desk.tab(desk.context(), url)
    levels = tab.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    tab.click("nav >> text=Provenance")
    assert tab.url.endswith("#provenance")
    assert tab.locator("#provenance h2").is_visible()


def test_on_paper_it_has_no_links_and_black_text(desk: Desk, url: str) -> None:
    tab = desk.tab(desk.context(color_scheme="dark"), url)
    tab.emulate_media(media="print")
    assert tab.locator("nav").is_hidden()
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    # A sheet is as narrow as a telephone is, to the style; its pictures stay between the margins.
    tab.set_viewport_size({"width": 690, "height": 1000})
    assert tab.evaluate("document.images[0].getBoundingClientRect().left >= 0")
    pdf = tab.pdf()
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
