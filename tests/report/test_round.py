"""The report of a round: complete, the same again, and of what there is. The browser's part:
tests/real_tools/browser.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.report.output import Report
from pipelines.report.round import ReportOptions, report
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.helpers import by_label
from tests.report.drawn import draw, items_of, read, rewrite

SECTIONS = [
    "map", "overlaps", "pairs", "coverage", "agreement", "scale", "audit", "scores", "top", "provenance",
]  # fmt: skip
MAPS = {"map", "overlaps", "pairs", "scores"}


def test_everything_is_in_one_file_and_the_pictures_beside_it(whole: Report) -> None:
    parts = read(whole)
    assert list(parts.texts)[1:] == SECTIONS
    assert whole.summary["missing"] == {}
    images = parts.images()
    beside = {path.name: path.read_bytes() for path in Path(whole.path).parent.glob("*.png")}
    assert sorted(beside) == sorted(Path(path).name for path in whole.pictures)
    assert len(images) == len(beside) == 8
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
    assert "no expert has labelled yet" in text and "`scout import FILE... --workspace " in text
    assert "not labelled yet" in read(mined).texts["scale"]
    sheet = draw(stages["labelled"], tmp_path / "b")
    text = read(sheet).texts["agreement"]
    assert "no model is trained yet" in text
    assert "`scout mine " in text and "for more pairs: training lacks " in text
    assert "not trained yet" in read(sheet).texts["scale"]


def test_without_pairs_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pairs; start with `scout mine`"):
        draw(tmp_path / "nothing", tmp_path / "out")


@pytest.mark.usefixtures("undrawn")
def test_without_the_scored_ads_the_rest_is_still_drawn(
    whole: Report, learnt: Path, tmp_path: Path
) -> None:
    helpers.block_of(learnt, 2).unlink()
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


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="sample must be at least 1 ad, got 0"):
        ReportOptions("w", sample=0)


@pytest.mark.usefixtures("undrawn")
def test_what_it_does_is_said(stages: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    options = ReportOptions(str(stages["mined"]), out=str(tmp_path), sample=50)
    report(options, said.append)
    assert said[0] == "round 1: 50 of 200 ads drawn"
    assert said[1].startswith(f"written to {tmp_path}/report.html (")
    assert json.dumps(report(options, said.append).summary)


# --- other strategies -------------------------------------------------------------------------


def words_of(found: Report) -> dict[str, str]:
    return {name: " ".join(text.split()) for name, text in read(found).texts.items()}


@pytest.fixture(scope="module")
def other(stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace whose strategy chose single ads, without clusters, overlaps and coverage."""
    folder = tmp_path_factory.mktemp("other")
    task = helpers.FAKE_TASK.replace("{budget: 12}", "{budget: 12, strategy: random}")
    helpers.run(helpers.write_task(folder, task), stages["corpus"], folder / "w")
    return folder / "w"


def test_a_strategy_without_clusters_and_pairs_gets_a_report_of_what_there_is(
    other: Path, tmp_path: Path
) -> None:
    found = draw(other, tmp_path)
    assert list(read(found).texts)[1:] == SECTIONS
    assert set(found.summary["missing"]) == {"overlaps", "coverage", "agreement"}
    assert len(found.pictures) == 3, "map, ads and scores"
    texts, items = words_of(found), items_of(other, 1)
    assert "strategy of this round, random, looks for no clusters" in texts["overlaps"]
    assert "strategy of this round, random, does not count" in texts["coverage"]
    assert "The chosen ads on the map" in texts["pairs"]
    assert "Marked are the chosen ads, called positive (triangle)" in texts["pairs"]
    assert "distance" not in texts["pairs"] and "drawn on all 200 ads" in texts["pairs"]
    assert "In the 12 ads chosen, those called" in texts["scores"]
    assert "selection.band" not in texts["scores"]
    assert f"random, drawn with probability {items[0].propensity:.3g}" in texts["top"]
    assert "The first 10 of 12 ads" in texts["top"]
    assert read(found).ads == [item.ads[0].text for item in items[:10]]
    assert "ads12 of a budget of 12" in texts[""] and "cover" not in texts[""]


@pytest.mark.usefixtures("undrawn")
def test_items_of_any_source_are_told_as_they_are(learnt: Path, tmp_path: Path) -> None:
    bare = {"distance": None, "overlap": None, "propensity": None}
    first, *others = items_of(learnt, 2)
    ads = [
        dataclasses.replace(item, source="exploration", ads=item.ads[:1], **bare) for item in others
    ]
    rewrite(learnt, 2, [dataclasses.replace(first, source="committee", **bare), *ads])
    found = draw(learnt, tmp_path / "a")
    texts = words_of(found)
    assert "The chosen items on the map" in texts["pairs"]
    [alt] = [str(i["alt"]) for i in read(found).images() if "The map in grey" in str(i["alt"])]
    assert "12 items as lines between their two ads, 11 of them drawn at random." in alt
    assert "1. " in texts["top"] and "committee" in texts["top"]
    assert "In the 1 item chosen" in texts["scores"]
    rewrite(learnt, 2, ads)
    texts = words_of(draw(learnt, tmp_path / "b"))
    assert "chosen" not in texts["scores"], "all were drawn at random"
    rewrite(learnt, 2, [])
    found = draw(learnt, tmp_path / "c")
    assert set(found.summary["missing"]) == {"coverage", "top"}
