"""Where a token comes from and where it may go: the same rules for every tool's server."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from models.address import SIGNED_IN, is_loopback
from pipelines.console.visible import printable
from pipelines.errors import UsageError, without_secrets


@dataclass(frozen=True, slots=True)
class Access:
    """How one tool's server is entered.

    Attributes:
        key: environment variable that holds the token.
        plain_http: environment variable; ``1`` lets the token cross a network in plain text.
        token: what the tool calls it.
        where: where the tool shows it.
        manager: who may do all that is needed here.
        pages: first parts of the paths of the server's pages, as people copy them from a browser.
    """

    key: str
    plain_http: str
    token: str
    where: str
    manager: str
    pages: tuple[str, ...]

    def read_token(self, environment: Mapping[str, str]) -> str:
        """Return the token.

        Raises:
            UsageError: there is none, or it cannot be one.
        """
        token = environment.get(self.key, "").strip()
        if not token:
            raise UsageError(
                f"{self.key}: is not set; put an {self.token} into this environment variable "
                f"({self.where})"
            )
        # What a header cannot hold would be quoted in the HTTP library's own message.
        if not re.fullmatch(r"[!-~]+", token):
            raise UsageError(
                f"{self.key}: holds blanks or other signs that no {self.token} has ({self.where})"
            )
        return token

    def check(self, url: str, environment: Mapping[str, str]) -> tuple[str, str, bool]:
        """Return address without a slash at its end, host, and whether that is this machine.

        Raises:
            UsageError: it is no address, or the token must not be sent there.
        """
        # What is beside an address need not be seen to be part of it.
        odd = re.search(r"[\s'\"`<>\\]", url.strip())
        shown = "the address" if odd else printable(without_secrets(url), 100)
        try:
            parts = urllib.parse.urlsplit(url.strip())
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            # Neither it nor the error is shown: what stands in the place of the port may be a password.
            raise UsageError(
                "this is no address of a server: its host or port cannot be read; write "
                "https://labels.example.org"
            ) from None
        if SIGNED_IN.search(url):
            # Not shown: it may hold a password.
            raise UsageError(
                f"the address may hold no user or password; the {self.token} is in {self.key}"
            )
        if parts.scheme not in ("http", "https") or not host:
            raise UsageError(
                f"{shown}: is no address of a server; write https://labels.example.org"
            )
        if not re.fullmatch(r"[!-~]+", url.strip()):
            raise UsageError(f"{shown}: an address holds neither blanks nor special signs")
        page = re.search(rf"/({'|'.join(self.pages)})(/|$)", parts.path)
        if parts.query or parts.fragment or page:
            raise UsageError(f"{shown}: is a page of the server; give the server's own address")
        loopback = is_loopback(host)
        if parts.scheme == "http" and not loopback and environment.get(self.plain_http) != "1":
            raise UsageError(
                f"{shown}: the {self.token} would cross the network in plain text; use https://, or, "
                f"where nobody can listen, set {self.plain_http}=1"
            )
        return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"), host, loopback
