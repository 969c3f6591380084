"""Where a pipeline runs, by Beam's own flags, and how it is run to its end or only handed over."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    TestOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.resources import parse_resource_hints

from models.address import is_loopback
from pipelines.config import Task, called
from pipelines.console import metrics
from pipelines.console.engine_log import engine_log
from pipelines.console.progress import step
from pipelines.console.typed import typed
from pipelines.errors import RunFailed, UsageError, find_run_failed
from pipelines.jobs.results import Submitted
from pipelines.store import storage

DEFAULT_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_RUNNERS = ("", "DirectRunner", "FnApiRunner", DEFAULT_RUNNER)
# Beam asks some job servers how a job is with this timeout, 300 s by default: the longest job, seconds.
_JOB_SEC = 30 * 86400
_ANSWER_SEC = 10
# Workers that have nothing to do are kept so long: they have loaded a model.
_IDLE_MSEC = 600_000
# What a traceback ends with, ours or Java's.
_CAUSE = re.compile(r"^(?:Caused by: )?(?:[\w$]+\.)*\w*(?:Error|Exception)\b.*", re.MULTILINE)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Submission:
    """A pipeline that was handed over and not waited for.

    Attributes:
        runner: the runner's name.
        kind: ``job``, ``template`` or ``dry run``.
        place: of a template, the file; of a job, its id; of a dry run "".
        steps: transforms of the graph.
    """

    runner: str
    kind: str
    place: str
    steps: int


def pipeline_options(beam_flags: Sequence[str]) -> PipelineOptions:
    """Return Beam's options; the in-memory runner unless another was named."""
    # Nothing of ours lives in `__main__`, and a notebook's holds what no worker should get: Beam pickles it
    # for Dataflow unless it is told not to.
    given = [
        # Beam asks for a value, and takes "False" for true.
        "--dry_run=True" if flag == "--dry_run" and following[:2] in ("", "--") else flag
        for flag, following in itertools.zip_longest(beam_flags, beam_flags[1:], fillvalue="")
    ]
    own = (
        f"--runner={DEFAULT_RUNNER}",
        "--no_save_main_session",
        f"--job_server_timeout={_JOB_SEC}",
        f"--environment_cache_millis={_IDLE_MSEC}",
    )
    options = PipelineOptions([*own, *given])
    test = options.view_as(TestOptions)
    test.dry_run = str(test.dry_run).lower() in ("true", "1", "yes")
    return options


def is_local(beam_flags: Sequence[str]) -> bool:
    """Tell whether a pipeline with these flags of Beam's runs in this process."""
    return runner_name(pipeline_options(beam_flags)) in _LOCAL_RUNNERS


def runner_name(options: PipelineOptions) -> str:
    """Return the runner as it was named."""
    return str(options.view_as(StandardOptions).runner or "")


def _is(options: PipelineOptions, *runners: str) -> bool:
    """Tell whether the runner is one of these; Beam takes names in any case, without "Runner", too."""
    name = runner_name(options).rpartition(".")[2].lower().removesuffix("runner")
    return name in runners


def submits_only(options: PipelineOptions) -> str:
    """Return as what a pipeline is handed over, a kind of :class:`Submission`; "" if it is waited for."""
    if options.view_as(TestOptions).dry_run:
        return "dry run"
    if options.view_as(GoogleCloudOptions).template_location:
        return "template"
    waits = not options.view_as(StandardOptions).no_wait_until_finish
    return "" if waits or runner_name(options) in _LOCAL_RUNNERS else "job"


def resource_hints(hints: Sequence[str]) -> dict[str, str]:
    """Return Beam's resource hints from ``name=value``.

    Raises:
        UsageError: Beam knows no such hint, or not this value of it.
    """
    found: dict[str, str] = {}
    for hint in hints:
        name, _, value = hint.partition("=")
        try:
            parse_resource_hints({name: value})
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"--scoring_hint {hint}: {error} Give NAME=VALUE, such as min_ram=16GB"
            ) from error
        found[name] = value
    return found


def check_remote(
    beam_flags: Sequence[str], workspace: str, corpus: Sequence[str], task: Task, file: Task | str
) -> None:
    """Refuse early what would fail late: before anything is listed, loaded or built.

    Args:
        beam_flags: Beam's own flags.
        workspace: folder, local or ``gs://``.
        corpus: files, folders or globs, local or ``gs://``.
        task: the task.
        file: where it comes from, for errors.

    Raises:
        UsageError: Beam refuses the flags, or the runner's workers would lack something.
    """
    options = pipeline_options(beam_flags)
    name = runner_name(options)
    if name in _LOCAL_RUNNERS:
        return
    try:
        runner = create_runner(name)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--runner {name}: {error}") from error
    _check_hand_over(options)
    if _is(options, "dataflow"):
        _check_dataflow(options, workspace, corpus, task, file)
    else:
        _check_workers(options)
    _check_endpoint(options)
    errors = PipelineOptionsValidator(options, runner).validate()
    if errors:
        raise UsageError(f"--runner {name}: {'; '.join(error.rstrip('.') for error in errors)}")


def _check_hand_over(options: PipelineOptions) -> None:
    if _is(options, "dataflow"):
        return
    name, portable = runner_name(options), options.view_as(PortableOptions)
    if options.view_as(GoogleCloudOptions).template_location:
        raise UsageError(f"--template_location: {name} makes no templates, Dataflow does")
    if submits_only(options) != "job":
        return
    if portable.environment_type == "LOOPBACK" or _workers_are_here(options):
        raise UsageError(
            "--no_wait_until_finish: the job's workers live in this process (LOOPBACK) and would end with it"
        )
    if portable.job_endpoint in (None, "", "embed"):
        raise UsageError(
            f"--no_wait_until_finish: the job server that {name} starts ends with this command; give the "
            "--job_endpoint of one that stays"
        )


def _check_dataflow(
    options: PipelineOptions, workspace: str, corpus: Sequence[str], task: Task, file: Task | str
) -> None:
    worker = options.view_as(WorkerOptions)
    if not (worker.sdk_container_image or worker.worker_harness_container_image):
        raise UsageError(
            "--sdk_container_image: missing; Dataflow's workers need an image with requirements.txt, this "
            "project and the model's weights installed"
        )
    for name, path in (("--workspace", workspace), *(("--corpus", c) for c in corpus)):
        if storage.is_local(path):
            raise UsageError(f"{name} {path}: Dataflow's workers cannot reach it; give gs://...")
    for key, preset in (
        ("model.preset", task.model.preset),
        ("embedding.preset", task.embedding.preset),
        ("training.encoder", task.training.encoder),
    ):
        if preset.startswith((".", "/", "~")):
            raise UsageError(
                f"{called(file)}: {key}: {preset} is a folder of this machine; put the model into "
                "the workers' image or give a preset's name"
            )

    if is_loopback(urllib.parse.urlsplit(task.model.url).hostname or ""):
        raise UsageError(
            f"{called(file)}: model.url: {task.model.url} is this machine, which Dataflow's workers cannot "
            "reach; give an address that they can"
        )


def _check_endpoint(options: PipelineOptions) -> None:
    """Refuse a job server that does not answer: Beam would wait for it as long as for a job."""
    endpoint = str(options.view_as(PortableOptions).job_endpoint or "")
    if endpoint in ("", "embed"):
        return
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _ANSWER_SEC).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--job_endpoint {endpoint}: no job server answers there ({error}); give HOST:PORT of one"
        ) from error


def _workers_are_here(options: PipelineOptions) -> bool:
    """Tell whether a runner starts its own workers, in this process, where no environment is named."""
    own = options.get_all_options()
    return not own["environment_type"] and (
        _is(options, "prism")
        or (_is(options, "flink") and own["flink_master"] in ("[local]", "[auto]"))
        or (_is(options, "spark") and str(own["spark_master_url"]).startswith("local"))
    )


def _check_workers(options: PipelineOptions) -> None:
    """Refuse workers of Beam's own image: it holds neither this project nor the model's weights."""
    portable = options.view_as(PortableOptions)
    image = portable.environment_config or portable.lookup_environment_option(
        "docker_container_image"
    )
    docker = portable.environment_type in (None, "", "DOCKER")
    if docker and not image and not _workers_are_here(options):
        raise UsageError(
            f"--runner {runner_name(options)}: Beam's own image has neither this project nor the model's "
            "weights; give --environment_config IMAGE (--environment_type DOCKER), HOST:PORT of a worker pool "
            "(EXTERNAL), or --environment_type LOOPBACK for workers in this process"
        )


def run_pipeline(
    beam_flags: Sequence[str], build: Callable[[beam.Pipeline], None], say: Say
) -> dict[str, int] | Submission:
    """Build a pipeline and run it to its end, or hand it over where the flags say so.

    Args:
        beam_flags: Beam's own flags.
        build: adds the steps.
        say: told what a person should know.

    Returns:
        its counters, as far as the engine gave them; or what was handed over.

    Raises:
        RunFailed: a step raised it, or the job failed on its engine.
    """
    options = pipeline_options(beam_flags)
    kind, name = submits_only(options), runner_name(options)
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    if kind == "dry run" and not _is(options, "dataflow"):
        # The other runners know no dry run: they would run it.
        return _submission(kind, options, pipeline, None)
    if is_local(beam_flags):
        with metrics.shown(), _failures(""):
            result = pipeline.run()
            result.wait_until_finish()
            return counters_of(result, say)
    # What runs elsewhere counts elsewhere.
    with engine_log(name.rpartition(".")[2]) as log, _failures(log.path):
        with step("handing over the job" if kind else "waiting for the job"):
            result = pipeline.run()
            if kind:
                return _submission(kind, options, pipeline, result)
            result.wait_until_finish()
        counters = counters_of(result, say)
    if log.errors:
        say(f"{name} reported {log.errors:,} errors on the way and went on; they are in {log.path}")
    return counters


@contextlib.contextmanager
def _failures(log: str) -> Iterator[None]:
    """Make one sentence of a runner's exception; ``log`` is where its engine's lines are, or ""."""
    try:
        yield
    except Exception as error:
        if "KeyboardInterrupt" in str(error):
            # Beam wraps what it finds in a step, Ctrl-C too.
            raise KeyboardInterrupt from error
        message = find_run_failed(error)
        if message is None and not log:
            raise
        if message is None:
            message = f"the job failed on its engine: {cause_of(error)}{_advice(str(error))}"
        raise RunFailed(f"{message} (the engine's lines: {log})" if log else message) from error


def _advice(told: str) -> str:
    # Flink's TaskManagers count their workers each for itself, and Beam's pool knows them by that number.
    if "SDK harness closed connection" in told:
        return (
            "; a worker died, or several TaskManagers shared one process of workers (--environment_type "
            "LOOPBACK, or one worker pool): give each machine a pool of its own, or an image"
        )
    return ""


def cause_of(error: BaseException) -> str:
    """Return the line of a runner's exception that says why, of a traceback through Python and Java."""
    text = str(error).strip()
    found = [line for line in _CAUSE.findall(text) if "RemoteError" not in line]
    lines = [line for line in text.splitlines() if line.strip()]
    return (found or lines or [type(error).__name__])[-1].strip()[:1000]


def submitted(handed_over: Submission, task: str, workspace: str) -> Submitted:
    """Return what a job that was not waited for leaves behind."""
    status, kind = typed("status", workspace=workspace), handed_over.kind
    next_step = {
        "job": f"Once it has ended, {status} tells what came of it.",
        "template": f"Once a job of it has ended, {status} tells what came of it.",
        "dry run": "The same command without --dry_run runs it.",
    }[kind]
    steps, place = handed_over.steps, handed_over.place
    return Submitted(task, handed_over.runner, kind, place, steps, next_step)


def _submission(
    kind: str, options: PipelineOptions, pipeline: beam.Pipeline, result: Any
) -> Submission:
    place = ""
    if kind == "template":
        place = options.view_as(GoogleCloudOptions).template_location
    elif kind == "job":
        found = getattr(result, "job_id", None)
        place = str(found() if callable(found) else getattr(result, "_job_id", ""))
    steps = len(pipeline.to_runner_api().components.transforms)
    return Submission(runner_name(options), kind, place, steps)


def counters_of(result: Any, say: Say) -> dict[str, int]:
    """Return a finished job's counters; those without a value are left out.

    An engine that gives none, or has gone by now, takes nothing from what the job has written.
    """
    try:
        found = result.metrics().query(MetricsFilter().with_namespace(metrics.NAMESPACE))
    except Exception as error:
        say(f"the job is done; its engine gave no counters ({type(error).__name__})")
        return {}
    counters: dict[str, int] = {}
    for counter in found["counters"]:
        # Of a counter at zero some engines give the committed value alone, of others neither.
        value = counter.committed if counter.result is None else counter.result
        if value is not None:
            name = counter.key.metric.name
            counters[name] = counters.get(name, 0) + int(value)
    return counters
