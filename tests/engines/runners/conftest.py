"""Tests on engines: they run when somebody names them, as `make test-engines` does.

`make test` needs Python alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.runners.clusters import FlinkCluster, Processes, launcher_jar, processes
from tests.engines.runners.install import MAIN_CLASSES

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests to whoever names them."""
    named = (config.invocation_params.dir / arg.split("::")[0] for arg in config.args)
    asked = any(HERE in (path.resolve(), *path.resolve().parents) for path in named)
    return None if asked else True


@pytest.fixture(scope="session")
def engines() -> Path:
    """Return the folder that `make test-engines` has filled."""
    folder = os.environ.get("SCOUT_ENGINES", "")
    assert folder, (
        "SCOUT_ENGINES names no folder: `make test-engines` fills one and runs these tests"
    )
    return Path(folder)


@pytest.fixture(scope="session")
def jars(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the job servers' jars by name."""
    folder = tmp_path_factory.mktemp("jars")
    return {
        name: launcher_jar(engines / name, main_class, folder / f"{name}.jar")
        for name, main_class in MAIN_CLASSES.items()
    }


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    """Return what starts programs for a test."""
    with processes(tmp_path / "processes") as running:
        yield running


@pytest.fixture(scope="module")
def flink(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """Return a Flink cluster of two TaskManagers for a module's tests."""
    with processes(tmp_path_factory.mktemp("flink") / "cluster") as running:
        yield FlinkCluster([engines / "flink-cluster", engines / "flink"], running)
