"""What makes two ads the same text, and what is no text: normalisation, content keys and ids, gaps."""

from __future__ import annotations

import hashlib
import re
import unicodedata

KEY_CHARS = 32
_INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp", "Cn", "Co"}
# Invisible without being format characters: fillers, joiners and selectors of variants (Unicode's
# Default_Ignorable_Code_Point, which NFKC_Casefold removes; general categories Lo and Mn).
IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# How programs write that there is no value, folded: pandas, R, spreadsheets in several languages (of
# #N/A, and their errors), SQL and JavaScript. A dash and a dot are what people and statistics packages put there.
_MISSING_WORDS = (
    "nan -nan +nan na n/a <na> nat none null (null) <null> undefined \\n . - -- – — "
    "#n/a #n/a! #na #nv #n/d #n/d! #n/b #nd #i/t #yok #н/д #saknas! #brak #puuttuu! #hiányzik "
    "#не_доступно #ref! #value! #name? #div/0! #num! #null! #spill! #calc! (blank) n.a. "
    "-1.#ind 1.#ind -1.#qnan 1.#qnan na_character_ na_integer_ na_real_"
)
_MISSING = frozenset(_MISSING_WORDS.split()) | {"", "#n/a n/a"}
# Longer cells say something, if only in invisible characters.
_MAX_GAP_CHARS = 200


def normalize_text(text: str) -> str:
    """Fold a text so that copies of an ad compare equal.

    Unicode NFKC, case folding, then runs of white space become one space. NFKC is applied
    again after case folding because folding can undo it (Unicode Standard, section 3.13, D146).
    """
    if text.isascii():
        # Nothing there composes: the same, in a third of the time.
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def is_blank(text: str) -> bool:
    """Tell whether nothing visible is left (white space, control and zero-width characters)."""
    if text[:1].isalnum():
        return False
    return all(unicodedata.category(char) in _INVISIBLE for char in text)


def is_missing(text: str) -> bool:
    """Tell whether a cell is empty, or holds what programs write where there is no value."""
    if len(text) > _MAX_GAP_CHARS:
        return False
    if text.isascii() and text.isprintable():
        return " ".join(text.lower().split()) in _MISSING
    folded = normalize_text(IGNORABLE.sub("", text))
    return "".join(c for c in folded if unicodedata.category(c) != "Cf").strip() in _MISSING


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
    if text.isascii():
        return text
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
