"""Finding an ad of a workspace by its id: among the scored ads, the rejected ones, and the copies."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.console.progress import step
from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.explained import NotAnAd
from pipelines.sources import registry as sources
from pipelines.sources.base import ReadOptions
from pipelines.store import files, scores
from pipelines.store.facts import PairsFacts, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace

# Ids that the nearest ones are looked for among.
_NEAREST_OF = 20_000


@dataclass(frozen=True, slots=True)
class Round:
    """A round whose ads can be looked at: its items, and the scored ads that they come from."""

    pairs: Manifest[PairsFacts]
    scored: Manifest[ScoredFacts]


@dataclass(frozen=True, slots=True)
class Found:
    """An ad among a round's scored ones.

    Attributes:
        round: the round.
        row: one scored row.
        asked_at: where the record that was asked for stands, when it is another one of the same text.
        foretold: whether a cascade foretold its margin, and LLM-0 did not read it.
    """

    round: Round
    row: pa.Table
    asked_at: str = ""
    foretold: bool = False


def rounds_of(workspace: Workspace, wanted: int | None) -> list[Round]:
    """Return the rounds that can be looked at, the newest first, or the wanted one alone.

    Raises:
        UsageError: no such round.
        RunFailed: the scored ads of all of them are gone.
    """
    newest = workspace.pairs_of(wanted)
    manifests = [newest]
    if wanted is None:
        manifests = [pairs for _, pairs in sorted(workspace.pairs.by_round().items(), reverse=True)]
    found = []
    for pairs in manifests:
        scored = scores.scored_of(workspace, pairs)
        if scored is not None:
            found.append(Round(pairs, scored))
    if not found:
        raise RunFailed(
            f"the scored ads of round {newest.round} are no longer all in {workspace.root}/rounds: run "
            "`scout mine` again, it scores those that are lost"
        )
    return found


def by_key(workspace: Workspace, rounds: Sequence[Round], key: str) -> Found | None:
    """Return the ad of a content key, of the newest round that has it."""
    return _find(workspace, rounds, "key", key)


def by_id(workspace: Workspace, rounds: Sequence[Round], asked: str) -> Found | NotAnAd:
    """Return the ad of an id or a content key, or why the record of that id is none.

    Copies are scored once, under the smallest of their ids, and only the corpus knows the others: it is
    read for them, as it was when the round was mined.

    Raises:
        UsageError: there is no such ad; says what is near.
    """
    with step("looking for the ad"):
        found = _find(workspace, rounds, "id", asked) or by_key(workspace, rounds, asked)
        if found:
            return found
        letter = _rejected(workspace, rounds, asked)
        if letter:
            return letter
    ids = _item_ads(workspace, rounds, asked)
    if ids:
        raise UsageError(
            f"{asked}: is a review item; explain one of its ads: {', '.join(map(repr, ids))}"
        )
    copy = _in_corpus(rounds, asked)
    if isinstance(copy, Rejected):
        return _letter(workspace, rounds[0], asked, copy, "")
    where = f"round{'s' if len(rounds) > 1 else ''} "
    where += ", ".join(str(place.pairs.round) for place in rounds)
    if isinstance(copy, Ad):
        own = by_key(workspace, rounds, copy.key)
        if own:
            at = f"{copy.source}, {copy.position}"
            return dataclasses.replace(own, asked_at=at)
        raise UsageError(
            f"{asked}: stands in {copy.source}, {copy.position}, but is none of the ads that were mined in "
            f"{where} of {workspace.root}: the corpus has changed since; mine again"
        )
    near = difflib.get_close_matches(asked, list(_ids(workspace, rounds)), n=3)
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
    note = f" ({copy})" if copy else ""
    raise UsageError(
        f"{asked}: no ad, no copy and no rejected record of {where} of {workspace.root} has this id"
        f"{note}{hint}"
    )


def _find(workspace: Workspace, rounds: Sequence[Round], column: str, value: str) -> Found | None:
    for place in rounds:
        for part in scores.parts_of(workspace, place.scored):
            with scores.OpenPart(workspace.root, part) as block:
                same = pc.equal(block.columns([column]).column(column), value)
                mask = np.asarray(same.to_numpy(), dtype=bool)
                if mask.any():
                    row = block.rows(mask).slice(0, 1)
                    key = place.scored.facts.origin.score_key
                    return Found(place, row, foretold=scores.score_key_of(part) != key)
    return None


def _ids(workspace: Workspace, rounds: Sequence[Round]) -> Iterator[str]:
    every = (
        id
        for part in scores.parts_of(workspace, rounds[0].scored)
        for id in scores.read_columns(workspace.root, part, ["id"]).column("id").to_pylist()
    )
    return itertools.islice(every, _NEAREST_OF)


def _rejected(workspace: Workspace, rounds: Sequence[Round], asked: str) -> NotAnAd | None:
    for place in rounds:
        for path in place.scored.facts.dead_letters:
            try:
                data = files.named(workspace.root, path)
            except files.Damaged:
                # Where the file is gone, has changed, or is one of an earlier version, whose name does not
                # tell, the corpus itself will.
                continue
            for line in data.splitlines():
                letter = Rejected(**json.loads(line))
                if letter.id == asked:
                    return _letter(workspace, place, asked, letter, workspace.path(path))
    return None


def _letter(workspace: Workspace, place: Round, asked: str, letter: Rejected, path: str) -> NotAnAd:
    return NotAnAd(
        workspace=workspace.root,
        round=place.pairs.round,
        asked=asked,
        stage=letter.stage,
        reason=letter.reason,
        detail=letter.detail,
        source=letter.source,
        position=letter.position,
        excerpt=letter.excerpt,
        dead_letters=path,
    )


def _item_ads(workspace: Workspace, rounds: Sequence[Round], asked: str) -> list[str]:
    """Return the ids of the ads of a review item."""
    items = (item for place in rounds for item in workspace.read_items(place.pairs))
    return next(([ad.id for ad in item.ads] for item in items if item.item_id == asked), [])


def _in_corpus(rounds: Sequence[Round], asked: str) -> Ad | Rejected | str:
    """Return the record of this id, or "" or why the corpus cannot tell."""
    origins = [place.pairs.facts.origin for place in rounds]
    mined = {
        (origin.corpus, origin.read or origin.task.reading(ReadOptions())): None
        for origin in origins
    }
    for corpus, read in mined:
        try:
            with step("reading the corpus for copies"):
                for record in sources.records(corpus, read):
                    if record.id == asked:
                        return record
        except (UsageError, RunFailed) as error:
            told = error.typed if isinstance(error, UsageError) else error.message
            return f"whether it is a copy of one is not known: {told}"
    return ""
