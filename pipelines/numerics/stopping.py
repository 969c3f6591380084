"""When the loop of mining, review and learning ends.

At parity, when the model agrees with the experts as they agree with each other; at a plateau, when
no model of the last rounds is better than the best of those before, as early stopping with patience
has it; or when the budget is spent. All models are compared on the same cumulative evaluation ads:
old ones are rescored.

What the statistics can carry, simulated with three experts of kappa 0.8, 40% positive: asking for a
*significant* gain stops too early (0.03 to 0.06 of kappa lost on 150 to 200 ads), because kappa
creeps up by less than the interval of a difference, 0.09 on 150 ads. So that interval is reported
and decides nothing. Asking it of the latest model alone stops right after one bad round (59% of
loops whose kappa dips once end before their best round, at 60 ads a round; 41% so), and 0.1 to 0.8
of a round earlier where the curve is flat indeed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from pipelines.numerics.agreement import (
    MISSING,
    USUAL,
    Bootstrap,
    Kappa,
    check_predictions,
    check_ratings,
    expert_agreement,
    model_agreement,
    pair_kappas,
    pairs_that_count,
    percentile_interval,
    resample,
)

Rule = Literal["parity", "plateau", "rounds", "labels", "go on"]
ParityTest = Literal["reaches", "stays above"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One mean kappa minus another, both of the same ads and the same bootstrap replicates.

    Attributes:
        value: first - second, in [-2, 2]; None where one of them is undefined.
        low: lower end of the 95% paired bootstrap interval; None when there is none.
        high: its upper end.
        reason: why `value` or the interval is None; "" when both are there.
        first: the first mean kappa; None where `value` is.
        second: the second one.
        n_ads: ads that the means rest on.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    first: float | None = None
    second: float | None = None
    n_ads: int = 0

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined ({self.reason})"
        if self.low is None or self.high is None:
            return f"{_signed(self.value)} (no interval: {self.reason})"
        return f"{_signed(self.value)} [{_signed(self.low)}, {_signed(self.high)}]"


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """When to stop.

    Attributes:
        margin: gain in kappa that counts as an improvement, in [0, 1].
        patience: rounds in a row without such a gain that make a plateau, at least 1.
        parity_margin: kappa by which the model may stay below the experts, in [0, 1].
        parity_test: "reaches": parity when the *upper* end of the 95% interval of (model - experts)
            is at least -parity_margin. That is the published wording. It says only that a gap was
            not shown, and few ads show none: a model that is 0.1 below passes in 64% of draws of 100
            ads (three experts of kappa 0.8), 32% of 200, 17% of 300. Hence `min_ads`. "stays above":
            parity when the *lower* end is at least -parity_margin (non-inferiority), which shows
            that the gap is no larger: with a parity_margin of 0.1, 5%, 5% and 3% of those pass, and
            54%, 83% and 90% of models that equal the experts. It needs a parity_margin above 0.
        min_ads: evaluation ads before parity or a plateau may be called, at least 1.
        max_rounds: rounds of review, at least 1.
        max_labels: expert labels that may be spent, at least 1; None for no limit.
    """

    margin: float = 0.01
    patience: int = 2
    parity_margin: float = 0.0
    parity_test: ParityTest = "reaches"
    min_ads: int = 100
    max_rounds: int = 6
    max_labels: int | None = None

    def __post_init__(self) -> None:
        for name in ("margin", "parity_margin"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1] on kappa's scale, got {value!r}")
        for name in ("patience", "min_ads", "max_rounds", "max_labels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if self.parity_test not in ("reaches", "stays above"):
            raise ValueError(
                f"parity_test must be 'reaches' or 'stays above', got {self.parity_test!r}"
            )
        if self.parity_test == "stays above" and not self.parity_margin > 0:
            raise ValueError(
                "parity_test 'stays above' needs a parity_margin above 0, got "
                f"{self.parity_margin!r}: with 0 the model would have to beat the experts"
            )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to stop, and what it rests on.

    Attributes:
        stop: whether the loop ends.
        rule: which rule ends it: "parity", "plateau", "rounds" or "labels"; or "go on".
        reason: one sentence with the numbers.
        best_round: round of the model with the highest kappa, the earliest of equals; the latest
            round when no kappa is defined.
        models: each round's agreement with the experts, in the order of the rounds.
        experts: the experts' agreement with each other.
        gap: best round's model minus experts. The highest of several kappas is a little too high,
            so this is kind to the model.
        gain: the best of the last `patience` rounds minus the best of those before them. The
            latest model's kappa must be defined.
    """

    stop: bool
    rule: Rule
    reason: str
    best_round: int
    models: tuple[Kappa, ...]
    experts: Kappa
    gap: Difference
    gain: Difference


def paired_difference(
    a: np.ndarray, b: np.ndarray, ratings: np.ndarray, bootstrap: Bootstrap = USUAL
) -> Difference:
    """Compare two models on the same ads: model-expert kappa of `a` minus that of `b`.

    Only experts whose kappa is defined with both models count.

    Args:
        a: (n_ads,) labels of one model, 0 or 1.
        b: (n_ads,) labels of the other.
        ratings: int8 (n_ads, n_raters), 1, 0 or -1 for missing.
        bootstrap: of which experts, and how.

    Raises:
        ValueError: if an argument is out of bounds or the numbers of ads differ.

    Memory: as `agreement.expert_agreement`, over the distinct rows of labels and ratings.
    """
    matrix = check_ratings(ratings)
    columns = np.column_stack(
        [check_predictions(a, len(matrix)), check_predictions(b, len(matrix)), matrix]
    )
    raters = [2 + i for i in range(matrix.shape[1])]
    _, first = pairs_that_count(columns, [(0, i) for i in raters], bootstrap.min_overlap)
    _, second = pairs_that_count(columns, [(1, i) for i in raters], bootstrap.min_overlap)
    shared = {i for _, i in first} & {i for _, i in second}
    if not shared:
        for model, labels in (("first", a), ("second", b)):
            alone = model_agreement(labels, matrix, bootstrap)
            if alone.value is None:
                return Difference(reason=f"the {model} model's kappa is undefined: {alone.reason}")
        return Difference(reason="no rater has a defined kappa with both models")
    return _difference(
        columns, [(0, i) for i in sorted(shared)], [(1, i) for i in sorted(shared)], bootstrap
    )


def gap_to_experts(
    predictions: np.ndarray, ratings: np.ndarray, bootstrap: Bootstrap = USUAL
) -> Difference:
    """Compare the model with the experts: model-expert mean kappa minus expert-expert mean kappa.

    Both means are of the ads that at least two experts labelled, so that the ads are the same.

    Args:
        predictions: (n_ads,) the model's labels, 0 or 1.
        ratings: int8 (n_ads, n_raters), 1, 0 or -1 for missing.
        bootstrap: of which pairs, and how.

    Raises:
        ValueError: if an argument is out of bounds or the numbers of ads differ.
    """
    matrix = check_ratings(ratings)
    labels = check_predictions(predictions, len(matrix))
    rows = (matrix != MISSING).sum(axis=1) >= 2
    columns = np.column_stack([labels, matrix])[rows]
    raters = [1 + i for i in range(matrix.shape[1])]
    _, model = pairs_that_count(columns, [(0, i) for i in raters], bootstrap.min_overlap)
    _, experts = pairs_that_count(columns, list(combinations(raters, 2)), bootstrap.min_overlap)
    if not experts:
        alone = expert_agreement(matrix[rows], bootstrap)
        return Difference(reason=f"the experts' kappa is undefined: {alone.reason}")
    if not model:
        alone = model_agreement(labels[rows], matrix[rows], bootstrap)
        return Difference(reason=f"the model's kappa is undefined: {alone.reason}")
    return _difference(columns, model, experts, bootstrap)


def decide(
    rounds: Sequence[int],
    predictions: np.ndarray,
    ratings: np.ndarray,
    rule: StoppingRule,
    *,
    n_labels: int,
    bootstrap: Bootstrap = USUAL,
) -> Decision:
    """Decide after a round whether the loop ends.

    Parity is asked of the best round's model, which is the one to use; a plateau of the last rounds.
    Neither is called on fewer than `min_ads` ads or on an undefined kappa; the budgets always count.
    Where several rules would stop, the first of parity, plateau, rounds, labels gives the reason.

    Args:
        rounds: r increasing round numbers; 0 is the model before any expert label.
        predictions: (r, n_ads) labels, 0 or 1: every round's model on the same evaluation ads.
        ratings: int8 (n_ads, n_raters), 1, 0 or -1 for missing.
        rule: when to stop.
        n_labels: expert labels spent so far, at least 0.
        bootstrap: of which pairs, and how.

    Raises:
        ValueError: if an argument is out of bounds or the shapes disagree.
    """
    matrix = check_ratings(ratings)
    labels = _check_rounds(rounds, predictions, len(matrix))
    if n_labels < 0:
        raise ValueError(f"n_labels must be at least 0, got {n_labels}")
    models = tuple(model_agreement(row, matrix, bootstrap) for row in labels)
    best = _best(models)
    chosen = len(models) - 1 if best is None else best
    gap = gap_to_experts(labels[chosen], matrix, bootstrap)
    # By place, not by number: the rounds of an earlier policy version are no rounds of this one.
    start = max(0, len(rounds) - rule.patience)
    base, lately = _best(models[:start]), _best(models[start:])
    if base is None:
        gain = Difference(
            reason=f"no round is {_count(rule.patience, 'round')} older than round {rounds[-1]}"
            if not start
            else f"no round up to {rounds[start - 1]} has a defined kappa"
        )
    elif lately is None or models[-1].value is None:
        gain = Difference(reason=f"the kappa of round {rounds[-1]} is {models[-1]}")
    else:
        gain = paired_difference(labels[start + lately], labels[base], matrix, bootstrap)
    places = None if base is None or lately is None else (rounds[start + lately], rounds[base])
    name, reason = _judge(rounds, chosen, models, gap, gain, places, rule, n_labels, matrix)
    return Decision(
        stop=name != "go on",
        rule=name,
        reason=reason,
        best_round=rounds[chosen],
        models=models,
        experts=expert_agreement(matrix, bootstrap),
        gap=gap,
        gain=gain,
    )


def _judge(
    rounds: Sequence[int],
    chosen: int,
    models: tuple[Kappa, ...],
    gap: Difference,
    gain: Difference,
    compared: tuple[int, int] | None,
    rule: StoppingRule,
    n_labels: int,
    ratings: np.ndarray,
) -> tuple[Rule, str]:
    latest, best = rounds[-1], f"{_model(rounds[chosen])} at kappa {models[chosen]}"
    if _at_parity(gap, rule):
        verb = "reaches" if rule.parity_test == "reaches" else "stays above"
        goal = "zero" if rule.parity_margin == 0 else f"-{rule.parity_margin:g}"
        # The gap is of the ads that two experts labelled, the model's own kappa and its interval
        # of all: they are the same number where every ad has two verdicts.
        model = models[chosen]
        kappa = str(model) if model.value == gap.first else f"{gap.first:.2f}"
        return "parity", (
            f"stopped at parity: {_model(rounds[chosen])} agrees with the experts at "
            f"kappa {kappa} and they with each other at {gap.second:.2f}; the difference {gap} "
            f"{verb} {goal} on {gap.n_ads} evaluation ads"
        )
    if compared and gain.value is not None:
        newer, older = compared
        lately = (
            f"round {latest}"
            if rule.patience == 1
            else f"the best of the last {rule.patience} rounds, round {newer},"
        )
        if gain.value <= rule.margin and gain.n_ads >= rule.min_ads:
            return "plateau", (
                f"stopped at a plateau: {lately} agrees with the experts at kappa "
                f"{models[rounds.index(newer)]}, which is {gain} against round {older} on "
                f"{gain.n_ads} evaluation ads, where more than {rule.margin:g} would count; the best "
                f"is {best}"
            )
    n_rounds = sum(number > 0 for number in rounds)
    if n_rounds >= rule.max_rounds:
        return "rounds", (
            f"stopped after round {latest}, {_count(n_rounds, 'round')} of at most "
            f"{rule.max_rounds}; the best is {best}"
        )
    if rule.max_labels is not None and n_labels >= rule.max_labels:
        return "labels", (
            f"stopped at {n_labels} expert labels of at most {rule.max_labels}; the best is {best}"
        )
    n_rated = int((ratings != MISSING).any(axis=1).sum())
    if n_rated < rule.min_ads:
        return "go on", (
            f"go on after round {latest}: {_count(n_rated, 'evaluation ad')} with a verdict are too "
            f"few to call parity or a plateau, which need {rule.min_ads}; the best is {best}"
        )
    if models[-1].value is None:
        return "go on", f"go on after round {latest}: its kappa is {models[-1]}"
    return "go on", (
        f"go on after round {latest}: the best is {best}; against the experts {gap} on "
        f"{_count(gap.n_ads, 'evaluation ad')}; the last rounds against older ones {gain}"
    )


def _model(number: int) -> str:
    return f"the model of round {number}" if number else "LLM-0"


def _at_parity(gap: Difference, rule: StoppingRule) -> bool:
    end = gap.high if rule.parity_test == "reaches" else gap.low
    return end is not None and gap.n_ads >= rule.min_ads and end >= -rule.parity_margin


def _best(models: Sequence[Kappa]) -> int | None:
    """Return the place of the highest kappa, the earliest of equals."""
    found = [(model.value, -i) for i, model in enumerate(models) if model.value is not None]
    return -max(found)[1] if found else None


def _difference(
    columns: np.ndarray,
    first: list[tuple[int, int]],
    second: list[tuple[int, int]],
    bootstrap: Bootstrap,
) -> Difference:
    given = columns != MISSING
    rows = np.zeros(len(columns), dtype=bool)
    for i, j in [*first, *second]:
        rows |= given[:, i] & given[:, j]
    kappas = pair_kappas(resample(columns[rows], bootstrap), [*first, *second])
    ours, theirs = kappas[:, : len(first)], kappas[:, len(first) :]
    a, b = math.fsum(ours[0]) / len(first), math.fsum(theirs[0]) / len(second)
    low, high, reason = percentile_interval(ours[1:].mean(axis=1) - theirs[1:].mean(axis=1))
    return Difference(a - b, low, high, reason, a, b, int(rows.sum()))


def _check_rounds(rounds: Sequence[int], predictions: np.ndarray, n_ads: int) -> np.ndarray:
    labels = np.asarray(predictions)
    if not rounds or labels.ndim != 2 or len(labels) != len(rounds):
        raise ValueError(
            f"predictions must be a matrix with a row for each of at least 1 round, got "
            f"{labels.shape} for {_count(len(rounds), 'round')}"
        )
    if rounds[0] < 0 or any(b <= a for a, b in pairwise(rounds)):
        raise ValueError(f"rounds must be increasing numbers from 0 on, got {list(rounds)}")
    return np.array([check_predictions(row, n_ads) for row in labels])


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _signed(value: float) -> str:
    return f"{value:+z.2f}"
