"""Which ads train and which ads judge: halves that keep their share, drawn once and for ever.

What reads nearly the same (a family) lies on one side, so that nothing of what judges a model was
seen in its training. Families go where their kind of ad is wanting, the largest first, as in
stratified grouped cross-validation. A family that would push a half too far from its share is cut,
along its weakest links. A side once recorded never changes.

The ads of a pair are two families like any others: that they were shown side by side leaks nothing
(``benchmarks/half_leaks.py``), and pairs chain the families of a templated corpus into one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.numerics.families import Groups, Near, components, strongest_links
from pipelines.numerics.hashing import unit_hash

FINE_TUNING, EVALUATION, WITHHELD = "fine_tuning", "evaluation", "withheld"
SIDES = (FINE_TUNING, EVALUATION, WITHHELD)
# Of ads that an audit drew: they stand beside the halves, and hang together with nothing.
AUDIT = "audit"
# How far a half may be from its share, of all ads and of either kind, before families are cut: a
# little less than the ten points from which a person is told, for experts skip some ads.
_TOLERANCE = 0.08
# So many ads are too few to be called a share of anything.
_FEW = 3
# Of all ads, those that are kept out of both halves at most, for being like ads of both.
_WITHHELD_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Side:
    """Where an ad stands.

    Attributes:
        side: one of ``SIDES``; ``withheld`` is neither half.
        component: the smallest key of its family.
    """

    side: str
    component: str


@dataclass(frozen=True, slots=True)
class Ads:
    """Ads that are put on sides.

    Attributes:
        keys: n distinct content keys.
        positive: bool (n,), what experts say of them, or what the model called them where nobody did.
        near: pairs of rows that read nearly the same.
    """

    keys: Sequence[str]
    positive: np.ndarray
    near: Near

    def ascending(self) -> Ads:
        """Return the same ads in the order of their keys."""
        order = np.argsort(np.array(self.keys, dtype=object), kind="stable")
        rank = np.empty(len(order), dtype=np.intp)
        rank[order] = np.arange(len(order))
        edges = np.sort(rank[np.asarray(self.near.edges, dtype=np.intp).reshape(-1, 2)], axis=1)
        near = Near(edges, np.asarray(self.near.similarity, dtype=np.float64))
        keys = tuple(self.keys[row] for row in order)
        return Ads(keys, np.asarray(self.positive, dtype=bool)[order], near)


def assign_sides(
    ads: Ads,
    fixed: Mapping[str, str],
    counted: Collection[str],
    share: float,
    seed: int,
    positives: Mapping[str, int] | None = None,
) -> dict[str, Side]:
    """Put every ad on a side.

    An ad joins the family of its nearest near-duplicate, and the side that this family is on. An ad
    of one half that reads like one of the other is withheld, as long as these are few; where they
    are many, the family spans both halves, and withholding would waste the experts' work.

    Args:
        ads: n ads.
        fixed: sides recorded before, by key; they are returned unchanged.
        counted: keys of ``fixed`` that count when the halves are balanced: those with a label.
        share: wanted share of the evaluation half, above 0, below 1.
        seed: the task's.
        positives: half -> how many of ``counted`` on it are positive, where that is known better
            than ``ads`` says.

    Returns:
        a :class:`Side` for each key; it depends on neither the order of keys nor that of edges.

    Raises:
        ValueError: repeated keys, unknown keys or sides in ``fixed``, a share out of bounds.

    Source of the assignment: scikit-learn's StratifiedGroupKFold, here with halves of any share that
    hold something already.
    """
    _check(ads.keys, fixed, share)
    ads = ads.ascending()
    held = [fixed.get(key, "") for key in ads.keys]
    # Who is withheld takes part in neither half and decides nothing.
    free = np.array([side != WITHHELD for side in held], dtype=bool)
    inside = free[ads.near.edges].all(axis=1)
    near = Near(ads.near.edges[inside], ads.near.similarity[inside])
    links = strongest_links(len(held), near)
    families = Groups(["" if side == WITHHELD else side for side in held])
    for one, other in links.tolist():
        families.join(one, other)
    halves = _Halves(ads, held, counted, share, seed, positives or {})
    halves.place([row for row, side in enumerate(held) if not side], families, links)
    _withhold_bridges(halves.side, held, near.edges, families)
    smallest: dict[int, str] = {}
    numbers = components(len(held), ads.near.edges).tolist()
    for key, number in zip(ads.keys, numbers, strict=True):
        smallest.setdefault(number, key)
    return {
        key: Side(side, smallest[number])
        for key, side, number in zip(ads.keys, halves.side, numbers, strict=True)
    }


class _Halves:
    """Both halves while they are filled: ads in all, positive and negative ones."""

    def __init__(
        self,
        ads: Ads,
        held: Sequence[str],
        counted: Collection[str],
        share: float,
        seed: int,
        positives: Mapping[str, int],
    ) -> None:
        self.side = list(held)
        self._keys, self._seed = ads.keys, seed
        self._shares = {FINE_TUNING: 1 - share, EVALUATION: share}
        self._kinds = np.stack([np.ones_like(ads.positive), ads.positive, ~ads.positive], axis=1)
        self._load = {
            half: self._count(
                [r for r, side in enumerate(held) if side == half and ads.keys[r] in counted]
            )
            for half in self._shares
        }
        for half, number in positives.items():
            ads_there = int(self._load[half][0])
            # Of an ad that is gone the label is still counted.
            of_it = min(number, ads_there)
            self._load[half] = np.array([ads_there, of_it, ads_there - of_it])
        new = self._count([row for row, side in enumerate(held) if not side])
        total = sum(self._load.values()) + new
        self._slack = np.maximum(_TOLERANCE * total, _FEW)
        self._limit = {half: part * total + self._slack for half, part in self._shares.items()}

    def place(self, rows: Sequence[int], families: Groups, links: np.ndarray) -> None:
        """Put rows on sides: first what is bound to one, the smallest first, so that few are cut."""
        found = families.of(rows)
        bound = [family for family in found if families.side(family[0])]
        unbound = [family for family in found if not families.side(family[0])]
        for family in [*self._ordered(bound)[::-1], *self._ordered(unbound)]:
            side = families.side(family[0])
            if self._put(family, side):
                continue
            for part in self._ordered(self._parts(family, links)):
                if not self._put(part, side):
                    self._add(part, self._wanting(part)[0])

    def _put(self, group: Sequence[int], bound: str) -> bool:
        """Put a group on the side that it is bound to, or where it is wanted; tell if there is room."""
        counts = self._count(group)
        own = counts > 0
        for half in (bound,) if bound else self._wanting(group):
            if (self._load[half] + counts <= self._limit[half])[own].all():
                self._add(group, half)
                return True
        return False

    def _add(self, group: Sequence[int], half: str) -> None:
        self._load[half] = self._load[half] + self._count(group)
        for row in group:
            self.side[row] = half

    def _wanting(self, group: Sequence[int]) -> list[str]:
        """Return the halves, first the one that a group leaves nearer to the share of each kind."""
        counts = self._count(group)
        share, rest = self._shares[EVALUATION], self._shares[FINE_TUNING]
        excess = rest * self._load[EVALUATION] - share * self._load[FINE_TUNING]
        left = {EVALUATION: excess + rest * counts, FINE_TUNING: excess - share * counts}
        off = {half: round(float((by * by).sum()), 6) for half, by in left.items()}
        drawn = EVALUATION if self._draw(group) < share else FINE_TUNING
        return sorted(off, key=lambda half: (off[half], half != drawn))

    def _ordered(self, groups: Sequence[list[int]]) -> list[list[int]]:
        return sorted(groups, key=lambda group: (-len(group), self._draw(group)))

    def _draw(self, group: Sequence[int]) -> float:
        return unit_hash(min(self._keys[row] for row in group), self._seed)

    def _count(self, rows: Sequence[int]) -> np.ndarray:
        return self._kinds[list(rows)].sum(axis=0)

    def _parts(self, family: Sequence[int], links: np.ndarray) -> list[list[int]]:
        """Cut a family into parts that fit, its strongest links last."""
        most = self._slack[self._count(family) > 0].min()
        rows = set(family)
        parts = Groups([""] * len(self.side))
        for one, other in links.tolist():
            if one in rows and other in rows:
                parts.join(one, other, most)
        return parts.of(family)


def _withhold_bridges(
    sides: list[str], held: Sequence[str], edges: np.ndarray, families: Groups
) -> None:
    """Keep new ads that read like ads of the other half out of both, if there are only a few."""
    root = np.array([families.find(row) for row in range(len(sides))], dtype=np.intp)
    evaluation = np.array([side == EVALUATION for side in sides], dtype=bool)
    one, other = edges[:, 0], edges[:, 1]
    apart = (evaluation[one] != evaluation[other]) & (root[one] != root[other])
    bridges = [row for row in np.unique(edges[apart]).tolist() if not held[row]]
    most = max(_FEW, _WITHHELD_SHARE * len(sides))
    if len(bridges) + sum(side == WITHHELD for side in held) <= most:
        for row in bridges:
            sides[row] = WITHHELD


def _check(keys: Sequence[str], fixed: Mapping[str, str], share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"the evaluation share must be above 0 and below 1, got {share}")
    if len(set(keys)) != len(keys):
        raise ValueError("keys must be distinct: an ad has one side")
    unknown = sorted(set(fixed) - set(keys))
    if unknown:
        raise ValueError(f"{len(unknown)} recorded ads are not among the keys, e.g. {unknown[0]!r}")
    for key, side in fixed.items():
        if side not in SIDES:
            raise ValueError(f"the recorded side of {key} must be one of {SIDES}, got {side!r}")
