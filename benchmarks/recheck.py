"""Of the labels that `scout recheck` lists, how many are wrong, beside how many of all are?

    python -m benchmarks.recheck --data clickbait.jsonl.gz

From the headlines (thinned to 20% clickbait) and the bundled sample so many ads are drawn as a few rounds
label, and a share of their labels is turned: anywhere, or where the ads are hard (both by the
frozen encoder's vectors alone). The list is that of the model's disagreement, the first fifty of it: copies
and drift add to it in a workspace.

Target: at least three times the share of wrong labels, in the mean over seeds, in every row.
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from benchmarks import _common
from models.encoder import SentenceEncoder
from models.presets import EMBEDDED_ENCODER, load_encoder
from models.training.data import LabelledAds, draw_folds
from models.training.learners import held_out_margins
from pipelines.config import Labels
from pipelines.numerics.label_issues import confident_disagreement
from pipelines.simulation.labelled_corpus import Fields, read_labelled
from pipelines.text import content_key

LISTED = 50
RATES = (0.05, 0.1, 0.2)
SIZES = (200, 400, 800)
SHARE = 0.2
TIMES = 3.0


def turned(
    rng: np.random.Generator, labels: np.ndarray, rate: float, hardness: np.ndarray | None
) -> np.ndarray:
    """Return which labels are turned, bool (n,): anywhere, or more often where an ad is hard."""
    odds = np.ones(len(labels)) if hardness is None else hardness
    chosen = rng.choice(len(labels), round(rate * len(labels)), False, odds / odds.sum())
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[chosen] = True
    return wrong


def listed(keys: Sequence[str], vectors: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the rows that are listed, most doubtful first, and how many errors are expected."""
    order = np.argsort(np.asarray(keys))
    ads = LabelledAds(tuple(keys[i] for i in order), ("",) * len(keys), given[order])
    margins = held_out_margins(vectors[order], ads.labels, draw_folds(ads, 5, 0))
    found = confident_disagreement(expit(margins), ads.labels)
    return order[found.rows[:LISTED]], found.expected


def corpora(data: str) -> dict[str, tuple[list[str], np.ndarray, np.ndarray]]:
    """Return keys, vectors and labels of each corpus, by name."""
    templates = Path(__file__).resolve().parent.parent / "templates" / "samples"
    sample = read_labelled(
        [str(templates / "ads.jsonl")],
        Fields(file=str(templates / "gold.jsonl")),
        Labels(positive="deceptive", negative="honest"),
    )
    headlines, bait = _common.load_headlines(Path(data))
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [
            rng.choice(np.flatnonzero(bait), 600, False),
            rng.choice(np.flatnonzero(~bait), 2400, False),
        ]
    )
    texts = {
        "headlines": ([headlines[row] for row in rows], bait[rows]),
        "sample": (list(sample.texts), sample.gold),
    }
    encoder = SentenceEncoder(load_encoder(EMBEDDED_ENCODER))
    found = {}
    for name, (own, gold) in texts.items():
        _common.log(f"encoding {len(own):,} ads of {name}")
        keys = [content_key(text) for text in own]
        found[name] = (keys, encoder.encode(own), gold.astype(np.int8))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="default: %(default)s")
    args = _common.parse(parser, argv)
    rows, targets = [], {}
    for name, (keys, vectors, labels) in corpora(str(args.data)).items():
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        sure = cross_val_predict(model, vectors, labels, cv=5, method="predict_proba")[:, 1]
        hardness = sure * (1.0 - sure)
        for size in SIZES:
            for rate in RATES:
                for kind, hard in (("anywhere", None), ("where hard", hardness)):
                    precision, recall, number, expected = [], [], [], []
                    for seed in range(args.seeds):
                        rng = np.random.default_rng(seed)
                        positive, negative = np.flatnonzero(labels), np.flatnonzero(labels == 0)
                        wanted = min(round(SHARE * size), len(positive))
                        own = np.concatenate(
                            [
                                rng.choice(positive, wanted, False),
                                rng.choice(negative, size - wanted, False),
                            ]
                        )
                        wrong = turned(rng, labels[own], rate, None if hard is None else hard[own])
                        given = np.where(wrong, 1 - labels[own], labels[own]).astype(np.int8)
                        found, guess = listed([keys[row] for row in own], vectors[own], given)
                        number.append(len(found))
                        expected.append(guess)
                        precision.append(float(wrong[found].mean()) if len(found) else 0.0)
                        recall.append(float(wrong[found].sum() / wrong.sum()))
                    mean = statistics.fmean(precision)
                    rows.append(
                        {
                            "corpus": name,
                            "labels": size,
                            "wrong": f"{rate:.0%} {kind}",
                            "listed": round(statistics.fmean(number)),
                            "expected wrong": round(statistics.fmean(expected)),
                            "precision": f"{mean:.2f} ±{statistics.stdev(precision):.2f}",
                            "times the rate": f"{mean / rate:.1f}",
                            "recall": f"{statistics.fmean(recall):.2f}",
                        }
                    )
                    said = f"{name}, {size} labels, {rate:.0%} {kind}: {mean / rate:.1f} times the rate"
                    targets[f"{said}, at least {TIMES:g}"] = mean >= TIMES * rate
    return _common.finish(args, rows, targets)


if __name__ == "__main__":
    sys.exit(main())
