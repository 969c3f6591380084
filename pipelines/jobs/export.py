"""Composition: a round's review items as files for a labeling tool, or into its server."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.console.progress import step
from pipelines.console.typed import typed
from pipelines.errors import UsageError
from pipelines.jobs.results import Exported
from pipelines.store import storage
from pipelines.store.workspace import Workspace
from pipelines.tools import registry
from pipelines.tools.base import Tool
from pipelines.tools.batch import Batch, read_batch


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Everything ``scout export`` was told; see ``pipelines.api.export``.

    Attributes:
        out: folder for the files; "" for one in the workspace.
        url: of the tool's server, to put the items there instead of into files; or "".
        audit: whether to take the ads that an audit drew instead of the round's items.
    """

    workspace: str
    tool: str
    out: str = ""
    round: int | None = None
    show_predictions: bool = False
    force: bool = False
    url: str = ""
    audit: bool = False


def export(options: ExportOptions, say: Callable[[str], None]) -> Exported:
    """Write a round's items for a tool. The same items are the same bytes.

    Older files give way, but for those that somebody wrote in.

    Args:
        options: see :class:`ExportOptions`.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: no items, an unknown round, what the tool cannot show, a folder that cannot be
            written, a server that cannot be reached or does not let us in.
        RunFailed: an earlier version wrote the workspace.
    """
    if options.url and options.out:
        raise UsageError("--push and --out: give one of them, the pairs go to a server or to files")
    tool = (
        registry.get_served(options.tool, "--push") if options.url else registry.get(options.tool)
    )
    if options.show_predictions and not tool.shows_predictions:
        raise UsageError(
            f"--show_predictions: --tool {tool.name} has no place for what the model thinks; choose "
            "another --tool, or leave it out"
        )
    if options.show_predictions and options.audit:
        raise UsageError(
            "--show_predictions: an audit is blind, or it would measure the model's hint"
        )
    workspace = Workspace(options.workspace)
    with step("reading the review items"):
        batch = read_batch(workspace, options.round, options.show_predictions, options.audit)
    if options.show_predictions:
        say(
            "experts will see what the model says, and people who see that tend to agree with it; "
            "Label Studio even ticks its labels, so that a mere Submit accepts them"
        )
    if workspace.verdicts.latest(batch.round):
        say(f"round {batch.round} has verdicts already; {batch.noun}s that were answered go along")
    summary: dict[str, Any] = {
        "task": batch.task,
        "task_version": batch.task_version,
        "round": batch.round,
        "tool": tool.name,
        "items": len(batch.items),
        "counted": batch.counted(len(batch.items)),
        "experts_per_ad": batch.experts_per_ad,
        "blind": not options.show_predictions,
        "files": [],
        "pushed": [],
        "next_step": tool.next_step(workspace.root),
    }
    if options.url:
        with step(f"pushing to {tool.name}"), tool.connect(options.url) as server:
            summary["pushed"] = [asdict(pushed) for pushed in server.push(batch, say)]
        summary["next_step"] = typed(
            "import --tool {} --pull {}", tool.name, options.url, workspace=workspace.root
        )
    else:
        with step(f"writing {summary['counted']}"):
            summary["files"], left = _write(workspace, tool, batch, options)
        for path in left:
            say(
                f"{path}: left by an earlier export, whose {batch.noun}s may have been others; delete "
                "it, lest somebody labels it"
            )
    return Exported(**summary)


def _write(
    workspace: Workspace, tool: Tool, batch: Batch, options: ExportOptions
) -> tuple[list[str], list[str]]:
    """Return what was written, and files of earlier exports that lie beside it."""
    # Never under one name: whoever sends "the page" must not send the model's labels unawares.
    name = tool.name + ("-with-predictions" if options.show_predictions else "")
    kind = "audit" if options.audit else "round"
    folder = options.out or workspace.path(f"exports/{kind}-{batch.round:04d}/{name}")
    if storage.is_local(folder) and os.path.isfile(folder):
        raise UsageError(f"--out {folder}: is a file; name a folder")
    files = {storage.join(folder, name): data for name, data in tool.export(batch).items()}
    for name in tool.filled_in:
        path = storage.join(folder, name)
        filled = path in files and storage.exists(path) and storage.read(path) != files[path]
        if filled and not options.force:
            raise UsageError(
                f"{path}: is there and differs, so somebody may have filled it in; import it first, "
                "give --out another folder, or --force to replace it"
            )
    if storage.is_local(folder):
        storage.sweep(folder)
    for path, data in files.items():
        try:
            storage.write(path, data)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from error
    return list(files), _left(folder, tool.files, list(files))


def _left(folder: str, patterns: Sequence[str], written: Sequence[str]) -> list[str]:
    """Return a tool's files beside those just written: a batch may have had more of them before."""
    if storage.is_local(folder):
        # Not by a pattern of storage: --out may have characters that mean something in one.
        found = sorted(map(str, Path(folder).iterdir()))
    else:
        found = [item.path for item in storage.match(storage.join(folder, "*"))]
    names = {os.path.basename(path) for path in written}
    return [
        path
        for path in found
        if (name := os.path.basename(path)) not in names
        and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]
