"""Composition: from a corpus to review pairs, as one Beam pipeline, resumed where it can be."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from models import prompting
from models.backends.base import BackendError, LabelerIdentity
from models.backends.pool import LabelerPool
from pipelines.config import Task, called, given_task
from pipelines.console import metrics, summary
from pipelines.console.progress import step
from pipelines.console.typed import typed
from pipelines.contracts import FORMAT_VERSION, BlockFile
from pipelines.errors import RunFailed, UsageError, find_run_failed
from pipelines.handlers import LoadLabeler, trained_backend, trained_embedding
from pipelines.jobs import pilot, selection
from pipelines.jobs.labels import settled_labels
from pipelines.jobs.results import Mined, plain
from pipelines.numerics.calibration import Fitted
from pipelines.numerics.threads import cores
from pipelines.numerics.weights import unit_of
from pipelines.sources import registry as sources
from pipelines.sources.base import CONTENT_IDS, Range, ReadOptions, fingerprint
from pipelines.stages import collapse_duplicates, read_ads, score_ads
from pipelines.stages.check_corpus import CheckCorpus
from pipelines.stages.collapse_duplicates import CollapseDuplicates
from pipelines.stages.commit_scored import CommitScored
from pipelines.stages.label_ads import LabelAds, LabelRule
from pipelines.stages.read_ads import ReadAds
from pipelines.stages.score_ads import ScoreAds
from pipelines.stages.write_rejected import WriteRejected
from pipelines.stages.write_review import WriteReview
from pipelines.store import model_store, storage
from pipelines.store.facts import ModelFacts, Provenance, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace, config_hash
from pipelines.strategies import registry
from pipelines.strategies.base import Need, Strategy
from pipelines.strategies.base import Plan as SelectionPlan
from pipelines.strategies.exploration import explored_share

DEFAULT_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_RUNNERS = ("", "DirectRunner", "FnApiRunner", DEFAULT_RUNNER)
_REMOTE_SHARDS = 64
# Ads of each label in the band for each pair of the budget, at least.
_BAND_PAIRS = 3
_VERSIONED = ("apache-beam", "tensorflow", "keras", "keras-hub", "numpy", "scikit-learn", "scann")


@dataclass(frozen=True, slots=True)
class MineOptions:
    """Everything ``scout mine`` was told; see ``pipelines.api.mine``.

    Attributes:
        read: how records become ads.
        beam: Beam's own flags.
    """

    task: Task | str
    corpus: tuple[str, ...]
    workspace: str
    date: str = ""
    budget: int | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    max_rejected_share: float = 0.0
    block_rows: int = 4096
    range_bytes: int = 64 << 20
    beam: tuple[str, ...] = ()

    def pipeline_options(self) -> PipelineOptions:
        """Return Beam's options; the in-memory runner unless another was named."""
        return _pipeline_options(self.beam)

    def is_local(self) -> bool:
        """Tell whether the pipeline runs in this process."""
        return is_local(self.beam)


def is_local(beam_flags: Sequence[str]) -> bool:
    """Tell whether a pipeline with these flags of Beam's runs in this process."""
    return _runner(_pipeline_options(beam_flags)) in _LOCAL_RUNNERS


def _pipeline_options(beam_flags: Sequence[str]) -> PipelineOptions:
    return PipelineOptions([f"--runner={DEFAULT_RUNNER}", *beam_flags])


def _runner(options: PipelineOptions) -> str:
    return str(options.get_all_options()["runner"] or "")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is decided before the pipeline is built."""

    options: MineOptions
    task: Task
    workspace: Workspace
    round_number: int
    ranges: list[Range]
    model: Manifest[ModelFacts] | None
    embedding: str
    identity: LabelerIdentity
    score_key: str
    scored_hash: str
    mine_hash: str
    shown_keys: frozenset[str]
    strategy: Strategy
    labels: Mapping[str, int]
    explored: float
    scored: Manifest[ScoredFacts] | None
    finished: bool
    pool: LabelerPool | None = None


def mine(
    options: MineOptions, say: Callable[[str], None], pool: LabelerPool | None = None
) -> Mined:
    """Run the main job.

    Args:
        options: see :class:`MineOptions`.
        say: told, in one line each, what a person should know while it runs.
        pool: remembers what LLM-0 says; for simulations.

    Raises:
        UsageError: the arguments, the task file, the model's name or the corpus's are wrong.
        RunFailed: the run could not produce pairs.
    """
    started = time.monotonic()
    plan = dataclasses.replace(prepare(options, say), pool=pool)
    if plan.finished:
        say(f"round {plan.round_number} is mined already with this task and corpus; nothing to do")
        return _outcome(plan, {}, time.monotonic() - started)
    if plan.scored:
        say(f"every ad is scored already ({plan.scored.rows:,} ads)")
    metrics.reset()
    counters = _run(plan)
    mined = _outcome(plan, counters, time.monotonic() - started)
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


def prepare(options: MineOptions, say: Callable[[str], None]) -> Plan:
    """Decide everything that is decided before the pipeline is built; raises as ``mine`` does."""
    task = given_task(options.task)
    options = dataclasses.replace(options, read=task.reading(options.read))
    if options.budget is not None:
        selection = task.selection.model_copy(update={"budget": options.budget})
        task = task.model_copy(update={"selection": selection})
    with step("listing the corpus"):
        listed = sources.list_corpus(options.corpus)
        ranges = sources.plan(listed, options.read, options.range_bytes)
    for line in sources.told(ranges, options.read):
        say(line)
    workspace = Workspace(options.workspace)
    workspace.check_writable()
    _check_remote(options, task)
    try:
        task = pilot.with_committee(task, ranges, options.read, workspace, say)
    except UsageError as error:
        raise UsageError(f"{called(options.task)}: {error}") from error
    round_number = workspace.current_round()
    models = model_store.models(workspace, task.version, before_round=round_number)
    model = models[-1] if models else None
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
    shown = workspace.shown_keys(round_number)
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
            "corpus": fingerprint(listed),
            "read": options.read.shaping(),
            "max_rejected_share": options.max_rejected_share,
        }
    )

    def hash_of(seen: frozenset[str]) -> str:
        return config_hash(
            {
                "scored": scored_hash,
                # All of the task: import, training and `status` go by what the newest pairs say of it.
                "task": task.model_dump(mode="json"),
                "embedding": embedding,
                "shown": sorted(seen),
                "labels": labels,
                "explored": explored,
                "round": round_number,
                "fitted_threshold": dataclasses.asdict(_fitted(model)) if model else None,
            }
        )

    mine_hash = hash_of(shown)
    finished = _is_finished(workspace, round_number, mine_hash)
    if not finished:
        # An audit of this round drew none of the ads of the items that were there, but it may have drawn
        # those that new ones would show.
        audits = workspace.audit.all(round_number)
        shown = shown.union(*map(workspace.keys_of, audits))
        mine_hash = hash_of(shown)
        finished = _is_finished(workspace, round_number, mine_hash)
    return Plan(
        options=options,
        task=task,
        workspace=workspace,
        round_number=round_number,
        ranges=ranges,
        model=model,
        embedding=embedding,
        identity=identity,
        score_key=score_key,
        scored_hash=scored_hash,
        mine_hash=mine_hash,
        shown_keys=shown,
        strategy=strategy,
        labels=labels,
        explored=explored,
        scored=_whole(workspace, workspace.scored.find(round_number, scored_hash)),
        finished=finished,
    )


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
    if manifest and workspace.is_whole(manifest.files, workspace.block_sizes()):
        return manifest
    return None


def _check_remote(options: MineOptions, task: Task) -> None:
    """Refuse early what workers of another machine could not read or write."""
    if "Dataflow" not in _runner(options.pipeline_options()):
        return
    for name, path in (
        ("--workspace", options.workspace),
        *(("--corpus", c) for c in options.corpus),
    ):
        if storage.is_local(path):
            raise UsageError(f"{name} {path}: Dataflow's workers cannot reach it; give gs://...")
    for key, preset in (
        ("model.preset", task.model.preset),
        ("embedding.preset", task.embedding.preset),
        ("training.encoder", task.training.encoder),
    ):
        if preset.startswith((".", "/", "~")):
            raise UsageError(
                f"{called(options.task)}: {key}: {preset} is a folder of this machine; put the model into "
                "the workers' image or give a preset's name"
            )


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
    else:
        files, unit = _score(plan, pipeline, origin)
    # The files come out of one element (a manifest): without this, one worker would read them all.
    files = files | "SpreadFiles" >> beam.Reshuffle()
    rule = label_rule(task, plan.model)
    labelled = files | "LabelAds" >> LabelAds(workspace.root, rule, plan.shown_keys)
    corpus = selection.Corpus(
        workspace.root,
        files,
        labelled,
        task.standardize(plan.embedding),
        plan.shown_keys,
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
    )


def _fitted(model: Manifest[ModelFacts]) -> Fitted:
    """Return the threshold that a model's labels alone give: the corpus decides what bounds it."""
    learnt, labels = model.facts.learnt, model.facts.labels
    alone = learnt.threshold_margin
    return learnt.fitted or Fitted(alone, alone, alone, labels.rarer)


def _score(
    plan: Plan, pipeline: beam.Pipeline, origin: Provenance
) -> tuple[beam.PCollection[BlockFile], beam.PCollection[int]]:
    """Return the scored blocks, and the power of ten of their weights' unit, a singleton."""
    workspace, options = plan.workspace, plan.options
    attempt = workspace.new_attempt(plan.round_number, "scored")
    shards = 1 if options.is_local() else _REMOTE_SHARDS
    read = pipeline | "ReadAds" >> ReadAds(plan.ranges, options.read)
    ads, unreadable = read[read_ads.ADS], read[read_ads.REJECTED]
    collapsed = ads | "CollapseDuplicates" >> CollapseDuplicates(
        corpus_ids=options.read.id_field != CONTENT_IDS
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
        LoadLabeler(plan.task, plan.identity, workspace.root, plan.model, plan.pool),
        workspace.root,
        attempt,
        plan.score_key,
        workspace.scored_blocks(plan.score_key),
        options.block_rows,
        share_processes=not options.is_local(),
    )
    unscored = scored[score_ads.REJECTED]
    late_letters = unscored | "WriteRejectedScores" >> WriteRejected(
        workspace.root, attempt, "scores", shards
    )
    letters = (early_letters, late_letters) | "JoinDeadLetters" >> beam.Flatten()
    found = (scored[score_ads.FILES], unscored, letters, scored[score_ads.UNREAD], tally)
    files = found | "CommitScored" >> CommitScored(
        workspace.root,
        attempt,
        plan.scored_hash,
        origin,
        options.max_rejected_share,
    )
    return files, tally | "WeightUnit" >> beam.Map(lambda found: unit_of(found.weight))


def _run(plan: Plan) -> dict[str, int]:
    return run_pipeline(plan.options.beam, functools.partial(build_pipeline, plan))


def run_pipeline(
    beam_flags: Sequence[str], build: Callable[[beam.Pipeline], None]
) -> dict[str, int]:
    """Build a pipeline and run it to its end; returns its counters.

    Raises:
        RunFailed: a step raised it.
    """
    pipeline = beam.Pipeline(options=_pipeline_options(beam_flags))
    build(pipeline)
    # What runs elsewhere counts elsewhere.
    showing = metrics.shown() if is_local(beam_flags) else step("waiting for the job")
    try:
        with showing:
            result = pipeline.run()
            result.wait_until_finish()
    except Exception as error:
        if "KeyboardInterrupt" in str(error):
            # Beam wraps what it finds in a step, Ctrl-C too.
            raise KeyboardInterrupt from error
        message = find_run_failed(error)
        if message is None:
            raise
        raise RunFailed(message) from error
    found = result.metrics().query(MetricsFilter().with_namespace(metrics.NAMESPACE))
    counters: dict[str, int] = {}
    for counter in found["counters"]:
        name = counter.key.metric.name
        counters[name] = counters.get(name, 0) + int(counter.result)
    return counters


def _outcome(plan: Plan, counters: dict[str, int], seconds: float) -> Mined:
    workspace, number = plan.workspace, plan.round_number
    scored = workspace.scored.find(number, plan.scored_hash)
    pairs = workspace.pairs.find(number, plan.mine_hash)
    review = workspace.review.find(number, plan.mine_hash)
    if not (scored and pairs and review):
        raise RunFailed(
            "the pipeline ended without a manifest for each of scored, pairs and review"
        )
    clusters = workspace.clusters.find(number, plan.mine_hash)
    busy = summary.stage_seconds(counters)
    scored_now = counters.get("ScoreAds/scored", 0)
    records = counters.get("ReadAds/records", 0)
    threshold, boundary = pairs.facts.threshold, pairs.facts.boundary
    committee = None if plan.model else plan.task.prompt.committee
    items = tuple(workspace.read_items(pairs))
    mined = Mined(
        task=plan.task.name,
        round=number,
        records=scored.facts.records,
        rejected=scored.facts.rejected,
        rejected_by_reason=scored.facts.reasons,
        unique=scored.facts.unique,
        scored_now=scored_now,
        reused=scored.rows - scored_now,
        truncated=clusters.facts.truncated if clusters else None,
        positives=threshold.n_positive,
        positive_share=threshold.share,
        threshold_probability=round(threshold.probability, 6),
        threshold_source=threshold.source,
        positive_clusters=clusters.facts.positive_clusters if clusters else None,
        negative_clusters=clusters.facts.negative_clusters if clusters else None,
        overlaps=clusters.facts.overlaps if clusters else None,
        candidates=pairs.facts.candidates,
        pairs=pairs.rows,
        exploration_pairs=pairs.facts.sources.get("exploration", 0),
        budget=plan.task.selection.budget,
        exploration_share=round(plan.explored, 6),
        single_ads=sum(len(item.ads) == 1 for item in items),
        note=pairs.facts.note,
        threshold_bound=threshold.bound,
        covered_share=boundary.covered_share if boundary else None,
        partner_rank=_median([item.overlap.partner_rank for item in items if item.overlap]),
        pair_distance=_median([item.distance for item in items if item.overlap]),
        seconds_by_stage=busy,
        seconds=round(seconds, 2),
        scoring_rate=_rate(scored_now, busy.get("ScoreAds", 0.0)),
        reading_rate=_rate(records, busy.get("ReadAds", 0.0)),
        model_id=plan.identity.model_id,
        prompt_hash=plan.identity.prompt_hash,
        prompts=tuple(member.name for member in committee.members) if committee else (),
        agreement=committee.agreement if committee else None,
        guessing=committee is not None and committee.agreement < pilot.GUESSING,
        pairs_file=workspace.path(pairs.file("items.jsonl").path),
        review_sheet=workspace.path(review.file("review.csv").path),
        overlaps_file=workspace.path(f"{clusters.attempt}/overlaps.jsonl") if clusters else None,
        dead_letters=tuple(workspace.path(path) for path in scored.facts.dead_letters),
        items=items,
        names=plan.task.labels.model_dump(),
        rejected_examples=scored.facts.examples,
        unread=scored.facts.unread,
    )
    if counters:
        data = json.dumps(plain(mined), indent=1, ensure_ascii=False).encode() + b"\n"
        storage.write(workspace.path(f"{review.attempt}/summary.json"), data)
    return mined


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 6) if known else None


def _rate(number: int, seconds: float) -> float | None:
    return round(number / seconds, 1) if number and seconds else None
