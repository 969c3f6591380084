"""Do experts get as much out of the pairs when another processor rounds the margins differently?

    python -m benchmarks.margin_stability --task my_policy.yaml --data labelled.jsonl

bfloat16 products differ between processors, and LLM-0's margins by up to 0.05 with them; on a small
corpus that changes which pairs are nearest to the threshold. Scores a labelled corpus once, mines its
first round, and mines it again 20 times from margins that are off by up to 0.05 each, at random: how
many of the chosen ads are the same, and how many violating ads are among them.

Target: the violating ads' standard deviation is at most 10% of their mean.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from models.backends.pool import LabelerPool
from pipelines.config import Task, load_task
from pipelines.handlers import LoadLabeler
from pipelines.jobs import pilot
from pipelines.jobs.mine import MineOptions, mine
from pipelines.numerics import hashing
from pipelines.numerics.calibration import to_grid
from pipelines.simulation.labelled_corpus import Corpus, Fields, read_labelled
from pipelines.store import storage
from pipelines.store.workspace import Workspace

OFF = 0.05
PERTURBATIONS = 20
MAX_SPREAD = 0.10


def thinned(corpus: Corpus, share: float, ads: int, seed: int) -> list[int]:
    """Return rows of a sample of so many ads with a share of positives, drawn by content."""
    order = np.argsort(hashing.ranks(corpus.keys, seed), kind="stable")
    gold = corpus.gold[order]
    wanted = {True: round(share * ads), False: ads - round(share * ads)}
    return [int(row) for label, n in wanted.items() for row in order[gold == label][:n]]


def first_round(task: Task, corpus: Path, pool: LabelerPool, folder: Path) -> set[str]:
    """Mine; return the keys of the ads that experts would see."""
    place = Workspace(str(folder))
    mine(MineOptions(task, (str(corpus),), place.root), say=lambda _: None, pool=pool)
    return {ad.key for item in place.read_items(place.pairs_of(1)) for ad in item.ads}


def measure(task: Task, corpus: Corpus, rows: Sequence[int], repeats: int) -> dict[str, Any]:
    """Return a corpus's row of the table."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        ads, answers = folder / "ads.jsonl", folder / "answers.npz"
        lines = [json.dumps(corpus.record(row), ensure_ascii=False) for row in rows]
        storage.write(str(ads), ("\n".join(lines) + "\n").encode())
        if task.wants_committee():
            texts = [corpus.texts[row] for row in rows][:: max(len(rows) // pilot.ADS, 1)]
            task = pilot.choose(task, texts, _common.log)
        identity = task.backend().identify(_common.log)
        pool = LabelerPool()
        labeler = pool.labeler(identity, LoadLabeler(task, identity).load_new)
        positive = {corpus.keys[row] for row in rows if corpus.gold[row]}
        chosen = first_round(task, ads, pool, folder / "plain")
        labeler.save(answers)
        with np.load(answers) as held:
            scored = dict(held)
        same, found = [], []
        for repeat in range(1, repeats + 1):
            rng = np.random.default_rng(repeat)
            moved = scored["margin"] + rng.uniform(-OFF, OFF, len(scored["margin"]))
            np.savez(answers, **{**scored, "margin": to_grid(moved)})
            other = LabelerPool()
            other.labeler(identity, LoadLabeler(task, identity).load_new).restore(answers)
            again = first_round(task, ads, other, folder / f"moved-{repeat}")
            same.append(len(again & chosen) / len(chosen))
            found.append(len(again & positive) / len(again) * len(chosen))
            _common.log(f"{task.name}, {repeat} of {repeats}: {found[-1]:.0f} positives")
    return {
        "task": task.name,
        "ads": len(rows),
        "positives": len(positive),
        "shown": len(chosen),
        "same ads": float(np.mean(same)),
        "positives shown": len(chosen & positive),
        "mean": float(np.mean(found)),
        "sd": float(np.std(found, ddof=1)),
        "least": min(found),
        "most": max(found),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--label_file", default="", help="where the corpus has no labels")
    parser.add_argument("--ads", type=int, help="of a sample (default: all, with their own share)")
    parser.add_argument("--prevalence", type=float, help="of that sample, and the prior")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--repeats", type=int, default=PERTURBATIONS)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as well")
    parser.add_argument("--no_check", action="store_true", help="exit with 0 on a missed target")
    args = parser.parse_args(argv)
    if (args.ads is None) != (args.prevalence is None):
        parser.error("--ads and --prevalence go together")
    task = load_task(args.task)
    corpus = read_labelled([str(args.data)], Fields(file=args.label_file), task.labels)
    rows = list(range(len(corpus)))
    if args.ads:
        task = task.model_copy(update={"prior": args.prevalence})
        rows = thinned(corpus, args.prevalence, args.ads, args.seed)
    row = measure(task, corpus, rows, args.repeats)
    met = {f"standard deviation of {MAX_SPREAD:.0%}": row["sd"] <= MAX_SPREAD * row["mean"]}
    return _common.finish(args, [row], met)


if __name__ == "__main__":
    sys.exit(main())
