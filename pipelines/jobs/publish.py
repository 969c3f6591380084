"""Composition: a round's scores and pairs into BigQuery."""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from pipelines.console import metrics
from pipelines.console.progress import step
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.results import Result, Submitted
from pipelines.jobs.running import Submission, check_remote, run_pipeline, submitted
from pipelines.stages.publish_round import COLUMNS, PAIRS, SCORES, PublishRound
from pipelines.store import scores, storage
from pipelines.store.workspace import Workspace

_DATASET = re.compile(r"bq://([\w.:-]+)\.([\w-]+)")
_HASH_CHARS = 8


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """Everything ``scout publish`` was told.

    Attributes:
        workspace: folder, local or ``gs://``.
        to: ``bq://PROJECT.DATASET``.
        round: whose newest pairs; None for the last round.
        tables: which of ``scores`` and ``pairs``.
        beam: Beam's own flags.
    """

    workspace: str
    to: str
    round: int | None = None
    tables: tuple[str, ...] = (PAIRS, SCORES)
    beam: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Published(Result):
    """What ``scout publish`` leaves behind.

    Attributes:
        task: name of the task.
        round: whose.
        tables: full names of the tables, ``PROJECT.DATASET.TABLE``.
    """

    task: str
    round: int
    tables: Sequence[str]


def publish(options: PublishOptions, say: Callable[[str], None]) -> Published | Submitted:
    """Load tables of a round into a dataset.

    Raises:
        UsageError: nothing is mined, or the dataset or a place for files is not named as it should be.
        RunFailed: the scored ads are gone, or the pipeline failed.
    """
    found = _DATASET.fullmatch(options.to.strip())
    if found is None:
        raise UsageError(f"--to {options.to}: is no dataset; give bq://PROJECT.DATASET")
    workspace = Workspace(options.workspace)
    pairs = workspace.pairs_of(options.round)
    task = pairs.facts.origin.task
    check_remote(options.beam, options.workspace, (), task, task)
    scored = scores.scored_of(workspace, pairs) if SCORES in options.tables else None
    if SCORES in options.tables and scored is None:
        raise RunFailed(
            f"the scored ads of round {pairs.round} are no longer all in {workspace.root}/rounds: run "
            "`scout mine` again, it scores those that are lost"
        )
    # Named by all that shaped them: another mining of the round is another table, the same one the same.
    ending = f"r{pairs.round:04d}_{pairs.config_hash[:_HASH_CHARS]}"
    names = {
        kind: f"{re.sub(r'[^A-Za-z0-9_]', '_', task.name)}_{kind}_{ending}"
        for kind in COLUMNS
        if kind in options.tables
    }
    project, dataset = found[1], found[2]
    temp = storage.join(_temp(options, workspace), f"publish-{uuid.uuid4().hex[:8]}")
    places = {kind: f"{project}:{dataset}.{name}" for kind, name in names.items()}
    stage = PublishRound(workspace.root, pairs, scored, places, temp)
    metrics.reset()
    try:
        with step("loading tables"):
            ran = run_pipeline(options.beam, functools.partial(_build, stage), say)
    except BaseException:
        _remove(temp)
        raise
    if isinstance(ran, Submission):
        return submitted(ran, task.name, workspace.root)
    _remove(temp)
    tables = tuple(f"{project}.{dataset}.{name}" for name in names.values())
    return Published(task.name, pairs.round, tables)


def _temp(options: PublishOptions, workspace: Workspace) -> str:
    """Return where the files that BigQuery loads lie meanwhile."""
    named = PipelineOptions(list(options.beam)).view_as(GoogleCloudOptions).temp_location
    if named:
        return str(named)
    if storage.is_local(workspace.root):
        raise UsageError(
            f"--workspace {options.workspace}: BigQuery loads from Cloud Storage alone; give "
            "--temp_location gs://BUCKET/FOLDER, for the files in between"
        )
    return workspace.path("tmp")


def _remove(temp: str) -> None:
    """Remove what was loaded from, which Beam leaves."""
    for left in storage.match(storage.join(temp, "**")):
        storage.remove(left.path)


def _build(stage: PublishRound, pipeline: beam.Pipeline) -> None:
    _ = pipeline | "PublishRound" >> stage
