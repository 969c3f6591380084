"""What does it cost to bring JSON lines into the score store, and what does Beam add?

    python -m benchmarks.score_scaling

Made-up ads with ids and weights, one in ten a copy of another, in one file; the fake LLM-0 (a word list), so
that all that is measured is ours. The job's own steps from `ReadAds` to `CommitScored` in a process of
their own, and in another one the same functions in plain loops, in turns. Seconds are of the processor, a
start of 1,000 ads taken off; memory is the peak above what the process held when everything was imported.
Targets at a million ads: at most 1.5 times the loops, 1 GB, and 25 microseconds an ad besides the labeler.
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from benchmarks import _common
from benchmarks.nights import TASK
from models.backends.fake import FakeLabeler
from pipelines.contracts import Ad, Block, UniqueAd
from pipelines.handlers import score_block
from pipelines.jobs import mine as jobs
from pipelines.jobs.mine import MineOptions, Plan, prepare, provenance
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.numerics.weights import total, unit_of
from pipelines.sources import registry
from pipelines.sources.survey import survey
from pipelines.stages.collapse_duplicates import merge_copies, merge_ids, to_blocks, to_unique
from pipelines.stages.score_ads import by_prefix, unread_scripts, weighed
from pipelines.store import blocks, scores
from tests.helpers import VOCABULARY

MAX_RATIO, MAX_BYTES, MAX_MICROSECONDS = 1.5, 1e9, 25.0
START = 1_000
WORDS = 12
BLOCK_ROWS = 1024
# Seconds of labelling alone, where only that is measured.
LABELING: list[float] = []


def write_ads(path: Path, number: int) -> None:
    """Write ads of twelve words, of which one in ten repeats an earlier text under an id of its own."""
    rng = random.Random(0)
    with path.open("w") as sink:
        for n in range(number):
            same = rng.randrange(n) if n and rng.random() < 0.1 else n
            text = " ".join(random.Random(same).choices(VOCABULARY, k=WORDS)) + f" {same}"
            sink.write(json.dumps({"id": f"ad{n:09d}", "text": text, "weight": 1 + n % 7}) + "\n")


def planned(folder: Path) -> Plan:
    """Return the plan of a mining in a workspace that is new."""
    ads, workspace = folder / "ads.jsonl", folder / f"workspace-{os.getpid()}"
    task = str(folder / "task.yaml")
    options = MineOptions(task=task, corpus=(str(ads),), workspace=str(workspace))
    return prepare(options, say=_common.log)


def job(plan: Plan) -> list[str]:
    """Score by the job's own steps; returns the blocks."""
    with beam.Pipeline(runner=DEFAULT_RUNNER) as pipeline:
        jobs.score(plan, pipeline, provenance(plan))
    [scored] = plan.workspace.scored.all(1)
    return [part.block for part in scores.parts_of(plan.workspace, scored)]


def read(plan: Plan) -> Iterator[UniqueAd]:
    """Read the file as the job does."""
    options = plan.options
    for part in survey(options.corpus, options.read, options.range_bytes).ranges:
        for ad in registry.get(part.source).read(part, options.read):
            assert isinstance(ad, Ad)
            yield to_unique(ad)


def loops(plan: Plan) -> list[str]:
    """Score by the functions that the job calls, without a runner; returns the blocks."""
    root, key = plan.workspace.root, plan.score_key
    attempt = plan.workspace.new_attempt(1, "scored")
    alone, several = merge_ids(read(plan))
    assert not several
    unique = list(merge_copies(alone.values()).values())
    weight, length = total(ad.exact for ad in unique), scores.prefix_length(len(unique))
    parts: dict[str, list[Block]] = {}
    for block in to_blocks(unique):
        table = weighed(blocks.from_block(block), unit_of(weight))
        for prefix, rows in by_prefix(table, length):
            parts.setdefault(prefix, []).append(blocks.to_block(rows))
    labeler, written = FakeLabeler(), []
    for prefix, packed in parts.items():
        rows = blocks.sort_by_key(blocks.concat(packed)).combine_chunks()
        for start in range(0, rows.num_rows, BLOCK_ROWS):
            found = score_block(labeler, blocks.to_block(rows.slice(start, BLOCK_ROWS)))
            table = blocks.from_block(found.scored)
            written.append(scores.store(root, key, attempt, prefix, table, unread_scripts(table)))
    scores.write_parts(root, attempt, 0, written)
    return [part.block for part in written]


def labels(plan: Plan) -> list[str]:
    """Label the texts alone, once they are read; returns nothing."""
    texts = list({ad.key: ad.text for ad in read(plan)}.values())
    labeler, before = FakeLabeler(), time.process_time()
    for start in range(0, len(texts), BLOCK_ROWS):
        labeler.label(texts[start : start + BLOCK_ROWS])
    LABELING.append(time.process_time() - before)
    return []


WAYS = {"job": job, "loops": loops, "labels": labels}


def measure(folder: Path, way: str) -> dict[str, Any]:
    """Score in this process and say what it took."""
    plan = planned(folder)
    held, before = _peak(), time.process_time()
    found = WAYS[way](plan)
    took = LABELING[0] if LABELING else time.process_time() - before
    return {"cpu": took, "above": _peak() - held, "blocks": sorted(found)}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_synthetic_parser(__doc__, (100_000, 1_000_000), 3)
    for way in WAYS:
        parser.add_argument(f"--{way}", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    for way in WAYS:
        if folder := getattr(args, way):
            print(json.dumps(measure(folder, way)))
            return 0
    start = measured(START, args.repeats)
    table, targets = [], {}
    for number in args.sizes:
        found = measured(number, args.repeats)
        cpu = {way: median(found, way) - median(start, way) for way in WAYS}
        ratio = statistics.median(
            a["cpu"] / b["cpu"] for a, b in zip(found["job"], found["loops"], strict=True)
        )
        above = max(one["above"] for one in found["job"])
        each = (cpu["job"] - cpu["labels"]) / number * 1e6
        table.append(
            {
                "ads": number,
                "us an ad": cpu["job"] / number * 1e6,
                "labeler's": cpu["labels"] / number * 1e6,
                "besides it": each,
                "job / loops": ratio,
                "MB above imports": above / 1e6,
                "loops' MB": max(one["above"] for one in found["loops"]) / 1e6,
            }
        )
        name = f"{number:,} ads"
        targets[f"{name}: at most {MAX_RATIO} times the loops: {ratio:.2f}"] = ratio <= MAX_RATIO
        targets[f"{name}: at most {MAX_BYTES / 1e9} GB above what was imported"] = (
            above <= MAX_BYTES
        )
        targets[f"{name}: at most {MAX_MICROSECONDS} us an ad: {each:.1f}"] = (
            each <= MAX_MICROSECONDS
        )
    return _common.finish(args, table, targets)


def measured(number: int, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Measure all ways at one size, in turns."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "task.yaml").write_text(TASK)
        write_ads(folder / "ads.jsonl", number)
        for _ in range(repeats):
            for way in WAYS:
                one = _common.measure_apart("score_scaling", folder, f"--{way}")
                found[way].append(one)
                _common.log(
                    f"{number:,} ads, {way}: {one['cpu']:.2f} s, {one['above'] / 1e6:.0f} MB"
                )
    if found["job"][0]["blocks"] != found["loops"][0]["blocks"]:
        raise AssertionError("the loops do not write what the job writes")
    return found


def median(found: dict[str, list[dict[str, Any]]], way: str) -> float:
    """Return a way's processor seconds."""
    return statistics.median(one["cpu"] for one in found[way])


if __name__ == "__main__":
    sys.exit(main())
