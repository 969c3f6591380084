"""Where a pipeline runs, by Beam's own flags, and how it is run to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.config import Task, called
from pipelines.console import metrics
from pipelines.console.progress import step
from pipelines.errors import RunFailed, UsageError, find_run_failed
from pipelines.store import storage

DEFAULT_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_RUNNERS = ("", "DirectRunner", "FnApiRunner", DEFAULT_RUNNER)


def pipeline_options(beam_flags: Sequence[str]) -> PipelineOptions:
    """Return Beam's options; the in-memory runner unless another was named."""
    return PipelineOptions([f"--runner={DEFAULT_RUNNER}", *beam_flags])


def is_local(beam_flags: Sequence[str]) -> bool:
    """Tell whether a pipeline with these flags of Beam's runs in this process."""
    return _runner(beam_flags) in _LOCAL_RUNNERS


def _runner(beam_flags: Sequence[str]) -> str:
    return str(pipeline_options(beam_flags).get_all_options()["runner"] or "")


def check_remote(
    beam_flags: Sequence[str], workspace: str, corpus: Sequence[str], task: Task, file: Task | str
) -> None:
    """Refuse early what workers of another machine could not read or write.

    Args:
        beam_flags: Beam's own flags.
        workspace: folder, local or ``gs://``.
        corpus: files, folders or globs, local or ``gs://``.
        task: the task.
        file: where it comes from, for errors.

    Raises:
        UsageError: the runner's workers would lack something.
    """
    if "Dataflow" not in _runner(beam_flags):
        return
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


def run_pipeline(
    beam_flags: Sequence[str], build: Callable[[beam.Pipeline], None]
) -> dict[str, int]:
    """Build a pipeline and run it to its end; returns its counters.

    Raises:
        RunFailed: a step raised it.
    """
    pipeline = beam.Pipeline(options=pipeline_options(beam_flags))
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
