"""The simulated loop: who learns from what, and that a rerun is the same run."""

from __future__ import annotations

import copy
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from models.backends.fake import FakeLabeler
from models.backends.pool import LabelerPool
from models.training import trainer
from pipelines import cli
from pipelines.config import load_task
from pipelines.console.progress import Step
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import evaluate as evaluator
from pipelines.numerics import agreement
from pipelines.simulation import play
from pipelines.simulation.labelled_corpus import Corpus, Division, Fields, divide, read_labelled
from pipelines.simulation.play import SimulateOptions
from pipelines.store.workspace import Workspace
from pipelines.text import content_key
from pipelines.verdicts.commit_imports import verdict_manifests
from tests import helpers

GOLD = helpers.gold_ads(400)
SETS = ("natural", "balanced", "evaluation")
# Boundary, random and uncertainty train twice a seed, each of the four crowds once.
TRAININGS = 2 + 2 + 2 + 4


@dataclass(frozen=True, slots=True)
class Bench:
    """A labelled corpus and a task, in one folder."""

    folder: Path

    def options(self, workspace: str = "s", **changes: Any) -> SimulateOptions:
        settings: dict[str, Any] = {
            "task": str(self.folder / "task.yaml"),
            "corpus": (str(self.folder / "ads.jsonl"),),
            "workspace": str(self.folder / workspace),
            "rounds": 2,
        }
        return SimulateOptions(**{**settings, **changes})

    def play(self, workspace: str = "s", **changes: Any) -> dict[str, Any]:
        return play.simulate(self.options(workspace, **changes), lambda line: None)

    def corpus(self) -> Corpus:
        task = load_task(self.folder / "task.yaml")
        return read_labelled((str(self.folder / "ads.jsonl"),), Fields(), task.labels)


@dataclass(frozen=True, slots=True)
class Played:
    """An unbroken run of all conditions, two seeds of two rounds, and what was seen of it.

    Attributes:
        bench: corpus and task.
        outcome: what it returned.
        trained: the ads of each training, in order.
        asked: the texts that LLM-0 was asked about.
        recorded: condition, training keys and evaluation ads of each row.
        measured: labels, verdicts and kappa of each measurement.
        opened: evaluation files opened while the evaluator ran, and while it did not.
        said: lines for a person.
    """

    bench: Bench
    outcome: dict[str, Any]
    trained: list[trainer.LabelledAds]
    asked: list[str]
    recorded: list[tuple[str, set[str], np.ndarray]]
    measured: list[tuple[np.ndarray, np.ndarray, float | None]]
    opened: tuple[list[str], list[str]]
    said: list[str]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    encoder = helpers.tiny_encoder(folder / "tiny-bert")
    text = helpers.head_task(encoder).replace("budget: 30", "budget: 20")
    helpers.write_task(folder, text)
    helpers.write_jsonl(folder / "ads.jsonl", GOLD.labelled())
    return Bench(folder)


@pytest.fixture(scope="module")
def played(bench: Bench) -> Played:
    trained: list[trainer.LabelledAds] = []
    asked: list[str] = []
    recorded: list[tuple[str, set[str], np.ndarray]] = []
    measured: list[tuple[np.ndarray, np.ndarray, float | None]] = []
    inside: list[str] = []
    said: list[str] = []
    train, label = trainer.train, FakeLabeler.label
    model_agreement, evaluate = agreement.model_agreement, evaluator.evaluate
    record = play._Seed._record

    def training(ads: trainer.LabelledAds, *args: Any, **kwargs: Any) -> Any:
        trained.append(ads)
        return train(ads, *args, **kwargs)

    def labelling(self: FakeLabeler, texts: Sequence[str]) -> Any:
        asked.extend(texts)
        return label(self, texts)

    def recording(
        self: Any, condition: str, learner: str, number: int, ads: Any, model: Any, rows: np.ndarray
    ) -> None:
        recorded.append((condition, set(ads.keys), rows))
        record(self, condition, learner, number, ads, model, rows)

    def measuring(labels: np.ndarray, table: np.ndarray, **kwargs: Any) -> Any:
        found = model_agreement(labels, table, **kwargs)
        if kwargs.get("n_boot") == agreement.MIN_BOOT:
            measured.append((labels, table, found.value))
        return found

    def evaluating(*args: Any, **kwargs: Any) -> Any:
        before = len(reads)
        found = evaluate(*args, **kwargs)
        inside.extend(helpers.of_evaluation(reads[before:]))
        del reads[before:]
        return found

    with pytest.MonkeyPatch.context() as patch, helpers.watched_reads() as reads:
        patch.setattr(trainer, "train", training)
        patch.setattr(FakeLabeler, "label", labelling)
        patch.setattr(agreement, "model_agreement", measuring)
        patch.setattr(play._Seed, "_record", recording)
        patch.setattr(evaluator, "evaluate", evaluating)
        outcome = play.simulate(bench.options(seeds=2), said.append)
        outside = helpers.of_evaluation(reads)
    return Played(bench, outcome, trained, asked, recorded, measured, (inside, outside), said)


def keys_of(corpus: Corpus, rows: np.ndarray) -> set[str]:
    return {corpus.keys[row] for row in rows}


def evaluation_keys(folder: Path) -> set[str]:
    manifests = verdict_manifests(Workspace(str(folder / "boundary"))).values()
    return {key for manifest in manifests for key in manifest.facts.keys.evaluation}


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
        # Ours is what the rounds kept back; the crowd labels all else, and is measured on it.
        ours = evaluation_keys(played.bench.folder / "s" / f"seed-{seed:02d}")
        for condition, keys, rows in played.recorded[own]:
            if condition.startswith("crowd"):
                assert keys == keys_of(corpus, division.pool) - ours
            if condition not in ("random", "uncertainty"):
                assert keys_of(corpus, rows) == ours


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
    bench.play("leak", conditions=("random",))
    with pytest.raises(AssertionError):
        check_held_out(corpus, honest, trained)


def test_every_condition_has_as_many_labels_as_ours(played: Played) -> None:
    rows = played.outcome["rows"]
    for seed in (1, 2):
        own = [row for row in rows if row["seed"] == seed]
        by_name = {(row["condition"], row["round"]): row for row in own}
        budgets = [by_name["boundary", number]["labels"] for number in (1, 2)]
        assert 10 < budgets[0] < budgets[1]
        for condition in ("random", "uncertainty"):
            assert [by_name[condition, number]["labels"] for number in (1, 2)] == budgets
        crowds = [row for row in own if row["condition"].startswith("crowd")]
        assert [row["condition"] for row in crowds] == [
            "crowd 0.59 text", "crowd 0.59 uniform", "crowd 0.41 text", "crowd 0.41 uniform",
        ]  # fmt: skip
        sizes = [len(ads.keys) for ads in played.trained[(seed - 1) * TRAININGS :]][:TRAININGS]
        assert sizes == [row["labels"] for row in own]


def test_uncertainty_asks_about_the_ads_nearest_to_the_threshold(played: Played) -> None:
    # First by LLM-0, at the threshold of the prior.
    corpus = played.bench.corpus()
    pool = divide(corpus, None, 0.2, 1).pool
    margins = FakeLabeler().label([corpus.texts[row] for row in pool]).margin
    threshold = np.quantile(margins, 1 - 0.35)
    distance = {corpus.keys[row]: abs(m - threshold) for row, m in zip(pool, margins, strict=True)}
    chosen = [distance[key] for key in played.trained[4].keys]
    assert np.median(chosen) < np.quantile(list(distance.values()), 0.2)
    random = [distance[key] for key in played.trained[2].keys]
    assert np.median(random) > np.quantile(list(distance.values()), 0.2)
    # The second round keeps the first one's ads.
    assert set(played.trained[4].keys) < set(played.trained[5].keys)
    assert set(played.trained[2].keys) < set(played.trained[3].keys)


def test_llm0_is_asked_once_about_each_text(played: Played) -> None:
    assert len(played.asked) == len(set(played.asked)) > 0


def test_only_the_evaluator_opens_the_evaluation_half(played: Played) -> None:
    inside, outside = played.opened
    assert len(inside) >= 4, "two rounds of two seeds"
    assert outside == []


# --- Figures ------------------------------------------------------------------------------------


def test_kappas_are_those_with_the_experts(played: Played) -> None:
    corpus, rows = played.bench.corpus(), played.outcome["rows"]
    assert len(played.measured) == len(SETS) * len(rows)
    taken = iter(played.measured)
    for row, (condition, _, evaluation) in zip(rows, played.recorded, strict=True):
        assert row["condition"] == condition
        division = divide(corpus, None, 0.2, row["seed"])
        sizes = (len(division.natural), len(division.balanced), len(evaluation))
        for name, size in zip(SETS, sizes, strict=True):
            labels, table, value = next(taken)
            assert labels.shape == (size,) and table.shape == (size, 2)
            wanted = np.mean([cohen_kappa_score(labels, column) for column in table.T])
            assert row[name] == value == pytest.approx(wanted)
            assert row[f"{name}_experts"] == pytest.approx(cohen_kappa_score(*table.T))
    natural = [row["natural"] for row in rows if row["condition"] == "boundary"]
    assert min(natural) > 0.6, "separable ads are learnt"
    # Ads that the experts disagree on are measured on too, whoever chose them.
    assert all(row["evaluation_experts"] < 1 for row in rows)


def test_the_summary_is_mean_and_spread_over_seeds(played: Played) -> None:
    rows, summary = played.outcome["rows"], played.outcome["summary"]
    assert [(e["condition"], e["round"]) for e in summary] == [
        (row["condition"], row["round"]) for row in rows if row["seed"] == 1
    ]
    for entry in summary:
        own = [
            row
            for row in rows
            if (row["condition"], row["round"]) == (entry["condition"], entry["round"])
        ]
        assert entry["seeds"] == len(own) == 2
        for name in ("labels", *SETS, "natural_experts"):
            values = [row[name] for row in own]
            assert entry[name] == pytest.approx(statistics.fmean(values))
            assert entry[f"{name}_sd"] == pytest.approx(statistics.stdev(values))
            assert entry[f"{name}_undefined"] == 0


def test_what_is_undefined_is_counted_not_averaged() -> None:
    row = {"learner": "head", "condition": "random", "round": 1, "labels": 9, "positive_share": 0.5}
    row |= {"threshold": 0.25}
    row |= {f"{name}{end}": 0.5 for name in SETS for end in ("", "_experts")}
    [entry] = play.summarize([{**row, "natural": None}, {**row, "natural": 0.7}, row])
    assert (entry["natural"], entry["natural_undefined"]) == (pytest.approx(0.6), 1)
    [entry] = play.summarize([{**row, "natural": None}])
    assert (entry["natural"], entry["natural_sd"], entry["natural_undefined"]) == (None, None, 1)


def test_rounds_without_a_model_are_named(bench: Bench) -> None:
    found = bench.play("scarce", labels=(2, 60), conditions=("random",))
    first, second = found["summary"]
    assert (first["untrained"], second["untrained"]) == (1, 0)
    assert (
        "too few labels of a class to train on, counted as a model that calls every ad negative, in "
        "seeds of: random, round 1 (head): 1 of 1"
    ) in play.describe(found).splitlines()


def test_ads_that_cannot_be_learnt_from_end_a_run_with_the_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*args: Any, **kwargs: Any) -> Any:
        raise trainer.TrainingDataError("nothing of ad k is left to read")

    monkeypatch.setattr(trainer, "train", refusing)
    with pytest.raises(RunFailed, match="seed 1: nothing of ad k is left to read"):
        bench.play("unread", conditions=("random",))


def test_the_table_for_a_person(played: Played) -> None:
    text = play.describe(played.outcome)
    assert text.startswith(
        "Task tiny: Cohen's kappa with the experts, mean over 2 seeds and standa"
    )
    lines = text.splitlines()
    for entry in played.outcome["summary"]:
        cells = " ".join(f"{entry[n]:.2f} ±{entry[f'{n}_sd']:.2f}" for n in SETS).split()
        [line] = [
            line
            for line in lines
            if line.startswith(f"head     {entry['condition']} ") and line.split()[-6:] == cells
            and f" {entry['labels']:.0f} " in line
        ]  # fmt: skip
        assert f"{entry['positive_share']:.0%}" in line
    assert any(line.strip().startswith("experts among themselves") for line in lines)
    for stop in played.outcome["stops"]:
        assert f"seed {stop['seed']}: the rule {stop['reason']}" in text
    assert [stop["seed"] for stop in played.outcome["stops"]] == [1, 2]
    assert {stop["stopped_after"] for stop in played.outcome["stops"]} <= {1, 2}


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
    monkeypatch.setattr(play, "mine", nothing)
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
    # In our second round; then among what competes, which is played again; then not at all.
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
    assert found["stops"] == played.outcome["stops"][:1]
    assert calls == TRAININGS - 2, "our two models are there already"
    pairs = [
        [
            path.read_bytes()
            for path in sorted((played.bench.folder / name).glob("seed-01/**/items.jsonl"))
        ]
        for name in ("s", "killed")
    ]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 2


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
    assert "mean over 1 seed\n" in play.describe(found)


# --- Experts and crowds -------------------------------------------------------------------------


@pytest.fixture
def player(bench: Bench, tmp_path: Path) -> Callable[..., Any]:
    """Make players on corpora of one's own, as ``simulate`` does."""
    task, pool = load_task(bench.folder / "task.yaml"), LabelerPool()

    def make(corpus: Corpus, **changes: Any) -> Any:
        options = bench.options(**changes)
        forecast = play._Forecast(Step("playing", 1), {"random": 1}, 1)
        return play._Player(options, task, corpus, tmp_path, lambda line: None, forecast, pool)

    return make


def big_corpus(share: float) -> Corpus:
    gold = helpers.gold_ads(3000, seed=5, share=share)
    order = sorted(gold.ads, key=lambda ad: content_key(ad["text"]))
    texts = tuple(ad["text"] for ad in order)
    return Corpus(
        tuple(map(content_key, texts)),
        tuple(ad["id"] for ad in order),
        texts,
        np.array([gold.positive[ad["id"]] for ad in order]),
        None,
    )


@pytest.mark.parametrize("kappa", [0.6, 0.8])
def test_simulated_experts_reach_their_kappa(kappa: float, player: Callable[..., Any]) -> None:
    corpus = big_corpus(0.1)
    division = divide(corpus, None, 0.2, 1)
    found = player(corpus, expert_kappa=kappa)._verdicts(1, division)
    assert found.shape == (3000, 2) and set(np.unique(found)) == {0, 1}
    share = corpus.gold.mean()
    weights = np.where(corpus.gold, 0.5 / share, 0.5 / (1 - share))
    reached = cohen_kappa_score(found[:, 0], found[:, 1], sample_weight=weights)
    assert reached == pytest.approx(kappa, abs=0.05)
    assert cohen_kappa_score(*found.T) < reached, "rare positives lower it"
    again = player(corpus, expert_kappa=kappa)._verdicts(1, division)
    np.testing.assert_array_equal(again, found)
    other = player(corpus, expert_kappa=kappa)._verdicts(2, division)
    assert (other != found).any()


def test_an_expert_kappa_of_one_never_errs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[trainer.LabelledAds] = []
    train = trainer.train

    def training(ads: trainer.LabelledAds, *args: Any, **kwargs: Any) -> Any:
        trained.append(ads)
        return train(ads, *args, **kwargs)

    monkeypatch.setattr(trainer, "train", training)
    options = {"conditions": ("random", "crowd"), "labels": (30,), "rounds": 1}
    found = bench.play("sure", **options, expert_kappa=1.0, crowd_kappa=(0.59,))
    truth = {content_key(ad["text"]): int(GOLD.positive[ad["id"]]) for ad in GOLD.ads}
    ads = trained[0]
    assert {key: int(y) for key, y in zip(ads.keys, ads.labels, strict=True)} == {
        key: truth[key] for key in ads.keys
    }
    assert len(ads.keys) == 30
    row, *crowd = found["rows"]
    assert row["natural_experts"] == row["balanced_experts"] == row["evaluation_experts"] == 1.0
    # Without our own condition there is no evaluation half for the crowd.
    assert [entry["condition"] for entry in crowd] == ["crowd 0.59 text", "crowd 0.59 uniform"]
    assert all(entry["evaluation"] is entry["evaluation_experts"] is None for entry in crowd)
    assert found["stops"] == []
    assert "undefined" in play.describe(found)


def test_swapped_gold_labels_would_be_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def kappa(workspace: str) -> float:
        play = {"conditions": ("random",), "expert_kappa": 1.0, "labels": (60,), "rounds": 1}
        value = bench.play(workspace, **play)["rows"][0]["natural"]
        assert isinstance(value, float)
        return value

    assert kappa("straight") > 0.6
    real = play._Seed._ads

    def swapped(self: Any, rows: Sequence[int], labels: np.ndarray) -> trainer.LabelledAds:
        return real(self, rows, (1 - labels).astype(np.int8))

    monkeypatch.setattr(play._Seed, "_ads", swapped)
    assert kappa("swapped") < -0.4


def test_recorded_people_are_the_experts(
    bench: Bench, tmp_path: Path, player: Callable[..., Any]
) -> None:
    people = ("ada", "ben", "cyd", "dot")
    rng = np.random.default_rng(3)
    rows = []
    for ad in GOLD.ads:
        given = rng.permutation(people)[: rng.integers(1, 5)]
        labels = {
            str(name): "negative" if GOLD.positive[ad["id"]] == (rng.random() < 0.1) else "positive"
            for name in given
        }
        rows.append({**ad, "ratings": labels})
    path = helpers.write_jsonl(tmp_path / "rated.jsonl", rows)
    task = load_task(bench.folder / "task.yaml")
    corpus = read_labelled((str(path),), Fields(ratings="ratings"), task.labels)
    assert corpus.ratings is not None
    division = divide(corpus, None, 0.2, 1)
    table = player(corpus, experts="recorded")._verdicts(1, division)
    assert table.shape == (400, 4)
    said = (corpus.ratings != -1).sum(axis=1)
    np.testing.assert_array_equal((table != -1).sum(axis=1), np.minimum(said, 2))
    assert (table[table != -1] == corpus.ratings[table != -1]).all(), "nobody's words are changed"
    assert ((table != -1).sum(axis=0) > 50).all(), "everybody has a turn"
    # And the whole way: our rounds with people who label different ads.
    found = bench.play(
        "recorded",
        corpus=(str(path),),
        experts="recorded",
        conditions=("boundary", "random"),
        rounds=1,
    )
    ours = found["rows"][0]
    pairs = [
        cohen_kappa_score(*table[division.natural][:, [a, b]][both].T)
        for a in range(4)
        for b in range(a)
        if (both := (table[division.natural][:, [a, b]] != -1).all(axis=1)).sum() >= 10
    ]
    assert ours["natural_experts"] == pytest.approx(np.mean(pairs)) if pairs else True
    assert ours["natural"] > 0.4
    manifest = verdict_manifests(Workspace(str(bench.folder / "recorded/seed-01/boundary")))[1]
    assert manifest.facts.experts == tuple(f"expert {n}" for n in (1, 2, 3, 4))


def test_rounds_without_labels_enough_have_no_model(bench: Bench) -> None:
    options = {"labels": (2, 60), "conditions": ("boundary", "uncertainty"), "expert_kappa": 1.0}
    found = bench.play("few", **options)
    by_name = {(row["condition"], row["round"]): row for row in found["rows"]}
    for condition in ("boundary", "uncertainty"):
        first, second = by_name[condition, 1], by_name[condition, 2]
        assert first["labels"] < 4 and first["threshold"] is None
        # Calling everything negative agrees with nobody beyond chance.
        assert first["natural"] == first["balanced"] == 0.0
        assert second["threshold"] is not None and second["natural"] > 0.6
    place = Workspace(str(bench.folder / "few" / "seed-01" / "boundary"))
    assert place.latest(1, "model") is None and place.latest(2, "model") is not None
    pairs = place.latest(2, "pairs")
    assert pairs is not None and pairs.facts.origin.model_round == 0, "LLM-0 again"
    assert figures(bench.play("few", **options)) == figures(found)


def test_a_simulation_that_never_trained_fails(bench: Bench) -> None:
    play = {"labels": (3,), "rounds": 1, "conditions": ("random",)}
    with pytest.raises(RunFailed, match=r"simulation\.json: no condition ever had labels enough"):
        bench.play("nothing", **play)


def test_another_learner_on_the_same_labels(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[tuple[str, tuple[str, ...]]] = []

    def learn(self: Any, learner: str, ads: trainer.LabelledAds) -> Any:
        taught.append((learner, ads.keys))
        return play._Model(lambda texts: np.ones(len(texts)), 0.5)

    monkeypatch.setattr(play._Seed, "_learn", learn)
    options = {"conditions": ("random",), "labels": (20, 40), "expert_kappa": 1.0}
    found = bench.play("also", **options, also=("head", "encoder"), also_from=30)
    assert [(row["learner"], row["labels"]) for row in found["rows"]] == [
        ("head", 20), ("head", 40), ("encoder", 40),
    ]  # fmt: skip
    assert [learner for learner, _ in taught] == ["head", "head", "encoder"]
    assert taught[1][1] == taught[2][1], "the same ads"


# --- Progress -----------------------------------------------------------------------------------


def test_all_rounds_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model = play._Model(lambda texts: np.ones(len(texts)), 0.5)
    monkeypatch.setattr(play._Seed, "_learn", lambda self, learner, ads: model)
    count, skip = play._Forecast.done, play._Forecast.skip_seed
    seen: list[Step] = []

    def counting(self: Any, condition: str, share: float) -> None:
        count(self, condition, share)
        seen.append(copy.copy(self._advance))

    def skipping(self: Any) -> None:
        skip(self)
        seen.append(copy.copy(self._advance))

    monkeypatch.setattr(play._Forecast, "done", counting)
    monkeypatch.setattr(play._Forecast, "skip_seed", skipping)
    options = {
        "conditions": ("random", "crowd"), "labels": (20, 40), "expert_kappa": 1.0,
        "also": ("head", "encoder"), "also_from": 30, "crowd_kappa": (0.6,),
    }  # fmt: skip
    bench.play("counted", **options)
    # Two rounds and two crowds, each of which is learnt, measured, and measured for the encoder.
    assert len(seen) == 4 * 3
    assert [step.done for step in seen] == pytest.approx([n / 3 for n in range(1, 13)])
    assert {step.total for step in seen} == {4}
    assert [step.words for step in seen[::3]] == [
        "simulating seed 1, random",
        "simulating seed 1, random",
        "simulating seed 1, crowd 0.6 text",
        "simulating seed 1, crowd 0.6 uniform",
    ]
    assert seen[0].ends is None and all(step.ends is not None for step in seen[1:])
    seen.clear()
    bench.play("counted", **options, seeds=2)
    assert (seen[0].done, seen[0].given, seen[0].total) == (4, 4, 8)
    assert seen[-1].done == pytest.approx(8)


def test_the_end_is_foreseen_by_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(play, "time", SimpleNamespace(monotonic=lambda: now))
    advance = Step("simulating", 12)
    forecast = play._Forecast(advance, {"boundary": 2, "random": 2, "uncertainty": 2}, seeds=2)

    def played(condition: str, seconds: float) -> float | None:
        nonlocal now
        now += seconds
        forecast.done(condition, 1.0)
        ends = advance.ends
        return None if ends is None else ends - now

    assert played("boundary", 300.0) is None, "LLM-0 scored the corpus, which says nothing"
    assert played("boundary", 50.0) == pytest.approx(10 * 50.0), "all that is known"
    assert played("random", 2.0) == pytest.approx(2 * 50.0 + 3 * 2.0 + 4 * 2.0)
    played("random", 2.0)
    played("uncertainty", 6.0)
    assert played("uncertainty", 6.0) == pytest.approx(2 * (50.0 + 2.0 + 6.0))
    for name, seconds in (("boundary", 50.0), ("random", 2.0), ("uncertainty", 6.0)):
        played(name, seconds)
        left = played(name, seconds)
    assert left == pytest.approx(0.0)


# --- Refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([{"text": "x", "label": "maybe"}], (), "line 1: not a labelled ad: label 'maybe'; use"),
        ([{"text": "x", "label": "positive"}], (), "1 ads, 1 of them positive; a simulation needs"),
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
    assert shown.out == play.describe(played.outcome) + "\n"
    assert "scout: seed 2: simulated already" in shown.err
    assert cli.main([*argv, "--json"]) == cli.OK
    assert json.loads(capsys.readouterr().out)["rows"] == played.outcome["rows"]
    shutil.rmtree(folder / "s")
