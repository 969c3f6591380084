"""Any strategy plays the product's own rounds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from models.backends.fake import FakeLabeler
from pipelines import cli
from pipelines.config import Selection, load_task
from pipelines.console.summary import rendered
from pipelines.simulation.labelled_corpus import divide
from pipelines.strategies import registry
from pipelines.strategies.base import Context, Pick, Rows, RowStrategy
from tests.simulation.bench import STRATEGIES, Bench, Played, evaluation_keys


class Loudest(RowStrategy):
    """Certainty sampling: the ads that the model is surest are positive, two beside each other."""

    name = "loudest"

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        return rows.margins

    def pool_rows(self, selection: Selection) -> int:
        return 2 * selection.budget

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        taken = range(0, min(2 * budget, len(pool) - 1), 2)
        return [Pick((row, row + 1)) for row in taken]


def test_a_strategy_of_ones_own_is_played_beside_ours(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["simulate", str(bench.folder / "task.yaml"), "--quiet", "--json", "--labels", "40,80"]
    argv += ["--corpus", str(bench.folder / "ads.jsonl"), "--workspace", str(bench.folder / "own")]
    with registry.registered(Loudest):
        done = cli.main([*argv, "--conditions", "loudest,boundary", "--expert_kappa", "1"])
    shown = capsys.readouterr()
    assert done == cli.OK, shown.err
    found = json.loads(shown.out)
    assert [(row["condition"], row["round"]) for row in found["rows"]] == [
        ("boundary", 1), ("boundary", 2), ("loudest", 1), ("loudest", 2),
    ]  # fmt: skip
    assert [stop["condition"] for stop in found["stops"]] == ["boundary", "loudest"]
    assert "seed 1, loudest: the rule" in rendered("simulated", found)
    place = bench.place("loudest", "own")
    first, second = (place.pairs_of(number) for number in (1, 2))
    # An item was thought to be one ad; it was two, and the second round asks for half as many.
    assert first.rows == 80 and first.facts.ads == 160
    labels = found["rows"][2]["labels"]
    assert second.rows == max(1, round((80 - labels) / (2 * 0.5)))
    assert first.facts.sources == {"loudest": 80}, "no exploration"
    # It was taught by its own half, and measured on the other.
    assert found["rows"][3]["threshold"] is not None
    assert evaluation_keys(place) and evaluation_keys(place) != evaluation_keys(
        bench.place("boundary", "own")
    )


def test_every_strategy_asks_for_as_many_labels_as_ours_had(played: Played) -> None:
    for seed in (1, 2):
        own = [row for row in played.outcome["rows"] if row["seed"] == seed]
        labels = {
            name: [row["labels"] for row in own if row["condition"] == name] for name in STRATEGIES
        }
        ours = labels["boundary"]
        assert 10 < ours[0] < ours[1]
        for name in ("random", "uncertainty"):
            place = played.bench.place(name, seed=seed)
            asked = [place.pairs_of(number).rows for number in (1, 2)]
            # Half of the ads that are asked about train.
            assert asked == [2 * ours[0], max(1, 2 * (ours[1] - labels[name][0]))]
            assert labels[name] == pytest.approx(ours, abs=15)


def test_our_budget_is_the_tasks_without_labels_to_reach(played: Played) -> None:
    place = played.bench.place("boundary")
    assert [place.pairs_of(number).rows for number in (1, 2)] == [20, 20]


def test_the_task_of_each_strategy_is_a_file(played: Played) -> None:
    folder = played.bench.folder / "s" / "seed-01"
    for name in STRATEGIES:
        task = load_task(folder / f"{name}.yaml")
        assert task.selection.strategy == name and task.seed == 1
        # Pure baselines; ours keeps its tenth.
        assert task.selection.exploration_share == (0.1 if name == "boundary" else 0.0)
        sources = [played.bench.place(name).pairs_of(number).facts.sources for number in (1, 2)]
        assert all(set(found) == {name} for found in sources) or name == "boundary"
    held = yaml.safe_load((folder / "boundary.yaml").read_text())
    assert held["training"]["min_per_class"] == 2


def test_uncertainty_asks_about_the_ads_nearest_to_the_threshold(played: Played) -> None:
    # First by LLM-0, at the threshold of the prior.
    corpus = played.bench.corpus()
    pool = divide(corpus, None, 0.2, 1).pool
    margins = FakeLabeler().label([corpus.texts[row] for row in pool]).margin
    threshold = np.quantile(margins, 1 - 0.35)
    distance = {corpus.keys[row]: abs(m - threshold) for row, m in zip(pool, margins, strict=True)}
    near = np.quantile(list(distance.values()), 0.2)
    chosen = [distance[key] for key in played.trained[4].keys]
    assert np.median(chosen) < near
    random = [distance[key] for key in played.trained[2].keys]
    assert np.median(random) > near
    # The second round keeps the first one's ads.
    assert set(played.trained[4].keys) < set(played.trained[5].keys)
    assert set(played.trained[2].keys) < set(played.trained[3].keys)


def test_rounds_without_labels_enough_have_no_model(bench: Bench) -> None:
    options = {"labels": (2, 60), "conditions": ("boundary",), "expert_kappa": 1.0}
    found = bench.play("few", **options)
    first, second = found["rows"]
    assert first["labels"] < 4 and first["threshold"] is None
    # Calling everything negative agrees with nobody beyond chance.
    assert first["natural"] == first["balanced"] == 0.0
    assert second["threshold"] is not None and second["natural"] > 0.6
    place = bench.place("boundary", "few")
    assert place.model.latest(1) is None and place.model.latest(2) is not None
    assert place.pairs_of(2).facts.origin.model_round == 0, "LLM-0 again"
    # What is not finished goes on, and round 1 has no labels of round 2.
    results = bench.folder / "few" / "seed-01" / "results.json"
    results.write_text(json.dumps(json.loads(results.read_text()) | {"finished": False}))
    assert bench.play("few", **options)["rows"] == found["rows"]


def test_once_every_ad_was_shown_the_rounds_stay_as_they_are(bench: Bench) -> None:
    found = bench.play("all", labels=(200, 300), conditions=("random",), expert_kappa=1.0)
    first, second = found["rows"]
    place = bench.place("random", "all")
    assert place.pairs_of().round == 1
    assert place.pairs_of().rows == len(divide(bench.corpus(), None, 0.2, 1).pool)
    assert second == first | {"round": 2} and first["threshold"] is not None
    [stop] = found["stops"]
    assert list(stop["kappas"]) == ["1"]


def test_a_stop_is_the_rules_first_and_the_best_round_by_its_interval(played: Played) -> None:
    stops = played.outcome["stops"]
    assert [(stop["seed"], stop["condition"]) for stop in stops] == [
        (seed, name) for seed in (1, 2) for name in STRATEGIES
    ]
    for stop in stops:
        place = played.bench.place(stop["condition"], seed=stop["seed"])
        models = {number: model.facts for number, model in place.model.by_round().items()}
        first = [n for n, facts in sorted(models.items()) if facts.evaluation.decision.stop]
        assert stop["stopped_after"] == (first[0] if first else 2)
        if first:
            assert stop["reason"] == models[first[0]].evaluation.decision.reason
        last = {m.round: m.kappa for m in models[2].evaluation.models if m.round}
        assert stop["kappas"] == {str(n): kappa.value for n, kappa in last.items()}
        one, two = last[1], last[2]
        assert one.high is not None and two.value is not None
        assert stop["no_later_better_after"] == (1 if two.value <= one.high else 2)
