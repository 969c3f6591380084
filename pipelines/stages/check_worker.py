"""CheckWorker: whether a worker has what labels ads, before anything costs time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import apache_beam as beam


@dataclasses.dataclass(eq=False)
class CheckWorker(beam.PTransform):
    """Look on a worker for a model's weights as the job begins: a root transform.

    Output: ``PCollection[str]``, nothing. One worker looks: all of them run one image.

    Args:
        look: raises :class:`RunFailed`, in one sentence, where the weights are not.
    """

    look: Callable[[], None]

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[str]:
        """Apply the transform."""
        once = begin | "Once" >> beam.Create([""], reshuffle=False)
        return once | "Look" >> beam.FlatMap(self._look)

    def _look(self, _: str) -> list[str]:
        self.look()
        return []
