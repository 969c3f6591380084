"""What foretells a model's answers in a cascade: files of the score store, beside what was foretold by them."""

from __future__ import annotations

import functools

from pipelines.numerics.cascade import Student
from pipelines.store import files, storage
from pipelines.store.workspace import config_hash


def foretold_key(score_key: str, by: str) -> str:
    """Return the score key of what a student foretells of the scores of another key."""
    return config_hash({"foretold": score_key, "by": by})


def write(root: str, key: str, student: Student) -> str:
    """Write a student; returns its path in the workspace."""
    return files.write(root, f"scores/{key}/student-*.json", student.to_json().encode()).path


def find(root: str, key: str) -> str:
    """Return the path of the student by which ads were foretold under a key; "" where there is none.

    There is one, unless two runs on storage without locks made two: then the first by name counts.
    """
    there = storage.match(storage.join(root, "scores", key, "student-*.json"))
    names = [found.path.replace("\\", "/").rpartition("/")[2] for found in there]
    return f"scores/{key}/{min(names)}" if names else ""


@functools.lru_cache(maxsize=4)
def read(root: str, path: str) -> Student:
    """Return a student; raises as :func:`pipelines.store.files.named` does."""
    return Student.from_json(files.named(root, path))
