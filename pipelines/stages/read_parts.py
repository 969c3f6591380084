"""ReadParts: from the files that a scored manifest lists to the parts of the corpus, spread on workers."""

from __future__ import annotations

import dataclasses

import apache_beam as beam

from pipelines.contracts import BlockFile, ScoredPart
from pipelines.store import scores


@dataclasses.dataclass(eq=False)
class ReadParts(beam.PTransform):
    """Read parts: ``PCollection[BlockFile]`` to ``PCollection[ScoredPart]``.

    Memory of a worker: a file's parts, 0.4 KB each.

    Args:
        root: the workspace.
    """

    root: str

    def expand(self, files: beam.PCollection[BlockFile]) -> beam.PCollection[ScoredPart]:
        """Apply the transform."""
        return (
            files
            | "ReadFile"
            >> beam.FlatMap(lambda file, root: scores.read_parts(root, file), self.root)
            # Without it, one worker would read all blocks of a file of parts.
            | "SpreadParts" >> beam.Reshuffle()
        )
