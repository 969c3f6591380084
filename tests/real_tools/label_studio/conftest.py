"""A real Label Studio on this machine, from its first start to its stop."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.real_tools.guard import GUARD

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS, CALL_SECONDS = 300, 60
ADMIN = "admin@example.org"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with an account.

    Attributes:
        id: number of the user.
        email: who they are.
        token: legacy token.
        call: does one call of the API as this user: method, path, and what ``requests`` takes.
    """

    id: int
    email: str
    token: str
    call: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Studio:
    """A running server.

    Attributes:
        url: its address.
        admin: its first user, who owns the organization.
    """

    url: str
    admin: User

    def join(self, name: str) -> User:
        """Return a new member of the organization, who followed an invitation as a person does."""
        invitation = self.url + self.admin.call("GET", "/api/invite")["invite_url"]
        browser = session()
        form = browser.get(invitation, timeout=CALL_SECONDS).text
        hidden = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
        assert hidden, "the form to sign up has changed"
        email = f"{name}@example.org"
        answer = browser.post(
            invitation,
            data={
                "csrfmiddlewaretoken": hidden[1],
                "email": email,
                "password": secrets.token_hex(8),
                "allow_newsletters": "false",
            },
            headers={"Referer": invitation},
            timeout=CALL_SECONDS,
        )
        answer.raise_for_status()
        token = browser.get(f"{self.url}/api/current-user/token", timeout=CALL_SECONDS).json()
        return user_of(self.url, token["token"])


def session() -> requests.Session:
    """Return a session that goes to this machine directly, whatever proxy the environment names."""
    opened = requests.Session()
    opened.trust_env = False
    return opened


def user_of(url: str, token: str) -> User:
    """Return the user with a legacy token."""
    opened = session()
    opened.headers["Authorization"] = f"Token {token}"

    def call(method: str, path: str, **arguments: Any) -> Any:
        answer = opened.request(method, url + path, timeout=CALL_SECONDS, **arguments)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    found = call("GET", "/api/current-user/whoami")
    return User(found["id"], found["email"], token, call)


def program() -> Path:
    """Return the server's program."""
    named = os.environ.get("SCOUT_LABEL_STUDIO")
    path = Path(named) if named else ROOT / ".venv-tools" / "bin" / "label-studio"
    if not path.is_file():
        pytest.fail(
            f"{path}: no such program; run `make test-tools`, or name it in SCOUT_LABEL_STUDIO"
        )
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="session")
def label_studio(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Studio]:
    """A server with an empty database in a folder of its own; its log is shown when it fails."""
    folder = tmp_path_factory.mktemp("label-studio")
    port, token = free_port(), secrets.token_hex(20)
    url, log = f"http://127.0.0.1:{port}", folder / "server.log"
    # Nothing of this shell: the server also listens to variables like USERNAME and PORT.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "LABEL_STUDIO_USERNAME": ADMIN,
        "LABEL_STUDIO_PASSWORD": secrets.token_hex(16),
        "LABEL_STUDIO_USER_TOKEN": token,
        # Counts only when the organization is made, which is at the first start.
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
    }
    start = [program(), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", port]
    with log.open("wb") as sink:
        # In a session of its own, so that Ctrl-C reaches the tests alone, which then stop it.
        guard = subprocess.Popen(
            [sys.executable, "-c", GUARD, *map(str, start)],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        await_start(url, guard, log)
        yield Studio(url, user_of(url, token))
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(timeout=60)
        if request.session.testsfailed:
            print(f"the end of Label Studio's log:\n{end_of(log)}")


def await_start(url: str, guard: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers; the first start makes its database."""
    end, opened = time.monotonic() + START_SECONDS, session()
    while time.monotonic() < end and guard.poll() is None:
        try:
            if opened.get(f"{url}/health", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    state = "has ended" if guard.poll() is not None else f"does not answer after {START_SECONDS} s"
    pytest.fail(f"Label Studio {state}")


def end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:])
