"""LLM-0: texts to margins and embeddings, in one forward pass."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from models import forward, presets, tokenization
from models.policy import PromptSpec, RenderedPrompt, prepare_ad, render
from pipelines.console.progress import step

if TYPE_CHECKING:
    from models.encoder import SentenceEncoder

MARGIN_STEP = 2.0**-8
# Another value rounds bfloat16 scores differently: it is part of what identifies a score.
TOKENS_PER_BATCH = 1024

# No token of any vocabulary seen spans more characters in real text; a longer ad is cut before
# it costs time in the tokenizer.
_MAX_CHARS_PER_TOKEN = 32
_PROBE = "Win a brand new phone today"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """What the labeler says about n ads, in the order they came.

    Attributes:
        margin: float32 (n,), logit of the positive minus logit of the negative answer (natural
            log units), a multiple of `MARGIN_STEP`; NaN for an ad that could not be scored.
        vectors: float16 (n, dim), the embedding as it comes, not normalised; NaN likewise.
        n_tokens: int32 (n,), the ad's own tokens that were read.
        truncated: bool (n,), whether the ad had more.
    """

    margin: np.ndarray
    vectors: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray


class Labeler(Protocol):
    """Scores ads and embeds them."""

    @property
    def model_id(self) -> str:
        """Which weights, in which precision."""
        ...

    @property
    def prompt_hash(self) -> str:
        """Which prompt."""
        ...

    @property
    def embedding_id(self) -> str:
        """What the vectors are; equal ids mean comparable vectors."""
        ...

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        ...

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Scores ads; one that cannot be scored gets NaN and costs only itself."""
        ...


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


class LLMLabeler:
    """A causal language model as labeler.

    An ad's margin and vector depend on the ad alone: the ad's own token count decides its padded
    length, and the padded length decides every shape of its batch; a last batch runs half empty.
    """

    def __init__(
        self,
        bundle: presets.CausalLMBundle,
        prompt: PromptSpec,
        *,
        embedder: SentenceEncoder | None = None,
        max_ad_tokens: int = 256,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        workers: int = 2,
    ) -> None:
        """Computes the prompt's prefix and checks the fast pass.

        Args:
            bundle: Model and tokenizer.
            prompt: The task's prompt.
            embedder: Where vectors come from; None takes the model's mean final hidden state
                over the ad's tokens.
            max_ad_tokens: Ads are cut after so many tokens, at least 1.
            tokens_per_batch: Rows a batch are as many as fit into so many tokens; shapes the
                speed and, within rounding, the scores.
            workers: Batches under way at once.

        Raises:
            ValueError: If the prompt is not usable with this model.
        """
        if max_ad_tokens < 1:
            raise ValueError(f"max_ad_tokens: must be at least 1, got {max_ad_tokens}")
        self.prompt: RenderedPrompt = render(prompt, bundle.chat_format)
        self._tokenizer = bundle.tokenizer
        prefix, self._lead, self._suffix = tokenization.encode_halves(bundle.tokenizer, self.prompt)
        answers = tokenization.answer_ids(bundle.tokenizer, self.prompt)
        if not prefix and not self._suffix:
            raise ValueError("template: nothing stands around {ad}")
        window = getattr(bundle.model.backbone, "max_sequence_length", None)
        room = window - len(prefix) - len(self._suffix) if window else max_ad_tokens
        if room < min(16, max_ad_tokens):
            raise ValueError(
                f"template: the prompt takes {len(prefix) + len(self._suffix)} of the model's "
                f"{window} tokens and leaves too few for the ad"
            )
        self.max_ad_tokens = min(max_ad_tokens, room)
        self._tokens_per_batch = tokens_per_batch
        self._workers = workers
        self._embedder = embedder
        probe = bundle.tokenizer.encode(self._lead + _PROBE)[: self.max_ad_tokens]
        self._forward = forward.choose_forward(
            bundle.model, prefix, self._suffix, answers, probe, _log.warning
        )
        self.n_prompt_tokens = len(prefix) + len(self._suffix)
        self.model_id = f"{bundle.model_id}/{bundle.dtype}/{self.max_ad_tokens}"
        self.prompt_hash = self.prompt.hash
        if embedder is None:
            self.dim = int(bundle.model.backbone.hidden_dim)
            self.embedding_id = f"mean-hidden:{self.model_id}:{self.prompt_hash}"
        else:
            self.dim = embedder.dim
            self.embedding_id = embedder.embedding_id

    @classmethod
    def load(
        cls,
        model_spec: str,
        prompt: PromptSpec,
        *,
        embedding: str = "llm",
        dtype: str = "bfloat16",
        max_ad_tokens: int = 256,
    ) -> LLMLabeler:
        """Loads model and, when asked for, sentence encoder.

        Args:
            model_spec: As in `presets.load_causal_lm`.
            prompt: The task's prompt.
            embedding: "llm", or an encoder as in `presets.load_encoder`.
            dtype: Keras dtype policy of the language model.
            max_ad_tokens: Ads are cut after so many tokens.

        Raises:
            presets.PresetError: If weights cannot be had.
            ValueError: If the prompt is not usable with this model.
        """
        # A prompt that is wrong in itself should fail before any download.
        render(prompt)
        embedder = None
        if embedding != "llm":
            from models.encoder import SentenceEncoder

            embedder = SentenceEncoder(presets.load_encoder(embedding))
        bundle = presets.load_causal_lm(model_spec, dtype)
        return cls(bundle, prompt, embedder=embedder, max_ad_tokens=max_ad_tokens)

    @property
    def pass_name(self) -> str:
        """Which forward pass is in use: shared-prefix, cached or whole."""
        return self._forward.name

    def rows(self, length: int) -> int:
        """Rows of every batch whose ads are padded to `length` tokens."""
        per_row = length + len(self._suffix)
        if self._forward.packs:
            # Ads fill about three quarters of such a bucket.
            return max(4, 4 * self._tokens_per_batch // (3 * per_row))
        return max(4, self._tokens_per_batch // per_row)

    def _flat(self, length: int) -> int:
        """Tokens of every batch whose ads are padded to `length` tokens, padding left out."""
        return max(self._tokens_per_batch, 4 * (length + len(self._suffix)))

    def _batches(self, counts: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Divides ads, by place, into batches of one padded length each; longest first."""
        buckets: dict[int, list[int]] = {}
        for place, count in enumerate(counts):
            if count:
                length = bucket_length(count, self._forward.packs)
                buckets.setdefault(min(length, self.max_ad_tokens), []).append(place)
        batches = []
        for length, places in sorted(buckets.items(), reverse=True):
            chosen: list[int] = []
            used = 0
            for place in places:
                need = counts[place] + len(self._suffix)
                full = self._forward.packs and used + need > self._flat(length)
                if len(chosen) == self.rows(length) or full:
                    batches.append((length, chosen))
                    chosen, used = [], 0
                chosen.append(place)
                used += need
            batches.append((length, chosen))
        return batches

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], np.ndarray]:
        """Turns ads into token ids, as data.

        Returns:
            The ids read of each ad, at most `max_ad_tokens`; bool (n,) whether there were more.
        """
        limit = self.max_ad_tokens * _MAX_CHARS_PER_TOKEN
        ads = [prepare_ad(t[:limit], self.prompt, self._tokenizer.special_tokens) for t in texts]
        ids = self._tokenizer.encode_batch([self._lead + ad if ad else "" for ad in ads])
        truncated = np.array(
            [
                len(i) > self.max_ad_tokens or len(t) > limit
                for i, t in zip(ids, texts, strict=True)
            ],
            dtype=bool,
        )
        return [i[: self.max_ad_tokens] for i in ids], truncated

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Scores ads.

        Args:
            texts: Ads as they came, any length, any script.

        Returns:
            Results in the order of `texts`.
        """
        ids, truncated = self.encode(texts)
        n_tokens = np.array([len(i) for i in ids], dtype=np.int32)
        margin = np.full(len(ids), np.nan, np.float32)
        dim = self.dim if self._embedder is None else 0
        vectors = np.full((len(ids), dim), np.nan, np.float16)
        batches = self._batches([len(i) for i in ids])

        def run(batch: tuple[int, list[int]]) -> tuple[np.ndarray, np.ndarray]:
            length, chosen = batch
            return self._score([ids[i] for i in chosen], length)

        # Two batches at once keep the cores busy while one of them is between two operations.
        with (
            step("asking the model", len(ids)) as advance,
            ThreadPoolExecutor(max(1, min(self._workers, len(batches)))) as pool,
        ):
            for (_, chosen), (found_margin, found_mean) in zip(
                batches, pool.map(run, batches), strict=True
            ):
                advance(len(chosen))
                margin[chosen] = found_margin[: len(chosen)]
                if self._embedder is None:
                    with np.errstate(over="ignore"):
                        vectors[chosen] = found_mean[: len(chosen)]
        if self._embedder is not None:
            vectors = self._embedder.encode(texts).astype(np.float16)
        bad = ~(np.isfinite(margin) & np.isfinite(vectors).all(axis=1))
        margin[bad] = np.nan
        vectors[bad] = np.nan
        margin = (np.round(margin / MARGIN_STEP) * MARGIN_STEP).astype(np.float32)
        return LabelBatch(margin, vectors, n_tokens, truncated)

    def _score(self, ads: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Lays ads out in one batch; rows left over stay empty."""
        rows = self.rows(length)
        tokens = np.zeros((rows, length + len(self._suffix)), np.int32)
        n_ad = np.zeros(rows, np.int32)
        for row, ad in enumerate(ads):
            tokens[row, : len(ad)] = ad
            tokens[row, len(ad) : len(ad) + len(self._suffix)] = self._suffix
            n_ad[row] = len(ad)
        return self._forward(tokens, n_ad, self._flat(length))
