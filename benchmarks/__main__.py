"""Run every benchmark, one after the other; figures go to benchmarks/results/.

SCOUT_BENCH_DATA=clickbait.jsonl.gz python -m benchmarks
"""

import subprocess
import sys
from pathlib import Path

NAMES = (
    "kmeans_inertia",
    "neighbor_recall",
    "mine_scaling",
    "pipeline_overhead",
    "llm0_throughput",
    "report_opening",
    "audit_intervals",
    "half_leaks",
    "strategy_costs",
    "strategy_oracles",
    "recheck",
)
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run all; the exit status is the number of benchmarks that missed a target or failed."""
    RESULTS.mkdir(exist_ok=True)
    missed = 0
    for name in NAMES:
        print(f"\n## {name}\n", flush=True)
        # Each in a process of its own: thread settings are read when libraries load.
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{name}",
            "--json",
            str(RESULTS / f"{name}.json"),
        ]
        missed += subprocess.run(command).returncode != 0
    return missed


if __name__ == "__main__":
    sys.exit(main())
