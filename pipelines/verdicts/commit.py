"""CommitVerdicts: imported verdicts, split into halves, and the manifests that make them count.

An import writes one attempt in every round whose ads it has verdicts on. Its manifest lists the
files of all earlier imports and the new ones; what was written before is neither copied nor, for
the evaluation half, opened. A round's manifest names the files (by hash) that it holds and the
rounds each of them belongs to, so that an import that was killed between two rounds goes on with
the second, and one that was finished changes nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import BlockFile, Rejected, Verdict
from pipelines.errors import RunFailed
from pipelines.numerics import split
from pipelines.numerics.split import EVALUATION, FINE_TUNING, SIDES, WITHHELD, Side
from pipelines.stages.write_rejected import to_lines as rejected_lines
from pipelines.store import files as file_store
from pipelines.store.facts import AnsweredKeys, ImportEntry, VerdictsFacts
from pipelines.store.workspace import Manifest, Workspace, config_hash
from pipelines.text import normalize_text
from pipelines.verdicts.resolve import Import, common_reasons
from pipelines.verdicts.rows import (
    NEGATIVE,
    POSITIVE,
    SKIP,
    Definition,
    Shown,
    files_of,
    to_lines,
)

STAGE = "CommitVerdicts"
COMMITTED = "verdicts"


@dataclass(frozen=True, slots=True)
class _File:
    """One imported file's rows, and the rounds that still lack them."""

    record: Import
    verdicts: tuple[Verdict, ...]
    rejected: tuple[Rejected, ...]
    rounds: tuple[int, ...]
    pending: tuple[int, ...]


def verdict_manifests(workspace: Workspace) -> dict[int, Manifest[VerdictsFacts]]:
    """Return the newest verdicts manifest of every round that has one."""
    return workspace.verdicts.by_round()


def is_imported(sha256: str, manifests: Mapping[int, Manifest[VerdictsFacts]]) -> bool:
    """Tell whether a file was imported before, into all rounds that it has verdicts on."""
    rounds = _recorded_rounds(sha256, manifests)
    return rounds is not None and all(_holds(manifests.get(n), sha256) for n in rounds)


def split_ads(
    shown: Shown, recorded: Mapping[str, str], share: float, seed: int
) -> dict[str, Side]:
    """Put every shown ad on a side.

    Ads hang together when any pairs attempt of any round showed them as a pair, or when their
    texts are nearly the same.

    Args:
        shown: all ads that were put before experts.
        recorded: sides of earlier imports, content key -> side; they stay.
        share: expected share of the evaluation half.
        seed: the task's.
    """
    texts = shown.texts()
    keys = sorted(texts)
    place = {key: i for i, key in enumerate(keys)}
    showings: dict[tuple[str, int], set[int]] = {}
    for ad in shown.ads():
        showings.setdefault((ad.pair_id, ad.order), set()).add(place[ad.key])
    pairs = sorted({tuple(sorted(rows)) for rows in showings.values() if len(rows) == 2})
    near = split.near_duplicates([normalize_text(texts[key]) for key in keys])
    edges = np.concatenate([np.array(pairs, dtype=np.intp).reshape(-1, 2), near])
    # A pairs attempt that somebody deleted takes nothing from what was recorded.
    keys += sorted(set(recorded) - set(texts))
    return split.assign_sides(keys, edges, recorded, share, seed)


def commit(
    workspace: Workspace,
    shown: Shown,
    definition: Definition,
    imports: Sequence[Import],
    verdicts: Iterable[Verdict],
    rejected: Iterable[Rejected],
) -> list[Manifest[VerdictsFacts]]:
    """Write what was imported, round by round.

    Args:
        workspace: where to.
        shown: all ads that were put before experts.
        definition: the task.
        imports: the files that were read, in any order.
        verdicts: all their verdicts, in any order.
        rejected: all their dead letters, in any order.

    Returns:
        the manifests written, in the order of their rounds; none when every file was imported
        before.

    Raises:
        RunFailed: no verdict in any new file, a damaged workspace, or another import meanwhile.
    """
    manifests = verdict_manifests(workspace)
    files = _pending(imports, verdicts, rejected, shown, manifests)
    if not files:
        return []
    touched = sorted({number for file in files for number in file.pending})
    if not touched:
        raise RunFailed(f"no usable verdict: {_why(files)}")
    recorded = _recorded_sides(workspace, manifests)
    sides = {key: Side(side, "") for key, side in recorded.items()}
    unsided = {key for key in shown.round_of if key not in recorded}
    if any(shown.round_of[key] in touched for key in unsided):
        sides = split_ads(shown, recorded, definition.evaluation_share, definition.seed)
    written = []
    for number in touched:
        own = [file for file in files if number in file.pending]
        # A file without any verdict has its dead letters beside those of the other files.
        if number == touched[-1]:
            own += [file for file in files if not file.rounds]
        new_sides = {key: sides[key] for key in unsided if shown.round_of[key] == number}
        before = manifests.get(number)
        manifest = _write_round(workspace, shown, definition, number, before, own, sides, new_sides)
        now = workspace.verdicts.latest(number)
        if (now.attempt if now else "") != (before.attempt if before else ""):
            raise RunFailed(
                f"round {number} has got other verdicts while these were written; import again"
            )
        workspace.commit(manifest)
        written.append(manifest)
    return written


class CommitVerdicts(beam.PTransform):
    """Write the verdicts of an import.

    Input: a tuple of ``PCollection[Verdict]``, ``PCollection[Rejected]`` and
    ``PCollection[Import]``, as :class:`~pipelines.verdicts.resolve.ReadVerdicts` gives them.
    Output: ``PCollection[str]``: the attempts written, relative to the workspace.

    Args:
        root: the workspace.
        shown: all ads that were put before experts.
        definition: the task.
    """

    def __init__(self, root: str, shown: Shown, definition: Definition) -> None:
        super().__init__()
        if not shown.by_pair:
            raise ValueError("CommitVerdicts: no ad was shown, so no verdict can be on one")
        self._commit = _Commit(root, shown, definition)

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[Verdict], beam.PCollection[Rejected], beam.PCollection[Import]
        ],
    ) -> beam.PCollection[str]:
        """Apply the transform."""
        verdicts, rejected, imports = inputs
        return (
            verdicts.pipeline
            | "One" >> beam.Create([None], reshuffle=False)
            | "Commit"
            >> beam.ParDo(
                self._commit,
                verdicts=pvalue.AsList(verdicts),
                rejected=pvalue.AsList(rejected),
                imports=pvalue.AsList(imports),
            )
        )


class _Commit(beam.DoFn):
    def __init__(self, root: str, shown: Shown, definition: Definition) -> None:
        self._root, self._shown, self._definition = root, shown, definition

    def process(
        self,
        _: None,
        verdicts: list[Verdict],
        rejected: list[Rejected],
        imports: list[Import],
    ) -> Iterator[str]:
        with metrics.timed(STAGE):
            written = commit(
                Workspace(self._root), self._shown, self._definition, imports, verdicts, rejected
            )
        for manifest in written:
            yield manifest.attempt


def _pending(
    imports: Sequence[Import],
    verdicts: Iterable[Verdict],
    rejected: Iterable[Rejected],
    shown: Shown,
    manifests: Mapping[int, Manifest[VerdictsFacts]],
) -> list[_File]:
    """Return the files that some round still lacks, in the order of the import."""
    said: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        said.setdefault(verdict.source, []).append(verdict)
    refused: dict[str, list[Rejected]] = {}
    for item in rejected:
        refused.setdefault(item.source, []).append(item)
    files: list[_File] = []
    known: set[str] = set()
    for record in sorted(imports, key=lambda record: record.order):
        if record.sha256 in known or is_imported(record.sha256, manifests):
            continue
        known.add(record.sha256)
        own = sorted(said.get(record.source, []), key=lambda v: (_place(v.position), v.key))
        letters = sorted(refused.get(record.source, []), key=lambda item: _place(item.position))
        rounds = _recorded_rounds(record.sha256, manifests)
        if rounds is None:
            rounds = tuple(sorted({shown.round_of[verdict.key] for verdict in own}))
        pending = tuple(n for n in rounds if not _holds(manifests.get(n), record.sha256))
        files.append(_File(record, tuple(own), tuple(letters), rounds, pending))
    return files


def _write_round(
    workspace: Workspace,
    shown: Shown,
    definition: Definition,
    number: int,
    before: Manifest[VerdictsFacts] | None,
    files: Sequence[_File],
    sides: Mapping[str, Side],
    new_sides: Mapping[str, Side],
) -> Manifest[VerdictsFacts]:
    """Write one round's files, and return the manifest that will make them count."""
    attempt = workspace.new_attempt(number, COMMITTED)
    written: list[BlockFile] = []

    def write(name: str, data: bytes, rows: int) -> str:
        written.append(file_store.write(workspace.root, f"{attempt}/{name}", data, rows))
        return written[-1].path

    if new_sides:
        write("sides.jsonl", _side_lines(new_sides), len(new_sides))
    facts = before.facts if before else _first_facts(workspace, definition, number)
    entries, dead_letters = [*facts.imports], [*facts.dead_letters]
    labelled = {
        FINE_TUNING: set(facts.keys.fine_tuning),
        EVALUATION: set(facts.keys.evaluation),
        WITHHELD: set(facts.keys.withheld),
    }
    # Ads that experts saw and could not tell: they have no label, and asking again gives none.
    skipped = set(facts.keys.skipped)
    experts = set(facts.experts)
    for file in files:
        own = [verdict for verdict in file.verdicts if shown.round_of[verdict.key] == number]
        tag = file.record.sha256[:12]
        for side in SIDES:
            part = [verdict for verdict in own if sides[verdict.key].side == side]
            if part:
                write(f"{side}-{tag}.jsonl", to_lines(part), len(part))
            labelled[side].update(verdict.key for verdict in part if verdict.label != SKIP)
        skipped.update(verdict.key for verdict in own if verdict.label == SKIP)
        # What belongs to the file as a whole is kept once, with its last round.
        last = number == max(file.rounds, default=number)
        letters = file.rejected if last else ()
        if letters:
            path = write(f"rejected-{tag}.jsonl", rejected_lines(letters), len(letters))
            dead_letters.append(path)
        experts.update(verdict.expert for verdict in own)
        entries.append(
            ImportEntry(
                name=file.record.name,
                sha256=file.record.sha256,
                content_sha256=file.record.content,
                tool=file.record.tool,
                rounds=file.rounds or (number,),
                verdicts=len(own),
                labels=sum(verdict.label in (POSITIVE, NEGATIVE) for verdict in own),
                rejected=len(letters),
                reasons=dict(sorted(Counter(item.reason for item in letters).items())),
                unanswered=file.record.unanswered if last else 0,
                changed_mind=file.record.changed_mind if last else 0,
                experts=tuple(sorted({verdict.expert for verdict in own})),
                ads=len({verdict.key for verdict in own}),
            )
        )
    all_files = (*(before.files if before else ()), *written)
    return Manifest.of(
        attempt,
        config_hash({"imports": sorted(entry.sha256 for entry in entries)}),
        all_files,
        sum(file.rows for file in all_files),
        replace(
            facts,
            imports=tuple(entries),
            keys=AnsweredKeys(
                fine_tuning=tuple(sorted(labelled[FINE_TUNING])),
                evaluation=tuple(sorted(labelled[EVALUATION])),
                withheld=tuple(sorted(labelled[WITHHELD])),
                skipped=tuple(sorted(skipped.difference(*labelled.values()))),
            ),
            experts=tuple(sorted(experts)),
            dead_letters=tuple(dead_letters),
        ),
    )


def _first_facts(workspace: Workspace, definition: Definition, number: int) -> VerdictsFacts:
    """Return the facts of a round before its first import."""
    pairs = workspace.pairs.latest(number)
    return VerdictsFacts(
        task_name=definition.task,
        task_version=pairs.facts.origin.task.version if pairs else None,
        evaluation_share=definition.evaluation_share,
        seed=definition.seed,
    )


def _recorded_sides(
    workspace: Workspace, manifests: Mapping[int, Manifest[VerdictsFacts]]
) -> dict[str, str]:
    sides: dict[str, str] = {}
    for manifest in manifests.values():
        for file in files_of(manifest, "sides"):
            for line in file_store.read(workspace.root, file).splitlines():
                fields = json.loads(line)
                sides[fields["key"]] = fields["side"]
    return sides


def _recorded_rounds(
    sha256: str, manifests: Mapping[int, Manifest[VerdictsFacts]]
) -> tuple[int, ...] | None:
    for manifest in manifests.values():
        for entry in manifest.facts.imports:
            if entry.sha256 == sha256:
                return entry.rounds
    return None


def _holds(manifest: Manifest[VerdictsFacts] | None, sha256: str) -> bool:
    return manifest is not None and any(entry.sha256 == sha256 for entry in manifest.facts.imports)


def _side_lines(sides: Mapping[str, Side]) -> bytes:
    lines = (
        json.dumps({"key": key, "side": side.side, "component": side.component})
        for key, side in sorted(sides.items())
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _place(position: str) -> int:
    found = re.search(r"\d+", position)
    return int(found[0]) if found else 0


def _why(files: Sequence[_File]) -> str:
    letters = [item for file in files for item in file.rejected]
    empty = sum(file.record.unanswered for file in files)
    parts = [common_reasons(letters)] if letters else []
    if empty:
        parts.append(f"unanswered {empty:,}")
    if not parts:
        parts = ["the files hold no rows: " + ", ".join(file.record.name for file in files)]
    return "; ".join(parts)
