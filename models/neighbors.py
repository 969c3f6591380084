"""Nearest-neighbour search behind one interface: exact with NumPy, or ScaNN.

Distances are Euclidean between unit vectors, in [0, 2], smaller is nearer. Both indexes give the
same answer, bit for bit: ScaNN proposes neighbours, and their distances and order come from the
same float64 code as the exact index's.
"""

import functools
import logging
import platform
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines.numerics.distances import (
    ExactIndex,
    as_matrix,
    error_bound,
    neighbors_given,
    row_distances,
    squared_norms,
)

__all__ = [
    "ExactIndex",
    "IndexKind",
    "NeighborIndex",
    "ScannIndex",
    "build_index",
    "scann_problem",
]

IndexKind = Literal["auto", "exact", "scann"]

# Below this many vectors a search takes milliseconds either way.
EXACT_BELOW = 4096
_SPARE_NEIGHBORS = 4

_log = logging.getLogger(__name__)


class ScannIndex:
    """ScaNN's brute force in float32.

    It searches everything, two builds agree, and it costs nothing to build. Its candidates are
    certified: where rounding could have cut off a neighbour (ties and copies), the query is
    searched again exactly, so it always answers as `ExactIndex` does.

    Asymmetric hashing, which searches a compressed copy, is not used: at 100,000 x 384 on two cores
    it answered 1.1 times as many queries a second after 10 s of training, and found .94 of the
    nearest. Nor is a tree: queries of the opposite label lie outside the distribution its leaves
    were trained on, and it loses a quarter of the neighbours.

    Args:
        vectors: float32 (n, d), finite; n may be 0.

    Raises:
        ValueError: if `vectors` is no finite matrix (a NaN inside ScaNN could end the process).
        ImportError: if ScaNN cannot be loaded.

    Memory: a view of `vectors` and ScaNN's own copy, 4 * n * d bytes.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = as_matrix("vectors", vectors)
        self._squared_norms = squared_norms(self.vectors)
        self._fallback: ExactIndex | None = None
        self._searcher: Any = self._build() if len(self.vectors) else None

    def __len__(self) -> int:
        return len(self.vectors)

    def __reduce__(self) -> tuple[Any, ...]:
        # ScaNN's searchers do not pickle; this one is rebuilt in a moment.
        return (type(self), (self.vectors,))

    def search(
        self, queries: np.ndarray, m: int, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find each query's m nearest rows, as `ExactIndex.search` says.

        ScaNN takes as many threads as there are cores; `threads` are the exact search's.

        Memory: about q * (m + 4) * 40 bytes beside the exact search of uncertain queries.
        """
        wanted = neighbors_given(m, len(self.vectors))
        matrix = as_matrix("queries", queries, self.vectors.shape[1])
        indices = np.empty((len(matrix), wanted), dtype=np.int32)
        distances = np.empty((len(matrix), wanted), dtype=np.float32)
        if self._searcher is None or not len(matrix):
            return indices, distances
        fetched = min(wanted + _SPARE_NEIGHBORS, len(self.vectors))
        found, proposed = self._searcher.search_batched_parallel(
            matrix, final_num_neighbors=fetched
        )
        if found.shape[1] < fetched:
            return self._exact().search(matrix, m, threads)
        # A neighbour ScaNN does not find comes back as index 0 with a distance of NaN.
        complete = np.isfinite(proposed).all(axis=1)
        rows = np.repeat(np.arange(len(matrix)), fetched)
        columns = found.astype(np.int64).ravel()
        exact = row_distances(matrix, self.vectors, rows, columns)
        order = np.lexsort((columns, exact, rows)).reshape(len(matrix), fetched)
        indices[:] = columns[order[:, :wanted]]
        distances[:] = exact[order[:, :wanted]]
        certain = complete & self._certified(matrix, exact[order], wanted)
        if not certain.all():
            again = np.flatnonzero(~certain)
            indices[again], distances[again] = self._exact().search(matrix[again], m, threads)
        return indices, distances

    def _certified(self, queries: np.ndarray, ordered: np.ndarray, wanted: int) -> np.ndarray:
        """Tell for which queries no row outside the fetched ones can belong to the nearest."""
        if ordered.shape[1] == len(self.vectors):
            return np.ones(len(queries), dtype=bool)
        squared = np.square(ordered.astype(np.float64))
        slack = error_bound(squared_norms(queries), self._squared_norms, queries.shape[1])
        return squared[:, -1] - squared[:, wanted - 1] > 4.0 * slack

    def _exact(self) -> ExactIndex:
        if self._fallback is None:
            self._fallback = ExactIndex(self.vectors)
        return self._fallback

    def _build(self) -> Any:
        from scann import scann_ops_pybind

        builder = scann_ops_pybind.builder(self.vectors, _SPARE_NEIGHBORS, "squared_l2")
        return builder.score_brute_force(quantize=False).build()


NeighborIndex = ExactIndex | ScannIndex


def build_index(vectors: np.ndarray, kind: IndexKind = "auto") -> NeighborIndex:
    """Index vectors for search. Every kind gives the same answers; only the speed differs.

    Args:
        vectors: float32 (n, d) unit vectors, finite; n may be 0.
        kind: "exact", "scann", or "auto": ScaNN from `EXACT_BELOW` vectors on, if it can be loaded.

    Raises:
        ValueError: if `vectors` is no finite matrix.
        ImportError: if kind is "scann" and ScaNN cannot be loaded.
    """
    if kind == "exact" or (kind == "auto" and len(vectors) < EXACT_BELOW):
        return ExactIndex(vectors)
    problem = scann_problem()
    if problem is None:
        return ScannIndex(vectors)
    if kind == "scann":
        raise ImportError(f"{problem}; ask for kind='exact' to search without ScaNN")
    _log_fallback(problem)
    return ExactIndex(vectors)


@functools.cache
def scann_problem() -> str | None:
    """Say why ScaNN cannot be used here, or None if it can. The first call imports it (seconds)."""
    missing = _missing_instructions()
    if missing:
        # Loading it would not raise but kill the process (SIGILL).
        return f"ScaNN needs processor instructions that are missing here: {', '.join(missing)}"
    try:
        from scann import scann_ops_pybind  # noqa: F401
    # A broken build raises whatever its native library does.
    except Exception as error:
        return f"ScaNN cannot be loaded ({type(error).__name__}: {error})"
    return None


def _missing_instructions(cpuinfo: str = "/proc/cpuinfo") -> list[str]:
    if platform.machine() not in ("x86_64", "AMD64") or not Path(cpuinfo).exists():
        return []
    flags = {
        flag
        for line in Path(cpuinfo).read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("flags")
        for flag in line.split()
    }
    return [name for name in ("avx", "fma") if flags and name not in flags]


@functools.cache
def _log_fallback(problem: str) -> None:
    _log.warning("%s; searching exactly instead: same answers, slower on large sets", problem)
