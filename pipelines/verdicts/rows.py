"""Experts' verdicts: files to rows, and what is known of an ad once all rows are in.

Pure functions without Beam pipelines. A *format* turns a file's bytes into :class:`RawVerdict`
rows, one an ad, as the file says it; ``pipelines.verdicts.resolve`` finds out which ad that is
and what the label means. Labeling tools have readers of their own in ``pipelines.tools``.

Columns of a CSV file, fields of a JSON line (any case; blanks and hyphens count as underscores)::

    field     also called                                        holds
    --------  -------------------------------------------------  ----------------------------------
    ad_id     id (when there is no ad_id and no pair_id)         the ad
    pair_id   pair                                               the pair it was shown in
    side      --                                                 left or right, a or b
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
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.contracts import LEFT, RIGHT, SKIP_WORDS, BlockFile, Rejected, Verdict
from pipelines.errors import RunFailed, UsageError
from pipelines.sources.csv_lines import CsvLines
from pipelines.store import blocks, storage
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import normalize_text
from pipelines.verdicts.spreadsheet import unprotected

STAGE = "ReadVerdicts"
POSITIVE, NEGATIVE, SKIP = "positive", "negative", "skip"
HALVES = ("fine_tuning", "evaluation")
MAX_FILE_BYTES = 256 << 20
MAX_COMMENT_CHARS = 10_000
MAX_EXPERT_CHARS = 100
MAX_LABEL_CHARS = 100
_MAX_RECORD_CHARS = 16 << 20
_EXCERPT_CHARS = 200

_SIDES = {"left": LEFT, "a": LEFT, "l": LEFT, "right": RIGHT, "b": RIGHT, "r": RIGHT}
_YES, _NO = frozenset({"1", "true", "yes", "y", "x"}), frozenset({"", "0", "false", "no", "n"})
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "ad_id": ("ad_id",),
    "pair_id": ("pair_id", "pair"),
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
_BY_SIDE = ("ad_id", "id", "text", "label", "comment")
_WIDE = {
    f"{field}_{word}": (field, side)
    for field in _BY_SIDE
    for word, side in (("a", LEFT), ("left", LEFT), ("b", RIGHT), ("right", RIGHT))
}
# As in the review sheet: what a spreadsheet takes for a formula is shown behind an apostrophe.


@dataclass(frozen=True, slots=True)
class RawVerdict:
    """One row of a verdict file, about one ad, as the file says it.

    Attributes:
        ad_id: the ad's id, "" when the row names a side of a pair instead.
        pair_id: the pair, or "".
        side: ``left``, ``right``, or "" when the row does not say.
        text: the ad's text as the file repeats it, or "".
        label: what was chosen: a label's name or ``skip``; "" when nothing was said.
        expert: who said it, "" when the row does not say.
        time: as written, or "".
        comment: as written, or "".
        source: the file.
        position: where in the file, e.g. ``line 12``.
    """

    ad_id: str
    pair_id: str
    side: str
    text: str
    label: str
    expert: str
    time: str
    comment: str
    source: str
    position: str

    def refuse(self, reason: str, detail: str) -> Rejected:
        """Return the dead letter for this row."""
        shown = (self.pair_id, self.side, self.ad_id, self.label, self.expert)
        excerpt = " | ".join(part for part in shown if part)
        return _dead_letter(reason, detail, self.source, self.position, excerpt, self.ad_id)


@dataclass(frozen=True, slots=True)
class LabelNames:
    """What the task calls its two labels."""

    positive: str
    negative: str

    def __post_init__(self) -> None:
        if normalize_text(self.positive) == normalize_text(self.negative):
            raise RunFailed(
                f"the task's labels {self.positive!r} and {self.negative!r} differ only in case or "
                "spacing, so verdicts cannot be told apart; give them two names and mine again"
            )

    def read(self, label: str) -> str | None:
        """Return ``positive``, ``negative`` or ``skip``, or None for anything else.

        The task's own names come first: it may call a label ``unsure``.
        """
        if len(label) > MAX_LABEL_CHARS:
            return None
        word = normalize_text(unprotected(label))
        for name, meaning in (
            (self.positive, POSITIVE),
            (self.negative, NEGATIVE),
            (POSITIVE, POSITIVE),
            (NEGATIVE, NEGATIVE),
        ):
            if word == normalize_text(name):
                return meaning
        return SKIP if word in SKIP_WORDS else None


@dataclass(frozen=True, slots=True)
class ShownAd:
    """An ad as it was put before experts.

    Attributes:
        key: content key.
        ad_id: the ad's id.
        text: as shown.
        pair_id: the pair.
        side: ``left`` or ``right``.
        round: the round.
        order: which of the workspace's pairs attempts showed it, ascending with time.
        current: whether that attempt was mined for the policy and labels of the round's newest one.
        labels: what the task called its labels then; None where that was not stored.
    """

    key: str
    ad_id: str
    text: str
    pair_id: str
    side: str
    round: int
    order: int
    current: bool
    labels: LabelNames | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """All ads put before experts, found by their id or their pair.

    Every pairs attempt counts: each of them may have been handed out.

    Attributes:
        by_ad: ad id -> where it was shown.
        by_pair: pair id -> both its ads, once an attempt.
        round_of: content key -> first round that showed it.
    """

    by_ad: Mapping[str, tuple[ShownAd, ...]]
    by_pair: Mapping[str, tuple[ShownAd, ...]]
    round_of: Mapping[str, int]

    def ads(self) -> Iterator[ShownAd]:
        """Yield every showing of every ad."""
        for showings in self.by_pair.values():
            yield from showings

    def texts(self) -> dict[str, str]:
        """Return content key -> text of all shown ads."""
        return {ad.key: ad.text for ad in self.ads()}


@dataclass(frozen=True, slots=True)
class Definition:
    """What importing needs to know of the task, as it ran.

    Attributes:
        task: its name.
        version: of its policy.
        labels: what it calls its labels.
        evaluation_share: expected share of the evaluation half, above 0, below 1.
        seed: the task's.
    """

    task: str
    version: int
    labels: LabelNames
    evaluation_share: float
    seed: int


@dataclass(frozen=True, slots=True)
class Ratings:
    """Verdicts as a table.

    Attributes:
        keys: n_ads content keys, ascending.
        experts: n_experts names, ascending.
        values: int8 (n_ads, n_experts): 1 positive, 0 negative, -1 missing.
    """

    keys: tuple[str, ...]
    experts: tuple[str, ...]
    values: np.ndarray


# --- formats: bytes to rows -------------------------------------------------------------------


def decode(data: bytes, source: str) -> str:
    """Return a file's text: UTF-8, or UTF-16/32 with its byte order mark.

    Raises:
        RunFailed: empty, compressed, a workbook, binary, or in another encoding.
    """
    if len(data) > MAX_FILE_BYTES:
        raise RunFailed(
            f"{source}: {len(data):,} bytes, at most {MAX_FILE_BYTES:,}; import it in parts"
        )
    for magic, kind, cure in (
        (b"\x1f\x8b", "gzip-compressed", "unpack it first"),
        (b"BZh", "bzip2-compressed", "unpack it first"),
        (b"PK\x03\x04", "a workbook or a zip archive", "save the sheet as 'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook", "save the sheet as 'CSV UTF-8'"),
    ):
        if data.startswith(magic):
            raise RunFailed(f"{source}: is {kind}, not text; {cure}")
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        encoding = "utf-32"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise RunFailed(
            f"{source}: byte {error.start:,} (0x{data[error.start]:02x}) is not "
            f"{'UTF-8' if encoding == 'utf-8-sig' else encoding.upper()}; save the file as UTF-8 "
            "(in Excel: 'CSV UTF-8')"
        ) from error
    if "\0" in text:
        raise RunFailed(
            f"{source}: character {text.index(chr(0)):,} is a NUL: a binary file, or UTF-16 "
            "without its byte order mark; save the file as UTF-8"
        )
    if not text.strip():
        raise RunFailed(f"{source}: the file is empty")
    return text


def read_csv(data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
    """Yield the rows of a CSV file, the review sheet that came back or one's own columns.

    Comma, semicolon or tab, whichever gives the header the most known columns; a first line
    ``sep=;`` is obeyed. Rows without any content are no rows.

    Raises:
        RunFailed: the file is no text, or its header does not do.
    """
    text = decode(data, source)
    # Process-wide, and other readers set it lower.
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_RECORD_CHARS))
    wrapped = io.StringIO(text, newline="")
    lines = CsvLines(wrapped, _MAX_RECORD_CHARS)
    # Old files end their lines with a carriage return alone.
    first, *rest = re.split(r"\r\n|\r|\n", text.lstrip("\r\n"), maxsplit=2)
    hint = re.fullmatch(r"sep=(.)", first.strip().strip('"'), flags=re.IGNORECASE)
    if hint and text.startswith(first):
        next(lines.feed())
        first = rest[0] if rest else ""
    delimiter = hint[1] if hint else max(",;\t", key=lambda char: _known_columns(first, char))
    header: list[str] | None = None
    fields: list[str] = []
    while True:
        try:
            cells = next(csv.reader(lines.feed(), strict=True, delimiter=delimiter), None)
        except csv.Error as error:
            position = lines.position()
            if header is None:
                raise RunFailed(f"{source}: the header is no CSV: {error}") from error
            excerpt = lines.give_back()
            yield _unreadable(f"not a CSV row: {error}", source, position, excerpt)
            continue
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        position = lines.position()
        if header is None:
            header = cells
            fields = _fields_of(header, source)
            continue
        if any(cell.strip() for cell in cells[len(header) :]):
            detail = f"{len(cells)} cells in the row, {len(header)} in the header"
            yield _unreadable(detail, source, position, delimiter.join(cells))
            continue
        # Spreadsheets leave out empty cells at a row's end.
        row = dict(zip(fields, cells + [""] * (len(header) - len(cells)), strict=False))
        row.pop("", None)
        yield from _to_rows(row, source, position)
    if header is None:
        raise RunFailed(f"{source}: the file is empty")


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
    for number, line in enumerate(text.split("\n"), start=1):
        position = f"line {number}"
        if not line.strip():
            continue
        if len(line) > _MAX_RECORD_CHARS:
            detail = f"longer than {_MAX_RECORD_CHARS:,} characters"
            yield _unreadable(detail, source, position, line)
            continue
        try:
            record = json.loads(line, object_pairs_hook=_object)
            if not isinstance(record, dict):
                raise ValueError(f"expected a JSON object, found {type(record).__name__}")
            row = _json_fields(record)
        except (ValueError, RecursionError) as error:
            yield _unreadable(str(error) or type(error).__name__, source, position, line)
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


def _known_columns(header: str, delimiter: str) -> int:
    try:
        cells = next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        return 0
    return sum(bool(_field(_column(cell))) for cell in cells)


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
    if "pair_id" not in fields:
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
    named = {"ad_id", "pair_id"} & set(fields) or any(
        f.startswith(("ad_id_", "id_")) for f in fields
    )
    if not named or not ("label" in fields or "skipped" in fields or wide):
        shown = ", ".join(repr(name[:40]) for name in header[:12])
        raise RunFailed(
            f"{source}: the first line must name the columns: ad_id or pair_id, label and expert; "
            f"found {storable(shown)}"
        )
    return fields


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _json_fields(record: Mapping[str, Any]) -> dict[str, str]:
    row: dict[str, str] = {}
    for field, (name, value) in zip(_meanings(list(record)), record.items(), strict=True):
        if not field:
            continue
        if value is None:
            row[field] = ""
        elif isinstance(value, bool) and field == "skipped":
            row[field] = "yes" if value else "no"
        elif isinstance(value, str):
            row[field] = value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            row[field] = repr(value)
        else:
            raise ValueError(f"{name!r} must be text, found {type(value).__name__}")
    return row


def _to_rows(row: Mapping[str, str], source: str, position: str) -> Iterator[RawVerdict | Rejected]:
    """Yield what a record says of each of its ads."""

    def refuse(detail: str) -> Rejected:
        excerpt = " | ".join(value for value in row.values() if value.strip())
        return _unreadable(detail, source, position, excerpt)

    def verdict(part: Mapping[str, str], side: str, label: str) -> RawVerdict:
        return RawVerdict(
            ad_id=part.get("ad_id", "") or part.get("id", ""),
            pair_id=row.get("pair_id", "").strip(),
            side=side,
            text=part.get("text", ""),
            label=label,
            expert=row.get("expert", ""),
            time=row.get("time", "").strip(),
            comment=part.get("comment", "") or row.get("comment", ""),
            source=source,
            position=position,
        )

    skipped = normalize_text(row.get("skipped", ""))
    if skipped not in _YES | _NO:
        yield refuse(f"skipped must be yes or no, found {skipped[:40]!r}")
        return
    someone = bool(row.get("expert", "").strip())
    wide = {name: value for name, value in row.items() if name in _WIDE}
    if not any(_WIDE[name][0] == "label" for name in wide):
        side = normalize_text(row.get("side", ""))
        if side and side not in _SIDES:
            yield refuse(f"side must be left or right, found {side[:40]!r}")
            return
        label = row.get("label", "").strip()
        # Whoever signs an empty label says that the ad cannot be told.
        if skipped in _YES or (someone and not label):
            label = SKIP
        yield verdict(row, _SIDES.get(side, ""), label)
        return
    halves: dict[str, dict[str, str]] = {LEFT: {}, RIGHT: {}}
    for name, value in wide.items():
        field, side = _WIDE[name]
        if value.strip() and halves[side].setdefault(field, value) != value:
            yield refuse(f"two columns give different values for the {side} {field}")
            return
    if skipped in _YES or (someone and not any(part.get("label") for part in halves.values())):
        for part in halves.values():
            part["label"] = SKIP
    for side, part in halves.items():
        # Where a column names the ad, a and b need not be the sides of our sheet.
        own_id = part.get("ad_id") or part.get("id")
        yield verdict(part, "" if own_id else side, part.get("label", "").strip())


def _unreadable(detail: str, source: str, position: str, excerpt: str) -> Rejected:
    return _dead_letter("not_readable_row", detail, source, position, excerpt, "")


def _dead_letter(
    reason: str, detail: str, source: str, position: str, excerpt: str, id: str
) -> Rejected:
    return Rejected(
        id=storable(id[:_EXCERPT_CHARS]),
        stage=STAGE,
        reason=reason,
        detail=storable(detail),
        source=storable(source),
        position=position,
        excerpt=storable(excerpt[:_EXCERPT_CHARS]),
        records=1,
    )


def storable(text: str) -> str:
    """Write lone surrogates as escapes, so that the text can be stored as UTF-8."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


# --- what a cell means ------------------------------------------------------------------------


def normalize_expert(name: str) -> str:
    """Fold an expert's name, so that one person is one string; "" when nothing is left.

    Unicode NFKC, case folding, white space folded, control and format characters removed.
    """
    folded = normalize_text(unprotected(name))
    # What folding leaves may hide two people behind one look, or hold half a surrogate pair.
    visible = "".join(c for c in folded if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return normalize_text(visible)


def parse_time(text: str) -> str:
    """Return a time as UTC in ISO 8601 to the second; "" for "".

    Args:
        text: ISO 8601, taken for UTC where it names no offset, or Unix seconds (10 digits) or
            milliseconds (13 digits).

    Raises:
        ValueError: it is none of these, or not between 2000 and 2100.
    """
    if not text:
        return ""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if 1e12 <= number < 1e13:
        number /= 1000
    moment: datetime.datetime | None
    try:
        if 1e8 <= number < 1e10:
            moment = datetime.datetime.fromtimestamp(number, datetime.UTC)
        else:
            moment = datetime.datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=datetime.UTC)
            moment = moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or not 2000 <= moment.year < 2100:
        raise ValueError(
            f"{text[:40]!r} is no time between 2000 and 2100; write 2026-11-22T14:05:00Z, or Unix "
            "seconds"
        )
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def cut_comment(comment: str) -> str:
    """Return a comment of at most ``MAX_COMMENT_CHARS`` characters and a note where it was cut."""
    comment = storable(unprotected(comment.strip()))
    if len(comment) <= MAX_COMMENT_CHARS:
        return comment
    return f"{comment[:MAX_COMMENT_CHARS]} [cut: {len(comment):,} characters]"


# --- what the workspace knows -----------------------------------------------------------------


def shown_ads(workspace: Workspace) -> Shown:
    """Return all ads that any pairs attempt of any round put before experts.

    Memory: about 1 KB an ad and its text.
    """
    by_ad: dict[str, list[ShownAd]] = {}
    by_pair: dict[str, list[ShownAd]] = {}
    round_of: dict[str, int] = {}
    order = 0
    for number in workspace.rounds():
        manifests = workspace.manifests(number, "pairs")
        for manifest in manifests:
            order += 1
            current = _guideline(manifest) == _guideline(manifests[-1])
            names = _label_names(manifest)
            for item in workspace.read_items(manifest):
                for side, ad in item.sides():
                    showing = ShownAd(
                        key=ad.key,
                        ad_id=ad.id,
                        text=ad.text,
                        pair_id=item.item_id,
                        side=side,
                        round=number,
                        order=order,
                        current=current,
                        labels=names,
                    )
                    by_ad.setdefault(showing.ad_id, []).append(showing)
                    by_pair.setdefault(showing.pair_id, []).append(showing)
                    round_of.setdefault(showing.key, number)
    return Shown(
        by_ad={id: tuple(found) for id, found in by_ad.items()},
        by_pair={id: tuple(found) for id, found in by_pair.items()},
        round_of=round_of,
    )


def _guideline(manifest: Manifest) -> tuple[int, str]:
    return manifest.facts["task_version"], manifest.facts.get("guideline", "")


def _label_names(manifest: Manifest) -> LabelNames | None:
    names = manifest.facts.get("definition", {}).get("labels")
    return LabelNames(names["positive"], names["negative"]) if names else None


def task_definition(workspace: Workspace) -> Definition:
    """Return what the newest pairs attempt says of its task.

    Raises:
        UsageError: nothing was mined in this workspace.
        RunFailed: an earlier version mined it, which did not store the task.
    """
    for number in reversed(workspace.rounds()):
        manifest = workspace.latest(number, "pairs")
        if manifest:
            break
    else:
        raise UsageError(
            f"--workspace {workspace.root}: holds no pairs, so there is nothing to have verdicts "
            "on; run `scout mine` first"
        )
    try:
        task = manifest.facts["definition"]
        return Definition(
            task=manifest.facts["task"],
            version=int(manifest.facts["task_version"]),
            labels=LabelNames(task["labels"]["positive"], task["labels"]["negative"]),
            evaluation_share=float(task["review"]["evaluation_share"]),
            seed=int(task["seed"]),
        )
    except KeyError as error:
        raise RunFailed(
            f"{workspace.path(manifest.attempt)}/manifest.json: does not hold the task's {error}; "
            "an earlier version of ad-scout wrote it: mine again with this one"
        ) from None


def to_lines(verdicts: Iterable[Verdict]) -> bytes:
    """Return verdicts as JSON lines, in their order."""
    fields = Verdict.__dataclass_fields__
    lines = (
        json.dumps({name: getattr(verdict, name) for name in fields}, ensure_ascii=False)
        for verdict in verdicts
    )
    return "".join(f"{line}\n" for line in lines).encode()


def from_lines(data: bytes) -> list[Verdict]:
    """Read what :func:`to_lines` wrote."""
    return [Verdict(**json.loads(line)) for line in data.splitlines()]


def read_whole(workspace: Workspace, file: BlockFile) -> bytes:
    """Return a file that a manifest lists.

    Raises:
        RunFailed: it is gone or has changed.
    """
    path = workspace.path(file.path)
    try:
        data = storage.read(path)
    except FileNotFoundError:
        raise RunFailed(f"{path}: is gone; restore it, the manifest counts on it") from None
    if blocks.sha256(data) != file.sha256:
        raise RunFailed(
            f"{path}: has changed since it was written ({len(data):,} bytes, {file.bytes:,} "
            "written); restore it"
        )
    return data


def files_of(manifest: Manifest, kind: str) -> list[BlockFile]:
    """Return a verdicts manifest's files of one kind (``fine_tuning``, ``sides``, ...), in order."""
    return [
        file for file in manifest.files if re.split(r"[-.]", file.path.split("/")[-1])[0] == kind
    ]


def read_half(workspace: Workspace, half: str, task_version: int) -> list[Verdict]:
    """Return all verdicts of one half, in the order in which they were imported.

    Args:
        workspace: the workspace.
        half: ``fine_tuning``, or ``evaluation``, which only the evaluator may ask for.
        task_version: rounds mined for another version of the policy are left out.

    Raises:
        RunFailed: a file is gone or has changed.
    """
    if half not in HALVES:
        raise ValueError(f"half must be one of {HALVES}, got {half!r}")
    found: list[Verdict] = []
    for number in workspace.rounds():
        verdicts, pairs = workspace.latest(number, "verdicts"), workspace.latest(number, "pairs")
        if verdicts is None or pairs is None or pairs.facts["task_version"] != task_version:
            continue
        for file in files_of(verdicts, half):
            found.extend(from_lines(read_whole(workspace, file)))
    return found


def latest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return the last verdict of each expert on each ad, sorted by ad and expert.

    Args:
        verdicts: in the order of import. The one imported last is the last, unless it has a time and
            one imported before has a later one. A later skip withdraws a label.
    """
    last: dict[tuple[str, str], Verdict] = {}
    newest: dict[tuple[str, str], str] = {}
    for verdict in verdicts:
        place = (verdict.key, verdict.expert)
        # ISO 8601 in UTC to the second: the order of the strings is that of the moments.
        if verdict.time and verdict.time < newest.get(place, ""):
            continue
        last[place] = verdict
        newest[place] = verdict.time or newest.get(place, "")
    return [last[place] for place in sorted(last)]


def ratings(verdicts: Iterable[Verdict]) -> Ratings:
    """Return the last verdicts as a table of ads by experts.

    An ad that was only ever skipped keeps its row, all of it missing.
    """
    final = latest(verdicts)
    keys = tuple(sorted({verdict.key for verdict in final}))
    experts = tuple(sorted({verdict.expert for verdict in final}))
    row = {key: i for i, key in enumerate(keys)}
    column = {expert: i for i, expert in enumerate(experts)}
    values = np.full((len(keys), len(experts)), -1, dtype=np.int8)
    number = {POSITIVE: 1, NEGATIVE: 0, SKIP: -1}
    for verdict in final:
        values[row[verdict.key], column[verdict.expert]] = number[verdict.label]
    return Ratings(keys, experts, values)
