"""The ad as data: one line of text in which nothing is markup, whatever its author wrote.

Pure Python. `models.graph.ad_text` reads its tables and its pattern off this module.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.prompting import RenderedPrompt

# No token of any vocabulary seen spans more characters in real text; a longer ad is cut before
# it costs time in the tokenizer.
MAX_CHARS_PER_TOKEN = 32

# Look-alikes of the characters that markers are made of, beyond what NFKC folds.
_LOOKALIKES = str.maketrans("‹›〈〉⟨⟩❮❯❘∣│ǀ❲❳⟦⟧", "<><><><>||||[][]")

# What chat templates are made of, on text already folded to lower case. Spaces are allowed where
# a reader, human or not, would still take the thing for a marker.
_MARKERS = re.compile(
    r"<\s*\|"  # any <|name|>, opened or nested
    r"|\|\s*>"
    r"|<\s*/?\s*(?:start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token)\s*>"
    r"|<\s*/?\s*(?:s|bos|eos|pad|unk|mask|sys|inst|think|system|user|assistant)\s*>"
    r"|<\s*<\s*/?\s*sys\s*>\s*>"
    r"|\[\s*/?\s*(?:inst|sys|system_prompt|available_tools|tool_calls|tool_results)\s*\]"
    r"|\[\s*(?:cls|sep|pad|mask|unk)\s*\]"
    r"|#{2,}\s*(?:instruction|response|input|system|user|assistant)s?\s*:"
)
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9_-]*>")
# What the special tokens of vocabularies that are not at hand may look like, folded to lower case.
_ANY_TAG = r"<\s*/?\s*[a-z_][a-z0-9_:.-]*\s*/?\s*>"
MAX_PASSES = 8
QUOTES = {'"': "'", "`": "'", "“": "'", "”": "'", "«": "'", "»": "'"}


def prepare_ad(
    text: str,
    prompt: RenderedPrompt | None = None,
    markers: Iterable[str] = (),
    any_tag: bool = False,
) -> str:
    """Makes an ad's text pure data: one line, without markers of any chat format.

    White space and control characters become single spaces; chat markers go, also when written
    with full-width or look-alike characters, with invisible characters inside, or nested so that
    removing one would form another. What delimits the ad in this prompt (a quote, a tag) cannot
    be closed from inside. Doing it twice changes nothing.

    Args:
        text: The ad as it came.
        prompt: The prompt around it, whose delimiters are protected.
        markers: More strings that must not appear, such as the tokenizer's special tokens.
        any_tag: Whether every tag goes (`<name>`): for a model whose special tokens are not known.

    Returns:
        The ad's text, possibly empty.
    """
    extra, quotes = delimiters(prompt.prefix, prompt.suffix) if prompt else ((), "")
    pattern = marker_pattern((*extra, *(m for m in markers if len(m) > 1)), any_tag)
    # A lone surrogate cannot be encoded as UTF-8, and one bad ad must not stop a batch.
    text = text.encode("utf-8", "replace").decode("utf-8")
    for quote in quotes:
        text = text.replace(quote, QUOTES[quote])
    text = _fold_space(text)
    passes = 0
    while True:
        cut = _cut_markers(text, pattern)
        if cut == text:
            return text
        text, passes = cut, passes + 1
        if passes == MAX_PASSES:
            # Markers nested this deep are an attack on our time: each pass undoes one level.
            text = _words_only(text)


def is_wordless(text: str) -> bool:
    """Tell whether nothing visible of an ad is left once it is prepared: no model can read it.

    The replacement character U+FFFD stands for what could not be read; BERT's tokenizer drops it.
    """
    return not any(
        unicodedata.category(char)[0] in "LNPS" and char != "\ufffd" and not _invisible(char)
        for char in prepare_ad(text)
    )


def _words_only(text: str) -> str:
    return _fold_space("".join(c if c.isalnum() else " " for c in text))


def _fold_space(text: str) -> str:
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(text.split())


@functools.lru_cache(maxsize=64)
def marker_pattern(extra: tuple[str, ...], any_tag: bool = False) -> re.Pattern[str]:
    """Returns what finds chat markers, more strings, and perhaps every tag, in a text's `shadow`."""
    folded = {shadow(marker)[0] for marker in extra}
    parts = sorted((re.escape(m) for m in folded if len(m) > 1), key=lambda m: (-len(m), m))
    tags = [_ANY_TAG] if any_tag else []
    return re.compile("|".join([*parts, *tags, _MARKERS.pattern]))


@functools.lru_cache(maxsize=64)
def delimiters(prefix: str, suffix: str) -> tuple[tuple[str, ...], str]:
    """Finds what closes the ad's place: tags, fences and quotes that touch it or are in reach."""
    opening = re.search(r"\S*\Z", prefix)
    closing = re.match(r"\S*", suffix)
    touching = [opening.group() if opening else "", closing.group() if closing else ""]
    # A tag anywhere in the prompt is structure, wherever the ad sits.
    found = _TAG.findall(prefix) + _TAG.findall(suffix)
    quotes = "".join(q for q in QUOTES if any(q in text for text in touching))
    for text in touching:
        for run in re.findall(r"[^\w\s]{2,}", text):
            if not set(run) & set(quotes):
                found.append(run)
    return tuple(dict.fromkeys(found)), quotes


def _invisible(char: str) -> bool:
    return (
        unicodedata.category(char) == "Cf"
        or "\ufe00" <= char <= "\ufe0f"
        or "\U000e0100" <= char <= "\U000e01ef"
        or char in "\u034f\u115f\u1160\u3164\uffa0"
    )


def shadow(text: str) -> tuple[str, list[int]]:
    """Folds a text to what a marker would look like, with each character's place in the text."""
    out: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text):
        if char.isascii():
            folded = char.lower()
        elif _invisible(char):
            continue
        else:
            folded = unicodedata.normalize("NFKC", char).translate(_LOOKALIKES).casefold()
        out.append(folded)
        places.extend([place] * len(folded))
    return "".join(out), places


def _cut_markers(text: str, pattern: re.Pattern[str]) -> str:
    seen, places = shadow(text)
    parts: list[str] = []
    end = 0
    for match in pattern.finditer(seen):
        start = max(end, places[match.start()])
        parts.append(text[end:start])
        end = max(end, places[match.end() - 1] + 1)
    if not end:
        return text
    # The space keeps two halves from forming a new marker or word; the caller looks again anyhow.
    return _fold_space(" ".join([*parts, text[end:]]))
