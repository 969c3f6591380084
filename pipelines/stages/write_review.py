"""WriteReview: clusters, pairs and the review sheet, each with the manifest that makes it count."""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import ReviewItem
from pipelines.numerics.calibration import Threshold
from pipelines.numerics.overlap import Overlap
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.store import files
from pipelines.store.facts import (
    BoundaryFacts,
    ClustersFacts,
    PairsFacts,
    Provenance,
    ReviewFacts,
)
from pipelines.store.review_items import to_lines
from pipelines.store.workspace import Manifest, Workspace
from pipelines.strategies.base import Chosen
from pipelines.tools.sheet.format import ad_sheet

STAGE = "WriteReview"


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


# Singletons: overlaps, model and totals of a strategy that makes clusters, or nothing.
Clusters = tuple[()] | tuple[beam.PCollection, beam.PCollection, beam.PCollection]


class WriteReview(beam.PTransform):
    """Write a round's items and review sheet, and the clusters of a strategy that makes some.

    Input: singletons chosen items and threshold, then those of ``Clusters``. Output: a singleton
    ``PCollection[str]``: the path of the review attempt, relative to the workspace.

    Args:
        root: the workspace.
        attempts: of ``clusters``, ``pairs`` and ``review``, their folders.
        config_hash: of what shaped all three.
        origin: provenance for the manifests.
        instructions: what experts need to know, from ``pipelines.tools.sheet.format.review_instructions``.
    """

    def __init__(
        self,
        root: str,
        attempts: Mapping[str, str],
        config_hash: str,
        origin: Provenance,
        instructions: str,
    ) -> None:
        super().__init__()
        missing = {"clusters", "pairs", "review"} - set(attempts)
        if missing:
            raise ValueError(f"WriteReview: no attempt for {sorted(missing)}")
        self._write = _Write(root, dict(attempts), config_hash, origin, instructions)

    def expand(self, inputs: tuple[beam.PCollection, ...]) -> beam.PCollection[str]:
        """Apply the transform."""
        chosen, threshold, *clusters = inputs
        names = ("overlaps", "model", "totals") if clusters else ()
        beside = {n: pvalue.AsSingleton(p) for n, p in zip(names, clusters, strict=True)}
        return chosen | "Write" >> beam.ParDo(
            self._write, threshold=pvalue.AsSingleton(threshold), **beside
        )


class _Write(beam.DoFn):
    def __init__(
        self,
        root: str,
        attempts: dict[str, str],
        config_hash: str,
        origin: Provenance,
        instructions: str,
    ) -> None:
        self._root, self._attempts, self._hash = root, attempts, config_hash
        self._origin, self._instructions = origin, instructions

    def process(
        self,
        chosen: Chosen,
        threshold: Threshold,
        overlaps: list[Overlap] | None = None,
        model: ClusterModel | None = None,
        totals: ClusterTotals | None = None,
    ) -> Iterator[str]:
        with metrics.timed(STAGE):
            if overlaps is not None and model is not None and totals is not None:
                self._commit(
                    "clusters",
                    {
                        "overlaps.jsonl": (overlap_lines(overlaps), len(overlaps)),
                        "centroids.npz": (centroid_file(model, totals), len(totals.count)),
                    },
                    ClustersFacts(
                        origin=self._origin,
                        threshold=threshold,
                        positive_clusters=len(model.positive),
                        negative_clusters=len(model.negative),
                        overlaps=len(overlaps),
                        truncated=totals.truncated,
                    ),
                )
            items = chosen.items
            ads = sum(len(item.ads) for item in items)
            boundary = None
            if chosen.coverage:
                boundary = BoundaryFacts(
                    mutual_pairs=sum(item.overlap.mutual for item in items if item.overlap),
                    covered_share=chosen.coverage.share,
                    cover_radius=chosen.coverage.radius,
                )
            self._commit(
                "pairs",
                {"items.jsonl": (to_lines(items), len(items))},
                PairsFacts(
                    origin=self._origin,
                    threshold=threshold,
                    sources=Counter(item.source for item in items),
                    ads=ads,
                    candidates=chosen.candidates,
                    boundary=boundary,
                    note=chosen.note,
                ),
            )
            self._commit(
                "review",
                {
                    "review.csv": (review_sheet(items), ads),
                    "instructions.txt": (self._instructions.encode(), 1),
                },
                ReviewFacts(self._origin, self._attempts["pairs"]),
            )
            yield self._attempts["review"]

    def _commit(
        self,
        stage: str,
        contents: dict[str, tuple[bytes, int]],
        facts: ClustersFacts | PairsFacts | ReviewFacts,
    ) -> None:
        attempt = self._attempts[stage]
        written = [
            files.write(self._root, f"{attempt}/{name}", data, rows)
            for name, (data, rows) in contents.items()
        ]
        manifest = Manifest.of(attempt, self._hash, written, written[0].rows, facts)
        Workspace(self._root).commit(manifest)
