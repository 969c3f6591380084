"""BERT's tokenization as a TensorFlow graph."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from models.graph.tables import (
    CharClass,
    CharMap,
    GraphFunction,
    GraphTokenizerError,
    check,
    decode,
    encode,
    expect,
    previous,
    select,
    split_words,
)

if TYPE_CHECKING:
    import tokenizers

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
        rows = decode(texts)
        values, places = normalize(rows.flat_values)
        row = tf.gather(rows.value_rowids(), places)
        kinds = classes(values)
        same_row = row == previous(row, tf.constant(-1, tf.int64))
        runs_on = (kinds == _TEXT) & (previous(kinds, _SPACE) == _TEXT) & same_row
        solid = kinds != _SPACE
        chars = tf.RaggedTensor.from_value_rowids(values, row, rows.nrows())
        words, counts = split_words(select(chars, solid), tf.boolean_mask(~runs_on, solid))
        strings = tf.where(words.row_lengths() > max_chars, too_long, encode(words))
        ids = pieces.tokenize(strings)
        return tf.RaggedTensor.from_row_lengths(ids, counts).merge_dims(1, 2)

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
def _normalizer(source: str) -> CharMap:
    from tokenizers import normalizers

    kept = {key: value for key, value in json.loads(source).items() if key != "type"}
    return CharMap(normalizers.BertNormalizer(**kept).normalize_str)


@functools.lru_cache(maxsize=1)
def _bert_classes() -> CharClass:
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str

    def number(char: str) -> int:
        return (_TEXT, _SPACE, _ALONE)[len(split(f"a{char}a")) - 1]

    def uniform(text: str) -> bool:
        return len(split(text)) == 1 and number(text[0]) == _TEXT

    return CharClass(number, uniform)
