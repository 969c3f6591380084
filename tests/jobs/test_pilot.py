"""The start without labels: which ads are looked at, what is chosen, and that it stays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.backends.fake import Fake
from models.committee import FORMS
from models.prompting import PromptSpec
from pipelines.config import Task, load_task
from pipelines.errors import RunFailed
from pipelines.jobs import pilot
from pipelines.sources.base import Range, ReadOptions
from pipelines.sources.survey import survey
from pipelines.store.workspace import Workspace
from tests import helpers

ADS = [f"ad number {i}" + (" win a free prize" if i % 4 == 0 else "") for i in range(60)]


class Debating(Fake):
    """The word list, asked through forms: some hear it, some hear its opposite."""

    debates = True

    def pilot(
        self, prompts: Sequence[PromptSpec], encoder: str, texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        assert encoder == "all-minilm-l6-v2"
        assert len(prompts) == len(FORMS)
        rng = np.random.default_rng(len(texts))
        loud = self.load().margins(texts).astype(np.float64)
        signs = np.where(np.arange(len(prompts)) % 3 == 0, 1.0, -1.0)
        answers = signs * loud[:, None] + rng.normal(size=(len(texts), len(prompts)))
        return answers.astype(np.float32), loud + 3 * rng.normal(size=len(texts))


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr("models.backends.fake.Fake.debates", True)
    monkeypatch.setattr("models.backends.fake.Fake.pilot", Debating.pilot)
    return load_task(str(helpers.write_task(tmp_path)))


def ranges_of(corpus: Path, range_bytes: int = 1 << 20) -> list[Range]:
    return list(survey([str(corpus)], ReadOptions(), range_bytes).ranges)


def test_a_sample_is_drawn_by_content(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": text} for i, text in enumerate(ADS)]
    one = helpers.write_jsonl(tmp_path / "a.jsonl", [*rows, *rows])
    other = helpers.write_jsonl(tmp_path / "b" / "z.jsonl", reversed(rows))
    found = pilot.sample_texts(ranges_of(one), ReadOptions(), seed=1, n=20)
    assert len(set(found)) == 20
    # Copies, order and how the file is cut change nothing.
    assert found == pilot.sample_texts(ranges_of(other, 300), ReadOptions(), seed=1, n=20)
    assert found != pilot.sample_texts(ranges_of(one), ReadOptions(), seed=2, n=20)
    assert set(pilot.sample_texts(ranges_of(one), ReadOptions(), seed=1)) == set(ADS)


def test_a_huge_corpus_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "MAX_BYTES", 400)
    parts = []
    for part in range(5):
        rows = [{"id": f"{part}-{i}", "text": f"{part} {'x' * 96}{i}"} for i in range(50)]
        parts += ranges_of(helpers.write_jsonl(tmp_path / f"{part}.jsonl", rows))
    found = pilot.sample_texts(parts, ReadOptions(), seed=0)
    # The first range alone gives up to its share, a megabyte, or what is left of all.
    assert len(found) == 5


def test_forms_are_chosen_and_said(task: Task) -> None:
    said: list[str] = []
    chosen = pilot.choose(task, ADS, said.append)
    seated = chosen.prompt.committee
    assert seated is not None and seated.ads == 60
    names = [form.name for form in FORMS]
    assert {names.index(member.name) % 3 for member in seated.members} == {0}
    weights = [member.weight for member in seated.members]
    assert weights == sorted(weights, reverse=True)
    assert said[0].startswith("prompts chosen on 60 ads without labels")
    assert seated.members[0].name in said[0]
    # What is fine-tuned on is the loudest member's prompt; and the section reads back as it was.
    assert chosen.prompt_spec().template == "Ad: {ad}\n" + seated.members[0].cue
    again = Task.model_validate(json.loads(chosen.model_dump_json()))
    assert again == chosen
    assert again.committee() == chosen.committee()


def test_wordings_of_a_task_file_are_heard(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def hears(self: Fake, prompts: Sequence[PromptSpec], encoder: str, texts: Sequence[str]):  # type: ignore[no-untyped-def]
        asked[:] = [prompt.template for prompt in prompts]
        rng = np.random.default_rng(2)
        near = rng.normal(size=len(texts))
        answers = rng.normal(size=(len(texts), len(prompts)))
        answers[:, 0] += 2 * near
        return answers.astype(np.float32), near

    monkeypatch.setattr("models.backends.fake.Fake.pilot", hears)
    own = "prompt:\n  forms:\n  - {cue: 'This is a', positive: ' scam', negative: ' bargain'}\n"
    stated = load_task(str(helpers.write_task(tmp_path, helpers.FAKE_TASK + own)))
    assert stated.wants_committee()
    assert stated.start_basis() != task.start_basis()
    seated = pilot.choose(stated, ADS, print).prompt.committee
    assert asked[0] == "Ad: {ad}\nThis is a"
    assert len(asked) == 1 + len(FORMS)
    assert seated is not None
    assert [member.name for member in seated.members] == ["This is a scam or bargain"]
    # What is chosen anew, by labels too, is chosen among them again.
    assert pilot.seated(stated, seated).without_prompt() == stated


def test_a_guess_is_called_one(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def noise(self: Fake, prompts: Sequence[PromptSpec], encoder: str, texts: Sequence[str]):  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(0)
        answers = rng.normal(size=(len(texts), len(prompts)))
        return answers.astype(np.float32), rng.normal(size=len(texts))

    said: list[str] = []
    pilot.choose(task, ADS * 7, said.append)
    assert not any("seems to guess" in line for line in said)
    monkeypatch.setattr("models.backends.fake.Fake.pilot", noise)
    pilot.choose(task, [f"{text} {i}" for i in range(7) for text in ADS], said.append)
    assert "seems to guess" in said[-1] and "scout prompts" in said[-1]


def test_ads_that_do_not_differ_choose_nothing(task: Task) -> None:
    with pytest.raises(RunFailed, match=r"no prompt can be chosen on 1 ads.*prompt\.template"):
        pilot.choose(task, ADS[:1], print)


@pytest.mark.parametrize(
    "prompt",
    ["form: chat", "form: completion", "template: 'Is this bad? {ad}'", "answers: {positive: Bad}"],
)
def test_a_prompt_of_ones_own_is_left_alone(task: Task, prompt: str, tmp_path: Path) -> None:
    assert task.wants_committee()
    path = helpers.write_task(tmp_path, helpers.FAKE_TASK + f"prompt: {{{prompt}}}\n")
    own = load_task(str(path))
    assert not own.wants_committee()
    place = Workspace(str(tmp_path / "w"))
    assert pilot.with_committee(own, [], ReadOptions(), place, print) == own


def test_the_first_choice_stays_in_a_workspace(task: Task, tmp_path: Path) -> None:
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads(120))
    path = helpers.write_task(tmp_path)
    first = helpers.run(path, corpus, tmp_path / "w")
    place = Workspace(str(tmp_path / "w"))
    held = place.pairs_of().facts.origin.task.prompt.committee
    assert held is not None
    # More ads would choose anew; the scores of the first night stay what they are.
    helpers.write_jsonl(corpus, helpers.tiny_ads(160))
    second = helpers.run(path, corpus, tmp_path / "w")
    assert place.pairs_of().facts.origin.task.prompt.committee == held
    assert (first.scored_now, second.scored_now, second.reused) == (120, 40, 120)
    # Another policy asks anew.
    path.write_text(path.read_text().replace("version: 1", "version: 2").replace("prior", "prior"))
    other = load_task(str(path)).model_copy(update={"question": "Is it loud?"})
    assert other.start_basis() != task.start_basis()


def test_labels_choose_what_is_fine_tuned_on(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def hears(self: Fake, prompts: Sequence[PromptSpec], encoder: str, texts: Sequence[str]):  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(1)
        truth = np.array([float("free" in text) for text in texts])
        answers = rng.normal(size=(len(texts), len(prompts)))
        answers[:, 4] += 0.5 * rng.normal(size=len(texts))
        # The words are near to form 5, the labels to form 7.
        near = rng.normal(size=len(texts))
        answers[:, 5] += 2 * near
        answers[:, 7] += 4 * truth
        return answers.astype(np.float32), near

    monkeypatch.setattr("models.backends.fake.Fake.pilot", hears)
    chosen = pilot.choose(task, ADS, print)
    assert chosen.prompt_spec().template.endswith(FORMS[5].cue)
    labels = np.array([int("free" in text) for text in ADS])
    said: list[str] = []
    prompt = pilot.chosen_by_labels(chosen, ADS, labels, said.append)
    assert prompt.template.endswith(FORMS[7].cue)
    assert said == [f"prompt chosen anew by 60 labels: {FORMS[7].name}"]
