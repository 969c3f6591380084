"""Progress: what is done, and when it ends."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.training import trainer
from pipelines.console.progress import Step
from pipelines.simulation import forecast, play
from pipelines.simulation.forecast import Forecast
from pipelines.simulation.measure import Model, Round
from tests.simulation.bench import Bench


class Stub:
    """Plays rounds of one label in no time."""

    def __init__(self, *args: Any) -> None:
        pass

    def play(self, number: int, labels: int | None) -> Round:
        ads = trainer.LabelledAds(("k",), ("an ad",), np.ones(1, dtype=np.int8))
        return Round(number, ads, Model(lambda texts: np.ones(len(texts)), 0.5))

    def evaluation(self) -> np.ndarray:
        return np.zeros(0, dtype=np.intp)

    def stop(self, rounds: int) -> dict[str, Any]:
        words = {"rule": "none", "reason": "did not stop", "condition": "random", "seed": 1}
        return words | {"stopped_after": 2, "no_later_better_after": 2, "kappas": {}}


def test_all_rounds_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    count, skip = Forecast.done, Forecast.skip_seed
    seen: list[Step] = []

    def counting(self: Any, condition: str, share: float) -> None:
        count(self, condition, share)
        seen.append(copy.copy(self._advance))

    def skipping(self: Any) -> None:
        skip(self)
        seen.append(copy.copy(self._advance))

    monkeypatch.setattr(play, "Loop", Stub)
    monkeypatch.setattr(Forecast, "done", counting)
    monkeypatch.setattr(Forecast, "skip_seed", skipping)
    # The second learner never has labels enough.
    options = {
        "conditions": ("random", "crowd"), "labels": (20, 60), "expert_kappa": 1.0,
        "also": ("head", "encoder"), "also_from": 1000, "crowd_kappa": (0.6,),
    }  # fmt: skip
    bench.play("counted", **options)
    # Two rounds, learnt one after the other, then measured, then with the other learner; two crowds.
    assert [step.done for step in seen] == pytest.approx([n / 3 for n in range(1, 13)])
    assert {step.total for step in seen} == {4}
    words = [step.words for step in seen]
    assert words[:6] == ["simulating seed 1, random"] * 6
    assert words[6:9] == ["simulating seed 1, crowd 0.6 text"] * 3
    assert words[9:] == ["simulating seed 1, crowd 0.6 uniform"] * 3
    assert seen[0].ends is None and all(step.ends is not None for step in seen[1:])
    seen.clear()
    bench.play("counted", **options, seeds=2)
    assert (seen[0].done, seen[0].given, seen[0].total) == (4, 4, 8)
    assert seen[-1].done == pytest.approx(8)


def test_the_end_is_foreseen_by_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(forecast, "time", SimpleNamespace(monotonic=lambda: now))
    advance = Step("simulating", 10)
    rounds = {"boundary": 2, "random": 2, "crowd 0.6 text": 1, "crowd 0.4 text": 1}
    foreseen = Forecast(advance, rounds, seeds=2)

    def played(condition: str, seconds: float) -> float | None:
        nonlocal now
        now += seconds
        foreseen.done(condition, 1.0)
        ends = advance.ends
        return None if ends is None else ends - now

    assert played("boundary", 300.0) is None, "LLM-0 scored the corpus, which says nothing"
    assert played("boundary", 50.0) == pytest.approx(10 * 50.0), "all that is known"
    assert played("random", 20.0) == pytest.approx(2 * 50.0 + 3 * 20.0 + 4 * 35.0)
    played("random", 20.0)
    # What has not been met yet is like others of its kind: a crowd mines nothing.
    left = played("crowd 0.6 text", 2.0)
    assert left == pytest.approx(2 * 50.0 + 2 * 20.0 + 3 * 2.0)
    played("crowd 0.4 text", 4.0)
    for name, seconds in (("boundary", 50.0), ("random", 20.0)):
        played(name, seconds)
        played(name, seconds)
    played("crowd 0.6 text", 2.0)
    assert played("crowd 0.4 text", 4.0) == pytest.approx(0.0)
