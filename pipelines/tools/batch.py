"""What every labeling tool gets: the review items of a round, as experts are to see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.contracts import ReviewAd, ReviewItem
from pipelines.store.workspace import Asked, Workspace


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model thinks of an ad.

    Attributes:
        label: what it calls the ad, in the task's words.
        positive: whether that is the positive label.
        score: the probability that it gives to this label, 6 decimals.
    """

    label: str
    positive: bool
    score: float


@dataclass(frozen=True, slots=True)
class Batch:
    """A round's items for review, in review order.

    Attributes:
        task: name of the task.
        task_version: of its policy.
        round: from 1.
        policy: the policy text.
        positive, negative: what experts call the labels.
        experts_per_ad: experts who should label each ad.
        model_id: which model chose the items.
        items: pairs of ads, single ads, or both.
        workspace: where the answers go back to.
        show_predictions: whether experts see what the model says; otherwise nothing of it may leave.
    """

    task: str
    task_version: int
    round: int
    policy: str
    positive: str
    negative: str
    experts_per_ad: int
    model_id: str
    items: tuple[ReviewItem, ...]
    workspace: str
    show_predictions: bool = False

    def prediction(self, ad: ReviewAd) -> Prediction | None:
        """Return what the model says of an ad, or None when the review is blind."""
        if not self.show_predictions:
            return None
        positive = ad.label == "positive"
        score = ad.probability if positive else 1 - ad.probability
        return Prediction(self.positive if positive else self.negative, positive, round(score, 6))

    def sizes(self) -> set[int]:
        """Return how many ads items show: 1, 2, or both; no item at all counts as a pair."""
        return {len(item.ads) for item in self.items} or {2}

    def by_size(self) -> Iterator[Batch]:
        """Yield the batch of all pairs and that of all single ads, where there are any."""
        for size in sorted(self.sizes(), reverse=True):
            items = tuple(item for item in self.items if len(item.ads) == size)
            yield dataclasses.replace(self, items=items)

    @property
    def noun(self) -> str:
        """What people call one of its items."""
        sizes = self.sizes()
        return "item" if len(sizes) > 1 else "pair" if sizes == {2} else "ad"

    def counted(self, number: int) -> str:
        """Return so many of its items in words: ``12 pairs``."""
        return f"{number:,} {self.noun}{'' if number == 1 else 's'}"


def read_batch(
    workspace: Workspace,
    round_number: int | None = None,
    show_predictions: bool = False,
    audit: bool = False,
) -> Batch:
    """Return the newest review items of a round, the last one by default.

    Args:
        workspace: the workspace.
        round_number: or None for the last round with items.
        show_predictions: whether labels and probabilities of the model go along; experts who see
            them tend to agree with them.
        audit: whether to take the ads that the round's audit drew.

    Raises:
        UsageError: no such round, or no items in it.
        RunFailed: what was mined is gone or has changed.
    """
    manifest: Asked = (
        workspace.audit_of(round_number) if audit else workspace.pairs_of(round_number)
    )
    origin = manifest.facts.origin
    task = origin.task
    return Batch(
        task=task.name,
        task_version=task.version,
        round=manifest.round,
        policy=task.policy,
        positive=task.labels.positive,
        negative=task.labels.negative,
        experts_per_ad=task.review.experts_per_ad,
        model_id=origin.model_id,
        items=tuple(workspace.read_items(manifest)),
        workspace=workspace.root,
        show_predictions=show_predictions,
    )
