"""What experts say otherwise than in earlier imports: found, decided by time where there is one, listed.

An import keeps, beside its verdicts, what was said as hashes (``said-*.jsonl``), so that the next one
sees who contradicts themselves without opening the evaluation half.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.contracts import Verdict
from pipelines.store import files
from pipelines.store.facts import VerdictsFacts
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import digest
from pipelines.verdicts.halves import files_of
from pipelines.verdicts.rows import NEGATIVE, POSITIVE, SKIP
from pipelines.verdicts.spreadsheet import safe_cell

SAID = "said"
OnConflict = Literal["ask", "keep", "replace"]
ASK: OnConflict = "ask"
REPLACE: OnConflict = "replace"
EARLIER, LATER = "earlier", "later"
BY_TIME, BY_ORDER, BY_PULL, BY_FLAG = "time", "order of the rows", "later pull", "on_conflict"
COLUMNS = (
    "expert",
    "ad_id",
    "text",
    "earlier_label",
    "earlier_time",
    "earlier_file",
    "earlier_position",
    "later_label",
    "later_time",
    "later_file",
    "later_position",
    "counts",
    "decided_by",
    "said_before",
)
_MAX_TEXT_CHARS = 200
# What the answers of a tool's server are kept as.
_PULLED = re.compile(r"(?:^|/)pulled/([a-z-]+)-[0-9a-f]{16}\.json$")
_WORD_CHARS = 16


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict as imports remember it: a line of ``said-*.jsonl``.

    Attributes:
        key: the ad's content key.
        expert: who said it.
        word: hash of key, expert and label: equal for the same label alone.
        time, source, position: see :class:`pipelines.contracts.Verdict`.
    """

    key: str
    expert: str
    word: str
    time: str
    source: str
    position: str

    @classmethod
    def of(cls, verdict: Verdict) -> Said:
        """Return what is remembered of a verdict."""
        word = _word(verdict.key, verdict.expert, verdict.label)
        return cls(
            verdict.key, verdict.expert, word, verdict.time, verdict.source, verdict.position
        )

    @property
    def label(self) -> str:
        """What was said: ``positive``, ``negative`` or ``skip``."""
        return next(
            label
            for label in (POSITIVE, NEGATIVE, SKIP)
            if _word(self.key, self.expert, label) == self.word
        )


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two words of one expert on one ad.

    Attributes:
        earlier: what was imported first.
        later: what was imported then.
        counts: ``earlier``, ``later``, or "" where nothing tells.
        decided_by: ``time``, ``order of the rows`` (both in one file), ``later pull`` (both pulled from
            one tool's server), ``on_conflict``, or "".
        within: whether both are in one file.
        said_before: whether the later one only repeats what the earlier one overruled.
    """

    earlier: Said
    later: Verdict
    counts: str
    decided_by: str
    within: bool
    said_before: bool

    @property
    def is_left_out(self) -> bool:
        """Whether the later word is not stored. One that time decides against is, and does not count."""
        return self.counts != LATER and self.decided_by != BY_TIME


class Words:
    """The last word of each expert on each ad, import after import.

    By the rule of :func:`pipelines.verdicts.halves.latest`, which also leaves out what was stored
    although time decides against it. Memory: about 0.5 KB a verdict.

    Args:
        said: all that was imported so far, in order.
    """

    def __init__(self, said: Iterable[Said] = ()) -> None:
        self._last: dict[tuple[str, str], Said] = {}
        self._newest: dict[tuple[str, str], str] = {}
        self._ever: set[str] = set()
        for each in said:
            self._take(each)

    def settle(
        self, verdicts: Sequence[Verdict], on_conflict: OnConflict
    ) -> tuple[list[Verdict], list[Contradiction]]:
        """Return those of a file's verdicts that are to be stored, and all contradictions.

        Where times differ the later one counts. Otherwise, of two rows of one file, the later row; of
        two pulls from a server, which show what holds there, the later pull; and of two other imports
        what ``on_conflict`` says, or nothing: then neither is decided. A file that holds a word and
        what it was corrected to, as exports with all answers do, contradicts no import of the latter.
        """
        kept, found = [], []
        unchanged = self._unchanged_by(verdicts)
        # Where the last word is one of this file; what was the last one before it.
        own: set[tuple[str, str]] = set()
        before: dict[tuple[str, str], Said] = {}
        for verdict in verdicts:
            said, place = Said.of(verdict), (verdict.key, verdict.expert)
            earlier, within = self._last.get(place), place in own
            if earlier and not within:
                before[place] = earlier
            if earlier and earlier.word != said.word and not self._is_filled_in(earlier, said):
                # Two rows in order say which one the file means, not whether it is an old copy.
                ordered = within and (place not in before or place in unchanged)
                counts, by = self._decide(earlier, said, ordered, on_conflict)
                if by not in ("", BY_FLAG) or place not in unchanged:
                    repeats = said.word in self._ever
                    found.append(Contradiction(earlier, verdict, counts, by, within, repeats))
                    if found[-1].is_left_out:
                        continue
            kept.append(verdict)
            self._take(said)
            if self._last[place] is said:
                own.add(place)
        return kept, found

    def _unchanged_by(self, verdicts: Sequence[Verdict]) -> set[tuple[str, str]]:
        """Return where a file, taken whole, ends with the word that is the last one already."""
        places = {(verdict.key, verdict.expert) for verdict in verdicts} & self._last.keys()
        trial = Words()
        trial._last = {place: self._last[place] for place in places}
        trial._newest = {place: self._newest[place] for place in places}
        for verdict in verdicts:
            trial._take(Said.of(verdict))
        return {place for place in places if trial._last[place].word == self._last[place].word}

    def _is_filled_in(self, earlier: Said, later: Said) -> bool:
        """Tell whether an expert now labels what they had left: a new answer, no contradiction."""
        is_new = later.word not in self._ever
        is_older = bool(later.time) and later.time < self._newest[earlier.key, earlier.expert]
        return is_new and not is_older and earlier.label == SKIP

    def _decide(
        self, earlier: Said, later: Said, within: bool, on_conflict: OnConflict
    ) -> tuple[str, str]:
        """Return which of two words counts, and by what."""
        newest = self._newest[earlier.key, earlier.expert]
        differ = bool(later.time and newest) and later.time != newest
        # A word without a time may have replaced one with a time since.
        if differ and (earlier.time or later.time < newest):
            return (LATER if later.time > newest else EARLIER), BY_TIME
        if within:
            return LATER, BY_ORDER
        pulled = [_PULLED.search(said.source.replace("\\", "/")) for said in (earlier, later)]
        if all(pulled) and len({found[1] for found in pulled if found}) == 1:
            return LATER, BY_PULL
        if on_conflict == ASK:
            return "", ""
        return (LATER if on_conflict == REPLACE else EARLIER), BY_FLAG

    def _take(self, said: Said) -> None:
        place = said.key, said.expert
        self._ever.add(said.word)
        newest = self._newest.get(place, "")
        if not (said.time and said.time < newest):
            self._last[place] = said
            self._newest[place] = said.time or newest


def remembered(
    workspace: Workspace, manifests: Mapping[int, Manifest[VerdictsFacts]]
) -> Iterator[Said]:
    """Yield all that was imported, in order."""
    for _, manifest in sorted(manifests.items()):
        for file in files_of(manifest, SAID):
            for line in files.read(workspace.root, file).splitlines():
                yield Said(**json.loads(line))


def forgotten(manifests: Mapping[int, Manifest[VerdictsFacts]]) -> int:
    """Return how many imports have verdicts and nothing that remembers them: an earlier version's."""
    return sum(
        sum(bool(entry.verdicts) for entry in manifest.facts.imports)
        > len(files_of(manifest, SAID))
        for manifest in manifests.values()
    )


def answers_of(verdicts: Sequence[Verdict]) -> str:
    """Return a hash of the answers in a file, however it was saved; "" when it holds none.

    Order of rows, line ends, quotes, separators, encoding and how names are spelled count for nothing.
    """
    said = sorted(
        {(v.key, v.expert, v.label, v.time, " ".join(v.comment.split())) for v in verdicts}
    )
    return digest(json.dumps(said)) if said else ""


def listing(
    found: Iterable[Contradiction],
    shown: Mapping[str, str],
    names: Mapping[str, str],
) -> bytes:
    """Return contradictions as a CSV file for people.

    Args:
        found: the contradictions.
        shown: content key -> the ad's text.
        names: ``positive`` and ``negative`` -> what the task calls them.
    """
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for each in found:
        earlier, later = each.earlier, each.later
        writer.writerow(
            map(
                safe_cell,
                (
                    later.expert,
                    later.ad_id,
                    shown.get(later.key, "")[:_MAX_TEXT_CHARS],
                    names.get(earlier.label, earlier.label),
                    earlier.time,
                    earlier.source,
                    earlier.position,
                    names.get(later.label, later.label),
                    later.time,
                    later.source,
                    later.position,
                    each.counts or "undecided",
                    each.decided_by,
                    "yes" if each.said_before else "no",
                ),
            )
        )
    return b"\xef\xbb\xbf" + sink.getvalue().encode()


def _word(key: str, expert: str, label: str) -> str:
    return digest(f"{key}\n{expert}\n{label}")[:_WORD_CHARS]
