"""A policy and a question as a prompt, and the prompt with an ad in it as a model's tokens.

Pure Python: nothing here imports a model, so `scout validate` shows a prompt at once.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.ad_text import MAX_CHARS_PER_TOKEN, delimiters, prepare_ad

if TYPE_CHECKING:
    from models.presets import CausalLMBundle
    from models.tokenization import TextTokenizer

AD_FIELD = "{ad}"

# Part of the prompt's hash: raise it whenever `render` or `prepare_ad` starts to give other text
# for the same arguments, or old scores would be taken for new ones.
PROMPT_VERSION = 1

DEFAULT_TEMPLATE = {
    # Of the completions tried that state a policy this ranked best; one that ends in a whole
    # question ranked near chance with the embedded model.
    "completion": "Policy: {policy}\n\nAd: {ad}\nViolates the policy:",
    "chat": "{question}\nAnswer with one word, Yes or No.\n\nAd: {ad}",
}
DEFAULT_SYSTEM = "You review ads against one policy.\nPolicy: {policy}"
DEFAULT_ANSWERS = {"completion": (" Yes", " No"), "chat": ("Yes", "No")}

# A prompt must leave an ad so many tokens, or as many as are asked for.
_MIN_ROOM = 16
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class FewShotExample:
    """An ad with its verdict, shown to the model before the ad it must judge.

    Attributes:
        text: The example's text, data like any ad.
        label: "positive" (violates the policy) or "negative".
    """

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """What the task file says about the prompt.

    Attributes:
        policy: The policy's text, not blank.
        question: The yes/no question put to the model, not blank.
        form: "completion" (plain text that the answer continues) or "chat" (turns).
        template: The completion's text, or the user turn's. Holds `{ad}` exactly once; may hold
            `{policy}`, `{question}`, `{examples}`, and the labels' names as `{positive}`,
            `{Positive}` (with a capital) and `{negative}`. Empty means the form's default; the
            completion's states the policy and a cue of its own, and does not use the question.
        system: The system turn of a chat; may hold `{policy}`, `{question}`. Empty means the
            default, which states the policy.
        positive_answer: What the model says of an ad that violates the policy; may hold a label's
            name, as above. Empty means " Yes" after a completion (the space belongs to the
            answer's token), "Yes" in a chat.
        negative_answer: The other answer; " No" or "No".
        examples: Few-shot examples, in the order shown.
        chat_format: "auto" (the model's own) or one of `CHAT_FORMATS`.
        labels: The names of the positive and of the negative label.
    """

    policy: str
    question: str
    form: str = "completion"
    template: str = ""
    system: str = ""
    positive_answer: str = ""
    negative_answer: str = ""
    examples: tuple[FewShotExample, ...] = ()
    chat_format: str = "auto"
    labels: tuple[str, str] = ("positive", "negative")


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt with a hole where the ad goes.

    Attributes:
        prefix: All text before the ad.
        suffix: All text after it, up to where the answer starts.
        positive_answer: The continuation that means "violates".
        negative_answer: The continuation that means "does not".
        hash: 16 hexadecimal digits over everything that shapes the prompt.
    """

    prefix: str
    suffix: str
    positive_answer: str
    negative_answer: str
    hash: str


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How one family of models writes turns.

    Attributes:
        user: A user turn, `%s` standing for its text.
        assistant: A finished assistant turn, for few-shot examples.
        answer: What opens the assistant's turn.
        system: A system turn; empty when the family has none, and then the system text opens
            the first user turn.
    """

    user: str
    assistant: str
    answer: str
    system: str = ""


CHAT_FORMATS = {
    "chatml": ChatFormat(
        system="<|im_start|>system\n%s<|im_end|>\n",
        user="<|im_start|>user\n%s<|im_end|>\n",
        assistant="<|im_start|>assistant\n%s<|im_end|>\n",
        answer="<|im_start|>assistant\n",
    ),
    "gemma": ChatFormat(
        user="<start_of_turn>user\n%s<end_of_turn>\n",
        assistant="<start_of_turn>model\n%s<end_of_turn>\n",
        answer="<start_of_turn>model\n",
    ),
    "llama3": ChatFormat(
        system="<|start_header_id|>system<|end_header_id|>\n\n%s<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n%s<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n%s<|eot_id|>",
        answer="<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistral": ChatFormat(user="[INST] %s [/INST]", assistant="%s</s>", answer=""),
    "phi3": ChatFormat(
        system="<|system|>\n%s<|end|>\n",
        user="<|user|>\n%s<|end|>\n",
        assistant="<|assistant|>\n%s<|end|>\n",
        answer="<|assistant|>\n",
    ),
    "plain": ChatFormat(
        system="%s\n\n", user="User: %s\n", assistant="Assistant: %s\n", answer="Assistant: "
    ),
}


# Turns apart, as services take them, which put their own markup around each: `turns_of` cuts the text
# up again. `prepare_ad` leaves no control character in an ad, so none can begin a turn.
TURNS = "turns"
_TURNS = ChatFormat(
    system="\x02system\x03%s", user="\x02user\x03%s", assistant="\x02assistant\x03%s", answer=""
)
_TURN = re.compile("\x02(system|user|assistant)\x03")


def turns_of(text: str) -> tuple[tuple[str, str], ...]:
    """Cut the text of a prompt that was rendered as `TURNS` into (role, text) of each turn."""
    _, *parts = _TURN.split(text)
    return tuple(zip(parts[::2], parts[1::2], strict=True))


def render(spec: PromptSpec, chat_format: str = "chatml") -> RenderedPrompt:
    """Renders a prompt around the place where the ad goes.

    Args:
        spec: The task file's prompt.
        chat_format: The model's own chat format, used when `spec.chat_format` is "auto" and the
            form is "chat"; or `TURNS`.

    Returns:
        The prompt's two halves, the answers, and the hash.

    Raises:
        ValueError: Naming the field, for an unknown chat format or placeholder, `{ad}` missing or
            twice, or answers that are blank or the same. The task file has checked the rest.
    """
    default_positive, default_negative = DEFAULT_ANSWERS[spec.form]
    names = _names(spec)
    positive = _fill(spec.positive_answer or default_positive, names)
    negative = _fill(spec.negative_answer or default_negative, names)
    for field, answer in (("positive_answer", positive), ("negative_answer", negative)):
        if not answer.strip():
            raise ValueError(f"{field}: must not be blank, got {answer!r}")
    if positive.strip() == negative.strip():
        raise ValueError(
            f"positive_answer, negative_answer: must differ, both are {positive.strip()!r}"
        )
    template = spec.template or DEFAULT_TEMPLATE[spec.form]
    known = ("ad", "policy", "question", "examples", *names)
    ads = _fields("template", template, known).count("ad")
    if ads != 1:
        raise ValueError(f"template: must hold {AD_FIELD} exactly once, found {ads}")
    values = {"policy": spec.policy.strip(), "question": spec.question.strip(), **names}

    if spec.form == "completion":
        prefix, suffix = _completion(spec, template, values, positive, negative)
    else:
        prefix, suffix = _chat(spec, template, values, positive, negative, chat_format)
    shape = [PROMPT_VERSION, prefix, suffix, positive, negative]
    digest = hashlib.sha256(json.dumps(shape, ensure_ascii=True).encode()).hexdigest()[:16]
    return RenderedPrompt(prefix, suffix, positive, negative, digest)


def describe(spec: PromptSpec, ad: str) -> str:
    """Shows the whole prompt, with an ad prepared as in a run; the answer would follow at once."""
    prompt = render(spec)
    return f"{prompt.prefix}{prepare_ad(ad, prompt)}{prompt.suffix}"


def _names(spec: PromptSpec) -> dict[str, str]:
    positive, negative = spec.labels
    capital = positive[:1].upper() + positive[1:]
    return {"positive": positive, "Positive": capital, "negative": negative}


def _fields(where: str, text: str, allowed: tuple[str, ...]) -> list[str]:
    names = _FIELD.findall(text)
    for name in names:
        if name not in allowed:
            known = ", ".join("{%s}" % field for field in allowed)
            raise ValueError(f"{where}: unknown placeholder {{{name}}}; use {known}")
    return names


def _fill(text: str, values: dict[str, str]) -> str:
    # One pass over the template alone: braces inside a policy or an ad are never looked at.
    return _FIELD.sub(lambda m: values.get(m.group(1), m.group(0)), text)


def _split(template: str, values: dict[str, str]) -> tuple[str, str]:
    before, after = template.split(AD_FIELD)
    return _fill(before, values), _fill(after, values)


def _example_block(
    spec: PromptSpec, template: str, values: dict[str, str], answers: dict[str, str]
) -> str:
    """Repeats the template's paragraph that holds the ad, once for each example."""
    item = next(part for part in template.split("\n\n") if AD_FIELD in part)
    before, after = _split(item, values | {"examples": ""})
    shown = RenderedPrompt(before, after, "", "", "")
    parts = []
    for example in spec.examples:
        answer = answers[example.label]
        seam = "" if spec.form == "completion" or after.endswith((" ", "\n")) else "\n"
        parts.append(f"{before}{prepare_ad(example.text, shown)}{after}{seam}{answer}\n\n")
    return "".join(parts)


def _completion(
    spec: PromptSpec, template: str, values: dict[str, str], positive: str, negative: str
) -> tuple[str, str]:
    answers = {"positive": positive, "negative": negative}
    block = _example_block(spec, template, values, answers)
    if "{examples}" not in template:
        parts = template.split("\n\n")
        at = next(i for i, part in enumerate(parts) if AD_FIELD in part)
        template = "\n\n".join([*parts[:at], "{examples}" + parts[at], *parts[at + 1 :]])
    prefix, suffix = _split(template, values | {"examples": block})
    return prefix, suffix


def _chat(
    spec: PromptSpec,
    template: str,
    values: dict[str, str],
    positive: str,
    negative: str,
    chat_format: str,
) -> tuple[str, str]:
    name = chat_format if spec.chat_format == "auto" else spec.chat_format
    known = CHAT_FORMATS | ({TURNS: _TURNS} if spec.chat_format == "auto" else {})
    if name not in known:
        raise ValueError(
            f"chat_format: got {name!r}; use auto or one of {', '.join(sorted(CHAT_FORMATS))}"
        )
    turns = known[name]
    system = spec.system or DEFAULT_SYSTEM
    _fields("system", system, ("policy", "question"))
    system = _fill(system, values)
    answers = {"positive": positive, "negative": negative}
    in_text = "{examples}" in template
    block = _example_block(spec, template, values, answers) if in_text else ""
    before, after = _split(template, values | {"examples": block})

    if turns.system:
        prefix, opening = turns.system % system, ""
    else:
        prefix, opening = "", f"{system}\n\n"
    if not in_text:
        shown = RenderedPrompt(before, after, "", "", "")
        for example in spec.examples:
            turn = f"{opening}{before}{prepare_ad(example.text, shown)}{after}"
            prefix += turns.user.replace("%s", turn, 1)
            prefix += turns.assistant.replace("%s", answers[example.label], 1)
            opening = ""
    head, tail = turns.user.split("%s")
    return f"{prefix}{head}{opening}{before}", f"{after}{tail}{turns.answer}"


class PromptWindow:
    """Prompts in a model's own tokens, and how much of an ad fits beside them.

    Labeler, adapter training and export read ads through this one class, so that all three give
    the model the same tokens.

    Attributes:
        prompts: The rendered prompts; they differ in what stands behind the ad alone.
        prefix: Ids before the ad; they open the sequence.
        lead: Text put before every ad. Spaces at the prefix's end belong to the ad's first token:
            encoded alone they would be a token that the model never saw there.
        suffixes: Each prompt's ids after the ad.
        answers: First ids of each prompt's positive and negative answer.
        max_ad_tokens: Ads are cut after so many tokens of their own.
        max_chars: Longer ads are cut before they are tokenized.
    """

    def __init__(
        self, bundle: CausalLMBundle, prompts: Sequence[PromptSpec], max_ad_tokens: int
    ) -> None:
        """Encodes the prompts.

        Args:
            bundle: Whose tokens, chat format and longest sequence count.
            prompts: One, or several that are asked of the ad side by side.
            max_ad_tokens: At least 1; fewer are read where the model's longest sequence asks for it.

        Raises:
            ValueError: If a prompt is not usable with this model, or two differ before the ad.
        """
        if max_ad_tokens < 1:
            raise ValueError(f"max_ad_tokens: must be at least 1, got {max_ad_tokens}")
        self._tokenizer = tokenizer = bundle.tokenizer
        self.prompts = tuple(render(prompt, tokenizer.chat_format) for prompt in prompts)
        first = self.prompts[0]
        kinds = {(p.prefix, delimiters(p.prefix, p.suffix)) for p in self.prompts}
        if len(kinds) > 1:
            raise ValueError("template: prompts that are asked side by side must start alike")
        text = first.prefix.rstrip(" ")
        self.lead = first.prefix[len(text) :]
        self.prefix = [*tokenizer.bos, *(tokenizer.encode_markup(text) if text else [])]
        self.suffixes = [
            tokenizer.encode_markup(p.suffix) if p.suffix else [] for p in self.prompts
        ]
        if not self.prefix and not all(self.suffixes):
            raise ValueError("template: nothing stands around {ad}")
        self.answers = [_first_ids(tokenizer, prompt) for prompt in self.prompts]
        longest = getattr(bundle.model.backbone, "max_sequence_length", None)
        taken = len(self.prefix) + sum(map(len, self.suffixes))
        room = longest - taken if longest else max_ad_tokens
        if room < min(_MIN_ROOM, max_ad_tokens):
            raise ValueError(
                f"template: the prompt takes {taken} of the model's {longest} tokens and leaves "
                "too few for the ad"
            )
        self.max_ad_tokens = min(max_ad_tokens, room)
        self.max_chars = self.max_ad_tokens * MAX_CHARS_PER_TOKEN

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Turns ads into token ids, as data.

        Returns:
            The ids read of each ad, at most `max_ad_tokens`, none of an ad without a word; whether
            there were more.
        """
        special = self._tokenizer.special_tokens
        ads = [prepare_ad(text[: self.max_chars], self.prompts[0], special) for text in texts]
        ids = self._tokenizer.encode_batch([self.lead + ad if ad else "" for ad in ads])
        cut = [
            len(own) > self.max_ad_tokens or len(text) > self.max_chars
            for own, text in zip(ids, texts, strict=True)
        ]
        return [own[: self.max_ad_tokens] for own in ids], cut

    def read_tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return how many tokens of each ad are read, int32 (n,), and which ads have more, bool (n,)."""
        ids, cut = self.encode(texts)
        return np.array([len(own) for own in ids], np.int32), np.array(cut, dtype=bool)

    def kept(self, text: str) -> str:
        """Return as much of an ad, as data, as its tokens that are read stand for; for people."""
        ad = prepare_ad(text[: self.max_chars], self.prompts[0], self._tokenizer.special_tokens)

        def fits(length: int) -> bool:
            own = self._tokenizer.encode(self.lead + ad[:length])
            return len(own) <= self.max_ad_tokens

        if fits(len(ad)):
            return ad
        # A longer beginning hardly ever has fewer tokens.
        return ad[: bisect.bisect_left(range(1, len(ad)), True, key=lambda n: not fits(n))]


def is_usable(bundle: CausalLMBundle, prompt: PromptSpec) -> bool:
    """Tell whether a model can answer a prompt: its answers start with tokens that differ."""
    try:
        PromptWindow(bundle, [prompt], 1)
    except ValueError:
        return False
    return True


def _first_ids(tokenizer: TextTokenizer, prompt: RenderedPrompt) -> tuple[int, int]:
    """Finds the first token of each answer, the positive one's first.

    Raises:
        ValueError: If an answer has no token, or both start with the same one.
    """
    found = []
    for field in ("positive_answer", "negative_answer"):
        text = getattr(prompt, field)
        # After white space of its own the answer cannot start with more of it.
        if prompt.suffix.endswith(" "):
            text = text.lstrip(" ")
        ids = tokenizer.encode(text)
        if not ids:
            raise ValueError(f"{field}: {text!r} has no token in this model's vocabulary")
        found.append(ids[0])
    if found[0] == found[1]:
        raise ValueError(
            f"positive_answer, negative_answer: {prompt.positive_answer!r} and "
            f"{prompt.negative_answer!r} start with the same token ({found[0]}), "
            "so one forward pass cannot tell them apart"
        )
    return found[0], found[1]
