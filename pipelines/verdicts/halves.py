"""The halves of the verdicts: files of a workspace, the last word of each expert, ratings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.contracts import BlockFile, Verdict
from pipelines.numerics.agreement import MISSING
from pipelines.numerics.split import AUDIT
from pipelines.store import files
from pipelines.store.facts import VerdictsFacts
from pipelines.store.workspace import Manifest, Workspace, config_hash
from pipelines.verdicts.rows import NEGATIVE, POSITIVE

HALVES = ("fine_tuning", "evaluation")


@dataclass(frozen=True, slots=True)
class Ratings:
    """Verdicts as a table.

    Attributes:
        keys: n_ads content keys, ascending.
        experts: n_experts names, ascending.
        values: int8 (n_ads, n_experts): 1 positive, 0 negative, -1 missing.
    """

    keys: tuple[str, ...]
    experts: tuple[str, ...]
    values: np.ndarray

    def __or__(self, other: Ratings) -> Ratings:
        """Return the ratings of both; no ad is in both."""
        experts = tuple(sorted({*self.experts, *other.experts}))
        keys = tuple(sorted((*self.keys, *other.keys)))
        row = {key: i for i, key in enumerate(keys)}
        values = np.full((len(keys), len(experts)), MISSING, dtype=np.int8)
        for part in (self, other):
            columns = [experts.index(name) for name in part.experts]
            values[np.ix_([row[key] for key in part.keys], columns)] = part.values
        return Ratings(keys, experts, values)

    def where(self, rows: Sequence[bool]) -> Ratings:
        """Return the ratings of some of the ads."""
        kept = np.flatnonzero(rows)
        return Ratings(tuple(self.keys[i] for i in kept), self.experts, self.values[kept])


def from_lines(data: bytes) -> list[Verdict]:
    """Read the verdicts that :func:`pipelines.store.files.json_lines` wrote."""
    return [Verdict(**json.loads(line)) for line in data.splitlines()]


def files_of(manifest: Manifest[VerdictsFacts], kind: str) -> list[BlockFile]:
    """Return a verdicts manifest's files of one kind (``fine_tuning``, ``sides``, ...), in order."""
    return [
        file for file in manifest.files if re.split(r"[-.]", file.path.split("/")[-1])[0] == kind
    ]


def read_half(workspace: Workspace, half: str, task_version: int) -> list[Verdict]:
    """Return all verdicts of one half, in the order in which they were imported.

    Args:
        workspace: the workspace.
        half: ``fine_tuning``, or ``evaluation``, which only the evaluator may ask for, and the audit,
            which trains and chooses nothing by it.
        task_version: rounds mined for another version of the policy are left out.

    Raises:
        RunFailed: a file is gone or has changed.
    """
    if half not in HALVES:
        raise ValueError(f"half must be one of {HALVES}, got {half!r}")
    found: list[Verdict] = []
    for verdicts in workspace.verdicts_of(task_version).values():
        for file in files_of(verdicts, half):
            found.extend(from_lines(files.read(workspace.root, file)))
    return found


def read_audit(workspace: Workspace, task_version: int) -> list[Verdict]:
    """Return all verdicts on ads that audits drew; arguments, order and errors as of :func:`read_half`."""
    found: list[Verdict] = []
    for verdicts in workspace.verdicts_of(task_version, audits=True).values():
        for file in files_of(verdicts, AUDIT):
            found.extend(from_lines(files.read(workspace.root, file)))
    return found


def imported_into(workspace: Workspace, task_version: int) -> dict[str, str]:
    """Return round -> hash of what was imported, of one version of the policy, audits apart."""
    found = workspace.verdicts_of(task_version)
    return {str(number): imports_hash(verdicts.facts) for number, verdicts in found.items()}


def imports_hash(verdicts: VerdictsFacts) -> str:
    """Return the hash of a round's imported files but for those that speak of an audit alone."""
    counting = (e for e in verdicts.imports if not e.audit or e.audit < e.verdicts)
    return config_hash({"imports": sorted(entry.sha256 for entry in counting)})


def latest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return the last verdict of each expert on each ad, sorted by ad and expert.

    Args:
        verdicts: in the order of import. The one imported last is the last, unless it has a time and
            one imported before has a later one. A later skip withdraws a label.
    """
    last: dict[tuple[str, str], Verdict] = {}
    newest: dict[tuple[str, str], str] = {}
    for verdict in verdicts:
        place = (verdict.key, verdict.expert)
        # ISO 8601 in UTC to the second: the order of the strings is that of the moments.
        if verdict.time and verdict.time < newest.get(place, ""):
            continue
        last[place] = verdict
        newest[place] = verdict.time or newest.get(place, "")
    return [last[place] for place in sorted(last)]


def ratings(verdicts: Iterable[Verdict]) -> Ratings:
    """Return the last verdicts as a table of ads by experts.

    An ad that was only ever skipped keeps its row, all of it missing.
    """
    final = latest(verdicts)
    keys = tuple(sorted({verdict.key for verdict in final}))
    experts = tuple(sorted({verdict.expert for verdict in final}))
    row = {key: i for i, key in enumerate(keys)}
    column = {expert: i for i, expert in enumerate(experts)}
    values = np.full((len(keys), len(experts)), MISSING, dtype=np.int8)
    for verdict in final:
        rating = {POSITIVE: 1, NEGATIVE: 0}.get(verdict.label, MISSING)
        values[row[verdict.key], column[verdict.expert]] = rating
    return Ratings(keys, experts, values)
