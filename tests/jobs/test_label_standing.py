"""What experts have said, told before a training and where one has not seen all of it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pipelines import cli
from tests import helpers
from tests.jobs.loop import EXPERTS, GOLD, Loop, answer, said_by, write_verdicts


def counted(loop: Loop, ids: Iterable[str]) -> dict[str, int]:
    """Count ads by hand, as both experts labelled them."""
    pairs = [tuple(said_by(expert, id) for expert in EXPERTS) for id in ids]
    agreed = [one for one, other in pairs if one == other]
    return {
        "positive": agreed.count("positive"),
        "negative": agreed.count("negative"),
        "tied": len(pairs) - len(agreed),
        "skipped": 0,
    }


def test_labels_ties_and_agreement_are_told_before_any_training(
    mined: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mined.status()["labels"] is None
    assert mined.command("import", answer(mined, 1)) == cli.OK
    imported = capsys.readouterr().out
    found, sides = mined.status()["labels"], mined.sides()
    for half in ("fine_tuning", "evaluation"):
        assert found[half] == counted(mined, (id for id in mined.shown(1) if sides[id] == half))
    assert found["experts"] == ["anna", "bo"]
    shown = mined.shown(1)
    said = [[said_by(expert, id) for id in shown] for expert in EXPERTS]
    kappa = found["expert_kappa"]
    assert kappa["value"] == pytest.approx(cohen_kappa_score(*said))
    assert kappa["low"] < kappa["value"] < kappa["high"] and kappa["n_ads"] == len(shown) == 60
    [sheet] = found["ties"]
    rows = list(csv.DictReader(Path(sheet).read_text("utf-8-sig").splitlines()))
    assert {row["ad_id"] for row in rows} == {
        id
        for id in shown
        if sides[id] == "fine_tuning" and said_by("anna", id) != said_by("bo", id)
    }
    assert f"Tied ads:  {sheet}\n" in imported
    assert mined.command("status") == cli.OK
    out = " ".join(capsys.readouterr().out.split())
    half, other = found["fine_tuning"], found["evaluation"]
    assert f"fine-tuning half {half['positive']} positive, {half['negative']} negative, " in out
    assert f"evaluation half {other['positive']} positive, {other['negative']} negative, " in out
    low, high = f"{kappa['low']:.2f}", f"{kappa['high']:.2f}"
    assert f"among themselves {kappa['value']:.2f} [{low}, {high}] on 60 ads" in out
    assert f"tied ads {sheet} " in out
    # Training says the rest, from there on.
    mined.train()
    assert mined.status()["labels"] is None


def test_what_is_missing_is_named_by_class_and_half(mined: Loop) -> None:
    positives = [id for id in mined.shown(1) if GOLD.positive[id]]
    rows = [(id, "positive", "anna") for id in positives[:3]]
    assert mined.command("import", write_verdicts(mined.folder / "v.csv", rows)) == cli.OK
    found = mined.status()["labels"]
    have = found["fine_tuning"]["positive"]
    assert have + found["evaluation"]["positive"] == 3
    assert f"{5 - have} more positive in the fine-tuning half (training.min_per_class)" in " ".join(
        found["missing"]
    )
    assert "5 more negative in the fine-tuning half (training.min_per_class)" in found["missing"]
    assert found["missing"][-1].startswith("any negative in the evaluation half")
    assert found["expert_kappa"]["reason"] == "agreement needs at least 2 raters, got 1"


def test_new_labels_are_told_beside_the_last_evaluation(untrained: Loop) -> None:
    # Of both rounds together: the first round's model has not seen the second's.
    found, sides = untrained.status()["labels"], untrained.sides()
    ids = [id for number in (1, 2) for id in untrained.shown(number)]
    for half in ("fine_tuning", "evaluation"):
        assert found[half] == counted(untrained, (id for id in ids if sides[id] == half))
    assert found["missing"] == []


def test_damaged_verdicts_end_neither_status_nor_import(
    untrained: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    [path, *_] = sorted(untrained.root.glob("rounds/0001/verdicts/*/fine_tuning-*.jsonl"))
    path.write_bytes(b"damaged")
    found = untrained.status()
    assert found["labels"] is None
    [warning] = found["warnings"]
    assert warning.startswith("the labels cannot be counted: ") and "has changed since" in warning
    rows = [(id, "skip", "cy") for id in untrained.shown(2)]
    assert untrained.command("import", write_verdicts(untrained.folder / "v.csv", rows)) == cli.OK
    out = capsys.readouterr().out
    assert "Note:  The labels so far cannot be counted: " in out
    assert "cy" in untrained.manifest(2, "verdicts").facts.experts


def test_an_import_again_and_a_training_write_no_second_sheet(mined: Loop) -> None:
    path = answer(mined, 1)
    assert mined.command("import", path) == cli.OK
    [sheet] = mined.status()["labels"]["ties"]
    sheets = {p: p.stat().st_mtime_ns for p in (mined.root / "ties").rglob("*.csv")}
    assert Path(sheet) in sheets
    assert mined.command("import", path) == cli.OK
    summary, _ = mined.train()
    assert summary["ties"] == [sheet]
    assert {p: p.stat().st_mtime_ns for p in (mined.root / "ties").rglob("*.csv")} == sheets


def test_a_family_that_fills_a_half_is_told_by_import_and_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(tmp_path)
    ads = [
        {"id": f"f{n}", "text": f"Guaranteed cheap train tickets from London to Paris from £{n}"}
        for n in range(10, 90)
    ]
    helpers.write_jsonl(loop.folder / "ads.jsonl", ads)
    helpers.write_task(loop.folder)
    assert loop.mine() == cli.OK
    ids = loop.shown(1)
    rng = np.random.default_rng(0)
    rows = [(id, ("positive", "negative")[int(rng.random() < 0.5)], "anna") for id in ids]
    capsys.readouterr()
    assert loop.command("import", write_verdicts(loop.folder / "v.csv", rows)) == cli.OK
    out = " ".join(capsys.readouterr().out.split())
    found = loop.status()
    dominating, cut = found["warnings"]
    assert dominating.startswith(f"one family of ads that read nearly the same holds {len(ids)} of")
    assert "such as 'Guaranteed cheap train tickets" in dominating
    assert cut.startswith("1 family lies in both halves on purpose")
    half = found["rounds"][0]["labelled"]
    assert f"{half['evaluation']} of {half['evaluation']} evaluation ads" in cut
    assert abs(half["evaluation"] / len(ids) - 0.5) <= 0.2
    for line in found["warnings"]:
        assert f"Note: {line[0].upper()}{line[1:]}." in out
    assert loop.command("status") == cli.OK
    told = " ".join(capsys.readouterr().out.split())
    assert all(f"Note: {line}" in told for line in found["warnings"])
