"""Services on this machine, and a cache of their answers that is each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.backends import usage
from tests.model_server import ModelServer, model_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server that answers, of whose answers nothing is known yet."""
    # The folder of models stays: only what services answered is a test's own.
    store = tmp_path / "cache"
    monkeypatch.setattr("models.backends.asked.cache_dir", lambda: store)
    monkeypatch.delenv("SCOUT_MODEL_KEY", raising=False)
    usage.drain()
    with model_server() as running:
        yield running
