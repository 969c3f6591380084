"""Where labels lie: shares, families, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.store.facts import AnsweredKeys, VerdictsFacts
from pipelines.store.workspace import Manifest
from pipelines.text import content_key
from pipelines.verdicts.balance import Balance, balance
from pipelines.verdicts.shown import shown_ads
from tests.verdicts import item_of, mined

WELL = Balance(30, 30, 0, 0.5, 1, "an ad", 0, 0)


def said(**changes: object) -> tuple[str, ...]:
    fields = {name: getattr(WELL, name) for name in WELL.__slots__}
    return Balance(**{**fields, **changes}).warnings()


def test_halves_that_are_well_are_not_spoken_of() -> None:
    assert WELL.warnings() == ()
    # Few labels say nothing of shares.
    assert said(fine_tuning=9, evaluation=0) == ()
    assert said(fine_tuning=20, evaluation=9) == ()
    assert said(fine_tuning=0, evaluation=0, largest=0) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation": 0},
            "all 30 labels are in the fine-tuning half, so nothing measures a model",
        ),
        ({"fine_tuning": 0}, "all 30 labels are in the evaluation half, so nothing trains"),
        (
            {"fine_tuning": 48},
            "the halves are lopsided: 48 labels for fine-tuning, 30 for evaluation (38%, where "
            "review.evaluation_share asks for 50%)",
        ),
        (
            {"evaluation_share": 0.3},
            "the halves are lopsided: 30 labels for fine-tuning, 30 for evaluation (50%, where "
            "review.evaluation_share asks for 30%)",
        ),
        (
            {"largest": 21, "example": "a\x1b[31m b"},
            "one family of ads that read nearly the same holds 21 of 60 labels, such as "
            "'a\\\\u001b[31m b'",
        ),
        ({"split": 1, "alike": 4}, "1 family lies in both halves on purpose, for a half that held"),
        ({"split": 2, "alike": 4}, "2 families lie in both halves on purpose"),
        ({"split": 2, "alike": 4}, "too large: 4 of 30 evaluation ads read nearly like an ad that"),
        ({"withheld": 8}, "8 labels are in neither half, for their ads read like ads of both"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, object], message: str) -> None:
    [line] = said(**changes)
    assert message in line


def test_labels_are_counted_by_half_and_by_family(tmp_path: Path) -> None:
    family = [f"cheap train tickets to paris from {n} pounds, booked in advance" for n in range(4)]
    others = ["a sofa", "the museum shop", "second-hand guitar", "lessons on thursday"]
    texts = [*family, *others, "nobody labelled this one"]
    place = mined(tmp_path, [item_of(f"p{i}", (f"a{i}", text)) for i, text in enumerate(texts)])
    keys = [content_key(text) for text in texts]
    answered = AnsweredKeys(
        fine_tuning=tuple(sorted(keys[0:3] + keys[4:5])),
        evaluation=tuple(sorted([keys[3], *keys[5:7]])),
        withheld=(keys[7],),
    )
    attempt = place.new_attempt(1, "verdicts")
    place.commit(Manifest.of(attempt, "h", [], 8, VerdictsFacts("tiny", 1, 0.5, 3, (), answered)))
    task, shown = place.pairs_of().facts.origin.task, shown_ads(place)
    found = balance(place, task, shown)
    assert (found.fine_tuning, found.evaluation, found.withheld) == (4, 3, 1)
    assert (found.largest, found.split, found.alike) == (4, 1, 1)
    assert found.example in family and found.evaluation_share == 0.5
    # Another version of the policy has no labels yet.
    later = task.model_copy(update={"version": 2})
    assert balance(place, later, shown) == Balance(0, 0, 0, 0.5, 0, "", 0, 0)
