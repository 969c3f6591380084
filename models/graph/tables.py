"""What a text becomes, as TensorFlow graphs equal to the Python paths: tables of code points.

A served model takes raw strings, in a process that has neither this project nor the `tokenizers`
library. Nothing in this room describes a tokenizer's rules a second time: every rule that looks at
one character alone (what a normaliser makes of it, whether it splits a word, what a chat marker's
look-alike folds to) is read off the Python code, code point by code point, into a table that the
graph carries. What remains are a regular expression, the longest match of word pieces and the
merges of byte pairs, in modules of their own.

Each builder of this room returns a function from `tf.string` (n,) that may be called inside a
`tf.function`. It holds constants only: no variable, table or file that a SavedModel would have to
track.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

GraphFunction = Callable[[Any], Any]

_PAGE = 256
_SURROGATES = range(0xD800, 0xE000)
# Planes 4 to 13 hold no character: the page before stands for all of them but their first.
_EMPTY = range(0x40100, 0xE0000)

# What a converted tokenizer is tried on before anyone may use it: digits, contractions, runs of
# white space, accents, scripts, emoji, markup, and characters that no vocabulary has.
_PROBES = (
    "",
    " ",
    "You Won't Believe These 17 Cats: they'll SAVE $1,299.50!!",
    "\t tabs\n\n  and   spaces \u00a0\u3000 end  ",
    "Crème brûlée à l'ancienne, ŁÓDŹ İstanbul ΑΣ ΣΑΣ ﬁne Ⅷ ½ ٣٤",
    "Купи сейчас! 半額セール 東京で地震 한국어 می‌خواهم שלום नमस्ते ไทย",
    "⚡️👨‍👩‍👧 🇩🇪 🫨 \u200bzero\ufeffwidth\u202e \x00\x07\ufffd\ufffe\U000e0041\U00050000",
    "Sale [SEP] [CLS] [PAD]<|im_end|>\n<|im_start|>assistant</s> 'S 's'll''re 'r n't",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " " + "é" * 101 + " " + "!" * 120,
    "xq" * 60 + "aaaa aaaaaaaaa =======================",
)


class GraphTokenizerError(ValueError):
    """A tokenizer that cannot be expressed as a graph; the message says which part of it."""


class CharMap:
    """A table from one code point to a sequence of code points.

    Read off a function on strings that treats characters one by one: what it makes of a text is
    what it makes of the characters, joined. Kind 0 stands for itself, kind k > 0 for the k-th
    replacement. Takes about 0.5 MB.
    """

    def __init__(self, convert: Callable[[str], str]) -> None:
        kinds: dict[str, int] = {}

        def kind(char: str, out: str) -> int:
            return 0 if out == char else kinds.setdefault(out, len(kinds) + 1)

        def page(text: str) -> list[int]:
            # Most pages stay as they are, or vanish.
            if (out := convert(text)) in (text, ""):
                return [kind(text, out)] * _PAGE
            return [kind(char, convert(char)) for char in text]

        self.pages, self.kinds = _two_levels(page)
        outputs = ["", *kinds]
        self.starts = np.cumsum([0, *map(len, outputs)]).astype(np.int32)
        # One more, so that a gather always has something to look at.
        self.outputs = np.array([ord(c) for out in outputs for c in out] + [0], np.int32)

    def __call__(self, rows: Any) -> tuple[Any, Any]:
        """Maps rows of characters.

        Args:
            rows: Ragged code points (n, None).

        Returns:
            Ragged code points (n, None), and for each of their values, int32 (m,) ascending, the
            place among the values of `rows` that it comes from.
        """
        import tensorflow as tf

        chars = rows.flat_values
        kinds = _look_up(self.pages, self.kinds, chars)
        starts = tf.gather(tf.constant(self.starts), kinds)
        counts = tf.where(kinds == 0, 1, tf.gather(tf.constant(self.starts), kinds + 1) - starts)
        places = tf.repeat(tf.range(tf.size(chars)), counts)
        first = tf.cumsum(counts, exclusive=True)
        at = tf.range(tf.size(places)) - tf.gather(first - starts, places)
        has = tf.gather(kinds, places) > 0
        replaced = tf.gather(tf.constant(self.outputs), at * tf.cast(has, tf.int32))
        values = tf.where(has, replaced, tf.gather(chars, places))
        row = tf.gather(rows.value_rowids(), places)
        return tf.RaggedTensor.from_value_rowids(values, row, rows.nrows()), places


class CharClass:
    """A table from code points to small numbers; same layout as `CharMap`."""

    def __init__(self, classify: Callable[[str], list[int]]) -> None:
        """Reads the table off a function from a text to its characters' classes."""
        self.pages, self.values = _two_levels(classify)

    def __call__(self, chars: Any) -> Any:
        """Returns the classes, int32 (k,), of code points int32 (k,)."""
        return _look_up(self.pages, self.values, chars)


def _two_levels(page: Callable[[str], list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Fills a table of pages of 256 code points, equal pages kept once.

    Args:
        page: From a page's characters to their values.

    Returns:
        For each page, int32 (4352,), where it starts in the values, int32 (256 * distinct pages,).
    """
    known: dict[tuple[int, ...], int] = {}
    starts = []
    for first in range(0, 0x110000, _PAGE):
        if first in _SURROGATES:  # never decoded from UTF-8
            values = [0] * _PAGE
        elif first not in _EMPTY:
            values = page("".join(map(chr, range(first, first + _PAGE))))
        starts.append(known.setdefault(tuple(values), len(known) * _PAGE))
    return np.array(starts, np.int32), np.array([v for page in known for v in page], np.int32)


def _look_up(pages: np.ndarray, values: np.ndarray, chars: Any) -> Any:
    import tensorflow as tf

    start = tf.gather(tf.constant(pages), tf.bitwise.right_shift(chars, 8))
    return tf.gather(tf.constant(values), start + tf.bitwise.bitwise_and(chars, _PAGE - 1))


def decode(texts: Any) -> Any:
    """Turns UTF-8, tf.string (n,), into ragged code points; what is no UTF-8 becomes U+FFFD."""
    import tensorflow as tf

    return tf.strings.unicode_decode(texts, "UTF-8", errors="replace")


def encode(rows: Any) -> Any:
    """Turns ragged code points into UTF-8, tf.string (n,)."""
    import tensorflow as tf

    return tf.strings.unicode_encode(rows, "UTF-8")


def previous(values: Any, before: Any) -> Any:
    """Shifts (k,) one place to the right; the first gets `before`."""
    import tensorflow as tf

    return tf.concat([[before], values], 0)[:-1]


def following(values: Any, after: Any) -> Any:
    """Shifts (k,) one place to the left; the last gets `after`."""
    import tensorflow as tf

    return tf.concat([values, [after]], 0)[1:]


def select(rows: Any, keep: Any) -> Any:
    """Keeps some of a ragged tensor's values; `keep` is bool over the flat values."""
    import tensorflow as tf

    counts = tf.math.unsorted_segment_sum(
        tf.cast(keep, tf.int64), rows.value_rowids(), rows.nrows()
    )
    return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(rows.flat_values, keep), counts)


# --- Checks -----------------------------------------------------------------------------------


def expect(source: dict[str, Any], part: str, kind: str) -> None:
    """Refuse a tokenizer, as JSON values, one of whose parts is of another kind."""
    found = (source[part] or {"type": "none"})["type"]
    if found != kind:
        raise GraphTokenizerError(f"{part} {found}: only {kind} can be exported")


def check(tokenize: GraphFunction, reference: Callable[[str], list[int]]) -> None:
    """Compares graph and reference, so that a library's next version cannot part them unseen.

    Raises:
        GraphTokenizerError: Naming a text that they split differently.
    """
    import tensorflow as tf

    for text, got in zip(_PROBES, tokenize(tf.constant(_PROBES)).to_list(), strict=True):
        want = reference(text)
        if got != want:
            raise GraphTokenizerError(
                f"the graph splits {text!r} into {got}, the tokenizer into {want}; this "
                "tokenizer, or this version of its library, cannot be exported"
            )
