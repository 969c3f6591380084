"""Graphs of text preparation and tokenization against the Python code that they stand for."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from models import embedded
from models.ad_text import prepare_ad
from models.graph import ad_text, tokens
from models.graph.tables import GraphFunction, GraphTokenizerError
from models.prompting import render
from models.tokenization import FastTokenizer
from tests.models.test_ad_text import CHAT, HOSTILE, SPEC

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[3]
HEADLINES = ROOT.parent / "shared" / "data" / "clickbait.jsonl.gz"
MAX_CHARS = 4096

Encode = Callable[[list[str]], list[Any]]


def sample_ads() -> list[str]:
    lines = (ROOT / "templates" / "samples" / "ads.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def corpus() -> list[str]:
    """Every ad of the sample, and 3,000 real headlines where they lie beside the project."""
    texts = sample_ads()
    if HEADLINES.is_file():
        with gzip.open(HEADLINES, "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for _, line in zip(range(3000), file, strict=False)]
    return texts


def attacks() -> list[str]:
    rng = random.Random(1)
    letters = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(3000))
    named = [text.encode("utf-8", "replace").decode() for text in HOSTILE.values()]
    long = [letters, "😍" * 2000, "a" * 5000, "<|" * 600 + "im_end" + "|>" * 600, "'s" * 500]
    # Each pass over the markers undoes one level, until the words alone stay.
    deep = ["Nice hat " + "<" * n + "|" * n + " é! today" for n in (3, 7, 8, 9, 500)]
    return [*named, *long, *deep, "", " ", "\n\t", "\u200b", "\ufeff", "[SEP]", "<|im_end|>"]


def run(graph: GraphFunction, traced: bool = False) -> Encode:
    """Calls a graph, traced once or operation by operation: texts in, strings or ids out."""
    import tensorflow as tf

    if traced:
        graph = tf.function(graph, input_signature=[tf.TensorSpec([None], tf.string)])

    def call(texts: list[str]) -> list[Any]:
        found = graph(tf.constant(texts, tf.string))
        if isinstance(found, tf.RaggedTensor):
            assert found.dtype == tf.int32
            return found.to_list()
        return [text.decode("utf-8") for text in found.numpy()]

    return call


@dataclasses.dataclass(frozen=True)
class Pair:
    """A graph and what it must equal."""

    graph: Encode
    python: Encode

    def differing(self, texts: list[str]) -> list[tuple[str, Any, Any]]:
        rows = zip(texts, self.graph(texts), self.python(texts), strict=True)
        return [(text, got, want) for text, got, want in rows if got != want]


@pytest.fixture(scope="module")
def bert() -> tokenizers.Tokenizer:
    folder = embedded.ensure_embedded(embedded.EMBEDDED_ENCODER)
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def smollm() -> tokenizers.Tokenizer:
    folder = embedded.ensure_embedded(embedded.EMBEDDED_LLM)
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def words(bert: tokenizers.Tokenizer) -> Pair:
    reference = tokenizers.Tokenizer.from_str(bert.to_str())
    reference.no_truncation()
    reference.no_padding()
    reference.encode_special_tokens = True

    def python(texts: list[str]) -> list[Any]:
        return [e.ids for e in reference.encode_batch_fast(texts, add_special_tokens=False)]

    # Given with its truncation and padding, as an encoder's bundle has it.
    return Pair(run(tokens.word_piece(bert), True), python)


@pytest.fixture(scope="module")
def bytes_(smollm: tokenizers.Tokenizer) -> Pair:
    return Pair(run(tokens.byte_pair(smollm), True), FastTokenizer(smollm).encode_batch)


@pytest.fixture(scope="module")
def ads(smollm: tokenizers.Tokenizer) -> Pair:
    prompt, special = render(CHAT), FastTokenizer(smollm).special_tokens

    def python(texts: list[str]) -> list[Any]:
        return [prepare_ad(text[:MAX_CHARS], prompt, special) for text in texts]

    return Pair(run(ad_text.ad_text(MAX_CHARS, prompt, special), True), python)


def every_character() -> list[str]:
    """Every code point of the two planes in use, and a page of each other that is assigned."""
    pages = [
        *range(0xD8),
        *range(0xE0, 0x200),
        0x2A6,
        0x2F8,
        0x300,
        0x400,
        0x7AB,
        0xDFF,
        0xE00,
        0xE01,
        0xF00,
        0x10FF,
    ]
    chars = [[chr(code) for code in range(page * 256, page * 256 + 256)] for page in pages]
    # Before a letter, a digit, a mark and a blank, so that every border is seen.
    return ["".join(f"a{c}1{c}!{c}  {c}" for c in page) for page in chars]


@pytest.mark.parametrize("name", ["words", "bytes_", "ads"])
def test_every_text_of_the_corpora_comes_out_the_same(
    name: str, request: pytest.FixtureRequest
) -> None:
    pair: Pair = request.getfixturevalue(name)
    assert pair.differing(corpus()) == []
    assert pair.differing(attacks()) == []


@pytest.mark.parametrize("name", ["words", "bytes_", "ads"])
def test_every_character_comes_out_the_same(name: str, request: pytest.FixtureRequest) -> None:
    pair: Pair = request.getfixturevalue(name)
    assert pair.differing(every_character()) == []


FRAGMENTS = [
    *"aZ é'\n\t!<>|[]/#09½ßİ東क़😍",
    *("'s", "'re", " '", "  ", "\u00a0", "\u3000", "\x00", "\u0301", "\u200b", "한", "ﬁ", "Ⅷ"),
    *("<|", "|>", "<|im_end|>", "[SEP]", "[ / INST ]", "＜｜", "❮❘", "</s>", "### Response:", "s"),
]
ANY_TEXT = st.text(max_size=20) | st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join)


@given(st.lists(ANY_TEXT, max_size=6))
@example([])
@example([""])
@example(["", "a", ""])
def test_any_text_comes_out_the_same(
    words: Pair, bytes_: Pair, ads: Pair, texts: list[str]
) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    assert words.differing(texts) == []
    assert bytes_.differing(texts) == []
    assert ads.differing(texts) == []


def test_no_text_becomes_a_special_token(
    bert: tokenizers.Tokenizer, smollm: tokenizers.Tokenizer, words: Pair, bytes_: Pair
) -> None:
    for tokenizer, pair in ((bert, words), (smollm, bytes_)):
        added = json.loads(tokenizer.to_str())["added_tokens"]
        special = {t["id"] for t in added if t["content"] != "[UNK]"}
        texts = [f"a {t['content']} b{t['content']}" for t in added] + attacks()
        found = {token for ids in pair.graph(texts) for token in ids}
        assert len(special) >= 4 and found.isdisjoint(special)


def test_long_words_are_unknown_by_characters_not_bytes(words: Pair) -> None:
    (whole,), (unknown,) = words.graph(["é" * 100]), words.graph(["é" * 101])
    assert unknown == [100] and len(whole) > 1
    assert words.graph(["b " + "é" * 101 + "! b"]) == [[1038, 100, 999, 1038]]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("<ad>{ad}</ad> {question}", "a</ad> No <ad>b </a</ad>d>"),
        ('Ad: "{ad}"\n{question}', 'He said "no" “now” `x` «y»'),
        ("```{ad}```\n{question}", "x ``` y `` z"),
        ("Ad: ((({ad})))", "a ))) b ))) ⑴ ㈠"),
        ("Headline: {ad}\n{question}", "a\u200bb <\u200b|x|\u200b> c<||>d <|\u200b\u200b|> e"),
    ],
)
def test_delimiters_of_the_prompt_are_protected(template: str, text: str) -> None:
    prompt = render(dataclasses.replace(SPEC, template=template))
    graph = run(ad_text.ad_text(MAX_CHARS, prompt))
    want = prepare_ad(text, prompt)
    assert graph([text]) == [want] != [text]


def test_bytes_that_are_no_text_are_read_as_python_reads_them() -> None:
    broken = [b"\xff\xfe sale", b"a\xe2\x82", b"\xed\xa0\x80x", b"\xc0\x80", b"\xf0\x9f\x98 a\x00"]
    want = [prepare_ad(text.decode("utf-8", "replace")) for text in broken]
    graph: Any = run(ad_text.ad_text(MAX_CHARS))
    assert graph(broken) == want


def test_only_so_many_characters_are_read() -> None:
    graph = run(ad_text.ad_text(5))
    texts = ["😍東é de fg", " a  bcd", "<|im|>"]
    assert graph(texts) == [prepare_ad(text[:5]) for text in texts]
    assert graph(texts) == ["😍東é d", "a b", "im|"]


def test_a_shadow_has_no_white_space_but_the_plain_space() -> None:
    # RE2's \s knows only ASCII: the pattern means the same in both libraries only for this.
    outputs = {chr(code) for code in ad_text._shadows().outputs[:-1]}
    assert {c for c in outputs if c.isspace()} == {" "}
    assert not {c for c in outputs if ord(c) < 32}


def build(change: Callable[[tokenizers.Tokenizer], None]) -> tokenizers.Tokenizer:
    """A byte-level tokenizer over a few letters, changed."""
    letters = [*pre_tokenizers.ByteLevel.alphabet()]
    merges = [("a", "a"), ("a", "b"), ("aa", "a"), ("aa", "aa"), ("b", "ab"), ("Ġ", "a")]
    vocab = {text: i for i, text in enumerate([*sorted(letters), *map("".join, merges)])}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    change(made)
    return made


@pytest.fixture(scope="module")
def toy() -> Pair:
    made = build(lambda _: None)
    return Pair(run(tokens.byte_pair(made), True), FastTokenizer(made).encode_batch)


@given(st.lists(st.text(alphabet="aab 0", max_size=30), max_size=5))
def test_merges_overlap_as_in_the_library(toy: Pair, texts: list[str]) -> None:
    assert toy.differing(texts) == []


@pytest.mark.parametrize("individual", [True, False])
def test_digits_apart(individual: bool) -> None:
    def change(made: tokenizers.Tokenizer) -> None:
        digits = pre_tokenizers.Digits(individual_digits=individual)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])

    made = build(change)
    pair = Pair(run(tokens.byte_pair(made)), FastTokenizer(made).encode_batch)
    assert pair.differing(["a 12 ab", "  34", "5'6's 7 ", "a½b٣٤", "aa  9"]) == []


def test_a_special_token_that_merges_make_is_left_out() -> None:
    made = build(lambda t: t.add_special_tokens(["aaa"]))
    pair = Pair(run(tokens.byte_pair(made)), FastTokenizer(made).encode_batch)
    special = made.token_to_id("aaa")
    assert special in made.encode("aaa").ids
    assert pair.differing(["aaa", "aaab", "b aaa aab"]) == []
    assert special not in pair.graph(["b aaa aab"])[0]


def set_part(part: str, value: Any) -> Callable[[tokenizers.Tokenizer], None]:
    return lambda made: setattr(made, part, value)


def late_merge(made: tokenizers.Tokenizer) -> None:
    vocab = {text: i for i, text in enumerate(["a", "b", "ab", "abb"])}
    made.model = models.BPE(vocab=vocab, merges=[("ab", "b"), ("a", "b")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_part("normalizer", normalizers.NFC()), "normalizer NFC"),
        (set_part("pre_tokenizer", pre_tokenizers.Whitespace()), "pre-tokenizer"),
        (set_part("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)), "prefix"),
        (set_part("model", models.WordPiece({"[UNK]": 0})), "model WordPiece: only BPE"),
        (lambda made: made.add_tokens(["   "]), "added tokens that are no markup"),
        (set_part("model", models.BPE({"a": 0}, [], ignore_merges=True)), "ignore_merges = True"),
        (late_merge, "merges: number 0"),
    ],
)
def test_byte_pairs_of_another_kind_are_refused(
    change: Callable[[tokenizers.Tokenizer], None], message: str
) -> None:
    with pytest.raises(GraphTokenizerError, match=re.escape(message)):
        tokens.byte_pair(build(change))


def pieces(vocab: dict[str, int], lowercase: bool = True) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def test_the_normalizers_own_settings_count() -> None:
    vocab = {text: i for i, text in enumerate(["[UNK]", "A", "a", "##a", "É", "##É", "é", "e"])}
    for lowercase in (True, False):
        made = pieces(vocab, lowercase)
        pair = Pair(
            run(tokens.word_piece(made)),
            lambda texts, made=made: [made.encode(text).ids for text in texts],  # type: ignore[misc]
        )
        assert pair.differing(["Aa aa É éa", "aÉ"]) == []
    assert pair.graph(["É a"]) == [[4, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_part("normalizer", normalizers.Lowercase()), "normalizer Lowercase"),
        (set_part("normalizer", None), "normalizer none: only BertNormalizer"),
        (set_part("pre_tokenizer", pre_tokenizers.Whitespace()), "pre_tokenizer Whitespace"),
        (set_part("model", models.BPE()), "model BPE: only WordPiece"),
        (set_part("model", models.WordPiece({"a": 0}, unk_token="[UNK]")), "'[UNK]' is missing"),
        (set_part("model", models.WordPiece({"[UNK]": 0, "a": 2})), "without gaps"),
    ],
)
def test_word_pieces_of_another_kind_are_refused(
    change: Callable[[tokenizers.Tokenizer], None], message: str
) -> None:
    made = pieces({"[UNK]": 0, "a": 1})
    change(made)
    with pytest.raises(GraphTokenizerError, match=re.escape(message)):
        tokens.word_piece(made)


def test_ends_of_a_sequence(bert: tokenizers.Tokenizer) -> None:
    assert tokens.ends(bert) == ([101], [102])
    made = pieces({"[UNK]": 0, "a": 1, "<e>": 2})
    assert tokens.ends(made) == ([], [])
    made.post_processor = processors.TemplateProcessing(
        single="$A <e>", special_tokens=[("<e>", 2)]
    )
    assert tokens.ends(made) == ([], [2])


def test_a_graph_that_differs_is_never_returned(
    smollm: tokenizers.Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_CONTRACTIONS", ("s", "t"))
    with pytest.raises(GraphTokenizerError, match="the graph splits"):
        tokens.byte_pair(smollm)
