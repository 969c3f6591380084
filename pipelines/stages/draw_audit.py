"""DrawAudit: a stratified random sample of all ads that experts have not seen, and what it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import AD_SCHEMA, Block, ScoredPart
from pipelines.errors import RunFailed
from pipelines.numerics import audit, calibration, hashing
from pipelines.numerics.audit import SamplePlan
from pipelines.stages.gather_rows import is_among
from pipelines.store import blocks, scores

STAGE = "DrawAudit"
FRAME, DRAWN = "frame", "drawn"
_COLUMNS = (*AD_SCHEMA.names, "margin", "truncated")
# Columns beyond the margin bins: ads by experts' label and the model's, and those without a label.
_UNSETTLED = 4
_SHAPE = (2, calibration.N_BINS + _UNSETTLED + 1)
# Rows: ads, and their weight.
_ADS, _WEIGHT = range(2)


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What is known before the scores are read, small enough to travel with the job.

    Attributes:
        threshold: margin from which the model calls an ad positive.
        prior: expected share of positives, in (0, 1).
        budget: ads to draw in all.
        seed: of the draw.
        shown: content keys of ads that experts have seen: they are no part of the frame.
        settled: experts' labels among those, content key -> 1 for positive, 0 for negative.
        strata: of an earlier audit of the same base: first bins, and ads drawn of each; empty for none.
    """

    threshold: float
    prior: float
    budget: int
    seed: int
    shown: frozenset[str]
    settled: Mapping[str, int] = field(default_factory=dict)
    strata: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """The ads that are drawn from, and what is known beside them.

    Attributes:
        histogram: int64 (N_BINS,) of their margins.
        weight: int64 (N_BINS,) their weight by margin, in the corpus's unit.
        sample: strata, and how many ads are drawn of each.
        known: int64 (2, 4): ads, and their weight in the corpus's unit, whose label is known: true negatives,
            false positives, false negatives, true positives of the model.
        left_out: ads that experts have seen and not settled.
    """

    histogram: np.ndarray
    weight: np.ndarray
    sample: SamplePlan
    known: np.ndarray
    left_out: int


def plan_frame(totals: np.ndarray, plan: AuditPlan) -> Frame:
    """Cut the strata and share the budget out.

    Args:
        totals: what :func:`tally` counts, summed over all blocks.
        plan: see :class:`AuditPlan`.

    Raises:
        RunFailed: experts have seen every ad.
    """
    histogram, weight = totals[_ADS, : calibration.N_BINS], totals[_WEIGHT, : calibration.N_BINS]
    if not histogram.any():
        raise RunFailed(
            "no ad is left to audit: experts saw every one; give a newer corpus to mine"
        )
    probability = audit.assumed_probabilities(histogram, plan.prior)
    if plan.strata:
        starts, drawn = (np.array(own, dtype=np.int64) for own in zip(*plan.strata, strict=True))
        sizes = np.add.reduceat(histogram, starts)
        before = SamplePlan(starts, sizes, drawn, plan.threshold)
        sample = audit.extend_sample(before, histogram, probability, plan.budget)
    else:
        sample = audit.plan_sample(histogram, probability, plan.threshold, plan.budget)
    beside = totals[:, calibration.N_BINS :]
    return Frame(
        histogram=histogram,
        weight=weight,
        sample=sample,
        known=beside[:, :_UNSETTLED],
        left_out=int(beside[0, _UNSETTLED]),
    )


def tally(table: pa.Table, plan: AuditPlan) -> np.ndarray:
    """Count a block's ads by margin and, where experts have seen them, by label.

    Args:
        table: scored rows with key, margin and weight.
        plan: see :class:`AuditPlan`.

    Returns:
        int64 array of one shape, whose sums over blocks are exact.
    """
    margins = table.column("margin").to_numpy().astype(np.float64)
    weight = table.column("weight").to_numpy()
    keys = table.column("key").to_pylist()
    found = np.zeros(_SHAPE, dtype=np.int64)
    bins = audit.bin_of(margins)
    for row in np.flatnonzero(is_among(table, plan.shown)).tolist():
        label = plan.settled.get(keys[row])
        place = _UNSETTLED
        if label is not None:
            place = 2 * label + int(margins[row] >= plan.threshold)
        bins[row] = calibration.N_BINS + place
    np.add.at(found[_ADS], bins, 1)
    np.add.at(found[_WEIGHT], bins, weight)
    return found


def lowest(tables: Iterable[pa.Table]) -> pa.Table:
    """Return of each stratum the rows of lowest rank, as many as ``quota`` says, ties by key."""
    joined = pa.concat_tables(list(tables))
    order = [("stratum", "ascending"), ("hash", "ascending"), ("key", "ascending")]
    joined = joined.sort_by(order).combine_chunks()
    stratum = joined.column("stratum").to_numpy()
    place = np.arange(len(stratum)) - np.searchsorted(stratum, stratum)
    return joined.filter(pa.array(place < joined.column("quota").to_numpy())).combine_chunks()


def lowest_of(found: Iterable[Block]) -> Block:
    """Join blocks of :func:`lowest` rows; no rows of none."""
    tables = [blocks.from_block(block) for block in found if block.rows]
    return blocks.to_block(lowest(tables)) if tables else Block(0, b"")


@dataclass(eq=False)
class DrawAudit(beam.PTransform):
    """Draw an audit: ``PCollection[ScoredPart]`` to singletons ``frame`` and ``drawn``.

    ``frame`` is a :class:`Frame`; ``drawn`` a :class:`Block` of rows with ``stratum`` and ``quota``.
    The draw is a simple random sample without replacement of each stratum: its ads of lowest hash. Each
    block keeps as many of each stratum as are wanted of all, and they merge by taking the lowest
    again, so neither blocks nor their order change it (bottom-k sampling). A larger budget with the
    same strata and seed draws the same ads and more.

    Not a strategy with a pool of the best scores: such a pool could hold too few ads of a stratum, and
    what a strategy chooses trains.

    Memory of the merging worker: at most eleven blocks' lowest, about 1 KB an ad of the budget each.

    Args:
        root: the workspace.
        plan: see :class:`AuditPlan`.
    """

    root: str
    plan: AuditPlan

    def __post_init__(self) -> None:
        if self.plan.budget < 1:
            raise ValueError(f"budget must be at least 1 ad, got {self.plan.budget}")

    def expand(self, parts: beam.PCollection[ScoredPart]) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        frame = (
            parts
            | "CountFrame" >> beam.Map(self._count)
            | "SumCounts" >> beam.CombineGlobally(_summed)
            | "CutStrata" >> beam.Map(plan_frame, self.plan)
        )
        drawn = (
            parts
            | "DrawRows" >> beam.FlatMap(self._draw, frame=pvalue.AsSingleton(frame))
            | "KeepLowest" >> beam.CombineGlobally(lowest_of)
        )
        return {FRAME: frame, DRAWN: drawn}

    def _count(self, part: ScoredPart) -> np.ndarray:
        with metrics.timed(STAGE):
            table = scores.read_columns(self.root, part, ["key", "margin", "weight"])
            metrics.count(STAGE, "ads", table.num_rows)
            return tally(table, self.plan)

    def _draw(self, part: ScoredPart, frame: Frame) -> Iterator[Block]:
        with metrics.timed(STAGE), scores.OpenPart(self.root, part) as block:
            table = block.columns(["key", "margin"])
            stratum = frame.sample.stratum_of(table.column("margin").to_numpy())
            rank = hashing.ranks(table.column("key").to_pylist(), self.plan.seed)
            open_rows = ~is_among(table, self.plan.shown)
            wanted = np.zeros(table.num_rows, dtype=bool)
            for number in np.unique(stratum[open_rows]).tolist():
                own = np.flatnonzero(open_rows & (stratum == number))
                order = np.argsort(rank[own], kind="stable")
                # Those of the last rank too: whoever merges breaks ties by key.
                last = rank[own[order[: frame.sample.labels[number]]]]
                if len(last):
                    wanted[own[rank[own] <= last[-1]]] = True
            if not wanted.any():
                return
            rows = block.rows(wanted, _COLUMNS)
            for name, values in (
                ("stratum", stratum[wanted]),
                ("quota", frame.sample.labels[stratum[wanted]]),
                ("hash", rank[wanted]),
            ):
                rows = rows.append_column(name, pa.array(values))
            yield blocks.to_block(lowest([rows]))


def _summed(counts: Iterable[np.ndarray]) -> np.ndarray:
    return sum(counts, np.zeros(_SHAPE, dtype=np.int64))
