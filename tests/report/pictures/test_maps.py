"""The ads on a plane: colours, outlines, and as many points as are ever drawn."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.report.pictures import maps
from tests.report.pictures.samples import (
    NAMES,
    POINTS,
    POSITIVE,
    cloud,
    laid_out,
    pixels,
)


def test_twenty_thousand_ads_stay_below_300_kb() -> None:
    points, positive, cluster = cloud(20_000)
    pairs = np.stack([np.flatnonzero(positive)[:500], np.flatnonzero(~positive)[:500]], axis=1)
    for png in (
        maps.ad_map(points, positive, NAMES),
        maps.cluster_map(points, positive, cluster, [(i % 4, i % 3) for i in range(6)], NAMES),
        maps.item_map(points, positive, pairs.tolist(), np.zeros(500, dtype=bool), NAMES),
    ):
        assert len(png) < 300_000


def test_positive_is_orange_and_benign_is_blue() -> None:
    none, all_of_them = (
        maps.ad_map(POINTS, np.full(len(POINTS), value), NAMES) for value in (False, True)
    )
    assert pixels(none, "blue") > 10 * pixels(all_of_them, "blue") > 0
    assert pixels(all_of_them, "orange") > 10 * pixels(none, "orange") > 0


def test_each_overlap_has_a_map_of_its_own_where_its_two_clusters_are_outlined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two far groups, each with clusters of both labels; the last overlap has a cluster without ads.
    rng = np.random.default_rng(1)
    cluster = np.repeat([0, 1], 100).astype(np.int32)
    points = rng.normal(size=(200, 2)) + 20 * cluster[:, None]
    positive = np.arange(200) % 2 == 0
    overlaps = [(1, 1), (0, 1), (0, 9)]
    figure, _ = laid_out(
        monkeypatch, lambda: maps.cluster_map(points, positive, cluster, overlaps, NAMES)
    )
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ["1", "2", "3"]
    assert len({axes.dataLim.bounds for axes in panels}) == 1, "the same map each time"
    for axes, (of_positive, of_negative) in zip(panels, overlaps, strict=True):
        found = {patch.get_linestyle(): patch for patch in axes.patches}
        assert set(found) == ({"-", "--"} if of_negative < 9 else {"-"})
        for line, number in (("-", of_positive), ("--", of_negative)):
            if line in found:
                side = points[(positive == (line == "-")) & (cluster == number)]
                stretched = found[line].get_transform() - axes.transData
                assert stretched.transform((0, 0)) == pytest.approx(side.mean(axis=0))
                # About two thirds of its ads.
                apart = np.linalg.norm(stretched.inverted().transform(side), axis=1)
                assert 0.55 < (apart <= 1).mean() < 0.8


def test_an_item_of_two_ads_is_a_line_and_one_of_a_single_ad_is_a_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lines(items: list[list[int]]) -> tuple[int, list[str]]:
        explored = np.arange(len(items)) % 2 == 1
        figure, axes = laid_out(
            monkeypatch, lambda: maps.item_map(POINTS, POSITIVE, items, explored, NAMES)
        )
        joins = [
            line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_alpha() == 0.75
        ]
        return len(joins), [text.get_text() for text in figure.legends[0].get_texts()]

    called = ["called honest", "called deceptive"]
    assert lines([[0], [1]]) == (0, called)
    assert lines([[0, 1], [2], [3]]) == (1, [*called, "pair"])
    assert lines([[0, 1], [2, 3], [4]]) == (2, [*called, "pair", "drawn at random"])
