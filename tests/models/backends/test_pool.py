"""Answers that are remembered are the answers that were given."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.backends.base import LabelBatch, LabelerIdentity
from models.backends.fake import DIM, FakeLabeler
from models.backends.pool import LabelerPool, RememberingLabeler

IDENTITY = LabelerIdentity("fake@1", "prompt", "trigrams")
TEXTS = [f"won a free miracle number {n}" + "!" * (n % 3) for n in range(20)]


class Counting(FakeLabeler):
    """Writes down what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def label(self, texts: Sequence[str]) -> LabelBatch:
        self.asked += texts
        batch = super().label(texts)
        cut = np.array([len(text) % 2 == 0 for text in texts], dtype=bool)
        return LabelBatch(batch.margin, batch.vectors, batch.n_tokens, cut)


def remembering(
    identity: LabelerIdentity = IDENTITY,
) -> tuple[RememberingLabeler, list[Counting]]:
    loaded: list[Counting] = []

    def load() -> Counting:
        loaded.append(Counting())
        return loaded[-1]

    return RememberingLabeler(identity, load), loaded


def same(a: LabelBatch, b: LabelBatch) -> None:
    for name in ("margin", "vectors", "n_tokens", "truncated"):
        one, other = getattr(a, name), getattr(b, name)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)


def test_the_answers_are_those_of_the_wrapped_one() -> None:
    labeler, loaded = remembering()
    assert loaded == [], "nothing is loaded before it is needed"
    same(labeler.label(TEXTS[:12]), Counting().label(TEXTS[:12]))
    # Known and new ones, in another order, one of them twice.
    mixed = [TEXTS[15], TEXTS[3], TEXTS[15], TEXTS[0], TEXTS[18]]
    same(labeler.label(mixed), Counting().label(mixed))
    assert loaded[0].asked == [*TEXTS[:12], TEXTS[15], TEXTS[18]]
    same(labeler.label(TEXTS[:12]), Counting().label(TEXTS[:12]))
    assert len(loaded) == 1 and len(loaded[0].asked) == 14 == len(labeler)


def test_it_has_the_identity_it_was_given() -> None:
    labeler, _ = remembering()
    assert labeler.identity == IDENTITY


def test_no_texts() -> None:
    labeler, _ = remembering()
    batch = labeler.label([])
    assert batch.vectors.shape == (0, DIM) and batch.margin.shape == (0,)
    assert len(labeler) == 0


def test_a_text_that_fails_is_asked_again() -> None:
    labeler, loaded = remembering()
    with pytest.raises(ValueError, match="poisoned"):
        labeler.label([TEXTS[0], "<poison>"])
    assert len(labeler) == 0
    same(labeler.label(TEXTS[:1]), Counting().label(TEXTS[:1]))
    assert loaded[0].asked == [TEXTS[0], "<poison>", TEXTS[0]]


def test_saved_and_restored_nothing_is_asked_again(tmp_path: Path) -> None:
    first, _ = remembering()
    strange = ["combining e\u0301", "é", "", *TEXTS]
    given = first.label(strange)
    first.save(tmp_path / "llm0.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["llm0.npz"]
    second, loaded = remembering()
    assert second.restore(tmp_path / "llm0.npz")
    assert len(second) == len(strange)
    same(second.label(strange), given)
    assert loaded == []
    # And it goes on from there.
    second.label(["another"])
    second.save(tmp_path / "llm0.npz")
    third, _ = remembering()
    assert third.restore(tmp_path / "llm0.npz") and len(third) == len(strange) + 1


@pytest.mark.parametrize("change", ["model_id", "prompt_hash", "embedding_id"])
def test_another_identitys_answers_are_not_taken(change: str, tmp_path: Path) -> None:
    first, _ = remembering()
    first.label(TEXTS)
    first.save(tmp_path / "llm0.npz")
    other, loaded = remembering(replace(IDENTITY, **{change: "another"}))
    assert not other.restore(tmp_path / "llm0.npz")
    assert len(other) == 0
    other.label(TEXTS[:3])
    assert loaded[0].asked == TEXTS[:3]


def test_nothing_to_save_or_restore(tmp_path: Path) -> None:
    labeler, _ = remembering()
    labeler.save(tmp_path / "llm0.npz")
    assert list(tmp_path.iterdir()) == []
    assert not labeler.restore(tmp_path / "llm0.npz")


# --- The pool ---------------------------------------------------------------------------------


def test_a_pool_has_one_labeler_an_identity() -> None:
    pool = LabelerPool()
    first = pool.labeler(IDENTITY, Counting)
    first.label(TEXTS[:3])
    assert pool.labeler(IDENTITY, Counting) is first and len(first) == 3
    other = pool.labeler(replace(IDENTITY, embedding_id="another"), Counting)
    assert other is not first and len(other) == 0
    assert len(LabelerPool().labeler(IDENTITY, Counting)) == 0, "another simulation's"


def test_pickled_it_is_the_same_pool_here_and_a_new_one_elsewhere() -> None:
    pool = LabelerPool()
    labeler = pool.labeler(IDENTITY, Counting)
    sent = pickle.dumps(pool)
    assert len(sent) < 200, "a reference, not what is remembered"
    assert pickle.loads(sent) is pool
    code = (
        "import pickle, sys; from models.backends.pool import LabelerPool\n"
        "found = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "print(type(found).__name__, len(found.vectors))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sent.hex()],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.split() == ["LabelerPool", "0"], done.stderr
    del pool, labeler
    gc.collect()
    assert len(pickle.loads(sent).labeler(IDENTITY, Counting)) == 0, "it ends with its simulation"


def test_a_glance_asks_nothing_and_keeps_nothing() -> None:
    labeler, loaded = remembering()
    seen = labeler.glance(TEXTS[:5])
    np.testing.assert_array_equal(seen.vectors, Counting().label(TEXTS[:5]).vectors)
    assert loaded[0].asked == [] and len(labeler) == 0
