"""PublishRound: a round's scores and pairs as tables of BigQuery, through Beam's own connector."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa

from pipelines.contracts import ReviewItem, ScoredPart
from pipelines.numerics import calibration, weights
from pipelines.stages.read_parts import ReadParts
from pipelines.store import scores
from pipelines.store.facts import PairsFacts, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace

SCORES, PAIRS = "scores", "pairs"
_AD = (
    ("key", "STRING"),
    ("id", "STRING"),
    ("text", "STRING"),
    ("label", "STRING"),
    ("probability", "FLOAT"),
    ("margin", "FLOAT"),
    ("weight", "FLOAT"),
    ("copies", "INTEGER"),
    ("truncated", "BOOLEAN"),
)
_ROUND = (("task", "STRING"), ("version", "INTEGER"), ("round", "INTEGER"))
COLUMNS: Mapping[str, Sequence[tuple[str, str]]] = {
    SCORES: (*_ROUND, *_AD, ("fields", "STRING"), ("tokens", "INTEGER")),
    PAIRS: (
        *_ROUND,
        ("item_id", "STRING"),
        ("rank", "INTEGER"),
        ("source", "STRING"),
        ("side", "STRING"),
        *_AD,
        ("cluster", "INTEGER"),
        ("distance", "FLOAT"),
        ("score", "FLOAT"),
        ("drawn", "BOOLEAN"),
        ("propensity", "FLOAT"),
    ),
}
# Columns of scored ads that rows are made of: no vectors.
_READ = ["key", "id", "text", "fields", "weight", "copies", "margin", "tokens", "truncated"]

Row = dict[str, Any]


def score_rows(table: pa.Table, pairs: Manifest[PairsFacts], unit: int) -> Iterator[Row]:
    """Yield a row of ``COLUMNS[SCORES]`` for every row of a part of the scored ads.

    Args:
        table: its columns ``_READ``.
        pairs: whose threshold tells the labels.
        unit: of the weights, a power of ten.
    """
    facts, told = pairs.facts, _round_of(pairs)
    names = facts.origin.task.labels
    for row in table.to_pylist():
        positive = row["margin"] >= facts.threshold.margin
        yield {
            **told,
            **row,
            "label": names.positive if positive else names.negative,
            "probability": round(float(calibration.probability(row["margin"])), 6),
            "weight": weights.from_units(row["weight"], unit),
        }


def pair_rows(items: Sequence[ReviewItem], pairs: Manifest[PairsFacts]) -> Iterator[Row]:
    """Yield a row of ``COLUMNS[PAIRS]`` for every ad of every review item."""
    told, names = _round_of(pairs), pairs.facts.origin.task.labels.model_dump()
    for item in items:
        for side, ad in item.sides():
            yield {
                **told,
                "item_id": item.item_id,
                "rank": item.rank,
                "source": item.source,
                "side": side,
                "key": ad.key,
                "id": ad.id,
                "text": ad.text,
                "label": names[ad.label],
                "probability": ad.probability,
                "margin": ad.margin,
                "weight": ad.weight,
                "copies": ad.copies,
                "truncated": ad.truncated,
                "cluster": ad.cluster,
                "distance": item.distance,
                "score": item.score,
                "drawn": ad.key == item.drawn,
                "propensity": item.propensity if ad.key == item.drawn else None,
            }


def _round_of(pairs: Manifest[PairsFacts]) -> Row:
    task = pairs.facts.origin.task
    return {"task": task.name, "version": task.version, "round": pairs.round}


@dataclasses.dataclass(eq=False)
class PublishRound(beam.PTransform):
    """Write tables of a round: a pipeline to nothing.

    The graph holds two manifests and names. Rows are loaded from files, so that a table has all of them or
    none, and a second run puts the same in their place.

    Memory of a worker: a scored block without its vectors.

    Args:
        root: the workspace.
        pairs: the round's pairs.
        scored: the attempt with the ads they are of; None where ``scores`` is not among the tables.
        tables: ``PROJECT:DATASET.TABLE`` of ``scores``, ``pairs`` or both.
        temp: folder on Cloud Storage for the files that are loaded.
    """

    root: str
    pairs: Manifest[PairsFacts]
    scored: Manifest[ScoredFacts] | None
    tables: Mapping[str, str]
    temp: str

    def expand(self, begin: Any) -> None:
        """Apply the transform to a pipeline."""
        if SCORES in self.tables and self.scored is not None:
            rows = (
                begin
                | "ScoredBefore" >> beam.Create(list(self.scored.files), reshuffle=False)
                | "ReadParts" >> ReadParts(self.root)
                | "ScoreRows" >> beam.FlatMap(self._score_rows, self.scored.facts.weight_unit)
            )
            self._write(rows, SCORES)
        if PAIRS in self.tables:
            pairs = begin | "Pairs" >> beam.Create([self.pairs], reshuffle=False)
            self._write(pairs | "PairRows" >> beam.FlatMap(_pair_rows, self.root), PAIRS)

    def _score_rows(self, part: ScoredPart, unit: int) -> Iterator[Row]:
        yield from score_rows(scores.read_columns(self.root, part, _READ), self.pairs, unit)

    def _write(self, rows: beam.PCollection[Row], name: str) -> None:
        from apache_beam.io.gcp.bigquery import BigQueryDisposition, WriteToBigQuery

        fields = [{"name": column, "type": kind} for column, kind in COLUMNS[name]]
        _ = rows | f"Write{name.capitalize()}" >> WriteToBigQuery(
            self.tables[name],
            schema={"fields": fields},
            method=WriteToBigQuery.Method.FILE_LOADS,
            custom_gcs_temp_location=self.temp,
            create_disposition=BigQueryDisposition.CREATE_IF_NEEDED,
            write_disposition=BigQueryDisposition.WRITE_TRUNCATE,
        )


def _pair_rows(pairs: Manifest[PairsFacts], root: str) -> Iterator[Row]:
    yield from pair_rows(Workspace(root).read_items(pairs), pairs)
