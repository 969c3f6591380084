"""Models that experts' labels trained: their folder, and scoring with them.

A folder holds `model.json`, written last, and one safetensors file; nothing in it is code. What an
LLM or a frozen encoder did not learn is not saved but taken from its preset, whose content hash
must still be the one that training saw.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models import lora, presets
from models.encoder import SentenceEncoder, embedding_id
from models.identity import LabelerIdentity
from models.labeler import LabelBatch, Labeler, LLMLabeler
from models.policy import FewShotExample, PromptSpec
from pipelines.numerics.calibration import MARGIN_STEP

# Raise it when a folder written now cannot be read by older code.
FORMAT = 1
MANIFEST = "model.json"
LEARNERS = ("llm", "encoder", "head")
WEIGHTS = {
    "llm": "adapter.safetensors",
    "encoder": "encoder.safetensors",
    "head": "head.safetensors",
}
KERNEL, BIAS = "head/kernel", "head/bias"
NO_PROMPT = "no-prompt"
_ROWS = 4096

Progress = Callable[[str], None]


class TrainedModelError(RuntimeError):
    """A saved model cannot be used; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the labelled ads.

    Attributes:
        ads: how many.
        positive: how many of them are positive.
    """

    ads: int
    positive: int

    @property
    def positive_share(self) -> float:
        """In [0, 1]; 0 for an empty part."""
        return self.positive / self.ads if self.ads else 0.0


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the fitting part gave.

    Attributes:
        number: from 1.
        loss: mean class-balanced cross-entropy over the fitting part while it was learnt, nats.
        validation_loss: the same of the validation part afterwards, its margins rescaled to fit
            best, so that it tells of ranking, not of confidence.
        validation_kappa: Cohen's kappa on it at its own best threshold, optimistic.
        seconds: wall clock, without tracing before the first.
    """

    number: int
    loss: float
    validation_loss: float
    validation_kappa: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained model's manifest.

    Attributes:
        format: of the folder.
        learner: "llm" (adapter), "encoder" (all its weights and a head) or "head" (head alone).
        model_id: learner, base model and hash of the learnt weights; the same wherever it lies.
        base_model_id: name and content hash of the weights that training started from.
        preset: where those come from, as in `presets`.
        dtype: precision that it was trained to be scored in.
        window: an LLM's longest ad, an encoder's longest sequence, in tokens.
        longest: the longest sequence that the base encoder itself takes; an LLM's window.
        normalize: whether an encoder's vectors are scaled to length 1 before the head.
        prompt: an LLM's prompt.
        prompt_hash: of that prompt as rendered; `NO_PROMPT` for an encoder.
        label_set_hash: SHA-256 over the sorted lines "key label" of the ads learnt from.
        threshold_margin: positive when margin >= it; a multiple of `MARGIN_STEP`.
        threshold_probability: its sigmoid.
        threshold_kappa: kappa at it on the scores it was chosen on, optimistic.
        fitting: the ads that weights were fitted on.
        validation: the ads held out for early stopping and the threshold; for a head the same ads
            again, each scored by a model that did not see it.
        epochs: what each epoch gave; empty for a head.
        best_epoch: the one whose weights are saved; 0 for a head.
        settings: all settings of the training, as JSON.
        versions: of the libraries that shape the weights.
        seed: of the training.
        weights_hash: SHA-256 over the learnt tensors' names, shapes and bytes.
        files: SHA-256 of each file beside the manifest, by name.
    """

    format: int
    learner: str
    model_id: str
    base_model_id: str
    preset: str
    dtype: str
    window: int
    longest: int
    normalize: bool
    prompt: PromptSpec | None
    prompt_hash: str
    label_set_hash: str
    threshold_margin: float
    threshold_probability: float
    threshold_kappa: float
    fitting: Part
    validation: Part
    epochs: tuple[Epoch, ...]
    best_epoch: int
    settings: dict[str, Any]
    versions: dict[str, str]
    seed: int
    weights_hash: str
    files: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["prompt"] = dataclasses.asdict(self.prompt) if self.prompt else None
        for name in ("fitting", "validation"):
            part = values[name]
            values[name] = {**dataclasses.asdict(part), "positive_share": part.positive_share}
        values["epochs"] = [dataclasses.asdict(epoch) for epoch in self.epochs]
        return values


@dataclass(frozen=True, slots=True)
class Parts:
    """A trained model taken apart: all that its scores are made of.

    Attributes:
        manifest: what it is.
        bundle: the base model with the learnt weights in it (an adapter merged), its tokenizer
            and window; its `model_id` is the trained model's for "llm" and "encoder", the base's
            for "head".
        kernel: float32 (dim,), the head's weights on the mean-pooled vector, which is scaled to
            length 1 first where `manifest.normalize`; None for "llm".
        bias: the head's bias; 0 for "llm". margin = vector @ kernel + bias.
    """

    manifest: TrainedModel
    bundle: presets.CausalLMBundle | presets.EncoderBundle
    kernel: np.ndarray | None
    bias: float


# --- The folder -------------------------------------------------------------------------------


def hash_weights(tensors: Mapping[str, np.ndarray]) -> str:
    """Hash tensors by name, dtype, shape and content, whatever the order; 64 hex digits."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        total.update(f"{name} {value.dtype} {value.shape}\n".encode())
        total.update(value.tobytes())
    return total.hexdigest()


def name_model(learner: str, base_model_id: str, weights_hash: str) -> str:
    """Return the id of a trained model."""
    return f"{learner}:{base_model_id}+{weights_hash[:12]}"


def save(manifest: TrainedModel, tensors: Mapping[str, np.ndarray], folder: Path) -> TrainedModel:
    """Write a model's folder; the manifest last, so that a killed run leaves no model.

    Args:
        manifest: `files` is filled in here.
        tensors: the learnt weights by name.
        folder: new or empty.

    Returns:
        The manifest as written.

    Raises:
        FileExistsError: If the folder holds something.
    """
    from safetensors.numpy import save_file

    make_folder(folder)
    path = folder / WEIGHTS[manifest.learner]
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(arrays, path, metadata={"format": "np"})
    # safetensors writes for the owner alone; models are shared.
    path.chmod(0o644)
    manifest = dataclasses.replace(manifest, files={path.name: _sha256(path)})
    text = json.dumps(manifest.to_json(), indent=2, sort_keys=True, ensure_ascii=False)
    temp = folder / f".{MANIFEST}.{os.getpid()}"
    temp.write_text(text + "\n", encoding="utf-8")
    os.replace(temp, folder / MANIFEST)
    return manifest


def make_folder(folder: Path) -> None:
    """Make a model's folder.

    Raises:
        FileExistsError: If it holds something: models are never written over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: give a new folder for the trained model")


def read_manifest(folder: Path) -> TrainedModel:
    """Read a model's manifest; no weights are touched.

    Raises:
        TrainedModelError: If there is none, it is damaged, or newer code wrote it.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise TrainedModelError(
            f"{folder} holds no {MANIFEST}: it is no trained model, or its training was cut short; "
            "train again"
        ) from e
    except (OSError, ValueError) as e:
        raise TrainedModelError(f"{path} cannot be read ({e}): restore it or train again") from e
    try:
        found = values["format"]
        if not isinstance(found, int) or found < 1:
            raise ValueError(f"format is {found!r}")
        if found > FORMAT:
            raise TrainedModelError(
                f"{path} has format {found}, this version of ad-scout reads up to {FORMAT}: "
                "upgrade ad-scout, or train again with this version"
            )
        return _from_json(values)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise TrainedModelError(
            f"{path} is not a manifest of a trained model ({type(e).__name__}: {e}): restore it or "
            "train again"
        ) from e


def _from_json(values: dict[str, Any]) -> TrainedModel:
    known = {field.name for field in dataclasses.fields(TrainedModel)}
    values = {name: values[name] for name in known}
    if values["learner"] not in LEARNERS:
        raise ValueError(f"learner is {values['learner']!r}")
    if (prompt := values["prompt"]) is not None:
        examples = tuple(FewShotExample(**example) for example in prompt["examples"])
        values["prompt"] = PromptSpec(**{**prompt, "examples": examples})
    elif values["learner"] == "llm":
        raise ValueError("an llm without a prompt")
    for name in ("fitting", "validation"):
        values[name] = Part(values[name]["ads"], values[name]["positive"])
    values["epochs"] = tuple(Epoch(**epoch) for epoch in values["epochs"])
    if WEIGHTS[values["learner"]] not in values["files"]:
        raise ValueError(f"no {WEIGHTS[values['learner']]} among its files")
    return TrainedModel(**values)


def read_weights(folder: Path, manifest: TrainedModel) -> dict[str, np.ndarray]:
    """Read the learnt tensors, checked against the manifest.

    Raises:
        TrainedModelError: If a file is missing or its content is not what training wrote.
    """
    from safetensors.numpy import load_file

    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise TrainedModelError(f"{path} is missing: restore it or train again")
        if (found := _sha256(path)) != expected:
            raise TrainedModelError(
                f"{path} is damaged: its SHA-256 is {found[:12]}…, {MANIFEST} says "
                f"{expected[:12]}…; restore it or train again"
            )
    tensors: dict[str, np.ndarray] = load_file(folder / WEIGHTS[manifest.learner])
    if hash_weights(tensors) != manifest.weights_hash:
        raise TrainedModelError(
            f"{folder / MANIFEST} belongs to other weights than "
            f"{WEIGHTS[manifest.learner]}: restore both or train again"
        )
    return tensors


def load_parts(
    folder: Path,
    *,
    dtype: str | None = None,
    cache: VectorCache | None = None,
    progress: Progress | None = None,
) -> Parts:
    """Load a trained model as a Keras backbone with its learnt weights, head and tokenizer.

    Args:
        folder: what the trainer wrote.
        dtype: of an LLM's weights; None takes the manifest's. An encoder's are float32 always.
        cache: keeps the frozen encoder of a head.
        progress: told what takes time.

    Raises:
        TrainedModelError: If the folder is no usable model, or its base has changed since.
        presets.PresetError: If the base cannot be had.
    """
    manifest = read_manifest(folder)
    tensors = read_weights(folder, manifest)
    if manifest.learner == "llm":
        llm = presets.load_causal_lm(manifest.preset, dtype or manifest.dtype, progress)
        _check_base(folder, manifest, llm.model_id)
        try:
            lora.merge(llm.model.backbone, tensors)
        except ValueError as e:
            raise TrainedModelError(f"{folder}: {e}; train again") from e
        return Parts(manifest, dataclasses.replace(llm, model_id=manifest.model_id), None, 0.0)
    if cache is not None and manifest.learner == "head":
        encoder = cache.bundle(manifest.preset, progress)
    else:
        encoder = presets.load_encoder(manifest.preset, "float32", progress)
    _check_base(folder, manifest, encoder.model_id)
    try:
        kernel, bias = tensors.pop(KERNEL), float(tensors.pop(BIAS)[0])
        if manifest.learner == "encoder":
            for weight in encoder.backbone.weights:
                weight.assign(tensors.pop(weight.path))
            encoder = dataclasses.replace(encoder, model_id=manifest.model_id)
        if tensors or kernel.shape != (encoder.dim,):
            raise ValueError(f"head {kernel.shape}, {len(tensors)} tensors left over")
    except (KeyError, ValueError) as e:
        raise TrainedModelError(
            f"{folder}: its weights do not fit {manifest.preset} ({type(e).__name__}: {e}); train "
            "again"
        ) from e
    return Parts(manifest, encoder, kernel, bias)


def _check_base(folder: Path, manifest: TrainedModel, found: str) -> None:
    if found != manifest.base_model_id:
        raise TrainedModelError(
            f"{folder} was trained from {manifest.base_model_id}, but {manifest.preset} is now "
            f"{found}: bring the old weights back or train again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# --- Scoring ----------------------------------------------------------------------------------


class VectorCache:
    """Frozen encoders, and the vectors they gave to texts before, by embedding and text.

    Memory: n_texts * (4 * dim + 100) bytes and the texts, 22 MB for 12,000 headlines of 384
    dimensions. Not shared between processes, not safe for several threads.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], np.ndarray] = {}
        self._bundles: dict[str, presets.EncoderBundle] = {}
        self._encoders: dict[tuple[str, str, int], SentenceEncoder] = {}
        self.misses = 0

    def __len__(self) -> int:
        return len(self._rows)

    def bundle(self, preset: str, progress: Progress | None = None) -> presets.EncoderBundle:
        """Return a base encoder, loaded once; its weights must stay as they are."""
        if preset not in self._bundles:
            self._bundles[preset] = presets.load_encoder(preset, "float32", progress)
        return self._bundles[preset]

    def encoder(
        self, bundle: presets.EncoderBundle, dtype: str, max_tokens: int
    ) -> SentenceEncoder:
        """Return the fast pass of a bundle of `bundle`, traced once."""
        name = (bundle.model_id, dtype, max_tokens)
        if name not in self._encoders:
            self._encoders[name] = SentenceEncoder(bundle, dtype=dtype, max_tokens=max_tokens)
        return self._encoders[name]

    def vectors(
        self, name: str, texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray]
    ) -> np.ndarray:
        """Return vectors, embedding only texts not seen under this name.

        Args:
            name: an embedding id.
            texts: n texts, n at least 1.
            embed: texts to float32 (n, dim).

        Returns:
            float32 (n, dim).
        """
        new = list(dict.fromkeys(text for text in texts if (name, text) not in self._rows))
        if new:
            self.misses += len(new)
            for text, row in zip(new, embed(new), strict=True):
                self._rows[name, text] = row
        return np.stack([self._rows[name, text] for text in texts])


def linear(vectors: np.ndarray, kernel: np.ndarray, bias: float) -> np.ndarray:
    """Compute grid margins of a head.

    Summed row by row in float64: a matrix product's rounding would depend on a row's neighbours.

    Args:
        vectors: float32 (n, dim); a row that is not finite gives NaN.
        kernel: float32 (dim,).
        bias: in log-odds.

    Returns:
        float32 (n,), multiples of `MARGIN_STEP` or NaN.
    """
    margin = np.empty(len(vectors), np.float64)
    wide = kernel.astype(np.float64)
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        margin[rows] = (vectors[rows].astype(np.float64) * wide).sum(axis=1) + bias
    margin[~np.isfinite(margin)] = np.nan
    return (np.round(margin / MARGIN_STEP) * MARGIN_STEP).astype(np.float32)


class EncoderLabeler:
    """A sentence encoder with a linear head as labeler; scores depend on the text alone."""

    def __init__(
        self,
        parts: Parts,
        encoder: SentenceEncoder,
        *,
        base: SentenceEncoder | None = None,
        cache: VectorCache | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            parts: head and manifest.
            encoder: what the head reads.
            base: where `vectors` come from; None takes the encoder's own.
            cache: keeps what the frozen encoder gave.
        """
        assert parts.kernel is not None
        self._kernel, self._bias = parts.kernel, parts.bias
        self._encoder, self._base, self._cache = encoder, base, cache
        self._tuned = parts.manifest.learner == "encoder"
        self.model_id = _scored_id(parts.manifest, encoder.dtype)
        self.prompt_hash = parts.manifest.prompt_hash
        self.embedding_id = (base or encoder).embedding_id
        self.dim = encoder.dim

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 (n, dim); a text without tokens of its own gets NaN."""
        tokens = self._encoder.tokenize(texts)
        vectors = self._encoder.pool(tokens.ids)
        vectors[tokens.n_own == 0] = np.nan
        return vectors

    def _own(self, texts: Sequence[str]) -> np.ndarray:
        """Return what the head reads, float32 (n, dim); remembered only of a frozen encoder."""
        if self._cache is None or self._tuned:
            return self._embed(texts)
        return self._cache.vectors(self._encoder.embedding_id, texts, self._embed)

    def margins(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts: float32 (n,), multiples of `MARGIN_STEP`, NaN for one without words."""
        if not texts:
            return np.zeros(0, np.float32)
        return linear(self._own(texts), self._kernel, self._bias)

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Score and embed texts; see `models.labeler.Labeler`."""
        tokens = self._encoder.tokenize(texts)
        if not texts:
            own = np.zeros((0, self.dim), np.float32)
        else:
            own = self._own(texts)
        margin = linear(own, self._kernel, self._bias)
        base = own
        if self._base is not None and texts:
            encode = self._base.encode
            base = (
                encode(texts)
                if self._cache is None
                else self._cache.vectors(self._base.embedding_id, texts, encode)
            )
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = base.astype(np.float16)
        bad = (tokens.n_own == 0) | ~np.isfinite(margin) | ~np.isfinite(vectors).all(axis=1)
        margin[bad] = np.nan
        vectors[bad] = np.nan
        return LabelBatch(margin, vectors, tokens.n_own, tokens.truncated)


def load(
    folder: Path,
    *,
    dtype: str | None = None,
    embedding: str | None = None,
    cache: VectorCache | None = None,
    progress: Progress | None = None,
) -> Labeler:
    """Load a trained model as a labeler.

    Args:
        folder: what the trainer wrote.
        dtype: precision of scoring; None takes the manifest's.
        embedding: where vectors come from; None takes the default. An llm's: "llm" (default) or
            an encoder as in `presets.load_encoder`. An encoder's: "base" (default: as before
            training, so that rounds compare; a second pass) or "own" (tuned, free). A head's:
            "base", which costs nothing.
        cache: keeps an encoder's vectors between calls of `margins`.
        progress: told what takes time.

    Raises:
        TrainedModelError: If the folder is no usable model, or the embedding does not fit it.
        presets.PresetError: If the base cannot be had.
    """
    manifest = read_manifest(folder)
    embedding = _embedding(manifest, embedding)
    dtype = dtype or manifest.dtype
    parts = load_parts(folder, dtype=dtype, cache=cache, progress=progress)
    if isinstance(parts.bundle, presets.CausalLMBundle):
        embedder = None
        if embedding != "llm":
            embedder = SentenceEncoder(presets.load_encoder(embedding, progress=progress))
        assert manifest.prompt is not None
        return LLMLabeler(
            parts.bundle, manifest.prompt, embedder=embedder, max_ad_tokens=manifest.window
        )
    frozen = VectorCache() if cache is None else cache
    if manifest.learner == "head":
        return EncoderLabeler(
            parts, frozen.encoder(parts.bundle, dtype, manifest.window), cache=cache
        )
    encoder = SentenceEncoder(parts.bundle, dtype=dtype, max_tokens=manifest.window)
    base = None
    if embedding == "base":
        bundle = frozen.bundle(manifest.preset, progress)
        base = frozen.encoder(bundle, dtype, manifest.window)
    return EncoderLabeler(parts, encoder, base=base, cache=cache)


def margins(model: Path | Labeler, texts: Sequence[str]) -> np.ndarray:
    """Score texts without their vectors where that saves time.

    Args:
        model: a trained model's folder, or a labeler.
        texts: any texts.

    Returns:
        float32 (n,), multiples of `MARGIN_STEP`; NaN for a text that cannot be scored.
    """
    if isinstance(model, Path):
        own = read_manifest(model).learner == "encoder"
        model = load(model, embedding="own" if own else None)
    if isinstance(model, EncoderLabeler):
        return model.margins(texts)
    return model.label(texts).margin


def identify(
    folder: Path,
    *,
    dtype: str | None = None,
    embedding: str | None = None,
    progress: Progress | None = None,
) -> LabelerIdentity:
    """Return what decides a trained model's scores and vectors, without loading weights.

    Args:
        folder: what the trainer wrote.
        dtype: as in `load`.
        embedding: as in `load`.
        progress: told what is fetched.

    Raises:
        TrainedModelError: If the folder holds no manifest or the embedding does not fit it.
        presets.PresetError: If an encoder named as embedding cannot be had.
    """
    manifest = read_manifest(folder)
    embedding = _embedding(manifest, embedding)
    dtype = dtype or manifest.dtype
    name = _scored_id(manifest, dtype)
    if embedding == "llm":
        vectors = f"mean-hidden:{name}:{manifest.prompt_hash}"
    elif manifest.learner == "llm":
        vectors = f"mean-pooled:{presets.identify_encoder(embedding, progress)}"
    else:
        base = manifest.model_id if embedding == "own" else manifest.base_model_id
        vectors = embedding_id(base, dtype, manifest.normalize, manifest.window, manifest.longest)
    return LabelerIdentity(name, manifest.prompt_hash, vectors)


def _scored_id(manifest: TrainedModel, dtype: str) -> str:
    return f"{manifest.model_id}/{dtype}/{manifest.window}"


def _embedding(manifest: TrainedModel, embedding: str | None) -> str:
    """Check where vectors come from; fills in the default.

    Raises:
        TrainedModelError: If it does not fit the learner.
    """
    if manifest.learner == "llm":
        if embedding in ("base", "own"):
            raise TrainedModelError(
                f"embedding: {embedding!r} is for encoders; an llm's is 'llm' or an encoder's name"
            )
        return embedding or "llm"
    allowed = ("base", "own") if manifest.learner == "encoder" else ("base",)
    if embedding not in (None, *allowed):
        raise TrainedModelError(
            f"embedding: got {embedding!r} for a model of learner {manifest.learner!r}; use one of "
            f"{', '.join(allowed)}"
        )
    return embedding or "base"
