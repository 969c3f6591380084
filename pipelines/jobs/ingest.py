"""From verdict files, servers' answers or rows in memory to verdicts in the workspace, in halves.

One path for all of them, each file read once: bytes, rows (by the reader of its tool), verdicts on
shown ads, and the manifests that make them count.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from pipelines.config import Task
from pipelines.console.progress import step
from pipelines.contracts import BlockFile, Rejected, first_examples
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.labels import fine_tuning_labels, write_ties
from pipelines.jobs.results import Ingested
from pipelines.sources.decoding import encoding_of, packing_of
from pipelines.store import files, storage
from pipelines.store.facts import ImportEntry, VerdictsFacts
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import storable
from pipelines.tools import registry
from pipelines.verdicts.balance import balance
from pipelines.verdicts.commit_imports import (
    Import,
    answered_before,
    commit,
    describe,
    entries_of,
    file_identity,
    imported_again,
    is_imported,
    settle,
)
from pipelines.verdicts.contradictions import (
    ASK,
    BY_FLAG,
    BY_TIME,
    LATER,
    REPLACE,
    Contradiction,
    OnConflict,
    Words,
    forgotten,
    listing,
    remembered,
)
from pipelines.verdicts.ids import NumericIds
from pipelines.verdicts.resolve_rows import Reading, common_reasons
from pipelines.verdicts.rows import (
    MAX_FILE_BYTES,
    MAX_UNREADABLE,
    RawRows,
    RawVerdict,
    decode,
    normalize_expert,
)
from pipelines.verdicts.shown import Shown, shown_ads

# What Prodigy calls people who opened no session of their own.
_SESSION = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$")


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """Everything ``scout import`` was told; see ``pipelines.api.import_verdicts``.

    Attributes:
        url: of the tool's server, to fetch answers from beside the files; or "".
        experts: other names of experts, e.g. a tool's user numbers: name in the file -> name.
        on_conflict: which word counts where an expert contradicts an earlier import and no times tell.
    """

    workspace: str
    files: tuple[str, ...] = ()
    tool: str = ""
    url: str = ""
    expert: str = ""
    experts: Mapping[str, str] = field(default_factory=dict)
    on_conflict: OnConflict = ASK


@dataclass(frozen=True, slots=True)
class _Source:
    """What is imported as one file.

    Attributes:
        path: as its verdicts name it.
        tool: its format.
        data: bytes that make it the same import another time.
        rows: gives its rows; not asked where it was imported before.
    """

    path: str
    tool: str
    data: bytes
    rows: Callable[[], RawRows]


def ingest(options: IngestOptions, say: Callable[[str], None]) -> Ingested:
    """Import verdict files.

    Args:
        options: see :class:`IngestOptions`.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: a missing file, an unknown tool, a workspace without pairs, or contradictions with
            earlier imports that no time decides.
        RunFailed: a file that is no verdict file, or no usable verdict in the new files.
    """
    if not options.files and not options.url:
        raise UsageError("name at least one verdict FILE, or a server with --pull")
    if options.expert and not normalize_expert(options.expert):
        raise UsageError(f"--expert {options.expert!r}: nothing is left of the name")
    workspace = Workspace(options.workspace)
    workspace.pairs_of()
    with workspace.writing("import", say):
        with step("reading the pairs"):
            task, shown = workspace.pairs_of().facts.origin.task, shown_ads(workspace)
        reading = Reading(shown, options.expert, _folded(options.experts))
        paths = dict.fromkeys(options.files)
        if options.url:
            with step(f"fetching answers from {options.tool}"):
                paths[_pull(workspace, options, task, say)] = None
        sources = (_open(path, options.tool, say) for path in paths)
        return _import(workspace, task, reading, sources, len(paths), options.on_conflict, say)


def ingest_verdicts(
    workspace: Workspace,
    rows: Sequence[RawVerdict | Rejected],
    name: str = "verdicts",
    on_conflict: OnConflict = ASK,
) -> Ingested:
    """Import rows that are in memory already.

    Args:
        workspace: a workspace with mined pairs.
        rows: what the experts said; their ``source`` is replaced by ``name``.
        name: stands for the file. The same rows under the same name change nothing again.
        on_conflict: see :class:`IngestOptions`.

    Raises:
        UsageError, RunFailed: as :func:`ingest` does.
    """
    rows = [replace(row, source=storable(name)) for row in rows]
    data = json.dumps([name, [asdict(row) for row in rows]], sort_keys=True).encode()
    source = _Source(name, "rows", data, lambda: rows)
    workspace.pairs_of()
    with workspace.writing("import", lambda _: None):
        task, reading = workspace.pairs_of().facts.origin.task, Reading(shown_ads(workspace))
        return _import(workspace, task, reading, [source], 1, on_conflict, say=lambda _: None)


def _import(
    workspace: Workspace,
    task: Task,
    reading: Reading,
    sources: Iterable[_Source],
    total: int,
    on_conflict: OnConflict,
    say: Callable[[str], None],
) -> Ingested:
    """Import sources, in their order; nothing is written before all of them are understood."""
    before = workspace.verdicts.by_round()
    words = Words(remembered(workspace, before))
    new: list[Import] = []
    # Path -> how it was imported before.
    known: dict[str, str] = {}
    with step("reading verdicts", total) as advance:
        for source in sources:
            advance()
            again = is_imported(file_identity(source.data, reading), before)
            if again and on_conflict != REPLACE:
                known[source.path] = "imported before"
                continue
            rows = _rows(source)
            file = describe(source.path, source.tool, source.data, rows, reading)
            same = answered_before(file.answers, before) or _same_answers(file, new)
            if not again:
                _refuse_renamed(file, source.path, rows, before)
            if same and on_conflict != REPLACE:
                known[source.path] = _told_before(same, file)
                continue
            file = replace(file, sha256=imported_again(file.sha256, before))
            file = settle(file, words, reading.shown, before, on_conflict)
            if (again or same) and not file.contradictions:
                known[source.path] = "imported before" if again else _told_before(same, file)
                continue
            new.append(file)
    for path, told in known.items():
        say(
            f"{path}: {told}; nothing to do (its verdicts do not overrule later ones; --on_conflict "
            "replace makes them count again)"
        )
    found = [each for file in new for each in file.contradictions]
    _ask_about(workspace, task, reading.shown, found)
    if old := forgotten(before):
        say(
            f"verdicts in {old} rounds were imported by an earlier version of scout, which did not "
            "remember what was said: contradictions with those are not seen"
        )
    for line in _doubtful_people(new, before):
        say(line)
    if not new:
        return _outcome(workspace, task, [], before, list(known), found)
    with step("storing verdicts"):
        written = commit(workspace, reading.shown, task, new)
    ingested = _outcome(workspace, task, written, before, list(known), found)
    for line in _lines(ingested):
        say(line)
    warnings, ties = _looked_at(workspace, task, reading.shown, say)
    return replace(ingested, warnings=warnings, ties=ties)


def _rows(source: _Source) -> list[RawVerdict | Rejected]:
    """Return a source's rows.

    Raises:
        RunFailed: so few of many can be read that the file is not what it is taken for; a few packed bytes
            can hold a million lines.
    """
    rows: list[RawVerdict | Rejected] = []
    unreadable: list[Rejected] = []
    for row in source.rows():
        rows.append(row)
        if isinstance(row, Rejected):
            unreadable.append(row)
            if len(unreadable) > max(MAX_UNREADABLE, len(rows) // 2):
                first = unreadable[0]
                raise RunFailed(
                    f"{source.path}: {len(unreadable):,} of its first {len(rows):,} rows cannot be read as "
                    f"{source.tool} (the first: {first.position}: {first.detail}); nothing of it was imported. "
                    "Give --tool if it is of another one"
                )
    return rows


def _looked_at(
    workspace: Workspace, task: Task, shown: Shown, say: Callable[[str], None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tell what is wrong with the halves, and write down the ties of the fine-tuning half; -> both.

    What was imported counts already, so that nothing found here may end the import.
    """
    tied: tuple[str, ...] = ()
    try:
        with step("looking at the halves"):
            warnings = balance(workspace, task, shown).warnings()
            tied = fine_tuning_labels(workspace, task, shown.texts()).tied
    except RunFailed as error:
        warnings = (f"the labels so far cannot be counted: {error.message}",)
    except UsageError as error:
        warnings = (f"the labels so far cannot be counted: {error}",)
    for line in warnings:
        say(line)
    return warnings, write_ties(workspace, task, shown, tied, say)


def _same_answers(file: Import, others: Sequence[Import]) -> str:
    """Return the name of a file of this import with the same answers, "" for none."""
    same = (other.name for other in others if file.answers and other.answers == file.answers)
    return next(same, "")


def _told_before(name: str, file: Import) -> str:
    """Say of a file that an earlier one answers the same."""
    bad = file.resolved.rejected
    unusable = f", and {len(bad):,} rows that cannot be used: {common_reasons(bad)}" if bad else ""
    return f"the answers of {name}{unusable}"


def _ask_about(
    workspace: Workspace, task: Task, shown: Shown, found: Sequence[Contradiction]
) -> None:
    """Refuse contradictions with other imports that nothing decides, and list them.

    Raises:
        UsageError: there are some.
    """
    open_ = [each for each in found if not each.counts]
    if not open_:
        return
    names = {"positive": task.labels.positive, "negative": task.labels.negative}
    data = listing(found, shown.texts(), names)
    # Named by content, as pulled answers are; it counts for nothing and may be deleted.
    path = workspace.path(f"contradictions/{files.sha256(data)[:16]}.csv")
    storage.write(path, data)
    repeated = sum(each.said_before for each in open_)
    old = (
        f", and {repeated:,} only repeat what was overruled since, as an old copy of a file does"
        if repeated
        else ""
    )
    experts = ", ".join(sorted({each.later.expert for each in open_})[:5])
    raise UsageError(
        f"--on_conflict: {len(open_):,} verdicts of {experts} contradict what the same experts said in "
        f"other imports, and no times tell which came later{old}; nothing was imported. {path} lists "
        "them: give --on_conflict keep for what was imported first to count, --on_conflict replace for "
        "these"
    )


def _doubtful_people(
    new: Sequence[Import], before: Mapping[int, Manifest[VerdictsFacts]]
) -> list[str]:
    """Return what to say of experts who may be one person under several names."""
    added = {verdict.expert for file in new for verdict in file.resolved.verdicts}
    names = added.union(*(manifest.facts.experts for manifest in before.values()))
    numbers = NumericIds(names)
    close = {name: [other for other in numbers.behind(name) if other != name] for name in names}
    lines = [
        f"experts {name} and {', '.join(others)}: one rounding apart, so perhaps one person, whose number "
        "lost its last digits (--experts gives both one name, at the first import)"
        for name, others in sorted(close.items())
        if others and added & {name, *others}
    ]
    sessions = sorted(name for name in added if _SESSION.search(name))
    if sessions:
        lines.append(
            f"experts {', '.join(sessions[:5])}: named after the time at which they began, as Prodigy does "
            "without a session's name; who began twice is two people (--experts gives both one name)"
        )
    return lines


def _open(path: str, tool: str, say: Callable[[str], None]) -> _Source:
    data = _read(path)
    reader = registry.reader_of(path, data, tool)
    encoding = encoding_of(data)
    if encoding and encoding.guessed and not packing_of(data) and not data.startswith(b"PK"):
        say(
            f"{path}: read as {encoding.name}, as it looks; if names or comments come out wrong, save it "
            "as UTF-8 (in a spreadsheet: 'CSV UTF-8') and import that instead"
        )
    return _Source(path, reader.name, data, lambda: reader.read(data, path))


def read_experts(path: str) -> dict[str, str]:
    """Return the names of a file for ``--experts``: what a tool calls an expert -> name.

    Raises:
        UsageError: it cannot be read, or is no JSON object of names.
    """
    try:
        names = json.loads(decode(_read(path), path))
    except UsageError as error:
        raise UsageError(f"--experts {error}") from None
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
    task: Task,
    say: Callable[[str], None],
) -> str:
    """Fetch a server's answers into the workspace, as the file that is then imported; -> its path."""
    tool = registry.get_served(options.tool, "--pull")
    with tool.connect(options.url) as server:
        data = server.pull(task.name, task.version, say)
    # Named by content: the same answers are the same file, and an older one is never overwritten.
    path = workspace.path(f"pulled/{options.tool}-{files.sha256(data)[:16]}.json")
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
    file: Import, path: str, rows: RawRows, before: Mapping[int, Manifest[VerdictsFacts]]
) -> None:
    """Refuse a file whose people were imported under other names: they would agree with themselves.

    A file that names nobody is another matter: two experts may well hand in the same answers.
    """
    entries = (entry for manifest in before.values() for entry in entries_of(manifest))
    if all(e.content_sha256 != file.content or e.sha256 == file.sha256 for e in entries):
        return
    if any(isinstance(row, RawVerdict) and normalize_expert(row.expert) for row in rows):
        raise UsageError(
            f"{path}: was imported before, with its experts under other names; once more would "
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


def _outcome(
    workspace: Workspace,
    task: Task,
    written: Sequence[Manifest[VerdictsFacts]],
    before: Mapping[int, Manifest[VerdictsFacts]],
    known: Sequence[str],
    found: Sequence[Contradiction],
) -> Ingested:
    """Return what this import added, from the manifests it wrote, and where the halves stand."""
    entries: list[ImportEntry] = []
    letters: list[BlockFile] = []
    listed: list[str] = []
    for manifest in written:
        earlier = before.get(manifest.round)
        held = {entry.sha256 for entry in entries_of(earlier)}
        entries += [entry for entry in entries_of(manifest) if entry.sha256 not in held]
        old = set(earlier.facts.dead_letters) if earlier else set()
        new = {*manifest.facts.dead_letters} - old
        letters += [file for file in manifest.files if file.path in new]
        old = set(earlier.facts.contradictions) if earlier else set()
        listed += [path for path in manifest.facts.contradictions if path not in old]
    decided = Counter(_decision(each) for each in found if not each.within)
    reasons: Counter[str] = Counter()
    for entry in entries:
        reasons.update(entry.reasons)
    now = dict(before) | {manifest.round: manifest for manifest in written}
    keys = [
        manifest.facts.keys
        for number, manifest in sorted(now.items())
        if (pairs := workspace.pairs.latest(number))
        and pairs.facts.origin.task.version == task.version
    ]
    total = {
        name: sum(getattr(entry, name) for entry in entries)
        for name in ("verdicts", "labels", "rejected", "unanswered", "changed_mind")
    }
    return Ingested(
        task=task.name,
        task_version=task.version,
        rounds=tuple(manifest.round for manifest in written),
        files=tuple(sorted({entry.name for entry in entries})),
        imported_before=tuple(known),
        **total,
        skips=total["verdicts"] - total["labels"],
        rejected_by_reason=dict(sorted(reasons.items())),
        experts=tuple(sorted({name for entry in entries for name in entry.experts})),
        fine_tuning_ads=sum(len(found.fine_tuning) for found in keys),
        evaluation_ads=sum(len(found.evaluation) for found in keys),
        withheld_ads=sum(len(found.withheld) for found in keys),
        audit_ads=sum(len(found.audit) for found in keys),
        dead_letters=tuple(workspace.path(file.path) for file in letters),
        contradictions=sum(decided.values()),
        contradictions_by_decision=dict(sorted(decided.items())),
        contradiction_lists=tuple(workspace.path(path) for path in listed),
        rejected_examples=first_examples(_letters(workspace, letters)),
    )


def _letters(workspace: Workspace, letters: Iterable[BlockFile]) -> Iterator[Rejected]:
    for file in letters:
        for line in files.read(workspace.root, file).splitlines():
            yield Rejected(**json.loads(line))


def _decision(found: Contradiction) -> str:
    """Return how a contradiction was decided, for a count."""
    if found.decided_by == BY_FLAG:
        return "replaced" if found.counts == LATER else "kept"
    return f"{found.counts} by {'time' if found.decided_by == BY_TIME else 'pull'}"


def _lines(found: Ingested) -> list[str]:
    """Return what a person should know of an import."""
    lines = [
        f"{found.verdicts:,} verdicts ({found.skips:,} skips) of "
        f"{len(found.experts)} experts, in rounds "
        f"{', '.join(map(str, found.rounds)) or 'none'}"
    ]
    if found.rejected:
        counts = "; ".join(
            f"{reason} {number:,} (first {found.rejected_examples[reason]})"
            for reason, number in found.rejected_by_reason.items()
        )
        where = ", ".join(found.dead_letters)
        lines.append(f"{found.rejected:,} rows could not be used: {counts}; see {where}")
    if found.unanswered:
        lines.append(f"{found.unanswered:,} ads of the files are not answered yet")
    if found.changed_mind:
        lines.append(
            f"{found.changed_mind:,} rows contradict an earlier row of the same expert; the "
            "last one counts"
        )
    if found.contradictions:
        counts = ", ".join(f"{d} {n:,}" for d, n in found.contradictions_by_decision.items())
        lines.append(
            f"{found.contradictions:,} verdicts contradict what the same experts said in other imports: "
            f"{counts}; see {', '.join(found.contradiction_lists)}"
        )
    lines.append(
        f"with verdicts so far, under version {found.task_version} of the policy: "
        f"{found.fine_tuning_ads:,} ads for fine-tuning, "
        f"{found.evaluation_ads:,} for evaluation, {found.withheld_ads:,} withheld"
        + (f"; {found.audit_ads:,} of audits" if found.audit_ads else "")
    )
    return lines
