"""Rows of verdict files to verdicts on shown ads, with a dead letter for every other row.

An ad is found by its id, by its review item and side, or by both. What a row says beside that (its
item, side, text) must fit the ad: a sheet whose rows were shifted would otherwise label the wrong ads.

A *half pair* is a row that names its item where the same expert said nothing in this file about the
item's other ad; an item of one ad has no half. A skip says something; so does an answer that was
refused for another reason. A row that names only an ad stands for itself, which is how a single
verdict is corrected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pipelines.contracts import LEFT, RIGHT, Rejected, Verdict
from pipelines.text import content_key, is_missing, storable
from pipelines.verdicts.ids import is_rounded, may_become
from pipelines.verdicts.names import FLOAT_LIMIT, is_float, whole_number
from pipelines.verdicts.rows import (
    MAX_EXPERT_CHARS,
    NEGATIVE,
    POSITIVE,
    SKIP,
    RawRows,
    RawVerdict,
    cut_comment,
    normalize_expert,
)
from pipelines.verdicts.shown import Shown, ShownAd
from pipelines.verdicts.spreadsheet import unprotected
from pipelines.verdicts.times import parse_time

_AS_TEXT = "import the column as text, or give item_id and side, or the text"
_OTHER_LABEL = {POSITIVE: NEGATIVE, NEGATIVE: POSITIVE}
# JSON's true and false, as tables have them.
_TRUTH = frozenset({"true", "false"})


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
        by_id = _by_id(raw, shown)
        if isinstance(by_id, Rejected):
            return by_id
        found = by_id
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
        raw = _without_gaps(raw, reading.shown)
        ad = find_ad(raw, reading.shown)
        if raw.spelled and isinstance(ad, ShownAd) and ad.labels.own(raw.spelled):
            raw = replace(raw, label=raw.spelled)
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


def _without_gaps(raw: RawVerdict, shown: Shown) -> RawVerdict:
    """Return a row with "" for what programs write in place of a missing id, item or text.

    What was shown under such a name is meant by it.
    """

    def given(text: str, is_shown: bool) -> str:
        return text if is_shown or not is_missing(unprotected(text)) else ""

    return replace(
        raw,
        ad_id=given(raw.ad_id, raw.ad_id in shown.by_ad),
        item_id=given(raw.item_id, raw.item_id in shown.by_item),
        text=given(raw.text, content_key(raw.text) in shown.round_of),
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


def _ads_of(showings: Iterable[ShownAd]) -> int:
    return len({ad.key for ad in showings})


def _by_id(raw: RawVerdict, shown: Shown) -> tuple[ShownAd, ...] | Rejected:
    """Return the showings of the ads that an id may mean, or why it means none.

    An id is taken to the letter first. Where a program may have made the same number of another ad's id,
    the row's item or text has to tell; where one id alone is that number, nothing was lost.
    """
    written = raw.ad_id.strip()
    # Blanks and apostrophes may be part of it.
    forms = (raw.ad_id, written, unprotected(raw.ad_id), unprotected(written))
    exact = next((form for form in forms if form in shown.by_ad), None)
    # With the apostrophe that keeps it a text no program took it for a number.
    if raw.item_id:
        members = sorted({ad.ad_id for ad in shown.by_item[raw.item_id]})
        behind = [id for id in members if may_become(id, written)]
    else:
        behind = shown.numeric.behind(written)
    found = list(dict.fromkeys(id for id in (exact, *behind) if id is not None))
    if not found:
        return raw.refuse("unknown_ad", _unknown_ad(written, shown))
    lossless = not is_rounded(written) and all(
        whole_number(id) == whole_number(written) for id in found
    )
    if raw.item_id or raw.text.strip() or (len(found) == 1 and (exact is not None or lossless)):
        return tuple(ad for id in found for ad in shown.by_ad[id])
    others = " and ".join([repr(id[:60]) for id in found if id != exact][:3])
    if lossless:
        detail = f"the number {written[:60]!r} may be the shown id {others}, too"
        return raw.refuse("ambiguous_ad", f"{detail}; {_AS_TEXT}")
    detail = (
        f"the id {written[:60]!r} is one rounding away from the shown {others}: a program that took it "
        f"for a number may have changed its last digits; {_AS_TEXT}"
    )
    return raw.refuse("rounded_id", detail)


def _unknown_ad(id: str, shown: Shown) -> str:
    example = min(shown.by_ad, default="")
    detail = f"no ad {id[:60]!r} was shown; shown ids look like {example[:60]!r}"
    if is_float(id):
        detail += f"; a program seems to have turned the id into a number: {_AS_TEXT}"
    return detail


def _mismatch(text: str, ad: ShownAd) -> str:
    return (
        f"the row's text {text.strip()[:40]!r} is not that of the ad {ad.ad_id[:60]!r}, which "
        f"begins {ad.text.strip()[:40]!r}; rows may have been shifted, or the text edited"
    )


def _verdict(raw: RawVerdict, ad: ShownAd, expert: str) -> Verdict | Rejected:
    if not expert:
        detail = "a label without the expert who gave it"
        if said := raw.expert.strip():
            detail += f"; {storable(said[:40])!r} is what programs write where a value is missing"
        return raw.refuse("blank_expert", detail)
    if expert in _TRUTH:
        return raw.refuse("bad_expert", f"{expert!r} is a truth value, no name")
    if is_rounded(raw.expert):
        detail = (
            f"the number {raw.expert.strip()[:40]!r} has lost its last digits: from {FLOAT_LIMIT:,} on "
            "experts' numbers must be text"
        )
        return raw.refuse("bad_expert", detail)
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
    if raw.negated:
        label = _OTHER_LABEL.get(label, label)
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
