"""ReadVerdicts: verdict files to verdicts on shown ads, with a dead letter for every other row.

An ad is found by its id, by its pair and side, or by both. What a row says beside that (its pair,
side, text) must fit the ad: a sheet whose rows were shifted would otherwise label the wrong ads.

A *half pair* is a row that names its pair where the same expert said nothing in this file about
the pair's other ad. A skip says something; so does an answer that was refused for another reason.
A row that names only an ad stands for itself, which is how a single verdict is corrected.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Rejected, Verdict
from pipelines.store import blocks, storage
from pipelines.text import content_key
from pipelines.tools.formats import READERS
from pipelines.verdicts.rows import (
    MAX_EXPERT_CHARS,
    STAGE,
    LabelNames,
    RawVerdict,
    Shown,
    ShownAd,
    cut_comment,
    normalize_expert,
    parse_time,
    storable,
    unprotected,
)

VERDICTS, REJECTED, IMPORTS = "verdicts", "rejected", "imports"
# An id that a spreadsheet took for a number: rounded, or with a decimal point.
_NUMBER = re.compile(r"\d+([.,]\d+)?[eE]\+?\d+|\d+\.0*")


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """A file to read.

    Attributes:
        order: place in the import, from 0; of two verdicts without times the later file's counts.
        path: where it lies.
        tool: one of ``pipelines.tools.formats.READERS``.
    """

    order: int
    path: str
    tool: str


@dataclass(frozen=True, slots=True)
class Import:
    """What one file held.

    Attributes:
        order: place in the import.
        source: as ``Verdict.source`` names it.
        name: file name without its folder.
        sha256: of its bytes and of who was said to speak in it (:func:`file_identity`), 64 hex
            characters: what makes it the same import.
        content: SHA-256 of its bytes alone.
        tool: its format.
        unanswered: places for a verdict that were left empty.
        changed_mind: rows in which an expert contradicts an earlier row of their own in this file.
    """

    order: int
    source: str
    name: str
    sha256: str
    content: str
    tool: str
    unanswered: int
    changed_mind: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows become verdicts.

    Attributes:
        shown: all ads that were put before experts.
        labels: the task's names for its labels, for ads whose own are not known.
        expert: who speaks where a file names nobody at all, or "".
        experts: other names of experts, normalised -> normalised (a tool's user numbers).
    """

    shown: Shown
    labels: LabelNames
    expert: str = ""
    experts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A file's rows, understood or refused.

    Attributes:
        verdicts, rejected: in the order of the rows.
        unanswered, changed_mind: see :class:`Import`.
    """

    verdicts: tuple[Verdict, ...]
    rejected: tuple[Rejected, ...]
    unanswered: int
    changed_mind: int


def find_ad(raw: RawVerdict, shown: Shown) -> ShownAd | Rejected:
    """Return the showing that a row is about, or why there is none."""
    members = shown.by_pair.get(raw.pair_id, ())
    if raw.pair_id and not members:
        return raw.refuse("unknown_pair", f"no pair {raw.pair_id[:60]!r} was shown")
    if raw.ad_id.strip():
        found = _by_id(raw.ad_id, shown)
        if not found:
            return raw.refuse("unknown_ad", _unknown_ad(raw.ad_id, shown))
        if raw.pair_id:
            found = tuple(ad for ad in found if ad.pair_id == raw.pair_id)
            if not found:
                ids = " and ".join(sorted({repr(ad.ad_id) for ad in members}))
                detail = f"the pair {raw.pair_id} shows {ids}, not {raw.ad_id[:60]!r}"
                return raw.refuse("unknown_ad", detail)
    elif raw.pair_id:
        found = members
        if not raw.side and not raw.text.strip():
            detail = "a pair holds two ads; name the side (left or right) or the ad_id"
            return raw.refuse("ambiguous_ad", detail)
    else:
        return raw.refuse("not_readable_row", "neither an ad_id nor a pair_id")
    if raw.side:
        fitting = tuple(ad for ad in found if ad.side == raw.side)
        if not fitting:
            detail = f"the row says {raw.side}, but this ad was shown on the {found[0].side}"
            return raw.refuse("ambiguous_ad", detail)
        found = fitting
    if raw.text.strip():
        keys = {content_key(raw.text), content_key(unprotected(raw.text))}
        fitting = tuple(ad for ad in found if ad.key in keys)
        if not fitting:
            return raw.refuse("text_mismatch", _mismatch(raw.text, found[0]))
        found = fitting
    current = tuple(ad for ad in found if ad.current)
    if not current:
        detail = "was shown for another version of the policy than the one its round ended with"
        return raw.refuse("other_version", detail)
    if len({ad.key for ad in current}) > 1:
        detail = "stands for two different ads that were shown; give the pair_id or the text too"
        return raw.refuse("ambiguous_ad", detail)
    # Several attempts of a round may show an ad; its newest pair there is named.
    return max(current, key=lambda ad: (-ad.round, ad.order, ad.pair_id))


def resolve(rows: Iterable[RawVerdict | Rejected], reading: Reading) -> Resolved:
    """Understand the rows of one file.

    Args:
        rows: in the file's order, from one of ``pipelines.tools.formats.READERS``.
        reading: what was shown, and how labels and experts are called.
    """
    rejected: list[tuple[int, Rejected]] = []
    raws: list[tuple[int, RawVerdict]] = []
    for place, row in enumerate(rows):
        if isinstance(row, Rejected):
            rejected.append((place, row))
        else:
            raws.append((place, row))
    default = "" if any(normalize_expert(raw.expert) for _, raw in raws) else reading.expert
    accepted: list[tuple[int, RawVerdict, Verdict]] = []
    answered: dict[tuple[str, str], set[object]] = {}
    unanswered = 0
    for place, raw in raws:
        ad = find_ad(raw, reading.shown)
        if not raw.label and isinstance(ad, ShownAd):
            unanswered += 1
            continue
        expert = normalize_expert(raw.expert) or normalize_expert(default)
        expert = reading.experts.get(expert, expert)
        if raw.label and raw.pair_id:
            mark = ad.key if isinstance(ad, ShownAd) else place
            answered.setdefault((raw.pair_id, expert), set()).add(mark)
        outcome = ad if isinstance(ad, Rejected) else _verdict(raw, ad, expert, reading.labels)
        if isinstance(outcome, Rejected):
            rejected.append((place, outcome))
        else:
            accepted.append((place, raw, outcome))
    verdicts: list[Verdict] = []
    said: dict[tuple[str, str], str] = {}
    changed = 0
    for place, raw, verdict in accepted:
        both: set[object] = set()
        for name in (verdict.expert, ""):
            both |= answered.get((raw.pair_id, name), set())
        if raw.pair_id and len(both) < 2:
            detail = (
                f"{verdict.expert!r} says nothing of the pair's other ad; label it too, or skip it"
            )
            rejected.append((place, raw.refuse("half_pair", detail)))
            continue
        owner = (verdict.key, verdict.expert)
        changed += said.get(owner, verdict.label) != verdict.label
        said[owner] = verdict.label
        verdicts.append(verdict)
    rejected.sort(key=lambda item: item[0])
    return Resolved(tuple(verdicts), tuple(item for _, item in rejected), unanswered, changed)


def read_file(file: VerdictFile, reading: Reading) -> tuple[Import, Resolved]:
    """Read one file to its end.

    Raises:
        RunFailed: the file as a whole cannot be used.
    """
    data = storage.read(file.path)
    resolved = resolve(READERS[file.tool](data, file.path), reading)
    return describe(file, data, resolved, reading), resolved


def file_identity(data: bytes, expert: str, experts: Mapping[str, str]) -> str:
    """Return what makes two imports of a file the same: its bytes, and the names given for it.

    Two experts may well hand in the same bytes; and a file that named nobody is another import
    once somebody says whose it is.
    """
    plain = blocks.sha256(data)
    if not expert and not experts:
        return plain
    named = json.dumps([plain, expert, sorted(experts.items())])
    return blocks.sha256(named.encode())


def describe(file: VerdictFile, data: bytes, resolved: Resolved, reading: Reading) -> Import:
    """Return the record of a file that was read."""
    return Import(
        order=file.order,
        source=storable(file.path),
        name=posixpath.basename(storable(file.path.replace("\\", "/"))),
        sha256=file_identity(data, reading.expert, reading.experts),
        content=blocks.sha256(data),
        tool=file.tool,
        unanswered=resolved.unanswered,
        changed_mind=resolved.changed_mind,
    )


def common_reasons(rejected: Iterable[Rejected], limit: int = 3) -> str:
    """Return the most common reasons, each with its first row, for a message."""
    rejected = list(rejected)
    counts = Counter(item.reason for item in rejected)
    parts = []
    for reason, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]:
        first = next(item for item in rejected if item.reason == reason)
        parts.append(f"{reason} {number:,} ({first.source}, {first.position}: {first.detail})")
    return "; ".join(parts)


class ReadVerdicts(beam.PTransform):
    """Read verdict files: ``PCollection[VerdictFile]`` to verdicts.

    Output: a tuple of ``PCollection[Verdict]`` (tag ``verdicts``), ``PCollection[Rejected]`` (tag
    ``rejected``) and ``PCollection[Import]``, one a file (tag ``imports``).

    Args:
        reading: what was shown, and how labels and experts are called.
    """

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        if not reading.shown.by_pair:
            raise ValueError("ReadVerdicts: no ad was shown, so no verdict can be on one")
        self._reading = reading

    def expand(self, files: beam.PCollection[VerdictFile]) -> pvalue.DoOutputsTuple:
        """Apply the transform."""
        return files | "ReadFile" >> beam.ParDo(_Read(self._reading)).with_outputs(
            REJECTED, IMPORTS, main=VERDICTS
        )


class _Read(beam.DoFn):
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def process(self, file: VerdictFile) -> Iterator[Verdict | pvalue.TaggedOutput]:
        with metrics.timed(STAGE):
            found, resolved = read_file(file, self._reading)
        metrics.count(STAGE, "verdicts", len(resolved.verdicts))
        metrics.count(STAGE, "rejected", len(resolved.rejected))
        metrics.count(STAGE, "unanswered", resolved.unanswered)
        yield pvalue.TaggedOutput(IMPORTS, found)
        for item in resolved.rejected:
            yield pvalue.TaggedOutput(REJECTED, item)
        yield from resolved.verdicts


def _by_id(id: str, shown: Shown) -> tuple[ShownAd, ...]:
    # An id is taken to the letter first: blanks and apostrophes may be part of it.
    for form in (id, id.strip(), unprotected(id), unprotected(id.strip())):
        if form in shown.by_ad:
            return shown.by_ad[form]
    return ()


def _unknown_ad(id: str, shown: Shown) -> str:
    example = min(shown.by_ad)
    detail = f"no ad {id.strip()[:60]!r} was shown; shown ids look like {example[:60]!r}"
    if _NUMBER.fullmatch(id.strip()):
        detail += (
            "; a spreadsheet seems to have turned the id into a number: import the column as text, "
            "or give pair_id and side"
        )
    return detail


def _mismatch(text: str, ad: ShownAd) -> str:
    return (
        f"the row's text {text.strip()[:40]!r} is not that of the ad {ad.ad_id[:60]!r}, which "
        f"begins {ad.text.strip()[:40]!r}; rows may have been shifted, or the text edited"
    )


def _verdict(raw: RawVerdict, ad: ShownAd, expert: str, labels: LabelNames) -> Verdict | Rejected:
    if not expert:
        return raw.refuse("blank_expert", "a label without the expert who gave it")
    if len(expert) > MAX_EXPERT_CHARS:
        detail = f"an expert's name of {len(expert):,} characters, at most {MAX_EXPERT_CHARS}"
        return raw.refuse("bad_expert", detail)
    # An old sheet speaks of its own policy version, which may have called the labels otherwise.
    labels = ad.labels or labels
    label = labels.read(raw.label)
    if label is None:
        names = dict.fromkeys((labels.positive, labels.negative, "positive", "negative", "skip"))
        detail = f"the label {raw.label[:40]!r} is none of {', '.join(names)}"
        return raw.refuse("unknown_label", detail)
    try:
        time = parse_time(raw.time)
    except ValueError as error:
        return raw.refuse("bad_time", str(error))
    return Verdict(
        key=ad.key,
        ad_id=ad.ad_id,
        pair_id=ad.pair_id,
        label=label,
        expert=expert,
        time=time,
        comment=cut_comment(raw.comment),
        source=storable(raw.source),
        position=raw.position,
    )
