"""Scored blocks on storage: what is read is what was written, and no more of it than is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts import BlockFile, scored_schema
from pipelines.numerics import hashing
from pipelines.store import blocks, files
from tests import helpers
from tests.helpers import watched_reads, write_scored_blocks
from tests.stages.test_find_opposite_pairs import scored_rows
from tests.test_contracts import scored_table


def stored(root: Path, rows: int, dim: int = 5) -> tuple[BlockFile, pa.Table]:
    """Write a block; returns its record and its rows in the block's order."""
    table = scored_table(rows, dim)
    place = "rounds/0001/scored/attempt-0001-00000000/block-*.parquet"
    file = blocks.write(str(root), place, table)
    return file, table.sort_by([("margin", "ascending"), ("key", "ascending")])


@pytest.mark.parametrize("rows", [1, 17, 300])
def test_all_rows_some_columns_or_some_rows(tmp_path: Path, rows: int) -> None:
    file, table = stored(tmp_path, rows)
    assert (file.rows, file.bytes) == (rows, (tmp_path / file.path).stat().st_size)
    whole = blocks.read(str(tmp_path), file)
    assert whole.schema.equals(scored_schema(5)) and whole.equals(table)
    names = ["key", "vector"]
    assert blocks.read_columns(str(tmp_path), file, names).equals(table.select(names))
    rng = np.random.default_rng(0)
    for wanted in (rng.random(rows) < 0.1, np.zeros(rows, bool), np.arange(rows) > 250):
        with blocks.OpenBlock(str(tmp_path), file) as block:
            assert block.rows(wanted).equals(table.filter(pa.array(wanted)))
            found = block.rows(wanted, names)
        assert found.equals(table.filter(pa.array(wanted)).select(names))


def test_the_same_rows_are_the_same_file(tmp_path: Path) -> None:
    # Blocks are named by their content: a retried bundle must write the same file.
    file, _ = stored(tmp_path, 30)
    again, _ = stored(tmp_path, 30)
    assert file == again and len(list(tmp_path.rglob("*.parquet"))) == 1
    backwards = blocks.write(
        str(tmp_path), "b-*.parquet", scored_table(30).take(pa.array(range(29, -1, -1)))
    )
    assert backwards.sha256 == file.sha256, "however they came"


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    file, _ = stored(tmp_path, 1000, dim=384)
    with helpers.counted_blocks() as counts:
        blocks.read_columns(str(tmp_path), file, ["margin"])
    assert 0 < counts["ranges"] < 0.03 * file.bytes, "margins and the footer"
    near = np.zeros(1000, dtype=bool)
    near[520:550] = True
    with helpers.counted_blocks() as counts, blocks.OpenBlock(str(tmp_path), file) as block:
        assert block.rows(near).num_rows == 30
    assert 0.1 * file.bytes < counts["ranges"] < 0.16 * file.bytes, "one group of eight"


@pytest.mark.parametrize("where", ["whole", "columns", "rows"])
def test_every_flipped_bit_is_noticed_where_it_matters(tmp_path: Path, where: str) -> None:
    file, table = stored(tmp_path, 140)
    path = tmp_path / file.path
    data = path.read_bytes()
    footer = len(data) - blocks._footer_size(data[-8:])
    names = ["key", "margin", "vector"]
    said: list[str] = []
    # One bit of one byte of seven; the whole file has a hash.
    places = range(0, len(data), 307 if where == "whole" else 7)
    for at in places:
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            if where == "whole":
                blocks.read(str(tmp_path), file)
            elif where == "columns":
                found = blocks.read_columns(str(tmp_path), file, names)
                assert found.equals(table.select(names)), f"byte {at} was not noticed"
            else:
                with blocks.OpenBlock(str(tmp_path), file) as block:
                    found = block.rows(np.arange(140) < 3)
                assert found.equals(table.slice(0, 3)), f"byte {at} was not noticed"
            assert where != "whole" and at < footer, f"byte {at} was not noticed"
        except files.Damaged as error:
            said.append(error.message)
    for message in said:
        assert f"{path.name}: has changed since it was written (" in message
        assert message.endswith("delete it and run again: its ads are scored anew")
    noticed = len(said)
    assert noticed == len(places) if where == "whole" else noticed > len(places) / 3


@pytest.mark.parametrize("how", ["cut", "longer", "gone"])
def test_a_cut_and_a_lost_file_are_named(tmp_path: Path, how: str) -> None:
    file, _ = stored(tmp_path, 20)
    path = tmp_path / file.path
    data = path.read_bytes()
    what = rf"has changed since it was written \([\d,]+ bytes, {file.bytes:,} written\)"
    if how == "gone":
        path.unlink()
        what = "is gone; run again: its ads are scored anew"
    else:
        path.write_bytes(data[:-100] if how == "cut" else data + b"PAR1")
    with pytest.raises(files.Damaged, match=what):
        blocks.read(str(tmp_path), file)
    with pytest.raises(files.Damaged, match=what):
        blocks.read_columns(str(tmp_path), file, ["key"])


def test_a_sample_of_texts_is_uniform_and_does_not_depend_on_the_cut(tmp_path: Path) -> None:
    rows = scored_rows(np.zeros(300, dtype=np.float32))
    whole = write_scored_blocks(tmp_path / "a", [rows])
    cut = write_scored_blocks(tmp_path / "b", [rows.slice(n, 30) for n in range(0, 300, 30)])
    drawn = blocks.sample_texts(str(tmp_path / "a"), whole, 50, seed=3)
    assert drawn == blocks.sample_texts(str(tmp_path / "b"), cut[::-1], 50, seed=3)
    keys = rows.column("key").to_pylist()
    lowest = hashing.lowest_ranks(keys, 50, 3)
    assert set(drawn) == {rows.column("text")[int(i)].as_py() for i in lowest}
    assert drawn != blocks.sample_texts(str(tmp_path / "a"), whole, 50, seed=4)
    everything = blocks.sample_texts(str(tmp_path / "a"), whole, 5000, seed=3)
    assert sorted(everything) == sorted(rows.column("text").to_pylist())


def test_a_sample_reads_so_many_blocks_and_no_more(tmp_path: Path) -> None:
    rows = scored_rows(np.zeros(300, dtype=np.float32))
    cut = write_scored_blocks(tmp_path, [rows.slice(n, 10) for n in range(0, 300, 10)])
    with watched_reads() as paths:
        drawn = blocks.sample_texts(str(tmp_path), cut, 5000, seed=3)
    assert len(drawn) == 160
    assert len({path for path in paths if path.endswith(".parquet")}) == 16
    assert blocks.sample_texts(str(tmp_path), (), 10, seed=3) == ()
