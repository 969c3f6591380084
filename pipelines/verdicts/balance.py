"""How the labels lie in the two halves: as shares, and by families of ads that read nearly the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.config import Task
from pipelines.console.visible import printable
from pipelines.numerics.families import components, near_duplicates
from pipelines.store.workspace import Workspace
from pipelines.text import normalize_text
from pipelines.verdicts.shown import Shown

# Fewer labels say nothing of shares.
_SOME, _ENOUGH = 10, 30
_LOPSIDED = 0.1
_DOMINATING = 1 / 3
_EXAMPLE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Balance:
    """Where the labels of a version of the policy are; no label is read for it.

    Attributes:
        fine_tuning, evaluation, withheld: ads with a label, by half, and in neither.
        evaluation_share: wanted share of the evaluation half.
        largest: labels of the largest family, both halves together; 1 where no two ads are alike.
        example: the text of one of its ads.
        split: families with labels in both halves.
        alike: evaluation ads that read nearly like a fine-tuning ad.
    """

    fine_tuning: int
    evaluation: int
    withheld: int
    evaluation_share: float
    largest: int
    example: str
    split: int
    alike: int

    def warnings(self) -> tuple[str, ...]:
        """Return what a person should know before the halves are trusted, a sentence each."""
        inside, found = self.fine_tuning + self.evaluation, []
        off = abs(self.evaluation - self.evaluation_share * inside)
        if inside >= _SOME and not (self.fine_tuning and self.evaluation):
            half, effect = ("fine-tuning", "nothing measures a model")
            if self.evaluation:
                half, effect = ("evaluation", "nothing trains")
            found.append(
                f"all {inside:,} labels are in the {half} half, so {effect}: the next round's ads fill "
                "the other half first"
            )
        elif inside >= _ENOUGH and off > _LOPSIDED * inside:
            found.append(
                f"the halves are lopsided: {self.fine_tuning:,} labels for fine-tuning, "
                f"{self.evaluation:,} for evaluation ({self.evaluation / inside:.0%}, where "
                f"review.evaluation_share asks for {self.evaluation_share:.0%}); the next round's ads "
                "fill the smaller half first"
            )
        if inside >= _SOME and self.largest > _DOMINATING * inside:
            found.append(
                f"one family of ads that read nearly the same holds {self.largest:,} of {inside:,} "
                f"labels, such as {printable(self.example, _EXAMPLE_CHARS)!r}: what is learnt and "
                "measured is mostly about it"
            )
        if self.alike:
            families = "1 family lies" if self.split == 1 else f"{self.split:,} families lie"
            found.append(
                f"{families} in both halves on purpose, for a half that held such a family of ads that "
                f"read nearly the same would be too large: {self.alike:,} of {self.evaluation:,} "
                "evaluation ads read nearly like an ad that trains, and models' kappas are the kinder "
                "for it"
            )
        if self.withheld > _LOPSIDED * (inside + self.withheld):
            found.append(
                f"{self.withheld:,} labels are in neither half, for their ads read like ads of both"
            )
        return tuple(found)


def balance(workspace: Workspace, task: Task, shown: Shown) -> Balance:
    """Tell how the labels of a version of the policy lie in the halves; by manifests and texts alone.

    Time: quadratic in the labels, see :func:`pipelines.numerics.families.near_duplicates`.
    """
    keys = [found.facts.keys for found in workspace.verdicts_of(task.version).values()]
    training = {key for found in keys for key in found.fine_tuning}
    judging = {key for found in keys for key in found.evaluation}
    withheld = sum(len(found.withheld) for found in keys)
    largest, example, split, alike = _families(training, judging, shown.texts())
    return Balance(
        fine_tuning=len(training),
        evaluation=len(judging),
        withheld=withheld,
        evaluation_share=task.review.evaluation_share,
        largest=largest,
        example=example,
        split=split,
        alike=alike,
    )


def _families(
    training: Collection[str], judging: Collection[str], texts: Mapping[str, str]
) -> tuple[int, str, int, int]:
    keys = sorted(key for key in {*training, *judging} if key in texts)
    if not keys:
        return 0, "", 0, 0
    edges = near_duplicates([normalize_text(texts[key]) for key in keys]).edges
    family = components(len(keys), edges)
    sizes = np.bincount(family)
    number, largest = int(sizes.argmax()), int(sizes.max())
    judges = np.array([key in judging for key in keys], dtype=bool)
    crossing = np.unique(edges[judges[edges[:, 0]] != judges[edges[:, 1]]])
    alike = crossing[judges[crossing]]
    split = np.unique(family[alike])
    return largest, texts[keys[int((family == number).argmax())]], len(split), len(alike)
