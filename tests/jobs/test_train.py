"""Training: reruns, new labels, refusals, kills, another version of the policy."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import export, trained
from models.ad_text import is_wordless
from models.training import trainer
from pipelines import cli, contracts
from pipelines.config import parse_task
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import evaluate, labels, status, train
from pipelines.jobs.train import TooFewLabels, TrainOptions
from pipelines.store import model_store, storage
from pipelines.store.workspace import Workspace
from pipelines.verdicts.shown import shown_ads
from tests import helpers
from tests.jobs.loop import (
    EXPERTS,
    GOLD,
    KEY_OF,
    TEXT_OF,
    Loop,
    answer,
    said_by,
    tree,
    write_verdicts,
)

# --- Training again ----------------------------------------------------------------------------


def test_a_rerun_does_nothing(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(loop.root)
    assert loop.command("train", "--json") == cli.OK
    again = json.loads(capsys.readouterr().out)
    assert tree(loop.root) == before
    assert again["model_id"] == loop.manifest(2, "model").facts.learnt.model_id
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
    assert (
        loop.status()["next"]
        == f"run `scout train --workspace {loop.root}` again: verdicts came in since"
    )
    monkeypatch.setattr(trainer, "train", no_training)
    summary, said = loop.train()
    assert "round 2: trained on these labels before; evaluating again" in said
    after = loop.manifest(2, "model")
    assert after.attempt != before.attempt
    assert after.facts.evaluation.experts == 3
    assert (after.facts.learnt, after.facts.labels) == (before.facts.learnt, before.facts.labels)
    assert model_store.model_files(after) == model_store.model_files(before)
    assert {Path(f.path).name for f in model_store.model_files(after)} == {
        "head.safetensors",
        "model.json",
    }
    # The report is the new attempt's own, the older one is not dragged along.
    own = [f.path for f in after.files if f not in model_store.model_files(after)]
    assert own == [f"{after.attempt}/evaluation.json"]
    # Another expert of the other half settles no tie of this one: the sheet is the one of before.
    [sheet] = summary["ties"]
    assert [str(path) for path in (loop.root / "ties").rglob("*.csv")].count(sheet) == 1
    assert Path(summary["model"], trained.MANIFEST).is_file()
    assert loop.status()["next"] == f"run {loop.mining} for the next round"
    # The next round mines with it, wherever its files lie.
    assert loop.mine() == cli.OK
    assert loop.manifest(3, "pairs").facts.origin.model_round == 2


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
    late = write_verdicts(loop.folder / "late.csv", rows)
    # A correction without times: which word is the later one, a person has to say.
    assert loop.command("import", late) == cli.WRONG_USAGE
    assert loop.status()["next"] == f"run {loop.mining} for the next round"
    assert loop.command("import", late, "--on_conflict", "replace") == cli.OK
    assert (
        loop.status()["next"]
        == f"run `scout train --workspace {loop.root}` again: verdicts came in since"
    )
    loop.train()
    after = loop.manifest(2, "model")
    assert after.facts.learnt.label_set_hash != before.facts.learnt.label_set_hash
    assert after.rows == before.rows
    assert loop.status()["next"] == f"run {loop.mining} for the next round"


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
    # Which of the models is the best of so few ads is a matter of rounding, which processors do otherwise.
    best = f"the model of round {decision['best_round']}" if decision["best_round"] else "LLM-0"
    assert decision["reason"].startswith(f"stopped at parity: {best} ")
    assert loop.status()["next"].startswith("nothing; the best model is ")
    # Back to the task's own settings: what counts is what was asked for last.
    summary, said = loop.train()
    assert "round 2: trained on these labels before; evaluating again" in said
    assert loop.manifest(2, "model").facts.evaluation == before.facts.evaluation
    assert loop.status()["next"] == f"run {loop.mining} for the next round"


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
    taught = labels.fine_tuning_labels(
        loop.place, loop.place.pairs_of().facts.origin.task, shown_ads(loop.place).texts()
    )
    settled = dict(zip(taught.ads.keys, taught.ads.labels, strict=True))
    assert {id: settled[KEY_OF[id]] for id in ids} == {id: GOLD.positive[id] for id in ids}


# --- Refusals -----------------------------------------------------------------------------------


def test_no_verdicts_yet(mined: Loop, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r"no verdicts on pairs of policy version 1 yet; let experts label .*review\.csv, then",
    ):
        mined.train()
    assert re.match(r"let experts label .*review\.csv, then run `scout im", mined.status()["next"])
    assert mined.command("export", "--tool", "page") == cli.OK
    assert re.match(r"let experts label .*/page/review\.html, then run", mined.status()["next"])
    # One from before the round was mined again has other pairs.
    os.utime(mined.root / "exports" / "round-0001" / "page" / "review.html", (1e9, 1e9))
    assert re.match(r"let experts label .*review\.csv, then run `scout im", mined.status()["next"])
    with pytest.raises(UsageError, match="holds no pairs; start with `scout mine`"):
        train.train(TrainOptions(str(tmp_path / "empty")), lambda line: None)


@pytest.mark.parametrize(
    ("choose", "rows", "message"),
    [
        (
            lambda expert, id: "negative",
            60,
            r"0 of \d+ labelled ads are positive, .* at least 5.*\(fine-tuning half: 0 positive, \d+ "
            r"negative, 0 tied, 0 skipped; evaluation half: 0 positive, \d+ negative, 0 tied, 0 skipped; "
            r"missing: 5 more positive in the fine-tuning half \(training.min_per_class\), any positive in "
            r"the evaluation half, without which no kappa is defined\)",
        ),
        (lambda expert, id: "positive", 60, r"0 of \d+ labelled ads are negative, .* at least 5"),
        (
            said_by,
            3,
            r"of \d labelled ads are \w+, training needs at least 5 \(min_per_class\).*; 57 of the ads "
            "that round 1 shows are not answered yet: label those first",
        ),
        (
            lambda expert, id: "skip",
            60,
            r"no labelled ads: `scout mine .*` opens the next round.*\(fine-tuning half: 0 positive, 0 "
            r"negative, 0 tied, 30 skipped; evaluation half: .*, 30 skipped; missing: 5 more positive",
        ),
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
    first = "run " if rows == 60 else "label the 57 ads of round 1 that are open, then "
    step = mined.status()["next"]
    assert step.startswith(f"{first}{mined.mining} for more pairs: training lacks "), step
    lacking = mined.status()["labels"]["to_train"]
    assert lacking and step.endswith(f"training lacks {' and '.join(lacking)}")


def test_a_lost_model_is_trained_again(loop: Loop) -> None:
    before = loop.manifest(2, "model")
    weights = next(f for f in model_store.model_files(before) if f.path.endswith(".safetensors"))
    (loop.root / weights.path).unlink()
    summary, said = loop.train()
    assert any("training a head" in line for line in said)
    assert summary["model_id"] == before.facts.learnt.model_id
    # A lost model of an earlier round is left out, with a line, instead of ending everything.
    first = model_store.model_files(loop.manifest(1, "model"))[0]
    (loop.root / first.path).write_bytes(b"damaged")
    path = write_verdicts(loop.folder / "late.csv", [(loop.shown(1)[0], "skip", EXPERTS[0])])
    assert loop.command("import", path, "--on_conflict", "replace") == cli.OK
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
    assert is_wordless("[SEP] \u200b") and is_wordless("[CLS] [PAD]")
    assert is_wordless("\ufffd \ufffd")
    assert not is_wordless("!") and not is_wordless("🎁")
    texts = {"k1": "won a miracle", "k2": "[SEP] \u200b", "k3": "library terms", "k4": "\ufffd"}
    said = [
        contracts.Verdict(key, key, "p", label, expert, "", "", "f.csv", "line 1")
        for key, label in zip(texts, ("positive", "positive", "negative", "negative"), strict=True)
        for expert in EXPERTS
    ]
    monkeypatch.setattr(labels, "read_half", lambda *_: said)
    monkeypatch.setattr(labels, "imported_into", lambda *_: {})
    task = parse_task(helpers.FAKE_TASK, "task.yaml")
    taught = labels.fine_tuning_labels(Workspace("nowhere"), task, texts)
    assert (taught.ads.keys, taught.ads.labels.tolist()) == (("k1", "k3"), [1, 0])
    assert taught.tied == (), "another expert could not settle them either"
    asked: list[Sequence[str]] = []

    def margins(given: Sequence[str]) -> np.ndarray:
        asked.append(given)
        return np.zeros(len(given))

    monkeypatch.setattr(evaluate, "read_half", lambda *_: said)
    candidate = evaluate.Candidate(0, "m", 0.5, margins)
    found = evaluate.evaluate(Workspace("nowhere"), task, texts, [candidate], 0)
    assert asked == [["won a miracle", "library terms"]]
    assert found.ads == 2


def test_ties_are_handed_out_even_where_nothing_else_is_left(mined: Loop) -> None:
    path = answer(mined, 1, lambda expert, id: "positive" if expert == "bo" else "negative")
    assert mined.command("import", path) == cli.OK
    said: list[str] = []
    with pytest.raises(TooFewLabels, match="no labelled ads"):
        train.train(TrainOptions(str(mined.root)), said.append)
    found = re.search(
        r"(\d+) ads have no majority .* label (\S+ties\.csv) .*, then (`.*`)$", said[0]
    )
    assert found is not None
    sheet = Path(found[2])
    assert len(sheet.read_text("utf-8-sig").splitlines()) == 1 + int(found[1])
    assert found[3] == f"`scout import {sheet} --workspace {mined.root}`"
    told = sheet.with_name("ties-instructions.txt").read_text("utf-8")
    for words in (
        "Ads that promise what nobody can promise.",
        "ties.csv",
        "positive or negative",
        found[3],
    ):
        assert words in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: tiny", "name: other"), "is the task 'other', but the workspace holds 'tiny'"),
        (("version: 1", "version: 2"), "has version 2, the pairs were mined with version 1; mine"),
        (
            ("version: 1\n", "version: 1\nlabels: {positive: bait}\n"),
            "labels.positive: differs from",
        ),
        (
            ("Is it misleading?", "Is it bait?"),
            "other.yaml: question: differs from .* mine a round",
        ),
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


def test_what_shapes_pairs_alone_changes_no_training(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = loop.folder / "other.yaml"
    text = (loop.folder / "task.yaml").read_text().replace("budget: 30", "budget: 40, band: 0.5")
    task.write_text(text + "overlaps: {per_positive_cluster: 2}\nreview: {experts_per_ad: 3}\n")
    monkeypatch.setattr(trainer, "train", no_training)
    _, said = loop.train(str(task))
    assert said == [
        "overlaps.per_positive_cluster, selection.budget, selection.band, review.experts_per_ad: "
        "differs from what the pairs were mined with; changes which pairs are mined, not what is learnt: "
        "it counts from the next `scout mine` on",
        "round 2 is trained already with these labels; nothing to do",
    ]


def test_a_budget_of_one_mining_stands_in_no_trainings_way(mined: Loop) -> None:
    task, corpus = mined.folder / "task.yaml", mined.folder / "ads.jsonl"
    assert mined.command("mine", task, "--corpus", corpus, "--budget", 25) == cli.OK
    assert mined.command("import", answer(mined, 1)) == cli.OK
    summary, said = mined.train(str(task))
    assert summary["round"] == 1
    assert said[0].startswith("selection.budget: differs from what the pairs were mined with; ")


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
    assert re.search(
        r"head\.safetensors: has changed since it was written", capsys.readouterr().err
    )


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
    model_id = loop.manifest(1, "model").facts.learnt.model_id
    shutil.rmtree(loop.root / "rounds" / "0001" / "model")
    # As of an import of an earlier version, which wrote none.
    shutil.rmtree(loop.root / "ties")
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
                train.train(options, lambda line: None)
                break
            except Killed:
                pass
        assert place.latest(1, "model") is None
        assert status.standing(place).next == f"run `scout train --workspace {place.root}`"
        summary = train.train(options, lambda line: None).to_json()
        [manifest] = place.model.all(1)
        assert summary["model_id"] == manifest.facts.learnt.model_id == model_id
        assert manifest.facts.evaluation.models[-1].model_id == model_id
        assert [f.path for f in manifest.files if manifest.attempt not in f.path] == []
        for file in manifest.files:
            assert hashlib.sha256((root / file.path).read_bytes()).hexdigest() == file.sha256
    wanted = {
        "ties.csv",
        "ties-instructions.txt",
        "head.safetensors",
        "model.json",
        "evaluation.json",
    }
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
        assert loop.manifest(3, stage).facts.origin.model_round == 0
    assert loop.manifest(3, "clusters").facts.threshold.source == "prior"
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
    assert loop.manifest(4, "pairs").facts.origin.model_round == 3
