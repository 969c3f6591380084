"""Gemini by google-genai: the Developer API with a key, or Vertex AI in a project of one's own.

One token is generated, with `response_logprobs` and `logprobs` (the likeliest tokens that are told), as
`GenerateContentConfig` of google-genai 2 has them, without thinking. Beam's `GeminiModelHandler` wraps the
same client as a step of a pipeline; here it stands behind a labeler, which is used outside of one, too.
The SDK's own retries are off: ours count what they ask.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Any

from models.address import fault_of, is_loopback
from models.backends.asked import Asked, read_key, shown
from models.backends.base import BackendError, LabelerSpec, Unavailable
from models.backends.service import CHARS_PER_TOKEN, Busy, Heard, Question, Refused, Service

_VERTEX = re.compile(r"vertex://([a-z][a-z0-9-]{4,28}[a-z0-9])/([a-z0-9-]+)")
_PUBLIC = "https://generativelanguage.googleapis.com"
_TRANSIENT = frozenset({408, 409, 429})


class Gemini(Asked):
    """What `model: {backend: gemini}` means; the preset is the model's name, `url` tells whose API.

    Empty: the Developer API, which takes a key. `vertex://PROJECT/LOCATION`: Vertex AI, with the
    application default credentials of the machine.
    """

    requires = (*Asked.requires, "google.genai")
    extra = "gemini"
    chats = True

    @property
    def place(self) -> str:
        """Whose API it is."""
        return self.spec.url.rstrip("/") or _PUBLIC

    @classmethod
    def check_address(cls, url: str) -> str:
        """Return why an address will not do, or ""."""
        if not url or _VERTEX.fullmatch(url.rstrip("/")):
            return ""
        if url.startswith("vertex:"):
            return "is no place of Vertex AI; write vertex://my-project/europe-west1"
        return fault_of(url)

    def service(self) -> Service:
        """Return the API, entered."""
        from google import genai
        from google.genai.types import HttpOptions, HttpRetryOptions

        milliseconds = round(1000 * self.spec.terms.timeout_seconds)
        once = HttpOptions(timeout=milliseconds, retry_options=HttpRetryOptions(attempts=1))
        if vertex := _VERTEX.fullmatch(self.place):
            project, location = vertex.groups()
            client = genai.Client(
                vertexai=True, project=project, location=location, http_options=once
            )
            return _Api(client, self.spec, self.place, "")
        key = read_key(self.spec.terms.key_variable, needed=True)
        parts = urllib.parse.urlsplit(self.place)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise BackendError(
                f"{self.place}: the key would cross the network in plain text; use https://"
            )
        once.base_url = self.place
        client = genai.Client(vertexai=False, api_key=key, http_options=once)
        return _Api(client, self.spec, self.place, key)


class _Api(Service):
    """The API behind a client; what goes wrong is told without the key.

    Args:
        client: of google-genai.
        spec: of the model.
        place: as messages name it.
        key: "" where there is none.
    """

    def __init__(self, client: Any, spec: LabelerSpec, place: str, key: str) -> None:
        self._client, self._spec, self._place, self._key = client, spec, place, key

    def ask(self, question: Question) -> Heard:
        """Ask once; see `Service`."""
        import google.auth.exceptions
        import httpx
        from google.genai import errors

        try:
            answer = self._client.models.generate_content(
                model=self._spec.preset, **request_of(self._spec, question)
            )
        except errors.APIError as error:
            raise self._failure(error) from None
        except google.auth.exceptions.GoogleAuthError as error:
            said = shown(str(error), self._key)
            raise Unavailable(
                f"{self._place}: no credentials ({said}); run gcloud auth application-default login, or "
                "give the worker a service account"
            ) from None
        except httpx.TimeoutException:
            raise Busy(f"no answer within {self._spec.terms.timeout_seconds:g} s") from None
        except httpx.HTTPError as error:
            raise Busy(f"no connection ({type(error).__name__})") from None
        except (ValueError, TypeError, AttributeError) as error:
            # What the SDK makes of a body that is not the API's: no JSON, or other fields.
            raise Busy(
                f"answered something else than Gemini does ({type(error).__name__})"
            ) from None
        return self._heard(answer, question)

    def _failure(self, error: Any) -> Exception:
        said = shown(str(error.message or ""), self._key)
        quoted = f" (it says: {said})" if said else ""
        status = int(error.code or 0)
        if status in _TRANSIENT or status >= 500:
            headers = getattr(error.response, "headers", None) or {}
            after = str(headers.get("retry-after", ""))
            return Busy(f"HTTP {status}{quoted}", float(after) if after.isdigit() else None)
        if status in (401, 403) or "API key" in said:
            return Unavailable(
                f"{self._place}: HTTP {status}, does not accept the key in "
                f"{self._spec.terms.key_variable}, or the credentials of this machine{quoted}"
            )
        if status == 404:
            return Unavailable(
                f"{self._place}: HTTP 404, no model {self._spec.preset!r} (model.preset){quoted}"
            )
        return Refused(f"HTTP {status}{quoted}")

    def _heard(self, answer: Any, question: Question) -> Heard:
        counted = answer.usage_metadata
        tokens_in = getattr(counted, "prompt_token_count", None)
        tokens_out = getattr(counted, "candidates_token_count", None) or 0
        tokens_out += getattr(counted, "thoughts_token_count", None) or 0
        if not answer.candidates:
            feedback = answer.prompt_feedback
            reason = getattr(getattr(feedback, "block_reason", None), "value", "no reason given")
            raise Refused(f"blocked ({shown(str(reason), self._key)})")
        candidate = answer.candidates[0]
        told = candidate.logprobs_result
        if told is None:
            ended = getattr(candidate.finish_reason, "value", "")
            if ended not in ("", "STOP", "MAX_TOKENS"):
                raise Refused(f"blocked ({shown(str(ended), self._key)})")
            raise Unavailable(
                f"{self._place}: answers without log-probabilities, which are what an ad is scored by; "
                "take a model that gives them and does not think (model.preset)"
            )
        steps = told.top_candidates or []
        likely = [
            (item.token or "", float(item.log_probability))
            for item in (steps[0].candidates if steps else None) or []
            if item.log_probability is not None
        ]
        if not likely:
            raise Refused("the model ends its answer before the first token")
        guess = -(-question.characters // CHARS_PER_TOKEN)
        return Heard(likely, int(tokens_in or guess), int(tokens_out))


def request_of(spec: LabelerSpec, question: Question) -> dict[str, Any]:
    """Return the arguments of `generate_content` for a question."""
    from google.genai import types

    roles = {"user": "user", "assistant": "model"}
    system = "\n\n".join(text for role, text in question.turns if role == "system")
    contents = [
        types.Content(role=roles[role], parts=[types.Part(text=text)])
        for role, text in question.turns
        if role != "system"
    ]
    config = types.GenerateContentConfig(
        system_instruction=system or None,
        temperature=0.0,
        candidate_count=1,
        max_output_tokens=1,
        response_logprobs=True,
        logprobs=spec.top_logprobs,
        thinking_config=types.ThinkingConfig(thinking_budget=0),
    )
    return {"contents": contents, "config": config}
