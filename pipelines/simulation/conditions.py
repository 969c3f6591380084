"""What a simulation compares; the command line names it before the rest is loaded."""

CONDITIONS = ("boundary", "random", "uncertainty", "crowd")
# What a crowd's errors follow: the ad's text, or chance alone.
CROWD_NOISES = ("text", "uniform")
