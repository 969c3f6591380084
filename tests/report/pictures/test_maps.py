"""The ads on a plane: colours, names and boxes, and as many points as are ever drawn."""

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
    members = (positive & (cluster == 0), ~positive & (cluster == 0))
    for png in (
        maps.ad_map(points, positive, NAMES),
        maps.close_map(points, positive, members, [], maps.whole_map(points), NAMES),
        maps.item_map(points, positive, pairs.tolist(), np.zeros(500, dtype=bool), NAMES),
    ):
        assert len(png) < 300_000


def test_positive_is_orange_and_benign_is_blue() -> None:
    none, all_of_them = (
        maps.ad_map(POINTS, np.full(len(POINTS), value), NAMES) for value in (False, True)
    )
    assert pixels(none, "blue") > 10 * pixels(all_of_them, "blue") > 0
    assert pixels(all_of_them, "orange") > 10 * pixels(none, "orange") > 0


def two_groups() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points of two far groups, their labels, and which of them is in the second group."""
    rng = np.random.default_rng(1)
    second = np.arange(200) >= 100
    return rng.normal(size=(200, 2)) + 40 * second[:, None], np.arange(200) % 2 == 0, second


def test_a_close_look_is_at_where_both_clusters_and_their_pairs_are() -> None:
    points, positive, second = two_groups()
    for group in (second, ~second):
        members = (positive & group, ~positive & group)
        pair = [int(np.flatnonzero(side)[0]) for side in members]
        box = maps.close_box(points, members, [pair])
        assert box.holds(points[group]).mean() > 0.9 and not box.holds(points[~group]).any()
        assert box.holds(points[pair]).all()
        assert box.width < 0.31 * maps.whole_map(points).width
    # Where a cluster lies in both groups, the other one and the pairs decide.
    pair = [int(np.flatnonzero(positive & second)[0]), int(np.flatnonzero(~positive & second)[0])]
    box = maps.close_box(points, (positive, ~positive & second), [pair])
    assert box.holds(points[second]).mean() > 0.9


def test_boxes_do_not_hide_one_another_while_there_is_room() -> None:
    points, positive, second = two_groups()
    first = maps.close_box(points, (positive & second, ~positive & second), [])
    again = maps.close_box(points, (positive, ~positive), [], [first])
    assert first.shared(again) == 0 and again.shared(again) == pytest.approx(
        again.width * again.height
    )


def test_names_and_boxes_are_written_where_their_ads_are_and_not_on_one_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = [
        maps.Label(0.0, 0.0, ("pills", "miracle", "kilos")),
        maps.Label(0.1, 0.1, ("slim", "fast", "now")),
        maps.Label(3.0, 3.0, ("loans",)),
    ]
    box = maps.Box(4.0, 0.0, 1.0, 0.5)
    _, axes = laid_out(
        monkeypatch, lambda: maps.ad_map(POINTS, POSITIVE, NAMES, labels, [box, box])
    )
    written = {text.get_text(): text for text in axes.texts}
    assert {"1", "2", "pills\nmiracle\nkilos", "loans"} <= set(written)
    assert written["pills\nmiracle\nkilos"].get_position() == pytest.approx((0, 0))
    assert written["loans"].get_position() == pytest.approx((3, 3))
    boxes = [patch.get_bbox().bounds for patch in axes.patches]
    assert boxes == [(4.0, 0.0, 1.0, 0.5)] * 2
    # What is in another's way steps aside, loses words, or is left out.
    places = [text.get_window_extent() for text in axes.texts]
    assert not [a for i, a in enumerate(places) for b in places[:i] if a.overlaps(b)]


def test_a_pair_is_drawn_where_both_its_ends_are_in_the_box(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points, positive, second = two_groups()
    members = (positive & second, ~positive & second)
    inside = [int(np.flatnonzero(side)[0]) for side in members]
    across = [int(np.flatnonzero(positive & ~second)[0]), inside[1]]
    box = maps.close_box(points, members, [inside])

    def numbers(pairs: list[list[int]]) -> tuple[list[str], list[str]]:
        figure, axes = laid_out(
            monkeypatch, lambda: maps.close_map(points, positive, members, pairs, box, NAMES)
        )
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        return [text.get_text() for text in axes.texts], legend

    called = ["called honest", "called deceptive"]
    assert numbers([across, inside]) == (["2"], [*called, "pair", "others"])
    assert numbers([across]) == ([], [*called, "others"])


def test_an_item_of_two_ads_is_a_line_and_one_of_a_single_ad_is_a_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Wherever the two are on the map.
    monkeypatch.setattr(maps, "_JOINED_WIDTH", 2.0)

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


def test_the_ads_of_a_pair_that_are_far_apart_on_the_map_are_marked_and_not_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points, positive, _ = two_groups()
    near, far = [100, 101], [0, 101]
    assert maps.apart(points, [near, far, [5]]) == 1
    _, axes = laid_out(
        monkeypatch,
        lambda: maps.item_map(points, positive, [near, far], np.zeros(2, dtype=bool), NAMES),
    )
    joins = [line.get_xydata() for line in axes.lines if line.get_alpha() == 0.75]
    assert np.allclose(joins, points[[near]])
