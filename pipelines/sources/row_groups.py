"""Where a Parquet file can be cut: between its row groups, by its footer alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow.parquet as pq


def cuts(source: BinaryIO, size: int, range_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first row group, the one behind the last, bytes), each of about ``range_bytes``.

    Args:
        source: the file, open.
        size: its bytes, which the parts add up to; the footer counts with the last.
        range_bytes: a part ends with the row group that reaches this.

    Raises:
        pyarrow.ArrowInvalid, OSError: it is no Parquet, or damaged.
    """
    footer = pq.ParquetFile(source).metadata
    # By what they unpack to: what they take is in the records of their columns, and where one of those is
    # damaged, pyarrow ends the process instead of raising.
    sizes = [
        max(0, footer.row_group(group).total_byte_size) for group in range(footer.num_row_groups)
    ]
    start = taken = 0
    for group, unpacked in enumerate(itertools.accumulate(sizes[:-1]), start=1):
        stored = size * unpacked // max(1, sum(sizes))
        if stored - taken >= range_bytes:
            yield start, group, stored - taken
            start, taken = group, stored
    yield (start, len(sizes), size - taken) if start else (0, -1, size)
