"""A committee of prompt forms: short questions asked of the same ad side by side, weighed and summed.

On a small language model one wording ranks well on one policy and backwards on the next, and which
is not known beforehand. All forms begin alike, so an ad is read once whatever their number; behind
it each costs its own few tokens. Which forms are listened to is `pipelines.numerics.committee`'s.

Pure Python and NumPy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.prompting import PromptSpec
from pipelines.numerics.committee import add_up

# Every form begins so; what the policy says enters by the weights. Behind a policy of 60 tokens the
# same questions rank worse and cost more.
OPENING = "Ad: {ad}\n"


@dataclass(frozen=True, slots=True)
class Form:
    """A question to a language model about one ad.

    Attributes:
        name: as people see it.
        cue: what stands in the lines behind the ad, with the placeholders of `PromptSpec.template`.
        positive: the answer that means "violates"; `{positive}` and `{negative}` are the labels'
            names.
        negative: the other answer.
    """

    name: str
    cue: str
    positive: str
    negative: str


_YES, _TRUE = (" Yes", " No"), (" True", " False")
_NAMES = (" {positive}", " {negative}")

# Completions whose answer is a word; a chat's markup costs more tokens than the question and ranked
# no better in a model of this size.
FORMS = (
    Form("label name, true or false", "{Positive}:", *_TRUE),
    Form("label name, yes or no", "{Positive}:", *_YES),
    Form("violates, yes or no", "Violates the policy:", *_YES),
    Form("violates, true or false", "Violates the policy:", *_TRUE),
    Form("allowed, no or yes", "Allowed:", " No", " Yes"),
    Form("category", "Category:", *_NAMES),
    Form("label", "Label:", *_NAMES),
    Form("this is", "This is", *_NAMES),
    Form("choice", "Is this {positive} or {negative}?\nAnswer:", *_NAMES),
    Form("question, yes or no", "Question: {question}\nAnswer:", *_YES),
    Form("question, true or false", "Question: {question}\nAnswer:", *_TRUE),
    Form("verdict, bad or good", "Verdict:", " bad", " good"),
    Form("this is, bad or good", "This is", " bad", " good"),
    Form("terrible or great", "This ad is", " terrible", " great"),
)


def own_form(cue: str, positive: str, negative: str) -> Form:
    """Return a form that a task file states, called by its words."""
    return Form(f"{cue}{positive} or{negative}", cue, positive, negative)


def prompt_of(form: Form, base: PromptSpec) -> PromptSpec:
    """Return a form as a prompt of its own, about the policy, question and labels of another."""
    return dataclasses.replace(
        base,
        form="completion",
        template=OPENING + form.cue,
        positive_answer=form.positive,
        negative_answer=form.negative,
        examples=(),
    )


@dataclass(frozen=True, slots=True)
class Member:
    """A form with its voice.

    Attributes:
        form: what is asked.
        weight: its share of the sum, above 0.
        center: its mean margin on the pilot's ads, in log-odds.
        scale: the margins' standard deviation there, above 0.
    """

    form: Form
    weight: float
    center: float
    scale: float


@dataclass(frozen=True, slots=True)
class Committee:
    """Members, the policy's own words beside them, and the scale of their sum.

    Attributes:
        members: at least one.
        encoder: the sentence encoder whose similarity of an ad to the policy speaks as well, as in
            `presets.load_encoder`.
        weight: of that similarity, beside members that weigh 1 together; 0 or more.
        center, scale: of that similarity on the pilot's ads.
        slope, offset: margin = offset + slope * sum.
    """

    members: tuple[Member, ...]
    encoder: str
    weight: float
    center: float
    scale: float
    slope: float
    offset: float

    def combine(self, answers: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Return one margin an ad.

        Args:
            answers: float (n, members), in log-odds; NaN stays NaN.
            similarity: float (n,), of the ad to the policy.

        Returns:
            float64 (n,), in log-odds.
        """
        numbers = np.array([(m.weight, m.center, m.scale) for m in self.members])
        heard = add_up(answers, *numbers.T)
        return self.offset + self.slope * (heard + self.nearness(similarity))

    def nearness(self, similarity: np.ndarray) -> np.ndarray:
        """Return what the similarity says in the sum, float64 (n,)."""
        return self.weight * (similarity.astype(np.float64) - self.center) / self.scale

    def digest(self, prompt_hashes: Sequence[str], policy: str, encoder_id: str) -> str:
        """Return 16 hexadecimal digits over all that decides a margin beside the weights."""
        numbers = [[m.weight, m.center, m.scale] for m in self.members]
        own = [self.weight, self.center, self.scale, self.slope, self.offset]
        shape = [list(prompt_hashes), numbers, own, policy, encoder_id]
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]
