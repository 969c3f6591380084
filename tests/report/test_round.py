"""The report of a round: complete, the same again, and of what there is. The browser's part:
tests/real_tools/browser.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import UsageError
from pipelines.report import data, html, round
from pipelines.report.output import Report
from pipelines.report.round import ReportOptions, report
from pipelines.report.sections import provenance
from pipelines.store.workspace import Workspace
from tests.helpers import by_label
from tests.report.drawn import Parts, draw, items_of, read

SECTIONS = [
    "map", "clusters", "pairs", "coverage", "agreement", "scale", "scores", "top", "provenance",
]  # fmt: skip
MAPS = {"map", "clusters", "pairs", "scores"}


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
    positives = clusters.facts["positives"]
    assert (
        f"{positives} ({positives / 200:.1%}) of the 200 ads are called positive"
        in parts.texts["map"]
    )
    assert "drawn on all 200 ads" in parts.texts["map"]
    covered = f"cover {pairs.facts['covered_share']:.1%} of the corpus"
    assert covered in parts.texts["coverage"] and covered in parts.texts[""]
    assert f"p = {clusters.facts['threshold_probability']:.4g}" in parts.texts["scores"]
    assert pairs.facts["model_id"] in parts.texts["provenance"]
    assert "Ads that promise what nobody can promise." in parts.texts["provenance"]
    chosen = items_of(stages["learnt"], 2)
    shown = [ad.text for item in chosen[:10] for ad in by_label(item).values()]
    assert parts.ads == shown
    assert "not for experts who still have to label them" in parts.texts["top"]


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


def test_an_unknown_projection_is_refused() -> None:
    with pytest.raises(UsageError, match="--projection tsne: unknown; choose pca or umap"):
        ReportOptions("w", projection="tsne")
    with pytest.raises(ValueError, match="sample must be at least 1 ad, got 0"):
        ReportOptions("w", sample=0)


@pytest.mark.usefixtures("undrawn")
def test_what_it_does_is_said(stages: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    options = ReportOptions(str(stages["mined"]), out=str(tmp_path), sample=50)
    report(options, said.append)
    assert said[0] == "round 1: 50 of 200 ads drawn, by PCA"
    assert said[1].startswith(f"written to {tmp_path}/report.html (")
    assert json.dumps(report(options, said.append).summary)


# --- other strategies -------------------------------------------------------------------------


def of_another_strategy(root: Path, *changes: dict[str, Any]) -> Parts:
    """Return the report of a round that chose single ads, without clusters, overlaps and coverage.

    Args:
        root: a workspace of two rounds.
        changes: of the items; the last for all further ones.
    """
    workspace = Workspace(str(root))
    found = data.read_round(workspace, 2)
    theirs = ("covered_share", "cover_radius", "positive_clusters", "negative_clusters")
    facts = {name: value for name, value in found.facts.items() if name not in theirs}
    bare = dict.fromkeys(("distance", "overlap", "propensity"))
    items = []
    for place, item in enumerate(found.items):
        ads = {"ads": tuple(dataclasses.replace(ad, cluster=None) for ad in item.ads[:1])}
        own = {**ads, **bare, **changes[min(place, len(changes) - 1)]}
        items.append(dataclasses.replace(item, **own))
    definition = {**found.definition, "selection": {"budget": 40, "strategy": "hunch"}}
    manifests = {name: one for name, one in found.manifests.items() if name != "clusters"}
    found = dataclasses.replace(
        found, facts=facts, items=tuple(items), definition=definition, manifests=manifests
    )
    found = data.with_sample(found, data.projector("pca"), 1000)
    sections = [section(found) for section in round.SECTIONS]
    return Parts(html.page("title", provenance.headline(found, "PCA"), sections))


def test_a_strategy_without_clusters_and_pairs_gets_a_report_of_what_there_is(
    stages: dict[str, Path],
) -> None:
    parts = of_another_strategy(stages["learnt"], {"source": "hunch", "propensity": 0.25})
    assert list(parts.texts)[1:] == SECTIONS
    pictures = [image["alt"] for image in parts.images()]
    assert len(pictures) == 4, "map, ads, agreement and scores"
    texts = {name: " ".join(text.split()) for name, text in parts.texts.items()}
    assert "strategy of this round, hunch, looks for no clusters" in texts["clusters"]
    assert "strategy of this round, hunch, does not count" in texts["coverage"]
    assert "The chosen ads on the map" in texts["pairs"]
    assert "Marked are the chosen ads, called positive (triangle)" in texts["pairs"]
    assert "distance" not in texts["pairs"] and "drawn on all 200 ads" in texts["pairs"]
    assert "In the 12 ads chosen, those called positive score p" in texts["scores"]
    assert "selection.band" not in texts["scores"]
    assert "hunch, drawn with probability 0.25" in texts["top"]
    assert len(parts.ads) == 10 and "The first 10 of 12 ads" in texts["top"]
    assert "ads12 of a budget of 40" in texts[""] and "cover" not in texts[""]
    assert "By the stopping rule" in texts["agreement"]


@pytest.mark.usefixtures("undrawn")
def test_ads_of_one_label_and_mixed_items_are_told_as_they_are(stages: dict[str, Path]) -> None:
    parts = of_another_strategy(stages["learnt"], {"source": "exploration"})
    assert "chosen" not in parts.texts["scores"], "all were drawn at random"
    found = data.read_round(Workspace(str(stages["learnt"])), 2)
    both = {"source": "committee", "ads": found.items[0].ads}
    parts = of_another_strategy(stages["learnt"], {**both}, {"source": "exploration"})
    assert "The chosen items on the map" in parts.texts["pairs"]
    assert "12 items as lines between their two ads, 11 of them drawn at random" in " ".join(
        str(image["alt"]) for image in parts.images()
    )
    assert "committee" in parts.texts["top"]
