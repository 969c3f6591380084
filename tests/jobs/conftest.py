"""Loops that were played once for all tests of the jobs."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import presets
from pipelines import cli
from tests import helpers
from tests.jobs.loop import GOLD, Loop, answer


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Collect the paths of all files that are opened for reading."""
    with helpers.watched_reads() as paths:
        yield paths


@pytest.fixture(scope="package", autouse=True)
def _encoders_are_read_once() -> Iterator[None]:
    # Frozen under a head, so that one copy serves all tests; reading it takes a third of a second.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "load_encoder", functools.cache(presets.load_encoder))
        yield


@pytest.fixture(scope="package")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return helpers.tiny_encoder(tmp_path_factory.mktemp("preset") / "tiny-bert")


@pytest.fixture(scope="package")
def played(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """Return a loop of two complete rounds. Copy it before changing it."""
    loop = Loop(tmp_path_factory.mktemp("played"))
    helpers.write_jsonl(loop.folder / "ads.jsonl", GOLD.ads)
    helpers.write_task(loop.folder, helpers.head_task(encoder))
    for number in (1, 2):
        assert loop.mine() == cli.OK
        assert loop.command("import", answer(loop, number)) == cli.OK
        assert loop.command("train") == cli.OK
    return loop


@pytest.fixture
def loop(played: Loop, tmp_path: Path) -> Loop:
    """Return a copy of the two rounds, to change."""
    return Loop(Path(shutil.copytree(played.folder, tmp_path / "loop")))


@pytest.fixture
def untrained(loop: Loop) -> Loop:
    """Return the two rounds without the second one's model."""
    shutil.rmtree(loop.root / "rounds" / "0002" / "model")
    return loop


@pytest.fixture
def mined(loop: Loop) -> Loop:
    """Return a first round that waits for verdicts."""
    for gone in ("0001/verdicts", "0001/model", "0002"):
        shutil.rmtree(loop.root / "rounds" / gone)
    return loop
