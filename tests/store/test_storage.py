"""Object storage that cannot be reached: a sentence with the address and the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines import cli
from pipelines.errors import RunFailed, UsageError
from pipelines.store import cloud, storage
from pipelines.store.workspace import Workspace


def down(*_: Any, **__: Any) -> Any:
    """Fail as Beam does when a storage does not answer."""
    inner = BeamIOError("List operation failed", {"s3://b/w/": TimeoutError("no answer in 120 s")})
    raise BeamIOError("Match operation failed", {"s3://b/w/*": inner})


@pytest.fixture(params=["gs", "s3"])
def far(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of a storage that is down."""
    for name in ("match", "exists", "create"):
        monkeypatch.setattr(FileSystems, name, down)
    for name in ("read", "write", "find", "matching"):
        monkeypatch.setattr(cloud, name, down)
    return f"{request.param}://b/w/x"


@pytest.mark.parametrize(
    "act",
    [
        storage.match,
        storage.exists,
        storage.read,
        lambda path: storage.write(path, b"x"),
        lambda path: Workspace(path.removesuffix("/x")).rounds(),
    ],
)
def test_the_reason_is_told_with_the_address(act: Callable[[str], object], far: str) -> None:
    message = r"://b/w/.*: object storage does not .* \(TimeoutError: no answer in 120 s\); look at"
    with pytest.raises(RunFailed, match=message):
        act(far)


def test_a_storage_without_its_settings_is_no_surprise(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--workspace", "s3://bucket/w"]) == cli.FAILED
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("scout: error: s3://bucket/w/") and "your credentials" in line


def test_an_unknown_storage_is_the_callers_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="foo:// is no storage that is known here"):
        storage.join("foo://bucket", "w")
    assert cli.main(["status", "--workspace", "foo://bucket/w"]) == cli.WRONG_USAGE
    [line] = capsys.readouterr().err.splitlines()
    assert "foo:// is no storage" in line


def test_a_missing_file_stays_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileSystems, "exists", lambda path: False)
    for path in ("s3://bucket/none", str(tmp_path / "none")):
        with pytest.raises(FileNotFoundError):
            storage.read(path)
        assert not storage.exists(path)
