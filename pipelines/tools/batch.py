"""What every labeling tool gets: the pairs of a round, as experts are to see them."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.contracts import LEFT, RIGHT
from pipelines.store.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Side:
    """One ad of a pair.

    Attributes:
        id: the ad's id.
        text: as read from the corpus; hostile input for whatever shows it.
        label: what the model called it, one of the batch's two label names; "" when the review is
            blind.
        probability: the model's p(positive); None when the review is blind.
    """

    id: str
    text: str
    label: str
    probability: float | None


@dataclass(frozen=True, slots=True)
class PairToReview:
    """A pair with its sides as shown: which label is on which side was drawn when it was mined."""

    pair_id: str
    left: Side
    right: Side

    def sides(self) -> tuple[tuple[str, Side], tuple[str, Side]]:
        """Return the sides with their names, left first."""
        return (LEFT, self.left), (RIGHT, self.right)


@dataclass(frozen=True, slots=True)
class Batch:
    """A round's pairs for review, in review order.

    Attributes:
        task: name of the task.
        task_version: of its policy.
        round: from 1.
        policy: the policy text.
        positive, negative: what experts call the labels.
        experts_per_ad: experts who should label each ad.
        model_id: which model mined the pairs.
        pairs: in review order.
    """

    task: str
    task_version: int
    round: int
    policy: str
    positive: str
    negative: str
    experts_per_ad: int
    model_id: str
    pairs: tuple[PairToReview, ...]


def read_batch(
    workspace: Workspace, round_number: int | None = None, show_predictions: bool = False
) -> Batch:
    """Return the newest pairs of a round, the last one by default.

    Args:
        workspace: the workspace.
        round_number: or None for the last round with pairs.
        show_predictions: whether labels and probabilities of the model go along; experts who see
            them tend to agree with them.

    Raises:
        UsageError: no such round, or no pairs in it.
        RunFailed: what was mined is gone or has changed.
    """
    manifest = workspace.pairs_of(round_number)
    task = manifest.facts.origin.task
    names = {"positive": task.labels.positive, "negative": task.labels.negative}
    pairs = []
    for item in workspace.read_items(manifest):
        left, right = (
            Side(
                id=ad.id,
                text=ad.text,
                label=names[ad.label] if show_predictions else "",
                probability=ad.probability if show_predictions else None,
            )
            for ad in item.ads
        )
        pairs.append(PairToReview(item.item_id, left, right))
    return Batch(
        task=task.name,
        task_version=task.version,
        round=manifest.round,
        policy=task.policy,
        positive=names["positive"],
        negative=names["negative"],
        experts_per_ad=task.review.experts_per_ad,
        model_id=manifest.facts.origin.model_id,
        pairs=tuple(pairs),
    )
