"""Is our k-means as fast as faiss's, and as good?

    python -m benchmarks.kmeans_faiss

A million vectors of 384 dimensions around 200 centres (those of `mine_scaling`), k = 1,000, both cores, in turns
and each in a process of its own: `pipelines.numerics.kmeans.fit_kmeans` on a sample of 256 rows a centroid, and
faiss's Kmeans as it is by default (25 iterations on such a sample of its own), in an environment of its own.
Inertias are measured alike, on all rows. Targets: the median ratio of seconds is at most 1.0, that of inertias too.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common, _faiss, _mining
from pipelines.numerics.kmeans import fit_kmeans, inertia
from pipelines.numerics.threads import cores

CLUSTERS = 1_000
# What faiss takes of a larger corpus, rows a centroid; ours is given as many.
SAMPLED = 256
ROWS = "rows.npy"


def measure(folder: Path, seed: int) -> dict[str, Any]:
    """Fit ours in this process, say what it took, and leave the centroids."""
    # They are drawn independently, so the first are a sample.
    rows = np.ascontiguousarray(np.load(folder / ROWS, mmap_mode="r")[: SAMPLED * CLUSTERS])
    wall, cpu = time.perf_counter(), time.process_time()
    centroids = fit_kmeans(rows, CLUSTERS, seed, cores())
    took = {"cpu": time.process_time() - cpu, "seconds": time.perf_counter() - wall}
    np.save(folder / "ours.npy", centroids)
    return took


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_synthetic_parser(__doc__, (1_000_000,), 3)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(args.measure, int((args.measure / "seed").read_text()))))
        return 0
    table: list[dict[str, Any]] = []
    targets: dict[str, bool] = {}
    for number in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            compare(number, args.repeats, Path(name), table, targets)
    return _common.finish(args, table, targets)


def compare(
    number: int, seeds: int, folder: Path, table: list[dict[str, Any]], targets: dict[str, bool]
) -> None:
    """Fit a corpus by both, once a seed."""
    rows = _mining.draw(number, 1)
    np.save(folder / ROWS, rows)
    times, inertias = [], []
    for seed in range(seeds):
        (folder / "seed").write_text(str(seed))
        theirs = _faiss.run(
            "kmeans",
            cores(),
            rows=str(folder / ROWS),
            k=CLUSTERS,
            seed=seed + 1,
            out=str(folder / "theirs.npy"),
        )
        ours = _common.measure_apart("kmeans_faiss", folder)
        found = [inertia(rows, np.load(folder / f"{who}.npy")) for who in ("ours", "theirs")]
        row = {
            "rows": number,
            "seed": seed,
            "seconds": ours["seconds"],
            "faiss's": theirs["seconds"],
            "CPU seconds": ours["cpu"],
            "faiss's CPU": theirs["cpu"],
            "seconds / faiss's": ours["seconds"] / theirs["seconds"],
            "inertia / faiss's": found[0] / found[1],
        }
        _common.log(str(row))
        table.append(row)
        times.append(row["seconds / faiss's"])
        inertias.append(row["inertia / faiss's"])
    name = f"{number:,} rows, k = {CLUSTERS:,}"
    targets[f"{name}: at most faiss's seconds"] = statistics.median(times) <= 1.0
    targets[f"{name}: no higher inertia"] = statistics.median(inertias) <= 1.0


if __name__ == "__main__":
    sys.exit(main())
