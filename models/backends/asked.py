"""Language models that answer by text over a network: what all such backends have in common.

Which service, and how it is asked once, is each backend's own. Vectors come from a sentence encoder on
this machine. An ad is cut by characters, for the service's tokens are not known before.
"""

from __future__ import annotations

import abc
import hashlib
import math
import os
import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from models import encoder
from models.ad_text import prepare_ad
from models.backends.answers import AnswerStore
from models.backends.base import (
    Backend,
    BackendError,
    LabelerIdentity,
    LabelerSpec,
    Progress,
    Unavailable,
)
from models.backends.prompted import (
    Chair,
    PromptLabeler,
    identify_prompts,
    load_chair,
    load_embedder,
    load_encoder,
)
from models.backends.service import CHARS_PER_TOKEN, Asking, Question, Service
from models.embedded import cache_dir
from models.encoder import SentenceEncoder
from models.policy import PolicySimilarity
from models.prompting import TURNS, PromptSpec, RenderedPrompt, render, turns_of
from pipelines.console.visible import printable

_PROBE = "Win a brand new phone today"
_NEITHER = (
    "neither of the two answers is among the likeliest tokens that the service tells: raise "
    "model.top_logprobs, or ask for answers that this model gives (prompt.answers)"
)
# Of the ads for which a price is said before any is known.
_TYPICAL_ADS, _TYPICAL_CHARS = 1000, 100


def read_key(variable: str, needed: bool) -> str:
    """Return the key that an environment variable holds, "" where it is not set and not needed.

    Raises:
        BackendError: it is missing, or holds what no key does.
    """
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise BackendError(
            f"{variable} is not set; put the service's key into this environment variable"
        )
    # What a header cannot hold would be quoted in the HTTP library's own message.
    if key and not re.fullmatch(r"[!-~]+", key):
        raise BackendError(f"{variable} holds blanks or other signs that no key has")
    return key


def shown(said: str, key: str) -> str:
    """Return what a service says as a message may hold it: one line, short, without the key."""
    # Hidden first: what is cut off may be the half by which a key would be recognized.
    return printable(said.replace(key, "(key)") if key else said, 200)


class Asked(Backend):
    """A model of a service. Scores may depend on the service's load; what it said once is kept."""

    requires: ClassVar[tuple[str, ...]] = (
        "tensorflow",
        "keras",
        "keras_hub",
        "tokenizers",
        "requests",
        "tenacity",
    )
    extra = "llm"
    independent = False
    embeds = False
    remote = True

    @property
    @abc.abstractmethod
    def place(self) -> str:
        """Where questions go, as people write it."""

    @abc.abstractmethod
    def service(self) -> Service:
        """Return the service, with its key.

        Raises:
            BackendError: there is no key, or it must not be sent there.
        """

    def model_id(self) -> str:
        """Return what tells this model from others: its name, and its revision or else its place."""
        place = hashlib.sha256(self.place.encode()).hexdigest()[:12]
        return f"{self.spec.preset}@{self.spec.revision or place}"

    def identify(self, progress: Progress | None = None) -> LabelerIdentity:
        """Return the identity; the service is not asked. What will leave this machine is told."""
        spec = self.spec
        if spec.embedding == "llm":
            raise BackendError(
                f"{spec.preset} gives no vectors: set embedding.source to encoder, or leave it out"
            )
        hashes = [render(prompt, TURNS).hash for prompt in spec.prompts()]
        prompt_hash = identify_prompts(spec, hashes, progress)
        embedder = encoder.identify(spec.embedding, progress)
        if progress is not None:
            progress(self.leaves())
        return _identity(self, prompt_hash, embedder)

    def leaves(self) -> str:
        """Return what leaves this machine, for whom, and about how much it costs."""
        spec, prompts = self.spec, self.spec.prompts()
        typical = self._tokens(prompts, _TYPICAL_ADS, _TYPICAL_ADS * _TYPICAL_CHARS)
        each = "in one prompt" if len(prompts) == 1 else f"in {len(prompts)} prompts"
        key = ""
        if os.environ.get(spec.terms.key_variable):
            key = f", with the key in {spec.terms.key_variable}"
        return (
            f"ads that are not scored yet leave this machine: they go to {self.place} (model "
            f"{spec.preset}), each {each}{key}; {_TYPICAL_ADS:,} ads of {_TYPICAL_CHARS} characters "
            f"are about {typical:,} tokens, {self._priced(typical, _TYPICAL_ADS * len(prompts))}"
        )

    def quote(self, prompts: Sequence[PromptSpec], texts: Sequence[str]) -> str:
        """Return what asking prompts about texts costs at most; see `Backend`."""
        longest, terms = max_chars(self.spec), self.spec.terms
        tokens = self._tokens(prompts, len(texts), sum(min(len(t), longest) for t in texts))
        requests = len(prompts) * len(texts)
        cost = terms.cost(tokens, requests)
        if cost is not None and terms.max_cost is not None and cost > terms.max_cost:
            raise BackendError(
                f"asking {len(prompts)} prompts about {len(texts):,} ads would cost about {cost:,.2f}, "
                f"server.max_cost is {terms.max_cost:,.2f}; raise it, or state one prompt in the task "
                "file (prompt.template)"
            )
        return (
            f"{len(texts):,} ads leave this machine: they go to {self.place} (model "
            f"{self.spec.preset}), each in {len(prompts)} prompts; {requests:,} requests at most, about "
            f"{tokens:,} tokens, {self._priced(tokens, requests)}"
        )

    def _tokens(self, prompts: Sequence[PromptSpec], ads: int, ad_chars: int) -> int:
        rendered = [render(prompt, TURNS) for prompt in prompts]
        around = sum(len(prompt.prefix) + len(prompt.suffix) for prompt in rendered)
        return -(-(around * ads + len(prompts) * ad_chars) // CHARS_PER_TOKEN)

    def _priced(self, tokens: int, requests: int) -> str:
        cost = self.spec.terms.cost(tokens, requests)
        if cost is None:
            return (
                "for a price that the task file does not tell (server.price_in, server.price_out)"
            )
        return f"{cost:,.2f} at the prices in the task file"

    def _asking(self) -> Asking:
        spec = self.spec
        return Asking(
            self.service(),
            spec.terms,
            self.place,
            f"{self.model_id()}/{spec.top_logprobs}",
            AnswerStore(cache_dir() / "answers.sqlite"),
        )

    def load(self) -> AskedLabeler:
        """Load encoders, and ask one question: a service that cannot be used is no ad's fault."""
        spec = self.spec
        embedder = load_embedder(spec.embedding)
        assert embedder is not None, "identify refuses it"
        labeler = AskedLabeler(
            self, self._asking(), spec.prompts(), load_chair(spec, embedder), embedder
        )
        labeler.probe()
        return labeler

    def pilot(
        self, prompts: Sequence[PromptSpec], encoder: str, texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ask every prompt; NaN where the service tells neither answer."""
        if not self.debates:
            return super().pilot(prompts, encoder, texts)
        spec = self.spec
        embedder = load_encoder(encoder)
        labeler = AskedLabeler(self, self._asking(), prompts, None, embedder)
        similarity = PolicySimilarity(embedder, spec.prompt.policy)
        return labeler.asked(texts)[0], similarity.of_vectors(embedder.encode(texts))


def max_chars(spec: LabelerSpec) -> int:
    """Return the characters of an ad that are read at most."""
    return spec.max_ad_tokens * CHARS_PER_TOKEN


def _identity(backend: Asked, prompt_hash: str, embedder: str) -> LabelerIdentity:
    spec = backend.spec
    name = f"{backend.model_id()}/{spec.top_logprobs}/{spec.max_ad_tokens}"
    return LabelerIdentity(name, prompt_hash, embedder, str(encoder.TOKENS_PER_BATCH))


class AskedLabeler(PromptLabeler):
    """A service's model as labeler."""

    def __init__(
        self,
        backend: Asked,
        asking: Asking,
        prompts: Sequence[PromptSpec],
        chair: Chair | None,
        embedder: SentenceEncoder,
    ) -> None:
        """Render the prompts; several need a chair, whose members they are, to be one margin."""
        super().__init__(chair, embedder)
        self._backend, self._asking = backend, asking
        self._max_chars = max_chars(backend.spec)
        self.prompts = tuple(render(prompt, TURNS) for prompt in prompts)
        self.identity = _identity(backend, self.prompt_hash(), embedder.embedding_id)

    def kept(self, text: str) -> str:
        """Return what is sent of an ad; see `PromptLabeler`."""
        return self._prepared(text, self.prompts[0])

    def probe(self) -> None:
        """Ask about one made-up ad.

        Raises:
            Unavailable: the service answers none, or not as it would have to.
        """
        [found] = self._asking([self._question(self.prompts[0], _PROBE)])
        # That it tells neither answer of this ad says little of others.
        if isinstance(found, str):
            raise Unavailable(f"{self._backend.place}: {found}")

    def _prepared(self, text: str, prompt: RenderedPrompt) -> str:
        # Its special tokens are not known: nothing of an ad may look like one.
        return prepare_ad(text[: self._max_chars], prompt, any_tag=True)

    def _question(self, prompt: RenderedPrompt, ad: str) -> Question:
        whole = f"{prompt.prefix}{ad}{prompt.suffix}"
        answers = [prompt.positive_answer, prompt.negative_answer]
        if prompt.suffix.endswith(" "):
            # After white space of its own the answer cannot start with more of it.
            answers = [answer.lstrip(" ") for answer in answers]
        return Question(turns_of(whole) or (("", whole),), *answers)

    def whole(self, prompt: RenderedPrompt, kept: str) -> str:
        """Return a prompt with an ad in it, turns on lines of their own; for people."""
        turns = self._question(prompt, kept).turns
        return "\n".join(f"{role}: {text}" if role else text for role, text in turns)

    def asked(self, texts: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
        """Ask every prompt about every ad.

        Returns:
            float32 (n, prompts), NaN where there is no answer; by the ad's place why not, of those
            that have words.
        """
        questions, places = [], []
        for row, text in enumerate(texts):
            for column, prompt in enumerate(self.prompts):
                if ad := self._prepared(text, prompt):
                    questions.append(self._question(prompt, ad))
                    places.append((row, column))
        answers = np.full((len(texts), len(self.prompts)), np.nan, np.float32)
        why: dict[int, str] = {}
        for (row, column), found in zip(places, self._asking(questions), strict=True):
            if isinstance(found, str) or math.isnan(found):
                why[row] = found if isinstance(found, str) else _NEITHER
            else:
                answers[row, column] = found
        return answers, why

    def _ask(self, texts: Sequence[str]) -> tuple[np.ndarray, None, np.ndarray, np.ndarray]:
        """Ask; one ad without an answer fails all, and whoever halves them finds the others known."""
        answers, why = self.asked(texts)
        if why:
            raise ValueError(next(iter(why.values())))
        return answers, None, *self.read_tokens(texts)

    def read_tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Count by characters; see `PromptLabeler`."""
        read = [-(-len(self.kept(text)) // CHARS_PER_TOKEN) for text in texts]
        cut = [len(text) > self._max_chars for text in texts]
        return np.array(read, np.int32), np.array(cut, dtype=bool)
