"""Ads that experts have seen, in a file of the workspace: however many, jobs carry its path alone."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.store import files, storage


@dataclass(frozen=True, slots=True)
class Shown:
    """Content keys of ads, as workers look them up; false where there are none.

    Memory of a process: 60 bytes a key, read once.

    Attributes:
        root: the workspace.
        path: the file relative to it, one key a line; "" for no ads.
    """

    root: str = ""
    path: str = ""

    def __bool__(self) -> bool:
        return bool(self.path)

    def among(self, keys: pa.ChunkedArray) -> np.ndarray:
        """Return which content keys are among those of ads that were shown, bool (n,)."""
        if not self.path or not len(keys):
            return np.zeros(len(keys), dtype=bool)
        found = pc.is_in(keys, value_set=_keys(self.root, self.path))
        return np.asarray(found.to_numpy(), dtype=bool)


NOTHING = Shown()


def write(root: str, keys: Iterable[str]) -> Shown:
    """Write content keys into the workspace, under a name by their hash."""
    ordered = sorted(keys)
    if not ordered:
        return NOTHING
    data = "".join(f"{key}\n" for key in ordered).encode()
    path = f"shown/{files.sha256(data)[:20]}.txt"
    if not storage.exists(files.place(root, path)):
        storage.write(files.place(root, path), data)
    return Shown(root, path)


@functools.lru_cache(maxsize=2)
def _keys(root: str, path: str) -> pa.Array:
    return pa.array(files.named(root, path).decode().split(), pa.string())
