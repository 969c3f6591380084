"""``scout prompts``: what is compared, what is concluded, and what is written."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.ad_text import is_wordless
from models.backends.fake import Fake
from models.committee import FORMS
from models.prompting import PromptSpec
from pipelines import api
from pipelines.cli import main
from pipelines.config import load_task
from pipelines.errors import UsageError
from pipelines.jobs import prompts
from tests import helpers

GOOD = FORMS[3].name


def loud(text: str) -> bool:
    return "win" in text


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    texts = [f"ad {i}" + (" win now" if i % 5 == 0 else "") for i in range(200)]
    return helpers.write_jsonl(
        tmp_path / "ads.jsonl", [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    )


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return helpers.write_task(
        tmp_path, helpers.FAKE_TASK + "labels: {positive: scam, negative: honest}\n"
    )


@pytest.fixture(autouse=True)
def hears(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """One form hears the truth, the others noise; how well it and the policy's words do."""
    strength = {"all": 0.0, "form": 5.0, "words": 1.0}

    def pilot(
        self: Fake,
        prompts: Sequence[PromptSpec],
        encoder: str,
        texts: Sequence[str],
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(4)
        truth = np.array([loud(text) for text in texts], float)
        answers = strength["all"] * truth[:, None] + rng.normal(size=(len(texts), len(prompts)))
        if len(prompts) == len(FORMS):
            answers[:, 3] += strength["form"] * truth
            answers[:, 4] = np.nan
        near = strength["words"] * truth + rng.normal(size=len(texts))
        return answers.astype(np.float32), near

    monkeypatch.setattr(Fake, "debates", True)
    monkeypatch.setattr(Fake, "pilot", pilot)
    return strength


def labelled(tmp_path: Path, number: int) -> Path:
    texts = [f"ad {i}" + (" win now" if i % 5 == 0 else "") for i in range(number)]
    return helpers.write_jsonl(
        tmp_path / "labels.jsonl",
        [{"text": text, "label": "scam" if loud(text) else "honest"} for text in texts],
    )


def test_without_labels_nothing_is_called_an_accuracy(task: Path, corpus: Path) -> None:
    found = api.prompts(task, corpus, ads=150)
    assert (found.ads, found.labelled, found.positives) == (150, 0, None)
    names = [row.name for row in found.prompts]
    assert names[:2] == [prompts.COMMITTEE, prompts.WORDS]
    # A form that the model cannot answer is not there.
    assert len(names) == 2 + len(FORMS) - 1
    assert names[2] == GOOD
    assert all(row.auc is None and row.kappa is None for row in found.prompts)
    assert found.winner == prompts.COMMITTEE
    text = repr(found)
    assert "AUC" not in text and "kappa" not in text
    assert "without labels nothing here is an accuracy" in found.verdict
    assert 0.5 < (found.stability or 0) <= 1


def test_a_prompt_that_is_better_beyond_chance_wins(
    task: Path, corpus: Path, tmp_path: Path, hears: dict[str, float]
) -> None:
    hears["words"] = -1.0
    found = api.prompts(task, corpus, labels=labelled(tmp_path, 120), ads=200)
    assert (found.ads, found.labelled, found.positives) == (200, 120, 24)
    best = next(row for row in found.prompts if row.name == GOOD)
    assert best.auc is not None and best.auc > 0.97
    assert best.auc_interval is not None and best.auc_interval[0] <= best.auc
    assert best.kappa is not None and best.kappa > 0.8
    assert found.winner in (GOOD, prompts.WITH_LABELS)
    assert "better, beyond its interval" in found.verdict
    assert "AUC" in repr(found)


def test_few_labels_decide_nothing_and_say_how_many_would(
    task: Path, corpus: Path, tmp_path: Path, hears: dict[str, float]
) -> None:
    hears |= {"all": 1.0, "form": 0.0}
    found = api.prompts(task, corpus, labels=labelled(tmp_path, 20), ads=200)
    assert found.winner in (prompts.COMMITTEE, prompts.WITH_LABELS)
    assert "labels in all would decide" in found.verdict or "no prompt ranks" in found.verdict


def test_one_class_is_not_compared(task: Path, corpus: Path, tmp_path: Path) -> None:
    rows = [{"text": f"ad {i}", "label": "honest"} for i in range(1, 5)]
    rows.append({"text": "ad 0 win now", "label": "scam"})
    labels = helpers.write_jsonl(tmp_path / "l.jsonl", rows)
    with pytest.raises(UsageError, match=r"labels: 1 positive and 4 negative.*at least 2 of each"):
        api.prompts(task, corpus, labels=labels)


def test_the_choice_is_written_into_the_task_file_alone(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    before = "# Ours.\n" + task.read_text() + "prompt:\n  form: auto\n  # old\n\n# Kept.\nseed: 3\n"
    task.write_text(before)
    found = api.prompts(task, corpus, write=task)
    assert found.written == str(task)
    text = task.read_text()
    assert text.startswith("# Ours.\n") and text.endswith("seed: 3\n")
    assert "# old" not in text
    chosen = load_task(str(task))
    assert chosen.seed == 3 and chosen.prompt.committee is not None
    assert chosen.prompt.committee.members[0].name == GOOD
    # A second time it is the same committee, and no prompt of the task's own.
    again = api.prompts(task, corpus, write=task)
    assert task.read_text() == text
    assert prompts.OWN not in [row.name for row in again.prompts]


def test_a_prompt_of_ones_own_is_compared_too(task: Path, corpus: Path, tmp_path: Path) -> None:
    task.write_text(task.read_text() + "prompt: {template: 'Is {ad} bad?'}\n")
    found = api.prompts(task, corpus, labels=labelled(tmp_path, 100), write=task)
    names = [row.name for row in found.prompts]
    assert names.index(prompts.OWN) == 3
    written = load_task(str(task)).prompt
    assert written.template == "Ad: {ad}\n" + FORMS[3].cue or written.committee is not None


@pytest.mark.parametrize("number", [0, 60])
def test_the_report_shows_what_was_compared(
    task: Path, corpus: Path, tmp_path: Path, number: int
) -> None:
    task.write_text(task.read_text().replace("positive: scam", "positive: <b>scam"))
    known = labelled(tmp_path, number)
    known.write_text(known.read_text().replace('"scam"', '"<b>scam"'))
    found = api.prompts(task, corpus, labels=known if number else "", out=tmp_path / "r")
    assert found.report == str(tmp_path / "r" / "report.html")
    assert found.report in repr(found)
    page = Path(found.report).read_text()
    assert (tmp_path / "r" / "report-prompts.png").stat().st_size > 5_000
    assert ("AUC on the labelled ads" in page) == bool(number)
    for row in found.prompts:
        assert f">{html.escape(row.name).replace('&#x27;', '&#39;')}</th>" in page
    assert "<b>scam" not in page


def test_what_a_text_without_content_gets_is_told(
    task: Path, corpus: Path, hears: dict[str, float]
) -> None:
    found = api.prompts(task, corpus, ads=200)
    by_name = {row.name: row for row in found.prompts}
    # A fifth of the ads is loud, and only they lie above what says nothing; noise hides no more.
    assert 0.0 < (by_name[GOOD].above_nothing or 0) < 1.0
    assert by_name[prompts.COMMITTEE].above_nothing is None
    # A model must be able to read it: what has no word in it gets no score.
    assert not any(is_wordless(text) for text in prompts.CONTENTLESS)
    assert found.ads == 200


def test_the_command(task: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", str(task), "--corpus", str(corpus), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["winner"] == prompts.COMMITTEE
    missing = ["prompts", str(task), "--corpus", str(corpus), "--write", "no/such.yaml", "--quiet"]
    assert main(missing) == 2
    assert "no such task file" in capsys.readouterr().err


def test_a_backend_of_one_prompt_has_nothing_to_compare(
    task: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "debates", False)
    with pytest.raises(UsageError, match=r"task\.yaml: model: Fake takes one prompt"):
        api.prompts(task, corpus)


def test_labels_that_are_not_there_are_called_by_their_flag(task: Path, corpus: Path) -> None:
    with pytest.raises(UsageError, match=r"labels no/such\.jsonl: no file matches"):
        api.prompts(task, corpus, labels="no/such.jsonl")
