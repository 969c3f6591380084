"""Composition: from verdict files to verdicts in the workspace, split into halves."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.console import metrics
from pipelines.console.progress import step
from pipelines.contracts import Rejected
from pipelines.errors import RunFailed, UsageError, find_run_failed
from pipelines.jobs.mine import DEFAULT_RUNNER
from pipelines.store import blocks, storage
from pipelines.store.facts import ImportEntry, VerdictsFacts
from pipelines.store.workspace import Manifest, Workspace
from pipelines.tools.formats import READERS, detect_format
from pipelines.tools.servers import pull
from pipelines.verdicts.commit import (
    CommitVerdicts,
    commit,
    is_imported,
    verdict_manifests,
)
from pipelines.verdicts.resolve import (
    IMPORTS,
    REJECTED,
    VERDICTS,
    Reading,
    ReadVerdicts,
    VerdictFile,
    describe,
    file_identity,
    resolve,
)
from pipelines.verdicts.rows import (
    MAX_FILE_BYTES,
    Definition,
    RawVerdict,
    decode,
    normalize_expert,
    shown_ads,
    storable,
    task_definition,
)


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """Everything ``scout import`` was told.

    Attributes:
        workspace: folder, local or ``gs://``.
        files: verdict files, local or ``gs://``.
        tool: where the files come from, one of ``pipelines.tools.formats.READERS``, or "" to go by
            each name.
        url: of the tool's server, to fetch answers from beside the files; or "".
        expert: who speaks where a file names nobody at all, or "".
        experts: other names of experts, e.g. a tool's user numbers: name in the file -> name.
    """

    workspace: str
    files: tuple[str, ...] = ()
    tool: str = ""
    url: str = ""
    expert: str = ""
    experts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an import leaves behind.

    Attributes:
        summary: counts and paths, JSON values.
    """

    summary: dict[str, Any]


def ingest(options: IngestOptions, say: Callable[[str], None]) -> Ingested:
    """Import verdict files.

    Args:
        options: see :class:`IngestOptions`.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: a missing file, an unknown tool, a workspace without pairs.
        RunFailed: a file that is no verdict file, or no usable verdict in the new files.
    """
    if not options.files and not options.url:
        raise UsageError("name at least one verdict FILE, or a server with --pull")
    if options.expert and not normalize_expert(options.expert):
        raise UsageError(f"--expert {options.expert!r}: nothing is left of the name")
    workspace = Workspace(options.workspace)
    with step("reading the pairs"):
        definition, shown = task_definition(workspace), shown_ads(workspace)
    if options.url:
        with step(f"fetching answers from {options.tool}"):
            pulled = _pull(workspace, options, definition, say)
        options = replace(options, files=(*options.files, pulled))
    before = verdict_manifests(workspace)
    aliases = _folded(options.experts)
    new: list[VerdictFile] = []
    known: list[VerdictFile] = []
    paths = list(dict.fromkeys(options.files))
    with step("opening verdict files", len(paths)) as advance:
        for order, path in enumerate(paths):
            # The workers read the files again: what they hash is what counts.
            data = _read(path)
            file = VerdictFile(order, path, detect_format(path, data, options.tool))
            identity = file_identity(data, options.expert, aliases)
            if is_imported(identity, before):
                known.append(file)
            else:
                _refuse_renamed(file, data, before)
                new.append(file)
            advance()
    for file in known:
        say(
            f"{file.path}: imported before; nothing to do (its verdicts do not overrule later ones; "
            "to make one count again, send it in a new file)"
        )
    if not new:
        return Ingested(_summary(workspace, definition, [], before, known))
    workspace.check_writable()
    reading = Reading(shown, definition.labels, options.expert, aliases)
    metrics.reset()
    pipeline = beam.Pipeline(options=PipelineOptions([f"--runner={DEFAULT_RUNNER}"]))
    read = (
        pipeline
        | "VerdictFiles" >> beam.Create(new, reshuffle=False)
        | "ReadVerdicts" >> ReadVerdicts(reading)
    )
    _ = (read[VERDICTS], read[REJECTED], read[IMPORTS]) | "CommitVerdicts" >> CommitVerdicts(
        workspace.root, shown, definition
    )
    try:
        with metrics.shown():
            pipeline.run().wait_until_finish()
    except Exception as error:
        if "KeyboardInterrupt" in str(error):
            # Beam wraps what it finds in a step, Ctrl-C too.
            raise KeyboardInterrupt from error
        message = find_run_failed(error)
        if message is None:
            raise
        raise RunFailed(message) from error
    after = verdict_manifests(workspace)
    written = [
        manifest
        for number, manifest in sorted(after.items())
        if number not in before or manifest.attempt != before[number].attempt
    ]
    ingested = Ingested(_summary(workspace, definition, written, before, known))
    for line in _lines(ingested.summary):
        say(line)
    return ingested


def ingest_verdicts(
    workspace: Workspace, rows: Sequence[RawVerdict | Rejected], name: str = "verdicts"
) -> Ingested:
    """Import rows that are in memory already: the same functions, without files or Beam.

    Args:
        workspace: a workspace with mined pairs.
        rows: what the experts said; their ``source`` is replaced by ``name``.
        name: stands for the file. The same rows under the same name change nothing again.

    Raises:
        UsageError, RunFailed: as :func:`ingest` does.
    """
    definition, shown = task_definition(workspace), shown_ads(workspace)
    before = verdict_manifests(workspace)
    rows = [replace(row, source=storable(name)) for row in rows]
    data = json.dumps([name, [asdict(row) for row in rows]], sort_keys=True).encode()
    reading = Reading(shown, definition.labels)
    resolved = resolve(rows, reading)
    record = describe(VerdictFile(0, name, "rows"), data, resolved, reading)
    written = commit(workspace, shown, definition, [record], resolved.verdicts, resolved.rejected)
    known = [] if written else [VerdictFile(0, name, "rows")]
    return Ingested(_summary(workspace, definition, written, before, known))


def read_experts(path: str) -> dict[str, str]:
    """Return the names of a file for ``--experts``: what a tool calls an expert -> name.

    Raises:
        UsageError: it cannot be read, or is no JSON object of names.
    """
    try:
        names = json.loads(decode(_read(path), path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--experts {path}: is no JSON: {error or type(error).__name__}") from None
    except RunFailed as error:
        raise UsageError(f"--experts {error.message}") from None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UsageError(
            f'--experts {path}: must be one JSON object of names, such as {{"3": "anna"}}'
        )
    return names


def _pull(
    workspace: Workspace,
    options: IngestOptions,
    definition: Definition,
    say: Callable[[str], None],
) -> str:
    """Fetch a server's answers into the workspace, as the file that is then imported; -> its path."""
    workspace.check_writable()
    data = pull(options.tool, options.url, definition.task, definition.version, say)
    # Named by content: the same answers are the same file, and an older one is never overwritten.
    path = workspace.path(f"pulled/{options.tool}-{blocks.sha256(data)[:16]}.json")
    storage.write(path, data)
    return path


def _read(path: str) -> bytes:
    """Return a file's bytes.

    Raises:
        UsageError: there is none, it cannot be read, or it is far too large.
    """
    try:
        if storage.is_local(path):
            if os.path.isdir(path):
                raise UsageError(f"{path}: is a folder; name the verdict files in it")
            size = os.path.getsize(path)
        else:
            size = max((item.size_in_bytes for item in storage.match(path)), default=0)
        if size > MAX_FILE_BYTES:
            raise UsageError(
                f"{path}: {size:,} bytes, at most {MAX_FILE_BYTES:,}; import it in parts"
            )
        return storage.read(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _refuse_renamed(
    file: VerdictFile, data: bytes, before: Mapping[int, Manifest[VerdictsFacts]]
) -> None:
    """Refuse a file whose people were imported under other names: they would agree with themselves.

    A file that names nobody is another matter: two experts may well hand in the same answers.
    """
    content = blocks.sha256(data)
    entries = (entry for manifest in before.values() for entry in manifest.facts.imports)
    if not any(entry.content_sha256 == content for entry in entries):
        return
    rows = READERS[file.tool](data, file.path)
    if any(isinstance(row, RawVerdict) and normalize_expert(row.expert) for row in rows):
        raise UsageError(
            f"{file.path}: was imported before, with its experts under other names; once more would "
            "make two experts of each of them (--experts counts at the first import)"
        )


def _folded(names: Mapping[str, str]) -> dict[str, str]:
    folded: dict[str, str] = {}
    for name, expert in names.items():
        alias, target = normalize_expert(name), normalize_expert(expert)
        if not alias or not target:
            raise UsageError(f"expert names: {name!r} stands for {expert!r}; neither may be blank")
        folded[alias] = target
    return folded


def _summary(
    workspace: Workspace,
    definition: Definition,
    written: Sequence[Manifest[VerdictsFacts]],
    before: Mapping[int, Manifest[VerdictsFacts]],
    known: Sequence[VerdictFile],
) -> dict[str, Any]:
    """Return what this import added, from the manifests it wrote, and where the halves stand."""
    entries: list[ImportEntry] = []
    letters: list[str] = []
    for manifest in written:
        earlier = before.get(manifest.round)
        held = {entry.sha256 for entry in earlier.facts.imports} if earlier else set()
        entries += [e for e in manifest.facts.imports if e.sha256 not in held]
        old = set(earlier.facts.dead_letters) if earlier else set()
        letters += [path for path in manifest.facts.dead_letters if path not in old]
    reasons: Counter[str] = Counter()
    for entry in entries:
        reasons.update(entry.reasons)
    now = dict(before) | {manifest.round: manifest for manifest in written}
    keys = [
        manifest.facts.keys
        for number, manifest in sorted(now.items())
        if (pairs := workspace.pairs.latest(number))
        and pairs.facts.origin.task.version == definition.version
    ]
    total = {
        name: sum(getattr(entry, name) for entry in entries)
        for name in ("verdicts", "labels", "rejected", "unanswered", "changed_mind")
    }
    return {
        "task": definition.task,
        "task_version": definition.version,
        "rounds": [manifest.round for manifest in written],
        "files": sorted({entry.name for entry in entries}),
        "imported_before": [file.path for file in known],
        **total,
        "skips": total["verdicts"] - total["labels"],
        "rejected_by_reason": dict(sorted(reasons.items())),
        "experts": sorted({name for entry in entries for name in entry.experts}),
        "fine_tuning_ads": sum(len(found.fine_tuning) for found in keys),
        "evaluation_ads": sum(len(found.evaluation) for found in keys),
        "withheld_ads": sum(len(found.withheld) for found in keys),
        "dead_letters": [workspace.path(path) for path in letters],
    }


def _lines(summary: Mapping[str, Any]) -> list[str]:
    """Return what a person should know of an import."""
    lines = [
        f"{summary['verdicts']:,} verdicts ({summary['skips']:,} skips) of "
        f"{len(summary['experts'])} experts, in rounds "
        f"{', '.join(map(str, summary['rounds'])) or 'none'}"
    ]
    if summary["rejected"]:
        counts = ", ".join(f"{r} {n:,}" for r, n in summary["rejected_by_reason"].items())
        where = ", ".join(summary["dead_letters"])
        lines.append(f"{summary['rejected']:,} rows could not be used: {counts}; see {where}")
    if summary["unanswered"]:
        lines.append(f"{summary['unanswered']:,} ads of the files are not answered yet")
    if summary["changed_mind"]:
        lines.append(
            f"{summary['changed_mind']:,} rows contradict an earlier row of the same expert; the "
            "last one counts"
        )
    lines.append(
        f"with verdicts so far, under version {summary['task_version']} of the policy: "
        f"{summary['fine_tuning_ads']:,} ads for fine-tuning, "
        f"{summary['evaluation_ads']:,} for evaluation, {summary['withheld_ads']:,} withheld"
    )
    return lines
