"""Why an ad was, or was not, put before experts: from what a workspace holds, which is only read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from models.backends.base import BackendError, Labeler, Reading
from pipelines.console.progress import step
from pipelines.contracts import FORMAT_VERSION, scored_schema
from pipelines.errors import RunFailed, UsageError
from pipelines.handlers import LoadLabeler, trained_backend
from pipelines.jobs import find_ad
from pipelines.jobs.explained import Explained, Home, Mixing, NotAnAd, Opinion, Showing, Subject
from pipelines.jobs.find_ad import Found, Round
from pipelines.jobs.surroundings import Surroundings, look_around
from pipelines.jobs.why import Case, reasons
from pipelines.numerics import calibration
from pipelines.numerics.split import AUDIT, SIDES
from pipelines.store import blocks, files, model_store, scores
from pipelines.store.facts import ModelFacts
from pipelines.store.workspace import Manifest, Workspace, config_hash
from pipelines.text import content_key, is_blank
from pipelines.verdicts.halves import files_of, from_lines, latest
from pipelines.verdicts.rows import NEGATIVE, POSITIVE


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """Everything ``scout explain`` was told; see ``pipelines.api.explain``."""

    workspace: str
    ad_id: str = ""
    text: str = ""
    round: int | None = None


def explain(options: ExplainOptions, say: Callable[[str], None]) -> Explained | NotAnAd:
    """Explain an ad of a workspace, or a text that is scored as its ads were.

    Args:
        options: see :class:`ExplainOptions`.
        say: told, in one line each, what a person should know.

    Returns:
        an ``Explained``, or a ``NotAnAd`` for a record that was rejected.

    Raises:
        UsageError: nothing is mined, or there is no such ad; the model for a new text cannot be had.
        RunFailed: something in the workspace is damaged.
    """
    if bool(options.ad_id) == bool(options.text):
        raise UsageError("give either an AD_ID of the corpus, or a text with --ad")
    workspace = Workspace(options.workspace)
    rounds = find_ad.rounds_of(workspace, options.round)
    if options.text:
        if is_blank(options.text):
            raise UsageError("--ad: nothing of it is left after normalising")
        found: Found | NotAnAd | None = find_ad.by_key(
            workspace, rounds[:1], content_key(options.text)
        )
    else:
        found = find_ad.by_id(workspace, rounds, options.ad_id)
    if isinstance(found, NotAnAd):
        return found
    place = found.round if found else rounds[0]
    model = _model_of(workspace, place)
    try:
        with step("asking the model"):
            labeler = _labeler(workspace, place, model, say)
            text = found.row.column("text")[0].as_py() if found else options.text
            reading, unread = labeler.read(text), ""
            row = found.row if found else _scored(labeler, options.text)
    except (BackendError, RunFailed, UsageError) as error:
        if found is None:
            raise UsageError(
                f"--ad: the model that scored round {place.pairs.round}: {error}"
            ) from error
        reading, unread = None, error.message if isinstance(error, RunFailed) else str(error)
        row = found.row
    if found and found.foretold:
        say(
            "LLM-0 was spared this ad: the margin that counts was foretold by the cascade, and what LLM-0 says "
            "of it is asked now"
        )
    if found and options.text:
        say(f"this is the text of the ad {row.column('id')[0].as_py()!r} of the corpus")
    return _outcome(workspace, place, model, found, row, options, reading, unread)


def _model_of(workspace: Workspace, place: Round) -> Manifest[ModelFacts] | None:
    """Return the trained model that scored a round's ads; None for LLM-0.

    Raises:
        RunFailed: it is gone.
    """
    origin = place.pairs.facts.origin
    if not origin.model_round:
        return None
    # A later training in that round gave another model.
    for manifest in reversed(workspace.model.all(origin.model_round)):
        if origin.model_id.startswith(f"{manifest.facts.learnt.model_id}/"):
            return manifest
    raise RunFailed(
        f"the model of round {origin.model_round}, which scored round {place.pairs.round}, is gone from "
        f"{workspace.root}"
    )


def _labeler(
    workspace: Workspace,
    place: Round,
    model: Manifest[ModelFacts] | None,
    say: Callable[[str], None],
) -> Labeler:
    """Return what scored a round's ads, loaded."""
    origin = place.pairs.facts.origin
    if model is None:
        identity = origin.task.backend().identify(say)
    else:
        own = model_store.model_files(model)
        identity = trained_backend(workspace, origin.task, own).identify(say)
    key = config_hash({"format": FORMAT_VERSION} | dataclasses.asdict(identity))
    if key != origin.score_key:
        say(
            "the model is not the one that scored this round any more (other weights or another "
            "version): what it says now may differ from the margin that counted"
        )
    return LoadLabeler(origin.task, identity, workspace.root, model)()


def _scored(labeler: Labeler, text: str) -> pa.Table:
    """Return a new text as a scored row.

    Raises:
        UsageError: the model cannot read it.
    """
    batch = labeler.label([text])
    if not np.isfinite(batch.margin).all():
        raise UsageError("no word of this text can be read by it")
    values: list[Any] = [content_key(text), "", text, "", 0, 0]
    columns = [
        *([value] for value in values),
        pa.array(calibration.quantize(batch.margin), pa.float32()),
        pa.array(batch.n_tokens, pa.int32()),
        pa.array(batch.truncated, pa.bool_()),
        blocks.vector_array(batch.vectors),
    ]
    return pa.Table.from_arrays(
        [column if isinstance(column, pa.Array) else pa.array(column) for column in columns],
        schema=scored_schema(batch.vectors.shape[1]),
    )


def _outcome(
    workspace: Workspace,
    place: Round,
    model: Manifest[ModelFacts] | None,
    found: Found | None,
    row: pa.Table,
    options: ExplainOptions,
    reading: Reading | None,
    unread: str,
) -> Explained:
    facts, threshold = place.pairs.facts, place.pairs.facts.threshold
    task = facts.origin.task
    names = task.labels.model_dump()
    values = row.drop_columns(["vector"]).to_pylist()[0]
    margin, key = float(values["margin"]), values["key"]
    with step(
        "looking at the corpus", len(list(scores.parts_of(workspace, place.scored)))
    ) as advance:
        around = look_around(workspace, place, model, row, advance)
    showings = _showings(workspace, key)
    case = Case(
        task=task,
        round=place.pairs.round,
        key=key,
        margin=margin,
        threshold=threshold,
        in_corpus=found is not None,
        items=tuple(workspace.read_items(place.pairs)),
        candidates=facts.candidates,
        showings=showings,
        around=around,
    )
    chosen = any(s.round == case.round and s.source != AUDIT for s in showings)
    return Explained(
        workspace=workspace.root,
        task=task.name,
        round=case.round,
        ad=_subject(values, found, options),
        model_id=facts.origin.model_id,
        model_round=facts.origin.model_round,
        reading=reading,
        unread=unread,
        margin=margin,
        probability=round(float(calibration.probability(margin)), 6),
        label=names[POSITIVE if around.positive else NEGATIVE],
        threshold_margin=threshold.margin,
        threshold_probability=round(threshold.probability, 6),
        threshold_source=threshold.source,
        rank=around.rank,
        ads=place.scored.rows,
        home=_home(around),
        near={names[label]: near for label, near in around.near.items()},
        chosen=chosen,
        why=tuple(reasons(case)),
        showings=showings,
        opinions=_opinions(workspace, key, names),
        names=names,
    )


def _subject(values: Mapping[str, Any], found: Found | None, options: ExplainOptions) -> Subject:
    asked = found.asked_at if found else ""
    return Subject(
        id=values["id"],
        key=values["key"],
        text=values["text"],
        fields=tuple((n, v) for n, v in json.loads(values["fields"])) if values["fields"] else (),
        copies=values["copies"],
        weight=values["weight"] / 1000,
        tokens=values["tokens"],
        truncated=values["truncated"],
        asked=options.ad_id if asked else "",
        asked_at=asked,
    )


def _home(around: Surroundings) -> Home | None:
    held = around.clusters
    if held is None:
        return None
    own, other = ("positive", "negative") if around.positive else ("negative", "positive")
    return Home(
        cluster=around.cluster,
        ads=held.size(around.positive, around.cluster),
        clusters=len(held.of(around.positive)),
        mixes=tuple(
            Mixing(
                rank=line["rank"],
                cluster=line[other],
                ads=held.size(not around.positive, line[other]),
                nearer_share=line["nearer_share"],
            )
            for line in held.overlaps
            if line[own] == around.cluster
        ),
    )


def _showings(workspace: Workspace, key: str) -> tuple[Showing, ...]:
    """Return where experts met an ad: the newest choice of each round, and what audits drew."""
    found: dict[tuple[int, str], Showing] = {}
    for number in workspace.rounds():
        for manifest in workspace.asked(number):
            for item in workspace.read_items(manifest):
                keys = [ad.key for ad in item.ads]
                if key not in keys:
                    continue
                others = [ad.id for ad in item.ads if ad.key != key]
                found[number, item.item_id] = Showing(
                    round=number,
                    item_id=item.item_id,
                    rank=item.rank,
                    source=AUDIT if manifest.stage == "audit" else item.source,
                    partner=others[0] if others else "",
                    distance=item.distance,
                    propensity=item.propensity if item.drawn == key else None,
                )
    return tuple(found.values())


def _opinions(workspace: Workspace, key: str, names: Mapping[str, str]) -> tuple[Opinion, ...]:
    """Return what experts said of an ad, of every half: nothing is learnt or chosen by it here."""
    said = [
        (number, side, verdict)
        for number, manifest in sorted(workspace.verdicts.by_round().items())
        for side in (*SIDES, AUDIT)
        for file in files_of(manifest, side)
        for verdict in from_lines(files.read(workspace.root, file))
        if verdict.key == key
    ]
    last = latest(verdict for _, _, verdict in said)
    return tuple(
        Opinion(
            round=number,
            expert=verdict.expert,
            label=names.get(verdict.label, verdict.label),
            time=verdict.time,
            comment=verdict.comment,
            half=side,
            counts=verdict in last,
        )
        for number, side, verdict in said
    )
