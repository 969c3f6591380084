"""Candidate pairs from parts of a search: each ad's nearest, mutual ones, and a pool of a bounded size.

All of it can be done part by part, in any order: keys break every tie.
"""

import numpy as np


def keep_nearest(
    owner: np.ndarray, partner: np.ndarray, distance: np.ndarray, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keep each owner's m nearest partners.

    Args:
        owner: (c,) keys of the ads whose partners these are.
        partner: (c,) keys of the partners; no pair twice.
        distance: float32 (c,).
        m: partners kept, at least 1; ties by the partner's key.

    Returns:
        kept int64 (k,), rows by owner and nearness; rank int64 (k,), the place among the owner's
        partners, from 1. Equal distances share the better place.

    Memory: about 100 bytes a candidate.
    """
    if m < 1:
        raise ValueError(f"m must be at least 1 partner, got {m!r}")
    order = np.lexsort((partner, distance, owner))
    new_owner = _starts(owner[order])
    first = _first_of_run(new_owner)
    kept = np.arange(len(order)) - first < m
    # Of a run of equal distances all have the place of its first.
    rank = _first_of_run(new_owner | _starts(distance[order])) - first + 1
    return order[kept], rank[kept]


def mutual(
    owner: np.ndarray, partner: np.ndarray, distance: np.ndarray, nearest: np.ndarray
) -> np.ndarray:
    """Tell which pairs are each other's nearest.

    Args:
        owner: (c,) keys.
        partner: (c,) keys; all candidates of a partner must be there.
        distance: float32 (c,).
        nearest: bool (c,) whether the partner is its owner's first.

    Returns:
        bool (c,); of equally near owners the lower key counts.
    """
    order = np.lexsort((owner, distance, partner))
    found = np.zeros(len(order), dtype=bool)
    found[order] = _starts(partner[order])
    return found & nearest


def seats(
    overlap: np.ndarray, mass: np.ndarray, preference: tuple[np.ndarray, ...], limit: int
) -> np.ndarray:
    """Choose a pool in which overlaps have room by their mass.

    Places go to overlaps as seats go to parties by Sainte-Laguë's highest averages, and an overlap fills its
    own with its best. What an overlap has not got goes to the others. So where a budget gives an overlap
    one seat in ten, it has one place in ten of the pool to choose from. Pools of parts make the pool of the
    whole: who is left out of a part has `limit` rows before it there, and at least as many in the whole.

    Args:
        overlap: int (c,) overlap of each candidate.
        mass: int64 (c,) mass of its overlap, >= 0.
        preference: arrays (c,) that order an overlap's candidates, the last one first, as `lexsort` takes
            them; together they tell any two of an overlap apart.
        limit: size of the pool, at least 1.

    Returns:
        int64 (min(c, limit),) rows, by the place they got.

    Memory: about 100 bytes a candidate. Source: Sainte-Laguë, 1910.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1 candidate, got {limit!r}")
    order = np.lexsort((*preference, overlap))
    place = np.arange(len(order)) - _first_of_run(_starts(overlap[order]))
    quotient = mass[order] / (2.0 * place + 1.0)
    return order[np.lexsort((place, overlap[order], -quotient))[:limit]]


def _starts(values: np.ndarray) -> np.ndarray:
    """Tell which values differ from the one before, bool (n,)."""
    return np.r_[True, values[1:] != values[:-1]][: len(values)]


def _first_of_run(starts: np.ndarray) -> np.ndarray:
    """Return for each place where its run began, int64 (n,)."""
    return np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))
