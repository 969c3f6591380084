"""Do the two halves keep their share on templated corpora, and does one half give the other away?

    python -m benchmarks.half_leaks --data headlines.jsonl.gz

Corpora of templates with slots, and the headlines at 5% clickbait, are mined round by round by the
fake LLM-0, and labelled by their gold labels. The ads of each round are put into halves by what
`scout import` uses, and, on the same ads, in the way in which it was done before: chains of pairs and
near-duplicates, each chain on one side by its hash, and withheld where it meets both sides.

The leak is measured by a copier: it gives every evaluation ad the label of the fine-tuning ad that is
most like it, by cosine of the frozen encoder's vectors and by the share of common four-character grams.
Its kappa is what a model would reach by remembering; some of it is no leak, for like ads deserve like
labels. Means over seeds of the split, and over corpora.

Targets: from 60 labels on halves within 10 points of the task's share, at most 5% withheld; on the
headlines the copier no better than before, within two standard errors of the corpora's differences.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from pipelines.numerics import agreement
from pipelines.numerics.families import components, near_duplicates
from pipelines.numerics.hashing import unit_hash
from pipelines.numerics.split import EVALUATION, FINE_TUNING, WITHHELD
from pipelines.text import normalize_text

SHARE = 0.5
SPLITS = 20
ENOUGH = 60
PREVALENCE = 0.05
NEGATIVES = 5000
_LOUD = ("guaranteed", "miracle", "secret", "shocking", "winner", "cure", "urgent", "free")
_CITIES = ("Athens", "Bergen", "Cardiff", "Dublin", "Essen", "Faro", "Ghent", "Helsinki", "Ipswich")

Labelled = list[tuple[str, bool]]
# What puts ads on sides: texts of all ads, round and predicted label of each, pairs of rows, a seed.
Way = Callable[["Shown", int], Iterator[np.ndarray]]


def templated(templates: int, ads: int, positive_share: float = 0.5, seed: int = 0) -> Labelled:
    """Return distinct ads of templates with a city and a number in them, and whether they violate.

    Args:
        templates: how many; each is of one label, but for one ad in twenty.
        ads: how many.
        positive_share: of the templates.
        seed: of everything.
    """
    rng = random.Random(seed)

    def word() -> str:
        return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3))

    forms = []
    for number in range(templates):
        positive = number < max(1, round(positive_share * templates))
        words = [word() for _ in range(8)]
        if positive:
            words[1], words[5] = rng.sample(_LOUD, 2)
        words.insert(rng.randrange(9), "{city}")
        words.insert(rng.randrange(10), "{n}")
        forms.append((" ".join(words), positive))
    found: dict[str, bool] = {}
    while len(found) < ads:
        form, positive = rng.choice(forms)
        text = form.format(city=rng.choice(_CITIES), n=rng.randrange(2, 999))
        found[text] = positive != (rng.random() < 0.05)
    return list(found.items())


def thinned(data: Path, seed: int) -> Labelled:
    """Return some of the headlines, with as many of their positives as the prevalence asks for."""
    texts, gold = _common.load_headlines(data)
    rng = np.random.default_rng(seed)
    negative = rng.permutation(np.flatnonzero(~gold))[:NEGATIVES]
    wanted = round(PREVALENCE / (1 - PREVALENCE) * len(negative))
    rows = rng.permutation(
        np.concatenate([negative, rng.permutation(np.flatnonzero(gold))[:wanted]])
    )
    return [(texts[row], bool(gold[row])) for row in rows]


@dataclass(frozen=True, slots=True)
class Shown:
    """Ads that rounds of mining put before experts.

    Attributes:
        keys, texts: of n ads.
        gold, predicted: bool (n,), the truth, and what LLM-0 said.
        round: int (n,), which showed it.
        pairs: intp (p, 2), rows that were shown as a pair.
    """

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    gold: np.ndarray
    predicted: np.ndarray
    round: np.ndarray
    pairs: np.ndarray

    def until(self, number: int) -> Shown:
        """Return the ads of the rounds up to one."""
        kept = np.flatnonzero(self.round <= number)
        place = np.full(len(self.keys), -1)
        place[kept] = np.arange(len(kept))
        pairs = place[self.pairs]
        return Shown(
            tuple(self.keys[row] for row in kept),
            tuple(self.texts[row] for row in kept),
            self.gold[kept],
            self.predicted[kept],
            self.round[kept],
            pairs[(pairs >= 0).all(axis=1)],
        )


def mined(ads: Labelled, budget: int, rounds: int, prior: float, folder: Path) -> Shown:
    """Mine rounds of pairs, each labelled by the truth before the next."""
    from pipelines.config import Task
    from pipelines.jobs.ingest import ingest_verdicts
    from pipelines.jobs.mine import Mined, MineOptions, mine
    from pipelines.store.workspace import Workspace
    from pipelines.verdicts.rows import RawVerdict

    corpus = folder / "ads.jsonl"
    lines = (json.dumps({"id": f"a{i}", "text": text}) for i, (text, _) in enumerate(ads))
    corpus.write_text("\n".join(lines), encoding="utf-8")
    definition: dict[str, Any] = {
        "name": "halves",
        "version": 1,
        "policy": "Ads that promise what nobody can promise.",
        "question": "Is it misleading?",
        "prior": prior,
        "model": {"preset": "fake"},
        "selection": {"budget": budget},
    }
    task, truth = Task.model_validate(definition), dict(ads)
    place = Workspace(str(folder / "workspace"))
    found: dict[str, tuple[str, bool, int]] = {}
    pairs: list[tuple[str, ...]] = []
    for number in range(1, rounds + 1):
        options = MineOptions(task, (str(corpus),), place.root)
        mined = mine(options, say=lambda _: None)
        assert isinstance(mined, Mined)
        items = mined.items
        pairs += [tuple(ad.key for ad in item.ads) for item in items if len(item.ads) == 2]
        rows: list[RawVerdict] = []
        for ad in (ad for item in items for ad in item.ads):
            found[ad.key] = (ad.text, ad.label == "positive", number)
            label = "positive" if truth[ad.text] else "negative"
            position = f"row {len(rows)}"
            rows.append(RawVerdict(ad.id, "", "", "", label, "gold", "", "", "", position))
        ingest_verdicts(place, rows, f"round {number}")
    keys = tuple(sorted(found))
    row_of = {key: row for row, key in enumerate(keys)}
    texts, predicted, round_of = zip(*(found[key] for key in keys), strict=True)
    return Shown(
        keys,
        texts,
        np.array([truth[text] for text in texts]),
        np.array(predicted),
        np.array(round_of),
        np.array([[row_of[key] for key in pair] for pair in pairs], dtype=np.intp).reshape(-1, 2),
    )


def by_families(shown: Shown, seed: int) -> Iterator[np.ndarray]:
    """Yield the sides after each round, as `scout import` decides them; every ad has a label."""
    from pipelines.numerics.split import Ads, assign_sides

    fixed: dict[str, str] = {}
    for number in range(1, int(shown.round.max()) + 1):
        now = shown.until(number)
        ads = Ads(now.keys, now.predicted, near_duplicates(list(map(normalize_text, now.texts))))
        sides = assign_sides(ads, fixed, fixed.keys(), SHARE, seed)
        fixed = {key: side.side for key, side in sides.items()}
        yield np.array([fixed[key] for key in now.keys])


def by_chains(shown: Shown, seed: int) -> Iterator[np.ndarray]:
    """Yield the sides after each round, as they were decided before."""
    fixed: dict[str, str] = {}
    for number in range(1, int(shown.round.max()) + 1):
        now = shown.until(number)
        near = near_duplicates(list(map(normalize_text, now.texts))).edges
        group = components(len(now.keys), np.concatenate([now.pairs, near]))
        for one in range(group.max() + 1):
            keys = [now.keys[row] for row in np.flatnonzero(group == one)]
            held = {fixed[key] for key in keys if key in fixed} - {WITHHELD}
            drawn = EVALUATION if unit_hash(min(keys), seed) < SHARE else FINE_TUNING
            side = WITHHELD if len(held) == 2 else next(iter(held), drawn)
            fixed = dict.fromkeys(keys, side) | fixed
        yield np.array([fixed[key] for key in now.keys])


WAYS: Mapping[str, Way] = {"chains (before)": by_chains, "families (now)": by_families}


def common_grams(texts: Sequence[str]) -> np.ndarray:
    """Return the Jaccard index of the grams of every two texts, (n, n)."""
    near = near_duplicates(list(map(normalize_text, texts)), 1e-9)
    found = np.zeros((len(texts), len(texts)))
    found[near.edges[:, 0], near.edges[:, 1]] = near.similarity
    return found + found.T


def measure(shown: Shown, way: Way, alike: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return shares, withheld ads and the copier's kappas of one mined corpus, over seeds."""
    near = near_duplicates(list(map(normalize_text, shown.texts))).edges
    off, withheld, leaking = [], [], []
    kappas: dict[str, list[float]] = {name: [] for name in alike}
    for seed in range(SPLITS):
        for sides in way(shown, seed):
            training, judging = (sides == FINE_TUNING).sum(), (sides == EVALUATION).sum()
            if len(sides) >= ENOUGH:
                off.append(float(abs(judging / max(1, training + judging) - SHARE)))
        judges, trains = sides == EVALUATION, sides == FINE_TUNING
        withheld.append(float((sides == WITHHELD).mean()))
        crossing = near[judges[near].any(axis=1) & trains[near].any(axis=1)]
        leaking.append(int((np.bincount(crossing.ravel(), minlength=len(sides)) > 0)[judges].sum()))
        for name, likeness in alike.items():
            if trains.any() and judges.any():
                nearest = np.flatnonzero(trains)[likeness[np.ix_(judges, trains)].argmax(axis=1)]
                kappa, _ = agreement.cohen_kappa(shown.gold[nearest], shown.gold[judges])
                kappas[name].append(np.nan if kappa is None else kappa)
    return {
        "ads": len(shown.keys),
        "off": max(off),
        "withheld": max(withheld),
        "alike": float(np.mean(leaking)),
        **{name: float(np.nanmean(found)) if found else np.nan for name, found in kappas.items()},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = _common.make_parser(__doc__)
    parser.add_argument(
        "--corpora", type=int, default=8, help="of headlines (default: %(default)s)"
    )
    args = _common.parse(parser, argv)
    from models.encoder import SentenceEncoder
    from models.presets import EMBEDDED_ENCODER, load_encoder

    encoder = SentenceEncoder(load_encoder(EMBEDDED_ENCODER))
    corpora = {
        "10 templates": [(templated(10, 400, 0.3), 20, 3, 0.3)],
        "60 templates": [(templated(60, 2400, 0.3), 40, 3, 0.3)],
        "40 templates a label": [(templated(80, 3000), 50, 4, 0.4)],
        "headlines": [
            (thinned(args.data, seed), 40, 5, PREVALENCE) for seed in range(args.corpora)
        ],
    }
    rows, found = [], {}
    for name, plans in corpora.items():
        each: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for number, plan in enumerate(plans, start=1):
            _common.log(f"{name} {number}: mining")
            with tempfile.TemporaryDirectory() as folder:
                shown = mined(*plan, Path(folder))
            vectors = encoder.encode(list(shown.texts))
            alike = {"vectors": vectors @ vectors.T, "grams": common_grams(shown.texts)}
            for way, decide in WAYS.items():
                each[way].append(measure(shown, decide, alike))
        found[name] = each
        for way, measured in each.items():
            mean = {key: float(np.mean([one[key] for one in measured])) for key in measured[0]}
            worst = {key: max(one[key] for one in measured) for key in ("off", "withheld")}
            told = {key: "-" if np.isnan(value) else value for key, value in (mean | worst).items()}
            rows.append({"corpus": name, "halves by": way} | told)
    targets = {}
    for name in ("60 templates", "headlines"):
        ours = found[name]["families (now)"]
        off, withheld = (max(one[key] for one in ours) for key in ("off", "withheld"))
        targets[f"{name}: at most {off:.2f} off the share (.10)"] = off <= 0.1
        targets[f"{name}: at most {withheld:.1%} withheld (5%)"] = withheld <= 0.05
    for likeness in ("vectors", "grams"):
        before, now = (np.array([one[likeness] for one in found["headlines"][w]]) for w in WAYS)
        by, error = (
            float((now - before).mean()),
            float(np.std(now - before, ddof=1) / len(now) ** 0.5),
        )
        line = f"headlines: a copier by {likeness} better by {by:.3f} than before (standard error {error:.3f})"
        targets[line] = by <= 2 * error
    return _common.finish(args, rows, targets)


if __name__ == "__main__":
    sys.exit(main())
