"""Forms as prompts, and how a committee's answers add up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models import committee, presets
from models.backends.base import LabelerSpec
from models.backends.keras_llm import KerasLLM, LLMLabeler
from models.backends.prompted import Chair
from models.committee import FORMS, Committee, Form, Member, prompt_of
from models.encoder import SentenceEncoder
from models.policy import PolicySimilarity
from models.presets import EMBEDDED_ENCODER, CausalLMBundle
from models.prompting import PromptSpec, render
from pipelines.numerics.calibration import MARGIN_STEP

SPEC = PromptSpec(
    policy="Ads must not promise a cure {for anything}.",
    question="Is this ad a scam?",
    labels=("scam", "honest"),
)
SEATED = Committee(
    members=(
        Member(Form("category", "Category:", " {positive}", " {negative}"), 0.7, 1.0, 2.0),
        Member(Form("verdict", "Verdict:", " bad", " good"), 0.5, -1.0, 0.5),
    ),
    encoder=EMBEDDED_ENCODER,
    weight=0.25,
    center=0.2,
    scale=0.1,
    slope=2.0,
    offset=-1.5,
)


def test_forms_begin_alike_and_know_the_labels() -> None:
    prompts = [render(prompt_of(form, SPEC)) for form in FORMS]
    assert {prompt.prefix for prompt in prompts} == {"Ad: "}
    assert len({prompt.hash for prompt in prompts}) == len(FORMS)
    by_name = dict(zip([form.name for form in FORMS], prompts, strict=True))
    assert by_name["category"].suffix == "\nCategory:"
    assert by_name["category"].positive_answer == " scam"
    assert by_name["label name, yes or no"].suffix == "\nScam:"
    assert by_name["question, yes or no"].suffix == "\nQuestion: Is this ad a scam?\nAnswer:"
    # A question's braces are text.
    odd = dataclasses.replace(SPEC, question="Is {this} {positive}?")
    asked = render(prompt_of(FORMS[9], odd)).suffix
    assert asked == "\nQuestion: Is {this} {positive}?\nAnswer:"


def test_answers_add_up_standardised() -> None:
    found = SEATED.combine(np.array([[3.0, -1.0], [1.0, 0.0]]), np.array([0.2, 0.4]))
    # 0.7 * (3 - 1) / 2 = 0.7; 0.5 * (0 + 1) / 0.5 = 1, and .25 * (.4 - .2) / .1 = .5 beside it.
    np.testing.assert_allclose(found, [-1.5 + 2 * 0.7, -1.5 + 2 * 1.5])
    assert np.isnan(SEATED.combine(np.array([[np.nan, 1.0]]), np.array([0.2])))[0]


@pytest.mark.parametrize("field", ["weight", "center", "scale", "slope", "offset"])
def test_every_number_is_part_of_what_identifies_a_margin(field: str) -> None:
    other = dataclasses.replace(SEATED, **{field: getattr(SEATED, field) + 0.5})
    assert other.digest(["a", "b"], "p", "e") != SEATED.digest(["a", "b"], "p", "e")


def test_prompts_policy_and_encoder_are_part_of_it_too() -> None:
    own = SEATED.digest(["a", "b"], "p", "e")
    others = [(["a", "c"], "p", "e"), (["a", "b"], "q", "e"), (["a", "b"], "p", "f")]
    assert own not in [SEATED.digest(*other) for other in others]


ADS = [
    "Cure for everything, doctors hate it",
    "Fresh bread",
    "",
    "Repairs of bicycles while you wait, every weekday from nine to five, at the old station",
]


@pytest.mark.model
def test_a_committee_is_its_members_and_the_words(tiny: CausalLMBundle) -> None:
    encoder = SentenceEncoder(presets.load_encoder(EMBEDDED_ENCODER))
    chair = Chair(SEATED, PolicySimilarity(encoder, SPEC.policy))
    prompts = [prompt_of(member.form, SPEC) for member in SEATED.members]
    labeler = LLMLabeler(tiny, *prompts, chair=chair, max_ad_tokens=64)
    batch = labeler.label(ADS)
    alone = [LLMLabeler(tiny, prompt, max_ad_tokens=64).label(ADS) for prompt in prompts]
    answers = np.column_stack([one.margin for one in alone])
    near = chair.similarity.of_vectors(encoder.encode(ADS))
    want = SEATED.combine(answers, near)
    assert np.isnan(batch.margin[2])
    told = [0, 1, 3]
    np.testing.assert_allclose(batch.margin[told], want[told], atol=0.02)
    np.testing.assert_allclose(
        batch.vectors[told].astype(float), alone[0].vectors[told].astype(float), atol=2e-3
    )
    # An ad's margin is its own, to the bit.
    for place in told:
        assert labeler.label([ADS[place]]).margin[0] == batch.margin[place]
    # The encoder's vectors, where they are the ads' own, are computed once and the margins the same.
    shared = LLMLabeler(tiny, *prompts, chair=chair, embedder=encoder, max_ad_tokens=64)
    np.testing.assert_array_equal(shared.label(ADS).margin, batch.margin)
    for place in told:
        reading = labeler.read(ADS[place])
        assert [said.name for said in reading.said] == ["category", "verdict"]
        assert [said.prompt for said in reading.said] == [
            f"Ad: {reading.kept}\nCategory:",
            f"Ad: {reading.kept}\nVerdict:",
        ]
        assert [said.weight for said in reading.said] == [0.7, 0.5]
        assert reading.similarity == pytest.approx(near[place])
        # Rounded to the grid is what was stored.
        parts = sum(said.adds for said in reading.said) + reading.similarity_adds + reading.offset
        assert parts == pytest.approx(batch.margin[place], abs=MARGIN_STEP / 2 + 1e-6)
    assert labeler.read("").kept == "" and np.isnan(labeler.read("").said[0].answer)


@pytest.mark.model
def test_a_backend_knows_the_committee_that_it_loads(llm_preset: str) -> None:
    spec = LabelerSpec(llm_preset, SPEC, dtype="float32", max_ad_tokens=32, committee=SEATED)
    backend = KerasLLM(spec)
    assert backend.load().identity == backend.identify()
    other = dataclasses.replace(spec, committee=dataclasses.replace(SEATED, offset=0.0))
    assert KerasLLM(other).identify() != backend.identify()
    assert KerasLLM(dataclasses.replace(spec, committee=None)).identify() != backend.identify()


@pytest.mark.model
def test_a_pilot_leaves_out_what_a_model_cannot_answer(llm_preset: str) -> None:
    forms = [FORMS[5], Form("same", "This is", " yes", " yes indeed"), FORMS[11]]
    backend = KerasLLM(LabelerSpec(llm_preset, SPEC, dtype="float32", max_ad_tokens=32))
    answers, near = backend.pilot([prompt_of(f, SPEC) for f in forms], EMBEDDED_ENCODER, ADS)
    assert answers.shape == (4, 3) and near.shape == (4,)
    assert np.isnan(answers[:, 1]).all() and np.isnan(answers[2]).all()
    assert np.isfinite(answers[[0, 1, 3]][:, [0, 2]]).all()


def test_shipped_forms_have_names_of_their_own() -> None:
    names = [form.name for form in committee.FORMS]
    assert len(set(names)) == len(names)
