"""Which ads train and which ads judge: halves drawn by connected component, for ever.

Two ads hang together when they were shown in one pair or read nearly the same; whatever hangs
together lies on one side, so that nothing of what judges a model was seen in its training. A side
once recorded never changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from sklearn.feature_extraction.text import CountVectorizer

from pipelines.numerics.hashing import unit_hash

FINE_TUNING, EVALUATION, WITHHELD = "fine_tuning", "evaluation", "withheld"
SIDES = (FINE_TUNING, EVALUATION, WITHHELD)
# Of ads that an audit drew: they stand beside the halves, and hang together with nothing.
AUDIT = "audit"
# Chosen on the bundled sample, which holds 60 pairs of reworded ads among 1,980: four characters
# and .6 find 56 of them and nothing else (.7 finds 47, .5 finds 59). On 6,000 headlines, full of
# formulas such as "which ... are you", .6 joins at most 6 (.5 joins 22, .4 joins 35).
GRAM_CHARS = 4
NEAR_DUPLICATE = 0.6
# Entries of one block of the product of all texts with all texts, at 12 bytes each.
_BLOCK_ENTRIES = 1 << 22


@dataclass(frozen=True, slots=True)
class Side:
    """Where an ad stands.

    Attributes:
        side: one of ``SIDES``; ``withheld`` is neither half.
        component: the smallest key of what the ad hangs together with.
    """

    side: str
    component: str


def near_duplicates(texts: Sequence[str], threshold: float = NEAR_DUPLICATE) -> np.ndarray:
    """Find the pairs of texts that share most of their character n-grams.

    Args:
        texts: n texts, normalised by the caller (case and white space are not folded here).
        threshold: smallest Jaccard index of the two sets of ``GRAM_CHARS``-grams, above 0, at
            most 1. A text shorter than that is one gram.

    Returns:
        intp array (m, 2) of rows, the smaller first, in ascending order.

    Raises:
        ValueError: the threshold is out of bounds.

    Memory: 12 bytes a distinct gram of each text, about 150 bytes a distinct gram of the
    vocabulary, and at most 50 MB for a block of the product. Time: quadratic in n (1.5 s for
    6,000 headlines). Source: shingling (Broder, 1997), counted exactly.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    if len(texts) < 2:
        return np.zeros((0, 2), dtype=np.intp)
    grams = CountVectorizer(analyzer=_grams, binary=True, dtype=np.int32).fit_transform(texts)
    sizes = np.asarray(grams.sum(axis=1)).ravel()
    transposed = grams.T.tocsr()
    rows_per_block = max(1, _BLOCK_ENTRIES // len(texts))
    found = []
    for start in range(0, len(texts), rows_per_block):
        common = (grams[start : start + rows_per_block] @ transposed).tocoo()
        left, right = common.row.astype(np.intp) + start, common.col.astype(np.intp)
        union = sizes[left] + sizes[right] - common.data
        near = (common.data >= threshold * union) & (left < right)
        found.append(np.stack([left[near], right[near]], axis=1))
    edges = np.concatenate(found)
    return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


def components(n: int, edges: np.ndarray) -> np.ndarray:
    """Number the connected components of an undirected graph.

    Args:
        n: number of nodes.
        edges: integer (m, 2), nodes 0 to n - 1.

    Returns:
        int32 array (n,): equal where a path leads from node to node.

    Raises:
        ValueError: an edge names a node that does not exist.

    Memory: 24 bytes an edge, 8 a node. Source: scipy.sparse.csgraph.
    """
    edges = np.asarray(edges, dtype=np.intp).reshape(-1, 2)
    if len(edges) and (edges.min() < 0 or edges.max() >= n):
        raise ValueError(f"edges must join nodes 0 to {n - 1}, got {edges.min()} to {edges.max()}")
    # Repeated edges are summed, so the type must not overflow to zero.
    ones = np.ones(len(edges), dtype=np.int64)
    graph = sparse.coo_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(n, n))
    return csgraph.connected_components(graph, directed=False)[1]


def assign_sides(
    keys: Sequence[str], edges: np.ndarray, fixed: Mapping[str, str], share: float, seed: int
) -> dict[str, Side]:
    """Put every ad on a side, so that what hangs together is never on both.

    A component without a recorded side goes to evaluation when the hash of its smallest key and
    the seed is below the share. One with a recorded side takes it over. One that joins both sides
    (an ad of a later round can be near to both) withholds its new ads: moving a recorded one would
    judge a model on what it was trained on.

    Args:
        keys: n distinct content keys.
        edges: integer (m, 2), rows of ``keys`` that hang together.
        fixed: sides recorded before; they are returned unchanged.
        share: expected share of components for evaluation, above 0, below 1.
        seed: the task's.

    Returns:
        a :class:`Side` for each key; it depends on neither the order of keys nor that of edges.

    Raises:
        ValueError: repeated keys, unknown keys or sides in ``fixed``, a share out of bounds.
    """
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
    members: dict[int, list[str]] = {}
    for key, number in zip(keys, components(len(keys), edges).tolist(), strict=True):
        members.setdefault(number, []).append(key)
    sides: dict[str, Side] = {}
    for group in members.values():
        smallest = min(group)
        # Who is withheld takes part in neither half and decides nothing.
        recorded = {fixed[key] for key in group if key in fixed} - {WITHHELD}
        if len(recorded) == 2:
            new = WITHHELD
        elif recorded:
            [new] = recorded
        else:
            new = EVALUATION if unit_hash(smallest, seed) < share else FINE_TUNING
        sides.update((key, Side(fixed.get(key, new), smallest)) for key in group)
    return sides


def _grams(text: str) -> set[str]:
    return {text[i : i + GRAM_CHARS] for i in range(max(1, len(text) - GRAM_CHARS + 1))}
