"""What was put before experts: what the workspace knows before an import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pipelines.store.workspace import Workspace
from pipelines.text import content_key
from pipelines.verdicts.ids import NumericIds
from pipelines.verdicts.rows import LabelNames


@dataclass(frozen=True, slots=True)
class ShownAd:
    """An ad as it was put before experts.

    Attributes:
        key: content key.
        ad_id: the ad's id.
        text: as shown.
        item_id: the review item that showed it.
        side: ``left`` or ``right``, "" where it was shown alone.
        round: the round.
        order: which of the workspace's attempts to choose items showed it, ascending with time.
        current: whether that attempt was mined for the policy and labels of the round's newest one.
        labels: what the task called its labels then.
        lines_key: content key of its fields as lines (``ReviewAd.lines``), which labeling tools show
            in place of the text; "" where it has none.
        audit: whether an audit drew it.
        predicted: ``positive`` or ``negative``, what the model called it then.
    """

    key: str
    ad_id: str
    text: str
    item_id: str
    side: str
    round: int
    order: int
    current: bool
    labels: LabelNames
    lines_key: str = ""
    audit: bool = False
    predicted: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """All ads put before experts, found by their id or their review item.

    Every pairs attempt counts: each of them may have been handed out.

    Attributes:
        by_ad: ad id -> where it was shown.
        by_item: item id -> its ads, once an attempt.
        round_of: content key -> first round that showed it.
        audited: content keys of the ads that audits drew.
        numeric: the ids that are whole numbers.
    """

    by_ad: Mapping[str, tuple[ShownAd, ...]]
    by_item: Mapping[str, tuple[ShownAd, ...]]
    round_of: Mapping[str, int]
    audited: frozenset[str] = frozenset()
    numeric: NumericIds = field(default_factory=NumericIds)

    @classmethod
    def of(cls, ads: Iterable[ShownAd]) -> Shown:
        """Return showings with their indices; those of earlier rounds come first."""
        by_ad: dict[str, list[ShownAd]] = {}
        by_item: dict[str, list[ShownAd]] = {}
        round_of: dict[str, int] = {}
        audited = set()
        for ad in ads:
            if ad.audit:
                audited.add(ad.key)
            by_ad.setdefault(ad.ad_id, []).append(ad)
            by_item.setdefault(ad.item_id, []).append(ad)
            round_of.setdefault(ad.key, ad.round)
        return cls(
            by_ad={id: tuple(found) for id, found in by_ad.items()},
            by_item={id: tuple(found) for id, found in by_item.items()},
            round_of=round_of,
            audited=frozenset(audited),
            numeric=NumericIds(by_ad),
        )

    def ads(self) -> Iterator[ShownAd]:
        """Yield every showing of every ad."""
        for showings in self.by_item.values():
            yield from showings

    def texts(self) -> dict[str, str]:
        """Return content key -> text of all shown ads."""
        return {ad.key: ad.text for ad in self.ads()}


def shown_ads(workspace: Workspace) -> Shown:
    """Return all ads that any pairs or audit attempt of any round put before experts.

    Memory: about 1 KB an ad and its text.
    """
    return Shown.of(_showings(workspace))


def _showings(workspace: Workspace) -> Iterator[ShownAd]:
    order = 0
    for number in workspace.rounds():
        # An audit is of a round that has pairs.
        newest = workspace.pairs.latest(number)
        for manifest in workspace.asked(number):
            order += 1
            task = manifest.facts.origin.task
            current = newest is None or newest.facts.origin.task.guideline() == task.guideline()
            labels = LabelNames(task.labels.positive, task.labels.negative)
            for item in workspace.read_items(manifest):
                for side, ad in item.sides():
                    yield ShownAd(
                        key=ad.key,
                        ad_id=ad.id,
                        text=ad.text,
                        item_id=item.item_id,
                        side=side,
                        round=number,
                        order=order,
                        current=current,
                        labels=labels,
                        lines_key=content_key(ad.lines()) if ad.fields else "",
                        audit=manifest.stage == "audit",
                        predicted=ad.label,
                    )
