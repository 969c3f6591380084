"""How far a simulation is, and when it will end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from pipelines.console.progress import Step
from pipelines.simulation.conditions import CROWD


class Forecast:
    """Shows how far a simulation is, and foresees its end from what each condition took before.

    One pace for all would be far off: a round that mines takes a hundred times as long as one that
    trains a head.
    """

    def __init__(self, advance: Step, rounds: Mapping[str, int], seeds: int) -> None:
        self._advance = advance
        self._seed_rounds = sum(rounds.values())
        self._left = {name: float(seeds * number) for name, number in rounds.items()}
        self._rounds = dict(rounds)
        self._played: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._since: float | None = None

    def skip_seed(self) -> None:
        """Count a seed that an earlier run played."""
        for name, number in self._rounds.items():
            self._left[name] -= number
        self._advance(self._seed_rounds, given=True)

    def show(self, seed: int, condition: str) -> None:
        """Say what is being played."""
        self._advance.words = f"simulating seed {seed}, {condition}"

    def done(self, condition: str, share: float) -> None:
        """Count a share of a round."""
        now = time.monotonic()
        self._left[condition] -= share
        if self._since is not None:
            # The very first part has LLM-0 score the corpus, which is done once.
            self._played[condition] = self._played.get(condition, 0.0) + share
            self._seconds[condition] = self._seconds.get(condition, 0.0) + now - self._since
            self._advance.ends = now + self._left_sec()
        self._since = now
        self._advance(share)

    def _left_sec(self) -> float:
        each = {name: self._seconds[name] / played for name, played in self._played.items()}

        def expected(name: str) -> float:
            # Conditions that have not been met yet take what others of their kind do: a strategy
            # mines, a crowd does not.
            alike = [sec for other, sec in each.items() if _mines(other) == _mines(name)]
            return each[name] if name in each else statistics.fmean(alike or each.values())

        return sum(left * expected(name) for name, left in self._left.items())


def _mines(condition: str) -> bool:
    return not condition.startswith(f"{CROWD} ")
