"""Words that contradict earlier imports: found without the evaluation half, decided, listed."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import Verdict
from pipelines.store.workspace import Workspace
from pipelines.verdicts.contradictions import (
    COLUMNS,
    OnConflict,
    Said,
    Words,
    answers_of,
    forgotten,
    listing,
    remembered,
)
from pipelines.verdicts.halves import latest
from tests.verdicts import verdict

EARLY, LATE = "2026-11-01T10:00:00Z", "2026-11-02T10:00:00Z"


def said(label: str, time: str = "", source: str = "f") -> Verdict:
    return replace(verdict("k", "anna", label, time), source=source)


def standing(
    *files: list[Verdict], on_conflict: OnConflict = "ask"
) -> tuple[str, list[tuple[str, str]]]:
    """Import files one after the other; -> the label that counts, and how contradictions were decided."""
    stored: list[Verdict] = []
    decided = []
    for file in files:
        kept, found = Words(map(Said.of, stored)).settle(file, on_conflict)
        stored += kept
        decided += [(each.counts, each.decided_by) for each in found]
    return "".join(v.label for v in latest(stored)), decided


@pytest.mark.parametrize(
    ("earlier", "later", "label", "decided"),
    [
        (said("positive", EARLY), said("negative", LATE), "negative", ("later", "time")),
        (said("positive", LATE), said("negative", EARLY), "positive", ("earlier", "time")),
        (said("positive", LATE), said("skip", EARLY), "positive", ("earlier", "time")),
        (said("positive", EARLY), said("skip", LATE), "skip", ("later", "time")),
        # Nothing tells: the earlier one stands, and somebody is asked.
        (said("positive", EARLY), said("negative", EARLY), "positive", ("", "")),
        (said("positive", EARLY), said("negative"), "positive", ("", "")),
        (said("positive"), said("negative", LATE), "positive", ("", "")),
        (said("positive"), said("negative"), "positive", ("", "")),
    ],
)
def test_time_decides_where_there_is_one(
    earlier: Verdict, later: Verdict, label: str, decided: tuple[str, str]
) -> None:
    assert standing([earlier], [later]) == (label, [decided])
    if not decided[0]:
        for choice, wanted in (("keep", "positive"), ("replace", later.label)):
            counts = "earlier" if choice == "keep" else "later"
            found = standing([earlier], [later], on_conflict=choice)
            assert found == (wanted, [(counts, "on_conflict")])


def test_the_same_word_again_contradicts_nothing() -> None:
    assert standing([said("positive")], [said("positive", LATE)], [said("positive")]) == (
        "positive",
        [],
    )


def test_a_label_where_there_was_a_skip_is_an_answer_unless_it_comes_back() -> None:
    # Who signs a sheet that is not done yet fills it in later.
    assert standing([said("skip")], [said("positive")]) == ("positive", [])
    assert standing([said("skip", EARLY)], [said("positive")]) == ("positive", [])
    assert standing([said("skip", LATE)], [said("positive", EARLY)]) == (
        "skip",
        [("earlier", "time")],
    )
    # A label that was withdrawn since is another matter.
    files = [[said("positive")], [said("skip")], [said("positive")]]
    assert standing(*files, on_conflict="keep") == ("positive", [("earlier", "on_conflict")])
    words = Words(map(Said.of, [said("positive"), said("skip")]))
    assert words.settle([said("positive")], "ask")[1][0].said_before


def test_within_a_file_its_order_decides_and_is_listed() -> None:
    rows = [said("positive"), said("negative"), said("skip")]
    assert standing(rows) == ("skip", [("later", "order of the rows")] * 2)
    timed = [said("positive", LATE), said("negative", EARLY)]
    assert standing(timed) == ("positive", [("earlier", "time")])


@pytest.mark.parametrize("time", ["", EARLY])
def test_an_export_that_holds_what_was_corrected_in_it_comes_again(time: str) -> None:
    # Both answers of a person, perhaps within one second, and exported anew with somebody's later one.
    rows = [said("negative", time), said("positive", time)]
    decided = ("later", "order of the rows")
    assert standing(rows, rows) == ("positive", [decided] * 2)
    assert standing(rows[1:], rows) == ("positive", [decided])
    # What ends with another word than counts is asked about, however it begins.
    assert standing(rows[1:], rows[::-1])[1] == [("", "")]
    assert standing(rows[1:], rows[::-1], on_conflict="keep")[0] == "positive"
    assert standing(rows[1:], rows[::-1], on_conflict="replace")[0] == "negative"


def test_an_old_word_does_not_pass_for_a_new_one() -> None:
    # What has no time replaced what has one: an older time than that is older than both.
    files = [[said("positive", LATE)], [said("negative")], [said("positive", EARLY)]]
    assert standing(*files, on_conflict="replace") == (
        "negative",
        [("later", "on_conflict"), ("earlier", "time")],
    )
    words = Words(map(Said.of, [said("positive"), said("negative")]))
    _, [found] = words.settle([said("positive")], "ask")
    assert found.said_before and found.earlier.label == "negative"
    assert not Words([Said.of(said("positive"))]).settle([said("skip")], "ask")[1][0].said_before


def test_a_later_pull_shows_what_holds_on_the_server() -> None:
    names = [
        f"w/pulled/{tool}-{n:016x}.json" for n, tool in enumerate(["argilla", "argilla", "other"])
    ]
    pulls = [
        [said(label, source=name)]
        for label, name in zip(["positive", "negative"], names, strict=False)
    ]
    assert standing(*pulls) == ("negative", [("later", "later pull")])
    other = [said("negative", source=names[2])]
    assert standing(pulls[0], other) == ("positive", [("", "")])
    assert standing(pulls[0], [said("negative", source="sheet.csv")])[1] == [("", "")]


LABELS = st.sampled_from(["positive", "negative", "skip"])
TIMES = st.sampled_from(["", EARLY, "2026-11-01T12:00:00Z", LATE])
FILES = st.lists(st.lists(st.builds(said, LABELS, TIMES), max_size=3), max_size=5)


@given(FILES, st.sampled_from(["ask", "keep", "replace"]))
def test_what_counts_is_what_was_decided(files: list[list[Verdict]], choice: OnConflict) -> None:
    stored: list[Verdict] = []
    for file in files:
        kept, found = Words(map(Said.of, stored)).settle(file, choice)
        before = latest(stored)
        stored += kept
        now = latest(stored)
        assert len(kept) + sum(each.is_left_out for each in found) == len(file)
        if (
            found
            and choice == "keep"
            and not any(each.decided_by != "on_conflict" for each in found)
        ):
            assert [v.label for v in now] == [v.label for v in before]
        if found and all(each.counts == "later" for each in found) and len(file) == 1:
            assert [v.label for v in now] == [file[0].label]
        # One file after the other is as all of them remembered at once.
        assert [Said.of(v).label for v in stored] == [v.label for v in stored]


def test_people_who_say_the_same_contradict_nobody() -> None:
    words = Words([Said.of(verdict("k", "anna", "positive"))])
    others = [verdict("k", "bo", "negative"), verdict("l", "anna", "negative")]
    assert words.settle(others, "ask") == (others, [])


def test_answers_are_the_same_however_they_are_saved() -> None:
    one = [said("positive"), verdict("l", "bo", "skip", LATE)]
    again = [
        replace(v, source="other", position="line 9", item_id="q", ad_id="z") for v in one[::-1]
    ]
    assert answers_of(one) == answers_of(again) == answers_of([*again, *one])
    assert answers_of([replace(one[0], comment="two\r\nlines ")]) == answers_of(
        [replace(one[0], comment="two\nlines")]
    )
    different = [
        one[:1],
        [said("negative")],
        [said("positive", LATE)],
        [replace(one[0], comment="x")],
        [],
    ]
    assert all(
        answers_of(a) != answers_of(b) for a, b in itertools.combinations([one, *different[1:]], 2)
    )
    assert answers_of([]) == ""


def test_the_list_can_be_opened_and_runs_nothing() -> None:
    later = replace(said("negative", source="=cmd()"), ad_id="0012", position="line 3")
    _, found = Words([Said.of(said("positive", EARLY, "a.csv"))]).settle([later], "ask")
    data = listing(found, {"k": "=1+1 " + "x" * 500}, {"positive": "bait", "negative": "fine"})
    header, row = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    cells = dict(zip(header, row, strict=True))
    assert header == list(COLUMNS)
    assert (cells["earlier_label"], cells["later_label"]) == ("bait", "fine")
    assert (cells["earlier_file"], cells["later_file"]) == ("a.csv", "'=cmd()")
    assert (cells["ad_id"], cells["counts"], cells["said_before"]) == ("'0012", "undecided", "no")
    assert cells["text"].startswith("'=1+1 x") and len(cells["text"]) < 210


def test_a_workspace_without_imports_remembers_nothing(tmp_path: Path) -> None:
    place = Workspace(str(tmp_path))
    assert list(remembered(place, {})) == [] and forgotten({}) == 0
