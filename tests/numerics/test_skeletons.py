"""Templates are found again, whatever fills them; what is no template is none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.numerics.skeletons import SLOT, skeletons, templates
from tests import helpers

FORMS = (
    "Cheap train tickets to {city} from £{n}, booked in advance",
    "Hotels in {city} with breakfast and a view of the sea",
    "Learn the language of {city} in {n} weeks or your money back",
)


def filled(number: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    cities = [
        f"{a}{b}" for a in ("North", "South", "East", "Old", "New") for b in ("ham", "ton", "field")
    ]
    return [
        rng.choice(FORMS).format(
            city=rng.choice(cities) + rng.choice(cities), n=rng.randrange(5, 90)
        )
        for _ in range(number)
    ]


def test_the_templates_of_a_corpus_are_found() -> None:
    texts = list(dict.fromkeys(filled(400)))
    found = templates(texts)
    assert sum(number for _, number in found) == len(texts)
    assert {text for text, _ in found} == {
        f"cheap train tickets to {SLOT} from {SLOT} booked in advance",
        f"hotels in {SLOT} with breakfast and a view of the sea",
        f"learn the language of {SLOT} in {SLOT} weeks or your money back",
    }
    assert [number for _, number in found] == sorted((n for _, n in found), reverse=True)


def test_texts_without_a_template_have_none() -> None:
    rng = random.Random(2)
    texts = [" ".join(rng.sample(helpers.FILLERS, 9)) for _ in range(200)]
    assert templates(texts) == []


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["One text alone, whatever it says of things"],
        # Two are no template yet, and few words are none.
        ["The shop has kettles in stock today"] * 2,
        ["Buy it now", "Buy this now", "Buy that now", "Buy all now"],
        # A script that parts no words.
        [f"ราคาถูกที่สุดในวันนี้{n}" for n in range(9)],
    ],
)
def test_what_is_no_template(texts: list[str]) -> None:
    assert templates(texts) == []


@given(st.lists(st.text(max_size=40), max_size=20))
def test_every_text_has_one_skeleton_or_none(texts: list[str]) -> None:
    found = skeletons(texts)
    assert len(found) == len(texts)
    assert found == [skeletons(texts)[i] for i in range(len(texts))]
    assert all(f"{SLOT} {SLOT}" not in text for text in found)
    # Order changes nothing.
    assert sorted(found) == sorted(skeletons(texts[::-1]))
