"""A server with OpenAI's API: what is sent, what is read, what a server in trouble costs, and the key."""

from __future__ import annotations

import dataclasses
import email.utils
import json
import logging
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from models.backends import usage
from models.backends.base import BackendError, LabelerSpec, Terms, Unavailable
from models.backends.openai_server import OpenAIServer, _retry_after
from models.backends.service import Busy, Question, Refused
from models.prompting import FewShotExample
from pipelines.config import load_task
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.mine import mine
from pipelines.jobs.results import Mined
from tests import helpers
from tests.model_server import KEY, ModelServer, Trouble
from tests.models.training.ads import PROMPT

QUESTION = Question((("", "Ad: You win!\nBad:"),), " Yes", " No")
PATIENT = Terms(timeout_seconds=10, patience_seconds=20)


def backend(url: str, terms: Terms = PATIENT, **changes: Any) -> OpenAIServer:
    return OpenAIServer(LabelerSpec("m", PROMPT, "e", url=url, terms=terms, **changes))


# --- One request ------------------------------------------------------------------------------


def test_a_completion_and_a_chat_are_asked_as_the_api_has_them(server: ModelServer) -> None:
    service = backend(server.url).service()
    heard = service.ask(QUESTION)
    turns = (("system", "Judge."), ("user", "Ad: You win!"))
    service.ask(Question(turns, "Yes", "No"))
    assert server.answered == [
        (
            "/v1/completions",
            {
                "model": "m",
                "prompt": "Ad: You win!\nBad:",
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": 20,
            },
        ),
        (
            "/v1/chat/completions",
            {
                "model": "m",
                "messages": [
                    {"role": "system", "content": "Judge."},
                    {"role": "user", "content": "Ad: You win!"},
                ],
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": 20,
            },
        ),
    ]
    assert dict(heard.likely).keys() == {" Yes", " No", " The", "\n"}
    assert (heard.tokens_in, heard.tokens_out) == (4, 1)
    assert server.keys == {None}


NONSENSE = [b"", b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"logprobs": 7}]}', b"{" * 99]
NONSENSE.append(b'{"choices": [{"logprobs": {"top_logprobs": [{" Yes": "high"}]}}]}')
NONSENSE.append(b'{"choices": [{"logprobs": {"top_logprobs": [{" Yes": 0.9}]}}]}')


@pytest.mark.parametrize("body", NONSENSE)
def test_nonsense_is_no_answer(body: bytes, server: ModelServer) -> None:
    server.troubles.append(Trouble(200, body))
    with pytest.raises(Busy, match="something else than an OpenAI-compatible server"):
        backend(server.url).service().ask(QUESTION)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_asked_again(status: int, server: ModelServer) -> None:
    said = json.dumps({"error": {"message": f"slow down, {KEY}\x1b[31m"}}).encode()
    server.troubles.append(Trouble(status, said, {"Retry-After": "7"}))
    with pytest.raises(Busy) as raised:
        backend(server.url).service().ask(QUESTION)
    assert raised.value.after == 7.0
    assert str(raised.value).startswith(f"HTTP {status} (it says: slow down, ")
    assert "\x1b" not in str(raised.value)


def test_a_wait_is_told_in_seconds_or_as_a_date() -> None:
    assert _retry_after({"Retry-After": "1.5"}) == 1.5
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert _retry_after({"Retry-After": later}) == pytest.approx(100, abs=3)
    assert _retry_after({"Retry-After": email.utils.formatdate(0, usegmt=True)}) == 0.0
    assert [_retry_after(h) for h in ({}, {"Retry-After": "soon"}, {"Retry-After": "nan"})] == [
        None
    ] * 3


def test_a_server_that_does_not_answer_is_asked_again(server: ModelServer) -> None:
    server.troubles.append(Trouble(seconds=5))
    with pytest.raises(Busy, match=r"no answer within 0\.3 s"):
        backend(server.url, Terms(timeout_seconds=0.3)).service().ask(QUESTION)
    with pytest.raises(Busy, match=r"no connection \(ConnectionError\)"):
        backend("http://127.0.0.1:9/v1").service().ask(QUESTION)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (
            Trouble(404),
            r"completions: HTTP 404, no such path or model; .*'m', .*prompt\.form: chat",
        ),
        (Trouble(401), "HTTP 401, needs a key: SCOUT_MODEL_KEY"),
        (Trouble(302, headers={"Location": "https://evil.example/"}), "redirects to https://evil"),
        (Trouble(418, b'"teapot"'), r"HTTP 418 \(it says: teapot\)"),
        (Trouble(200, b'{"choices": [{"logprobs": null}]}'), "--logits_all true"),
        (Trouble(429, b'{"error": {"code": "insufficient_quota"}}'), "the key's money is spent"),
    ],
)
def test_what_no_waiting_helps_ends_the_run(
    trouble: Trouble, message: str, server: ModelServer
) -> None:
    server.troubles.append(trouble)
    with pytest.raises(Unavailable, match=message):
        backend(server.url).service().ask(QUESTION)
    assert server.received == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_wrong_with_one_text_is_its_own(status: int, server: ModelServer) -> None:
    server.troubles.append(Trouble(status, b'{"detail": "too long"}'))
    with pytest.raises(Refused, match=rf"HTTP {status} \(it says: too long\)"):
        backend(server.url).service().ask(QUESTION)


def test_an_answer_that_ends_before_it_begins(server: ModelServer) -> None:
    for told in ({"content": []}, {"top_logprobs": []}):
        server.troubles.append(Trouble(200, json.dumps({"choices": [{"logprobs": told}]}).encode()))
        with pytest.raises(Refused, match="before the first token"):
            backend(server.url).service().ask(QUESTION)


# --- The key ----------------------------------------------------------------------------------


def test_the_key_goes_to_the_server_and_into_nothing_else(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SCOUT_MODEL_KEY", KEY)
    made = backend(server.url)
    service = made.service()
    service.ask(QUESTION)
    assert server.keys == {f"Bearer {KEY}"}
    server.refused = ("You win",)
    with pytest.raises(Refused, match=r"flagged, key \(key\)"):
        service.ask(QUESTION)
    assert KEY.encode() not in pickle.dumps(made)
    assert KEY not in caplog.text
    assert KEY not in made.leaves()
    assert "the key in SCOUT_MODEL_KEY" in made.leaves()


def test_a_key_crosses_no_network_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOUT_MODEL_KEY", KEY)
    with pytest.raises(BackendError, match=r"the key in SCOUT_MODEL_KEY would cross"):
        backend("http://models.example.org/v1").service()
    backend("https://models.example.org/v1").service()
    monkeypatch.setenv("SCOUT_MODEL_KEY", "two words")
    with pytest.raises(BackendError, match="blanks or other signs"):
        backend("https://models.example.org/v1").service()
    monkeypatch.delenv("SCOUT_MODEL_KEY")
    # One's own server in one's own network needs none.
    backend("http://models.example.org/v1").service()


def test_a_netrc_file_adds_nothing(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    backend(server.url).service().ask(QUESTION)
    assert server.keys == {None}


# --- What decides a score ---------------------------------------------------------------------


def test_an_answer_belongs_to_its_model() -> None:
    one = backend("http://localhost:1/v1")
    assert one.model_id() == backend("http://localhost:1/v1/").model_id() != ""
    assert one.model_id() != backend("http://localhost:2/v1").model_id()
    named = [backend(f"http://localhost:{port}/v1", revision="r1").model_id() for port in (1, 2)]
    assert named == ["m@r1", "m@r1"]


def test_a_models_own_markup_is_text_to_go_on_with(
    server: ModelServer, encoder_preset: str
) -> None:
    chat = dataclasses.replace(
        PROMPT,
        form="chat",
        chat_format="chatml",
        examples=(FewShotExample("Tea", "negative"),),
    )
    own = dataclasses.replace(chat, chat_format="auto")
    for prompt in (chat, own):
        spec = LabelerSpec("m", prompt, encoder_preset, url=server.url, terms=PATIENT)
        OpenAIServer(spec).load().label(["Win <tool_call>it</tool_call> now"])
    paths = [path for path, _ in server.answered]
    # Each begins with a made-up ad, which tells whether the server can be used at all.
    assert paths == ["/v1/completions"] * 2 + ["/v1/chat/completions"] * 2
    prompt = server.answered[1][1]["prompt"]
    assert prompt.endswith("Headline: Win it now\nClickbait:<|im_end|>\n<|im_start|>assistant\n")
    roles = [turn["role"] for turn in server.answered[3][1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


# --- From a task file to the pairs ------------------------------------------------------------

TASK = """\
name: tiny
version: 1
policy: Ads that win or promise a free miracle.
question: Is it misleading?
prior: 0.2
prompt: {form: completion}
model: {backend: openai, preset: m, url: "URL", max_ad_tokens: 64}
server: {timeout_seconds: 4, patience_seconds: 60, price_in: 10, price_out: 20}
embedding: {preset: ENCODER}
selection: {budget: 12}
"""


@pytest.fixture
def task(server: ModelServer, encoder_preset: str, tmp_path: Path) -> Path:
    text = TASK.replace("URL", server.url).replace("ENCODER", encoder_preset)
    return helpers.write_task(tmp_path, text)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads(120))


def written(folder: Path, text: str) -> Path:
    folder.mkdir()
    return helpers.write_task(folder, text)


def run(task: Path, corpus: Path, workspace: Path, **changes: Any) -> tuple[Mined, list[str]]:
    said: list[str] = []
    mined = mine(helpers.options(task, corpus, workspace, **changes), said.append)
    assert isinstance(mined, Mined)
    return mined, said


def test_a_server_in_trouble_loses_nothing_and_every_request_is_counted(
    task: Path,
    corpus: Path,
    server: ModelServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCOUT_MODEL_KEY", KEY)
    calm, said = run(task, corpus, tmp_path / "calm")
    assert [line for line in said if "leave this machine" in line] == [
        f"ads that are not scored yet leave this machine: they go to {server.url} (model m), each in one "
        "prompt, with the key in SCOUT_MODEL_KEY; 1,000 ads of 100 characters are about 43,500 tokens, "
        "0.46 at the prices in the task file"
    ]
    # An ad and a request each, and one for the made-up ad before.
    assert calm.spent is not None
    assert (calm.spent.requests, calm.spent.again, calm.spent.remembered) == (121, 0, 0)
    words = sum(len(prompt.split()) for prompt in server.prompts())
    assert (calm.spent.tokens_in, calm.spent.tokens_out) == (words, 121)
    assert calm.spent.cost == pytest.approx((10 * words + 20 * 121) / 1e6)
    assert f"{words:,} tokens in, 121 out" in " ".join(calm.text().split())
    assert calm.to_json()["spent"]["requests"] == 121
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]

    shutil.rmtree(tmp_path / "cache")
    server.answered.clear()
    # Trouble begins behind the made-up ad, which is asked alone.
    server.calm = server.received + 1
    server.troubles.extend(
        [
            *[Trouble(429, headers={"Retry-After": "0.2"})] * 5,
            *[Trouble(500)] * 3,
            *[Trouble(200, b"<html>Bad gateway</html>")] * 2,
            *[Trouble(seconds=5.0)] * 2,
        ]
    )
    troubled, _ = run(task, corpus, tmp_path / "troubled")
    assert troubled.spent is not None
    assert (troubled.spent.requests, troubled.spent.again) == (121 + 12, 12)
    assert (troubled.spent.tokens_in, troubled.spent.cost) == (words, calm.spent.cost)
    assert (troubled.rejected, troubled.unique) == (0, 120)
    assert helpers.pairs_bytes(troubled) == helpers.pairs_bytes(calm)
    assert sorted(server.prompts()) == sorted(set(server.prompts()))

    # Neither a rerun in the workspace nor one elsewhere asks anything.
    before = server.received
    again, _ = run(task, corpus, tmp_path / "calm", budget=5)
    assert again.scored_now == 0
    elsewhere, _ = run(task, corpus, tmp_path / "elsewhere")
    assert elsewhere.spent is not None
    assert (elsewhere.spent.requests, elsewhere.spent.remembered) == (0, 121)
    assert helpers.pairs_bytes(elsewhere) == helpers.pairs_bytes(calm)
    assert server.received == before


def test_a_run_that_gave_up_goes_on_where_it_stopped(
    task: Path, corpus: Path, server: ModelServer, tmp_path: Path
) -> None:
    hasty = written(
        tmp_path / "hasty", task.read_text().replace("patience_seconds: 60", "patience_seconds: 0")
    )
    server.calm = 40
    server.troubles.extend([Trouble(503)] * 1000)
    with pytest.raises(RunFailed, match=r"HTTP 503 .* run the command again later"):
        run(hasty, corpus, tmp_path / "w")
    kept = len(server.answered)
    assert 20 < kept < 121
    server.troubles.clear()
    mined, _ = run(task, corpus, tmp_path / "w")
    assert mined.spent is not None
    assert mined.spent.requests == 121 - kept
    assert (mined.unique, mined.rejected) == (120, 0)
    assert len(server.answered) == 121


def test_an_ad_that_the_server_refuses_is_a_dead_letter(
    task: Path, corpus: Path, server: ModelServer, tmp_path: Path
) -> None:
    [*_, bad] = helpers.tiny_ads(120)
    server.refused = (bad["text"],)
    mined, _ = run(task, corpus, tmp_path / "w", max_rejected_share=0.02)
    assert (mined.rejected, mined.rejected_by_reason) == (1, {"scoring_failed": 1})
    assert "flagged, key" in mined.rejected_examples["scoring_failed"]
    assert mined.spent is not None
    # The others were known when its block was halved, and its refusal was, too.
    assert mined.spent.requests == 121


def test_what_a_pilot_costs_is_said_before_it_is_spent(
    task: Path, corpus: Path, server: ModelServer, tmp_path: Path
) -> None:
    text = task.read_text().replace("prompt: {form: completion}\n", "")
    free = written(tmp_path / "free", text)
    received: list[int] = []
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        received.append(server.received)

    mined = mine(helpers.options(free, corpus, tmp_path / "w"), say)
    assert isinstance(mined, Mined)
    [quote] = [i for i, line in enumerate(said) if "requests at most" in line]
    assert said[quote].startswith(
        f"120 ads leave this machine: they go to {server.url} (model m), each in 14 prompts; 1,680 requests "
        "at most, about "
    )
    assert received[quote] == 0
    # Only the forms whose both answers the server tells can be heard.
    assert mined.prompts
    assert all("yes" in name for name in mined.prompts)
    members = len(mined.prompts)
    assert mined.spent is not None
    assert mined.spent.requests == 120 * 14 + 1
    assert mined.spent.remembered == 120 * members
    poor = text.replace("price_out: 20", "price_out: 20, max_cost: 0.01")
    with pytest.raises(UsageError, match=r"would cost about .*, server\.max_cost is 0\.01"):
        run(written(tmp_path / "poor", poor), corpus, tmp_path / "v")


# --- The task file ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('url: "URL", ', "", r"model\.url: is missing; say where"),
        ("URL", "localhost:8080", r"model\.url: 'localhost:8080' is no address"),
        ("URL", "https://me:pw@x.example/v1", r"may hold no user or password"),
        ("URL", "https://x.example/v1?key=a", r"is a page of the server"),
        ("price_out: 20", "max_cost: 3", r"server\.max_cost: needs server\.price_in"),
        ("{preset: ENCODER}", "{source: llm}", r"embedding\.source: the backend openai gives no"),
        ("openai, preset: m", "keras, preset: m", r"model\.url: 'URL' has no effect on this"),
        ("price_in: 10", "price_in: -1", r"server\.price_in: -1 is refused"),
        ("price_in: 10", "api_key: sk-1", r"server\.api_key: unknown key"),
    ],
)
def test_what_a_task_file_may_not_say(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = TASK.replace(old, new)
    text = text if "URL" in old or "keras" in new else text.replace("URL", "http://localhost:1/v1")
    with pytest.raises(UsageError, match=message):
        load_task(helpers.write_task(tmp_path, text))


def test_vectors_come_from_the_encoder_whatever_learns(tmp_path: Path) -> None:
    text = TASK.replace("URL", "http://localhost:1/v1").replace("ENCODER", "all-minilm-l6-v2")
    task = load_task(helpers.write_task(tmp_path, text))
    assert task.training.learner == "llm"
    assert task.embedding_preset() == "all-minilm-l6-v2"
    assert usage.drain() == {}
