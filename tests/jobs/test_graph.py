"""The graph that is sent to a runner: as large for a long history as for a short one."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import pytest

from pipelines.jobs import mine as job
from pipelines.jobs.mine import MineOptions, build_pipeline, prepare
from pipelines.store import files, scores
from pipelines.store.facts import ScoredFacts
from pipelines.store.workspace import Manifest, Workspace
from tests import helpers


def graph(plan: job.Plan) -> tuple[int, int]:
    """Return the bytes of a plan's graph, and of the largest thing that is embedded in it."""
    pipeline = beam.Pipeline(options=plan.options.pipeline_options())
    build_pipeline(plan, pipeline)
    proto = pipeline.to_runner_api()
    payloads = [len(t.spec.payload) for t in proto.components.transforms.values()]
    return proto.ByteSize(), max(payloads)


def planned(root: Path) -> job.Plan:
    root.mkdir(exist_ok=True)
    task = helpers.write_task(root, helpers.FAKE_TASK)
    corpus = root / "corpus"
    if not corpus.exists():
        helpers.write_jsonl(corpus / "ads.jsonl", helpers.tiny_ads())
    return prepare(MineOptions(str(task), (str(corpus),), str(root / "w")), lambda line: None)


def similar(small: tuple[int, int], large: tuple[int, int]) -> None:
    """Equal but for the digits of numbers and the names of attempts."""
    assert all(abs(a - b) < 200 for a, b in zip(small, large, strict=True)), (small, large)


def with_blocks(root: Path, key: str, number: int) -> None:
    """Put the names of blocks into a store; nobody may open them."""
    folder = root / "w" / "scores" / key / "keys-all"
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(number):
        for name in (".rows.parquet", ".vectors.parquet"):
            (folder / f"00004096-{n:024x}-{n:024x}{name}").write_bytes(b"")


def test_blocks_of_earlier_nights_are_not_in_the_graph(tmp_path: Path) -> None:
    found = []
    for name, number in (("few", 3), ("many", 3000)):
        plan = planned(tmp_path / name)
        with_blocks(tmp_path / name, plan.score_key, number)
        found.append(graph(planned(tmp_path / name)))
    similar(*found)


def test_what_was_shown_is_not_in_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number in (1_000, 1_000_000):
        keys = frozenset(f"{n:032x}" for n in range(number))
        monkeypatch.setattr(Workspace, "shown_keys", lambda *_, keys=keys: keys)
        found.append(graph(planned(tmp_path / str(number))))
    similar(*found)


def test_a_scored_corpus_is_a_few_paths_however_large(tmp_path: Path) -> None:
    found = []
    for number in (1_000, 1_000_000):
        root = tmp_path / str(number)
        plan = planned(root)
        # Sixty-four files of parts, as many as a cluster writes: only their records are looked at.
        listed = [
            files.write(plan.workspace.root, f"scores/x/parts-{n:05d}.jsonl", b"", number)
            for n in range(64)
        ]
        ads = 64 * number
        facts = ScoredFacts(job.provenance(plan), ads, 0, {}, ads, float(ads), ())
        attempt = plan.workspace.new_attempt(1, "scored")
        plan.workspace.commit(Manifest.of(attempt, plan.scored_hash, listed, ads, facts))
        again = planned(root)
        assert again.scored is not None and scores.is_whole(again.workspace, again.scored)
        found.append(graph(again))
    similar(*found)
