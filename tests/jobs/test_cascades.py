"""A cascade from the task file: mined, mined again, switched off, and watched over nights."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

from models.backends.base import LabelBatch
from models.backends.fake import FakeLabeler
from pipelines import cli
from pipelines.config import load_task
from pipelines.errors import UsageError
from pipelines.jobs import cascades
from pipelines.jobs.results import Mined
from pipelines.numerics.cascade import miss_of
from pipelines.store import scores, storage, students
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.helpers import FAKE_TASK, VOCABULARY

BY = "cascade: {by: words, share: 0.3, pilot_ads: 200, explore: 0.1}\n"


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return helpers.write_task(tmp_path, FAKE_TASK + BY)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the model is asked about, from here on."""
    found: list[str] = []
    label = FakeLabeler.label

    def noting(self: FakeLabeler, texts: Any) -> LabelBatch:
        found.extend(texts)
        return label(self, texts)

    monkeypatch.setattr(FakeLabeler, "label", noting)
    return found


def ads(number: int, seed: int = 1) -> list[dict[str, str]]:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(VOCABULARY, k=9)) for _ in range(number)]
    return [{"id": f"{seed}-{n}", "text": text} for n, text in enumerate(texts)]


def margins(root: Path, mined: Mined) -> dict[str, tuple[float, bool]]:
    """Return text -> margin, and whether it was foretold."""
    place = Workspace(str(root))
    scored = place.scored.latest(mined.round)
    assert scored is not None
    key = scored.facts.origin.score_key
    return {
        text: (margin, scores.score_key_of(part) != key)
        for part in scores.parts_of(place, scored)
        for text, margin in zip(
            *(scores.read(place.root, part).column(c).to_pylist() for c in ("text", "margin")),
            strict=True,
        )
    }


def test_most_ads_are_spared_and_the_rest_counts_as_without(
    tmp_path: Path, task: Path, asked: list[str]
) -> None:
    corpus = helpers.write_jsonl(tmp_path / "a.jsonl", ads(1500))
    mined = helpers.run(task, corpus, tmp_path / "w")
    done = mined.cascade
    assert done is not None and done.miss is not None
    assert sorted(asked) == sorted(
        t for t, (_, f) in margins(tmp_path / "w", mined).items() if not f
    )
    assert (done.read, done.read + done.foretold) == (len(asked), 1500)
    # The pilot, .3 of the others, and .1 of what is left.
    assert done.read == pytest.approx(200 + 1300 * (0.3 + 0.7 * 0.1), abs=90)
    assert done.share == 0.3 and done.by == "words" and done.correlation is not None
    text = mined.text(0)
    assert f"LLM-0 read {done.read:,} of 1,500 new ads" in text
    assert "of LLM-0's positives" in text and "2.0% allowed" in text

    # What LLM-0 read says the same without a cascade, which reads what is left and no more.
    before = set(asked)
    asked.clear()
    helpers.write_task(tmp_path, FAKE_TASK)
    plain = helpers.run(task, corpus, tmp_path / "w")
    assert plain.cascade is None and "cascade" not in plain.text(0)
    assert set(asked) == {ad["text"] for ad in ads(1500)} - before
    whole = margins(tmp_path / "w", plain)
    assert not any(foretold for _, foretold in whole.values())
    expected = FakeLabeler().label(list(whole)).margin.tolist()
    assert [margin for margin, _ in whole.values()] == expected


def test_a_rerun_asks_nothing_and_a_night_only_what_is_new(
    tmp_path: Path, task: Path, asked: list[str]
) -> None:
    corpus = helpers.write_jsonl(tmp_path / "a.jsonl", ads(900))
    first = helpers.run(task, corpus, tmp_path / "w")
    [student] = (tmp_path / "w").rglob("student-*.json")
    asked.clear()
    again = helpers.run(task, corpus, tmp_path / "w", budget=5)
    assert again.scored_now == 0 and not asked
    assert again.cascade == first.cascade
    helpers.write_jsonl(tmp_path / "a.jsonl", [*ads(900), *ads(500, 2)])
    more = helpers.run(task, corpus, tmp_path / "w")
    assert more.scored_now == 500
    assert set(asked) < {ad["text"] for ad in ads(500, 2)}
    assert more.cascade is not None and more.cascade.read == len(asked) < 260
    assert [*(tmp_path / "w").rglob("student-*.json")] == [student]


def test_a_killed_run_goes_on_with_its_student(
    tmp_path: Path, task: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = helpers.write_jsonl(tmp_path / "a.jsonl", ads(900))
    whole = helpers.run(task, corpus, tmp_path / "whole")
    asked.clear()
    label = FakeLabeler.label

    def dying(self: FakeLabeler, texts: Any) -> LabelBatch:
        # Behind the pilot, in the middle of the rest.
        if len(asked) > 260:
            raise KeyboardInterrupt
        return label(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(FakeLabeler, "label", dying)
        with pytest.raises(KeyboardInterrupt):
            helpers.run(task, corpus, tmp_path / "killed")
    before = set(asked)
    assert len(before) >= 200
    after = helpers.run(task, corpus, tmp_path / "killed")
    assert margins(tmp_path / "killed", after) == margins(tmp_path / "whole", whole)
    assert helpers.pairs_bytes(after) == helpers.pairs_bytes(whole)
    students_of = {
        path.name for run in ("whole", "killed") for path in (tmp_path / run).rglob("student-*")
    }
    assert len(students_of) == 1


def test_a_share_of_nothing_reads_the_pilot_and_what_is_explored(
    tmp_path: Path, asked: list[str]
) -> None:
    by = "cascade: {by: encoder, share: 0, pilot_ads: 150, explore: 0.05}\n"
    task = helpers.write_task(tmp_path, FAKE_TASK + by)
    corpus = helpers.write_jsonl(tmp_path / "a.jsonl", ads(1000))
    mined = helpers.run(task, corpus, tmp_path / "w")
    assert mined.cascade is not None and mined.cascade.share == 0
    assert 150 < len(asked) < 250 and mined.pairs == 12


def test_more_is_read_after_a_night_that_missed_too_much(tmp_path: Path, task: Path) -> None:
    text = FAKE_TASK + BY.replace("share: 0.3, ", "")
    corpus = helpers.write_jsonl(tmp_path / "a.jsonl", ads(900))
    helpers.write_task(tmp_path, text)
    helpers.run(task, corpus, tmp_path / "w")
    place, said = Workspace(str(tmp_path / "w")), list[str]()
    scored = place.scored.latest(1)
    assert scored is not None and scored.facts.cascade is not None
    key = scored.facts.origin.score_key

    def planned(missed: int, attempt: str = scored.attempt) -> float | None:
        done = scored.facts.cascade
        assert done is not None
        miss = miss_of(above=200, below=500, explored=50, kept=90, missed=missed)
        facts = dataclasses.replace(
            scored.facts, cascade=dataclasses.replace(done, share=0.4, miss=miss)
        )
        place.commit(dataclasses.replace(scored, attempt=attempt, facts=facts))
        how = cascades.planned(place, load_task(task), key, said.append)
        assert how is not None
        return how.share

    assert planned(1) == 0.4 and not said
    assert planned(5) == 0.6
    assert "misses 32.1% of LLM-0's positives" in said[0]
    assert "2.0% are allowed: LLM-0 reads 60% of the ads from now on instead of 40%" in said[0]
    # Two attempts of one round, too little each: together they are enough.
    assert planned(2) == 0.4 and planned(2, place.new_attempt(1, "scored")) == 0.6
    assert "by 100 ads that were explored" in said[1]


def test_explain_says_what_was_foretold(
    tmp_path: Path, task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = helpers.write_jsonl(tmp_path / "a.jsonl", ads(900))
    mined = helpers.run(task, corpus, tmp_path / "w")
    by_text = margins(tmp_path / "w", mined)
    ids = {ad["text"]: ad["id"] for ad in ads(900)}
    for foretold in (True, False):
        id = next(ids[text] for text, (_, told) in by_text.items() if told is foretold)
        assert cli.main(["explain", str(tmp_path / "w"), id]) == cli.OK
        assert ("LLM-0 was spared this ad" in capsys.readouterr().err) is foretold


def test_what_cannot_go_together_is_refused(tmp_path: Path) -> None:
    for line, why in (
        (
            "cascade: {by: tea}",
            r"task\.yaml:9: cascade\.by: .*no such proxy; use one of encoder, layers",
        ),
        ("cascade: {by: words, explore: 0}", r"cascade\.explore"),
        (
            "cascade: {by: layers}",
            r"cascade\.by: .*the backend auto cannot be left after a layer; write en",
        ),
        (
            "cascade: {by: words}\nembedding: {source: llm}",
            r"cascade\.by: .*set embedding\.source to",
        ),
    ):
        path = helpers.write_task(tmp_path, f"{FAKE_TASK}\n{line}\n")
        with pytest.raises(UsageError, match=why):
            load_task(path)


def test_a_damaged_student_is_named(tmp_path: Path, task: Path) -> None:
    corpus = helpers.write_jsonl(tmp_path / "a.jsonl", ads(900))
    helpers.run(task, corpus, tmp_path / "w")
    [student] = (tmp_path / "w").rglob("student-*.json")
    storage.write(str(student), student.read_bytes().replace(b"words", b"layer"))
    students.read.cache_clear()
    helpers.write_jsonl(tmp_path / "a.jsonl", ads(1000))
    code = cli.main(
        ["mine", str(task), "--corpus", str(corpus), "--workspace", str(tmp_path / "w"), "--quiet"]
    )
    assert code == cli.FAILED
