"""The contract over every registered backend, trained models, and one made up here."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.backends import registry
from models.backends.base import (
    Backend,
    BackendError,
    LabelBatch,
    Labeler,
    LabelerIdentity,
    LabelerSpec,
    Progress,
)
from models.backends.trained import Trained
from models.prompting import PromptSpec
from models.training import trainer
from pipelines.config import load_task
from pipelines.errors import RunFailed, UsageError
from pipelines.handlers import LoadLabeler
from pipelines.numerics.calibration import to_grid
from tests import helpers
from tests.model_server import KEY, ModelServer
from tests.models.backends import recorded_vllm
from tests.models.backends.kit import check_backend
from tests.models.training.ads import PROMPT, make_ads, settings

LONG = "win a free prize today " * 60


# --- The kit over all members -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """How a registered backend is made for the kit, and what it is excused from."""

    preset: str
    embedding: str = "llm"
    long: str = LONG
    reads_anything: bool = False
    url: str = ""
    prompt: PromptSpec = PROMPT


@pytest.fixture
def cases(
    llm_preset: str,
    encoder_preset: str,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, list[Case]]:
    """A backend that is registered without a case here fails the test below."""
    chat = dataclasses.replace(PROMPT, form="chat", template="")
    monkeypatch.setenv("SCOUT_MODEL_KEY", KEY)
    recorded_vllm.install(monkeypatch)
    return {
        "openai": [
            Case("m", encoder_preset, url=server.url),
            Case("m", encoder_preset, url=server.url, prompt=chat),
        ],
        "vllm": [Case(llm_preset, encoder_preset)],
        "gemini": [Case("m", encoder_preset, url=server.url, prompt=chat)],
        "keras": [Case(llm_preset), Case(llm_preset, encoder_preset)],
        "openvino": [Case(llm_preset), Case(llm_preset, encoder_preset)],
        # It reads whole texts, and scores whatever it is given.
        "fake": [Case("fake", long="", reads_anything=True)],
    }


@pytest.mark.model
@pytest.mark.parametrize("name", [name for name in registry.names() if name != registry.AUTO])
def test_registered_backends_keep_the_contract(name: str, cases: dict[str, list[Case]]) -> None:
    for case in cases[name]:
        spec = LabelerSpec(case.preset, case.prompt, case.embedding, "float32", 24, None, case.url)
        check_backend(registry.find(name)(spec), case.long, case.reads_anything)


@pytest.mark.model
@pytest.mark.parametrize("learner", ["head", "encoder", "llm"])
def test_trained_models_keep_the_contract(
    learner: str, llm_preset: str, encoder_preset: str, tmp_path: Path
) -> None:
    preset = llm_preset if learner == "llm" else encoder_preset
    trainer.train(make_ads(20), settings(learner, preset, max_epochs=1), tmp_path / "m")
    check_backend(Trained(tmp_path / "m"), LONG)


# --- The registry -----------------------------------------------------------------------------


def test_auto_goes_by_the_preset() -> None:
    assert registry.find("auto", "fake") is registry.find("fake")
    assert registry.find("auto", "gemma3_instruct_1b") is registry.find("keras")
    with pytest.raises(
        ValueError,
        match=r"no backend 'kears'; use one of auto, keras, openvino, openai, gemini, vllm, .*fake",
    ):
        registry.find("kears")


def test_a_missing_package_is_named_with_its_extra() -> None:
    class Server(Shouting):
        requires, extra = ("json", "no_such_client"), "remote"

    with pytest.raises(
        BackendError, match=r"Server needs no_such_client, .*: pip install 'ad-scout\[remote\]'"
    ):
        Server(LabelerSpec("x", PROMPT))


# --- A backend of thirty lines, from the task file to the pairs -------------------------------


class Shouting(Backend):
    """Takes capitals and exclamation marks for positive."""

    def identify(self, progress: Progress | None = None) -> LabelerIdentity:
        return LabelerIdentity(f"shouting@{self.spec.preset}", "no-prompt", "letters")

    def load(self) -> Labeler:
        return ShoutingLabeler(self.identify())


class ShoutingLabeler(Labeler):
    def __init__(self, identity: LabelerIdentity) -> None:
        self.identity = identity

    def label(self, texts: Sequence[str]) -> LabelBatch:
        loud = [sum(c.isupper() or c == "!" for c in text) / (len(text) or 1) for text in texts]
        jitter = [hashlib.md5(text.encode()).digest()[0] / 256 for text in texts]
        letters = [[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts]
        read = np.array([len(text.split()) for text in texts], np.int32)
        margin = to_grid(np.where(read > 0, 20 * np.array(loud) + np.array(jitter) - 3, np.nan))
        vectors = np.array(letters, np.float16).reshape(-1, 26)
        vectors[read == 0] = np.nan
        return LabelBatch(margin, vectors, read, np.zeros(len(texts), bool))


def test_it_keeps_the_contract() -> None:
    check_backend(Shouting(LabelerSpec("1", PROMPT)), "", reads_anything=True)


def test_it_mines_once_it_is_registered_and_named(tmp_path: Path) -> None:
    text = helpers.FAKE_TASK.replace("{preset: fake}", "{backend: shouting, preset: '1'}")
    task = helpers.write_task(tmp_path, text)
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())
    with pytest.raises(UsageError, match=r"model\.backend: 'shouting' is refused: no such backend"):
        helpers.run(task, corpus, tmp_path / "w")
    with registry.registered("shouting", Shouting):
        mined = helpers.run(task, corpus, tmp_path / "w")
        assert len(mined.items) == 12
        assert mined.model_id == "shouting@1"
        assert helpers.run(task, corpus, tmp_path / "w", budget=5).scored_now == 0
        shown = [ad for item in mined.items for ad in item.ads]
        margins = Shouting(LabelerSpec("1", PROMPT)).load().margins([ad.text for ad in shown])
        assert [ad.margin for ad in shown] == margins.tolist()
        with (
            pytest.raises(ValueError, match="there is a backend 'shouting' already"),
            registry.registered("shouting", Shouting),
        ):
            pass
    assert "shouting" not in registry.names()


# --- What a worker may load -------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.parametrize("change", ["weights", "prompt", "encoder"])
def test_a_worker_with_another_model_is_refused(
    change: str, llm_preset: str, encoder_preset: str, tmp_path: Path
) -> None:
    text = helpers.FAKE_TASK.replace(
        "{preset: fake}", f"{{preset: {llm_preset}, dtype: float32, max_ad_tokens: 24}}"
    )
    text += f"embedding: {{source: encoder, preset: {encoder_preset}}}\n"
    task = load_task(helpers.write_task(tmp_path, text))
    planned = task.backend().identify()
    if change == "prompt":
        task = task.model_copy(update={"question": "Another one?", "policy": "Another one."})
    elif change == "weights":
        model = task.model.model_copy(update={"dtype": "bfloat16"})
        task = task.model_copy(update={"model": model})
    else:
        # Of the same name, in the same place on the worker's disk, with other numbers in it.
        other = helpers.random_encoder(tmp_path / Path(encoder_preset).name, ["win", "free"], 16)
        embedding = task.embedding.model_copy(update={"preset": other})
        task = task.model_copy(update={"embedding": embedding})
    with pytest.raises(
        RunFailed,
        match=r"the worker has .*, the launcher planned .*; give both the same weights",
    ):
        LoadLabeler(task, planned)()


@pytest.mark.model
def test_a_worker_with_the_planned_model_is_not(
    llm_preset: str, encoder_preset: str, tmp_path: Path
) -> None:
    text = helpers.FAKE_TASK.replace(
        "{preset: fake}", f"{{preset: {llm_preset}, dtype: float32, max_ad_tokens: 24}}"
    )
    text += f"embedding: {{source: encoder, preset: {encoder_preset}}}\n"
    task = load_task(helpers.write_task(tmp_path, text))
    planned = task.backend().identify()
    assert LoadLabeler(task, planned)().identity == planned
