"""``scout validate``: whether a task file will do, what of it has no effect, and the prompt it makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models import prompting
from pipelines.config import Task, called, given_task, lines_of
from pipelines.errors import UsageError
from pipelines.jobs.results import Result
from pipelines.strategies import registry


@dataclass(frozen=True, slots=True, repr=False)
class Validated(Result):
    """What ``validate`` found.

    Attributes:
        source: the task file.
        task: the task.
        prompt: with the ad in its place.
        answers: ``positive`` and ``negative`` -> what the model is expected to say.
        committee: whether the first mining chooses the prompt.
        members: forms of the committee that the file states.
        chat_markup: whether another model's markup may differ from what is shown.
        warnings: settings that have no effect, a sentence each.
    """

    source: str
    task: Task
    prompt: str
    answers: Mapping[str, str]
    committee: bool
    members: tuple[str, ...]
    chat_markup: bool
    warnings: tuple[str, ...]


def validate(source: Task | str, ad: str) -> Validated:
    """Check a task.

    Raises:
        UsageError: it will not do; says why.
    """
    task = given_task(source)
    name = called(source)
    try:
        registry.check(task.selection.strategy)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    spec = task.prompt_spec()
    try:
        shown, rendered = prompting.describe(spec, ad), prompting.render(spec)
    except ValueError as error:
        raise UsageError(f"{name}: prompt: {error}") from error
    lines = lines_of(source) if isinstance(source, str) else {}
    members = task.prompt.committee.members if task.prompt.committee else ()
    return Validated(
        source=name,
        task=task,
        prompt=shown,
        answers={"positive": rendered.positive_answer, "negative": rendered.negative_answer},
        committee=task.wants_committee(),
        members=tuple(member.name for member in members),
        chat_markup=spec.form == "chat" and spec.chat_format == "auto",
        warnings=tuple(
            f"{name}:{lines.get(tuple(key.split('.')), 1)}: {key}: {why}"
            for key, why in without_effect(task)
        ),
    )


def without_effect(task: Task) -> Iterator[tuple[str, str]]:
    """Yield settings that the task states and nothing goes by, with the reason and the remedy."""
    yield from _of_the_prompt(task)
    yield from _of_the_model(task)
    training = task.training
    if training.learner != "llm":
        for key in _said(training, {"lora_rank": 0}):
            yield (
                f"training.{key}",
                f"has no effect on learner {training.learner}, which has no LoRA",
            )
    if training.learner == "head":
        keys = ("learning_rate", "batch_size", "max_epochs", "patience", "validation_share")
        for key in _said(training, keys):
            yield f"training.{key}", "has no effect on learner head, which is fitted in one step"
    strategy = task.selection.strategy
    if strategy in ("uncertainty", "random", "exploration"):
        for key in _said(
            task.selection,
            ("band", "band_rows", "near_identical", "cover_quantile", "nearest_window"),
        ):
            yield f"selection.{key}", f"has no effect on strategy {strategy}, which makes no pairs"


def _of_the_model(task: Task) -> Iterator[tuple[str, str]]:
    kind, backend = task.backend_kind(), task.model.backend
    if kind.remote:
        for key in _said(task.model, ("dtype",)):
            yield f"model.{key}", f"has no effect on the backend {backend}: the service decides"
    else:
        for name, section in (("model", task.model), ("server", task.server)):
            keys = ("revision", "top_logprobs") if name == "model" else type(section).model_fields
            for key in _said(section, keys):
                if getattr(section, key) != type(section).model_fields[key].default:
                    yield (
                        f"{name}.{key}",
                        "has no effect: no service is asked; see model.backend",
                    )
    if not kind.embeds and task.training.learner == "llm":
        yield (
            "training.learner",
            f"is llm, and a model of the backend {backend} cannot be fine-tuned here; `scout train` "
            "needs head or encoder",
        )


def _of_the_prompt(task: Task) -> Iterator[tuple[str, str]]:
    prompt = task.prompt
    if prompt.committee is not None:
        for key in _said(
            prompt, ("form", "template", "system", "chat_format", "answers", "examples")
        ):
            if (prompt.form, key) != ("auto", "form"):
                yield (
                    f"prompt.{key}",
                    "has no effect: prompt.committee is asked; take one of them out",
                )
        if not any("{question}" in member.cue for member in prompt.committee.members):
            yield "question", "has no effect: no member of prompt.committee asks it"
        return
    if task.wants_committee():
        return
    chat = task.prompt_spec().form == "chat"
    form = "chat" if chat else "completion"
    texts = [prompt.template or prompting.DEFAULT_TEMPLATE[form]]
    if chat:
        texts.append(prompt.system or prompting.DEFAULT_SYSTEM)
    else:
        for key in _said(prompt, ("system", "chat_format")):
            yield (
                f"prompt.{key}",
                "has no effect on a completion; set prompt.form: chat, or take it out",
            )
    if not any("{question}" in text for text in texts):
        which = "prompt.template" if prompt.template else f"the {form}'s default template"
        yield (
            "question",
            f"has no effect: {which} does not hold {{question}}; write it there, or take the prompt "
            "section out and the model is asked it among others",
        )


def _said(section: Any, keys: Any) -> list[str]:
    """Return those of some keys that the task file states."""
    return [key for key in keys if key in section.model_fields_set]
