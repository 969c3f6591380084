"""What does each strategy of single ads cost: an ad where it is scored, and a batch from its pool?

    python -m benchmarks.strategy_costs

Synthetic unit vectors of 384 dimensions around 200 centres, 400 labels, a budget of 100. Each strategy in a
process of its own, on one thread, in CPU seconds. A score stands beside the assignment of the same ads to 447 clusters
(as many as 400,000 ads get), which any strategy of pairs takes. The pool is as large as asked for, except
where a strategy bounds it itself. Targets: a score at most twice the assignment; a batch from 50,000 within
60 s and 2 GB, expected error reduction apart, whose pool is bounded.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import _common
from pipelines.config import Selection
from pipelines.numerics import kmeans
from pipelines.numerics.calibration import Threshold
from pipelines.strategies import registry
from pipelines.strategies.base import UNIT, Context, Labelled, Rows, RowStrategy
from pipelines.text import content_key

DIMS, CENTRES, LABELS, BUDGET = 384, 200, 400, 100
CLUSTERS, SCORED = 447, 20_000
POSITIVE = 0.05
MOST_SECONDS, MOST_BYTES, MOST_TIMES = 60.0, 2e9, 2.0


def made(ads: int, seed: int) -> tuple[Rows, np.ndarray]:
    """Return ads around common centres, and the truth of each, bool (n,)."""
    centres = np.random.default_rng(0).normal(size=(CENTRES, DIMS))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(CENTRES, size=ads)] + rng.normal(size=(ads, DIMS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    along = vectors @ centres[0] + rng.normal(0, 0.3, ads)
    truth = along >= np.quantile(along, 1.0 - POSITIVE)
    margins = np.rint(256 * (2.0 * along - 3.0 + rng.normal(0, 1.0, ads))) / 256
    keys = [content_key(f"{seed} {n}") for n in range(ads)]
    return Rows(keys, margins, vectors.astype(np.float16)), truth


def cpu_seconds(action: Callable[[], object]) -> float:
    """Time an action on this thread, busy as the machine may be: the median of 5 after one that warms up."""
    action()
    times = []
    for _ in range(5):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return statistics.median(times)


def measure(name: str, ads: int) -> dict[str, object]:
    """Measure one strategy in this process."""
    strategy = registry.create(name)
    assert isinstance(strategy, RowStrategy)
    known, truth = made(LABELS, 1)
    order = np.argsort(known.keys)
    known = Rows(
        [known.keys[i] for i in order],
        known.margins[order],
        None if known.vectors is None else known.vectors[order],
    )
    pool, _ = made(ads, 2)
    threshold = Threshold(float(np.quantile(pool.margins, 1.0 - POSITIVE)), ads // 20, ads)
    selection = Selection(strategy=name, budget=BUDGET, coverage_sample_rows=ads)
    labelled = Labelled(known, truth[order].astype(np.int8))
    context = Context(selection, 0, "policy", threshold, ads, labelled)
    vectors = kmeans.project(UNIT, pool.vectors[:SCORED])  # type: ignore[index]
    centroids = kmeans.project(UNIT, np.random.default_rng(3).normal(size=(CLUSTERS, DIMS)))
    part = Rows(pool.keys[:SCORED], pool.margins[:SCORED], pool.vectors[:SCORED])  # type: ignore[index]
    with threadpool_limits(limits=1):
        scoring = cpu_seconds(lambda: strategy.score(part, context)) / SCORED
        assigning = cpu_seconds(lambda: kmeans.assign(vectors, centroids)) / SCORED
        scores = strategy.score(pool, context)
        kept = np.lexsort((np.asarray(pool.keys), -scores))[: strategy.pool_rows(selection)]
        chosen_from = Rows(
            [pool.keys[i] for i in kept],
            pool.margins[kept],
            pool.vectors[kept],  # type: ignore[index]
            scores[kept],
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        picks = strategy.choose(chosen_from, BUDGET, context)
        took = time.process_time() - started
    assert len(picks) == BUDGET
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "strategy": name,
        "score, us an ad": 1e6 * scoring,
        "times assignment": scoring / assigning,
        "pool": len(chosen_from),
        "batch, s": took,
        "peak MB": peak / 1e6,
        "of it by choosing": (peak - before * 1024) / 1e6,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_synthetic_parser(__doc__, [50_000], 1)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(str(args.measure), args.sizes[0])))
        return 0
    rows, targets = [], {}
    for name in registry.names():
        if isinstance(registry.create(name), RowStrategy):
            found = _common.measure_apart("strategy_costs", Path(name))
            _common.log(f"{name}: {found['batch, s']:.1f} s")
            rows.append(found)
            targets[f"{name}: score <= {MOST_TIMES:g} times assignment"] = (
                found["times assignment"] <= MOST_TIMES
            )
            targets[f"{name}: batch within {MOST_SECONDS:g} s and {MOST_BYTES / 1e9:g} GB"] = (
                found["batch, s"] <= MOST_SECONDS and found["peak MB"] * 1e6 <= MOST_BYTES
            )
    return _common.finish(args, rows, targets)


if __name__ == "__main__":
    sys.exit(main())
