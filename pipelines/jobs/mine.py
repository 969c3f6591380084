"""Composition: from a corpus to review pairs, as one Beam pipeline, resumed where it can be."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from models import prompting
from models.backends import usage
from models.backends.base import BackendError, LabelerIdentity
from models.backends.pool import LabelerPool
from pipelines.config import Task, called, given_task
from pipelines.console import metrics
from pipelines.console.progress import step
from pipelines.console.typed import typed
from pipelines.contracts import FORMAT_VERSION, BlockFile, Tally
from pipelines.errors import UsageError
from pipelines.handlers import LoadLabeler, trained_backend, trained_embedding
from pipelines.jobs import cascades, minutes, pilot, selection
from pipelines.jobs.labels import settled_labels
from pipelines.jobs.outcome import outcome
from pipelines.jobs.results import Mined, Submitted
from pipelines.jobs.running import (
    Submission,
    check_remote,
    is_local,
    pipeline_options,
    resource_hints,
    run_pipeline,
    submitted,
)
from pipelines.numerics.calibration import Fitted
from pipelines.numerics.threads import cores
from pipelines.numerics.weights import exact, total, unit_of
from pipelines.sources import registry as sources
from pipelines.sources.base import CONTENT_IDS, ReadOptions
from pipelines.sources.survey import Survey, survey
from pipelines.stages import collapse_duplicates, join_nights, read_ads, score_ads
from pipelines.stages.cascade_ads import Cascade
from pipelines.stages.check_corpus import CheckCorpus
from pipelines.stages.check_worker import CheckWorker
from pipelines.stages.collapse_duplicates import CollapseDuplicates, partitions_of
from pipelines.stages.commit_scored import CommitScored
from pipelines.stages.join_nights import JoinNights, NightPart
from pipelines.stages.label_ads import LabelAds, LabelRule
from pipelines.stages.read_ads import RANGE_BYTES, ReadAds
from pipelines.stages.read_parts import ReadParts
from pipelines.stages.score_ads import ScoreAds
from pipelines.stages.write_rejected import WriteRejected
from pipelines.stages.write_review import WriteReview
from pipelines.store import model_store, scores, shown
from pipelines.store.facts import ModelFacts, Provenance, ScoredFacts
from pipelines.store.workspace import Manifest, Place, Workspace, config_hash
from pipelines.strategies import registry
from pipelines.strategies.base import Need, Strategy
from pipelines.strategies.base import Plan as SelectionPlan
from pipelines.strategies.exploration import explored_share

_REMOTE_SHARDS = 64
# Ads of a scored block, by whether the pipeline runs in this process.
_BLOCK_ROWS = {True: 1024, False: 32_768}
# Of a block that a service scores: what a worker that dies has asked for in vain, at most.
_ASKED_ROWS = 512
# Ads of each label in the band for each pair of the budget, at least.
_BAND_PAIRS = 3
_VERSIONED = ("apache-beam", "tensorflow", "keras", "keras-hub", "numpy", "scikit-learn", "scann")


@dataclass(frozen=True, slots=True)
class MineOptions:
    """Everything ``scout mine`` was told; see ``pipelines.api.mine``.

    Attributes:
        read: how records become ads.
        scoring_hints: Beam's resource hints, ``name=value``, for the workers that label.
        beam: Beam's own flags.
    """

    task: Task | str
    corpus: tuple[str, ...]
    workspace: str
    date: str = ""
    budget: int | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    max_rejected_share: float = 0.0
    block_rows: int | None = None
    range_bytes: int = RANGE_BYTES
    scoring_hints: tuple[str, ...] = ()
    beam: tuple[str, ...] = ()

    def pipeline_options(self) -> PipelineOptions:
        """Return Beam's options; the in-memory runner unless another was named."""
        return pipeline_options(self.beam)

    def is_local(self) -> bool:
        """Tell whether the pipeline runs in this process."""
        return is_local(self.beam)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is decided before the pipeline is built."""

    options: MineOptions
    task: Task
    workspace: Workspace
    round_number: int
    model: Manifest[ModelFacts] | None
    embedding: str
    identity: LabelerIdentity
    score_key: str
    scored_hash: str
    corpus_bytes: int
    mine_hash: str
    shown_keys: frozenset[str]
    strategy: Strategy
    labels: Mapping[str, int]
    explored: float
    scored: Manifest[ScoredFacts] | None
    finished: bool
    pool: LabelerPool | None = None
    # What a service was asked for while it was made, as `usage.drain` gives it.
    piloted: Mapping[str, int] = field(default_factory=dict)
    # What else a night decides: where its scored ads go, the dates that are joined to one corpus, and how many
    # new ads may be scored.
    place: Place = 0
    dates: tuple[Manifest[ScoredFacts], ...] = ()
    most: int | None = None
    how: Cascade | None = None


def mine(
    options: MineOptions, say: Callable[[str], None], pool: LabelerPool | None = None
) -> Mined | Submitted:
    """Run the main job, or hand it over where Beam's flags say so.

    Args:
        options: see :class:`MineOptions`.
        say: told, in one line each, what a person should know while it runs.
        pool: remembers what LLM-0 says; for simulations.

    Raises:
        UsageError: the arguments, the task file, the model's name or the corpus's are wrong.
        RunFailed: the run could not produce pairs.
    """
    started = time.monotonic()
    usage.drain()
    asked = _asked(options, say)
    with Workspace(options.workspace).writing("mine", say):
        plan = dataclasses.replace(_plan(asked, say), pool=pool, piloted=usage.drain())
        return _mine(plan, started, say)


def _mine(plan: Plan, started: float, say: Callable[[str], None]) -> Mined | Submitted:
    options = plan.options
    if plan.finished:
        say(f"round {plan.round_number} is mined already with this task and corpus; nothing to do")
        return outcome(plan, None, time.monotonic() - started)
    if plan.scored:
        say(f"every ad is scored already ({plan.scored.rows:,} ads)")
    metrics.reset()
    ran = run_pipeline(options.beam, functools.partial(build_pipeline, plan), say)
    if isinstance(ran, Submission):
        return submitted(ran, plan.task.name, plan.workspace.root)
    mined = outcome(plan, ran, time.monotonic() - started)
    if mined.unread:
        say(_unread(mined, plan.embedding))
    return mined


def _unread(mined: Mined, embedding: str) -> str:
    """Return what a person should know of ads that the encoder cannot read."""
    number = sum(mined.unread.values())
    scripts = ", ".join(
        f"{script} {ads:,}" for script, ads in sorted(mined.unread.items(), key=lambda i: -i[1])
    )
    preset = "the encoder" if embedding in ("base", "") else f"the encoder {embedding}"
    return (
        f"{preset} cannot read {number:,} of {mined.unique:,} ads ({number / mined.unique:.1%}: "
        f"{scripts}): its vocabulary lacks their words, so they are told apart by their letters, not by "
        "what they mean; embedding.source: llm reads every script, or give an embedding.preset for their "
        "languages"
    )


def prepare(
    options: MineOptions,
    say: Callable[[str], None],
    round_number: int | None = None,
    date: str = "",
    dates: Sequence[Manifest[ScoredFacts]] = (),
) -> Plan:
    """Decide everything that is decided before the pipeline is built; raises as ``mine`` does.

    Args:
        options: see :class:`MineOptions`.
        say: told, in one line each, what a person should know.
        round_number: the round to work in; by default the one that is open.
        date: the night whose files these are, and beside which their scores are kept; "" for a round's.
        dates: scored ads of dates that are joined to the round's corpus; then no file is looked at.
    """
    return _plan(_asked(options, say, dates), say, round_number, date)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is known before the workspace is looked at.

    Attributes:
        corpus: of files; None where dates are joined.
        shaped: what the corpus puts into the hash of the scored ads.
    """

    options: MineOptions
    task: Task
    corpus: Survey | None
    shaped: Mapping[str, Any]
    dates: tuple[Manifest[ScoredFacts], ...] = ()


def _asked(
    options: MineOptions,
    say: Callable[[str], None],
    dates: Sequence[Manifest[ScoredFacts]] = (),
) -> _Asked:
    task = given_task(options.task)
    check_remote(options.beam, options.workspace, options.corpus, task, options.task)
    resource_hints(options.scoring_hints)
    options = dataclasses.replace(options, read=task.reading(options.read))
    if options.budget is not None:
        selection = task.selection.model_copy(update={"budget": options.budget})
        task = task.model_copy(update={"selection": selection})
    if dates:
        shaped = {"dates": [scored.config_hash for scored in dates]}
        return _Asked(options, task, None, shaped, tuple(dates))
    with step("listing the corpus"):
        corpus = survey(options.corpus, options.read, options.range_bytes, fingerprinted=True)
    for line in sources.told(corpus.ranges, options.read):
        say(line)
    return _Asked(options, task, corpus, {"corpus": corpus.fingerprint})


def _plan(
    asked: _Asked, say: Callable[[str], None], round_number: int | None = None, date: str = ""
) -> Plan:
    options, task, corpus = asked.options, asked.task, asked.corpus
    ranges = corpus.ranges if corpus else ()
    workspace = Workspace(options.workspace)
    try:
        task = pilot.with_committee(task, ranges, options.read, workspace, say)
    except UsageError as error:
        raise UsageError(f"{called(options.task)}: {error}") from error
    round_number = round_number or workspace.current_round()
    if options.budget is None:
        task = minutes.in_items(task, workspace, round_number, say)
    model = newest_model(workspace, task, round_number)
    if model:
        say(f"round {round_number}: labelling with the model of round {model.round}")
    learnt = model.round if model else 0
    waiting = [
        number
        for number, verdicts in workspace.verdicts.by_round().items()
        if learnt < number < round_number and not verdicts.facts.keys.of_audits_alone
    ]
    if waiting:
        say(
            f"no model has learnt from the verdicts of round {', '.join(map(str, waiting))} yet: "
            f"{typed('train', workspace=workspace.root)} first, and the new pairs are the better for it"
        )
    identity, embedding = _identify(options, task, workspace, model, say)
    _check_earlier(workspace, round_number, task, options, say)
    seen = workspace.shown_keys(round_number)
    strategy = _strategy(options, task)
    labels = settled_labels(workspace, task)
    positive = sum(labels.values())
    explored = explored_share(task.selection, min(positive, len(labels) - positive))
    if Need.LABELS not in strategy.needs:
        labels = {}
    score_key = config_hash({"format": FORMAT_VERSION} | dataclasses.asdict(identity))
    scored_hash = config_hash(
        {
            "score_key": score_key,
            **asked.shaped,
            "read": options.read.shaping(),
            "max_rejected_share": options.max_rejected_share,
            # What it reads changes from night to night, which makes no other corpus.
            **({"cascade": task.cascade.model_dump()} if task.cascade.by and not model else {}),
        }
    )

    place: Place = date or round_number

    def hash_of(shown: frozenset[str]) -> str:
        return config_hash(
            {
                "scored": scored_hash,
                # All of the task: import, training and `status` go by what the newest pairs say of it.
                "task": task.model_dump(mode="json"),
                "embedding": embedding,
                "shown": sorted(shown),
                "labels": labels,
                "explored": explored,
                "round": round_number,
                "fitted_threshold": dataclasses.asdict(_fitted(model)) if model else None,
            }
        )

    mine_hash = hash_of(seen)
    finished = _is_finished(workspace, round_number, mine_hash)
    if not finished:
        # An audit of this round drew none of the ads of the items that were there, but it may have drawn
        # those that new ones would show.
        audits = workspace.audit.all(round_number)
        seen = seen.union(*map(workspace.keys_of, audits))
        mine_hash = hash_of(seen)
        finished = _is_finished(workspace, round_number, mine_hash)
    return Plan(
        options=options,
        task=task,
        workspace=workspace,
        round_number=round_number,
        model=model,
        embedding=embedding,
        identity=identity,
        score_key=score_key,
        scored_hash=scored_hash,
        corpus_bytes=corpus.unpacked_bytes if corpus else 0,
        mine_hash=mine_hash,
        shown_keys=seen,
        strategy=strategy,
        labels=labels,
        explored=explored,
        scored=_whole(workspace, workspace.scored.find(place, scored_hash)),
        finished=finished,
        place=place,
        dates=asked.dates,
        how=None if model else cascades.planned(workspace, task, score_key, say),
    )


def newest_model(
    workspace: Workspace, task: Task, round_number: int
) -> Manifest[ModelFacts] | None:
    """Return the model that labels in a round; None for LLM-0."""
    models = model_store.models(workspace, task.version, before_round=round_number)
    return models[-1] if models else None


def adopt(plan: Plan) -> Plan:
    """Make the scored ads of the one date of a plan the corpus of its round."""
    [date] = plan.dates
    attempt = plan.workspace.new_attempt(plan.round_number, "scored")
    scored = Manifest.of(attempt, plan.scored_hash, date.files, date.rows, date.facts)
    plan.workspace.commit(scored)
    return dataclasses.replace(plan, scored=scored)


def _strategy(options: MineOptions, task: Task) -> Strategy:
    try:
        strategy = registry.create(task.selection.strategy)
    except UsageError as error:
        raise UsageError(f"{called(options.task)}: {error}") from error
    if Need.SCORES in strategy.needs:
        raise UsageError(
            f"{called(options.task)}: selection.strategy: {strategy.name!r} needs {Need.SCORES.value}, and the "
            "model gives one; choose another strategy"
        )
    return strategy


def _check_earlier(
    workspace: Workspace,
    round_number: int,
    task: Task,
    options: MineOptions,
    say: Callable[[str], None],
) -> None:
    """Refuse another task, and another policy under a version that experts have labelled by."""
    for number, pairs in workspace.pairs.by_round().items():
        held = pairs.facts.origin.task
        if held.name != task.name:
            raise UsageError(
                f"--workspace {options.workspace}: holds rounds of the task {held.name!r}, not of "
                f"{task.name!r}; give each task a workspace of its own"
            )
        if number < round_number:
            if held.version == task.version and held.guideline() != task.guideline():
                raise UsageError(
                    f"{called(options.task)}: policy or label names differ from those of round {number}, but "
                    f"the version is {task.version} as it was then; set version: {task.version + 1} "
                    "(it starts new evaluation), or take the change back"
                )
        elif held.guideline() != task.guideline():
            say(
                f"round {number} is mined again for another policy: sheets and exports that were "
                "handed out for it no longer count; export it again"
            )


def _identify(
    options: MineOptions,
    task: Task,
    workspace: Workspace,
    model: Manifest[ModelFacts] | None,
    say: Callable[[str], None],
) -> tuple[LabelerIdentity, str]:
    """Return what will decide the scores, and where the vectors come from."""
    try:
        if model:
            learnt = model.facts.learnt
            own = model_store.model_files(model)
            found = trained_backend(workspace, task, own).identify(say)
            prompt = prompting.render(task.prompt_spec()).hash
            if learnt.learner == "llm" and learnt.task_prompt_hash != prompt:
                say("the task's prompt has changed since that model was trained; it keeps its own")
            return found, trained_embedding(task, learnt.learner)
        return task.backend().identify(say), task.embedding_preset()
    except BackendError as error:
        raise UsageError(f"{called(options.task)}: model: {error}") from error
    except ValueError as error:
        raise UsageError(f"{called(options.task)}: prompt: {error}") from error


def _is_finished(workspace: Workspace, round_number: int, mine_hash: str) -> bool:
    """Tell whether the round's newest review is this one: what experts get must be what counts."""
    pairs = workspace.pairs.latest(round_number)
    found: list[Manifest[Any] | None] = [pairs, workspace.review.latest(round_number)]
    if pairs and pairs.facts.boundary:
        found.append(workspace.clusters.latest(round_number))
    return all(manifest and manifest.config_hash == mine_hash for manifest in found)


def _whole(
    workspace: Workspace, manifest: Manifest[ScoredFacts] | None
) -> Manifest[ScoredFacts] | None:
    """Return a scored manifest unless one of its blocks is gone: then what is missing is scored."""
    return manifest if manifest and scores.is_whole(workspace, manifest) else None


def provenance(plan: Plan) -> Provenance:
    """Return what the stages record of where their output comes from."""
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return Provenance(
        task=plan.task,
        date=plan.options.date,
        corpus=plan.options.corpus,
        model_id=plan.identity.model_id,
        prompt_hash=plan.identity.prompt_hash,
        embedding_id=plan.identity.embedding_id,
        model_round=plan.model.round if plan.model else 0,
        score_key=plan.score_key,
        versions=versions,
        task_file="" if isinstance(plan.options.task, Task) else plan.options.task,
        read=plan.options.read,
    )


def build_pipeline(plan: Plan, pipeline: beam.Pipeline) -> None:
    """Compose the stages, from the corpus or from blocks that are scored already."""
    workspace, task = plan.workspace, plan.task
    origin = provenance(plan)
    if plan.scored:
        files = pipeline | "ScoredBefore" >> beam.Create(list(plan.scored.files), reshuffle=False)
        facts = plan.scored.facts
        unit = pipeline | "WeightUnit" >> beam.Create([facts.weight_unit], reshuffle=False)
    elif plan.dates:
        files, unit = _join(plan, pipeline, origin)
    else:
        files, unit = score(plan, pipeline, origin)
    parts = files | "ReadParts" >> ReadParts(workspace.root)
    seen = shown.write(workspace.root, plan.shown_keys)
    labelled = parts | "LabelAds" >> LabelAds(workspace.root, label_rule(task, plan.model), seen)
    corpus = selection.Corpus(
        workspace.root,
        parts,
        labelled,
        task.standardize(plan.embedding),
        seen,
        cores() if plan.options.is_local() else 1,
    )
    drawing = task.selection.model_copy(update={"exploration_share": plan.explored})
    wanted = SelectionPlan(drawing, task.seed, task.guideline(), plan.labels)
    chosen, clusters = selection.choose(corpus, plan.strategy, wanted, task)
    attempts = {
        stage: workspace.new_attempt(plan.round_number, stage)
        for stage in ("clusters", "pairs", "review")
    }
    _ = (chosen, corpus.threshold, unit, *clusters) | "WriteReview" >> WriteReview(
        workspace.root,
        attempts,
        plan.mine_hash,
        origin,
    )


def label_rule(task: Task, model: Manifest[ModelFacts] | None) -> LabelRule:
    """Return how a round labels its ads, and how near to the threshold it looks for pairs."""
    return LabelRule(
        prior=task.prior,
        probability=task.labeling.threshold,
        fitted=_fitted(model) if model else None,
        band_share=task.selection.band,
        # Enough to choose from.
        band_ads=_BAND_PAIRS * task.selection.budget,
        most_band_ads=task.selection.band_rows,
    )


def _fitted(model: Manifest[ModelFacts]) -> Fitted:
    """Return the threshold that a model's labels alone give: the corpus decides what bounds it."""
    learnt, labels = model.facts.learnt, model.facts.labels
    alone = learnt.threshold_margin
    return learnt.fitted or Fitted(alone, alone, alone, labels.rarer)


def _block_rows(plan: Plan, elsewhere: bool) -> int:
    asked = plan.model is None and plan.task.backend_kind().remote
    rows = _ASKED_ROWS if asked else _BLOCK_ROWS[not elsewhere]
    # LLM-0 reads about a quarter of a block, and its batches are to be as full.
    return 4 * rows if plan.how else rows


def _join(
    plan: Plan, pipeline: beam.Pipeline, origin: Provenance
) -> tuple[beam.PCollection[BlockFile], beam.PCollection[int]]:
    """Return what :func:`score` does, of dates that are scored."""
    root, found = plan.workspace.root, [scored.facts for scored in plan.dates]
    attempt = plan.workspace.new_attempt(plan.round_number, "scored")
    finest = Decimal(1).scaleb(max(facts.weight_unit for facts in found))
    weight = Decimal(total(exact(facts.weight) for facts in found))
    whole = str(weight.quantize(finest))
    files = [
        (file, place, scored.facts.weight_unit)
        for place, scored in enumerate(plan.dates)
        for file in scored.files
    ]
    joined = (
        pipeline
        | "Dates" >> beam.Create(files, reshuffle=False)
        | "ReadDates" >> beam.FlatMap(_night_parts, root)
        | "SpreadDates" >> beam.Reshuffle()
        | "JoinNights"
        >> JoinNights(
            root,
            scores.corpus_folder(plan.score_key, attempt),
            unit_of(whole),
            scores.prefix_length(sum(scored.rows for scored in plan.dates)),
        )
    )
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for facts in found:
        reasons.update(facts.reasons)
        examples = {**facts.examples, **examples}
    records, rejected = (sum(getattr(f, name) for f in found) for name in ("records", "rejected"))
    tally = (
        joined[join_nights.PARTS]
        | "RowsOfParts" >> beam.Map(lambda part: part.rows)
        | "CountUnique" >> beam.CombineGlobally(sum)
        | "Tally"
        >> beam.Map(
            lambda unique: Tally(
                records, rejected, json.dumps(reasons), json.dumps(examples), unique, whole
            )
        )
    )
    letters = [BlockFile(path, 0, 0, "") for facts in found for path in facts.dead_letters]
    committed = (
        joined[join_nights.PARTS],
        pipeline | "NoUnscored" >> beam.Create([], reshuffle=False),
        pipeline | "DeadLetters" >> beam.Create(letters, reshuffle=False),
        joined[join_nights.UNREAD],
        tally,
    ) | "CommitScored" >> CommitScored(
        # Each date was held to its share when it was read.
        root,
        attempt,
        plan.scored_hash,
        origin,
        1.0,
        1 if plan.options.is_local() else _REMOTE_SHARDS,
    )
    return committed, tally | "WeightUnit" >> beam.Map(lambda found: unit_of(found.weight))


def _night_parts(found: tuple[BlockFile, int, int], root: str) -> list[NightPart]:
    file, place, unit = found
    return [NightPart(part, place, unit) for part in scores.read_parts(root, file)]


def score(
    plan: Plan, pipeline: beam.Pipeline, origin: Provenance
) -> tuple[beam.PCollection[BlockFile], beam.PCollection[int]]:
    """Return the files of scored parts, and the power of ten of the weights' unit, a singleton."""
    workspace, options = plan.workspace, plan.options
    attempt = workspace.new_attempt(plan.place, "scored")
    elsewhere = not options.is_local()
    shards = _REMOTE_SHARDS if elsewhere else 1
    load = LoadLabeler(
        plan.task, plan.identity, workspace.root, plan.model, plan.pool, elsewhere=elsewhere
    )
    if elsewhere:
        _ = pipeline | "CheckWorker" >> CheckWorker(load.look)
    read = pipeline | "ReadAds" >> ReadAds(options.corpus, options.read, options.range_bytes)
    ads, unreadable = read[read_ads.ADS], read[read_ads.REJECTED]
    collapsed = ads | "CollapseDuplicates" >> CollapseDuplicates(
        options.read.id_field != CONTENT_IDS, partitions_of(plan.corpus_bytes)
    )
    unique = collapsed[collapse_duplicates.UNIQUE]
    conflicting = collapsed[collapse_duplicates.REJECTED]
    early_letters = (
        (unreadable, conflicting)
        | "JoinRejected" >> beam.Flatten()
        | "WriteRejectedRecords" >> WriteRejected(workspace.root, attempt, "records", shards)
    )
    tally = (ads, unique, unreadable, conflicting, early_letters) | "CheckCorpus" >> CheckCorpus(
        workspace.root, options.max_rejected_share, [f.name for f in options.read.fields if f.name]
    )
    scored = (unique, tally) | "ScoreAds" >> ScoreAds(
        load,
        workspace.root,
        attempt,
        plan.score_key,
        options.block_rows or _block_rows(plan, elsewhere),
        elsewhere,
        resource_hints(options.scoring_hints),
        most=plan.most,
        how=plan.how,
    )
    unscored = scored[score_ads.REJECTED]
    late_letters = unscored | "WriteRejectedScores" >> WriteRejected(
        workspace.root, attempt, "scores", shards
    )
    letters = (early_letters, late_letters) | "JoinDeadLetters" >> beam.Flatten()
    done = scored.get(score_ads.CASCADE, ())
    found = (scored[score_ads.PARTS], unscored, letters, scored[score_ads.UNREAD], tally, *done)
    files = found | "CommitScored" >> CommitScored(
        workspace.root,
        attempt,
        plan.scored_hash,
        origin,
        options.max_rejected_share,
        shards,
        plan.how,
    )
    return files, tally | "WeightUnit" >> beam.Map(lambda found: unit_of(found.weight))
