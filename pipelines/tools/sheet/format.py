"""The review sheet: a CSV file, one ad a row, that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Iterator

from pipelines.console.typed import typed
from pipelines.contracts import Rejected
from pipelines.tools.base import Tool
from pipelines.tools.batch import Batch
from pipelines.tools.incoming import comparable_row
from pipelines.tools.outgoing import ITEM, MARK
from pipelines.verdicts.rows import RawVerdict
from pipelines.verdicts.spreadsheet import safe_cell
from pipelines.verdicts.tables import read_csv, read_jsonl

SHEET, INSTRUCTIONS = "review.csv", "instructions.txt"
TIES, TIES_INSTRUCTIONS = "ties.csv", "ties-instructions.txt"
RECHECK, RECHECK_INSTRUCTIONS = "recheck.csv", "recheck-instructions.txt"
_LINE_CHARS = 98
# XML 1.0, production [2] Char: LibreOffice and Excel drop the rest when they save.
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
COLUMNS = (ITEM, "side", "ad_id", "text", "label", "expert", "comment")


class Sheet(Tool):
    """The review sheet, and other CSV files with its columns."""

    name = "csv"
    files = (SHEET, INSTRUCTIONS)
    filled_in = (SHEET,)
    shows_pairs_together = False
    # It has no columns for these.
    shows_predictions = False
    shows_fields = False

    def export(self, batch: Batch) -> dict[str, bytes]:
        """Return ``review.csv`` and ``instructions.txt``."""
        rows = [
            (item.item_id, side, ad.id, ad.text)
            for item in batch.items
            for side, ad in item.sides()
        ]
        instructions = review_instructions(
            batch.task,
            batch.task_version,
            batch.policy,
            batch.positive,
            batch.negative,
            batch.experts_per_ad,
        )
        return {SHEET: ad_sheet(rows), INSTRUCTIONS: instructions.encode()}

    def read(self, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
        """Yield the rows of a sheet that came back.

        Raises:
            RunFailed: the file is no table, or its header does not do.
        """
        for row in read_csv(data, source):
            yield comparable_row(row) if isinstance(row, RawVerdict) else row

    def recognizes(self, path: str, data: bytes) -> bool:
        """Tell by the name of the file."""
        return _named(path).endswith((".csv", ".tsv", ".tab", ".txt", ".xlsx", ".xlsm", ".xls"))

    def next_step(self, workspace: str) -> str:
        """Return what to do with the sheet."""
        return f"every expert fills in a copy; {typed('import FILE...', workspace=workspace)}"


class JsonLines(Tool):
    """The sheet's columns as the fields of JSON lines: verdicts of one's own, only read."""

    name = "jsonl"

    def export(self, batch: Batch) -> dict[str, bytes]:
        """Return nothing: nobody fills in JSON lines by hand."""
        return {}

    def read(self, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
        """Yield the rows of a file of JSON objects, one a line.

        Raises:
            RunFailed: the file is no text, or one JSON list.
        """
        return read_jsonl(data, source)

    def recognizes(self, path: str, data: bytes) -> bool:
        """Tell by the name of the file."""
        return _named(path).endswith((".jsonl", ".ndjson", ".json"))


def _named(path: str) -> str:
    """Return a file's name as it is called once unpacked."""
    name = path.lower()
    for suffix in (".gz", ".gzip", ".bz2", ".zst", ".zstd"):
        name = name.removesuffix(suffix)
    return name


def ad_sheet(rows: Iterable[tuple[str, str, str, str]]) -> bytes:
    """Return a blind review sheet of (item id, side, ad id, text): a CSV row an ad to label."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for item, side, id, text in rows:
        writer.writerow(
            (item, side, safe_cell(_storable(id)), safe_cell(_storable(text)), "", "", "")
        )
    # The byte order mark makes spreadsheets read the file as UTF-8.
    return b"\xef\xbb\xbf" + sink.getvalue().encode()


def _storable(text: str) -> str:
    """Return a text as a spreadsheet can store it: its files are XML, which lacks most controls."""
    return _NOT_IN_XML.sub(MARK, text)


def review_instructions(
    name: str, version: int, policy: str, positive: str, negative: str, experts: int
) -> str:
    """Return what goes to the experts with the sheet."""
    return _told(
        name,
        version,
        policy,
        f"Label every ad of review.csv on its own: write {positive} or {negative} in the column "
        "label and your name in the column expert. Where you cannot tell, write skip as the label, "
        "with your name. Answer both ads of a pair; they may have the same label. Every ad should be "
        f"labelled by {experts} experts, who do not see each other's labels: give each a copy of the "
        "file.",
    )


def tie_instructions(
    name: str, version: int, policy: str, positive: str, negative: str, back: str
) -> str:
    """Return what goes to one more expert with the ads on which the others found no majority.

    Args:
        name: of the task.
        version: of its policy.
        policy: its text.
        positive: what experts call the label.
        negative: and the other one.
        back: what brings the sheet back, as it can be typed.
    """
    return _told(
        name,
        version,
        policy,
        f"The experts who labelled the ads of {TIES} disagree, and none of them is in the majority; until "
        "one more label settles them, these ads train no model. So somebody who has not labelled them "
        f"yet: write {positive} or {negative} in the column label of every ad, and your name in the column "
        "expert; in the column comment, what decided. What the others said is not shown, lest it sways you. "
        "Where the policy does not decide, write skip as the label, with your name: then it is the policy "
        "that needs a sentence more.",
        "",
        f"Back: {back}",
        "",
    )


def recheck_instructions(
    name: str, version: int, policy: str, positive: str, negative: str, back: str
) -> str:
    """Return what goes with the ads whose labels are looked at again; arguments as of :func:`tie_instructions`."""
    return _told(
        name,
        version,
        policy,
        f"These ads were labelled before, and something speaks against their labels. Which labels they have, "
        "and what it is, is not shown, lest it sways you; many of them are right. So somebody who has not "
        f"labelled them yet, where there is one: write {positive} or {negative} in the column label of every "
        "ad, and your name in the column expert; in the column comment, what decided. Whoever looks at ads "
        "again that they labelled themselves: your new word takes the place of the old one.",
        "",
        f"Back: {back}",
        "",
        "Where that finds words of one expert that differ from earlier ones, and no times to tell the later, it "
        "imports nothing and asks: with --on_conflict replace the second look counts.",
    )


def _told(name: str, version: int, policy: str, *steps: str) -> str:
    wrapped = "\n".join(textwrap.fill(line, _LINE_CHARS) for line in policy.splitlines())
    steps = (
        *steps,
        "A leading apostrophe is not part of an ad: it keeps spreadsheets from running formulas and "
        "from changing numbers and dates.",
    )
    # What is typed stays on its line.
    told = "\n".join(
        step if step.startswith("Back: ") else textwrap.fill(step, _LINE_CHARS) for step in steps
    )
    return f"Policy {name}, version {version}\n\n{wrapped}\n\n{told}\n"
