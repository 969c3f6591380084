"""Does `mine` after scoring stand lopsided corpora?

    python -m benchmarks.mine_skews

Corpora as in `mine_scaling`, and others of the same size: one cluster holds 90% of the ads, 40% or 0.01%
are called positive, all vectors are nearly equal or equal. Target: each takes at most 1.3 times the peak
memory and twice the processor's seconds of the plain mixture, the median of the repeats' ratios.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common, _mining

MAX_MEMORY, MAX_SECONDS = 1.3, 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_synthetic_parser(__doc__, (200_000,), 3)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(_mining.measure(args.measure, without_beam=False)))
        return 0
    table: list[dict[str, Any]] = []
    targets = {}
    for rows in args.sizes:
        found = measured(rows, args.repeats)
        plain = found[_mining.PLAIN]
        for name, runs in found.items():
            pairs = list(zip(runs, plain, strict=True))
            seconds = statistics.median(run["cpu"] / base["cpu"] for run, base in pairs)
            memory = statistics.median(run["peak"] / base["peak"] for run, base in pairs)
            table.append(
                {
                    "ads": rows,
                    "corpus": name,
                    "CPU seconds": statistics.median(run["cpu"] for run in runs),
                    "peak MB": statistics.median(run["peak"] for run in runs) / 1e6,
                    "seconds / plain": seconds,
                    "memory / plain": memory,
                    "items": runs[0]["pairs"],
                }
            )
            targets[f"{name}, {rows:,} ads: at most {MAX_MEMORY} and {MAX_SECONDS} times"] = (
                memory <= MAX_MEMORY and seconds <= MAX_SECONDS
            )
    return _common.finish(args, table, targets)


def measured(rows: int, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Measure all corpora of a size, in turns."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _mining.MIXTURES}
    with tempfile.TemporaryDirectory() as work:
        folders = {name: Path(work) / str(n) for n, name in enumerate(found)}
        for name, folder in folders.items():
            _common.log(f"writing {rows:,} scored ads: {name}")
            folder.mkdir()
            _mining.write_scored(folder, rows, _mining.MIXTURES[name])
        for repeat in range(repeats):
            for name, folder in folders.items():
                found[name].append(_common.measure_apart("mine_skews", folder))
                shown = {k: v for k, v in found[name][-1].items() if k != "items"}
                _common.log(f"repeat {repeat + 1}, {name}: {shown}")
    return found


if __name__ == "__main__":
    sys.exit(main())
