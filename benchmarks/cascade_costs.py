"""What does a cascade save, and what does it miss?

    python -m benchmarks.cascade_costs --task my_policy.yaml --data labelled.jsonl --prior 0.02

For each task and labelled corpus (JSON lines with text and label; several of both, in the same order): LLM-0 reads
all ads, positives drawn to the prior's share of them. A student of each proxy learns from a pilot, and of the other
ads is told: which share of LLM-0's positives (the prior's share that it puts highest), and of the true ones, are
among the first 10, 15, ... 50% that it foretells; how well it, LLM-0, and both together rank the truth (AUC).
Cost is run end to end: the cascade's own step on the ads behind the pilot, at the share that the pilot says, in CPU
seconds an ad, over those of reading them all.

Targets: a cascade of three times fewer CPU seconds that keeps .98 of LLM-0's positives on each corpus; or, on each,
a student that ranks the truth no worse than LLM-0, which alone costs a fifth.
"""

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import _common
from models.proxies import registry
from pipelines.config import Prompt, Task, load_task
from pipelines.contracts import UNSCORED_SCHEMA, UniqueAd
from pipelines.handlers import LazyLabeler
from pipelines.jobs import pilot
from pipelines.numerics import cascade, hashing
from pipelines.simulation.labelled_corpus import Fields, read_labelled
from pipelines.stages.cascade_ads import Cascade, Waiting, part_block
from pipelines.stages.collapse_duplicates import to_blocks
from pipelines.store import blocks, students
from pipelines.text import content_key

SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
KEPT, FASTER, ALONE = 0.98, 3.0, 5.0
BLOCK = 4096


def sample(task: Task, data: Path, most: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return ads in which the prior's share is positive, drawn by content, and their labels, bool (n,)."""
    corpus = read_labelled([str(data)], Fields(), task.labels)
    order = np.argsort(hashing.ranks(corpus.keys, seed), kind="stable")
    gold = corpus.gold[order]
    positive, negative = order[gold], order[~gold]
    n = min(most, int(len(positive) / task.prior), int(len(negative) / (1 - task.prior)))
    chosen = np.r_[positive[: round(n * task.prior)], negative[: n - round(n * task.prior)]]
    chosen = np.random.default_rng(seed).permutation(chosen)
    return [corpus.texts[row] for row in chosen], corpus.gold[chosen]


def measure(task: Task, args: argparse.Namespace, data: Path) -> list[dict[str, Any]]:
    """Return a corpus's rows of the table, one a proxy."""
    texts, gold = sample(task, data, args.ads, args.seed)
    if task.hears_committee():
        task = pilot.choose(task, texts[: pilot.ADS], _common.log)
    labeler = task.backend().load()
    labeler.label(texts[:200])
    started = time.process_time()
    margins = labeler.label(texts).margin.astype(np.float64)
    whole = (time.process_time() - started) / len(texts)
    known = np.isfinite(margins)
    texts, gold, margins = (
        [t for t, k in zip(texts, known, strict=True) if k],
        gold[known],
        margins[known],
    )
    _common.log(
        f"{task.name}: {len(texts):,} ads, {gold.sum()} positive, {1e3 * whole:.1f} ms an ad"
    )
    drawn, rest = slice(0, args.pilot), slice(args.pilot, None)
    top = margins[rest] >= np.quantile(margins[rest], 1 - task.prior)
    teacher = float(roc_auc_score(gold[rest], margins[rest]))
    rows = []
    for name in args.proxies:
        proxy = registry.create(name, labeler)
        proxy.features(texts[:200], labeler.glance(texts[:200]))
        started = time.process_time()
        seen = labeler.glance(texts)
        features = proxy.features(texts, seen)
        glance = (time.process_time() - started) / len(texts)
        student = cascade.fit_student(
            name, features[drawn], seen.hint[drawn], margins[drawn], task.prior
        )
        told = student.foretell(features[rest], seen.hint[rest])
        order = np.argsort(-told, kind="stable")
        share = student.share(args.kept)
        kept = {
            f"{cut:.0%}": float(top[order[: round(cut * len(order))]].sum() / top.sum())
            for cut in SHARES
        }
        true = float(gold[rest][order[: round(share * len(order))]].sum() / gold[rest].sum())
        parted, spent = run(task, labeler, student, share, texts[args.pilot :])
        own = sorted(parted)
        both = np.array([parted[text] for text in own])
        truth = dict(zip(texts[args.pilot :], gold[rest], strict=True))
        rows.append(
            {
                "task": task.name,
                "prompt": args.form or task.prompt.form,
                "proxy": name,
                "correlation": student.correlation,
                "LLM-0's AUC": teacher,
                "student's AUC": float(roc_auc_score(gold[rest], told)),
                "cascade's AUC": float(roc_auc_score([truth[text] for text in own], both)),
                **kept,
                "share read": share,
                "LLM-0's positives kept": float(top[told >= student.cut(share)].sum() / top.sum()),
                "true ones read": true,
                "glance / whole": glance / whole,
                "times fewer CPU s": whole / spent,
            }
        )
        _common.log(str(rows[-1]))
    del labeler
    gc.collect()
    return rows


def run(
    task: Task, labeler: Any, student: cascade.Student, share: float, texts: Sequence[str]
) -> tuple[dict[str, float], float]:
    """Run the cascade's step on ads; returns text -> margin, and CPU seconds an ad."""
    root = str(_common.CACHE / "cascade")
    path = students.write(root, "student", student)
    how = Cascade(student.by, path, share, KEPT, 0.0, 0, task.prior, 0, "student")
    unique = [
        UniqueAd(str(n), text, "f", str(n), "", content_key(text), "1", 1)
        for n, text in enumerate(texts)
    ]
    waiting = [
        Waiting(blocks.to_block(blocks.from_block(block).select(UNSCORED_SCHEMA.names)), path)
        for start in range(0, len(unique), BLOCK)
        for block in to_blocks(unique[start : start + BLOCK])
    ]
    lazy = LazyLabeler(lambda: labeler)
    started = time.process_time()
    found = [part_block(lazy, one, how, root) for one in waiting]
    spent = (time.process_time() - started) / len(texts)
    margins: dict[str, float] = {}
    for parted in found:
        for block in (parted.read.scored, parted.foretold):
            table = blocks.from_block(block)
            if table.num_rows:
                columns = (table.column(name).to_pylist() for name in ("text", "margin"))
                margins |= dict(zip(*columns, strict=True))
    return margins, spent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", type=Path, action="append", required=True)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--prior", type=float, action="append", help="in place of each task's")
    parser.add_argument("--proxies", nargs="+", default=list(registry.names()))
    parser.add_argument("--form", choices=("completion", "chat"), help="one prompt, no committee")
    parser.add_argument("--ads", type=int, default=8000, help="of a corpus at most")
    parser.add_argument("--pilot", type=int, default=2000)
    parser.add_argument("--kept", type=float, default=KEPT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as well")
    parser.add_argument("--no_check", action="store_true", help="exit with 0 on a missed target")
    args = parser.parse_args(argv)
    priors = args.prior or [None] * len(args.task)
    if not len(args.task) == len(args.data) == len(priors):
        parser.error("give --task, --data and --prior equally often")
    rows = []
    for path, data, prior in zip(args.task, args.data, priors, strict=True):
        task = load_task(str(path))
        prompt = Prompt(form=args.form) if args.form else Prompt()
        by = task.cascade.model_copy(update={"by": "encoder"})
        changes = {"prior": prior or task.prior, "prompt": prompt, "cascade": by}
        rows += measure(task.model_copy(update=changes), args, data)
    targets = {}
    for name in args.proxies:
        own = [row for row in rows if row["proxy"] == name]
        kept = min(row["LLM-0's positives kept"] for row in own)
        faster = min(row["times fewer CPU s"] for row in own)
        alone = min(1 / row["glance / whole"] for row in own)
        behind = max(row["LLM-0's AUC"] - row["student's AUC"] for row in own)
        cascading = kept >= KEPT and faster >= FASTER
        targets[
            f"{name}: {faster:.1f} times fewer CPU seconds at {kept:.3f} kept ({FASTER}, {KEPT}), or alone "
            f"{alone:.1f} times fewer ({ALONE}) and at most {behind:.3f} behind in AUC (0)"
        ] = cascading or (behind <= 0 and alone >= ALONE)
    return _common.finish(args, rows, targets)


if __name__ == "__main__":
    sys.exit(main())
