"""Which selection strategy a task should take: played on a small labelled set, or by a table without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.backends.base import BackendError
from models.backends.pool import LabelerPool
from pipelines.config import Selection, Task, given_task
from pipelines.console.progress import step
from pipelines.errors import RunFailed, UsageError
from pipelines.handlers import LoadLabeler, label_each
from pipelines.jobs import pilot
from pipelines.jobs.labels import fine_tuning_labels
from pipelines.jobs.minutes import assumed_rates, spending
from pipelines.jobs.results import Result
from pipelines.jobs.settings import with_committee_of
from pipelines.numerics import calibration
from pipelines.numerics.minutes import PAIR, POSITIVES, SINGLE
from pipelines.numerics.paired import paired_difference
from pipelines.simulation.labelled_corpus import Fields, read_labelled
from pipelines.simulation.rehearsal import Prices, Reached, ScoredAds, rehearse, split
from pipelines.sources.base import ReadOptions
from pipelines.store.workspace import Workspace
from pipelines.strategies import registry
from pipelines.strategies.base import Need, RowStrategy, Strategy
from pipelines.strategies.sampled import Sampled
from pipelines.verdicts.shown import shown_ads

# Of each class: fewer leave the ads that are measured on, or those asked about, without any.
LEAST = 20
TEST_SHARE = 0.4
ROUNDS = 4
_LEAST_LABELS = 16
# Of the ads that may be asked about: a strategy that has seen most of them has chosen nothing.
_MOST_ASKED = 1 / 3
_LEVEL = 0.95
# Fewer splits hardly tell a spread: the interval of two is 13 times as wide as that of ten.
_LEAST_SEEDS = 5
_SCORED_ROWS = 256


@dataclass(frozen=True, slots=True)
class AdviceOptions:
    """Everything ``scout advise`` was told; see ``pipelines.api.advise``."""

    task: Task | str
    workspace: str = ""
    labels: str = ""
    label_field: str = "label"
    label_file: str = ""
    budget: int | None = None
    seeds: int = 10
    strategies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Played:
    """How a strategy did.

    Attributes:
        name: of the strategy.
        labels, positives: bought in the end, mean over seeds.
        kappa: with the labels of ads that were not asked about, mean over rounds and seeds.
        last: the same after the last round alone.
        ahead, low, high: of the task's own strategy, in ``kappa``, with an interval of 95% over all
            comparisons together; None of the task's own.
        told_apart: whether that interval leaves 0 out.
    """

    name: str
    labels: float
    positives: float
    kappa: float
    last: float
    ahead: float | None = None
    low: float | None = None
    high: float | None = None
    told_apart: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A line of the decision table: who should take a strategy, what it needs, what it costs."""

    name: str
    suits: str
    needs: str
    chooses_from: str
    shows: str


@dataclass(frozen=True, slots=True, repr=False)
class Advised(Result):
    """What ``advise`` found.

    Attributes:
        task: its name.
        source: where the labels are from; "" where nothing was played.
        ads, positives: labelled, and those of them that are positive.
        seeds: how often each was played.
        unit: of ``budgets``: ``labels``, or ``minutes`` of one expert where the task's budget is in minutes.
        budgets: spent after each round.
        own: the task's strategy.
        take: the strategy to take.
        told_apart: whether it is better than the task's own beyond chance.
        verdict: the same as a sentence.
        strategies: those that were played, best first.
        left_out: strategy -> why it was not played.
        table: every strategy; empty where strategies were played.
    """

    task: str
    source: str
    ads: int
    positives: int
    seeds: int
    unit: str
    budgets: tuple[int, ...]
    own: str
    take: str
    told_apart: bool
    verdict: str
    strategies: tuple[Played, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    table: tuple[Choice, ...] = ()


def advise(options: AdviceOptions, say: Callable[[str], None]) -> Advised:
    """Advise on a strategy.

    Args:
        options: see :class:`AdviceOptions`.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: both a workspace and a file, a strategy that there is not, another policy's workspace,
            or labels that cannot be read.
        RunFailed: the model cannot score these ads.
    """
    task = given_task(options.task)
    if options.workspace and options.labels:
        raise UsageError("--workspace, --labels: give one of them, verdicts or a labelled file")
    if options.seeds < _LEAST_SEEDS:
        raise UsageError(f"--seeds {options.seeds}: give at least {_LEAST_SEEDS}")
    own = registry.create(task.selection.strategy).name
    if not options.workspace and not options.labels:
        return by_table(task, own, "")
    task, ads = _labelled(options, task)
    counts = np.bincount(ads.labels, minlength=2)
    if counts.min() < LEAST:
        few = (
            f"{len(ads.labels):,} labels, {int(counts[1]):,} of them {task.labels.positive}: at least "
            f"{LEAST} of each are needed to play on"
        )
        return by_table(task, own, few)
    say(f"{len(ads.labels):,} labelled ads, {int(counts[1]):,} {task.labels.positive}")
    if options.workspace:
        say(
            "these ads were chosen for review, they are no sample of the corpus: what is ahead among them "
            "need not be ahead in the corpus"
        )
    # Whoever has labels knows their share; vectors are those that the head learns from.
    task = played_task(task, float(counts[1] / counts.sum()))
    budgets = budgets_of(ads.labels, options.budget)
    names, left_out = fitting(task, options.strategies)
    scored = score(task, ads, say)
    unit, steps = "labels", budgets
    prices: Callable[[Strategy], Prices] = _labels_cost
    if task.selection.minutes is not None:
        unit, (steps, prices) = "minutes", _in_minutes(task, options.workspace, budgets)
    curves = play(task, scored, names, steps, options.seeds, prices)
    return verdict_of(task, own, options, ads.labels, (steps, unit), curves, left_out)


def _labels_cost(_: Strategy) -> Prices:
    return Prices()


def _in_minutes(
    task: Task, workspace: str, budgets: Sequence[int]
) -> tuple[tuple[int, ...], Callable[[Strategy], Prices]]:
    """Return what so many single ads cost in minutes, and what each strategy's items do.

    Measured in the workspace, where there is one and times are known.
    """
    rates = spending(Workspace(workspace), task).rates if workspace else assumed_rates(task)

    def prices(strategy: Strategy) -> Prices:
        alone = POSITIVES if strategy.finds_positives else SINGLE
        return Prices(rates[alone].minutes, rates[PAIR].minutes)

    return tuple(max(1, round(n * rates[SINGLE].minutes)) for n in budgets), prices


@dataclass(frozen=True, slots=True)
class Labelled:
    """Ads with settled labels: n content keys and texts, int8 (n,) labels."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    labels: np.ndarray


def _labelled(options: AdviceOptions, task: Task) -> tuple[Task, Labelled]:
    if options.labels:
        fields = Fields(label=options.label_field, file=options.label_file)
        reading = task.reading(ReadOptions())
        with step("reading the labels"):
            found = read_labelled([options.labels], fields, task.labels, reading, "--labels")
        return task, Labelled(found.keys, found.texts, found.gold.astype(np.int8))
    workspace = Workspace(options.workspace)
    mined = workspace.pairs_of().facts.origin.task
    if mined.guideline() != task.guideline():
        raise UsageError(
            f"--workspace {options.workspace}: was mined for another policy, version or label names than "
            "those of the task file; give the task that it was mined with"
        )
    # The evaluation half shapes no choice: what is kept for judging models must not choose how they are made.
    with step("reading verdicts"):
        ads = fine_tuning_labels(workspace, task, shown_ads(workspace).texts()).ads
    order = sorted(range(len(ads.keys)), key=ads.keys.__getitem__)
    labelled = Labelled(
        tuple(ads.keys[i] for i in order), tuple(ads.texts[i] for i in order), ads.labels[order]
    )
    return with_committee_of(task, mined), labelled


def played_task(task: Task, prior: float) -> Task:
    """Return a task as it is played: a head as the learner, on the encoder's vectors."""
    return task.model_copy(
        update={
            "prior": prior,
            "training": task.training.model_copy(update={"learner": "head", "min_per_class": 2}),
            "embedding": task.embedding.model_copy(update={"source": "auto"}),
        }
    )


def budgets_of(labels: np.ndarray, most: int | None) -> tuple[int, ...]:
    """Return how many labels each round of a play reaches.

    Args:
        labels: int8 (n,), of the whole set.
        most: asked for in all, or None for what the set allows.

    Raises:
        UsageError: the set is too small to choose so many of it.
    """
    pool = len(labels) - round(TEST_SHARE * len(labels))
    allowed = int(pool * _MOST_ASKED)
    if most is not None and most > allowed:
        raise UsageError(
            f"--budget {most}: of {len(labels):,} labelled ads {pool:,} can be asked about, and choosing "
            f"means something up to a third of them; at most {allowed:,}, or give more labels"
        )
    total = most or min(allowed, 400)
    if total < _LEAST_LABELS:
        raise UsageError(
            f"--budget: {total} labels are too few to play {ROUNDS} rounds; at least {_LEAST_LABELS}"
        )
    return tuple(round(total * n / ROUNDS) for n in range(1, ROUNDS + 1))


def fitting(task: Task, wanted: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the strategies that fit a task and its rounds, its own first; and why others do not.

    Args:
        task: the task.
        wanted: those asked for; none for all that fit.
    """
    own = registry.create(task.selection.strategy).name
    names = dict.fromkeys((own, *(registry.create(name).name for name in wanted)))
    left_out: dict[str, str] = {}
    if wanted:
        return tuple(names), left_out
    for name in registry.names():
        strategy = registry.create(name)
        if Need.SCORES in strategy.needs and not task.hears_committee():
            left_out[name] = "needs several scores an ad, and the task has one prompt"
        elif _waits_for_labels(strategy) and task.stopping.max_rounds == 1:
            left_out[name] = "needs labels of each class, and stopping.max_rounds allows one round"
        elif strategy.finds_positives:
            left_out[name] = "finds positives, and teaches little by itself"
        elif isinstance(strategy, RowStrategy) and strategy.draws and name != "random":
            left_out[name] = "is for estimating a corpus, not for training"
        else:
            names[name] = None
    left_out.pop(own, None)
    return tuple(names), left_out


def _waits_for_labels(strategy: Strategy) -> bool:
    return Need.LABELS in strategy.needs and not isinstance(strategy, Sampled)


def score(task: Task, ads: Labelled, say: Callable[[str], None]) -> ScoredAds:
    """Ask LLM-0 and the encoder about labelled ads; what cannot be scored is left out, and said.

    Raises:
        UsageError: the model cannot be had.
        RunFailed: it scores none of them, or a service does not answer.
    """
    if task.wants_committee():
        order = np.linspace(0, len(ads.texts) - 1, min(pilot.ADS, len(ads.texts))).astype(int)
        task = pilot.choose(task, [ads.texts[row] for row in np.unique(order)], say)
    try:
        identity = task.backend().identify(say)
    except BackendError as error:
        raise UsageError(f"model: {error}") from error
    labeler = LabelerPool().labeler(identity, LoadLabeler(task, identity).load_new)
    margins, vectors, kept = [], [], []
    with step("scoring labelled ads", len(ads.texts)) as advance:
        for start in range(0, len(ads.texts), _SCORED_ROWS):
            part = ads.texts[start : start + _SCORED_ROWS]
            batch, good, _ = label_each(labeler.label, part)
            if batch is not None:
                fine = np.isfinite(batch.margin) & np.isfinite(batch.vectors).all(axis=1)
                margins.append(calibration.quantize(batch.margin[fine]))
                vectors.append(np.asarray(batch.vectors[fine], dtype=np.float16))
                kept.append(start + np.asarray(good)[fine])
            advance(len(part))
    rows = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
    if not len(rows):
        raise RunFailed("the model scores none of the labelled ads; try one with `scout validate`")
    if len(rows) < len(ads.texts):
        say(f"{len(ads.texts) - len(rows):,} ads cannot be scored and are left out")
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    return ScoredAds(
        tuple(ads.keys[row] for row in rows),
        np.concatenate(margins)[order],
        np.concatenate(vectors)[order],
        ads.labels[rows],
    )


def play(
    task: Task,
    ads: ScoredAds,
    names: Sequence[str],
    steps: Sequence[float],
    seeds: int,
    prices: Callable[[Strategy], Prices] = lambda _: Prices(),
) -> dict[str, list[list[Reached]]]:
    """Play strategies on the same splits of a labelled set.

    Args:
        task: as :func:`played_task` makes it.
        ads: the set.
        names: of the strategies.
        steps: what may be spent after each round.
        seeds: splits, from seed 1.
        prices: of a strategy's items.

    Returns:
        strategy -> what it reached, a list a seed with an entry a step.
    """
    found: dict[str, list[list[Reached]]] = {name: [] for name in names}
    with step("playing strategies", seeds * len(names)) as advance:
        for seed in range(1, seeds + 1):
            parts = split(ads.labels, ads.keys, TEST_SHARE, seed)
            seeded = task.model_copy(update={"seed": seed})
            for name in names:
                strategy = registry.create(name)
                found[name].append(rehearse(ads, parts, strategy, seeded, steps, prices(strategy)))
                advance()
    return found


def compare(curves: Mapping[str, Sequence[Sequence[Reached]]], own: str) -> list[Played]:
    """Return how each strategy did beside the task's own, best first.

    The intervals hold together: each has the level that Bonferroni's inequality asks for of as many.
    """
    each = {
        name: np.array([[at.kappa for at in curve] for curve in seeds])
        for name, seeds in curves.items()
    }
    level = 1.0 - (1.0 - _LEVEL) / max(len(curves) - 1, 1)
    found = []
    for name, kappas in each.items():
        ends = [seed[-1] for seed in curves[name]]
        labels = float(np.mean([end.labels for end in ends]))
        positives = float(np.mean([end.positives for end in ends]))
        mean, last = float(kappas.mean()), float(kappas[:, -1].mean())
        if name == own:
            found.append(Played(name, labels, positives, mean, last))
            continue
        gap = paired_difference(
            kappas.mean(axis=1), each[own].mean(axis=1), TEST_SHARE / (1 - TEST_SHARE), level
        )
        apart = gap.low > 0 or gap.high < 0
        found.append(
            Played(name, labels, positives, mean, last, gap.mean, gap.low, gap.high, apart)
        )
    return sorted(found, key=lambda played: -played.kappa)


def taken(played: Sequence[Played], own: str) -> Played:
    """Return the strategy to take: the best of those that are surely better than the task's own, else that."""
    better = [one for one in played if one.told_apart and (one.ahead or 0.0) > 0]
    return better[0] if better else next(one for one in played if one.name == own)


def verdict_of(
    task: Task,
    own: str,
    options: AdviceOptions,
    labels: np.ndarray,
    spent: tuple[tuple[int, ...], str],
    curves: Mapping[str, Sequence[Sequence[Reached]]],
    left_out: Mapping[str, str],
) -> Advised:
    """Return the advice that a play gives."""
    played = compare(curves, own)
    take, best = taken(played, own), played[0]
    if take.name != own:
        assert take.ahead is not None and take.low is not None and take.high is not None
        verdict = (
            f"take {take.name}: ahead of {own} by {take.ahead:.2f} of kappa [{take.low:.2f}, "
            f"{take.high:.2f}]"
        )
        among = [p.name for p in played if p.name not in (take.name, own) and _near(p, take)]
        if among:
            verdict += f"; {', '.join(among)} did about as well"
    elif best.name == own:
        verdict = f"keep {own}: none did better"
    else:
        assert best.ahead is not None and best.low is not None and best.high is not None
        verdict = (
            f"keep {own}: on {len(labels):,} labels no other can be told apart from it for the better "
            f"(the best, {best.name}, by {best.ahead:.2f} of kappa [{best.low:.2f}, {best.high:.2f}])"
        )
    return Advised(
        task=task.name,
        source=options.labels or f"verdicts of {options.workspace}",
        ads=len(labels),
        positives=int(labels.sum()),
        seeds=options.seeds,
        unit=spent[1],
        budgets=spent[0],
        own=own,
        take=take.name,
        told_apart=take.name != own,
        verdict=verdict,
        strategies=tuple(played),
        left_out=left_out,
    )


def _near(one: Played, take: Played) -> bool:
    return one.kappa >= take.kappa - 0.02


def by_table(task: Task, own: str, why: str) -> Advised:
    """Return what can be said without a play: what each strategy needs, costs and suits."""
    verdict = (
        f"{why or 'without labels nothing can be played'}; keep {own} for the first round, and ask again "
        "with its verdicts"
    )
    return Advised(
        task=task.name,
        source="",
        ads=0,
        positives=0,
        seeds=0,
        unit="labels",
        budgets=(),
        own=own,
        take=own,
        told_apart=False,
        verdict=verdict,
        table=tuple(_choices()),
    )


def _choices() -> Iterator[Choice]:
    selection = Selection()
    for name in registry.names():
        strategy = registry.create(name)
        needs = "labels, where there are any" if Need.LABELS in strategy.needs else "nothing"
        if _waits_for_labels(strategy):
            needs = "labels of each class"
        if Need.SCORES in strategy.needs:
            needs = "a committee of prompts"
        chosen_from, shows = "mixed clusters", "pairs"
        if isinstance(strategy, RowStrategy):
            sampled = strategy.pool_rows(selection) > selection.budget
            chosen_from = "a draw" if strategy.draws else "a sample" if sampled else "all ads"
            shows = "single ads"
        yield Choice(name, strategy.suits, needs, chosen_from, shows)
