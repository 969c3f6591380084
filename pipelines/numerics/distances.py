"""Exact Euclidean distances and comparisons at matrix-product speed.

A float32 matrix product rounds a row's result differently in another block, position or thread
count. Here it only proposes: everything within its error bound of a decision is computed again pair
by pair in float64. So every result is a function of the rows compared alone, not of their
neighbours in a block, of the block size, or of the number of threads.

The bound grows with the rows' lengths, not with their distances. Where rows lie so near to one
another that it tells few of them apart, the product is made again from their middle, where they are
short.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipelines.numerics import threads as parallel

_UNIT_ROUNDOFF = 2.0**-24
_PAIRS_PER_CHUNK = 8192
_BLOCK_BYTES = 1 << 24
# The m smallest of a row are looked for among so many columns at once, by their minimum.
_COLUMNS_PER_GROUP = 16
# A row with more pairs than this within the error bound is looked at from nearby: of a search, and of a
# comparison with one radius, where that takes one small product.
_CROWD, _UNSURE = 64, 8
# Rows that share a place to look from; fewer gain nothing over pair by pair.
_SMALLEST_CROWD = 4
_MOST_CROWDS = 16
# The first bytes of a row, in the order in which bytes are compared.
_HEAD = np.dtype(">u8")


def as_matrix(name: str, vectors: np.ndarray, n_dims: int | None = None) -> np.ndarray:
    """Return `vectors` as a C-contiguous finite float32 matrix, copied only if it is none yet.

    Raises:
        ValueError: if it is no (n, d) matrix with d >= 1 (and d = `n_dims`, if given), or holds NaN
            or infinity.
    """
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] < 1:
        raise ValueError(f"{name} must be a matrix (n, d) with d >= 1, got shape {matrix.shape}")
    if n_dims is not None and matrix.shape[1] != n_dims:
        raise ValueError(
            f"{name} must have {n_dims} dimensions, got {matrix.shape[1]}: both sides must come "
            "from the same encoder"
        )
    # A sum is finite only if every term is (or it overflows, which the slow test then clears).
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(matrix.sum(dtype=np.float32))
    if suspicious:
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{name} must be finite, row {int(bad[0])} is not ({len(bad)} such rows): reject "
                "them where they are made"
            )
    return matrix


def squared_norms(vectors: np.ndarray) -> np.ndarray:
    """Return the rows' squared Euclidean norms, float64 (n,), each computed from its row alone."""
    out = np.empty(len(vectors), dtype=np.float64)
    for start in range(0, len(vectors), _PAIRS_PER_CHUNK):
        # Cast first: a sum that casts on the fly is buffered, and cut where the buffer ends.
        block = vectors[start : start + _PAIRS_PER_CHUNK].astype(np.float64)
        np.einsum("ij,ij->i", block, block, out=out[start : start + _PAIRS_PER_CHUNK])
    return out


def row_distances(
    left: np.ndarray, right: np.ndarray, left_rows: np.ndarray, right_rows: np.ndarray
) -> np.ndarray:
    """Measure given pairs of rows: distance of left[left_rows[i]] and right[right_rows[i]].

    Args:
        left: float32 (a, d).
        right: float32 (b, d).
        left_rows: integer (p,).
        right_rows: integer (p,).

    Returns:
        float32 (p,) Euclidean distances, computed in float64 from the two rows alone.

    Memory: 8192 * d * 24 bytes, plus 4 bytes a pair.
    """
    out = np.empty(len(left_rows), dtype=np.float32)
    for start in range(0, len(left_rows), _PAIRS_PER_CHUNK):
        chunk = slice(start, start + _PAIRS_PER_CHUNK)
        difference = left[left_rows[chunk]].astype(np.float64)
        difference -= right[right_rows[chunk]]
        out[chunk] = np.sqrt(np.square(difference, out=difference).sum(axis=1))
    return out


def within(
    left: np.ndarray,
    right: np.ndarray,
    radius: float | np.ndarray,
    *,
    right_sq: np.ndarray | None = None,
) -> np.ndarray:
    """Tell which rows lie at most `radius` apart.

    Args:
        left: float32 (a, d).
        right: float32 (b, d).
        radius: one distance >= 0, or one for each row of `left` (a,).
        right_sq: `squared_norms` of `right`, if they are at hand.

    Returns:
        bool (a, b): `row_distances` <= float32(radius), exactly.

    Memory: 9 * a * b bytes, plus 17 for each pair nearer to the radius than the rounding error.
    """
    limit = np.broadcast_to(np.asarray(radius, dtype=np.float32), (len(left),))
    left_sq = squared_norms(left)
    right_sq = squared_norms(right) if right_sq is None else right_sq
    limit_sq = np.square(limit.astype(np.float64))
    # The products lack the row's own squared norm, so it goes to the other side.
    bound = limit_sq - left_sq
    slack = error_bound(left_sq, right_sq, left.shape[1])
    approximate = rank_distances(left, right, right_sq)
    inside = approximate <= _not_above(bound - slack)[:, None]
    unsure = approximate <= _not_below(bound + slack)[:, None]
    unsure ^= inside
    crowded = np.flatnonzero(np.count_nonzero(unsure, axis=1) > _UNSURE)
    for group in _crowds(left, crowded, 4.0 * (limit_sq + slack)):
        columns = np.flatnonzero(unsure[group].any(axis=0))
        near_sq, values, error = _from_nearby(left, right, group, columns)
        cells = np.ix_(group, columns)
        edge = limit_sq[group] - near_sq
        certain = unsure[cells] & (values <= _not_above(edge - error)[:, None])
        inside[cells] |= certain
        unsure[cells] &= ~certain & (values <= _not_below(edge + error)[:, None])
    rows, columns = true_cells(unsure)
    inside[rows, columns] = row_distances(left, right, rows, columns) <= limit[rows]
    return inside


def nearest(
    queries: np.ndarray,
    data: np.ndarray,
    m: int,
    *,
    block_bytes: int = _BLOCK_BYTES,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Find each query's m nearest rows of `data` by exact search.

    Args:
        queries: float32 (q, d).
        data: float32 (n, d), n >= 1. Many equal rows are slow: see `ExactIndex`.
        m: neighbours wanted, 1 <= m <= n.
        block_bytes: size of one block of products.
        threads: blocks that are searched side by side.

    Returns:
        indices int32 (q, m) and distances float32 (q, m), ascending, ties by lower index. A query's
        answer depends on that query and the data alone.

    Memory: about 4 * threads * max(block_bytes, 4 * n) bytes beside inputs and outputs.
    """
    n_queries, n_rows = len(queries), len(data)
    indices = np.empty((n_queries, m), dtype=np.int32)
    distances = np.empty((n_queries, m), dtype=np.float32)
    middle, short, short_sq = _shortened(data)
    step = max(1, block_bytes // (4 * n_rows))
    starts = range(0, n_queries, step)

    def search(start: int) -> tuple[np.ndarray, np.ndarray]:
        block = queries[start : start + step]
        near = block if middle is None else block - middle
        rows, columns = _candidates(near, short, short_sq, m)
        return _first(rows, columns, row_distances(block, data, rows, columns), m)

    for start, found in zip(starts, parallel.in_order(search, starts, threads), strict=True):
        indices[start : start + step], distances[start : start + step] = found
    return indices, distances


def nearest_set(
    queries: np.ndarray, data: np.ndarray, m: int, *, block_bytes: int = _BLOCK_BYTES
) -> np.ndarray:
    """Find which rows of `data` are each query's m nearest, without saying how near: several times faster.

    Args:
        queries: float32 (q, d).
        data: float32 (n, d), n >= 1.
        m: neighbours wanted, 1 <= m <= n.
        block_bytes: size of one block of products.

    Returns:
        indices int32 (q, m) of the same rows as `nearest` gives, ascending by index.

    Memory: about 3 * max(block_bytes, 4 * n) bytes beside inputs and output.
    """
    indices = np.empty((len(queries), m), dtype=np.int32)
    data_sq = squared_norms(data)
    step = max(1, block_bytes // (4 * len(data)))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        approximate = rank_distances(block, data, data_sq)
        slack = 2.0 * error_bound(squared_norms(block), data_sq, data.shape[1])
        last = _smallest(approximate, m).astype(np.float64)
        inside = approximate <= _not_below(last + slack)[:, None]
        # Where more than m may be among the nearest, those that are not sure to be are compared exactly.
        crowded = np.flatnonzero(np.count_nonzero(inside, axis=1) > m)
        if len(crowded):
            sure = approximate[crowded] < _not_above(last - slack)[crowded, None]
            rows, columns = true_cells(inside[crowded] & ~sure)
            exact = row_distances(block, data, crowded[rows], columns)
            kept = _leading(rows, columns, exact, m - np.count_nonzero(sure, axis=1))
            sure[rows[kept], columns[kept]] = True
            inside[crowded] = sure
        indices[start : start + step] = true_cells(inside)[1].reshape(-1, m)
    return indices


def row_order(vectors: np.ndarray) -> np.ndarray:
    """Order rows by their contents (bytes), whatever order they came in: int64 (n,).

    Memory: n * 40 bytes, and a copy of the rows that begin alike.
    """
    raw = _row_bytes(vectors)
    width = raw.dtype.itemsize
    if not len(raw) or width < _HEAD.itemsize:
        return np.argsort(raw, kind="stable")
    bytes_of = raw.view(np.uint8).reshape(len(raw), width)
    head = np.ascontiguousarray(bytes_of[:, : _HEAD.itemsize]).view(_HEAD)[:, 0].astype(np.uint64)
    order = np.argsort(head, kind="stable")
    ordered = head[order]
    alike = np.concatenate([[False], ordered[1:] == ordered[:-1], [False]])
    places = np.flatnonzero(alike[1:] | alike[:-1])
    rows = order[places]
    order[places] = rows[np.argsort(raw[rows], kind="stable")]
    return order


def differ_from_before(vectors: np.ndarray) -> np.ndarray:
    """Tell which rows differ from the row before them, bool (n,); the first one does."""
    starts = np.ones(len(vectors), dtype=bool)
    for begin in range(1, len(vectors), _PAIRS_PER_CHUNK):
        rows = vectors[begin - 1 : begin + _PAIRS_PER_CHUNK]
        starts[begin : begin + len(rows) - 1] = (rows[1:] != rows[:-1]).any(axis=1)
    return starts


def distinct_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group equal rows.

    Returns:
        first int64 (u,): the lowest index of each distinct row, ascending; and inverse int64 (n,),
        so that vectors[first][inverse] equals vectors.

    Memory: n * 80 bytes while it sorts, 8192 * 8 * d, and a copy of the rows that begin alike.
    """
    if not len(vectors):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    order = row_order(vectors)
    starts = np.concatenate(
        [
            differ_from_before(vectors[order[max(begin - 1, 0) : begin + _PAIRS_PER_CHUNK]])[
                min(begin, 1) :
            ]
            for begin in range(0, len(order), _PAIRS_PER_CHUNK)
        ]
    )
    group = np.cumsum(starts) - 1
    # The sort is stable, so the first row of a group has its lowest index.
    first = order[starts]
    by_index = np.argsort(first)
    renumbered = np.empty_like(by_index)
    renumbered[by_index] = np.arange(len(by_index))
    inverse = np.empty(len(order), dtype=np.int64)
    inverse[order] = renumbered[group]
    return first[by_index], inverse


class ExactIndex:
    """Exact nearest neighbours under the Euclidean distance; the oracle of every other index.

    Equal rows are searched once, so a corpus of copies costs no more than its distinct rows.

    Args:
        vectors: float32 (n, d), finite; n may be 0.

    Raises:
        ValueError: if `vectors` is no finite matrix.

    Memory: a view of `vectors`, a copy of its distinct rows if any repeat, and 24 * n bytes; while
    it is built, what `distinct_rows` takes.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = as_matrix("vectors", vectors)
        first, inverse = distinct_rows(self.vectors)
        self._distinct = self.vectors if len(first) == len(inverse) else self.vectors[first]
        # copies[starts[u] : starts[u + 1]] are the rows equal to distinct row u, ascending.
        self._copies = np.argsort(inverse, kind="stable")
        self._starts = np.searchsorted(inverse[self._copies], np.arange(len(first) + 1))

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries: np.ndarray, m: int, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the m nearest rows of each query.

        Args:
            queries: float32 (q, d), finite; q may be 0.
            m: neighbours wanted, at least 1.
            threads: blocks of queries that are searched side by side.

        Returns:
            indices int32 (q, min(m, n)) and distances float32 of the same shape: ascending, ties by
            lower index, nothing missing. A query's answer does not depend on the other queries.

        Raises:
            ValueError: if m < 1, or the queries are not finite or of another dimension.
        """
        wanted = neighbors_given(m, len(self.vectors))
        matrix = as_matrix("queries", queries, self.vectors.shape[1])
        if not len(matrix) or not wanted:
            return (
                np.empty((len(matrix), wanted), dtype=np.int32),
                np.empty((len(matrix), wanted), dtype=np.float32),
            )
        found, distances = nearest(
            matrix, self._distinct, min(wanted, len(self._distinct)), threads=threads
        )
        if len(self._distinct) == len(self.vectors):
            return found, distances
        return self._expand(found, distances, wanted)

    def _expand(
        self, found: np.ndarray, distances: np.ndarray, wanted: int
    ) -> tuple[np.ndarray, np.ndarray]:
        indices = np.empty((len(found), wanted), dtype=np.int32)
        expanded = np.empty((len(found), wanted), dtype=np.float32)
        for row, (groups, values) in enumerate(zip(found, distances, strict=True)):
            members = [
                self._copies[self._starts[g] : min(self._starts[g + 1], self._starts[g] + wanted)]
                for g in groups
            ]
            all_members = np.concatenate(members)
            all_values = np.repeat(values, [len(part) for part in members])
            order = np.lexsort((all_members, all_values))[:wanted]
            indices[row], expanded[row] = all_members[order], all_values[order]
        return indices, expanded


def neighbors_given(m: int, n_rows: int) -> int:
    """Return how many neighbours a search gives, min(m, n), refusing m < 1."""
    if m < 1:
        raise ValueError(f"m must be at least 1 neighbour, got {m!r}")
    return min(int(m), n_rows)


def rank_distances(queries: np.ndarray, data: np.ndarray, data_sq: np.ndarray) -> np.ndarray:
    """Squared distances less the query's own squared norm, float32 (q, n), within `error_bound`."""
    # A power of two scales exactly, so it goes to the smaller factor.
    if len(queries) < len(data):
        product = (queries * np.float32(-2.0)) @ data.T
    else:
        product = queries @ (data * np.float32(-2.0)).T
    product += data_sq.astype(np.float32)
    return product


def true_cells(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of a mask's true cells, as `np.nonzero` does ten times slower."""
    return np.divmod(np.flatnonzero(mask), max(mask.shape[1], 1))


def error_bound(left_sq: np.ndarray, right_sq: np.ndarray, n_dims: int) -> np.ndarray:
    """Bound the rounding error of a float32 squared distance, float64 (a,), for each left row.

    gamma_d |a| |b| bounds a dot product under any order of summation (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1); the rest covers the norms, rows that were
    rounded to float32 when their middle was taken off, and the final rounding to float32.
    """
    left = np.sqrt(left_sq)
    right = float(np.sqrt(right_sq.max())) if len(right_sq) else 0.0
    return _UNIT_ROUNDOFF * (2.0 * (n_dims + 8) * left * right + 16.0 * np.square(left + right))


def _shortened(data: np.ndarray) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Take off what all rows have in common, where they are half as long without it, or shorter.

    Returns:
        that, float32 (d,), or None; the rows without it; their squared norms.
    """
    data_sq = squared_norms(data)
    middle = data.mean(axis=0, dtype=np.float64)
    mean_sq = data_sq.mean()
    if mean_sq - np.square(middle).sum() > mean_sq / 4.0:
        return None, data, data_sq
    common = middle.astype(np.float32)
    short = data - common
    return common, short, squared_norms(short)


def _candidates(
    block: np.ndarray, data: np.ndarray, data_sq: np.ndarray, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of all pairs that rounding leaves among a row's m nearest."""
    block_sq = squared_norms(block)
    approximate = rank_distances(block, data, data_sq)
    slack = 2.0 * error_bound(block_sq, data_sq, data.shape[1])
    minima = _group_minima(approximate)
    # Each of the m smallest minima is a column of its own: the m-th is no smaller than the m-th column.
    bound = _not_below(_smallest(minima if m <= minima.shape[1] else approximate, m) + slack)
    open_groups = minima <= bound[:, None]
    crowded = np.count_nonzero(open_groups, axis=1) > _CROWD + m
    found = []
    for group in _crowds(block, np.flatnonzero(crowded), 4.0 * (bound + block_sq)):
        columns = np.flatnonzero((approximate[group] <= bound[group][:, None]).any(axis=0))
        _, values, error = _from_nearby(block, data, group, columns)
        last = _not_below(_smallest(values, m) + 2.0 * error)
        rows, places = true_cells(values <= last[:, None])
        found.append((group[rows], columns[places]))
        open_groups[group] = False
    found.append(_expanded(approximate, open_groups, bound))
    rows, columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, columns


def _first(
    rows: np.ndarray, columns: np.ndarray, distances: np.ndarray, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's m nearest columns and their distances, (q, m) each; ties by lower column."""
    keep = _leading(rows, columns, distances, np.full(int(rows.max()) + 1, m))
    return columns[keep].reshape(-1, m), distances[keep].reshape(-1, m)


def _leading(
    rows: np.ndarray, columns: np.ndarray, distances: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Return the places of each row's nearest columns, so many as wanted of it; ties by lower column."""
    order = np.lexsort((columns, distances, rows))
    counts = np.bincount(rows, minlength=len(wanted))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[place < np.repeat(wanted, counts)]


def _group_minima(values: np.ndarray) -> np.ndarray:
    """Return the smallest value of groups of columns, float32 (q, g): columns equal modulo g.

    Columns that lie g apart, so that a processor takes the minimum of many groups at once.
    """
    n = values.shape[1]
    groups = n // _COLUMNS_PER_GROUP
    if groups < _COLUMNS_PER_GROUP:
        return values
    whole = n - n % groups
    minima = values[:, :whole].reshape(len(values), -1, groups).min(axis=1)
    rest = n - whole
    np.minimum(minima[:, :rest], values[:, whole:], out=minima[:, :rest])
    return minima


def _expanded(
    values: np.ndarray, candidates: np.ndarray, bound: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the values within the bound, of groups that may hold one."""
    rows, columns = true_cells(candidates)
    n, groups = values.shape[1], candidates.shape[1]
    if groups == n:
        return rows, columns
    columns = (columns[:, None] + np.arange(0, n, groups)).ravel()
    rows = np.repeat(rows, len(columns) // max(len(rows), 1))
    inner = columns < n
    rows, columns = rows[inner], columns[inner]
    kept = values[rows, columns] <= bound[rows]
    return rows[kept], columns[kept]


def _smallest(values: np.ndarray, m: int) -> np.ndarray:
    """Return the m-th smallest of each row, float32 (q,)."""
    if m == 1:
        return values.min(axis=1)
    if m == values.shape[1]:
        return values.max(axis=1)
    return np.partition(values, m - 1, axis=1)[:, m - 1]


def _not_above(values: np.ndarray) -> np.ndarray:
    """Round to float32 and one step down: compared with float32, no value passes that should not."""
    return np.nextafter(values.astype(np.float32), np.float32(-np.inf))


def _not_below(values: np.ndarray) -> np.ndarray:
    """Round to float32 and one step up."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def _crowds(matrix: np.ndarray, crowded: np.ndarray, reach_sq: np.ndarray) -> Iterator[np.ndarray]:
    """Yield some of the crowded rows in groups, each within the reach of its first row."""
    for _ in range(_MOST_CROWDS):
        if len(crowded) < _SMALLEST_CROWD:
            return
        away = row_distances(matrix, matrix, crowded, np.full(len(crowded), crowded[0]))
        near = np.square(away.astype(np.float64)) <= max(reach_sq[crowded[0]], 0.0)
        if np.count_nonzero(near) >= _SMALLEST_CROWD:
            yield crowded[near]
        crowded = crowded[~near]


def _from_nearby(
    left: np.ndarray, right: np.ndarray, group: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare rows with columns once more, all less the group's first row.

    Returns:
        the squared norms of what is left of the rows, their `rank_distances` and its `error_bound`.
    """
    rows, others = left[group] - left[group[0]], right[columns] - left[group[0]]
    rows_sq, others_sq = squared_norms(rows), squared_norms(others)
    values = rank_distances(rows, others, others_sq)
    return rows_sq, values, error_bound(rows_sq, others_sq, left.shape[1])


def _row_bytes(vectors: np.ndarray) -> np.ndarray:
    matrix = np.ascontiguousarray(vectors)
    for start in range(0, len(matrix), _PAIRS_PER_CHUNK):
        part = matrix[start : start + _PAIRS_PER_CHUNK]
        if np.signbit(part[part == 0]).any():
            # Adding zero turns -0.0 into 0.0: equal rows must have equal bytes.
            matrix = matrix + np.zeros((), dtype=matrix.dtype)
            break
    width = matrix.shape[1] * matrix.dtype.itemsize
    return matrix.view(np.dtype((np.void, width))).ravel()
