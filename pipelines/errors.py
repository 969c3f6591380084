"""The two ways a command fails, as exceptions whose text is written for the person at the keyboard."""

from __future__ import annotations

import re


class UsageError(ValueError):
    """The caller's mistake (arguments, task file, missing corpus): the command exits with 2.

    Attributes:
        typed: the message for who typed a command, which names its flags.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.typed = message

    def for_callers(self) -> None:
        """Name arguments in the place of flags, for who called a function of the API."""
        # What stands in backticks is typed as it is.
        pattern = r"`[^`]*`|(?<![\w/.-])--([a-z]\w*)"
        self.args = (re.sub(pattern, lambda found: found[1] or found[0], self.typed),)


class RunFailed(RuntimeError):
    """The run could not produce what it promised: the command exits with 1.

    May be raised on a worker. Runners wrap a worker's exception in text of their own, so the
    message travels between two marks that :func:`find_run_failed` looks for.
    """

    _OPEN, _CLOSE = "[run failed] ", " [end]"

    def __init__(self, message: str) -> None:
        super().__init__(f"{self._OPEN}{message}{self._CLOSE}")
        self.message = message

    def for_callers(self) -> None:
        """Leave the marks out: no runner carries the message any more."""
        self.args = (self.message,)

    def __reduce__(self) -> tuple[type[RunFailed], tuple[str]]:
        return type(self), (self.message,)


# Packages that an extra of this distribution brings, as they are imported.
_EXTRAS = {
    "llm": (
        "tensorflow",
        "tensorflow_text",
        "keras",
        "keras_hub",
        "tokenizers",
        "safetensors",
        "gguf",
        "sentencepiece",
    ),
    "scann": ("scann",),
    "gemini": ("google.genai",),
    "gcp": ("google",),
    "consensus": ("crowdkit", "pandas"),
    "argilla": ("argilla",),
    "vllm": ("vllm",),
    "openvino": ("openvino", "ml_dtypes"),
    "xlsx": ("openpyxl",),
}


def missing_package(error: BaseException) -> UsageError | None:
    """Return what to install where a package of an extra is lacking, or None for any other error."""
    seen: BaseException | None = error
    while seen is not None:
        name = getattr(seen, "name", None) or ""
        for extra, packages in _EXTRAS.items():
            wanted = [package for package in packages if f"{name}.".startswith(f"{package}.")]
            if isinstance(seen, ModuleNotFoundError) and wanted:
                return UsageError(
                    f"this needs {wanted[0]}, which this Python does not have: pip install 'ad-scout[{extra}]'"
                )
        seen = seen.__cause__ or seen.__context__
    return None


def find_run_failed(error: BaseException) -> str | None:
    """Return the message of the :class:`RunFailed` behind a runner's exception, or None."""
    # Beam rebuilds an exception from its own text with a note appended, so marks may be nested:
    # the innermost pair holds the message.
    mark = re.escape(RunFailed._OPEN)
    pattern = rf"{mark}((?:(?!{mark}).)*?){re.escape(RunFailed._CLOSE)}"
    seen: BaseException | None = error
    while seen is not None:
        found = re.search(pattern, str(seen), flags=re.DOTALL)
        if found:
            return found.group(1)
        seen = seen.__cause__ or seen.__context__
    return None
