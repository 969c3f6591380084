"""Engines as processes of this machine: job servers, a worker pool, a Flink cluster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

# On a busy machine a JVM takes minutes to start.
START_SECONDS = 600.0
_POLL_SECONDS = 0.2
# Nothing here lives long enough for the second compiler to pay.
SHORT_LIVED = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
# Java 17 keeps its own classes shut; Flink's scripts and Beam's runners open these.
_OPEN = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in (
        *("java.lang", "java.lang.invoke", "java.net", "java.io", "java.nio", "java.time"),
        *("java.util", "java.util.concurrent", "java.util.concurrent.atomic", "sun.nio.ch"),
    )
]


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(there: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait until something is there; fails with ``what`` after a while."""
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, f"no {what} within {seconds:.0f} s"
        time.sleep(_POLL_SECONDS)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Processes:
    """Programs that run beside a test, with what they print in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path], **environ: str) -> None:
        """Start a program."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self._started[name] = subprocess.Popen(
                [str(part) for part in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environ},
                start_new_session=True,
            )

    def check(self) -> None:
        """Fail, with what it said last, if a program has ended by itself."""
        for name, process in self._started.items():
            if process.poll() is not None:
                told = (self.folder / f"{name}.log").read_text(errors="replace")
                pytest.fail(f"{name} has ended with {process.returncode}: {told[-3000:]}")

    def kill(self, name: str) -> None:
        """Kill a program as a machine's death would."""
        self._started[name].kill()
        self._started[name].wait()

    def stop(self) -> None:
        """End all of them, and what they have started."""
        for process in self._started.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """End what was started when the body is left."""
    folder.mkdir(parents=True, exist_ok=True)
    started = Processes(folder)
    try:
        yield started
    finally:
        started.stop()


def launcher_jar(jars: Path, main_class: str, target: Path) -> Path:
    """Write a jar of one entry that starts a class with all jars of a folder behind it."""
    found = sorted(jars.glob("*.jar"))
    assert found, f"{jars} is empty: `make test-engines` fills it"
    lines = [
        "Manifest-Version: 1.0",
        f"Main-Class: {main_class}",
        f"Class-Path: {' '.join(jar.as_uri() for jar in found)}",
    ]
    # A manifest's lines have 72 bytes at most, and go on behind a blank.
    folded = [
        piece
        for line in lines
        for piece in [line[:70], *(f" {line[i : i + 69]}" for i in range(70, len(line), 69))]
    ]
    with zipfile.ZipFile(target, "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "\r\n".join([*folded, "", ""]))
    return target


def python_job_service(started: Processes) -> str:
    """Start Beam's job service in Python; its address."""
    port = free_port()
    module = "apache_beam.runners.portability.local_job_service_main"
    started.start("job-service", [sys.executable, "-m", module, "--port", str(port)])
    wait_for(lambda: _listens(port), "job service")
    return f"localhost:{port}"


def worker_pool(started: Processes, name: str = "worker-pool", **environ: str) -> str:
    """Start a pool that starts a Python process a worker; its address."""
    port = free_port()
    module = "apache_beam.runners.worker.worker_pool_main"
    command = [sys.executable, "-m", module, "--service_port", str(port)]
    # It starts whatever `python` is.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started.start(name, command, PATH=path, **environ)
    wait_for(lambda: _listens(port), "worker pool")
    return f"localhost:{port}"


def boot_program(folder: Path) -> Path:
    """Write a program that starts one worker, as an image's does: for ``--environment_type=PROCESS``."""
    program = folder / "boot"
    program.write_text(
        f"""#!{sys.executable}
import argparse
import os

said = os.open({str(folder / "workers.log")!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.dup2(said, 1)
os.dup2(said, 2)

import grpc
from apache_beam.portability.api import beam_provision_api_pb2 as messages
from apache_beam.portability.api.org.apache.beam.model.fn_execution.v1 import (
    beam_provision_api_pb2_grpc as services,
)
from apache_beam.runners.worker.sdk_worker import SdkHarness

parser = argparse.ArgumentParser()
parser.add_argument("--id")
parser.add_argument("--provision_endpoint")
known, _ = parser.parse_known_args()
service = services.ProvisionServiceStub(grpc.insecure_channel(known.provision_endpoint))
asked = messages.GetProvisionInfoRequest()
told = service.GetProvisionInfo(asked, metadata=[("worker_id", known.id)])
SdkHarness(told.info.control_endpoint.url, worker_id=known.id).run()
"""
    )
    program.chmod(0o755)
    return program


class FlinkCluster:
    """A JobManager and some TaskManagers of two slots.

    Args:
        jars: folders, of a Flink distribution and of Beam's runner for it. Where TaskManagers have the runner in
            their own class path, they keep its workers from step to step; of the jar that a job brings, Flink's
            class loader goes with each step, and so do they.
        started: what keeps its processes.
        task_managers: how many.
    """

    def __init__(self, jars: Sequence[Path], started: Processes, task_managers: int = 2) -> None:
        self._jars, self._started = jars, started
        self.rest = free_port()
        folder = started.folder / "conf"
        folder.mkdir()
        settings = {
            "jobmanager.rpc.address": "localhost",
            "jobmanager.rpc.port": free_port(),
            "rest.address": "localhost",
            "rest.port": self.rest,
            "blob.server.port": free_port(),
            "heartbeat.interval": 1000,
            "heartbeat.timeout": 10000,
            "classloader.resolve-order": "parent-first",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 5,
            "restart-strategy.fixed-delay.delay": "1 s",
            "io.tmp.dirs": str(started.folder / "tmp"),
            "taskmanager.numberOfTaskSlots": 2,
            # So that whoever dies had tasks.
            "cluster.evenly-spread-out-slots": True,
            # Flink's scripts compute these; a process of one's own is told.
            "taskmanager.cpu.cores": 2,
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "128m",
            "taskmanager.memory.task.heap.size": "384m",
            "taskmanager.memory.task.off-heap.size": "64m",
            "taskmanager.memory.managed.size": "128m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "192m",
            "taskmanager.memory.jvm-overhead.max": "192m",
            # A graph of many steps has many exchanges.
            "taskmanager.memory.network.min": "512m",
            "taskmanager.memory.network.max": "512m",
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        self._java(
            "job-manager",
            "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
        )
        self.names = [f"task-manager-{number}" for number in range(1, task_managers + 1)]
        for name in self.names:
            self._java(
                name,
                "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
                f"-Dtaskmanager.resource-id={name}",
            )

        def whole() -> bool:
            started.check()
            return len(self.alive()) == task_managers

        wait_for(whole, "Flink cluster")

    def _java(self, name: str, main_class: str, *more: str) -> None:
        heap = ["-Xmx512m", "-XX:MaxDirectMemorySize=768m"]
        heap.append("-Dorg.apache.logging.log4j.level=INFO")
        path = ":".join(f"{folder}/*" for folder in self._jars)
        conf = ["--configDir", str(self._started.folder / "conf")]
        command = ["java", *heap, *_OPEN, "-cp", path, main_class, *conf, *more]
        self._started.start(name, command, **SHORT_LIVED)

    def _ask(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://localhost:{self.rest}{path}", timeout=5) as told:
                return json.load(told)
        except (OSError, ValueError):
            return {}

    def alive(self) -> dict[str, int]:
        """Return the slots in use of each TaskManager that is known to be alive."""
        found = self._ask("/taskmanagers").get("taskmanagers", [])
        return {one["id"]: one["slotsNumber"] - one["freeSlots"] for one in found}

    def at_work(self) -> list[str]:
        """Return the TaskManagers that have tasks of a running job."""
        return [name for name, used in self.alive().items() if used]

    def failures(self) -> int:
        """Return how often tasks of this cluster's jobs have failed, and were started again."""
        jobs = [job["jid"] for job in self._ask("/jobs/overview").get("jobs", [])]
        histories = [
            self._ask(f"/jobs/{job}/exceptions").get("exceptionHistory", {}) for job in jobs
        ]
        return sum(len(history.get("entries", [])) for history in histories)

    def kill(self, name: str) -> None:
        """Kill a TaskManager."""
        self._started.kill(name)
