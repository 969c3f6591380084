"""Verdicts in tables of one's own, workbooks, CSV or JSON lines: bytes to rows.

Columns of a table, fields of a JSON line (any case; blanks and hyphens count as underscores)::

    field     also called                                        holds
    --------  -------------------------------------------------  ----------------------------------
    ad_id     id (when there is no ad_id and no item_id)         the ad
    item_id   pair_id, pair                                      the review item that showed it
    side      --                                                 left or right, a or b; of a pair
    text      ad_text                                            checked against the ad, if given
    label     verdict                                            a label's name, or skip
    expert    annotator, rater, reviewer, labeler, labeller      who says it
    time      labeled_at, labelled_at, timestamp, date;          ISO 8601 (UTC unless it says
              updated_at, created_at (when none of the others)   otherwise), Unix seconds or
                                                                 milliseconds
    comment   comments, note, notes, rationale                   anything
    skipped   skip                                               yes or no; yes is a skip

A row may hold a whole pair instead: ``label_a`` and ``label_b`` (or ``label_left``,
``label_right``), and in the same way ``ad_id_a``, ``id_a``, ``text_a``, ``comment_a``. Side a is
the left one. Other columns are left alone.

Missing is what is empty, and what data frames and spreadsheets write for it (``pipelines.verdicts.names``).
Columns with tabs between them are quoted, as spreadsheets, pandas and R write them; a line that is no
such row but has the header's cells is taken as it stands.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.contracts import LEFT, RIGHT, Rejected
from pipelines.errors import RunFailed
from pipelines.sources import workbook
from pipelines.sources.csv_lines import CsvLines, NoRecord, Records, style_of
from pipelines.sources.decoding import each_line, is_wide
from pipelines.text import is_missing, normalize_text, storable
from pipelines.verdicts.names import fold_name
from pipelines.verdicts.rows import (
    SKIP,
    RawVerdict,
    cell_of,
    dead_letter,
    decode,
    decode_as,
    is_unsaid,
    normalize_expert,
    parse_json,
)

_MAX_RECORD_CHARS = 16 << 20
_SIDES = {"left": LEFT, "a": LEFT, "l": LEFT, "right": RIGHT, "b": RIGHT, "r": RIGHT}
_YES, _NO = frozenset({"1", "true", "yes", "y", "x"}), frozenset({"", "0", "false", "no", "n"})
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "ad_id": ("ad_id",),
    "item_id": ("item_id", "pair_id", "pair"),
    "side": ("side",),
    "text": ("text", "ad_text"),
    "label": ("label", "verdict"),
    "expert": ("expert", "annotator", "rater", "reviewer", "labeler", "labeller"),
    "time": ("time", "labeled_at", "labelled_at", "timestamp", "date"),
    "comment": ("comment", "comments", "note", "notes", "rationale"),
    "skipped": ("skipped", "skip"),
}
# Names that mean a field only where none of its own names is there.
_FALLBACKS = (("time", "updated_at"), ("time", "created_at"))
# Ids that every encoding holds as they are.
_SAFE_ID = re.compile(r"[\w.:/-]*", re.ASCII)
_BY_SIDE = ("ad_id", "id", "text", "label", "comment")
_WIDE = {
    f"{field}_{word}": (field, side)
    for field in _BY_SIDE
    for word, side in (("a", LEFT), ("left", LEFT), ("b", RIGHT), ("right", RIGHT))
}


def read_csv(data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
    """Yield the rows of a CSV file or workbook, the review sheet that came back or one's own columns, however saved.

    A workbook (.xlsx), or CSV in any encoding with the cells parted by whatever gives the header the
    most known columns; a first line ``sep=;`` is obeyed. Rows without any content are no rows.

    Raises:
        RunFailed: the file is no table, or its header does not do.
    """
    if data.startswith(b"PK\x03\x04"):
        found = workbook.tables(io.BytesIO(data), source, _known_columns)
        for records in found:
            yield from _rows(records, source, lossy=False)
        return
    text, encoding = decode_as(data, source)
    style = style_of(text, _known_columns, whole=True)
    lines = CsvLines(io.StringIO(text, newline=""), _MAX_RECORD_CHARS)
    lossy = encoding.guessed and not is_wide(encoding.name)
    yield from _rows(lines.records(style), source, lossy)


def _rows(records: Records, source: str, lossy: bool) -> Iterator[RawVerdict | Rejected]:
    """Yield the rows of a table.

    Args:
        records: the header first.
        source: the file's name.
        lossy: whether letters may have been lost when it was saved.
    """
    header: list[str] | None = None
    fields: list[str] = []
    for position, cells in records:
        if isinstance(cells, NoRecord):
            if header is None:
                raise RunFailed(f"{source}: the header is no CSV: {cells.error}") from cells.error
            unquoted = cells.line.rstrip("\r\n").split("\t")
            if len(unquoted) == len(header) > 1:
                yield from _to_rows(_cells(fields, unquoted), source, position)
                continue
            yield _unreadable(f"not a CSV row: {cells.error}", source, position, cells.line)
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = cells
            fields = _fields_of(header, source)
            continue
        if any(cell.strip() for cell in cells[len(header) :]):
            detail = f"{len(cells)} cells in the row, {len(header)} in the header"
            yield _unreadable(detail, source, position, ",".join(cells))
            continue
        # Spreadsheets leave out empty cells at a row's end.
        cells += [""] * (len(header) - len(cells))
        for found in _to_rows(_cells(fields, cells), source, position):
            yield _without_lost(found) if lossy and isinstance(found, RawVerdict) else found
    if header is None:
        raise RunFailed(f"{source}: the file is empty")


def _without_lost(row: RawVerdict) -> RawVerdict:
    """Return a row of a file in an 8-bit encoding, without what may have been lost in it.

    Item and side name the ad where id and text may have been spoilt.
    """
    if not row.item_id:
        return row
    id = row.ad_id if _SAFE_ID.fullmatch(row.ad_id) else ""
    # Some programs put the nearest letter that they have in the place of one that they lack.
    text = "" if row.side or id or "?" in row.text else row.text
    return replace(row, ad_id=id, text=text)


def read_jsonl(data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
    """Yield the rows of a file of JSON objects, one a line.

    Raises:
        RunFailed: the file is no text, or one JSON list.
    """
    text = decode(data, source)
    if text.lstrip().startswith("["):
        raise RunFailed(
            f"{source}: a JSON list; write one JSON object a line, or give --tool for the "
            "export of a labeling tool"
        )
    for number, line in enumerate(each_line(text), start=1):
        position = f"line {number}"
        if not line.strip():
            continue
        if len(line) > _MAX_RECORD_CHARS:
            detail = f"longer than {_MAX_RECORD_CHARS:,} characters"
            yield _unreadable(detail, source, position, line)
            continue
        try:
            record = parse_json(line)
            if not isinstance(record, dict):
                raise ValueError(f"expected a JSON object, found {type(record).__name__}")
            row = _json_fields(record)
        except ValueError as error:
            yield _unreadable(str(error), source, position, line)
            continue
        yield from _to_rows(row, source, position)


def _column(name: str) -> str:
    folded = normalize_text(name.replace("\ufeff", ""))
    return re.sub(r"[\s-]+", "_", folded)


def _field(column: str) -> str:
    """Return the field that a normalised column name means, "" for none."""
    for field, names in _COLUMNS.items():
        if column in names:
            return field
    return column if column in _WIDE else ""


def _known_columns(header: Sequence[str]) -> int:
    return sum(bool(_field(_column(cell))) for cell in header)


def _meanings(columns: Sequence[str]) -> list[str]:
    """Return the field of each column, "" for those left alone.

    Raises:
        ValueError: two columns mean the same field.
    """
    names = [_column(column) for column in columns]
    fields = [_field(name) for name in names]
    for field in set(fields) - {""}:
        same = [columns[i] for i, other in enumerate(fields) if other == field]
        if len(same) > 1:
            raise ValueError(f"{' and '.join(map(repr, same))} both mean {field}; remove one")
    fallbacks = [*_FALLBACKS]
    if "item_id" not in fields:
        fallbacks.append(("ad_id", "id"))
    for field, fallback in fallbacks:
        if field not in fields and names.count(fallback) == 1:
            fields[names.index(fallback)] = field
    return fields


def _fields_of(header: Sequence[str], source: str) -> list[str]:
    try:
        fields = _meanings(header)
    except ValueError as error:
        raise RunFailed(f"{source}: columns {error}") from None
    wide = any(_WIDE.get(field, ("", ""))[0] == "label" for field in fields)
    named = {"ad_id", "item_id"} & set(fields) or any(
        f.startswith(("ad_id_", "id_")) for f in fields
    )
    if not named or not ("label" in fields or "skipped" in fields or wide):
        shown = ", ".join(repr(name[:40]) for name in header[:12])
        raise RunFailed(
            f"{source}: the first line must name the columns: ad_id or item_id, label and expert; "
            f"found {storable(shown)}"
        )
    return fields


def _cells(fields: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    row = dict(zip(fields, cells, strict=False))
    row.pop("", None)
    return row


def _json_fields(record: Mapping[str, Any]) -> dict[str, str]:
    # Data frames that were put together have the columns of both, empty where they come from the other.
    given = {name: value for name, value in record.items() if value is not None}
    row: dict[str, str] = {}
    for field, (name, value) in zip(_meanings(list(given)), given.items(), strict=True):
        if isinstance(value, bool) and field == "skipped":
            row[field] = "yes" if value else "no"
        elif field:
            row[field] = cell_of(value, name)
    return row


def _to_rows(row: Mapping[str, str], source: str, position: str) -> Iterator[RawVerdict | Rejected]:
    """Yield what a record says of each of its ads."""

    def refuse(detail: str) -> Rejected:
        excerpt = " | ".join(value for value in row.values() if value.strip())
        return _unreadable(detail, source, position, excerpt)

    def verdict(part: Mapping[str, str], side: str, label: str) -> RawVerdict:
        written = part.get("label", "").strip()
        return RawVerdict(
            ad_id=_first(part.get("ad_id", ""), part.get("id", "")),
            item_id=row.get("item_id", "").strip(),
            side=side,
            text=part.get("text", ""),
            label=label,
            expert=row.get("expert", ""),
            time=row.get("time", "").strip(),
            comment=_first(part.get("comment", ""), row.get("comment", "")),
            source=source,
            position=position,
            spelled=written if is_unsaid(written) and not is_skipped else "",
        )

    def said(part: Mapping[str, str]) -> str:
        label = part.get("label", "").strip()
        return "" if is_unsaid(label) else label

    skipped = fold_name(row.get("skipped", ""))
    is_skipped = skipped in _YES
    if not is_skipped and skipped not in _NO and not is_missing(skipped):
        yield refuse(f"skipped must be yes or no, found {skipped[:40]!r}")
        return
    someone = bool(normalize_expert(row.get("expert", "")))
    wide = {name: value for name, value in row.items() if name in _WIDE}
    if not any(_WIDE[name][0] == "label" for name in wide):
        side = fold_name(row.get("side", ""))
        side = "" if is_missing(side) else side
        if side and side not in _SIDES:
            yield refuse(f"side must be left or right, found {side[:40]!r}")
            return
        # Whoever signs an empty label says that the ad cannot be told.
        unsaid = SKIP if is_skipped or someone else ""
        yield verdict(row, _SIDES.get(side, ""), SKIP if is_skipped else said(row) or unsaid)
        return
    halves: dict[str, dict[str, str]] = {LEFT: {}, RIGHT: {}}
    for name, value in wide.items():
        field, side = _WIDE[name]
        other = halves[side].get(field, value)
        halves[side][field] = _first(other, value)
        if other != value and not is_missing(other) and not is_missing(value):
            yield refuse(f"two columns give different values for the {side} {field}")
            return
    all_skipped = is_skipped or (someone and not any(map(said, halves.values())))
    for side, part in halves.items():
        # Where a column names the ad, a and b need not be the sides of our sheet.
        own_id = _first(part.get("ad_id", ""), part.get("id", ""))
        yield verdict(part, side if is_missing(own_id) else "", SKIP if all_skipped else said(part))


def _first(one: str, other: str) -> str:
    """Return the first of two cells, unless only the second holds anything."""
    return other if is_missing(one) and other.strip() else one


def _unreadable(detail: str, source: str, position: str, excerpt: str) -> Rejected:
    return dead_letter("not_readable_row", detail, source, position, excerpt)
