"""Templates behind texts: what stays of them once the words that vary are taken out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

SLOT = "…"
# Words of a template that stand in every text of it, at least so many and this part of the text.
_FIXED_WORDS, _FIXED_SHARE = 3, 0.5


def skeletons(texts: Sequence[str], least: int = 3) -> list[str]:
    """Return each text with its rarer words and its numbers replaced by slots, "" where too little is left.

    Texts of one skeleton were written by one template, if there are several: the fixed words of a
    template are as frequent as it is, what it is filled with is rarer. Words are what white space parts; a
    script that parts none has no skeletons.

    Args:
        texts: n distinct texts.
        least: texts in which a word stands at least, to be no filling; and a quarter as many as the middle
            one of the text's words.

    Memory: the words of all texts.

    Source: Vaarandi (2003), a data clustering algorithm for mining patterns from event logs (SLCT), with
    words wherever they stand, and a bound that goes by the text instead of one for all.
    """
    split = [text.casefold().split() for text in texts]
    seen = Counter(word for words in split for word in set(words))
    found = []
    for words in split:
        counts = sorted(seen[word] for word in words)
        wanted = max(least, counts[len(counts) // 2] / 4) if counts else least
        kept = [
            SLOT if seen[word] < wanted or any(map(str.isdigit, word)) else word for word in words
        ]
        fixed = sum(word != SLOT and any(map(str.isalpha, word)) for word in kept)
        if fixed < _FIXED_WORDS or fixed < _FIXED_SHARE * len(words):
            found.append("")
            continue
        repeated = [word == SLOT == before for before, word in zip(["", *kept], kept, strict=False)]
        found.append(" ".join(w for w, again in zip(kept, repeated, strict=True) if not again))
    return found


def templates(texts: Sequence[str], least: int = 3) -> list[tuple[str, int]]:
    """Return the skeletons that at least ``least`` texts share, with how many; the largest first."""
    counts = Counter(skeleton for skeleton in skeletons(texts, least) if skeleton)
    found = [(skeleton, number) for skeleton, number in counts.items() if number >= least]
    return sorted(found, key=lambda item: (-item[1], item[0]))
