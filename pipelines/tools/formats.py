"""The labeling tools by name: what writes their files, and what reads them back.

Another tool is one more module with ``TOOL``, ``export`` and ``read``, and its place in ``TOOLS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pipelines.contracts import Rejected
from pipelines.errors import UsageError
from pipelines.tools import argilla, doccano, label_studio, page, prodigy, sheet
from pipelines.tools.batch import Batch
from pipelines.verdicts.rows import RawVerdict
from pipelines.verdicts.tables import read_jsonl

Exporter = Callable[[Batch], dict[str, bytes]]
Reader = Callable[[bytes, str], Iterator[RawVerdict | Rejected]]

EXPORTERS: Mapping[str, Exporter] = {
    page.TOOL: page.export,
    sheet.TOOL: sheet.export,
    label_studio.TOOL: label_studio.export,
    argilla.TOOL: argilla.export,
    doccano.TOOL: doccano.export,
    prodigy.TOOL: prodigy.export,
}
READERS: Mapping[str, Reader] = {
    sheet.TOOL: sheet.read,
    "jsonl": read_jsonl,
    page.TOOL: page.read,
    label_studio.TOOL: label_studio.read,
    argilla.TOOL: argilla.read,
    doccano.TOOL: doccano.read,
    prodigy.TOOL: prodigy.read,
}
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
# Where the page puts its mark: long before the first ad.
_HEAD_BYTES = 400


def detect_format(path: str, data: bytes, tool: str = "") -> str:
    """Return the format of a verdict file: the named tool's, or the one that name and head tell.

    Only the review page marks its files; those of other tools look like one another, and the same
    file means other things in two of them, so they need ``tool``.

    Raises:
        UsageError: an unknown tool, or a name that tells nothing.
    """
    if tool:
        if tool not in READERS:
            raise UsageError(f"--tool {tool}: unknown; give one of {', '.join(READERS)}")
        return tool
    is_page_itself = path.lower().endswith((".html", ".htm"))
    if page.FORMAT.encode() in data[:_HEAD_BYTES] or is_page_itself:
        # Of the page itself its reader says what to import instead.
        return page.TOOL
    for suffix, known in _SUFFIXES.items():
        if path.lower().endswith(suffix):
            return known
    raise UsageError(
        f"{path}: the name does not tell the format; give --tool, one of {', '.join(READERS)}"
    )
