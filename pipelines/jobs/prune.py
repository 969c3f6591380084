"""Retention: what older nights scored, and their dead letters, are removed; verdicts and items stay.

First the manifests go that count on what will be removed, then the files: whoever is killed in between leaves
files that nothing counts on, and the next run removes those.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelines.console.progress import step
from pipelines.errors import UsageError
from pipelines.jobs.results import Result
from pipelines.store import scores, storage
from pipelines.store.facts import ScoredFacts
from pipelines.store.workspace import Manifest, Workspace


@dataclass(frozen=True, slots=True, repr=False)
class Pruned(Result):
    """What a pruning removed.

    Attributes:
        before: nights of earlier dates are pruned.
        nights: how many dates lost their scores.
        files, bytes: that were removed, or would be.
        kept: score key -> scored ads that stay.
        dry_run: whether nothing was removed.
    """

    before: str
    nights: int
    files: int
    bytes: int
    kept: dict[str, int]
    dry_run: bool


def prune(root: str, keep_days: int, dry_run: bool, say: Callable[[str], None]) -> Pruned:
    """Remove scores and dead letters of nights that are older than the newest by ``keep_days`` or more.

    The corpus of the newest round stays whole, whatever its date, and so does all that was mined without a
    date.

    Raises:
        UsageError: there are no nights.
    """
    workspace = Workspace(root)
    if not workspace.night.by_date():
        raise UsageError(f"--workspace {root}: no nights here; start with `scout nightly`")
    with workspace.writing("prune", say):
        newest = max(workspace.night.by_date())
        first = datetime.date.fromisoformat(newest) - datetime.timedelta(days=keep_days - 1)
        with step("looking at what is kept"):
            kept, dropped = _attempts(workspace, first.isoformat())
            holding = set(_files_of(workspace, kept))
            there = _stored(workspace)
        unheld = {path: size for path, size in there.items() if path not in holding}
        gone = [path for path in unheld if not _still_replaces(workspace, path, there, unheld)]
        for manifest in dropped:
            found = storage.match(workspace.path(f"{manifest.attempt}/*"))
            for each in found:
                path = _relative(workspace, each.path)
                if path not in holding and not path.endswith("/manifest.json"):
                    unheld[path] = each.size_in_bytes
                    gone.append(path)
        if not dry_run:
            with step("removing", len(dropped) + len(gone)) as advance:
                for path in (*(f"{m.attempt}/manifest.json" for m in dropped), *gone):
                    storage.remove(workspace.path(path))
                    advance()
        return Pruned(
            before=first.isoformat(),
            nights=len({manifest.facts.origin.date for manifest in dropped}),
            files=len(gone) + len(dropped),
            bytes=sum(unheld[path] for path in gone),
            kept=scores.stored_ads(workspace.root),
            dry_run=dry_run,
        )


_Scored = Manifest[ScoredFacts]


def _attempts(workspace: Workspace, first: str) -> tuple[list[_Scored], list[_Scored]]:
    """Return the scored attempts that are kept, and those that are not."""
    newest = max(workspace.pairs.by_round(), default=0)
    kept: list[_Scored] = []
    dropped: list[_Scored] = []
    for number in workspace.scored.by_round():
        for scored in workspace.scored.all(number):
            old = "" < scored.facts.origin.date < first and number != newest
            (dropped if old else kept).append(scored)
    for date in workspace.scored.by_date():
        (dropped if date < first else kept).extend(workspace.scored.all(date))
    return kept, dropped


def _files_of(workspace: Workspace, kept: list[_Scored]) -> Iterator[str]:
    """Yield what scored attempts count on: files of parts, dead letters, blocks and overlays."""
    for scored in kept:
        yield from (file.path for file in scored.files)
        yield from scored.facts.dead_letters
        for part in scores.parts_of(workspace, scored):
            yield from (part.block, scores.vectors_of(part.block), part.overlay)


def _stored(workspace: Workspace) -> dict[str, int]:
    """Return all files of the score store, with their bytes."""
    patterns = ("scores/*/keys-*/*", "scores/*/corpora/*/*")
    return {
        _relative(workspace, found.path): found.size_in_bytes
        for pattern in patterns
        for found in storage.match(workspace.path(pattern))
    }


def _still_replaces(
    workspace: Workspace, path: str, there: dict[str, int], unheld: dict[str, int]
) -> bool:
    """Tell whether a file says which blocks were written together, and one of those stays."""
    folder, _, name = path.rpartition("/")
    if not scores.is_merging(name):
        return False
    old = json.loads(storage.read(workspace.path(path)))
    return any(f"{folder}/{block}" in there.keys() - unheld.keys() for block in old)


def _relative(workspace: Workspace, path: str) -> str:
    return path.removeprefix(workspace.root).replace("\\", "/").lstrip("/")
