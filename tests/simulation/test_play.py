"""The simulated loop: who learns from what, and that a rerun is the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.backends.fake import FakeLabeler
from models.training import trainer
from pipelines import cli
from pipelines.console.summary import rendered
from pipelines.errors import RunFailed, UsageError
from pipelines.simulation import loop, play
from pipelines.simulation.labelled_corpus import Corpus, Division, divide
from tests import helpers
from tests.simulation.bench import (
    GOLD,
    STRATEGIES,
    TRAININGS,
    Bench,
    Played,
    evaluation_keys,
    keys_of,
)


def check_held_out(corpus: Corpus, division: Division, trained: list[trainer.LabelledAds]) -> None:
    """Check that no training saw an ad of a sample that is held out from all conditions."""
    pool = keys_of(corpus, division.pool)
    held_out = keys_of(corpus, np.union1d(division.natural, division.balanced))
    for ads in trained:
        assert set(ads.keys) <= pool
        assert not set(ads.keys) & held_out


# --- Who learns from what -----------------------------------------------------------------------


def test_no_condition_trains_on_what_it_is_measured_on(played: Played) -> None:
    corpus = played.bench.corpus()
    assert len(played.trained) == 2 * TRAININGS
    for seed in (1, 2):
        division = divide(corpus, None, 0.2, seed)
        own = slice((seed - 1) * TRAININGS, seed * TRAININGS)
        check_held_out(corpus, division, played.trained[own])
        for ads, (condition, keys, rows) in zip(
            played.trained[own], played.recorded[own], strict=True
        ):
            assert set(ads.keys) == keys
            evaluation = keys_of(corpus, rows)
            assert len(evaluation) == len(rows) >= 12, condition
            assert not evaluation & keys, condition
            assert evaluation <= keys_of(corpus, division.pool)
        # A strategy's is what its rounds kept back; the crowd labels all else than ours.
        halves = {name: evaluation_keys(played.bench.place(name, seed=seed)) for name in STRATEGIES}
        for condition, keys, rows in played.recorded[own]:
            assert keys_of(corpus, rows) == halves.get(condition, halves["boundary"])
            if condition.startswith("crowd"):
                assert keys == keys_of(corpus, division.pool) - halves["boundary"]


def test_a_leak_would_be_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, trained = bench.corpus(), []
    honest = divide(corpus, None, 0.2, 1)
    train = trainer.train

    def leaking(*args: Any) -> Division:
        pool = np.union1d(honest.pool, honest.natural)
        return Division(pool, honest.natural, honest.balanced)

    def training(ads: trainer.LabelledAds, *args: Any, **kwargs: Any) -> Any:
        trained.append(ads)
        return train(ads, *args, **kwargs)

    monkeypatch.setattr(play, "divide", leaking)
    monkeypatch.setattr(trainer, "train", training)
    bench.play("leak", conditions=("crowd",), crowd_noise=("uniform",), crowd_kappa=(0.6,))
    with pytest.raises(AssertionError):
        check_held_out(corpus, honest, trained)


def test_rows_are_what_was_trained_condition_by_condition(played: Played) -> None:
    rows = played.outcome["rows"]
    crowds = [f"crowd {kappa} {noise}" for kappa in (0.59, 0.41) for noise in ("text", "uniform")]
    names = [*(name for name in STRATEGIES for _ in (1, 2)), *crowds]
    assert [(row["seed"], row["condition"]) for row in rows] == [
        (seed, name) for seed in (1, 2) for name in names
    ]
    assert [row["labels"] for row in rows] == [len(ads.keys) for ads in played.trained]


def test_llm0_is_asked_once_about_each_text(played: Played) -> None:
    assert len(played.asked) == len(set(played.asked)) > 0


def test_only_the_evaluator_opens_the_evaluation_half(played: Played) -> None:
    inside, outside = played.opened
    assert len(inside) >= 4 * len(STRATEGIES), "two rounds of two seeds"
    assert outside == []


# --- Runs again, and kills ----------------------------------------------------------------------


def figures(outcome: dict[str, Any]) -> dict[str, Any]:
    return {name: outcome[name] for name in ("task", "ads", "summary", "stops", "rows")}


def test_a_rerun_plays_nothing_and_says_the_same(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("played again")

    folder = played.bench.folder / "s"
    before = {path for path in folder.rglob("*") if path.is_file()}
    written = json.loads((folder / "simulation.json").read_text())
    assert figures(written) == figures(json.loads(json.dumps(played.outcome)))
    monkeypatch.setattr(trainer, "train", nothing)
    monkeypatch.setattr(FakeLabeler, "label", nothing)
    monkeypatch.setattr(loop, "mine", nothing)
    said: list[str] = []
    again = play.simulate(played.bench.options(seeds=2), said.append)
    assert figures(again) == figures(written)
    assert said[1:3] == ["seed 1: simulated already", "seed 2: simulated already"]
    assert {path for path in folder.rglob("*") if path.is_file()} == before


class Killed(BaseException):
    """What nothing but the test catches."""


def test_killed_in_the_middle_it_gives_the_same_rows(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainer.train, 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == dies_at:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(trainer, "train", dying)
    # In our second round, then in that of what competes; each goes on in that round.
    for dies_at in (2, 5):
        calls = 0
        with pytest.raises(Killed):
            played.bench.play("killed")
        assert calls == dies_at
        assert not (played.bench.folder / "killed" / "simulation.json").exists()
    calls, dies_at = 0, 0
    found = played.bench.play("killed")
    first = [row for row in played.outcome["rows"] if row["seed"] == 1]
    assert found["rows"] == first
    assert found["stops"] == played.outcome["stops"][: len(STRATEGIES)]
    assert calls == TRAININGS - 5, "all models but the last strategy's second are there already"
    pairs = [
        [
            path.read_bytes()
            for path in sorted((played.bench.folder / name).glob("seed-01/**/items.jsonl"))
        ]
        for name in ("s", "killed")
    ]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 2 * len(STRATEGIES)


@pytest.mark.parametrize(
    "changes", [{"expert_kappa": 0.9}, {"rounds": 3}, {"holdout": 0.3}, {"learner": "encoder"}]
)
def test_other_options_need_another_workspace(changes: dict[str, Any], played: Played) -> None:
    with pytest.raises(UsageError, match="seed-01: holds a simulation with other options, task or"):
        played.bench.play(**changes)


def test_another_corpus_needs_another_workspace(played: Played, tmp_path: Path) -> None:
    rows = GOLD.labelled()
    rows[0]["label"] = "negative"
    corpus = helpers.write_jsonl(tmp_path / "other.jsonl", rows)
    with pytest.raises(UsageError, match="other options, task or corpus; give another --workspace"):
        played.bench.play(corpus=(str(corpus),))


def test_more_seeds_go_on_where_fewer_ended(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("played again")

    monkeypatch.setattr(trainer, "train", nothing)
    found = played.bench.play(seeds=1, first_seed=2)
    assert found["rows"] == [row for row in played.outcome["rows"] if row["seed"] == 2]
    assert all(entry["natural_sd"] is None for entry in found["summary"])
    assert "mean over 1 seed\n" in rendered("simulated", found)


# --- Refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([{"text": "x", "label": "maybe"}], (), "line 1: not a labelled ad: label 'maybe'; use"),
        ([{"text": "x", "label": "positive"}], (), "1 ads, 1 of them positive; both labels are needed"),
        (GOLD.labelled(), ("--prevalence", "0.5"), "--prevalence 0.5: the corpus has only 0.300 "),
        (GOLD.labelled(), ("--holdout", "0.05"), "--holdout 0.05: leaves 6 positives to test on"),
        (GOLD.labelled(), ("--learner", "llm"), "the fake model cannot learn"),
        (GOLD.labelled(), ("--experts", "recorded"), "line 1: not a labelled ad: no field 'ratings'"),
        (
            GOLD.labelled()[:120],
            ("--conditions", "crowd", "--holdout", "0.7", "--crowd_kappa", "0.94"),
            "--crowd_kappa 0.94: kappa 0.94 cannot be reached within 0.05",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_is_exit_2(
    rows: list[Any],
    flags: tuple[str, ...],
    message: str,
    bench: Bench,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", rows)
    argv = ["simulate", str(bench.folder / "task.yaml"), "--corpus", str(corpus), "--quiet"]
    assert cli.main([*argv, "--workspace", str(tmp_path / "s"), *flags]) == cli.WRONG_USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0], lines


def test_the_command(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    folder = played.bench.folder
    argv = ["simulate", str(folder / "task.yaml"), "--corpus", str(folder / "ads.jsonl")]
    argv += ["--workspace", str(folder / "s"), "--rounds", "2", "--seeds", "2"]
    assert cli.main(argv) == cli.OK
    shown = capsys.readouterr()
    assert shown.out == rendered("simulated", played.outcome) + "\n"
    assert "scout: seed 2: simulated already" in shown.err
    assert cli.main([*argv, "--json"]) == cli.OK
    assert json.loads(capsys.readouterr().out)["rows"] == played.outcome["rows"]


def test_a_strategy_that_nobody_knows_is_refused_at_once(bench: Bench) -> None:
    with pytest.raises(UsageError, match="no strategy 'boundry'; did you mean 'boundary'"):
        bench.play("unknown", conditions=("boundry",))
    assert not (bench.folder / "unknown").exists()


def test_without_ours_the_crowd_has_no_evaluation_half(bench: Bench) -> None:
    options = {"conditions": ("random", "crowd"), "labels": (30,), "rounds": 1}
    found = bench.play("sure", **options, expert_kappa=1.0, crowd_kappa=(0.59,), crowd_labels=50)
    row, *crowd = found["rows"]
    assert row["natural_experts"] == row["balanced_experts"] == row["evaluation_experts"] == 1.0
    assert [entry["condition"] for entry in crowd] == ["crowd 0.59 text", "crowd 0.59 uniform"]
    assert all(entry["evaluation"] is entry["evaluation_experts"] is None for entry in crowd)
    assert all(entry["labels"] == 50 for entry in crowd)
    assert [stop["condition"] for stop in found["stops"]] == ["random"]
    assert "undefined" in rendered("simulated", found)


def test_a_simulation_that_never_trained_fails(bench: Bench) -> None:
    play = {"conditions": ("crowd",), "crowd_labels": 2, "crowd_kappa": (0.6,)}
    with pytest.raises(RunFailed, match=r"simulation\.json: no condition ever had labels enough"):
        bench.play("nothing", **play)
