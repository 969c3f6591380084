"""What is played, in which order."""

from __future__ import annotations

from pipelines.simulation.options import SimulateOptions


def test_ours_is_played_first_and_crowds_last_each_once() -> None:
    conditions = ("crowd", "uncertainty", "boundary", "uncertainty")
    options = SimulateOptions(
        "t", ("c",), "w", rounds=3, conditions=conditions, crowd_kappa=(0.6, 0.4),
        crowd_noise=("text",),
    )  # fmt: skip
    assert options.strategies == ("boundary", "uncertainty")
    assert options.rounds_of == {
        "boundary": 3, "uncertainty": 3, "crowd 0.6 text": 1, "crowd 0.4 text": 1,
    }  # fmt: skip
    assert SimulateOptions("t", ("c",), "w", conditions=("random",)).crowds == ()
