"""The labels that a round trains on, and the ads that go back to review for want of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.ad_text import is_wordless
from models.training import trainer
from pipelines.config import Task
from pipelines.console.typed import typed
from pipelines.numerics import agreement
from pipelines.numerics.agreement import MISSING
from pipelines.store import files, storage
from pipelines.store.workspace import Workspace
from pipelines.tools.sheet.format import TIES, TIES_INSTRUCTIONS, ad_sheet, tie_instructions
from pipelines.verdicts.halves import Ratings, imported_into, ratings, read_half
from pipelines.verdicts.shown import Shown


@dataclass(frozen=True, slots=True)
class Labels:
    """The fine-tuning half as the trainer takes it.

    Attributes:
        ads: keys, texts and consensus labels.
        tied: keys of the ads whose experts disagree without a majority; they go back to review.
        table: what each expert said.
        imported: round -> hash of the imports that this comes from.
    """

    ads: trainer.LabelledAds
    tied: tuple[str, ...]
    table: Ratings
    imported: Mapping[str, str]


def fine_tuning_labels(workspace: Workspace, task: Task, texts: Mapping[str, str]) -> Labels:
    """Return the consensus labels of the fine-tuning half, of all rounds of this policy version."""
    # First: what comes in while this reads and trains is then seen to be new.
    imported = imported_into(workspace, task.version)
    table = ratings(read_half(workspace, "fine_tuning", task.version))
    # An ad of which nothing is left once markup is cut, or whose text is gone, teaches nothing.
    table = table.where([not is_wordless(texts.get(key, "")) for key in table.keys])
    consensus = agreement.consensus(table.values, task.review.consensus)
    settled = np.flatnonzero(consensus != MISSING)
    ads = trainer.LabelledAds(
        keys=tuple(table.keys[i] for i in settled),
        texts=tuple(texts[table.keys[i]] for i in settled),
        labels=consensus[settled].astype(np.int8),
    )
    given = (table.values != MISSING).any(axis=1)
    tied = tuple(table.keys[i] for i in np.flatnonzero(given & (consensus == MISSING)))
    return Labels(ads, tied, table, imported)


def settled_labels(workspace: Workspace, task: Task) -> dict[str, int]:
    """Return the settled labels of the fine-tuning half, by content key: 1 positive, 0 negative."""
    table = ratings(read_half(workspace, "fine_tuning", task.version))
    settled = agreement.consensus(table.values, task.review.consensus)
    return {key: int(label) for key, label in zip(table.keys, settled, strict=True) if label >= 0}


def ties_sheet(workspace: Workspace, shown: Shown, tied: Sequence[str]) -> tuple[str, bytes]:
    """Return the path and the content of a review sheet of ads on which no majority was found.

    The folder is named by the content: the same ties are the same file, whichever command writes it.
    """
    ads = {ad.key: ad for ad in shown.ads()}
    # Without a pair id each row stands alone: its partner needs no second answer.
    data = ad_sheet([("", "", ads[key].ad_id, ads[key].text) for key in sorted(tied)])
    return workspace.path(f"ties/{files.sha256(data)[:16]}/{TIES}"), data


def write_ties(
    workspace: Workspace,
    task: Task,
    shown: Shown,
    tied: Sequence[str],
    say: Callable[[str], None],
) -> tuple[str, ...]:
    """Write a review sheet of the ads on which no majority was found, and what one more expert does.

    Returns:
        the sheet's path, none without ties.
    """
    if not tied:
        return ()
    path, data = ties_sheet(workspace, shown, tied)
    back = typed("import {}", path, workspace=workspace.root)
    if not storage.exists(path):
        labels = task.labels
        told = tie_instructions(
            task.name, task.version, task.policy, labels.positive, labels.negative, back
        )
        storage.write(path.removesuffix(TIES) + TIES_INSTRUCTIONS, told.encode())
        storage.write(path, data)
    say(
        f"{len(tied)} ads have no majority and do not train: let one more expert label {path} "
        f"({TIES_INSTRUCTIONS} beside it says how), then {back}"
    )
    return (path,)
