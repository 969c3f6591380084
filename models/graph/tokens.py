"""BERT's tokenization and byte-level BPE as TensorFlow graphs."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from models.graph.tables import (
    CharClass,
    CharMap,
    GraphFunction,
    GraphTokenizerError,
    check,
    decode,
    encode,
    expect,
    following,
    previous,
    select,
)
from models.tokenization import FastTokenizer

if TYPE_CHECKING:
    import tokenizers

# --- WordPiece --------------------------------------------------------------------------------


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
    expect(source, "model", "WordPiece")
    expect(source, "normalizer", "BertNormalizer")
    expect(source, "pre_tokenizer", "BertPreTokenizer")
    vocab = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if [model["vocab"][word] for word in vocab] != list(range(len(vocab))):
        raise GraphTokenizerError("WordPiece vocabulary: its ids are not 0, 1, 2, … without gaps")
    unknown, indicator = model["unk_token"], model["continuing_subword_prefix"]
    if unknown not in model["vocab"]:
        raise GraphTokenizerError(f"WordPiece vocabulary: the unknown token {unknown!r} is missing")
    max_chars = int(model["max_input_chars_per_word"])
    spaced = _bert_words(json.dumps(source["normalizer"]))
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
        words = tf.strings.split(encode(spaced(decode(texts))[0]))
        too_many = tf.strings.length(words.flat_values, "UTF8_CHAR") > max_chars
        ids = pieces.tokenize(tf.where(too_many, too_long, words.flat_values))
        return words.with_values(ids).merge_dims(1, 2)

    bare = _bare(source)
    bare.encode_special_tokens = True
    check(tokenize, lambda text: bare.encode(text, add_special_tokens=False).ids)
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
def _bert_words(source: str) -> CharMap:
    """Reads what BERT's normaliser makes of a character, with spaces where it parts words."""
    from tokenizers import normalizers, pre_tokenizers

    kept = {key: value for key, value in json.loads(source).items() if key != "type"}
    normalize = normalizers.BertNormalizer(**kept).normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    # Between letters, for at a text's ends no space would show.
    return CharMap(lambda text: " ".join(piece for piece, _ in split(f"a{normalize(text)}a"))[1:-1])


# --- Byte pairs -------------------------------------------------------------------------------

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
    expect(source, "model", "BPE")
    own = FastTokenizer(tokenizer)
    _refuse_extras(source, own)
    digits = _pre_tokenizer_digits(source["pre_tokenizer"])
    model = source["model"]
    first_ids = _byte_ids(model["vocab"])
    merge = _Merger(model)
    classes = _gpt2_classes(digits is not None)
    # GPT-2's pattern over a text of classes. RE2 does not look ahead: that the last of several
    # blanks goes with what follows, or alone (`\s+(?!\S)`), is a replacement of its own.
    number = {None: " ?1+", False: "1+", True: "1"}[digits]
    word = f"'(?:{'|'.join(_CONTRACTIONS)})| ?[a-z]+|{number}| ?[!']+|[ \t]+"
    last_blank = f"([ \t])([ \t][^ \t{'' if digits is None else '1'}])"
    dropped = tf.constant(sorted(own.special_ids), tf.int32)
    never_special = own.special_ids.isdisjoint({*first_ids.tolist(), *merge.products.tolist()})

    def split(rows: Any) -> tuple[Any, Any]:
        """Divides ragged code points (n, None) into words (w, None); counts them, int64 (n,)."""
        seen = encode(rows.with_flat_values(classes(rows.flat_values)))
        seen = tf.strings.regex_replace(seen, last_blank, "\\1\n\\2")
        # Now a line break follows every word, the last one of a text, too.
        broken = decode(tf.strings.regex_replace(seen, word, "\\0\n")).flat_values == ord("\n")
        starts = tf.boolean_mask(previous(broken, True), ~broken)
        counts = tf.math.unsorted_segment_sum(
            tf.cast(starts, tf.int64), rows.value_rowids(), rows.nrows()
        )
        return tf.RaggedTensor.from_row_starts(rows.flat_values, tf.where(starts)[:, 0]), counts

    def tokenize(texts: Any) -> Any:
        words, counts = split(decode(texts))
        distinct, which = tf.unique(encode(words))
        singles = tf.strings.bytes_split(distinct)
        codes = tf.io.decode_raw(singles.flat_values, tf.uint8, fixed_length=1)[:, 0]
        ids = tf.gather(tf.constant(first_ids), tf.cast(codes, tf.int32))
        merged = merge(select(singles.with_flat_values(ids), ids >= 0))
        per_word = tf.gather(merged, which)
        found = tf.RaggedTensor.from_row_lengths(per_word, counts).merge_dims(1, 2)
        if never_special:
            return found
        special = tf.reduce_any(found.flat_values[:, None] == dropped[None], axis=1)
        return select(found, ~special)

    check(tokenize, own.encode)
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

    def _rank(self, ids: Any, words: Any) -> Any:
        """Ranks each id's pair with the one behind it; `_NEVER` where there is no merge."""
        import tensorflow as tf

        wide = tf.cast(ids, tf.int64)
        key = wide * self._size + following(wide, 0)
        entry = tf.searchsorted(tf.constant(self._keys), key)
        mergeable = (tf.gather(tf.constant(self._keys), entry) == key) & (
            words == following(words, tf.constant(-1, tf.int64))
        )
        return tf.where(mergeable, tf.gather(tf.constant(self._ranks), entry), _NEVER)

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
            opens = wanted & ~previous(wanted, False)
            at = tf.range(tf.size(ids))
            run = tf.cumsum(tf.cast(opens, tf.int32)) - 1
            origin = tf.gather(tf.boolean_mask(at, opens), tf.maximum(run, 0))
            chosen = wanted & ((at - origin) % 2 == 0)
            product = tf.gather(
                tf.constant(self.products),
                tf.where(chosen, ranks, tf.cast(tf.size(self.products) - 1, tf.int64)),
            )
            ids = tf.where(chosen, product, ids)
            keep = ~previous(chosen, False)
            ids, words = tf.boolean_mask(ids, keep), tf.boolean_mask(words, keep)
            return ids, words, self._rank(ids, words)

        ids, words = rows.flat_values, rows.value_rowids()
        flat = tf.TensorShape([None])
        ids, words, _ = tf.while_loop(
            lambda _ids, _words, ranks: tf.reduce_any(ranks < _NEVER),
            step,
            (ids, words, self._rank(ids, words)),
            shape_invariants=(flat, flat, flat),
        )
        return tf.RaggedTensor.from_value_rowids(ids, words, n_words)


@functools.lru_cache(maxsize=2)
def _gpt2_classes(digits: bool) -> CharClass:
    """Reads the classes of GPT-2's pattern: a character that stands for its kind.

    "a" is a letter, "1" a number (what Digits sets apart, where it comes first), "!" any other, a
    tab a blank; space, apostrophe and the letters of contractions stand for themselves.
    """
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    apart = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str

    def number(char: str) -> int:
        if char in " '" or char in "".join(_CONTRACTIONS):
            return ord(char)
        if digits and len(apart(f"a{char}a")) == 3:
            return ord("1")
        return ord(next((kind for kind in "a1!" if len(split(kind + char)) == 1), "\t"))

    def classify(text: str) -> list[int]:
        if len(split(text)) == len(apart(text)) == 1:
            return [number(text[0])] * len(text)
        return [number(char) for char in text]

    return CharClass(classify)


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
