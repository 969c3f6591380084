"""Models that experts' labels trained: their folder and their parts.

A folder holds `model.json`, written last, and one safetensors file; nothing in it is code. What an
LLM or a frozen encoder did not learn is not saved but taken from its preset, whose content hash
must still be the one that training saw.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from models import lora, presets
from models.backends.base import Progress
from models.embedded import sha256
from models.encoder import VectorCache
from models.prompting import PromptSpec
from pipelines.numerics.calibration import Fitted, PriorBound

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
        threshold_kappa: kappa at it on the scores it was chosen on, optimistic; where the prior moved
            it, at the fitted one.
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
        fitted: the threshold that the labels alone give; None in folders of earlier versions.
        bound: what the prior allowed it on a sample of the corpus; None where it had no say.
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
    fitted: Fitted | None = None
    bound: PriorBound | None = None


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
    manifest = dataclasses.replace(manifest, files={path.name: sha256(path)})
    write_manifest(manifest, folder)
    return manifest


def write_manifest(manifest: TrainedModel, folder: Path) -> None:
    """Write a model's manifest, whole or not at all."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False)
    temp = folder / f".{MANIFEST}.{os.getpid()}"
    temp.write_text(text + "\n", encoding="utf-8")
    os.replace(temp, folder / MANIFEST)


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
    except (OSError, ValueError, RecursionError) as e:
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
    known = dataclasses.fields(TrainedModel)
    given = {f.name: values[f.name] for f in known if f.name in values or f.default is not None}
    manifest = pydantic.TypeAdapter(TrainedModel).validate_python(given)
    if manifest.learner not in LEARNERS:
        raise ValueError(f"learner is {manifest.learner!r}")
    if manifest.learner == "llm" and manifest.prompt is None:
        raise ValueError("an llm without a prompt")
    if WEIGHTS[manifest.learner] not in manifest.files:
        raise ValueError(f"no {WEIGHTS[manifest.learner]} among its files")
    return manifest


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
        if (found := sha256(path)) != expected:
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
        encoder = presets.load_encoder(manifest.preset, progress)
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
    # Of a model trained before the tokenizer was part of an id, the id ends before it.
    if not f"{found}-".startswith(f"{manifest.base_model_id}-"):
        raise TrainedModelError(
            f"{folder} was trained from {manifest.base_model_id}, but {manifest.preset} is now "
            f"{found}: bring the old weights back or train again"
        )
