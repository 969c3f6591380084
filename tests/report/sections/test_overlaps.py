"""Where the model is confused: themes, examples and pairs of the most mixed clusters."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from pipelines.report import sample
from pipelines.report.data import Evidence, read_round, with_sample
from pipelines.report.output import Report
from pipelines.report.sample import Overlap, Theme
from pipelines.report.sections import maps, overlaps
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.real_tools.browser.test_review_page import HOSTILE
from tests.report.drawn import Parts, draw, read


@pytest.fixture(scope="module")
def found(stages: dict[str, Path]) -> Evidence:
    return with_sample(read_round(Workspace(str(stages["mined"])), None), 20_000)


def test_groups_are_told_by_words_and_three_ads_each(whole: Report, found: Evidence) -> None:
    drawn = found.sample
    assert drawn is not None
    texts = {str(ad["text"]) for ad in helpers.tiny_ads()}
    for overlap in drawn.close:
        for theme, members in zip(
            (overlap.positive, overlap.negative), drawn.members(overlap), strict=True
        ):
            assert theme.ads == members.sum(), "all ads are on this map"
            assert 1 <= len(theme.examples) <= 3 and set(theme.examples) <= texts
            assert len(set(theme.examples)) == len(theme.examples)
    parts = read(whole)
    section = parts.texts["overlaps"]
    headings = [line for line in section.splitlines() if " against " in line]
    assert [line[:2] for line in headings] == ["1.", "2.", "3."]
    assert "cluster 0" not in section and "overlaps.jsonl" not in section
    alts = [str(image["alt"]) for image in parts.images() if "enlarged" in str(image["alt"])]
    assert len(alts) == 3 and all("orange triangles" in alt for alt in alts)


def test_the_pairs_below_a_close_look_are_those_of_its_clusters(found: Evidence) -> None:
    drawn = found.sample
    assert drawn is not None
    seen = 0
    for overlap in drawn.overlaps:
        for place in overlap.items:
            by_label = {ad.label: ad.cluster for ad in found.items[place].ads}
            assert (by_label["positive"], by_label["negative"]) == overlap.clusters
            seen += 1
        for rows in drawn.pairs(overlap):
            members = drawn.members(overlap)
            assert (members[0] | members[1])[list(rows)].all()
    assert seen > 0


def overlap(rank: int, positive: int, negative: int) -> Overlap:
    return Overlap(rank, Theme((), 0), Theme((), 0), (positive, negative), ())


def test_no_cluster_is_shown_twice_while_there_are_others() -> None:
    ranked = [overlap(1, 0, 7), overlap(2, 0, 8), overlap(3, 1, 7), overlap(4, 1, 8)]
    assert [one.rank for one in sample._close(ranked)] == [1, 2, 4]
    apart = [*ranked, overlap(5, 2, 9)]
    assert [one.rank for one in sample._close(apart)] == [1, 4, 5]
    assert sample._close([]) == ()


def test_of_a_long_round_the_first_items_are_on_the_map_and_the_rest_is_drawn(
    monkeypatch: pytest.MonkeyPatch, stages: dict[str, Path], tmp_path: Path
) -> None:
    monkeypatch.setattr(sample, "MAP_ADS", 20)
    made = draw(stages["mined"], tmp_path)
    text = " ".join(read(made).texts["pairs"].split())
    assert made.summary["drawn"] == 20 and "The first 5 are on the map." in text
    assert "drawn on 20 of 200 ads" in text


def test_a_theme_that_the_font_cannot_write_is_a_letter_that_the_text_explains(
    found: Evidence,
) -> None:
    areas = (
        sample.Area(0.0, 0.0, Theme(("pills", "药丸"), 9)),
        sample.Area(1.0, 0.0, Theme(("比特币", "投资"), 5)),
        sample.Area(2.0, 0.0, Theme((), 5)),
    )
    labels, lettered = maps._labels(areas)
    assert [label.lines for label in labels] == [("pills",), ("A",)]
    assert lettered == {"A": areas[1]}


@pytest.mark.usefixtures("undrawn")
def test_hostile_unspaced_empty_and_endless_ads_are_only_text(tmp_path: Path) -> None:
    hard = [
        # Lone surrogates never get as far as a scored block.
        *(text for text in HOSTILE if not any("\ud800" <= char <= "\udfff" for char in text)),
        "投资比特币保证收益 free win",
        "ลงทุนรับประกันผลตอบแทน winner",
        "x" * 8_000 + " won",
    ]
    ads = [
        {"id": f"h{i}-{n}", "text": f"{text} {n}"} for i, text in enumerate(hard) for n in range(4)
    ]
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", [*helpers.tiny_ads(), *ads])
    task = helpers.write_task(tmp_path)
    helpers.run(task, corpus, tmp_path / "w")
    made = draw(tmp_path / "w", tmp_path / "out")
    data = Path(made.path).read_bytes()
    parts = Parts(data)
    assert not {tag for tag, _ in parts.tags} & {"script", "b", "i", "u", "iframe", "style2"}
    assert not [c for c in data.decode() if unicodedata.category(c) in ("Cf", "Cs", "Co", "Cn")]
    assert b"x" * 1000 not in data
    # Of every example so much is shown.
    shown = [a for tag, a in parts.tags if tag == "div" and a.get("class") == "example"]
    assert len(shown) > 6 and all(a["dir"] == "auto" for a in shown)
    assert overlaps.AD_CHARS < 400


def test_examples_that_begin_alike_are_one() -> None:
    texts = [
        "Cheap train tickets to Rome, booked in advance, from 9",
        *["Cheap  train tickets to Rome, booked in advance, from 10"] * 2,
        "Loans",
        "Pills",
    ]
    members, distance = np.arange(5), np.array([0.1, 0.2, 0.3, 0.5, 0.4])
    assert sample._examples(members, distance, texts) == (texts[0], "Pills", "Loans")
    assert sample._examples(members[:0], distance, texts) == ()
