"""The scored manifest: what it lists, and when it must not be written."""

from __future__ import annotations

import json
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipelines.contracts import BlockFile, Rejected, ScoredPart, Tally
from pipelines.stages.check_corpus import add_reasons, join_whys, why
from pipelines.stages.commit_scored import CommitScored
from pipelines.store import scores
from pipelines.store.workspace import Workspace
from tests.helpers import provenance

TALLY = Tally(
    100, 2, json.dumps({"not_json": 2}), json.dumps({"not_json": "a.jsonl, line 3: no"}), 90, "95.5"
)
PARTS = [ScoredPart(f"scores/k/keys-all/{n}.rows.parquet", "o", n, 10 * n) for n in (3, 1, 2)]
LETTER = BlockFile("rounds/0001/scored/x/rejected-records-00000.jsonl", 2, 9, "1" * 64)


def bad(records: int) -> Rejected:
    return Rejected("7", "ScoreAds", "not_finite", "d", "a", "line 1", "x", records)


def commit(
    root: Path, parts: list[ScoredPart], unscored: list[Rejected], share: float, shards: int = 1
) -> None:
    place = Workspace(str(root))
    attempt = place.new_attempt(1, "scored")
    with TestPipeline() as pipeline:
        given = (
            pipeline | "Parts" >> beam.Create(parts),
            pipeline | "Unscored" >> beam.Create(unscored),
            pipeline | "Letters" >> beam.Create([LETTER]),
            pipeline | "Unread" >> beam.Create([("Thai", 2), ("symbols", 1), ("Thai", 3)]),
            pipeline | "Tally" >> beam.Create([TALLY]),
        )
        out = given | CommitScored(str(root), attempt, "hash", provenance(), share, shards)
        read = out | beam.FlatMap(lambda file, root: scores.read_parts(root, file), str(root))
        assert_that(read, equal_to(parts))


@pytest.mark.parametrize("shards", [1, 5])
def test_the_manifest_lists_files_of_parts_and_counts_all_reasons(
    tmp_path: Path, shards: int
) -> None:
    commit(tmp_path, PARTS, [bad(3), bad(1)], 0.1, shards)
    manifest = Workspace(str(tmp_path)).scored.latest(1)
    assert manifest is not None
    assert 1 <= len(manifest.files) <= shards
    listed = scores.parts_of(Workspace(str(tmp_path)), manifest)
    assert sorted(listed, key=lambda part: part.rows) == sorted(PARTS, key=lambda part: part.rows)
    assert (manifest.rows, manifest.config_hash) == (60, "hash")
    facts = manifest.facts
    assert (facts.records, facts.rejected, facts.unique, facts.weight) == (100, 6, 90, 95.5)
    assert dict(facts.reasons) == {"not_json": 2, "not_finite": 4}
    assert facts.dead_letters == (LETTER.path,)
    assert dict(facts.examples) == {
        "not_json": "a.jsonl, line 3: no",
        "not_finite": "a, line 1: d; it begins 'x'",
    }
    assert facts.weight_unit == -3
    assert dict(facts.unread) == {"Thai": 5, "symbols": 1}


@pytest.mark.parametrize(
    ("parts", "unscored", "message"),
    [(PARTS, [bad(9)], "11 of 100 records"), ([], [bad(1)], "none of the 90 ads could be scored")],
)
def test_no_manifest_where_the_run_must_not_count(
    parts: list[ScoredPart], unscored: list[Rejected], message: str, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=message):
        commit(tmp_path, parts, unscored, share=0.1)
    assert Workspace(str(tmp_path)).scored.latest(1) is None


def test_reasons_add_up() -> None:
    found = [("not_json", why(bad(1))), ("scoring_failed", join_whys([why(bad(1)), why(bad(1))]))]
    total = add_reasons(TALLY, found)
    assert (total.rejected, json.loads(total.reasons)) == (5, {"not_json": 3, "scoring_failed": 2})
    assert (total.records, total.unique, total.weight) == (100, 90, "95.5")
