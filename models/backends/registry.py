"""Backends by the name that a task file gives in `model.backend`; imported when asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager

from models.backends.base import Backend
from models.registry import Registry

# A line each: the module and the class in it.
_BACKENDS: Registry[type[Backend]] = Registry(
    "backend",
    {
        "keras": "models.backends.keras_llm:KerasLLM",
        "openvino": "models.backends.openvino_llm:OpenVINOLLM",
        "openai": "models.backends.openai_server:OpenAIServer",
        "gemini": "models.backends.gemini:Gemini",
        "vllm": "models.backends.vllm_batch:VLLMBatch",
        "fake": "models.backends.fake:Fake",
    },
)
# The preset "fake" means the backend of that name, any other one Keras.
AUTO, FAKE = "auto", "fake"


def names() -> tuple[str, ...]:
    """Return what `find` takes."""
    return (AUTO, *_BACKENDS)


def find(name: str, preset: str = "") -> type[Backend]:
    """Return a backend's class.

    Args:
        name: one of `names()`.
        preset: decides what "auto" means.

    Raises:
        ValueError: no such backend.
    """
    if name == AUTO:
        name = FAKE if preset == FAKE else "keras"
    if name not in _BACKENDS:
        raise ValueError(f"no backend {name!r}; use one of {', '.join(names())}")
    return _BACKENDS.get(name)


def registered(name: str, backend: type[Backend]) -> AbstractContextManager[None]:
    """Add a backend of another package, or of a test, while the context lasts.

    Raises:
        ValueError: the name is taken.
    """
    if name == AUTO:
        raise ValueError(
            f"{AUTO!r} is no backend's name: it stands for the one that the preset needs"
        )
    return _BACKENDS.registered(name, backend)
