"""What ``scout simulate`` was told."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.config import Task
from pipelines.errors import UsageError
from pipelines.simulation.conditions import CROWD, CROWD_NOISES, DEFAULT_CONDITIONS
from pipelines.store import storage

OURS = "boundary"
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Crowd:
    """A crowd that labels many ads with errors.

    Attributes:
        kappa: its agreement with the gold labels.
        noise: what its errors follow, one of ``CROWD_NOISES``.
    """

    kappa: float
    noise: str

    @property
    def name(self) -> str:
        """The condition that it is."""
        return f"{CROWD} {self.kappa:g} {self.noise}"


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """Everything ``scout simulate`` was told; see ``scout simulate --help``."""

    task: Task | str
    corpus: tuple[str, ...]
    workspace: str
    experts: str = "gold"
    expert_kappa: float = 0.8
    label_field: str = "label"
    ratings_field: str = "ratings"
    label_file: str = ""
    prevalence: float | None = None
    rounds: int = _ROUNDS
    labels: tuple[int, ...] = ()
    conditions: tuple[str, ...] = DEFAULT_CONDITIONS
    seeds: int = 1
    first_seed: int = 1
    learner: str | None = None
    also: tuple[str, ...] = ()
    also_from: int = 1
    holdout: float = 0.2
    crowd_labels: int | None = None
    crowd_kappa: tuple[float, ...] = (0.59, 0.41)
    crowd_noise: tuple[str, ...] = CROWD_NOISES

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies among the conditions; ours first, for the others get as many labels."""
        names = dict.fromkeys(name for name in self.conditions if name != CROWD)
        return tuple(sorted(names, key=lambda name: name != OURS))

    @property
    def crowds(self) -> tuple[Crowd, ...]:
        """The crowds, where the conditions have any."""
        if CROWD not in self.conditions:
            return ()
        return tuple(
            itertools.starmap(Crowd, itertools.product(self.crowd_kappa, self.crowd_noise))
        )

    @property
    def rounds_of(self) -> dict[str, int]:
        """How many rounds a seed plays of each condition; a crowd is one round."""
        rounds = dict.fromkeys(self.strategies, self.rounds)
        return rounds | {crowd.name: 1 for crowd in self.crowds}


def options_of(given: Mapping[str, Any]) -> SimulateOptions:
    """Return options, from what was given of them; ``rounds`` may be None.

    Raises:
        UsageError: options that contradict each other.
    """
    labels, workspace = given["labels"], given["workspace"]
    rounds = given["rounds"] or len(labels) or _ROUNDS
    if labels and len(labels) != rounds:
        raise UsageError(
            f"--labels names {len(labels)} rounds, --rounds {rounds}; leave --rounds out"
        )
    if not storage.is_local(workspace):
        raise UsageError(f"--workspace {workspace}: a simulation needs a local folder")
    return SimulateOptions(
        **{**given, "rounds": rounds, "also": tuple(dict.fromkeys(given["also"]))}
    )
