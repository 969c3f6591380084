"""What groups of texts are about: words that tell them apart, in any script, and no more than words."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.report import themes
from pipelines.report.themes import group_themes, units
from tests.real_tools.browser.test_review_page import HOSTILE

LOANS = [
    "Borrow cash today, no credit check",
    "Cash loans without a credit check",
    "A cash loan now",
]
PILLS = ["Lose ten kilos with our pills", "Pills that melt kilos", "Kilos gone, eat pizza: pills!"]


def themes_of(*groups: list[str], words: int = 5) -> list[tuple[str, ...]]:
    texts = [text for group in groups for text in group]
    number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return list(group_themes(texts, number, len(groups), words))


def test_words_tell_a_group_from_the_others() -> None:
    loans, pills = themes_of(LOANS, PILLS)
    assert set(loans) == {"cash", "credit", "check"}
    assert set(pills) == {"pills", "kilos"}
    assert themes_of(LOANS, PILLS, words=1) == [("check",), ("kilos",)], "ties by the word"


def test_a_word_counts_by_class_based_tf_idf() -> None:
    # In two groups of six words in all, A = 6: "common" is in all four texts, "rare" in two.
    first, second = themes_of(
        ["common rare x9y", "common rare"], ["common orange", "common orange"]
    )
    assert first == ("rare", "common") and second == ("orange", "common")
    # log(1 + A / tf): the sum over groups of texts with a word is 8, of two groups.
    assert np.sqrt(2) * np.log1p(4 / 2) > np.sqrt(2) * np.log1p(4 / 4)


def test_a_text_that_shouts_a_word_counts_it_once_and_one_text_is_no_group() -> None:
    [shouted, _] = themes_of(["buy " * 90, "garden", "garden"], PILLS)
    assert shouted == ("garden",)


def test_words_in_most_texts_numbers_and_english_stop_words_tell_nothing() -> None:
    texts = [f"brand{i % 7} everywhere 2026 the don't you're" for i in range(70)]
    found = group_themes(texts, np.arange(70) % 7, 7, 9)
    assert found == tuple((f"brand{i}",) for i in range(7))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Grandma’s AI tv is NOT it's", ["grandma", "AI".lower()]),
        ("ﬁnance ＦＲＥＥ", ["finance", "free"]),
        ("गारंटी वाला", ["गारंटी", "वाला"]),
        ("größer да нет Ωμέγα", ["größer", "нет", "ωμέγα"]),
        ("投资收益", ["投资", "资收", "收益", "投资收", "资收益", "投资收益"]),
        ("投资bitcoin", ["投资", "bitcoin"]),
        ("x" * 20_000, []),
        ("", []),
        ("\u202e<b>&amp;\x00\u200b 🤑 12,000", ["amp"]),
    ],
)
def test_units(text: str, found: list[str]) -> None:
    assert units(text) == found


def test_scripts_without_spaces_get_runs_of_letters() -> None:
    coins = ["投资比特币,保证每天收益", "比特币投资收益有保证", "比特币保证"]
    slim = ["每周减肥十公斤的神奇药丸", "神奇药丸减肥不节食"]
    of_coins, of_slim = themes_of(coins, slim)
    assert {"比特币", "保证"} <= set(of_coins) and "比特" not in of_coins, (
        "whole, where it comes whole"
    )
    assert "神奇药丸" in of_slim and "神奇" not in of_slim and "减肥" in of_slim


def test_plurals_are_one_word() -> None:
    [found, _] = themes_of(["loan loans", "loan loans", "loan party parties"] * 2, PILLS)
    assert set(found) == {"loan", "party"}


def test_nothing_of_an_ad_but_letters_digits_and_apostrophes_gets_through() -> None:
    found = group_themes(HOSTILE * 3, np.arange(3 * len(HOSTILE)) % 2, 2, 50)
    assert any(found)
    for word in (word for words in found for word in words):
        assert 2 <= len(word) <= themes._WORD_CHARS * 4
        assert not set(word) & set('<>&"`{}\u202e\u200b\x00 \n')


def test_groups_without_texts_or_words_have_no_theme() -> None:
    assert group_themes(["", "!!", "1"], np.array([0, 1, 1]), 3, 5) == ((), (), ())
    assert group_themes([], np.zeros(0, dtype=int), 2, 5) == ((), ())
    assert themes_of(PILLS, [], LOANS)[1] == ()


def test_only_the_beginning_of_a_text_is_read() -> None:
    late = ["a" * 3 + " " * themes.TEXT_CHARS + " hidden"] * 3
    assert themes_of(late, PILLS)[0] == ("aaa",)
