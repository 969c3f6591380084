"""Workspaces at several times of their life, and reports whose pictures are left blank."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pipelines.report.output import Report
from pipelines.report.pictures import canvas
from tests import helpers
from tests.report.drawn import draw, evaluation, labelled, learn, say_so


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures blank: a test of words does not wait for them."""
    sink = io.BytesIO()
    Image.new("RGB", (8, 4), "white").save(sink, format="PNG")
    monkeypatch.setattr(canvas, "picture", lambda *args, **settings: sink.getvalue())


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def whole(stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return the report of the finished workspace."""
    return draw(stages["learnt"], tmp_path_factory.mktemp("whole"))


@pytest.fixture
def learnt(stages: dict[str, Path], tmp_path: Path) -> Path:
    """Return a copy of the finished workspace that a test may change."""
    return Path(shutil.copytree(stages["learnt"], tmp_path / "w"))
