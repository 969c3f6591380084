"""Composition: a round's pairs as files for a labeling tool, or into its server."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.console.progress import step
from pipelines.errors import UsageError
from pipelines.jobs.results import Exported
from pipelines.store import storage
from pipelines.store.workspace import Workspace
from pipelines.tools.batch import Batch, read_batch
from pipelines.tools.formats import EXPORTERS
from pipelines.tools.servers import push
from pipelines.tools.sheet import SHEET


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Everything ``scout export`` was told.

    Attributes:
        workspace: folder, local or ``gs://``.
        tool: one of ``pipelines.tools.formats.EXPORTERS``.
        out: folder for the files, local or ``gs://``; "" for one in the workspace.
        round: whose pairs, or None for the last one.
        show_predictions: whether experts see what the model says.
        force: whether to replace a sheet that was filled in.
        url: of the tool's server, to put the pairs there instead of into files; or "".
    """

    workspace: str
    tool: str
    out: str = ""
    round: int | None = None
    show_predictions: bool = False
    force: bool = False
    url: str = ""


def export_pairs(options: ExportOptions, say: Callable[[str], None]) -> Exported:
    """Write a round's pairs for a tool. The same pairs are the same bytes.

    Older files give way, but for a sheet that somebody wrote in.

    Args:
        options: see :class:`ExportOptions`.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: no pairs, an unknown round, a folder that cannot be written, a server that cannot
            be reached or does not let us in.
        RunFailed: an earlier version wrote the workspace.
    """
    if options.url and options.out:
        raise UsageError("--push and --out: give one of them, the pairs go to a server or to files")
    if options.tool not in EXPORTERS:
        raise UsageError(f"--tool {options.tool}: unknown; give one of {', '.join(EXPORTERS)}")
    workspace = Workspace(options.workspace)
    with step("reading the pairs"):
        batch = read_batch(workspace, options.round, options.show_predictions)
    if options.show_predictions:
        say(
            "experts will see what the model says, and people who see that tend to agree with it; "
            "Label Studio even ticks its labels, so that a mere Submit accepts them"
        )
    if workspace.latest(batch.round, "verdicts"):
        say(f"round {batch.round} has verdicts already; pairs that were answered go along")
    summary: dict[str, Any] = {
        "task": batch.task,
        "task_version": batch.task_version,
        "round": batch.round,
        "tool": options.tool,
        "pairs": len(batch.pairs),
        "experts_per_ad": batch.experts_per_ad,
        "blind": not options.show_predictions,
        "files": [],
        "pushed": None,
    }
    if options.url:
        with step(f"pushing to {options.tool}"):
            summary["pushed"] = push(options.tool, options.url, batch, say)
    else:
        with step(f"writing {len(batch.pairs):,} pairs"):
            summary["files"], left = _write(workspace, batch, options)
        for path in left:
            say(
                f"{path}: left by an earlier export, whose pairs may have been others; delete it, "
                "lest somebody labels it"
            )
    return Exported(**summary)


def _left_pages(folder: str, written: Sequence[str]) -> list[str]:
    """Return the review pages beside those just written: a batch may have had more parts before."""
    if not any(path.endswith(".html") for path in written):
        return []
    if storage.is_local(folder):
        # Not by a pattern of storage: --out may have characters that mean something in one.
        pages = sorted(map(str, Path(folder).glob("review*.html")))
    else:
        pages = [found.path for found in storage.match(storage.join(folder, "review*.html"))]
    names = {os.path.basename(path) for path in written}
    return [path for path in pages if os.path.basename(path) not in names]


def _write(
    workspace: Workspace, batch: Batch, options: ExportOptions
) -> tuple[list[str], list[str]]:
    """Return what was written, and older pages that lie beside it."""
    # Never under one name: whoever sends "the page" must not send the model's labels unawares.
    name = options.tool + ("-with-predictions" if options.show_predictions else "")
    folder = options.out or workspace.path(f"exports/round-{batch.round:04d}/{name}")
    if storage.is_local(folder) and os.path.isfile(folder):
        raise UsageError(f"--out {folder}: is a file; name a folder")
    files = EXPORTERS[options.tool](batch)
    sheet = storage.join(folder, SHEET)
    filled = SHEET in files and storage.exists(sheet) and storage.read(sheet) != files[SHEET]
    if filled and not options.force:
        raise UsageError(
            f"{sheet}: is there and differs, so somebody may have filled it in; import it first, give "
            "--out another folder, or --force to replace it"
        )
    paths = []
    for name, data in files.items():
        path = storage.join(folder, name)
        try:
            storage.write(path, data)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from error
        paths.append(path)
    return paths, _left_pages(folder, paths)
