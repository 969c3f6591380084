"""Task files: YAML in, frozen and validated configuration out.

Every refusal names the file, the line, the key, the value and the bound, and for a misspelt key
the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from models import committee, prompting
from models.backends import registry
from models.backends.base import Backend, LabelerSpec, Terms
from models.prompting import FewShotExample, PromptSpec
from models.proxies import registry as proxies
from pipelines.contracts import SKIP_WORDS
from pipelines.errors import UsageError, no_file
from pipelines.sources.base import ReadOptions
from pipelines.sources.fields import AdField, check_name, check_template, default_name
from pipelines.text import digest
from pipelines.verdicts.names import READ_AS_MISSING, fold_name, tidy_name

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
Prose = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
InnerShare = Annotated[float, Field(gt=0, lt=1)]
AboveZero = Annotated[float, Field(gt=0, le=1)]
Price = Annotated[float, Field(ge=0, le=1e6)]
Money = Annotated[float, Field(gt=0)]
Preset = Annotated[str, StringConstraints(min_length=1)]
# A task file's; the longest of our own have 9 KB and 150 values.
_MAX_TASK_BYTES, _MAX_TASK_VALUES = 1 << 20, 10_000
# YAML has lists where a task has tuples.
Listed = Field(max_length=32, strict=False)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Labels(_Section):
    """Names that people see for the two labels; see ``pipelines.verdicts.names`` for which are the same."""

    positive: Word = "positive"
    negative: Word = "negative"

    @field_validator("positive", "negative")
    @classmethod
    def _tidy(cls, name: str) -> str:
        folded = fold_name(name)
        if not folded:
            raise ValueError("holds nothing that can be seen; write a name")
        if folded in SKIP_WORDS:
            raise ValueError(
                f"{name!r} is what experts say when they cannot tell; choose another name"
            )
        return tidy_name(name)


class AdPart(_Section):
    """A field of the ad: where records hold it, and what people and the model see it called."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    name: str = ""
    required: bool = False

    @property
    def shown(self) -> str:
        """The name, by default the last part of the path."""
        return self.name or default_name(self.path)

    @model_validator(mode="after")
    def _named(self) -> AdPart:
        try:
            check_name(self.shown)
        except ValueError as error:
            hint = "" if self.name else f"; {self.path!r} needs a name of its own"
            raise ValueError(f"{error}{hint}") from error
        return self


class Ad(_Section):
    """What an ad is made of, where it is more than one field of text."""

    fields: Annotated[tuple[AdPart, ...], Listed] = ()
    template: str = ""

    @field_validator("fields")
    @classmethod
    def _distinct(cls, fields: tuple[AdPart, ...]) -> tuple[AdPart, ...]:
        names = [field.shown.casefold() for field in fields]
        for field in fields:
            if names.count(field.shown.casefold()) > 1:
                raise ValueError(
                    f"two fields are called {field.shown!r}; give them names that differ"
                )
        return fields

    @field_validator("template")
    @classmethod
    def _known(cls, template: str, info: ValidationInfo) -> str:
        if template and "fields" in info.data:
            if not info.data["fields"]:
                raise ValueError("a template needs ad.fields, which it puts together")
            check_template(template, [field.shown for field in info.data["fields"]])
        return template


class Answers(_Section):
    """What the model is expected to say; empty means the prompt form's default."""

    positive: str = ""
    negative: str = ""


class Example(_Section):
    """A few-shot example."""

    text: Prose
    label: Literal["positive", "negative"]


class Form(_Section):
    """A wording to be heard in a committee: what stands behind the ad, and the two answers."""

    cue: Annotated[str, StringConstraints(min_length=1)]
    positive: Annotated[str, StringConstraints(min_length=1)]
    negative: Annotated[str, StringConstraints(min_length=1)]


class Member(_Section):
    """A prompt form of the committee, with its voice; see ``models.committee``."""

    name: Annotated[str, StringConstraints(min_length=1)]
    cue: Annotated[str, StringConstraints(min_length=1)]
    positive: str
    negative: str
    weight: AboveZero
    center: float
    scale: Annotated[float, Field(gt=0)]


class Committee(_Section):
    """Prompt forms that are asked side by side; ``scout prompts`` and the first ``scout mine`` choose them.

    ``similarity`` is the weight of the ad's likeness to the policy's words by the encoder of
    ``embedding.preset``, ``center`` and ``scale`` are its; ``agreement`` is how far both agreed on
    the ``ads`` of the pilot (a correlation).
    """

    members: Annotated[tuple[Member, ...], Listed, Field(min_length=1, max_length=32)]
    similarity: Annotated[float, Field(ge=0)]
    center: float
    scale: Annotated[float, Field(gt=0)]
    slope: Annotated[float, Field(gt=0)]
    offset: float
    agreement: Annotated[float, Field(ge=-1, le=1)]
    ads: Count


class Prompt(_Section):
    """How the policy and the ad become the text that the model reads.

    ``auto`` is a completion where anything is said of one, else a committee, which hears ``forms``
    beside those that ship.
    """

    form: Literal["auto", "chat", "completion"] = "auto"
    template: str = ""
    system: str = ""
    chat_format: str = "auto"
    answers: Answers = Answers()
    examples: Annotated[tuple[Example, ...], Listed] = ()
    forms: Annotated[tuple[Form, ...], Listed, Field(max_length=16)] = ()
    committee: Committee | None = None


class Model(_Section):
    """LLM-0: the small language model that labels every ad; ``auto`` goes by the preset.

    Of a service's model ``url`` is its place, ``revision`` what stands for its weights in place of that,
    and ``top_logprobs`` how many tokens it tells, among which both answers are looked for.
    """

    backend: str = registry.AUTO
    preset: Preset = "smollm2-135m-instruct"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    max_ad_tokens: Annotated[int, Field(ge=8, le=8192)] = 256
    url: Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)] = ""
    revision: Annotated[str, StringConstraints(pattern=r"^[\w.:-]*$", max_length=64)] = ""
    top_logprobs: Annotated[int, Field(ge=2, le=100_000)] = 20

    @field_validator("backend")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in registry.names():
            raise ValueError(f"no such backend; use one of {', '.join(registry.names())}")
        return name


class Server(_Section):
    """On what terms a service is asked, where the model is one's; none shapes a score.

    Prices are of a million tokens; ``max_cost`` is of one process, in the same currency.
    """

    key_variable: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = (
        "SCOUT_MODEL_KEY"
    )
    requests_at_once: Annotated[int, Field(ge=1, le=256)] = 8
    requests_per_minute: Annotated[float, Field(gt=0, le=1e6)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    patience_seconds: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    price_in: Price | None = None
    price_out: Price | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None

    def terms(self) -> Terms:
        """Return what backends go by."""
        return Terms(**self.model_dump())


class Embedding(_Section):
    """Where an ad's vector comes from."""

    source: Literal["auto", "llm", "encoder"] = "auto"
    preset: Preset = "all-minilm-l6-v2"
    standardize: Literal["auto", "always", "never"] = "auto"


class Cascade(_Section):
    """Which ads LLM-0 need not read; ``by`` is one of ``models.proxies``, null for no cascade.

    ``share`` of the ads is read where it is given, else as many as the pilot says hold ``kept`` of LLM-0's
    positives; of the others ``explore`` are read all the same, and tell how many are missed.
    """

    by: str | None = None
    kept: InnerShare = 0.98
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    explore: Annotated[float, Field(gt=0, le=1)] = 0.02
    pilot_ads: Annotated[int, Field(ge=100, le=100_000)] = 5000

    @field_validator("by")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in proxies.names():
            raise ValueError(f"no such proxy; use one of {', '.join(proxies.names())}, or null")
        return name


class Labeling(_Section):
    """The label rule; without a threshold the quantile that matches the prior decides."""

    threshold: InnerShare | None = None


class Clustering(_Section):
    """k-means on each predicted label; null means k from the class size."""

    positive_clusters: Annotated[int, Field(ge=1, le=4096)] | None = None
    negative_clusters: Annotated[int, Field(ge=1, le=4096)] | None = None
    sample_rows: Annotated[int, Field(ge=100, le=1_000_000)] = 100_000


class Overlaps(_Section):
    """Which cluster pairs of opposite labels pairs of ads are spread over."""

    per_positive_cluster: Annotated[int, Field(ge=1, le=64)] = 3


class Search(_Section):
    """The search for nearest ads of opposite labels in the band around the threshold."""

    index: Literal["auto", "exact", "scann"] = "auto"
    neighbors: Annotated[int, Field(ge=1, le=100)] = 5
    exhaustive_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 30_000

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_gone(cls, given: Any) -> Any:
        # Task files of before, and what manifests keep of them, may name it.
        gone = {"max_cluster_rows"}
        return (
            {k: v for k, v in given.items() if k not in gone} if isinstance(given, dict) else given
        )


class Selection(_Section):
    """Which ads or pairs are worth the experts' time; ``strategy`` is one of ``pipelines.strategies``.

    ``budget`` may be ``{minutes: ...}``, of all experts' time: then ``budget`` is made of it when a round
    is mined, by what an item takes.
    """

    strategy: Name = "boundary"
    budget: Annotated[int, Field(ge=1, le=100_000)] = 100
    minutes: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    band: AboveZero = 0.25
    band_rows: Annotated[int, Field(ge=100, le=10_000_000)] = 10_000
    exploration_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    first_round_share: Annotated[float, Field(ge=0, le=0.5)] = 0.5
    near_identical: AboveZero = 0.97
    cover_quantile: InnerShare = 0.25
    nearest_window: Annotated[int, Field(ge=1, le=10_000)] = 8
    max_candidates: Annotated[int, Field(ge=1000, le=5_000_000)] = 50_000
    coverage_sample_rows: Annotated[int, Field(ge=100, le=200_000)] = 20_000

    @model_validator(mode="before")
    @classmethod
    def _minutes_are_a_budget(cls, given: Any) -> Any:
        budget = given.get("budget") if isinstance(given, dict) else None
        if not isinstance(budget, dict):
            return given
        if set(budget) != {"minutes"} or budget["minutes"] is None:
            raise ValueError("budget: give a number of items, or {minutes: ...} of experts' time")
        if given.get("minutes") is not None:
            raise ValueError("budget and minutes: both give minutes; leave selection.minutes out")
        return {k: v for k, v in given.items() if k != "budget"} | {"minutes": budget["minutes"]}

    @property
    def pool(self) -> int:
        """How many candidate pairs one worker chooses from at most: enough to pass some over for each seat."""
        return max(self.max_candidates, 16 * self.budget)


class Minutes(_Section):
    """What an item takes an expert; null means as measured from the times of answers, else as assumed."""

    pair: Annotated[float, Field(gt=0, le=1000)] | None = None
    single: Annotated[float, Field(gt=0, le=1000)] | None = None
    positives: Annotated[float, Field(gt=0, le=1000)] | None = None


class Review(_Section):
    """How experts review, what that takes, and which of their labels are kept for evaluation."""

    experts_per_ad: Annotated[int, Field(ge=1, le=100)] = 2
    evaluation_share: InnerShare = 0.5
    consensus: Literal["majority", "dawid-skene"] = "majority"
    min_overlap: Annotated[int, Field(ge=1, le=10_000)] = 10
    minutes: Minutes = Minutes()


class Training(_Section):
    """The learner that the experts' labels fine-tune; null means the learner's own default."""

    learner: Literal["llm", "encoder", "head"] = "llm"
    encoder: Preset = "all-minilm-l6-v2"
    lora_rank: Annotated[int, Field(ge=1, le=256)] = 8
    learning_rate: InnerShare | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    max_epochs: Annotated[int, Field(ge=1, le=1000)] = 8
    patience: Annotated[int, Field(ge=1, le=1000)] = 2
    validation_share: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    min_per_class: Annotated[int, Field(ge=2, le=10_000)] = 5


class Stopping(_Section):
    """When the rounds end."""

    max_rounds: Annotated[int, Field(ge=1, le=1000)] = 6
    max_labels: Count | None = None
    patience: Annotated[int, Field(ge=1, le=100)] = 2
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    parity_test: Literal["reaches", "stays above"] = "reaches"
    parity_margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    min_evaluation_ads: Annotated[int, Field(ge=2)] = 100


class Task(_Section):
    """A scouting task: one policy, one model, one review budget."""

    name: Name
    version: Count
    policy: Prose
    question: Prose
    prior: InnerShare
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    labels: Labels = Labels()
    ad: Ad = Ad()
    prompt: Prompt = Prompt()
    model: Model = Model()
    server: Server = Server()
    embedding: Embedding = Embedding()
    cascade: Cascade = Cascade()
    labeling: Labeling = Labeling()
    clustering: Clustering = Clustering()
    overlaps: Overlaps = Overlaps()
    search: Search = Search()
    selection: Selection = Selection()
    review: Review = Review()
    training: Training = Training()
    stopping: Stopping = Stopping()

    def guideline(self) -> str:
        """Return a hash of what experts go by: the policy, its version, and the labels' names.

        Line breaks and blanks in the policy count for nothing.
        """
        policy = " ".join(self.policy.split())
        return digest(
            json.dumps([self.version, policy, self.labels.positive, self.labels.negative])
        )

    def reading(self, given: ReadOptions) -> ReadOptions:
        """Return how records become ads: what the command line says, and the task's fields.

        Raises:
            UsageError: both say what the text is.
        """
        parts = self.ad.fields
        if not parts:
            return given
        if given.text_field:
            raise UsageError(
                f"--text_field {given.text_field}: the task file has ad.fields, which make the "
                "text; leave one of them out"
            )
        # An only field without a name is the ad as it was read: same text, same key.
        alone = len(parts) == 1 and not parts[0].name and not self.ad.template
        fields = (AdField(p.path, "" if alone else p.shown, p.required) for p in parts)
        return dataclasses.replace(given, fields=tuple(fields), template=self.ad.template)

    def backend(self) -> Backend:
        """Return what labels ads until experts' labels have trained a model.

        Raises:
            BackendError: a package that it needs is not installed.
        """
        model = self.model
        return self.backend_kind()(
            LabelerSpec(
                model.preset,
                self.prompt_spec(),
                self.embedding_preset(),
                model.dtype,
                model.max_ad_tokens,
                self.committee(),
                model.url,
                model.revision,
                model.top_logprobs,
                self.server.terms(),
            )
        )

    def backend_kind(self) -> type[Backend]:
        """Return the class of what labels ads until experts' labels have trained a model."""
        return registry.find(self.model.backend, self.model.preset)

    def prompt_spec(self) -> PromptSpec:
        """Return what ``models.prompting`` needs to render the prompt.

        Of a committee it is the loudest member's: what the language model is fine-tuned on.
        """
        chats = self.prompt.form == "chat" or self.backend_kind().chats
        spec = PromptSpec(
            policy=self.policy,
            question=self.question,
            form="chat" if chats else "completion",
            template=self.prompt.template,
            system=self.prompt.system,
            positive_answer=self.prompt.answers.positive,
            negative_answer=self.prompt.answers.negative,
            examples=tuple(FewShotExample(e.text, e.label) for e in self.prompt.examples),
            chat_format=self.prompt.chat_format,
            labels=(self.labels.positive, self.labels.negative),
        )
        seated = self.committee()
        return committee.prompt_of(seated.members[0].form, spec) if seated else spec

    def without_prompt(self) -> Task:
        """Return the task as one that leaves its prompt to a committee, to be chosen anew."""
        return self.model_copy(update={"prompt": Prompt(forms=self.prompt.forms)})

    def wants_committee(self) -> bool:
        """Tell whether the task leaves the prompt to a committee that is not chosen yet."""
        open_yet = self.hears_committee() and self.prompt.committee is None
        return open_yet and self.backend_kind().debates

    def hears_committee(self) -> bool:
        """Tell whether the task states no prompt of its own."""
        own = self.prompt
        said = own.template or own.system or own.examples or own.answers != Answers()
        return own.form == "auto" and not said

    def forms(self) -> tuple[committee.Form, ...]:
        """Return what a committee may be chosen from: the task's own forms, and those that ship."""
        own = (committee.own_form(f.cue, f.positive, f.negative) for f in self.prompt.forms)
        return (*own, *committee.FORMS)

    def start_basis(self) -> str:
        """Return a hash of what a committee is chosen by, beside the corpus."""
        model, prompt = self.model.model_dump(), self.prompt.model_dump(exclude={"committee"})
        forms = [dataclasses.astuple(form) for form in self.forms()]
        said = [self.guideline(), self.question, self.prior, model, prompt, forms]
        return digest(json.dumps([*said, self.embedding.preset]))

    def committee(self) -> committee.Committee | None:
        """Return the prompt forms that are asked, where they are chosen."""
        found = self.prompt.committee
        if found is None:
            return None
        return committee.Committee(
            members=tuple(
                committee.Member(
                    committee.Form(m.name, m.cue, m.positive, m.negative),
                    m.weight,
                    m.center,
                    m.scale,
                )
                for m in found.members
            ),
            encoder=self.embedding.preset,
            weight=found.similarity,
            center=found.center,
            scale=found.scale,
            slope=found.slope,
            offset=found.offset,
        )

    def embedding_preset(self) -> str:
        """Return where vectors come from: ``llm``, or a sentence encoder's preset.

        By default the vectors are those that the learner reads, so that clusters lie in the space
        in which it has to tell the labels apart. Of a model that gives none they are an encoder's.
        """
        # What is foretold of an ad needs its vector before the model is asked.
        if self.embedding.source == "encoder" or self.cascade.by:
            return self.embedding.preset
        if self.embedding.source == "auto" and self.training.learner != "llm":
            return self.training.encoder
        return "llm" if self.backend_kind().embeds else self.embedding.preset

    def standardize(self, embedding: str) -> bool:
        """Tell whether vectors are standardised per dimension before clustering.

        A language model's hidden state needs it (a few dimensions dominate every distance); a
        sentence encoder's vectors do not.

        Args:
            embedding: where they come from, ``llm`` or anything else.
        """
        if self.embedding.standardize == "auto":
            return embedding == "llm"
        return self.embedding.standardize == "always"


def load_task(path: str | Path) -> Task:
    """Read and check a task file.

    Raises:
        UsageError: the file is missing, not UTF-8, not YAML, or breaks a rule; all broken rules
            are in the message, one a line.
    """
    path = Path(path)
    if kind := no_file(str(path)):
        raise UsageError(f"{path}: is {kind}, not a task file; write it into a file first")
    try:
        with path.open("rb") as opened:
            data = opened.read(_MAX_TASK_BYTES + 1)
        if len(data) > _MAX_TASK_BYTES:
            raise UsageError(f"{path}: longer than {_MAX_TASK_BYTES:,} bytes, so no task file")
        source = data.decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such task file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a task file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from error
    return parse_task(source, str(path))


def parse_task(source: str, name: str) -> Task:
    """Check the text of a task file; ``name`` stands for the file in messages."""
    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
        # Before anything is made of it: an alias of aliases of aliases is short in the file alone.
        lines, repeated = _key_lines(root)
        data = yaml.safe_load(source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{where}: not valid YAML: {problem}") from error
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{name}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        kind = "empty" if data is None else f"a {type(data).__name__}"
        raise UsageError(f"{name}: a task file is a mapping of keys, found {kind}")
    if repeated:
        raise UsageError("\n".join(f"{name}:{line}: {key}: given twice" for key, line in repeated))
    try:
        task = Task.model_validate(data)
    except pydantic.ValidationError as error:
        problems = [_explain(name, lines, problem) for problem in error.errors()]
        raise UsageError("\n".join(problems)) from error
    for key, problem in _contradictions(task):
        line = lines.get(tuple(key.split(".")), 1)
        raise UsageError(f"{name}:{line}: {key}: {problem}")
    return task


def given_task(task: Task | str) -> Task:
    """Return a task that is given as itself or as its file.

    Raises:
        UsageError: as :func:`load_task`; an object was checked key by key when it was made.
    """
    if not isinstance(task, Task):
        return load_task(task)
    for key, problem in _contradictions(task):
        raise UsageError(f"{called(task)}: {key}: {problem}")
    return task


def called(task: Task | str) -> str:
    """Return what errors call a task: its file, if it came from one."""
    return "the task" if isinstance(task, Task) else task


def _contradictions(task: Task) -> Iterator[tuple[str, str]]:
    """Yield keys that are well by themselves, but not together, with what is wrong."""
    if task.prompt.forms and not task.hears_committee():
        yield (
            "prompt.forms",
            "is heard in a committee alone; leave form, template, system, answers and examples out",
        )
    yield from _contradictions_of_the_model(task)
    names = [form.name for form in task.forms()]
    if repeated := [name for name in names if names.count(name) > 1]:
        yield "prompt.forms", f"{repeated[0]!r} is asked twice"
    for form in task.forms()[: len(task.prompt.forms)]:
        try:
            prompting.render(committee.prompt_of(form, task.prompt_spec()))
        except ValueError as error:
            yield "prompt.forms", f"{form.name!r}: {error}"
    positive, negative = task.labels.positive, task.labels.negative
    if positive == negative:
        yield (
            "labels",
            f"positive and negative are both {positive!r}; give two names (white space and invisible "
            "characters do not tell them apart)",
        )
    elif fold_name(positive) == fold_name(negative):
        yield (
            "labels",
            f"positive and negative are both {fold_name(positive)!r} once they come back (here "
            f"{positive!r} and {negative!r}): case, width, white space, invisible characters and how a "
            "number is written do not tell labels apart; give two names",
        )
    for key, name in (("positive", positive), ("negative", negative)):
        if name in READ_AS_MISSING:
            yield (
                f"labels.{key}",
                f"{name!r} is how programs write a missing value, and pandas reads it as one, so that "
                "labels of this name would be lost; choose another name",
            )
    if task.stopping.parity_test == "stays above" and not task.stopping.parity_margin:
        yield (
            "stopping.parity_test",
            "'stays above' needs a parity_margin above 0; with 0 the model would have to beat the "
            "experts",
        )


def _contradictions_of_the_model(task: Task) -> Iterator[tuple[str, str]]:
    kind, backend, server = task.backend_kind(), task.model.backend, task.server
    if fault := kind.check_address(task.model.url):
        yield "model.url", f"{task.model.url!r} {fault}" if task.model.url else fault
    if not kind.embeds and task.embedding.source == "llm":
        yield (
            "embedding.source",
            f"the backend {backend} gives no vectors; write encoder, or leave it out",
        )
    if task.cascade.by and task.embedding.source == "llm":
        yield (
            "cascade.by",
            "a cascade spares ads LLM-0's reading, so their vectors cannot be LLM-0's; set embedding.source to "
            "encoder, or leave it out",
        )
    if task.cascade.by == "layers" and not kind.exits:
        yield (
            "cascade.by",
            f"the backend {backend} cannot be left after a layer; write encoder or words",
        )
    if kind.chats and task.prompt.form == "completion":
        yield "prompt.form", f"the backend {backend} takes chats alone; write chat"
    if kind.chats and task.prompt.chat_format != "auto":
        yield "prompt.chat_format", f"the backend {backend} writes its own markup; take it out"
    if task.prompt.committee is not None and not kind.debates:
        yield "prompt.committee", f"the backend {backend} takes one prompt; take it out"
    if server.max_cost is not None and server.terms().cost(0, 0) is None:
        yield "server.max_cost", "needs server.price_in and server.price_out"


def lines_of(path: str) -> dict[tuple[str | int, ...], int]:
    """Return where the keys of a readable task file stand: path of a key -> line, from 1."""
    return _key_lines(yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader))[
        0
    ]


def _key_lines(
    node: yaml.Node | None,
) -> tuple[dict[tuple[str | int, ...], int], list[tuple[str, int]]]:
    """Return key path -> line number (from 1), and the keys that stand twice in one mapping."""
    lines: dict[tuple[str | int, ...], int] = {}
    repeated: list[tuple[str, int]] = []

    number = 0

    def walk(node: yaml.Node | None, path: tuple[str | int, ...]) -> None:
        nonlocal number
        number += 1
        if number > _MAX_TASK_VALUES:
            raise ValueError(
                f"more than {_MAX_TASK_VALUES:,} values, once its aliases (*name) are what they stand for; write "
                "them out"
            )
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                here = (*path, str(key_node.value))
                if here in lines:
                    repeated.append((".".join(map(str, here)), key_node.start_mark.line + 1))
                lines[here] = key_node.start_mark.line + 1
                walk(value_node, here)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                lines[(*path, index)] = item.start_mark.line + 1
                walk(item, (*path, index))

    walk(node, ())
    return lines, repeated


def _explain(name: str, lines: dict[tuple[str | int, ...], int], problem: Any) -> str:
    location = tuple(part for part in problem["loc"] if not _is_union_branch(part))
    key = ".".join(str(part) for part in location) or "(top level)"
    line = next(
        (lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), 1
    )
    where = f"{name}:{line}: {key}"
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{where}: unknown key; {hint}"
    if kind == "missing":
        return f"{where}: missing; add this key"
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if kind == "string_too_short":
        return f"{where}: empty; write at least one character"
    if isinstance(value, bool) and "str" in kind:
        return f"{where}: {shown} is YAML's true/false, not text; put it in quotes"
    # What our own checks say, pydantic puts behind "Value error, ".
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {shown} is refused: {message[0].lower()}{message[1:]}"


def _is_union_branch(part: str | int) -> bool:
    # pydantic adds the tried branch of an "x or null" field to the location.
    return isinstance(part, str) and (part.startswith("constrained-") or part in ("float", "int"))


def _known_keys(path: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Task
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        for leaf in (annotation, *typing.get_args(annotation)):
            if isinstance(leaf, type) and issubclass(leaf, BaseModel):
                model = leaf
    return list(model.model_fields)
