"""What ``scout validate`` says of settings that nothing goes by."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import api, cli
from pipelines.config import load_task
from tests import helpers

ROOT = Path(__file__).resolve().parents[2]
REAL = helpers.FAKE_TASK.replace("model: {preset: fake}\n", "")
MEMBER = "{name: a, cue: 'Bad:', positive: ' Yes', negative: ' No', weight: 1.0, center: 0.0, scale: 1.0}"
COMMITTEE = (
    f"committee: {{members: [{MEMBER}], similarity: 0.2, center: 0.0, scale: 1.0, slope: 1.0, offset: 0.0, "
    "agreement: 0.5, ads: 9}"
)


@pytest.mark.parametrize(
    ("extra", "warned"),
    [
        # The committee asks it.
        ("", []),
        ("prompt: {form: completion}\n", ["4: question"]),
        ("prompt: {template: 'Ad: {ad}\\nBad:'}\n", ["4: question"]),
        ("prompt: {template: 'Ad: {ad}\\n{question}'}\n", []),
        ("prompt: {form: chat}\n", []),
        ("prompt: {form: chat, template: 'Ad: {ad}'}\n", ["4: question"]),
        ("prompt: {form: chat, template: 'Ad: {ad}', system: 'Say: {question}'}\n", []),
        (
            "prompt: {form: completion, template: '{question} {ad}', system: x, chat_format: gemma}\n",
            ["7: prompt.system", "7: prompt.chat_format"],
        ),
        (f"prompt: {{{COMMITTEE}}}\n", ["4: question"]),
        (f"prompt: {{template: '{{ad}} {{question}}', {COMMITTEE}}}\n", ["7: prompt.template", "4: question"]),
        ("training: {learner: head, lora_rank: 4, patience: 3}\n", ["7: training.lora_rank", "7: training.patience"]),
        ("training: {learner: encoder, lora_rank: 4, patience: 3}\n", ["7: training.lora_rank"]),
        ("training: {lora_rank: 4}\n", []),
        ("server: {price_in: 1.0, requests_at_once: 8}\n", ["7: server.price_in"]),
        ("model: {top_logprobs: 5, revision: a}\n", ["7: model.revision", "7: model.top_logprobs"]),
        (
            "model: {backend: gemini, preset: m, dtype: float32}\nserver: {price_in: 1.0}\n"
            "training: {learner: head}\n",
            ["7: model.dtype"],
        ),
    ],
)  # fmt: skip
def test_settings_without_effect(extra: str, warned: list[str], tmp_path: Path) -> None:
    path = helpers.write_task(tmp_path, REAL + extra)
    found = api.validate(path)
    assert [w.split(": has no effect")[0] for w in found.warnings] == [
        f"{path}:{w}" for w in warned
    ]
    shown = repr(found)
    assert all(f"Warning: {warning}" in shown for warning in found.warnings)
    assert ("Warning" in shown) == bool(warned)


def test_a_model_that_cannot_be_fine_tuned_is_told(tmp_path: Path) -> None:
    text = REAL + "model: {backend: gemini, preset: m}\n"
    [warning] = api.validate(helpers.write_task(tmp_path, text)).warnings
    assert "training.learner: is llm" in warning
    assert "`scout train` needs head or encoder" in warning


def test_a_strategy_without_pairs_needs_no_band(tmp_path: Path) -> None:
    text = REAL.replace("budget: 12", "budget: 12, strategy: random, band: 0.5")
    [warning] = api.validate(helpers.write_task(tmp_path, text)).warnings
    assert warning.endswith(
        ":6: selection.band: has no effect on strategy random, which makes no pairs"
    )


def test_a_warning_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = helpers.write_task(tmp_path, REAL + "prompt: {form: completion}\n")
    assert cli.main(["validate", str(path)]) == cli.OK
    shown = capsys.readouterr()
    assert "valid (task tiny, version 1)" in shown.out and "Warning: " in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    "path", sorted((ROOT / "templates" / "policies").glob("*.yaml")), ids=lambda p: p.name
)
def test_what_ships_has_nothing_without_effect(path: Path) -> None:
    assert api.validate(path).warnings == ()


def test_a_task_in_memory_is_checked_too() -> None:
    task = load_task(ROOT / "templates" / "policies" / "clickbait.yaml")
    found = api.validate(task, ad="Ten tricks")
    assert found.source == "the task" and "Headline: Ten tricks\n" in found.prompt
