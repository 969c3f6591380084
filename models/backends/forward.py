"""Which forward pass a model gets: the fastest that agrees with the plain one on a probe.

`SharedPrefixForward` for the Llama family (every row attends to one copy of the prefix's keys and
values, matrices are joined, weights are constants of the graph), `CachedForward` for any KerasHub
causal language model with `call_with_cache`, `WholeForward` for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.backends.passes import CachedForward, Forward, WholeForward
from models.backends.shared_prefix import SharedPrefixForward


def choose_forward(
    model: Any,
    prefix: Sequence[int],
    suffix: Sequence[int],
    answers: tuple[int, int],
    probe: Sequence[int],
    log: Callable[[str], None],
) -> Forward:
    """Returns the fastest pass that agrees with the plain one on a probe.

    Args:
        model: `keras_hub.models.CausalLM`.
        prefix: Ids before the ad.
        suffix: Ids after it.
        answers: First ids of the two answers.
        probe: Ids of any ad.
        log: Told when a faster way was refused, and why.

    Returns:
        The pass to use.
    """
    rows = 2
    # Padding on the right shows whether a pass looks at what it must not.
    row = [*probe, *suffix]
    tokens = np.array([[*row, *row[:1] * 3]] * rows, np.int32)
    n_ad = np.full(rows, len(probe), np.int32)
    whole = WholeForward(model, prefix, len(suffix), answers)
    margin, mean = whole.once(tokens, n_ad)
    kinds: list[type[SharedPrefixForward] | type[CachedForward]] = []
    if type(model.backbone).__name__ in ("LlamaBackbone", "Llama3Backbone"):
        kinds.append(SharedPrefixForward)
    if hasattr(model, "call_with_cache") and hasattr(model, "_build_cache") and prefix:
        kinds.append(CachedForward)
    loose = np.dtype(np.float32) if model.compute_dtype == "float32" else np.dtype(np.float16)
    limit = 1e-3 if loose == np.float32 else 0.05
    for kind in kinds:
        try:
            forward = kind(model, prefix, len(suffix), answers)
            got_margin, got_mean = forward(tokens, n_ad, rows * len(row) + 5)
        except Exception as e:
            # Families differ in what their cache wants; the plain pass always works.
            reason = (str(e).strip().splitlines() or [type(e).__name__])[-1].strip()
            log(f"{kind.name} pass not usable for {type(model).__name__}: {reason}")
            continue
        size = float(np.linalg.norm(mean)) or 1.0
        off = float(np.linalg.norm(got_mean - mean)) / size
        if off <= limit and np.all(np.abs(got_margin - margin) <= 10 * limit):
            return forward
        log(
            f"{kind.name} pass refused for {type(model).__name__}: its vector is {off:.2g} off "
            f"and its margin {float(np.max(np.abs(got_margin - margin))):.2g}"
        )
    return whole
