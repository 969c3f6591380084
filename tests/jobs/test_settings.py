"""What a setting shapes: every one is told, once, and a committee that a mining chose is no change."""

from __future__ import annotations

from collections import Counter

from pipelines.config import Committee, Member, Task, parse_task
from pipelines.jobs.pilot import seated
from pipelines.jobs.settings import (
    LEARNING,
    MEANING,
    PAIRS,
    among,
    changed,
    settings_of,
    with_committee_of,
)
from tests import helpers

REAL = helpers.FAKE_TASK.replace("model: {preset: fake}\n", "")


def committee(weight: float = 1.0) -> Committee:
    member = Member(
        name="a", cue="Bad:", positive=" Yes", negative=" No", weight=weight, center=0.0, scale=1.0
    )
    return Committee(
        members=(member,),
        similarity=0.2,
        center=0.0,
        scale=1.0,
        slope=1.0,
        offset=0.0,
        agreement=0.5,
        ads=9,
    )


def task(**changes: str) -> Task:
    text = REAL
    for old, new in changes.items():
        text = text.replace(old, new)
    return parse_task(text, "task.yaml")


def test_every_setting_shapes_one_thing() -> None:
    keys = [key for key, _ in settings_of(task())]
    told = Counter(key for group in (MEANING, LEARNING, PAIRS) for key in among(keys, group))
    assert told == Counter(keys)


def test_no_group_names_what_no_task_has() -> None:
    keys = [key for key, _ in settings_of(task())]
    known = set(keys) | {key.partition(".")[0] for key in keys}
    assert known >= MEANING | LEARNING | PAIRS


def test_changes_are_named_setting_by_setting() -> None:
    other = task(**{"budget: 12": "budget: 40, band: 0.5", "prior: 0.2": "prior: 0.1"})
    found = changed(other, task())
    assert found == ["prior", "selection.budget", "selection.band"]
    assert among(found, PAIRS) == ["selection.budget", "selection.band"]
    assert among(found, LEARNING) == ["prior"]
    assert changed(other, other) == []


def test_a_committee_that_a_mining_chose_is_taken_over() -> None:
    mined = seated(task(), committee())
    assert changed(task(), mined) == ["prompt.committee"]
    assert changed(with_committee_of(task(), mined), mined) == []
    # Another prior chooses no other committee of a round that is mined.
    other = with_committee_of(task(**{"prior: 0.2": "prior: 0.1"}), mined)
    assert changed(other, mined) == ["prior"]


def test_a_prompt_of_ones_own_is_kept() -> None:
    mined = seated(task(), committee())
    own = parse_task(REAL + "prompt: {form: completion}\n", "task.yaml")
    assert with_committee_of(own, mined) is own
    written = seated(task(), committee(0.5))
    assert with_committee_of(written, mined) is written
    assert with_committee_of(task(), task()) == task()
