"""What a simulation compares; the command line names it before the rest is loaded."""

from __future__ import annotations

CROWD = "crowd"
DEFAULT_CONDITIONS = ("boundary", "random", "uncertainty", CROWD)
# What a crowd's errors follow: the ad's text, or chance alone.
CROWD_NOISES = ("text", "uniform")
# Strategies that take over from one another: the first chooses the first round, the last all others.
SEQUENCES = {"random+uncertainty": ("random", "uncertainty")}


def conditions() -> tuple[str, ...]:
    """Return what can be played: any known strategy, strategies after one another, or a crowd."""
    from pipelines.strategies import registry

    return (*registry.names(), *SEQUENCES, CROWD)


def strategy_of(condition: str, number: int) -> str:
    """Return the strategy that chooses a round, counted from 1, of a condition that is no crowd."""
    sequence = SEQUENCES.get(condition, (condition,))
    return sequence[min(number, len(sequence)) - 1]
