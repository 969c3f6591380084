"""How far is our k-means from full Lloyd, and how much faster?

    python -m benchmarks.kmeans_inertia --data clickbait.jsonl.gz

Fits `pipelines.numerics.kmeans.fit_kmeans` and scikit-learn's KMeans (full Lloyd, one start), each
on one thread, to the headlines' MiniLM vectors, shuffled and sorted along their main direction.
Target: the median over seeds of the ratio of inertias is at most 1.02 for each k and order.
"""

import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from benchmarks import _common
from pipelines.numerics.kmeans import VectorSpace, auto_k, fit_kmeans, inertia, project

MAX_RATIO = 1.02


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds, at least 3 (default: 3)")
    args = _common.parse(parser, argv)
    if args.seeds < 3:
        parser.error(f"--seeds must be at least 3, got {args.seeds}")
    vectors = project(VectorSpace(None, None), _common.headline_vectors(args.data))
    n = len(vectors)
    main_direction = np.linalg.eigh(np.cov(vectors.T))[1][:, -1]
    orders = {
        "shuffled": np.random.default_rng(0).permutation(n),
        "sorted": np.argsort(vectors @ main_direction, kind="stable"),
    }
    rows, targets = [], {}
    for k in (50, auto_k(n)):
        for order, places in orders.items():
            ordered = np.ascontiguousarray(vectors[places])
            ratios, speedups, ours_sec = [], [], []
            for seed in range(args.seeds):
                start = time.perf_counter()
                # Ours runs on one thread for the sake of its bits.
                with threadpool_limits(limits=1):
                    full = KMeans(k, n_init=1, random_state=seed).fit(ordered)
                full_sec = time.perf_counter() - start
                start = time.perf_counter()
                centroids = fit_kmeans(ordered, k, seed)
                ours_sec.append(time.perf_counter() - start)
                # Both inertias are measured alike, on all rows.
                reference = inertia(ordered, full.cluster_centers_)
                ratios.append(inertia(ordered, centroids) / reference)
                speedups.append(full_sec / ours_sec[-1])
                _common.log(f"k={k} {order} seed={seed}: {ratios[-1]:.4f}, {speedups[-1]:.1f}x")
            median = statistics.median(ratios)
            rows.append(
                {
                    "n": n,
                    "k": k,
                    "order": order,
                    "inertia / full Lloyd": median,
                    "worst seed": max(ratios),
                    "seconds": statistics.median(ours_sec),
                    "times faster": statistics.median(speedups),
                }
            )
            targets[f"inertia ratio <= {MAX_RATIO} (k = {k}, {order})"] = median <= MAX_RATIO
    return _common.finish(args, rows, targets, seeds=args.seeds)


if __name__ == "__main__":
    sys.exit(main())
