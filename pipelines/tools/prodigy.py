"""Prodigy: an ad is a task with options to choose from; the two ads of a pair follow each other.

Formats as of Prodigy 1.15: JSON lines for ``--view-id choice``, and what ``prodigy db-out`` writes. The
model's label, where it is shown, is in ``meta``: a preselected option would come back as an answer.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.contracts import Rejected
from pipelines.tools import rows
from pipelines.tools.batch import Batch
from pipelines.tools.rows import Said
from pipelines.verdicts.rows import SKIP, RawVerdict

TOOL = "prodigy"
ACCEPT, REJECT, IGNORE = "accept", "reject", "ignore"
_CONFIG = {
    "choice_style": "single",
    # Both ads of a pair must go to the same people, which sharing tasks out would not keep.
    "feed_overlap": True,
    "instructions": "instructions.html",
}


def export(batch: Batch) -> dict[str, bytes]:
    """Return ``tasks.jsonl``, ``prodigy.json``, ``instructions.html`` and ``setup.md``."""
    return {
        "tasks.jsonl": rows.to_json_lines(_tasks(batch)),
        "prodigy.json": rows.to_json(_CONFIG),
        "instructions.html": rows.filled("prodigy_instructions.html", batch, html.escape),
        "setup.md": rows.filled("prodigy.md", batch),
    }


def read(data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
    """Yield a row for each answer.

    Experts are called as Prodigy does: data set, hyphen, session.

    Raises:
        RunFailed: the file is not what ``prodigy db-out`` writes.
    """
    cure = "expected answer; write the file with `prodigy db-out DATASET > FILE`"
    for position, record in rows.json_records(data, source, _is_answer, cure):
        if isinstance(record, Rejected):
            yield record
            continue
        try:
            yield _row(record, source, position)
        except ValueError as error:
            yield rows.unreadable(str(error), source, position)


def _tasks(batch: Batch) -> Iterator[dict[str, Any]]:
    options = [{"id": word, "text": word} for word in rows.label_words(batch)]
    for number, pair in enumerate(batch.pairs, start=1):
        for name, side in pair.sides():
            meta: dict[str, Any] = {"pair": f"{number} of {len(batch.pairs)}, {name}"}
            if side.label:
                meta |= {
                    "model_label": rows.holdable(side.label),
                    "model_score": rows.shown_score(side, batch),
                }
            fields = rows.ad_fields(pair, name, side) | rows.provenance(batch)
            yield fields | {"options": options, "meta": meta}


def _is_answer(record: Mapping[str, Any]) -> bool:
    return "answer" in record


def _row(record: Mapping[str, Any], source: str, position: str) -> RawVerdict:
    answer = record["answer"]
    if answer not in (ACCEPT, REJECT, IGNORE):
        raise ValueError(f"answer must be accept, reject or ignore, found {answer!r:.60}")
    # A rejected task is no vote for the other label: what was wrong with it, nobody knows.
    chosen = rows.one_label(record.get("accept"), "accept") if answer == ACCEPT else ""
    person = rows.as_text(record, "_annotator_id") or rows.as_text(record, "_session_id")
    comment = rows.joined(record.get("comment"), "comment")
    said = Said(person, rows.as_text(record, "_timestamp"), comment, source, position)
    return rows.ad_verdict(record, rows.as_text(record, "side"), chosen or SKIP, said)
