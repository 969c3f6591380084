"""Nights: a synthetic fortnight, counted by hand, and what a night refuses, leaves alone, or goes on with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines import api, cli
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.nights import HISTORY, NEWEST, Night, Nights, PlannedNights
from pipelines.store import lock, storage
from pipelines.store.workspace import Workspace
from tests import helpers

ADS = 60
BAD = '{"id": "broken"\n'


def day(number: int) -> str:
    return f"2026-11-{number:02d}"


@dataclass
class Play:
    """A workspace and the files of its nights."""

    folder: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace(str(self.folder / "w"))

    @property
    def corpus(self) -> str:
        return str(self.folder / "ads" / "dt={date}" / "*.jsonl")

    def write(self, number: int, ads: list[dict[str, Any]], name: str = "a", bad: int = 0) -> None:
        path = self.folder / "ads" / f"dt={day(number)}" / f"{name}.jsonl"
        helpers.write_jsonl(path, ads)
        with path.open("a") as sink:
            sink.write(BAD * bad)

    def night(self, number: int, **changes: Any) -> Night:
        nights = self.run(date=day(number), **changes)
        assert isinstance(nights, Nights)
        [night] = nights.nights
        return night

    def run(self, **changes: Any) -> Nights | PlannedNights:
        settings = {"window": 3, "max_rejected_share": 0.05, "block_rows": 16}
        task, root = self.folder / "task.yaml", self.folder / "w"
        return api.nightly(task, self.corpus, root, **{**settings, **changes})

    def command(self, number: int, *more: str) -> int:
        argv = ["nightly", str(self.folder / "task.yaml"), "--corpus", self.corpus, "--date"]
        argv += [day(number), "--workspace", str(self.folder / "w"), "--window", "3", "--quiet"]
        return cli.main([*argv, "--max_rejected_share", "0.05", "--block_rows", "16", *more])


class Killed(BaseException):
    """What a SIGKILL leaves behind: nothing is cleaned up, nothing noted."""


def kill_after(patch: pytest.MonkeyPatch, writes: int, suffix: str) -> None:
    """Let a process die, so to say, once so many files of a kind are written: then it writes nothing more."""
    write, left = storage.write, [writes]

    def counted(path: str, data: bytes) -> None:
        left[0] -= path.endswith(suffix)
        if left[0] < 0:
            raise Killed
        write(path, data)

    patch.setattr(storage, "write", counted)


@pytest.fixture(scope="module")
def fortnight(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Play fourteen nights; the tests below count."""
    play = Play(tmp_path_factory.mktemp("fortnight"))
    helpers.write_task(play.folder)
    ads = helpers.tiny_ads(2000)
    # 11 is loud nearly throughout.
    loud = [ad for ad in ads[1000:] if "!" in ad["text"]][:50]
    of = {n: ads[(n - 1) * ADS : n * ADS] for n in range(1, 15)}
    of[11] = [*of[11][:10], *loud]
    play.write(1, of[1])
    play.night(1)
    play.write(2, of[2])
    play.night(2)
    play.write(3, of[3])
    play.night(3)
    play.night(3)
    play.write(4, of[4], bad=10)
    with pytest.raises(RunFailed, match="10 of 70 records"):
        play.night(4)
    assert play.command(5) == cli.ALERTED
    for n in (6, 7, 8):
        play.write(n, of[n])
    play.run(backfill=f"{day(6)}..{day(8)}")
    play.write(8, ads[900:910], "late")
    play.write(9, of[9])
    play.night(9)
    play.write(10, of[10])
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 2, ".rows.parquet")
        with pytest.raises(Killed):
            play.night(10, hand_out="every_night")
    play.night(10, hand_out="every_night")
    play.write(11, of[11])
    play.night(11)
    policy = helpers.FAKE_TASK.replace("version: 1", "version: 2").replace("promise.", "keep.")
    helpers.write_task(play.folder, policy)
    play.write(12, of[12])
    play.night(12, hand_out="every_night")
    play.write(13, of[13], bad=1)
    assert play.command(13, "--price", "2") == cli.ALERTED
    play.write(14, of[14])
    play.night(14, hand_out="every_night")
    # And the one that failed, once its file is mended.
    play.write(4, of[4])
    play.night(4)
    return play


def test_the_counts_are_those_by_hand(fortnight: Play) -> None:
    nights = api.status(fortnight.folder / "w", nights=True)
    assert isinstance(nights, Nights)
    found = {}
    for night in nights.nights:
        f = night.figures
        counts = (f.records, f.ads, f.new, f.late, f.rejected, f.pairs) if f else ()
        found[int(night.date[-2:])] = (night.state, night.round, *counts)
    assert found == {
        1: ("completed", 1, 60, 60, 60, 0, 0, 12),
        2: ("completed", 0, 60, 60, 60, 0, 0, 0),
        3: ("completed", 0, 60, 60, 60, 0, 0, 0),
        # Mended, and by the second policy, whose night read its whole window anew.
        4: ("completed", 0, 60, 60, 180, 0, 0, 0),
        5: ("empty", 0),
        6: ("completed", 0, 60, 60, 60, 0, 0, 0),
        7: ("completed", 0, 60, 60, 60, 0, 0, 0),
        8: ("completed", 0, 60, 60, 60, 0, 0, 0),
        9: ("completed", 0, 60, 60, 70, 10, 0, 0),
        # 32 by the run that was killed, the others by the next.
        10: ("completed", 2, 60, 60, 60, 0, 0, 12),
        11: ("completed", 0, 60, 60, 60, 0, 0, 0),
        12: ("completed", 3, 60, 60, 180, 0, 0, 12),
        13: ("completed", 0, 61, 60, 60, 0, 1, 0),
        14: ("completed", 4, 60, 60, 60, 0, 0, 12),
    }


def test_each_alarm_fires_where_it_should_and_nowhere_else(fortnight: Play) -> None:
    found = {
        int(date[-2:]): [alert.name for alert in night.facts.alerts]
        for date, night in fortnight.workspace.night.by_date().items()
        if night.facts.alerts
    }
    assert found == {
        5: ["no_new_ads"],
        11: ["positive_share", "drift", "jump"],
        13: ["rejected_share"],
    }


def test_nothing_is_asked_twice(fortnight: Play) -> None:
    workspace = fortnight.workspace
    shown: list[str] = []
    for number in workspace.rounds():
        [pairs] = workspace.pairs.all(number)
        shown += [ad.key for item in workspace.read_items(pairs) for ad in item.ads]
    assert len(shown) == len(set(shown)) == 4 * 24


def test_manifests_tell_of_every_run(fortnight: Play) -> None:
    states = {
        int(date[-2:]): [m.facts.state for m in fortnight.workspace.night.all(date)]
        for date in fortnight.workspace.night.by_date()
    }
    assert states[3] == ["begun", "completed"], "the double start left nothing"
    assert states[4] == ["begun", "failed", "begun", "completed"]
    assert states[5] == ["begun", "empty"]
    assert states[10] == ["begun", "stopped", "begun", "completed"]
    killed = fortnight.workspace.night.all(day(10))[1].facts
    assert list(killed.scored.values()) == [32]
    failed = fortnight.workspace.night.all(day(4))[1].facts
    assert failed.told.startswith("10 of 70 records")


def test_history_and_metrics_are_what_the_manifests_say(fortnight: Play) -> None:
    root = fortnight.folder / "w"
    lines = [json.loads(line) for line in (root / HISTORY).read_text().splitlines()]
    assert [line["date"] for line in lines] == [day(n) for n in range(1, 15)]
    thirteenth = fortnight.workspace.night.latest(day(13))
    assert thirteenth is not None
    [metrics] = [f for f in thirteenth.files if f.path.endswith("metrics.json")]
    held = json.loads((root / metrics.path).read_text())
    assert held == {"task": "tiny", **lines[12]}
    assert (held["cost"], held["rejected_share"]) == (0.12, round(1 / 61, 6))
    # Of the newest date, though another one ran last.
    newest = (root / NEWEST).read_text()
    assert 'scout_night_date_seconds{task="tiny",version="2"} 1794614400\n' in newest
    assert 'scout_night_pairs{task="tiny",version="2"} 12\n' in newest


@pytest.fixture
def play(tmp_path: Path) -> Play:
    helpers.write_task(tmp_path)
    play = Play(tmp_path)
    ads = helpers.tiny_ads(200)
    for n in (1, 2, 3):
        play.write(n, ads[(n - 1) * ADS : n * ADS])
    return play


def test_limits_stop_a_night_before_anything_is_scored(play: Play) -> None:
    with pytest.raises(RunFailed, match="60 ads are new, and --max_ads and --max_cost leave 59"):
        play.night(1, max_ads=59)
    with pytest.raises(RunFailed, match="leave 50: none of them was scored"):
        play.night(1, max_ads=70, max_cost=1.0, price=20.0)
    assert not (play.folder / "w" / "scores").exists()
    night = play.night(1, max_cost=1.2, price=20.0)
    assert night.figures and (night.figures.new, night.figures.cost) == (60, 1.2)


def test_a_dry_run_tells_and_writes_nothing(play: Play) -> None:
    planned = play.run(backfill=f"{day(3)}..{day(4)}", dry_run=True)
    assert isinstance(planned, PlannedNights)
    assert [(n.date, n.what, n.why, n.files) for n in planned.nights] == [
        (day(3), "run", "never ran", 1),
        (day(4), "run", "never ran, without a file", 0),
    ]
    assert planned.window == (day(2), day(3), day(4))
    assert "Nothing was written" in planned.text()
    assert not (play.folder / "w").exists()


def test_what_is_run_again(play: Play) -> None:
    play.write(1, [], bad=1)
    with pytest.raises(RunFailed):
        play.night(1, window=1)
    assert play.night(1, window=1, reprocess="none").state == "failed"
    assert play.command(1, "--reprocess", "none") == cli.FAILED
    play.write(1, helpers.tiny_ads(ADS))
    assert play.night(1, window=1).round == 1
    again = play.run(date=day(1), window=1, hand_out="every_night")
    assert isinstance(again, Nights) and again.nights[0].round == 1
    assert again.notes == (
        f"{day(1)}: completed; nothing to do (--reprocess completed runs it again)",
    )
    night = play.night(1, window=1, reprocess="completed", hand_out="every_night")
    assert night.round == 2 and night.figures and night.figures.new == ADS
    shown = [play.workspace.keys_of(play.workspace.pairs_of(n)) for n in (1, 2)]
    assert not shown[0] & shown[1]


@pytest.mark.parametrize("dies_at", ["items.jsonl", "metrics.json"])
def test_a_night_that_was_killed_goes_on_to_the_same_pairs(
    play: Play, fortnight: Play, dies_at: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 0, dies_at)
        with pytest.raises(Killed):
            play.night(1, window=1)
    handed_out = play.workspace.review.by_round()
    night = play.night(1, window=1)
    assert (night.state, night.round) == ("completed", 1)
    assert night.figures and (night.figures.new, night.figures.pairs) == (ADS, 12)
    # What experts may have by then is not replaced.
    assert play.workspace.review.by_round().items() >= handed_out.items()
    undisturbed = fortnight.workspace.read_items(fortnight.workspace.pairs_of(1))
    assert play.workspace.read_items(play.workspace.pairs_of(1)) == undisturbed


def test_experts_get_new_pairs_once_the_last_are_labelled(play: Play) -> None:
    play.night(1)
    night = play.night(2)
    assert night.figures and night.figures.held == "round 1 waits for labels of 24 ads"
    pairs = play.workspace.pairs_of(1)
    rows = [
        {"ad_id": ad.id, "label": "positive", "expert": name}
        for item in play.workspace.read_items(pairs)
        for ad in item.ads
        for name in ("anna", "bob")
    ]
    path = helpers.write_jsonl(play.folder / "said.jsonl", rows[:-2])
    api.import_verdicts(play.folder / "w", path)
    planned = play.run(date=day(3), dry_run=True)
    assert isinstance(planned, PlannedNights)
    assert planned.hand_out == "round 1 waits for labels of 1 ads"
    api.import_verdicts(play.folder / "w", helpers.write_jsonl(play.folder / "rest.jsonl", rows))
    assert play.night(3).round == 2


def test_one_command_at_a_time(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WAIT_SEC", 0.3)
    with (
        play.workspace.writing("mine", print),
        pytest.raises(RunFailed, match=r"`scout mine` of .* writes into it, and one command at a"),
    ):
        play.night(1)
    assert not (play.folder / "w" / "nights").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "date, backfill: give one of them"),
        ({"date": day(1), "backfill": "x"}, "date, backfill: give one of them"),
        ({"date": "yesterday"}, "date: not a date like 2026-11-21: 'yesterday'"),
        ({"backfill": day(1)}, "backfill: not dates like 2026-11-19..2026-11-21"),
        ({"backfill": f"{day(2)}..{day(1)}"}, "the oldest first"),
        ({"date": day(1), "max_cost": 3.0}, "max_cost: give price, too"),
        ({"date": day(1), "alert": ["drfit=1"]}, "no bound is called 'drfit'; did you mean drift"),
        ({"date": day(1), "alert": ["jump=x"]}, "give jump=VALUE with a number above 0"),
        ({"date": day(1), "corpus": "ads.jsonl"}, "{date} is missing"),
        ({"date": day(1), "beam": ["--template_location=t"]}, "a night waits for its jobs"),
    ],
)
def test_refusals(play: Play, changes: dict[str, Any], message: str) -> None:
    given = {"task": play.folder / "task.yaml", "corpus": play.corpus, "workspace": "w", **changes}
    with pytest.raises(UsageError) as caught:
        api.nightly(**given)
    assert message in str(caught.value)
