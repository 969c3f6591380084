"""doccano: an ad is an example; the two ads of a pair follow each other.

Formats as of doccano 1.8, text classification. Going out: JSON lines, whose further fields doccano keeps
as metadata, and the labels. Coming back: the zip of JSON lines with one file a member, named after
the member, or a single file. A project in which members share their labels (``collaborative``) gives
one file for all of them, ``all.jsonl``, in its zip, which names nobody. A label on an imported example counts as an answer, so the model's
labels, where they are shown, are metadata.
"""

from __future__ import annotations

import io
import lzma
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.contracts import Rejected
from pipelines.errors import RunFailed
from pipelines.tools import incoming, outgoing
from pipelines.tools.base import Tool
from pipelines.tools.batch import Batch
from pipelines.tools.incoming import Answer
from pipelines.verdicts.rows import MAX_FILE_BYTES, RawVerdict

_EXPORT = "export the data set from doccano as JSONL"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# What zipfile and its decompressors raise of damaged files. RuntimeError: a password is needed, or a
# compression that Python lacks. ValueError: a name that is no UTF-8. IndexError: an empty one.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
# What doccano calls the file of a project in which all members see the same labels.
_SHARED = "all.jsonl"
_COLORS = ("#b3261e", "#146c2e", "#5f6368")


class Doccano(Tool):
    """doccano's text classification."""

    name = "doccano"
    files = ("examples.jsonl", "labels.json", "guidelines.md", "setup.md")
    shows_pairs_together = False

    def export(self, batch: Batch) -> dict[str, bytes]:
        """Return examples, labels, guidelines and what to do with them."""
        labels = [
            {
                "text": word,
                "prefix_key": None,
                "suffix_key": key,
                "background_color": color,
                "text_color": "#ffffff",
            }
            for word, key, color in zip(outgoing.label_words(batch), "123", _COLORS, strict=True)
        ]
        return {
            "examples.jsonl": outgoing.to_json_lines(_examples(batch)),
            "labels.json": outgoing.to_json(labels),
            "guidelines.md": outgoing.filled("guidelines.md", batch),
            "setup.md": outgoing.filled("doccano.md", batch),
        }

    def read(self, data: bytes, source: str) -> Iterator[RawVerdict | Rejected]:
        """Yield a row for each example, whether it is labelled or not.

        An expert is the member whose file it is. A single file, and a zip's ``all.jsonl``, name nobody,
        unless the examples have a field ``user`` or, as old exports, ``annotation_approver``.

        Raises:
            RunFailed: the file is no JSONL export of doccano.
        """
        if not data.startswith(_ZIP):
            yield from _read_file(data, source, "", "")
            return
        for member, content in _members(data, source):
            name = posixpath.basename(member)
            person = "" if name.casefold() == _SHARED else name.removesuffix(".jsonl")
            yield from _read_file(content, source, person, name)


def _examples(batch: Batch) -> Iterator[dict[str, Any]]:
    for item in batch.items:
        for side, ad in item.sides():
            example: dict[str, Any] = {**outgoing.ad_fields(item, side, ad), "label": []}
            yield example | outgoing.provenance(batch) | outgoing.model_fields(batch, ad)


def _members(data: bytes, source: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each member's file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # What Apple's Finder adds when it packs a folder again is no member's.
            entries = [
                entry
                for entry in archive.infolist()
                if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")
            ]
            other = [entry.filename for entry in entries if not entry.filename.endswith(".jsonl")]
            if other or not entries:
                found = ", ".join(repr(name[:60]) for name in other[:3]) or "nothing"
                raise RunFailed(f"{source}: the zip holds {found}, no .jsonl files; {_EXPORT}")
            # Sizes are as the directory states them; zipfile reads no more than that.
            size = sum(entry.file_size for entry in entries)
            if size > MAX_FILE_BYTES:
                raise RunFailed(
                    f"{source}: {size:,} bytes unpacked, at most {MAX_FILE_BYTES:,}; import the "
                    "files one by one"
                )
            names = [posixpath.basename(entry.filename) for entry in entries]
            if len(set(names)) < len(names):
                raise RunFailed(f"{source}: two files of the zip have one name; {_EXPORT} again")
            for name, entry in sorted(zip(names, entries, strict=True), key=lambda pair: pair[0]):
                content = archive.read(entry)
                # A member of a project without examples has an empty file.
                if content.strip():
                    yield name, content
    except RunFailed:
        raise
    except _DAMAGE as error:
        why = str(error) or type(error).__name__
        raise RunFailed(f"{source}: the zip cannot be read ({why}); {_EXPORT} again") from error


def _read_file(data: bytes, source: str, member: str, name: str) -> Iterator[RawVerdict | Rejected]:
    def rows(record: Mapping[str, Any], position: str) -> tuple[RawVerdict, ...]:
        return _answer(record, member, source, position).rows(
            {"text": record.get("data"), **record}
        )

    cure = f"expected id, text (or data), label; {_EXPORT}"
    return incoming.read_records(data, source, _is_example, cure, rows, name)


def _is_example(record: Mapping[str, Any]) -> bool:
    # What went out has no id yet.
    return {"id", "label"} <= set(record) and bool({"text", "data"} & set(record))


def _answer(record: Mapping[str, Any], member: str, source: str, position: str) -> Answer:
    label = incoming.one_label(record["label"], "label")
    return Answer(
        source,
        position,
        (label,),
        expert=member or incoming.first_of(record, "user", "annotation_approver"),
        comment=incoming.joined(record.get("Comments"), "Comments"),
        # doccano cannot skip: an example without a label is not answered yet.
        submitted=bool(label),
    )
