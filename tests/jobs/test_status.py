"""Where the rounds stand, as a table and as JSON."""

from __future__ import annotations

import json
import re

import pytest

from pipelines import cli
from tests.jobs.loop import Loop, expected_kappas


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
    task, corpus = played.folder / "task.yaml", played.folder / "ads.jsonl"
    assert out.endswith(
        f"Next: run `scout mine {task} --corpus {corpus} --workspace {played.root}` for the next round\n"
    )
    assert "*" not in out
