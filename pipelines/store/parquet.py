"""Parquet files of which parts are read: written so that parts can be verified.

What is read is checked: the footer by a hash that the file's name holds, each page by the checksum that
Parquet keeps with it. The footer holds a hash of all rows, so that two files never share one.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.store import files, storage

# Rows that are read together: a few hundred kilobytes of vectors would be too many for a narrow band
# around the threshold, and each group costs a kilobyte of footer.
GROUP_ROWS = 128
# Hex characters of a footer's hash in a file's name.
FOOTER_CHARS = 24
_CONTENT = b"content"
# The footer's length and a magic word, bytes.
_TAIL = 8


def pack(tables: Sequence[pa.Table], content: str, group_rows: int | None = None) -> bytes:
    """Return tables as the bytes of one Parquet file.

    Nothing is dictionary-encoded: nearly every value differs, and the attempt costs time.

    Args:
        tables: of one schema; each begins a row group of its own.
        content: hash of what they hold.
        group_rows: rows of a group; None for one group a table.
    """
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        tables[0].schema.with_metadata({_CONTENT: content.encode()}),
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        for table in tables:
            writer.write_table(
                table.replace_schema_metadata({_CONTENT: content.encode()}),
                row_group_size=group_rows or max(1, table.num_rows),
            )
    return sink.getvalue()


def content_hash(tables: Iterable[pa.Table]) -> str:
    """Return a hash of the rows of tables, however their columns are cut into chunks."""
    sink = pa.BufferOutputStream()
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            # Rows that were taken from a larger table keep its buffers: these are rebuilt.
            writer.write_table(table.take(pa.array(np.arange(table.num_rows))).combine_chunks())
    return files.sha256(sink.getvalue())


def footer_hash(data: bytes) -> str:
    """Return the hash of a file's footer, as its name holds it."""
    return files.sha256(data[-_footer_size(data[-_TAIL:]) :])[:FOOTER_CHARS]


class Reader:
    """A Parquet file of the workspace, open; a context manager.

    Args:
        root: the workspace.
        path: the file, relative to it.
        footer: hash of its footer.

    Raises:
        Damaged: the file is gone, or what was read of it has changed.
    """

    def __init__(self, root: str, path: str, footer: str) -> None:
        self._root, self._path = root, path
        try:
            self._source = storage.open_ranges(files.place(root, path))
        except FileNotFoundError:
            raise files.gone(root, path) from None
        try:
            self._parquet = self._verified(footer)
        except BaseException:
            self._source.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def columns(self, names: Sequence[str], groups: Iterable[int] | None = None) -> pa.Table:
        """Return some columns of all rows, or of some row groups."""
        meta = self._parquet.metadata
        wanted = list(range(meta.num_row_groups) if groups is None else groups)
        try:
            table = self._parquet.read_row_groups(wanted, columns=list(names), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise files.changed(self._root, self._path, str(error)) from error
        # The header of a page is in no checksum, and says how many rows it has.
        rows = sum(meta.row_group(group).num_rows for group in wanted)
        if table.num_rows != rows:
            found = f"{table.num_rows:,} rows, {rows:,} written"
            raise files.changed(self._root, self._path, found)
        return table.replace_schema_metadata().combine_chunks()

    def rows(self, wanted: np.ndarray, names: Sequence[str]) -> pa.Table:
        """Return the rows of a mask, bool (rows,); groups without any of them are not read."""
        meta = self._parquet.metadata
        sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        parts = np.split(wanted, np.cumsum(sizes)[:-1])
        groups = [i for i, part in enumerate(parts) if part.any()]
        kept = [parts[i] for i in groups]
        mask = np.concatenate(kept) if kept else np.zeros(0, dtype=bool)
        return self.columns(names, groups).filter(pa.array(mask))

    def _verified(self, footer: str) -> pq.ParquetFile:
        size = self._source.seek(0, io.SEEK_END)
        tail = self._tail(min(size, _TAIL))
        data = self._tail(min(_footer_size(tail), size))
        if files.sha256(data)[: len(footer)] != footer:
            raise files.changed(self._root, self._path, "its footer is another")
        return pq.ParquetFile(
            self._source,
            metadata=pq.read_metadata(pa.BufferReader(data)),
            page_checksum_verification=True,
        )

    def _tail(self, length: int) -> bytes:
        self._source.seek(-length, io.SEEK_END)
        return self._source.read(length)


def _footer_size(tail: bytes) -> int:
    """Return how many bytes Parquet's footer takes with the eight that end the file."""
    return int.from_bytes(tail[:4], "little") + _TAIL
