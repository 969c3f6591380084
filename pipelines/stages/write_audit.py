"""WriteAudit: the drawn ads as review items, and the frame that they stand for."""

from __future__ import annotations

import io
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Block, ReviewItem
from pipelines.numerics import hashing
from pipelines.numerics.audit import Known
from pipelines.numerics.calibration import Threshold
from pipelines.numerics.weights import THOUSANDTHS, from_units
from pipelines.stages.draw_audit import Frame
from pipelines.store import blocks, files
from pipelines.store.facts import FRAME_FILE, AuditFacts, AuditStratum, Provenance
from pipelines.store.workspace import Manifest, Workspace
from pipelines.strategies.items import item_id, review_ad, weighed

STAGE = "WriteAudit"
SOURCE = "audit"


def audit_items(drawn: pa.Table, frame: Frame, guideline: str, seed: int) -> list[ReviewItem]:
    """Return the drawn ads as review items of one ad, in an order that is drawn, too.

    Whoever stops in the middle has then labelled a random part of every stratum.

    Args:
        drawn: rows with ``stratum``.
        frame: what they were drawn from.
        guideline: hash of what experts go by (``Task.guideline``).
        seed: of the order.
    """
    keys = drawn.column("key").to_pylist()
    # By another hash than the draw: that one orders the strata by how thinly they were drawn.
    order = np.lexsort((keys, hashing.ranks(keys, ~seed)))
    threshold = frame.sample.threshold
    propensity = frame.sample.labels / frame.sample.sizes
    items: list[ReviewItem] = []
    for row in drawn.take(pa.array(order)).to_pylist():
        label = "positive" if row["margin"] >= threshold else "negative"
        items.append(
            ReviewItem(
                item_id=item_id((row["key"],), guideline),
                rank=len(items) + 1,
                source=SOURCE,
                ads=(review_ad(row, label, None),),
                propensity=float(f"{propensity[row['stratum']]:.6g}"),
                drawn=row["key"],
            )
        )
    return items


def frame_file(frame: Frame, unit: int) -> bytes:
    """Return the frame's margins and weights (thousandths) as a NumPy ``.npz`` (no pickle inside)."""
    bins = np.flatnonzero(frame.histogram)
    sink = io.BytesIO()
    weight = np.array([from_units(w, unit - THOUSANDTHS) for w in frame.weight[bins].tolist()])
    np.savez(sink, bins=bins, ads=frame.histogram[bins], weight=weight)
    return sink.getvalue()


def known_of(frame: Frame, unit: int) -> Known:
    """Return what is known beside the frame; weights as the corpus has them."""
    (tn, fp, fn, tp), known = frame.known.tolist()
    a, b, c, d = (from_units(weight, unit) for weight in known)
    return Known(((tn, fp), (fn, tp)), ((a, b), (c, d)))


@dataclass(eq=False)
class WriteAudit(beam.PTransform):
    """Write an audit and the manifest that makes it count.

    Input: singletons drawn rows and frame. Output: a singleton ``PCollection[str]``: the attempt.

    Args:
        root: the workspace.
        attempt: its folder, relative to the workspace.
        config_hash: of all that shaped the draw.
        base: see :class:`AuditFacts`.
        seed: of the draw.
        scored: attempt whose ads are the corpus.
        origin: provenance of the scores.
        threshold: the label rule.
        unit: power of ten of the unit that the scored ads' weights are in.
    """

    root: str
    attempt: str
    config_hash: str
    base: str
    seed: int
    scored: str
    origin: Provenance
    threshold: Threshold
    unit: int = THOUSANDTHS

    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection[str]:
        """Apply the transform."""
        drawn, frame = inputs
        return drawn | "Write" >> beam.Map(self._write, frame=pvalue.AsSingleton(frame))

    def _write(self, drawn: Block, frame: Frame) -> str:
        with metrics.timed(STAGE):
            guideline = self.origin.task.guideline()
            drawn_items = audit_items(blocks.from_block(drawn), frame, guideline, self.seed)
            items = weighed(drawn_items, self.unit)
            parts = (
                ("items.jsonl", files.json_lines(items), len(items)),
                (FRAME_FILE, frame_file(frame, self.unit), 1),
            )
            written = [
                files.write(self.root, f"{self.attempt}/{name}", data, rows)
                for name, data, rows in parts
            ]
            sample = frame.sample
            facts = AuditFacts(
                origin=self.origin,
                threshold=self.threshold,
                scored=self.scored,
                base=self.base,
                seed=self.seed,
                strata=tuple(
                    AuditStratum(*map(int, own))
                    for own in zip(sample.starts, sample.sizes, sample.labels, strict=True)
                ),
                known=known_of(frame, self.unit),
                left_out=frame.left_out,
            )
            manifest = Manifest.of(self.attempt, self.config_hash, written, len(items), facts)
            Workspace(self.root).commit(manifest)
            return self.attempt
