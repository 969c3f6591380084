"""Where a pipeline runs, how it ends there, and how it is only handed over."""

from __future__ import annotations

import json
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines import api, cli
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import running
from pipelines.jobs.results import Mined
from pipelines.jobs.running import Submission, counters_of, run_pipeline
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.jobs.runners import Result, counter

HERE = "--environment_type=LOOPBACK"
IMAGE = "--sdk_container_image=registry/scout:1"


def flags(runner: str, *more: str) -> tuple[str, ...]:
    return (f"--runner=tests.jobs.runners.{runner}", HERE, *more)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return helpers.write_task(tmp_path)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())


def summary_of(workspace: Path) -> dict[str, Any]:
    [path] = workspace.glob("rounds/0001/review/*/summary.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_counter_without_a_value_ends_no_finished_job(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    mined = helpers.run(task, corpus, tmp_path / "w", beam=flags("HalfSilent"))
    assert (mined.scored_now, mined.reused) == (200, 0)
    assert summary_of(tmp_path / "w")["scored_now"] == 200


def test_an_engine_without_counters_leaves_a_summary_that_says_so(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    mined = helpers.run(task, corpus, tmp_path / "w", beam=flags("Silent"))
    assert (mined.scored_now, mined.reused, mined.unique, len(mined.items)) == (None, None, 200, 12)
    assert "scored now" not in mined.text(0)
    assert summary_of(tmp_path / "w")["reused"] is None
    # What was asked before is known without counters.
    again = helpers.run(task, corpus, tmp_path / "w", beam=flags("Silent"))
    assert (again.scored_now, again.reused) == (0, 200)


def test_counters_are_summed_over_steps_and_a_lost_engine_has_none() -> None:
    told: list[str] = []
    found = counters_of(Result([counter("a", 0, None), counter("a", None, 3)]), told.append)
    assert (found, told) == ({"a": 3}, [])

    class Gone(Result):
        def metrics(self) -> Any:
            raise ConnectionError("gone")

    assert counters_of(Gone([]), told.append) == {}
    assert told == ["the job is done; its engine gave no counters (ConnectionError)"]


def test_an_engine_gives_the_pairs_of_the_in_memory_runner(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    ours = helpers.run(task, corpus, tmp_path / "w")
    theirs = helpers.run(task, corpus, tmp_path / "v", beam=flags("Silent"), block_rows=64)
    assert helpers.pairs_bytes(theirs) == helpers.pairs_bytes(ours)


def test_what_an_engine_says_is_in_a_file(
    task: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hook, level = threading.excepthook, logging.getLogger().level
    mined = api.mine(task, corpus, tmp_path / "w", beam=flags("Chatty"), progress=True)
    threading.excepthook = hook
    assert isinstance(mined, Mined) and len(mined.items) == 12
    shown = capsys.readouterr().err
    [line] = [line for line in shown.splitlines() if "Chatty" in line]
    name, _, path = line.removeprefix("scout: ").rpartition(" ")
    assert name == (
        "tests.jobs.runners.Chatty reported 1 errors on the way and went on; they are in"
    )
    held = Path(path).read_text()
    assert "a task was lost" in held and "one of hundreds of lines" in held
    assert "read_inputs ended" in held and "Multiplexer hanging up" in held
    assert "lost" not in shown and "hundreds" not in shown and "Multiplexer" not in shown
    assert logging.getLogger().level == level
    Path(path).unlink()


def test_a_failed_job_is_a_sentence_that_names_its_engines_lines(
    task: Path, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed) as caught:
        helpers.run(task, corpus, tmp_path / "w", beam=flags("Broken"))
    told, _, path = caught.value.message.removesuffix(")").partition(" (the engine's lines: ")
    assert told == "the job failed on its engine: OSError: [Errno 28] No space left on device"
    assert Path(path).exists()
    Path(path).unlink()


def test_a_steps_own_sentence_is_found_again_on_an_engine(task: Path, tmp_path: Path) -> None:
    useless = helpers.write_jsonl(tmp_path / "useless.jsonl", [{"id": "a"}, {"id": "b"}])
    with pytest.raises(RunFailed) as caught:
        helpers.run(task, useless, tmp_path / "w", beam=flags("Silent"))
    assert "(the engine's lines: " in caught.value.message
    assert caught.value.message.startswith("none of the 2 records is usable: no_text 2")


@pytest.mark.parametrize(
    ("runner", "more", "kind", "place", "told"),
    [
        (
            "Dataflow",
            (IMAGE, "--template_location=gs://b/t.json"),
            "template",
            "gs://b/t.json",
            "the job's template is in gs://b/t.json",
        ),
        ("Dataflow", (IMAGE, "--dry_run"), "dry run", "", "a dry run hands nothing over"),
        ("Broken", ("--dry_run",), "dry run", "", "a dry run hands nothing over"),
    ],
)
def test_what_is_handed_over_is_not_waited_for(
    runner: str,
    more: tuple[str, ...],
    kind: str,
    place: str,
    told: str,
    task: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What Dataflow's workers reach is another test's matter.
    monkeypatch.setattr(running, "_check_dataflow", lambda *_: None)
    found = helpers.hand_over(task, corpus, tmp_path / "w", beam=flags(runner, *more))
    assert (found.kind, found.place) == (kind, place) and found.steps > 50
    assert told in found.text() and "\n" in found.text()
    assert found.to_json()["kind"] == kind
    assert Workspace(str(tmp_path / "w")).rounds() == [], "nothing has run"


def test_a_job_that_stays_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        given = ("--no_wait_until_finish", f"--job_endpoint={endpoint}")
        workers = ("--environment_type=EXTERNAL", "--environment_config=pool:5")
        chosen = ("--runner=PortableRunner", *workers, *given)
        running.check_remote(chosen, "gs://b/w", (), helpers.provenance().task, "t.yaml")
    handed: list[beam.Pipeline] = []

    class Job:
        _job_id = "job-7"

    monkeypatch.setattr(beam.Pipeline, "run", lambda self: handed.append(self) or Job())
    found = run_pipeline(chosen, lambda pipeline: pipeline | beam.Create([1]), print)
    assert isinstance(found, Submission) and len(handed) == 1
    assert (found.runner, found.kind, found.place) == ("PortableRunner", "job", "job-7")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--runner=DataflowRunner",), "--sdk_container_image: missing; Dataflow's workers need an image"),
        (("--runner=dataflow",), "--sdk_container_image: missing"),
        (("--runner=DataflowRunner", IMAGE), "--workspace w: Dataflow's workers cannot reach it"),
        (("--runner=FlinkRuner",), "--runner FlinkRuner: Unexpected pipeline runner: FlinkRuner"),
        (("--runner=FlinkRunner", "--flink_master=jobs:8081"), "Beam's own image has neither this project"),
        (("--runner=PortableRunner", "--job_endpoint=x:1"), "Beam's own image has neither"),
        (("--runner=SparkRunner", "--spark_master_url=spark://x:1"), "Beam's own image has neither"),
        (("--runner=PrismRunner", "--no_wait_until_finish"), "workers live in this process (LOOPBACK)"),
        (("--runner=FlinkRunner", "--flink_master=x:1", "--environment_config=image", "--no_wait_until_finish"),
         "the job server that FlinkRunner starts ends with this command"),
        (("--runner=PrismRunner", "--template_location=gs://b/t"), "PrismRunner makes no templates, Dataflow does"),
        (("--runner=PortableRunner", "--environment_type=LOOPBACK", "--job_endpoint=localhost:1"),
         "--job_endpoint localhost:1: no job server answers there"),
        (("--runner=PrismRunner", "--environment_type=EXTERNAL"), "is required for environment type EXTERNAL"),
    ],
)  # fmt: skip
def test_what_would_fail_late_is_refused_before_anything_is_read(
    given: tuple[str, ...], message: str, task: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        helpers.run(task, "nowhere/*.jsonl", Path("w"), beam=given)
    assert message in str(caught.value)


def test_dataflow_needs_its_own_flags_remote_models_and_no_main_session(task: Path) -> None:
    given = ("--runner=DataflowRunner", IMAGE)
    folder = helpers.provenance().task.model_copy(
        update={"model": helpers.provenance().task.model.model_copy(update={"preset": "./m"})}
    )
    with pytest.raises(UsageError, match=r"t\.yaml: model\.preset: \./m is a folder of this"):
        running.check_remote(given, "gs://b/w", (), folder, "t.yaml")
    with pytest.raises(
        UsageError,
        match=r"--runner DataflowRunner: Missing GCS .*; Missing required option: project; ",
    ):
        running.check_remote(given, "gs://b/w", (), helpers.provenance().task, "t.yaml")
    options = running.pipeline_options(given).get_all_options()
    assert options["save_main_session"] is False
    assert options["job_server_timeout"] > 86400, "Beam would give a long job up after 300 s"
    assert options["environment_cache_millis"] == "600000", "a stage would start workers of its own"
    given_less = running.pipeline_options((*given, "--environment_cache_millis=5"))
    assert given_less.get_all_options()["environment_cache_millis"] == "5"
    wanted = running.pipeline_options((*given, "--save_main_session")).get_all_options()
    assert wanted["save_main_session"] is True


def test_resource_hints_are_beams() -> None:
    assert running.resource_hints(["min_ram=16GB", "cpu_count=4"]) == {
        "min_ram": "16GB",
        "cpu_count": "4",
    }
    for wrong in ("ram=16GB", "min_ram=much", "min_ram"):
        with pytest.raises(UsageError, match=f"--scoring_hint {wrong}: .*such as min_ram=16GB"):
            running.resource_hints([wrong])


def test_the_command_says_what_was_handed_over(
    task: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["mine", str(task), "--corpus", str(corpus), "--workspace", str(tmp_path / "w")]
    assert cli.main([*argv, *flags("Silent", "--dry_run"), "--quiet"]) == cli.OK
    out, err = capsys.readouterr()
    assert out.startswith("Task tiny: built for tests.jobs.runners.Silent (")
    assert out.splitlines()[-1] == "The same command without --dry_run runs it."
    assert err == ""
    assert cli.main([*argv, *flags("Silent", "--dry_run"), "--quiet", "--json"]) == cli.OK
    assert json.loads(capsys.readouterr().out)["kind"] == "dry run"
