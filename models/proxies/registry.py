"""Proxies by the name that a task file gives in `cascade.by`; imported when asked for."""

from __future__ import annotations

from models.backends.base import Labeler
from models.proxies.base import Proxy
from models.registry import Registry

# A line each: the module and the class in it.
_PROXIES: Registry[type[Proxy]] = Registry(
    "proxy",
    {
        "encoder": "models.proxies.encoder:EncoderProxy",
        "layers": "models.proxies.layers:LayersProxy",
        "words": "models.proxies.words:WordsProxy",
    },
)


def names() -> tuple[str, ...]:
    """Return what `create` takes."""
    return tuple(_PROXIES)


def create(name: str, labeler: Labeler) -> Proxy:
    """Return a proxy for a labeler; the name is one of `names()`."""
    return _PROXIES.get(name)(labeler)
