"""What an audit says of the whole corpus, or that there is none."""

from __future__ import annotations

from pipelines.console import audit as words
from pipelines.report.data import Evidence
from pipelines.report.html import Section, Table


def audit(found: Evidence) -> Section:
    """Return the newest audit's estimates: of the newest scores, whatever round is shown."""
    id, title = "audit", "What holds for the whole corpus"
    known = found.stand["audit"]
    if known is None:
        return Section(id, title, paragraphs=(words.NONE,))
    if known["reason"]:
        return Section(
            id,
            title,
            paragraphs=(f"{words.about(known)}: {known['reason']}.", *words.caveats(known)),
        )
    table = Table(
        f"Of {known['ads']:,} distinct ads, with 95% intervals",
        ("", *(title for _, title in words.WAYS)),
        tuple(
            (title, *(words.interval(name, known[way][name]) for way, _ in words.WAYS))
            for name, title in words.measures(known)
        ),
    )
    lead = f"{words.about(known)}. These labels train no model and choose no threshold."
    return Section(id, title, paragraphs=(lead, *words.caveats(known)), tables=(table,))
