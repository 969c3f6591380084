"""Which strategy is advised, on what, and when none is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines import api, cli
from pipelines.config import load_task
from pipelines.errors import UsageError
from pipelines.jobs.ingest import ingest_verdicts
from pipelines.jobs.mine import MineOptions, mine
from pipelines.simulation import advice
from pipelines.simulation.experts import answer
from pipelines.simulation.rehearsal import Reached
from pipelines.store.workspace import Workspace
from pipelines.strategies import registry
from tests import helpers
from tests.simulation.bench import Bench


def curves(**kappas: list[float]) -> dict[str, list[list[Reached]]]:
    """Return a curve of one round a seed."""
    return {name: [[Reached(50, 50, 10, kappa)] for kappa in own] for name, own in kappas.items()}


def test_who_is_surely_ahead_is_taken() -> None:
    found = curves(
        boundary=[0.40, 0.42, 0.44, 0.41, 0.43],
        badge=[0.60, 0.63, 0.64, 0.60, 0.64],
        random=[0.80, 0.10, 0.99, 0.05, 0.95],
        noise=[0.20, 0.22, 0.23, 0.21, 0.23],
    )
    played = advice.compare(found, "boundary")
    assert [one.name for one in played] == ["badge", "random", "boundary", "noise"]
    told = {one.name: one.told_apart for one in played}
    assert told == {"badge": True, "random": False, "boundary": False, "noise": True}
    assert played[0].ahead == pytest.approx(0.202)
    assert played[0].low is not None and 0 < played[0].low < 0.202
    assert advice.taken(played, "boundary").name == "badge"


def test_where_nothing_is_told_apart_ones_own_is_kept() -> None:
    found = curves(boundary=[0.4, 0.5, 0.6, 0.5, 0.4], random=[0.8, 0.1, 0.9, 0.05, 0.9])
    played = advice.compare(found, "boundary")
    assert played[0].name == "random"
    assert advice.taken(played, "boundary").name == "boundary"


def test_more_comparisons_make_wider_intervals() -> None:
    one = curves(boundary=[0.4, 0.5, 0.6, 0.5, 0.4], badge=[0.5, 0.5, 0.7, 0.6, 0.6])
    many = {**one, **{f"other {n}": one["boundary"] for n in range(10)}}
    [few], [wide] = (
        [played for played in advice.compare(found, "boundary") if played.name == "badge"]
        for found in (one, many)
    )
    assert few.ahead == wide.ahead
    assert few.low is not None and wide.low is not None and wide.low < few.low


def test_without_labels_there_is_a_table_of_every_strategy(bench: Bench) -> None:
    found = api.advise(bench.folder / "task.yaml")
    assert [row.name for row in found.table] == list(registry.names())
    assert all(row.suits for row in found.table)
    assert (found.take, found.told_apart, found.strategies) == ("boundary", False, ())
    rows = {row.name: row for row in found.table}
    assert (rows["boundary"].shows, rows["random"].chooses_from) == ("pairs", "a draw")
    assert (rows["bald"].needs, rows["noise"].needs) == (
        "labels of each class",
        "labels, where there are any",
    )
    assert "relevance" in found.text() and "nothing can be played" in found.text()


def labelled(bench: Bench, positives: int, negatives: int, path: Path) -> Path:
    """Write so many of the bench's ads of each label."""
    ads = [json.loads(line) for line in (bench.folder / "ads.jsonl").read_text().splitlines()]
    parts = [[ad for ad in ads if ad["label"] == label] for label in ("positive", "negative")]
    helpers.write_jsonl(path, [*parts[0][:positives], *parts[1][:negatives]])
    return path


def test_too_few_labels_say_so(bench: Bench, tmp_path: Path) -> None:
    found = api.advise(
        bench.folder / "task.yaml", labels=labelled(bench, 9, 50, tmp_path / "l.jsonl")
    )
    assert found.table and found.verdict.startswith("59 labels, 9 of them positive: at least 20")


def test_it_plays_what_fits(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["advise", str(bench.folder / "task.yaml"), "--labels"]
    command += [str(bench.folder / "ads.jsonl"), "--seeds", "5", "--json", "--quiet"]
    command += ["--strategies", "uncertainty,random,boundary"]
    assert cli.main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in found["strategies"]} == {"boundary", "uncertainty", "random"}
    assert found["ads"] == 400 and found["own"] == "boundary" and not found["table"]
    assert found["budgets"] == [20, 40, 60, 80]
    for row in found["strategies"]:
        assert row["labels"] == pytest.approx(80, abs=6)
        assert (row["ahead"] is None) == (row["name"] == "boundary")
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out) == found, "the same again"


def test_what_does_not_fit_is_left_out_and_said(bench: Bench) -> None:
    task = load_task(bench.folder / "task.yaml")
    names, left_out = advice.fitting(task, ())
    assert names[0] == "boundary" and not set(names) & set(left_out)
    assert {*names, *left_out} == set(registry.names())
    assert set(left_out) == {"exploration", "relevance"}
    short = task.model_copy(update={"stopping": task.stopping.model_copy(update={"max_rounds": 1})})
    assert "one round" in advice.fitting(short, ())[1]["badge"]
    assert advice.fitting(task, ("typiclust",)) == (("boundary", "clusters"), {})


def test_a_workspace_is_played_on_its_fine_tuning_half_alone(bench: Bench, tmp_path: Path) -> None:
    task, corpus = load_task(bench.folder / "task.yaml"), bench.corpus()
    place = Workspace(str(tmp_path / "w"))
    mine(
        MineOptions(
            str(bench.folder / "task.yaml"),
            (str(bench.folder / "ads.jsonl"),),
            place.root,
            budget=180,
        ),
        lambda line: None,
    )
    rows = {key: row for row, key in enumerate(corpus.keys)}
    verdicts = np.repeat(corpus.gold[:, None].astype(np.int8), 1, axis=1)
    items = place.read_items(place.pairs_of())
    ingest_verdicts(place, answer(items, verdicts, rows, task.labels))
    with helpers.watched_reads() as reads:
        found = api.advise(
            bench.folder / "task.yaml", workspace=place.root, seeds=5, strategies=["random"]
        )
    assert not helpers.of_evaluation(reads)
    facts = place.verdicts.by_round()[1].facts
    assert found.ads == len(facts.keys.fine_tuning) and found.source.startswith("verdicts of ")
    assert any("no sample of the corpus" in line for line in found.notes)
    other = tmp_path / "other.yaml"
    other.write_text((bench.folder / "task.yaml").read_text().replace("version: 1", "version: 2"))
    with pytest.raises(UsageError, match="mined for another policy"):
        api.advise(other, workspace=place.root)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": "l", "workspace": "w"}, "give one of them"),
        ({"seeds": 4}, "at least 5"),
        ({"strategies": ["nonsense"]}, "no 'nonsense'"),
    ],
)
def test_what_cannot_be_is_refused(bench: Bench, given: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        api.advise(bench.folder / "task.yaml", **given)


def test_a_budget_beyond_a_third_of_the_ads_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="at most 80"):
        api.advise(bench.folder / "task.yaml", labels=bench.folder / "ads.jsonl", budget=81)


def test_a_budget_in_minutes_is_played_at_equal_minutes(bench: Bench, tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    text = (bench.folder / "task.yaml").read_text().replace("budget: 20", "budget: {minutes: 60}")
    task.write_text(text + "review: {minutes: {pair: 0.5, single: 1.0}}\n")
    found = api.advise(task, labels=bench.folder / "ads.jsonl", seeds=5, strategies=["uncertainty"])
    assert (found.unit, found.budgets) == ("minutes", (20, 40, 60, 80))
    bought = {played.name: played.labels for played in found.strategies}
    assert bought["uncertainty"] == 80, "a minute each"
    assert bought["boundary"] > 1.5 * 80, "two ads in half a minute, where it shows pairs"
    assert "to 80 minutes" in found.text()
