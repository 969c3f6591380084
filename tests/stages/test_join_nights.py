"""JoinNights: what came on several dates is one ad, as its last date has it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from pipelines import api
from pipelines.contracts import scored_schema
from pipelines.stages import join_nights
from pipelines.stages.join_nights import JoinNights, NightPart
from pipelines.store import scores
from pipelines.store.workspace import Workspace
from pipelines.text import content_key
from tests import helpers

DIM = 4
FOUND: dict[str, list[Any]] = {}


def _keep(name: str, got: list[Any]) -> None:
    FOUND[name] = got


def scored(texts: list[str], weights: list[int], **changes: list[str]) -> pa.Table:
    """Return scored ads: their ids, margins and vectors tell which text they are of."""
    number = len(texts)
    columns = {
        "id": [f"id of {text}" for text in texts],
        "key": [content_key(text) for text in texts],
        "text": texts,
        "fields": [""] * number,
        "weight": weights,
        "copies": [1] * number,
        "margin": [float(len(text)) for text in texts],
        "tokens": [1] * number,
        "truncated": [False] * number,
        "vector": [np.full(DIM, len(text), dtype="<f2").tobytes() for text in texts],
        **changes,
    }
    schema = scored_schema(DIM)
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in schema}, schema=schema)


def joined(
    root: Path, nights: list[tuple[pa.Table, int]], prefix_length: int = 0
) -> tuple[pa.Table, dict[str, int]]:
    """Store each night as a block with its overlay, join them, and read what came of it."""
    parts = []
    for place, (table, unit) in enumerate(nights):
        scripts = ["Greek" if "α" in text else "" for text in table.column("text").to_pylist()]
        attempt = f"nights/2026-11-0{place + 1}/scored/a"
        part = scores.store(str(root), "k", attempt, "", table, scripts)
        parts.append(NightPart(part, place, unit))
    FOUND.clear()
    with TestPipeline() as pipeline:
        out = (
            pipeline
            | beam.Create(parts)
            | JoinNights(str(root), scores.corpus_folder("k", "joined"), -3, prefix_length)
        )
        for name in (join_nights.PARTS, join_nights.UNREAD):
            assert_that(out[name], functools.partial(_keep, name), label=name.title())
    table = pa.concat_tables(scores.read(str(root), part) for part in FOUND[join_nights.PARTS])
    return table, dict(FOUND[join_nights.UNREAD])


@pytest.mark.parametrize("prefix_length", [0, 1])
def test_weights_and_copies_add_up_and_the_last_night_tells_the_rest(
    tmp_path: Path, prefix_length: int
) -> None:
    first = scored(["one", "two two", "three α"], [1000, 2000, 3000])
    last = scored(["four", "TWO two"], [500, 250], id=["d", "b again"])
    table, unread = joined(tmp_path, [(first, -3), (last, -3)], prefix_length)
    rows = {row["text"]: row for row in table.to_pylist()}
    assert sorted(rows) == ["TWO two", "four", "one", "three α"]
    assert (rows["TWO two"]["weight"], rows["TWO two"]["copies"]) == (2250, 2)
    assert (rows["TWO two"]["id"], rows["four"]["id"]) == ("b again", "d")
    assert rows["one"]["id"] == "id of one"
    for text, row in rows.items():
        # Each row still is of its own text.
        assert row["key"] == content_key(text) and row["margin"] == len(text)
    assert unread == {"Greek": 1}


def test_weights_come_into_one_unit(tmp_path: Path) -> None:
    fine = scored(["one", "two"], [1_000_000, 2_500_000])
    coarse = scored(["one"], [1000])
    table, _ = joined(tmp_path, [(fine, -6), (coarse, -3)])
    weights = dict(zip(*(table.column(n).to_pylist() for n in ("text", "weight")), strict=True))
    assert weights == {"one": 2000, "two": 2500}


def test_joined_nights_are_what_one_mining_of_all_files_reads(tmp_path: Path) -> None:
    # The same ads on two dates, against a plain mining of both files: same ads, weights and copies.
    ads = [{**ad, "weight": n % 5 + 0.25} for n, ad in enumerate(helpers.tiny_ads(60))]
    task = helpers.write_task(tmp_path)
    for date, own in (("2026-11-01", ads[:40]), ("2026-11-02", ads[20:])):
        helpers.write_jsonl(tmp_path / "ads" / f"{date}.jsonl", own)
    corpus, more = str(tmp_path / "ads" / "{date}.jsonl"), {"weight_field": "weight"}
    api.nightly(task, corpus, tmp_path / "n", date="2026-11-02", window=2, **more)
    api.mine(task, str(tmp_path / "ads" / "*.jsonl"), tmp_path / "m", **more)
    held = []
    for root in (tmp_path / "n", tmp_path / "m"):
        manifest = Workspace(str(root)).scored.latest(1)
        assert manifest is not None
        rows = helpers.scored_table(root, manifest).to_pylist()
        held.append(sorted((r["key"], r["weight"], r["copies"], r["margin"]) for r in rows))
        assert manifest.facts.unique == 60 and manifest.facts.records == 80
    assert held[0] == held[1]
    assert np.isfinite([margin for *_, margin in held[0]]).all()
