"""A trained model as a TensorFlow SavedModel that takes raw strings.

What a server needs is in the folder: text preparation, tokenization, weights, threshold. It loads
with TensorFlow and tensorflow-text (whose import registers the word pieces' operation), without
this project or KerasHub::

    import tensorflow as tf, tensorflow_text
    served = tf.saved_model.load(folder).signatures["serving_default"]
    served(tf.constant(["Win a brand new phone today"]))

returns, for n texts, `margin` float32 (n,), log-odds of the positive label as the model gives them
(not rounded to the labeler's grid); `probability` float32 (n,), its sigmoid; `label` int32 (n,), 1
positive, 0 negative by the fitted threshold, -1 for an ad that cannot be scored, whose margin and
probability are no numbers: one without a token of its own. No text makes it fail.

The served path gives an ad the Python path's own text and tokens, hostile ads included. It differs
where a Python string cannot be what the bytes are: bytes that are no UTF-8 are read as U+FFFD. It
computes in float32, also a model that this project scores in bfloat16, and reads the whole prompt
for every ad: right, not fast.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models import bert, presets, tokenization, trained
from models.ad_text import MAX_CHARS_PER_TOKEN
from models.backends.base import Progress
from models.backends.passes import WholeForward
from models.graph import ad_text, byte_pair, word_piece
from models.prompting import PromptSpec, PromptWindow
from pipelines.numerics import calibration

# Raise it when the signature or export.json changes.
FORMAT = 1
SIGNATURE = "serving_default"

# Rows that run through the network at once: a request of any size takes bounded memory, and one
# long ad makes only its own rows long.
_ROWS = {"encoder": 64, "llm": 32}


class ExportError(RuntimeError):
    """A model cannot be exported; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How a margin becomes a label.

    Attributes:
        margin: The threshold in log-odds, finite; an ad is positive at or above it.
        positive: Name of label 1.
        negative: Name of label 0.
    """

    margin: float
    positive: str = "positive"
    negative: str = "negative"

    def __post_init__(self) -> None:
        if not np.isfinite(self.margin):
            raise ValueError(f"margin: must be a finite number, got {self.margin}")


def export(
    folder: Path,
    out: Path,
    *,
    labels: tuple[str, str] = ("positive", "negative"),
    progress: Progress | None = None,
) -> Path:
    """Exports what `trainer.train` saved.

    Args:
        folder: A trained model's folder.
        out: Folder to write, new or empty; on the local disk.
        labels: Names of the positive and the negative label, for export.json.
        progress: Told what takes time.

    Returns:
        `out`.

    Raises:
        trained.TrainedModelError: If the folder is no usable model.
        presets.PresetError: If the model's base cannot be had.
        ExportError: If `out` is not empty or the model is of a kind that has no graph.
        graph.tables.GraphTokenizerError: If its tokenizer has none.
    """
    _require_empty(out)
    parts = trained.load_parts(folder, dtype="float32", progress=progress)
    manifest, bundle = parts.manifest, parts.bundle
    decision = Decision(manifest.threshold_margin, *labels)
    if progress:
        progress(f"Writing {manifest.model_id} as a SavedModel to {out}")
    if isinstance(bundle, presets.CausalLMBundle):
        assert manifest.prompt is not None
        return export_causal_lm(
            bundle,
            manifest.prompt,
            decision,
            out,
            max_ad_tokens=manifest.window,
            model_id=manifest.model_id,
        )
    assert parts.kernel is not None
    return export_encoder(
        dataclasses.replace(bundle, max_tokens=min(manifest.window, bundle.max_tokens)),
        parts.kernel,
        parts.bias,
        decision,
        out,
        normalize=manifest.normalize,
        model_id=manifest.model_id,
    )


def export_encoder(
    bundle: presets.EncoderBundle,
    kernel: np.ndarray,
    bias: float,
    decision: Decision,
    out: Path,
    *,
    normalize: bool | None = None,
    model_id: str = "",
) -> Path:
    """Exports a sentence encoder with a linear head on its mean-pooled vectors.

    Args:
        bundle: The encoder, frozen or tuned, loaded in float32; its tokenizer is WordPiece.
        kernel: float (dim,), the head's weights.
        bias: The head's constant.
        decision: Threshold and names of the labels.
        out: Folder to write, new or empty.
        normalize: Whether the head reads vectors of length 1; None as the bundle says.
        model_id: What export.json calls the model; empty takes the bundle's.

    Returns:
        `out`.

    Raises:
        ExportError: If the model is not float32, the head does not fit, or `out` is not empty.
        graph.tables.GraphTokenizerError: If its tokenizer cannot be a graph.
    """
    import tensorflow as tf

    _require_float32(bundle.model_id, bundle.dtype)
    head = np.asarray(kernel, np.float32).reshape(-1)
    if head.shape != (bundle.dim,):
        raise ExportError(
            f"head: has {head.size} weights, but {bundle.model_id} gives vectors of {bundle.dim}"
        )
    unit = bundle.normalize if normalize is None else normalize
    prepare = ad_text.ad_text(bundle.max_tokens * MAX_CHARS_PER_TOKEN)
    tokenize = word_piece.word_piece(bundle.tokenizer)
    before, after = word_piece.ends(bundle.tokenizer)
    room = bundle.max_tokens - len(before) - len(after)

    def score(rows: Any) -> Any:
        vectors = bert.plain_pool(
            bundle.backbone, rows.to_tensor(0), tf.cast(rows.row_lengths(), tf.int32)
        )
        if unit:
            norms = tf.norm(vectors, axis=1, keepdims=True)
            vectors /= tf.where(norms > 0, norms, 1.0)
        return tf.linalg.matvec(vectors, tf.constant(head)) + np.float32(bias)

    def margins(texts: Any) -> Any:
        ids = tokenize(prepare(texts))[:, :room]
        found = _in_chunks(score, _between(before, ids, after), _ROWS["encoder"])
        return tf.where(ids.row_lengths() > 0, found, np.float32(np.nan))

    about = {
        "kind": "encoder",
        "model_id": model_id or bundle.model_id,
        "max_tokens": bundle.max_tokens,
    }
    return _save(margins, bundle.backbone.variables, decision, about, out)


def export_causal_lm(
    bundle: presets.CausalLMBundle,
    prompt: PromptSpec,
    decision: Decision,
    out: Path,
    *,
    max_ad_tokens: int = 256,
    model_id: str = "",
) -> Path:
    """Exports a causal language model that answers a prompt.

    The margin is the logit of the positive minus the logit of the negative answer's first token at
    the prompt's last position; no other logit is computed.

    Args:
        bundle: The model, loaded in float32, adapters merged; its tokenizer is byte-level BPE.
        prompt: The task's prompt; its markup becomes special tokens, an ad's never does.
        decision: Threshold and names of the labels.
        out: Folder to write, new or empty.
        max_ad_tokens: Ads are cut after so many tokens, at least 1.
        model_id: What export.json calls the model; empty takes the bundle's.

    Returns:
        `out`.

    Raises:
        ExportError: If the model is not float32 or `out` is not empty.
        graph.tables.GraphTokenizerError: If its tokenizer cannot be a graph.
        ValueError: If the prompt is not usable with this model.
    """
    import tensorflow as tf

    _require_float32(bundle.model_id, bundle.dtype)
    window = PromptWindow(bundle, prompt, max_ad_tokens)
    prefix, suffix, rendered = window.prefix, window.suffix, window.prompt
    prepare = ad_text.ad_text(window.max_chars, rendered, bundle.tokenizer.special_tokens)
    tokenize = byte_pair.byte_pair(_tokenizer(bundle))
    whole = WholeForward(bundle.model, prefix, len(suffix), window.answers)

    def score(rows: Any) -> Any:
        n_ad = tf.cast(rows.row_lengths(), tf.int32) - (len(prefix) + len(suffix))
        return whole._run(rows.to_tensor(0), n_ad)[0]

    def margins(texts: Any) -> Any:
        ads = prepare(texts)
        ids = tokenize(tf.where(ads == "", "", window.lead + ads))[:, : window.max_ad_tokens]
        found = _in_chunks(score, _between(prefix, ids, suffix), _ROWS["llm"])
        return tf.where(ids.row_lengths() > 0, found, np.float32(np.nan))

    about = {
        "kind": "llm",
        "model_id": model_id or bundle.model_id,
        "max_ad_tokens": window.max_ad_tokens,
        "prompt": {"prefix": rendered.prefix, "suffix": rendered.suffix, "hash": rendered.hash},
    }
    return _save(margins, bundle.model.variables, decision, about, out)


def _require_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} is not empty: nothing is overwritten; name a new folder")


def _require_float32(model_id: str, dtype: str) -> None:
    if dtype != "float32":
        raise ExportError(f"{model_id} was loaded in {dtype}; load it in float32 to export it")


def _tokenizer(bundle: presets.CausalLMBundle) -> Any:
    """Returns the `tokenizers.Tokenizer` inside a bundle.

    Raises:
        ExportError: If it is of another kind.
    """
    if not isinstance(bundle.tokenizer, tokenization.FastTokenizer):
        raise ExportError(
            f"{bundle.model_id}: its tokenizer is a {type(bundle.tokenizer).__name__}; only "
            "byte-level BPE of the `tokenizers` library can be exported"
        )
    return bundle.tokenizer.markup


def _between(before: Sequence[int], rows: Any, after: Sequence[int]) -> Any:
    """Puts the same ids around every row of a ragged int32 tensor (n, None)."""
    import tensorflow as tf

    def repeat(ids: Sequence[int]) -> Any:
        n = rows.nrows()
        flat = tf.tile(tf.constant(list(ids), tf.int32), [n])
        return tf.RaggedTensor.from_uniform_row_length(flat, len(ids), nrows=n)

    return tf.concat([repeat(before), rows, repeat(after)], axis=1)


def _in_chunks(score: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """Scores rows of like length together, a few at a time.

    Args:
        score: From ragged int32 (k, None), k at least 1, to float32 (k,).
        rows: Ragged int32 (n, None), n may be 0.
        size: The largest k.

    Returns:
        float32 (n,), in the order of `rows`.
    """
    import tensorflow as tf

    order = tf.argsort(rows.row_lengths(), stable=True)
    ordered = tf.gather(rows, order)
    n = tf.size(order)

    def step(start: Any, found: Any) -> tuple[Any, Any]:
        chunk = ordered[start : tf.minimum(start + size, n)]
        return start + size, tf.concat([found, score(chunk)], 0)

    _, found = tf.while_loop(
        lambda start, _found: start < n,
        step,
        (0, tf.zeros([0], tf.float32)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
        # Chunks one after the other: in parallel they would all be in memory.
        parallel_iterations=1,
    )
    return tf.gather(found, tf.argsort(order))


def _save(
    margins: Callable[[Any], Any],
    variables: Sequence[Any],
    decision: Decision,
    about: dict[str, Any],
    out: Path,
) -> Path:
    """Writes the SavedModel and export.json; `out` appears whole or not at all.

    Args:
        margins: From tf.string (n,) to float32 (n,).
        variables: The Keras variables that it reads.
        decision: Threshold and names of the labels.
        about: More entries of export.json.
        out: A new or empty folder.
    """
    import tensorflow as tf

    _require_empty(out)
    limit, step = calibration.MARGIN_LIMIT, calibration.MARGIN_STEP

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="texts")])
    def serve(texts: Any) -> dict[str, Any]:
        margin = margins(texts)
        # The threshold was fitted on the grid, so it is compared there.
        grid = tf.round(tf.clip_by_value(margin, -limit, limit) / step) * step
        label = tf.where(
            tf.math.is_finite(margin), tf.cast(grid >= np.float32(decision.margin), tf.int32), -1
        )
        return {"probability": tf.sigmoid(margin), "margin": margin, "label": label}

    module = tf.Module()
    # The plain variables behind Keras's own: the loader must not look for Keras.
    module.weights = [variable.value for variable in variables]
    module.serve = serve
    out.parent.mkdir(parents=True, exist_ok=True)
    temp = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        # mkdtemp makes folders for the owner alone; a served model may be another user's.
        temp.chmod(0o755)
        tf.saved_model.save(module, str(temp), signatures={SIGNATURE: serve})
        described = json.dumps(about | _description(decision), indent=2, ensure_ascii=False)
        (temp / "export.json").write_text(f"{described}\n", encoding="utf-8")
        os.replace(temp, out)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise
    return out


def _description(decision: Decision) -> dict[str, Any]:
    packages = ("tensorflow", "tensorflow-text", "keras", "keras-hub", "tokenizers")
    probability = float(calibration.probability(decision.margin))
    return {
        "format": FORMAT,
        "threshold": {"margin": decision.margin, "probability": probability},
        "labels": {"1": decision.positive, "0": decision.negative, "-1": "not scored"},
        "signature": {
            "name": SIGNATURE,
            "inputs": {"texts": "string (n,), UTF-8, ads as they came"},
            "outputs": {
                "probability": "float32 (n,), sigmoid of the margin, not calibrated",
                "margin": "float32 (n,), log-odds of label 1",
                "label": "int32 (n,), a key of labels: 1 where the margin reaches the threshold",
            },
        },
        "call": "import tensorflow as tf, tensorflow_text; "
        f"tf.saved_model.load(FOLDER).signatures['{SIGNATURE}'](tf.constant(['an ad']))",
        "made_with": {name: importlib.metadata.version(name) for name in packages},
    }
