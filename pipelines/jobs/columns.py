"""Which columns of a corpus are what: a guess by their names and by a sample of their values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.sources.base import ReadOptions
from pipelines.sources.fields import MAX_NAME_CHARS, AdField, check_name, default_name, find
from pipelines.text import script_of

# Objects within objects that are looked into.
_DEPTH = 3
TEXT, ID, WEIGHT, URL, LABEL = "text", "id", "weight", "url", "label"
# What people call columns, in a few languages.
_NAMED = {
    ID: re.compile(r"(^|[\s_.-])(id|key|uid|guid|nr|number)$|(^|[^a-z])ad[\s_-]?id", re.I),
    TEXT: re.compile(
        r"text|headline|title|titel|body|descr|beschreibung|copy|message|creative|content|caption|slogan"
        r"|call.?to.?action|(^|[^a-z])cta($|[^a-z])|überschrift|anzeige",
        re.I,
    ),
    LABEL: re.compile(r"label|class|verdict|violat|category|gold|is_|flag|status|decision", re.I),
}
# Texts of a word or two.
_SHORT = re.compile(
    r"headline|title|titel|call.?to.?action|(^|[^a-z])cta($|[^a-z])|slogan|button", re.I
)
# How much an ad counts, the likeliest first.
_WEIGHTS = [
    re.compile(pattern, re.I)
    for pattern in (
        "weight|gewicht",
        "impr",
        "views?$|reach",
        "clicks?$|klicks?$",
        "spend|cost|kosten",
    )
]
_URL = re.compile(
    r"(https?://|www\.)\S+|[\w-]+(\.[\w-]+)*\.(com|org|net|de|co|io|fr|uk|eu)(/\S*)?", re.I
)
_NUMBER = re.compile(r"[+-]?[$€£]?\s?\d[\d.,' \u00a0\u202f]*%?")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ]\S*)?|\d\d?[./]\d\d?[./]\d{2,4}.*")


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or a field of an object by its dotted path.

    Attributes:
        path: its name.
        kind: ``text``, ``number``, ``url``, ``date`` or ``words`` (few values, or single words).
        filled: share of the records that have it.
        distinct: share of those values that differ.
        chars: mean length, characters.
        example: a value.
        role: what it looks like: one of the roles above, or "".
    """

    path: str
    kind: str
    filled: float
    distinct: float
    chars: float
    example: str
    role: str


def _paths(record: Mapping[str, Any], above: str = "", depth: int = 1) -> Iterator[str]:
    for name, value in record.items():
        path = f"{above}{name}"
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, Mapping) and depth < _DEPTH:
            yield from _paths(inner, f"{path}.", depth + 1)
        else:
            yield path


def columns_of(records: Sequence[Mapping[str, Any]]) -> Iterator[Column]:
    """Yield the columns of some records, in their order, without a role yet."""
    paths = dict.fromkeys(path for record in records for path in _paths(record))
    for path in paths:
        values = [value for record in records if (value := _shown(find(record, path)))]
        if not values:
            yield Column(path, "words", 0.0, 0.0, 0.0, "", "")
            continue
        different = len(set(values)) / len(values)
        yield Column(
            path=path,
            kind=_kind(values),
            filled=len(values) / len(records),
            distinct=different,
            chars=sum(map(len, values)) / len(values),
            example=values[0],
            role="",
        )


def _shown(value: Any) -> str:
    if value is None or isinstance(value, Mapping):
        return ""
    if isinstance(value, list):
        return "\n".join(filter(None, map(_shown, value)))
    return str(value).strip()


def _kind(values: Sequence[str]) -> str:
    for kind, pattern in ((URL, _URL), ("date", _DATE), ("number", _NUMBER)):
        if sum(bool(pattern.fullmatch(value)) for value in values) > 0.9 * len(values):
            return kind
    worded = sum(len(value.split()) > 1 or _is_unspaced(value) for value in values)
    several = len(set(values)) > max(3, 0.02 * len(values))
    return TEXT if worded > 0.5 * len(values) and several else "words"


def _is_unspaced(value: str) -> bool:
    """Tell whether a value is a phrase of a script that parts no words."""
    letters = [char for char in value if char.isalpha()]
    wide = sum(
        script_of(char) in ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER")
        for char in letters
    )
    return len(letters) > 4 and wide > len(letters) / 2


def with_roles(
    columns: Sequence[Column], read: ReadOptions
) -> tuple[list[Column], tuple[str, ...]]:
    """Tell what columns look like; -> them, and those that make the text."""
    chosen = [read.text_field] if read.text_field else _text_of(columns)
    roles = dict.fromkeys(chosen, TEXT)
    plain = [c for c in columns if c.path not in roles and c.kind != TEXT]
    ids = [c for c in plain if c.filled > 0.99 and c.distinct > 0.5 and _NAMED[ID].search(c.path)]
    ids.sort(key=lambda c: (c.path != "id", -c.distinct))
    roles |= dict.fromkeys([read.id_field] if read.id_field else [c.path for c in ids[:1]], ID)
    weights = [c for c in plain if c.kind == "number" and c.filled > 0.99 and c.path not in roles]
    order = [pattern for pattern in _WEIGHTS if any(pattern.search(c.path) for c in weights)]
    likely = [c.path for c in weights if order and order[0].search(c.path)]
    roles |= dict.fromkeys([read.weight_field] if read.weight_field else likely[:1], WEIGHT)
    for column in plain:
        if column.kind == URL:
            roles.setdefault(column.path, URL)
        elif column.kind == "words" and _NAMED[LABEL].search(column.path):
            roles.setdefault(column.path, LABEL)
    return [replace(c, role=roles.get(c.path, "")) for c in columns], tuple(chosen)


def _text_of(columns: Sequence[Column]) -> list[str]:
    """Return the columns that make the ad's text: ``text``, those called so, or the longest."""
    there = [c for c in columns if c.filled > 0.02 and c.kind in (TEXT, "words")]
    if any(c.path == "text" for c in there):
        return ["text"]
    texts = [c for c in there if c.kind == TEXT and c.distinct > 0.02]
    named = [c for c in texts if _NAMED[TEXT].search(default_name(c.path))]
    if not named:
        return [max(texts, key=lambda c: c.chars).path] if texts else []
    # Short as they may be, beside others.
    short = [c for c in there if c.kind == "words" and _SHORT.search(default_name(c.path))]
    return [c.path for c in columns if c in named or c in short]


def ad_fields(text: Sequence[str]) -> tuple[AdField, ...]:
    """Return the fields that make an ad's text, each with a name that a line may begin with."""
    if len(text) == 1 and _is_name(default_name(text[0])):
        return (AdField(text[0], ""),)
    names: list[str] = []
    for path in text:
        name = default_name(path)
        if not _is_name(name):
            name = " ".join(re.sub(r"[^\w./&-]", " ", name).split()).strip(" _-./&") or "Field"
        while name.casefold() in map(str.casefold, names):
            name = f"{name[:36]} {len(names) + 1}"
        names.append(name[:MAX_NAME_CHARS].strip())
    return tuple(AdField(path, name) for path, name in zip(text, names, strict=True))


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except ValueError:
        return False
    return True
