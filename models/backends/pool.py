"""Labelers that ask another one only about texts they have not seen, for simulations."""

from __future__ import annotations

import hashlib
import os
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np

from models.backends.base import Glance, LabelBatch, Labeler, LabelerIdentity
from models.encoder import VectorCache

_COLUMNS = tuple(field.name for field in fields(LabelBatch))


class RememberingLabeler(Labeler):
    """Keeps every answer, in memory and on request in a file.

    A labeler's answer on a text depends on that text alone, so remembered and fresh answers are the
    same. Memory: about (2 * dim + 300) bytes a text. Not safe for several threads.
    """

    def __init__(self, identity: LabelerIdentity, load: Callable[[], Labeler]) -> None:
        """Prepare; nothing is loaded before the first new text.

        Args:
            identity: what decides the answers.
            load: makes the labeler.
        """
        self.identity = identity
        self._load = load
        self._labeler: Labeler | None = None
        # Of each text its row in the answers, which are the columns of a `LabelBatch`.
        self._rows: dict[bytes, int] = {}
        self._answers: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def _inner(self) -> Labeler:
        if self._labeler is None:
            self._labeler = self._load()
        return self._labeler

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Score and embed texts; see `Labeler`."""
        if not texts:
            return self._inner().label(texts)
        names = [_name(text) for text in texts]
        new = {n: text for n, text in zip(names, texts, strict=True) if n not in self._rows}
        if new:
            batch = self._inner().label(list(new.values()))
            self._remember(list(new), {column: getattr(batch, column) for column in _COLUMNS})
        rows = [self._rows[name] for name in names]
        return LabelBatch(**{column: self._answers[column][rows] for column in _COLUMNS})

    def glance(self, texts: Sequence[str]) -> Glance:
        """Return what the real one knows before it is asked; nothing of it is kept."""
        return self._inner().glance(texts)

    def states(self, texts: Sequence[str], layer: int) -> np.ndarray:
        """Return the real one's; see `Labeler`."""
        return self._inner().states(texts, layer)

    def _remember(self, names: Sequence[bytes], answers: Mapping[str, np.ndarray]) -> None:
        known = len(self._rows)
        self._rows.update(zip(names, range(known, known + len(names)), strict=True))
        for column, values in answers.items():
            earlier = [self._answers[column]] if known else []
            self._answers[column] = np.concatenate([*earlier, values])

    def save(self, path: Path) -> None:
        """Write all answers; the file appears whole."""
        if not self._rows:
            return
        partial = path.with_name(f".{path.stem}.{os.getpid()}.npz")
        np.savez(
            partial,
            identity=np.array(astuple(self.identity)),
            name=np.array([np.frombuffer(name, dtype=np.uint8) for name in self._rows]),
            **self._answers,  # type: ignore[arg-type]
        )
        os.replace(partial, path)

    def restore(self, path: Path) -> bool:
        """Read answers that `save` wrote; False when there are none of this identity."""
        if not path.is_file():
            return False
        with np.load(path, allow_pickle=False) as held:
            if held["identity"].tolist() != list(astuple(self.identity)):
                return False
            names = [name.tobytes() for name in held["name"]]
            self._remember(names, {column: held[column] for column in _COLUMNS})
        return True


def _name(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class LabelerPool:
    """What the labelers of a simulation said, so that many runs on one corpus ask each text once.

    Whoever wants it makes one and hands it down to mining and training; nothing is remembered
    otherwise, for a corpus may not fit into memory. Pickled, as Beam pickles what its stages hold,
    it is a reference: to the same pool in this process, to a new one in another.

    Attributes:
        vectors: of sentence encoders.
    """

    def __init__(self) -> None:
        self.vectors = VectorCache()
        self._labelers: dict[LabelerIdentity, RememberingLabeler] = {}
        self._token = uuid.uuid4().hex
        _LIVE[self._token] = self

    def labeler(self, identity: LabelerIdentity, load: Callable[[], Labeler]) -> RememberingLabeler:
        """Return the labeler of this identity, which asks the real one only about new texts."""
        return self._labelers.setdefault(identity, RememberingLabeler(identity, load))

    def __reduce__(self) -> tuple[Callable[[str], LabelerPool], tuple[str]]:
        return _pool, (self._token,)


_LIVE: weakref.WeakValueDictionary[str, LabelerPool] = weakref.WeakValueDictionary()


def _pool(token: str) -> LabelerPool:
    return _LIVE.get(token) or LabelerPool()
