"""Does the index find the nearest opposite-label neighbour, and how fast?

    python -m benchmarks.neighbor_recall --data clickbait.jsonl.gz

Queries are of the other label than the indexed vectors, so they lie outside the index's
distribution, where approximate indexes lose most. 10,000 vectors are benign headlines and the
queries clickbait ones; 100,000 are a synthetic mixture. Speed is relative to plain NumPy (a matrix
product and its row maxima, in blocks of 256 queries) in the same run. Target: recall@1 of the ScaNN
index at least 0.99, and two builds answer alike.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from benchmarks import _common
from models.neighbors import ExactIndex, NeighborIndex, ScannIndex, scann_problem

MIN_RECALL = 0.99
_BLOCK = 256
_DIMS = 384


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_parser(__doc__)
    parser.add_argument("--queries", type=int, default=1000, help="queries (default: 1000)")
    args = _common.parse(parser, argv)
    _, clickbait = _common.load_headlines(args.data)
    vectors = _common.headline_vectors(args.data)
    rng = np.random.default_rng(0)
    benign = rng.permutation(vectors[~clickbait])[:10_000]
    sets = {
        "headlines": (benign, rng.permutation(vectors[clickbait])[: args.queries]),
        "mixture": mixture(rng, 100_000, args.queries),
    }
    kinds: dict[str, Callable[[np.ndarray], NeighborIndex]] = {
        "exact": ExactIndex,
        "ScaNN brute force": ScannIndex,
    }
    # Loads ScaNN, so that no build's time includes it.
    problem = scann_problem()
    if problem:
        parser.error(problem)
    rows, targets = [], {}
    for name, (data, queries) in sets.items():
        expected, _ = ExactIndex(data).search(queries, 1)
        numpy_sec = _common.seconds(partial(plain, data, queries))
        found = plain(data, queries)
        rows.append(
            {
                "set": name,
                "n": len(data),
                "index": "NumPy product",
                "recall@1": float((found == expected[:, 0]).mean()),
                "queries/s / NumPy's": 1.0,
                "queries/s": len(queries) / numpy_sec,
                "build seconds": 0.0,
                "two builds alike": "yes",
            }
        )
        for kind, build in kinds.items():
            _common.log(f"{name}: {kind}")
            start = time.perf_counter()
            index = build(data)
            build_sec = time.perf_counter() - start
            took = _common.seconds(partial(index.search, queries, 1))
            first, second = index.search(queries, 1), build(data.copy()).search(queries, 1)
            alike = all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
            recall = float((first[0] == expected).mean())
            rows.append(
                {
                    "set": name,
                    "n": len(data),
                    "index": kind,
                    "recall@1": recall,
                    "queries/s / NumPy's": numpy_sec / took,
                    "queries/s": len(queries) / took,
                    "build seconds": build_sec,
                    "two builds alike": "yes" if alike else "no",
                }
            )
            if kind == "ScaNN brute force":
                targets[f"recall@1 >= {MIN_RECALL} at {len(data)}"] = recall >= MIN_RECALL
                targets[f"two builds answer alike at {len(data)}"] = alike
    return _common.finish(args, rows, targets, queries=args.queries)


def plain(data: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Find nearest rows of unit vectors the way one writes it down first."""
    return np.concatenate(
        [
            (queries[start : start + _BLOCK] @ data.T).argmax(axis=1)
            for start in range(0, len(queries), _BLOCK)
        ]
    )


def mixture(rng: np.random.Generator, n: int, n_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw unit vectors around 300 topics, and queries around them, shifted as another label."""
    topics = rng.normal(size=(300, _DIMS))
    # Real text varies in few directions: a spectrum that falls off.
    spread = 1.5 / np.sqrt(1.0 + np.arange(_DIMS) / 20.0)
    shift = rng.normal(size=_DIMS) * 0.5

    def draw(count: int, offset: np.ndarray | float) -> np.ndarray:
        rows = topics[rng.integers(0, len(topics), count)] + offset
        rows += rng.normal(size=rows.shape) * spread
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return draw(n, 0.0), draw(n_queries, shift)


if __name__ == "__main__":
    sys.exit(main())
