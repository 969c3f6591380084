"""How do time and memory of `mine` after scoring grow with the corpus, and what does Beam add?

    python -m benchmarks.mine_scaling

Writes workspaces whose ads are scored already (a synthetic mixture: unit vectors of 384 around 200
centres, margins that depend on the centre), runs `mine` on each in a process of its own, and in another
one the same functions in plain loops, in turns. Seconds are of the processor; peak memory is that of
the process, libraries and all. Targets: an ad of the largest corpus costs at most 1.15 times one of the
smallest, the peak is at most 2.5 GB, and `mine` takes at most 1.1 times the plain loops.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common, _mining

MAX_GROWTH, MAX_PEAK, MAX_RATIO = 1.15, 2.5e9, 1.1
JOB, LOOPS = "--measure", "--measure_loops"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_synthetic_parser(__doc__, (200_000, 2_000_000), 3)
    parser.add_argument(LOOPS, type=Path, help="as --measure, without Beam")
    args = parser.parse_args(argv)
    if folder := args.measure or args.measure_loops:
        print(json.dumps(_mining.measure(folder, without_beam=args.measure is None)))
        return 0
    table = []
    for rows in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            _common.log(f"writing {rows:,} scored ads")
            _mining.write_scored(Path(name), rows)
            table.append(size_row(rows, Path(name), args.repeats))
    first, last = table[0], table[-1]
    growth = last["us an ad"] / first["us an ad"]
    ratio = max(row["mine / loops"] for row in table)
    targets = {
        f"an ad of {args.sizes[-1]:,} costs at most {MAX_GROWTH} times one of {args.sizes[0]:,}: "
        f"{growth:.2f}": growth <= MAX_GROWTH,
        f"peak of at most {MAX_PEAK / 1e9} GB": last["peak MB"] * 1e6 <= MAX_PEAK,
        f"at most {MAX_RATIO} times the same functions in loops": ratio <= MAX_RATIO,
    }
    return _common.finish(args, table, targets)


def size_row(rows: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Measure one size; medians."""
    found: dict[str, list[dict[str, Any]]] = {JOB: [], LOOPS: []}
    for repeat in range(repeats):
        # In turns, and the order changes: a neighbour's load hits both sides alike.
        for flag in (JOB, LOOPS) if repeat % 2 else (LOOPS, JOB):
            found[flag].append(_common.measure_apart("mine_scaling", folder, flag))
            shown = {k: v for k, v in found[flag][-1].items() if k != "items"}
            _common.log(f"repeat {repeat + 1}, {rows:,} ads, {flag[2:]}: {shown}")
    if len({tuple(one["items"]) for both in found.values() for one in both}) > 1:
        raise AssertionError("the loops do not choose what the job chooses")

    def median(flag: str, name: str) -> float:
        return statistics.median(float(one[name]) for one in found[flag])

    ratios = [a["cpu"] / b["cpu"] for a, b in zip(found[JOB], found[LOOPS], strict=True)]
    return {
        "ads": rows,
        "CPU seconds": median(JOB, "cpu"),
        "us an ad": median(JOB, "cpu") / rows * 1e6,
        "seconds": median(JOB, "seconds"),
        "peak MB": median(JOB, "peak") / 1e6,
        "mine / loops": statistics.median(ratios),
        "loops, peak MB": median(LOOPS, "peak") / 1e6,
    }


if __name__ == "__main__":
    sys.exit(main())
