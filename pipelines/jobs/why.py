"""Why a round shows an ad, or does not: the steps of the selection, in their order, as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.config import Task
from pipelines.contracts import ReviewAd, ReviewItem
from pipelines.jobs.explained import Showing
from pipelines.jobs.surroundings import Near, Surroundings
from pipelines.numerics.calibration import Threshold
from pipelines.numerics.split import AUDIT
from pipelines.strategies.exploration import Exploration
from pipelines.strategies.uncertainty import Uncertainty
from pipelines.verdicts.rows import NEGATIVE, POSITIVE


@dataclass(frozen=True, slots=True)
class Case:
    """An ad before a round's selection.

    Attributes:
        task: as the round was mined with.
        round: its number.
        key, margin: of the ad.
        threshold: the label rule.
        in_corpus: whether it is an ad of the round's corpus.
        items: what the round shows.
        candidates: ads or pairs that it chose from.
        showings: where experts met the ad.
        around: what lies around it.
    """

    task: Task
    round: int
    key: str
    margin: float
    threshold: Threshold
    in_corpus: bool
    items: tuple[ReviewItem, ...]
    candidates: int
    showings: tuple[Showing, ...]
    around: Surroundings

    @property
    def name(self) -> str:
        """What the task calls the ad's predicted label."""
        labels = self.task.labels
        return labels.positive if self.around.positive else labels.negative

    @property
    def other(self) -> str:
        """What it calls the other one."""
        labels = self.task.labels
        return labels.negative if self.around.positive else labels.positive


def reasons(case: Case) -> Iterator[str]:
    """Yield why the round shows the ad, or what keeps it from being shown."""
    own = next((i for i in case.items if case.key in [ad.key for ad in i.ads]), None)
    if own is not None:
        yield from _chosen(case, own)
        return
    drawn = [s for s in case.showings if s.source == AUDIT and s.round == case.round]
    if drawn:
        yield (
            f"not chosen: the audit of round {case.round} drew it ({drawn[0].item_id}); its label counts "
            "there and trains nothing"
        )
    before = [s for s in case.showings if s.round < case.round]
    if before:
        yield (
            f"not chosen: experts saw it in round {before[0].round} ({before[0].item_id}), and an ad is "
            "shown once"
        )
        return
    if not case.in_corpus:
        yield f"it is no ad of the corpus of round {case.round}, so nobody can be asked about it"
    mined_again = [s for s in case.showings if s.round == case.round and s.source != AUDIT]
    if mined_again:
        yield (
            f"an earlier mining of round {case.round} showed it ({mined_again[0].item_id}); the round was "
            "mined again since, and answers on either count"
        )
    if case.around.clusters is not None:
        yield from _no_pair(case)
    else:
        yield from _no_row(case)


def _chosen(case: Case, item: ReviewItem) -> Iterator[str]:
    ads = {ad.key: ad for ad in item.ads}
    partner = next((ad for key, ad in ads.items() if key != case.key), None)
    where = f"{item.item_id}, place {item.rank:,} of {len(case.items):,}"
    beside = f" beside {_quoted(partner)} at distance {item.distance:.3f}" if partner else " alone"
    if item.propensity is not None:
        if item.drawn == case.key:
            yield (
                f"chosen by chance: {where},{beside}; exploration drew it with a probability of "
                f"{item.propensity:.4g}, whatever its cluster and score"
            )
        else:
            yield (
                f"chosen as a partner: {where},{beside}, which exploration drew at random; of the unused "
                f"ads that the model calls {case.name} it is the nearest in the sample"
            )
        return
    if item.overlap is not None and partner is not None:
        mutual = "each is the other's nearest; " if item.overlap.mutual else ""
        yield (
            f"chosen: {where},{beside}, {_mixing(case, partner)}; {mutual}the pair covers {item.overlap.covered_share:.2%} of the "
            "corpus's weight that no pair before it does"
        )
        return
    if item.source == Uncertainty.name:
        yield (
            f"chosen: {where},{beside}: among the unseen ads nearest to the threshold "
            f"({_from_threshold(case):.3f} from it)"
        )
        return
    score = f" with score {item.score:.4g}" if item.score is not None else ""
    yield f"chosen: {where},{beside}, by strategy {item.source}{score}"


def _mixing(case: Case, partner: ReviewAd) -> str:
    """Say whether the clusters of a pair are among those that mix most."""
    both = f"clusters {_cluster(case)} and {case.other} {partner.cluster}"
    own = {case.around.positive: case.around.cluster, not case.around.positive: partner.cluster}
    lines = case.around.clusters.overlaps if case.around.clusters else ()
    if any(line[POSITIVE] == own[True] and line[NEGATIVE] == own[False] for line in lines):
        return f"where {both} mix"
    return f"near each other in the band, though {both} are not among those that mix most"


def _no_pair(case: Case) -> Iterator[str]:
    around, selection = case.around, case.task.selection
    obstacles = []
    if not around.searched:
        obstacles.append(
            f"its cluster, {_cluster(case)}, is in none of the {_searched(case):,} cluster pairs that mix "
            "most (overlaps.per_positive_cluster), and the band is too large to be searched beyond them "
            "(search.exhaustive_rows)"
        )
    if not around.band.low <= case.margin <= around.band.high:
        obstacles.append(
            f"its margin, {case.margin:.3f}, lies outside the band around the threshold, "
            f"{around.band.low:.3f} to {around.band.high:.3f}, of which pairs are made (selection.band): "
            "the model is not confused about it"
        )
    if (twin := _twin(case)) is not None:
        obstacles.append(
            f"it is nearly identical (cosine {_cosine(twin):.4f}, up to {selection.near_identical:g} "
            f"counts as different) to {_quoted(twin)}, which {_met(case, twin)}"
        )
    if not obstacles and not around.partners:
        obstacles.append(
            f"no unseen ad that the model calls {case.other} lies in the band, or none of those that were "
            "searched, so it has no partner"
        )
    if obstacles:
        yield from (f"{_verdict(case)}: {obstacle}" for obstacle in obstacles)
    else:
        yield from _passed_over(case)
    yield from _single_ads(case)


def _verdict(case: Case) -> str:
    return "not chosen" if case.in_corpus else "it would not be chosen"


def _passed_over(case: Case) -> Iterator[str]:
    first, *_ = case.around.partners
    used = _item_of(case, first.key)
    told = f"its nearest possible partner is {_quoted(first)} at distance {first.distance:.3f}"
    free = next((n for n in case.around.partners if _item_of(case, n.key) is None), None)
    if used is not None:
        told += f", which {used.item_id} shows, and an ad is shown once"
        if free is not None:
            told += f"; the next that is free is {_quoted(free)} at distance {free.distance:.3f}"
    pairs = sum(item.overlap is not None for item in case.items)
    yield (
        f"{_verdict(case)}: {told}. The budget of {case.task.selection.budget:,} took {pairs:,} of "
        f"{case.candidates:,} candidate pairs; nearer ones, or ones that cover more, of its cluster pair "
        "came first"
    )


def _single_ads(case: Case) -> Iterator[str]:
    """Say what the single ads that filled the budget were, where there are some."""
    alone = [i for i in case.items if i.source == Uncertainty.name and len(i.ads) == 1]
    if not alone:
        return
    last = max(abs(item.ads[0].margin - case.threshold.margin) for item in alone)
    yield (
        f"{len(alone):,} single ads filled what pairs left of the budget, those nearest to the threshold "
        f"among a sample: the last lies {last:.3f} from it, this ad {_from_threshold(case):.3f}"
    )


def _no_row(case: Case) -> Iterator[str]:
    strategy, budget = case.task.selection.strategy, len(case.items)
    explored = sum(item.source == Exploration.name for item in case.items)
    taken = budget - explored if strategy != Exploration.name else budget
    if case.around.place is not None:
        yield (
            f"{_verdict(case)}: by {strategy} it is number {case.around.place:,} of the ads that experts have "
            f"not seen, and the budget took {taken:,}"
        )
    else:
        yield f"{_verdict(case)}: strategy {strategy} took {taken:,} others"
    if explored and strategy != Exploration.name:
        yield f"nor is it among the {explored:,} ads that were drawn at random"


def _twin(case: Case) -> Near | None:
    nearest = case.around.asked
    if nearest is None or _cosine(nearest) <= case.task.selection.near_identical:
        return None
    return nearest


def _cosine(near: Near) -> float:
    # Of unit vectors.
    return 1.0 - near.distance**2 / 2.0


def _met(case: Case, near: Near) -> str:
    item = _item_of(case, near.key)
    return f"{item.item_id} shows" if item else "experts saw in an earlier round"


def _item_of(case: Case, key: str) -> ReviewItem | None:
    return next((i for i in case.items if key in [ad.key for ad in i.ads]), None)


def _cluster(case: Case) -> str:
    return f"{case.name} {case.around.cluster}"


def _searched(case: Case) -> int:
    return len(case.around.clusters.overlaps) if case.around.clusters else 0


def _from_threshold(case: Case) -> float:
    return abs(case.margin - case.threshold.margin)


def _quoted(ad: Near | ReviewAd) -> str:
    return f"{ad.id!r}"
