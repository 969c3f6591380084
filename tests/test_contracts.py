"""Every record survives its coder, and blocks survive bytes and Parquet."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from apache_beam import coders

import pipelines.stages  # noqa: F401 (registers the coders)
from pipelines import contracts
from pipelines.contracts import (
    Ad,
    Block,
    BlockFile,
    Rejected,
    ScoredPart,
    Tally,
    scored_schema,
)
from pipelines.store import blocks

FILE = BlockFile("rounds/0001/x.parquet", 3, 400, "ab" * 32)
EXAMPLES = [
    ScoredPart("scores/k/keys-all/x.rows.parquet", "scores/k/corpora/a/new.parquet", 2, 9),
    Ad("1", "k" * 32, "Füße ✓ \x00", 1.5, "a.jsonl", "line 1", '[["CTA", "Füße"]]'),
    Rejected("", "ReadAds", "not_json", "why", "f", "line 2", "{", 1),
    Block(2, b"\x00\xff"),
    FILE,
    Tally(10, 2, '{"no_text": 2}', "{}", 8, "8.25"),
]


def test_there_is_an_example_of_every_record() -> None:
    assert {type(example) for example in EXAMPLES} == set(contracts.RECORDS)


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_survives_its_coder(record: object) -> None:
    coder = coders.registry.get_coder(type(record))
    assert isinstance(coder, coders.RowCoder)
    assert coder.decode(coder.encode(record)) == record
    # Slots: a misspelt field is an error, not a new attribute.
    with pytest.raises((AttributeError, TypeError)):
        record.nonsense = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_every_field_is_documented(record: object) -> None:
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        assert field.name in (type(record).__doc__ or "")


def scored_table(rows: int, dim: int = 5) -> pa.Table:
    rng = np.random.default_rng(rows)
    columns = [
        pa.array([f"{n:032x}" for n in range(rows)]),
        pa.array([f"id{n}" for n in range(rows)]),
        pa.array([f"text {n} \u05d0" for n in range(rows)]),
        pa.array([""] * rows),
        pa.array(np.full(rows, 1000)),
        pa.array(np.ones(rows, dtype=np.int64)),
        pa.array((rng.integers(-9, 9, rows) / 256).astype(np.float32)),
        pa.array(np.full(rows, 7, dtype=np.int32)),
        pa.array(np.zeros(rows, dtype=bool)),
        blocks.vector_array(rng.normal(size=(rows, dim))),
    ]
    return pa.Table.from_arrays(columns, schema=scored_schema(dim))


@pytest.mark.parametrize("rows", [0, 1, 17])
def test_a_block_survives_bytes(rows: int) -> None:
    table = scored_table(rows)
    assert blocks.from_block(blocks.to_block(table)).equals(table)
    assert blocks.vectors(table).shape == (rows, 5)


def test_vectors_of_a_slice_and_of_several_chunks() -> None:
    table = scored_table(9)
    whole = blocks.vectors(table)
    np.testing.assert_array_equal(blocks.vectors(table.slice(4, 3)), whole[4:7])
    parts = pa.concat_tables([table.slice(5), table.slice(0, 2)])
    np.testing.assert_array_equal(blocks.vectors(parts), whole[[5, 6, 7, 8, 0, 1]])


def test_concat_joins_and_refuses_nothing() -> None:
    table = scored_table(6)
    joined = blocks.concat([blocks.to_block(table.slice(0, 2)), blocks.to_block(table.slice(2))])
    assert joined.equals(table)
    with pytest.raises(ValueError, match="at least one block"):
        blocks.concat([])
