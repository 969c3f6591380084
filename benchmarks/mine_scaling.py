"""How do time and memory of `mine` after scoring grow with the corpus?

    python -m benchmarks.mine_scaling

Writes workspaces whose ads are scored already (a synthetic mixture: unit vectors of 384 around 200
centres, margins that depend on the centre) and runs `mine` on each in a process of its own. Shows
seconds and peak memory per size, and both again above a run on 1,000 ads, which is what Python,
Beam and the libraries take by themselves. Target: from each size to the next, neither grows by more
than the size does.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import _common
from pipelines.contracts import scored_schema
from pipelines.jobs.mine import Mined, MineOptions, mine, prepare, provenance
from pipelines.numerics import calibration
from pipelines.store import blocks, scores
from pipelines.store.facts import ScoredFacts
from pipelines.store.workspace import Manifest
from pipelines.text import content_key

DIMS = 384
CENTRES = 200
BLOCK_ROWS = 1024
BASE_ROWS = 1000
TASK = """\
name: scaling
version: 1
policy: synthetic
question: synthetic
prior: 0.02
model: {preset: fake}
embedding: {standardize: never}
"""


def options(folder: Path) -> MineOptions:
    """Return the options of the measured run."""
    return MineOptions(
        task=str(folder / "task.yaml"),
        corpus=(str(folder / "ads.txt"),),
        workspace=str(folder / "workspace"),
        max_rejected_share=0.01,
        block_rows=BLOCK_ROWS,
    )


def write_scored(folder: Path, rows: int) -> None:
    """Write a workspace in which every ad is scored."""
    (folder / "task.yaml").write_text(TASK)
    (folder / "ads.txt").write_text("synthetic\n")
    plan = prepare(options(folder), say=_common.log)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, DIMS)).astype(np.float32)
    lean = rng.normal(size=CENTRES)
    attempt = plan.workspace.new_attempt(1, "scored")
    written = []
    for start in range(0, rows, BLOCK_ROWS):
        number = min(BLOCK_ROWS, rows - start)
        centre = rng.integers(CENTRES, size=number)
        vectors = centres[centre] + 0.8 * rng.normal(size=(number, DIMS)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        margin = calibration.quantize(lean[centre] + rng.normal(size=number) - 4.0)
        texts = [f"synthetic ad {start + row}" for row in range(number)]
        columns = [
            pa.array([content_key(text) for text in texts]),
            pa.array([f"s{start + row:07d}" for row in range(number)]),
            pa.array(texts),
            pa.array([""] * number),
            pa.array(np.full(number, 1000)),
            pa.array(np.ones(number, dtype=np.int64)),
            pa.array(margin),
            pa.array(np.full(number, 12, dtype=np.int32)),
            pa.array(np.zeros(number, dtype=bool)),
            blocks.vector_array(vectors),
        ]
        table = pa.Table.from_arrays(columns, schema=scored_schema(DIMS))
        root, key = plan.workspace.root, plan.score_key
        written.append(scores.store(root, key, attempt, "", table, [""] * number))
    facts = ScoredFacts(provenance(plan), rows, 0, {}, rows, float(rows), ())
    listed = [scores.write_parts(plan.workspace.root, attempt, 0, written)]
    plan.workspace.commit(Manifest.of(attempt, plan.scored_hash, listed, rows, facts))


def measure(folder: Path) -> dict[str, Any]:
    """Run `mine` in this process and say what it took."""
    start = time.perf_counter()
    mined = mine(options(folder), say=_common.log)
    assert isinstance(mined, Mined)
    return {
        "seconds": time.perf_counter() - start,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "pairs": len(mined.items),
    }


def run_apart(rows: int) -> dict[str, Any]:
    """Measure one size in a fresh process."""
    with tempfile.TemporaryDirectory() as name:
        write_scored(Path(name), rows)
        return _common.measure_apart("mine_scaling", Path(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_synthetic_parser(__doc__, (10_000, 30_000, 100_000), 3)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return 0
    found: dict[int, list[dict[str, Any]]] = {rows: [] for rows in (BASE_ROWS, *args.sizes)}
    for repeat in range(args.repeats):
        for rows in found:
            found[rows].append(run_apart(rows))
            _common.log(f"repeat {repeat + 1}, {rows:,} ads: {found[rows][-1]}")

    def median(rows: int, name: str) -> float:
        return statistics.median(float(result[name]) for result in found[rows])

    base_sec, base_peak = median(BASE_ROWS, "seconds"), median(BASE_ROWS, "peak")
    table, growths, previous = [], [], None
    for rows in args.sizes:
        sec, peak = median(rows, "seconds"), median(rows, "peak")
        net_sec, net_peak = sec - base_sec, peak - base_peak
        row = {
            "ads": rows,
            "seconds": sec,
            "peak MB": peak / 1e6,
            "seconds above 1,000 ads": net_sec,
            "MB above 1,000 ads": net_peak / 1e6,
            "growth of size": "",
            "growth of seconds": "",
            "growth of MB": "",
        }
        if previous:
            size = rows / previous[0]
            row["growth of size"] = size
            row["growth of seconds"] = sec / previous[1]
            row["growth of MB"] = peak / previous[2]
            growths.append(max(sec / previous[1], peak / previous[2]) / size)
        previous = (rows, sec, peak)
        table.append(row)
    target = "seconds and peak memory grow no faster than the corpus"
    return _common.finish(args, table, {target: all(growth <= 1 for growth in growths)})


if __name__ == "__main__":
    sys.exit(main())
