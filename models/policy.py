"""A policy and a question as a prompt, and the ad as data inside it.

Pure Python: nothing here imports a model, so `scout validate` shows a prompt at once.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

FORMS = ("completion", "chat")
LABELS = ("positive", "negative")
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
            `{policy}`, `{question}`, `{examples}`. Empty means the form's default; the completion's
            states the policy and a cue of its own, and does not use the question.
        system: The system turn of a chat; may hold `{policy}`, `{question}`. Empty means the
            default, which states the policy.
        positive_answer: What the model says of an ad that violates the policy. Empty means
            " Yes" after a completion (the space belongs to the answer's token), "Yes" in a chat.
        negative_answer: The other answer; " No" or "No".
        examples: Few-shot examples, in the order shown.
        chat_format: "auto" (the model's own) or one of `CHAT_FORMATS`.
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


def render(spec: PromptSpec, chat_format: str = "chatml") -> RenderedPrompt:
    """Renders a prompt around the place where the ad goes.

    Args:
        spec: The task file's prompt.
        chat_format: The model's own chat format, used when `spec.chat_format` is "auto" and the
            form is "chat".

    Returns:
        The prompt's two halves, the answers, and the hash.

    Raises:
        ValueError: Naming the field, for a blank policy or question, an unknown form, chat
            format, label or placeholder, `{ad}` missing or twice, or answers that are the same.
    """
    if spec.form not in FORMS:
        raise ValueError(f"form: got {spec.form!r}; use one of {', '.join(FORMS)}")
    for field in ("policy", "question"):
        if not getattr(spec, field).strip():
            raise ValueError(f"{field}: must not be empty")
    default_positive, default_negative = DEFAULT_ANSWERS[spec.form]
    positive = spec.positive_answer or default_positive
    negative = spec.negative_answer or default_negative
    for field, answer in (("positive_answer", positive), ("negative_answer", negative)):
        if not answer.strip():
            raise ValueError(f"{field}: must not be blank, got {answer!r}")
    if positive.strip() == negative.strip():
        raise ValueError(
            f"positive_answer, negative_answer: must differ, both are {positive.strip()!r}"
        )
    for index, example in enumerate(spec.examples):
        if example.label not in LABELS:
            raise ValueError(
                f"examples[{index}].label: got {example.label!r}; use one of {', '.join(LABELS)}"
            )
        if not example.text.strip():
            raise ValueError(f"examples[{index}].text: must not be empty")

    template = spec.template or DEFAULT_TEMPLATE[spec.form]
    ads = _fields("template", template, ("ad", "policy", "question", "examples")).count("ad")
    if ads != 1:
        raise ValueError(f"template: must hold {AD_FIELD} exactly once, found {ads}")
    values = {"policy": spec.policy.strip(), "question": spec.question.strip()}

    if spec.form == "completion":
        prefix, suffix = _completion(spec, template, values, positive, negative)
    else:
        prefix, suffix = _chat(spec, template, values, positive, negative, chat_format)
    shape = [PROMPT_VERSION, prefix, suffix, positive, negative]
    digest = hashlib.sha256(json.dumps(shape, ensure_ascii=True).encode()).hexdigest()[:16]
    return RenderedPrompt(prefix, suffix, positive, negative, digest)


def describe(spec: PromptSpec, ad: str, chat_format: str = "chatml") -> str:
    """Shows the whole prompt as the model reads it, with one ad in its place.

    Args:
        spec: The task file's prompt.
        ad: Any text; prepared as in a run.
        chat_format: As in `render`.

    Returns:
        The prompt's text; the answer would follow at once.
    """
    prompt = render(spec, chat_format)
    return f"{prompt.prefix}{prepare_ad(ad, prompt)}{prompt.suffix}"


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
    if name not in CHAT_FORMATS:
        raise ValueError(
            f"chat_format: got {name!r}; use auto or one of {', '.join(sorted(CHAT_FORMATS))}"
        )
    turns = CHAT_FORMATS[name]
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


# --- The ad as data ---------------------------------------------------------------------------

# Look-alikes of the characters that markers are made of, beyond what NFKC folds.
_LOOKALIKES = str.maketrans("‹›〈〉⟨⟩❮❯❘∣│ǀ❲❳⟦⟧", "<><><><>||||[][]")

# What chat templates are made of, on text already folded to lower case. Spaces are allowed where
# a reader, human or not, would still take the thing for a marker.
_MARKERS = re.compile(
    r"<\s*\|"  # any <|name|>, opened or nested
    r"|\|\s*>"
    r"|<\s*/?\s*(?:start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token)\s*>"
    r"|<\s*/?\s*(?:s|bos|eos|pad|unk|mask|sys|inst|think|system|user|assistant)\s*>"
    r"|<\s*<\s*/?\s*sys\s*>\s*>"
    r"|\[\s*/?\s*(?:inst|sys|system_prompt|available_tools|tool_calls|tool_results)\s*\]"
    r"|\[\s*(?:cls|sep|pad|mask|unk)\s*\]"
    r"|#{2,}\s*(?:instruction|response|input|system|user|assistant)s?\s*:"
)
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9_-]*>")
_MAX_PASSES = 8
_QUOTES = {'"': "'", "`": "'", "“": "'", "”": "'", "«": "'", "»": "'"}


def prepare_ad(text: str, prompt: RenderedPrompt | None = None, markers: Iterable[str] = ()) -> str:
    """Makes an ad's text pure data: one line, without markers of any chat format.

    White space and control characters become single spaces; chat markers go, also when written
    with full-width or look-alike characters, with invisible characters inside, or nested so that
    removing one would form another. What delimits the ad in this prompt (a quote, a tag) cannot
    be closed from inside. Doing it twice changes nothing.

    Args:
        text: The ad as it came.
        prompt: The prompt around it, whose delimiters are protected.
        markers: More strings that must not appear, such as the tokenizer's special tokens.

    Returns:
        The ad's text, possibly empty.
    """
    extra, quotes = _delimiters(prompt.prefix, prompt.suffix) if prompt else ((), "")
    pattern = _marker_pattern((*extra, *(m for m in markers if len(m) > 1)))
    # A lone surrogate cannot be encoded as UTF-8, and one bad ad must not stop a batch.
    text = text.encode("utf-8", "replace").decode("utf-8")
    for quote in quotes:
        text = text.replace(quote, _QUOTES[quote])
    text = _fold_space(text)
    passes = 0
    while True:
        cut = _cut_markers(text, pattern)
        if cut == text:
            return text
        text, passes = cut, passes + 1
        if passes == _MAX_PASSES:
            # Markers nested this deep are an attack on our time: each pass undoes one level.
            text = _words_only(text)


def is_wordless(text: str) -> bool:
    """Tell whether nothing visible of an ad is left once it is prepared: no model can read it.

    The replacement character U+FFFD stands for what could not be read; BERT's tokenizer drops it.
    """
    return not any(
        unicodedata.category(char)[0] in "LNPS" and char != "\ufffd" and not _invisible(char)
        for char in prepare_ad(text)
    )


def _words_only(text: str) -> str:
    return _fold_space("".join(c if c.isalnum() else " " for c in text))


def _fold_space(text: str) -> str:
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(text.split())


@functools.lru_cache(maxsize=64)
def _marker_pattern(extra: tuple[str, ...]) -> re.Pattern[str]:
    folded = {_shadow(marker)[0] for marker in extra}
    parts = sorted((re.escape(m) for m in folded if len(m) > 1), key=lambda m: (-len(m), m))
    return re.compile("|".join([*parts, _MARKERS.pattern]))


@functools.lru_cache(maxsize=64)
def _delimiters(prefix: str, suffix: str) -> tuple[tuple[str, ...], str]:
    """Finds what closes the ad's place: tags, fences and quotes that touch it or are in reach."""
    opening = re.search(r"\S*\Z", prefix)
    closing = re.match(r"\S*", suffix)
    touching = [opening.group() if opening else "", closing.group() if closing else ""]
    # A tag anywhere in the prompt is structure, wherever the ad sits.
    found = _TAG.findall(prefix) + _TAG.findall(suffix)
    quotes = "".join(q for q in _QUOTES if any(q in text for text in touching))
    for text in touching:
        for run in re.findall(r"[^\w\s]{2,}", text):
            if not set(run) & set(quotes):
                found.append(run)
    return tuple(dict.fromkeys(found)), quotes


def _invisible(char: str) -> bool:
    return (
        unicodedata.category(char) == "Cf"
        or "\ufe00" <= char <= "\ufe0f"
        or "\U000e0100" <= char <= "\U000e01ef"
        or char in "\u034f\u115f\u1160\u3164\uffa0"
    )


def _shadow(text: str) -> tuple[str, list[int]]:
    """Folds a text to what a marker would look like, with each character's place in the text."""
    out: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text):
        if char.isascii():
            folded = char.lower()
        elif _invisible(char):
            continue
        else:
            folded = unicodedata.normalize("NFKC", char).translate(_LOOKALIKES).casefold()
        out.append(folded)
        places.extend([place] * len(folded))
    return "".join(out), places


def _cut_markers(text: str, pattern: re.Pattern[str]) -> str:
    shadow, places = _shadow(text)
    parts: list[str] = []
    end = 0
    for match in pattern.finditer(shadow):
        start = max(end, places[match.start()])
        parts.append(text[end:start])
        end = max(end, places[match.end() - 1] + 1)
    if not end:
        return text
    # The space keeps two halves from forming a new marker or word; the caller looks again anyhow.
    return _fold_space(" ".join([*parts, text[end:]]))
