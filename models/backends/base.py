"""What scores and embeds texts: the contract of every backend.

A backend is made of what a task says (`LabelerSpec`) and is small: it pickles, and it knows the
identity of what it would load without loading it. `load` gives a `Labeler`, which does the work. A
backend is one file of this room and one line in `registry`; the tests' contract kit runs over it.
"""

from __future__ import annotations

import abc
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.committee import Committee, prompt_of
from models.prompting import PromptSpec
from pipelines.errors import without_secrets

Progress = Callable[[str], None]


class BackendError(RuntimeError):
    """A backend cannot be used; the message says what is missing and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


class Unavailable(BackendError):
    """A model cannot be asked now, or at all, whatever the text: it is not the ad that is at fault."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a service is asked: none of them shapes an answer.

    Attributes:
        key_variable: environment variable that holds the service's key.
        requests_at_once: of one process, at least 1.
        requests_per_minute: of one process; None for as many as the service takes.
        timeout_seconds: without an answer, after which a request is asked again.
        patience_seconds: for which a request is asked again, before the run gives up.
        price_in, price_out: of a million tokens that are read, and written; None where unknown.
        max_cost: of one process, in the currency of the prices; None for no limit.
    """

    key_variable: str = "SCOUT_MODEL_KEY"
    requests_at_once: int = 8
    requests_per_minute: float | None = None
    timeout_seconds: float = 60.0
    patience_seconds: float = 600.0
    price_in: float | None = None
    price_out: float | None = None
    max_cost: float | None = None

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """Return what tokens cost, in the currency of the prices; None where these are unknown."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


@dataclass(frozen=True, slots=True)
class LabelerSpec:
    """What a task says of the model that labels its ads.

    Attributes:
        preset: which model, in the backend's own terms.
        prompt: the task's prompt.
        embedding: where vectors come from: "llm" for the model itself, or an encoder as in
            `presets.load_encoder`.
        dtype: of the model's products.
        max_ad_tokens: ads are cut after so many tokens, at least 1.
        committee: prompt forms that are asked in place of the prompt, or None.
        url: where a service is; "" for the backend's own place, or none.
        revision: what tells a service's weights from later ones of the same name.
        top_logprobs: likeliest tokens that a service is asked for, among which both answers are
            looked for.
        terms: on which a service is asked.
    """

    preset: str
    prompt: PromptSpec
    embedding: str = "llm"
    dtype: str = "bfloat16"
    max_ad_tokens: int = 256
    committee: Committee | None = None
    url: str = ""
    revision: str = ""
    top_logprobs: int = 20
    terms: Terms = Terms()

    def prompts(self) -> tuple[PromptSpec, ...]:
        """Return what is asked of an ad: the prompt, or the committee's members about its policy."""
        if self.committee is None:
            return (self.prompt,)
        return tuple(prompt_of(member.form, self.prompt) for member in self.committee.members)


@dataclass(frozen=True, slots=True)
class LabelerIdentity:
    """What decides every score and vector; equal identities mean equal scores on one machine.

    Attributes:
        model_id: name and content hash of the weights, precision and the window that was asked for.
        prompt_hash: hash of the rendered prompt.
        embedding_id: what the vectors are; equal ids mean comparable vectors.
        batching: tokens a batch, where they shape the rounding of scores; else empty.
    """

    model_id: str
    prompt_hash: str
    embedding_id: str
    batching: str = ""

    def __str__(self) -> str:
        batching = f" in batches of {self.batching} tokens" if self.batching else ""
        return (
            f"{self.model_id} with prompt {self.prompt_hash} and vectors "
            f"{self.embedding_id}{batching}"
        )


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """What a labeler says about n ads, in the order they came.

    Attributes:
        margin: float32 (n,), logit of the positive minus logit of the negative answer (natural
            log units), on the grid of `calibration.to_grid`; NaN for an ad that could not be scored.
        vectors: float16 (n, dim), the embedding as it comes, not normalised; NaN likewise.
        n_tokens: int32 (n,), the ad's own tokens that were read.
        truncated: bool (n,), whether the ad had more.
    """

    margin: np.ndarray
    vectors: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray


@dataclass(frozen=True, slots=True)
class Glance:
    """What is known of n ads without asking the language model.

    Attributes:
        vectors: float16 (n, dim), as in `LabelBatch`.
        n_tokens, truncated: likewise.
        encoded: float32 (n, dim), the encoder's own vectors.
        hint: float64 (n,), the part of the margin that needs no answer, log-odds.
        similarity: float64 (n,), of the ads to the policy, where a committee listens to it; else NaN.
    """

    vectors: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray
    encoded: np.ndarray
    hint: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True, slots=True)
class Said:
    """A prompt with an ad in it, as the model read it, and what it said.

    Attributes:
        name: of the committee's form; "" where the task's own prompt is asked alone.
        prompt: all of the text that the answer continues.
        positive, negative: the two answers that were compared.
        answer: log-odds of the positive one; NaN for an ad without a word.
        weight: its voice in the committee, 0 to 1; 1 alone.
        adds: what it adds to the margin, log-odds: members, similarity and offset sum up to it.
    """

    name: str
    prompt: str
    positive: str
    negative: str
    answer: float
    weight: float
    adds: float


@dataclass(frozen=True, slots=True)
class Reading:
    """How a labeler came to an ad's margin.

    Attributes:
        kept: the ad's text as it was read: as data, and cut to the window.
        said: what each prompt was answered, the loudest first; empty without prompts.
        similarity: of the ad to the policy's words, at most 1; None where it is not listened to.
        similarity_adds: what that adds to the margin, log-odds.
        offset: the committee's own part of the margin, log-odds.
    """

    kept: str
    said: tuple[Said, ...] = ()
    similarity: float | None = None
    similarity_adds: float = 0.0
    offset: float = 0.0


class Labeler(abc.ABC):
    """Scores ads and embeds them.

    Attributes:
        identity: what decides its scores, exactly as its backend's `identify` said.
    """

    identity: LabelerIdentity

    @abc.abstractmethod
    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Score and embed ads of any length and script.

        One that cannot be scored (no word is left of it, a number is not finite) gets NaN in
        margin and vector, and costs only itself.
        """

    def margins(self, texts: Sequence[str], similarity: np.ndarray | None = None) -> np.ndarray:
        """Score texts as `label` does, float32 (n,), without their vectors where that saves time.

        Args:
            texts: n ads.
            similarity: theirs, of `glance`, where they were glanced at.
        """
        del similarity
        return self.label(texts).margin

    def glance(self, texts: Sequence[str]) -> Glance:
        """Return what is known of ads without the model's answer; the same vectors as `label` gives.

        For a cascade. By default the ads are labelled, and only the answers left out.
        """
        found = self.label(texts)
        encoded = found.vectors.astype(np.float32)
        hint, near = np.zeros(len(texts)), np.full(len(texts), np.nan)
        return Glance(found.vectors, found.n_tokens, found.truncated, encoded, hint, near)

    def states(self, texts: Sequence[str], layer: int) -> np.ndarray:
        """Return the mean hidden state of ads behind one of the model's first layers, float32 (n, dim).

        NaN for an ad without a word.

        Raises:
            Unavailable: the model cannot be left early.
        """
        del texts, layer
        raise Unavailable(
            f"{self.identity.model_id} cannot be left after a layer; set cascade.by to encoder or words"
        )

    def read(self, text: str) -> Reading:
        """Return how `label` reads one ad, for people: without a prompt, its text alone."""
        return Reading(text)


class Backend(abc.ABC):
    """Makes one kind of labeler.

    Attributes:
        requires: packages that must be importable.
        extra: of this distribution, which brings them.
        independent: whether an ad's score depends on the ad alone, to the bit, whatever it is
            labelled with. Only such scores may be remembered.
        learns: whether the "llm" learner can fine-tune its presets.
        debates: whether it takes a committee of prompts.
        embeds: whether it gives vectors of its own; else they come from an encoder.
        chats: whether it takes turns alone, no text to go on with.
        remote: whether ads leave this machine, for a service that may take money for it.
        exits: whether it can be left after a layer (`Labeler.states`), for some of its presets at least.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    independent: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    debates: ClassVar[bool] = False
    embeds: ClassVar[bool] = True
    chats: ClassVar[bool] = False
    remote: ClassVar[bool] = False
    exits: ClassVar[bool] = False

    def __init__(self, spec: LabelerSpec) -> None:
        """Keep what the task says; nothing is loaded.

        Raises:
            BackendError: a package that this backend needs is not installed.
        """
        self.spec = spec
        self.check_packages()

    @classmethod
    def check_packages(cls) -> None:
        """Refuse a machine without the packages; raises as the constructor does."""
        missing = [name for name in cls.requires if not _is_installed(name)]
        if missing:
            raise BackendError(
                f"{cls.__name__} needs {', '.join(missing)}, which this Python does not have: "
                f"pip install 'ad-scout[{cls.extra}]'"
            )

    @abc.abstractmethod
    def identify(self, progress: Progress | None = None) -> LabelerIdentity:
        """Return the identity of what `load` gives.

        May fetch and hash weight files (so that workers find them in the cache), loads none.

        Args:
            progress: told what is fetched or converted.

        Raises:
            BackendError: the weights cannot be had.
            ValueError: the prompt is not usable.
        """

    @classmethod
    def check_address(cls, url: str) -> str:
        """Return why a task's `model.url` will not do, or "": by default there is to be none."""
        return "has no effect on this backend; take it out" if url else ""

    def quote(self, prompts: Sequence[PromptSpec], texts: Sequence[str]) -> str:
        """Return what asking prompts about texts sends where, and costs; "" where nothing leaves.

        Raises:
            BackendError: it would cost more than the task allows.
        """
        del prompts, texts
        return ""

    def look(self) -> LabelerIdentity:
        """Look for all that `load` needs where this runs, and load none of it; raises as `identify` does."""
        return self.identify()

    @abc.abstractmethod
    def load(self) -> Labeler:
        """Load the labeler; raises as `identify` does."""

    def pilot(
        self, prompts: Sequence[PromptSpec], encoder: str, texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ask prompts that start alike about a few texts, where the backend `debates`.

        Args:
            prompts: m of them.
            encoder: what compares texts and policy, as in `presets.load_encoder`.
            texts: n ads.

        Returns:
            answers float32 (n, m), in log-odds, NaN in the column of a prompt that this model cannot
            answer and in the row of an ad without a word; similarity to the policy float64 (n,).

        Raises:
            BackendError: the weights cannot be had, or the backend does not debate.
        """
        del prompts, encoder, texts
        raise BackendError(f"{type(self).__name__} takes one prompt, no committee")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False
