"""A labeler without a model, for tests and dry runs: fast, deterministic, exact.

It reacts to words that advertisers of both kinds use, so that a corpus scored by it has two
classes, graded scores and clusters of like texts; it is no judge of anything.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from models.backends.base import Backend, Glance, LabelBatch, Labeler, LabelerIdentity, Progress
from models.prompting import render
from pipelines.numerics.calibration import to_grid

DIM = 64
_WORDS = {
    "guaranteed": 1.5, "miracle": 2.0, "free": 1.0, "win": 1.5, "won": 1.5, "winner": 2.0,
    "secret": 1.5, "shocking": 2.0, "believe": 1.5, "urgent": 1.0, "cure": 1.5, "virus": 1.5,
    "you": 0.5, "your": 0.5, "this": 0.4, "these": 0.5, "why": 0.5, "reasons": 1.0,
    "things": 1.0, "risk": -0.5, "terms": -1.0, "museum": -1.5, "library": -1.5,
}  # fmt: skip


class Fake(Backend):
    """What `model: {preset: fake}` means; it neither learns nor reads the prompt."""

    def identify(self, progress: Progress | None = None) -> LabelerIdentity:  # noqa: ARG002
        """Return the identity; the prompt must be a usable one all the same."""
        return _identity(render(self.spec.prompt).hash)

    def load(self) -> FakeLabeler:
        """Return the labeler."""
        return FakeLabeler(self.identify().prompt_hash)


def _identity(prompt_hash: str) -> LabelerIdentity:
    return LabelerIdentity("fake@1", prompt_hash, "trigrams")


class FakeLabeler(Labeler):
    """Scores texts by a word list and embeds them by hashed character trigrams."""

    def __init__(self, prompt_hash: str = "fake") -> None:
        self.identity = _identity(prompt_hash)
        self.calls = 0

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Score and embed texts.

        A text that holds ``<poison>`` raises, one that holds ``<nan>`` gets a margin that is no
        number: what a broken model would do, for the tests of what happens then.

        Raises:
            ValueError: a text holds ``<poison>``.
        """
        self.calls += 1
        if any("<poison>" in text for text in texts):
            raise ValueError("poisoned text")
        margins = np.array([_margin(text) for text in texts], dtype=np.float64)
        seen = self.glance(texts)
        return LabelBatch(to_grid(margins), seen.vectors, seen.n_tokens, seen.truncated)

    def glance(self, texts: Sequence[str]) -> Glance:
        """Embed texts, whatever they hold."""
        encoded = _trigrams(texts)
        words = np.array([len(text.split()) for text in texts], dtype=np.int32).reshape(len(texts))
        whole = np.zeros(len(texts), dtype=bool)
        none = np.full(len(texts), np.nan)
        return Glance(encoded.astype(np.float16), words, whole, encoded, np.zeros(len(texts)), none)


def _margin(text: str) -> float:
    if "<nan>" in text:
        return float("nan")
    digest = hashlib.blake2b(f"1\0{text}".encode(), digest_size=4).digest()
    jitter = int.from_bytes(digest, "big") / 2**32 - 0.5
    words = re.findall(r"\w+", text.casefold())
    return -4.0 + jitter + 0.4 * text.count("!") + sum(_WORDS.get(word, 0.0) for word in words)


def _trigrams(texts: Sequence[str]) -> np.ndarray:
    """Return unit vectors (texts, DIM), float32, of hashed character trigrams."""
    folded = [f"  {text.casefold()} " for text in texts]
    letters = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    letters = letters.astype(np.uint64)
    row = np.repeat(np.arange(len(folded)), [len(text) for text in folded])
    inside = row[2:] == row[:-2]
    grams = (letters[:-2] << 42 | letters[1:-1] << 21 | letters[2:])[inside]
    distinct = pa.array(grams).dictionary_encode()
    places = np.array([_place(gram) for gram in distinct.dictionary.to_pylist()], dtype=np.int64)
    cells = row[2:][inside] * 2 * DIM + places[distinct.indices.to_numpy()]
    counts = np.bincount(cells, minlength=len(folded) * 2 * DIM).astype(np.float32)
    counts = counts.reshape(len(folded), 2, DIM)
    vectors = counts[:, 0] - counts[:, 1]
    lengths = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return vectors / np.where(lengths > 0, lengths, 1)


@functools.lru_cache(maxsize=1 << 17)
def _place(gram: int) -> int:
    """Return the dimension that a trigram counts for; those from ``DIM`` on count against it."""
    data = "".join(chr(gram >> shift & 0x1FFFFF) for shift in (42, 21, 0))
    digest = hashlib.blake2b(data.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    value = int.from_bytes(digest, "big")
    return value % DIM + (0 if value & (1 << 20) else DIM)
