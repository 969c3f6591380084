"""Files that a manifest lists: written and hashed in one place, read and verified in one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipelines.errors import RunFailed, find_run_failed
from pipelines.store import files, storage


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    root = str(tmp_path)
    file = files.write(root, "rounds/0001/pairs/a/items.jsonl", b"{}\n{}\n", rows=2)
    assert (file.path, file.rows, file.bytes) == ("rounds/0001/pairs/a/items.jsonl", 2, 6)
    assert file.sha256 == hashlib.sha256(b"{}\n{}\n").hexdigest()
    assert files.read(root, file) == b"{}\n{}\n"
    named = files.write(root, "blocks/block-*.bin", b"x")
    assert named.path == f"blocks/block-{hashlib.sha256(b'x').hexdigest()[:20]}.bin"


@pytest.mark.parametrize(
    ("stage", "cure"),
    [
        ("scored", "run again: its ads are scored anew"),
        ("model", "restore it or train again"),
        ("verdicts", "restore it, a manifest counts on it"),
    ],
)
def test_damage_is_named_with_its_cure(tmp_path: Path, stage: str, cure: str) -> None:
    root = str(tmp_path)
    file = files.write(root, f"rounds/0001/{stage}/attempt-0001-00000000/f", b"123")
    for data, found in ((b"12", "2 bytes, 3 written"), (b"124", "its SHA-256 is another")):
        storage.write(files.full_path(root, file), data)
        with pytest.raises(files.Damaged) as caught:
            files.read(root, file)
        assert f"/f: has changed since it was written ({found}); " in caught.value.message
        assert caught.value.message.endswith(cure)
    (tmp_path / file.path).unlink()
    with pytest.raises(RunFailed, match=f"/f: is gone; {cure}"):
        files.read(root, file)


def test_damage_found_on_a_worker_is_one_line_for_the_person() -> None:
    error = RuntimeError(f"{files.Damaged('w/f: is gone; restore it')} [while running 'Read']")
    assert find_run_failed(error) == "w/f: is gone; restore it"


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "a/..",
        "/etc/passwd",
        "",
        "a//b",
        "a/./b",
        "a\\..\\x",
        "C:/x",
        "s3://b/x",
        "a\0b",
    ],
)
@pytest.mark.parametrize("root", ["/w", "gs://b/w"])
def test_no_file_names_a_place_outside(root: str, path: str) -> None:
    with pytest.raises(RunFailed, match=rf"^\W+run failed\W+{root}: a file in it names '"):
        files.place(root, path)
    for act in (files.gone, lambda r, p: files.changed(r, p, "")):
        with pytest.raises(RunFailed, match="no place inside"):
            act(root, path)


@pytest.mark.parametrize("path", ["a", "a.b/c..d/...e", "rounds/*/x", "keys-ab/1-2.rows.parquet"])
def test_a_place_inside(path: str) -> None:
    assert files.place("/w", path) == f"/w/{path}"
    assert files.place("gs://b/w", path) == f"gs://b/w/{path}"


def test_a_file_whose_name_tells_what_it_holds(tmp_path: Path) -> None:
    root = str(tmp_path)
    file = files.write(root, "shown/a-*.txt", b"123")
    assert files.named(root, file.path) == b"123"
    storage.write(files.full_path(root, file), b"12")
    with pytest.raises(files.Damaged, match=r"a-\w+\.txt: has changed since it was written"):
        files.named(root, file.path)
    # A name that tells nothing proves nothing.
    storage.write(str(tmp_path / "b.txt"), b"123")
    with pytest.raises(files.Damaged, match="has changed"):
        files.named(root, "b.txt")
    (tmp_path / file.path).unlink()
    with pytest.raises(files.Damaged, match="is gone"):
        files.named(root, file.path)
