"""Simulated experts, recorded people, and what they answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from models.encoder import VectorCache
from pipelines.config import Labels, load_task
from pipelines.errors import UsageError
from pipelines.simulation import experts
from pipelines.simulation.labelled_corpus import Corpus, Fields, divide, read_labelled
from pipelines.simulation.options import Crowd
from pipelines.text import content_key
from tests import helpers
from tests.simulation.bench import GOLD, Bench


def big_corpus(share: float) -> Corpus:
    gold = helpers.gold_ads(3000, seed=5, share=share)
    order = sorted(gold.ads, key=lambda ad: content_key(ad["text"]))
    texts = tuple(ad["text"] for ad in order)
    return Corpus(
        tuple(map(content_key, texts)),
        tuple(ad["id"] for ad in order),
        texts,
        np.array([gold.positive[ad["id"]] for ad in order]),
        None,
    )


@pytest.mark.parametrize("kappa", [0.6, 0.8])
def test_simulated_experts_reach_their_kappa(kappa: float, bench: Bench) -> None:
    corpus, options = big_corpus(0.1), bench.options(expert_kappa=kappa)
    task = load_task(options.task)
    vectors = experts.embed(corpus, task, VectorCache())

    def verdicts(seed: int) -> np.ndarray:
        return experts.expert_verdicts(corpus, options, 2, seed, lambda: vectors)

    found = verdicts(1)
    assert found.shape == (3000, 2) and set(np.unique(found)) == {0, 1}
    share = corpus.gold.mean()
    weights = np.where(corpus.gold, 0.5 / share, 0.5 / (1 - share))
    reached = cohen_kappa_score(found[:, 0], found[:, 1], sample_weight=weights)
    assert reached == pytest.approx(kappa, abs=0.05)
    assert cohen_kappa_score(*found.T) < reached, "rare positives lower it"
    np.testing.assert_array_equal(verdicts(1), found)
    assert (verdicts(2) != found).any()


def test_an_expert_kappa_of_one_never_errs(bench: Bench) -> None:
    corpus = bench.corpus()
    found = experts.expert_verdicts(
        corpus, bench.options(expert_kappa=1.0), 3, 1, lambda: pytest.fail("vectors for nothing")
    )
    np.testing.assert_array_equal(found, np.repeat(corpus.gold[:, None], 3, axis=1))


def test_an_answer_is_what_each_expert_says_of_each_ad() -> None:
    items = [helpers.review_ad_of(name) for name in ("a", "b")]
    found = experts.answer(
        [type("Item", (), {"ads": (ad,)})() for ad in items],
        np.array([[1, 0, -1], [-1, -1, 1]], dtype=np.int8),
        {items[0].key: 0, items[1].key: 1},
        Labels(positive="bait", negative="fine"),
    )
    assert [(row.ad_id, row.expert, row.label, row.position) for row in found] == [
        ("a", "expert 1", "bait", "row 1"),
        ("a", "expert 2", "fine", "row 2"),
        ("b", "expert 3", "bait", "row 3"),
    ]


def test_recorded_people_are_the_experts(bench: Bench) -> None:
    people = ("ada", "ben", "cyd", "dot")
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for ad in GOLD.ads:
        given = rng.permutation(people)[: rng.integers(1, 5)]
        labels = {
            str(name): "negative" if GOLD.positive[ad["id"]] == (rng.random() < 0.1) else "positive"
            for name in given
        }
        rows.append({**ad, "ratings": labels})
    path = helpers.write_jsonl(bench.folder / "rated.jsonl", rows)
    options = bench.options("recorded", corpus=(str(path),), experts="recorded", rounds=1,
                            conditions=("boundary",))  # fmt: skip
    labels = load_task(options.task).labels
    corpus = read_labelled(options.corpus, Fields(ratings="ratings"), labels)
    assert corpus.ratings is not None
    table = experts.expert_verdicts(corpus, options, 2, 1, lambda: np.zeros((0, 0)))
    assert table.shape == (400, 4)
    said = (corpus.ratings != -1).sum(axis=1)
    np.testing.assert_array_equal((table != -1).sum(axis=1), np.minimum(said, 2))
    assert (table[table != -1] == corpus.ratings[table != -1]).all(), "nobody's words are changed"
    assert ((table != -1).sum(axis=0) > 50).all(), "everybody has a turn"
    # And the whole way: our rounds with people who label different ads.
    found = bench.play("recorded", corpus=(str(path),), experts="recorded",
                       conditions=("boundary",), rounds=1)  # fmt: skip
    ours, division = found["rows"][0], divide(corpus, None, 0.2, 1)
    pairs = [
        cohen_kappa_score(*table[division.natural][:, [a, b]][both].T)
        for a in range(4)
        for b in range(a)
        if (both := (table[division.natural][:, [a, b]] != -1).all(axis=1)).sum() >= 10
    ]
    assert ours["natural_experts"] == pytest.approx(np.mean(pairs)) if pairs else True
    assert ours["natural"] > 0.4
    manifest = bench.place("boundary", "recorded").verdicts.latest(1)
    assert manifest is not None
    assert manifest.facts.experts == tuple(f"expert {n}" for n in (1, 2, 3, 4))


def test_a_crowds_errors_follow_the_text_or_chance(bench: Bench) -> None:
    corpus = big_corpus(0.3)
    cue = np.random.default_rng(1).standard_normal(3000)
    found = {}
    for noise in ("text", "uniform"):
        labels = experts.crowd_labels(Crowd(0.5, noise), corpus.gold, corpus.keys, 1, lambda: cue)
        assert cohen_kappa_score(labels, corpus.gold) == pytest.approx(0.5, abs=0.06)
        found[noise] = np.corrcoef(cue, labels - corpus.gold.astype(np.int8))[0, 1]
    assert found["text"] > 0.3 and abs(found["uniform"]) < 0.1
    with pytest.raises(UsageError, match=r"--crowd_kappa 0.94: kappa 0.94 cannot be reached"):
        experts.crowd_labels(Crowd(0.94, "text"), corpus.gold[:40], corpus.keys[:40], 1,
                             lambda: cue[:40])  # fmt: skip
