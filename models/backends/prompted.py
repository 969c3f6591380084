"""What labelers that ask a model by prompts have in common: answers and vectors to margins.

How the model is asked is each labeler's own; that a committee weighs the answers, that vectors come
from an encoder where the model gives none, and how an ad's way is told is the same for all.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models import encoder, presets
from models.backends.base import Glance, LabelBatch, Labeler, LabelerSpec, Progress, Reading, Said
from models.committee import Committee
from models.encoder import SentenceEncoder
from models.policy import PolicySimilarity
from models.prompting import RenderedPrompt
from pipelines.numerics.calibration import to_grid


@dataclass(frozen=True, slots=True)
class Chair:
    """A committee with the encoder that it listens to.

    Attributes:
        committee: whose members are asked.
        similarity: of an ad to the policy.
    """

    committee: Committee
    similarity: PolicySimilarity


def load_encoder(preset: str) -> SentenceEncoder:
    """Load a sentence encoder, as in `presets.load_encoder`."""
    return SentenceEncoder(presets.load_encoder(preset))


def load_embedder(embedding: str) -> SentenceEncoder | None:
    """Load the encoder that vectors come from; None for "llm", the language model itself."""
    return None if embedding == "llm" else load_encoder(embedding)


def load_chair(spec: LabelerSpec, embedder: SentenceEncoder | None) -> Chair | None:
    """Load what a committee listens to beside the model; None without one.

    Args:
        spec: the task's.
        embedder: of `load_embedder`, used again where it is the same encoder.
    """
    if spec.committee is None:
        return None
    same = spec.committee.encoder == spec.embedding
    own = embedder if same and embedder else load_encoder(spec.committee.encoder)
    return Chair(spec.committee, PolicySimilarity(own, spec.prompt.policy))


def identify_prompts(
    spec: LabelerSpec, hashes: Sequence[str], progress: Progress | None = None
) -> str:
    """Return the hash of all that is asked: of the prompt, or of a committee as `prompt_hash` does.

    Args:
        spec: the task's.
        hashes: of its prompts, rendered.
        progress: told what is fetched or converted.
    """
    if spec.committee is None:
        return hashes[0]
    similar = encoder.identify(spec.committee.encoder, progress)
    return spec.committee.digest(hashes, spec.prompt.policy, similar)


class PromptLabeler(Labeler, abc.ABC):
    """A model that is asked one prompt, or the members of a committee, about each ad.

    Attributes:
        prompts: as they are asked.
    """

    prompts: tuple[RenderedPrompt, ...]

    def __init__(self, chair: Chair | None, embedder: SentenceEncoder | None) -> None:
        """Several prompts need a chair, whose members they are; without an embedder the model's own
        vectors count.
        """
        self._chair, self._embedder = chair, embedder

    @abc.abstractmethod
    def kept(self, text: str) -> str:
        """Return as much of an ad, as data, as is read of it; for people."""

    @abc.abstractmethod
    def _ask(
        self, texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
        """Ask every prompt about every ad.

        Returns:
            answers float32 (n, prompts), NaN for an ad without a word; the model's own vectors (n,
            dim), None where it has none; tokens read, int32 (n,); bool (n,), which ads had more.
        """

    @abc.abstractmethod
    def read_tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return how many tokens of each ad are read, int32 (n,), and which ads have more, bool (n,)."""

    def answers(self, texts: Sequence[str]) -> np.ndarray:
        """Ask every prompt about every ad.

        Returns:
            float32 (n, prompts), logit of the positive minus logit of the negative answer; NaN for
            an ad without a word.
        """
        return self._ask(texts)[0]

    def whole(self, prompt: RenderedPrompt, kept: str) -> str:
        """Return a prompt with an ad in it; for people."""
        return f"{prompt.prefix}{kept}{prompt.suffix}"

    def prompt_hash(self) -> str:
        """Return the hash of all that is asked, as `identify_prompts` does before loading."""
        hashes = [prompt.hash for prompt in self.prompts]
        if self._chair is None:
            return hashes[0]
        similarity = self._chair.similarity
        return self._chair.committee.digest(
            hashes, similarity.policy, similarity.encoder.embedding_id
        )

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Score and embed ads; see `Labeler`."""
        answers, vectors, n_tokens, truncated = self._ask(texts)
        if self._embedder is not None:
            vectors = self._embedder.encode(texts)
        assert vectors is not None, "a model without vectors of its own needs an embedder"
        if self._chair is None:
            margin = answers[:, 0]
        else:
            margin = self._chair.committee.combine(answers, self._near(texts, vectors))
        if self._embedder is not None:
            vectors = self._embedder.told_apart(texts, vectors)
        vectors = vectors.astype(np.float16)
        bad = ~(np.isfinite(margin) & np.isfinite(vectors).all(axis=1))
        margin[bad] = np.nan
        vectors[bad] = np.nan
        return LabelBatch(to_grid(margin), vectors, n_tokens, truncated)

    def _near(self, texts: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """Return the ads' similarity to the policy, by their vectors where these are its encoder's."""
        assert self._chair is not None
        similarity = self._chair.similarity
        shared = similarity.encoder is self._embedder
        return similarity.of_vectors(vectors if shared else similarity.encoder.encode(texts))

    def margins(self, texts: Sequence[str], similarity: np.ndarray | None = None) -> np.ndarray:
        """Score texts, and embed none that was glanced at; see `Labeler`."""
        if self._embedder is None or (self._chair is not None and similarity is None):
            return super().margins(texts)
        answers = self._ask(texts)[0]
        margin = answers[:, 0]
        if self._chair is not None and similarity is not None:
            margin = self._chair.committee.combine(answers, similarity)
        return to_grid(np.where(np.isfinite(margin), margin, np.nan))

    def glance(self, texts: Sequence[str]) -> Glance:
        """Embed ads, and ask nothing; see `Labeler`. Without an encoder they are asked all the same."""
        if self._embedder is None:
            return super().glance(texts)
        encoded = self._embedder.encode(texts)
        hint, near = np.zeros(len(texts)), np.full(len(texts), np.nan)
        if self._chair is not None:
            board, near = self._chair.committee, self._near(texts, encoded)
            hint = board.offset + board.slope * board.nearness(near)
        vectors = self._embedder.told_apart(texts, encoded).astype(np.float16)
        n_tokens, truncated = self.read_tokens(texts)
        return Glance(vectors, n_tokens, truncated, encoded, hint, near)

    def read(self, text: str) -> Reading:
        """Return every prompt with the ad in it, and what each was answered; see `Labeler`."""
        kept, answers = self.kept(text), self.answers([text])[0].astype(np.float64)
        names, weights, adds = [""], [1.0], answers
        similarity, near, offset = None, 0.0, 0.0
        if self._chair is not None:
            board, policy = self._chair.committee, self._chair.similarity
            names = [member.form.name for member in board.members]
            weights = [member.weight for member in board.members]
            centers, scales = np.array([(m.center, m.scale) for m in board.members]).T
            adds = board.slope * np.array(weights) * (answers - centers) / scales
            found = policy.of_vectors(policy.encoder.encode([text]))
            similarity, offset = float(found[0]), board.offset
            near = board.slope * float(board.nearness(found)[0])
        said = tuple(
            Said(
                name=name,
                prompt=self.whole(prompt, kept),
                positive=prompt.positive_answer,
                negative=prompt.negative_answer,
                answer=float(answer),
                weight=weight,
                adds=float(part),
            )
            for name, weight, prompt, answer, part in zip(
                names, weights, self.prompts, answers, adds, strict=True
            )
        )
        return Reading(kept, said, similarity, near, offset)
