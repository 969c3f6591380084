"""Prodigy: an ad is a task with options to choose from; the two ads of a pair follow each other.

Formats as of Prodigy 1.15: JSON lines for ``--view-id choice``, and what ``prodigy db-out`` writes. The
model's label, where it is shown, is in ``meta``: a preselected option would come back as an answer.

Answers of the binary view (``classification``), which asks about one ``label`` a task, are read, too: of
two labels the other one is meant where it was rejected.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.contracts import Rejected
from pipelines.tools import incoming, outgoing
from pipelines.tools.base import Tool
from pipelines.tools.batch import Batch
from pipelines.tools.incoming import Answer
from pipelines.verdicts.rows import RawVerdict

ACCEPT, REJECT, IGNORE = "accept", "reject", "ignore"
_CONFIG = {
    "choice_style": "single",
    # Both ads of a pair must go to the same people, which sharing tasks out would not keep.
    "feed_overlap": True,
    "instructions": "instructions.html",
}


class Prodigy(Tool):
    """Prodigy's choice interface."""

    name = "prodigy"
    files = ("tasks.jsonl", "prodigy.json", "instructions.html", "setup.md")
    shows_pairs_together = False

    def export(self, batch: Batch) -> dict[str, bytes]:
        """Return tasks, configuration, instructions and what to do with them."""
        return {
            "tasks.jsonl": outgoing.to_json_lines(_tasks(batch)),
            "prodigy.json": outgoing.to_json(_CONFIG),
            "instructions.html": outgoing.filled("prodigy_instructions.html", batch, html.escape),
            "setup.md": outgoing.filled("prodigy.md", batch),
        }

    def read(self, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
        """Yield a row for each answer.

        Experts are called as Prodigy does: data set, hyphen, session.

        Raises:
            RunFailed: the file is not what ``prodigy db-out`` writes.
        """
        cure = "expected answer; write the file with `prodigy db-out DATASET > FILE`"

        def rows(record: Mapping[str, Any], position: str) -> tuple[RawVerdict, ...]:
            return _answer(record, source, position).rows(record)

        return incoming.read_records(data, source, lambda record: "answer" in record, cure, rows)


def _tasks(batch: Batch) -> Iterator[dict[str, Any]]:
    options = [{"id": word, "text": word} for word in outgoing.label_words(batch)]
    for number, item in enumerate(batch.items, start=1):
        for side, ad in item.sides():
            place = f"{number} of {len(batch.items)}{side and f', {side}'}"
            meta = {batch.noun: place} | outgoing.model_fields(batch, ad)
            fields = outgoing.ad_fields(item, side, ad) | outgoing.provenance(batch)
            yield fields | {"options": options, "meta": meta}


def _answer(record: Mapping[str, Any], source: str, position: str) -> Answer:
    answer = record["answer"]
    if answer not in (ACCEPT, REJECT, IGNORE):
        raise ValueError(f"answer must be accept, reject or ignore, found {answer!r:.60}")
    is_binary = "accept" not in record and record.get("_view_id") != "choice"
    if is_binary and answer != IGNORE:
        label = incoming.as_text(record, "label").strip()
        if not label:
            raise ValueError(
                "holds neither choices (accept) nor the label that was asked about (label), so nothing "
                f"says what {answer} means"
            )
    else:
        # A rejected task of choices is no vote for the other label: what was wrong with it, nobody knows.
        chosen = record.get("accept") if answer == ACCEPT else None
        label = incoming.one_label(chosen, "accept")
    return Answer(
        source,
        position,
        (label,),
        expert=incoming.first_of(record, "_annotator_id", "_session_id"),
        time=incoming.as_text(record, "_timestamp"),
        comment=incoming.joined(record.get("comment"), "comment"),
        negated=is_binary and answer == REJECT,
        skipped=not label,
    )
