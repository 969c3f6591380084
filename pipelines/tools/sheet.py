"""The review sheet: a CSV file, one ad a row, that no spreadsheet takes for formulas."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from pipelines.contracts import Rejected
from pipelines.errors import UsageError
from pipelines.stages.write_review import ad_sheet, review_instructions
from pipelines.tools.batch import Batch
from pipelines.tools.rows import comparable, holdable
from pipelines.verdicts import RawVerdict, read_csv

TOOL = "csv"


def export(batch: Batch) -> dict[str, bytes]:
    """Return ``review.csv`` and ``instructions.txt``.

    Raises:
        UsageError: the batch shows the model's labels, for which a sheet has no column.
    """
    rows = []
    for pair in batch.pairs:
        for name, side in pair.sides():
            if side.label:
                raise UsageError(
                    "--show_predictions: the sheet has no column for what the model thinks; "
                    "choose another --tool, or leave it out"
                )
            rows.append((pair.pair_id, name, holdable(side.id), holdable(side.text)))
    instructions = review_instructions(
        batch.task,
        batch.task_version,
        batch.policy,
        batch.positive,
        batch.negative,
        batch.experts_per_ad,
    )
    return {"review.csv": ad_sheet(rows), "instructions.txt": instructions.encode()}


def read(data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
    """Yield the rows of a sheet that came back.

    Raises:
        RunFailed: the file is no text, or its header does not do.
    """
    for row in read_csv(data, source):
        if isinstance(row, RawVerdict):
            row = dataclasses.replace(row, ad_id=comparable(row.ad_id), text=comparable(row.text))
        yield row
