"""The labels that a round trains on, and the ads that go back to review for want of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.ad_text import is_wordless
from models.training import trainer
from pipelines.config import Task
from pipelines.console.typed import typed
from pipelines.contracts import BlockFile
from pipelines.jobs.status import imported_into
from pipelines.numerics import agreement
from pipelines.numerics.agreement import MISSING
from pipelines.store import files
from pipelines.store.workspace import Workspace
from pipelines.tools.sheet.format import TIES, TIES_INSTRUCTIONS, ad_sheet, tie_instructions
from pipelines.verdicts.halves import ratings, read_half
from pipelines.verdicts.shown import Shown


@dataclass(frozen=True, slots=True)
class Labels:
    """The fine-tuning half as the trainer takes it.

    Attributes:
        ads: keys, texts and consensus labels.
        tied: keys of the ads whose experts disagree without a majority; they go back to review.
        experts: how many experts labelled.
        imported: round -> hash of the imports that this comes from.
    """

    ads: trainer.LabelledAds
    tied: tuple[str, ...]
    experts: int
    imported: Mapping[str, str]


def fine_tuning_labels(workspace: Workspace, task: Task, texts: Mapping[str, str]) -> Labels:
    """Return the consensus labels of the fine-tuning half, of all rounds of this policy version."""
    # First: what comes in while this reads and trains is then seen to be new.
    imported = imported_into(workspace, task.version)
    table = ratings(read_half(workspace, "fine_tuning", task.version))
    consensus = agreement.consensus(table.values, task.review.consensus)
    # An ad of which nothing is left once markup is cut cannot be scored, and so teaches nothing.
    wordless = [key for key in table.keys if is_wordless(texts[key])]
    consensus[[key in set(wordless) for key in table.keys]] = MISSING
    given = (table.values != MISSING).any(axis=1) if table.values.size else np.zeros(0, dtype=bool)
    settled = np.flatnonzero(consensus != MISSING)
    ads = trainer.LabelledAds(
        keys=tuple(table.keys[i] for i in settled),
        texts=tuple(texts[table.keys[i]] for i in settled),
        labels=consensus[settled].astype(np.int8),
    )
    tied = tuple(
        table.keys[i]
        for i in np.flatnonzero(given & (consensus == MISSING))
        if table.keys[i] not in set(wordless)
    )
    return Labels(ads, tied, len(table.experts), imported)


def settled_labels(workspace: Workspace, task: Task) -> dict[str, int]:
    """Return the settled labels of the fine-tuning half, by content key: 1 positive, 0 negative."""
    table = ratings(read_half(workspace, "fine_tuning", task.version))
    settled = agreement.consensus(table.values, task.review.consensus)
    return {key: int(label) for key, label in zip(table.keys, settled, strict=True) if label >= 0}


def write_ties(
    workspace: Workspace,
    attempt: str,
    task: Task,
    shown: Shown,
    tied: Sequence[str],
    say: Callable[[str], None],
) -> tuple[BlockFile, ...]:
    """Write a review sheet of the ads on which no majority was found, and what one more expert does."""
    if not tied:
        return ()
    ads = {ad.key: ad for ad in shown.ads()}
    # Without a pair id each row stands alone: its partner needs no second answer.
    rows = [("", "", ads[key].ad_id, ads[key].text) for key in sorted(tied)]
    file = files.write(workspace.root, f"{attempt}/{TIES}", ad_sheet(rows), len(tied))
    back = typed("import {}", workspace.path(file.path), workspace=workspace.root)
    told = tie_instructions(
        task.name, task.version, task.policy, task.labels.positive, task.labels.negative, back
    )
    beside = files.write(workspace.root, f"{attempt}/{TIES_INSTRUCTIONS}", told.encode())
    say(
        f"{len(tied)} ads have no majority and do not train: let one more expert label "
        f"{workspace.path(file.path)} ({TIES_INSTRUCTIONS} beside it says how), then {back}"
    )
    return file, beside
