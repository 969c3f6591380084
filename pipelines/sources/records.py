"""A record, as a dictionary, to an ad or to a dead letter."""

from __future__ import annotations

import decimal
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed
from pipelines.sources.base import STAGE, ReadOptions
from pipelines.sources.fields import (
    Unusable,
    compose,
    find,
    is_nothing,
    kind,
    plain_text,
    values_of,
)
from pipelines.text import content_id, content_key, is_blank, storable

# Spend in millionths of a currency reaches 1e9 in a day; what is beyond this is no count of anything.
MAX_WEIGHT = 1e15
_EXCERPT_CHARS = 200
# Doubles are exact up to here.
_ROUNDED_FROM = 2**53
# 1.2021E+17, and long numbers that were floats.
_SHORTENED = re.compile(r"[+-]?(\d[.,]\d+[eE]\+?\d{2}|\d{16,}[.,]0+)")
# 1 234, 1'234 and 1\u202f234; 1,234.5 and 12,34,567; 1.234,5, 1.234.567 and 3,50.
_BLANK_THOUSANDS = re.compile(r"(?<=\d)[\s'\u2019\u00a0\u202f](?=\d{3}(?!\d))")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{2,3})*,\d{3}(\.\d*)?")
_EUROPEAN = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d*)?")
# What can only be a decimal comma, or points that part thousands; and the same with both exchanged.
_DECIMAL_COMMA = re.compile(
    r"\d*,(\d{1,2}|\d{4,})|0,\d+|\d{1,3}(\.\d{3}){2,}|\d{1,3}(\.\d{3})+,\d*"
)
_EXCHANGED = str.maketrans(",.", ".,")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands, and how it begins: what its dead letter would say.

    Attributes:
        source: file or table.
        position: where in it: ``line 12``, ``row 12`` or ``byte 4096``.
        raw: the record as it was found, at least its beginning.
    """

    source: str
    position: str
    raw: bytes | str

    def reject(self, reason: str, detail: str, id: str = "") -> Rejected:
        """Return the dead letter of the record."""
        text = self.raw[: 4 * _EXCERPT_CHARS]
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="backslashreplace")
        return Rejected(
            id=storable(id),
            stage=STAGE,
            reason=reason,
            detail=storable(detail),
            source=self.source,
            position=self.position,
            excerpt=storable(text[:_EXCERPT_CHARS]),
            records=1,
        )


def to_ad(record: Mapping[str, Any], options: ReadOptions, place: Place) -> Ad | Rejected:
    """Return the ad that a record is, or why it is none."""
    if options.whole:
        # Dates, decimals and bytes of Parquet as text; half surrogate pairs as escapes.
        text = json.dumps(record, default=str)
        return Ad("", "", text, 1.0, place.source, place.position)
    id = ""
    try:
        id = _id(record, options)
        if storable(id) != id:
            raise Unusable("not_utf8", f"{options.id_path!r} holds half a surrogate pair")
        text, fields = _text(record, options)
        weight = _weight(record, options.weight_field)
    except Unusable as error:
        return place.reject(error.reason, str(error), id)
    key = content_key(text)
    return Ad(
        id=id or content_id(key),
        key=key,
        text=text,
        weight=weight,
        source=place.source,
        position=place.position,
        fields=fields,
    )


def check_columns(
    place: str,
    names: Sequence[str],
    options: ReadOptions,
    inside: Callable[[str], bool],
    constant: Mapping[str, str] | None = None,
) -> None:
    """Refuse a table without a column that every record would lack, or with two of one name.

    Args:
        place: file or table, for the message.
        names: of its columns.
        options: which of them are needed.
        inside: tells whether a dotted path leads somewhere in it.
        constant: columns that its place gives every record.

    Raises:
        RunFailed: it is refused.
    """
    if options.whole:
        return
    given = constant or {}

    def has(name: str) -> bool:
        return inside(name) or name in given

    texts = options.text_paths
    remedy = "give --text_field, --id_field or --weight_field"
    if options.fields:
        remedy = "mend ad.fields in the task file, --id_field or --weight_field"
        if any(map(has, texts)):
            texts = tuple(field.path for field in options.fields if field.required)
    others = (options.weight_field, options.id_path if options.id_field else "")
    for name in (*texts, *others):
        if name and not has(name):
            columns = ", ".join([*names, *given])
            raise RunFailed(f"{place}: no column {name!r}; its columns are {columns}; {remedy}")
    for name in (*options.text_paths, *others):
        number = list(names).count(name)
        if number > 1:
            raise RunFailed(f"{place}: {number} columns are named {name!r}; rename one")


def _id(record: Mapping[str, Any], options: ReadOptions) -> str:
    path = options.id_path
    value = find(record, path) if path else None
    # NaN stands for null in columns of numbers, and blank cells are missing.
    if value is None or value != value or (isinstance(value, str | bytes) and _is_gap(value)):
        if path and options.id_field:
            raise Unusable("no_id", f"no field {path!r}")
        return ""
    return _id_text(value, path)


def _is_gap(value: str | bytes) -> bool:
    return not value.strip() or (isinstance(value, str) and is_nothing(value))


def _id_text(value: Any, path: str) -> str:
    """Return an id as text: numbers without a point, bytes that are no text as hexadecimal."""
    if isinstance(value, str):
        if _SHORTENED.fullmatch(value.strip()):
            raise Unusable(
                "rounded_id",
                f"{path!r} is {value.strip()!r}, as spreadsheets and data frames write long numbers: digits are "
                "lost; write ids as text",
            )
        return value
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal | uuid.UUID):
        raise Unusable("wrong_type", f"{path!r} must be text or a number: {kind(value)}")
    if isinstance(value, float):
        if not value.is_integer():
            raise Unusable("wrong_type", f"{path!r} must be text or a whole number: {value!r}")
        if abs(value) >= _ROUNDED_FROM:
            raise Unusable(
                "rounded_id",
                f"{path!r} is the decimal number {value:.0f}: from 2^53 on such have lost digits; write "
                "ids as text or as whole numbers",
            )
        return str(int(value))
    if isinstance(value, decimal.Decimal):
        return format(
            value.to_integral_value() if value == value.to_integral_value() else value, "f"
        )
    return str(value)


def _text(record: Mapping[str, Any], options: ReadOptions) -> tuple[str, str]:
    """Return the ad's text, and its fields."""
    if options.fields:
        values = values_of(record, options.fields)
        text, fields = compose(values, options.fields, options.template)
        length = max(len(text), sum(map(len, values.values())))
    else:
        text, fields = plain_text(record, options.text_field or "text"), ""
        length = len(text)
    if length > options.max_text_chars:
        raise Unusable("too_long", f"{length:,} characters, at most {options.max_text_chars:,}")
    if storable(text) != text or storable(fields) != fields:
        raise Unusable("not_utf8", "the text holds half a surrogate pair")
    if is_nothing(text):
        said = repr(text[:_EXCERPT_CHARS]) if not is_blank(text) else ""
        detail = (
            f"{said} stands for no text"
            if said
            else "nothing is left of the text after normalising"
        )
        raise Unusable("empty_text", detail)
    return text, fields


def _weight(record: Mapping[str, Any], path: str) -> float:
    if not path:
        return 1.0
    value = find(record, path)
    if isinstance(value, int | float | str | decimal.Decimal) and not isinstance(value, bool):
        try:
            weight = number_of(value) if isinstance(value, str) else float(value)
        except (ValueError, OverflowError):
            weight = math.nan
        if 0 <= weight <= MAX_WEIGHT:
            return weight
    detail = f"{path!r} must be a finite number from 0 to {MAX_WEIGHT:g}: {value!r}"
    raise Unusable("bad_weight", detail[:200])


def number_of(text: str) -> float:
    """Return the number that a text is, with separators of thousands or without.

    A point is the decimal mark as in every program, unless the text shows that it is not: commas and
    points both there (the last one is the decimal mark), or a sign several times (thousands). A single
    comma before exactly three digits parts thousands (``1,234``), before others it is the decimal mark
    (``3,50``). Blanks and apostrophes part thousands.

    Raises:
        ValueError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        pass
    plain = _BLANK_THOUSANDS.sub("", text.strip())
    if _THOUSANDS.fullmatch(plain):
        return float(plain.replace(",", ""))
    if _EUROPEAN.fullmatch(plain):
        return float(plain.replace(".", "").replace(",", "."))
    return float(plain)


def has_decimal_commas(texts: Iterable[str]) -> bool:
    """Tell whether numbers are written with a decimal comma: some show it, and none shows a point."""
    stripped = [_BLANK_THOUSANDS.sub("", text.strip()) for text in texts]
    return any(map(_DECIMAL_COMMA.fullmatch, stripped)) and not any(
        _DECIMAL_COMMA.fullmatch(exchanged(text)) for text in stripped
    )


def exchanged(text: str) -> str:
    """Return a number with a decimal comma as one with a decimal point."""
    return text.translate(_EXCHANGED)
