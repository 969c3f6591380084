"""A causal language model that KerasHub loads: texts to margins and embeddings in one forward pass."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from models import encoder, presets
from models.backends.base import Backend, LabelerIdentity, Progress
from models.backends.forward import EarlyForward, choose_forward
from models.backends.passes import Forward
from models.backends.prompted import (
    Chair,
    PromptLabeler,
    identify_prompts,
    load_chair,
    load_embedder,
    load_encoder,
)
from models.bert import PRODUCT_ROWS, lay_out
from models.encoder import SentenceEncoder
from models.policy import PolicySimilarity
from models.prompting import PromptSpec, PromptWindow, is_usable, render
from pipelines.console.progress import step

# Another value rounds bfloat16 scores differently: it is part of what identifies a score.
TOKENS_PER_BATCH = 22 * PRODUCT_ROWS
# Two batches at once keep the cores busy while one of them is between two operations.
WORKERS = 2
# The least padded length where padding costs little.
_SHORTEST = 16
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
    exits = True

    def identify(self, progress: Progress | None = None) -> LabelerIdentity:
        """Return the identity; hashes weight files and reads the tokenizer's."""
        spec = self.spec
        # A prompt that is wrong in itself should fail before any download.
        for prompt in spec.prompts():
            render(prompt)
        model_id, chat_format = presets.identify_causal_lm(spec.preset, progress)
        embedder = None if spec.embedding == "llm" else encoder.identify(spec.embedding, progress)
        hashes = [render(prompt, chat_format).hash for prompt in spec.prompts()]
        prompt_hash = identify_prompts(spec, hashes, progress)
        return name_scores(model_id, spec.dtype, spec.max_ad_tokens, prompt_hash, embedder)

    def load(self) -> LLMLabeler:
        """Load model and, when asked for, sentence encoder."""
        spec = self.spec
        for prompt in spec.prompts():
            render(prompt)
        embedder = load_embedder(spec.embedding)
        return LLMLabeler(
            self._bundle(),
            *spec.prompts(),
            chair=load_chair(spec, embedder),
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


def bucket_length(n_tokens: int, packs: bool = False) -> int:
    """Rounds an ad's token count up to a padded length.

    At most a quarter more, or 3 tokens; where padding costs little (`packs`) to a power of two,
    so that few batches remain half empty.
    """
    if packs:
        return max(_SHORTEST, 1 << (n_tokens - 1).bit_length())
    step = 4
    while n_tokens > 8 * step:
        step *= 2
    return -(-max(n_tokens, 1) // step) * step


class LLMLabeler(PromptLabeler):
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
        super().__init__(chair, embedder)
        self.window = window = PromptWindow(bundle, prompts, max_ad_tokens)
        self.prompts = window.prompts
        self._forward = self._choose(bundle)
        self.identity = name_scores(
            bundle.model_id,
            bundle.dtype,
            max_ad_tokens,
            self.prompt_hash(),
            embedder.embedding_id if embedder else None,
        )
        self._model, self._early = bundle.model, dict[int, EarlyForward]()
        self._dim = int(bundle.model.backbone.hidden_dim)
        self._behind = [token for suffix in window.suffixes for token in suffix]

    def _choose(self, bundle: presets.CausalLMBundle) -> Forward:
        window = self.window
        probe = window.encode([_PROBE])[0][0]
        return choose_forward(
            bundle.model, window.prefix, window.suffixes, window.answers, probe, _log.warning
        )

    @property
    def pass_name(self) -> str:
        """Which forward pass is in use: shared-prefix, cached or whole."""
        return self._forward.name

    def rows(self, length: int) -> int:
        """Rows of every batch whose ads are padded to `length` tokens."""
        per_row = length + len(self._behind)
        if self._forward.packs:
            # Ads fill three quarters of the shortest bucket, and less of another: the longer, the rarer.
            # Rows too few leave the flat list empty, rows too many cost attention alone.
            share = 3 / 4 if length <= _SHORTEST else 5 / 8
            return max(4, int(TOKENS_PER_BATCH / (share * per_row)))
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

    def kept(self, text: str) -> str:
        """Return what is read of an ad; see `PromptLabeler`."""
        return self.window.kept(text)

    def read_tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Count; see `PromptLabeler`."""
        return self.window.read_tokens(texts)

    def states(self, texts: Sequence[str], layer: int) -> np.ndarray:
        """Read ads as far as a layer, without what stands behind them; see `Labeler`."""
        early = self._early.get(layer)
        if early is None:
            try:
                early = EarlyForward(self._model, self.window.prefix, layer)
            except (AttributeError, TypeError, ValueError):
                return super().states(texts, layer)
            self._early[layer] = early
        ids, _ = self.window.encode(texts)
        found = np.full((len(ids), self._dim), np.nan, np.float32)
        buckets: dict[int, list[int]] = {}
        for place, own in enumerate(ids):
            if own:
                buckets.setdefault(bucket_length(len(own)), []).append(place)
        rows = {length: max(1, TOKENS_PER_BATCH // length) for length in buckets}
        batches = [
            (length, places[start : start + rows[length]])
            for length, places in sorted(buckets.items(), reverse=True)
            for start in range(0, len(places), rows[length])
        ]

        def run(batch: tuple[int, list[int]]) -> np.ndarray:
            length, places = batch
            longest = -(-length // PRODUCT_ROWS) * PRODUCT_ROWS
            flat = max(TOKENS_PER_BATCH, longest)
            return early([ids[i] for i in places], length, rows[length], flat)

        with ThreadPoolExecutor(max(1, min(WORKERS, len(batches)))) as pool:
            for (_, places), states in zip(batches, pool.map(run, batches), strict=True):
                found[places] = states
        return found

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
            ThreadPoolExecutor(max(1, min(WORKERS, len(batches)))) as pool,
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
