"""WriteReview: clusters, pairs and the review sheet, each with the manifest that makes it count."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import BlockFile, ReviewItem
from pipelines.numerics.calibration import Threshold
from pipelines.numerics.overlap import Overlap
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.stages.select_pairs import Selected
from pipelines.store import blocks, storage
from pipelines.store.review_items import to_lines
from pipelines.store.workspace import Manifest, Workspace, utc_now
from pipelines.tools.sheet import ad_sheet

STAGE = "WriteReview"


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where one stage's output goes, and the hash of what shaped it."""

    folder: str
    config_hash: str


def review_sheet(items: Sequence[ReviewItem]) -> bytes:
    """Return the blind review sheet: a CSV row an ad, no model label or score in it."""
    return ad_sheet(
        [(item.item_id, side, ad.id, ad.text) for item in items for side, ad in item.sides()]
    )


def overlap_lines(overlaps: Sequence[Overlap]) -> bytes:
    """Return the ranked cluster pairs as JSON lines."""
    lines = []
    for place, overlap in enumerate(overlaps, start=1):
        fields = {"rank": place, **dataclasses.asdict(overlap), "mass": overlap.mass / 1000}
        lines.append(
            json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in fields.items()})
        )
    return "".join(f"{line}\n" for line in lines).encode()


def centroid_file(model: ClusterModel, totals: ClusterTotals) -> bytes:
    """Return centroids, space and cluster sizes as a NumPy ``.npz`` (no pickle inside)."""
    none = np.zeros(0, dtype=np.float64)
    sink = io.BytesIO()
    np.savez(
        sink,
        positive=model.positive,
        negative=model.negative,
        mean=none if model.space.mean is None else model.space.mean,
        scale=none if model.space.scale is None else model.space.scale,
        count=totals.count,
        mass=totals.mass,
    )
    return sink.getvalue()


class WriteReview(beam.PTransform):
    """Write a round's clusters, pairs and review sheet.

    Input: singletons selected pairs, overlaps, model, totals, threshold. Output: a singleton
    ``PCollection[str]``: the path of the review attempt, relative to the workspace.

    Args:
        root: the workspace.
        round_number: the round.
        attempts: an :class:`Attempt` for each of ``clusters``, ``pairs`` and ``review``.
        facts: provenance for the manifests.
        instructions: what experts need to know, from ``pipelines.tools.sheet.review_instructions``.
    """

    def __init__(
        self,
        root: str,
        round_number: int,
        attempts: Mapping[str, Attempt],
        facts: Mapping[str, Any],
        instructions: str,
    ) -> None:
        super().__init__()
        missing = {"clusters", "pairs", "review"} - set(attempts)
        if missing:
            raise ValueError(f"WriteReview: no attempt for {sorted(missing)}")
        self._write = _Write(root, round_number, dict(attempts), dict(facts), instructions)

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[Selected],
            beam.PCollection[list[Overlap]],
            beam.PCollection[ClusterModel],
            beam.PCollection[ClusterTotals],
            beam.PCollection[Threshold],
        ],
    ) -> beam.PCollection[str]:
        """Apply the transform."""
        selected, overlaps, model, totals, threshold = inputs
        return selected | "Write" >> beam.ParDo(
            self._write,
            overlaps=pvalue.AsSingleton(overlaps),
            model=pvalue.AsSingleton(model),
            totals=pvalue.AsSingleton(totals),
            threshold=pvalue.AsSingleton(threshold),
        )


class _Write(beam.DoFn):
    def __init__(
        self,
        root: str,
        round_number: int,
        attempts: dict[str, Attempt],
        facts: dict[str, Any],
        instructions: str,
    ) -> None:
        self._root, self._round = root, round_number
        self._attempts, self._facts = attempts, facts
        self._instructions = instructions

    def process(
        self,
        selected: Selected,
        overlaps: list[Overlap],
        model: ClusterModel,
        totals: ClusterTotals,
        threshold: Threshold,
    ) -> Iterator[str]:
        with metrics.timed(STAGE):
            clusters = {
                "threshold_margin": threshold.margin,
                "threshold_probability": round(threshold.probability, 6),
                "threshold_source": threshold.source,
                "positives": threshold.n_positive,
                "negatives": threshold.n_negative,
                "positive_clusters": len(model.positive),
                "negative_clusters": len(model.negative),
                "overlaps": len(overlaps),
                "truncated": totals.truncated,
            }
            self._commit(
                "clusters",
                {
                    "overlaps.jsonl": (overlap_lines(overlaps), len(overlaps)),
                    "centroids.npz": (centroid_file(model, totals), len(totals.count)),
                },
                clusters,
            )
            items = selected.items
            explored = sum(item.source == "exploration" for item in items)
            mutual = sum(item.overlap.mutual for item in items if item.overlap)
            facts = {
                "candidates": selected.candidates,
                "pairs": len(items),
                "exploration_pairs": explored,
                "mutual_pairs": mutual,
                "covered_share": selected.covered_share,
                "cover_radius": selected.radius,
            }
            self._commit("pairs", {"items.jsonl": (to_lines(items), len(items))}, facts)
            self._commit(
                "review",
                {
                    "review.csv": (review_sheet(items), sum(len(item.ads) for item in items)),
                    "instructions.txt": (self._instructions.encode(), 1),
                },
                {"pairs": self._attempts["pairs"].folder},
            )
            yield self._attempts["review"].folder

    def _commit(
        self, stage: str, files: dict[str, tuple[bytes, int]], facts: dict[str, Any]
    ) -> None:
        workspace = Workspace(self._root)
        attempt = self._attempts[stage]
        written = []
        for name, (data, rows) in files.items():
            path = f"{attempt.folder}/{name}"
            storage.write(workspace.path(path), data)
            written.append(BlockFile(path, rows, len(data), blocks.sha256(data)))
        workspace.commit(
            Manifest(
                stage=stage,
                round=self._round,
                attempt=attempt.folder,
                config_hash=attempt.config_hash,
                files=tuple(written),
                rows=written[0].rows,
                facts=self._facts | facts,
                created=utc_now(),
            )
        )
