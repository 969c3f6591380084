"""Do the intervals of `scout audit` hold what they promise, and how narrow are they?

Corpora whose labels are known are audited again and again. Simulated ones have normal scores of a
given AUC, a share of violating ads that score like all others ("blind"), a prior that is wrong by a
factor, and copies with a heavy tail; the headlines have the scores of a logistic head on frozen MiniLM
vectors, trained on a few hundred of them. Beside each estimate stands a plain random sample of as many
labels: Wilson's interval for the share, a Dirichlet posterior for the rest.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import norm

from benchmarks import _common
from pipelines.numerics import audit, calibration

CORPUS = 20_000
SAMPLE = 300
DRAWS = 500
# Mean copies are 1.6, and one ad in a thousand has more than 22.
COPIES_SIGMA = 1.0
HEADLINES = (0.01, 0.05)
TRAINED_ON = 200
# Share of violating ads, AUC, blind share of them, prior over the true share.
SCENARIOS = (
    (0.01, 0.80, 0.0, 1.0),
    (0.01, 0.90, 0.0, 1.0),
    (0.01, 0.95, 0.0, 1.0),
    (0.01, 0.98, 0.0, 1.0),
    (0.01, 0.90, 0.2, 1.0),
    (0.01, 0.90, 0.0, 0.5),
    (0.01, 0.90, 0.0, 2.0),
    (0.05, 0.80, 0.0, 1.0),
    (0.05, 0.90, 0.0, 1.0),
    (0.05, 0.95, 0.0, 1.0),
    (0.05, 0.98, 0.0, 1.0),
    (0.05, 0.90, 0.2, 1.0),
    (0.05, 0.90, 0.0, 0.5),
    (0.05, 0.90, 0.0, 2.0),
)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus whose labels are known: margins on the grid, labels, copies, and the label rule."""

    margins: np.ndarray
    positive: np.ndarray
    weight: np.ndarray
    prior: float
    threshold: float


def simulated(share: float, auc: float, blind: float, off: float, seed: int) -> Corpus:
    """Make a corpus; its scores have a scale of their own, as a language model's have."""
    rng = np.random.default_rng(seed)
    positive = np.zeros(CORPUS, dtype=bool)
    positive[rng.choice(CORPUS, round(share * CORPUS), replace=False)] = True
    seen = positive & (rng.random(CORPUS) >= blind)
    score = rng.normal(size=CORPUS) + seen * norm.ppf(auc) * math.sqrt(2.0)
    copies = np.ceil(rng.lognormal(0.0, COPIES_SIGMA, CORPUS))
    return _corpus(0.7 * score - 0.4, positive, copies, share * off)


def headlines(path: Path, share: float, seed: int) -> Corpus:
    """Thin the clickbait out, train a head on a few headlines, and score the others with it."""
    from sklearn.linear_model import LogisticRegression

    _, positive = _common.load_headlines(path)
    vectors = _common.headline_vectors(path)
    rng = np.random.default_rng(seed)
    plain, bait = (
        rng.permutation(np.flatnonzero(~positive)),
        rng.permutation(np.flatnonzero(positive)),
    )
    bait = bait[: round(len(plain) * share / (1 - share)) + TRAINED_ON // 2]
    half = TRAINED_ON // 2
    taught = np.concatenate([plain[:half], bait[:half]])
    head = LogisticRegression(C=1.0, max_iter=1000).fit(vectors[taught], positive[taught])
    rows = np.concatenate([plain[half:], bait[half:]])
    score = head.decision_function(vectors[rows])
    return _corpus(score, positive[rows], np.ones(len(rows)), share)


def _corpus(score: np.ndarray, positive: np.ndarray, copies: np.ndarray, prior: float) -> Corpus:
    margins = calibration.quantize(score).astype(np.float64)
    threshold = calibration.prior_threshold(calibration.margin_histogram(margins), prior)
    return Corpus(margins, positive, copies, prior, threshold.margin)


def truth(corpus: Corpus) -> dict[str, float]:
    """Return what is to be estimated."""
    called, positive = corpus.margins >= corpus.threshold, corpus.positive
    hits, agreed = float((called & positive).sum()), float((called == positive).mean())
    chance = called.mean() * positive.mean() + (1 - called.mean()) * (1 - positive.mean())
    return {
        audit.SHARE: float(positive.mean()),
        audit.WEIGHTED: float(np.average(positive, weights=corpus.weight)),
        audit.PRECISION: hits / called.sum(),
        audit.RECALL: hits / positive.sum(),
        audit.KAPPA: float((agreed - chance) / (1 - chance)),
    }


def audited(corpus: Corpus, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Audit a corpus many times; -> (draws, measures, 2) intervals of each way to estimate."""
    histogram = calibration.margin_histogram(corpus.margins)
    assumed = audit.assumed_probabilities(histogram, corpus.prior)
    plan = audit.plan_sample(histogram, assumed, corpus.threshold, SAMPLE)
    stratum = plan.stratum_of(corpus.margins)
    probability = assumed[audit.bin_of(corpus.margins)]
    strata = plan.strata(
        histogram,
        np.bincount(audit.bin_of(corpus.margins), corpus.weight, minlength=len(histogram)),
        assumed,
    )
    members = [np.flatnonzero(stratum == row) for row in range(len(plan.labels))]
    rng = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {"plain": [], "powered": [], "random": []}
    for _ in range(draws):
        rows = np.concatenate(
            [rng.choice(own, n, replace=False) for own, n in zip(members, plan.labels, strict=True)]
        )
        labels = audit.Labels(
            stratum[rows], corpus.positive[rows], probability[rows], corpus.weight[rows]
        )
        result = audit.estimate(strata, labels)
        for name, own in (("plain", result.plain), ("powered", result.powered)):
            found[name].append(np.array([(own[m].low, own[m].high) for m in audit.MEASURES], float))
        found["random"].append(_random(corpus, rng))
    return {name: np.array(own, dtype=np.float64) for name, own in found.items()}


def _random(corpus: Corpus, rng: np.random.Generator) -> np.ndarray:
    """Return the intervals of a plain random sample."""
    rows = rng.choice(len(corpus.margins), SAMPLE, replace=False)
    positive, called = corpus.positive[rows], corpus.margins[rows] >= corpus.threshold
    cells = np.bincount(2 * positive + called, minlength=4)
    tn, fp, fn, tp = rng.dirichlet(cells + 0.5, size=2000).T
    chance = (tp + fp) * (tp + fn) + (tn + fn) * (tn + fp)
    rest = (tp / (tp + fp), tp / (tp + fn), (tp + tn - chance) / (1 - chance))
    ends = [np.quantile(own, [0.025, 0.975]) for own in rest]
    weight = corpus.weight[rows]
    by_weight = _wilson(np.average(positive, weights=weight), weight.sum() ** 2 / (weight**2).sum())
    return np.array([_wilson(positive.mean(), SAMPLE), by_weight, *ends])


def _wilson(p: float, n: float) -> tuple[float, float]:
    z = norm.ppf(0.975)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + (z / n / 2) ** 2) / (1 + z**2 / n)
    return middle - half, middle + half


def row_of(name: str, corpus: Corpus, draws: int, seed: int) -> list[dict[str, object]]:
    """Audit a corpus and return a line an estimate: coverage and width of each measure."""
    wanted = truth(corpus)
    lines = []
    intervals = audited(corpus, draws, seed)
    for way in ("plain", "powered", "random"):
        line: dict[str, object] = {"corpus": name, "sample": way}
        for place, measure in enumerate(audit.MEASURES):
            low, high = intervals[way][:, place].T
            inside = (low <= wanted[measure]) & (wanted[measure] <= high)
            line[f"{measure} covers"] = round(100 * float(inside.mean()), 1)
            # Recall is not defined where no positive ad was found.
            line[f"{measure} width"] = round(float(np.nanmean(high - low)), 4)
        lines.append(line)
    for line in lines:
        for measure in audit.MEASURES:
            ratio = float(line[f"{measure} width"]) / float(lines[2][f"{measure} width"])  # type: ignore[arg-type]
            line[f"{measure} of random's"] = round(ratio, 2)
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = _common.make_parser(__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--seed", type=int, default=202, help="default: %(default)s")
    parser.add_argument("--only", choices=("simulated", "headlines"))
    args: argparse.Namespace = _common.parse(parser, argv)
    lines = []
    if args.only != "headlines":
        for place, scenario in enumerate(SCENARIOS):
            share, auc, blind, off = scenario
            name = f"{share:.0%}, AUC {auc:g}"
            name += f", {blind:.0%} blind" if blind else ""
            name += f", prior x {off:g}" if off != 1 else ""
            _common.log(name)
            lines += row_of(name, simulated(*scenario, args.seed + place), args.draws, args.seed)
    if args.only != "simulated":
        for share in HEADLINES:
            _common.log(f"headlines, {share:.0%}")
            corpus = headlines(args.data, share, args.seed)
            lines += row_of(f"headlines, {share:.0%}", corpus, args.draws, args.seed)
    own = [line for line in lines if line["sample"] != "random"]
    covers = [value for line in own for key, value in line.items() if key.endswith("covers")]
    good = sum(93 <= value <= 97 for value in covers)  # type: ignore[operator]
    targets = {f"coverage within 93 to 97%: {good} of {len(covers)}": good == len(covers)}
    return _common.finish(args, lines, targets, draws=args.draws, seed=args.seed, sample=SAMPLE)


if __name__ == "__main__":
    sys.exit(main())
