"""Every type that Parquet can hold, with values that Python has no object for: an ad or a dead letter a row."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import lib

from pipelines.contracts import Ad, Rejected
from pipelines.sources.base import Listed, Range, ReadOptions
from pipelines.sources.fields import AdField
from pipelines.sources.files import Files
from tests.faults import refusal

_MOST, _LEAST = 2**63 - 1, -(2**63)


def of_int64(kind: pa.DataType) -> pa.Array:
    return pa.array([0, 1_764_000_000, _MOST, _LEAST, None], pa.int64()).view(kind)


def of_int32(kind: pa.DataType) -> pa.Array:
    return pa.array([0, 86_399, 2**31 - 1, -(2**31), None], pa.int32()).view(kind)


def damaged(kind: pa.DataType) -> pa.Array:
    """Return texts of which some are no UTF-8."""
    return pa.array([b"An ad", b"\xff\xfe", b"", b"\xed\xa0\x80", None], kind)


def timestamps(unit: str, zone: str | None) -> pa.Array:
    # Parquet knows no seconds: they are written as milliseconds.
    scale = 1000 if unit == "s" else 1
    values = [0, 1_764_000_000, _MOST // scale, -(_MOST // scale), None]
    return pa.array(values, pa.int64()).view(pa.timestamp(unit, zone))


def numbers(kind: pa.DataType, *values: Any) -> pa.Array:
    return pa.array([*values, None], kind)


def decimals(kind: Callable[[int, int], pa.DataType], digits: int) -> pa.Array:
    most = decimal.Decimal("9" * digits)
    return pa.array([decimal.Decimal(0), most, most.copy_negate(), None], kind(digits, 0))


_UNITS = ("s", "ms", "us", "ns")
_ZONES = (None, "UTC", "Europe/Paris", "Mars/Olympus", "+99:99", "\u202e")
_TEXTS = ["An ad", None]
_INTS = {
    "Type_INT8": (pa.int8(), -128, 127),
    "Type_INT16": (pa.int16(), -(2**15), 2**15 - 1),
    "Type_INT32": (pa.int32(), -(2**31), 2**31 - 1),
    "Type_INT64": (pa.int64(), _LEAST, _MOST),
    "Type_UINT8": (pa.uint8(), 0, 255),
    "Type_UINT16": (pa.uint16(), 0, 2**16 - 1),
    "Type_UINT32": (pa.uint32(), 0, 2**32 - 1),
    "Type_UINT64": (pa.uint64(), 0, 2**64 - 1),
}
_FLOATS = (0.0, 1.5, float("nan"), float("inf"), float("-inf"))
# Name of the type, as pyarrow counts its types -> columns of it.
COLUMNS: dict[str, list[pa.Array]] = {
    **{name: [numbers(kind, *values)] for name, (kind, *values) in _INTS.items()},
    "Type_NA": [pa.nulls(3)],
    "Type_BOOL": [numbers(pa.bool_(), True, False)],
    "Type_HALF_FLOAT": [numbers(pa.float16(), *_FLOATS)],
    "Type_FLOAT": [numbers(pa.float32(), *_FLOATS)],
    "Type_DOUBLE": [numbers(pa.float64(), *_FLOATS, 1e308, 2.0**53)],
    "Type_DECIMAL32": [decimals(pa.decimal32, 9)],
    "Type_DECIMAL64": [decimals(pa.decimal64, 18)],
    "Type_DECIMAL128": [decimals(pa.decimal128, 38)],
    "Type_DECIMAL256": [decimals(pa.decimal256, 76)],
    "Type_DATE32": [of_int32(pa.date32())],
    "Type_DATE64": [of_int64(pa.date64())],
    "Type_TIME32": [of_int32(pa.time32(unit)) for unit in ("s", "ms")],
    "Type_TIME64": [of_int64(pa.time64(unit)) for unit in ("us", "ns")],
    "Type_TIMESTAMP": [timestamps(unit, zone) for unit in _UNITS for zone in _ZONES],
    "Type_DURATION": [of_int64(pa.duration(unit)) for unit in _UNITS],
    "Type_STRING": [damaged(pa.binary()).view(pa.string())],
    "Type_LARGE_STRING": [damaged(pa.large_binary()).view(pa.large_string())],
    "Type_STRING_VIEW": [pa.array(_TEXTS, pa.string_view())],
    "Type_BINARY": [damaged(pa.binary())],
    "Type_LARGE_BINARY": [damaged(pa.large_binary())],
    "Type_BINARY_VIEW": [damaged(pa.binary_view())],
    "Type_FIXED_SIZE_BINARY": [
        pa.array([b"four", b"\xff\xff\xff\xff", None], pa.binary(4)),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"\xff" * 16, None], pa.binary(16))),
    ],
    "Type_LIST": [
        pa.array([_TEXTS, [], None], pa.list_(pa.string())),
        pa.ListArray.from_arrays(pa.array([0, 5], pa.int32()), timestamps("s", "Mars/Olympus")),
    ],
    "Type_LARGE_LIST": [pa.array([_TEXTS, None], pa.large_list(pa.string()))],
    # One that is missing is written by pyarrow, but not read again.
    "Type_FIXED_SIZE_LIST": [pa.array([_TEXTS, _TEXTS], pa.list_(pa.string(), 2))],
    "Type_LIST_VIEW": [pa.array([_TEXTS, None], pa.list_view(pa.string()))],
    "Type_LARGE_LIST_VIEW": [pa.array([_TEXTS, None], pa.large_list_view(pa.string()))],
    "Type_STRUCT": [
        pa.array([{"text": "An ad"}, {"text": None}, None]),
        pa.StructArray.from_arrays([of_int64(pa.date64())], ["text"]),
        # One name twice.
        pa.StructArray.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]),
    ],
    "Type_MAP": [pa.array([[("text", "An ad")], [], None], pa.map_(pa.string(), pa.string()))],
    "Type_DICTIONARY": [
        pa.array(["An ad", "Another", None]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), damaged(pa.binary())[:4]),
    ],
}
# What Parquet cannot hold, or pyarrow cannot write into it.
NOT_IN_PARQUET = {
    "Type_DENSE_UNION",
    "Type_SPARSE_UNION",
    "Type_RUN_END_ENCODED",
    "Type_INTERVAL_MONTHS",
    "Type_INTERVAL_DAY_TIME",
    "Type_INTERVAL_MONTH_DAY_NANO",
}
ODD = [(name, n) for name in sorted(COLUMNS) for n in range(len(COLUMNS[name]))]
USES: dict[str, ReadOptions] = {
    "as the text": ReadOptions(text_field="odd"),
    "as a part of the text": ReadOptions(text_field="odd.text"),
    "as the id": ReadOptions(id_field="odd"),
    "as the weight": ReadOptions(weight_field="odd"),
    "as a field": ReadOptions(fields=(AdField("plain", "Text"), AdField("odd", "Odd"))),
    "by init": ReadOptions(whole=True),
}


def test_every_type_is_here() -> None:
    known = {name for name in dir(lib) if name.startswith("Type_")}
    assert set(COLUMNS) | NOT_IN_PARQUET == known
    for name in COLUMNS:
        assert {column.type.id for column in COLUMNS[name]} == {
            getattr(lib, name)
        } or name == "Type_FIXED_SIZE_BINARY"


def test_what_is_left_out_cannot_be_written(tmp_path: Path) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array(["a"])])
    months = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a"]))
    for column in (union, months, runs):
        with pytest.raises((pa.ArrowNotImplementedError, pa.ArrowInvalid)):
            pq.write_table(pa.table({"odd": column}), tmp_path / "a.parquet")


@pytest.mark.parametrize(("name", "number"), ODD)
def test_each_row_is_an_ad_or_a_dead_letter(name: str, number: int, tmp_path: Path) -> None:
    column = COLUMNS[name][number]
    rows = len(column)
    plain = [f"Ad number {n}" for n in range(rows)]
    path = tmp_path / "a.parquet"
    columns = {"odd": column, "plain": plain, "text": plain}
    pq.write_table(pa.table(columns), path, version="2.6")
    part = Range("files", str(path), "parquet", 0, -1, path.stat().st_size)
    for use, options in USES.items():
        found: list[Ad | Rejected] = []
        if told := refusal(
            lambda options=options, found=found: found.extend(Files().read(part, options))
        ):
            # A path into what has no parts.
            assert "no column 'odd.text'" in told, use
            continue
        assert len(found) == rows, use
        assert all(isinstance(one, Ad | Rejected) for one in found), use
        assert all(one.position == f"row {n}" for n, one in enumerate(found, start=1)), use


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (of_int64(pa.timestamp("ms")), "timestamp[ms]"),
        (of_int32(pa.date32()), "date32[day]"),
        (timestamps("us", "Mars/Olympus"), "timestamp[us, tz=Mars/Olympus]"),
    ],
)
def test_a_value_that_cannot_be_told_says_so(column: pa.Array, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"Ad number {n}" for n in range(5)]
    pq.write_table(pa.table({"id": column, "text": texts}), path)
    part = Range("files", str(path), "parquet", 0, -1, path.stat().st_size)
    bad = [one for one in Files().read(part, ReadOptions()) if isinstance(one, Rejected)]
    untold = [one for one in bad if one.reason == "bad_value"]
    assert untold
    assert untold[0].detail.startswith(f"'id' holds {what} that cannot be told (")
    assert untold[0].source == str(path)


def test_damaged_bytes_are_one_error(tmp_path: Path) -> None:
    """Each byte of a small file, changed: the same rows, fewer good ones, or one sentence with the file's name."""
    path = tmp_path / "a.parquet"
    texts = [f"Ad number {n}" for n in range(40)]
    pq.write_table(pa.table({"id": texts, "text": texts}), path, row_group_size=20)
    data = path.read_bytes()
    for place in range(0, len(data), 17):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        # Small ranges look at the footer, too.
        item = Listed("files", str(path), len(data), "")
        found: list[Ad | Rejected] = []

        def read(item: Listed = item, found: list[Ad | Rejected] = found) -> None:
            for part in Files().ranges(item, ReadOptions(format="parquet"), 500):
                found.extend(Files().read(part, ReadOptions()))

        told = refusal(read)
        assert told.startswith(str(path)) if told else len(found) == 40, place
