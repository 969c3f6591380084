"""The round trip through the command: mine, verdicts, import, train, the next round, status."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from models import export, policy, presets, trained, trainer
from models.fakes import FakeLabeler
from pipelines import cli, contracts
from pipelines.config import parse_task
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import evaluation, ingest, rounds
from pipelines.jobs.rounds import TooFewLabels, TrainOptions
from pipelines.store import model_store, storage
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import content_key
from pipelines.verdicts import commit_imports
from pipelines.verdicts.halves import Ratings, read_half
from pipelines.verdicts.shown import shown_ads
from tests import helpers

GOLD = helpers.gold_ads(300)
KEY_OF = {ad["id"]: content_key(ad["text"]) for ad in GOLD.ads}
ID_OF = {key: id for id, key in KEY_OF.items()}
TEXT_OF = {content_key(ad["text"]): ad["text"] for ad in GOLD.ads}
EXPERTS = ("anna", "bo")


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Collect the paths of all files that are opened for reading."""
    with helpers.watched_reads() as paths:
        yield paths


# --- Playing by hand --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loop:
    """A workspace with its corpus and task, as a person has them in one folder."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "w"

    @property
    def place(self) -> Workspace:
        return Workspace(str(self.root))

    def command(self, name: str, *rest: object) -> int:
        quiet = [] if name == "status" else ["--quiet"]
        return cli.main([name, *map(str, rest), "--workspace", str(self.root), *quiet])

    def mine(self) -> int:
        corpus = self.folder / "ads.jsonl"
        return self.command("mine", self.folder / "task.yaml", "--corpus", corpus, "--show", 0)

    def train(self, task: str = "", export: str = "") -> tuple[dict[str, Any], list[str]]:
        """Train; -> the summary, and what was said."""
        said: list[str] = []
        summary = rounds.train(TrainOptions(str(self.root), task, export), said.append).summary
        return summary, said

    def status(self) -> dict[str, Any]:
        return rounds.standing(self.place)

    def manifest(self, number: int, stage: str) -> Manifest:
        found = self.place.latest(number, stage)
        assert found is not None, f"round {number} has no {stage}"
        return found

    def shown(self, number: int) -> list[str]:
        """Return the ids of the ads of a round's pairs, in review order."""
        items = self.place.read_items(self.manifest(number, "pairs"))
        return [ad.id for item in items for ad in helpers.by_label(item).values()]

    def sides(self) -> dict[str, str]:
        """Return ad id -> half, as the imports recorded it."""
        return {
            ID_OF[row["key"]]: row["side"]
            for path in self.root.rglob("sides.jsonl")
            for row in map(json.loads, path.read_text().splitlines())
        }


def said_by(expert: str, id: str) -> str:
    """Return an expert's verdict: the truth, but for 8% of the ads, each expert's own."""
    wrong = random.Random(f"{expert} {id}").random() < 0.08
    return "positive" if GOLD.positive[id] != wrong else "negative"


def write_verdicts(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as sink:
        csv.writer(sink).writerows([("ad_id", "label", "expert"), *rows])
    return path


def answer(loop: Loop, number: int, choose: Callable[[str, str], str] = said_by) -> Path:
    """Let both experts label a round's ads, in one file."""
    rows = [(id, choose(expert, id), expert) for id in loop.shown(number) for expert in EXPERTS]
    return write_verdicts(loop.folder / f"verdicts-{number}.csv", rows)


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module", autouse=True)
def _encoders_are_read_once() -> Iterator[None]:
    # Frozen under a head, so that one copy serves all tests; reading it takes a third of a second.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "load_encoder", functools.cache(presets.load_encoder))
        yield


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return helpers.tiny_encoder(tmp_path_factory.mktemp("preset") / "tiny-bert")


@pytest.fixture(scope="module")
def played(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """Return a loop of two complete rounds. Copy it before changing it."""
    loop = Loop(tmp_path_factory.mktemp("played"))
    helpers.write_jsonl(loop.folder / "ads.jsonl", GOLD.ads)
    helpers.write_task(loop.folder, helpers.head_task(encoder))
    for number in (1, 2):
        assert loop.mine() == cli.OK
        assert loop.command("import", answer(loop, number)) == cli.OK
        assert loop.command("train") == cli.OK
    return loop


@pytest.fixture
def loop(played: Loop, tmp_path: Path) -> Loop:
    """Return a copy of the two rounds, to change."""
    return Loop(Path(shutil.copytree(played.folder, tmp_path / "loop")))


@pytest.fixture
def untrained(loop: Loop) -> Loop:
    """Return the two rounds without the second one's model."""
    shutil.rmtree(loop.root / "rounds" / "0002" / "model")
    return loop


@pytest.fixture
def mined(loop: Loop) -> Loop:
    """Return a first round that waits for verdicts."""
    for gone in ("0001/verdicts", "0001/model", "0002"):
        shutil.rmtree(loop.root / "rounds" / gone)
    return loop


# --- What the rounds must hold to, as functions, so that mutations can fail them ----------------


def labels_of(manifest: Manifest, loop: Loop, ids: list[str]) -> np.ndarray:
    """Return what a round's saved model says of ads, at its saved threshold."""
    folder = loop.root / manifest.files[0].path.rsplit("/", 1)[0]
    margins = trained.load(folder).label([TEXT_OF[KEY_OF[id]] for id in ids]).margin
    return margins >= trained.read_manifest(folder).threshold_margin


def llm0_labels(loop: Loop, ids: list[str]) -> np.ndarray:
    margins = FakeLabeler().label([TEXT_OF[KEY_OF[id]] for id in ids]).margin
    return margins >= loop.manifest(1, "clusters").facts["threshold_margin"]


def expected_kappas(loop: Loop, models: int, upto: int) -> tuple[float, list[float], list[str]]:
    """Recompute from the verdict files what a report must say.

    Args:
        loop: the loop.
        models: how many rounds' models.
        upto: evaluation ads of rounds up to this one.

    Returns:
        expert-expert kappa, model-expert kappas from LLM-0 on, and the evaluation ads' ids.
    """
    sides = loop.sides()
    ids = [id for n in range(1, upto + 1) for id in loop.shown(n) if sides[id] == "evaluation"]
    said = [[said_by(expert, id) == "positive" for id in ids] for expert in EXPERTS]
    calls = [llm0_labels(loop, ids)]
    calls += [labels_of(loop.manifest(n, "model"), loop, ids) for n in range(1, models + 1)]
    kappas = [float(np.mean([cohen_kappa_score(c, own) for own in said])) for c in calls]
    return float(cohen_kappa_score(*said)), kappas, ids


def check_training_set(loop: Loop, number: int) -> None:
    """Check that a model saw the agreed labels of the fine-tuning half, and nothing else."""
    sides = loop.sides()
    lines = [
        f"{KEY_OF[id]} {int(said_by('anna', id) == 'positive')}\n"
        for n in range(1, number + 1)
        for id in loop.shown(n)
        if sides[id] == "fine_tuning" and said_by("anna", id) == said_by("bo", id)
    ]
    wanted = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    manifest = loop.manifest(number, "model")
    assert manifest.facts["label_set_hash"] == wanted
    assert manifest.rows == len(lines)
    folder = loop.root / manifest.files[0].path.rsplit("/", 1)[0]
    assert trained.read_manifest(folder).label_set_hash == wanted


def check_kappa(loop: Loop, number: int) -> None:
    """Check that what is separable was learnt, the right way round."""
    report = loop.manifest(number, "model").facts["evaluation"]
    assert report["models"][-1]["kappa"]["value"] > 0.6


def check_second_import(loop: Loop) -> None:
    """Check that files that were imported before change nothing, nor the training after them."""
    before = tree(loop.root)
    for number in (1, 2):
        assert loop.command("import", loop.folder / f"verdicts-{number}.csv") == cli.OK
    assert tree(loop.root) == before
    _, said = loop.train()
    assert said == ["round 2 is trained already with these labels; nothing to do"]
    assert tree(loop.root) == before


# --- The whole loop ---------------------------------------------------------------------------


def test_the_reports_figures_are_those_of_the_verdict_files(played: Loop) -> None:
    for number in (1, 2):
        report = played.manifest(number, "model").facts["evaluation"]
        experts, kappas, ids = expected_kappas(played, models=number, upto=number)
        assert report["ads"] == len(ids)
        assert report["expert_kappa"]["value"] == pytest.approx(experts)
        # LLM-0 and the older model are scored again, on the same ads as the newest one.
        assert [model["round"] for model in report["models"]] == list(range(number + 1))
        assert [m["kappa"]["value"] for m in report["models"]] == pytest.approx(kappas)
        assert {model["kappa"]["n_ads"] for model in report["models"]} == {len(ids)}
        given = [said_by(expert, id) == "positive" for expert in EXPERTS for id in ids]
        assert report["positive_share"] == pytest.approx(np.mean(given))
        assert report["decision"]["reason"].startswith(f"go on after round {number}: {len(ids)} ev")
    first, second = (played.manifest(n, "model").facts["evaluation"]["ads"] for n in (1, 2))
    assert first < second, "evaluation ads add up over rounds"


def test_the_status_table(played: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    assert played.command("status") == cli.OK
    out = capsys.readouterr().out
    assert played.command("status", "--json") == cli.OK
    found = json.loads(capsys.readouterr().out)
    rows = [line.split() for line in out.splitlines() if re.match(r"\s+[12] ", line)]
    assert [row[0] for row in rows] == ["1", "2"]
    for row, entry in zip(rows, found["rounds"], strict=True):
        report, labels = entry["model"]["evaluation"], entry["model"]["labels"]
        experts, kappas, ids = expected_kappas(played, entry["round"], entry["round"])
        assert row[1] == str(len(played.shown(entry["round"])) // 2) == "30"
        assert row[2] == str(labels["fine_tuning"])
        assert row[3] == f"({labels['fine_tuning_positive'] / labels['fine_tuning']:.0%}"
        assert row[5] == str(len(ids))
        assert row[6] == f"{report['positive_share']:.0%}"
        low, high = report["expert_kappa"]["low"], report["expert_kappa"]["high"]
        assert row[7:10] == [f"{experts:.2f}", f"[{low:.2f},", f"{high:.2f}]"]
        own = report["models"][entry["round"]]["kappa"]
        assert own["low"] <= kappas[-1] <= own["high"]
        assert row[10:] == [f"{kappas[-1]:.2f}", f"[{own['low']:.2f},", f"{own['high']:.2f}]"]
        assert f"  round {entry['round']}: {report['decision']['reason']}" in out
        assert set(entry["stages"]) >= {"scored", "clusters", "pairs", "verdicts", "model"}
    # The older model on the newer ads.
    _, kappas, ids = expected_kappas(played, models=2, upto=2)
    assert f"On the same {len(ids)} evaluation ads (2 experts" in out
    assert re.search(rf"model of round 1 and experts +{kappas[1]:.2f} \[", out)
    assert out.endswith("Next: run `scout mine` for the next round\n")
    assert "*" not in out


def test_what_training_prints(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    assert loop.command("train") == cli.OK
    out = capsys.readouterr().out
    facts = loop.manifest(2, "model").facts
    report, labels = facts["evaluation"], facts["labels"]
    share = labels["fine_tuning_positive"] / labels["fine_tuning"]
    assert f"{labels['fine_tuning']}, {share:.0%} positive, {labels['tied']} more tied\n" in out
    assert f"p >= {facts['threshold_probability']:.4g}\n" in out
    for name, kappa in (
        ("experts among themselves", report["expert_kappa"]),
        ("LLM-0 and experts", report["models"][0]["kappa"]),
        ("model of round 2 and experts", report["models"][2]["kappa"]),
    ):
        shown = rf"\[{kappa['low']:.2f}, {kappa['high']:.2f}\]"
        assert re.search(rf"  {name} +{kappa['value']:.2f} {shown}\n", out)
    assert re.search(
        r"\nGo on after round 2: .*\.\nTied ads:  \S+ties\.csv\nModel:     \S+\n$", out
    )


def test_the_labels_counted_are_the_fine_tuning_halfs(played: Loop) -> None:
    sides = played.sides()
    for number in (1, 2):
        ids = [id for n in range(1, number + 1) for id in played.shown(n)]
        mine = [id for id in ids if sides[id] == "fine_tuning"]
        agreed = [id for id in mine if said_by("anna", id) == said_by("bo", id)]
        assert played.manifest(number, "model").facts["labels"] == {
            "fine_tuning": len(agreed),
            "fine_tuning_positive": sum(said_by("bo", id) == "positive" for id in agreed),
            "fine_tuning_experts": 2,
            "tied": len(mine) - len(agreed),
        }
        assert len(mine) > len(agreed), "the experts err often enough for a tie"


def test_the_second_round_mines_with_the_first_model(played: Loop) -> None:
    model = played.manifest(1, "model")
    threshold = model.facts["threshold_margin"]
    for stage in ("scored", "clusters", "pairs", "review"):
        assert played.manifest(1, stage).facts["model_round"] == 0
        facts = played.manifest(2, stage).facts
        assert facts["model_round"] == 1
        assert facts["model_id"].startswith(model.facts["model_id"])
    assert played.manifest(1, "clusters").facts["threshold_source"] == "prior"
    clusters = played.manifest(2, "clusters").facts
    assert (clusters["threshold_source"], clusters["threshold_margin"]) == ("fitted", threshold)
    items = played.place.read_items(played.manifest(2, "pairs"))
    for side, positive in (("positive", True), ("negative", False)):
        margins = [helpers.by_label(item)[side].margin for item in items]
        assert {margin >= threshold for margin in margins} == {positive}
        ids = [helpers.by_label(item)[side].id for item in items]
        assert set(labels_of(model, played, ids).tolist()) == {positive}


def test_pairs_of_a_later_round_lie_near_the_fitted_threshold(played: Loop) -> None:
    model = played.manifest(1, "model")
    threshold = model.facts["threshold_margin"]
    folder = played.root / model.files[0].path.rsplit("/", 1)[0]
    shown = {*played.shown(1)}
    unseen = [ad["text"] for ad in GOLD.ads if ad["id"] not in shown]
    margins = trained.load(folder).label(unseen).margin
    items = played.place.read_items(played.manifest(2, "pairs"))
    chosen = [item for item in items if item.source == "boundary"]
    assert len(chosen) > 20
    # Of the ads called negative and not shown before the nearest 90: three for each of the 30 pairs.
    below = np.sort(threshold - margins[margins < threshold])
    assert len(below) > 120
    used = [threshold - helpers.by_label(item)["negative"].margin for item in chosen]
    assert max(used) <= below[89] < below[-1]


def test_no_ad_is_shown_twice(loop: Loop) -> None:
    first, second = loop.shown(1), loop.shown(2)
    assert len({*first, *second}) == len(first) + len(second) == 120
    assert loop.mine() == cli.OK
    third = loop.shown(3)
    assert third and not {*first, *second} & {*third}
    assert loop.manifest(3, "pairs").facts["model_round"] == 2


# --- Who reads which half ----------------------------------------------------------------------


def test_only_the_evaluator_opens_the_evaluation_half(
    untrained: Loop, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[str] = []
    real = evaluation.evaluate

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        assert helpers.of_evaluation(opened) == [], "opened before the evaluator was asked"
        del opened[:]
        found = real(*args, **kwargs)
        inside.extend(helpers.of_evaluation(opened))
        del opened[:]
        return found

    monkeypatch.setattr(rounds, "evaluate", evaluate)
    assert untrained.command("train") == cli.OK
    assert len(inside) == len(set(inside)) == 2, "one file a round, each read once"
    assert helpers.of_evaluation(opened) == []
    assert untrained.mine() == cli.OK
    assert untrained.manifest(3, "pairs").facts["model_round"] == 2
    assert untrained.command("status") == cli.OK
    assert untrained.command("status", "--json") == cli.OK
    assert any(path.endswith("manifest.json") for path in opened), "the watch must see"
    assert helpers.of_evaluation(opened) == []
    # And the watch would see it.
    read_half(untrained.place, "evaluation", 1)
    assert len(helpers.of_evaluation(opened)) == 2


def test_no_other_module_asks_for_the_evaluation_half() -> None:
    folder = Path(rounds.__file__).parents[1]
    asking = [
        path.name
        for path in folder.rglob("*.py")
        if re.search(r"read_half\(\s*\w+,\s*(\"evaluation\"|EVALUATION|half)", path.read_text())
    ]
    assert asking == ["evaluation.py"]


def test_training_sees_the_fine_tuning_half_alone(
    untrained: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_training_set(untrained, 1)
    untrained.train()
    check_training_set(untrained, 2)
    honest = untrained.manifest(2, "model").facts["label_set_hash"]
    real = rounds.read_half

    def leaking(workspace: Workspace, half: str, version: int) -> list[Any]:
        leaked = real(workspace, "evaluation", version)
        one = [v for v in leaked if v.key == leaked[0].key]
        assert len({v.label for v in one}) == 1 and len(one) == 2
        return real(workspace, half, version) + one

    monkeypatch.setattr(rounds, "read_half", leaking)
    _, said = untrained.train()
    assert any("training a head" in line for line in said)
    with pytest.raises(AssertionError):
        check_training_set(untrained, 2)
    assert untrained.manifest(2, "model").facts["label_set_hash"] != honest


# --- Mutations: swapped labels, a file twice ---------------------------------------------------


def swap(table: Ratings) -> Ratings:
    flipped = np.where(table.values == -1, -1, 1 - table.values).astype(np.int8)
    return replace(table, values=flipped)


@pytest.mark.parametrize("where", [None, rounds, evaluation])
def test_a_swapped_label_order_would_be_seen(
    where: Any, untrained: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where is not None:
        real = where.ratings
        monkeypatch.setattr(where, "ratings", lambda found: swap(real(found)))
    untrained.train()
    if where is None:
        check_kappa(untrained, 2)
        return
    with pytest.raises(AssertionError):
        check_kappa(untrained, 2)
    report = untrained.manifest(2, "model").facts["evaluation"]
    assert report["models"][-1]["kappa"]["value"] < -0.4


def test_a_file_imported_twice_changes_nothing(loop: Loop) -> None:
    check_second_import(loop)


def test_a_file_that_counted_twice_would_be_seen(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (ingest, commit_imports):
        monkeypatch.setattr(module, "is_imported", lambda sha256, manifests: False)
    monkeypatch.setattr(commit_imports, "_holds", lambda manifest, sha256: False)
    with pytest.raises(AssertionError):
        check_second_import(loop)


# --- Training again ----------------------------------------------------------------------------


def test_a_rerun_does_nothing(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(loop.root)
    assert loop.command("train", "--json") == cli.OK
    again = json.loads(capsys.readouterr().out)
    assert tree(loop.root) == before
    assert again["model_id"] == loop.manifest(2, "model").facts["model_id"]
    assert Path(again["model"], trained.MANIFEST).is_file()


def no_training(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("trained again")


def third_expert(loop: Loop, half: str) -> Path:
    """Let somebody else tell the truth about one half; -> the file."""
    sides = loop.sides()
    names = {True: "positive", False: "negative"}
    ids = [id for n in (1, 2) for id in loop.shown(n) if sides[id] == half]
    rows = [(id, names[GOLD.positive[id]], "cy") for id in ids]
    return write_verdicts(loop.folder / f"cy-{half}.csv", rows)


def test_new_evaluation_verdicts_alone_do_not_train_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = loop.manifest(2, "model")
    assert loop.command("import", third_expert(loop, "evaluation")) == cli.OK
    assert loop.status()["next"] == "run `scout train` again: verdicts came in since"
    monkeypatch.setattr(trainer, "train", no_training)
    summary, said = loop.train()
    assert "round 2: trained on these labels before; evaluating again" in said
    after = loop.manifest(2, "model")
    assert after.attempt != before.attempt
    assert after.facts["evaluation"]["experts"] == 3
    for name in ("model_id", "label_set_hash", "threshold_margin", "labels"):
        assert after.facts[name] == before.facts[name]
    assert model_store.model_files(after) == model_store.model_files(before)
    assert {Path(f.path).name for f in model_store.model_files(after)} == {
        "head.safetensors",
        "model.json",
    }
    # Sheet and report are the new attempt's own, the older ones are not dragged along.
    own = [f.path for f in after.files if f not in model_store.model_files(after)]
    assert own == [f"{after.attempt}/ties.csv", f"{after.attempt}/evaluation.json"]
    assert summary["ties"] == [str(loop.root / own[0])]
    assert Path(summary["model"], trained.MANIFEST).is_file()
    assert loop.status()["next"] == "run `scout mine` for the next round"
    # The next round mines with it, wherever its files lie.
    assert loop.mine() == cli.OK
    assert loop.manifest(3, "pairs").facts["model_round"] == 2


def test_late_verdicts_on_an_earlier_round_count(loop: Loop) -> None:
    sides = loop.sides()
    [id, *_] = [
        id
        for id in loop.shown(1)
        if sides[id] == "fine_tuning" and said_by("anna", id) == said_by("bo", id)
    ]
    before = loop.manifest(2, "model")
    flipped = "negative" if said_by("anna", id) == "positive" else "positive"
    rows = [(id, flipped, expert) for expert in EXPERTS]
    assert loop.command("import", write_verdicts(loop.folder / "late.csv", rows)) == cli.OK
    assert loop.status()["next"] == "run `scout train` again: verdicts came in since"
    loop.train()
    after = loop.manifest(2, "model")
    assert after.facts["label_set_hash"] != before.facts["label_set_hash"]
    assert after.rows == before.rows
    assert loop.status()["next"] == "run `scout mine` for the next round"


def test_other_settings_and_back_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = loop.manifest(2, "model")
    other = loop.folder / "other.yaml"
    other.write_text(
        (loop.folder / "task.yaml").read_text() + "stopping: {min_evaluation_ads: 20}\n"
    )
    monkeypatch.setattr(trainer, "train", no_training)
    summary, _ = loop.train(str(other))
    decision = summary["evaluation"]["decision"]
    assert (decision["stop"], decision["rule"]) == (True, "parity")
    assert decision["reason"].startswith("stopped at parity: the model of round ")
    status = loop.status()
    assert status["next"] == f"nothing; the best model is that of round {decision['best_round']}"
    # Back to the task's own settings: what counts is what was asked for last.
    summary, said = loop.train()
    assert "round 2: trained on these labels before; evaluating again" in said
    assert loop.manifest(2, "model").facts["evaluation"] == before.facts["evaluation"]
    assert loop.status()["next"] == "run `scout mine` for the next round"


def test_a_third_expert_settles_the_ties(loop: Loop) -> None:
    summary, _ = loop.train()
    tied = summary["labels"]["tied"]
    [sheet] = summary["ties"]
    header, *rows = list(csv.reader(Path(sheet).read_text("utf-8-sig").splitlines()))
    assert len(rows) == tied > 0
    ids = [row[header.index("ad_id")] for row in rows]
    for id, row in zip(ids, rows, strict=True):
        assert said_by("anna", id) != said_by("bo", id)
        assert row[header.index("text")] == TEXT_OF[KEY_OF[id]]
        row[header.index("label")] = "positive" if GOLD.positive[id] else "negative"
        row[header.index("expert")] = "cy"
    path = loop.folder / "settled.csv"
    with open(path, "w", encoding="utf-8-sig", newline="") as sink:
        csv.writer(sink).writerows([header, *rows])
    assert loop.command("import", path) == cli.OK
    after, _ = loop.train()
    assert after["labels"]["tied"] == 0
    assert after["labels"]["fine_tuning"] == summary["labels"]["fine_tuning"] + tied
    assert after["ties"] == []
    labels = rounds.fine_tuning_labels(
        loop.place, rounds.current_task(loop.place), shown_ads(loop.place).texts()
    )
    settled = dict(zip(labels.ads.keys, labels.ads.labels, strict=True))
    assert {id: settled[KEY_OF[id]] for id in ids} == {id: GOLD.positive[id] for id in ids}


# --- Refusals -----------------------------------------------------------------------------------


def test_no_verdicts_yet(mined: Loop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no verdicts on pairs of policy version 1 yet; label rev"):
        mined.train()
    assert re.match(r"let experts label .*review\.csv, then run `scout im", mined.status()["next"])
    assert mined.command("export", "--tool", "page") == cli.OK
    assert re.match(r"let experts label .*/page/review\.html, then run", mined.status()["next"])
    # One from before the round was mined again has other pairs.
    os.utime(mined.root / "exports" / "round-0001" / "page" / "review.html", (1e9, 1e9))
    assert re.match(r"let experts label .*review\.csv, then run `scout im", mined.status()["next"])
    with pytest.raises(UsageError, match="holds no pairs; start with `scout mine`"):
        rounds.train(TrainOptions(str(tmp_path / "empty")), lambda line: None)


@pytest.mark.parametrize(
    ("choose", "rows", "message"),
    [
        (lambda expert, id: "negative", 60, r"0 of \d+ labelled ads are positive, .* at least 5"),
        (lambda expert, id: "positive", 60, r"0 of \d+ labelled ads are negative, .* at least 5"),
        (
            said_by,
            3,
            r"of \d labelled ads are \w+, training needs at least 5 \(min_per_class\).*; 57 of the ads "
            "that round 1 shows are not answered yet: label those first",
        ),
        (lambda expert, id: "skip", 60, "no labelled ads: `scout mine` opens the next round"),
    ],
    ids=["no positives", "no negatives", "too few", "skips"],
)
def test_labels_that_teach_nothing(
    choose: Callable[[str, str], str], rows: int, message: str, mined: Loop
) -> None:
    lines = [(id, choose(expert, id), expert) for id in mined.shown(1) for expert in EXPERTS]
    path = write_verdicts(mined.folder / "v.csv", lines[: 2 * rows])
    assert mined.command("import", path) == cli.OK
    with pytest.raises(TooFewLabels, match=message):
        mined.train()
    assert mined.command("train") == cli.FAILED
    assert mined.place.latest(1, "model") is None
    first = "" if rows == 60 else "label the 57 ads of round 1 that are open, then "
    assert mined.status()["next"] == (
        f"run `scout train`; if it finds too few labels, {first}`scout mine` for more pairs"
    )


def test_a_lost_model_is_trained_again(loop: Loop) -> None:
    before = loop.manifest(2, "model")
    weights = next(f for f in model_store.model_files(before) if f.path.endswith(".safetensors"))
    (loop.root / weights.path).unlink()
    summary, said = loop.train()
    assert any("training a head" in line for line in said)
    assert summary["model_id"] == before.facts["model_id"]
    # A lost model of an earlier round is left out, with a line, instead of ending everything.
    first = model_store.model_files(loop.manifest(1, "model"))[0]
    (loop.root / first.path).write_bytes(b"damaged")
    path = write_verdicts(loop.folder / "late.csv", [(loop.shown(1)[0], "skip", EXPERTS[0])])
    assert loop.command("import", path) == cli.OK
    summary, said = loop.train()
    assert "the model of round 1 is gone or damaged: not evaluated again" in said
    assert [model["round"] for model in summary["evaluation"]["models"]] == [0, 2]


def test_what_the_experts_got_is_what_counts(loop: Loop) -> None:
    # Back to an earlier task in an open round: the sheet named last must be the newest one.
    assert loop.mine() == cli.OK
    first = loop.manifest(3, "review")
    task = loop.folder / "task.yaml"
    text = task.read_text()
    assert "prior: 0.35" in text
    task.write_text(text.replace("prior: 0.35", "prior: 0.4"))
    assert loop.mine() == cli.OK
    task.write_text(text)
    assert loop.mine() == cli.OK
    last = loop.manifest(3, "review")
    assert last.attempt != first.attempt and last.config_hash == first.config_hash
    assert loop.manifest(3, "pairs").config_hash == first.config_hash


def test_wordless_ads_neither_train_nor_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy.is_wordless("[SEP] \u200b") and policy.is_wordless("[CLS] [PAD]")
    assert policy.is_wordless("\ufffd \ufffd")
    assert not policy.is_wordless("!") and not policy.is_wordless("🎁")
    texts = {"k1": "won a miracle", "k2": "[SEP] \u200b", "k3": "library terms", "k4": "\ufffd"}
    said = [
        contracts.Verdict(key, key, "p", label, expert, "", "", "f.csv", "line 1")
        for key, label in zip(texts, ("positive", "positive", "negative", "negative"), strict=True)
        for expert in EXPERTS
    ]
    monkeypatch.setattr(rounds, "read_half", lambda *_: said)
    monkeypatch.setattr(rounds, "_imported", lambda *_: {})
    task = parse_task(helpers.FAKE_TASK, "task.yaml")
    labels = rounds.fine_tuning_labels(Workspace("nowhere"), task, texts)
    assert (labels.ads.keys, labels.ads.labels.tolist()) == (("k1", "k3"), [1, 0])
    assert labels.tied == (), "another expert could not settle them either"
    asked: list[Sequence[str]] = []

    def margins(given: Sequence[str]) -> np.ndarray:
        asked.append(given)
        return np.zeros(len(given))

    monkeypatch.setattr(evaluation, "read_half", lambda *_: said)
    candidate = evaluation.Candidate(0, "m", 0.5, margins)
    found = evaluation.evaluate(Workspace("nowhere"), task, texts, [candidate], 0)
    assert asked == [["won a miracle", "library terms"]]
    assert found.report["ads"] == 2


def test_ties_are_handed_out_even_where_nothing_else_is_left(mined: Loop) -> None:
    path = answer(mined, 1, lambda expert, id: "positive" if expert == "bo" else "negative")
    assert mined.command("import", path) == cli.OK
    said: list[str] = []
    with pytest.raises(TooFewLabels, match="no labelled ads"):
        rounds.train(TrainOptions(str(mined.root)), said.append)
    found = re.search(r"(\d+) ads have no majority .* label (\S+ties\.csv) and import it", said[0])
    assert found is not None
    assert len(Path(found[2]).read_text("utf-8-sig").splitlines()) == 1 + int(found[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: tiny", "name: other"), "is the task 'other', but the workspace holds 'tiny'"),
        (("version: 1", "version: 2"), "has version 2, the pairs were mined with version 1; mine"),
        (("learner: head", "learner: llm"), "training.learner: the fake model cannot learn"),
        (
            ("learner: head, encoder: ", "learner: head, encoder: /nowhere"),
            "training: no .*nowhere",
        ),
    ],
)
def test_a_wrong_task_is_refused(change: tuple[str, str], message: str, untrained: Loop) -> None:
    task = untrained.folder / "other.yaml"
    task.write_text((untrained.folder / "task.yaml").read_text().replace(*change))
    with pytest.raises(UsageError, match=message):
        untrained.train(str(task))
    assert untrained.place.latest(2, "model") is None


def test_what_a_setting_needs_is_named_before_anything_is_trained(
    untrained: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = untrained.folder / "other.yaml"
    text = (untrained.folder / "task.yaml").read_text()
    task.write_text(text + "review: {consensus: dawid-skene}\n")
    monkeypatch.setitem(sys.modules, "crowdkit.aggregation", None)
    before = tree(untrained.root)
    with pytest.raises(UsageError, match=r"dawid-skene needs crowd-kit .*'ad-scout\[consensus\]'"):
        untrained.train(str(task))
    assert tree(untrained.root) == before


def test_a_changed_model_file_is_refused(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    [weights] = (loop.root / "rounds" / "0002" / "model").rglob("head.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert loop.mine() == cli.FAILED
    assert re.search(r"head\.safetensors is damaged: its SHA-256 is", capsys.readouterr().err)


def test_a_lost_definition_is_named(loop: Loop) -> None:
    manifest = loop.manifest(2, "pairs")
    facts = {k: v for k, v in manifest.facts.items() if k != "definition"}
    loop.place.commit(replace(manifest, facts=facts))
    with pytest.raises(RunFailed, match=r"manifest\.json: the task is not in it; .* give --task"):
        loop.train()


def test_export_takes_the_labels_names_and_refuses_a_full_folder(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, Path, tuple[str, str]]] = []

    def fake(
        folder: Path, target: Path, *, labels: tuple[str, str], progress: Callable[[str], None]
    ) -> None:
        trained.read_manifest(folder)
        asked.append((folder, target, labels))
        if target.exists():
            raise OSError("No space left on device")

    monkeypatch.setattr(export, "export", fake)
    target = loop.folder / "saved"
    loop.train(export=str(target))
    assert asked[0][1:] == (target, ("positive", "negative"))
    target.mkdir()
    with pytest.raises(RunFailed, match=f"--export {target}: No space left on device .* is kept"):
        loop.train(export=str(target))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("full", r"is there and not empty; nothing is overwritten"),
        ("full/file", r"is there and not empty"),
        ("full/file/new", r"cannot be written \(File exists\)|Not a directory"),
        ("/proc/nope/new", r"cannot be written \(No such file or directory\); name another folder"),
        ("gs://bucket/model", r"must be a folder on the local disk; copy it from there"),
    ],
)
def test_a_wrong_folder_for_the_export_is_refused_before_the_training(
    target: str, message: str, untrained: Loop
) -> None:
    full = untrained.folder / "full"
    full.mkdir()
    (full / "file").write_text("")
    named = target if ":" in target else str(untrained.folder / target)
    with pytest.raises(UsageError, match=rf"^--export {named}: ({message})"):
        untrained.train(export=named)
    assert untrained.place.latest(2, "model") is None
    assert [path.name for path in full.iterdir()] == ["file"]


# --- Kills --------------------------------------------------------------------------------------


class Killed(BaseException):
    """What nothing but the test catches."""


def test_killed_at_every_write_and_run_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(loop.root / "rounds" / "0002")
    model_id = loop.manifest(1, "model").facts["model_id"]
    shutil.rmtree(loop.root / "rounds" / "0001" / "model")
    written: list[str] = []
    real = storage.write

    def write(path: str, data: bytes) -> None:
        name = Path(path).name
        if not name.startswith(".probe-"):
            written.append(name)
            if len(written) == when:
                # What a kill leaves of a file: half of it, under another name.
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).with_name(f".{name}.tmp").write_bytes(data[: len(data) // 2])
                raise Killed
        real(path, data)

    for when in range(1, 20):
        root = Path(shutil.copytree(loop.root, loop.folder / f"killed-{when}"))
        place, options = Workspace(str(root)), TrainOptions(str(root))
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(storage, "write", write)
            try:
                rounds.train(options, lambda line: None)
                break
            except Killed:
                pass
        assert place.latest(1, "model") is None
        assert rounds.standing(place)["next"].startswith("run `scout train`;")
        summary = rounds.train(options, lambda line: None).summary
        [manifest] = place.manifests(1, "model")
        assert summary["model_id"] == manifest.facts["model_id"] == model_id
        assert manifest.facts["evaluation"]["models"][-1]["model_id"] == model_id
        assert [f.path for f in manifest.files if manifest.attempt not in f.path] == []
        for file in manifest.files:
            assert hashlib.sha256((root / file.path).read_bytes()).hexdigest() == file.sha256
    wanted = {"ties.csv", "head.safetensors", "model.json", "evaluation.json"}
    assert set(written) >= wanted
    assert written[-1] == "manifest.json", "written last, or a half-written model would count"


# --- Another version of the policy --------------------------------------------------------------


def test_a_new_policy_version_starts_over(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    task = loop.folder / "task.yaml"
    task.write_text(
        task.read_text().replace("version: 1", "version: 2").replace("nobody can", "no shop can")
    )
    assert loop.mine() == cli.OK
    for stage in ("scored", "clusters", "pairs"):
        assert loop.manifest(3, stage).facts["model_round"] == 0
    assert loop.manifest(3, "clusters").facts["threshold_source"] == "prior"
    assert not {*loop.shown(1), *loop.shown(2)} & {*loop.shown(3)}
    with pytest.raises(UsageError, match="no verdicts on pairs of policy version 2 yet"):
        loop.train()
    status = loop.status()
    assert [entry["comparable"] for entry in status["rounds"]] == [False, False, True]
    assert loop.command("import", answer(loop, 3)) == cli.OK
    summary, _ = loop.train()
    sides = loop.sides()
    third = [id for id in loop.shown(3) if sides[id] == "evaluation"]
    assert summary["evaluation"]["ads"] == len(third)
    assert [model["round"] for model in summary["evaluation"]["models"]] == [0, 3]
    agreed = [
        id
        for id in loop.shown(3)
        if sides[id] == "fine_tuning" and said_by("anna", id) == said_by("bo", id)
    ]
    assert summary["labels"]["fine_tuning"] == len(agreed)
    capsys.readouterr()
    assert loop.command("status") == cli.OK
    out = capsys.readouterr().out
    assert re.search(r"^ +1\* .*\n +2\* .*\n +3 ", out, flags=re.MULTILINE)
    assert "not comparable with version 2, and neither trains nor evaluates its models" in out
    # The fourth round mines with the third one's model, and no other.
    assert loop.mine() == cli.OK
    assert loop.manifest(4, "pairs").facts["model_round"] == 3
