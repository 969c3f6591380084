"""What ``explain`` tells of an ad, typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.jobs.results import Result, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.backends.base import Reading


@dataclass(frozen=True, slots=True)
class Subject:
    """The ad.

    Attributes:
        id, key, text: of the ad that was scored; the id is "" of a text that no corpus holds.
        fields: (name, value) of each field that the text was made of.
        copies, weight: records with this text, and their weight; 0 of a text that no corpus holds.
        tokens: of its own that the model read.
        truncated: whether it had more.
        asked: the id that was asked for, where the ad that was scored is another record of its text.
        asked_at: where that record stands.
    """

    id: str
    key: str
    text: str
    fields: tuple[tuple[str, str], ...]
    copies: int
    weight: float
    tokens: int
    truncated: bool
    asked: str = ""
    asked_at: str = ""


@dataclass(frozen=True, slots=True)
class Neighbor:
    """An ad of the corpus near the one that is explained.

    Attributes:
        id, text: its own.
        distance: Euclidean, of unit vectors, 0 to 2.
        probability: what the model gives it.
        item_id: the item of the round that shows it, or "".
    """

    id: str
    text: str
    distance: float
    probability: float
    item_id: str


@dataclass(frozen=True, slots=True)
class Mixing:
    """A cluster pair that mixes, by the cluster of the other label.

    Attributes:
        rank: place among all that mix most, from 1.
        cluster, ads: the other cluster, and how many ads it holds.
        nearer_share: share of both clusters' ads nearer to the other's centre than to their own.
    """

    rank: int
    cluster: int
    ads: int
    nearer_share: float


@dataclass(frozen=True, slots=True)
class Home:
    """The ad's cluster, among those of its predicted label.

    Attributes:
        cluster, ads: its number, and how many ads it holds.
        clusters: how many there are of this label.
        mixes: those of the round's cluster pairs that mix most which it is part of, best first.
    """

    cluster: int
    ads: int
    clusters: int
    mixes: tuple[Mixing, ...]


@dataclass(frozen=True, slots=True)
class Showing:
    """A review item that put the ad before experts.

    Attributes:
        round, item_id, rank: which, and its place in the review order.
        source: strategy that chose it; ``audit`` for one that an audit drew.
        partner: id of the ad beside it, or "".
        distance: to that ad; None where it stands alone.
        propensity: probability with which this ad was drawn; None where it was not drawn.
    """

    round: int
    item_id: str
    rank: int
    source: str
    partner: str
    distance: float | None
    propensity: float | None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What an expert said.

    Attributes:
        round: of the item that they were asked about.
        expert, label, time, comment: as imported; the label in the task's words.
        half: ``fine_tuning``, ``evaluation``, ``withheld`` or ``audit``.
        counts: whether it is this expert's last word.
    """

    round: int
    expert: str
    label: str
    time: str
    comment: str
    half: str
    counts: bool


@dataclass(frozen=True, slots=True, repr=False)
class Explained(Result):
    """What ``explain`` tells of an ad.

    Attributes:
        workspace, task, round: whose scores and pairs are explained.
        ad: the ad.
        model_id, model_round: what labelled it; round 0 is LLM-0.
        reading: how the model came to the margin; None where it could not be asked.
        unread: why not.
        margin, probability, label: what it said; the label in the task's words.
        threshold_margin, threshold_probability, threshold_source: from where on an ad is positive.
        rank, ads: place by margin among so many ads of the corpus, 1 is the surest positive.
        home: its cluster; None where the round made none.
        near: label in the task's words -> nearest ads that the model calls so, nearest first.
        chosen: whether the round shows it.
        why: why it does, or does not, a sentence each.
        showings: where experts met it, in all rounds.
        opinions: what they said, in all rounds.
        names: what the task calls ``positive`` and ``negative``.
    """

    workspace: str
    task: str
    round: int
    ad: Subject
    model_id: str
    model_round: int
    reading: Reading | None
    unread: str
    margin: float
    probability: float
    label: str
    threshold_margin: float
    threshold_probability: float
    threshold_source: str
    rank: int
    ads: int
    home: Home | None
    near: Mapping[str, tuple[Neighbor, ...]]
    chosen: bool
    why: tuple[str, ...]
    showings: tuple[Showing, ...]
    opinions: tuple[Opinion, ...]
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class NotAnAd(Result):
    """Why a record that was asked for is no ad that was scored.

    Attributes:
        workspace, round: where it was looked for and found.
        asked: the id.
        stage, reason, detail: what refused it, and why.
        source, position: where it stands.
        excerpt: how it begins.
        dead_letters: file that has it, or "".
    """

    workspace: str
    round: int
    asked: str
    stage: str
    reason: str
    detail: str
    source: str
    position: str
    excerpt: str
    dead_letters: str

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {"rejected": True, **plain(self)}
