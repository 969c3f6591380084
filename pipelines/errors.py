"""The two ways a command fails, as exceptions whose text is written for the person at the keyboard.

What the text may not hold (what an address says of who asks), and what becomes of faults of the machine that
no command looks for by itself: a disk that is full, a package that is missing, a pipe in the place of a file.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator

HIDDEN = "***"
# An address in a text, and what follows it in a sentence; of the web also with a slash less, as paths are folded.
_ADDRESS = re.compile(
    r"(?<!\w)((?i:https?|wss?|s?ftp)(?=:)|[A-Za-z][\w+.-]*(?=:[/\\]{2}))"
    r":([/\\]{0,2})([^\s'\"`<>]*?)([:.,;)]*)(?=[\s'\"`<>]|$)"
)
# Storages whose paths may hold `?`, `#` and `@`, and BigQuery's places.
_FILES = frozenset({"gs", "s3", "hdfs", "azfs", "file", "bq"})
_AT = r"(?:@|%40|\uff20)"
# user:password@host without a scheme that is known, or with half of one.
_SIGNED_IN = re.compile(
    rf"(?<![\w/@])(?!(?:{'|'.join(sorted(_FILES))})://)[^\s@'\"`<>/]{{1,256}}(?::|%3A)[^\s@'\"`<>]{{1,256}}{_AT}(?=[\w\[])",
    re.IGNORECASE,
)
_PARAMETER = re.compile(
    r"([?&;#/][\w.-]*(?:token|key|secret|passw|pwd|sig|auth|credential)[\w.-]*=)[^\s&;#'\"`<>]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text in which no address says who asks: user, password, query and fragment are hidden.

    Paths of storages keep ``?`` and ``#``, which mean something in them, except where a parameter is called
    like a secret. Hiding is not undone by a form: half a scheme, a backslash, an encoded ``@``.
    """
    found = _ADDRESS.sub(_hidden, text)
    if "@" in found or "%40" in found or "\uff20" in found:
        found = _SIGNED_IN.sub(f"{HIDDEN}@", found)
    return _PARAMETER.sub(rf"\1{HIDDEN}", found)


def _hidden(found: re.Match[str]) -> str:
    scheme, slashes, rest, behind = found.groups()
    web = scheme.lower() not in _FILES
    end = re.search(r"[/\\?#]", rest)
    host, path = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    if web:
        path = re.sub(r"[?#].+", lambda match: match[0][0] + HIDDEN, path, count=1)
    # A password may hold a slash that nobody has escaped.
    signed = re.split(_AT, host + path if web else host, flags=re.IGNORECASE)
    if len(signed) > 1:
        return f"{scheme}:{slashes}{HIDDEN}@{signed[-1]}{'' if web else path}{behind}"
    if web and not re.fullmatch(r"\[.*\](:\d*)?|[^:]*(:\d*)?", host):
        # What stands in the place of a port is the beginning of a password, whose end may hold slashes.
        return f"{scheme}:{slashes}{HIDDEN}{behind}"
    return f"{scheme}:{slashes}{host}{path}{behind}"


class UsageError(ValueError):
    """The caller's mistake (arguments, task file, missing corpus): the command exits with 2.

    Attributes:
        typed: the message for who typed a command, which names its flags.
    """

    def __init__(self, message: str) -> None:
        message = without_secrets(message)
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
        message = without_secrets(message)
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


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what led to it, the last one first."""
    seen: BaseException | None = error
    met: set[int] = set()
    while seen is not None and id(seen) not in met:
        yield seen
        met.add(id(seen))
        seen = seen.__cause__ or seen.__context__


def keep_secrets(error: BaseException) -> None:
    """Let go of what led to an exception where that would show more of an address than its own text does."""
    if any(without_secrets(str(cause)) != str(cause) for cause in causes(error)):
        error.__cause__, error.__suppress_context__ = None, True
        error.__context__ = None


def no_file(path: str) -> str:
    """Return what a local path is that a file is expected at, where reading it might never end; else "".

    Folders, and what is not there, are left to whoever opens it.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    kinds = (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((what for is_one, what in kinds if is_one(mode)), "")


# What a disk says -> what that means.
_FAULTS = {
    errno.ENOSPC: "no room is left on the disk",
    errno.EDQUOT: "the disk's quota is used up",
    errno.EFBIG: "the disk takes no file of this size",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk does not answer as it should",
}


def disk_fault(error: BaseException, path: str = "", size: int = 0) -> RunFailed | None:
    """Return what to say of a disk that is full, read-only or broken, or None for any other error.

    Args:
        error: what was raised, by us or by a library.
        path: the file that was written; by default what the error names, or else where files may have been
            meant for.
        size: its bytes; 0 where they are not known.
    """
    for cause in causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        if number not in _FAULTS and os.strerror(errno.ENOSPC) in str(cause):
            # Libraries' own exceptions: TensorFlow's, HDF5's.
            number = errno.ENOSPC
        if number not in _FAULTS:
            continue
        place = path or str(getattr(cause, "filename", None) or tempfile.gettempdir())
        cure = {
            errno.EROFS: "mount it for writing, or name another folder",
            errno.EIO: "look at the disk",
        }.get(number or 0, f"{_room(place, size)}; free some")
        return RunFailed(
            f"{place}: {_FAULTS[number or 0]}: {cure}, then run the same command again: what is written whole is "
            "kept, and it goes on with that"
        )
    return None


def _room(path: str, size: int) -> str:
    """Return how much is needed and how much is there, as far as that can be told."""
    folder = os.path.abspath(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        free = f"{shutil.disk_usage(folder).free:,} bytes are free"
    except OSError:
        free = "how much is free cannot be told"
    return f"this file takes {size:,} bytes, {free}" if size else free


def missing_package(error: BaseException) -> UsageError | None:
    """Return what to install where a package of an extra is lacking, or None for any other error."""
    for seen in causes(error):
        name = getattr(seen, "name", None) or ""
        for extra, packages in _EXTRAS.items():
            wanted = [package for package in packages if f"{name}.".startswith(f"{package}.")]
            if isinstance(seen, ModuleNotFoundError) and wanted:
                return UsageError(
                    f"this needs {wanted[0]}, which this Python does not have: pip install 'ad-scout[{extra}]'"
                )
    return None


def find_run_failed(error: BaseException) -> str | None:
    """Return the message of the :class:`RunFailed` behind a runner's exception, or None."""
    # Beam rebuilds an exception from its own text with a note appended, so marks may be nested:
    # the innermost pair holds the message.
    mark = re.escape(RunFailed._OPEN)
    pattern = rf"{mark}((?:(?!{mark}).)*?){re.escape(RunFailed._CLOSE)}"
    for seen in causes(error):
        found = re.search(pattern, str(seen), flags=re.DOTALL)
        if found:
            return found.group(1)
    return None
