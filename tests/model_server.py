"""A server with OpenAI's API and Gemini's on this machine, for tests: it answers by a word list, or as told."""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from models.backends.fake import FakeLabeler

KEY = "sk-not-a-real-one"
_LABELER = FakeLabeler()


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is answered in place of an answer.

    Attributes:
        status: of HTTP.
        body: as it is sent.
        headers: more of them.
        seconds: to wait before; the answer then comes to nobody.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(slots=True)
class ModelServer:
    """A running server.

    Attributes:
        url: under which its API lies.
        calm: requests that are answered before any trouble.
        troubles: what the next requests get, in order; then all get answers.
        answered: requests that got an answer, as they came: path and body.
        refused: ads whose requests get status 400.
        received: requests in all.
        keys: what their Authorization headers were, or Gemini's of their own.
    """

    url: str = ""
    calm: int = 0
    troubles: deque[Trouble] = field(default_factory=deque)
    answered: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refused: tuple[str, ...] = ()
    received: int = 0
    keys: set[str | None] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prompts(self) -> list[str]:
        """Return the texts that were answered."""
        return [text_of(body) for _, body in self.answered]


def text_of(body: dict[str, Any]) -> str:
    """Return what a request asks, turns on lines of their own."""
    if "prompt" in body:
        return str(body["prompt"])
    if "contents" in body:
        turns = [body["systemInstruction"], *body["contents"]]
        return "\n".join(part["text"] for turn in turns for part in turn["parts"])
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in body["messages"])


def tops(text: str) -> dict[str, float]:
    """Return log-probabilities of first tokens: yes and no by the word list, and others."""
    yes = 1 / (1 + math.exp(-float(_LABELER.margins([text])[0]) / 2))
    shares = {" Yes": 0.6 * yes, " No": 0.6 * (1 - yes), " The": 0.3, "\n": 0.1}
    if text.endswith("\n"):
        # At a line's beginning no word has a space before it.
        shares = {token.lstrip(" "): share for token, share in shares.items()}
    return {token: math.log(max(share, 1e-12)) for token, share in shares.items()}


def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request, as OpenAI's API reference has it, or Gemini's."""
    text = text_of(body)
    told = tops(text)
    if path.endswith(":generateContent"):
        likely = [{"token": t.strip() or t, "logProbability": p} for t, p in told.items()]
        candidate = {
            "content": {"role": "model", "parts": [{"text": "The"}]},
            "finishReason": "MAX_TOKENS",
            "logprobsResult": {"topCandidates": [{"candidates": likely}]},
        }
        counted = {"promptTokenCount": len(text.split()), "candidatesTokenCount": 1}
        return {"candidates": [candidate], "usageMetadata": counted}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    if path.endswith("/chat/completions"):
        items = [{"token": t.strip() or t, "logprob": p, "bytes": None} for t, p in told.items()]
        choice["message"] = {"role": "assistant", "content": " The"}
        choice["logprobs"] = {"content": [{**items[0], "top_logprobs": items}]}
    else:
        choice["text"] = " The"
        choice["logprobs"] = {"tokens": [" The"], "top_logprobs": [told]}
    usage = {"prompt_tokens": len(text.split()), "completion_tokens": 1}
    return {"id": "1", "model": body["model"], "choices": [choice], "usage": usage}


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Run a server until the body ends."""
    state = ModelServer()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.received += 1
                state.keys.add(
                    self.headers.get("Authorization") or self.headers.get("x-goog-api-key")
                )
                troubled = state.troubles and state.received > state.calm
                trouble = state.troubles.popleft() if troubled else None
            if trouble is None and any(ad in text_of(body) for ad in state.refused):
                said = {"error": {"message": f"flagged, key {KEY}", "code": "content_filter"}}
                trouble = Trouble(400, json.dumps(said).encode())
            if trouble is not None:
                ended.wait(trouble.seconds)
                self._send(trouble.status, trouble.body, trouble.headers)
                return
            with state.lock:
                state.answered.append((self.path, body))
            self._send(200, json.dumps(answer(self.path, body)).encode(), {})

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # Whoever asked has gone.

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
