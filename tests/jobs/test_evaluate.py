"""The evaluator's figures against a recomputation, and what it says where there is little to say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pipelines.config import Task, parse_task
from pipelines.jobs import evaluate
from pipelines.jobs.evaluate import Candidate, measure, stopping_rule
from pipelines.store.facts import Evaluation, adapter, to_json
from pipelines.verdicts.halves import Ratings
from tests import helpers

N = 160


def task(**stopping: Any) -> Task:
    found = parse_task(helpers.FAKE_TASK, "task.yaml")
    return found.model_copy(update={"stopping": found.stopping.model_copy(update=stopping)})


def truth(n: int = N) -> np.ndarray:
    return (np.arange(n) % 5 < 2).astype(np.int8)


def table(experts: int = 2, n: int = N, error: float = 0.1, seed: int = 1) -> Ratings:
    """Return verdicts on n ads, 40% positive; each expert errs on his own ads."""
    rng = np.random.default_rng(seed)
    wrong = rng.random((n, experts)) < error
    values = np.where(wrong, 1 - truth(n)[:, None], truth(n)[:, None]).astype(np.int8)
    names = tuple(f"expert {i}" for i in range(experts))
    return Ratings(tuple(f"k{i:04d}" for i in range(n)), names, values)


def texts(n: int = N) -> list[str]:
    return [f"ad {i}" for i in range(n)]


def model(number: int, error: float, threshold: float = 0.5, seed: int = 7) -> Candidate:
    """Return a model that errs on a share of the ads, by margins either side of its threshold."""

    def margins(asked: Sequence[str]) -> np.ndarray:
        rng = random.Random(f"{seed} {number}")
        wrong = np.array([rng.random() < error for _ in asked], dtype=bool)
        called = truth(len(asked)).astype(bool) ^ wrong
        return np.where(called, threshold, threshold - 0.125)

    return Candidate(number, f"model-{number}", threshold, margins)


def labels_of(candidate: Candidate, n: int = N) -> np.ndarray:
    return (candidate.margins(texts(n)) >= candidate.threshold).astype(int)


def test_every_figure_is_that_of_the_labels() -> None:
    models = [model(0, 0.4), model(1, 0.2, threshold=-3.0), model(2, 0.1)]
    found = measure(task(), table(), texts(), models, fine_tuning_ads=120)
    report, values = found, table().values
    assert report.expert_kappa.value == pytest.approx(cohen_kappa_score(*values.T))
    for entry, candidate in zip(report.models, models, strict=True):
        called = labels_of(candidate)
        wanted = np.mean([cohen_kappa_score(called, column) for column in values.T])
        assert entry.kappa.value == pytest.approx(wanted)
        assert entry.kappa.low < wanted < entry.kappa.high
        assert entry.positive_share == pytest.approx(called.mean())
        agreed = values[:, 0] == values[:, 1]
        assert entry.kappa_with_majority.value == pytest.approx(
            cohen_kappa_score(called[agreed], values[agreed, 0])
        )
        assert (entry.round, entry.threshold) == (candidate.round, candidate.threshold)
    assert report.ads == N and report.verdicts == 2 * N and report.experts == 2
    assert report.positive_share == pytest.approx(values.mean())
    assert report.tied == int((values[:, 0] != values[:, 1]).sum()) > 0
    gap = report.gap_to_experts
    assert gap.value == pytest.approx(report.models[2].kappa.value - report.expert_kappa.value)
    gain = report.gain
    assert gain.value == pytest.approx(
        report.models[2].kappa.value - report.models[0].kappa.value
    ), "two rounds of patience: the newest against LLM-0"
    assert "k0001" not in json.dumps(to_json(report)) and "ad 1" not in json.dumps(to_json(report))


def test_the_threshold_itself_is_positive() -> None:
    at = Candidate(0, "m", 0.25, lambda asked: np.full(len(asked), 0.25))
    below = Candidate(1, "m", 0.25, lambda asked: np.full(len(asked), 0.25 - 2**-8))
    report = measure(task(), table(), texts(), [at, below], 0)
    assert [entry.positive_share for entry in report.models] == [1.0, 0.0]


def test_swapped_labels_turn_every_kappa_over() -> None:
    honest = measure(task(), table(), texts(), [model(0, 0.4), model(1, 0.1)], 0)
    upside_down = Candidate(1, "m", -0.4375, lambda asked: -model(1, 0.1).margins(asked))
    report = measure(task(), table(), texts(), [model(0, 0.4), upside_down], 0)
    assert honest.models[1].kappa.value > 0.5
    assert report.models[1].kappa.value < -0.5
    assert report.models[0] == honest.models[0]


def test_every_model_is_asked_once_about_all_the_ads() -> None:
    asked: list[tuple[int, int]] = []

    def watched(candidate: Candidate) -> Candidate:
        def margins(given: Sequence[str]) -> np.ndarray:
            asked.append((candidate.round, len(given)))
            return candidate.margins(given)

        return Candidate(candidate.round, candidate.model_id, candidate.threshold, margins)

    measure(task(), table(), texts(), [watched(model(n, 0.2)) for n in (0, 1, 2)], 0)
    assert asked == [(0, N), (1, N), (2, N)]


@pytest.mark.parametrize(
    ("stopping", "errors", "rule", "sentence"),
    [
        ({}, (0.4, 0.1), "parity", "stopped at parity: the model of round 1 agrees with the exp"),
        (
            {"margin": 0.1},
            (0.1, 0.4, 0.35),
            "plateau",
            "stopped at a plateau: the best of the last 2 rounds, round 1, agrees with",
        ),
        (
            {"max_rounds": 1},
            (0.4, 0.35),
            "rounds",
            "stopped after round 1, 1 round of at most 1; the",
        ),
        ({"max_labels": 260}, (0.4, 0.35), "labels", "stopped at 260 expert labels of at most 260"),
        (
            {"max_labels": 261},
            (0.4, 0.35),
            "go on",
            "go on after round 1: the best is the model of round ",
        ),
        (
            {"min_evaluation_ads": 161},
            (0.4, 0.1),
            "go on",
            "160 evaluation ads with a verdict are ",
        ),
    ],
)
def test_the_tasks_rule_decides_and_says_why(
    stopping: dict[str, Any], errors: tuple[float, ...], rule: str, sentence: str
) -> None:
    models = [model(number, error) for number, error in enumerate(errors)]
    if rule == "plateau":
        # The experts agree better than any model, or parity would come first.
        verdicts = table(error=0.01)
        models[0] = model(0, 0.3)
    else:
        verdicts = table()
    found = measure(task(**stopping), verdicts, texts(), models, fine_tuning_ads=100)
    decision = found.decision
    assert (decision.rule, decision.stop) == (rule, rule != "go on")
    assert sentence in decision.reason


def test_the_rule_is_the_tasks_own() -> None:
    changes: dict[str, Any] = {"margin": 0.02, "patience": 3, "parity_margin": 0.1}
    changes |= {"parity_test": "stays above", "min_evaluation_ads": 42}
    rule = stopping_rule(task(**changes, max_rounds=9, max_labels=500))
    assert (rule.margin, rule.patience, rule.parity_margin) == (0.02, 3, 0.1)
    assert (rule.parity_test, rule.min_ads) == ("stays above", 42)
    assert (rule.max_rounds, rule.max_labels) == (9, 500)


def empty() -> Ratings:
    return Ratings((), (), np.zeros((0, 0), dtype=np.int8))


def skipped() -> Ratings:
    return Ratings(table().keys, ("anna",), np.full((N, 1), -1, dtype=np.int8))


def one_class() -> Ratings:
    return Ratings(table().keys, ("anna", "bo"), np.zeros((N, 2), dtype=np.int8))


@pytest.mark.parametrize(
    ("verdicts", "ads", "reason"),
    [
        (empty, 0, "rater"),
        (skipped, 0, "rater"),
        (lambda: table(experts=1), N, "needs at least 2 raters"),
        (one_class, N, "negative"),
    ],
    ids=["nothing", "skips", "one expert", "one class"],
)
def test_what_cannot_be_measured_is_null_with_a_reason(
    verdicts: Callable[[], Ratings], ads: int, reason: str
) -> None:
    found = verdicts()
    report = measure(task(), found, texts(len(found.keys)), [model(0, 0.3), model(1, 0.1)], 9)
    text = json.dumps(to_json(report), allow_nan=False)
    assert adapter(Evaluation).validate_json(text) == report
    assert report.ads == ads
    assert report.expert_kappa.value is None
    assert reason in report.expert_kappa.reason
    assert report.krippendorff_alpha.value is None and report.krippendorff_alpha.reason
    assert report.decision.stop is False
    assert report.gap_to_experts.value is None


def test_ads_of_one_expert_and_of_none_count_where_they_can() -> None:
    values = table(experts=3).values.copy()
    values[:40, 2] = -1
    values[40:60] = -1
    report = measure(
        task(), Ratings(table().keys, ("a", "b", "c"), values), texts(), [model(0, 0.1)], 0
    )
    assert report.ads == N - 20
    assert report.verdicts == int((values != -1).sum())
    called = labels_of(model(0, 0.1))
    wanted = [cohen_kappa_score(called[column != -1], column[column != -1]) for column in values.T]
    assert report.models[0].kappa.value == pytest.approx(np.mean(wanted))


def test_the_evaluation_half_alone_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def read_half(workspace: Any, half: str, version: int) -> list[Any]:
        asked.append((half, version))
        return []

    monkeypatch.setattr(evaluate, "read_half", read_half)
    found = parse_task(helpers.FAKE_TASK.replace("version: 1", "version: 3"), "task.yaml")
    evaluate.evaluate(None, found, {}, [model(0, 0.1)], 0)  # type: ignore[arg-type]
    assert asked == [("evaluation", 3)]
