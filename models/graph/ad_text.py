"""`models.ad_text.prepare_ad` as a TensorFlow graph."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from typing import Any

from models import ad_text as python
from models.graph.tables import CharMap, GraphFunction, decode, encode
from models.prompting import RenderedPrompt

_OPEN, _CLOSE = 1, 2  # control characters, which a folded text cannot hold


def ad_text(
    max_chars: int,
    prompt: RenderedPrompt | None = None,
    markers: Iterable[str] = (),
) -> GraphFunction:
    """Builds `ad_text.prepare_ad(text[:max_chars], prompt, markers)` as a graph.

    The tables and the markers' pattern are the policy's own; RE2 finds the same matches as Python
    does, because the pattern has neither look-around nor back references and the only white space
    left is the plain space.

    Args:
        max_chars: Code points read of an ad, at least 1.
        prompt: The prompt around the ad, whose delimiters are protected.
        markers: More strings that must not appear, such as the tokenizer's special tokens.

    Returns:
        A function from tf.string (n,), any bytes, to tf.string (n,), valid UTF-8.
    """
    import tensorflow as tf

    extra, quotes = python.delimiters(prompt.prefix, prompt.suffix) if prompt else ((), "")
    pattern = python.marker_pattern((*extra, *(m for m in markers if len(m) > 1))).pattern
    folded, shadow, words = _folding(quotes), _shadows(), _words()

    def tidy(rows: Any) -> Any:
        """Collapses runs of spaces and trims; `rows` hold no other white space."""
        return tf.strings.strip(tf.strings.regex_replace(encode(rows), " +", " "))

    def cut(texts: Any) -> tuple[Any, Any]:
        """Puts a space for every marker; tells which texts had one."""
        rows = decode(texts)
        seen, places = shadow(rows)
        shadows = encode(seen)
        marked = tf.strings.regex_replace(
            shadows, f"(?:{pattern})", f"{chr(_OPEN)}\\0{chr(_CLOSE)}"
        )
        marks = decode(marked).flat_values
        opens, closes = marks == _OPEN, marks == _CLOSE
        # How many of the shadow's own characters come before each mark.
        before = tf.cumsum(tf.cast(~(opens | closes), tf.int32), exclusive=True)
        first = tf.gather(places, tf.boolean_mask(before, opens))
        final = tf.gather(places, tf.boolean_mask(before, closes) - 1)
        n_chars = tf.size(rows.flat_values)
        edges = tf.math.unsorted_segment_sum(
            tf.concat([tf.ones_like(first), -tf.ones_like(final)], 0),
            tf.concat([first, final + 1], 0),
            n_chars + 1,
        )
        inside = tf.cumsum(edges)[:-1] > 0
        cut_out = rows.with_flat_values(tf.where(inside, ord(" "), rows.flat_values))
        return tidy(cut_out), marked != shadows

    def step(texts: Any, passes: Any, _hit: Any) -> tuple[Any, Any, Any]:
        texts, hit = cut(texts)
        passes += 1
        too_deep = hit & (passes == python.MAX_PASSES)
        return tf.where(too_deep, tidy(words(decode(texts))[0]), texts), passes, hit

    def prepare(texts: Any) -> Any:
        texts = tidy(folded(decode(texts)[:, :max_chars])[0])
        # A text without a marker stays as it is however often it is looked at, so that the number
        # of passes is every remaining text's own.
        texts, _, _ = tf.while_loop(
            lambda _texts, _passes, hit: tf.reduce_any(hit),
            step,
            (texts, 0, tf.ones_like(texts, tf.bool)),
        )
        return texts

    return prepare


@functools.lru_cache(maxsize=8)
def _folding(quotes: str) -> CharMap:
    def fold(text: str) -> str:
        return "".join(
            " "
            if char.isspace() or unicodedata.category(char) == "Cc"
            else python.QUOTES[char]
            if char in quotes
            else char
            for char in text
        )

    return CharMap(fold)


@functools.lru_cache(maxsize=1)
def _shadows() -> CharMap:
    return CharMap(lambda text: python.shadow(text)[0])


@functools.lru_cache(maxsize=1)
def _words() -> CharMap:
    return CharMap(lambda text: "".join(char if char.isalnum() else " " for char in text))
