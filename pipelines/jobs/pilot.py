"""A start without labels: a few ads of the corpus tell which prompt forms to listen to.

Runs before the pipeline is built, in the process that builds it: what labels an ad decides which
earlier scores count. It reads `MAX_BYTES` of the corpus at most and holds `ADS` texts.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from models import committee as forms
from models.backends.base import BackendError, Unavailable
from models.prompting import PromptSpec
from pipelines import config
from pipelines.config import Task
from pipelines.console.progress import step
from pipelines.contracts import Ad
from pipelines.errors import RunFailed, UsageError
from pipelines.numerics import hashing
from pipelines.numerics.committee import Voices, weigh_forms
from pipelines.sources import registry as sources
from pipelines.sources.base import Range, ReadOptions
from pipelines.store.workspace import Workspace
from pipelines.text import content_key

# Enough to rank forms: on samples of 200 the sum lost .002 of AUC against 500.
ADS = 400
MAX_BYTES = 64 << 20
# Below this agreement of the committee with the policy's words the model seems to guess.
GUESSING = 0.2

_log = logging.getLogger(__name__)


def with_committee(
    task: Task,
    ranges: Sequence[Range],
    read: ReadOptions,
    workspace: Workspace,
    say: Callable[[str], None],
) -> Task:
    """Return a task with a prompt to label by: itself, or with the committee that a pilot chooses.

    A workspace's first committee stays, as long as the task asks the same: its scores stay, too.

    Raises:
        UsageError: the model cannot be had.
        RunFailed: the corpus has too few ads to choose by.
    """
    if not task.wants_committee():
        return task
    basis = task.start_basis()
    by_night = workspace.scored.by_date().values()
    for manifest in (*reversed(workspace.scored.by_round().values()), *reversed(by_night)):
        held = manifest.facts.origin.task
        if held.prompt.committee is not None and held.start_basis() == basis:
            return seated(task, held.prompt.committee)
    with step("choosing prompts on a few ads"):
        texts = sample_texts(ranges, read, task.seed)
        return choose(task, texts, say)


def choose(task: Task, texts: Sequence[str], say: Callable[[str], None]) -> Task:
    """Return a task with the committee that some ads of its corpus choose; raises as above."""
    try:
        answers, similarity = ask(task, texts, say)
    except Unavailable as error:
        raise RunFailed(str(error)) from error
    except BackendError as error:
        raise UsageError(f"model: {error}") from error
    told = np.isfinite(similarity) & np.isfinite(answers).any(axis=1)
    try:
        voices = weigh(task, answers[told], similarity[told])
    except ValueError as error:
        raise RunFailed(
            f"no prompt can be chosen on {told.sum():,} ads: {error}; give a larger corpus, or a "
            "prompt of your own in the task file (prompt.template)"
        ) from error
    chosen = committee_of(task.forms(), voices, int(told.sum()))
    heard = ", ".join(member.name for member in chosen.members)
    say(
        f"prompts chosen on {chosen.ads:,} ads without labels, agreement with the policy's words "
        f"{chosen.agreement:.2f}: {heard}"
    )
    if chosen.agreement < GUESSING:
        say(guess_warning(chosen))
    return seated(task, chosen)


def chosen_by_labels(
    task: Task, texts: Sequence[str], labels: np.ndarray, say: Callable[[str], None]
) -> PromptSpec:
    """Return the form that the committee hears loudest once labels speak: what is fine-tuned on.

    Args:
        task: with a committee.
        texts: n labelled ads of the fine-tuning half; the first `ADS` by content are asked about.
        labels: int (n,), 1 positive, 0 negative.
        say: told when it is another one than without labels.
    """
    held = task.prompt_spec()
    order = sorted(
        range(len(texts)), key=lambda i: hashing.unit_hash(content_key(texts[i]), task.seed)
    )
    order = order[:ADS]
    plain = task.without_prompt()
    answers, similarity = ask(plain, [texts[i] for i in order], say)
    told = np.isfinite(similarity) & np.isfinite(answers).any(axis=1)
    try:
        voices = weigh(task, answers[told], similarity[told], labels[order][told])
    except ValueError:
        return held
    loudest = task.forms()[int(np.argmax(voices.weights))]
    chosen = forms.prompt_of(loudest, plain.prompt_spec())
    if chosen != held:
        say(f"prompt chosen anew by {told.sum():,} labels: {loudest.name}")
    return chosen


def guess_warning(committee: config.Committee) -> str:
    """Say plainly that the first labels may be worth little, and what helps."""
    return (
        "LLM-0 seems to guess: what it says of ads hardly agrees with what the policy's words are near "
        f"to ({committee.agreement:.2f}, {GUESSING} at least where it could be relied on). The first pairs "
        "may be topical only. What helps: label names that say what is meant, a policy whose first "
        "sentence says what violates, a larger model.preset, or `scout prompts --labels` with some labels"
    )


def ask(
    task: Task, texts: Sequence[str], say: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what each of a task's forms says of texts, and their similarity to the policy."""
    spec = task.prompt_spec()
    prompts = [forms.prompt_of(form, spec) for form in task.forms()]
    return ask_prompts(task, prompts, texts, say)


def ask_prompts(
    task: Task, prompts: Sequence[PromptSpec], texts: Sequence[str], say: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what prompts say of texts, and these texts' similarity to the policy.

    What that sends to a service, and costs, is said before.
    """
    backend = task.backend()
    if quote := backend.quote(prompts, texts):
        say(quote)
    return backend.pilot(prompts, task.embedding.preset, texts)


def weigh(
    task: Task, answers: np.ndarray, similarity: np.ndarray, labels: np.ndarray | None = None
) -> Voices:
    """Weigh a task's forms by what :func:`ask` returned of them; see ``weigh_forms``."""
    return weigh_forms(answers, similarity, task.prior, labels, own=len(task.prompt.forms))


def committee_of(asked: Sequence[forms.Form], voices: Voices, ads: int) -> config.Committee:
    """Return those of the forms asked that are kept, loudest first, as a task file's section."""
    order = np.argsort(-voices.weights, kind="stable")
    members = tuple(
        config.Member(
            name=asked[i].name,
            cue=asked[i].cue,
            positive=asked[i].positive,
            negative=asked[i].negative,
            weight=_short(voices.weights[i]),
            center=_short(voices.centers[i]),
            scale=_short(voices.scales[i]),
        )
        for i in order
        if voices.weights[i] > 0
    )
    return config.Committee(
        members=members,
        similarity=_short(voices.similarity_weight),
        center=_short(voices.similarity_center),
        scale=_short(voices.similarity_scale),
        slope=_short(voices.slope),
        offset=_short(voices.offset),
        agreement=_short(voices.agreement),
        ads=ads,
    )


def seated(task: Task, committee: config.Committee) -> Task:
    """Return a task that asks a committee."""
    prompt = task.prompt.model_copy(update={"committee": committee})
    return task.model_copy(update={"prompt": prompt})


def _short(value: float) -> float:
    # As it would be read back from a task file that people can read.
    return float(f"{value:.6g}")


def sample_texts(ranges: Sequence[Range], read: ReadOptions, seed: int, n: int = ADS) -> list[str]:
    """Return at most ``n`` distinct texts drawn by hash from ranges drawn by hash.

    Ranges are read until `MAX_BYTES` are used up: a sample of the corpus where that is all of it, else
    of some of its parts, beginning with each part's first records.
    """
    names = [f"{part.source}\0{part.place}\0{part.start}" for part in ranges]
    drawn = sorted(range(len(ranges)), key=lambda i: hashing.unit_hash(names[i], seed))
    held: list[tuple[float, str]] = []
    seen: set[str] = set()
    for text in _texts([ranges[i] for i in drawn], read):
        key = content_key(text)
        rank = -hashing.unit_hash(key, seed)
        if key in seen or (len(held) == n and rank <= held[0][0]):
            continue
        seen.add(key)
        if len(held) < n:
            heapq.heappush(held, (rank, text))
        else:
            heapq.heapreplace(held, (rank, text))
    return [text for _, text in sorted(held, reverse=True)]


def _texts(ranges: Sequence[Range], read: ReadOptions) -> Iterator[str]:
    left = MAX_BYTES
    share = max(MAX_BYTES // max(len(ranges), 1), 1 << 20)
    for part in ranges:
        if left <= 0:
            return
        taken = 0
        for record in sources.get(part.source).read(part, read):
            if isinstance(record, Ad):
                yield record.text
                taken += len(record.text.encode("utf-8", "surrogatepass"))
            if taken >= min(share, left):
                break
        left -= taken
