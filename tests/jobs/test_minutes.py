"""Budgets in minutes: what they buy, and what is measured, spent and told."""

from __future__ import annotations

import datetime
import json

import pytest

from pipelines import cli
from pipelines.config import load_task
from pipelines.errors import UsageError
from pipelines.jobs.minutes import kind_of, spending
from pipelines.strategies import registry
from tests.jobs.loop import GOLD, Loop


def set_budget(loop: Loop, budget: str, more: str = "") -> None:
    task = loop.folder / "task.yaml"
    text = task.read_text().replace("budget: 30", f"budget: {budget}")
    task.write_text(text + more)


def timed_answer(loop: Loop, number: int, pair_sec: int) -> None:
    """Import a round's answers by two experts who take so long for each pair, and once a break."""
    lines = ["ad_id,label,expert,time"]
    items = loop.place.read_items(loop.manifest(number, "pairs"))
    for expert in ("anna", "bo"):
        at = datetime.datetime(2026, 11, 20, 9, tzinfo=datetime.UTC)
        for place, item in enumerate(items):
            at += datetime.timedelta(seconds=pair_sec + 3600 * (place == 10))
            for ad in item.ads:
                label = "positive" if GOLD.positive[ad.id] else "negative"
                lines.append(f"{ad.id},{label},{expert},{at:%Y-%m-%dT%H:%M:%SZ}")
    path = loop.folder / f"timed-{number}.csv"
    path.write_text("\n".join(lines))
    assert loop.command("import", path) == cli.OK


def test_minutes_buy_items_and_later_rounds_go_by_what_was_measured(
    mined: Loop, capsys: pytest.CaptureFixture[str]
) -> None:
    set_budget(mined, "{minutes: 40}")
    corpus = mined.folder / "ads.jsonl"
    command = ["mine", str(mined.folder / "task.yaml"), "--corpus", str(corpus)]
    command += ["--workspace", str(mined.root), "--show", "0"]
    assert cli.main(command) == cli.OK
    first = mined.manifest(1, "pairs")
    assert first.rows == 25, "40 minutes of two experts at .8 a pair"
    assert first.facts.origin.task.selection.minutes == 40
    assert "40 minutes buy 25 pairs: 0.8 minutes each (assumed" in capsys.readouterr().err
    assert cli.main(command) == cli.OK
    assert "nothing to do" in capsys.readouterr().err, "the same budget, the same round"
    timed_answer(mined, 1, pair_sec=30)
    found = spending(mined.place, load_task(mined.folder / "task.yaml"))
    pairs = sum(len(item.ads) == 2 for item in mined.place.read_items(first))
    rate = found.rates["pair"]
    assert (rate.source, rate.minutes) == ("measured", 0.5), "the break counts for nothing"
    assert rate.answers == pytest.approx(2 * pairs, abs=6)
    assert found.answers == 2 * first.rows
    singles = 2 * (first.rows - pairs)
    assert found.minutes == pytest.approx(2 * pairs * 0.5 + singles * found.rates["single"].minutes)
    assert mined.command("train") == cli.OK
    assert cli.main(command) == cli.OK
    assert mined.manifest(2, "pairs").rows == 40, "at .5 measured"
    capsys.readouterr()
    assert mined.command("status") == cli.OK
    out = capsys.readouterr().out
    assert f"Experts' time: {found.minutes:,.0f} minutes for {found.answers} answers" in out
    assert "pair 0.5 measured" in out
    assert mined.command("status", "--json") == cli.OK
    spent = json.loads(capsys.readouterr().out)["spent"]
    assert spent["by_round"] == {"1": pytest.approx(found.minutes)}
    assert mined.command("report") == cli.OK
    page = (mined.root / "report" / "report.html").read_text()
    assert f"{found.minutes:,.0f} minutes, all rounds and experts together" in page


def test_the_task_says_what_an_item_takes(mined: Loop) -> None:
    set_budget(mined, "{minutes: 40}", "review: {minutes: {pair: 2}}\n")
    assert mined.mine() == cli.OK
    assert mined.manifest(1, "pairs").rows == 10


def test_a_budget_of_the_command_line_is_in_items(mined: Loop) -> None:
    set_budget(mined, "{minutes: 40}")
    corpus = mined.folder / "ads.jsonl"
    task = mined.folder / "task.yaml"
    assert mined.command("mine", task, "--corpus", corpus, "--budget", 12) == cli.OK
    assert mined.manifest(1, "pairs").rows == 12


def test_before_any_answer_nothing_is_spent(mined: Loop) -> None:
    assert mined.status()["spent"] is None


def test_what_an_item_is_goes_by_its_strategy() -> None:
    kinds = {name: kind_of(registry.create(name)) for name in registry.names()}
    assert (kinds["boundary"], kinds["relevance"], kinds["random"]) == (
        "pair",
        "positives",
        "single",
    )


@pytest.mark.parametrize(
    "budget", ["{minutes: 0}", "{hours: 2}", "{minutes: 3, pairs: 2}", "{minutes: }"]
)
def test_what_is_no_budget_is_refused(mined: Loop, budget: str) -> None:
    set_budget(mined, budget)
    with pytest.raises(UsageError, match=r"task.yaml:\d+: selection"):
        load_task(mined.folder / "task.yaml")
