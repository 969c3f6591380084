"""WriteReview: clusters, pairs and the review sheet, each with the manifest that makes it count."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import apache_beam as beam
from apache_beam import pvalue

from pipelines.config import Task
from pipelines.console import metrics
from pipelines.contracts import ReviewItem
from pipelines.numerics.calibration import Threshold
from pipelines.numerics.overlap import Overlap
from pipelines.numerics.weights import from_units
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.store import files
from pipelines.store.clusters import Clusters, centroid_file
from pipelines.store.facts import (
    BoundaryFacts,
    ClustersFacts,
    PairsFacts,
    Provenance,
    ReviewFacts,
)
from pipelines.store.workspace import Manifest, Workspace
from pipelines.strategies.base import Chosen
from pipelines.strategies.items import weighed
from pipelines.tools.sheet.format import ad_sheet, review_instructions

STAGE = "WriteReview"


def review_sheet(items: Sequence[ReviewItem]) -> bytes:
    """Return the blind review sheet: a CSV row an ad, no model label or score in it."""
    return ad_sheet(
        [(item.item_id, side, ad.id, ad.text) for item in items for side, ad in item.sides()]
    )


def overlap_lines(overlaps: Sequence[Overlap], unit: int) -> bytes:
    """Return the ranked cluster pairs as JSON lines; ``unit`` is that of their mass, a power of ten."""
    rows = (
        {"rank": place, **dataclasses.asdict(overlap), "mass": from_units(overlap.mass, unit)}
        for place, overlap in enumerate(overlaps, start=1)
    )
    return files.json_lines(
        {
            name: round(value, 6) if isinstance(value, float) and name != "mass" else value
            for name, value in row.items()
        }
        for row in rows
    )


# Singletons: overlaps, model and totals of a strategy that makes clusters, or nothing.
ClusterFacts = tuple[()] | tuple[beam.PCollection, beam.PCollection, beam.PCollection]


@dataclasses.dataclass(eq=False)
class WriteReview(beam.PTransform):
    """Write a round's items and review sheet, and the clusters of a strategy that makes some.

    Input: singletons chosen items, threshold and the power of ten of the weights' unit, then those of
    ``ClusterFacts``. Output: a singleton
    ``PCollection[str]``: the path of the review attempt, relative to the workspace.

    Args:
        root: the workspace.
        attempts: of ``clusters``, ``pairs`` and ``review``, their folders.
        config_hash: of what shaped all three.
        origin: provenance for the manifests, and the task that experts are told of.
    """

    root: str
    attempts: Mapping[str, str]
    config_hash: str
    origin: Provenance

    def expand(self, inputs: tuple[beam.PCollection, ...]) -> beam.PCollection[str]:
        """Apply the transform."""
        chosen, threshold, unit, *clusters = inputs
        names = ("overlaps", "model", "totals") if clusters else ()
        beside = {n: pvalue.AsSingleton(p) for n, p in zip(names, clusters, strict=True)}
        return chosen | "Write" >> beam.Map(
            self._write,
            threshold=pvalue.AsSingleton(threshold),
            unit=pvalue.AsSingleton(unit),
            **beside,
        )

    def _write(
        self,
        chosen: Chosen,
        threshold: Threshold,
        unit: int,
        overlaps: list[Overlap] | None = None,
        model: ClusterModel | None = None,
        totals: ClusterTotals | None = None,
    ) -> str:
        with metrics.timed(STAGE):
            if overlaps is not None and model is not None and totals is not None:
                held = Clusters(
                    model.space, model.positive, model.negative, totals.count, totals.mass, ()
                )
                self._commit(
                    "clusters",
                    {
                        "overlaps.jsonl": (overlap_lines(overlaps, unit), len(overlaps)),
                        "centroids.npz": (centroid_file(held), len(totals.count)),
                    },
                    ClustersFacts(
                        origin=self.origin,
                        threshold=threshold,
                        positive_clusters=len(model.positive),
                        negative_clusters=len(model.negative),
                        overlaps=len(overlaps),
                        truncated=totals.truncated,
                    ),
                )
            items = weighed(chosen.items, unit)
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
                {"items.jsonl": (files.json_lines(items), len(items))},
                PairsFacts(
                    origin=self.origin,
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
                    "instructions.txt": (_instructions(self.origin.task).encode(), 1),
                },
                ReviewFacts(self.origin, self.attempts["pairs"]),
            )
            return self.attempts["review"]

    def _commit(
        self,
        stage: str,
        contents: dict[str, tuple[bytes, int]],
        facts: ClustersFacts | PairsFacts | ReviewFacts,
    ) -> None:
        attempt = self.attempts[stage]
        written = [
            files.write(self.root, f"{attempt}/{name}", data, rows)
            for name, (data, rows) in contents.items()
        ]
        manifest = Manifest.of(attempt, self.config_hash, written, written[0].rows, facts)
        Workspace(self.root).commit(manifest)


def _instructions(task: Task) -> str:
    labels, experts = task.labels, task.review.experts_per_ad
    return review_instructions(
        task.name, task.version, task.policy, labels.positive, labels.negative, experts
    )
