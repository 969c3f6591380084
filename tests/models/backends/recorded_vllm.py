"""A module with the names, arguments and results of vLLM's offline API, over a real forward pass of Keras.

Recorded from vLLM's source (`vllm/entrypoints/llm.py`, `vllm/sampling_params.py`, `vllm/outputs.py`) and the
engine arguments of its documentation of 0.10.2; vLLM itself needs a GPU and was not run.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from models import presets
from models.backends import vllm_batch

# Arguments of the engine that may be given by name beside those of `LLM.__init__`.
ENGINE = {"enable_prefix_caching", "logprobs_mode", "max_logprobs", "max_model_len", "max_num_seqs"}
LOGPROBS_MODES = {"raw_logits", "raw_logprobs", "processed_logits", "processed_logprobs"}
GENERATED: list[tuple[Any, Any]] = []


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    allowed_token_ids: list[int] | None = None
    logit_bias: dict[int, float] | None = None


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None


@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    prompt_logprobs: None
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = True


class LLM:
    def __init__(
        self,
        model: str,
        *,
        skip_tokenizer_init: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        gpu_memory_utilization: float = 0.9,
        enforce_eager: bool = False,
        **kwargs: Any,
    ) -> None:
        assert set(kwargs) <= ENGINE, f"no engine argument {set(kwargs) - ENGINE}"
        self.mode = kwargs.get("logprobs_mode", "raw_logprobs")
        assert self.mode in LOGPROBS_MODES
        self.caches_prefixes = kwargs.get("enable_prefix_caching", False)
        self.model = presets.load_causal_lm(model, dtype).model

    def generate(
        self,
        prompts: Sequence[dict[str, list[int]]],
        /,
        sampling_params: Sequence[SamplingParams],
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        assert len(prompts) == len(sampling_params)
        GENERATED.extend(zip(prompts, sampling_params, strict=True))
        return [self._one(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: dict[str, list[int]], wanted: SamplingParams) -> RequestOutput:
        assert set(prompt) == {"prompt_token_ids"}
        ids = np.array([prompt["prompt_token_ids"]], np.int32)
        logits = np.asarray(self.model({"token_ids": ids, "padding_mask": np.ones_like(ids)}))[
            0, -1
        ]
        logits = logits.astype(np.float64)
        if self.mode.startswith("processed") and wanted.allowed_token_ids:
            masked = np.full_like(logits, -np.inf)
            masked[wanted.allowed_token_ids] = logits[wanted.allowed_token_ids]
            logits = masked / wanted.temperature
        logprobs = logits - np.logaddexp.reduce(logits)
        assert wanted.logprobs
        best = np.argsort(-logprobs)[: wanted.logprobs]
        told = {int(i): Logprob(float(logprobs[i]), rank + 1) for rank, i in enumerate(best)}
        output = CompletionOutput(0, "", [int(best[0])], float(logprobs[best[0]]), [told])
        return RequestOutput("0", None, prompt["prompt_token_ids"], None, [output])


def install(patch: pytest.MonkeyPatch) -> None:
    """Let `import vllm` find this while the patch lasts."""
    module = types.ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    vars(module).update({"LLM": LLM, "SamplingParams": SamplingParams})
    patch.setitem(sys.modules, "vllm", module)
    vllm_batch._engine.cache_clear()
    GENERATED.clear()
