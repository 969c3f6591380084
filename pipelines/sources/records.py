"""A record, as a dictionary, to an ad or to a dead letter."""

from __future__ import annotations

import decimal
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.contracts import Ad, Rejected
from pipelines.sources.base import STAGE, ReadOptions
from pipelines.sources.fields import Unusable, compose, find, kind, plain_text, values_of
from pipelines.text import content_id, content_key, is_blank, storable

MAX_WEIGHT = 1e9
_EXCERPT_CHARS = 200


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


def _id(record: Mapping[str, Any], options: ReadOptions) -> str:
    path = options.id_path
    value = find(record, path) if path else None
    if value is None or value == "":
        if path and options.id_field:
            raise Unusable("no_id", f"no field {path!r}")
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Unusable("wrong_type", f"{path!r} must be text or an integer: {kind(value)}")
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
    if is_blank(text):
        raise Unusable("empty_text", "nothing is left of the text after normalising")
    return text, fields


def _weight(record: Mapping[str, Any], path: str) -> float:
    if not path:
        return 1.0
    value = find(record, path)
    if isinstance(value, int | float | str | decimal.Decimal) and not isinstance(value, bool):
        try:
            weight = float(value)
        except (ValueError, OverflowError):
            weight = math.nan
        if 0 <= weight <= MAX_WEIGHT:
            return weight
    detail = f"{path!r} must be a finite number from 0 to {MAX_WEIGHT:g}: {value!r}"
    raise Unusable("bad_weight", detail[:200])
