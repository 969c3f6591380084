"""Text preparation and tokenization as TensorFlow graphs, equal to the Python paths.

A served model takes raw strings, in a process that has neither this project nor the `tokenizers`
library. Nothing here describes a tokenizer's rules a second time: every rule that looks at one
character alone (what a normaliser makes of it, whether it splits a word, what a chat marker's
look-alike folds to) is read off the Python code, code point by code point, into a table that the
graph carries. What remains are a regular expression, the longest match of word pieces and the
merges of byte pairs.

Each builder returns a function from `tf.string` (n,) that may be called inside a `tf.function`. It
holds constants only: no variable, table or file that a SavedModel would have to track.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from models import policy
from models.tokenization import FastTokenizer

if TYPE_CHECKING:
    import tokenizers

GraphFunction = Callable[[Any], Any]

_PAGE = 256
_N_PAGES = 0x110000 // _PAGE
_SURROGATES = range(0xD800, 0xE000)
# Planes 4 to 13 hold no character: their first page stands for all of them.
_EMPTY_PAGES = range(0x400, 0xE00)

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


# --- Tables of code points --------------------------------------------------------------------


class _CharMap:
    """A table from one code point to a sequence of code points.

    Read off a function on strings that treats characters one by one: what it makes of a text is
    what it makes of the characters, joined. Two levels, pages of 256 code points, equal pages kept
    once; kind 0 stands for itself, kind k > 0 for the k-th replacement. Takes about 0.5 MB.
    """

    def __init__(self, convert: Callable[[str], str]) -> None:
        kinds: dict[str, int] = {}

        def kind(char: str) -> int:
            out = convert(char)
            return 0 if out == char else kinds.setdefault(out, len(kinds) + 1)

        def page(text: str) -> list[int] | None:
            out = convert(text)
            if out == text:
                return [0] * _PAGE
            return None if out else [kind(text[0])] * _PAGE

        self.pages, self.kinds = _two_levels(kind, page)
        outputs = ["", *kinds]
        counts = [len(out) for out in outputs]
        self.starts = np.cumsum([0, *counts]).astype(np.int32)
        # One more, so that a gather always has something to look at.
        self.outputs = np.array([ord(c) for out in outputs for c in out] + [0], np.int32)

    def __call__(self, chars: Any) -> tuple[Any, Any]:
        """Maps code points.

        Args:
            chars: int32 (k,).

        Returns:
            Code points int32 (m,), and for each of them, int32 (m,) ascending, the place in
            `chars` it comes from.
        """
        import tensorflow as tf

        kinds = _look_up(self.pages, self.kinds, chars)
        starts = tf.gather(tf.constant(self.starts), kinds)
        counts = tf.where(kinds == 0, 1, tf.gather(tf.constant(self.starts), kinds + 1) - starts)
        places = tf.repeat(tf.range(tf.size(chars)), counts)
        first = tf.cumsum(counts, exclusive=True)
        at = tf.range(tf.size(places)) - tf.gather(first - starts, places)
        replaced = tf.gather(tf.constant(self.outputs), at * tf.cast(_has(kinds, places), tf.int32))
        return tf.where(_has(kinds, places), replaced, tf.gather(chars, places)), places


def _has(kinds: Any, places: Any) -> Any:
    import tensorflow as tf

    return tf.gather(kinds, places) > 0


class _CharClass:
    """A table from code points to small numbers; same layout as `_CharMap`."""

    def __init__(
        self, number: Callable[[str], int], uniform: Callable[[str], bool] | None = None
    ) -> None:
        """Reads the table off a function.

        Args:
            number: A character's class, at least 0.
            uniform: Whether all characters of a text surely have the class of the first one, to
                save time; None asks for every character.
        """

        def page(text: str) -> list[int] | None:
            return [number(text[0])] * _PAGE if uniform and uniform(text) else None

        self.pages, self.values = _two_levels(number, page)

    def __call__(self, chars: Any) -> Any:
        """Returns the classes, int32 (k,), of code points int32 (k,)."""
        return _look_up(self.pages, self.values, chars)


def _two_levels(
    value: Callable[[str], int], whole: Callable[[str], list[int] | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Fills a two-level table.

    Args:
        value: A character's value.
        whole: The values of a page's 256 characters at once, or None to ask for each.

    Returns:
        For each page, int32 (4352,), where it starts in the values, int32 (256 * distinct pages,).
    """
    known: dict[tuple[int, ...], int] = {}
    pages = np.zeros(_N_PAGES, np.int32)
    for number in range(_N_PAGES):
        if number in _EMPTY_PAGES[1:]:
            pages[number] = pages[_EMPTY_PAGES[0]]
            continue
        codes = range(number * _PAGE, (number + 1) * _PAGE)
        text = "".join(map(chr, codes))
        # Surrogates are never decoded from UTF-8.
        values = [0] * _PAGE if codes[0] in _SURROGATES else whole(text)
        if values is None:
            values = [value(char) for char in text]
        pages[number] = known.setdefault(tuple(values), len(known) * _PAGE)
    return pages, np.array([v for page in known for v in page], np.int32)


def _look_up(pages: np.ndarray, values: np.ndarray, chars: Any) -> Any:
    import tensorflow as tf

    start = tf.gather(tf.constant(pages), tf.bitwise.right_shift(chars, 8))
    return tf.gather(tf.constant(values), start + tf.bitwise.bitwise_and(chars, _PAGE - 1))


def _decode(texts: Any) -> Any:
    """Turns UTF-8, tf.string (n,), into ragged code points; what is no UTF-8 becomes U+FFFD."""
    import tensorflow as tf

    return tf.strings.unicode_decode(texts, "UTF-8", errors="replace")


def _encode(rows: Any) -> Any:
    """Turns ragged code points into UTF-8, tf.string (n,)."""
    import tensorflow as tf

    return tf.strings.unicode_encode(rows, "UTF-8")


def _previous(values: Any, before: Any) -> Any:
    """Shifts (k,) one place to the right; the first gets `before`."""
    import tensorflow as tf

    return tf.concat([[before], values], 0)[:-1]


def _next(values: Any, after: Any) -> Any:
    """Shifts (k,) one place to the left; the last gets `after`."""
    import tensorflow as tf

    return tf.concat([values, [after]], 0)[1:]


def _filter(rows: Any, keep: Any) -> Any:
    """Keeps some of a ragged tensor's values; `keep` is bool over the flat values."""
    import tensorflow as tf

    counts = tf.math.unsorted_segment_sum(
        tf.cast(keep, tf.int64), rows.value_rowids(), rows.nrows()
    )
    return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(rows.flat_values, keep), counts)


def _words(chars: Any, starts: Any) -> tuple[Any, Any]:
    """Divides rows of characters into words.

    Args:
        chars: Ragged code points (n, None).
        starts: bool over its flat values, whether a word starts there; the first of a row does.

    Returns:
        The words' code points, ragged (w, None); how many words a row has, int64 (n,).
    """
    import tensorflow as tf

    counts = tf.math.unsorted_segment_sum(
        tf.cast(starts, tf.int64), chars.value_rowids(), chars.nrows()
    )
    words = tf.RaggedTensor.from_row_starts(chars.flat_values, tf.where(starts)[:, 0])
    return words, counts


# --- The ad as data ---------------------------------------------------------------------------

_OPEN, _CLOSE = 1, 2  # control characters, which a folded text cannot hold


def ad_text(
    max_chars: int,
    prompt: policy.RenderedPrompt | None = None,
    markers: Iterable[str] = (),
) -> GraphFunction:
    """Builds `policy.prepare_ad(text[:max_chars], prompt, markers)` as a graph.

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

    extra, quotes = policy._delimiters(prompt.prefix, prompt.suffix) if prompt else ((), "")
    pattern = policy._marker_pattern((*extra, *(m for m in markers if len(m) > 1))).pattern
    folded, shadow, is_word = _folding(quotes), _shadows(), _word_characters()

    def fold_space(rows: Any) -> Any:
        """Collapses runs of spaces and trims; `rows` hold no other white space."""
        values, row = rows.flat_values, rows.value_rowids()
        solid = values != ord(" ")
        at = tf.range(tf.size(values))
        last = tf.math.unsorted_segment_max(tf.where(solid, at, -1), row, rows.nrows())
        # A row's first character follows another row: no space may open a row.
        follows = _previous(solid, False) & (row == _previous(row, tf.constant(-1, tf.int64)))
        return _filter(rows, solid | (follows & (at < tf.gather(last, row))))

    def cut(rows: Any) -> tuple[Any, Any]:
        """Puts a space for every marker; tells which rows had one."""
        seen, places = shadow(rows.flat_values)
        row = tf.gather(rows.value_rowids(), places)
        shadows = _encode(tf.RaggedTensor.from_value_rowids(seen, row, rows.nrows()))
        marked = tf.strings.regex_replace(
            shadows, f"(?:{pattern})", f"{chr(_OPEN)}\\0{chr(_CLOSE)}"
        )
        marks = _decode(marked).flat_values
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
        return fold_space(rows.with_flat_values(tf.where(inside, ord(" "), rows.flat_values))), (
            marked != shadows
        )

    def words_only(rows: Any, chosen: Any) -> Any:
        stays = (is_word(rows.flat_values) > 0) | ~tf.gather(chosen, rows.value_rowids())
        return fold_space(rows.with_flat_values(tf.where(stays, rows.flat_values, ord(" "))))

    def step(values: Any, splits: Any, passes: Any, _hit: Any) -> tuple[Any, Any, Any, Any]:
        rows, hit = cut(tf.RaggedTensor.from_row_splits(values, splits, validate=False))
        passes += 1
        rows = tf.cond(
            (passes == policy._MAX_PASSES) & tf.reduce_any(hit),
            lambda: words_only(rows, hit),
            lambda: rows,
        )
        return rows.flat_values, rows.row_splits, passes, hit

    def prepare(texts: Any) -> Any:
        rows = _decode(texts)[:, :max_chars]
        rows = fold_space(rows.with_flat_values(folded(rows.flat_values)[0]))
        # A row without a marker stays as it is however often it is looked at, so that the number
        # of passes is every remaining row's own.
        values, splits, _, _ = tf.while_loop(
            lambda _values, _splits, _passes, hit: tf.reduce_any(hit),
            step,
            (rows.flat_values, rows.row_splits, 0, tf.ones_like(texts, tf.bool)),
            shape_invariants=(
                tf.TensorShape([None]),
                tf.TensorShape([None]),
                tf.TensorShape([]),
                tf.TensorShape([None]),
            ),
        )
        return _encode(tf.RaggedTensor.from_row_splits(values, splits))

    return prepare


@functools.lru_cache(maxsize=8)
def _folding(quotes: str) -> _CharMap:
    def fold(text: str) -> str:
        return "".join(
            " "
            if char.isspace() or unicodedata.category(char) == "Cc"
            else policy._QUOTES[char]
            if char in quotes
            else char
            for char in text
        )

    return _CharMap(fold)


@functools.lru_cache(maxsize=1)
def _shadows() -> _CharMap:
    return _CharMap(lambda text: policy._shadow(text)[0])


@functools.lru_cache(maxsize=1)
def _word_characters() -> _CharClass:
    def uniform(text: str) -> bool:
        return len({char.isalnum() for char in text}) == 1

    return _CharClass(lambda char: int(char.isalnum()), uniform)


# --- WordPiece --------------------------------------------------------------------------------

_TEXT, _ALONE, _SPACE = 0, 1, 2


def word_piece(tokenizer: tokenizers.Tokenizer) -> GraphFunction:
    """Builds BERT's tokenization as a graph, without the special tokens around a text.

    Special tokens inside a text are text, as with `encode_special_tokens`; nothing is truncated.
    Differs from the library in one corner: spacing marks (category Mc) with different combining
    classes side by side, in an order that is not canonical, are not put in order.

    Args:
        tokenizer: WordPiece behind BertNormalizer and BertPreTokenizer.

    Returns:
        A function from tf.string (n,) to ids, ragged int32 (n, None).

    Raises:
        GraphTokenizerError: If the tokenizer has other parts.
    """
    import tensorflow as tf
    import tensorflow_text as tf_text

    source = json.loads(tokenizer.to_str())
    model = source["model"]
    _expect(source, "model", "WordPiece")
    _expect(source, "normalizer", "BertNormalizer")
    _expect(source, "pre_tokenizer", "BertPreTokenizer")
    vocab = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if [model["vocab"][word] for word in vocab] != list(range(len(vocab))):
        raise GraphTokenizerError("WordPiece vocabulary: its ids are not 0, 1, 2, … without gaps")
    unknown, indicator = model["unk_token"], model["continuing_subword_prefix"]
    if unknown not in model["vocab"]:
        raise GraphTokenizerError(f"WordPiece vocabulary: the unknown token {unknown!r} is missing")
    max_chars = int(model["max_input_chars_per_word"])
    normalize = _normalizer(json.dumps(source["normalizer"]))
    classes = _bert_classes()
    pieces = tf_text.FastWordpieceTokenizer(
        vocab=vocab,
        suffix_indicator=indicator,
        # The library counts characters, which have up to 4 bytes.
        max_bytes_per_word=4 * max_chars,
        token_out_type=tf.int32,
        unknown_token=unknown,
        no_pretokenization=True,
    )
    # The normaliser removes control characters, so no vocabulary made with it has one.
    too_long = "\x01"
    if any(too_long in word for word in vocab):
        raise GraphTokenizerError(f"WordPiece vocabulary: a word holds {too_long!r}")

    def tokenize(texts: Any) -> Any:
        rows = _decode(texts)
        values, places = normalize(rows.flat_values)
        row = tf.gather(rows.value_rowids(), places)
        kinds = classes(values)
        same_row = row == _previous(row, tf.constant(-1, tf.int64))
        runs_on = (kinds == _TEXT) & (_previous(kinds, _SPACE) == _TEXT) & same_row
        solid = kinds != _SPACE
        chars = tf.RaggedTensor.from_value_rowids(values, row, rows.nrows())
        words, counts = _words(_filter(chars, solid), tf.boolean_mask(~runs_on, solid))
        strings = tf.where(words.row_lengths() > max_chars, too_long, _encode(words))
        ids = pieces.tokenize(strings)
        return tf.RaggedTensor.from_row_lengths(ids, counts).merge_dims(1, 2)

    bare = _bare(source)
    bare.encode_special_tokens = True
    _check(tokenize, lambda text: bare.encode(text, add_special_tokens=False).ids)
    return tokenize


def ends(tokenizer: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """Returns the special ids that a tokenizer puts before and after one text.

    Raises:
        GraphTokenizerError: If a text without tokens cannot be told from them.
    """
    bare = _bare(json.loads(tokenizer.to_str()))
    inner = bare.encode("a", add_special_tokens=False).ids
    ids = bare.encode("a", add_special_tokens=True).ids
    for start in range(len(ids) - len(inner) + 1):
        if inner and ids[start : start + len(inner)] == inner:
            return ids[:start], ids[start + len(inner) :]
    raise GraphTokenizerError(f"post-processor: cannot find the text 'a' {inner} in {ids}")


def _bare(source: dict[str, Any]) -> tokenizers.Tokenizer:
    import tokenizers

    return tokenizers.Tokenizer.from_str(
        json.dumps({**source, "truncation": None, "padding": None})
    )


@functools.lru_cache(maxsize=4)
def _normalizer(source: str) -> _CharMap:
    from tokenizers import normalizers

    kept = {key: value for key, value in json.loads(source).items() if key != "type"}
    return _CharMap(normalizers.BertNormalizer(**kept).normalize_str)


@functools.lru_cache(maxsize=1)
def _bert_classes() -> _CharClass:
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str

    def number(char: str) -> int:
        return (_TEXT, _SPACE, _ALONE)[len(split(f"a{char}a")) - 1]

    def uniform(text: str) -> bool:
        return len(split(text)) == 1 and number(text[0]) == _TEXT

    return _CharClass(number, uniform)


# --- Byte pairs -------------------------------------------------------------------------------

_BLANK, _LETTER, _NUMBER, _OTHER = 0, 1, 2, 3
# What GPT-2's pattern cuts off behind an apostrophe; none starts another.
_CONTRACTIONS = ("s", "t", "re", "ve", "m", "ll", "d")
_NEVER = np.int64(2**62)


def byte_pair(tokenizer: tokenizers.Tokenizer) -> GraphFunction:
    """Builds byte-level BPE as a graph, behind GPT-2's pattern and, when there, Digits.

    Special tokens inside a text are text, as in `FastTokenizer.encode`. Words that occur twice in
    a batch are merged once; a merge step does every word at once, so a batch takes as many steps
    as its hardest word.

    Args:
        tokenizer: BPE behind ByteLevel(use_regex=True), optionally with Digits before it.

    Returns:
        A function from tf.string (n,) to ids, ragged int32 (n, None).

    Raises:
        GraphTokenizerError: If the tokenizer has other parts, or merges out of order.
    """
    import tensorflow as tf

    source = json.loads(tokenizer.to_str())
    _expect(source, "model", "BPE")
    own = FastTokenizer(tokenizer)
    _refuse_extras(source, own)
    digits = _pre_tokenizer_digits(source["pre_tokenizer"])
    model = source["model"]
    first_ids = _byte_ids(model["vocab"])
    merge = _Merger(model)
    classes = _gpt2_classes()
    dropped = tf.constant(sorted(own.special_ids), tf.int32)
    never_special = own.special_ids.isdisjoint({*first_ids.tolist(), *merge.products.tolist()})

    def starts(chars: Any, row: Any) -> Any:
        """Tells where words start; bool (k,), of code points (k,) and their rows."""
        packed = classes(chars)
        kind, is_digit = packed % 4, packed >= 4
        new_row = row != _previous(row, tf.constant(-1, tf.int64))
        after_digit = _previous(is_digit, False)
        if digits is None:
            new_piece = new_row
        elif digits:
            new_piece = new_row | is_digit | after_digit
        else:
            new_piece = new_row | (is_digit != after_digit)
        ends_piece = _next(new_piece, True)
        before = tf.where(new_piece, -1, _previous(kind, -1))
        glued = ~new_piece & (_previous(chars, 0) == ord(" "))  # a space opens the word behind it
        # The last blank of a run goes with what follows, or alone: `\s+(?!\S)`.
        last_blank = (kind == _BLANK) & ~ends_piece & (_next(kind, -1) != _BLANK)
        start = new_piece | tf.where(
            kind == _BLANK, (before != _BLANK) | last_blank, (before != kind) & ~glued
        )
        opens = start & (chars == ord("'"))
        inside, behind = tf.zeros_like(opens), tf.zeros_like(opens)
        for letters in _CONTRACTIONS:
            found, at, broken = opens, chars, new_piece
            for letter in letters:
                at, broken = _next(at, 0), _next(broken, True)
                found &= (at == ord(letter)) & ~broken
            for _ in letters:
                found = _previous(found, False)
                inside |= found
            behind |= _previous(found, False)
        return (start | behind) & ~inside

    def tokenize(texts: Any) -> Any:
        rows = _decode(texts)
        words, counts = _words(rows, starts(rows.flat_values, rows.value_rowids()))
        distinct, which = tf.unique(_encode(words))
        singles = tf.strings.bytes_split(distinct)
        codes = tf.io.decode_raw(singles.flat_values, tf.uint8, fixed_length=1)[:, 0]
        ids = tf.gather(tf.constant(first_ids), tf.cast(codes, tf.int32))
        merged = merge(_filter(singles.with_flat_values(ids), ids >= 0))
        per_word = tf.gather(merged, which)
        found = tf.RaggedTensor.from_row_lengths(per_word, counts).merge_dims(1, 2)
        if never_special:
            return found
        special = tf.reduce_any(found.flat_values[:, None] == dropped[None], axis=1)
        return _filter(found, ~special)

    _check(tokenize, own.encode)
    return tokenize


class _Merger:
    """Merges byte pairs of many words at once, as the `tokenizers` library does.

    Each step merges, in every word, all occurrences of the pair that was learned first. The
    library merges one at a time; the two agree when no merge needs a product of a later one.
    """

    def __init__(self, model: dict[str, Any]) -> None:
        vocab = model["vocab"]
        pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        self.products = np.array([vocab["".join(pair)] for pair in pairs], np.int32)
        ranks = {int(product): rank for rank, product in enumerate(self.products)}
        for rank, pair in enumerate(pairs):
            if any(ranks.get(vocab[part], -1) > rank for part in pair):
                raise GraphTokenizerError(f"merges: number {rank}, {pair}, needs one that follows")
        self._size = np.int64(max(vocab.values()) + 1)
        keys = np.array([vocab[a] * self._size + vocab[b] for a, b in pairs], np.int64)
        order = np.argsort(keys, kind="stable")
        # Ended by a key that no pair has, so that a search always lands on an entry.
        self._keys = np.append(keys[order], _NEVER)
        self._ranks = np.append(order, _NEVER).astype(np.int64)
        self.products = np.append(self.products, 0).astype(np.int32)

    def _rank(self, ids: Any, words: Any, at: Any) -> Any:
        """Ranks the pairs that start at some places; `_NEVER` where there is no merge."""
        import tensorflow as tf

        behind = tf.minimum(at + 1, tf.size(ids) - 1)
        left, right = tf.gather(ids, at), tf.gather(ids, behind)
        key = tf.cast(left, tf.int64) * self._size + tf.cast(right, tf.int64)
        entry = tf.searchsorted(tf.constant(self._keys), key)
        known = tf.gather(tf.constant(self._keys), entry) == key
        together = (tf.gather(words, at) == tf.gather(words, behind)) & (behind > at)
        return tf.where(known & together, tf.gather(tf.constant(self._ranks), entry), _NEVER)

    def __call__(self, rows: Any) -> Any:
        """Merges.

        Args:
            rows: The words' bytes as ids, ragged int32 (w, None).

        Returns:
            Their tokens, ragged int32 (w, None).
        """
        import tensorflow as tf

        n_words = rows.nrows()

        def step(ids: Any, words: Any, ranks: Any) -> tuple[Any, Any, Any]:
            best = tf.gather(tf.math.unsorted_segment_min(ranks, words, n_words), words)
            wanted = (ranks == best) & (ranks < _NEVER)
            # Of wanted pairs that overlap, as in "aaa", every other one from the left.
            opens = wanted & ~_previous(wanted, False)
            at = tf.range(tf.size(ids))
            run = tf.cumsum(tf.cast(opens, tf.int32)) - 1
            origin = tf.gather(tf.boolean_mask(at, opens), tf.maximum(run, 0))
            chosen = wanted & ((at - origin) % 2 == 0)
            product = tf.gather(
                tf.constant(self.products),
                tf.where(chosen, ranks, tf.cast(tf.size(self.products) - 1, tf.int64)),
            )
            ids = tf.where(chosen, product, ids)
            keep = ~_previous(chosen, False)
            fresh = tf.boolean_mask(chosen, keep)
            ids, words = tf.boolean_mask(ids, keep), tf.boolean_mask(words, keep)
            ranks = tf.boolean_mask(ranks, keep)
            # Only pairs with a new token have a new rank.
            stale = tf.where(fresh | _next(fresh, False))
            found = self._rank(ids, words, tf.cast(stale[:, 0], tf.int32))
            return ids, words, tf.tensor_scatter_nd_update(ranks, stale, found)

        ids, words = rows.flat_values, rows.value_rowids()
        ranks = self._rank(ids, words, tf.range(tf.size(ids)))
        flat = tf.TensorShape([None])
        ids, words, _ = tf.while_loop(
            lambda _ids, _words, ranks: tf.reduce_any(ranks < _NEVER),
            step,
            (ids, words, ranks),
            shape_invariants=(flat, flat, flat),
        )
        return tf.RaggedTensor.from_value_rowids(ids, words, n_words)


@functools.lru_cache(maxsize=1)
def _gpt2_classes() -> _CharClass:
    """Reads the classes of GPT-2's pattern, 0 to 3, plus 4 for what Digits sets apart."""
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    apart = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str

    def number(char: str) -> int:
        kinds = ((_LETTER, "a"), (_NUMBER, "1"), (_OTHER, "!"))
        kind = next((k for k, friend in kinds if len(split(friend + char)) == 1), _BLANK)
        return kind + 4 * (len(apart(f"a{char}a")) == 3)

    def uniform(text: str) -> bool:
        return len(split(text)) == len(apart(text)) == 1

    return _CharClass(number, uniform)


def _byte_ids(vocab: dict[str, int]) -> np.ndarray:
    """Returns the id of every byte, int32 (256,); -1 for one that the vocabulary lacks.

    Source of the bytes' names: `bytes_to_unicode` in GPT-2's encoder.py.
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names = {code: chr(code) for code in shown}
    hidden = (code for code in range(256) if code not in names)
    names |= {code: chr(256 + place) for place, code in enumerate(hidden)}
    return np.array([vocab.get(names[code], -1) for code in range(256)], np.int32)


def _pre_tokenizer_digits(source: dict[str, Any] | None) -> bool | None:
    """Reads whether digits are split: one by one (True), as runs (False), not at all (None)."""
    parts = (source or {}).get("pretokenizers") or [source or {"type": "none"}]
    names = [part["type"] for part in parts]
    byte_level = parts[-1]
    plain = byte_level.get("use_regex", True) and not byte_level.get("add_prefix_space")
    if names not in (["ByteLevel"], ["Digits", "ByteLevel"]) or not plain:
        raise GraphTokenizerError(
            f"pre-tokenizer {json.dumps(source)}: only ByteLevel without a prefix space, with its "
            "regular expression, alone or behind Digits, can be exported"
        )
    return bool(parts[0]["individual_digits"]) if len(parts) == 2 else None


def _refuse_extras(source: dict[str, Any], own: FastTokenizer) -> None:
    """Refuses what the merge loop does not know."""
    if source["normalizer"] is not None:
        raise GraphTokenizerError(f"normalizer {source['normalizer']['type']}: none is supported")
    texts = [t["content"] for t in source["added_tokens"] if t["content"] not in own.special_tokens]
    if texts:
        raise GraphTokenizerError(f"added tokens that are no markup, such as {texts[0]!r}")
    settings = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    for name in (*settings, "byte_fallback", "ignore_merges"):
        if source["model"].get(name):
            raise GraphTokenizerError(f"BPE with {name} = {source['model'][name]!r}")


# --- Checks -----------------------------------------------------------------------------------


def _expect(source: dict[str, Any], part: str, kind: str) -> None:
    found = (source[part] or {"type": "none"})["type"]
    if found != kind:
        raise GraphTokenizerError(f"{part} {found}: only {kind} can be exported")


def _check(tokenize: GraphFunction, reference: Callable[[str], list[int]]) -> None:
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
