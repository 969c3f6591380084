"""Cloud Storage that fails on demand: a proxy before its emulator.

As the real one does, and the emulator does not, it gives no bytes of a generation that is gone, and takes a
write that asks for the generation it replaces only where that is the one.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlparse

import pytest
from apache_beam.internal.gcp import auth
from gcp_storage_emulator.server import create_server
from google.cloud import storage as gcs

_SAID = {
    401: "Invalid Credentials",
    403: "scout@project.iam.gserviceaccount.com does not have storage.objects access to the bucket.",
    404: "The specified bucket does not exist.",
    412: "At least one of the pre-conditions you specified did not hold.",
    503: "Backend Error",
}
# Google's client looks up where a new bucket lies, in a thread of its own, at a time of its own.
_BACKGROUND = r"GET /storage/v1/b/\w+\?projection=noAcl"
LIST, READ, WRITE = (
    r"GET /storage/v1/b/\w+/o\?",
    r"GET /download/",
    r"(POST|PUT) /(resumable/)?upload/",
)


@dataclass
class Fault:
    """What fails.

    Attributes:
        pattern: of ``METHOD path?query``.
        status: of the answer; 0 leaves it to the emulator.
        times: how often; -1 for good.
        passed: requests that it lets through first.
        act: called at each of them, before the answer.
    """

    pattern: str
    status: int = 503
    times: int = -1
    passed: int = 0
    act: Callable[[], object] | None = None


class FaultyStorage:
    """The proxy's state: what fails from now on, and what was asked."""

    def __init__(self, emulator: int) -> None:
        self.emulator = emulator
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self._lock, self._conditional = threading.Lock(), threading.Lock()

    def failing(self, line: str) -> int:
        """Return with which status a request fails, or 0."""
        if re.match(_BACKGROUND, line):
            return 0
        with self._lock:
            self.asked.append(line)
            hit = next((f for f in self.faults if re.match(f.pattern, line)), None)
            if hit is None:
                return 0
            if hit.passed:
                hit.passed -= 1
                return 0
            hit.times -= 1
            if not hit.times:
                self.faults.remove(hit)
        if hit.act:
            hit.act()
        return hit.status

    def forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        """Return the emulator's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.emulator, timeout=30)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, list(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def serve(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        """Return the answer: the emulator's, unless a precondition does not hold."""
        wanted = parse_qs(urlparse(path).query).get("ifGenerationMatch")
        if not wanted:
            return self.forward(method, path, body, headers)
        with self._conditional:
            place = urlparse(path).path.removeprefix("/upload")
            if method == "POST":
                # The name of what is uploaded is in the first of the parts.
                [name] = re.findall(rb'"name": ?"([^"]+)"', body)[:1]
                place += f"/{quote(name.decode(), safe='')}"
            status, _, data = self.forward("GET", place, b"", {})
            found = json.loads(data)["generation"] if status == 200 else "0"
            if found != wanted[0]:
                return 412, [("Content-Type", "application/json")], json.dumps(_error(412)).encode()
            return self.forward(method, path, body, headers)

    def is_gone(self, path: str) -> bool:
        """Tell whether a download asks for a generation that is there no more."""
        parsed = urlparse(path)
        wanted = parse_qs(parsed.query).get("generation")
        if not parsed.path.startswith("/download/") or not wanted:
            return False
        _, _, data = self.forward("GET", parsed.path.removeprefix("/download"), b"", {})
        return json.loads(data or b"{}").get("generation") != wanted[0]


def _error(status: int) -> dict[str, Any]:
    return {"error": {"code": status, "message": _SAID[status], "errors": [{"reason": "told"}]}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, faulty: FaultyStorage, *args: Any) -> None:
        self._faulty = faulty
        super().__init__(*args)

    def _serve(self) -> None:
        body = self._body()
        status = self._faulty.failing(f"{self.command} {self.path}")
        if not status and self._faulty.is_gone(self.path):
            status = 404
        if status:
            self._send(status, [("Content-Type", "application/json")], _error(status))
            return
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("transfer-encoding", "content-length", "connection")
        }
        status, sent, data = self._faulty.serve(self.command, self.path, body, headers)
        if status == 404 and not data.startswith(b"{"):
            # The emulator has no words for it.
            sent, data = [("Content-Type", "application/json")], json.dumps(_error(404)).encode()
        self._send(status, sent, data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, headers: list[tuple[str, str]], body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle(self) -> None:
        # Whoever has what it wanted may go before all of it was sent.
        with contextlib.suppress(ConnectionError):
            super().handle()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(bucket: str) -> Iterator[FaultyStorage]:
    """Serve an emulator with a bucket behind a proxy, and lead Google's clients there."""
    emulator = create_server("127.0.0.1", port := _free_port(), in_memory=True)
    emulator.start()
    faulty = FaultyStorage(port)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, faulty))
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{proxy.server_address[1]}")
            # Without credentials Google's library asks a metadata server for 23 seconds first.
            patch.setattr(auth._Credentials, "_credentials_init", True)
            patch.setattr(auth._Credentials, "_credentials", None)
            gcs.Client.create_anonymous_client().create_bucket(bucket)
            yield faulty
    finally:
        proxy.shutdown()
        proxy.server_close()
        emulator.stop()
