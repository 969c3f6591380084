"""Columnar blocks: Arrow tables to bytes and Parquet, and their vector column to NumPy."""

from __future__ import annotations

import dataclasses
import heapq
import io
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts import Block, BlockFile
from pipelines.numerics import hashing
from pipelines.store import files, storage

# Rows that are read together: a few hundred kilobytes of vectors would be too many for a narrow band
# around the threshold, and each group costs a kilobyte of footer.
_GROUP_ROWS = 128
# Blocks that a sample of texts is drawn from.
_SAMPLED_BLOCKS = 16
# The footer's length and a magic word, bytes.
_TAIL = 8


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


def write(root: str, path: str, table: pa.Table) -> BlockFile:
    """Write scored rows as a block, ordered by margin: rows near a threshold lie together.

    Args:
        root: the workspace.
        path: as :func:`pipelines.store.files.write` takes it.
        table: of ``scored_schema``.
    """
    data = _to_parquet(table.sort_by([("margin", "ascending"), ("key", "ascending")]))
    footer = files.sha256(data[-_footer_size(data[-_TAIL:]) :])
    return dataclasses.replace(files.write(root, path, data, table.num_rows), footer=footer)


def number_of(file: BlockFile) -> int:
    """Return a block's number, by which rows that travel say where the rest of them lies: 60 bits of its hash."""
    return int(file.sha256[:15], 16)


def read(root: str, file: BlockFile) -> pa.Table:
    """Read a whole block, verified by its hash.

    Raises:
        Damaged: the file is gone or has changed.
    """
    return pq.read_table(pa.BufferReader(files.read(root, file)))


def read_columns(root: str, file: BlockFile, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a block; raises as :class:`OpenBlock` does."""
    with OpenBlock(root, file) as block:
        return block.columns(columns)


def sample_texts(root: str, files: Sequence[BlockFile], rows: int, seed: int) -> tuple[str, ...]:
    """Return the texts of a sample of the ads in some blocks, drawn by hash; ordered by it.

    Of a corpus of more than 16 blocks, which ads fill as they come, 16 are drawn first: what is read does
    not grow with the corpus. Memory: a block's keys and texts, and twice ``rows`` texts.

    Raises:
        Damaged: a block is gone or has changed.
    """
    drawn = sorted(files, key=lambda file: hashing.unit_hash(file.sha256, seed))[:_SAMPLED_BLOCKS]
    found: list[tuple[int, str, str]] = []
    for file in drawn:
        table = read_columns(root, file, ["key", "text"])
        keys = table.column("key").to_pylist()
        ranks = hashing.ranks(keys, seed).tolist()
        found += zip(ranks, keys, table.column("text").to_pylist(), strict=True)
        found = heapq.nsmallest(rows, found)
    return tuple(text for _, _, text in found)


class OpenBlock:
    """A block of which parts are read; a context manager.

    What is read is verified: the size and the footer by the block's record, each page by the checksum
    that Parquet keeps with it. The rest of the file is not looked at.

    Args:
        root: the workspace.
        file: the block.

    Raises:
        Damaged: the file is gone, or what was read of it has changed.
    """

    def __init__(self, root: str, file: BlockFile) -> None:
        self._root, self._file = root, file
        try:
            self._source = storage.open_ranges(files.full_path(root, file))
        except FileNotFoundError:
            raise files.gone(root, file) from None

    def __enter__(self) -> OpenBlock:
        try:
            self._parquet = self._verified()
        except BaseException:
            self._source.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._source.close()

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Return some columns, all rows."""
        return self._read(range(self._parquet.num_row_groups), names)

    def rows(self, wanted: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a mask, bool (rows,); groups without any of them are not read."""
        meta = self._parquet.metadata
        sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        parts = np.split(wanted, np.cumsum(sizes)[:-1])
        groups = [i for i, part in enumerate(parts) if part.any()]
        kept = [parts[i] for i in groups]
        mask = np.concatenate(kept) if kept else np.zeros(0, dtype=bool)
        return self._read(groups, names).filter(pa.array(mask))

    def _read(self, groups: Iterable[int], names: Sequence[str] | None) -> pa.Table:
        try:
            table = self._parquet.read_row_groups(
                list(groups), columns=None if names is None else list(names), use_threads=False
            )
        except (OSError, pa.ArrowException) as error:
            raise files.changed(self._root, self._file, str(error)) from error
        return table.combine_chunks()

    def _verified(self) -> pq.ParquetFile:
        size = self._source.seek(0, io.SEEK_END)
        if size != self._file.bytes:
            raise files.changed(self._root, self._file, files.sizes(size, self._file))
        length = _footer_size(self._tail(_TAIL))
        footer = self._tail(min(length, size))
        if files.sha256(footer) != self._file.footer:
            raise files.changed(self._root, self._file, "its footer is another")
        return pq.ParquetFile(
            self._source,
            metadata=pq.read_metadata(pa.BufferReader(footer)),
            page_checksum_verification=True,
        )

    def _tail(self, length: int) -> bytes:
        self._source.seek(-length, io.SEEK_END)
        return self._source.read(length)


def _to_parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file.

    Nothing is dictionary-encoded: nearly every value differs, and the attempt costs time.
    """
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        row_group_size=_GROUP_ROWS,
    )
    return sink.getvalue()


def _footer_size(tail: bytes) -> int:
    """Return how many bytes Parquet's footer takes with the eight that end the file."""
    return int.from_bytes(tail[:4], "little") + _TAIL
