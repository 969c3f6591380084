"""Where a report goes: one HTML file, and its pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import markupsafe
from apache_beam.io.filesystems import FileSystems

from pipelines.errors import UsageError
from pipelines.jobs.results import Result
from pipelines.report.html import Section, page
from pipelines.store import storage

FILE = "report.html"
# What a round's report may hold; one that lacks a picture takes away an older one of that name.
ROUND_PICTURES = tuple(
    f"report-{part}.png"
    for part in (
        *("map", "overlap-1", "overlap-2", "overlap-3", "pairs", "coverage", "agreement", "scores"),
        # As it was called before.
        "clusters",
    )
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, repr=False)
class Report(Result):
    """What was written.

    Attributes:
        path: of the HTML file.
        pictures: paths of the PNG files.
        summary: what is in it; JSON values.
    """

    path: str
    pictures: tuple[str, ...]
    summary: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return what is in it as JSON values."""
        return self.summary


def check_folder(path: str) -> str:
    """Return the folder to write to, tried out: drawing for a minute and failing then is late.

    Raises:
        UsageError: it cannot be written, or its name means something in file patterns.
    """
    for char in "*?[]{}":
        if char in path:
            raise UsageError(
                f"--out {path}: {char!r} has a meaning in file patterns; choose another folder name"
            )
    if storage.is_local(path):
        storage.sweep(path)
        probe = storage.join(path, ".report-probe")
        try:
            storage.write(probe, b"")
            Path(probe).unlink()
        except OSError as error:
            raise UsageError(
                f"--out {path}: cannot be written ({error.strerror or error}); choose another folder"
            ) from error
    return path


def write(
    folder: str,
    title: str,
    head: markupsafe.Markup,
    sections: Sequence[Section],
    summary: dict[str, Any],
    say: Say,
) -> Report:
    """Write a report; an older one in the same folder is replaced.

    Args:
        folder: from :func:`check_folder`.
        title: of the page.
        head: what stands at its top.
        sections: its parts, in order.
        summary: what is in it; JSON values, to which paths, size and what is missing are added.
        say: told where it is.
    """
    html = page(title, head, sections)
    pictures = {name: png for section in sections for name, png in section.pictures.items()}
    for name, png in pictures.items():
        storage.write(storage.join(folder, name), png)
    path = storage.join(folder, FILE)
    storage.write(path, html)
    # An older report's pictures that this one lacks would pass for its own.
    stale = [
        found.path
        for found in storage.match(storage.join(folder, "report-*.png"))
        if (name := re.split(r"[/\\]", found.path)[-1]) not in pictures and name in ROUND_PICTURES
    ]
    if stale:
        FileSystems.delete(stale)
    say(f"written to {path} ({len(html) / 1024:,.0f} KB, {len(pictures)} pictures beside it)")
    paths = [storage.join(folder, name) for name in pictures]
    missing = {section.id: section.missing for section in sections if section.missing}
    more = {"missing": missing, "path": path, "pictures": paths, "bytes": len(html)}
    return Report(path, tuple(paths), {**summary, **more})
