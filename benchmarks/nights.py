"""What a night costs: one that adds 1% to many known ads, and the ones after it.

    python -m benchmarks.nights --sizes 1000000 --nights 30

Made-up ads, labelled by the fake LLM-0 (a word list), so that all that is measured is ours. First a night with
all ads; then nights with 1% more each, in two ways: *new* gives `mine` the night's file alone, as a schedule
over dated folders does; *all* gives it every file so far. CPU seconds of each night, its start included, in a
process of its own; peak memory; files and bytes of the workspace after it.

Targets: a *new* night at most 10% of the first; the last at most 1.2 times the second; the store grows by what
is new.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common
from pipelines.jobs.mine import MineOptions, mine
from pipelines.jobs.results import Mined
from tests.helpers import VOCABULARY

TASK = """\
name: nights
version: 1
policy: Ads that promise what nobody can promise.
question: Is it misleading?
prior: 0.02
model: {preset: fake}
"""
SHARE = 0.01
WORDS = 12


def write_night(folder: Path, night: int, first: int, number: int) -> None:
    """Write a night's ads: words drawn at random, an id and a weight."""
    rng = random.Random(night)
    with (folder / f"night-{night:03d}.jsonl").open("w") as sink:
        for n in range(first, first + number):
            text = " ".join(rng.choices(VOCABULARY, k=WORDS)) + f" {n}"
            sink.write(json.dumps({"id": f"ad{n:09d}", "text": text, "weight": 1 + n % 7}) + "\n")


def measure(folder: Path) -> dict[str, Any]:
    """Run `mine` on the corpus that ``now`` names, in this process, and say what it took."""
    mined = mine(
        MineOptions(
            task=str(folder / "task.yaml"),
            corpus=tuple((folder / "now").read_text().split()),
            workspace=str(folder / "workspace"),
        ),
        say=_common.log,
    )
    assert isinstance(mined, Mined)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss * 1024,
        "scored": mined.scored_now,
        "reused": mined.reused,
        "pairs": len(mined.items),
        "stages": dict(mined.seconds_by_stage),
    }


def play(size: int, nights: int, whole: bool, keep: Path | None) -> list[dict[str, Any]]:
    """Play the first night and the ones after it; returns what each took."""
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: list[dict[str, Any]] = []
        first = 0
        (folder / "corpus").mkdir(parents=True)
        (folder / "task.yaml").write_text(TASK)
        for night in range(1 + nights):
            number = size if night == 0 else round(SHARE * size)
            write_night(folder / "corpus", night, first, number)
            first += number
            here = folder / "corpus" / ("" if whole else f"night-{night:03d}.jsonl")
            (folder / "now").write_text(str(here))
            took = _common.measure_apart("nights", folder)
            there = [path for path in (folder / "workspace").rglob("*") if path.is_file()]
            took |= {"files": len(there), "bytes": sum(path.stat().st_size for path in there)}
            assert took["scored"] == number, took
            _common.log(f"night {night}, {'all' if whole else 'new'}: {took}")
            found.append(took)
        return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_synthetic_parser(__doc__, (1_000_000,), 1)
    parser.add_argument("--nights", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--keep", type=Path, help="play in this new folder and leave it there")
    parser.add_argument("--ways", nargs="+", choices=("new", "all"), default=["new", "all"])
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return 0
    return _report(args)


def _report(args: argparse.Namespace) -> int:
    table: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    targets: dict[str, bool] = {}
    for size in args.sizes:
        for way in args.ways:
            found = play(size, args.nights, way == "all", args.keep and args.keep / way)
            results[f"{size} {way}"] = found
            first, second, last = found[0], found[1], found[-1]
            share, growth = second["cpu"] / first["cpu"], last["cpu"] / second["cpu"]
            table.append(
                {
                    "ads": size,
                    "way": way,
                    "first night (CPU s)": first["cpu"],
                    "second": second["cpu"],
                    "of the first": share,
                    "last of the second": growth,
                    "peak (GB)": max(night["peak"] for night in found) / 1e9,
                    "files": f"{first['files']} -> {last['files']}",
                    "GB": f"{first['bytes'] / 1e9:.2f} -> {last['bytes'] / 1e9:.2f}",
                }
            )
            if way == "new":
                targets[f"{size:,} ads: a new night takes at most 10% of the first"] = share <= 0.1
            targets[f"{size:,} ads, {way}: the last at most 1.2 times the second"] = growth <= 1.2
    return _common.finish(args, table, targets, nights=results)


if __name__ == "__main__":
    sys.exit(main())
