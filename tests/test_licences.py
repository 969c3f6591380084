"""What is pinned: licences that may stand beside Apache-2.0, hashes, and build tools without known holes."""

from __future__ import annotations

import re
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = ("requirements.txt", "requirements-dev.txt")
LOCKS = (*INSTALLED, "requirements-tools.txt")
# Licences of code that may be used by, and shipped beside, code under Apache-2.0: permissive ones, and
# MPL-2.0, which binds its own files alone. https://www.apache.org/legal/resolved.html
_FREE = re.compile(
    r"\b(Apache|MIT|BSD|0BSD|ISC|PSF|Python Software Foundation|CNRI-Python|Zlib|CC0|MPL|Mozilla Public License 2)"
)
_BINDING = re.compile(r"GPL|General Public|SSPL|Affero|Commons Clause|Proprietary", re.IGNORECASE)
# Packages whose metadata name no licence; their licence files do.
_TEXTS = {
    "namex": "Apache License",
    "axe-playwright-python": "MIT License",
}


def pinned(*names: str) -> dict[str, str]:
    """Return name -> version of all that some locks pin."""
    found = {}
    for name in names:
        text = (ROOT / name).read_text(encoding="utf-8")
        found.update(re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s\\;]+)", text, re.MULTILINE))
    return found


def licences(package: str, about: Message) -> list[str]:
    """Return the names of the licences of a package, of which one is enough where several are offered."""
    expression = about.get("License-Expression") or ""
    if expression:
        return re.split(r"\s+OR\s+", expression.strip("()"))
    kinds = [c for c in about.get_all("Classifier", []) if c.startswith("License ::")]
    named = [c.rpartition(" :: ")[2] for c in kinds if not c.endswith("DFSG approved")]
    text = (about.get("License") or "").strip()
    if not named and text and "\n" not in text:
        named = re.split(r"\s+OR\s+", text)
    return named


def is_free(name: str) -> bool:
    """Tell whether a licence may stand beside Apache-2.0; of "A AND B" both must."""
    return not _BINDING.search(name) and all(map(_FREE.search, re.split(r"\s+AND\s+", name)))


@pytest.mark.parametrize("package", sorted(pinned(*INSTALLED)))
def test_the_licence_of_what_is_pinned(package: str) -> None:
    distribution = metadata.distribution(package)
    names = licences(package, distribution.metadata)
    if not names:
        texts = [
            file.read_text()
            for file in distribution.files or ()
            if re.match(r"(LICEN[CS]E|COPYING)", file.name, re.IGNORECASE)
        ]
        assert any(_TEXTS.get(package, "?") in text[:400] for text in texts), (
            f"{package} names no licence: read its LICENSE, and say here what it is"
        )
        return
    assert any(map(is_free, names)), f"{package}: {names} may not stand beside Apache-2.0"


@pytest.mark.parametrize(
    ("name", "free"),
    [
        ("GPL-3.0-or-later", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", False),
        ("AGPL-3.0-only", False),
        ("MIT AND GPL-2.0-only", False),
        ("Other/Proprietary License", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
    ],
)
def test_which_licences_may_stand_beside_ours(name: str, free: bool) -> None:
    assert is_free(name) == free


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_has_a_hash_for_everything(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    assert len(lines) == len(pinned(lock)) > 10
    for line in lines:
        assert re.fullmatch(r"\S+==\S+(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line[:80]


def test_the_locks_are_installed_by_their_hashes() -> None:
    # llama.cpp's server is compiled on the machine, from a source that no lock names.
    installs = [
        line
        for line in re.findall(r"pip install .*-r \S+.*", (ROOT / "Makefile").read_text("utf-8"))
        if "requirements-llama.txt" not in line
    ]
    assert len(installs) == 2 and all("--require-hashes" in line for line in installs)


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-tools.txt"])
def test_no_build_tool_has_known_holes(lock: str) -> None:
    found = pinned(lock)
    # CVE-2025-47273, and CVE-2022-40898.
    assert Version(found["setuptools"]) >= Version("78.1.1")
    assert Version(found["wheel"]) >= Version("0.38.1")
