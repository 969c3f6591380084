"""The records that pass between stages: the leaf module that everything else may import.

Single records are frozen, slotted dataclasses; ``pipelines.stages`` registers Beam's ``RowCoder``
for each of ``RECORDS`` (this module stays free of Beam, so that the trainer can import it). Rows that carry vectors travel as :class:`Block`: an Arrow table in bytes, hundreds to
thousands of rows an element, in one of the schemas below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

# Version of the files a stage writes; a reader refuses what another version wrote.
FORMAT_VERSION = 3
# Where an ad of a pair is shown.
LEFT, RIGHT = "left", "right"
# What experts say when they cannot tell; no label may be called so.
SKIP_WORDS = frozenset({"skip", "skipped", "unsure", "?", "n/a"})


@dataclass(frozen=True, slots=True)
class Ad:
    """One usable record of the corpus.

    Attributes:
        id: the corpus's id, or a content id (``ad_`` + 20 hex characters).
        key: 32 hex characters, hash of the normalised text (see ``pipelines.text``).
        text: the ad as it was read, at least one visible character.
        weight: how much this record counts, finite and >= 0 (1.0 without a weight field).
        source: file the record came from.
        position: where in the file: ``line 12``, ``row 12`` or ``byte 4096``.
        fields: the ad's parts as read, a JSON list of [name, value] in order; "" for an ad that
            is only its text.
    """

    id: str
    key: str
    text: str
    weight: float
    source: str
    position: str
    fields: str = ""


class UniqueAd(NamedTuple):
    """All copies of one normalised text, or one of them. Copies are ordered by the first five attributes.

    Between steps it is a row of ``UNIQUE_SCHEMA``, never an element.

    Attributes:
        id: smallest id (string order) among the copies; ``text`` is that copy's text.
        text: the representative's text, as read.
        source, position: where the representative stands in the corpus.
        fields: the representative's parts, as in :class:`Ad`.
        key: content key, 32 hex characters.
        exact: sum of the copies' weights, an exact decimal, see ``pipelines.numerics.weights``.
        copies: number of records, >= 1.
    """

    id: str
    text: str
    source: str
    position: str
    fields: str
    key: str
    exact: str = "1"
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot be used, and why (the dead-letter output).

    Attributes:
        id: the record's id, "" when it has none that can be read.
        stage: name of the stage that refused it, e.g. ``ReadAds``.
        reason: one of the stage's reason codes, e.g. ``not_json``.
        detail: one sentence: what was found, what was expected.
        source: file, "" when unknown.
        position: place in the file.
        excerpt: the start of the record, at most 200 characters.
        records: number of corpus records that this line stands for, >= 1.
    """

    id: str
    stage: str
    reason: str
    detail: str
    source: str
    position: str
    excerpt: str
    records: int

    def place(self) -> tuple[str, int, str]:
        """Return what sorts rejected records as they stand in their files."""
        number = "".join(filter(str.isdigit, self.position))
        return self.source, int(number or 0), self.position

    def example(self) -> str:
        """Return where it stands, what is wrong and how it begins, as one sentence."""
        name = re.split(r"[/\\]", self.source)[-1]
        begins = f"; it begins {self.excerpt[:60]!r}" if self.excerpt.strip() else ""
        return f"{name}, {self.position}: {self.detail}{begins}"


def first_examples(rejected: Iterable[Rejected]) -> dict[str, str]:
    """Return reason -> the first record that was rejected for it, as a sentence."""
    first: dict[str, Rejected] = {}
    for item in rejected:
        if item.reason not in first or item.place() < first[item.reason].place():
            first[item.reason] = item
    return {reason: first[reason].example() for reason in sorted(first)}


@dataclass(frozen=True, slots=True)
class Block:
    """A table of rows in Arrow's IPC stream format.

    Attributes:
        rows: number of rows.
        data: the IPC stream; its schema is one of this module's.
    """

    rows: int
    data: bytes


@dataclass(frozen=True, slots=True)
class BlockFile:
    """A file of a workspace, as a manifest lists it.

    Attributes:
        path: path relative to the workspace, with forward slashes.
        rows: number of rows.
        bytes: size of the file.
        sha256: hash of the file's bytes, 64 hex characters.
        footer: "", but for scored blocks of format 2.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    footer: str = ""


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """Ads of a scored corpus that lie in one block of the score store.

    Paths are relative to the workspace, with forward slashes, and say by their names what was written:
    see :mod:`pipelines.store.scores`.

    Attributes:
        block: the block's rows: what the model said.
        overlay: what today's corpus says of the ads, several blocks' in one file.
        group: the row group of ``overlay`` for this block.
        rows: number of ads, at most the block's.
    """

    block: str
    overlay: str
    group: int
    rows: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts that travel as one element.

    Attributes:
        records: records read, rejected ones included.
        rejected: records rejected.
        reasons: JSON object, reason -> records.
        examples: JSON object, reason -> the first record that was rejected for it, as a sentence.
        unique: distinct normalised texts.
        weight: of the corpus, an exact decimal: it gives the unit of its ads' weights, see
            ``pipelines.numerics.weights.unit_of``.
    """

    records: int
    rejected: int
    reasons: str
    examples: str
    unique: int
    weight: str


@dataclass(frozen=True, slots=True)
class ReviewAd:
    """An ad as it is put before experts.

    Attributes:
        id: the ad's id.
        key: its content key.
        text: as read from the corpus; hostile input for whatever shows it.
        fields: (name, value) of each field that the text was made of; empty where it is one text.
        probability: LLM-0's p(positive), uncalibrated, 6 decimals.
        margin: the same as log-odds, a multiple of 2**-8.
        label: predicted label, ``positive`` or ``negative``.
        cluster: cluster within the predicted label; None from a strategy that makes no clusters.
        copies: corpus records with this text.
        weight: their summed weight.
        truncated: whether the model saw only the text's beginning.
    """

    id: str
    key: str
    text: str
    fields: tuple[tuple[str, str], ...]
    probability: float
    margin: float
    label: str
    cluster: int | None
    copies: int
    weight: float
    truncated: bool

    def lines(self) -> str:
        """Return the ad as one text with a line ``Name: value`` a field; its text where it has none.

        Further lines of a value are indented, so that no value looks like another field.
        """
        if not self.fields:
            return self.text
        shown = (
            (" ".join(name.split()), "\n  ".join(value.splitlines())) for name, value in self.fields
        )
        return "\n".join(f"{name}: {value}" for name, value in shown)


@dataclass(frozen=True, slots=True)
class OverlapFacts:
    """What is known of a pair from two overlapping clusters.

    Attributes:
        mutual: whether each is the other's nearest among the candidates.
        overlap_score: how much the two clusters mix that it was chosen for, 0 to 1: its own, or where these
            are not among those that mix most, the ones that do and share its positive cluster.
        overlap_nearer_share: share of both clusters' members nearer to the other's centroid.
        covered_weight: corpus weight that this pair covers and no pair before it did.
        covered_share: the same as a share of the corpus weight.
        cumulative_share: share covered by all pairs up to this one.
        partner_rank: place of the negative ad among those nearest to the positive one that could have
            been shown with it: in the band, unseen; from 1. None in rounds of older versions.
    """

    mutual: bool
    overlap_score: float
    overlap_nearer_share: float
    covered_weight: float
    covered_share: float
    cumulative_share: float
    partner_rank: int | None = None


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """What experts are asked about: one ad, or two beside each other, as a line of ``items.jsonl``.

    From the selection to the verdict it is passed on as itself.

    Attributes:
        item_id: ``pair_`` (two ads) or ``item_`` (one) and 16 hex characters, of the guideline and the
            content keys: see ``pipelines.strategies.items``.
        rank: place in the review order, from 1.
        source: name of the strategy that chose it.
        ads: one or two, as they are shown: the left one first (drawn by hash).
        score: what the strategy ranked it by, higher first; None where it ranks by no score.
        distance: two ads: Euclidean distance of their unit vectors, 0 to 2, 6 decimals; else None.
        propensity: probability with which the drawn ad was drawn; None where nothing was drawn.
        drawn: content key of that ad, or None.
        overlap: what ``boundary`` knows of the pair, or None.
    """

    item_id: str
    rank: int
    source: str
    ads: tuple[ReviewAd, ...]
    score: float | None = None
    distance: float | None = None
    propensity: float | None = None
    drawn: str | None = None
    overlap: OverlapFacts | None = None

    def sides(self) -> tuple[tuple[str, ReviewAd], ...]:
        """Return each ad with the side that it is shown on: left and right, or "" where it is alone."""
        if len(self.ads) == 1:
            return (("", self.ads[0]),)
        left, right = self.ads
        return (LEFT, left), (RIGHT, right)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one expert said about one ad.

    Attributes:
        key: the ad's content key, 32 hex characters.
        ad_id: the ad's id.
        item_id: the review item in which it was shown.
        label: ``positive``, ``negative``, or ``skip`` (cannot tell: missing, not a class).
        expert: who said it, normalised to one string a person.
        time: UTC, ISO 8601 with seconds, or "" when the file does not say.
        comment: what the expert wrote beside it; hostile input for whatever shows it.
        source: file it came from.
        position: where in the file, e.g. ``line 12``.
    """

    key: str
    ad_id: str
    item_id: str
    label: str
    expert: str
    time: str
    comment: str
    source: str
    position: str


# What is known of an ad and stays with its score.
AD_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("id", pa.string()),
        ("text", pa.string()),
        ("fields", pa.string()),  # JSON, as in Ad
        ("weight", pa.int64()),  # in the corpus's unit, ``ScoredFacts.weight_unit``
        ("copies", pa.int64()),
    ]
)

# An ad before scoring: where it stands is only needed where it is rejected.
UNSCORED_SCHEMA = pa.schema([*AD_SCHEMA, ("source", pa.string()), ("position", pa.string())])

# A UniqueAd as a row; its weight in the corpus's unit is 0 until that is known.
UNIQUE_SCHEMA = pa.schema([*UNSCORED_SCHEMA, ("exact", pa.string())])


def scored_schema(dim: int) -> pa.Schema:
    """Return the schema of scored ads: the ad, its margin and its (dim,) float16 vector.

    ``margin`` is logit(positive) - logit(negative), a multiple of 2**-8; ``vector`` is
    little-endian float16, ``2 * dim`` bytes a row; ``tokens`` counts the ad's own tokens and
    ``truncated`` marks ads that did not fit the window.
    """
    fields = [*AD_SCHEMA]
    fields += [
        pa.field("margin", pa.float32()),
        pa.field("tokens", pa.int32()),
        pa.field("truncated", pa.bool_()),
        pa.field("vector", pa.binary(2 * dim)),
    ]
    return pa.schema(fields)


# A pair of opposite labels that experts may be asked about; its ads are known by their keys.
CANDIDATE_SCHEMA = pa.schema(
    [
        ("p_key", pa.string()),
        ("n_key", pa.string()),
        ("distance", pa.float32()),  # of unit vectors, 0 to 2
        ("overlap", pa.int32()),  # which of the ranked cluster pairs it stands for
        ("mass", pa.int64()),  # of that, in the corpus's unit
        (
            "partner_rank",
            pa.int32(),
        ),  # of the negative ad among those near the positive one, from 1
        ("mutual", pa.bool_()),  # each is the other's nearest
    ]
)

RECORDS = (Ad, Rejected, Block, BlockFile, ScoredPart, Tally)
