"""The parts of an ad: found in a record by their paths, made into one text, shown apart.

The text is what the model, the content key and the search see. What people see are the parts, which
travel apart (``Ad.fields``), so that no part can pass for another one.
"""

from __future__ import annotations

import decimal
import difflib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.text import is_blank, is_missing

MAX_NAME_CHARS = 40
_LONGEST_GAP = 32
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class AdField:
    """One part of an ad.

    Attributes:
        path: where records hold it: a column's or a key's whole name, else a dotted path.
        name: what people and the model see it called; "" for an only field that is the whole ad.
        required: a record without it is rejected; otherwise it is left out.
    """

    path: str
    name: str
    required: bool = False


class Unusable(ValueError):
    """A record that makes no ad.

    Attributes:
        reason: the dead letter's reason code.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def find(record: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, or None.

    A key called like the whole path comes first. In a list, the path goes on in each of its items.
    """
    if path in record:
        return record[path]
    value: Any = record
    for part in path.split("."):
        value = _step(value, part)
    return value


def _step(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    return [_step(item, part) for item in value] if isinstance(value, list) else None


def kind(value: Any) -> str:
    """Name the type of a value that JSON or Parquet holds, for a message."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def plain_text(record: Mapping[str, Any], path: str) -> str:
    """Return the text of a record whose ad is one field.

    Raises:
        Unusable: there is none, or it is no text.
    """
    text = find(record, path)
    if text is None:
        raise Unusable("no_text", f"no field {path!r}")
    if isinstance(text, bytes):
        return _decoded(text)
    if not isinstance(text, str):
        raise Unusable("wrong_type", f"{path!r} must be text: {kind(text)}")
    return text


def values_of(record: Mapping[str, Any], fields: Sequence[AdField]) -> dict[str, str]:
    """Return path -> text of the fields that a record has; a blank one, or a gap, counts as missing.

    Numbers, true and false become text as JSON writes them; the items of a list stand on lines of their own.

    Raises:
        Unusable: a required field is missing, or one is no text.
    """
    values = {}
    for field in fields:
        text = _as_text(find(record, field.path), field.path)
        if not is_nothing(text):
            values[field.path] = text
        elif field.required:
            detail = f"{field.path!r} is missing or blank, and the task file requires it"
            raise Unusable("no_field", detail)
    return values


def is_nothing(text: str) -> bool:
    """Tell whether a text is blank, or what programs write where there is none (``NaN``, ``#N/A``, ``--``)."""
    # Before an ad of usual length nothing is computed.
    return is_blank(text) or (len(text) <= _LONGEST_GAP and is_missing(text))


def _as_text(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN stands for null in columns of numbers.
        return ""
    if isinstance(value, bytes):
        return _decoded(value)
    if isinstance(value, list):
        items = [_as_text(item, path) for item in value]
        return "\n".join(item for item in items if not is_blank(item))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, int | float):
        return str(value)
    raise Unusable(
        "wrong_type",
        f"{path!r} must be text, a number, true, false or a list of them: {kind(value)}",
    )


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable("not_utf8", "the text is not UTF-8") from error


def compose(values: Mapping[str, str], fields: Sequence[AdField], template: str) -> tuple[str, str]:
    """Make one text of an ad's fields.

    White space inside a field is folded to blanks, so that no field can forge another one's line.
    Template lines of which every field is missing are left out. An only field without a name is
    the text as it is.

    Args:
        values: as :func:`values_of` returns them.
        fields: all fields, in order.
        template: text with the fields' names in braces; "" is a line a field, ``Name: value``.

    Returns:
        the text, and the fields as a JSON list of [name, value] with the values as they were read
        ("" for an ad that is only its text).

    Raises:
        Unusable: no field that the text is made of is there.
    """
    if not fields[0].name:
        if not values:
            raise Unusable("no_text", f"nothing to read in {fields[0].path!r}")
        return values[fields[0].path], ""
    # One pass over the template alone: braces inside a value are never looked at.
    wanted = set(_PLACEHOLDER.findall(template)) if template else {f.name for f in fields}
    folded = {f.name: " ".join(values[f.path].split()) for f in fields if f.path in values}
    if wanted.isdisjoint(folded):
        paths = ", ".join(repr(f.path) for f in fields if f.name in wanted)
        raise Unusable("no_text", f"nothing to read in {paths}")
    if template:
        lines = [_filled(line, folded) for line in template.split("\n")]
    else:
        lines = [f"{name}: {value}" for name, value in folded.items()]
    shown = [[f.name, values[f.path]] for f in fields if f.path in values]
    text = "\n".join(line for line in lines if line is not None)
    return text, json.dumps(shown, ensure_ascii=False)


def _filled(line: str, values: Mapping[str, str]) -> str | None:
    """Fill a template's line in; None when all of its fields are missing."""
    names = _PLACEHOLDER.findall(line)
    if names and not any(name in values for name in names):
        return None
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], ""), line)


def default_name(path: str) -> str:
    """Return the name of a field that was given none: the last part of its path."""
    return path.rpartition(".")[2]


def check_name(name: str) -> None:
    """Refuse a name that could not stand in a line or a placeholder.

    Raises:
        ValueError: it is empty, too long, or holds other than letters, digits and a few marks.
    """
    if (
        not name
        or len(name) > MAX_NAME_CHARS
        or name != name.strip()
        or not name[0].isalnum()
        or any(unicodedata.category(c)[0] not in "LMN" and c not in " _-./&" for c in name)
    ):
        raise ValueError(
            f"a field's name begins with a letter or digit and holds letters, digits, blanks and "
            f"_-./&, at most {MAX_NAME_CHARS}; {name!r} does not do"
        )


def check_template(template: str, names: Sequence[str]) -> None:
    """Refuse a template that does not go with its fields.

    Raises:
        ValueError: a placeholder names no field, or there is none.
    """
    used = _PLACEHOLDER.findall(template)
    known = ", ".join(f"{{{name}}}" for name in names)
    for name in used:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {{{near[0]}}}?" if near else f"use {known}"
            raise ValueError(f"no field is called {{{name}}}; {hint}")
    if not used:
        raise ValueError(f"holds no field; use {known}")
