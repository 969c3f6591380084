"""Gemini's API: requests that its published schema takes, answers by it, and what goes wrong.

The service itself was never asked: the schema is that of Google's own client for Vertex AI.
"""

from __future__ import annotations

import json
from typing import Any

import google.auth
import google.auth.exceptions
import pytest
from google.oauth2.credentials import Credentials

from models.backends.base import BackendError, LabelerSpec, Terms, Unavailable
from models.backends.gemini import Gemini
from models.backends.service import Busy, Heard, Question, Refused
from pipelines.config import load_task, parse_task
from pipelines.errors import UsageError
from tests import helpers
from tests.model_server import KEY, ModelServer, Trouble, answer
from tests.models.training.ads import PROMPT

TURNS = (
    ("system", "Judge."),
    ("user", "Ad: tea"),
    ("assistant", "No"),
    ("user", "Ad: You win a miracle!"),
)
QUESTION = Question(TURNS, "Yes", "No")
VERTEX = "vertex://my-project/europe-west1"


@pytest.fixture
def keyed(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOUT_MODEL_KEY", KEY)


def ask(url: str, seconds: float = 10.0) -> Heard:
    terms = Terms(timeout_seconds=seconds)
    return (
        Gemini(LabelerSpec("gemini-m", PROMPT, "e", url=url, terms=terms)).service().ask(QUESTION)
    )


@pytest.mark.usefixtures("keyed")
def test_requests_and_answers_are_those_of_the_published_schema(server: ModelServer) -> None:
    from google.cloud.aiplatform_v1 import types

    heard = ask(server.url)
    [(path, body)] = server.answered
    assert path == "/v1/v1beta/models/gemini-m:generateContent"
    assert body == {
        "systemInstruction": {"role": "user", "parts": [{"text": "Judge."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Ad: tea"}]},
            {"role": "model", "parts": [{"text": "No"}]},
            {"role": "user", "parts": [{"text": "Ad: You win a miracle!"}]},
        ],
        "generationConfig": {
            "temperature": 0.0,
            "candidateCount": 1,
            "maxOutputTokens": 1,
            "responseLogprobs": True,
            "logprobs": 20,
            # As google-genai 2.34 writes it; JSON of protocol buffers takes either case.
            "thinkingConfig": {"thinking_budget": 0},
        },
    }
    # Fields that the schema lacks are refused; our fake server's answer is held to it, too.
    for message, value in (
        (types.GenerateContentRequest, body),
        (types.GenerateContentResponse, answer(path, body)),
    ):
        message.from_json(json.dumps(value), ignore_unknown_fields=False)
    assert [token for token, _ in heard.likely] == ["Yes", "No", "The", "\n"]
    assert (heard.tokens_in, heard.tokens_out) == (9, 1)
    assert server.keys == {KEY}


@pytest.mark.usefixtures("keyed")
def test_vertex_is_asked_in_ones_own_project(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Credentials(token="from-this-machine")
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", server.url.removesuffix("/v1"))
    monkeypatch.setattr(google.auth, "default", lambda **_: (held, "another-project"))
    ask(VERTEX)
    [(path, _)] = server.answered
    assert path == (
        "/v1beta1/projects/my-project/locations/europe-west1/publishers/google/models/"
        "gemini-m:generateContent"
    )
    # The key of the other API does not go there.
    assert server.keys == {"Bearer from-this-machine"}

    def none(**_: Any) -> None:
        raise google.auth.exceptions.DefaultCredentialsError("none found")

    monkeypatch.setattr(google.auth, "default", none)
    with pytest.raises(
        Unavailable, match=r"my-project/europe-west1: no credentials \(none found\)"
    ):
        ask(VERTEX)


def said(**error: Any) -> bytes:
    return json.dumps({"error": error}).encode()


BLOCKED = b'{"promptFeedback": {"blockReason": "SAFETY"}}'
NO_LOGPROBS = b'{"candidates": [{"finishReason": "MAX_TOKENS"}]}'
STOPPED = b'{"candidates": [{"finishReason": "SAFETY"}]}'
EMPTY = b'{"candidates": [{"logprobsResult": {"topCandidates": []}}]}'


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        (
            Trouble(429, said(code=429, message="slow"), {"Retry-After": "7"}),
            Busy,
            r"HTTP 429 \(it says: slow\)",
        ),
        (Trouble(503, said(code=503, message=f"no {KEY}")), Busy, r"says: no \(key\)"),
        (Trouble(200, b"<html>"), Busy, "something else than Gemini"),
        (Trouble(seconds=5), Busy, r"no answer within 0\.5 s"),
        (Trouble(400, said(code=400, message="too long")), Refused, "too long"),
        (Trouble(200, BLOCKED), Refused, r"blocked \(SAFETY\)"),
        (Trouble(200, STOPPED), Refused, r"blocked \(SAFETY\)"),
        (Trouble(200, EMPTY), Refused, "before the first token"),
        (
            Trouble(400, said(code=400, message="API key not valid")),
            Unavailable,
            "the key in SCOUT",
        ),
        (Trouble(403, said(code=403, message="no")), Unavailable, "the key in SCOUT_MODEL_KEY"),
        (Trouble(404, said(code=404, message="no")), Unavailable, "no model 'gemini-m'"),
        (Trouble(200, NO_LOGPROBS), Unavailable, "without log-probabilities"),
    ],
)
def test_what_goes_wrong(
    trouble: Trouble, kind: type[Exception], message: str, server: ModelServer
) -> None:
    server.troubles.append(trouble)
    with pytest.raises(kind, match=message) as raised:
        ask(server.url, 0.5 if trouble.seconds else 10.0)
    assert KEY not in str(raised.value)
    # Once: the SDK asks nothing again that we do not count.
    assert server.received == 1
    if trouble.headers:
        assert isinstance(raised.value, Busy)
        assert raised.value.after == 7.0


def test_a_key_is_needed_and_goes_nowhere_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCOUT_MODEL_KEY", raising=False)
    with pytest.raises(BackendError, match="SCOUT_MODEL_KEY is not set"):
        ask("")
    monkeypatch.setenv("SCOUT_MODEL_KEY", KEY)
    with pytest.raises(BackendError, match="in plain text"):
        ask("http://models.example.org")


TASK = helpers.FAKE_TASK.replace("{preset: fake}", "{backend: gemini, preset: gemini-m}")


def test_a_task_without_a_prompt_is_a_chat() -> None:
    task = parse_task(TASK, "t")
    assert task.prompt_spec().form == "chat"
    assert not task.wants_committee()
    assert task.embedding_preset() == "all-minilm-l6-v2"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("prompt: {form: completion}", r"prompt\.form: the backend gemini takes chats alone"),
        ("prompt: {form: chat, chat_format: gemma}", r"prompt\.chat_format: .* its own markup"),
        ("URL", r"model\.url: 'vertex://x' is no place of Vertex AI"),
    ],
)
def test_what_a_task_file_may_not_say(more: str, message: str, tmp_path: Any) -> None:
    text = (
        TASK.replace("gemini-m}", "gemini-m, url: 'vertex://x'}") if more == "URL" else TASK + more
    )
    with pytest.raises(UsageError, match=message):
        load_task(helpers.write_task(tmp_path, text))
