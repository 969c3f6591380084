"""How good is the advice of `scout advise` on ads that it did not see?

    python -m benchmarks.advise --data clickbait.jsonl.gz --tweets tweets.jsonl --conversations convabuse.jsonl.gz

From each labelled corpus a small set is drawn, as a pilot would label it: so many ads that about 40 of them
are positive. What is advised on it is compared with the truth: every strategy played on all other ads, with
the same labels, measured on a third of them. Regret is how far the advised strategy lies behind the best there in
kappa, mean over rounds. Beside the advice stand what needs none: keep `boundary`, and take
whatever had the highest mean on the small set, told apart or not.

LLM-0's and the encoder's answers are kept in the cache, so that a second run scores nothing.

Target: the advised strategy within .02 of the best on held-out ads in at least half of the draws, and never
further behind it than `boundary`'s own mean regret and .05.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from pipelines.config import Labels, Task, Training, load_task
from pipelines.simulation import advice
from pipelines.simulation.advice import Labelled
from pipelines.simulation.labelled_corpus import Corpus, Fields, read_labelled
from pipelines.simulation.rehearsal import ScoredAds, rehearse, split

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
CLOSE = 0.02
PILOT_POSITIVES = 40
LABELS = 100
# Expected error reduction looks at 2,000 ads a choice: minutes a draw, where the others take seconds.
SLOW = ("error-reduction",)
CONVERSATIONS = (
    "A person's line to a chatbot is abusive when it insults, threatens or degrades the bot or a group of people, "
    "is sexually explicit, or harasses. Allowed: blunt, odd or impatient lines, complaints, and swearing that is aimed at nobody."
)


def corpora(args: Any) -> dict[str, tuple[Task, Corpus, float | None]]:
    """Return task, corpus and the share to which positives are thinned, by name."""
    found: dict[str, tuple[Task, Corpus, float | None]] = {}

    def add(name: str, task: Task, path: str, fields: Fields, share: float | None = None) -> None:
        found[name] = (task, read_labelled([path], fields, task.labels), share)

    sample = load_task(TEMPLATES / "policies" / "ads_safety.yaml")
    gold = Fields(file=str(TEMPLATES / "samples" / "gold.jsonl"))
    add("sample", sample, str(TEMPLATES / "samples" / "ads.jsonl"), gold)
    add(
        "headlines",
        load_task(TEMPLATES / "policies" / "clickbait.yaml"),
        str(args.data),
        Fields(),
        0.05,
    )
    if args.conversations:
        task = Task(
            name="abuse",
            version=1,
            policy=CONVERSATIONS,
            question="Is what the person says abusive?",
            prior=0.15,
            labels=Labels(positive="abusive", negative="fine"),
            training=Training(learner="head"),
        )
        add("conversations", task, args.conversations, Fields())
    if args.tweets:
        tweets = load_task(TEMPLATES / "policies" / "hostile_tweets.yaml")
        add("tweets", tweets, args.tweets, Fields())
    return found


def thinned(corpus: Corpus, share: float | None, most: int) -> np.ndarray:
    """Return rows of at most so many ads, ascending, positives thinned out to a share."""
    rng = np.random.default_rng(0)
    positive, negative = np.flatnonzero(corpus.gold), np.flatnonzero(~corpus.gold)
    share = share or float(corpus.gold.mean())
    total = min(most, len(corpus), int(len(positive) / share), int(len(negative) / (1 - share)))
    wanted = round(share * total)
    rows = [rng.choice(positive, wanted, False), rng.choice(negative, total - wanted, False)]
    return np.sort(np.concatenate(rows))


def scored(name: str, task: Task, corpus: Corpus, rows: np.ndarray) -> ScoredAds:
    """Return a corpus with what LLM-0 and the encoder say of it; kept in the cache."""
    kept = _common.CACHE / "advise" / f"{name}.npz"
    keys = tuple(corpus.keys[row] for row in rows)
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as held:
            if tuple(held["keys"].tolist()) == keys:
                return ScoredAds(keys, held["margins"], held["vectors"], held["labels"])
    texts = tuple(corpus.texts[row] for row in rows)
    ads = Labelled(keys, texts, corpus.gold[rows].astype(np.int8))
    found = advice.score(task, ads, lambda line: _common.log(f"{name}: {line}"))
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial.npz")
    np.savez(
        partial,
        keys=np.array(found.keys),
        margins=found.margins,
        vectors=found.vectors,
        labels=found.labels,
    )
    partial.replace(kept)
    return found


def pilot(ads: ScoredAds, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a uniform sample with about `PILOT_POSITIVES` positives, and all others."""
    wanted = min(round(PILOT_POSITIVES / ads.labels.mean()), len(ads) // 2)
    drawn = np.random.default_rng(seed).permutation(len(ads))
    return np.sort(drawn[:wanted]), np.sort(drawn[wanted:])


def truth(
    task: Task, ads: ScoredAds, names: Sequence[str], seeds: int, kept: Path
) -> dict[str, float]:
    """Return each strategy's kappa on held-out ads, mean over rounds and seeds; kept, a file a draw."""
    if kept.is_file():
        held = json.loads(kept.read_text())
        if set(names) <= set(held):
            return {name: held[name] for name in names}
    steps = tuple(LABELS * n // advice.ROUNDS for n in range(1, advice.ROUNDS + 1))
    kappas: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(1, seeds + 1):
        parts = split(ads.labels, ads.keys, 1 / 3, seed)
        for name in names:
            curve = rehearse(
                ads,
                parts,
                advice.registry.create(name),
                task.model_copy(update={"seed": seed}),
                steps,
                advice.Prices(),
            )
            kappas[name].append(statistics.fmean(at.kappa for at in curve))
    found = {name: statistics.fmean(values) for name, values in kappas.items()}
    kept.write_text(json.dumps(found))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_parser(__doc__)
    parser.add_argument("--tweets", metavar="FILE", help="from benchmarks.rated_tweets")
    parser.add_argument("--conversations", metavar="FILE", help="JSON lines with text and label")
    parser.add_argument("--only", help="one corpus, by its name")
    parser.add_argument("--ads", type=int, default=4000, help="of a corpus (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=3, help="small sets (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="of a play (default: %(default)s)")
    parser.add_argument(
        "--truth_seeds", type=int, default=3, help="of the truth (default: %(default)s)"
    )
    parser.add_argument("--slow", action="store_true", help=f"{', '.join(SLOW)}, too")
    parser.add_argument("--score_alone", action="store_true", help="fill the cache, and end")
    args = _common.parse(parser, argv)
    rows: list[dict[str, Any]] = []
    regrets: dict[str, list[float]] = {"advised": [], "boundary": [], "highest mean": []}
    for name, (given, corpus, share) in corpora(args).items():
        if args.only not in (None, name):
            continue
        everything = scored(name, given, corpus, thinned(corpus, share, args.ads))
        if args.score_alone:
            continue
        task = advice.played_task(given, float(everything.labels.mean()))
        names, _ = advice.fitting(task, ())
        names = tuple(n for n in names if args.slow or n not in SLOW)
        for draw in range(1, args.draws + 1):
            small, others = pilot(everything, draw)
            known = everything.take(small)
            budgets = advice.budgets_of(known.labels, None)
            own = task.selection.strategy
            curves = advice.play(task, known, names, budgets, args.seeds)
            played = advice.compare(curves, own)
            take = advice.taken(played, own).name
            kept = _common.CACHE / "advise" / f"{name}-{args.ads}-{draw}-{args.truth_seeds}.json"
            real = truth(task, everything.take(others), names, args.truth_seeds, kept)
            best = max(real, key=lambda one: real[one])
            choices = {"advised": take, "boundary": own, "highest mean": played[0].name}
            behind = {way: real[best] - real[choice] for way, choice in choices.items()}
            for way, gap in behind.items():
                regrets[way].append(gap)
            rows.append(
                {
                    "corpus": name,
                    "draw": draw,
                    "small set": f"{len(small)}, {int(known.labels.sum())} pos.",
                    "labels played": budgets[-1],
                    "advised": take,
                    "regret": round(behind["advised"], 3),
                    "highest mean": played[0].name,
                    "its regret": round(behind["highest mean"], 3),
                    "boundary's regret": round(behind["boundary"], 3),
                    "best on the rest": f"{best} {real[best]:.2f}",
                }
            )
            _common.log(f"{name}, draw {draw}: {rows[-1]}")
    if args.score_alone:
        return 0
    targets = {}
    for way, gaps in regrets.items():
        close = sum(gap <= CLOSE for gap in gaps)
        said = f"{way}: within {CLOSE} of the best in {close} of {len(gaps)} draws"
        said += f", mean regret {statistics.fmean(gaps):.3f}, worst {max(gaps):.3f}"
        _common.log(said)
        if way == "advised":
            targets[f"{said}; at least half"] = 2 * close >= len(gaps)
            worst = max(gaps) <= statistics.fmean(regrets["boundary"]) + 0.05
            targets["never further behind than boundary's mean regret and .05"] = worst
    return _common.finish(args, rows, targets, regrets=regrets)


if __name__ == "__main__":
    sys.exit(main())
