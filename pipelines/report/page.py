"""The report: one HTML file with its pictures inside, and the pictures beside it.

Drawn from what a workspace holds already: manifests, pairs, clusters and scored blocks. No verdict is
read, of neither half; kappas are those that ``train`` wrote down. The same workspace gives the same
bytes. Ads, names from the task file and paths are hostile input: the template escapes everything, the
page holds no script, a Content-Security-Policy forbids all but its own style and pictures, and what an
ad holds of invisible characters is shown as marks.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib
import io
import itertools
import json
import re
import struct
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from pipelines.console.summary import printable
from pipelines.contracts import BlockFile, ReviewItem
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.status import standing
from pipelines.numerics import calibration, hashing, kmeans
from pipelines.numerics.hashing import below, sample_limit
from pipelines.numerics.projection import Plane, pca_plane
from pipelines.report import figures
from pipelines.store import blocks, files, storage
from pipelines.store.facts import ClustersFacts, PairsFacts, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace

FOLDER, FILE = "report", "report.html"
PROJECTIONS = ("pca", "umap")
TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "report"
SAMPLE_ADS = 20_000
# What a round's report may hold; one that lacks a picture takes away an older one of that name.
ROUND_PICTURES = tuple(
    f"report-{part}.png" for part in ("map", "clusters", "pairs", "coverage", "agreement", "scores")
)
# More outlines than this hide one another.
OUTLINED = 6
TOP_PAIRS = 10
# Of an ad so much is shown; what else it says stands in pairs.jsonl.
AD_CHARS = 700
_LABELS = ("positive", "negative")
_SETS = ("natural", "balanced", "evaluation")
_SET_NAMES = {
    "natural": "natural prevalence",
    "balanced": "class-balanced",
    "evaluation": "evaluation half",
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Everything ``scout report`` was told.

    Attributes:
        workspace: folder, local or ``gs://``.
        out: folder for the report, local or ``gs://``; "" for ``report`` in the workspace.
        round: the round to show, or None for the newest with pairs.
        projection: ``pca`` or ``umap``.
        sample: ads drawn on the maps at most; those of the round's pairs are always among them.
    """

    workspace: str
    out: str = ""
    round: int | None = None
    projection: str = "pca"
    sample: int = SAMPLE_ADS

    def __post_init__(self) -> None:
        if self.projection not in PROJECTIONS:
            raise UsageError(
                f"--projection {self.projection}: unknown; choose {' or '.join(PROJECTIONS)}"
            )
        if self.sample < 1:
            raise ValueError(f"sample must be at least 1 ad, got {self.sample}")


@dataclass(frozen=True, slots=True)
class Report:
    """What was written.

    Attributes:
        path: of the HTML file.
        pictures: paths of the PNG files.
        summary: what is in it; JSON values.
    """

    path: str
    pictures: tuple[str, ...]
    summary: dict[str, Any]


# --- what the template takes ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with the words that go with it.

    Attributes:
        name: file name beside the report, without folder.
        png: the file's bytes.
        alt: what it shows, with its key numbers, for who does not see it.
        caption: what is to be seen.
    """

    name: str
    png: bytes
    alt: str
    caption: str

    @property
    def base64(self) -> str:
        """The file as text."""
        return base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """Pixels, from the file's head (PNG specification, IHDR)."""
        return int(struct.unpack(">I", self.png[16:20])[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(struct.unpack(">I", self.png[20:24])[0])


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of a list of facts."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first cell of a row names the row."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a shown text: plain, or (with ``spoken``) a mark in place of what hides."""

    text: str
    spoken: str = ""


@dataclass(frozen=True, slots=True)
class ShownAd:
    """One ad of a pair: its label's side, the model's words about it, and its text."""

    label: str
    title: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair as text."""

    title: str
    about: str
    ads: tuple[ShownAd, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report; ``missing`` says what it lacks and which command gives it."""

    id: str
    title: str
    pictures: tuple[Picture, ...] = ()
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[Fact, ...] = ()
    pairs: tuple[ShownPair, ...] = ()
    missing: str = ""


def page(title: str, summary: Sequence[Fact], sections: Sequence[Section]) -> bytes:
    """Return the HTML file: the same parts give the same bytes."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template("report.html").render(
        csp="; ".join(f"{name} {value}" for name, value in policy.items()),
        title=title,
        # The project's own file, the only text that is not escaped.
        style=markupsafe.Markup(style),  # noqa: S704
        summary=summary,
        sections=sections,
    )
    return text.encode()


# --- hostile text -----------------------------------------------------------------------------

_MARK_NAMES = {
    0x7F: "DEL", 0x85: "NEL", 0xAD: "SHY", 0x34F: "CGJ", 0x61C: "ALM", 0x200B: "ZWSP", 0x200C: "ZWNJ",
    0x200D: "ZWJ", 0x200E: "LRM", 0x200F: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202A: "LRE",
    0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO", 0x2060: "WJ", 0x2066: "LRI",
    0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xFEFF: "BOM",
}  # fmt: skip
# Letters and marks that show nothing, by Unicode's Default_Ignorable_Code_Point and its blanks.
_BLANKS = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
_SELECTORS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0000, 0xE1000))
# Scripts that are written with joiners: one after such a letter is spelling, not hiding.
_JOINED = {
    "ARABIC", "SYRIAC", "MANDAIC", "NKO", "MONGOLIAN", "DEVANAGARI", "BENGALI", "GURMUKHI",
    "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "KHMER", "MYANMAR",
}  # fmt: skip
_JOINERS, _PICTURED = "\u200c\u200d", "\ufe0e\ufe0f"
_BREAKS = "\r\x85\u2028\u2029"
# More marks on one letter than any script needs climb over the lines around it.
_STACK_SHOWN = 6


def visible(text: str, limit: int = AD_CHARS) -> tuple[Piece, ...]:
    """Return a text as pieces: what is invisible, turns text around or piles up becomes a mark.

    Args:
        text: any string, lone surrogates included.
        limit: characters shown at most; a last mark says how many more there are.

    Returns:
        At least one piece. No plain piece holds a control, format, private, unassigned or surrogate
        character, but for line feed, tab, and joiners and selectors where spelling needs them.
    """
    cut = text.replace("\r\n", "\n")
    shown = cut[:limit]
    pieces: list[Piece] = []
    plain = ""

    def mark(label: str, spoken: str) -> None:
        nonlocal plain
        if plain:
            pieces.append(Piece(plain))
        plain = ""
        pieces.append(Piece(label, spoken))

    kinds = [_kind(shown, place) for place in range(len(shown))]
    after_mark = False
    runs = itertools.groupby(zip(kinds, shown, strict=True), key=lambda item: _run_key(*item))
    for (kind, char), group in runs:
        run = "".join(found for _, found in group)
        if kind == "hidden":
            name = _mark_name(char)
            if len(run) > 1:
                mark(f"{name} ×{len(run)}", f"{len(run)} invisible characters {name}")
            else:
                mark(name, f"invisible character {name}")
            if char in _BREAKS:
                plain += "\n"
        elif kind == "stacked":
            # Marks behind something hidden would sit on its box.
            kept = 0 if after_mark else _STACK_SHOWN
            plain += run[:kept]
            if run[kept:]:
                mark(f"+{len(run) - kept}", f"{len(run) - kept} more combining marks")
        else:
            plain += run
        after_mark = kind == "hidden"
    if len(cut) > limit:
        mark("…", f"{len(cut) - limit:,} more characters")
        plain = f" {len(cut) - limit:,} more characters"
    if plain:
        pieces.append(Piece(plain))
    return tuple(pieces) or (Piece("no text", "no text"),)


def _run_key(kind: str, char: str) -> tuple[str, str]:
    return kind, char if kind == "hidden" else ""


def _kind(text: str, place: int) -> str:
    """Return what becomes of a character: ``plain``, ``stacked`` (on the one before) or ``hidden``."""
    char = text[place]
    if char in "\n\t":
        return "plain"
    category, code = unicodedata.category(char), ord(char)
    ignorable = code in _BLANKS or any(code in codes for codes in _SELECTORS)
    if category[0] == "C" or category in ("Zl", "Zp") or ignorable:
        return "plain" if _is_spelling(text, place) else "hidden"
    return "stacked" if category in ("Mn", "Me") else "plain"


def _is_spelling(text: str, place: int) -> bool:
    """Tell whether a joiner or selector belongs to an emoji or to a script that needs it."""
    char = text[place]
    before = text[place - 1] if place else ""
    after = text[place + 1] if place + 1 < len(text) else ""
    if not before:
        return False
    pictured = unicodedata.category(before)[0] == "S"
    if char in _PICTURED:
        return pictured or before in "0123456789#*‼⁉"
    if char not in _JOINERS or not after or after in _JOINERS:
        return False
    if unicodedata.name(before, "").split(" ")[0] in _JOINED:
        return True
    joins = char == "\u200d" and unicodedata.category(after) == "So"
    return joins and (pictured or before in _PICTURED)


def _mark_name(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        # Unicode has a picture for each of these, whose name ends in what it stands for.
        return unicodedata.name(chr(0x2400 + code)).removeprefix("SYMBOL FOR ").upper()
    return _MARK_NAMES.get(code, f"U+{code:04X}")


# --- a workspace's report ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Round:
    """What a round's manifests say.

    Attributes:
        number: the round.
        known: all rounds with pairs.
        names: what the task called ``positive`` and ``negative``, safe to show.
        drawn: the same as the pictures show them.
        definition: the task as the round was mined with.
        pairs: manifest of the pairs.
        chosen: the pairs in review order, as ``pairs.jsonl`` holds them.
        clusters: manifest of the clusters that the pairs come from; None if it is gone.
        scored: manifest of the ads that were clustered; None if it, or a block of it, is gone.
    """

    number: int
    known: tuple[int, ...]
    names: Mapping[str, str]
    drawn: figures.Names
    definition: Mapping[str, Any]
    pairs: Manifest[PairsFacts]
    chosen: Sequence[Mapping[str, Any]]
    clusters: Manifest[ClustersFacts] | None
    scored: Manifest[ScoredFacts] | None


@dataclass(frozen=True, slots=True)
class _Sample:
    """The ads on the maps, and the scores of all ads.

    Attributes:
        histogram: int64 (N_BINS,), of all ads.
        ads: how many they are.
        positives: how many of them are called positive.
        points: float32 (n, 2).
        positive: bool (n,).
        cluster: int32 (n,), within the row's own label.
        pairs: int (m, 2), rows of each pair's positive and negative ad.
        overlaps: (positive cluster, negative cluster) of the cluster pairs searched, best first.
        explained: share of the vectors' variance on the plane; None where there is no such share.
    """

    histogram: np.ndarray
    ads: int
    positives: int
    points: np.ndarray
    positive: np.ndarray
    cluster: np.ndarray
    pairs: np.ndarray
    overlaps: tuple[tuple[int, int], ...]
    explained: float | None


def report(options: ReportOptions, say: Say) -> Report:
    """Write the report of a workspace; an older one in the same folder is replaced.

    Args:
        options: see :class:`ReportOptions`.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: no pairs, no such round, a folder that cannot be written, UMAP not installed.
        RunFailed: something in the workspace is damaged.

    Memory: about 26 bytes a dimension of each of ``sample`` ads, and one scored block at a time.
    Measured: 100,000 ads of 384 dimensions in 3.4 s and 630 MB, of which 320 are the libraries; UMAP
    takes a minute and 1.5 GB.
    """
    workspace = Workspace(options.workspace)
    projector = _projector(options.projection)
    found = _read_round(workspace, options.round)
    folder = _folder(options.out or workspace.path(FOLDER))
    stand = standing(workspace)
    missing = _why_no_sample(workspace, found)
    sample = None
    if not missing:
        sample = _draw_sample(workspace, found, options, projector)
        say(
            f"round {found.number}: {len(sample.points):,} of {sample.ads:,} ads drawn, by "
            f"{options.projection.upper()}"
        )
    entries = [e for e in stand["rounds"] if e["task_version"] == _version(found)]
    sections = [
        *_maps(found, sample, missing),
        _coverage(found),
        _agreement(entries, found, stand),
        _scale(stand, found),
        _scores(found, sample, missing),
        _top_pairs(found),
        _provenance(workspace, found),
    ]
    facts = _headline(found, sample, entries, stand, options.projection)
    title = f"ad-scout report: {_word(found.definition['name'])}, round {found.number}"
    return _write(
        folder,
        page(title, facts, sections),
        sections,
        {
            "task": found.definition["name"],
            "round": found.number,
            "rounds": list(found.known),
            "ads": sample.ads if sample else None,
            "drawn": len(sample.points) if sample else 0,
            "projection": options.projection,
            "explained": sample.explained if sample else None,
            "pairs": len(found.chosen),
            "covered_share": found.pairs.facts.covered_share,
            "missing": {s.id: s.missing for s in sections if s.missing},
            "next": stand["next"],
        },
        say,
    )


def _read_round(workspace: Workspace, wanted: int | None) -> _Round:
    pairs = workspace.pairs_of(wanted)
    number, known = pairs.round, tuple(workspace.pairs.by_round())
    definition = pairs.facts.origin.task.model_dump(mode="json")
    labels = definition["labels"]
    # Not the newest: a run that was killed may have left clusters whose pairs never came.
    clusters = workspace.clusters.find(number, pairs.config_hash)
    return _Round(
        number=number,
        known=known,
        names={label: _word(labels[label]) for label in _LABELS},
        drawn=figures.Names(*(figures.drawable(labels[label], label) for label in _LABELS)),
        definition=definition,
        pairs=pairs,
        chosen=[_as_pair(item) for item in workspace.read_items(pairs)],
        clusters=clusters,
        scored=_scored_of(workspace, number, clusters) if clusters else None,
    )


def _scored_of(
    workspace: Workspace, number: int, clusters: Manifest[ClustersFacts]
) -> Manifest[ScoredFacts] | None:
    """Return the newest whole scored attempt that these clusters may come from.

    Another corpus in the same round has the same score key, but hardly the same number of ads; and
    what is drawn is checked against the pairs.
    """
    rows = clusters.facts.threshold.n_positive + clusters.facts.threshold.n_negative
    sizes = workspace.block_sizes()
    fitting = (
        manifest
        for manifest in reversed(workspace.scored.all(number))
        if manifest.facts.origin.score_key == clusters.facts.origin.score_key
        and manifest.rows == rows
        and workspace.is_whole(manifest.files, sizes)
    )
    return next(fitting, None)


def _why_no_sample(workspace: Workspace, found: _Round) -> str:
    if found.clusters is None:
        return (
            f"The clusters of round {found.number} are no longer in the workspace, so nothing can be "
            "drawn from them. Mining again in a new workspace gives them back."
        )
    if found.scored is None:
        return (
            f"The scored ads of round {found.number} are no longer all in {workspace.root}/rounds, so "
            "they cannot be drawn. Mining again in a new workspace gives them back."
        )
    return ""


def _projector(name: str) -> Callable[[np.ndarray, int], Plane]:
    """Return what puts unit vectors on a plane; before anything is read, for UMAP may be missing."""
    if name == "pca":
        return lambda vectors, _: pca_plane(vectors)
    try:
        umap: Any = importlib.import_module("umap")
    except ImportError as error:
        raise UsageError(
            f"--projection umap: {error}; `pip install umap-learn`, or leave it out for PCA"
        ) from error

    def project(vectors: np.ndarray, seed: int) -> Plane:
        # UMAP's graph needs more rows than neighbours, and its spectral start some more.
        if len(vectors) <= _UMAP_NEIGHBORS:
            return pca_plane(vectors)
        # From PCA's plane: a spectral start throws small groups of alike ads far away, and the rest is
        # then one dot. One job: with several, a seed does not fix the result.
        model = umap.UMAP(n_neighbors=_UMAP_NEIGHBORS, init="pca", random_state=seed, n_jobs=1)
        return Plane(np.asarray(model.fit_transform(vectors), dtype=np.float32), (0.0, 0.0))

    return project


_UMAP_NEIGHBORS = 15


def _draw_sample(
    workspace: Workspace,
    found: _Round,
    options: ReportOptions,
    project: Callable[[np.ndarray, int], Plane],
) -> _Sample:
    assert found.clusters is not None
    assert found.scored is not None
    seed = found.definition["seed"]
    ends = [[pair[label]["key"] for label in _LABELS] for pair in found.chosen]
    always = frozenset(itertools.chain.from_iterable(ends))
    histogram, table = _gather(workspace, found.scored, always, options.sample, seed)
    row = {key: place for place, key in enumerate(table.column("key").to_pylist())}
    lost = sorted(always - row.keys())
    if lost:
        raise RunFailed(
            f"{workspace.path(found.scored.attempt)}: an ad of round {found.number}'s pairs (key "
            f"{lost[0]}) is not among its scored ads; the corpus was changed in the middle of the "
            "round: mine it again"
        )
    centroids = _read_centroids(workspace, found.clusters)
    vectors = kmeans.project(centroids.space, blocks.vectors(table))
    margins = table.column("margin").to_numpy()
    positive = margins >= np.float32(found.clusters.facts.threshold.margin)
    cluster = np.zeros(len(vectors), dtype=np.int32)
    for side, centers in ((True, centroids.positive), (False, centroids.negative)):
        members = np.flatnonzero(positive == side)
        if len(members):
            cluster[members] = kmeans.assign(vectors[members], centers)[0]
    plane = project(vectors, seed)
    lines = files.read(workspace.root, found.clusters.file("overlaps.jsonl")).splitlines()
    overlaps = [json.loads(line) for line in lines]
    return _Sample(
        histogram=histogram,
        ads=found.scored.rows,
        positives=found.clusters.facts.threshold.n_positive,
        points=plane.points,
        positive=positive,
        cluster=cluster,
        pairs=np.array([[row[key] for key in keys] for keys in ends]).reshape(-1, 2),
        overlaps=tuple((overlap["positive"], overlap["negative"]) for overlap in overlaps),
        explained=plane.explained if options.projection == "pca" else None,
    )


def _gather(
    workspace: Workspace,
    scored: Manifest[ScoredFacts],
    always: frozenset[str],
    wanted: int,
    seed: int,
) -> tuple[np.ndarray, pa.Table]:
    """Read all blocks once: the exact histogram, and a hash sample with the rows of ``always``.

    Returns:
        int64 (N_BINS,) and a table of key, margin and vector, sorted by key; at most ``wanted``
        rows, more only where ``always`` alone are more.
    """
    histogram = np.zeros(calibration.N_BINS, dtype=np.int64)
    limit = sample_limit(wanted, scored.rows)
    kept = []
    for file in scored.files:
        table = _read(workspace, file)
        histogram += calibration.margin_histogram(table.column("margin").to_numpy())
        keys = table.column("key").to_pylist()
        asked = np.fromiter((key in always for key in keys), bool, len(keys))
        near = below(hashing.ranks(keys, seed), limit)
        kept.append(table.filter(pa.array(asked | near)))
    joined = pa.concat_tables(kept).combine_chunks()
    keys = joined.column("key").to_pylist()
    others = np.fromiter((key not in always for key in keys), bool, len(keys))
    # The ads of the pairs first, the rest by rank.
    order = np.lexsort((hashing.ranks(keys, seed), others))
    rows = order[: max(wanted, len(keys) - int(others.sum()))]
    return histogram, blocks.sort_by_key(joined.take(pa.array(rows)).combine_chunks())


def _read(workspace: Workspace, file: BlockFile) -> pa.Table:
    try:
        return blocks.read_columns(workspace.root, file, ["key", "margin", "vector"])
    except RunFailed as error:
        raise RunFailed(f"{error.message} (by `scout mine`; then report again)") from error


@dataclass(frozen=True, slots=True)
class _Centroids:
    space: kmeans.VectorSpace
    positive: np.ndarray
    negative: np.ndarray


def _read_centroids(workspace: Workspace, clusters: Manifest[ClustersFacts]) -> _Centroids:
    file = clusters.file("centroids.npz")
    try:
        with np.load(io.BytesIO(files.read(workspace.root, file)), allow_pickle=False) as found:
            mean, scale = found["mean"], found["scale"]
            space = kmeans.VectorSpace(mean, scale) if mean.size else kmeans.VectorSpace(None, None)
            return _Centroids(space, found["positive"], found["negative"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunFailed(
            f"{workspace.path(file.path)}: not the centroids that were written ({error}); mine in a new workspace"
        ) from error


# --- its sections -----------------------------------------------------------------------------


def _maps(found: _Round, sample: _Sample | None, missing: str) -> tuple[Section, ...]:
    titles = {
        "map": "Map of the scored ads",
        "clusters": "Clusters that overlap",
        "pairs": "The chosen pairs on the map",
    }
    if sample is None:
        return tuple(Section(id, title, missing=missing) for id, title in titles.items())
    drawn = _drawn_on(sample)
    share = sample.positives / sample.ads
    called = (
        f"{sample.positives:,} ({share:.1%}) of the {sample.ads:,} ads are called "
        f"{found.names['positive']}"
    )
    explained = _explained(sample)
    picture = figures.ad_map(sample.points, sample.positive, found.drawn)
    first = Section(
        "map",
        titles["map"],
        pictures=(
            Picture(
                "report-map.png",
                picture,
                alt=f"Scatter plot, {drawn}: {called} (orange triangles), the others "
                f"{found.names['negative']} (blue circles).",
                caption=f"Each point is an ad, {drawn}: blue circles are called "
                f"{found.names['negative']}, orange triangles {found.names['positive']}; {called}. "
                "Where the two mix, near ads got different labels.",
            ),
        ),
        paragraphs=(_naming(found), explained) if _naming(found) else (explained,),
    )
    return (
        first,
        _cluster_section(found, sample, titles["clusters"]),
        _pair_section(found, sample, titles["pairs"]),
    )


def _cluster_section(found: _Round, sample: _Sample, title: str) -> Section:
    assert found.clusters is not None
    facts, shown = found.clusters.facts, sample.overlaps[:OUTLINED]
    clusters = (
        f"{facts.positive_clusters:,} clusters of {found.names['positive']} ads and "
        f"{facts.negative_clusters:,} of {found.names['negative']} ones"
    )
    listed = "; ".join(
        f"{place}: {found.names['positive']} {p} and {found.names['negative']} {n}"
        for place, (p, n) in enumerate(shown, start=1)
    )
    picture = figures.cluster_map(
        sample.points, sample.positive, sample.cluster, shown, found.drawn
    )
    return Section(
        "clusters",
        title,
        pictures=(
            Picture(
                "report-clusters.png",
                picture,
                alt=f"The map with the clusters of the {len(shown)} highest ranked overlaps outlined, "
                f"of {len(sample.overlaps):,} that pairs were looked for in. {listed}.",
                caption=f"Of {clusters}, {len(sample.overlaps):,} cluster pairs of opposite labels mix "
                f"enough to look for pairs in. The {len(shown)} that mix most are outlined and "
                f"numbered by rank: {found.names['positive']} in full orange lines, "
                f"{found.names['negative']} in dashed blue ones, each about two thirds of its ads. "
                f"Clusters by their numbers in overlaps.jsonl: {listed}.",
            ),
        ),
    )


def _pair_section(found: _Round, sample: _Sample, title: str) -> Section:
    exploration = np.array([pair["source"] == "exploration" for pair in found.chosen], dtype=bool)
    distances = [pair["distance"] for pair in found.chosen]
    middle = f"; their median distance is {np.median(distances):.3f}" if distances else ""
    picture = figures.pair_map(sample.points, sample.pairs, exploration, found.drawn)
    return Section(
        "pairs",
        title,
        pictures=(
            Picture(
                "report-pairs.png",
                picture,
                alt=f"The map in grey with {len(found.chosen):,} pairs as lines between their two "
                f"ads, {int(exploration.sum()):,} of them drawn at random{middle}.",
                caption=f"Each line joins the two ads of a pair, called {found.names['positive']} "
                f"(triangle) and {found.names['negative']} (circle): {len(found.chosen):,} pairs, "
                f"{int(exploration.sum()):,} of them drawn at random (dotted){middle} "
                f"(unit vectors, 0 to 2). Grey: the other ads, {_drawn_on(sample)}. A line that is "
                "long here may be short in all dimensions.",
            ),
        ),
    )


def _drawn_on(sample: _Sample) -> str:
    if len(sample.points) == sample.ads:
        return f"drawn on all {sample.ads:,} ads"
    return f"drawn on {len(sample.points):,} of {sample.ads:,} ads"


def _explained(sample: _Sample) -> str:
    if sample.explained is None:
        return (
            "The plane is UMAP's: neighbours mostly stay neighbours, distances between groups and "
            "their sizes mean nothing."
        )
    return (
        f"The plane is spanned by the vectors' two main directions (PCA), which hold "
        f"{sample.explained:.0%} of their variance: ads that are far apart here differ, ads that are "
        "near here need not be alike."
    )


def _naming(found: _Round) -> str:
    changed = [
        f"{label} stands for {found.names[label]}"
        for label, drawn in zip(_LABELS, (found.drawn.positive, found.drawn.negative), strict=True)
        if drawn == label and found.names[label] != label
    ]
    if not changed:
        return ""
    return f"The pictures' font cannot draw a label's name: in them {' and '.join(changed)}."


def _coverage(found: _Round) -> Section:
    boundary = found.pairs.facts.boundary
    budget = found.definition["selection"]["budget"]
    shares = [pair["cumulative_share"] for pair in found.chosen]
    n_explored = sum(pair["source"] == "exploration" for pair in found.chosen)
    half = next((i for i, share in enumerate(shares, 1) if share >= shares[-1] / 2), 0)
    if boundary is None:
        why = "The strategy that chose this round's ads measures no coverage."
        return Section("coverage", "Coverage against budget", missing=why)
    found_text = (
        f"{len(shares):,} pairs of a budget of {budget:,} cover {boundary.covered_share:.1%} of the "
        "corpus's weight"
    )
    if not shares:
        return Section(
            "coverage",
            "Coverage against budget",
            missing="No pair was chosen in this round: no candidate was left, or the budget is 0. "
            "`scout mine` with a higher prior or a larger corpus finds more.",
        )
    return Section(
        "coverage",
        "Coverage against budget",
        pictures=(
            Picture(
                "report-coverage.png",
                figures.coverage_curve(shares, n_explored, budget),
                alt=f"Curve of the corpus weight covered by the first pairs: {found_text}; the first "
                f"{half:,} cover half of that.",
                caption=f"{found_text}, the first {half:,} of them half of that. An ad covers those of "
                f"the same two clusters that lie nearer than {boundary.cover_radius:.3f}. The "
                f"{n_explored:,} pairs of exploration are drawn at random, to measure, not to cover. "
                "Where the curve flattens, more pairs of this round would teach little new.",
            ),
        ),
    )


def _agreement(
    entries: Sequence[Mapping[str, Any]], found: _Round, stand: Mapping[str, Any]
) -> Section:
    id, title = "agreement", "Agreement of model and experts by round"
    newest = _newest_report(entries)
    if newest is None:
        labelled = any(entry["labelled"] for entry in entries)
        lacks = "no model is trained yet" if labelled else "no expert has labelled yet"
        return Section(id, title, missing=f"Nothing to compare: {lacks}. Next: {stand['next']}.")
    models = [_estimate(_model_name(m["round"]), m["kappa"]) for m in newest["models"]]
    experts = _estimate("experts among themselves", newest["expert_kappa"])
    share = newest["positive_share"]
    balance = "" if share is None else f", {share:.0%} of their verdicts positive"
    basis = f"{newest['ads']:,} evaluation ads, {newest['experts']:,} experts{balance}"
    listed = "; ".join(
        f"{_model_name(m['round'])} {kappa_text(m['kappa'])}" for m in newest["models"]
    )
    among = kappa_text(newest["expert_kappa"])
    band = "" if experts.low is None else ", the light band its interval"
    older = [e["round"] for e in stand["rounds"] if e["task_version"] != _version(found)]
    paragraphs = [f"By the stopping rule: {_word(newest['decision']['reason'], 600)}."]
    if older:
        paragraphs.append(
            f"Not shown: round {', '.join(map(str, older))}, mined for another version of the policy; "
            "kappas of different versions do not compare."
        )
    if all(m.value is None for m in models):
        return Section(
            id,
            title,
            paragraphs=tuple(paragraphs),
            missing=f"Every kappa of the models is undefined on the {basis}. {listed}. Experts among "
            f"themselves: {among}.",
        )
    return Section(
        id,
        title,
        pictures=(
            Picture(
                "report-agreement.png",
                figures.agreement_by_round(models, experts),
                alt=f"Cohen's kappa of each model with the experts, on the same {basis}: {listed}. "
                f"Experts among themselves (dashed line): {among}.",
                caption=f"Cohen's kappa with 95% intervals, every model on the same {basis}. The dashed "
                f"line is what the experts reach among themselves{band}: {among}. Whether a model "
                "is at parity is told by the interval of the difference, not by bars that meet the "
                "line; a kappa compares with others at a like share of positives only.",
            ),
        ),
        paragraphs=tuple(paragraphs),
    )


def _scale(stand: Mapping[str, Any], found: _Round) -> Section:
    """Return the table of data scale and quality: labels, balance and kappas of each round."""
    rows = []
    for entry in stand["rounds"]:
        name = f"round {entry['round']}"
        if entry["task_version"] != _version(found):
            name += f" (policy version {entry['task_version']}, does not compare)"
        model, labelled = entry["model"], entry["labelled"]
        cells = [name, f"{entry['pairs']:,}"]
        if model:
            labels, evaluation = model["labels"], model["evaluation"]
            own = next(m for m in evaluation["models"] if m["round"] == entry["round"])
            cells += [
                f"{labels['fine_tuning']:,}",
                _share(labels["fine_tuning_positive"], labels["fine_tuning"]),
                f"{evaluation['ads']:,}",
                _percent(evaluation["positive_share"]),
                kappa_text(evaluation["expert_kappa"]),
                kappa_text(own["kappa"]),
            ]
        elif labelled:
            cells += [f"+{labelled['fine_tuning']:,}", "-", f"+{labelled['evaluation']:,}"]
            cells += ["-", "not trained yet", "not trained yet"]
        else:
            cells += ["-"] * 4 + ["not labelled yet"] * 2
        rows.append(tuple(cells))
    tables = [
        Table(
            "After each round, with the evaluation ads there were then (fine-tuning ads are those "
            "with a settled label; + counts what the round brought in)",
            (
                "round",
                "pairs",
                "fine-tuning ads",
                "positive",
                "evaluation ads",
                "positive",
                "experts among themselves, kappa",
                "model and experts, kappa",
            ),
            tuple(rows),
        )
    ]
    entries = [e for e in stand["rounds"] if e["task_version"] == _version(found)]
    newest = _newest_report(entries)
    if newest:
        tables.append(_model_table(entries, newest))
    return Section("scale", "Data scale and quality by condition", tables=tuple(tables))


def _model_table(entries: Sequence[Mapping[str, Any]], newest: Mapping[str, Any]) -> Table:
    labels = {e["round"]: e["model"]["labels"] for e in entries if e["model"]}
    rows = []
    for model in newest["models"]:
        trained = labels.get(model["round"])
        majority = model["kappa_with_majority"]
        rows.append(
            (
                _model_name(model["round"]),
                f"{trained['fine_tuning']:,}" if trained else "none",
                _share(trained["fine_tuning_positive"], trained["fine_tuning"]) if trained else "-",
                _percent(model["positive_share"]),
                kappa_text(model["kappa"]),
                _value_text(majority["value"], majority["reason"]),
            )
        )
    alpha = newest["krippendorff_alpha"]
    among = kappa_text(newest["expert_kappa"])
    return Table(
        f"Every model on the newest {newest['ads']:,} evaluation ads; experts among themselves: kappa "
        f"{among}, Krippendorff's alpha {_value_text(alpha['value'], alpha['reason'])}",
        (
            "model",
            "training labels",
            "positive among them",
            "calls positive",
            "kappa with experts (mean over experts)",
            "kappa with their majority (usually higher)",
        ),
        tuple(rows),
    )


def _scores(found: _Round, sample: _Sample | None, missing: str) -> Section:
    id, title = "scores", "Scores and threshold"
    if sample is None:
        return Section(id, title, missing=missing)
    assert found.clusters is not None
    facts = found.clusters.facts
    margin, probability = facts.threshold.margin, round(facts.threshold.probability, 6)
    source = {
        "prior": "the quantile that matches the prior",
        "fixed": "a probability that the task names",
        "fitted": "fitted on the experts' labels",
    }.get(facts.threshold.source, _word(facts.threshold.source))
    split = (
        f"{sample.positives:,} of {sample.ads:,} ads ({sample.positives / sample.ads:.1%}) score at or "
        f"above the threshold, p = {probability:.4g}"
    )
    return Section(
        id,
        title,
        pictures=(
            Picture(
                "report-scores.png",
                figures.score_histogram(sample.histogram, margin, found.drawn),
                alt=f"Histogram of the scores of all {sample.ads:,} ads: {split}, and are called "
                f"{found.names['positive']}.",
                caption=f"All {sample.ads:,} ads by the model's score. {split} (dashed), and are called "
                f"{found.names['positive']} (hatched orange). The threshold is {source}. Scores rank "
                "well and are badly calibrated: p is no share of what experts would say.",
            ),
        ),
        paragraphs=_searched(found, sample),
    )


def _searched(found: _Round, sample: _Sample) -> tuple[str, ...]:
    """Say how near to the threshold the round's pairs were looked for, and how near they came."""
    assert found.clusters is not None
    # An earlier version had no band.
    names, band = found.names, found.definition["selection"].get("band", 1.0)
    chosen = [pair for pair in found.chosen if pair["source"] != "exploration"]
    asked = (
        "Pairs were looked for among all ads (selection.band is 1)."
        if band == 1
        else f"Pairs were looked for among the ads nearest to the threshold: {100 * band:g}% of those called "
        f"{names['positive']} and as many of the others (selection.band), or more where these would "
        "be too few to choose from."
    )
    if not chosen:
        return (asked,)
    ends = {
        label: sorted((pair[label]["margin"], pair[label]["probability"]) for pair in chosen)
        for label in _LABELS
    }
    highest, lowest = ends["positive"][-1][0], ends["negative"][0][0]
    margins = (np.arange(calibration.N_BINS) - calibration.N_BINS // 2) * calibration.MARGIN_STEP
    threshold = found.clusters.facts.threshold.margin
    near = {
        "positive": int(sample.histogram[(margins >= threshold) & (margins <= highest)].sum()),
        "negative": int(sample.histogram[(margins < threshold) & (margins >= lowest)].sum()),
    }
    of = {"positive": sample.positives, "negative": sample.ads - sample.positives}
    parts = [
        f"those called {names[label]} score p = {ends[label][0][1]:.4g} to {ends[label][-1][1]:.4g} "
        f"({near[label]:,} of all {of[label]:,} are that near to the threshold)"
        for label in _LABELS
    ]
    apart = (
        " The pairs drawn at random keep to no such limit."
        if len(chosen) < len(found.chosen)
        else ""
    )
    return (asked, f"In the {len(chosen):,} pairs chosen there, {' and '.join(parts)}.{apart}")


def _top_pairs(found: _Round) -> Section:
    shown = found.chosen[:TOP_PAIRS]
    if not shown:
        return Section("top", "The first pairs", missing="No pair was chosen in this round.")
    return Section(
        "top",
        "The first pairs",
        pairs=tuple(_shown_pair(pair, found.names) for pair in shown),
        paragraphs=(
            f"The first {len(shown)} of {len(found.chosen):,} pairs in review order, with the model's "
            "labels: not for experts who still have to label them. Characters that would be "
            f"invisible are shown as marks; of a long ad the first {AD_CHARS} characters.",
        ),
    )


def _as_pair(item: ReviewItem) -> dict[str, Any]:
    # Until the sections take review items themselves.
    overlap = dataclasses.asdict(item.overlap) if item.overlap else {"mutual": False}
    ads = {ad.label: dataclasses.asdict(ad) for ad in item.ads}
    return {**dataclasses.asdict(item), "cumulative_share": 0.0, **overlap, **ads}


def _shown_pair(pair: Mapping[str, Any], names: Mapping[str, str]) -> ShownPair:
    how = (
        f"exploration, drawn with probability {pair['propensity']:.3g}"
        if pair["source"] == "exploration"
        else f"covers {pair['covered_share']:.2%} of the corpus, {pair['cumulative_share']:.1%} so far"
    )
    ads = []
    for label in _LABELS:
        ad = pair[label]
        title = f"called {names[label]}, p = {ad['probability']:.3f}, id {_word(ad['id'])}"
        if ad["copies"] > 1:
            title += f", {ad['copies']:,} copies"
        ads.append(ShownAd(label, title, visible(ad["text"])))
    about = f"distance {pair['distance']:.3f}, {how}"
    if pair["mutual"]:
        about += "; each is the other's nearest"
    return ShownPair(f"{pair['rank']}. {_word(pair['item_id'])}", about, tuple(ads))


def _provenance(workspace: Workspace, found: _Round) -> Section:
    facts = found.pairs.facts.origin
    lines = [
        ("task", f"{_word(facts.task.name)}, policy version {facts.task.version}"),
        ("policy", _word(found.definition["policy"], 5000)),
        ("question", _word(found.definition["question"])),
        ("corpus", ", ".join(_word(pattern, 300) for pattern in facts.corpus)),
        ("date", _word(facts.date) or "none given"),
        ("model", _word(facts.model_id, 300)),
        ("model of round", str(facts.model_round) if facts.model_round else "none: LLM-0"),
        ("prompt", _word(facts.prompt_hash)),
        ("vectors", _word(facts.embedding_id, 300)),
        ("score key", _word(facts.score_key)),
        ("seed", str(found.definition["seed"])),
    ]
    for name, manifest in (
        ("scored", found.scored),
        ("clusters", found.clusters),
        ("pairs", found.pairs),
    ):
        if manifest:
            place = workspace.path(manifest.attempt)
            lines.append((name, f"{_word(place, 500)}, {manifest.created}"))
    versions = ", ".join(f"{_word(k)} {_word(v)}" for k, v in sorted(facts.versions.items()))
    lines.append(("versions", versions))
    return Section(
        "provenance", "Provenance", facts=tuple(Fact(name, value) for name, value in lines)
    )


def _headline(
    found: _Round,
    sample: _Sample | None,
    entries: Sequence[Mapping[str, Any]],
    stand: Mapping[str, Any],
    projection: str,
) -> list[Fact]:
    facts = found.pairs.facts.origin
    rounds = ", ".join(map(str, found.known))
    lines = [
        ("task", f"{_word(facts.task.name)}, policy version {facts.task.version}"),
        (
            "round shown",
            f"{found.number}, of {rounds} (--round shows another)"
            if len(found.known) > 1
            else str(found.number),
        ),
        ("scored by", _word(facts.model_id, 300)),
    ]
    covered = found.pairs.facts.covered_share
    if sample:
        share = sample.positives / sample.ads
        lines.append(
            (
                "ads",
                f"{sample.ads:,}, of which {sample.positives:,} ({share:.1%}) are called "
                f"{found.names['positive']}; maps {_drawn_on(sample)}, by {projection.upper()}",
            )
        )
    lines.append(
        (
            "pairs",
            f"{len(found.chosen):,} of a budget of {found.definition['selection']['budget']:,}"
            + ("" if covered is None else f", which cover {covered:.1%} of the corpus"),
        )
    )
    newest = _newest_report(entries)
    if newest:
        last = newest["models"][-1]
        lines += [
            ("experts among themselves", f"kappa {kappa_text(newest['expert_kappa'])}"),
            (f"{_model_name(last['round'])} and experts", f"kappa {kappa_text(last['kappa'])}"),
        ]
    lines.append(("next", _word(stand["next"], 500)))
    return [Fact(name, value) for name, value in lines]


def _newest_report(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the newest evaluation of these rounds: it has every model on the same ads."""
    return next((e["model"]["evaluation"] for e in reversed(entries) if e["model"]), None)


def _version(found: _Round) -> int:
    return found.pairs.facts.origin.task.version


def _model_name(number: int) -> str:
    return f"model of round {number}" if number else "LLM-0"


def _estimate(name: str, kappa: Mapping[str, Any]) -> figures.Estimate:
    shown = name.replace("model of ", "")
    return figures.Estimate(shown, kappa["value"], kappa["low"], kappa["high"])


def kappa_text(kappa: Mapping[str, Any]) -> str:
    """Return a kappa with its interval, or why it, or the interval, is not there."""
    if kappa["value"] is None:
        return f"undefined ({_word(kappa['reason'])})"
    if kappa["low"] is None:
        return f"{kappa['value']:z.2f} (no interval: {_word(kappa['interval_reason'])})"
    return f"{kappa['value']:z.2f} [{kappa['low']:z.2f}, {kappa['high']:z.2f}]"


def _value_text(value: float | None, reason: str) -> str:
    return f"undefined ({_word(reason)})" if value is None else f"{value:z.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _word(value: object, limit: int = 200) -> str:
    return printable(str(value), limit)


# --- a simulation's report --------------------------------------------------------------------


def simulation_report(outcome: Mapping[str, Any], folder: str, say: Say) -> Report:
    """Write the report of a simulation, its conditions side by side.

    Args:
        outcome: what ``simulate`` returns, or ``simulation.json`` read back; nothing else is read.
        folder: where to, local or ``gs://``; an older report there is replaced.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: the folder cannot be written.
    """
    place = _folder(folder)
    summary = outcome["summary"]
    learners = list(dict.fromkeys(entry["learner"] for entry in summary))
    seeds = sorted({row["seed"] for row in outcome["rows"]})
    several = len(seeds) > 1
    spread = (
        f"mean over {len(seeds)} seeds ± standard deviation" if several else "one seed, no spread"
    )
    sections: list[Section] = []
    for learner in learners:
        entries = [entry for entry in summary if entry["learner"] == learner]
        sections += [
            _side_by_side(learner, entries, spread, several),
            _curves(learner, entries, spread, several),
            _simulated_table(learner, entries, spread),
        ]
    sections += [_stops(outcome["stops"]), _simulated_provenance(outcome)]
    facts = [
        Fact("task", _word(outcome["task"])),
        Fact("labelled corpus", f"{outcome['ads']:,} ads"),
        Fact("learners", ", ".join(map(_word, learners))),
        Fact("seeds", f"{len(seeds)}: {', '.join(map(str, seeds))}"),
        Fact("figures", f"Cohen's kappa with the experts, {spread}"),
    ]
    title = f"ad-scout simulation: {_word(outcome['task'])}"
    found = {
        "task": outcome["task"],
        "learners": learners,
        "conditions": list(dict.fromkeys(entry["condition"] for entry in summary)),
        "seeds": seeds,
        "missing": {s.id: s.missing for s in sections if s.missing},
    }
    return _write(place, page(title, facts, sections), sections, found, say)


def _last_rounds(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return each condition's entry of its last round, in order of appearance."""
    last: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        if entry["condition"] not in last or entry["round"] > last[entry["condition"]]["round"]:
            last[entry["condition"]] = entry
    return list(last.values())


def _side_by_side(
    learner: str, entries: Sequence[Mapping[str, Any]], spread: str, several: bool
) -> Section:
    last = _last_rounds(entries)
    sets = [(_SET_NAMES[name], [_simulated(entry, name) for entry in last]) for name in _SETS]
    natural = ", ".join(f"{_word(entry['condition'])} {_mean(entry, 'natural')}" for entry in last)
    listed = "; ".join(
        f"{_word(entry['condition'])} with {entry['labels']:,.0f} labels "
        + ", ".join(f"{_SET_NAMES[name]} {_mean(entry, name)}" for name in _SETS)
        for entry in last
    )
    picture = figures.side_by_side([entry["condition"] for entry in last], sets)
    bars = ", bars one standard deviation to each side" if several else ""
    return Section(
        f"conditions-{_slug(learner)}",
        f"Conditions side by side: learner {_word(learner)}",
        pictures=(
            Picture(
                f"report-{_slug(learner)}-conditions.png",
                picture,
                alt=f"Kappa of each condition after its last round, {spread}: {listed}.",
                caption=f"Each condition after its last round, on three sets of ads that trained "
                f"nothing ({spread}{bars}). At natural prevalence: {natural}. Compare within a set: kappa "
                "falls where positives are rare, and each condition's evaluation half holds the ads "
                "that it chose itself.",
            ),
        ),
    )


def _curves(
    learner: str, entries: Sequence[Mapping[str, Any]], spread: str, several: bool
) -> Section:
    pictures = []
    drawn_as = " as bands and bars" if several else ""
    for name in _SETS:
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for entry in entries:
            groups.setdefault(entry["condition"], []).append(entry)
        curves = [
            figures.Curve(
                condition,
                tuple(entry["labels"] for entry in members),
                tuple(entry[name] for entry in members),
                tuple(entry[f"{name}_sd"] for entry in members),
            )
            for condition, members in groups.items()
        ]
        moved = figures.stand_aside(curves) != [curve.labels for curve in curves]
        aside = (
            " Conditions with a single number of labels are marks; where they share it, they are drawn "
            "side by side around it."
            if moved
            else ""
        )
        line = _experts_entry(entries)
        experts = figures.Estimate("experts among themselves", line[f"{name}_experts"], None, None)
        listed = "; ".join(
            f"{_word(condition)} "
            + ", ".join(f"{m['labels']:,.0f} labels {_mean(m, name)}" for m in members)
            for condition, members in groups.items()
        )
        among = _mean(line, f"{name}_experts")
        undefined = sum(m[f"{name}_undefined"] for m in entries)
        left_out = (
            f" Undefined for {undefined:,} models (a class alone): left out of the means."
            if undefined
            else ""
        )
        pictures.append(
            Picture(
                f"report-{_slug(learner)}-{name}.png",
                figures.learning_curves(curves, experts),
                alt=f"Kappa against training labels, {_SET_NAMES[name]}: {listed}. Experts among "
                f"themselves {among}.",
                caption=f"{_SET_NAMES[name].capitalize()}: kappa against the labels that trained "
                f"({spread}{drawn_as}). The line is the experts among themselves, {among}. A curve "
                f"further to the left reaches the same with fewer labels.{aside}{left_out}",
            )
        )
    return Section(
        f"curves-{_slug(learner)}",
        f"Kappa against labels: learner {_word(learner)}",
        pictures=tuple(pictures),
    )


def _simulated_table(learner: str, entries: Sequence[Mapping[str, Any]], spread: str) -> Section:
    rows = [
        (
            f"{_word(entry['condition'])}, round {entry['round']}",
            _plain_mean(entry, "labels", "{:,.0f}"),
            _plain_mean(entry, "positive_share", "{:.0%}"),
            *(_mean(entry, name) for name in _SETS),
        )
        for entry in entries
    ]
    line = _experts_entry(entries)
    rows.append(
        ("experts among themselves", "-", "-", *(_mean(line, f"{name}_experts") for name in _SETS))
    )
    return Section(
        f"scale-{_slug(learner)}",
        f"Data scale and quality by condition: learner {_word(learner)}",
        tables=(
            Table(
                f"Labels, share positive, and kappa with the experts ({spread})",
                ("condition", "labels", "positive", *(_SET_NAMES[name] for name in _SETS)),
                tuple(rows),
            ),
        ),
    )


def _stops(stops: Sequence[Mapping[str, Any]]) -> Section:
    title = "What the stopping rule said"
    if not stops:
        return Section(
            "stops",
            title,
            missing="The condition boundary was not played, and no other asks the rule: "
            "`scout simulate` with --conditions boundary,...",
        )
    return Section(
        "stops",
        title,
        tables=(
            Table(
                "Where the rule stopped the condition boundary, and after which round no later one was "
                "better beyond its interval",
                ("seed", "stopped after round", "by", "no later better after", "in its words"),
                tuple(
                    (
                        str(stop["seed"]),
                        str(stop["stopped_after"]),
                        _word(stop["rule"]),
                        str(stop["no_later_better_after"]),
                        _word(stop["reason"], 600),
                    )
                    for stop in stops
                ),
            ),
        ),
    )


def _simulated_provenance(outcome: Mapping[str, Any]) -> Section:
    lines = [
        Fact(_word(name), _word(json.dumps(value, ensure_ascii=False), 500))
        for name, value in outcome["options"].items()
    ]
    lines.append(Fact("seconds", f"{outcome['seconds']:,.0f}"))
    return Section(
        "provenance",
        "Provenance",
        facts=tuple(lines),
        paragraphs=(
            "Every seed's condition boundary is a workspace of its own: `scout report --workspace` "
            "on the folder boundary in a seed's folder draws its maps and pairs.",
        ),
    )


def _experts_entry(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the entry whose experts stand for all: boundary's last, as in the printed table."""
    last = _last_rounds(entries)
    return next((entry for entry in last if entry["condition"] == "boundary"), last[0])


def _simulated(entry: Mapping[str, Any], name: str) -> figures.Estimate:
    value, spread = entry[name], entry[f"{name}_sd"]
    if value is None or spread is None:
        return figures.Estimate(entry["condition"], value, None, None)
    return figures.Estimate(entry["condition"], value, value - spread, value + spread)


def _mean(entry: Mapping[str, Any], name: str) -> str:
    return _plain_mean(entry, name, "{:z.2f}")


def _plain_mean(entry: Mapping[str, Any], name: str, form: str) -> str:
    value, spread = entry[name], entry[f"{name}_sd"]
    if value is None:
        return "undefined"
    shown = form.format(value)
    return shown if spread is None else f"{shown} ±{form.format(spread)}"


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.casefold()).strip("-") or "learner"


# --- files ------------------------------------------------------------------------------------


def _folder(path: str) -> str:
    """Return the folder to write to, tried out: drawing for a minute and failing then is late."""
    for char in "*?[]{}":
        if char in path:
            raise UsageError(
                f"--out {path}: {char!r} has a meaning in file patterns; choose another folder name"
            )
    if storage.is_local(path):
        probe = storage.join(path, ".report-probe")
        try:
            storage.write(probe, b"")
            Path(probe).unlink()
        except OSError as error:
            raise UsageError(
                f"--out {path}: cannot be written ({error.strerror or error}); choose another folder"
            ) from error
    return path


def _write(
    folder: str,
    html: bytes,
    sections: Iterable[Section],
    summary: dict[str, Any],
    say: Say,
) -> Report:
    pictures = {p.name: p.png for section in sections for p in section.pictures}
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
    paths = tuple(storage.join(folder, name) for name in pictures)
    return Report(
        path, paths, {**summary, "path": path, "pictures": list(paths), "bytes": len(html)}
    )
