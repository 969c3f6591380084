"""A corpus whose labels are known: read, and divided into a pool and held-out samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.ad_text import is_wordless
from pipelines.config import Labels
from pipelines.errors import UsageError
from pipelines.numerics import hashing
from pipelines.numerics.agreement import MISSING
from pipelines.sources.base import ReadOptions
from pipelines.sources.decoding import decoded, parse_json
from pipelines.sources.fields import compose, values_of
from pipelines.store import storage
from pipelines.text import content_id, content_key, is_blank
from pipelines.verdicts.rows import NEGATIVE, POSITIVE, LabelNames

_BALANCED_ADS = 1000
# A labelled corpus is held as a whole.
_MAX_BYTES = 4 << 30
_LEAST_TEST_POSITIVES = 10


@dataclass(frozen=True, slots=True)
class Fields:
    """Where a record's labels are.

    Attributes:
        label: field of the gold label.
        ratings: field with each recorded person's label, name -> label; "" when there is none.
        file: JSON lines with ``id`` and those fields, for a corpus that does not hold them; or "".
    """

    label: str = "label"
    ratings: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A labelled corpus, one row a distinct text, ordered by content key.

    Attributes:
        keys, ids, texts: n strings each.
        gold: bool (n,), the label of the label field; of recorded ratings the majority.
        ratings: int8 (n, seats) of recorded people, -1 where one gave none; None without.
        wordless: texts left out because no model could read a word of them.
        records: of ads that are made of fields, what each consists of: path -> text.
    """

    keys: tuple[str, ...]
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    gold: np.ndarray
    ratings: np.ndarray | None
    wordless: int = 0
    records: tuple[dict[str, str], ...] = ()

    def record(self, row: int) -> dict[str, str]:
        """Return an ad as `scout mine` reads it: id and text, or id and fields."""
        return {"id": self.ids[row]} | (
            self.records[row] if self.records else {"text": self.texts[row]}
        )

    def __len__(self) -> int:
        return len(self.keys)

    def content(self) -> dict[str, Any]:
        """Return what tells corpora apart, JSON values: texts, labels, and whose they are."""
        found: dict[str, Any] = {"keys": self.keys, "gold": self.gold.tolist()}
        if self.ratings is not None:
            found["ratings"] = self.ratings.tolist()
        return found


@dataclass(frozen=True, slots=True)
class Division:
    """Which ads play which part, as rows of the corpus.

    Attributes:
        pool: may be asked about.
        natural: held out, with the corpus's share of positives.
        balanced: held out, half of them positive.
    """

    pool: np.ndarray
    natural: np.ndarray
    balanced: np.ndarray


def read_labelled(
    corpus: Sequence[str],
    fields: Fields,
    names: Labels,
    reading: ReadOptions | None = None,
    flag: str = "--corpus",
) -> Corpus:
    """Read a labelled corpus of JSON lines; copies of a text count once, wordless ones not at all.

    Args:
        corpus: globs.
        fields: where the labels are.
        names: the labels' names.
        reading: the task's, where its ads are made of fields.
        flag: what errors call the corpus.

    Raises:
        UsageError: no file, a line that is no labelled ad, one class only, copies of a text with
            different labels.
    """
    files = [item.path for pattern in corpus for item in storage.match(pattern)]
    if not files:
        raise UsageError(f"{flag} {', '.join(corpus)}: no file matches")
    reading = reading or ReadOptions()
    found: dict[str, tuple[str, str, bool, dict[str, int], dict[str, str]]] = {}
    key_of: dict[str, str] = {}
    seats: dict[str, None] = {}
    beside: dict[str, dict[str, Any]] | None = None
    if fields.file:
        if not storage.match(fields.file):
            raise UsageError(f"--label_file {fields.file}: no such file")
        beside = {}
        for where, record in _records(fields.file):
            if beside.setdefault(_id(record), record) is not record:
                raise UsageError(f"{where}: the id {_id(record)!r} again")
    for path in files:
        for where, record in _records(path):
            id, text, gold, said, parts = _labelled(where, record, beside, fields, names, reading)
            key = content_key(text)
            known = found.setdefault(key, (id or content_id(key), text, gold, said, parts))
            if known[2] != gold:
                raise UsageError(f"{where}: the text of {known[0]!r} again, with another label")
            if key_of.setdefault(known[0], key) != key:
                raise UsageError(f"{where}: the id {known[0]!r} again, with another text")
            seats |= dict.fromkeys(said)
    # As `scout mine` sets them aside: one such ad would end a condition that draws it.
    wordless = {key for key, ad in found.items() if is_wordless(ad[1])}
    keys = sorted(set(found) - wordless)
    labels = np.array([found[key][2] for key in keys], dtype=bool)
    if not len(labels) or labels.all() or not labels.any():
        raise UsageError(
            f"{flag}: {len(labels):,} ads, {int(labels.sum()):,} of them positive; both labels are needed"
        )
    table = None
    if fields.ratings:
        people = sorted(seats)
        table = np.array(
            [[found[key][3].get(name, MISSING) for name in people] for key in keys], dtype=np.int8
        )
    return Corpus(
        keys=tuple(keys),
        ids=tuple(found[key][0] for key in keys),
        texts=tuple(found[key][1] for key in keys),
        gold=labels,
        ratings=table,
        wordless=len(wordless),
        records=tuple(found[key][4] for key in keys) if reading.fields else (),
    )


def _records(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each record of a JSON lines file stands, and the record."""
    try:
        text, _ = decoded(storage.read(path), _MAX_BYTES)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    # Not by splitlines, which also breaks at signs that JSON lets stand in a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            raise UsageError(f"{where}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise UsageError(f"{where}: a JSON object is expected, found {type(record).__name__}")
        yield where, record


def _labelled(
    where: str,
    record: dict[str, Any],
    beside: dict[str, dict[str, Any]] | None,
    fields: Fields,
    names: Labels,
    reading: ReadOptions,
) -> tuple[str, str, bool, dict[str, int], dict[str, str]]:
    try:
        parts = values_of(record, reading.fields)
        if reading.fields:
            text, _ = compose(parts, reading.fields, reading.template)
        else:
            text = record["text"]
        id = _id(record)
        if beside is not None:
            if id not in beside:
                raise ValueError(f"no label for id {id!r} in {fields.file}")
            record = beside[id]
        if not isinstance(text, str) or is_blank(text):
            raise ValueError("text is empty or no string")
        # Half a surrogate pair is no text: it could not be written to the pool. UnicodeEncodeError.
        text.encode()
        said: dict[str, int] = {}
        if fields.ratings:
            held = record[fields.ratings]
            said = {name: int(_positive(label, names)) for name, label in held.items()}
            if not said:
                raise ValueError(f"{fields.ratings} is empty")
        if fields.label in record:
            gold = _positive(record[fields.label], names)
        elif said:
            gold = 2 * sum(said.values()) > len(said)
        else:
            raise ValueError(f"no field {fields.label!r}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        named = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{where}: not a labelled ad: {named}") from error
    return id, text, gold, said, parts


def _id(record: dict[str, Any]) -> str:
    id = record.get("id")
    return "" if id is None else str(id)


def _positive(label: Any, names: Labels) -> bool:
    if isinstance(label, str):
        meaning = LabelNames(names.positive, names.negative).read(label)
        if meaning in (POSITIVE, NEGATIVE):
            return meaning == POSITIVE
    elif label in (0, 1):
        return bool(label)
    raise ValueError(f"label {label!r}; use {names.positive!r} or {names.negative!r}")


def divide(corpus: Corpus, prevalence: float | None, holdout: float, seed: int) -> Division:
    """Divide a corpus for one seed, by hashes of its keys.

    Positives beyond ``prevalence`` are kept out of pool and natural sample; they serve in the
    balanced sample, which otherwise takes the natural sample's.

    Raises:
        UsageError: too few positives are left to measure anything.
    """
    order = np.argsort(hashing.ranks(list(corpus.keys), seed), kind="stable")
    positives, negatives = order[corpus.gold[order]], order[~corpus.gold[order]]
    spare = positives[:0]
    if prevalence is not None:
        keep = round(prevalence / (1 - prevalence) * len(negatives))
        if keep > len(positives):
            raise UsageError(
                f"--prevalence {prevalence:g}: the corpus has only "
                f"{len(positives) / len(corpus):.3f} positives"
            )
        positives, spare = positives[:keep], positives[keep:]
    n_positive, n_negative = (round(holdout * len(rows)) for rows in (positives, negatives))
    if n_positive < _LEAST_TEST_POSITIVES:
        raise UsageError(
            f"--holdout {holdout:g}: leaves {n_positive} positives to test on, at least "
            f"{_LEAST_TEST_POSITIVES} are needed; hold out more or give a larger corpus"
        )
    held = positives[:n_positive] if len(spare) < n_positive else spare
    half = min(len(held), n_negative, _BALANCED_ADS // 2)
    return Division(
        pool=np.sort(np.concatenate([positives[n_positive:], negatives[n_negative:]])),
        natural=np.sort(np.concatenate([positives[:n_positive], negatives[:n_negative]])),
        balanced=np.sort(np.concatenate([held[:half], negatives[:half]])),
    )
