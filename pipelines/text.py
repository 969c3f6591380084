"""What makes two ads the same text: normalisation, content keys and content ids."""

from __future__ import annotations

import hashlib
import unicodedata

KEY_CHARS = 32
_INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp", "Cn", "Co"}


def normalize_text(text: str) -> str:
    """Fold a text so that copies of an ad compare equal.

    Unicode NFKC, case folding, then runs of white space become one space. NFKC is applied
    again after case folding because folding can undo it (Unicode Standard, section 3.13, D146).
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def is_blank(text: str) -> bool:
    """Tell whether nothing visible is left (white space, control and zero-width characters)."""
    return all(unicodedata.category(char) in _INVISIBLE for char in text)


def script_of(char: str) -> str:
    """Return the script of a letter by its Unicode name's first word: ``LATIN``, ``THAI``, ``CJK``, ..."""
    return unicodedata.name(char, "UNKNOWN").split()[0]


def content_key(text: str) -> str:
    """Return the 32-character hex hash (BLAKE2b, 128 bits) of the normalised text."""
    return digest(normalize_text(text))


def digest(text: str) -> str:
    """Return the 32-character hex BLAKE2b hash of the exact text."""
    data = text.encode("utf-8", errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=KEY_CHARS // 2).hexdigest()


def content_id(key: str) -> str:
    """Return the id of an ad whose corpus gives none: stable over runs, shards and retries."""
    return f"ad_{key[:20]}"


def storable(text: str) -> str:
    """Write lone surrogates as escapes, so that the text can be stored as UTF-8."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
