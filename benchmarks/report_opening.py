"""How long does the report of a large corpus take to draw, and to open?

    python -m benchmarks.report_opening

Mines workspaces of synthetic ads that are scored already (those of `mine_scaling`), writes each
one's report in a process of its own, and opens it in a headless Chromium until every picture is
decoded (a fresh profile each time, the median of the repeats). Chromium is looked for on the path,
or named in SCOUT_CHROMIUM. Target: the report of 100,000 ads opens in under 2 s.
"""

import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common, _mining
from pipelines.report.round import ReportOptions, report

MAX_SECONDS = 2.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
DECODED = (
    "Promise.all([...document.images].map((image) => image.decode())).then((all) => all.length)"
)


def draw(folder: Path) -> dict[str, Any]:
    """Write a mined workspace's report in this process and say what it took."""
    start = time.perf_counter()
    made = report(ReportOptions(str(folder / "workspace")), say=_common.log)
    return {
        "path": made.path,
        "seconds": time.perf_counter() - start,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "bytes": Path(made.path).stat().st_size,
    }


def opening(page: str, repeats: int) -> tuple[float, int]:
    """Open a page in a browser; return the median seconds and the number of its pictures."""
    from playwright.sync_api import sync_playwright

    named = os.environ.get("SCOUT_CHROMIUM")
    program = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if not program:
        raise SystemExit("no Chromium: install one, or name it in SCOUT_CHROMIUM")
    times, pictures = [], 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        # One before that counts: the browser's own files are read with its first page.
        for repeat in range(repeats + 1):
            tab = browser.new_context().new_page()
            start = time.perf_counter()
            tab.goto(Path(page).resolve().as_uri())
            pictures = tab.evaluate(DECODED)
            if repeat:
                times.append(time.perf_counter() - start)
            tab.context.close()
        browser.close()
    return statistics.median(times), pictures


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_synthetic_parser(__doc__, (10_000, 100_000), 5)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(draw(args.measure)))
        return 0
    table = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _mining.write_scored(folder, size)
            _common.measure_apart("mine_scaling", folder)
            drawn = _common.measure_apart("report_opening", folder)
            seconds, pictures = opening(drawn["path"], args.repeats)
        table.append(
            {
                "ads": size,
                "drawn in s": drawn["seconds"],
                "peak MB": drawn["peak"] / 1e6,
                "file KB": drawn["bytes"] / 1e3,
                "pictures": pictures,
                "opens in s": seconds,
            }
        )
    target = f"the report of {max(args.sizes):,} ads opens in under {MAX_SECONDS:g} s"
    slowest = max(row["opens in s"] for row in table)
    return _common.finish(args, table, {target: slowest < MAX_SECONDS})


if __name__ == "__main__":
    sys.exit(main())
