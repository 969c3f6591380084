"""Calls of a Label Studio server: what is sent, what is tried again, and what its answers mean.

The token is what can do harm here, so it comes from the environment, travels in one header over TLS or
to this very machine, follows no redirect, and is in no message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from pipelines.console.visible import printable
from pipelines.errors import RunFailed
from pipelines.tools.label_studio.format import ACCESS
from pipelines.tools.server import refused, told, unreached

_MAX_SAID_CHARS = 300
_CONNECT_SECONDS = 10.0
_MAX_WAIT_SECONDS = 60
NO_LABEL_STUDIO = (
    "there is no Label Studio at this address; give the one that its front page has in the browser"
)
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class Refusal(RunFailed):
    """The server says no, with an HTTP status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """A Label Studio server, asked as one user.

    Args:
        url: its address, with a path where it does not stand at the root.
        token: a legacy token, or a personal access token (a JWT).
        timeout: seconds without any answer after which a call has failed.
        retries: how often a call is tried again that failed for a passing reason.
        backoff: seconds before the second new try; doubles with each.
        environment: may allow plain http.

    Raises:
        UsageError: no address of a server, or one that the token must not be sent to.
    """

    def __init__(
        self,
        url: str,
        token: str,
        timeout: float = 120.0,
        retries: int = 5,
        backoff: float = 0.5,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.url, host, loopback = ACCESS.check(url, environment)
        self._timeout = timeout
        self._auth = _Auth(token)
        # A proxy of this machine's environment would be sent what is for this machine.
        self._proxies = {"no_proxy": host} if loopback else {}
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "ad-scout"
        # A session's cookie beside a token makes Label Studio ask for a CSRF token as well.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        retry = _Retry(
            total=retries,
            # A wrong port should not take long, nor a hanging server several times the time.
            connect=min(1, retries),
            read=min(1, retries),
            backoff_factor=backoff,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("GET",),
            redirect=0,
            raise_on_status=False,
            raise_on_redirect=False,
            retry_after_max=_MAX_WAIT_SECONDS,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def check(self) -> str:
        """Return the e-mail address of the token's user; find out whether the server answers.

        Raises:
            RunFailed: it does not, or knows no such token.
        """
        return str(self.object("GET", "/api/current-user/whoami").get("email", ""))

    def object(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Return the JSON object that a call answers with; see :meth:`call`."""
        answer = self.call(method, path, **arguments)
        if not isinstance(answer, dict):
            raise self._odd(method, path, f"a JSON {type(answer).__name__}, expected an object")
        return answer

    def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> Any:
        """Return the JSON value that a call answers with; None where it answers without a body.

        Raises:
            RunFailed: no answer, a refusal, or no JSON.
        """
        if self._auth.is_personal and not self._auth.header:
            self._refresh()
        response = self._send(method, path, params, body)
        if response.status_code == 401 and self._auth.is_personal:
            # An access token lives for five minutes. What was refused was not done: ask again.
            self._refresh()
            response = self._send(method, path, params, body)
        return self._value(method, path, response)

    def _refresh(self) -> None:
        self._auth.header = ""
        path = "/api/token/refresh/"
        answer = self._value("POST", path, self._send("POST", path, None, self._auth.refresh()))
        access = answer.get("access") if isinstance(answer, dict) else None
        if not isinstance(access, str) or not re.fullmatch(r"[!-~]+", access):
            raise self._odd("POST", path, "no access token")
        self._auth.grant(access)

    def _send(
        self, method: str, path: str, params: Mapping[str, Any] | None, body: Any
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                self.url + path,
                params=params,
                json=body,
                auth=self._auth,
                proxies=self._proxies,
                timeout=(_CONNECT_SECONDS, self._timeout),
                allow_redirects=False,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            why = unreached(error, _CONNECT_SECONDS, self._timeout, "REQUESTS_CA_BUNDLE")
            # Its text holds the request's; ours says what to do. No cause: it would be printed.
            raise RunFailed(self._safe(f"{self.url}: {why}")) from None

    def _value(self, method: str, path: str, response: requests.Response) -> Any:
        status = response.status_code
        if 200 <= status < 300 and not response.content:
            return None
        kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
        value = None
        if kind == "application/json":
            try:
                value = response.json()
            except (ValueError, RecursionError):
                raise self._odd(method, path, "broken JSON") from None
        if 200 <= status < 300:
            if kind != "application/json":
                raise self._odd(
                    method,
                    path,
                    f"{printable(kind, 40) or 'something'} instead of JSON, as login pages and proxies "
                    f"do; {NO_LABEL_STUDIO}",
                )
            return value
        sentence = self._refusal(status, path, value, response)
        raise Refusal(self._safe(f"{self.url}{path}: {sentence}"), status)

    def _refusal(self, status: int, path: str, value: Any, response: requests.Response) -> str:
        """Return what a refusal means and what to do about it."""
        said = self.shown(told(value))
        quoted = f" (it says: {said})" if said else ""
        if status == 401 and "legacy" in said.lower():
            return (
                f"legacy tokens are switched off for this organization{quoted}; create a personal "
                f"access token under Account & Settings and put it into {ACCESS.key}, or have the "
                "organization's owner switch legacy tokens on (Organization, Access Token Settings)"
            )
        if status == 404 and path == "/api/current-user/whoami":
            return f"not found: {NO_LABEL_STUDIO}"
        if status == 404:
            return f"not found{quoted}; was the project deleted meanwhile? Run the command again"
        target = self.shown(response.headers.get("Location", ""))
        return refused(status, said, ACCESS, target)

    def _odd(self, method: str, path: str, what: str) -> RunFailed:
        return RunFailed(self._safe(f"{self.url}{path}: answered {method} with {what}"))

    def shown(self, text: str) -> str:
        """Return what the server says as a message may hold it: one line, short, without the token."""
        # Hidden first: what is cut off may be the half by which a token would be recognized.
        return printable(self._safe(text), _MAX_SAID_CHARS)

    def _safe(self, text: str) -> str:
        for secret in self._auth.secrets:
            text = text.replace(secret, "***")
        return text


class _Auth(AuthBase):
    """Sets the header itself: otherwise ``requests`` would prefer a password from ``~/.netrc``."""

    def __init__(self, token: str) -> None:
        self._token: Final = token
        self.is_personal = bool(_JWT.fullmatch(token))
        self.header = "" if self.is_personal else f"Token {token}"
        self.secrets = [token]

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.header:
            request.headers["Authorization"] = self.header
        return request

    def refresh(self) -> dict[str, str]:
        """Return what asks for a new access token."""
        return {"refresh": self._token}

    def grant(self, access: str) -> None:
        """Use a new access token from now on."""
        self.header = f"Bearer {access}"
        self.secrets.append(access)


class _Retry(urllib3.Retry):
    """Retries reading calls; of the others only what the server says it did not even begin."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        if status_code == 429:
            return bool(self.total)
        return super().is_retry(method, status_code, has_retry_after)
