"""faiss as a peer, in an environment of its own; also the script that runs there."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REQUIREMENT = "faiss-cpu==1.15.1"


def run(job: str, threads: int, **settings: Any) -> dict[str, Any]:
    """Run one of this file's jobs in faiss's environment.

    Args:
        job: ``flat`` or ``kmeans``.
        threads: that faiss may take.
        settings: of the job; arrays as paths of .npy files.
    """
    from benchmarks import _common

    python = _common.peer_python("faiss", REQUIREMENT)
    command = [
        python,
        str(Path(__file__)),
        json.dumps({"job": job, "threads": threads, **settings}),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _flat(data: str, queries: str, m: int) -> dict[str, Any]:
    """Search a flat index; building it is part of it."""
    import faiss
    import numpy as np

    rows, wanted = np.load(data), np.load(queries)
    wall, cpu = time.perf_counter(), time.process_time()
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    _, found = index.search(wanted, m)
    return {
        "cpu": time.process_time() - cpu,
        "seconds": time.perf_counter() - wall,
        "first": found[:, 0].tolist(),
    }


def _kmeans(rows: str, k: int, seed: int, out: str) -> dict[str, Any]:
    """Train as faiss does by default: 25 iterations on 256 rows a centroid at most."""
    import faiss
    import numpy as np

    matrix = np.load(rows)
    wall, cpu = time.perf_counter(), time.process_time()
    model = faiss.Kmeans(matrix.shape[1], k, seed=seed)
    model.train(matrix)
    took = {"cpu": time.process_time() - cpu, "seconds": time.perf_counter() - wall}
    np.save(out, model.centroids)
    return took


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"flat": _flat, "kmeans": _kmeans}

if __name__ == "__main__":
    import faiss

    given = json.loads(sys.argv[1])
    faiss.omp_set_num_threads(given.pop("threads"))
    print(json.dumps(JOBS[given.pop("job")](**given)))
