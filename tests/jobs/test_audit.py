"""An audit as a person plays it: draw, export, label, import, and what it says; and what it must not touch."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, precision_score, recall_score

from pipelines import api, cli
from pipelines.contracts import ReviewItem
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import audit as job
from pipelines.jobs.status import standing
from pipelines.numerics.audit import MEASURES
from pipelines.store.workspace import Workspace
from pipelines.tools.batch import read_batch
from pipelines.verdicts.halves import HALVES, read_audit, read_half
from tests import helpers
from tests.jobs.loop import GOLD as LOOP_GOLD
from tests.jobs.loop import Loop, answer, tree
from tests.tools.test_page import as_file, saved

GOLD = helpers.gold_ads(600, share=0.1)


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a corpus, its task and a workspace of one mined round."""
    folder = tmp_path_factory.mktemp("mined")
    helpers.write_jsonl(folder / "ads.jsonl", GOLD.ads)
    helpers.run(helpers.write_task(folder), folder / "ads.jsonl", folder / "w")
    return folder


@pytest.fixture
def folder(mined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mined, tmp_path / "played"))


def place(folder: Path) -> Workspace:
    return Workspace(str(folder / "w"))


def audited(folder: Path, budget: int = 80) -> api.Audited:
    return api.audit(folder / "task.yaml", folder / "w", budget=budget)


def items_of(folder: Path, number: int = 1) -> list[ReviewItem]:
    return place(folder).read_items(place(folder).audit_of(number))


def keys_of(items: Sequence[ReviewItem]) -> set[str]:
    return {ad.key for item in items for ad in item.ads}


def label(
    folder: Path, items: Sequence[ReviewItem], experts: Sequence[str] = ("anna",), wrong: int = 0
) -> Path:
    """Write what experts say of items: the truth, but for the last one's first ``wrong`` ads."""
    path = folder / f"verdicts-{len(items)}-{'-'.join(experts)}.csv"
    with open(path, "w", encoding="utf-8", newline="") as sink:
        rows = csv.writer(sink)
        rows.writerow(("item_id", "side", "label", "expert"))
        for expert in experts:
            shown = [(item.item_id, side, ad) for item in items for side, ad in item.sides()]
            for number, (item_id, side, ad) in enumerate(shown):
                positive = GOLD.positive[ad.id]
                if expert == experts[-1] and number < wrong:
                    positive = not positive
                rows.writerow((item_id, side, "positive" if positive else "negative", expert))
    return path


def mine(folder: Path, **changes: Any) -> Any:
    return helpers.run(folder / "task.yaml", folder / "ads.jsonl", folder / "w", **changes)


# --- The draw -------------------------------------------------------------------------------------


def test_an_audit_draws_single_ads_that_no_expert_saw(folder: Path) -> None:
    pairs = place(folder).pairs_of()
    found = audited(folder)
    items = items_of(folder)
    assert found.drawn_now == len(items) == 80 == found.audit.drawn
    assert {(len(item.ads), item.source) for item in items} == {(1, "audit")}
    assert not keys_of(items) & keys_of(place(folder).read_items(pairs))
    manifest = place(folder).audit_of()
    strata = manifest.facts.strata
    assert sum(stratum.drawn for stratum in strata) == 80
    assert sum(stratum.ads for stratum in strata) == 600 - pairs.facts.ads
    assert manifest.facts.left_out == pairs.facts.ads
    # The propensities are true: their inverses add up to the frame.
    assert sum(1 / item.propensity for item in items if item.propensity) == pytest.approx(
        600 - pairs.facts.ads, rel=1e-3
    )


def test_the_same_budget_draws_nothing_new_and_a_larger_one_the_rest(folder: Path) -> None:
    first = audited(folder)
    before = tree(folder / "w")
    again = audited(folder)
    assert (again.drawn_now, again.items_file) == (0, first.items_file)
    assert any("nothing to do" in note for note in again.notes)
    assert tree(folder / "w") == before
    small = keys_of(items_of(folder))
    assert audited(folder, 50).drawn_now == 0, "a smaller budget takes nothing back"
    more = audited(folder, 130)
    assert more.drawn_now == 50 and small < keys_of(items_of(folder))


def test_an_audit_that_was_killed_is_drawn_again_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            audited(folder)
    assert api.status(folder / "w").audit is None, "files without a manifest count for nothing"
    audited(folder)
    audited(other)
    [mine_, theirs] = (place(own).audit_of().file("items.jsonl") for own in (folder, other))
    assert mine_.sha256 == theirs.sha256


def test_mining_again_does_not_show_what_an_audit_drew(folder: Path) -> None:
    # The corpus lies elsewhere now: the round is mined for it first.
    mine(folder)
    pairs = place(folder).pairs_of()
    audited(folder, 300)
    mine(folder)
    assert place(folder).pairs_of().attempt == pairs.attempt, "an audit makes no round stale"
    mine(folder, budget=40)
    newer = place(folder).pairs_of()
    assert newer.attempt != pairs.attempt
    assert not keys_of(items_of(folder)) & keys_of(place(folder).read_items(newer))


def test_other_items_of_the_round_begin_an_audit_of_its_own(folder: Path) -> None:
    audited(folder, 40)
    old = items_of(folder)
    api.import_verdicts(folder / "w", label(folder, old))
    mine(folder, budget=40)
    found = audited(folder, 60)
    new = items_of(folder)
    shown = keys_of(place(folder).read_items(place(folder).pairs_of()))
    assert not keys_of(new) & (keys_of(old) | shown)
    # What the first audit learnt counts for the ads themselves.
    assert found.audit.known == 40 and found.audit.labelled == 0
    facts = place(folder).audit_of().facts
    assert facts.known.counts[1][0] + facts.known.counts[1][1] == sum(
        GOLD.positive[ad.id] for item in old for ad in item.ads
    )


def test_a_task_of_another_policy_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pairs"):
        api.audit(folder / "task.yaml", tmp_path / "nothing")
    for old, new, message in (
        ("name: tiny", "name: other", "holds rounds of the task 'tiny'"),
        ("nobody can promise", "anybody can promise", "policy, version or label names differ"),
    ):
        task = helpers.write_task(tmp_path, helpers.FAKE_TASK.replace(old, new))
        with pytest.raises(UsageError, match=message):
            api.audit(task, folder / "w")
    helpers.blocks_in(folder / "w")[0].unlink()
    with pytest.raises(RunFailed, match="scored ads of round 1 are no longer all in"):
        audited(folder)


# --- Out and back ---------------------------------------------------------------------------------


def test_every_tool_takes_an_audit_blind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audited(folder)
    ids = {item.item_id for item in items_of(folder)}
    for tool in ("page", "csv", "label-studio", "argilla", "doccano", "prodigy"):
        done = api.export(folder / "w", tool, audit=True)
        assert (done.items, done.counted, done.blind) == (80, "80 ads", True)
        text = "".join(Path(path).read_text(encoding="utf-8") for path in done.files)
        assert all(id in text for id in ids)
        # Whoever sets a tool up is told the workspace, which the test named after itself.
        told = text.replace(str(folder), "")
        assert "audit" not in told and '"propensity"' not in told
        assert all("exports/audit-0001" in path for path in done.files)
    with pytest.raises(UsageError, match="an audit is blind"):
        api.export(folder / "w", "label-studio", audit=True, show_predictions=True)
    with pytest.raises(UsageError, match="round 7: has no audit"):
        api.export(folder / "w", "page", audit=True, round=7)
    assert cli.main(["export", "--audit", "--tool", "csv", "--workspace", str(folder / "w")]) == 0
    assert "80 ads of tiny, round 1" in capsys.readouterr().out


def test_what_the_page_saves_of_an_audit_comes_back(folder: Path) -> None:
    audited(folder, 20)
    batch = read_batch(place(folder), audit=True)
    answers = [
        "positive" if GOLD.positive[ad.id] else "negative"
        for item in batch.items
        for ad in item.ads
    ]
    path = folder / "verdicts.json"
    path.write_bytes(as_file(saved(batch, answers)))
    done = api.import_verdicts(folder / "w", path)
    assert (done.verdicts, done.audit_ads, done.fine_tuning_ads, done.evaluation_ads) == (
        20,
        20,
        0,
        0,
    )


def test_audit_labels_belong_to_no_half_and_close_no_round(folder: Path) -> None:
    audited(folder)
    items = items_of(folder)
    done = api.import_verdicts(folder / "w", label(folder, items, ("anna", "bo")))
    assert (done.verdicts, done.audit_ads) == (160, 80)
    assert (done.fine_tuning_ads, done.evaluation_ads, done.withheld_ads) == (0, 0, 0)
    assert any("80 of audits" in note for note in done.notes)
    workspace = place(folder)
    assert [read_half(workspace, half, 1) for half in HALVES] == [[], []]
    assert {verdict.key for verdict in read_audit(workspace, 1)} == keys_of(items)
    assert workspace.current_round() == 1
    found = standing(workspace)
    assert found.rounds[0].labelled is None and "let experts label" in found.next
    assert workspace.verdicts_of(1) == {}, "nothing to train on"
    # Nor does an ad like one of them lose its half.
    api.import_verdicts(folder / "w", label(folder, workspace.read_items(workspace.pairs_of())))
    assert workspace.current_round() == 2
    sides = workspace.verdicts.latest(1)
    assert sides is not None and not sides.facts.keys.withheld
    assert sides.facts.keys.number == workspace.pairs_of().facts.ads
    before = tree(folder / "w")
    api.import_verdicts(folder / "w", label(folder, items, ("anna", "bo")))
    assert tree(folder / "w") == before, "the same file twice changes nothing"


def test_an_audit_of_a_trained_loop_changes_neither_training_nor_the_next_pairs(loop: Loop) -> None:
    task = loop.folder / "task.yaml"
    found = api.audit(task, loop.root, budget=60)
    assert (found.audit.round, found.audit.model_round, found.audit.newer_model) == (2, 1, 2)
    # Both halves are known, but for ads without a majority.
    assert found.audit.known + found.audit.left_out == 120
    assert found.audit.known > 80 and found.audit.ads == 300 - found.audit.left_out
    items = loop.place.read_items(loop.place.audit_of())
    rows = [
        (ad.id, "positive" if LOOP_GOLD.positive[ad.id] else "negative", "carl")
        for item in items
        for ad in item.ads
    ]
    path = loop.folder / "audit.csv"
    with open(path, "w", encoding="utf-8", newline="") as sink:
        csv.writer(sink).writerows([("ad_id", "label", "expert"), *rows])
    next_step = loop.status()["next"]
    with helpers.watched_reads() as opened:
        api.import_verdicts(loop.root, path)
        assert loop.status()["next"] == next_step
        assert api.status(loop.root).audit
    assert helpers.of_evaluation(opened) == []
    _, said = loop.train()
    assert said == ["round 2 is trained already with these labels; nothing to do"]
    assert loop.mine() == cli.OK
    assert not {*loop.shown(3)} & {ad.id for item in items for ad in item.ads}
    assert loop.command("import", answer(loop, 3)) == cli.OK
    audits = [ad.id for item in items for ad in item.ads]
    sides = loop.sides()
    assert {sides[id] for id in audits} == {"audit"}


# --- What it says ---------------------------------------------------------------------------------


def test_a_census_says_the_truth(folder: Path) -> None:
    audited(folder, 600)
    workspace = place(folder)
    api.import_verdicts(folder / "w", label(folder, items_of(folder)))
    pairs = workspace.pairs_of()
    api.import_verdicts(folder / "w", label(folder, workspace.read_items(pairs)))
    found = audited(folder, 600).audit
    assert (found.ads, found.left_out, found.known) == (600, 0, pairs.facts.ads)
    ads = [ad for item in (*items_of(folder), *workspace.read_items(pairs)) for ad in item.ads]
    said = np.array([GOLD.positive[ad.id] for ad in ads])
    called = np.array([ad.margin for ad in ads]) >= pairs.facts.threshold.margin
    wanted = {
        "share": said.mean(),
        "weighted_share": said.mean(),
        "precision": precision_score(said, called),
        "recall": recall_score(said, called),
        "kappa": cohen_kappa_score(said, called),
    }
    for way in (found.plain, found.powered):
        assert {name: own.value for name, own in way.items()} == pytest.approx(wanted)


def test_a_sample_says_it_with_intervals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audited(folder, 200)
    items = items_of(folder)
    capsys.readouterr()
    assert cli.main(["status", "--workspace", str(folder / "w")]) == cli.OK
    assert "no ad of it is labelled yet" in capsys.readouterr().out
    api.import_verdicts(folder / "w", label(folder, items[:20]))
    found = api.status(folder / "w").audit
    assert found is not None and not found.plain
    assert found.reason == "20 of its ads have a settled label, and 30 are needed"
    # Two experts of whom one errs: an ad on which they disagree has no majority.
    api.import_verdicts(folder / "w", label(folder, items, ("anna", "bo"), wrong=6))
    found = api.status(folder / "w").audit
    assert found is not None
    assert (found.drawn, found.labelled, found.unsettled) == (200, 194, 6)
    truth = np.mean([GOLD.positive[ad["id"]] for ad in GOLD.ads])
    assert [*found.plain] == [*found.powered] and {*found.plain} == {*MEASURES}
    share = found.plain["share"]
    # The draw goes by the corpus's files, which are new each time: one interval in twenty lies beside the truth.
    assert share.low is not None and share.high is not None
    assert share.low - 0.05 < truth < share.high + 0.05 and share.low < share.value < share.high
    assert found.halving_labels and 200 < found.halving_labels < 600
    assert cli.main(["status", "--workspace", str(folder / "w")]) == cli.OK
    out = capsys.readouterr().out
    assert "Audit of round 1, scored by LLM-0: 194 of 200 ads drawn at random" in out
    assert "share of positive, by distinct ads" in out and "prediction-powered" in out
    assert f"With {found.halving_labels:,} labels in all" in out
    assert "6 ads without a majority, 0 skipped" in out
    assert cli.main(["status", "--workspace", str(folder / "w"), "--json"]) == cli.OK
    told = json.loads(capsys.readouterr().out)["audit"]
    assert told["plain"]["share"] == dataclasses.asdict(share)
    argv = ["audit", str(folder / "task.yaml"), "--workspace", str(folder / "w"), "--budget", "200"]
    assert cli.main([*argv, "--json", "--quiet"]) == cli.OK
    assert json.loads(capsys.readouterr().out)["audit"] == told
    assert cli.main([*argv, "--runer=x"]) == cli.WRONG_USAGE
    assert "unknown flag --runer; did you mean --runner?" in capsys.readouterr().err
    report = api.report(folder / "w", out=folder / "report")
    page = Path(report.path).read_text(encoding="utf-8")
    assert "What holds for the whole corpus" in page
    assert "These labels train no model and choose no threshold." in page
    assert f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]" in page


def test_without_an_audit_status_and_report_say_what_is_lacking(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--workspace", str(folder / "w")]) == cli.OK
    assert "says nothing of traffic. `scout audit` draws ads at random" in capsys.readouterr().out
    report = api.report(folder / "w", out=folder / "report")
    page = Path(report.path).read_text(encoding="utf-8")
    assert "says nothing of traffic. `scout audit` draws ads at random" in page


def test_an_audit_of_an_older_policy_no_longer_counts(folder: Path) -> None:
    audited(folder)
    api.import_verdicts(folder / "w", label(folder, items_of(folder)))
    assert api.status(folder / "w").audit
    helpers.write_task(folder, helpers.FAKE_TASK.replace("version: 1", "version: 2"))
    mine(folder)
    assert api.status(folder / "w").audit is None


def test_seeds_of_audits_are_unrelated(folder: Path) -> None:
    audited(folder)
    base = place(folder).audit_of().facts
    assert base.seed == job._Base(base.base, frozenset(), None).seed
    assert base.seed != job._Base(base.base[::-1], frozenset(), None).seed
