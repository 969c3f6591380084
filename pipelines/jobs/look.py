"""A first look at a corpus: which of its columns are what, and what its ads are like.

What is looked at is bounded: `RECORDS` records, drawn from the first ones, `SCANNED` in all and of
`MAX_BYTES` at most, of `PARTS` files or parts of files that a hash chooses.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.console.progress import step
from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.columns import ID, LABEL, WEIGHT, Column, ad_fields, columns_of, with_roles
from pipelines.numerics import hashing
from pipelines.numerics.skeletons import templates
from pipelines.sources import registry as sources
from pipelines.sources.base import CONTENT_IDS, Range, ReadOptions
from pipelines.sources.records import Place, to_ad
from pipelines.sources.survey import survey
from pipelines.text import script_of

RECORDS, SCANNED, MAX_BYTES, PARTS = 2_000, 50_000, 64 << 20, 64
_RANGE_BYTES = 64 << 20
# Letters a token, about, of an English tokenizer.
_TOKEN_CHARS = 4
_LANGUAGES_SHOWN, _TEMPLATES_SHOWN = 4, 3
# Surer than that a language is counted: what a few words are in is anybody's guess.
_SURE = 0.8


@dataclass(frozen=True, slots=True)
class Look:
    """What a first look at a corpus found.

    Attributes:
        files, bytes: how much there is.
        sampled: records that were looked at.
        whole: whether they are all records.
        formats: how the files are written.
        columns: in their order.
        text: paths of the fields that make the ad's text; empty where there is none.
        id_field, weight_field: for the flags of the same names; "" where none is needed.
        rejected: reason -> records of the sample that are no ads by these fields.
        ads, distinct: ads of the sample, and different texts among them.
        chars: median, 95th percentile and maximum of the texts' lengths, characters.
        long: ads that may not fit 256 tokens.
        scripts, languages: name -> share of the ads, largest first; languages where the text tells.
        templates: the largest texts that several ads share but for a few words, with their number.
        patterns: how many such texts there are in all.
        templated: share of the different texts that are of such a template.
        notes: what to do about it, a sentence each.
    """

    files: int
    bytes: int
    sampled: int
    whole: bool
    formats: tuple[str, ...]
    columns: tuple[Column, ...]
    text: tuple[str, ...]
    id_field: str
    weight_field: str
    rejected: Mapping[str, int]
    ads: int
    distinct: int
    chars: tuple[int, int, int]
    long: int
    scripts: Mapping[str, float]
    languages: Mapping[str, float]
    templates: tuple[tuple[str, int], ...]
    patterns: int
    templated: float
    notes: tuple[str, ...] = ()


def look(corpus: Sequence[str], read: ReadOptions) -> Look:
    """Look at a corpus.

    Args:
        corpus: files, globs or what sources read.
        read: what is known of its fields; "" is looked for.

    Raises:
        UsageError: nothing can be read, or a field that is named is not there.
    """
    with step("looking at the corpus"):
        whole_records = replace(
            read, id_field="", text_field="", weight_field="", fields=(), template="", whole=True
        )
        seen = survey(corpus, whole_records, _RANGE_BYTES)
        parts = seen.ranges
        try:
            records, broken, complete = _sample(parts, whole_records)
        except RunFailed as error:
            raise UsageError(f"--corpus: {error.message}") from error
    if not records:
        raise UsageError(
            f"--corpus {' '.join(corpus)}: no record of it can be read"
            + (f" ({_counted(broken)})" if broken else "")
        )
    columns, text = with_roles([*columns_of([record for record, _ in records])], read)
    known = {column.path for column in columns}
    for flag in ("id_field", "text_field", "weight_field"):
        named = getattr(read, flag)
        if named and named not in known | {CONTENT_IDS}:
            raise UsageError(
                f"--{flag} {named}: no such field; there are {', '.join(sorted(known))}"
            )
    ids = next((c.path for c in columns if c.role == ID), "")
    id_field = read.id_field or ("" if ids == "id" else ids)
    weight = read.weight_field or next((c.path for c in columns if c.role == WEIGHT), "")
    found = Look(
        files=seen.things,
        bytes=seen.bytes,
        sampled=len(records) + sum(broken.values()),
        whole=complete and seen.complete,
        formats=tuple(sorted({part.format or part.source for part in parts})),
        columns=tuple(columns),
        text=text,
        id_field=id_field,
        weight_field=weight,
        rejected=broken,
        ads=0,
        distinct=0,
        chars=(0, 0, 0),
        long=0,
        scripts={},
        languages={},
        templates=(),
        patterns=0,
        templated=0.0,
    )
    told = tuple(sources.told(parts, whole_records))
    if text:
        with_ads = _with_ads(found, records, read)
        return replace(with_ads, notes=(*told, *with_ads.notes))
    note = (
        "no column looks like the text of an ad: name it with --text_field, or write ad.fields into the task "
        "file"
    )
    return replace(found, notes=(*told, note))


def _sample(
    parts: Sequence[Range], options: ReadOptions
) -> tuple[list[tuple[Mapping[str, Any], Ad]], dict[str, int], bool]:
    """Return records of the parts, why others could not be read, and whether these are all."""
    order = sorted(parts, key=lambda part: hashing.unit_hash(f"{part.place}\0{part.start}", 0))
    complete = len(order) <= PARTS
    order = order[:PARTS]
    rng, broken, scanned, read = np.random.default_rng(0), Counter[str](), 0, 0
    kept: list[Ad] = []
    share = -(-SCANNED // max(len(order), 1))
    for part in order:
        for taken, record in enumerate(sources.get(part.source).read(part, options)):
            if scanned >= SCANNED or read >= MAX_BYTES or taken >= share:
                complete = False
                break
            scanned += 1
            if isinstance(record, Rejected):
                broken[record.reason] += 1
                read += len(record.excerpt)
                continue
            read += len(record.text)
            # A reservoir: each record of those scanned is as likely.
            if len(kept) < RECORDS:
                kept.append(record)
            elif (place := int(rng.integers(scanned - broken.total()))) < RECORDS:
                kept[place] = record
    complete &= len(kept) + broken.total() == scanned
    return [(json.loads(ad.text), ad) for ad in kept], dict(broken), complete


def _with_ads(
    found: Look, records: Sequence[tuple[Mapping[str, Any], Ad]], read: ReadOptions
) -> Look:
    """Make ads of the records, as a mining would, and tell what they are like."""
    ads, rejected = _ads_of(found, records, read)
    weight = found.weight_field
    if rejected["bad_weight"] > 0.01 * len(records) and not read.weight_field:
        # What looks like a weight is none as it is written.
        columns = tuple(replace(c, role="" if c.role == WEIGHT else c.role) for c in found.columns)
        found = replace(found, columns=columns, weight_field="")
        ads, rejected = _ads_of(found, records, read)
    if not ads:
        note = f"no record of the sample makes an ad: {_counted(rejected)}"
        return replace(found, rejected=dict(rejected), notes=(note,))
    texts = list({ad.key: ad.text for ad in ads}.values())
    lengths = sorted(len(text) for text in texts)
    scripts = _shares(_main_script(text) for text in texts)
    patterns = templates(texts)
    long = sum(length > 256 * _TOKEN_CHARS for length in lengths)
    by_id = Counter((ad.id, ad.key) for ad in ads)
    clashing = len({id for id, _ in by_id}) < len(by_id)
    result = replace(
        found,
        id_field=CONTENT_IDS if clashing and not read.id_field else found.id_field,
        rejected=dict(sorted(rejected.items())),
        ads=len(ads),
        distinct=len(texts),
        chars=(lengths[len(lengths) // 2], lengths[int(0.95 * (len(lengths) - 1))], lengths[-1]),
        long=long,
        scripts=scripts,
        languages=_languages(texts),
        templates=tuple(patterns[:_TEMPLATES_SHOWN]),
        patterns=len(patterns),
        templated=sum(number for _, number in patterns) / len(texts),
    )
    lost = weight if weight != result.weight_field else ""
    return replace(result, notes=tuple(_advice(result, clashing, lost)))


def _ads_of(
    found: Look, records: Sequence[tuple[Mapping[str, Any], Ad]], read: ReadOptions
) -> tuple[list[Ad], Counter[str]]:
    """Return the ads that the records make, and why others make none."""
    options = replace(read, id_field=found.id_field, text_field="", weight_field=found.weight_field)
    # What needs no field in the task file is read as it will be.
    options = replace(options, fields=() if found.text == ("text",) else ad_fields(found.text))
    ads: list[Ad] = []
    rejected = Counter(found.rejected)
    for record, place in records:
        ad = to_ad(record, options, Place(place.source, place.position, place.text))
        if isinstance(ad, Ad):
            ads.append(ad)
        else:
            rejected[ad.reason] += 1
    return ads, rejected


def _advice(found: Look, clashing: bool, lost: str) -> Iterator[str]:
    """Yield what a person should know.

    Args:
        found: the look.
        clashing: whether one id stands for several texts.
        lost: column that looks like a weight and cannot be read as one, or "".
    """
    if lost:
        yield (
            f"{lost!r} looks like a weight, but holds values that are no numbers as they are written: without "
            "it every record counts once"
        )
    if clashing:
        yield (
            "one id stands for several texts: such records would be rejected, so ids are made from the "
            "texts (--id_field none)"
        )
    if found.rejected:
        yield (
            f"{sum(found.rejected.values()):,} of {found.sampled:,} records make no ad: "
            f"{_counted(found.rejected)}; a mining fails when more than 1% do (--max_rejected_share)"
        )
    if found.distinct < 0.7 * found.ads:
        yield (
            f"{1 - found.distinct / found.ads:.0%} of the ads are copies: each text is scored and shown once, "
            "its copies count as weight"
        )
    if found.long > 0.05 * found.distinct:
        yield (
            f"{found.long:,} of {found.distinct:,} ads may be longer than 256 tokens: model.max_ad_tokens "
            "says how much of an ad is read"
        )
    latin = found.scripts.get("Latin", 0.0)
    english = found.languages.get("en", 0.0)
    if latin < 0.9 or (found.languages and english < 0.7 * sum(found.languages.values())):
        yield (
            "the embedded models (model.preset, embedding.preset, training.encoder) learnt from English: for "
            "other languages give presets of models that know them"
        )
    if found.templated > 0.5:
        yield (
            f"{found.templated:.0%} of the texts follow {found.patterns:,} "
            f"template{'s' if found.patterns > 1 else ''}: near copies, of which labels say the same over and "
            "over; where there are ads of other kinds, mine them too"
        )
    labels = [column.path for column in found.columns if column.role == LABEL]
    if labels:
        yield (
            f"{', '.join(labels)} may hold labels: `scout prompts --labels` ranks prompts by some, `scout "
            "simulate` plays the whole loop on them"
        )


def _shares(names: Iterable[str]) -> dict[str, float]:
    counts = Counter(names)
    total = sum(counts.values())
    return {name: round(count / total, 4) for name, count in counts.most_common(_LANGUAGES_SHOWN)}


def _main_script(text: str) -> str:
    counts = Counter(script_of(char) for char in text if char.isalpha())
    if not counts:
        return "none"
    # Japanese is written in three.
    if counts.keys() & {"HIRAGANA", "KATAKANA"}:
        return "Japanese"
    name = counts.most_common(1)[0][0]
    return "CJK" if name == "CJK" else name.capitalize()


def _languages(texts: Sequence[str]) -> dict[str, float]:
    """Return ISO 639 code -> share of all texts, of those that tell."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    counts: Counter[str] = Counter()
    for text in texts:
        language, sure = identifier.classify(text)
        if sure >= _SURE:
            counts[language] += 1
    return {
        name: round(count / len(texts), 4)
        for name, count in counts.most_common(_LANGUAGES_SHOWN)
        if count >= max(2, 0.01 * len(texts))
    }


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items()))
