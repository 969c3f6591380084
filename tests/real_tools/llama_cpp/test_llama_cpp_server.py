"""llama.cpp's own server, with the embedded model's weights: the real one behind `backend: openai`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests

from benchmarks.llm0_throughput import LLAMA_WORKER, gguf_file
from models.backends import asked, usage
from models.backends.base import LabelerSpec, Terms
from models.backends.openai_server import OpenAIServer
from models.backends.service import Question, log_odds
from models.embedded import EMBEDDED_ENCODER
from models.prompting import PromptSpec, render
from pipelines.jobs.mine import mine
from pipelines.jobs.results import Mined
from tests import helpers
from tests.models.backends.kit import check_backend
from tests.real_tools.guard import GUARD

ROOT = Path(__file__).resolve().parents[3]
START_SEC = 120
PYTHON = os.environ.get("SCOUT_LLAMA_CPP", "")
PROMPTS = {
    "completion": PromptSpec(
        policy="No clickbait.", question="Clickbait:", template="Headline: {ad}\n{question}"
    ),
    "chat": PromptSpec(
        policy="Clickbait withholds what the reader will find.",
        question="Is this ad clickbait?",
        form="chat",
    ),
}
# Of 49,152: one answer at least is among them for all ads here, and llama.cpp sorts them all anyway.
TOP = 2000


@dataclass(frozen=True, slots=True)
class Running:
    """A server's address."""

    url: str


@pytest.fixture(scope="module")
def llama() -> Iterator[Running]:
    assert PYTHON, "SCOUT_LLAMA_CPP: `make test-llama` names the Python that has llama_cpp"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "llama_cpp.server", "--model", str(gguf_file())]
    command += ["--model_alias", "smollm2", "--logits_all", "true", "--n_ctx", "512"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-c", GUARD, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        deadline = time.monotonic() + START_SEC
        while True:
            try:
                requests.get(f"{url}/models", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                assert process.poll() is None, "llama.cpp's server ended"
                assert time.monotonic() < deadline, "llama.cpp's server does not answer"
                time.sleep(0.3)
        yield Running(url)
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait()


@pytest.fixture(autouse=True)
def _own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.delenv("SCOUT_MODEL_KEY", raising=False)
    usage.drain()


def backend(llama: Running, prompt: PromptSpec, top: int = TOP) -> OpenAIServer:
    # It works on one request at a time.
    terms = Terms(requests_at_once=2, timeout_seconds=120)
    return OpenAIServer(
        LabelerSpec(
            "smollm2", prompt, EMBEDDED_ENCODER, "float32", 64, None, llama.url, "", top, terms
        )
    )


def sample(number: int) -> list[str]:
    lines = (ROOT / "templates" / "samples" / "ads.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:number]]


@pytest.mark.parametrize("form", sorted(PROMPTS))
def test_it_keeps_the_contract(form: str, llama: Running) -> None:
    check_backend(backend(llama, PROMPTS[form]), "win a free prize today " * 60)


def test_margins_are_the_differences_of_llama_cpps_own_logits(llama: Running) -> None:
    # Keras with the same weights is no measure: llama.cpp multiplies them with eight-bit activations. So much
    # noise is in these that a question whose beginning is read from its cache is answered otherwise: each
    # is asked here behind one that begins with another word.
    texts, prompt = sample(8), render(PROMPTS["completion"])
    # An answer beyond the tokens that are told gets a bound, which is no difference: nearly all are told here.
    service = backend(llama, PROMPTS["completion"], top=20_000).service()
    other = Question((("", "Zebras graze."),), " Yes", " No")
    served = []
    for text in texts:
        service.ask(other)
        whole = f"{prompt.prefix}{text}{prompt.suffix}"
        question = Question((("", whole),), prompt.positive_answer, prompt.negative_answer)
        served.append(log_odds(question, service.ask(question).likely))
    job = {
        "gguf": str(gguf_file()),
        "threads": 2,
        "texts": texts,
        "prompts": {
            "completion": {
                "prefix": "",
                "lead": prompt.prefix,
                "suffix": prompt.suffix,
                "positive": prompt.positive_answer,
                "negative": prompt.negative_answer,
            }
        },
    }
    done = subprocess.run(
        [PYTHON, "-c", LLAMA_WORKER],
        input=f"{json.dumps(job)}\n{json.dumps('completion')}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    own = np.array(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(served, own, atol=1e-3)


def test_it_mines_a_corpus_and_a_rerun_asks_nothing(llama: Running, tmp_path: Path) -> None:
    corpus = helpers.write_jsonl(
        tmp_path / "ads.jsonl", [{"id": str(i), "text": text} for i, text in enumerate(sample(40))]
    )
    text = helpers.FAKE_TASK.replace("budget: 12", "budget: 4").replace(
        "{preset: fake}",
        f"{{backend: openai, preset: smollm2, url: '{llama.url}', top_logprobs: {TOP}}}",
    )
    text += "prompt: {form: completion}\nserver: {requests_at_once: 2, price_in: 1, price_out: 1}\n"
    task = helpers.write_task(tmp_path, text)
    counts = []
    for workspace in ("w", "v"):
        mined = mine(helpers.options(task, corpus, tmp_path / workspace), lambda line: None)
        assert isinstance(mined, Mined)
        assert mined.rejected == 0
        assert mined.spent is not None
        counts.append((mined.spent.requests, mined.spent.remembered))
        if mined.spent.requests:
            assert mined.spent.tokens_in > 20 * 41
            assert mined.spent.tokens_out == 41
    assert counts == [(41, 0), (0, 41)]
