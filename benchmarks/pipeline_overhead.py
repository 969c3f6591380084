"""What does Beam cost on top of the bare labeler?

    python -m benchmarks.pipeline_overhead --data clickbait.jsonl.gz

Scores 5,000 headlines twice with one loaded labeler, in turns: in a plain loop over blocks, and in
the ScoreAds stage (batching, RunInference, Parquet blocks with their records) on the same blocks.
Model loading is in neither. Target: the stage takes at most 1.05 times the loop, the median of the
repeats' ratios.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from benchmarks import _common
from models.backends.base import Labeler
from pipelines.config import load_task
from pipelines.contracts import Tally, UniqueAd
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.stages.collapse_duplicates import to_blocks
from pipelines.stages.score_ads import ScoreAds
from pipelines.text import content_key

MAX_RATIO = 1.05
BLOCK_ROWS = 1024
TASK = Path(__file__).parent.parent / "templates" / "policies" / "clickbait.yaml"
# What `shared` hands out: a loaded model does not pickle, a function of a module does.
_LOADED: list[Labeler] = []


def shared() -> Labeler:
    """Return the labeler that both sides use."""
    import benchmarks.pipeline_overhead as module

    return module._LOADED[0]


def loop(labeler: Labeler, ads: Sequence[UniqueAd]) -> float:
    """Score in a plain loop; return the seconds."""
    start = time.perf_counter()
    for first in range(0, len(ads), BLOCK_ROWS):
        labeler.label([ad.text for ad in ads[first : first + BLOCK_ROWS]])
    return time.perf_counter() - start


def stage(ads: Sequence[UniqueAd]) -> float:
    """Score in the pipeline; return the seconds of the whole run."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline = beam.Pipeline(runner=DEFAULT_RUNNER)
        unique = pipeline | "Ads" >> beam.Create(list(to_blocks(ads)), reshuffle=False)
        tally = pipeline | "Tally" >> beam.Create(
            [Tally(len(ads), 0, "{}", "{}", len(ads), str(len(ads)))]
        )
        _ = (unique, tally) | ScoreAds(shared, folder, "scored", "key", [], BLOCK_ROWS)
        start = time.perf_counter()
        pipeline.run().wait_until_finish()
        return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    import benchmarks.pipeline_overhead as module

    parser = _common.make_parser(__doc__)
    parser.add_argument("--ads", type=int, default=5000, help="headlines (default: 5000)")
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    args = _common.parse(parser, argv)
    texts, _ = _common.load_headlines(args.data)
    distinct = {content_key(text): text for text in texts}
    ads = [UniqueAd(key, text, "", "", "", key) for key, text in list(distinct.items())[: args.ads]]
    labeler = load_task(TASK).backend().load()
    module._LOADED.append(labeler)
    _common.log("warming up")
    loop(labeler, ads[:BLOCK_ROWS])
    rows: list[dict[str, Any]] = []
    ratios = []
    for repeat in range(args.repeats):
        # In turns, and the order changes: a neighbour's load hits both sides alike.
        if repeat % 2:
            piped, bare = stage(ads), loop(labeler, ads)
        else:
            bare, piped = loop(labeler, ads), stage(ads)
        ratios.append(piped / bare)
        rows.append(
            {
                "repeat": str(repeat + 1),
                "loop, ads/s": len(ads) / bare,
                "stage, ads/s": len(ads) / piped,
                "stage / loop": piped / bare,
            }
        )
        _common.log(f"repeat {repeat + 1}: {piped / bare:.3f}")
    ratio = statistics.median(ratios)
    rows.append({"repeat": "median", "loop, ads/s": "", "stage, ads/s": "", "stage / loop": ratio})
    target = f"the stage takes at most {MAX_RATIO} times the loop"
    return _common.finish(args, rows, {target: ratio <= MAX_RATIO}, ads=len(ads))


if __name__ == "__main__":
    sys.exit(main())
