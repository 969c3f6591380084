"""What the jobs leave behind, typed: the same for a notebook, for a person and for ``--json``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.console.summary import rendered

if TYPE_CHECKING:
    from pipelines.contracts import ReviewItem
    from pipelines.numerics.agreement import Kappa
    from pipelines.numerics.audit import Estimate
    from pipelines.numerics.calibration import Fitted, PriorBound
    from pipelines.numerics.minutes import Rate
    from pipelines.store.facts import CascadeFacts, EpochFigures, Evaluation, LabelCounts

# Of the fields of a result that ``--json`` does not print.
APART = {"json": False}


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """What a job leaves behind. Its ``repr`` is what the command prints.

    Attributes:
        notes: what a person should know of the run, a line each.
    """

    notes: tuple[str, ...] = field(default=(), kw_only=True, metadata=APART)

    def text(self) -> str:
        """Return the outcome for a person, by the template of the class's name."""
        return rendered(type(self).__name__.lower(), self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values: what ``--json`` prints."""
        return plain(self)

    def __repr__(self) -> str:
        return self.text()


def plain(value: Any) -> Any:
    """Return dataclasses, mappings and sequences as JSON objects and lists."""
    if dataclasses.is_dataclass(value):
        shown = (f.name for f in dataclasses.fields(value) if f.metadata.get("json", True))
        return {name: plain(getattr(value, name)) for name in shown}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    # A task, which pydantic keeps.
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


@dataclass(frozen=True, slots=True, repr=False)
class Submitted(Result):
    """A job that was handed over and not waited for: nothing is known of its outcome.

    Attributes:
        task: name of the task.
        runner: where it runs, or would.
        kind: ``job``, ``template`` or ``dry run``.
        place: of a template, the file; of a job, its id; of a dry run "".
        steps: transforms of the graph that was built.
        next_step: what tells how it ended.
    """

    task: str
    runner: str
    kind: str
    place: str
    steps: int
    next_step: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What a service was asked for in a run, the choice of prompts included.

    Attributes:
        place: where it is.
        requests, again: that were sent, and how many of them because an earlier one got no answer.
        remembered: questions whose answers were known on this machine.
        tokens_in, tokens_out: read and written, as the service counts them.
        cost: at the task's prices, None where it tells none.
    """

    place: str
    requests: int
    again: int
    remembered: int
    tokens_in: int
    tokens_out: int
    cost: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Mined(Result):
    """What ``mine`` leaves behind.

    Attributes:
        task: name of the task.
        round: the round that the pairs belong to.
        records, rejected: records read, and how many of them are no ads.
        rejected_by_reason: reason -> records.
        unique: distinct ads.
        scored_now, reused: ads that this run scored, and an earlier one; None where the engine gave no
            counters.
        truncated: ads of which the model saw only the beginning.
        positives, positive_share: ads at or above the threshold, and their share of all, 0 to 1.
        threshold_probability, threshold_source: the threshold, and what it was chosen by.
        positive_clusters, negative_clusters, overlaps, covered_share: of the selection of overlapping
            pairs, None of any other: clusters of each label, cluster pairs that mix most, and the share of
            the corpus weight that the pairs cover.
        candidates, pairs, exploration_pairs: what was chosen from, chosen, and of that explored.
        budget: items wanted.
        exploration_share: share of the items that was to be drawn at random.
        single_ads: items of one ad.
        note: where the items are not what the budget asked for: why, and what would change it.
        threshold_bound: what the prior allows a threshold that few labels fitted; None where it has no
            say.
        partner_rank, pair_distance: of the pairs of overlapping clusters, in the median: place of the
            partner among the nearest ads that could have been shown, from 1; and distance.
        seconds_by_stage, seconds: busy seconds of each stage, and seconds in all.
        scoring_rate, reading_rate: ads and records per second; None where nothing was done.
        model_id, prompt_hash: what scored the ads.
        prompts: forms of the committee that labelled, the loudest first; empty without one.
        agreement: of the committee with the policy's words, or None.
        guessing: whether that is so low that the model seems to guess.
        pairs_file, review_sheet, overlaps_file, dead_letters: paths.
        items: what experts are asked about, in review order.
        names: what the task calls ``positive`` and ``negative``.
        rejected_examples: reason -> the first record that was rejected for it, as a sentence.
        unread: script -> ads that the encoder cannot read.
        spent: on a service, as far as the engine gave counters; None where the model is none's.
        cascade: what was spared LLM-0; None where it reads every ad.
        saved_seconds: busy seconds that LLM-0 would have taken for what was foretold, about; None where
            nothing was, or the engine gave no counters.
    """

    task: str
    round: int
    records: int
    rejected: int
    rejected_by_reason: Mapping[str, int]
    unique: int
    scored_now: int | None
    reused: int | None
    truncated: int | None
    positives: int
    positive_share: float
    threshold_probability: float
    threshold_source: str
    positive_clusters: int | None
    negative_clusters: int | None
    overlaps: int | None
    candidates: int
    pairs: int
    exploration_pairs: int
    budget: int
    exploration_share: float
    single_ads: int
    note: str
    threshold_bound: PriorBound | None
    covered_share: float | None
    partner_rank: float | None
    pair_distance: float | None
    seconds_by_stage: Mapping[str, float]
    seconds: float
    scoring_rate: float | None
    reading_rate: float | None
    model_id: str
    prompt_hash: str
    prompts: tuple[str, ...]
    agreement: float | None
    guessing: bool
    pairs_file: str
    review_sheet: str
    overlaps_file: str | None
    dead_letters: tuple[str, ...]
    items: tuple[ReviewItem, ...] = field(metadata=APART)
    names: Mapping[str, str] = field(metadata=APART)
    rejected_examples: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)
    spent: Spent | None = None
    cascade: CascadeFacts | None = None
    saved_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values, the review items last."""
        return {**plain(self), "review_items": plain(self.items)}

    def text(self, show: int = 5) -> str:
        """Return the outcome for a person, after the first ``show`` review items."""
        apart = {"items": self.items, "names": self.names, "show": show}
        return rendered("mined", {**plain(self), **apart})


@dataclass(frozen=True, slots=True, repr=False)
class Exported(Result):
    """What an export leaves behind.

    Attributes:
        task, task_version: of the round.
        round: whose items.
        tool: whose format.
        items, counted: how many, as a number and in words.
        experts_per_ad: how many experts should answer each ad.
        blind: whether experts do not see what the model says.
        files: paths of what was written.
        pushed: what the tool's server was given, an entry a part; empty for files.
        next_step: how the answers come back.
    """

    task: str
    task_version: int
    round: int
    tool: str
    items: int
    counted: str
    experts_per_ad: int
    blind: bool
    files: Sequence[str]
    pushed: Sequence[Mapping[str, Any]]
    next_step: str


@dataclass(frozen=True, slots=True, repr=False)
class Ingested(Result):
    """What an import leaves behind.

    Attributes:
        task, task_version: of the newest pairs.
        rounds: rounds that got verdicts.
        files: names of the files that were new.
        imported_before: paths of those that were not.
        verdicts, labels, rejected, unanswered, changed_mind, skips: see
            :class:`pipelines.store.facts.ImportEntry`; a skip is a verdict that is no label.
        rejected_by_reason: reason -> rows.
        experts: who speaks in the new files.
        fine_tuning_ads, evaluation_ads, withheld_ads: ads with a label so far, by half.
        audit_ads: ads of audits with an answer so far.
        dead_letters: paths of the rejected rows.
        ties: paths of sheets with the fine-tuning ads that have no majority.
        warnings: what a person should know before the halves are trusted, a sentence each.
        contradictions: verdicts that contradict what the same expert said in another import.
        contradictions_by_decision: of them, by which word counts: ``later by time``, ``earlier by time``,
            ``later by pull``, and by ``--on_conflict`` ``kept`` (the earlier one) and ``replaced``.
        contradiction_lists: paths of the files that list them, and those within a file.
        rejected_examples: reason -> the first row that was rejected for it, as a sentence.
    """

    task: str
    task_version: int
    rounds: tuple[int, ...]
    files: tuple[str, ...]
    imported_before: tuple[str, ...]
    verdicts: int
    labels: int
    rejected: int
    unanswered: int
    changed_mind: int
    skips: int
    rejected_by_reason: Mapping[str, int]
    experts: tuple[str, ...]
    fine_tuning_ads: int
    evaluation_ads: int
    withheld_ads: int
    audit_ads: int
    dead_letters: tuple[str, ...]
    ties: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    contradictions: int = 0
    contradictions_by_decision: Mapping[str, int] = field(default_factory=dict)
    contradiction_lists: tuple[str, ...] = ()
    rejected_examples: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Trained(Result):
    """What a training leaves behind.

    Attributes:
        task: name of the task.
        round: that the model belongs to.
        model: folder of the model.
        learner, model_id, threshold_probability, threshold_margin, epochs, fitted, bound: see
            :class:`pipelines.store.facts.Learnt`.
        labels: what it learnt from.
        evaluation: all models against the experts, and whether to go on.
        ties: paths of sheets with the ads that have no majority.
    """

    task: str
    round: int
    model: str
    learner: str
    model_id: str
    threshold_probability: float
    threshold_margin: float
    epochs: tuple[EpochFigures, ...]
    labels: LabelCounts
    evaluation: Evaluation
    ties: tuple[str, ...]
    fitted: Fitted | None
    bound: PriorBound | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """How many ads of a round have a label, by half, and who labelled."""

    fine_tuning: int
    evaluation: int
    withheld: int
    experts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HalfLabels:
    """Ads of a half by what experts said: a settled label, no majority, or only skips."""

    positive: int
    negative: int
    tied: int
    skipped: int


@dataclass(frozen=True, slots=True)
class LabelStanding:
    """What experts have said of the rounds of a version of the policy.

    Attributes:
        positive_name, negative_name: what the task calls its labels.
        fine_tuning, evaluation: the two halves.
        experts: who labelled.
        expert_kappa: their agreement with each other, on the ads of both halves.
        ties: paths of sheets with the tied ads of the fine-tuning half.
        missing: what training and evaluation lack, a phrase each.
        to_train: those of them without which nothing can be trained.
    """

    positive_name: str
    negative_name: str
    fine_tuning: HalfLabels
    evaluation: HalfLabels
    experts: tuple[str, ...]
    expert_kappa: Kappa
    ties: tuple[str, ...]
    missing: Sequence[str]
    to_train: Sequence[str] = ()

    def __str__(self) -> str:
        halves = {"fine-tuning": self.fine_tuning, "evaluation": self.evaluation}
        there = "; ".join(
            f"{name} half: {half.positive:,} {self.positive_name}, {half.negative:,} "
            f"{self.negative_name}, {half.tied:,} tied, {half.skipped:,} skipped"
            for name, half in halves.items()
        )
        return f"{there}; missing: {', '.join(self.missing)}" if self.missing else there


@dataclass(frozen=True, slots=True)
class RoundModel:
    """A round's model: what it learnt from, how it stands to the experts, and what bounds its threshold."""

    model_id: str
    learner: str
    labels: LabelCounts
    evaluation: Evaluation
    bound: PriorBound | None


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage's newest manifest says; ``facts`` are of the stage's class."""

    rows: int
    created: str
    attempt: str
    facts: Any


@dataclass(frozen=True, slots=True)
class Round:
    """Where a round stands.

    Attributes:
        round: its number.
        task_version: version of the policy that it was mined for.
        pairs: review pairs.
        covered_share: share of the corpus weight that they cover, or None.
        labelled: None before any import.
        model: None before any training.
        comparable: whether its kappas compare with the newest ones: the policy is the same.
        stages: the newest manifest of every stage, by its name.
    """

    round: int
    task_version: int
    pairs: int
    covered_share: float | None
    labelled: Labelled | None
    model: RoundModel | None
    comparable: bool
    stages: Mapping[str, Stage]


@dataclass(frozen=True, slots=True)
class AuditStanding:
    """What an audit says of a corpus.

    Attributes:
        round: whose scores and threshold are audited.
        model_round: the round that trained the model that gave them; 0 for LLM-0.
        newer_model: a later round that has trained a model since; 0 for none.
        ads: distinct ads that the estimates are about.
        drawn, labelled, positive: ads drawn, those with a settled label, those of them positive.
        unsettled, skipped: ads whose experts disagree without a majority, and ads that all skipped.
        strata: parts of the score that were drawn from.
        known: of ``ads``, those whose label experts had settled before.
        left_out: ads of the corpus that experts had seen and not settled; the estimates leave them out.
        threshold_probability: from here on the model calls an ad positive.
        positive_name: what the task calls ``positive``.
        plain, powered: measure -> estimate, stratified, and by prediction-powered inference besides; see
            :mod:`pipelines.numerics.audit`. Empty without enough labels.
        halving_labels: labels in all at which the interval of the share would be half as wide, or None.
        reason: why there are no estimates; "" where there are.
    """

    round: int
    model_round: int
    newer_model: int
    ads: int
    drawn: int
    labelled: int
    positive: int
    unsettled: int
    skipped: int
    strata: int
    known: int
    left_out: int
    threshold_probability: float
    positive_name: str
    plain: Mapping[str, Estimate]
    powered: Mapping[str, Estimate]
    halving_labels: int | None
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Audited(Result):
    """What an audit leaves behind.

    Attributes:
        task: name of the task.
        drawn_now: ads that this run drew.
        items_file: path of all that are drawn.
        audit: what is known from them.
        next_step: how the ads without a label get one; "" where all have.
    """

    task: str
    drawn_now: int
    items_file: str
    audit: AuditStanding
    next_step: str


@dataclass(frozen=True, slots=True)
class Spending:
    """What a workspace's labels have cost.

    Attributes:
        minutes: of all experts.
        answers: items answered, one for each expert who did.
        rates: kind of item -> what one takes an expert.
        by_round: round -> minutes.
    """

    minutes: float
    answers: int
    rates: Mapping[str, Rate]
    by_round: Mapping[int, float]


@dataclass(frozen=True, slots=True, repr=False)
class Standing(Result):
    """Where a workspace stands.

    Attributes:
        workspace: the folder.
        rounds: in their order.
        task_version: version of the policy of the newest round.
        next: what to do next.
        audit: what the newest audit says of the corpus; None where there is none.
        labels: what experts have said, where a training has not seen all of it; None otherwise, for the
            newest evaluation tells.
        warnings: what a person should know before the halves are trusted, a sentence each.
        spent: of experts' time on all rounds; None before any answer.
    """

    workspace: str
    rounds: tuple[Round, ...]
    task_version: int
    next: str
    audit: AuditStanding | None = None
    labels: LabelStanding | None = None
    warnings: tuple[str, ...] = ()
    spent: Spending | None = None


@dataclass(frozen=True, slots=True)
class PromptFigures:
    """What is known of a prompt.

    Attributes:
        name: of the form, or what else ranks the ads.
        weight: its voice in the committee; 0 outside.
        agreement: correlation with the similarity to the policy's words, -1 to 1.
        others: mean correlation with the single forms.
        same_answer: share of the ads that get the answer which most get; 1 tells ads apart by
            degree alone.
        above_nothing: share of the ads with a higher margin than a text without content has; far
            from the prior, the prompt's words answer for the ad.
        auc, kappa: against the labels, kappa at the prior's quantile; None without labels.
        auc_interval, ahead_interval: 95%, by paired bootstrap.
        ahead: AUC less that of the committee without labels.
    """

    name: str
    weight: float
    agreement: float
    others: float | None
    same_answer: float | None
    above_nothing: float | None
    auc: float | None = None
    auc_interval: tuple[float, float] | None = None
    ahead: float | None = None
    ahead_interval: tuple[float, float] | None = None
    kappa: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Prompts(Result):
    """What ``prompts`` found.

    Attributes:
        task: name of the task.
        ads: distinct ads that were asked about.
        labelled, positives: of them with a label; with a positive one.
        prompts: committees, policy and own prompt first, then the forms, best first.
        agreement: of the committee with the policy's words.
        stability: correlation of two committees chosen on half of the ads each.
        guessing: whether the model seems to guess.
        winner, verdict: what to label by, and why.
        section: the task file's section that does.
        written: the task file that it was written into.
        report: the report's HTML file, where one was asked for.
    """

    task: str
    ads: int
    labelled: int
    positives: int | None
    prompts: tuple[PromptFigures, ...]
    agreement: float
    stability: float | None
    guessing: bool
    winner: str
    verdict: str
    section: str
    written: str | None
    report: str | None = None
