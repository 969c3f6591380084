"""A cascade's numbers: what is foretold, where the cut lies, and how many are missed."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.numerics import calibration, cascade
from pipelines.numerics.calibration import to_grid


def world(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (n, 20), hint and margins of ads of which some is to be foretold."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 20)).astype(np.float32)
    hint = rng.normal(size=n)
    told = features @ np.linspace(1, 0, 20) / 2 + 3
    return features, hint, to_grid(told + hint + noise * rng.normal(size=n))


def test_what_can_be_foretold_is() -> None:
    features, hint, margins = world(2000, 0.0, 1)
    student = cascade.fit_student("encoder", features[:500], hint[:500], margins[:500], 0.05)
    told = student.foretell(features[500:], hint[500:])
    assert np.abs(told - margins[500:]).max() < 0.1
    assert student.correlation > 0.999
    # All positives are among the first: as many as there are, and hardly more.
    assert student.share(0.98) in (0.05, 0.06)


def test_an_ad_is_foretold_by_itself_alone() -> None:
    features, hint, margins = world(900, 0.5, 2)
    student = cascade.fit_student("words", features, hint, margins, 0.1)
    whole = student.foretell(features, hint)
    for n in (1, 2, 7, 500):
        np.testing.assert_array_equal(student.foretell(features[-n:], hint[-n:]), whole[-n:])


def test_it_comes_back_from_text_as_it_was() -> None:
    features, hint, margins = world(400, 0.5, 3)
    student = cascade.fit_student("layers", features, hint, margins, 0.1)
    text = student.to_json()
    again = cascade.Student.from_json(text)
    assert again.to_json() == text
    assert (again.by, again.ads, again.correlation) == ("layers", 400, student.correlation)
    assert again.cut(0.2) == pytest.approx(student.cut(0.2), abs=1e-6)


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_share_that_is_read_holds_what_was_asked_for(noise: float) -> None:
    held = []
    for seed in range(12):
        features, hint, margins = world(20_000, noise, seed)
        student = cascade.fit_student("x", features[:2000], hint[:2000], margins[:2000], 0.02)
        told = student.foretell(features[2000:], hint[2000:])
        rest = margins[2000:]
        top = rest >= np.quantile(rest, 0.98)
        share = student.share(0.95)
        read = told >= student.cut(share)
        assert read.mean() == pytest.approx(share, abs=0.03)
        held.append((top & read).sum() / top.sum())
    # Whole percents of the ads: with little noise the next one holds more.
    assert 0.93 <= np.mean(held) <= 0.98


def test_cuts() -> None:
    features, hint, margins = world(1000, 0.5, 4)
    student = cascade.fit_student("x", features, hint, margins, 0.1)
    assert student.cut(0.0) == np.inf and student.cut(1.0) == -np.inf
    cuts = [student.cut(share) for share in np.linspace(0.01, 0.99, 50)]
    assert cuts == sorted(cuts, reverse=True)
    assert student.kept[0] == 0 and student.kept[-1] == pytest.approx(1)
    assert (np.diff(student.kept) >= 0).all()


def test_too_few_ads_teach_nothing() -> None:
    features, hint, margins = world(99, 0.5, 5)
    with pytest.raises(ValueError, match="at least 100 ads, got 99"):
        cascade.fit_student("x", features, hint, margins, 0.1)


def test_a_model_that_says_one_thing_can_be_foretold() -> None:
    features, _, _ = world(200, 0.5, 6)
    student = cascade.fit_student("x", features, np.zeros(200), np.full(200, 1.5), 0.1)
    assert student.correlation == 0.0
    np.testing.assert_allclose(student.foretell(features, np.zeros(200)), 1.5, atol=1e-5)


def counts(margins: list[float]) -> np.ndarray:
    found = np.zeros(calibration.N_BINS, np.int64)
    for place, number in cascade.bins(np.array(margins)).items():
        found[place] = number
    return found


def test_a_miss_rate_by_hand() -> None:
    # 10 ads above the cut, 40 below it of which 4 were read: each stands for 10.
    above = counts([9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    explored = counts([7.5, -1, -2, -3])
    miss = cascade.measure_miss(cascade.Read(above, explored, 40), prior=0.24)
    # 12 of 50: two above (9 and 8), then the explored one that stands for ten.
    assert (miss.above, miss.below, miss.explored) == (10, 40, 4)
    assert (miss.kept, miss.missed) == (2, 1)
    # One of four: 9 of the 36 that nobody read, beside the three that were.
    assert miss.rate == pytest.approx(9 / 12)
    assert miss.low is not None and miss.high is not None
    assert 0 < miss.low < 9 / 12 < miss.high < 1


def test_where_all_were_read_none_is_missed() -> None:
    read = cascade.Read(counts([3, 2]), counts([5, -1, -2]), 3)
    miss = cascade.measure_miss(read, prior=0.2)
    assert (miss.missed, miss.rate, miss.low, miss.high) == (1, 0.0, 0.0, 0.0)


def test_without_exploration_nothing_is_known() -> None:
    miss = cascade.measure_miss(cascade.Read(counts([3, 2]), counts([]), 8), prior=0.1)
    assert miss.rate is None and miss.low is None and miss.high is None
    assert cascade.next_share(0.3, miss, 0.98) == 0.3


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    features, hint, margins = world(22_000, 1.2, 7)
    student = cascade.fit_student("x", features[:2000], hint[:2000], margins[:2000], 0.05)
    every, read = student.foretell(features[2000:], hint[2000:]), margins[2000:]
    covered = []
    for night in range(300):
        rng = np.random.default_rng(night)
        tonight = rng.permutation(len(read))[:15_000]
        above, drawn = every[tonight] >= student.cut(0.15), rng.random(15_000) < 0.02
        said = read[tonight]
        top = said >= np.partition(said, -750)[-750]
        truth = (top & ~above & ~drawn).sum() / top.sum()
        found = cascade.Read(
            counts(said[above].tolist()), counts(said[~above & drawn].tolist()), int((~above).sum())
        )
        miss = cascade.measure_miss(found, 0.05)
        assert miss.low is not None and miss.high is not None
        covered.append(miss.low <= truth <= miss.high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_more_is_read_where_more_than_chance_is_missed() -> None:
    def miss(missed: int) -> cascade.Miss:
        return cascade.miss_of(above=300, below=700, explored=70, kept=90, missed=missed)

    assert cascade.next_share(0.3, miss(2), 0.98) == 0.3
    assert cascade.next_share(0.3, miss(3), 0.98) == 0.45
    assert cascade.next_share(0.3, miss(3), 0.5) == 0.3
    assert cascade.next_share(0.8, miss(3), 0.98) == 1.0


def test_nights_together_say_more_than_each() -> None:
    one = cascade.miss_of(100, 900, 90, 40, 1)
    four = cascade.pooled([one] * 4)
    assert (four.above, four.below, four.explored, four.kept, four.missed) == (
        400,
        3600,
        360,
        160,
        4,
    )
    assert four.rate == pytest.approx(one.rate)
    assert four.high is not None and one.high is not None and four.high < one.high
