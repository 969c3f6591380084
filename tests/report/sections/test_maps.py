"""The maps in words."""

from __future__ import annotations

from pathlib import Path

from tests.report.drawn import draw, read, rename


def test_a_name_that_pictures_cannot_draw_is_explained(learnt: Path, tmp_path: Path) -> None:
    rename(learnt, labels={"positive": "詐欺", "negative": "fine"})
    text = read(draw(learnt, tmp_path)).texts["map"]
    assert "cannot draw a label's name: in them positive stands for 詐欺." in text
    assert "are called 詐欺" in text
