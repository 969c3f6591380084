"""The first rounds of a loop in which almost nothing is positive: no round locks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models import trained
from pipelines import cli
from pipelines.numerics.calibration import prior_bounds
from pipelines.store.facts import ModelFacts
from pipelines.store.workspace import Manifest
from tests import helpers
from tests.jobs.loop import GOLD, Loop, answer

BUDGET, PRIOR = 20, 0.35


def start(folder: Path, encoder: str, extra: str = "") -> Loop:
    loop = Loop(folder)
    helpers.write_jsonl(folder / "ads.jsonl", GOLD.ads)
    task = helpers.head_task(encoder, extra).replace("budget: 30", f"budget: {BUDGET}")
    helpers.write_task(folder, task.replace("learner: head", "learner: head, min_per_class: 2"))
    return loop


def play(loop: Loop, number: int, positives: int) -> None:
    """Mine a round and have experts call its first ads of each half positive, so many, no others."""
    assert loop.mine() == cli.OK
    ids = loop.shown(number)
    if number > 1:
        sides, positives = {}, 0
    else:
        # Which half an ad goes to is known once it is imported: the hash of its key decides.
        assert loop.command("import", answer(loop, number, lambda *_: "negative")) == cli.OK
        sides = loop.sides()
    chosen = {
        id
        for half in ("fine_tuning", "evaluation")
        for id in [id for id in ids if sides.get(id) == half][:positives]
    }
    said = answer(loop, number, lambda _, id: "positive" if id in chosen else "negative")
    # The second word on these ads, without times: it is meant as a correction.
    assert loop.command("import", said, "--on_conflict", "replace") == cli.OK


@pytest.mark.parametrize("positives", [1, 2, 3])
def test_few_positives_never_lock_the_loop(positives: int, encoder: str, tmp_path: Path) -> None:
    loop = start(tmp_path, encoder)
    for number in (1, 2, 3, 4):
        play(loop, number, positives)
        items = loop.place.read_items(loop.manifest(number, "pairs"))
        assert len(items) == BUDGET, "a round yields its budget while unseen ads are left"
        trained_at = loop.command("train")
        # One positive teaches nothing: the next round goes on with the model there is.
        assert trained_at == (cli.FAILED if positives == 1 else cli.OK)
    threshold = loop.manifest(4, "pairs").facts.threshold
    low, high = prior_bounds(PRIOR, 0 if positives == 1 else positives)
    assert low - 0.02 <= threshold.share <= high + 0.02
    if positives > 1:
        assert threshold.bound is not None and threshold.bound.labels == positives


def learnt(loop: Loop, number: int) -> Manifest[ModelFacts]:
    return loop.manifest(number, "model")


def test_training_says_what_the_prior_does_to_the_threshold(
    encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = start(tmp_path, encoder)
    play(loop, 1, 3)
    capsys.readouterr()
    summary, said = loop.train()
    facts = learnt(loop, 1).facts
    bound, fitted = facts.learnt.bound, facts.learnt.fitted
    assert bound is not None and fitted is not None
    assert (bound.labels, bound.enough, bound.prior) == (3, 40, PRIOR)
    assert f"threshold: {bound}" in said
    assert summary["bound"]["labels"] == 3
    assert fitted.low <= fitted.margin <= fitted.high
    assert bound.fitted_low <= bound.fitted_share <= bound.fitted_high
    # What is exported and what is evaluated is the bounded threshold.
    model = trained.read_manifest(Path(summary["model"]))
    assert model.threshold_margin == facts.learnt.threshold_margin == summary["threshold_margin"]
    assert facts.evaluation.models[-1].threshold == model.threshold_margin
    assert loop.command("train") == cli.OK
    assert str(bound) in capsys.readouterr().out.replace("\n", " ")
    # `mine` measures on the whole corpus what training measured on a sample of it: here they are one.
    assert loop.mine() == cli.OK
    out = capsys.readouterr().out.replace("\n", " ")
    threshold = loop.manifest(2, "pairs").facts.threshold
    assert threshold.bound == bound and str(bound) in out
    assert threshold.margin == model.threshold_margin


def test_a_corpus_that_is_gone_bounds_nothing_and_says_so(encoder: str, tmp_path: Path) -> None:
    loop = start(tmp_path, encoder)
    play(loop, 1, 3)
    for block in helpers.blocks_in(loop.root):
        block.unlink()
    _, said = loop.train()
    assert any(line.startswith("the threshold is not bounded by the prior") for line in said)
    facts = learnt(loop, 1).facts.learnt
    assert facts.bound is None and facts.fitted is not None
    assert facts.threshold_margin == facts.fitted.margin


def test_the_first_round_draws_more_at_random(encoder: str, tmp_path: Path) -> None:
    extra = "selection: {budget: 20, exploration_share: 0.1, first_round_share: 0.5}\n"
    loop = start(tmp_path, encoder)
    text = (tmp_path / "task.yaml").read_text().replace("selection: {budget: 20}\n", extra)
    (tmp_path / "task.yaml").write_text(text)
    corpus = tmp_path / "ads.jsonl"
    first = helpers.run(tmp_path / "task.yaml", corpus, loop.root)
    assert (first.exploration_share, first.exploration_pairs) == (0.5, 10)
    assert loop.command("import", answer(loop, 1)) == cli.OK
    assert loop.command("train") == cli.OK
    counts = learnt(loop, 1).facts.labels
    second = helpers.run(tmp_path / "task.yaml", corpus, loop.root)
    share = 0.1 + 0.4 * (1 - counts.rarer / 40)
    assert second.exploration_share == pytest.approx(share, abs=1e-6)
    assert second.exploration_pairs == int(share * 20)


def test_a_short_round_says_why(encoder: str, tmp_path: Path) -> None:
    loop = start(tmp_path, encoder)
    few = tmp_path / "few.jsonl"
    helpers.write_jsonl(few, GOLD.ads[:20])
    mined = helpers.run(tmp_path / "task.yaml", few, loop.root)
    assert sum(len(item.ads) for item in mined.items) == 20
    assert len(mined.items) < BUDGET
    assert "items are missing: no unseen ad is left" in mined.note
    assert mined.note in repr(mined)
    assert json.loads(json.dumps(mined.to_json()))["note"] == mined.note
