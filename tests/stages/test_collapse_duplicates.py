"""One ad a text, whatever the order, and ids that stand for two texts."""

from __future__ import annotations

from collections import Counter, defaultdict

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import UNIQUE_SCHEMA, Ad, Block, Rejected, UniqueAd
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.stages import collapse_duplicates as stage
from pipelines.store import blocks
from pipelines.text import content_key
from tests import helpers


def ad(id: str, text: str, weight: float = 1.0, position: str = "line 1") -> Ad:
    return Ad(id, content_key(text), text, weight, "f", position)


# What came out of a pipeline that ran in this process.
KEPT: list[UniqueAd] = []
DROPPED: list[Rejected] = []


def keep(block: Block) -> None:
    KEPT.extend(helpers.unique_ads(block))


def drop(rejected: Rejected) -> None:
    DROPPED.append(rejected)


def collapsed(
    ads: list[Ad], corpus_ids: bool, partitions: int
) -> tuple[list[UniqueAd], list[Rejected]]:
    """Collapse ads, in elements of up to 7."""
    KEPT.clear()
    DROPPED.clear()
    with TestPipeline(runner=DEFAULT_RUNNER) as pipeline:
        batches = [ads[start : start + 7] for start in range(0, len(ads), 7)]
        collapse = stage.CollapseDuplicates(corpus_ids=corpus_ids, partitions=partitions)
        result = pipeline | beam.Create(batches) | collapse
        _ = result[stage.UNIQUE] | "Keep" >> beam.Map(keep)
        _ = result[stage.REJECTED] | "Drop" >> beam.Map(drop)
    return list(KEPT), list(DROPPED)


@pytest.mark.parametrize("partitions", [1, 5])
def test_copies_collapse_to_the_smallest_id(partitions: int) -> None:
    ads = [ad("b", "Same  Text", 1), ad("c", "other", 0.25), ad("a", "same text", 2.5)]
    kept, dropped = collapsed(ads, True, partitions)
    assert not dropped
    assert sorted(kept) == [
        UniqueAd("a", "same text", "f", "line 1", "", content_key("same text"), "3.5", 2),
        UniqueAd("c", "other", "f", "line 1", "", content_key("other"), "0.25", 1),
    ]


def unique(id: str, key: str, text: str, position: str = "line 1", source: str = "f") -> UniqueAd:
    return UniqueAd(id, text, source, position, "", key, "1", 1)


def test_the_same_record_twice_counts_twice_and_is_no_conflict() -> None:
    one = unique("a", "k", "t")
    alone, several = stage.merge_ids([one, one])
    assert (alone, several) == ({"a": one._replace(exact="2", copies=2)}, {})


def test_an_id_with_two_texts_is_rejected_with_both_places() -> None:
    first, second = unique("a", "k1", "one"), unique("a", "k2", "two", "line 9", "g")
    alone, several = stage.merge_ids([second, first, second, unique("b", "k1", "one")])
    assert list(alone) == ["b"]
    rejected = stage.conflicts("a", several["a"])
    assert [(r.id, r.reason, r.source, r.position, r.excerpt, r.records) for r in rejected] == [
        ("a", "id_conflict", "f", "line 1", "one", 1),
        ("a", "id_conflict", "g", "line 9", "two", 2),
    ]
    assert rejected[0].detail == (
        "the id stands for 2 different texts; ids must be unique; if each file counts its rows from the "
        "beginning, --id_field none makes ids from the texts"
    )
    _, several = stage.merge_ids([first, second._replace(source="f")])
    assert stage.conflicts("a", several["a"])[0].detail.endswith("texts; ids must be unique")


def test_an_id_with_very_many_texts_keeps_the_count() -> None:
    _, several = stage.merge_ids(unique("a", f"k{n:04d}", f"t{n}") for n in range(500))
    texts, _ = several["a"]
    assert sorted(texts) == [f"k{n:04d}" for n in range(16)]
    rejected = stage.conflicts("a", several["a"])
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
    ads = [
        stage.to_unique(ad(id, text, weight, f"line {n}"))
        for n, (id, text, weight) in enumerate(rows)
    ]
    ids, copies = stage.merge_ids(ads), stage.merge_copies(ads)
    rng.shuffle(ads)
    assert stage.merge_ids(ads) == ids
    assert stage.merge_copies(ads) == copies
    cut = rng.randrange(len(ads) + 1)
    parts = [stage.merge_copies(part).values() for part in (ads[:cut], ads[cut:])]
    assert stage.merge_copies([*parts[1], *parts[0]]) == copies


def test_blocks_are_of_the_schema_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_BLOCK_ROWS", 3)
    ads = [unique(f"i{n}", f"k{n}", f"t{n}") for n in range(7)]
    found = list(stage.to_blocks(ads))
    assert [block.rows for block in found] == [3, 3, 1]
    assert [row for block in found for row in helpers.unique_ads(block)] == ads
    assert all(blocks.from_block(block).schema.equals(UNIQUE_SCHEMA) for block in found)
    assert list(stage.to_blocks([])) == []


def test_partitions_go_by_the_corpus() -> None:
    assert stage.partitions_of(0) == 1
    assert stage.partitions_of(64 * 10**12) > 10**6


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
    given = [ad(*row, position=f"line {n}") for n, row in enumerate(rows)]
    for partitions in (1, 3):
        kept, dropped = collapsed(given, True, partitions)
        assert sorted((a.id, a.exact, a.copies) for a in kept) == sorted(expected.values())
        assert (
            Counter((r.id, content_key(r.excerpt)) for r in dropped for _ in range(r.records))
            == rejected
        )
    assert expected
    assert rejected


def test_content_ids_need_no_conflict_check() -> None:
    kept, dropped = collapsed([ad("ad_1", "x"), ad("ad_1", "X")], False, 2)
    assert [(a.id, a.exact, a.copies) for a in kept] == [("ad_1", "2", 2)]
    assert dropped == []
