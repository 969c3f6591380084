"""Which addresses of the network are this machine's own."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

# A user before the host, also where an unescaped password has a slash in it.
SIGNED_IN = re.compile("@|%40|\uff20")


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, where nobody listens on the way."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def fault_of(url: str) -> str:
    """Return why an address is none that a service can be asked at, or ""."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        # Its text holds what stands in the place of the port, which may be a password.
        return "is no address: its host or port cannot be read"
    if SIGNED_IN.search(url):
        return "may hold no user or password"
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        return "is no address; write http://localhost:8080/v1"
    if parts.query or parts.fragment:
        return "is a page of the server; give the address under which its API lies"
    return ""
