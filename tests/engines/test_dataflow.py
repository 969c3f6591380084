"""What Dataflow would be given: the job is built offline, against an emulator of Cloud Storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.internal import apiclient

from pipelines.store import storage
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.engines.test_gcs import bucket  # noqa: F401

IMAGE = "europe-docker.pkg.dev/policy/scout:1"


def test_the_job_that_dataflow_would_be_given(
    bucket: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[beam_runner_api_pb2.Pipeline] = []

    class Kept(apiclient.Job):
        def __init__(self, options: Any, proto: beam_runner_api_pb2.Pipeline) -> None:
            built.append(proto)
            super().__init__(options, proto)

    monkeypatch.setattr(apiclient, "Job", Kept)
    lines = "".join(json.dumps(ad) + "\n" for ad in helpers.tiny_ads())
    storage.write(f"{bucket}/ads.jsonl", lines.encode())
    flags = (
        *("--runner=DataflowRunner", "--project=policy-team", "--region=europe-west1"),
        *(f"--temp_location={bucket}/tmp", f"--sdk_container_image={IMAGE}", "--dry_run"),
    )
    found = helpers.hand_over(
        helpers.write_task(tmp_path),
        f"{bucket}/ads.jsonl",
        f"{bucket}/w",  # type: ignore[arg-type]
        beam=flags,
        scoring_hints=("min_ram=16GB",),
    )
    assert (found.runner, found.kind) == ("DataflowRunner", "dry run")
    assert Workspace(f"{bucket}/w").rounds() == []
    [proto] = built
    environments = proto.components.environments
    for environment in environments.values():
        payload = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
        assert payload.container_image == IMAGE
        # No main session, and no package to install on a worker: only the list of what is installed here,
        # which Beam's workers log.
        assert all(
            b"submission_environment_dependencies.txt" in staged.role_payload
            for staged in environment.dependencies
        )
    steps = proto.components.transforms.values()
    hinted = {
        step.unique_name
        for step in steps
        if environments[step.environment_id].resource_hints and step.environment_id
    }
    assert hinted and all("/Label/" in f"{name}/" for name in hinted)
    assert any(step.unique_name.startswith("CheckWorker/Look") for step in steps)
