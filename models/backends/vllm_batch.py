"""A causal language model run by vLLM on this machine's GPU, a whole block of ads at a time.

The model is a folder in transformers format. Ads become token ids here, by the window that all
backends on this machine share, so that an ad is data and its tokens are those that Keras would get. Of
the first token of the answer vLLM may choose between the two answers' alone (`allowed_token_ids`);
`logprobs_mode="processed_logprobs"` (vLLM 0.10 and later) then gives their log-probabilities among
these two, whose difference is that of the logits. All prompts begin alike: prefix caching reads that once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from models import encoder, presets
from models.backends.base import Backend, BackendError, LabelerIdentity, LabelerSpec, Progress
from models.backends.prompted import (
    Chair,
    PromptLabeler,
    identify_prompts,
    load_chair,
    load_embedder,
    load_encoder,
)
from models.embedded import read_json_object
from models.encoder import SentenceEncoder
from models.policy import PolicySimilarity
from models.presets import CausalLMBundle
from models.prompting import PromptSpec, PromptWindow, is_usable, render
from models.tokenization import read_fast_tokenizer
from pipelines.console.progress import step


class VLLMBatch(Backend):
    """What `model: {backend: vllm, preset: FOLDER}` means."""

    requires = ("vllm", "tensorflow", "keras", "keras_hub", "tokenizers")
    extra = "llm,vllm"
    # Its kernels sum in an order that goes by what else is in the batch.
    independent = False
    embeds = False
    debates = True

    def identify(self, progress: Progress | None = None) -> LabelerIdentity:
        """Return the identity, by weight files and tokenizer alone."""
        spec = self.spec
        if spec.embedding == "llm":
            raise BackendError("vLLM gives no vectors: set embedding.source to encoder")
        chat_format = self._bundle().tokenizer.chat_format
        hashes = [render(prompt, chat_format).hash for prompt in spec.prompts()]
        prompt_hash = identify_prompts(spec, hashes, progress)
        return self._identity(prompt_hash, encoder.identify(spec.embedding, progress))

    def _identity(self, prompt_hash: str, embedder: str) -> LabelerIdentity:
        spec = self.spec
        name = f"vllm:{self._bundle().model_id}/{spec.dtype}/{spec.max_ad_tokens}"
        return LabelerIdentity(name, prompt_hash, embedder, str(encoder.TOKENS_PER_BATCH))

    def _bundle(self) -> CausalLMBundle:
        """Return tokenizer, name and longest sequence of the folder's model, without its weights."""
        spec = self.spec
        folder = Path(spec.preset).expanduser()
        if not (folder / "tokenizer.json").is_file() or not (folder / "config.json").is_file():
            raise BackendError(
                f"{spec.preset}: no folder in transformers format; vLLM takes one with config.json, "
                "tokenizer.json and *.safetensors"
            )
        model_id, _ = presets.identify_causal_lm(spec.preset)
        config = read_json_object(folder / "config.json")
        longest = config.get("max_position_embeddings")
        model = SimpleNamespace(backbone=SimpleNamespace(max_sequence_length=longest))
        return CausalLMBundle(model, read_fast_tokenizer(folder), model_id, spec.dtype)

    def load(self) -> VLLMLabeler:
        """Load model and encoders."""
        spec = self.spec
        embedder = load_embedder(spec.embedding)
        assert embedder is not None, "identify refuses it"
        labeler = VLLMLabeler(
            self._bundle(), spec, spec.prompts(), load_chair(spec, embedder), embedder
        )
        labeler.identity = self._identity(labeler.prompt_hash(), embedder.embedding_id)
        return labeler

    def pilot(
        self, prompts: Sequence[PromptSpec], encoder: str, texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ask every prompt whose answers begin with tokens that differ."""
        bundle = self._bundle()
        embedder = load_encoder(encoder)
        usable = [i for i, prompt in enumerate(prompts) if is_usable(bundle, prompt)]
        answers = np.full((len(texts), len(prompts)), np.nan, np.float32)
        if usable:
            own = [prompts[i] for i in usable]
            labeler = VLLMLabeler(bundle, self.spec, own, None, embedder)
            answers[:, usable] = labeler.answers(texts)
        similarity = PolicySimilarity(embedder, self.spec.prompt.policy)
        return answers, similarity.of_vectors(embedder.encode(texts))


@functools.lru_cache(maxsize=1)
def _engine(folder: str, dtype: str, model_id: str) -> Any:
    """Keep the last engine: a pilot asks it right before the run does, and a GPU holds one."""
    del model_id
    import vllm

    return vllm.LLM(
        model=folder,
        dtype=dtype,
        enable_prefix_caching=True,
        logprobs_mode="processed_logprobs",
    )


class VLLMLabeler(PromptLabeler):
    """A model of vLLM's as labeler."""

    def __init__(
        self,
        bundle: CausalLMBundle,
        spec: LabelerSpec,
        prompts: Sequence[PromptSpec],
        chair: Chair | None,
        embedder: SentenceEncoder,
    ) -> None:
        """Encode the prompts; several need a chair to be one margin. Loads the engine."""
        super().__init__(chair, embedder)
        self.window = PromptWindow(bundle, prompts, spec.max_ad_tokens)
        self.prompts = self.window.prompts
        folder = str(Path(spec.preset).expanduser())
        self._llm = _engine(folder, spec.dtype, bundle.model_id)

    def kept(self, text: str) -> str:
        """Return what is read of an ad; see `PromptLabeler`."""
        return self.window.kept(text)

    def read_tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Count; see `PromptLabeler`."""
        return self.window.read_tokens(texts)

    def _ask(self, texts: Sequence[str]) -> tuple[np.ndarray, None, np.ndarray, np.ndarray]:
        from vllm import SamplingParams

        window = self.window
        ids, truncated = window.encode(texts)
        answers = np.full((len(ids), len(window.suffixes)), np.nan, np.float32)
        places, prompts, choices = [], [], []
        for row, own in enumerate(ids):
            for column, (suffix, pair) in enumerate(
                zip(window.suffixes, window.answers, strict=True)
            ):
                if own:
                    places.append((row, column))
                    prompts.append({"prompt_token_ids": [*window.prefix, *own, *suffix]})
                    choices.append(
                        SamplingParams(
                            max_tokens=1,
                            temperature=1.0,
                            logprobs=2,
                            allowed_token_ids=list(pair),
                            detokenize=False,
                        )
                    )
        with step("asking the model", len(prompts)) as advance:
            found = self._llm.generate(prompts, choices, use_tqdm=False) if prompts else []
            advance(len(prompts))
        for (row, column), output in zip(places, found, strict=True):
            told = output.outputs[0].logprobs[0]
            positive, negative = (told[token].logprob for token in window.answers[column])
            answers[row, column] = positive - negative
        n_tokens = np.array([len(own) for own in ids], dtype=np.int32)
        return answers, None, n_tokens, np.array(truncated, dtype=bool)
