"""Which model, prompt and embedding a task means, without loading any weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models import policy, presets

FAKE = "fake"


@dataclass(frozen=True, slots=True)
class LabelerIdentity:
    """What decides every score and vector.

    Attributes:
        model_id: name and content hash of the weights, precision and window.
        prompt_hash: hash of the rendered prompt.
        embedding_id: what the vectors are.
    """

    model_id: str
    prompt_hash: str
    embedding_id: str


def identify(
    model: str,
    prompt: policy.PromptSpec,
    embedding: str,
    dtype: str,
    max_ad_tokens: int,
    progress: Callable[[str], None] | None = None,
) -> LabelerIdentity:
    """Return a labeler's identity.

    Fetches what is embedded (so that the workers find it in the cache) and hashes weight files;
    nothing is loaded.

    Args:
        model: as in ``presets.load_causal_lm``, or ``fake``.
        prompt: the task's prompt.
        embedding: ``llm``, or an encoder as in ``presets.load_encoder``.
        dtype: of the language model.
        max_ad_tokens: window of the ad.
        progress: told what is fetched or converted.

    Raises:
        presets.PresetError: the weights cannot be had.
        ValueError: the prompt is not usable.
    """
    if model == FAKE:
        return LabelerIdentity(f"{FAKE}@1", policy.render(prompt).hash, "trigrams")
    policy.render(prompt)
    model_id, chat_format = presets.identify_causal_lm(model, progress)
    rendered = policy.render(prompt, chat_format)
    name = f"{model_id}/{dtype}/{max_ad_tokens}"
    if embedding == "llm":
        embedding_id = f"mean-hidden:{name}:{rendered.hash}"
    else:
        embedding_id = f"mean-pooled:{presets.identify_encoder(embedding, progress)}"
    return LabelerIdentity(name, rendered.hash, embedding_id)
