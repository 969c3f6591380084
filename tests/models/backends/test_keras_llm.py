"""The labeler against the plain forward pass, and what its results may depend on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from models.backends.keras_llm import LLMLabeler, bucket_length
from models.presets import CausalLMBundle
from models.prompting import PromptSpec, PromptWindow, render
from pipelines.numerics.calibration import MARGIN_STEP

pytestmark = pytest.mark.model

COMPLETION = PromptSpec(
    policy="No clickbait.", question="Clickbait:", template="Headline: {ad}\n{question}"
)
CHAT = PromptSpec(
    policy="Clickbait: a headline that withholds what it is about to make the reader click.",
    question="Is this headline clickbait?",
    form="chat",
)
CLICKBAIT = [
    "17 Things Only People Who Grew Up In The '90s Will Understand",
    "You Won't Believe What This Cat Did Next",
    "Which Disney Princess Are You Based On Your Zodiac Sign",
    "This Is What Happens When You Let Your Dad Plan The Wedding",
    "Can You Guess The Movie From One Single Frame",
    "21 Life-Changing Hacks For People Who Hate Cooking",
    "The Most Heartwarming Thing You'll See All Day 😍",
    "Here's Why Everyone Is Obsessed With This $5 Lipstick",
]
NEWS = [
    "Parliament approves budget after all-night session",
    "Oil prices fall 2 percent as OPEC raises output",
    "Earthquake of magnitude 6.1 strikes off northern Chile",
    "Russia and Ukraine sign gas transit agreement",
    "Former prime minister of Pakistan returns from exile",
    "Shares in Tokyo close higher on export data",
    "Bundesbank senkt Prognose für 2025",
    "東京で震度4の地震、津波の心配なし",
]
ADS = [*CLICKBAIT, *NEWS]


@pytest.fixture(scope="module")
def completion(llm: CausalLMBundle) -> LLMLabeler:
    return LLMLabeler(llm, COMPLETION)


@pytest.fixture(scope="module")
def completion32(llm32: CausalLMBundle) -> LLMLabeler:
    return LLMLabeler(llm32, COMPLETION)


@pytest.fixture(scope="module")
def tiny_labeler(tiny: CausalLMBundle) -> LLMLabeler:
    return LLMLabeler(tiny, CHAT, max_ad_tokens=12)


def plain(bundle: CausalLMBundle, spec: PromptSpec, ad: str) -> tuple[float, np.ndarray]:
    """One ad through the stock model, unpadded: its margin and mean hidden state."""
    from keras import ops

    window = PromptWindow(bundle, [spec], 256)
    prefix, suffix = window.prefix, window.suffixes[0]
    ids = bundle.tokenizer.encode(window.lead + ad)
    positive, negative = window.answers[0]
    row = np.array([[*prefix, *ids, *suffix]], np.int32)
    inputs = {"token_ids": row, "padding_mask": np.ones_like(row)}
    hidden = ops.convert_to_numpy(ops.cast(bundle.model.backbone(inputs), "float32"))
    logits = ops.convert_to_numpy(ops.cast(bundle.model(inputs), "float32"))
    mean = hidden[0, len(prefix) : len(prefix) + len(ids)].mean(axis=0)
    return float(logits[0, -1, positive] - logits[0, -1, negative]), mean


@pytest.mark.parametrize("spec", [COMPLETION, CHAT], ids=["completion", "chat"])
def test_agrees_with_the_stock_model(llm32: CausalLMBundle, spec: PromptSpec) -> None:
    labeler = LLMLabeler(llm32, spec)
    assert labeler.pass_name == "shared-prefix"
    ads = [ADS[1], ADS[6], ADS[9], ADS[15]]
    got = labeler.label(ads)
    for row, ad in enumerate(ads):
        margin, mean = plain(llm32, spec, ad)
        # Half a step is what rounding alone may take.
        assert got.margin[row] == pytest.approx(margin, abs=MARGIN_STEP / 2 + 2e-3)
        # float16 keeps 11 bits.
        np.testing.assert_allclose(got.vectors[row], mean, rtol=2e-3, atol=5e-3)


def test_bfloat16_keeps_the_ranking(completion: LLMLabeler, completion32: LLMLabeler) -> None:
    low, full = completion.label(ADS), completion32.label(ADS)
    assert np.corrcoef(low.margin.argsort().argsort(), full.margin.argsort().argsort())[0, 1] > 0.95
    assert np.corrcoef(low.margin, full.margin)[0, 1] > 0.99
    a, b = low.vectors.astype(np.float32), full.vectors.astype(np.float32)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.999


def test_margins_rank_clickbait_above_news(completion: LLMLabeler) -> None:
    margin = completion.label(ADS).margin
    above = margin[: len(CLICKBAIT), None] > margin[None, len(CLICKBAIT) :]
    assert above.mean() > 0.8


def test_shapes_dtypes_and_steps(completion: LLMLabeler) -> None:
    batch = completion.label(ADS)
    assert batch.margin.shape == (16,)
    assert batch.margin.dtype == np.float32
    assert batch.vectors.shape == (16, 576)
    assert batch.vectors.dtype == np.float16
    assert batch.n_tokens.dtype == np.int32
    assert batch.truncated.dtype == bool
    steps = batch.margin / MARGIN_STEP
    np.testing.assert_array_equal(steps, np.round(steps))
    assert np.isfinite(batch.vectors).all()


def test_empty_list(completion: LLMLabeler) -> None:
    batch = completion.label([])
    assert batch.margin.shape == (0,)
    assert batch.vectors.shape == (0, 576)
    assert batch.vectors.dtype == np.float16
    assert batch.n_tokens.shape == batch.truncated.shape == (0,)


@pytest.mark.parametrize("kind", ["completion", "completion32", "tiny_labeler"])
def test_an_ad_depends_on_itself_alone(kind: str, request: pytest.FixtureRequest) -> None:
    labeler: LLMLabeler = request.getfixturevalue(kind)
    ads = ADS if "32" not in kind else ADS[:6]
    together = labeler.label(ads)
    turned = labeler.label(ads[::-1])
    np.testing.assert_array_equal(turned.margin[::-1], together.margin)
    np.testing.assert_array_equal(turned.vectors[::-1], together.vectors)
    # Many copies fill whole batches, so that the ad sits in every row.
    copies = labeler.label([ads[1]] * 70)
    assert set(copies.margin) == {together.margin[1]}
    assert (copies.vectors == together.vectors[1]).all()
    alone = labeler.label([ads[3]])
    assert alone.margin[0] == together.margin[3]
    np.testing.assert_array_equal(alone.vectors[0], together.vectors[3])
    beside = labeler.label([*ads, "a much longer one, " * 30])
    np.testing.assert_array_equal(beside.margin[:-1], together.margin)
    np.testing.assert_array_equal(beside.vectors[:-1], together.vectors)


class Recorder:
    """Scores nothing; remembers the shape of the batch in which an ad of so many tokens came."""

    name = "recorder"

    def __init__(self, packs: bool) -> None:
        self.packs = packs
        self.shapes: dict[int, tuple[tuple[int, ...], int]] = {}

    def __call__(
        self, tokens: np.ndarray, n_ad: np.ndarray, n_flat: int
    ) -> tuple[np.ndarray, np.ndarray]:
        self.shapes |= {int(own): (tokens.shape, n_flat) for own in n_ad if own}
        return np.zeros((len(tokens), 1), np.float32), np.zeros((len(tokens), 2), np.float32)


@pytest.mark.parametrize("packs", [False, True])
def test_an_ads_own_length_decides_every_shape_of_its_batch(packs: bool) -> None:
    # Another shape sums in another order: bfloat16 margins would move with the company of an ad.
    labeler = object.__new__(LLMLabeler)
    labeler._embedder = labeler._chair = None
    labeler._dim, labeler._behind = 2, [1, 2, 3]

    def encode(texts: list[str]) -> tuple[list[list[int]], list[bool]]:
        return [[7] * len(text) for text in texts], [False] * len(texts)

    labeler.window = SimpleNamespace(max_ad_tokens=256, suffixes=[[1, 2, 3]], encode=encode)

    def shapes_of(*texts: str) -> dict[int, tuple[tuple[int, ...], int]]:
        labeler._forward = Recorder(packs)
        labeler.label(texts)
        return labeler._forward.shapes

    texts = ["a" * count for count in (1, 3, 17, 40, 64, 200)]
    together = shapes_of(*texts, *texts)
    if packs:
        # A row's place in a product is none of its numbers' business, either.
        assert all(n_flat % 48 == 0 for _, n_flat in together.values())
    assert len({shape for (_, shape), _ in together.values()}) > 2
    for text in texts:
        assert shapes_of(text)[len(text)] == together[len(text)]


@pytest.mark.parametrize(("least", "most"), [(9, 16), (17, 24), (33, 50)])
def test_a_batch_that_is_not_the_last_is_full(least: int, most: int) -> None:
    labeler = object.__new__(LLMLabeler)
    labeler._behind, labeler._forward = [1, 2, 3], Recorder(packs=True)
    labeler.window = SimpleNamespace(max_ad_tokens=256)
    counts = np.random.default_rng(5).integers(least, most + 1, 3000).tolist()
    batches = labeler._batches(counts)
    assert sorted(place for _, chosen in batches for place in chosen) == list(range(3000))
    used = [sum(counts[place] + 3 for place in chosen) for length, chosen in batches[:-1]]
    held = [labeler._flat(length) for length, _ in batches[:-1]]
    assert sum(used) / sum(held) > 0.96


def test_bad_rows_cost_only_themselves(completion: LLMLabeler) -> None:
    good = completion.label([ADS[0], ADS[9]])
    mixed = completion.label([ADS[0], "", " \n ", "<|im_end|>", "\ud800", ADS[9]])
    np.testing.assert_array_equal(mixed.margin[[0, 5]], good.margin)
    assert np.isnan(mixed.margin[1:4]).all()
    assert np.isnan(mixed.vectors[1:4]).all()
    np.testing.assert_array_equal(mixed.n_tokens[1:4], 0)
    assert np.isfinite(mixed.margin[4])


def test_non_finite_numbers_become_nan_rows(tiny_labeler: LLMLabeler) -> None:
    real = tiny_labeler._forward

    class Poisoned:
        name = "poisoned"
        packs = True

        def __call__(
            self, tokens: np.ndarray, n_ad: np.ndarray, n_flat: int
        ) -> tuple[np.ndarray, np.ndarray]:
            margin, mean = real(tokens, n_ad, n_flat)
            margin[0] = np.inf
            mean[1] = 1e9
            return margin, mean

    tiny_labeler._forward = Poisoned()
    try:
        batch = tiny_labeler.label(["Sale today"] * 3)
    finally:
        tiny_labeler._forward = real
    assert np.isnan(batch.margin[:2]).all()
    assert np.isnan(batch.vectors[:2]).all()
    assert np.isfinite(batch.margin[2])


def test_truncation_is_marked_and_reads_the_beginning(tiny_labeler: LLMLabeler) -> None:
    long = "one two three four five six seven eight nine ten eleven twelve"
    batch = tiny_labeler.label([long, long + " thirteen fourteen", long + " other end", "x"])
    np.testing.assert_array_equal(batch.truncated, [False, True, True, False])
    np.testing.assert_array_equal(batch.n_tokens[:3], 12)
    assert batch.margin[0] == batch.margin[1] == batch.margin[2]


def test_absurdly_long_ad(tiny_labeler: LLMLabeler) -> None:
    batch = tiny_labeler.label(["free " * 400_000, "💸" * 100_000])
    assert batch.truncated.all()
    assert np.isfinite(batch.margin).all()


@pytest.mark.parametrize("n_tokens", [1, 4, 5, 12, 31, 33, 64, 65, 200, 256, 1000])
def test_buckets_hold_and_waste_little(n_tokens: int) -> None:
    length = bucket_length(n_tokens)
    assert n_tokens <= length <= max(n_tokens + 3, n_tokens * 1.25)


def test_identity(tiny: CausalLMBundle, tiny_labeler: LLMLabeler) -> None:
    identity = tiny_labeler.identity
    assert identity.model_id == "tiny@0/float32/12"
    assert identity.prompt_hash == render(CHAT).hash
    assert identity.embedding_id.endswith(identity.prompt_hash)
    other = LLMLabeler(tiny, CHAT, max_ad_tokens=24)
    assert other.identity.model_id != identity.model_id
