"""Labelled ads: checked, and divided by their keys."""

from __future__ import annotations

from models.training import data
from tests.models.training.ads import make_ads, settings


def test_validation_is_stratified_and_drawn_by_key() -> None:
    ads = data.check_ads(make_ads(100), settings("head", "x"))
    held = data.draw_validation(ads, 0.2, 0)
    assert held.sum() == 20 and ads.labels[held].sum() == 8
    chosen = {k for k, out in zip(ads.keys, held, strict=True) if out}
    assert chosen != {
        k for k, out in zip(ads.keys, data.draw_validation(ads, 0.2, 1), strict=True) if out
    }
    fold = data.draw_folds(ads, 5, 0)
    for number in range(5):
        assert (fold == number).sum() == 20
        assert ads.labels[fold == number].sum() == 8
