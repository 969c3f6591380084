"""A corpus that is empty, mostly unusable, or without a field ends the run."""

from __future__ import annotations

import json
import re

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipelines.contracts import Ad, BlockFile, Rejected, Tally, UniqueAd, first_examples
from pipelines.errors import find_run_failed
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.stages.check_corpus import CheckCorpus, check, join_whys, places, why
from tests import helpers

LETTERS = BlockFile("rounds/0001/rejected.jsonl", 1, 10, "ab" * 32)


def ads(*fields: str, weight: str = "1") -> list[UniqueAd]:
    return [
        UniqueAd(f"i{n}", "text", "f", f"line {n}", shown, f"k{n}", weight)
        for n, shown in enumerate(fields)
    ]


def rejected(stage: str, reason: str, records: int) -> Rejected:
    return Rejected("", stage, reason, "why", "a/f", "line 1", "", records)


def run(
    unique: list[UniqueAd],
    bad: list[Rejected],
    expected: Tally | None = None,
    read: int | None = None,
    share: float = 0.5,
    fields: tuple[str, ...] = (),
) -> None:
    number = len(unique) if read is None else read
    with TestPipeline(runner=DEFAULT_RUNNER) as pipeline:
        one = Ad("i", "k", "text", 1.0, "f", "line 1")
        blocks = [helpers.unique_block(unique[n : n + 2]) for n in range(0, len(unique), 2)]
        inputs = (
            pipeline | "Ads" >> beam.Create([[one] * 2] * (number // 2) + [[one]] * (number % 2)),
            pipeline | "Unique" >> beam.Create(blocks),
            pipeline | "Bad" >> beam.Create([r for r in bad if r.stage == "ReadAds"]),
            pipeline | "Conflicts" >> beam.Create([r for r in bad if r.stage != "ReadAds"]),
            pipeline | "Files" >> beam.Create([LETTERS] if bad else []),
        )
        tally = inputs | CheckCorpus("/w", share, fields)
        assert_that(tally, equal_to([expected]))


def refusal(*args: object, **settings: object) -> str:
    with pytest.raises(Exception, match="run failed") as caught:
        run(*args, **settings)  # type: ignore[arg-type]
    return str(find_run_failed(caught.value))


def test_the_tally_counts_records_not_dead_letters() -> None:
    bad = [rejected("ReadAds", "no_text", 1), rejected("CollapseDuplicates", "id_conflict", 2)]
    reasons = json.dumps({"id_conflict": 2, "no_text": 1})
    examples = json.dumps({"id_conflict": "f, line 1: why", "no_text": "f, line 1: why"})
    # The conflicting records were read as ads; the unreadable one was not.
    run(ads("", ""), bad, Tally(6, 3, reasons, examples, 2, "2"), read=5)


def test_what_ends_a_run() -> None:
    assert refusal([], []) == "the corpus holds no records: every file is empty"
    bad = [rejected("ReadAds", "no_text", 2), rejected("ReadAds", "not_json", 3)]
    where = "see /w/rounds/0001/rejected.jsonl"
    counts = "not_json 3 (first f, line 1: why), no_text 2 (first f, line 1: why)"
    none = f"none of the 5 records is usable: {counts}; {where}"
    assert refusal([], bad) == none
    assert refusal(ads(""), bad, share=0.1) == (
        "5 of 6 records (83.3%) were rejected, more than --max_rejected_share 0.1: "
        f"{counts}; {where}"
    )


def test_the_first_example_of_a_reason_is_the_first_in_its_file() -> None:
    def at(source: str, position: str) -> Rejected:
        return Rejected("", "ReadAds", "no_text", "why", source, position, "ad\x1b[2J", 1)

    found = [at("b", "line 1"), at("a", "line 10"), at("a", "line 9"), at("a", "line 11")]
    example = "a, line 9: why; it begins 'ad\\x1b[2J'"
    for order in (found, found[::-1]):
        assert join_whys([join_whys(map(why, order[:2])), *map(why, order[2:])])[2] == example
        assert first_examples(order) == {"no_text": example}
    assert f"no_text 4 (first {example})" in refusal([], found)


def test_weights_add_up_exactly_at_any_scale() -> None:
    some = [*ads("", weight="1E+15"), *ads("", weight="0.0004"), *ads("", weight="0.3")]
    run(some, [], Tally(3, 0, "{}", "{}", 3, "1000000000000000.3004"))


def test_a_share_at_the_limit_is_no_refusal() -> None:
    check(Tally(10, 5, "{}", "{}", 5, "5"), 0.5, "")
    with pytest.raises(ValueError, match=re.escape("must be 0 to 1, got 1.5")):
        CheckCorpus("/w", 1.5)


def test_a_field_that_no_ad_has_is_a_mistake_in_the_task_file() -> None:
    some = ads('[["A", "x"]]', '[["B", "y"]]', '[["A", "x"], ["B", "y"]]')
    run(some, [], Tally(3, 0, "{}", "{}", 3, "3"), fields=("A", "B"))
    assert refusal(some, [], fields=("A", "C", "B")) == (
        "ad.fields: none of the 3 distinct ads has the field 'C'; mend its path in the task file, "
        "or take it out"
    )


def test_places_are_named_up_to_three() -> None:
    files = [BlockFile(f"r/{n}.jsonl", 1, 1, "") for n in range(4)]
    assert places("/w", files[:1]) == "/w/r/0.jsonl"
    assert places("/w", files) == "/w/r/0.jsonl, /w/r/1.jsonl, /w/r/2.jsonl ..."
    assert places("/w", []) == "the log"
