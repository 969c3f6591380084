"""A cascade at work: who is read, who is foretold, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from models.backends.base import LabelBatch
from models.backends.fake import FakeLabeler
from pipelines.contracts import UNSCORED_SCHEMA, Block
from pipelines.handlers import LazyLabeler
from pipelines.numerics import calibration, cascade
from pipelines.numerics.cascade import Student
from pipelines.stages import cascade_ads
from pipelines.stages.cascade_ads import Cascade, CascadeAds, Waiting, part_block
from pipelines.store import blocks, students
from tests import helpers

HOW = Cascade("encoder", "", 0.2, 0.98, 0.0, 300, 0.1, 0, "key")


class Watched(FakeLabeler):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def label(self, texts: Sequence[str]) -> LabelBatch:
        self.asked += texts
        return super().label(texts)


def unscored(texts: Sequence[str]) -> Block:
    table = blocks.from_block(helpers.unique_block([helpers.unique_ad(text) for text in texts]))
    return blocks.to_block(table.select(UNSCORED_SCHEMA.names))


def written(root: Path, **changes: Any) -> str:
    """Write a student that goes by the first dimension of an ad's vector."""
    weights = np.zeros(64, np.float32)
    weights[0] = 10
    scores = np.linspace(5, -5, 101).astype(np.float32)
    settings = {"by": "encoder", "weights": weights, "intercept": -1.0, "scores": scores}
    settings |= {"kept": np.linspace(0, 1, 101), "correlation": 0.5, "ads": 300}
    return students.write(str(root), "key", Student(**settings | changes))


TEXTS = [f"ad {n} of a {word}" for n in range(40) for word in ("kettle", "tent", "winner", "sofa")]


def foretold_of(texts: Sequence[str]) -> np.ndarray:
    encoded = FakeLabeler().glance(texts).encoded
    return calibration.to_grid(encoded[:, 0].astype(np.float64) * 10 - 1)


def test_those_above_the_cut_are_read_and_the_others_foretold(tmp_path: Path) -> None:
    student, labeler = written(tmp_path, scores=np.full(101, 0.25, np.float32)), Watched()
    found = part_block(
        LazyLabeler(lambda: labeler), Waiting(unscored(TEXTS), student), HOW, str(tmp_path)
    )
    told = dict(zip(TEXTS, FakeLabeler().glance(TEXTS).encoded[:, 0] * 10 - 1, strict=True))
    high = [text for text in TEXTS if told[text] >= 0.25]
    assert 0 < len(high) < len(TEXTS)
    assert sorted(labeler.asked) == sorted(high)
    read, rest = blocks.from_block(found.read.scored), blocks.from_block(found.foretold)
    assert sorted(read.column("text").to_pylist()) == sorted(high)
    expected = FakeLabeler().label(read.column("text").to_pylist())
    np.testing.assert_array_equal(read.column("margin").to_numpy(), expected.margin)
    texts = rest.column("text").to_pylist()
    assert sorted(texts) == sorted(set(TEXTS) - set(high))
    np.testing.assert_array_equal(rest.column("margin").to_numpy(), foretold_of(texts))
    # The vectors of both are the encoder's.
    np.testing.assert_array_equal(blocks.vectors(rest), FakeLabeler().label(texts).vectors)
    assert sum(found.above.values()) == len(high) and found.below == len(texts)
    assert not found.explored and not found.lesson


def test_some_of_the_others_are_read_all_the_same(tmp_path: Path) -> None:
    student, labeler = written(tmp_path, scores=np.full(101, 99.0, np.float32)), Watched()
    how = replace(HOW, explored=0.25)
    found = part_block(
        LazyLabeler(lambda: labeler), Waiting(unscored(TEXTS), student), how, str(tmp_path)
    )
    assert 20 < len(labeler.asked) < 60
    assert sum(found.explored.values()) == len(labeler.asked)
    assert not found.above and found.below == len(TEXTS)
    # Drawn by content: the same ones in any company.
    part = part_block(
        LazyLabeler(lambda: Watched()), Waiting(unscored(TEXTS[:50]), student), how, str(tmp_path)
    )
    read = blocks.from_block(part.read.scored).column("text").to_pylist()
    assert sorted(read) == sorted(set(labeler.asked) & set(TEXTS[:50]))


def test_what_cannot_be_read_costs_itself_alone(tmp_path: Path) -> None:
    student = written(tmp_path, scores=np.full(101, -99.0, np.float32))
    texts = [*TEXTS[:9], "a <poison>", "a <nan>"]
    found = part_block(
        LazyLabeler(FakeLabeler), Waiting(unscored(texts), student), HOW, str(tmp_path)
    )
    assert found.read.scored.rows == 9
    assert sorted((r.excerpt, r.reason) for r in found.read.rejected) == [
        ("a <nan>", "not_finite"),
        ("a <poison>", "scoring_failed"),
    ]
    assert sum(found.above.values()) == 9


def test_an_ad_without_a_word_is_no_students_business(tmp_path: Path) -> None:
    class Wordless(FakeLabeler):
        def label(self, texts: Sequence[str]) -> LabelBatch:
            batch = super().label(texts)
            batch.margin[np.array(batch.n_tokens) == 0] = np.nan
            return batch

    student = written(tmp_path, scores=np.full(101, 99.0, np.float32))
    block = unscored(["one", "two"])
    table = blocks.from_block(block)
    block = blocks.to_block(table.set_column(2, "text", [["one", " "]]))
    found = part_block(LazyLabeler(Wordless), Waiting(block, student), HOW, str(tmp_path))
    assert blocks.from_block(found.foretold).column("text").to_pylist() == ["one"]
    assert [r.reason for r in found.read.rejected] == ["not_finite"]


def cascaded(root: Path, texts: Sequence[str], how: Cascade, size: int = 64) -> dict[str, Any]:
    """Run the transform over blocks; returns what came out."""
    out: dict[str, Any] = {"read": [], "foretold": [], "done": [], "student": [], "pilot": []}
    _OUT[str(root)] = out
    given = [unscored(texts[i : i + size]) for i in range(0, len(texts), size)]
    with TestPipeline() as pipeline:
        new = pipeline | "Ads" >> beam.Create(given, reshuffle=False)
        found = new | CascadeAds(FakeLabeler, str(root), how, False, {})
        done, student, pilot = found[cascade_ads.DONE]
        for name, values in (
            ("read", found[cascade_ads.READ]),
            ("foretold", found[cascade_ads.FORETOLD]),
            ("done", done),
            ("student", student),
            ("pilot", pilot),
        ):
            _ = values | f"Keep {name}" >> beam.Map(_keep, str(root), name)
    return out


_OUT: dict[str, dict[str, list[Any]]] = {}


def _keep(element: Any, root: str, name: str) -> None:
    _OUT[root][name].append(element)


def texts_of(found: Sequence[Block]) -> list[str]:
    return sorted(t for b in found for t in blocks.from_block(b).column("text").to_pylist())


def test_a_pilot_teaches_and_is_read_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(helpers.VOCABULARY, 8)) + f" {n}" for n in range(1500)]
    out = cascaded(tmp_path, texts, HOW)
    read = texts_of([found.scored for found in out["read"]])
    assert sorted([*read, *texts_of(out["foretold"])]) == sorted(texts)
    assert out["pilot"] == [300]
    [student] = out["student"]
    held = students.read(str(tmp_path), student)
    assert held.ads == 300 and held.by == "encoder" and held.correlation > 0.1
    [done] = out["done"]
    assert int(done.above.sum()) + done.below == 1200
    assert len(read) == 300 + int(done.above.sum())
    assert 0.1 < done.above.sum() / 1200 < 0.35
    # The same from blocks of another size, in another order.
    (tmp_path / "b").mkdir()
    again = cascaded(tmp_path / "b", texts[::-1], HOW, 100)
    assert again["student"] == out["student"]
    assert texts_of([found.scored for found in again["read"]]) == read
    assert len(held.pilot) == 300
    # A later run goes on with it: no pilot, and its ads are read where that run was killed before.
    how = replace(HOW, student=student)
    later = cascaded(tmp_path, texts[:500], how)
    assert later["pilot"] == [0] and later["student"] == [student]
    assert texts_of([found.scored for found in later["read"]]) == sorted(
        set(read) & set(texts[:500])
    )


def test_a_pilot_takes_a_tenth_of_many(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(helpers.VOCABULARY, 8)) + f" {n}" for n in range(6000)]
    how = replace(HOW, pilot_ads=5000)
    assert cascaded(tmp_path, texts, how, 2000)["pilot"] == [600]
    (tmp_path / "few").mkdir()
    assert cascaded(tmp_path / "few", texts[:1000], how, 2000)["pilot"] == [500]


def test_too_few_new_ads_are_all_read(tmp_path: Path) -> None:
    out = cascaded(tmp_path, TEXTS[:60], HOW)
    assert texts_of([found.scored for found in out["read"]]) == sorted(TEXTS[:60])
    assert out["student"] == [""] and not out["foretold"] and out["pilot"] == [60]
    assert not list(tmp_path.rglob("student-*"))
    assert cascade.measure_miss(out["done"][0], 0.1).rate is None


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_and_next_to_nothing(tmp_path: Path, n: int) -> None:
    out = cascaded(tmp_path, TEXTS[:n], HOW)
    assert len(texts_of([found.scored for found in out["read"]])) == n
    assert out["pilot"] == [n] and out["student"] == [""]
