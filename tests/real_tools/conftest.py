"""Tests against real programs: a browser, an office program, a labeling tool's server.

They run when somebody names them, as `make test-tools` does. `make test` needs Python alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests to whoever names them."""
    named = (config.invocation_params.dir / arg.split("::")[0] for arg in config.args)
    asked = any(HERE in (path.resolve(), *path.resolve().parents) for path in named)
    return None if asked else True
