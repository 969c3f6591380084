"""A causal language model that KerasHub loads: texts to margins and embeddings in one forward pass."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from models import encoder, presets
from models.backends.base import (
    Backend,
    LabelBatch,
    Labeler,
    LabelerIdentity,
    Progress,
    Reading,
    Said,
)
from models.backends.forward import choose_forward
from models.bert import PRODUCT_ROWS, lay_out
from models.committee import Committee
from models.encoder import SentenceEncoder
from models.policy import PolicySimilarity
from models.prompting import PromptSpec, PromptWindow, is_usable, render
from pipelines.console.progress import step
from pipelines.numerics.calibration import to_grid

# Another value rounds bfloat16 scores differently: it is part of what identifies a score.
TOKENS_PER_BATCH = 22 * PRODUCT_ROWS
# Two batches at once keep the cores busy while one of them is between two operations.
_WORKERS = 2
_PROBE = "Win a brand new phone today"

_log = logging.getLogger(__name__)


def name_scores(
    model_id: str, dtype: str, max_ad_tokens: int, prompt_hash: str, embedder: str | None
) -> LabelerIdentity:
    """Return the identity of a language model as labeler, loaded or not.

    Args:
        model_id: name and content hash of the weights.
        dtype: of its products.
        max_ad_tokens: the window that was asked for; what fits is decided by model and prompt.
        prompt_hash: of the rendered prompt.
        embedder: id of the encoder's vectors, or None for the model's own.
    """
    name = f"{model_id}/{dtype}/{max_ad_tokens}"
    if embedder is None:
        own = f"mean-hidden:{name}:{prompt_hash}"
        return LabelerIdentity(name, prompt_hash, own, str(TOKENS_PER_BATCH))
    batching = f"{TOKENS_PER_BATCH} and {encoder.TOKENS_PER_BATCH}"
    return LabelerIdentity(name, prompt_hash, embedder, batching)


class KerasLLM(Backend):
    """Any causal language model of KerasHub's, a folder of one, or the embedded one."""

    requires = ("tensorflow", "keras", "keras_hub", "tokenizers", "safetensors")
    extra = "llm"
    learns = True
    debates = True

    def identify(self, progress: Progress | None = None) -> LabelerIdentity:
        """Return the identity; hashes weight files and reads the tokenizer's."""
        spec = self.spec
        # A prompt that is wrong in itself should fail before any download.
        for prompt in spec.prompts():
            render(prompt)
        model_id, chat_format = presets.identify_causal_lm(spec.preset, progress)
        embedder = None if spec.embedding == "llm" else encoder.identify(spec.embedding, progress)
        hashes = [render(prompt, chat_format).hash for prompt in spec.prompts()]
        prompt_hash = hashes[0]
        if spec.committee is not None:
            similar = encoder.identify(spec.committee.encoder, progress)
            prompt_hash = spec.committee.digest(hashes, spec.prompt.policy, similar)
        return name_scores(model_id, spec.dtype, spec.max_ad_tokens, prompt_hash, embedder)

    def load(self) -> LLMLabeler:
        """Load model and, when asked for, sentence encoder."""
        spec = self.spec
        for prompt in spec.prompts():
            render(prompt)
        embedder, chair = load_embedder(spec.embedding), None
        if spec.committee is not None:
            same = spec.committee.encoder == spec.embedding
            chair = Chair(
                spec.committee,
                PolicySimilarity(
                    embedder if same and embedder else load_encoder(spec.committee.encoder),
                    spec.prompt.policy,
                ),
            )
        return LLMLabeler(
            self._bundle(),
            *spec.prompts(),
            chair=chair,
            embedder=embedder,
            max_ad_tokens=spec.max_ad_tokens,
        )

    def pilot(
        self, prompts: Sequence[PromptSpec], encoder: str, texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ask every prompt that this model can answer, in one pass."""
        spec = self.spec
        bundle = self._bundle()
        usable = [i for i, prompt in enumerate(prompts) if is_usable(bundle, prompt)]
        answers = np.full((len(texts), len(prompts)), np.nan, np.float32)
        if usable:
            labeler = LLMLabeler(
                bundle, *(prompts[i] for i in usable), max_ad_tokens=spec.max_ad_tokens
            )
            answers[:, usable] = labeler.answers(texts)
        similarity = PolicySimilarity(load_encoder(encoder), spec.prompt.policy)
        return answers, similarity.of_vectors(similarity.encoder.encode(texts))

    def _bundle(self) -> presets.CausalLMBundle:
        model_id, _ = presets.identify_causal_lm(self.spec.preset)
        return _last_bundle(self.spec.preset, self.spec.dtype, model_id)


@functools.lru_cache(maxsize=1)
def _last_bundle(preset: str, dtype: str, model_id: str) -> presets.CausalLMBundle:
    """Keep the last model: a pilot asks it right before the run does. Nobody trains this one."""
    del model_id
    return presets.load_causal_lm(preset, dtype)


@dataclass(frozen=True, slots=True)
class Chair:
    """A committee with the encoder that it listens to.

    Attributes:
        committee: whose members are asked.
        similarity: of an ad to the policy.
    """

    committee: Committee
    similarity: PolicySimilarity


def load_embedder(embedding: str) -> SentenceEncoder | None:
    """Load the encoder that vectors come from; None for "llm", the language model itself."""
    return None if embedding == "llm" else load_encoder(embedding)


def load_encoder(preset: str) -> SentenceEncoder:
    """Load a sentence encoder, as in `presets.load_encoder`."""
    return SentenceEncoder(presets.load_encoder(preset))


def bucket_length(n_tokens: int, packs: bool = False) -> int:
    """Rounds an ad's token count up to a padded length.

    At most a quarter more, or 3 tokens; where padding costs little (`packs`) to a power of two,
    so that few batches remain half empty.
    """
    if packs:
        return max(16, 1 << (n_tokens - 1).bit_length())
    step = 4
    while n_tokens > 8 * step:
        step *= 2
    return -(-max(n_tokens, 1) // step) * step


class LLMLabeler(Labeler):
    """A causal language model as labeler.

    An ad's margin and vector depend on the ad alone: the ad's own token count decides its padded
    length, and the padded length decides every shape of its batch; a last batch runs half empty.
    """

    def __init__(
        self,
        bundle: presets.CausalLMBundle,
        *prompts: PromptSpec,
        chair: Chair | None = None,
        embedder: SentenceEncoder | None = None,
        max_ad_tokens: int = 256,
    ) -> None:
        """Computes the prompts' prefix and checks the fast pass.

        Vectors come from the embedder; without one they are the model's mean final hidden state
        over the ad's tokens. Several prompts need a chair, whose members they are, to be one
        margin. The rest is as for `PromptWindow`.

        Raises:
            ValueError: If a prompt is not usable with this model.
        """
        self.window = window = PromptWindow(bundle, prompts, max_ad_tokens)
        self._chair = chair
        self._embedder = embedder
        probe = window.encode([_PROBE])[0][0]
        self._forward = choose_forward(
            bundle.model, window.prefix, window.suffixes, window.answers, probe, _log.warning
        )
        self.identity = name_scores(
            bundle.model_id,
            bundle.dtype,
            max_ad_tokens,
            self._prompt_hash(),
            embedder.embedding_id if embedder else None,
        )
        self._dim = int(bundle.model.backbone.hidden_dim)
        self._behind = [token for suffix in window.suffixes for token in suffix]

    def _prompt_hash(self) -> str:
        hashes = [prompt.hash for prompt in self.window.prompts]
        if self._chair is None:
            return hashes[0]
        similarity = self._chair.similarity
        return self._chair.committee.digest(
            hashes, similarity.policy, similarity.encoder.embedding_id
        )

    @property
    def pass_name(self) -> str:
        """Which forward pass is in use: shared-prefix, cached or whole."""
        return self._forward.name

    def rows(self, length: int) -> int:
        """Rows of every batch whose ads are padded to `length` tokens."""
        per_row = length + len(self._behind)
        if self._forward.packs:
            # Ads fill about three quarters of such a bucket.
            return max(4, 4 * TOKENS_PER_BATCH // (3 * per_row))
        return max(4, TOKENS_PER_BATCH // per_row)

    def _flat(self, length: int) -> int:
        """Tokens of every batch whose ads are padded to `length` tokens, padding left out."""
        longest = -(-4 * (length + len(self._behind)) // PRODUCT_ROWS) * PRODUCT_ROWS
        return max(TOKENS_PER_BATCH, longest)

    def _batches(self, counts: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Divides ads, by place, into batches of one padded length each; longest first."""
        buckets: dict[int, list[int]] = {}
        for place, count in enumerate(counts):
            if count:
                length = bucket_length(count, self._forward.packs)
                buckets.setdefault(min(length, self.window.max_ad_tokens), []).append(place)
        batches = []
        for length, places in sorted(buckets.items(), reverse=True):
            chosen: list[int] = []
            used = 0
            for place in places:
                need = counts[place] + len(self._behind)
                full = self._forward.packs and used + need > self._flat(length)
                if len(chosen) == self.rows(length) or full:
                    batches.append((length, chosen))
                    chosen, used = [], 0
                chosen.append(place)
                used += need
            batches.append((length, chosen))
        return batches

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Scores and embeds ads; see `Labeler`."""
        answers, vectors, n_tokens, truncated = self._ask(texts)
        if self._embedder is not None:
            vectors = self._embedder.encode(texts)
        if self._chair is None:
            margin = answers[:, 0]
        else:
            similarity = self._chair.similarity
            shared = similarity.encoder is self._embedder
            near = similarity.of_vectors(vectors if shared else similarity.encoder.encode(texts))
            margin = self._chair.committee.combine(answers, near)
        if self._embedder is not None:
            vectors = self._embedder.told_apart(texts, vectors)
        vectors = vectors.astype(np.float16)
        bad = ~(np.isfinite(margin) & np.isfinite(vectors).all(axis=1))
        margin[bad] = np.nan
        vectors[bad] = np.nan
        return LabelBatch(to_grid(margin), vectors, n_tokens, truncated)

    def answers(self, texts: Sequence[str]) -> np.ndarray:
        """Asks every prompt about every ad.

        Returns:
            float32 (n, prompts), logit of the positive minus logit of the negative answer; NaN for
            an ad without a word.
        """
        return self._ask(texts)[0]

    def read(self, text: str) -> Reading:
        """Return every prompt with the ad in it, and what each was answered; see `Labeler`."""
        kept, answers = self.window.kept(text), self.answers([text])[0].astype(np.float64)
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
                prompt=f"{prompt.prefix}{kept}{prompt.suffix}",
                positive=prompt.positive_answer,
                negative=prompt.negative_answer,
                answer=float(answer),
                weight=weight,
                adds=float(part),
            )
            for name, weight, prompt, answer, part in zip(
                names, weights, self.window.prompts, answers, adds, strict=True
            )
        )
        return Reading(kept, said, similarity, near, offset)

    def _ask(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns answers, the model's own vectors, tokens read, and which ads had more."""
        ids, truncated = self.window.encode(texts)
        n_tokens = np.array([len(i) for i in ids], dtype=np.int32)
        answers = np.full((len(ids), len(self.window.suffixes)), np.nan, np.float32)
        vectors = np.full((len(ids), self._dim), np.nan, np.float16)
        batches = self._batches([len(i) for i in ids])

        def run(batch: tuple[int, list[int]]) -> tuple[np.ndarray, np.ndarray]:
            length, chosen = batch
            return self._score([ids[i] for i in chosen], length)

        with (
            step("asking the model", len(ids)) as advance,
            ThreadPoolExecutor(max(1, min(_WORKERS, len(batches)))) as pool,
        ):
            for (_, chosen), (found, found_mean) in zip(
                batches, pool.map(run, batches), strict=True
            ):
                advance(len(chosen))
                answers[chosen] = found[: len(chosen)]
                with np.errstate(over="ignore"):
                    vectors[chosen] = found_mean[: len(chosen)]
        return answers, vectors, n_tokens, np.array(truncated, dtype=bool)

    def _score(self, ads: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Lays ads out in one batch; rows left over stay empty."""
        behind, rows = self._behind, self.rows(length)
        tokens, _ = lay_out([[*ad, *behind] for ad in ads], rows, length + len(behind))
        n_ad = np.zeros(rows, np.int32)
        n_ad[: len(ads)] = [len(ad) for ad in ads]
        return self._forward(tokens, n_ad, self._flat(length))
