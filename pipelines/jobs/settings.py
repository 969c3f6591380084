"""What a setting of a task shapes: the pairs, the learning, or what labels and scores mean.

Pairs are mined with one set of settings and learnt from with another: a budget for one mining, or a
learner that is tried afterwards, is no other task. What decides what experts were asked, or what LLM-0
said, is: labels and models of both would be compared as if they were of one kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.config import Task
from pipelines.jobs.pilot import seated

# Keys of a task, whole sections or one setting of them; each setting is in one of the three.
MEANING = frozenset(
    {"name", "version", "policy", "question", "labels", "prompt", "model", "embedding.preset"}
)
LEARNING = frozenset(
    {"prior", "seed", "training", "stopping", "review.consensus", "review.min_overlap"}
)
PAIRS = frozenset(
    {
        "ad",
        "server",
        "embedding.source",
        "embedding.standardize",
        "cascade",
        "labeling",
        "clustering",
        "overlaps",
        "search",
        "selection",
        "review.experts_per_ad",
        "review.evaluation_share",
        "review.minutes",
    }
)


def changed(task: Task, other: Task) -> list[str]:
    """Return the settings, ``section.key``, in which two tasks differ, in the task file's order."""
    own, held = (dict(settings_of(found)) for found in (task, other))
    return [key for key in own if own[key] != held[key]]


def settings_of(task: Task) -> Iterator[tuple[str, Any]]:
    """Yield every setting of a task with its value."""
    for key, value in task.model_dump(mode="json").items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", found) for name, found in value.items())
        else:
            yield key, value


def among(keys: Iterable[str], group: frozenset[str]) -> list[str]:
    """Return those of some settings that belong to a group."""
    return [key for key in keys if key in group or key.partition(".")[0] in group]


def with_committee_of(task: Task, mined: Task) -> Task:
    """Return a task with the committee that the mining chose for it, where its file leaves that open."""
    chosen = mined.prompt.committee
    if chosen is None or not task.wants_committee():
        return task
    found = seated(task, chosen)
    return found if found.prompt == mined.prompt else task
