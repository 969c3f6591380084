"""A model that experts' labels trained, as labeler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models import encoder, presets, trained
from models.backends.base import Backend, LabelBatch, Labeler, LabelerIdentity, Progress
from models.backends.keras_llm import KerasLLM, LLMLabeler, name_scores
from models.backends.prompted import load_embedder
from models.encoder import SentenceEncoder, VectorCache
from models.trained import Parts
from pipelines.numerics.calibration import to_grid

_ROWS = 4096


class Trained(Backend):
    """A folder that the trainer wrote; not chosen by a task's `model.backend` but by its rounds."""

    requires, extra = KerasLLM.requires, KerasLLM.extra

    def __init__(
        self,
        folder: Path,
        *,
        embedding: str = "llm",
        cache: VectorCache | None = None,
    ) -> None:
        """Read the folder's manifest.

        Args:
            folder: what the trainer wrote.
            embedding: where an llm's vectors come from: "llm" or an encoder as in
                `presets.load_encoder`. Those of an encoder or a head are its base's, so that rounds
                compare: for a tuned encoder a second pass, for a head nothing more.
            cache: keeps a frozen encoder and its vectors between labelers.

        Raises:
            trained.TrainedModelError: The folder holds no manifest.
            BackendError: A package that is needed is not installed.
        """
        self.check_packages()
        self.folder, self._cache, self._embedding = folder, cache, embedding
        self.manifest = trained.read_manifest(folder)

    def identify(self, progress: Progress | None = None) -> LabelerIdentity:
        """Return the identity, by the manifest alone.

        Raises:
            presets.PresetError: An encoder named as embedding cannot be had.
        """
        manifest, dtype = self.manifest, self.manifest.dtype
        if manifest.learner == "llm":
            own = self._embedding == "llm"
            embedder = None if own else encoder.identify(self._embedding, progress)
            window, prompt = manifest.window, manifest.prompt_hash
            return name_scores(manifest.model_id, dtype, window, prompt, embedder)
        vectors = encoder.embedding_id(
            manifest.base_model_id, dtype, manifest.normalize, manifest.window, manifest.longest
        )
        return _identity(manifest, vectors)

    def look(self) -> LabelerIdentity:
        """Look for the base weights, too; raises as `identify` does."""
        if self.manifest.learner == "llm":
            presets.identify_causal_lm(self.manifest.preset)
        else:
            presets.identify_encoder(self.manifest.preset)
        return self.identify()

    def load(self) -> Labeler:
        """Load the labeler.

        Raises:
            trained.TrainedModelError: The folder is no usable model, or its base has changed.
            presets.PresetError: The base cannot be had.
        """
        manifest, dtype, cache = self.manifest, self.manifest.dtype, self._cache
        parts = trained.load_parts(self.folder, cache=cache)
        if isinstance(parts.bundle, presets.CausalLMBundle):
            assert manifest.prompt is not None
            return LLMLabeler(
                parts.bundle,
                manifest.prompt,
                embedder=load_embedder(self._embedding),
                max_ad_tokens=manifest.window,
            )
        frozen = VectorCache() if cache is None else cache
        if manifest.learner == "head":
            own = base = frozen.encoder(parts.bundle, dtype, manifest.window)
        else:
            own = SentenceEncoder(parts.bundle, dtype=dtype, max_tokens=manifest.window)
            base = frozen.encoder(frozen.bundle(manifest.preset), dtype, manifest.window)
        return EncoderLabeler(parts, own, base, cache)


def _identity(manifest: trained.TrainedModel, vectors: str) -> LabelerIdentity:
    """Return the identity of a tuned encoder or a head, loaded or not."""
    name = f"{manifest.model_id}/{manifest.dtype}/{manifest.window}"
    return LabelerIdentity(name, manifest.prompt_hash, vectors, str(encoder.TOKENS_PER_BATCH))


def linear(vectors: np.ndarray, kernel: np.ndarray, bias: float) -> np.ndarray:
    """Compute grid margins of a head.

    Summed row by row in float64: a matrix product's rounding would depend on a row's neighbours.

    Args:
        vectors: float32 (n, dim); a row that is not finite gives NaN.
        kernel: float32 (dim,).
        bias: in log-odds.

    Returns:
        float32 (n,) on the grid of margins, or NaN.
    """
    margin = np.empty(len(vectors), np.float64)
    wide = kernel.astype(np.float64)
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        margin[rows] = (vectors[rows].astype(np.float64) * wide).sum(axis=1) + bias
    margin[~np.isfinite(margin)] = np.nan
    return to_grid(margin)


class EncoderLabeler(Labeler):
    """A sentence encoder with a linear head as labeler; scores depend on the text alone."""

    def __init__(
        self,
        parts: Parts,
        encoder: SentenceEncoder,
        base: SentenceEncoder,
        cache: VectorCache | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            parts: head and manifest.
            encoder: what the head reads.
            base: the frozen encoder, where vectors come from; may be the same.
            cache: keeps what the frozen encoder gave.
        """
        assert parts.kernel is not None
        self._kernel, self._bias = parts.kernel, parts.bias
        self._encoder, self._base, self._cache = encoder, base, cache
        self.identity = _identity(parts.manifest, base.embedding_id)

    def _embed(self, encoder: SentenceEncoder, texts: Sequence[str]) -> np.ndarray:
        """Return float32 (n, dim), NaN without words; remembered only of a frozen encoder."""

        def embed(new: Sequence[str]) -> np.ndarray:
            tokens = encoder.tokenize(new)
            vectors = encoder.pool(tokens.ids)
            vectors[tokens.n_own == 0] = np.nan
            return vectors

        if self._cache is None or encoder is not self._base:
            return embed(texts)
        return self._cache.vectors(encoder.embedding_id, texts, embed)

    def margins(self, texts: Sequence[str], similarity: np.ndarray | None = None) -> np.ndarray:
        """Score texts without the base's second pass."""
        del similarity
        return linear(self._embed(self._encoder, texts), self._kernel, self._bias)

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Score and embed texts; see `Labeler`."""
        tokens = self._encoder.tokenize(texts)
        own = self._embed(self._encoder, texts)
        margin = linear(own, self._kernel, self._bias)
        base = own if self._base is self._encoder else self._embed(self._base, texts)
        base = self._base.told_apart(texts, base)
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = base.astype(np.float16)
        bad = (tokens.n_own == 0) | ~np.isfinite(margin) | ~np.isfinite(vectors).all(axis=1)
        margin[bad] = np.nan
        vectors[bad] = np.nan
        return LabelBatch(margin, vectors, tokens.n_own, tokens.truncated)
