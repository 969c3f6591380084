"""Imported verdicts, split into halves, and the manifests that make them count.

An import writes one attempt in every round whose ads it has verdicts on. Its manifest lists the
files of all earlier imports and the new ones; what was written before is neither copied nor, for
the evaluation half, opened. A round's manifest names the files (by hash) that it holds and the
rounds each of them belongs to, so that an import that was killed between two rounds goes on with
the second, and one that was finished changes nothing.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from pipelines.config import Task
from pipelines.contracts import BlockFile, Verdict
from pipelines.errors import RunFailed
from pipelines.numerics import split
from pipelines.numerics.families import near_duplicates
from pipelines.numerics.split import AUDIT, EVALUATION, FINE_TUNING, SIDES, WITHHELD, Side
from pipelines.store import files
from pipelines.store.facts import AnsweredKeys, ImportEntry, VerdictsFacts
from pipelines.store.workspace import Manifest, Workspace, config_hash
from pipelines.text import normalize_text, storable
from pipelines.verdicts.contradictions import (
    SAID,
    Contradiction,
    OnConflict,
    Said,
    Words,
    answers_of,
    listing,
)
from pipelines.verdicts.halves import files_of
from pipelines.verdicts.resolve_rows import Reading, Resolved, common_reasons, resolve
from pipelines.verdicts.rows import POSITIVE, SKIP, RawRows
from pipelines.verdicts.shown import Shown

COMMITTED = "verdicts"


@dataclass(frozen=True, slots=True)
class Import:
    """A file that was read, ready to be stored.

    Attributes:
        name: file name without its folder.
        tool: its format.
        sha256: of its bytes and of who was said to speak in it (:func:`file_identity`), 64 hex
            characters: what makes it the same import.
        content: SHA-256 of its bytes alone.
        resolved: its rows, understood or refused.
        answers: hash of what it answers, however it was saved.
        contradictions: of its verdicts and earlier ones of the same experts, once they are settled;
            verdicts that do not count by them are no longer among those of ``resolved``.
    """

    name: str
    tool: str
    sha256: str
    content: str
    resolved: Resolved
    answers: str = ""
    contradictions: tuple[Contradiction, ...] = ()

    @property
    def keys(self) -> set[str]:
        """Content keys of the ads that it speaks of."""
        left_out = {found.later.key for found in self.contradictions}
        return {verdict.key for verdict in self.resolved.verdicts} | left_out


@dataclass(frozen=True, slots=True)
class _Pending:
    """An import, the rounds that it has verdicts on, and those of them that still lack it."""

    file: Import
    rounds: tuple[int, ...]
    lacking: tuple[int, ...]


def file_identity(data: bytes, reading: Reading) -> str:
    """Return what makes two imports of a file the same: its bytes, and the names given for it.

    Two experts may well hand in the same bytes; and a file that named nobody is another import
    once somebody says whose it is.
    """
    plain = files.sha256(data)
    if not reading.expert and not reading.experts:
        return plain
    named = json.dumps([plain, reading.expert, sorted(reading.experts.items())])
    return files.sha256(named.encode())


def describe(path: str, tool: str, data: bytes, rows: RawRows, reading: Reading) -> Import:
    """Understand the rows of a file, and return it ready to be stored."""
    resolved = resolve(rows, reading)
    return Import(
        name=posixpath.basename(storable(path.replace("\\", "/"))),
        tool=tool,
        sha256=file_identity(data, reading),
        content=files.sha256(data),
        resolved=resolved,
        answers=answers_of(resolved.verdicts),
    )


def settle(
    file: Import,
    words: Words,
    shown: Shown,
    manifests: Mapping[int, Manifest[VerdictsFacts]],
    on_conflict: OnConflict,
) -> Import:
    """Return a file with what contradicts earlier imports, and without what does not count for that.

    Args:
        file: as :func:`describe` returns it.
        words: what was said so far; the file's are added.
        shown: all ads that were put before experts.
        manifests: of the rounds; what those hold of the file already, before a kill, was settled then.
        on_conflict: see :class:`pipelines.verdicts.contradictions.Words`.
    """
    holding = {n for n, manifest in manifests.items() if _holds(manifest, file.sha256)}
    verdicts = file.resolved.verdicts
    done = [verdict for verdict in verdicts if shown.round_of[verdict.key] in holding]
    rest = [verdict for verdict in verdicts if shown.round_of[verdict.key] not in holding]
    kept, found = words.settle(rest, on_conflict)
    resolved = replace(file.resolved, verdicts=(*done, *kept))
    return replace(file, resolved=resolved, contradictions=tuple(found))


def imported_again(sha256: str, manifests: Mapping[int, Manifest[VerdictsFacts]]) -> str:
    """Return what makes a file an import of its own that was imported before, every time it is."""
    again = sha256
    while is_imported(again, manifests):
        again = files.sha256(f"{again} again".encode())
    return again


def answered_before(answers: str, manifests: Mapping[int, Manifest[VerdictsFacts]]) -> str:
    """Return the name of an earlier file with the same answers, however it was saved; "" for none."""
    entries = (entry for manifest in manifests.values() for entry in entries_of(manifest))
    found = (e for e in entries if answers and e.answers_sha256 == answers)
    return next((e.name for e in found if is_imported(e.sha256, manifests)), "")


def entries_of(manifest: Manifest[VerdictsFacts] | None) -> tuple[ImportEntry, ...]:
    """Return what a round's manifest says of each file that was imported into it."""
    return manifest.facts.imports if manifest else ()


def is_imported(sha256: str, manifests: Mapping[int, Manifest[VerdictsFacts]]) -> bool:
    """Tell whether a file was imported before, into all rounds that it has verdicts on."""
    rounds = _recorded_rounds(sha256, manifests)
    return rounds is not None and all(_holds(manifests.get(n), sha256) for n in rounds)


def split_ads(
    shown: Shown,
    new: Collection[str],
    recorded: Mapping[str, str],
    counted: Collection[str],
    share: float,
    seed: int,
    said: Mapping[str, bool],
    positives: Mapping[str, int],
) -> dict[str, Side]:
    """Put ads on a side, beside those that have one.

    Ads whose texts are nearly the same hang together. Those that an audit drew stand apart: they
    neither train nor evaluate, whatever they are like, for a sample without them would no longer be
    one of the corpus.

    Args:
        shown: all ads that were put before experts.
        new: content keys of ads without a side.
        recorded: sides of earlier imports, content key -> side; they stay.
        counted: keys of ``recorded`` with a label, by which the halves are balanced.
        share: wanted share of the evaluation half.
        seed: the task's.
        said: of new ads, whether experts call them positive; of others the model's word stands for it.
        positives: half -> how many of ``counted`` on it experts called positive.

    Returns:
        the sides of the new ads.
    """
    ads = {ad.key: ad for ad in shown.ads() if ad.key not in shown.audited}
    recorded = {key: side for key, side in recorded.items() if side != AUDIT}
    # A pairs attempt that somebody deleted takes nothing from what was recorded.
    keys = sorted(key for key in {*new, *recorded} if key in ads)
    near = near_duplicates([normalize_text(ads[key].text) for key in keys])
    # A model that is wrong of whole templates would put all that experts call positive on one side.
    kinds = [said.get(key, ads[key].predicted == POSITIVE) for key in keys]
    positive = np.array(kinds, dtype=bool)
    known = {key: recorded[key] for key in keys if key in recorded}
    own = split.Ads(keys, positive, near)
    sides = split.assign_sides(own, known, counted, share, seed, positives)
    return {key: sides.get(key, Side(AUDIT, key)) for key in new}


def commit(
    workspace: Workspace,
    shown: Shown,
    task: Task,
    imports: Sequence[Import],
) -> list[Manifest[VerdictsFacts]]:
    """Write what was imported, round by round.

    Args:
        workspace: where to.
        shown: all ads that were put before experts.
        task: the task.
        imports: the files that were read, in order: of two verdicts without times the later file's
            counts.

    Returns:
        the manifests written, in the order of their rounds; none when every file was imported
        before.

    Raises:
        RunFailed: no verdict in any new file, a damaged workspace, or another import meanwhile.
    """
    manifests = workspace.verdicts.by_round()
    pending = _pending(imports, shown, manifests)
    if not pending:
        return []
    touched = sorted({number for item in pending for number in item.lacking})
    if not touched:
        raise RunFailed(f"no usable verdict: {_why([item.file for item in pending])}")
    sides = _recorded_sides(workspace, manifests)
    written = []
    # Round by round, and what was written is seen by the next: an import that was killed in between
    # goes on with the sides that it would have had.
    for number in touched:
        own = [item for item in pending if number in item.lacking]
        # A file without any verdict has its dead letters beside those of the other files.
        if number == touched[-1]:
            own += [item for item in pending if not item.rounds]
        new = {key for key, first in shown.round_of.items() if first == number} - sides.keys()
        counted = _labelled(task, manifests)
        share, seed = task.review.evaluation_share, task.seed
        said = called_positive(_of_round(own, shown, number))
        positives = _positives(task, shown, manifests)
        new_sides = (
            split_ads(shown, new, sides, counted, share, seed, said, positives) if new else {}
        )
        sides |= {key: side.side for key, side in new_sides.items()}
        before = manifests.get(number)
        manifest = _write_round(workspace, shown, task, number, before, own, sides, new_sides)
        now = workspace.verdicts.latest(number)
        if (now.attempt if now else "") != (before.attempt if before else ""):
            raise RunFailed(
                f"round {number} has got other verdicts while these were written; import again"
            )
        workspace.commit(manifest)
        manifests[number] = manifest
        written.append(manifest)
    return written


def _pending(
    imports: Sequence[Import], shown: Shown, manifests: Mapping[int, Manifest[VerdictsFacts]]
) -> list[_Pending]:
    """Return the files that some round still lacks, in their order; each of equal ones once."""
    found: dict[str, _Pending] = {}
    for file in imports:
        if file.sha256 in found or is_imported(file.sha256, manifests):
            continue
        rounds = _recorded_rounds(file.sha256, manifests)
        if rounds is None:
            rounds = tuple(sorted({shown.round_of[key] for key in file.keys}))
        lacking = tuple(n for n in rounds if not _holds(manifests.get(n), file.sha256))
        found[file.sha256] = _Pending(file, rounds, lacking)
    return list(found.values())


def _write_round(
    workspace: Workspace,
    shown: Shown,
    task: Task,
    number: int,
    before: Manifest[VerdictsFacts] | None,
    pending: Sequence[_Pending],
    sides: Mapping[str, str],
    new_sides: Mapping[str, Side],
) -> Manifest[VerdictsFacts]:
    """Write one round's files, and return the manifest that will make them count."""
    attempt = workspace.new_attempt(number, COMMITTED)
    written: list[BlockFile] = []

    def write(name: str, data: bytes, rows: int) -> str:
        written.append(files.write(workspace.root, f"{attempt}/{name}", data, rows))
        return written[-1].path

    if new_sides:
        lines = ({"key": k, **asdict(side)} for k, side in sorted(new_sides.items()))
        write("sides.jsonl", files.json_lines(lines), len(new_sides))
    facts = before.facts if before else _first_facts(workspace, task, number)
    entries, dead_letters, experts = [*facts.imports], [*facts.dead_letters], {*facts.experts}
    listed = [*facts.contradictions]
    names = {"positive": task.labels.positive, "negative": task.labels.negative}
    labelled = {
        FINE_TUNING: {*facts.keys.fine_tuning},
        EVALUATION: {*facts.keys.evaluation},
        WITHHELD: {*facts.keys.withheld},
    }
    audited = {*facts.keys.audit}
    # What has its first label now: by its kind the halves of later rounds are balanced.
    before_now = set().union(*labelled.values(), audited)
    called = called_positive(_of_round(pending, shown, number))
    positives = Counter(facts.positives)
    positives.update(dict.fromkeys((FINE_TUNING, EVALUATION), 0))
    positives.update(sides[key] for key, yes in called.items() if yes and key not in before_now)
    # Ads that experts saw and could not tell: they have no label, and asking again gives none.
    skipped = {*facts.keys.skipped}
    for item in pending:
        file, resolved = item.file, item.file.resolved
        own = [verdict for verdict in resolved.verdicts if shown.round_of[verdict.key] == number]
        tag = file.sha256[:12]
        for side in (*SIDES, AUDIT):
            part = [verdict for verdict in own if sides[verdict.key] == side]
            if part:
                write(f"{side}-{tag}.jsonl", files.json_lines(part), len(part))
            if side == AUDIT:
                audited.update(verdict.key for verdict in part)
            else:
                labelled[side].update(verdict.key for verdict in part if verdict.label != SKIP)
        if own:
            write(f"{SAID}-{tag}.jsonl", files.json_lines(map(Said.of, own)), len(own))
        found = [each for each in file.contradictions if shown.round_of[each.later.key] == number]
        if found:
            data = listing(found, shown.texts(), names)
            listed.append(write(f"contradictions-{tag}.csv", data, len(found)))
        skipped.update(verdict.key for verdict in own if verdict.label == SKIP)
        # What belongs to the file as a whole is kept once, with its last round.
        last = number == max(item.rounds, default=number)
        letters = resolved.rejected if last else ()
        if letters:
            dead_letters.append(
                write(f"rejected-{tag}.jsonl", files.json_lines(letters), len(letters))
            )
        experts.update(verdict.expert for verdict in own)
        entries.append(
            ImportEntry(
                name=file.name,
                sha256=file.sha256,
                content_sha256=file.content,
                tool=file.tool,
                rounds=item.rounds or (number,),
                verdicts=len(own),
                labels=sum(verdict.label != SKIP for verdict in own),
                rejected=len(letters),
                reasons=dict(sorted(Counter(letter.reason for letter in letters).items())),
                unanswered=resolved.unanswered if last else 0,
                changed_mind=resolved.changed_mind if last else 0,
                experts=tuple(sorted({verdict.expert for verdict in own})),
                ads=len({verdict.key for verdict in own}),
                audit=sum(sides[verdict.key] == AUDIT for verdict in own),
                answers_sha256=file.answers,
                contradictions=sum(not each.within for each in found),
                left_out=sum(each.is_left_out for each in found),
            )
        )
    facts = replace(
        facts,
        imports=tuple(entries),
        keys=AnsweredKeys(
            fine_tuning=tuple(sorted(labelled[FINE_TUNING])),
            evaluation=tuple(sorted(labelled[EVALUATION])),
            withheld=tuple(sorted(labelled[WITHHELD])),
            skipped=tuple(sorted(skipped.difference(audited, *labelled.values()))),
            audit=tuple(sorted(audited)),
        ),
        experts=tuple(sorted(experts)),
        dead_letters=tuple(dead_letters),
        contradictions=tuple(listed),
        positives={half: positives[half] for half in (FINE_TUNING, EVALUATION)},
    )
    all_files = (*(before.files if before else ()), *written)
    imported = config_hash({"imports": sorted(entry.sha256 for entry in entries)})
    return Manifest.of(attempt, imported, all_files, sum(file.rows for file in all_files), facts)


def _first_facts(workspace: Workspace, task: Task, number: int) -> VerdictsFacts:
    """Return the facts of a round before its first import."""
    pairs = workspace.pairs.latest(number)
    return VerdictsFacts(
        task_name=task.name,
        task_version=pairs.facts.origin.task.version if pairs else None,
        evaluation_share=task.review.evaluation_share,
        seed=task.seed,
    )


def _labelled(task: Task, manifests: Mapping[int, Manifest[VerdictsFacts]]) -> set[str]:
    """Return the keys of the ads of both halves that have a label under this version of the policy."""
    return {
        key
        for manifest in manifests.values()
        if manifest.facts.task_version == task.version
        for half in (manifest.facts.keys.fine_tuning, manifest.facts.keys.evaluation)
        for key in half
    }


def _of_round(pending: Iterable[_Pending], shown: Shown, number: int) -> Iterator[Verdict]:
    for item in pending:
        for verdict in item.file.resolved.verdicts:
            if shown.round_of[verdict.key] == number:
                yield verdict


def called_positive(verdicts: Iterable[Verdict]) -> dict[str, bool]:
    """Return what most say of each ad, content key -> whether it is positive; no ties, no skips."""
    votes: Counter[str] = Counter()
    for verdict in verdicts:
        if verdict.label != SKIP:
            votes[verdict.key] += 1 if verdict.label == POSITIVE else -1
    return {key: number > 0 for key, number in votes.items() if number}


def _positives(
    task: Task, shown: Shown, manifests: Mapping[int, Manifest[VerdictsFacts]]
) -> dict[str, int]:
    """Return how many of the labelled ads of each half experts called positive, of this policy."""
    predicted = {ad.key: ad.predicted == POSITIVE for ad in shown.ads()}
    found = {FINE_TUNING: 0, EVALUATION: 0}
    for manifest in manifests.values():
        facts = manifest.facts
        if facts.task_version != task.version:
            continue
        for half, keys in (
            (FINE_TUNING, facts.keys.fine_tuning),
            (EVALUATION, facts.keys.evaluation),
        ):
            # Older versions kept no count.
            by_model = sum(predicted.get(key, False) for key in keys)
            found[half] += facts.positives.get(half, by_model)
    return found


def _recorded_sides(
    workspace: Workspace, manifests: Mapping[int, Manifest[VerdictsFacts]]
) -> dict[str, str]:
    sides: dict[str, str] = {}
    for manifest in manifests.values():
        for file in files_of(manifest, "sides"):
            for line in files.read(workspace.root, file).splitlines():
                fields = json.loads(line)
                sides[fields["key"]] = fields["side"]
    return sides


def _recorded_rounds(
    sha256: str, manifests: Mapping[int, Manifest[VerdictsFacts]]
) -> tuple[int, ...] | None:
    for manifest in manifests.values():
        for entry in entries_of(manifest):
            if entry.sha256 == sha256:
                return entry.rounds
    return None


def _holds(manifest: Manifest[VerdictsFacts] | None, sha256: str) -> bool:
    return any(entry.sha256 == sha256 for entry in entries_of(manifest))


def _why(imports: Sequence[Import]) -> str:
    letters = [letter for file in imports for letter in file.resolved.rejected]
    empty = sum(file.resolved.unanswered for file in imports)
    parts = [common_reasons(letters)] if letters else []
    if empty:
        parts.append(f"unanswered {empty:,}")
    if not parts:
        parts = ["the files hold no rows: " + ", ".join(file.name for file in imports)]
    return "; ".join(parts)
