"""How well do LLM-0's first scores rank ads, before anybody has labelled one, and with 50 labels?

    python -m benchmarks.label_free_start --task my_policy.yaml --data labelled.jsonl

For each task and labelled corpus (JSON lines with text and label; several of both, in the same order): AUC
of the plain prompt that states the policy, of the similarity to the policy's words, of the committee that
they choose without labels, and of the best form, chosen with all labels; of the committee and of the best
form after 50 labels, a sixth of them positive, on the other ads, mean over draws. Cost: CPU seconds of a
committee, its similarity to the policy included, over those of the plain prompt and of its loudest form alone.

Targets, mean over the tasks: the committee at least .12 above the plain prompt; with 50 labels on no task
more than .03 below the best form.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import _common
from models.committee import FORMS
from pipelines.config import Prompt, Task, load_task
from pipelines.jobs import pilot
from pipelines.numerics import hashing
from pipelines.numerics.committee import weigh_forms
from pipelines.simulation.labelled_corpus import Fields, read_labelled

ADS_OF_LABEL = (200, 300)
POSITIVE_LABELS, NEGATIVE_LABELS = 8, 42
DRAWS = 30
TIMED_ADS, TIMES = 200, 3


def sample(task: Task, data: Path, seed: int) -> tuple[list[str], np.ndarray]:
    """Return at most so many ads of each label, drawn by content, and their labels, bool (n,)."""
    corpus = read_labelled([str(data)], Fields(), task.labels)
    order = np.argsort(hashing.ranks(corpus.keys, seed), kind="stable")
    gold = corpus.gold[order]
    rows = [order[gold == label][:n] for label, n in zip((True, False), ADS_OF_LABEL, strict=True)]
    chosen = np.concatenate(rows)
    return [corpus.texts[row] for row in chosen], corpus.gold[chosen]


def measure(task: Task, data: Path, seed: int) -> dict[str, Any]:
    """Return a task's row of the table."""
    texts, gold = sample(task, data, seed)
    plain = task.model_copy(update={"prompt": Prompt(form="completion")})
    default, _ = plain.backend().pilot([plain.prompt_spec()], task.embedding.preset, texts)
    asked = task.model_copy(update={"prompt": Prompt()})
    answers, similarity = pilot.ask(asked, texts, _common.log)
    answers = answers.astype(np.float64)
    usable = np.isfinite(answers).all(axis=0)
    alone = {i: roc_auc_score(gold, answers[:, i]) for i in np.flatnonzero(usable)}
    best = max(alone, key=lambda i: alone[i])
    voices = weigh_forms(answers, similarity, task.prior)
    seated = pilot.seated(asked, pilot.committee_of(asked.forms(), voices, len(texts)))
    loudest = asked.model_copy(update={"prompt": _alone(seated)})
    cost = cpu_seconds([seated, plain, loudest], texts)
    few, by_labels = few_labels(answers, similarity, gold, task.prior, seed)
    return {
        "task": task.name,
        "positives": int(gold.sum()),
        "negatives": int((~gold).sum()),
        "plain prompt": float(roc_auc_score(gold, default[:, 0])),
        "words": float(roc_auc_score(gold, similarity)),
        "committee": float(roc_auc_score(gold, voices.margins(answers, similarity))),
        "best form": alone[best],
        "which": FORMS[best].name,
        "50 labels": few,
        "best form by 50 labels": by_labels,
        "agreement": voices.agreement,
        "members": int((voices.weights > 0).sum()),
        "cost of the plain prompt": cost[0] / cost[1],
        "cost of one form": cost[0] / cost[2],
    }


def _alone(task: Task) -> Prompt:
    """Return the prompt of a committee's loudest member."""
    spec = task.prompt_spec()
    answers = {"positive": spec.positive_answer, "negative": spec.negative_answer}
    return Prompt.model_validate(
        {"form": "completion", "template": spec.template, "answers": answers}
    )


def cpu_seconds(tasks: Sequence[Task], texts: Sequence[str]) -> list[float]:
    """Return the CPU seconds that each task's labels of some ads take, median of turns."""
    labelers = [task.backend().load() for task in tasks]
    some = list(texts)[:TIMED_ADS]
    turns: list[list[float]] = [[] for _ in tasks]
    for _ in range(1 + TIMES):
        for found, labeler in zip(turns, labelers, strict=True):
            started = time.process_time()
            labeler.margins(some)
            found.append(time.process_time() - started)
    # The first turn compiles.
    return [statistics.median(found[1:]) for found in turns]


def few_labels(
    answers: np.ndarray, similarity: np.ndarray, gold: np.ndarray, prior: float, seed: int
) -> tuple[float, float]:
    """Return mean AUC, on the ads without one, after 50 labels: of the committee, of the best form."""
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(np.isfinite(answers).all(axis=0))
    found = []
    for _ in range(DRAWS):
        known = np.concatenate(
            [
                rng.choice(np.flatnonzero(gold), POSITIVE_LABELS, replace=False),
                rng.choice(np.flatnonzero(~gold), NEGATIVE_LABELS, replace=False),
            ]
        )
        labels = np.full(len(gold), -1)
        labels[known] = gold[known]
        rest = labels < 0
        voices = weigh_forms(answers, similarity, prior, labels)
        best = max(usable, key=lambda i: roc_auc_score(gold[known], answers[known, i]))
        found.append(
            [
                roc_auc_score(gold[rest], voices.margins(answers, similarity)[rest]),
                roc_auc_score(gold[rest], answers[rest, best]),
            ]
        )
    committee, form = np.mean(found, axis=0)
    return float(committee), float(form)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", type=Path, action="append", required=True)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the samples and draws")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as well")
    parser.add_argument("--no_check", action="store_true", help="exit with 0 on a missed target")
    args = parser.parse_args(argv)
    if len(args.task) != len(args.data):
        parser.error(f"{len(args.task)} times --task and {len(args.data)} times --data")
    rows = []
    for task, data in zip(args.task, args.data, strict=True):
        _common.log(f"{task}: asking")
        rows.append(measure(load_task(str(task)), data, args.seed))
    ahead = float(np.mean([row["committee"] - row["plain prompt"] for row in rows]))
    behind = max(row["best form"] - row["50 labels"] for row in rows)
    targets = {
        f"committee {ahead:.3f} above the plain prompt in the mean (.12)": ahead >= 0.12,
        f"with 50 labels at most {behind:.3f} below the best form (.03)": behind <= 0.03,
    }
    return _common.finish(args, rows, targets)


if __name__ == "__main__":
    sys.exit(main())
