"""A model behind an OpenAI-compatible server: a hosted service, vLLM, llama.cpp, TGI, ...

A completion is asked at `/completions` (`logprobs`: how many tokens are told), a chat at
`/chat/completions` (`logprobs`, `top_logprobs`), as OpenAI's API reference has them; both forms of the
answer are read at either, for llama.cpp's server answers completions as chats. One token is generated.
"""

from __future__ import annotations

import email.utils
import math
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

from models.address import fault_of, is_loopback
from models.backends.asked import Asked, read_key, shown
from models.backends.base import BackendError, LabelerSpec, Unavailable
from models.backends.service import CHARS_PER_TOKEN, Busy, Heard, Question, Refused, Service

_CONNECT_SEC = 10.0
# An answer of one token is small; what is larger is none, and is not read.
_MAX_ANSWER_BYTES = 4 << 20
_TRANSIENT = frozenset({408, 409, 425, 429})
_OF_THE_TEXT = frozenset({400, 413, 422})


class OpenAIServer(Asked):
    """What `model: {backend: openai, url: ...}` means; the preset is the model's name there."""

    debates = True

    @property
    def place(self) -> str:
        """The address under which the API lies."""
        return self.spec.url.rstrip("/")

    @classmethod
    def check_address(cls, url: str) -> str:
        """Return why an address will not do, or ""."""
        if not url:
            return "is missing; say where the server's API lies, such as http://localhost:8080/v1"
        return fault_of(url)

    def service(self) -> Service:
        """Return the server, with the key if there is one."""
        variable = self.spec.terms.key_variable
        key = read_key(variable, needed=False)
        parts = urllib.parse.urlsplit(self.place)
        if key and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise BackendError(
                f"{self.place}: the key in {variable} would cross the network in plain text; use "
                "https://, or take the key out of the environment"
            )
        return _Server(self.spec, self.place, key)


class _Server(Service):
    """The server's API; what goes wrong is told without the key.

    Args:
        spec: of the model.
        place: where the API lies.
        key: sent with each request; "" for none.
    """

    def __init__(self, spec: LabelerSpec, place: str, key: str) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._spec, self._place, self._key = spec, place, key
        self._session = requests.Session()
        adapter = HTTPAdapter(pool_maxsize=spec.terms.requests_at_once)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        self._session.headers["User-Agent"] = "ad-scout"
        # A proxy of this machine's environment would be sent what is for this machine.
        host = urllib.parse.urlsplit(place).hostname or ""
        self._proxies = {"no_proxy": host} if is_loopback(host) else {}

    def _auth(self, request: Any) -> Any:
        # As a function, or else requests would send what ~/.netrc has for the host.
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def ask(self, question: Question) -> Heard:
        """Ask once; see `Service`."""
        path, body = request_of(self._spec, question)
        status, headers, value = self._send(path, body)
        if status == 200:
            return self._heard(value, question)
        said = shown(_told(value), self._key)
        quoted = f" (it says: {said})" if said else ""
        if status in _TRANSIENT or status >= 500:
            if _code(value) == "insufficient_quota":
                raise Unavailable(f"{self._place}: the key's money is spent{quoted}")
            raise Busy(f"HTTP {status}{quoted}", _retry_after(headers))
        if status in _OF_THE_TEXT:
            raise Refused(f"HTTP {status}{quoted}")
        raise Unavailable(f"{self._place}{path}: {self._refusal(status, headers)}{quoted}")

    def _send(self, path: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], Any]:
        """Return status, headers, and the JSON value of an answer; None for what is no JSON."""
        import requests
        import urllib3

        timeout = self._spec.terms.timeout_seconds
        try:
            with self._session.post(
                self._place + path,
                json=body,
                auth=self._auth,
                proxies=self._proxies,
                timeout=(min(_CONNECT_SEC, timeout), timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                data = response.raw.read(_MAX_ANSWER_BYTES, decode_content=True)
                response._content = data
                try:
                    value = response.json()
                except (ValueError, RecursionError):
                    value = None
                return response.status_code, response.headers, value
        except requests.exceptions.SSLError:
            raise Unavailable(
                f"{self._place}: no trusted TLS connection; check the address, or name your own "
                "authority's certificate in REQUESTS_CA_BUNDLE"
            ) from None
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise Busy(f"no answer within {timeout:g} s") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # Its text holds the request's.
            raise Busy(f"no connection ({type(error).__name__})") from None

    def _heard(self, value: Any, question: Question) -> Heard:
        try:
            choice = value["choices"][0]
            told = choice.get("logprobs")
            counted = value.get("usage") or {}
            tokens_in = int(counted.get("prompt_tokens") or _guess(question))
            tokens_out = int(counted.get("completion_tokens") or 0)
            if told is None:
                raise Unavailable(
                    f"{self._place}: answers without log-probabilities, which are what an ad is scored "
                    "by; llama.cpp's Python server needs --logits_all true, and reasoning models give none"
                )
            likely = _likely(told)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Busy(
                f"answered something else than an OpenAI-compatible server does ({type(error).__name__})"
            ) from None
        if not likely:
            raise Refused("the model ends its answer before the first token")
        return Heard(likely, tokens_in, tokens_out)

    def _refusal(self, status: int, headers: Mapping[str, str]) -> str:
        """Return what a status means, and what to do about it."""
        variable = self._spec.terms.key_variable
        if 300 <= status < 400:
            return (
                f"redirects to {shown(headers.get('Location', 'another address'), self._key)}; ads and key "
                "go to the named server only: give the address that it redirects to as model.url"
            )
        if status in (401, 403):
            held = (
                f"does not accept the key in {variable}"
                if self._key
                else f"needs a key: {variable}"
            )
            return f"HTTP {status}, {held}"
        if status == 404:
            return (
                f"HTTP 404, no such path or model; model.url ends where /completions begins, model.preset is "
                f"{self._spec.preset!r}, and a server that takes chats alone needs prompt.form: chat"
            )
        return f"HTTP {status}"


def request_of(spec: LabelerSpec, question: Question) -> tuple[str, dict[str, Any]]:
    """Return path and body of a question's request."""
    shared = {"model": spec.preset, "max_tokens": 1, "temperature": 0}
    if question.is_chat:
        messages = [{"role": role, "content": text} for role, text in question.turns]
        wanted = {"logprobs": True, "top_logprobs": spec.top_logprobs}
        return "/chat/completions", {**shared, "messages": messages, **wanted}
    prompt = question.turns[0][1]
    return "/completions", {**shared, "prompt": prompt, "logprobs": spec.top_logprobs}


def _likely(told: Any) -> list[tuple[str, float]]:
    """Return the first token's alternatives; empty where no token was generated.

    Raises:
        KeyError, TypeError, ValueError: this is no answer.
    """
    if "content" in told:
        tokens = told["content"] or [{"top_logprobs": []}]
        found = [(item["token"], item["logprob"]) for item in tokens[0]["top_logprobs"]]
    else:
        found = list((told["top_logprobs"] or [{}])[0].items())
    likely = []
    for token, logprob in found:
        if not isinstance(token, str) or not math.isfinite(logprob) or logprob > 1e-3:
            raise ValueError("no log-probability")
        likely.append((token, float(logprob)))
    return likely


def _guess(question: Question) -> int:
    return -(-question.characters // CHARS_PER_TOKEN)


def _error(value: Any) -> Any:
    return value.get("error", value) if isinstance(value, dict) else value


def _told(value: Any) -> str:
    """Return what a server says is wrong, "" for nothing."""
    error = _error(value)
    said = (error.get("message") or error.get("detail")) if isinstance(error, dict) else error
    return said if isinstance(said, str) else ""


def _code(value: Any) -> str:
    error = _error(value)
    return str(error.get("code", "")) if isinstance(error, dict) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After` header, which has them or a date (RFC 9110, 10.2.3)."""
    said = headers.get("Retry-After", "").strip()
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
