"""What a manifest says of its stage: one frozen dataclass a stage, written and read as JSON.

Pydantic builds and checks them by their types alone: nothing is missing, misspelt or of another type
in what :mod:`pipelines.store.workspace` hands out, so that no reader needs a default of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from pipelines.config import Task
from pipelines.numerics.agreement import Kappa
from pipelines.numerics.audit import Known
from pipelines.numerics.calibration import Fitted, PriorBound, Threshold
from pipelines.numerics.cascade import Miss
from pipelines.numerics.stopping import Difference, StoppingRule
from pipelines.numerics.weights import THOUSANDTHS
from pipelines.sources.base import ReadOptions


@dataclass(frozen=True, slots=True)
class Provenance:
    """What every stage of ``mine`` records of where it comes from.

    Attributes:
        task: the task as it ran.
        date: logical date of a scheduled run, or "".
        corpus: globs of corpus files.
        model_id: which weights scored the ads.
        prompt_hash: of the prompt as rendered.
        embedding_id: where the vectors come from.
        model_round: the round that trained the model; 0 for LLM-0.
        score_key: hash of all that shapes a score.
        versions: of Python and of the libraries that shape numbers.
        task_file: where the task was read from, or "".
        read: how records became ads; None where an earlier version did not note it.
    """

    task: Task
    date: str
    corpus: tuple[str, ...]
    model_id: str
    prompt_hash: str
    embedding_id: str
    model_round: int
    score_key: str
    versions: Mapping[str, str]
    task_file: str = ""
    read: ReadOptions | None = None


@dataclass(frozen=True, slots=True)
class CascadeFacts:
    """What a cascade did with the ads that a scored attempt found new.

    Attributes:
        student: path of what foretold LLM-0's margins; "" where all new ads were its pilot.
        by: what that goes by, one of ``models.proxies``.
        correlation: of what is foretold and LLM-0's margins, on pilot ads that it was not fitted on.
        share: of the ads, in [0, 1], above the cut; None without a student.
        kept: share of LLM-0's positives that is to lie above it.
        read: ads that LLM-0 read, the pilot and the explored among them.
        foretold: ads that it did not.
        miss: how many of its positives lie below the cut, by the explored ads; None without a student.
    """

    student: str
    by: str
    correlation: float | None
    share: float | None
    kept: float
    read: int
    foretold: int
    miss: Miss | None


@dataclass(frozen=True, slots=True)
class ScoredFacts:
    """What a ``scored`` attempt holds.

    Attributes:
        origin: where it comes from.
        records: records read, rejected ones included.
        rejected: records rejected.
        reasons: reason -> records rejected for it.
        unique: distinct normalised texts.
        weight: of the corpus.
        dead_letters: files of rejected records, relative to the workspace.
        examples: reason -> the first record that was rejected for it, as a sentence.
        weight_unit: power of ten of the unit that the blocks' weights are in.
        unread: script -> ads that the encoder cannot read.
        cascade: None where LLM-0 reads every ad.
    """

    origin: Provenance
    records: int
    rejected: int
    reasons: Mapping[str, int]
    unique: int
    weight: float
    dead_letters: tuple[str, ...]
    examples: Mapping[str, str] = field(default_factory=dict)
    weight_unit: int = THOUSANDTHS
    unread: Mapping[str, int] = field(default_factory=dict)
    cascade: CascadeFacts | None = None


@dataclass(frozen=True, slots=True)
class ClustersFacts:
    """What a ``clusters`` attempt holds.

    Attributes:
        origin: where it comes from.
        threshold: the label rule, and how many ads lie on either side.
        positive_clusters, negative_clusters: clusters of each predicted label.
        overlaps: cluster pairs of opposite labels that mix most.
        truncated: ads of which the model saw only the beginning.
    """

    origin: Provenance
    threshold: Threshold
    positive_clusters: int
    negative_clusters: int
    overlaps: int
    truncated: int


@dataclass(frozen=True, slots=True)
class BoundaryFacts:
    """What only the selection of overlapping pairs knows of its choice.

    Attributes:
        mutual_pairs: chosen pairs of which each ad is the other's nearest.
        covered_share: share of the corpus weight that the pairs cover, 0 to 1.
        cover_radius: distance within which an ad covers others of its cluster pair.
    """

    mutual_pairs: int
    covered_share: float
    cover_radius: float


@dataclass(frozen=True, slots=True)
class PairsFacts:
    """What a ``pairs`` attempt holds.

    Attributes:
        origin: where it comes from.
        threshold: the label rule, as in the clusters.
        sources: strategy -> items that it chose.
        ads: ads in all items.
        candidates: ads or pairs chosen from.
        boundary: None when another strategy chose, which clusters nothing and covers nothing.
        note: where the items are not what the budget asked for: why, and what would change it.
    """

    origin: Provenance
    threshold: Threshold
    sources: Mapping[str, int]
    ads: int
    candidates: int
    boundary: BoundaryFacts | None
    note: str = ""

    @property
    def covered_share(self) -> float | None:
        """Share of the corpus weight that the pairs cover; None where none was measured."""
        return self.boundary.covered_share if self.boundary else None


@dataclass(frozen=True, slots=True)
class ReviewFacts:
    """What a ``review`` attempt holds: the sheet of this ``pairs`` attempt."""

    origin: Provenance
    pairs: str


@dataclass(frozen=True, slots=True)
class ImportEntry:
    """One imported file's share in a round.

    Attributes:
        name: of the file.
        sha256: of its content and the names that its experts go by.
        content_sha256: of its content alone.
        tool: which reader read it.
        rounds: all rounds that it has verdicts on.
        verdicts, labels: on this round's ads; a verdict that is a skip is no label.
        rejected: rows in the dead-letter file, which lies in the last of its rounds.
        reasons: reason -> rows rejected for it.
        unanswered: ads that nobody answered yet.
        changed_mind: rows that contradict an earlier row of the same expert.
        experts: who speaks in it, sorted.
        ads: ads with a verdict.
        audit: of the verdicts, those on ads of an audit.
        answers_sha256: of what it answers, however it was saved; "" of an earlier version's import.
        contradictions: verdicts on this round's ads that contradict the same expert in another import.
        left_out: of them, those that were not stored: the earlier word was to count.
    """

    name: str
    sha256: str
    content_sha256: str
    tool: str
    rounds: tuple[int, ...]
    verdicts: int
    labels: int
    rejected: int
    reasons: Mapping[str, int]
    unanswered: int
    changed_mind: int
    experts: tuple[str, ...]
    ads: int
    audit: int = 0
    answers_sha256: str = ""
    contradictions: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class AnsweredKeys:
    """Sorted content keys of a round's answered ads: each in one place.

    Attributes:
        fine_tuning, evaluation: ads with a label, by half.
        withheld: ads with a label that belong to neither half.
        skipped: ads that experts saw and could not tell.
        audit: ads of an audit, with a label or not: they count in no half.
    """

    fine_tuning: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """How many ads of the round's review items are answered; those of an audit are none."""
        return sum(map(len, (self.fine_tuning, self.evaluation, self.withheld, self.skipped)))

    @property
    def of_audits_alone(self) -> bool:
        """Whether nothing but ads of audits is answered: the round's own items are as before."""
        return bool(self.audit) and not self.number


@dataclass(frozen=True, slots=True)
class VerdictsFacts:
    """What a ``verdicts`` attempt holds, all earlier imports of its round included.

    Attributes:
        task_name: of the task.
        task_version: version of the policy that the round was mined for; None if its pairs are gone.
        evaluation_share: expected share of the evaluation half.
        seed: of the split.
        imports: the files, in the order of their import.
        keys: the ads with an answer.
        experts: who spoke, sorted.
        dead_letters: files of rejected rows, relative to the workspace.
        contradictions: files that list who contradicts themselves, relative to the workspace.
        positives: half -> how many of its ads experts called positive in the import that first had a
            label of them; empty in rounds of older versions.
    """

    task_name: str
    task_version: int | None
    evaluation_share: float
    seed: int
    imports: tuple[ImportEntry, ...] = ()
    keys: AnsweredKeys = AnsweredKeys()
    experts: tuple[str, ...] = ()
    dead_letters: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    positives: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EpochFigures:
    """What one pass over the fitting part gave; see :class:`models.trained.Epoch`."""

    epoch: int
    loss: float
    validation_loss: float
    validation_kappa: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a training gave; an evaluation alone leaves it as it is.

    Attributes:
        learner, model_id, base_model_id, threshold_margin, threshold_probability, label_set_hash: as
            in :class:`models.trained.TrainedModel`.
        task_prompt_hash: of the task's prompt, which an LLM keeps.
        fitting_ads, validation_ads: ads that weights were fitted on, and held out.
        epochs: empty for a head.
        fitted: the threshold that the labels alone give; None of models of earlier versions.
        bound: what the prior allowed it, measured on a sample of the corpus; None where it had no say.
    """

    learner: str
    model_id: str
    base_model_id: str
    threshold_margin: float
    threshold_probability: float
    label_set_hash: str
    task_prompt_hash: str
    fitting_ads: int
    validation_ads: int
    epochs: tuple[EpochFigures, ...]
    fitted: Fitted | None = None
    bound: PriorBound | None = None


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """The labels that a model learnt from.

    Attributes:
        fine_tuning: ads with a consensus.
        fine_tuning_positive: how many of them are positive.
        fine_tuning_experts: who labelled them.
        tied: ads without a consensus.
    """

    fine_tuning: int
    fine_tuning_positive: int
    fine_tuning_experts: int
    tied: int

    @property
    def rarer(self) -> int:
        """Labels of the class that has fewer."""
        return min(self.fine_tuning_positive, self.fine_tuning - self.fine_tuning_positive)


@dataclass(frozen=True, slots=True)
class Statistic:
    """A value, or why there is none."""

    value: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One round's model against the experts.

    Attributes:
        round: that trained it; 0 for LLM-0.
        model_id: which weights.
        threshold: an ad is positive when its margin is at least this, log-odds.
        kappa: mean agreement with the experts.
        kappa_with_majority: usually higher than that, and not to be compared with the experts'.
        positive_share: share of the ads that it calls positive; None without ads.
    """

    round: int
    model_id: str
    threshold: float
    kappa: Kappa
    kappa_with_majority: Statistic
    positive_share: float | None


@dataclass(frozen=True, slots=True)
class Decided:
    """Whether to go on; see :class:`pipelines.numerics.stopping.Decision`."""

    stop: bool
    rule: str
    reason: str
    best_round: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All models on the same evaluation ads; no label or text of any ad.

    Attributes:
        ads: ads with a label.
        experts: who labelled them.
        verdicts: labels given.
        positive_share: share of positives among them; None without any.
        tied: ads without a majority.
        expert_kappa: the experts' agreement with each other.
        krippendorff_alpha: of the experts.
        models: in the order of their rounds, LLM-0 first.
        gap_to_experts, gain: see :class:`pipelines.numerics.stopping.Decision`.
        decision: whether to go on.
        stopping: the rule that decided.
    """

    ads: int
    experts: int
    verdicts: int
    positive_share: float | None
    tied: int
    expert_kappa: Kappa
    krippendorff_alpha: Statistic
    models: tuple[ModelFigures, ...]
    gap_to_experts: Difference
    gain: Difference
    decision: Decided
    stopping: StoppingRule


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a ``model`` attempt holds.

    Attributes:
        task: the task as it trained.
        training_hash: of labels and settings: equal hash, equal model.
        verdicts: round -> hash of the imports that were learnt and measured from.
        learnt: the model.
        labels: what it learnt from.
        evaluation: the comparison with the experts.
    """

    task: Task
    training_hash: str
    verdicts: Mapping[str, str]
    learnt: Learnt
    labels: LabelCounts
    evaluation: Evaluation


# Of an audit: margins and weights of the ads that it drew from.
FRAME_FILE = "frame.npz"


@dataclass(frozen=True, slots=True)
class AuditStratum:
    """A part of an audit's frame.

    Attributes:
        start: its first margin bin (``calibration.margin_histogram``).
        ads: of the frame.
        drawn: how many of them experts are asked about; all equally likely.
    """

    start: int
    ads: int
    drawn: int


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """What an ``audit`` attempt holds: ads drawn at random from all that experts had not seen.

    Attributes:
        origin: of the scores.
        threshold: the label rule that is audited.
        scored: the attempt whose ads are the corpus.
        base: hash of corpus, rule and frame: attempts of the same base draw from the same strata, and
            the larger one holds the smaller.
        seed: of the draw.
        strata: from the lowest score on.
        known: ads beside the frame: experts had settled their label before.
        left_out: ads that experts had seen and not settled: neither in the frame nor known.
    """

    origin: Provenance
    threshold: Threshold
    scored: str
    base: str
    seed: int
    strata: tuple[AuditStratum, ...]
    known: Known
    left_out: int


# States of a night: at work, or killed since; at its end; failed, and why; without a file; found killed.
BEGUN, COMPLETED, FAILED, EMPTY, STOPPED = "begun", "completed", "failed", "empty", "stopped"


@dataclass(frozen=True, slots=True)
class Alert:
    """What a person should look at: its name, and a sentence with the figures."""

    name: str
    told: str


@dataclass(frozen=True, slots=True)
class NightFigures:
    """What a night found, from manifests and scores alone.

    Attributes:
        records, rejected: read of the files of its date, and how many of them are no ads.
        ads: distinct ads of those files.
        new: ads that the model read for this night, all its runs together.
        late: ads that came into files of earlier dates since a night had read those.
        window_ads: distinct ads of all dates of the window.
        positives: ads of the date at or above ``yardstick``.
        yardstick: the threshold, log-odds, by which nights count while model and prompt stay.
        drift: population stability index of its scores against those of the nights before; None without
            enough of those.
        pairs: items that were chosen for experts.
        held: why none were chosen though there may be some, or "".
        seconds: that the run took which completed it.
        cost: of the ads that the model read, in the price's money; None without a price.
    """

    records: int
    rejected: int
    ads: int
    new: int
    late: int
    window_ads: int
    positives: int
    yardstick: float
    drift: float | None
    pairs: int
    held: str
    seconds: float
    cost: float | None

    @property
    def positive_share(self) -> float:
        """Share of positives among the date's ads, 0 to 1."""
        return self.positives / self.ads if self.ads else 0.0

    @property
    def rejected_share(self) -> float:
        """Share of rejected among the date's records, 0 to 1."""
        return self.rejected / self.records if self.records else 0.0


@dataclass(frozen=True, slots=True)
class NightFacts:
    """What a ``night`` attempt says: one when a run of a night begins, one when it ends.

    Attributes:
        date: logical date.
        state: one of the states above.
        task_name, task_version: of the task.
        corpus: globs, with ``{date}``.
        stored: score key -> ads that the score store held; where the run began.
        scored: score key -> ads that the run added to it; where it ended.
        round: whose items it chose; 0 for none.
        score_key: of its scores; "" where it came to none.
        taken: date -> attempt with the scored ads of that date's files; the window.
        told: why it failed, or what else there is to say.
        figures: None unless it is completed.
        alerts: what a person should look at.
    """

    date: str
    state: str
    task_name: str
    task_version: int
    corpus: tuple[str, ...]
    stored: Mapping[str, int] = field(default_factory=dict)
    scored: Mapping[str, int] = field(default_factory=dict)
    round: int = 0
    score_key: str = ""
    taken: Mapping[str, str] = field(default_factory=dict)
    told: str = ""
    figures: NightFigures | None = None
    alerts: tuple[Alert, ...] = ()


FACTS: Mapping[str, type] = {
    "scored": ScoredFacts,
    "clusters": ClustersFacts,
    "pairs": PairsFacts,
    "review": ReviewFacts,
    "verdicts": VerdictsFacts,
    "model": ModelFacts,
    "audit": AuditFacts,
    "night": NightFacts,
}


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what reads and writes records of a dataclass; made once, for it takes milliseconds."""
    return TypeAdapter(kind)


def to_json(record: Any) -> Any:
    """Return a record of facts as plain JSON values."""
    kind: Any = type(record)
    return adapter(kind).dump_python(record, mode="json")
