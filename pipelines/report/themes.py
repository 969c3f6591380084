"""What groups of texts are about: their most telling words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import regex
from scipy import sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

# Of a text so much is read: a theme needs no more, and one text must not fill the memory.
TEXT_CHARS = 400
_WORD_CHARS = 24
# A word in more than this share of all texts tells of none.
_COMMON_SHARE = 0.2
# A word must be in this share of its group's texts: less is an accident.
_TELLING_SHARE = 0.02
# Written without spaces between words; what stands for a word there is a run of letters.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_RUN = regex.compile(rf"[{_UNSPACED}\p{{M}}ー々]+")
_UNIT = regex.compile(
    rf"(?<run>[{_UNSPACED}][{_UNSPACED}\p{{M}}ー々]*)"
    rf"|(?<word>(?:(?![{_UNSPACED}])[\p{{L}}\p{{N}}]\p{{M}}*)+(?:['’](?![{_UNSPACED}])\p{{L}}+)*)"
)
_GRAPHEME = regex.compile(r"\X")
_GRAMS = (2, 3, 4)
# A longer run in so many of a shorter one's texts says the same, and says it whole.
_SAME_TEXTS = 0.6


def group_themes(
    texts: Sequence[str], group: np.ndarray, n_groups: int, words: int
) -> tuple[tuple[str, ...], ...]:
    """Return the words that tell each group of texts from the others, most telling first.

    A word weighs by class-based tf-idf (c-TF-IDF: Grootendorst, BERTopic, 2022, arXiv 2203.05794):
    tf(word, group) * log(1 + A / tf(word)), A the mean number of words a group. Here tf counts the
    texts that hold a word, so that a text which shouts it twenty times counts once, and its root is
    taken (BERTopic's ``reduce_frequent_words``): without, everyday words lead. English stop words,
    numbers, words of two letters but for capitals, and words in over a fifth of all texts are left out;
    a word must be in two texts of its group, and in 2% of them. Scripts without spaces between words
    give runs of two to four letters, as search engines index them.

    Args:
        texts: any strings (n,); of each the first 400 characters are read.
        group: int (n,), in [0, n_groups).
        n_groups: how many groups there are.
        words: returned for a group at most.

    Returns:
        For each group up to ``words`` words in lower case, of letters, marks, digits and apostrophes
        alone; none where nothing tells it from the others.

    Memory: about 100 bytes a distinct word and 12 a word of a text: 20,000 texts of 400 characters 100 MB,
    three times that in Chinese or Thai.
    """
    counts, names = _counts(texts, group, n_groups)
    if not names:
        return ((),) * n_groups
    total = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    # TfidfTransformer has the idf of documents, not of classes.
    idf = np.log1p(total.sum() / n_groups / np.maximum(total, 1.0))
    sizes = np.bincount(group, minlength=n_groups)
    found = []
    for number in range(n_groups):
        part = slice(counts.indptr[number], counts.indptr[number + 1])
        columns, inside = counts.indices[part], counts.data[part]
        often = inside >= max(2.0, _TELLING_SHARE * sizes[number])
        columns, inside = columns[often], inside[often]
        weights = np.sqrt(inside) * idf[columns]
        # Ties by the word itself: the order of a vocabulary is nobody's business.
        ranked = sorted(
            zip(weights, columns, inside, strict=True), key=lambda e: (-e[0], names[e[1]])
        )
        told = [(names[column], int(texts)) for _, column, texts in ranked]
        found.append(_distinct(told[: 12 * words], words))
    return tuple(found)


def _counts(texts: Sequence[str], group: np.ndarray, n_groups: int) -> tuple[Any, list[str]]:
    """Return in how many texts of each group a word is, CSR (n_groups, words), and the words."""
    vectorizer = CountVectorizer(analyzer=units, binary=True, dtype=np.int32)
    try:
        found = vectorizer.fit_transform(texts)
    except ValueError:
        # Not a single word anywhere: scikit-learn's "empty vocabulary".
        return sparse.csr_matrix((n_groups, 0)), []
    spread = np.asarray(found.sum(axis=0)).ravel()
    # Of a handful of texts a fifth is one.
    kept = np.flatnonzero((spread > 1) & (spread <= max(10, _COMMON_SHARE * len(texts))))
    names = vectorizer.get_feature_names_out()[kept].tolist()
    member = sparse.csr_matrix(
        (np.ones(len(group), dtype=np.int32), (group, np.arange(len(group)))),
        shape=(n_groups, len(group)),
    )
    return (member @ found[:, kept]).tocsr(), names


def units(text: str) -> list[str]:
    """Return a text's words, of scripts without spaces runs of two to four letters; in lower case."""
    found: list[str] = []
    for match in _UNIT.finditer(unicodedata.normalize("NFKC", text[:TEXT_CHARS])):
        if match["run"]:
            letters = _GRAPHEME.findall(match["run"])
            for size in _GRAMS:
                found += ["".join(letters[i : i + size]) for i in range(len(letters) - size + 1)]
        else:
            word = match["word"].lower().replace("’", "'").removesuffix("'s")
            shortest = 2 if match["word"].isupper() else 3
            if (
                shortest <= len(word) <= _WORD_CHARS
                and any(char.isalpha() for char in word)
                # Contractions, too: you're, it'll, don't.
                and word.partition("'")[0] not in ENGLISH_STOP_WORDS
                and not word.endswith("n't")
            ):
                found.append(word)
    return found


def _distinct(told: Sequence[tuple[str, int]], words: int) -> tuple[str, ...]:
    """Drop words that say again what another one says: plurals, and parts of a longer run."""
    kept: list[tuple[str, int]] = []
    for word, texts in told:
        twin = next((i for i, (other, _) in enumerate(kept) if _alike(word, other)), None)
        if twin is None:
            kept.append((word, texts))
            continue
        other, of = kept[twin]
        if _RUN.fullmatch(word):
            better = len(word) > len(other) and texts >= _SAME_TEXTS * of
        else:
            better = texts > of or (texts == of and len(word) < len(other))
        if better:
            rest = [entry for entry in kept[twin + 1 :] if not _alike(word, entry[0])]
            kept[twin:] = [(word, max(texts, of)), *rest]
    return tuple(word for word, _ in kept[:words])


def _alike(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    if _RUN.fullmatch(word) and _RUN.fullmatch(other):
        # Runs that overlap by all but a letter are pieces of the same one.
        return short in long or word[1:] == other[:-1] or word[:-1] == other[1:]
    return long in (short, f"{short}s", f"{short}es") or (
        short[-1:] == "y" and long == f"{short[:-1]}ies"
    )
