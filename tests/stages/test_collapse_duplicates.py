"""One ad a text, whatever the order, and ids that stand for two texts."""

from __future__ import annotations

from collections import Counter, defaultdict

import apache_beam as beam
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import Ad, UniqueAd
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.stages import collapse_duplicates as stage
from pipelines.text import content_key


def ad(id: str, text: str, weight: float = 1.0, position: str = "line 1") -> Ad:
    return Ad(id, content_key(text), text, weight, "f", position)


def check(
    ads: list[Ad],
    unique: list[tuple[str, str, int]],
    rejected: list[tuple[str, int]],
    corpus_ids: bool = True,
) -> None:
    """Compare with (id, exact weight, copies) of unique ads and (id, records) of rejected ones."""
    with TestPipeline(runner=DEFAULT_RUNNER) as pipeline:
        result = pipeline | beam.Create(ads) | stage.CollapseDuplicates(corpus_ids=corpus_ids)
        kept = result[stage.UNIQUE] | "Kept" >> beam.Map(lambda a: (a.id, a.exact, a.copies))
        dropped = result[stage.REJECTED] | "Dropped" >> beam.Map(lambda r: (r.id, r.records))
        assert_that(kept, equal_to(unique), label="unique")
        assert_that(dropped, equal_to(rejected), label="rejected")


def test_copies_collapse_to_the_smallest_id() -> None:
    ads = [ad("b", "Same  Text", 1), ad("c", "other", 0.25), ad("a", "same text", 2.5)]
    with TestPipeline() as pipeline:
        result = pipeline | beam.Create(ads) | stage.CollapseDuplicates(corpus_ids=True)
        assert_that(
            result[stage.UNIQUE],
            equal_to(
                [
                    UniqueAd(
                        "a", content_key("same text"), "same text", 0, 2, "f", "line 1", "", "3.5"
                    ),
                    UniqueAd("c", content_key("other"), "other", 0, 1, "f", "line 1", "", "0.25"),
                ]
            ),
        )


def test_the_same_record_twice_counts_twice_and_is_no_conflict() -> None:
    assert stage.resolve_id("a", {"k": ("t", "f", "line 1", "[]", "2", 2)}, 0) == [
        UniqueAd("a", "k", "t", 0, 2, "f", "line 1", "[]", "2")
    ]


def test_an_id_with_two_texts_is_rejected_with_both_places() -> None:
    texts = {"k1": ("one", "f", "line 1", "", "1", 1), "k2": ("two", "g", "line 9", "", "2", 2)}
    rejected = stage.resolve_id("a", texts, 0)
    assert [(r.id, r.reason, r.source, r.position, r.records) for r in rejected] == [
        ("a", "id_conflict", "f", "line 1", 1),
        ("a", "id_conflict", "g", "line 9", 2),
    ]
    assert rejected[0].detail == (
        "the id stands for 2 different texts; ids must be unique; if each file counts its rows from the "
        "beginning, --id_field none makes ids from the texts"
    )
    texts["k2"] = ("two", "f", "line 9", "", "2", 2)
    assert stage.resolve_id("a", texts, 0)[0].detail.endswith("texts; ids must be unique")


def test_an_id_with_very_many_texts_keeps_the_count() -> None:
    parts = [({f"k{n:04d}": (f"t{n}", "f", "line 1", "", "1", 1)}, 0) for n in range(500)]
    texts, overflow = stage.merge_texts(parts)
    assert len(texts) == 16
    rejected = stage.resolve_id("a", texts, overflow)
    assert sum(r.records for r in rejected) == 500
    assert "more than 16" in rejected[0].detail


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["x", "X ", "y", "z"]), st.integers(0, 5)
        ),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_merging_does_not_depend_on_the_order(rows: list, rng) -> None:
    accumulators = [
        ({content_key(t): (t, "f", f"line {n}", "", str(w), 1)}, 0)
        for n, (_, t, w) in enumerate(rows)
    ]
    whole = stage.merge_texts(accumulators)
    rng.shuffle(accumulators)
    cut = rng.randrange(len(accumulators) + 1)
    parts = [stage.merge_texts(accumulators[:cut]), stage.merge_texts(accumulators[cut:])]
    assert stage.merge_texts(parts) == whole


def test_the_stage_against_a_slow_oracle() -> None:
    rows = []
    for n in range(60):
        id = n * n % 23
        # Mostly one text an id; every thirteenth record disagrees.
        rows.append(
            (f"i{id}", ["one", "ONE ", "two", "3"][n % 4 if n % 13 == 0 else id % 4], n % 5)
        )
    texts_of: dict[str, set[str]] = defaultdict(set)
    for id, text, _ in rows:
        texts_of[id].add(content_key(text))
    good = [row for row in rows if len(texts_of[row[0]]) == 1]
    expected: dict[str, tuple[str, str, int]] = {}
    for id, text, weight in good:
        known = expected.get(content_key(text), ("~", "0", 0))
        weights = str(int(known[1]) + weight)
        expected[content_key(text)] = (min(known[0], id), weights, known[2] + 1)
    rejected = Counter((id, content_key(text)) for id, text, _ in rows if len(texts_of[id]) > 1)
    check(
        [ad(*row, position=f"line {n}") for n, row in enumerate(rows)],
        list(expected.values()),
        [(id, number) for (id, _), number in rejected.items()],
    )
    assert expected
    assert rejected


def test_content_ids_need_no_conflict_check() -> None:
    check([ad("ad_1", "x"), ad("ad_1", "X")], [("ad_1", "2", 2)], [], corpus_ids=False)
