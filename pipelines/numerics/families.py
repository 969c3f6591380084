"""Which texts read nearly the same, and the families that they form.

A family is what chains of near-duplicates join: the ads of one template, rewordings of one ad. Its
strongest links alone (a spanning forest) say where it is cut best, should it have to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from sklearn.feature_extraction.text import CountVectorizer

# Chosen on the bundled sample, which holds 60 pairs of reworded ads among 1,980: four characters
# and .6 find 56 of them and nothing else (.7 finds 47, .5 finds 59). On 6,000 headlines, full of
# formulas such as "which ... are you", .6 joins at most 6 (.5 joins 22, .4 joins 35).
GRAM_CHARS = 4
NEAR_DUPLICATE = 0.6
# Entries of one block of the product of all texts with all texts, at 12 bytes each.
_BLOCK_ENTRIES = 1 << 22


@dataclass(frozen=True, slots=True)
class Near:
    """Pairs of texts that read nearly the same.

    Attributes:
        edges: intp (m, 2) of rows, the smaller first, in ascending order.
        similarity: float64 (m,), Jaccard index of their n-grams, in (0, 1].
    """

    edges: np.ndarray
    similarity: np.ndarray


def near_duplicates(texts: Sequence[str], threshold: float = NEAR_DUPLICATE) -> Near:
    """Find the pairs of texts that share most of their character n-grams.

    Args:
        texts: n texts, normalised by the caller (case and white space are not folded here).
        threshold: smallest Jaccard index of the two sets of ``GRAM_CHARS``-grams, above 0, at
            most 1. A text shorter than that is one gram.

    Raises:
        ValueError: the threshold is out of bounds.

    Memory: 12 bytes a distinct gram of each text, about 150 bytes a distinct gram of the
    vocabulary, 24 bytes a pair that is found (half a million for 1,000 ads of one template), and at
    most 50 MB for a block of the product. Time: quadratic in n (1.5 s for 6,000 headlines). Source:
    shingling (Broder, 1997), counted exactly.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    if len(texts) < 2:
        return Near(np.zeros((0, 2), dtype=np.intp), np.zeros(0))
    grams = CountVectorizer(analyzer=_grams, binary=True, dtype=np.int32).fit_transform(texts)
    sizes = np.asarray(grams.sum(axis=1)).ravel()
    transposed = grams.T.tocsr()
    rows_per_block = max(1, _BLOCK_ENTRIES // len(texts))
    found, shares = [], []
    for start in range(0, len(texts), rows_per_block):
        common = (grams[start : start + rows_per_block] @ transposed).tocoo()
        left, right = common.row.astype(np.intp) + start, common.col.astype(np.intp)
        union = sizes[left] + sizes[right] - common.data
        near = (common.data >= threshold * union) & (left < right)
        found.append(np.stack([left[near], right[near]], axis=1))
        shares.append(common.data[near] / union[near])
    edges, similarity = np.concatenate(found), np.concatenate(shares)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    return Near(edges[order], similarity[order])


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


def strongest_links(n: int, near: Near) -> np.ndarray:
    """Return the links that hold families together: a maximum spanning forest.

    Args:
        n: number of texts.
        near: pairs of them; of equal similarities the pair of lower rows is the stronger one.

    Returns:
        intp array (k, 2) of rows, k < n, the strongest first.

    Memory: 50 bytes a pair of ``near``. Source: Kruskal, by scipy.sparse.csgraph.
    """
    edges = near.edges
    order = np.lexsort((edges[:, 1], edges[:, 0], -near.similarity))
    # Ranks in place of similarities: no two are equal, so that there is one such forest.
    rank = np.empty(len(edges), dtype=np.int64)
    rank[order] = np.arange(1, len(edges) + 1)
    graph = sparse.coo_matrix((rank, (edges[:, 0], edges[:, 1])), shape=(n, n))
    forest = csgraph.minimum_spanning_tree(graph).tocoo()
    chosen = np.argsort(forest.data, kind="stable")
    return np.stack([forest.row[chosen], forest.col[chosen]], axis=1).astype(np.intp)


class Groups:
    """Disjoint groups of rows, each on a side or on none (union-find).

    Args:
        sides: of each row, "" for none.
    """

    def __init__(self, sides: Sequence[str]) -> None:
        self._parent = list(range(len(sides)))
        self._side, self._size = list(sides), [1] * len(sides)

    def find(self, row: int) -> int:
        """Return the row that stands for a row's group."""
        while self._parent[row] != row:
            self._parent[row] = row = self._parent[self._parent[row]]
        return row

    def side(self, row: int) -> str:
        """Return the side that a row's group is on, "" for none."""
        return self._side[self.find(row)]

    def join(self, one: int, other: int, at_most: float = np.inf) -> None:
        """Join two rows' groups, unless they are on both sides or too large together."""
        one, other = sorted((self.find(one), self.find(other)))
        sides = {self._side[one], self._side[other]} - {""}
        size = self._size[one] + self._size[other]
        if one == other or len(sides) == 2 or size > at_most:
            return
        self._parent[other] = one
        self._side[one], self._size[one] = "".join(sides), size

    def of(self, rows: Sequence[int]) -> list[list[int]]:
        """Return rows by their groups, both in the order of ``rows``."""
        found: dict[int, list[int]] = {}
        for row in rows:
            found.setdefault(self.find(row), []).append(row)
        return list(found.values())


def _grams(text: str) -> set[str]:
    return {text[i : i + GRAM_CHARS] for i in range(max(1, len(text) - GRAM_CHARS + 1))}
