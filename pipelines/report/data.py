"""What a round's report is drawn from: manifests and review items, and the sample of its ads.

Kappas are those that ``train`` wrote down; where it has not seen all verdicts, the standing counts them,
and nothing else reads any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.config import Task
from pipelines.contracts import ReviewItem
from pipelines.jobs.status import standing
from pipelines.report.sample import Sample, draw_sample
from pipelines.report.words import word
from pipelines.store.facts import ClustersFacts, PairsFacts, ScoredFacts
from pipelines.store.scores import scored_of
from pipelines.store.workspace import Manifest, Workspace

LABELS = ("positive", "negative")


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a round's report may show.

    Attributes:
        workspace: where it comes from.
        known: all rounds that can be shown.
        pairs: manifest of the items, whatever chose them.
        clusters: manifest of the clusters that they come from; None if there are none.
        scored: manifest of the scored ads; None if it, or a block of it, is gone.
        items: what experts are asked about, in review order.
        stand: where all rounds stand, as :func:`standing` returns it.
        sample: the ads on the maps; None where clusters or scored ads are gone.
    """

    workspace: Workspace
    known: tuple[int, ...]
    pairs: Manifest[PairsFacts]
    clusters: Manifest[ClustersFacts] | None
    scored: Manifest[ScoredFacts] | None
    items: tuple[ReviewItem, ...]
    stand: Mapping[str, Any]
    sample: Sample | None = None

    @property
    def number(self) -> int:
        """The round."""
        return self.pairs.round

    @property
    def task(self) -> Task:
        """The task as the round was mined with."""
        return self.pairs.facts.origin.task

    @property
    def names(self) -> dict[str, str]:
        """What the task called ``positive`` and ``negative``, safe to show."""
        return {label: word(name) for label, name in self.task.labels.model_dump().items()}

    @property
    def explored(self) -> list[bool]:
        """Which items were drawn at random, to measure, whatever the strategy is."""
        return [item.source == "exploration" for item in self.items]

    @property
    def comparable(self) -> list[Mapping[str, Any]]:
        """Rounds of the same version of the policy, oldest first."""
        return [e for e in self.stand["rounds"] if e["task_version"] == self.task.version]

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """The newest evaluation of these rounds: it has every model on the same ads."""
        found = (e["model"]["evaluation"] for e in reversed(self.comparable) if e["model"])
        return next(found, None)

    @property
    def labelled(self) -> int:
        """Ads of this version of the policy that experts have answered, those of audits apart."""
        halves = (e["labelled"] for e in self.comparable if e["labelled"])
        return sum(e["fine_tuning"] + e["evaluation"] + e["withheld"] for e in halves)

    @property
    def experts(self) -> int:
        """How many people answered them."""
        return len(
            {name for e in self.comparable if e["labelled"] for name in e["labelled"]["experts"]}
        )

    def noun(self, count: int = 2) -> str:
        """Return what the items are: pairs, ads, or both."""
        sizes = frozenset(len(item.ads) for item in self.items)
        one = {frozenset({1}): "ad", frozenset({1, 2}): "item"}.get(sizes, "pair")
        return one if count == 1 else f"{one}s"


def with_sample(found: Evidence, wanted: int) -> Evidence:
    """Return the evidence with its sample of ads, or without one where they cannot be drawn.

    Args:
        found: from :func:`read_round`.
        wanted: ads to read at most; those of the round's items are always among them.

    Raises:
        RunFailed: something in the workspace is damaged.

    Memory: about 10 bytes a dimension and 2 kilobytes of text and words for each of ``wanted`` ads, 24
    bytes a dimension and 4 kilobytes for each ad on the map, and one scored block at a time.
    """
    clusters = found.clusters if found.pairs.facts.boundary else None
    if not found.scored or (found.pairs.facts.boundary and not clusters):
        return found
    drawn = draw_sample(found.workspace, found.scored, clusters, found.pairs, found.items, wanted)
    return dataclasses.replace(found, sample=drawn)


def read_round(workspace: Workspace, wanted: int | None) -> Evidence:
    """Read what a round's manifests say, and its items.

    Args:
        workspace: the workspace.
        wanted: the round, or None for the newest that can be shown.

    Raises:
        UsageError: nothing was mined, or no such round.
        RunFailed: something in the workspace is damaged.
    """
    pairs = workspace.pairs_of(wanted)
    return Evidence(
        workspace=workspace,
        known=tuple(workspace.pairs.by_round()),
        pairs=pairs,
        # Not the newest: a run that was killed may have left clusters whose pairs never came.
        clusters=workspace.clusters.find(pairs.round, pairs.config_hash),
        scored=scored_of(workspace, pairs),
        items=tuple(workspace.read_items(pairs)),
        stand=standing(workspace).to_json(),
    )
