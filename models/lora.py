"""Low-rank adapters on a causal language model's attention, and the pass that trains them.

The factors are KerasHub's: kernel + a @ b over the kernel's last axis, on the layers that
`backbone.default_lora_layer_names` names. They live beside the model instead of inside its layers
(`enable_lora` would make them in the layers' own precision, too coarse to train in bfloat16): the
model runs in a scope where each such kernel reads as the sum. Merged, it is a plain model again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models import presets
from models.backends.passes import WholeForward
from models.prompting import PromptSpec, PromptWindow

_A, _B = "/lora_a", "/lora_b"


def targets(backbone: Any) -> list[Any]:
    """Return the kernels that get an adapter, in the model's order.

    Raises:
        ValueError: The backbone has none.
    """
    names = set(backbone.default_lora_layer_names())
    found, seen = [], set()
    for layer in backbone._flatten_layers(include_self=False):
        kernel = getattr(layer, "kernel", None)
        if layer.name in names and kernel is not None and kernel.path not in seen:
            seen.add(kernel.path)
            found.append(kernel)
    if not found:
        raise ValueError(
            f"{type(backbone).__name__} has no layer named {', '.join(sorted(names))}: LoRA does "
            "not fit this model; use the encoder or head learner"
        )
    return found


class Adapter:
    """Factors of low rank for each target kernel, float32.

    Attributes:
        variables: the Keras variables that are trained, a and b by turns.
    """

    def __init__(self, backbone: Any, rank: int, seed: int) -> None:
        """Make factors whose product is zero.

        Args:
            backbone: `keras_hub.models.Backbone`.
            rank: at least 1.
            seed: of the random half.

        Raises:
            ValueError: If the backbone has no layer to adapt.
        """
        import keras

        rng = np.random.default_rng(seed)
        self._kernels = targets(backbone)
        self.variables = []
        for kernel in self._kernels:
            shape = tuple(kernel.shape)
            # he_uniform, as Keras' own adapters: its fan-in is all axes but the last.
            limit = (6.0 / float(np.prod(shape[:-1]))) ** 0.5
            a = rng.uniform(-limit, limit, (*shape[:-1], rank)).astype(np.float32)
            b = np.zeros((rank, shape[-1]), np.float32)
            for value, name in ((a, "lora_a"), (b, "lora_b")):
                self.variables.append(keras.Variable(value, dtype="float32", name=name))

    def scope(self) -> Any:
        """Return a context in which the model computes with the sums; differentiable."""
        import keras
        import tensorflow as tf

        pairs = []
        for place, kernel in enumerate(self._kernels):
            a, b = self.variables[2 * place : 2 * place + 2]
            flat = tf.reshape(a.value, [-1, a.shape[-1]])
            change = tf.reshape(tf.matmul(flat, b.value), kernel.shape)
            value = tf.cast(kernel.value, tf.float32) + change
            pairs.append((kernel, tf.cast(value, kernel.dtype)))
        return keras.StatelessScope(state_mapping=pairs)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the factors, float32, by kernel path."""
        return {
            kernel.path + suffix: np.asarray(self.variables[2 * place + half].numpy())
            for place, kernel in enumerate(self._kernels)
            for half, suffix in enumerate((_A, _B))
        }


def merge(backbone: Any, tensors: Mapping[str, np.ndarray]) -> None:
    """Add saved factors to a backbone's kernels for good.

    Raises:
        ValueError: If the factors are of another model.
    """
    kernels = targets(backbone)
    wanted = {kernel.path + suffix for kernel in kernels for suffix in (_A, _B)}
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))[0]
        raise ValueError(f"the adapter does not fit the model: {odd} is in one of them only")
    for kernel in kernels:
        a, b = tensors[kernel.path + _A], tensors[kernel.path + _B]
        if (*a.shape[:-1], b.shape[-1]) != tuple(kernel.shape) or a.shape[-1] != b.shape[0]:
            raise ValueError(
                f"the adapter does not fit the model: {kernel.path} is {tuple(kernel.shape)}, its "
                f"factors are {a.shape} and {b.shape}"
            )
        kernel.assign(_float32(kernel) + np.matmul(a, b))


def _float32(variable: Any) -> np.ndarray:
    """Read a variable of any precision as float32."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))


class PromptPass(WholeForward):
    """The plain forward pass over whole prompts, inside a graph that gradients cross.

    Attributes:
        window: the prompt, and how much of an ad is read.
        suffix: its ids behind the ad.
    """

    name = "training"

    def __init__(
        self, bundle: presets.CausalLMBundle, prompt: PromptSpec, max_ad_tokens: int
    ) -> None:
        """Prepare prompt and answers as the labeler does.

        Raises:
            ValueError: If the prompt is not usable with this model.
        """
        self.window = window = PromptWindow(bundle, [prompt], max_ad_tokens)
        (self.suffix,), (answers,) = window.suffixes, window.answers
        super().__init__(bundle.model, window.prefix, len(self.suffix), answers)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn ads into the ids of whole prompts; an empty ad gives an empty list."""
        window = self.window
        ids, _ = window.encode(texts)
        return [[*window.prefix, *own, *self.suffix] if own else [] for own in ids]

    def margins(self, tokens: Any, n_tokens: Any) -> Any:
        """Score whole prompts.

        Args:
            tokens: int32 (rows, length), padded behind.
            n_tokens: int32 (rows,), prompt and ad together.

        Returns:
            float32 (rows,), logit of the positive minus logit of the negative answer.
        """
        n_prompt = len(self.window.prefix) + len(self.suffix)
        margin, _ = self._eager(tokens, n_tokens - n_prompt)
        return margin[:, 0]
