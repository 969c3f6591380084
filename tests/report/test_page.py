"""The report as bytes: complete, the same again, and unharmed by what ads hold. The browser's part:
tests/real_tools/browser.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import shutil
import sys
import types
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines import cli
from pipelines.config import load_task
from pipelines.contracts import OverlapFacts, ReviewItem
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.evaluate import Candidate, measure
from pipelines.report import figures, page
from pipelines.report.page import Piece, Report, ReportOptions, visible
from pipelines.simulation.play import summarize
from pipelines.store.facts import Evaluation, ModelFigures, to_json
from pipelines.store.workspace import Manifest, Workspace
from pipelines.verdicts.halves import Ratings
from tests import helpers
from tests.real_tools.browser.test_review_page import HOSTILE

SECTIONS = [
    "map", "clusters", "pairs", "coverage", "agreement", "scale", "scores", "top", "provenance",
]  # fmt: skip
MAPS = {"map", "clusters", "pairs", "scores"}


class Parts(HTMLParser):
    """A report's tags, its texts by the section that they are in, and its pictures."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {"": ""}
        self.style = ""
        self.ads: list[str] = []
        self._path: list[str] = []
        self._section = ""
        self._ad_depth = 0
        self.feed(data.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "section":
            self._section = str(found["id"])
            self.texts[self._section] = ""
        if tag in ("meta", "img"):
            return
        self._path.append(tag)
        if found.get("class") == "ad-text":
            self._ad_depth = len(self._path)
            self.ads.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._path.pop() == tag, "tags close in order"
        if len(self._path) < self._ad_depth:
            self._ad_depth = 0

    def handle_data(self, data: str) -> None:
        if self._path and self._path[-1] == "style":
            self.style += data
            return
        self.texts[self._section] += data
        if self._ad_depth:
            self.ads[-1] += data

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def read(found: Report) -> Parts:
    return Parts(Path(found.path).read_bytes())


def draw(root: Path, out: Path, **changes: Any) -> Report:
    return page.report(ReportOptions(str(root), out=str(out), **changes), lambda line: None)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures blank: a test of words does not wait for them."""
    sink = io.BytesIO()
    Image.new("RGB", (8, 4), "white").save(sink, format="PNG")
    monkeypatch.setattr(figures, "_picture", lambda *args, **settings: sink.getvalue())


# --- a workspace of two rounds, labelled, the models played -----------------------------------


def labelled(root: Path, number: int, path: Path) -> None:
    """Let two experts label the pairs of a round: who shouts is lying, and Bo errs now and then."""
    workspace = Workspace(str(root))
    manifest = workspace.latest(number, "pairs")
    assert manifest is not None
    with open(path, "w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(["ad_id", "label", "expert"])
        for place, item in enumerate(workspace.read_items(manifest)):
            for ad in item.ads:
                loud = "!" in ad.text or "You won" in ad.text
                for expert, wrong in (("anna", False), ("bo", place % 5 == 0)):
                    label = "positive" if loud != wrong else "negative"
                    writer.writerow([ad.id, label, expert])
    assert cli.main(["import", str(path), "--workspace", str(root), "--quiet"]) == 0


def evaluation(task: Path, rounds: int, experts_say: np.ndarray) -> Evaluation:
    """Return a real evaluation of made-up models that err less from round to round."""
    keys = tuple(f"{i:032x}" for i in range(len(experts_say)))
    first = experts_say[:, 0]

    def model(number: int) -> Candidate:
        wrong = np.arange(len(first)) % (2 + 3 * number) == 0
        margins = np.where((first == 1) != wrong, 1.0, -1.0)
        return Candidate(number, f"m{number}", 0.0, lambda _: margins)

    table = Ratings(keys, ("anna", "bo"), experts_say)
    candidates = [model(number) for number in range(rounds + 1)]
    return measure(load_task(str(task)), table, ["text"] * len(keys), candidates, 30)


def say_so(n: int = 60) -> np.ndarray:
    anna = (np.arange(n) % 3 == 0).astype(np.int8)
    bo = np.where(np.arange(n) % 10 == 0, 1 - anna, anna)
    return np.stack([anna, bo], axis=1).astype(np.int8)


def learn(root: Path, number: int, found: Evaluation, version: int = 1) -> None:
    """Commit a model without files, as training leaves it behind."""
    workspace = Workspace(str(root))
    attempt = workspace.new_attempt(number, "model")
    facts = helpers.model_facts(f"m{number}", found, ads=20 * number, version=version)
    workspace.commit(Manifest.of(attempt, f"h{number}", [], 1, facts))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a workspace at four times of its life: mined, labelled, second round, learnt."""
    folder = tmp_path_factory.mktemp("report")
    task = helpers.write_task(folder)
    corpus = helpers.write_jsonl(folder / "ads.jsonl", helpers.tiny_ads())
    found = {name: folder / name for name in ("mined", "labelled", "two", "learnt")}

    def step(name: str, before: str) -> Path:
        shutil.copytree(found[before], found[name])
        return found[name]

    helpers.run(task, corpus, found["mined"])
    labelled(step("labelled", "mined"), 1, folder / "one.csv")
    helpers.run(task, corpus, step("two", "labelled"))
    labelled(found["two"], 2, folder / "two.csv")
    last = step("learnt", "two")
    for number in (1, 2):
        learn(last, number, evaluation(task, number, say_so(40 * number)))
    return {**found, "task": task, "corpus": corpus}


@pytest.fixture(scope="module")
def whole(stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return the report of the finished workspace."""
    return draw(stages["learnt"], tmp_path_factory.mktemp("whole"))


@pytest.fixture
def learnt(stages: dict[str, Path], tmp_path: Path) -> Path:
    """Return a copy of the finished workspace that a test may change."""
    return Path(shutil.copytree(stages["learnt"], tmp_path / "w"))


# --- what is in it ----------------------------------------------------------------------------


def test_everything_is_in_one_file_and_the_pictures_beside_it(whole: Report) -> None:
    parts = read(whole)
    assert list(parts.texts)[1:] == SECTIONS
    assert whole.summary["missing"] == {}
    images = parts.images()
    beside = {path.name: path.read_bytes() for path in Path(whole.path).parent.glob("*.png")}
    assert sorted(beside) == sorted(Path(path).name for path in whole.pictures)
    assert len(images) == len(beside) == 6
    inside = [base64.b64decode(str(image["src"]).split(",")[1]) for image in images]
    assert sorted(inside) == sorted(beside.values())
    assert all(len(str(image["alt"])) > 40 for image in images)
    assert {str(image["src"])[:22] for image in images} == {"data:image/png;base64,"}
    for image, png in zip(images, inside, strict=True):
        assert image["width"] == str(int.from_bytes(png[16:20]))
        assert image["height"] == str(int.from_bytes(png[20:24]))
    assert all(len(data) < 300_000 for data in beside.values())


def test_the_page_forbids_everything_but_its_own_style_and_pictures(whole: Report) -> None:
    parts = read(whole)
    names = {tag for tag, _ in parts.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "base", "a href"}
    [policy] = [a["content"] for tag, a in parts.tags if a.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(parts.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    used = {name for _, attributes in parts.tags for name in attributes}
    assert "style" not in used and not [name for name in used if name.startswith("on")]
    links = [a["href"] for tag, a in parts.tags if tag == "a"]
    ids = {a["id"] for _, a in parts.tags if "id" in a}
    assert links and all(str(link)[0] == "#" and str(link)[1:] in ids for link in links)
    assert ("html", {"lang": "en"}) in parts.tags
    assert all(a.get("scope") in ("col", "row") for tag, a in parts.tags if tag == "th")


def test_the_same_workspace_is_the_same_bytes(
    whole: Report, stages: dict[str, Path], tmp_path: Path
) -> None:
    data = Path(whole.path).read_bytes()
    assert Path(draw(stages["learnt"], tmp_path / "a").path).read_bytes() == data
    assert Path(draw(stages["learnt"], tmp_path / "b", sample=100).path).read_bytes() != data


def test_the_numbers_are_those_of_the_manifests(whole: Report, stages: dict[str, Path]) -> None:
    workspace = Workspace(str(stages["learnt"]))
    pairs, clusters = (workspace.latest(2, stage) for stage in ("pairs", "clusters"))
    assert pairs is not None and clusters is not None
    parts = read(whole)
    positives = clusters.facts.threshold.n_positive
    assert (
        f"{positives} ({positives / 200:.1%}) of the 200 ads are called positive"
        in parts.texts["map"]
    )
    assert "drawn on all 200 ads" in parts.texts["map"]
    covered = f"cover {pairs.facts.covered_share:.1%} of the corpus"
    assert covered in parts.texts["coverage"] and covered in parts.texts[""]
    assert f"p = {clusters.facts.threshold.probability:.4g}" in parts.texts["scores"]
    assert pairs.facts.origin.model_id in parts.texts["provenance"]
    assert "Ads that promise what nobody can promise." in parts.texts["provenance"]
    chosen = pairs_of(stages["learnt"], 2)
    shown = [chosen[i][label]["text"] for i in range(10) for label in ("positive", "negative")]
    assert parts.ads == shown
    assert "not for experts who still have to label them" in parts.texts["top"]


def test_every_model_stands_under_the_experts_with_its_interval(
    whole: Report, stages: dict[str, Path]
) -> None:
    parts = read(whole)
    found = evaluation(stages["task"], 2, say_so(80))
    experts = page.kappa_text(to_json(found.expert_kappa))
    assert experts.startswith("0.7") and "[" in experts
    for text in (parts.texts["agreement"], parts.texts["scale"], parts.texts[""]):
        assert experts in text
    [image] = [i for i in parts.images() if "each model with the experts" in str(i["alt"])]
    for model in found.models:
        kappa = page.kappa_text(to_json(model.kappa))
        assert kappa in parts.texts["scale"] and kappa in str(image["alt"])
    assert found.decision.reason in parts.texts["agreement"]
    # The first round's row has its own, older evaluation.
    older = evaluation(stages["task"], 1, say_so(40))
    assert page.kappa_text(to_json(older.models[1].kappa)) in parts.texts["scale"]


def test_how_near_the_pairs_came_to_the_threshold_is_said_in_figures(
    whole: Report, stages: dict[str, Path]
) -> None:
    text = " ".join(read(whole).texts["scores"].split())
    assert "25% of those called positive and as many of the others (selection.band)" in text
    workspace = Workspace(str(stages["learnt"]))
    scored, clusters = (workspace.latest(2, stage) for stage in ("scored", "clusters"))
    assert scored is not None and clusters is not None
    blocks = [pq.read_table(workspace.path(file.path)) for file in scored.files]
    margins = np.concatenate([block.column("margin").to_numpy() for block in blocks])
    positive = margins >= clusters.facts.threshold.margin
    chosen = [p for p in pairs_of(stages["learnt"], 2) if p["source"] == "boundary"]
    assert f"In the {len(chosen)} pairs chosen there" in text
    highest = max(pair["positive"]["margin"] for pair in chosen)
    lowest = min(pair["negative"]["margin"] for pair in chosen)
    for label, side, near in (
        ("positive", positive, margins <= highest),
        ("negative", ~positive, margins >= lowest),
    ):
        scores = [pair[label]["probability"] for pair in chosen]
        assert (
            f"those called {label} score p = {min(scores):.4g} to {max(scores):.4g} "
            f"({(side & near).sum()} of all {side.sum()} are that near to the threshold)"
        ) in text


@pytest.mark.usefixtures("undrawn")
def test_without_a_band_or_without_pairs_none_is_claimed(learnt: Path, tmp_path: Path) -> None:
    pairs = Workspace(str(learnt)).read_items(Workspace(str(learnt)).pairs_of(2))

    def scores(found: Sequence[ReviewItem], out: str) -> str:
        helpers.change_items(learnt, 2, lambda _: found)
        return " ".join(read(draw(learnt, tmp_path / out)).texts["scores"].split())

    overlap = OverlapFacts(False, 0.5, 0.5, 1.0, 0.1, 0.1)
    everything = [
        dataclasses.replace(pair, overlap=overlap, propensity=0.1, source="boundary")
        for pair in pairs
    ]
    nothing = [dataclasses.replace(pair, source="exploration") for pair in everything]
    assert "keep to no such limit" in scores([*everything[1:], *nothing[:1]], "a")
    assert "keep to no such limit" not in scores(everything, "b")
    random = scores(nothing, "c")
    assert "as many of the others (selection.band)" in random and "chosen there" not in random
    selection = Workspace(str(learnt)).pairs_of(2).facts.origin.task.selection
    rename(learnt, selection={**selection.model_dump(), "band": 1.0})
    text = scores(everything, "d")
    assert "among all ads (selection.band is 1)" in text and "too few" not in text


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (0.5, -0.001, 0.75, "0.50 [0.00, 0.75]"),
        (-0.004, -0.25, -0.0, "0.00 [-0.25, 0.00]"),
        (-0.006, None, None, "-0.01 (no interval: why)"),
    ],
)
def test_nothing_is_minus_zero(
    value: float, low: float | None, high: float | None, shown: str
) -> None:
    kappa = {"value": value, "low": low, "high": high, "interval_reason": "why"}
    assert page.kappa_text(kappa) == shown


@pytest.mark.usefixtures("undrawn")
def test_another_round_is_shown_on_request(
    whole: Report, stages: dict[str, Path], tmp_path: Path
) -> None:
    newest = read(whole)
    first = read(draw(stages["learnt"], tmp_path / "b", round=1))
    alone = read(draw(stages["mined"], tmp_path / "c"))
    assert first.ads == alone.ads != newest.ads
    assert "1, of 1, 2 (--round shows another)" in first.texts[""]
    # Agreement is shown for all rounds that compare, whichever's pairs are drawn.
    assert first.texts["agreement"] == newest.texts["agreement"]
    with pytest.raises(UsageError, match=r"--round 3: has no pairs in .*rounds with pairs: 1, 2\)"):
        draw(stages["learnt"], tmp_path / "d", round=3)


@pytest.mark.usefixtures("undrawn")
def test_rounds_of_another_policy_version_are_named_and_left_out(
    stages: dict[str, Path], learnt: Path, tmp_path: Path
) -> None:
    newer = helpers.FAKE_TASK.replace("version: 1", "version: 2")
    # The models of version 1 do not mine for version 2, so none is loaded.
    helpers.run(helpers.write_task(tmp_path, newer), stages["corpus"], learnt)
    parts = read(draw(learnt, tmp_path / "a"))
    assert "no expert has labelled yet" in parts.texts["agreement"]
    assert "round 1 (policy version 1, does not compare)" in parts.texts["scale"]
    older = read(draw(learnt, tmp_path / "b", round=2))
    assert "Not shown: round 3, mined for another version" in older.texts["agreement"]
    assert "model of round 2" in older.texts["scale"]


@pytest.mark.usefixtures("undrawn")
def test_no_verdict_is_opened(stages: dict[str, Path], tmp_path: Path) -> None:
    with helpers.watched_reads() as paths:
        draw(stages["learnt"], tmp_path)
    opened = [Path(path).name for path in paths if str(stages["learnt"]) in path]
    assert "items.jsonl" in opened
    assert not [name for name in opened if "verdict" in name or name.startswith(("eval", "fine"))]


# --- the sample on the maps -------------------------------------------------------------------


class Caught:
    """What a picture was drawn from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.args: tuple[Any, ...] = ()
        original: Callable[..., bytes] = getattr(page.figures, name)

        def draw_and_keep(*args: Any) -> bytes:
            self.args = args
            return original(*args)

        monkeypatch.setattr(page.figures, name, draw_and_keep)


@pytest.mark.usefixtures("undrawn")
def test_a_sample_says_so_and_holds_every_ad_of_the_pairs(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, scores = Caught(monkeypatch, "pair_map"), Caught(monkeypatch, "score_histogram")
    found = draw(stages["learnt"], tmp_path / "a", sample=60)
    parts = read(found)
    assert found.summary["drawn"] == 60
    assert "drawn on 60 of 200 ads" in parts.texts["map"]
    assert "drawn on 60 of 200 ads" in parts.texts[""]
    points, rows, exploration, _ = pairs.args
    assert points.shape == (60, 2) and rows.shape == (12, 2)
    assert len(set(rows.ravel().tolist())) == 24
    chosen = pairs_of(stages["learnt"], 2)
    assert exploration.tolist() == [pair["source"] == "exploration" for pair in chosen]
    # Scores are those of all ads, not of the sample.
    assert scores.args[0].sum() == 200
    # A sample smaller than the pairs' ads holds these alone.
    assert draw(stages["learnt"], tmp_path / "b", sample=1).summary["drawn"] == 24


def pairs_of(root: Path, number: int) -> list[dict[str, Any]]:
    workspace = Workspace(str(root))
    manifest = workspace.latest(number, "pairs")
    assert manifest is not None
    return [page._as_pair(item) for item in workspace.read_items(manifest)]


@pytest.mark.usefixtures("undrawn")
def test_labels_and_clusters_on_the_map_are_those_of_the_pairs(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters, pairs = Caught(monkeypatch, "cluster_map"), Caught(monkeypatch, "pair_map")
    draw(stages["learnt"], tmp_path, sample=50)
    _, positive, cluster, overlaps, _ = clusters.args
    rows = pairs.args[1]
    chosen = pairs_of(stages["learnt"], 2)
    for column, label in enumerate(("positive", "negative")):
        assert (positive[rows[:, column]] == (label == "positive")).all()
        assert cluster[rows[:, column]].tolist() == [pair[label]["cluster"] for pair in chosen]
    assert 0 < len(overlaps) <= page.OUTLINED


def test_clusters_of_a_run_that_was_killed_are_not_taken(
    stages: dict[str, Path], learnt: Path, tmp_path: Path
) -> None:
    before = Path(draw(learnt, tmp_path / "a").path).read_bytes()
    workspace = Workspace(str(learnt))
    clusters = workspace.latest(2, "clusters")
    assert clusters is not None
    attempt = workspace.new_attempt(2, "clusters")
    # Newer, of another configuration, and without a file: pairs never came of it.
    threshold = dataclasses.replace(clusters.facts.threshold, margin=9.0)
    facts = dataclasses.replace(clusters.facts, threshold=threshold)
    changed = dataclasses.replace(clusters, attempt=attempt, config_hash="other", facts=facts)
    workspace.commit(changed)
    assert workspace.latest(2, "clusters") == changed
    assert Path(draw(learnt, tmp_path / "b").path).read_bytes() == before


# --- what is missing --------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_what_is_missing_says_which_command_gives_it(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    mined = draw(stages["mined"], tmp_path / "a")
    assert set(mined.summary["missing"]) == {"agreement"}
    text = read(mined).texts["agreement"]
    assert "no expert has labelled yet" in text and "`scout import`" in text
    assert "not labelled yet" in read(mined).texts["scale"]
    sheet = draw(stages["labelled"], tmp_path / "b")
    text = read(sheet).texts["agreement"]
    assert "no model is trained yet" in text and "`scout train`" in text
    assert "not trained yet" in read(sheet).texts["scale"]


def test_without_pairs_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pairs; start with `scout mine`"):
        draw(tmp_path / "nothing", tmp_path / "out")


@pytest.mark.usefixtures("undrawn")
def test_an_undefined_kappa_shows_its_reason(learnt: Path, stages: dict[str, Path]) -> None:
    # Everyone calls everything negative: agreement beyond chance cannot be said.
    nobody = np.zeros((40, 2), dtype=np.int8)
    found = evaluation(stages["task"], 2, nobody)
    undefined = dataclasses.replace(found.models[1], kappa=found.expert_kappa)

    def of_round(number: int) -> ModelFigures:
        return dataclasses.replace(undefined, round=number)

    models = (found.models[0], undefined, of_round(2))
    learn(learnt, 2, dataclasses.replace(found, models=models))
    reason = found.expert_kappa.reason
    assert reason
    out = learnt / "out"
    parts = read(draw(learnt, out))
    assert f"undefined ({reason})" in parts.texts["agreement"]
    assert f"undefined ({reason})" in parts.texts["scale"]
    learn(learnt, 2, dataclasses.replace(found, models=(of_round(0), of_round(2))))
    report_of_none = draw(learnt, out)
    assert (
        "Every kappa of the models is undefined" in report_of_none.summary["missing"]["agreement"]
    )
    assert not (out / "report-agreement.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_without_the_scored_ads_the_rest_is_still_drawn(
    whole: Report, learnt: Path, tmp_path: Path
) -> None:
    next((learnt / "rounds/0002/scored").rglob("*.parquet")).unlink()
    found = draw(learnt, tmp_path / "b")
    assert set(found.summary["missing"]) == MAPS
    parts = read(found)
    for section in MAPS:
        assert "scored ads of round 2 are no longer all in" in parts.texts[section]
    assert parts.ads == read(whole).ads
    assert len(parts.images()) == 2
    shutil.rmtree(learnt / "rounds/0002/clusters")
    text = read(draw(learnt, tmp_path / "c")).texts["map"]
    assert "clusters of round 2 are no longer in the workspace" in text


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_block_is_named(learnt: Path, tmp_path: Path) -> None:
    block = next((learnt / "rounds/0002/scored").rglob("*.parquet"))
    data = bytearray(block.read_bytes())
    data[len(data) // 2] ^= 1
    block.write_bytes(data)
    with pytest.raises(RunFailed, match=f"{block.name}: has changed since it was written"):
        draw(learnt, tmp_path / "out")


@pytest.mark.usefixtures("undrawn")
def test_damaged_centroids_are_named(learnt: Path, tmp_path: Path) -> None:
    next((learnt / "rounds/0002/clusters").rglob("centroids.npz")).write_bytes(b"PK\x03\x04")
    with pytest.raises(RunFailed, match=r"centroids\.npz: has changed since it was written"):
        draw(learnt, tmp_path / "out")


@pytest.mark.usefixtures("undrawn")
def test_scores_of_another_corpus_are_noticed(learnt: Path, tmp_path: Path) -> None:
    def strange(items: Sequence[ReviewItem]) -> list[ReviewItem]:
        one, *others = items
        ads = (dataclasses.replace(one.ads[0], key="0" * 32), *one.ads[1:])
        return [dataclasses.replace(one, ads=ads), *others]

    helpers.change_items(learnt, 2, strange)
    with pytest.raises(RunFailed, match=r"\(key 0{32}\) is not among its scored ads"):
        draw(learnt, tmp_path / "out")


# --- projections ------------------------------------------------------------------------------


def test_without_umap_the_cure_is_said_before_anything_is_read(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with (
        helpers.watched_reads() as paths,
        pytest.raises(UsageError, match=r"--projection umap: .*`pip install umap-learn`"),
    ):
        draw(stages["learnt"], tmp_path, projection="umap")
    assert not [path for path in paths if path.endswith(".parquet")]


@pytest.mark.usefixtures("undrawn")
def test_umap_gets_the_vectors_and_a_seed_and_the_report_says_what_it_shows(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    class FakeUmap:
        def __init__(self, **settings: Any) -> None:
            asked.append(settings)

        def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)
            return vectors[:, :2]

    fake = types.ModuleType("umap")
    fake.UMAP = FakeUmap  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", fake)
    found = draw(stages["learnt"], tmp_path, projection="umap")
    assert asked[0]["random_state"] == 0 and asked[0]["n_jobs"] == 1
    assert found.summary["projection"] == "umap" and found.summary["explained"] is None
    text = read(found).texts
    assert "The plane is UMAP's" in text["map"] and "by UMAP" in text[""]


def test_an_unknown_projection_is_refused() -> None:
    with pytest.raises(UsageError, match="--projection tsne: unknown; choose pca or umap"):
        ReportOptions("w", projection="tsne")
    with pytest.raises(ValueError, match="sample must be at least 1 ad, got 0"):
        ReportOptions("w", sample=0)


# --- where it is written ----------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_an_older_report_is_replaced_whole_and_nothing_else_is_touched(
    stages: dict[str, Path], learnt: Path
) -> None:
    found = page.report(ReportOptions(str(learnt)), lambda line: None)
    folder = learnt / "report"
    assert Path(found.path) == folder / "report.html"
    (folder / "mine.png").write_bytes(b"not ours")
    (folder / "report-notes.png").write_bytes(b"not ours either")
    for model in (learnt / "rounds").glob("*/model"):
        shutil.rmtree(model)
    page.report(ReportOptions(str(learnt)), lambda line: None)
    names = {path.name for path in folder.iterdir()}
    kept = {"report.html", "mine.png", "report-notes.png"}
    kept |= {f"report-{name}.png" for name in ("map", "clusters", "pairs", "coverage", "scores")}
    assert names == kept


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_cannot_be_written_is_named_first(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"--out .*file/sub: cannot be written \("):
        draw(stages["mined"], tmp_path / "file" / "sub")
    with pytest.raises(UsageError, match=r"--out a\[b\]: '\[' has a meaning in file patterns"):
        draw(stages["mined"], Path("a[b]"))


@pytest.mark.usefixtures("undrawn")
def test_what_it_does_is_said(stages: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    options = ReportOptions(str(stages["mined"]), out=str(tmp_path), sample=50)
    page.report(options, said.append)
    assert said[0] == "round 1: 50 of 200 ads drawn, by PCA"
    assert said[1].startswith(f"written to {tmp_path}/report.html (")
    assert json.dumps(page.report(options, said.append).summary)


# --- hostile text -----------------------------------------------------------------------------


def hostile(root: Path, number: int, skip: int = 0) -> list[str]:
    """Put hostile texts and ids into a round's pairs; return the texts in the report's order."""
    texts = iter([*HOSTILE[skip:], *HOSTILE])
    id = "\u202e</h4><script>alert(1)</script>\x00"

    def strange(items: Sequence[ReviewItem]) -> list[ReviewItem]:
        return [
            dataclasses.replace(
                item,
                ads=tuple(dataclasses.replace(ad, text=next(texts), id=id) for ad in item.ads),
            )
            for item in items
        ]

    found = helpers.change_items(root, number, strange)
    # The positive ad first.
    return [ad.text for item in found for ad in sorted(item.ads, key=lambda ad: ad.label)[::-1]]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("skip", [0, 10])
def test_nothing_an_ad_contains_breaks_the_report(
    whole: Report, learnt: Path, tmp_path: Path, skip: int
) -> None:
    texts = hostile(learnt, 2, skip)
    data = Path(draw(learnt, tmp_path / "b").path).read_bytes()
    parts = Parts(data)
    # The same structure, but for the marks in the ads.
    unmarked = [tag for tag, attributes in parts.tags if attributes.get("class") != "mark"]
    assert unmarked == [tag for tag, _ in read(whole).tags]
    for text, shown in zip(texts[:20], parts.ads, strict=True):
        pieces = visible(text)
        assert shown == "".join(piece.text for piece in pieces)
    assert HOSTILE[skip] in parts.ads[:2]
    assert not [c for c in data.decode() if unicodedata.category(c) in ("Cf", "Cs", "Co", "Cn")]
    assert b"\x00" not in data and b"\x1b" not in data


def rename(root: Path, **changes: Any) -> None:
    """Give the task of the newest pairs other words, and its corpus another path."""
    path = next((root / "rounds/0002/pairs").rglob("manifest.json"))
    manifest = json.loads(path.read_text())
    manifest["facts"]["origin"]["task"] |= changes
    manifest["facts"]["origin"]["corpus"] = ["<i>ads&.jsonl"]
    path.write_text(json.dumps(manifest))


def test_names_from_the_task_file_and_paths_are_only_text(learnt: Path, tmp_path: Path) -> None:
    labels = {"positive": "<b>$x</b>", "negative": "</style>{{ 1 }}"}
    rename(learnt, labels=labels, policy="<script>alert(1)</script>", question="\u202e</dl>{%")
    parts = read(draw(learnt, tmp_path / "<u>out"))
    assert not {tag for tag, _ in parts.tags} & {"script", "b", "i", "u"}
    assert "called <b>$x</b>" in parts.texts["map"]
    assert "</style>{{ 1 }}" in parts.texts["map"]
    for text in ("<script>alert(1)</script>", "\\u202e</dl>{%", "<i>ads&.jsonl"):
        assert text in parts.texts["provenance"]


def test_a_name_that_pictures_cannot_draw_is_explained(learnt: Path, tmp_path: Path) -> None:
    rename(learnt, labels={"positive": "詐欺", "negative": "fine"})
    text = read(draw(learnt, tmp_path)).texts["map"]
    assert "cannot draw a label's name: in them positive stands for 詐欺." in text
    assert "are called 詐欺" in text


def plain(*texts: str) -> tuple[Piece, ...]:
    return tuple(Piece(text) for text in texts)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("just words\tand\nlines", plain("just words\tand\nlines")),
        ("windows\r\nlines", plain("windows\nlines")),
        ("pay\u200bpal", (Piece("pay"), Piece("ZWSP", "invisible character ZWSP"), Piece("pal"))),
        ("\u202e\u202ex", (Piece("RLO ×2", "2 invisible characters RLO"), Piece("x"))),
        ("a\x00\x07", (Piece("a"), Piece("NULL", "invisible character NULL"), Piece("BELL", "invisible character BELL"))),
        ("\ud800", (Piece("U+D800", "invisible character U+D800"),)),
        ("a\u2028b", (Piece("a"), Piece("LS", "invisible character LS"), Piece("\nb"))),
        ("\u3164", (Piece("U+3164", "invisible character U+3164"),)),
        ("", (Piece("no text", "no text"),)),
        # Spelling and pictures need their joiners.
        ("می\u200cخواهم", plain("می\u200cخواهم")),
        ("क्\u200dष", plain("क्\u200dष")),
        ("👩\u200d🚀 ❤\ufe0f", plain("👩\u200d🚀 ❤\ufe0f")),
        ("1\ufe0f\u20e3", plain("1\ufe0f\u20e3")),
        ("a\ufe0f", (Piece("a"), Piece("U+FE0F", "invisible character U+FE0F"))),
        ("a\u200db", (Piece("a"), Piece("ZWJ", "invisible character ZWJ"), Piece("b"))),
        ("e" + "\u0301" * 6, plain("e" + "\u0301" * 6)),
        ("e" + "\u0301" * 9, (Piece("e" + "\u0301" * 6), Piece("+3", "3 more combining marks"))),
        ("\u200b\u0301", (Piece("ZWSP", "invisible character ZWSP"), Piece("+1", "1 more combining marks"))),
        ("שלום 50%", plain("שלום 50%")),
    ],
)  # fmt: skip
def test_what_hides_is_shown_and_what_spells_is_left(text: str, pieces: tuple[Piece, ...]) -> None:
    assert visible(text) == pieces


def test_a_long_ad_is_cut_and_says_so() -> None:
    assert visible("x" * 700) == (Piece("x" * 700),)
    cut, mark, rest = visible("x" * 5000)
    assert cut == Piece("x" * 700)
    assert mark == Piece("…", "4,300 more characters")
    assert rest == Piece(" 4,300 more characters")


ANY = st.text(st.characters(), max_size=60) | st.lists(st.sampled_from(HOSTILE)).map("".join)


@given(ANY)
def test_no_piece_holds_what_steers_or_hides(text: str) -> None:
    pieces = visible(text, limit=200)
    assert pieces
    for piece in pieces:
        assert piece.text
        for place, char in enumerate(piece.text):
            category = unicodedata.category(char)
            if char in "\u200c\u200d\ufe0e\ufe0f":
                assert place > 0 and not piece.spoken, "only ever in a word or a picture"
            else:
                assert category[0] != "C" or char in "\n\t"
                assert category not in ("Zl", "Zp")
    # Nothing visible is lost.
    visible_part = [c for c in text[:200] if unicodedata.category(c)[0] in "LNPS" and c.isascii()]
    shown = iter("".join(piece.text for piece in pieces if not piece.spoken))
    assert all(char in shown for char in visible_part)


# --- simulations ------------------------------------------------------------------------------


def outcome(
    conditions: tuple[str, ...] = ("boundary", "random", "crowd 0.59 text"), **changes: Any
) -> dict[str, Any]:
    """Return what a simulation of two seeds and two rounds would."""
    rows = []
    for seed in (1, 2):
        for place, condition in enumerate(conditions):
            for number in (1,) if condition.startswith("crowd") else (1, 2):
                value = 0.8 / (1 + place) - 0.1 / number + 0.01 * seed
                rows.append(
                    {
                        "seed": seed, "condition": condition, "learner": "head", "round": number,
                        "labels": 5000 if condition.startswith("crowd") else 25 * number,
                        "positive_share": 0.4, "threshold": 0.1,
                        "natural": value, "balanced": value + 0.1,
                        "evaluation": None if condition == "random" and number == 1 else value,
                        "natural_experts": 0.85, "balanced_experts": 0.8, "evaluation_experts": 0.75,
                    }
                )  # fmt: skip
    stop = {"seed": 1, "stopped_after": 2, "rule": "parity", "reason": "stopped at parity: because",
            "no_later_better_after": 1, "kappas": {"1": 0.5, "2": 0.6}}  # fmt: skip
    return {
        "task": "tiny", "options": {"task": "t.yaml", "seeds": 2, "labels": [25, 50]}, "ads": 400,
        "summary": summarize(rows), "stops": [stop] if "boundary" in conditions else [],
        "rows": rows, "seconds": 12.3,
    } | changes  # fmt: skip


def simulated(value: Mapping[str, Any], folder: Path) -> tuple[Report, Parts]:
    found = page.simulation_report(value, str(folder), lambda line: None)
    return found, read(found)


def test_a_simulation_has_its_conditions_side_by_side(tmp_path: Path) -> None:
    found, parts = simulated(outcome(), tmp_path)
    assert list(parts.texts)[1:] == [
        "conditions-head", "curves-head", "scale-head", "stops", "provenance",
    ]  # fmt: skip
    assert found.summary["conditions"] == ["boundary", "random", "crowd 0.59 text"]
    table = " ".join(parts.texts["scale-head"].split())
    assert "boundary, round 2" in table and "40% ±0%" in table and "5,000 ±0" in table
    for entry in outcome()["summary"]:
        assert f"{entry['natural']:.2f} ±{entry['natural_sd']:.2f}" in table
    assert "experts among themselves" in table and "0.85 ±0.00" in table
    assert "undefined" in table, "the evaluation half of random's first round"
    assert "stopped at parity: because" in parts.texts["stops"]
    assert '"t.yaml"' in parts.texts["provenance"]
    assert len(parts.images()) == 4 == len(list(tmp_path.glob("report-head-*.png")))
    assert all("boundary" in str(image["alt"]) for image in parts.images())
    assert "Undefined for 2 models" in parts.texts["curves-head"]


@pytest.mark.usefixtures("undrawn")
def test_marks_that_stand_aside_are_explained_and_others_are_not(tmp_path: Path) -> None:
    _, one = simulated(outcome(), tmp_path / "a")
    _, two = simulated(outcome(("boundary", "crowd 0.59 text", "crowd 0.41 text")), tmp_path / "b")
    assert "side by side around it" not in one.texts["curves-head"]
    assert two.texts["curves-head"].count("side by side around it") == 3


@pytest.mark.usefixtures("undrawn")
def test_a_simulation_is_redrawn_from_its_file(tmp_path: Path) -> None:
    written = json.loads(json.dumps(outcome()))
    again, _ = simulated(written, tmp_path / "a")
    first, _ = simulated(outcome(), tmp_path / "b")
    assert Path(again.path).read_bytes() == Path(first.path).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_a_simulation_without_boundary_says_what_it_lacks(tmp_path: Path) -> None:
    found, parts = simulated(outcome(("random",)), tmp_path)
    assert set(found.summary["missing"]) == {"stops"}
    assert "condition boundary was not played" in parts.texts["stops"]


def test_one_seed_has_no_spread_and_nothing_defined_is_drawn_too(tmp_path: Path) -> None:
    rows = [
        {**row, "natural": None, "balanced": None, "evaluation": None, "evaluation_experts": None}
        for row in outcome()["rows"]
        if row["seed"] == 1
    ]
    _, parts = simulated(outcome(rows=rows, summary=summarize(rows)), tmp_path)
    assert "one seed, no spread" in parts.texts[""]
    assert "±" not in parts.texts["scale-head"]
    assert len(parts.images()) == 4


@pytest.mark.usefixtures("undrawn")
def test_two_learners_have_parts_of_their_own(tmp_path: Path) -> None:
    rows = outcome()["rows"]
    rows += [{**row, "learner": "encoder", "natural": 0.9} for row in rows]
    found, parts = simulated(outcome(rows=rows, summary=summarize(rows)), tmp_path)
    assert found.summary["learners"] == ["head", "encoder"]
    assert "0.90 ±0.00" in parts.texts["scale-encoder"]
    assert "0.90 ±0.00" not in parts.texts["scale-head"]
    assert len(parts.images()) == 8
    ids = [a["id"] for _, a in parts.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_a_hostile_simulation_is_only_text(tmp_path: Path) -> None:
    odd = "<script>alert(1)</script>\u202e$x$"
    options = {"corpus": [odd], "task": odd}
    _, parts = simulated(outcome((odd, "random"), task=odd, options=options), tmp_path)
    assert not [tag for tag, _ in parts.tags if tag == "script"]
    assert "<script>alert(1)</script>\\u202e$x$" in parts.texts["scale-head"]
    assert "\u202e" not in "".join(parts.texts.values())


def test_png_sizes_are_read_from_the_file() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (7, 300)).save(sink, format="PNG")
    picture = page.Picture("a.png", sink.getvalue(), "alt", "caption")
    assert (picture.width, picture.height) == (7, 300)
