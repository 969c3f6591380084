"""Labels that look wrong come back for a second look, and nothing is changed by it."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from pipelines import api, cli
from pipelines.errors import UsageError
from pipelines.jobs import recheck as job
from tests import helpers
from tests.jobs.loop import EXPERTS, GOLD, ID_OF, Loop, answer, tree, write_verdicts

RATE = 0.1


def _wrong(id: str) -> bool:
    """Tell whether an ad's label is planted wrong: one ad in ten, whoever labels."""
    return random.Random(f"planted {id}").random() < RATE


def planted(_expert: str, id: str) -> str:
    return "positive" if GOLD.positive[id] != _wrong(id) else "negative"


@pytest.fixture
def labelled(mined: Loop) -> Loop:
    """Return a first round of 60 pairs whose labels are wrong in places."""
    task = mined.folder / "task.yaml"
    task.write_text(task.read_text().replace("budget: 30", "budget: 70"))
    assert mined.mine() == cli.OK
    assert mined.command("import", answer(mined, 1, planted)) == cli.OK
    return mined


def rows_of(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text("utf-8-sig").splitlines()))


def test_planted_errors_are_listed_at_several_times_their_rate(
    labelled: Loop, opened: list[str]
) -> None:
    before = tree(labelled.root)
    del opened[:]
    found = api.recheck(str(labelled.root))
    assert not helpers.of_evaluation(opened), "what judges models is not looked at again by one"
    facts = labelled.place.verdicts.by_round()[1].facts
    training = [ID_OF[key] for key in facts.keys.fine_tuning]
    share = sum(map(_wrong, training)) / len(training)
    listed = [suspect.ad_id for suspect in found.suspects]
    assert set(listed) <= set(training) and found.ads == len(training)
    assert 0.02 < share < 0.25 and len(listed) >= 3
    assert sum(map(_wrong, listed)) / len(listed) >= 3 * share
    added = {name: data for name, data in tree(labelled.root).items() if name not in before}
    assert {name.split("/")[0] for name in added} == {"recheck"}
    assert {name: tree(labelled.root)[name] for name in before} == before, "no label is changed"
    assert api.recheck(str(labelled.root)).to_json() == found.to_json(), "the same again"


def test_the_sheet_is_blind_and_comes_back_by_import(labelled: Loop) -> None:
    found = api.recheck(str(labelled.root))
    rows = rows_of(found.sheet)
    assert {row["ad_id"] for row in rows} == {suspect.ad_id for suspect in found.suspects}
    assert all(not row["label"] and not row["expert"] and not row["side"] for row in rows)
    assert "model" not in Path(found.sheet).read_text("utf-8-sig").splitlines()[0]
    told = Path(found.sheet).with_name("recheck-instructions.txt").read_text()
    assert f"Back: scout import {found.sheet}" in told.replace("`", "")
    listing = {row["ad_id"]: row for row in rows_of(found.listing)}
    for suspect in found.suspects:
        assert listing[suspect.ad_id]["label"] == suspect.label
        assert listing[suspect.ad_id]["reasons"] == "; ".join(suspect.reasons)
        assert suspect.experts == EXPERTS
    wrong = [suspect.ad_id for suspect in found.suspects if _wrong(suspect.ad_id)]
    again = [
        (id, "positive" if GOLD.positive[id] else "negative", expert)
        for id in wrong
        for expert in EXPERTS
    ]
    back = write_verdicts(labelled.folder / "again.csv", again)
    assert labelled.command("import", back, "--on_conflict", "replace") == cli.OK
    later = api.recheck(str(labelled.root))
    assert not {suspect.ad_id for suspect in later.suspects} & set(wrong)


def test_the_limit_keeps_the_most_doubtful(labelled: Loop, capsys: pytest.CaptureFixture) -> None:
    whole = api.recheck(str(labelled.root))
    assert labelled.command("recheck", "--limit", 2, "--json") == cli.OK
    short = json.loads(capsys.readouterr().out)
    assert [one["ad_id"] for one in short["suspects"]] == [one.ad_id for one in whole.suspects[:2]]
    assert short["found"] == whole.found > 2
    assert labelled.command("recheck", "--limit", 2) == cli.OK
    out = capsys.readouterr().out
    assert whole.suspects[0].ad_id in out and whole.suspects[2].ad_id not in out
    assert f"Sheet:    {short['sheet']}" in out


def test_copies_with_two_labels_are_listed_without_a_model(
    mined: Loop, capsys: pytest.CaptureFixture
) -> None:
    # Copies of ads that the round shows anyway, one word apart; few labels of a class: no head.
    ads = [json.loads(line) for line in (mined.folder / "ads.jsonl").read_text().splitlines()]
    twins = [{"id": f"twin-{ad['id']}", "text": f"{ad['text']} libro"} for ad in ads]
    helpers.write_jsonl(mined.folder / "ads.jsonl", [*ads, *twins])
    task = mined.folder / "task.yaml"
    task.write_text(task.read_text().replace("budget: 30", "budget: 150"))
    assert mined.mine() == cli.OK
    shown = set(mined.shown(1))
    pairs = sorted(id for id in shown if f"twin-{id}" in shown)[:6]
    assert len(pairs) == 6
    said = [(id, "positive", "anna") for id in pairs]
    said += [(f"twin-{id}", "negative", "anna") for id in pairs]
    assert mined.command("import", write_verdicts(mined.folder / "v.csv", said)) == cli.OK
    capsys.readouterr()
    found = api.recheck(str(mined.root))
    listed = {suspect.ad_id: suspect for suspect in found.suspects}
    both = [id for id in pairs if id in listed]
    assert both and found.expected is None
    for id in both:
        assert listed[id].kinds == ("copy",) == listed[f"twin-{id}"].kinds
        assert (
            f"twin-{id}" in listed[id].reasons[0] and "labelled negative" in listed[id].reasons[0]
        )
    assert any("no head is asked" in line for line in found.notes)


def test_an_expert_who_drifts_is_named(mined: Loop) -> None:
    task = mined.folder / "task.yaml"
    task.write_text(task.read_text().replace("budget: 30", "budget: 140"))
    assert mined.mine() == cli.OK
    shown = mined.shown(1)
    lines = ["ad_id,label,expert,time"]
    for number, id in enumerate(shown):
        for expert in ("anna", "bo", "cy"):
            chance = 0.75 if expert == "cy" and number > len(shown) / 2 else 0.04
            wrong = random.Random(f"{expert} {id}").random() < chance
            label = "positive" if GOLD.positive[id] != wrong else "negative"
            time = f"2026-11-{1 + number // 60:02d}T10:{number % 60:02d}:00Z"
            lines.append(f"{id},{label},{expert},{time}")
    path = mined.folder / "v.csv"
    path.write_text("\n".join(lines))
    assert mined.command("import", path) == cli.OK
    found = api.recheck(str(mined.root), limit=500)
    assert [one.expert for one in found.drifting] == ["cy"]
    assert found.drifting[0].high < 0 and not found.drifting[0].alone
    named = [one for one in found.suspects if "expert" in one.kinds]
    late = {id for number, id in enumerate(shown) if number > len(shown) / 2 - 20}
    assert named and {one.ad_id for one in named} <= late
    assert "cy drifts from the others: agreement -" in found.text()


def test_no_cell_is_a_formula() -> None:
    suspect = job.Suspect(
        "=1+1", "=cmd|' /C calc'!A0", "positive", ("@anna",), ("model",), ("-2",), 0.1
    )
    [row] = list(csv.reader(job.reasons_sheet([suspect]).decode("utf-8-sig").splitlines()))[1:]
    assert all(cell.startswith("'") for cell in (row[0], row[1], row[3], row[4]))


def test_without_labels_it_says_what_is_missing(mined: Loop) -> None:
    with pytest.raises(UsageError, match="no ad of the fine-tuning half has a settled label"):
        api.recheck(str(mined.root))
