"""Rows of verdict files to verdicts on shown ads, with a dead letter for every other row.

An ad is found by its id, by its review item and side, or by both. What a row says beside that (its
item, side, text) must fit the ad: a sheet whose rows were shifted would otherwise label the wrong ads.

A *half pair* is a row that names its item where the same expert said nothing in this file about the
item's other ad; an item of one ad has no half. A skip says something; so does an answer that was
refused for another reason. A row that names only an ad stands for itself, which is how a single
verdict is corrected.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipelines.contracts import LEFT, RIGHT, Rejected, Verdict
from pipelines.text import content_key, storable
from pipelines.verdicts.rows import (
    MAX_EXPERT_CHARS,
    NEGATIVE,
    POSITIVE,
    SKIP,
    RawRows,
    RawVerdict,
    cut_comment,
    normalize_expert,
    parse_time,
)
from pipelines.verdicts.shown import Shown, ShownAd
from pipelines.verdicts.spreadsheet import unprotected

# An id that a spreadsheet took for a number: rounded, or with a decimal point.
_NUMBER = re.compile(r"\d+([.,]\d+)?[eE]\+?\d+|\d+\.0*")


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows become verdicts.

    Attributes:
        shown: all ads that were put before experts.
        expert: who speaks where a file names nobody at all, or "".
        experts: other names of experts, normalised -> normalised (a tool's user numbers).
    """

    shown: Shown
    expert: str = ""
    experts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A file's rows, understood or refused.

    Attributes:
        verdicts, rejected: in the order of the rows.
        unanswered: places for a verdict that were left empty.
        changed_mind: rows in which an expert contradicts an earlier row of their own.
    """

    verdicts: tuple[Verdict, ...]
    rejected: tuple[Rejected, ...]
    unanswered: int
    changed_mind: int


def find_ad(raw: RawVerdict, shown: Shown) -> ShownAd | Rejected:
    """Return the showing that a row is about, or why there is none."""
    members = shown.by_item.get(raw.item_id, ())
    if raw.item_id and not members:
        return raw.refuse("unknown_item", f"no review item {raw.item_id[:60]!r} was shown")
    if raw.ad_id.strip():
        found = _by_id(raw.ad_id, shown)
        if not found:
            return raw.refuse("unknown_ad", _unknown_ad(raw.ad_id, shown))
        if raw.item_id:
            found = tuple(ad for ad in found if ad.item_id == raw.item_id)
            if not found:
                ids = " and ".join(sorted({repr(ad.ad_id) for ad in members}))
                detail = f"the item {raw.item_id} shows {ids}, not {raw.ad_id[:60]!r}"
                return raw.refuse("unknown_ad", detail)
    elif raw.item_id:
        found = members
        if _ads_of(members) > 1 and not raw.side and not raw.text.strip():
            detail = "a pair holds two ads; name the side (left or right) or the ad_id"
            return raw.refuse("ambiguous_ad", detail)
    else:
        return raw.refuse("not_readable_row", "neither an ad_id nor an item_id")
    if raw.side:
        # Whoever knows pairs alone calls the one ad of an item its first.
        fitting = tuple(ad for ad in found if raw.side == (ad.side or LEFT))
        if not fitting:
            where = f"on the {found[0].side}" if found[0].side else "alone"
            detail = f"the row says {raw.side}, but this ad was shown {where}"
            return raw.refuse("ambiguous_ad", detail)
        found = fitting
    if raw.text.strip():
        keys = {content_key(raw.text), content_key(unprotected(raw.text))}
        fitting = tuple(ad for ad in found if keys & {ad.key, ad.lines_key})
        if not fitting:
            return raw.refuse("text_mismatch", _mismatch(raw.text, found[0]))
        found = fitting
    current = tuple(ad for ad in found if ad.current)
    if not current:
        detail = "was shown for another version of the policy than the one its round ended with"
        return raw.refuse("other_version", detail)
    if _ads_of(current) > 1:
        detail = "stands for two different ads that were shown; give the item_id or the text too"
        return raw.refuse("ambiguous_ad", detail)
    # Several attempts of a round may show an ad; its newest item there is named.
    return max(current, key=lambda ad: (-ad.round, ad.order, ad.item_id))


def resolve(rows: RawRows, reading: Reading) -> Resolved:
    """Understand the rows of one file.

    Args:
        rows: in the file's order, from a reader of its format.
        reading: what was shown, and how experts are called.
    """
    rows = list(rows)
    named = any(isinstance(row, RawVerdict) and normalize_expert(row.expert) for row in rows)
    default = "" if named else normalize_expert(reading.expert)
    outcomes: list[tuple[RawVerdict, Verdict] | Rejected] = []
    # (item, expert) -> the ads that they said something of; an ad that is not known is one, too.
    answered: dict[tuple[str, str], set[object]] = {}
    unanswered = 0
    for place, raw in enumerate(rows):
        if isinstance(raw, Rejected):
            outcomes.append(raw)
            continue
        ad = find_ad(raw, reading.shown)
        alone = _ads_of(reading.shown.by_item.get(raw.item_id, ())) == 1
        if not raw.label and raw.side == RIGHT and alone:
            # A table of pairs has a cell there, the item no ad.
            continue
        if not raw.label and isinstance(ad, ShownAd):
            unanswered += 1
            continue
        expert = normalize_expert(raw.expert) or default
        expert = reading.experts.get(expert, expert)
        if raw.label and raw.item_id:
            mark = ad.key if isinstance(ad, ShownAd) else place
            answered.setdefault((raw.item_id, expert), set()).add(mark)
        found = ad if isinstance(ad, Rejected) else _verdict(raw, ad, expert)
        outcomes.append(found if isinstance(found, Rejected) else (raw, found))
    verdicts: list[Verdict] = []
    rejected: list[Rejected] = []
    said: dict[tuple[str, str], str] = {}
    changed = 0
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
            continue
        raw, verdict = outcome
        names = ((raw.item_id, verdict.expert), (raw.item_id, ""))
        both = set().union(*(answered.get(name, ()) for name in names))
        if len(both) < _ads_of(reading.shown.by_item.get(raw.item_id, ())):
            detail = (
                f"{verdict.expert!r} says nothing of the pair's other ad; label it too, or skip it"
            )
            rejected.append(raw.refuse("half_pair", detail))
            continue
        owner = (verdict.key, verdict.expert)
        changed += said.get(owner, verdict.label) != verdict.label
        said[owner] = verdict.label
        verdicts.append(verdict)
    return Resolved(tuple(verdicts), tuple(rejected), unanswered, changed)


def common_reasons(rejected: Iterable[Rejected], limit: int = 3) -> str:
    """Return the most common reasons, each with its first row, for a message."""
    rejected = list(rejected)
    counts = Counter(item.reason for item in rejected)
    parts = []
    for reason, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]:
        first = next(item for item in rejected if item.reason == reason)
        parts.append(f"{reason} {number:,} ({first.source}, {first.position}: {first.detail})")
    return "; ".join(parts)


def _ads_of(showings: Iterable[ShownAd]) -> int:
    return len({ad.key for ad in showings})


def _by_id(id: str, shown: Shown) -> tuple[ShownAd, ...]:
    # An id is taken to the letter first: blanks and apostrophes may be part of it.
    for form in (id, id.strip(), unprotected(id), unprotected(id.strip())):
        if form in shown.by_ad:
            return shown.by_ad[form]
    return ()


def _unknown_ad(id: str, shown: Shown) -> str:
    example = min(shown.by_ad, default="")
    detail = f"no ad {id.strip()[:60]!r} was shown; shown ids look like {example[:60]!r}"
    if _NUMBER.fullmatch(id.strip()):
        detail += (
            "; a spreadsheet seems to have turned the id into a number: import the column as text, "
            "or give item_id and side"
        )
    return detail


def _mismatch(text: str, ad: ShownAd) -> str:
    return (
        f"the row's text {text.strip()[:40]!r} is not that of the ad {ad.ad_id[:60]!r}, which "
        f"begins {ad.text.strip()[:40]!r}; rows may have been shifted, or the text edited"
    )


def _verdict(raw: RawVerdict, ad: ShownAd, expert: str) -> Verdict | Rejected:
    if not expert:
        return raw.refuse("blank_expert", "a label without the expert who gave it")
    if len(expert) > MAX_EXPERT_CHARS:
        detail = f"an expert's name of {len(expert):,} characters, at most {MAX_EXPERT_CHARS}"
        return raw.refuse("bad_expert", detail)
    # An old sheet speaks of its own policy version, which may have called the labels otherwise.
    label = ad.labels.read(raw.label)
    if label is None:
        own = (ad.labels.positive, ad.labels.negative)
        names = dict.fromkeys((*own, POSITIVE, NEGATIVE, SKIP))
        detail = f"the label {raw.label[:40]!r} is none of {', '.join(names)}"
        return raw.refuse("unknown_label", detail)
    try:
        time = parse_time(raw.time)
    except ValueError as error:
        return raw.refuse("bad_time", str(error))
    return Verdict(
        key=ad.key,
        ad_id=ad.ad_id,
        item_id=ad.item_id,
        label=label,
        expert=expert,
        time=time,
        comment=cut_comment(raw.comment),
        source=storable(raw.source),
        position=raw.position,
    )
