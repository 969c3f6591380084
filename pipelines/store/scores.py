"""The score store: what a model said of ads, written once and referenced ever after.

``scores/<score key>/keys-<prefix>/<rows>-<hash>-<hash>.rows.parquet`` holds key, text and margin of ads
whose content keys begin with the prefix (``keys-all``: any), ``….vectors.parquet`` beside it their
vectors; a block is there once its rows are, which are written last. The hashes are those of the files'
footers, so that a listing is all that a reader needs. Rows lie in the order of their margins.

``scores/<score key>/corpora/<attempt>/…`` holds what a corpus says of its ads (id, fields, weight, copies):
the *overlay* of the blocks they lie in. A :class:`ScoredPart` names a block and its overlay, and an
attempt's manifest lists files of parts. A partition's blocks that are too small are written together
(:func:`compact`); what they replace stays, for older manifests count on it.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import FORMAT_VERSION, BlockFile, ScoredPart, scored_schema
from pipelines.numerics import hashing
from pipelines.store import files, parquet, storage
from pipelines.store.facts import PairsFacts, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import digest

# Ads of a partition, about; a worker holds their keys and texts when it looks for those that are known.
PARTITION_ADS = 250_000
# A block is small when it has less than half of the rows that blocks are to have; so many are compacted.
SMALL_BLOCKS = 16
_HASH_CHARS = 16
_BLOCK_COLUMNS = ["key", "text_hash", "text", "margin", "tokens", "truncated", "script"]
_OVERLAY = ["id", "fields", "weight", "copies"]
_ROWS, _VECTORS, _MERGED = ".rows.parquet", ".vectors.parquet", "merged-"
_NAME = re.compile(r"(\d+)-([0-9a-f]{24})-([0-9a-f]{24})\.rows\.parquet$")
_OVERLAY_NAME = re.compile(r"-([0-9a-f]{24})\.parquet$")
# Blocks that a sample of texts is drawn from.
_SAMPLED_PARTS = 16
_PARTS = "parts-"
_LOST = "lost.json"


def prefix_length(ads: int, partition_ads: int = PARTITION_ADS) -> int:
    """Return by how many hex digits of their keys so many ads are partitioned."""
    length = 0
    while partition_ads * 16**length < ads:
        length += 1
    return length


def folder_of(score_key: str, prefix: str) -> str:
    """Return where a partition's blocks lie, relative to the workspace."""
    return f"scores/{score_key}/keys-{prefix or 'all'}"


def corpus_folder(score_key: str, attempt: str) -> str:
    """Return where the overlay of an attempt lies, relative to the workspace."""
    return f"scores/{score_key}/corpora/{attempt.replace('/', '-')}"


def text_hashes(texts: Sequence[str]) -> pa.Array:
    """Return what tells two spellings of one content key apart."""
    return pa.array([digest(text)[:_HASH_CHARS] for text in texts], pa.string())


def rows_of(block: str) -> int:
    """Return how many rows a block has, by its name."""
    return int(_hashes(block)[0])


def vectors_of(block: str) -> str:
    """Return the file of a block's vectors."""
    return block.replace(_ROWS, _VECTORS)


def store(
    root: str,
    score_key: str,
    attempt: str,
    prefix: str,
    table: pa.Table,
    scripts: Sequence[str],
    under: str = "",
) -> ScoredPart:
    """Write newly scored ads: a block of their partition, and the overlay of an attempt beside it.

    Args:
        root: the workspace.
        score_key: hash of what shaped the scores.
        attempt: the attempt's folder.
        prefix: with which all keys begin.
        table: of ``scored_schema``.
        scripts: the script of each ad that the encoder cannot read, else "".
        under: score key of the block, where it is another one than the attempt's.
    """
    block = write_block(root, folder_of(under or score_key, prefix), table, scripts)
    place = np.empty(table.num_rows, dtype=np.int64)
    place[_order(table).to_numpy()] = np.arange(table.num_rows)
    found = [(block, place, table)]
    [part] = write_overlay(root, corpus_folder(score_key, attempt), "new", found)
    return part


def score_key_of(part: ScoredPart) -> str:
    """Return the score key under which a part's block lies: another than its corpus's if it was foretold."""
    return part.block.split("/")[1]


def number_of(part: ScoredPart) -> int:
    """Return a part's number, by which rows that travel say where the rest of them lies: 60 bits of a hash."""
    return int(digest(f"{part.block}\n{part.overlay}\n{part.group}")[:15], 16)


def write_block(root: str, folder: str, table: pa.Table, scripts: Sequence[str]) -> str:
    """Write scored rows as a block; the same rows again are the same file.

    Args:
        root: the workspace.
        folder: of the partition.
        table: of ``scored_schema``; what belongs to the overlay is left out.
        scripts: the script of each ad that the encoder cannot read, else "".

    Returns:
        the block's path, and by it all that a reader needs.
    """
    order = _order(table)
    table = table.append_column("script", pa.array(scripts, pa.string()))
    table = table.append_column("text_hash", text_hashes(table.column("text").to_pylist()))
    table = table.take(order).combine_chunks()
    halves = [table.select(_BLOCK_COLUMNS), table.select(["vector"])]
    content = parquet.content_hash(halves)
    rows, vectors = (parquet.pack([half], content, parquet.GROUP_ROWS) for half in halves)
    stem = f"{table.num_rows:08d}-{parquet.footer_hash(rows)}-{parquet.footer_hash(vectors)}"
    for name, data in ((_VECTORS, vectors), (_ROWS, rows)):
        storage.write(files.place(root, f"{folder}/{stem}{name}"), data)
    return f"{folder}/{stem}{_ROWS}"


def write_overlay(
    root: str, folder: str, name: str, found: Sequence[tuple[str, np.ndarray, pa.Table]]
) -> list[ScoredPart]:
    """Write what a corpus says of ads in some blocks.

    Args:
        root: the workspace.
        folder: of the attempt, from :func:`corpus_folder`.
        name: begins the file's name.
        found: (block, rows in it, ads with the columns of ``AD_SCHEMA``), each in one order.
    """
    tables = []
    for _, rows, ads in found:
        order = np.argsort(rows, kind="stable")
        table = pa.table({"row": pa.array(rows[order].astype(np.int32))})
        for column in _OVERLAY:
            table = table.append_column(column, ads.column(column).take(pa.array(order)))
        tables.append(table.combine_chunks())
    data = parquet.pack(tables, parquet.content_hash(tables))
    path = f"{folder}/{name}-{parquet.footer_hash(data)}.parquet"
    storage.write(files.place(root, path), data)
    return [
        ScoredPart(block, path, group, table.num_rows)
        for group, ((block, _, _), table) in enumerate(zip(found, tables, strict=True))
    ]


def blocks_of(root: str, score_key: str, prefix: str) -> list[str]:
    """List the whole blocks in which keys of a prefix may lie, sorted by path.

    A store that grows is cut finer, so its blocks may have longer or shorter prefixes.
    """
    base = storage.join(root, "scores", score_key)
    folders = [f"keys-{prefix[:n] or 'all'}" for n in range(len(prefix))] + [f"keys-{prefix}*"]
    there: set[str] = set()
    replaced: set[str] = set()
    for folder in folders:
        for found in storage.match(storage.join(base, folder, "*")):
            *_, place, name = found.path.replace("\\", "/").split("/")
            if name.startswith(_MERGED):
                path = f"scores/{score_key}/{place}/{name}"
                replaced |= {f"{place}/{old}" for old in json.loads(files.named(root, path))}
            else:
                there.add(f"{place}/{name}")
    return sorted(
        f"scores/{score_key}/{path}"
        for path in there - replaced
        if _NAME.search(path) and path.replace(_ROWS, _VECTORS) in there
    )


def stored_ads(root: str) -> dict[str, int]:
    """Return score key -> ads in its blocks, from their names alone; one of two spellings counts twice."""
    there = storage.match(storage.join(root, "scores", "*", "keys-*", f"*{_ROWS}"))
    keys = {found.path.replace("\\", "/").split("/")[-3] for found in there}
    return {key: sum(map(rows_of, blocks_of(root, key, ""))) for key in sorted(keys)}


def known(
    root: str, found: Sequence[str], keys: pa.Array, texts: pa.Array
) -> Iterator[tuple[str, np.ndarray, np.ndarray, list[str]]]:
    """Find ads in blocks; an ad in several is found in the first.

    Memory: a block's keys at a time.

    Args:
        root: the workspace.
        found: blocks.
        keys: content keys (n,) of the ads.
        texts: their texts (n,).

    Yields:
        (block, rows in it, ads among the n, their scripts) of each block that has any.
    """
    wanted = pc.binary_join_element_wise(keys, text_hashes(texts.to_pylist()), "")
    open_ads = np.ones(len(wanted), dtype=bool)
    for path in found:
        with _reader(root, path) as block:
            held = block.columns(["key", "text_hash", "script"])
        joined = pc.binary_join_element_wise(held.column("key"), held.column("text_hash"), "")
        places = pc.index_in(joined, value_set=wanted).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(~np.isnan(places.astype(np.float64)))
        ads = places[rows].astype(np.int64)
        fresh = open_ads[ads]
        rows, ads = rows[fresh], ads[fresh]
        if len(rows):
            open_ads[ads] = False
            yield path, rows, ads, held.column("script").take(pa.array(rows)).to_pylist()


def compact(root: str, found: Sequence[str], block_rows: int) -> list[str]:
    """Write the small blocks of each partition together; returns the blocks to read instead.

    A row is written again once in ``SMALL_BLOCKS`` times that it would be too small, so the cost of all
    compaction is a fraction of what was written first, and so is what it leaves behind.

    Memory: the rows of the blocks that are joined, at most ``SMALL_BLOCKS * block_rows / 2`` at a time.

    Args:
        root: the workspace.
        found: blocks of whole partitions, which nobody else compacts.
        block_rows: rows that a block is to have.
    """
    small: dict[str, list[str]] = {}
    for path in found:
        if rows_of(path) < block_rows / 2:
            small.setdefault(path.rpartition("/")[0], []).append(path)
    kept = set(found)
    for folder, paths in sorted(small.items()):
        for start in range(0, len(paths) - SMALL_BLOCKS + 1, SMALL_BLOCKS):
            joined = paths[start : start + SMALL_BLOCKS]
            kept = kept.difference(joined).union(_joined(root, folder, joined, block_rows))
    return sorted(kept)


def _joined(root: str, folder: str, paths: Sequence[str], block_rows: int) -> list[str]:
    tables = []
    for path in paths:
        with _reader(root, path) as block, _reader(root, path, vectors=True) as vectors:
            rows = block.columns(_BLOCK_COLUMNS)
            tables.append(rows.append_column("vector", vectors.columns(["vector"]).column(0)))
    table = pa.concat_tables(tables).sort_by([("key", "ascending"), ("text_hash", "ascending")])
    # A run that was killed and the one after it may both hold an ad.
    names = pc.binary_join_element_wise(table.column("key"), table.column("text_hash"), "")
    names = np.asarray(names.to_pylist())
    table = table.filter(pa.array(np.r_[True, names[1:] != names[:-1]]))
    written = []
    for start in range(0, table.num_rows, block_rows):
        part = table.slice(start, block_rows)
        scripts = part.column("script").to_pylist()
        written.append(
            write_block(root, folder, part.drop_columns(["script", "text_hash"]), scripts)
        )
    # A name of its own for each: what is joined is joined once.
    old = json.dumps([path.rpartition("/")[2] for path in paths]).encode()
    name = f"{_MERGED}{files.sha256(old)[:20]}.json"
    storage.write(files.place(root, f"{folder}/{name}"), old)
    return written


class OpenPart:
    """The ads of a part, of which some rows or columns are read; a context manager.

    Columns are those of ``scored_schema``, rows lie in the order of their margins. What is read is
    verified; files of which nothing is wanted are not opened.

    Args:
        root: the workspace.
        part: the ads.

    Raises:
        Damaged: a file is gone, or what was read of it has changed.
    """

    def __init__(self, root: str, part: ScoredPart) -> None:
        self._root, self._part = root, part
        self._stack = contextlib.ExitStack()
        self._open: dict[str, parquet.Reader] = {}
        self._whole = part.rows == rows_of(part.block)

    def __enter__(self) -> OpenPart:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def places(self) -> np.ndarray:
        """Return which of the block's rows the ads are, int (rows,)."""
        if self._whole:
            return np.arange(self._part.rows)
        overlay = self._reader("overlay").columns(["row"], [self._part.group])
        return np.asarray(overlay.column("row").to_numpy())

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Return some columns, all rows."""
        return self._read(None, names)

    def rows(self, wanted: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a mask, bool (rows,), with some or all columns."""
        return self._read(wanted, scored_schema(1).names if names is None else names)

    def _read(self, wanted: np.ndarray | None, names: Sequence[str]) -> pa.Table:
        try:
            return self._assembled(wanted, names)
        except files.Damaged:
            _lose(self._root, self._part)
            raise

    def _assembled(self, wanted: np.ndarray | None, names: Sequence[str]) -> pa.Table:
        own = [name for name in names if name in _OVERLAY]
        overlay = None
        mask = wanted
        if own or not self._whole:
            rows = [] if self._whole else ["row"]
            overlay = self._reader("overlay").columns([*rows, *own], [self._part.group])
            if not self._whole:
                places = overlay.column("row").to_numpy()
                mask = np.zeros(rows_of(self._part.block), dtype=bool)
                mask[places if wanted is None else places[wanted]] = True
            if wanted is not None:
                overlay = overlay.filter(pa.array(wanted))
        found: dict[str, pa.ChunkedArray] = {}
        for which in ("rows", "vectors"):
            theirs = [n for n in names if n not in own and (n == "vector") == (which == "vectors")]
            if theirs:
                reader = self._reader(which)
                table = reader.columns(theirs) if mask is None else reader.rows(mask, theirs)
                found |= dict(zip(theirs, table.columns, strict=True))
        if overlay is not None:
            found |= {name: overlay.column(name) for name in own}
        return pa.table({name: found[name] for name in names})

    def _reader(self, which: str) -> parquet.Reader:
        if which not in self._open:
            if which == "overlay":
                match = _OVERLAY_NAME.search(self._part.overlay)
                reader = parquet.Reader(self._root, self._part.overlay, match[1] if match else "?")
            else:
                reader = _reader(self._root, self._part.block, which == "vectors")
            self._stack.callback(reader.close)
            self._open[which] = reader
        return self._open[which]


def read(root: str, part: ScoredPart) -> pa.Table:
    """Return all ads of a part with all columns; raises as :class:`OpenPart` does."""
    return read_columns(root, part, scored_schema(1).names)


def read_columns(root: str, part: ScoredPart, names: Sequence[str]) -> pa.Table:
    """Return some columns of a part; raises as :class:`OpenPart` does."""
    with OpenPart(root, part) as opened:
        return opened.columns(names)


def write_parts(root: str, attempt: str, shard: int, parts: Sequence[ScoredPart]) -> BlockFile:
    """Write some parts of an attempt as one file; ``rows`` of what is returned counts their ads."""
    ordered = sorted(parts, key=lambda part: (part.block, part.overlay, part.group))
    rows = sum(part.rows for part in ordered)
    return files.write(
        root, f"{attempt}/{_PARTS}{shard:05d}.jsonl", files.json_lines(ordered), rows
    )


def read_parts(root: str, file: BlockFile) -> list[ScoredPart]:
    """Return the parts of one file of an attempt; raises as :func:`pipelines.store.files.read` does."""
    return [ScoredPart(**json.loads(line)) for line in files.read(root, file).splitlines()]


def parts_of(workspace: Workspace, scored: Manifest[ScoredFacts]) -> Iterator[ScoredPart]:
    """Yield the parts of a scored attempt, in a stable order; memory: one file of them.

    Raises:
        Damaged: a file of them is gone or has changed, or an earlier version wrote the attempt.
    """
    if scored.format_version != FORMAT_VERSION:
        raise files.Damaged(
            f"{workspace.path(scored.attempt)}: scored by an earlier version of ad-scout; mine again: its "
            "ads are scored anew"
        )
    for file in scored.files:
        yield from read_parts(workspace.root, file)


def is_whole(workspace: Workspace, scored: Manifest[ScoredFacts]) -> bool:
    """Tell whether an attempt can be read.

    On this machine all its files are looked for. On object storage that would take a request a file, so
    there an attempt counts until a reader has missed something of it.
    """
    if scored.format_version != FORMAT_VERSION:
        return False
    root = workspace.root
    if not storage.is_local(root):
        lost = files.place(root, _marker(scored.facts.origin.score_key, scored.attempt))
        return not storage.exists(lost)
    try:
        paths = {
            path
            for part in parts_of(workspace, scored)
            for path in (part.block, vectors_of(part.block), part.overlay)
        }
    except files.Damaged:
        return False
    return all(storage.exists(workspace.path(path)) for path in paths)


def scored_of(workspace: Workspace, pairs: Manifest[PairsFacts]) -> Manifest[ScoredFacts] | None:
    """Return the newest whole scored attempt that a round's items may come from.

    Another corpus in the same round has the same score key, but hardly the same number of ads.
    """
    threshold = pairs.facts.threshold
    fitting = (
        manifest
        for manifest in reversed(workspace.scored.all(pairs.round))
        if manifest.facts.origin.score_key == pairs.facts.origin.score_key
        and manifest.rows == threshold.n_positive + threshold.n_negative
        and is_whole(workspace, manifest)
    )
    return next(fitting, None)


def sample(
    workspace: Workspace, scored: Manifest[ScoredFacts], rows: int, seed: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return texts and margins (n,) of :func:`sample_rows`; raises as that does."""
    table = sample_rows(workspace, scored, rows, seed, ["text", "margin"])
    texts, margins = (table.column(name).to_pylist() for name in ("text", "margin"))
    return tuple(texts), np.array(margins)


def sample_rows(
    workspace: Workspace,
    scored: Manifest[ScoredFacts],
    rows: int,
    seed: int,
    columns: Sequence[str],
) -> pa.Table:
    """Return columns of a sample of a scored attempt's ads, drawn by hash; ordered by it.

    Of more than 16 parts, which ads fill as they come, 16 are drawn first: what is read does not grow
    with the corpus. Memory: these columns of a block, and of twice ``rows`` ads.

    Raises:
        Damaged: a block is gone or has changed.
    """
    drawn = heapq.nsmallest(
        _SAMPLED_PARTS,
        parts_of(workspace, scored),
        key=lambda part: (hashing.unit_hash(part.block, seed), part.overlay),
    )
    own = list(dict.fromkeys(["key", *columns]))
    order = [(name, "ascending") for name in ("rank", *own)]
    found: pa.Table | None = None
    for part in drawn:
        table = read_columns(workspace.root, part, own)
        ranks = pa.array(hashing.ranks(table.column("key").to_pylist(), seed))
        table = table.append_column("rank", ranks)
        found = pa.concat_tables([found, table] if found else [table]).sort_by(order)[:rows]
    assert found is not None, "an attempt has parts"
    return found.select(list(columns))


def _order(table: pa.Table) -> pa.Array:
    return pc.sort_indices(table, [("margin", "ascending"), ("key", "ascending")])


def _reader(root: str, block: str, vectors: bool = False) -> parquet.Reader:
    _, rows_footer, vectors_footer = _hashes(block)
    if vectors:
        return parquet.Reader(root, vectors_of(block), vectors_footer)
    return parquet.Reader(root, block, rows_footer)


def _hashes(block: str) -> tuple[Any, ...]:
    match = _NAME.search(block)
    if match is None:
        raise ValueError(f"{block}: not the name of a scored block")
    return match.groups()


def _marker(score_key: str, attempt: str) -> str:
    return f"{corpus_folder(score_key, attempt)}/{_LOST}"


def _lose(root: str, part: ScoredPart) -> None:
    """Note that something of a corpus is lost, where only its readers can find out."""
    if not storage.is_local(root):
        lost = f"{part.overlay.rpartition('/')[0]}/{_LOST}"
        data = json.dumps(asdict(part)).encode()
        storage.write(files.place(root, lost), data)
