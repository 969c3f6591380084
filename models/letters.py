"""Vectors of texts by their letters alone, for ads of whose words an encoder's vocabulary lacks most.

An encoder gives all such ads nearly one vector, as if they were copies of one another. By the runs of
letters that they have in common they are told apart, and copies that differ in a letter stay near.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

# Longer words are unknown to a WordPiece vocabulary whatever is in it.
_MAX_WORD_CHARS = 100
# So much of a text tells it from others.
_MAX_CHARS = 4000


def vectors(texts: Sequence[str], dim: int) -> np.ndarray:
    """Return float32 (n, dim) unit vectors of hashed runs of one to three letters."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3), n_features=dim)
    found = hashed.transform([f"{text[:_MAX_CHARS]} " for text in texts])
    return np.asarray(found.toarray(), dtype=np.float32)


def is_plain(text: str) -> bool:
    """Tell whether any encoder reads its words, without asking one: ASCII, and none very long."""
    return text.isascii() and len(max(text.split(), key=len, default="")) <= _MAX_WORD_CHARS


def made(texts: Sequence[str], stored: np.ndarray) -> np.ndarray:
    """Tell which stored vectors were made here.

    Args:
        texts: n texts.
        stored: float16 (n, dim).

    Returns:
        bool (n,).
    """
    found = np.zeros(len(texts), dtype=bool)
    asked = [place for place, text in enumerate(texts) if not is_plain(text)]
    if asked and stored.shape[1]:
        own = vectors([texts[place] for place in asked], stored.shape[1]).astype(np.float16)
        found[asked] = (own == stored[asked]).all(axis=1)
    return found


def script_of(text: str) -> str:
    """Return the script of most letters of a text, such as ``Thai``.

    Of Latin letters ``long words``, which alone are unread in it, and ``symbols`` without any.
    """
    letters = (char for char in text[:_MAX_CHARS] if unicodedata.category(char)[0] == "L")
    scripts = Counter(unicodedata.name(char, "unknown").split()[0] for char in letters)
    if not scripts:
        return "symbols"
    script = min(scripts, key=lambda name: (-scripts[name], name)).capitalize()
    return "long words" if script == "Latin" else script
