"""The main job end to end: tiny corpora, the fake labeler, real files."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks import _mining
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import mine as mine_job
from pipelines.jobs.mine import mine
from pipelines.sources.base import ReadOptions
from pipelines.store import scores
from pipelines.store.facts import VerdictsFacts
from pipelines.store.workspace import Manifest, Workspace
from tests import helpers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return helpers.write_task(tmp_path)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return helpers.write_jsonl(tmp_path / "corpus" / "ads.jsonl", helpers.tiny_ads())


def scored_rows(workspace: Path) -> list[dict[str, Any]]:
    place = Workspace(str(workspace))
    manifest = place.latest(place.rounds()[-1], "scored")
    assert manifest is not None
    return helpers.scored_table(workspace, manifest).to_pylist()


def test_pairs_are_what_they_promise(task: Path, corpus: Path, tmp_path: Path) -> None:
    mined = helpers.run(task, corpus, tmp_path / "w")
    texts = {ad["id"]: ad["text"] for ad in helpers.tiny_ads()}
    scored = {row["id"]: row for row in scored_rows(tmp_path / "w")}
    assert set(scored) == set(texts)
    assert [item.rank for item in mined.items] == list(range(1, 13))
    assert [item.source for item in mined.items].count("exploration") == 6
    used: list[str] = []
    share = 0.0
    for item in mined.items:
        for ad in item.ads:
            assert ad.text == texts[ad.id]
            assert ad.margin == scored[ad.id]["margin"]
            used.append(ad.id)
        ads = helpers.by_label(item)
        assert ads["positive"].probability >= mined.threshold_probability - 1e-6
        assert ads["negative"].probability < mined.threshold_probability
        if item.source == "boundary":
            assert item.overlap is not None
            so_far = item.overlap.cumulative_share
            assert so_far == pytest.approx(share + item.overlap.covered_share, abs=1e-5)
            share = so_far
        else:
            assert item.propensity is not None and 0 < item.propensity <= 1
            assert item.drawn in {ad.key for ad in item.ads}
    assert len(set(used)) == len(used), "an ad is asked about once"
    assert mined.covered_share == pytest.approx(share, abs=1e-6)


def test_a_rerun_changes_nothing_and_scores_nothing(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    first = helpers.run(task, corpus, tmp_path / "w")
    before = sorted(path for path in (tmp_path / "w").rglob("*") if path.is_file())
    second = helpers.run(task, corpus, tmp_path / "w")
    assert helpers.pairs_bytes(second) == helpers.pairs_bytes(first)
    assert (second.scored_now, second.reused) == (0, 200)
    assert sorted(path for path in (tmp_path / "w").rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("shards", [2, 7])
def test_pairs_do_not_depend_on_shards_or_order(
    shards: int, task: Path, corpus: Path, tmp_path: Path
) -> None:
    whole = helpers.run(task, corpus, tmp_path / "w")
    ads = helpers.tiny_ads()
    random.Random(shards).shuffle(ads)
    for shard in range(shards):
        helpers.write_jsonl(tmp_path / "cut" / f"s{shard}.jsonl", ads[shard::shards])
    cut = helpers.run(task, tmp_path / "cut" / "*.jsonl", tmp_path / "w2", block_rows=33)
    assert helpers.pairs_bytes(cut) == helpers.pairs_bytes(whole)
    # The same ads in other files: nothing is scored again.
    again = helpers.run(task, tmp_path / "cut" / "*.jsonl", tmp_path / "w")
    assert again.scored_now == 0
    assert helpers.pairs_bytes(again) == helpers.pairs_bytes(whole)


def test_new_ads_are_scored_and_old_ones_reused_with_todays_weights(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    helpers.run(task, corpus, tmp_path / "w")
    ads = helpers.tiny_ads(230)
    for ad in ads:
        ad["shown"] = 3
    grown = helpers.write_jsonl(tmp_path / "grown.jsonl", ads[50:])
    mined = helpers.run(task, grown, tmp_path / "w", read=ReadOptions(weight_field="shown"))
    assert (mined.scored_now, mined.reused) == (30, 150)
    rows = scored_rows(tmp_path / "w")
    assert {row["id"] for row in rows} == {ad["id"] for ad in ads[50:]}
    assert {row["weight"] for row in rows} == {3000}
    fresh = helpers.run(task, grown, tmp_path / "w2", read=ReadOptions(weight_field="shown"))
    assert helpers.pairs_bytes(mined) == helpers.pairs_bytes(fresh)


def test_ads_that_the_encoder_cannot_read_are_told_with_what_reads_them(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    mined = helpers.run(task, corpus, tmp_path / "w")
    said = mine_job._unread(dataclasses.replace(mined, unread={"EMOJI": 2, "THAI": 18}), "base")
    assert said.startswith("the encoder cannot read 20 of 200 ads (10.0%: THAI 18, EMOJI 2): ")
    assert "embedding.source: llm reads every script" in said


def test_a_changed_prompt_or_seed_is_another_run(task: Path, corpus: Path, tmp_path: Path) -> None:
    first = helpers.run(task, corpus, tmp_path / "w")
    text = helpers.FAKE_TASK
    other_seed = helpers.write_task(tmp_path, text + "seed: 5\n")
    second = helpers.run(other_seed, corpus, tmp_path / "w")
    assert second.scored_now == 0
    assert second.pairs_file != first.pairs_file
    other_prompt = helpers.write_task(tmp_path, text.replace("nobody can promise", "no one can"))
    third = helpers.run(other_prompt, corpus, tmp_path / "w")
    assert third.scored_now == 200


def test_duplicates_are_scored_once_and_weigh_their_sum(task: Path, tmp_path: Path) -> None:
    ads = helpers.tiny_ads(100)
    copies = [
        {"id": f"z{n}", "text": f"  {ad['text'].upper()} ", "w": 2.5}
        for n, ad in enumerate(ads[:30])
    ]
    rows = [{**ad, "w": 1} for ad in ads] + copies
    corpus = helpers.write_jsonl(tmp_path / "a.jsonl", rows)
    mined = helpers.run(task, corpus, tmp_path / "w", read=ReadOptions(weight_field="w"))
    assert (mined.records, mined.unique) == (130, 100)
    found = {row["id"]: row for row in scored_rows(tmp_path / "w")}
    assert set(found) == {ad["id"] for ad in ads}, "the smallest id represents the copies"
    assert (found["t0000"]["weight"], found["t0000"]["copies"]) == (3500, 2)
    assert (found["t0099"]["weight"], found["t0099"]["copies"]) == (1000, 1)


def test_another_spelling_as_representative_is_scored_anew(task: Path, tmp_path: Path) -> None:
    # The model sees capitals, so a score holds for the exact text only.
    ads = helpers.tiny_ads(60)
    helpers.run(task, helpers.write_jsonl(tmp_path / "a.jsonl", ads), tmp_path / "w")
    shouted = {"id": "a-smaller-id", "text": ads[5]["text"].upper()}
    grown = helpers.write_jsonl(tmp_path / "b.jsonl", [*ads, shouted])
    mined = helpers.run(task, grown, tmp_path / "w")
    assert (mined.scored_now, mined.unique) == (1, 60)
    texts = {row["id"]: row["text"] for row in scored_rows(tmp_path / "w")}
    assert texts["a-smaller-id"] == shouted["text"]


BAD = [
    (b"{not json}", "not_json"),
    (b"[1]", "not_an_object"),
    (b'{"id": "no-text"}', "no_text"),
    (b'{"id": "empty", "text": " \\u200b "}', "empty_text"),
    (b'{"id": "latin", "text": "caf\xe9"}', "not_utf8"),
    (b'{"id": "long", "text": "' + b"x" * 30_000 + b'"}', "too_long"),
    (b'{"id": "type", "text": 5}', "wrong_type"),
    (b'{"id": "key", "text": "one", "text": "other"}', "field_twice"),
    (b'{"id": "twice", "text": "one text"}', "id_conflict"),
    (b'{"id": "twice", "text": "another text"}', "id_conflict"),
    (b'{"id": "poison", "text": "a <poison> ad"}', "scoring_failed"),
    (b'{"id": "no-number", "text": "a <nan> ad"}', "not_finite"),
]


def test_one_bad_record_of_each_kind(task: Path, tmp_path: Path) -> None:
    good = helpers.tiny_ads()
    path = helpers.write_jsonl(tmp_path / "a.jsonl", good)
    path.write_bytes(path.read_bytes() + b"\n".join(line for line, _ in BAD) + b"\n")
    read = ReadOptions(encoding="utf-8")
    with pytest.raises(RunFailed, match=r"10 of 212 records \(4\.7%\) were rejected"):
        helpers.run(task, path, tmp_path / "w", read=read)
    with pytest.raises(RunFailed, match=r"12 of 212 records .* scoring_failed 1"):
        helpers.run(task, path, tmp_path / "w", max_rejected_share=0.05, read=read)
    mined = helpers.run(task, path, tmp_path / "w", max_rejected_share=0.06, read=read)
    assert set(mined.rejected_examples) == {reason for _, reason in BAD}
    assert mined.rejected_examples["field_twice"].startswith(
        "a.jsonl, line 208: a field is given twice: 'text'; it begins"
    )
    assert "first field_twice" in mined.text(0)
    letters = [
        json.loads(line)
        for name in mined.dead_letters
        for line in Path(name).read_text(encoding="utf-8").splitlines()
    ]
    assert sorted(letter["reason"] for letter in letters) == sorted(reason for _, reason in BAD)
    assert {letter["position"]: letter["reason"] for letter in letters} == {
        f"line {201 + n}": reason for n, (_, reason) in enumerate(BAD)
    }
    assert {letter["source"] for letter in letters} == {str(path)}
    assert {letter["id"] for letter in letters} >= {"poison", "no-number", "twice", "latin", ""} - {
        "latin"
    }
    assert {row["id"] for row in scored_rows(tmp_path / "w")} == {ad["id"] for ad in good}
    assert mined.rejected == 12
    assert len(mined.items) == 12


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the corpus holds no records"),
        (b"\n\n", "the corpus holds no records"),
        (b"{x\n" * 5, "none of the 5 records is usable: not_json 5"),
        (b'{"id": "1", "text": "lonely ad"}\n', "two classes need at least 2 scored ads"),
        (b'{"id": "1", "text": "<nan>"}\n', "were rejected"),
    ],
)
def test_a_useless_corpus_fails_with_one_sentence(
    data: bytes, message: str, task: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(RunFailed) as caught:
        helpers.run(task, tmp_path / "a.jsonl", tmp_path / "w")
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    with pytest.raises(UsageError, match="no file matches"):
        helpers.run(task, tmp_path / "none*.jsonl", tmp_path / "w")


def test_one_class_empty_says_what_to_change(task: Path, corpus: Path, tmp_path: Path) -> None:
    strict = helpers.write_task(tmp_path, helpers.FAKE_TASK + "labeling: {threshold: 0.9999}\n")
    with pytest.raises(RunFailed) as caught:
        helpers.run(strict, corpus, tmp_path / "w")
    assert "no ad is labelled positive" in caught.value.message
    assert "change labeling.threshold or prior" in caught.value.message


@pytest.mark.parametrize(
    "extra",
    [
        "clustering: {positive_clusters: 4000, negative_clusters: 4000}\n",
        "clustering: {positive_clusters: 1, negative_clusters: 1}\n",
        "selection: {budget: 100000}\n",
        "selection: {budget: 1}\n",
        "search: {neighbors: 100, exhaustive_rows: 1000, index: exact}\n",
        "overlaps: {per_positive_cluster: 64}\n",
        "embedding: {standardize: never}\n",
    ],
)
def test_extreme_settings_still_give_pairs(extra: str, corpus: Path, tmp_path: Path) -> None:
    base = helpers.FAKE_TASK.replace("selection: {budget: 12}\n", "")
    mined = helpers.run(helpers.write_task(tmp_path, base + extra), corpus, tmp_path / "w")
    assert 1 <= len(mined.items) <= mined.budget
    used = [ad.id for item in mined.items for ad in item.ads]
    assert len(set(used)) == len(used)


@pytest.mark.skipif(sys.platform != "linux", reason="ScaNN is built for Linux only")
def test_scann_and_exact_search_find_the_same_pairs(corpus: Path, tmp_path: Path) -> None:
    found = []
    for index in ("exact", "scann"):
        text = helpers.FAKE_TASK + f"search: {{index: {index}}}\n"
        mined = helpers.run(helpers.write_task(tmp_path, text), corpus, tmp_path / index)
        found.append(helpers.pairs_bytes(mined))
    assert found[0] == found[1]


def test_two_ads_are_enough(task: Path, tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "won a free miracle"}, {"id": "b", "text": "library terms"}]
    mined = helpers.run(task, helpers.write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "w")
    assert [
        {label: ad.id for label, ad in helpers.by_label(item).items()} for item in mined.items
    ] == [{"positive": "a", "negative": "b"}]


def test_ads_that_look_all_alike(task: Path, tmp_path: Path) -> None:
    # Equal trigrams up to one far-away character: all vectors nearly equal, many identical.
    rows = [{"id": f"{n}", "text": "the same words again " * 40 + "!" * n} for n in range(40)]
    mined = helpers.run(task, helpers.write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "w")
    assert mined.items


KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.store import storage
from tests import helpers
folder, when, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
real, seen = storage.write, 0
def write(path, data):
    global seen
    seen += '.probe-' not in path
    if seen == when:
        if how == 'half':
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).with_name('.' + Path(path).name + '.tmp').write_bytes(data[:len(data) // 2])
        if how == 'after':
            real(path, data)
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, data)
storage.write = write
helpers.run(folder / 'task.yaml', folder / 'corpus' / 'ads.jsonl', folder / 'w')
"""


@pytest.mark.parametrize(
    ("when", "how"),
    [
        (1, "half"),
        (2, "half"),
        (2, "after"),
        (3, "after"),
        (5, "half"),
        (13, "half"),
        (14, "before"),
        (14, "after"),
        (17, "half"),
        (21, "half"),
    ],
)
def test_a_killed_run_goes_on(
    when: int, how: str, task: Path, corpus: Path, tmp_path: Path
) -> None:
    # 4 blocks, their vectors first, and what the corpus says of them (writes 1 to 12), the list of parts
    # (13), the scored manifest (14), clusters (15 to 17), pairs (18, 19), review (20, 21), summary (22).
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(when), how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = helpers.run(task, corpus, tmp_path / "w")
    done = when if how == "after" else when - 1
    whole_blocks = min((done + 1) // 3, 4)
    assert resumed.scored_now == 200 - sum([64, 64, 64, 8][:whole_blocks])
    ids = [row["id"] for row in scored_rows(tmp_path / "w")]
    assert sorted(ids) == sorted(ad["id"] for ad in helpers.tiny_ads())
    untouched = helpers.run(task, corpus, tmp_path / "w2")
    assert helpers.pairs_bytes(resumed) == helpers.pairs_bytes(untouched)


KILLED_WHILE_SCORING = """
import os, signal, sys
from pathlib import Path
from models.backends.fake import FakeLabeler
from tests import helpers
folder, when = Path(sys.argv[1]), int(sys.argv[2])
real = FakeLabeler.label
def label(self, texts):
    if self.calls == when:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, texts)
FakeLabeler.label = label
helpers.run(folder / 'task.yaml', folder / 'corpus' / 'ads.jsonl', folder / 'w', block_rows=20)
"""


def test_every_killed_run_keeps_what_it_scored(task: Path, corpus: Path, tmp_path: Path) -> None:
    # Ten blocks of 20; each run dies in its third call of the labeler.
    for run in range(1, 4):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_WHILE_SCORING, str(tmp_path), "2"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        place = Workspace(str(tmp_path / "w"))
        assert len(helpers.blocks_in(tmp_path / "w")) == 2 * run
        assert place.rounds() == []
    resumed = helpers.run(task, corpus, tmp_path / "w")
    assert resumed.scored_now == 200 - 3 * 40
    untouched = helpers.run(task, corpus, tmp_path / "w2")
    assert helpers.pairs_bytes(resumed) == helpers.pairs_bytes(untouched)


@pytest.mark.parametrize("half", ["rows", "vectors"])
def test_a_damaged_block_is_named(half: str, task: Path, corpus: Path, tmp_path: Path) -> None:
    helpers.run(task, corpus, tmp_path / "w")
    block = helpers.blocks_in(tmp_path / "w")[0]
    path = block if half == "rows" else block.with_name(block.name.replace(".rows.", ".vectors."))
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(RunFailed, match=rf"{path.name}: has changed since it was written"):
        helpers.run(task, corpus, tmp_path / "w", budget=7)
    # The cure that the message names works: what is gone is scored anew, and only that.
    path.unlink()
    mended = helpers.run(task, corpus, tmp_path / "w", budget=7)
    assert mended.scored_now == pq.read_metadata(block).num_rows if half == "vectors" else 8
    whole = helpers.run(task, corpus, tmp_path / "w2", budget=7)
    assert helpers.pairs_bytes(mended) == helpers.pairs_bytes(whole)


@pytest.mark.parametrize(
    ("sample_rows", "at_least", "below"), [(100_000, 2.0, 2.4), (100, 1.0, 1.5)]
)
def test_a_second_mining_reads_vectors_once_and_those_of_the_sample_again(
    sample_rows: int, at_least: float, below: float, tmp_path: Path
) -> None:
    # 4,000 ads of 384 dimensions, scored already.
    _mining.write_scored(tmp_path, 4000)
    task = tmp_path / "task.yaml"
    task.write_text(task.read_text() + f"clustering: {{sample_rows: {sample_rows}}}\n")
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    with helpers.counted_blocks() as counts:
        mined = mine(_mining.options(tmp_path), lambda line: None)
    assert mined.scored_now == 0 and mined.items
    # The margins; key, margin and vector of what centroids are fitted on: all ads, or the few blocks that
    # hold the sample and the positives of every block; all that is assigned; the rows of the band.
    assert counts["whole"] == 0 and at_least * stored < counts["ranges"] < below * stored


@pytest.mark.parametrize(
    ("how", "more_ads"),
    [
        ("first page", False),
        ("middle", False),
        ("middle", True),
        ("footer", False),
        ("cut", False),
        ("gone", False),
    ],
)
def test_a_damaged_block_is_named_wherever_it_is_used(
    task: Path,
    corpus: Path,
    tmp_path: Path,
    how: str,
    more_ads: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    helpers.run(task, corpus, tmp_path / "w")
    block = helpers.blocks_in(tmp_path / "w")[0]
    data = bytearray(block.read_bytes())
    # What is lost before a run begins is scored anew; this is lost while it runs.
    monkeypatch.setattr(scores, "is_whole", lambda *_: True)
    said = r"has changed since it was written \(.*delete it and run again"
    if how == "cut":
        block.write_bytes(data[:-1])
    elif how == "gone":
        block.unlink()
        said = "is gone; run again: its ads are scored anew"
    else:
        data[{"first page": 60, "middle": len(data) // 2, "footer": len(data) - 300}[how]] ^= 1
        block.write_bytes(data)
    if more_ads:
        corpus = helpers.write_jsonl(tmp_path / "more.jsonl", helpers.tiny_ads(220))
    pairs = {*(tmp_path / "w").rglob("items.jsonl")}
    with pytest.raises(RunFailed, match=f"{block.name}: {said}"):
        helpers.run(task, corpus, tmp_path / "w", budget=7)
    assert {*(tmp_path / "w").rglob("items.jsonl")} == pairs, "nothing was committed"


def test_few_positives_are_for_pairs_not_for_exploration(corpus: Path, tmp_path: Path) -> None:
    rare = helpers.FAKE_TASK.replace("prior: 0.2", "prior: 0.02").replace(
        "budget: 12", "budget: 100"
    )
    mined = helpers.run(helpers.write_task(tmp_path, rare), corpus, tmp_path / "w")
    sources = [item.source for item in mined.items]
    # Half of the first round's pairs, and not half of the budget.
    assert (sources.count("boundary"), sources.count("exploration")) == (2, 2)
    assert len(mined.items) == 100 and mined.covered_share > 0


def test_heavy_weights_neither_overflow_nor_pass_unseen(task: Path, tmp_path: Path) -> None:
    rows = [{**ad, "w": 1e9} for ad in helpers.tiny_ads()]
    corpus = helpers.write_jsonl(tmp_path / "a.jsonl", rows)
    mined = helpers.run(task, corpus, tmp_path / "w", read=ReadOptions(weight_field="w"))
    covered = [item.overlap.covered_weight for item in mined.items if item.overlap]
    assert min(covered) >= 0
    assert sum(covered) == pytest.approx(mined.covered_share * 200e9, rel=1e-4)
    assert {ad.weight for item in mined.items for ad in item.ads} == {1e9}
    zero = [{**ad, "w": 0} for ad in helpers.tiny_ads()]
    corpus = helpers.write_jsonl(tmp_path / "zero.jsonl", zero)
    mined = helpers.run(task, corpus, tmp_path / "w2", read=ReadOptions(weight_field="w"))
    assert mined.covered_share == 0
    assert mined.items


@pytest.mark.parametrize("scale", [4e-4, 1e-200, 1e6])
def test_weights_keep_their_ratios_at_any_scale(scale: float, task: Path, tmp_path: Path) -> None:
    def mined_with(factor: float, name: str, parts: int) -> Any:
        # Written as people write them: 3 times 0.0004 is 0.0012.
        rows = [
            {**ad, "w": float(f"{(1 + n % 7) * factor:.6g}")}
            for n, ad in enumerate(helpers.tiny_ads())
        ]
        for part in range(parts):
            helpers.write_jsonl(tmp_path / f"{name}{parts - part}.jsonl", rows[part::parts])
        corpus = tmp_path / f"{name}*.jsonl"
        return helpers.run(task, corpus, tmp_path / name, read=ReadOptions(weight_field="w"))

    def shown(mined: Any) -> list[tuple[Any, ...]]:
        return [
            (item.item_id, item.overlap and item.overlap.covered_share, item.propensity)
            for item in mined.items
        ]

    plain, scaled = mined_with(1, "plain", 1), mined_with(scale, "scaled", 3)
    assert shown(scaled) == shown(plain)
    assert scaled.covered_share == plain.covered_share > 0
    ads = [ad for item in scaled.items for ad in item.ads]
    assert {round(ad.weight / scale, 9) for ad in ads} <= {*range(1, 8)}
    assert all(
        item.overlap.covered_weight > 0
        for item in scaled.items
        if item.overlap and item.overlap.covered_share
    )


def test_a_workspace_is_for_one_task_and_must_be_writable(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    helpers.run(task, corpus, tmp_path / "w")
    other = helpers.write_task(tmp_path, helpers.FAKE_TASK.replace("name: tiny", "name: other"))
    with pytest.raises(UsageError, match="holds rounds of the task 'tiny', not of 'other'"):
        helpers.run(other, corpus, tmp_path / "w")
    with pytest.raises(UsageError, match=r"--workspace .*task\.yaml: cannot be written"):
        helpers.run(task, corpus, task)
    with pytest.raises(UsageError, match="has a meaning in file patterns"):
        helpers.run(task, corpus, tmp_path / "w[1]")


def test_dataflow_needs_remote_paths_and_models(task: Path, corpus: Path, tmp_path: Path) -> None:
    flow = ("--runner=DataflowRunner", "--sdk_container_image=registry/scout:1")
    with pytest.raises(UsageError, match="Dataflow's workers cannot reach it"):
        helpers.run(task, corpus, tmp_path / "w", beam=flow)


def test_a_later_round_never_shows_an_ad_again(task: Path, corpus: Path, tmp_path: Path) -> None:
    first = helpers.run(task, corpus, tmp_path / "w")
    place = Workspace(str(tmp_path / "w"))
    # What importing labels will do to close the round.
    folder = place.new_attempt(1, "verdicts")
    place.commit(Manifest.of(folder, "h", [], 0, VerdictsFacts("tiny", 1, 0.5, 0)))
    second = helpers.run(task, corpus, tmp_path / "w")
    assert second.round == 2
    shown = {ad.key for item in first.items for ad in item.ads}
    new = {ad.key for item in second.items for ad in item.ads}
    assert new
    assert not shown & new
    assert second.scored_now == 0


def test_the_direct_runner_gives_the_same_pairs(task: Path, corpus: Path, tmp_path: Path) -> None:
    ours = helpers.run(task, corpus, tmp_path / "w")
    theirs = helpers.run(task, corpus, tmp_path / "w2", beam=("--runner=DirectRunner",))
    assert helpers.pairs_bytes(theirs) == helpers.pairs_bytes(ours)
