"""CascadeAds: LLM-0 for the ads that a cheap score puts high and for a few others, that score for the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue
from apache_beam.ml.inference.base import RunInference

from models.backends.base import LabelBatch, Labeler
from pipelines.console import metrics
from pipelines.contracts import AD_SCHEMA, UNSCORED_SCHEMA, Block
from pipelines.handlers import (
    STAGE,
    Glanced,
    LabelerHandler,
    LazyLabeler,
    ScoredBlock,
    label_each,
    scored_block,
)
from pipelines.numerics import calibration, cascade, hashing
from pipelines.store import blocks, students

READ, FORETOLD, DONE = "read", "foretold", "done"
# Ads of the pilot that one element holds: workers share it.
_PILOT_ROWS = 256
# Of the new ads a pilot takes this share at most, but so many if there are.
PILOT_SHARE, LEAST_PILOT = 0.1, 500


@dataclass(frozen=True, slots=True)
class Cascade:
    """How a run spends its model.

    Attributes:
        by: name of the proxy, as in ``models.proxies``.
        student: path of what was fitted before; "" where this run fits it.
        share: of the ads, in [0, 1], that the model reads; None for what the pilot says.
        kept: share of the model's positives that are to be among these, in (0, 1).
        explored: share of the other ads that it reads all the same, in [0, 1].
        pilot_ads: ads that a student is fitted on, at most; see ``PILOT_SHARE``.
        prior: share of ads that count as the model's positives, in (0, 1).
        seed: decides which ads are drawn.
        key: score key of what is foretold.
    """

    by: str
    student: str
    share: float | None
    kept: float
    explored: float
    pilot_ads: int
    prior: float
    seed: int
    key: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A block of ads (``UNSCORED_SCHEMA``) and the student that parts it; "" in the pilot."""

    block: Block
    student: str = ""


@dataclass(frozen=True, slots=True)
class Parted:
    """What one block of ads became.

    Attributes:
        read: what the model read.
        foretold: what a student said of the others (``scored_schema``); no rows in the pilot.
        above, explored: ads that were read, by bin of their margin.
        below: ads below the cut.
        lesson: of the pilot, ads that a student learns from: keys (n,), features, hint and margins.
    """

    read: ScoredBlock
    foretold: Block
    above: Mapping[int, int] = field(default_factory=dict)
    explored: Mapping[int, int] = field(default_factory=dict)
    below: int = 0
    lesson: tuple[Any, ...] = ()


def part_block(labeler: LazyLabeler, waiting: Waiting, how: Cascade, root: str) -> Parted:
    """Score a block of ads: glance at all, let the model read those that are worth it.

    Args:
        labeler: LLM-0.
        waiting: the ads.
        how: see :class:`Cascade`.
        root: the workspace, where the student is.
    """
    ads = blocks.from_block(waiting.block)
    texts, keys = (ads.column(name).to_pylist() for name in ("text", "key"))
    with metrics.timed("GlanceAds"):
        seen, places, failures = label_each(lambda some: labeler.glance(some, how.by), texts)
    if seen is None:
        return Parted(scored_block(ads, None, [], failures), _nothing())
    order = np.argsort(places, kind="stable")
    good = np.asarray(places)[order]
    seen = Glanced(*(getattr(seen, f.name)[order] for f in dataclasses.fields(Glanced)))
    told, cut = np.full(len(good), np.nan), -np.inf
    # Of a run that was killed: its pilot is read, as it was to be.
    pilot = np.zeros(len(good), dtype=bool)
    if waiting.student:
        student = students.read(root, waiting.student)
        told = student.foretell(seen.features, seen.hint)
        cut = student.cut(how.share if how.share is not None else student.share(how.kept))
        pilot = np.array([keys[i] in student.pilot for i in good], dtype=bool)
    # Of an ad without a word the model itself says that it cannot be scored.
    told[seen.n_tokens == 0] = np.nan
    # In another order than the pilot, which takes the first of this one.
    drawn = hashing.below(hashing.ranks([keys[i] for i in good], how.seed + 1), how.explored)
    above = ~(told < cut)
    asked = above | drawn | pilot
    vectors, n_tokens, truncated = seen.vectors, seen.n_tokens, seen.truncated

    def read_some(some: Sequence[int]) -> LabelBatch:
        place = list(some)
        own = labeler.margins([texts[i] for i in good[place]], seen.similarity[place])
        return LabelBatch(own, vectors[place], n_tokens[place], truncated[place])

    with metrics.timed(STAGE):
        labels, found, failed = label_each(read_some, np.flatnonzero(asked).tolist())
    rows = good[asked]
    failures |= {int(rows[i]): why for i, why in failed.items()}
    read = scored_block(ads, labels, rows[found].tolist(), failures)
    metrics.count("CascadeAds", "read", len(rows))
    metrics.count("CascadeAds", "foretold", int((~asked).sum()))
    rest = np.flatnonzero(~asked)
    foretold = scored_block(
        ads,
        LabelBatch(calibration.to_grid(told[rest]), vectors[rest], n_tokens[rest], truncated[rest]),
        good[rest].tolist(),
        {},
    )
    margins = np.full(len(good), np.nan)
    if labels is not None:
        margins[np.flatnonzero(asked)[found]] = labels.margin
    known = np.isfinite(margins)
    counted = known & ~pilot
    lesson: tuple[Any, ...] = ()
    if not waiting.student:
        use = known & np.isfinite(seen.features).all(axis=1)
        lesson = (
            [keys[i] for i in good[use]],
            seen.features[use],
            seen.hint[use],
            margins[use],
        )
    return Parted(
        read=ScoredBlock(read.scored, (*read.rejected, *foretold.rejected)),
        foretold=foretold.scored,
        above=cascade.bins(margins[counted & above]),
        explored=cascade.bins(margins[counted & ~above]),
        below=int((~above & ~pilot).sum()),
        lesson=lesson,
    )


def _nothing() -> Block:
    return blocks.to_block(AD_SCHEMA.empty_table())


class CascadeHandler(LabelerHandler):
    """Runs a cascade on blocks of ads; see :class:`LabelerHandler`."""

    def __init__(
        self, load: Callable[[], Labeler], share_processes: bool, how: Cascade, root: str
    ) -> None:
        super().__init__(load, share_processes)
        self._how, self._root = how, root

    def score(self, labeler: LazyLabeler, element: Any) -> Any:
        """Score one element."""
        return part_block(labeler, element, self._how, self._root)


@dataclasses.dataclass(eq=False)
class CascadeAds(beam.PTransform):
    """Score new ads: ``PCollection[Block]`` of ``UNSCORED_SCHEMA`` to a dict.

    ``read`` (:class:`ScoredBlock`) are those that the model read, ``foretold`` (``PCollection[Block]``)
    the others; ``done`` is three singletons: what was done behind the pilot (:class:`cascade.Read`), the
    student's path ("" where too few ads were new to fit one), and how many ads the pilot read.

    Without a student the ads of lowest rank, a pilot, are read and fit one first; it is written before any other ad
    is scored, so that a run that is killed goes on with the same. Memory of the worker that fits: the pilot's
    features, ``4 * pilot_ads * d`` bytes several times over.

    Args:
        load: returns the labeler, on the worker.
        root: the workspace.
        how: see :class:`Cascade`.
        elsewhere: whether workers are other processes.
        hints: Beam's resource hints for the workers that label.
    """

    load: Callable[[], Labeler]
    root: str
    how: Cascade
    elsewhere: bool
    hints: Mapping[str, str]

    def expand(self, new: beam.PCollection[Block]) -> dict[str, Any]:
        """Apply the transform."""
        handler = CascadeHandler(self.load, self.elsewhere, self.how, self.root)
        results = []
        if self.how.student:
            student = new.pipeline | "Student" >> beam.Create([self.how.student], reshuffle=False)
        else:
            number = (
                new
                | "RowsOfNew" >> beam.Map(lambda block: block.rows)
                | "CountNew" >> beam.CombineGlobally(sum)
            )
            pilot = (
                new
                | "DrawPilot" >> beam.CombineGlobally(_Lowest(self.how.pilot_ads, self.how.seed))
                | "BoundPilot" >> beam.Map(_bounded, pvalue.AsSingleton(number))
            )
            taught = (
                pilot
                | "CutPilot" >> beam.FlatMap(_cut)
                | "SpreadPilot" >> beam.Reshuffle()
                | "ReadPilot" >> RunInference(handler).with_resource_hints(**self.hints)
            )
            lessons = taught | "Lessons" >> beam.Map(lambda parted: parted.lesson)
            student = (
                new.pipeline
                | "Once" >> beam.Create([None], reshuffle=False)
                | "FitStudent" >> beam.Map(self._fit, pvalue.AsList(lessons))
            )
            results.append(taught)
            new = new | "LeaveOutPilot" >> beam.FlatMap(
                _without, pvalue.AsSingleton(pilot), self.how.seed
            )
        results.append(
            new
            | "WithStudent" >> beam.Map(Waiting, pvalue.AsSingleton(student))
            | "Cascade" >> RunInference(handler).with_resource_hints(**self.hints)
        )
        parted = results | "JoinParted" >> beam.Flatten()
        return {
            READ: parted | "Read" >> beam.Map(lambda found: found.read),
            FORETOLD: parted
            | "Foretold"
            >> beam.FlatMap(lambda found: [found.foretold] * bool(found.foretold.rows)),
            DONE: (
                results[-1] | "CountRead" >> beam.CombineGlobally(_Reads()),
                student,
                _read_of(results[:-1], new.pipeline),
            ),
        }

    def _fit(self, _: None, lessons: Iterable[tuple[Any, ...]]) -> str:
        held = [lesson for lesson in lessons if lesson and lesson[0]]
        keys = [key for lesson in held for key in lesson[0]]
        if len(keys) < cascade.MIN_PILOT:
            return ""
        # In one order, whichever worker was first.
        order = np.argsort(np.asarray(keys), kind="stable")
        features, hint, margins = (
            np.concatenate([lesson[place] for lesson in held])[order] for place in (1, 2, 3)
        )
        found = cascade.fit_student(self.how.by, features, hint, margins, self.how.prior)
        found = dataclasses.replace(found, pilot=frozenset(keys))
        return students.write(self.root, self.how.key, found)


def _read_of(
    pilots: Sequence[beam.PCollection[Parted]], pipeline: beam.Pipeline
) -> beam.PCollection[int]:
    """Return how many ads pilots read, a singleton."""
    if not pilots:
        return pipeline | "NoPilot" >> beam.Create([0], reshuffle=False)
    [pilot] = pilots
    return (
        pilot
        | "PilotRows" >> beam.Map(lambda found: found.read.scored.rows)
        | "CountPilot" >> beam.CombineGlobally(sum)
    )


def _bounded(pilot: Block, number: int) -> Block:
    table = blocks.from_block(pilot)
    return blocks.to_block(table.slice(0, max(LEAST_PILOT, int(PILOT_SHARE * number))))


def _cut(pilot: Block) -> Iterator[Waiting]:
    table = blocks.from_block(pilot)
    for start in range(0, table.num_rows, _PILOT_ROWS):
        yield Waiting(blocks.to_block(table.slice(start, _PILOT_ROWS)))


def _without(block: Block, pilot: Block, seed: int) -> Iterator[Block]:
    """Leave out the ads of the pilot: those that come before its last in rank and key."""
    last = _places(blocks.from_block(pilot), seed)[-1:]
    table = blocks.from_block(block)
    if last:
        left = pa.array([place > last[0] for place in _places(table, seed)], pa.bool_())
        table = table.filter(left)
    if table.num_rows:
        yield blocks.to_block(table)


def _places(table: pa.Table, seed: int) -> list[tuple[int, str]]:
    keys = table.column("key").to_pylist()
    return list(zip(hashing.ranks(keys, seed).tolist(), keys, strict=True))


class _Lowest(beam.CombineFn):
    """Keeps the ads of lowest rank, ordered by it; memory: twice so many ads."""

    def __init__(self, wanted: int, seed: int) -> None:
        self._wanted, self._seed = wanted, seed

    def create_accumulator(self) -> Block:
        """Return no ads."""
        return blocks.to_block(UNSCORED_SCHEMA.empty_table())

    def add_input(self, kept: Block, more: Block) -> Block:
        """Add a block of ads."""
        return self.merge_accumulators([kept, more])

    def merge_accumulators(self, parts: Iterable[Block]) -> Block:
        """Join several workers' ads."""
        table = pa.concat_tables([blocks.from_block(part) for part in parts])
        places = _places(table, self._seed)
        order = sorted(range(len(places)), key=places.__getitem__)[: self._wanted]
        return blocks.to_block(table.take(pa.array(order, pa.int64())).combine_chunks())

    def extract_output(self, kept: Block) -> Block:
        """Return the ads."""
        return kept


def _no_margins() -> np.ndarray:
    return np.zeros(calibration.N_BINS, np.int64)


class _Reads(beam.CombineFn):
    """Adds up what was read, by margin, to :class:`cascade.Read`; exact, in any order."""

    def create_accumulator(self) -> cascade.Read:
        """Return nothing read."""
        return cascade.Read(_no_margins(), _no_margins(), 0)

    def add_input(self, total: cascade.Read, parted: Parted) -> cascade.Read:
        """Add a block's."""
        for counts, bins in ((total.above, parted.above), (total.explored, parted.explored)):
            for place, number in bins.items():
                counts[place] += number
        return dataclasses.replace(total, below=total.below + parted.below)

    def merge_accumulators(self, totals: Iterable[cascade.Read]) -> cascade.Read:
        """Add up several workers'."""
        first, *others = totals
        for other in others:
            first = cascade.Read(
                first.above + other.above,
                first.explored + other.explored,
                first.below + other.below,
            )
        return first

    def extract_output(self, total: cascade.Read) -> cascade.Read:
        """Return the sums."""
        return total
