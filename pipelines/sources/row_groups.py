"""Where a Parquet file can be cut: between its row groups, by its footer alone."""

from __future__ import annotations

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
    start = held = 0
    left = size
    for group in range(footer.num_row_groups):
        # Stored bytes: `total_byte_size` of a group is that of what they unpack to.
        parts = footer.row_group(group)
        held += sum(parts.column(n).total_compressed_size for n in range(parts.num_columns))
        if held >= range_bytes and group + 1 < footer.num_row_groups:
            yield start, group + 1, held
            start, left, held = group + 1, left - held, 0
    yield (start, footer.num_row_groups, left) if start else (0, -1, left)
