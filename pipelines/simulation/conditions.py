"""What a simulation compares; the command line names it before the rest is loaded."""

from __future__ import annotations

CROWD = "crowd"
DEFAULT_CONDITIONS = ("boundary", "random", "uncertainty", CROWD)
# What a crowd's errors follow: the ad's text, or chance alone.
CROWD_NOISES = ("text", "uniform")


def conditions() -> tuple[str, ...]:
    """Return what can be played: any known strategy, or a crowd."""
    from pipelines.strategies import registry

    return (*registry.names(), CROWD)
