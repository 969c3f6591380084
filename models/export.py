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

import importlib.metadata
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models import bert, locks, lora, presets, tokenization, trained
from models.ad_text import MAX_CHARS_PER_TOKEN
from models.backends.base import Progress
from models.graph import ad_text, tokens
from models.graph.tables import GraphFunction
from pipelines.numerics import calibration

# Raise it when the signature or export.json changes.
FORMAT = 1
SIGNATURE = "serving_default"

# Rows that run through the network at once: a request of any size takes bounded memory, and one
# long ad makes only its own rows long.
_ROWS = {"encoder": 64, "llm": 32}


class ExportError(RuntimeError):
    """A model cannot be exported; the message says why and what to do."""


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
    if progress:
        progress(f"Writing {parts.manifest.model_id} as a SavedModel to {out}")
    return write(parts, out, labels)


def write(parts: trained.Parts, out: Path, labels: tuple[str, str]) -> Path:
    """Exports a model that is loaded in float32; arguments and errors as `export`'s."""
    _require_empty(out)
    bundle, manifest = parts.bundle, parts.manifest
    about: dict[str, Any] = {"model_id": manifest.model_id}
    if isinstance(bundle, presets.CausalLMBundle):
        assert manifest.prompt is not None
        run = lora.PromptPass(bundle, manifest.prompt, manifest.window)
        prompt = run.window.prompts[0]
        about |= {"kind": "llm", "max_ad_tokens": run.window.max_ad_tokens}
        about["prompt"] = {"prefix": prompt.prefix, "suffix": prompt.suffix, "hash": prompt.hash}
        margins = _llm_margins(bundle, run)
        return _save(margins, bundle.model.variables, parts, about, labels, out)
    about |= {"kind": "encoder", "max_tokens": min(manifest.window, bundle.max_tokens)}
    margins = _encoder_margins(parts, bundle, about["max_tokens"])
    return _save(margins, bundle.backbone.variables, parts, about, labels, out)


def _encoder_margins(
    parts: trained.Parts, bundle: presets.EncoderBundle, max_tokens: int
) -> GraphFunction:
    """Builds a sentence encoder with a linear head on its mean-pooled vectors."""
    import tensorflow as tf

    assert parts.kernel is not None
    prepare = ad_text.ad_text(max_tokens * MAX_CHARS_PER_TOKEN)
    tokenize = tokens.word_piece(bundle.tokenizer)
    before, after = tokens.ends(bundle.tokenizer)
    room = max_tokens - len(before) - len(after)

    def score(rows: Any) -> Any:
        vectors = bert.plain_pool(
            bundle.backbone, rows.to_tensor(0), tf.cast(rows.row_lengths(), tf.int32)
        )
        if parts.manifest.normalize:
            norms = tf.norm(vectors, axis=1, keepdims=True)
            vectors /= tf.where(norms > 0, norms, 1.0)
        return tf.linalg.matvec(vectors, tf.constant(parts.kernel)) + np.float32(parts.bias)

    def margins(texts: Any) -> Any:
        ids = tokenize(prepare(texts))[:, :room]
        found = _in_chunks(score, _between(before, ids, after), _ROWS["encoder"])
        return tf.where(ids.row_lengths() > 0, found, np.float32(np.nan))

    return margins


def _llm_margins(bundle: presets.CausalLMBundle, run: lora.PromptPass) -> GraphFunction:
    """Builds a causal language model that answers a prompt.

    The prompt's markup becomes special tokens, an ad's never does. The margin is the logit of the
    positive minus that of the negative answer's first token at the prompt's last position; no other
    logit is computed.
    """
    import tensorflow as tf

    window = run.window
    prepare = ad_text.ad_text(window.max_chars, window.prompts[0], bundle.tokenizer.special_tokens)
    tokenize = tokens.byte_pair(_tokenizer(bundle))

    def score(rows: Any) -> Any:
        return run.margins(rows.to_tensor(0), tf.cast(rows.row_lengths(), tf.int32))

    def margins(texts: Any) -> Any:
        ads = prepare(texts)
        ids = tokenize(tf.where(ads == "", "", window.lead + ads))[:, : window.max_ad_tokens]
        found = _in_chunks(score, _between(window.prefix, ids, run.suffix), _ROWS["llm"])
        return tf.where(ids.row_lengths() > 0, found, np.float32(np.nan))

    return margins


def _require_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} is not empty: nothing is overwritten; name a new folder")


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
    margins: GraphFunction,
    variables: Sequence[Any],
    parts: trained.Parts,
    about: dict[str, Any],
    labels: tuple[str, str],
    out: Path,
) -> Path:
    """Writes the SavedModel and export.json; `out` appears whole or not at all.

    `margins` goes from tf.string (n,) to float32 (n,) and reads the Keras `variables`; `about` are
    more entries of export.json.
    """
    import tensorflow as tf

    threshold = parts.manifest.threshold_margin
    limit, step = calibration.MARGIN_LIMIT, calibration.MARGIN_STEP

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="texts")])
    def serve(texts: Any) -> dict[str, Any]:
        margin = margins(texts)
        # The threshold was fitted on the grid, so it is compared there.
        grid = tf.round(tf.clip_by_value(margin, -limit, limit) / step) * step
        label = tf.where(
            tf.math.is_finite(margin), tf.cast(grid >= np.float32(threshold), tf.int32), -1
        )
        return {"probability": tf.sigmoid(margin), "margin": margin, "label": label}

    module = tf.Module()
    # The plain variables behind Keras's own: the loader must not look for Keras.
    module.weights = [variable.value for variable in variables]
    module.serve = serve
    out.parent.mkdir(parents=True, exist_ok=True)
    with locks.scratch(f".{out.name}-", out.parent) as folder:
        # Folders of its kind are for their owner alone; a served model may be another user's.
        temp = folder / "model"
        temp.mkdir()
        temp.chmod(0o755)
        tf.saved_model.save(module, str(temp), signatures={SIGNATURE: serve})
        described = json.dumps(
            about | _description(threshold, labels), indent=2, ensure_ascii=False
        )
        (temp / "export.json").write_text(f"{described}\n", encoding="utf-8")
        os.replace(temp, out)
    return out


def _description(threshold: float, labels: tuple[str, str]) -> dict[str, Any]:
    packages = ("tensorflow", "tensorflow-text", "keras", "keras-hub", "tokenizers")
    probability = float(calibration.probability(threshold))
    return {
        "format": FORMAT,
        "threshold": {"margin": threshold, "probability": probability},
        "labels": {"1": labels[0], "0": labels[1], "-1": "not scored"},
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
