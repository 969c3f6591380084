"""Mining of synthetic scored ads, with Beam and without, for the benchmarks that measure it."""

import dataclasses
import resource
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from benchmarks import _common
from pipelines.contracts import Block, scored_schema
from pipelines.jobs import mine as jobs
from pipelines.jobs.mine import MineOptions, prepare, provenance
from pipelines.jobs.results import Mined
from pipelines.jobs.selection import cluster_settings, search_settings
from pipelines.numerics import calibration
from pipelines.numerics.threads import cores, in_order
from pipelines.stages import cluster_per_label, find_opposite_pairs, label_ads, select_pairs
from pipelines.stages.cluster_per_label import ClusterPerLabel
from pipelines.stages.fill_items import FillItems
from pipelines.stages.find_opposite_pairs import FindOppositePairs
from pipelines.stages.find_overlaps import FindOverlaps
from pipelines.stages.label_ads import SumMargins, choose_band, choose_threshold
from pipelines.stages.select_pairs import SelectPairs
from pipelines.store import blocks, scores
from pipelines.store.facts import ScoredFacts
from pipelines.store.shown import NOTHING
from pipelines.store.workspace import Manifest
from pipelines.strategies import base
from pipelines.strategies.base import PairStrategy
from pipelines.text import content_key

DIMS = 384
CENTRES = 200
BLOCK_ROWS = 1024
PLAIN = "plain mixture"
TASK = """\
name: scaling
version: 1
policy: synthetic
question: synthetic
prior: {prior}
model: {{preset: fake}}
embedding: {{standardize: never}}
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Mixture:
    """How synthetic ads are made.

    Attributes:
        prior: share of positives.
        largest: share of the ads around the first centre; None for equal shares.
        spread: standard deviation around a centre, in units of the centres' own.
        centres: how many there are.
    """

    prior: float = 0.02
    largest: float | None = None
    spread: float = 0.8
    centres: int = CENTRES


MIXTURES = {
    PLAIN: Mixture(),
    "one cluster of 90%": Mixture(largest=0.9),
    "40% positives": Mixture(prior=0.4),
    "0.01% positives": Mixture(prior=0.0001),
    # Two ads' cosine is 1 / (1 + spread**2).
    "all nearly equal (cosine .9999)": Mixture(spread=0.01, centres=1),
    "all duplicates": Mixture(spread=0.0, centres=1),
}


KEPT: dict[str, list[Any]] = defaultdict(list)


def options(folder: Path) -> MineOptions:
    """Return the options of the measured run."""
    return MineOptions(
        task=str(folder / "task.yaml"),
        corpus=(str(folder / "ads.txt"),),
        workspace=str(folder / "workspace"),
        max_rejected_share=0.01,
        block_rows=BLOCK_ROWS,
    )


def write_scored(folder: Path, rows: int, mixture: Mixture = MIXTURES[PLAIN]) -> None:
    """Write a workspace in which every ad is scored."""
    (folder / "task.yaml").write_text(TASK.format(prior=mixture.prior))
    (folder / "ads.txt").write_text("synthetic\n")
    plan = prepare(options(folder), say=_common.log)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(mixture.centres, DIMS)).astype(np.float32)
    lean = rng.normal(size=mixture.centres)
    shares = None
    if mixture.largest:
        shares = np.full(mixture.centres, (1 - mixture.largest) / (mixture.centres - 1))
        shares[0] = mixture.largest
    attempt = plan.workspace.new_attempt(1, "scored")
    # Blocks are cut in the order of keys, as scoring writes them.
    by_key = sorted((content_key(f"synthetic ad {n}"), n) for n in range(rows))
    written = []
    for start in range(0, rows, BLOCK_ROWS):
        number = min(BLOCK_ROWS, rows - start)
        centre = rng.choice(mixture.centres, size=number, p=shares)
        noise = rng.standard_normal((number, DIMS), dtype=np.float32)
        vectors = centres[centre] + np.float32(mixture.spread) * noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        margin = calibration.quantize(lean[centre] + rng.normal(size=number) - 4.0)
        own = by_key[start : start + number]
        columns = [
            pa.array([key for key, _ in own]),
            pa.array([f"s{n:07d}" for _, n in own]),
            pa.array([f"synthetic ad {n}" for _, n in own]),
            pa.array([""] * number),
            pa.array(np.full(number, 1000)),
            pa.array(np.ones(number, dtype=np.int64)),
            pa.array(margin),
            pa.array(np.full(number, 12, dtype=np.int32)),
            pa.array(np.zeros(number, dtype=bool)),
            blocks.vector_array(vectors),
        ]
        table = pa.Table.from_arrays(columns, schema=scored_schema(DIMS))
        root, key = plan.workspace.root, plan.score_key
        written.append(scores.store(root, key, attempt, "", table, [""] * number))
    facts = ScoredFacts(provenance(plan), rows, 0, {}, rows, float(rows), ())
    listed = [scores.write_parts(plan.workspace.root, attempt, 0, written)]
    plan.workspace.commit(Manifest.of(attempt, plan.scored_hash, listed, rows, facts))


def draw(rows: int, seed: int) -> np.ndarray:
    """Return vectors of the plain mixture, float32 (rows, 384), of the same centres whatever the seed."""
    mixture = MIXTURES[PLAIN]
    centres = np.random.default_rng(0).normal(size=(mixture.centres, DIMS))
    rng = np.random.default_rng(seed)
    found = centres[rng.integers(mixture.centres, size=rows)]
    found += mixture.spread * rng.normal(size=found.shape)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def keep(element: Any, name: str) -> None:
    """Hand something out of a pipeline that runs in this process, into ``KEPT``."""
    KEPT[name].append(element)


def forget_pairs(folder: Path) -> None:
    """Take a mining back, so that the next one has as much to do."""
    for stage in ("clusters", "pairs", "review"):
        shutil.rmtree(folder / "workspace" / "rounds" / "0001" / stage, ignore_errors=True)


def measure(folder: Path, without_beam: bool) -> dict[str, Any]:
    """Mine in this process and say what it took."""
    forget_pairs(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    items = direct(folder) if without_beam else mined(folder)
    return {
        "cpu": time.process_time() - cpu,
        "seconds": time.perf_counter() - wall,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "pairs": len(items),
        "items": items,
    }


def mined(folder: Path) -> list[str]:
    """Run the job; return the ids of its items."""
    found = jobs.mine(options(folder), say=_common.log)
    assert isinstance(found, Mined)
    return [item.item_id for item in found.items]


def direct(folder: Path) -> list[str]:
    """Call in loops what the job's stages call, without a runner; return the ids of the items."""
    plan = prepare(options(folder), say=_common.log)
    assert plan.scored is not None and isinstance(plan.strategy, PairStrategy)
    root, task = plan.workspace.root, plan.task
    files = list(scores.parts_of(plan.workspace, plan.scored))
    threads = cores()
    rule = jobs.label_rule(task, plan.model)
    seen = NOTHING
    label, adding = SumMargins(root, seen), label_ads._Histograms()
    total = adding.create_accumulator()
    for file in files:
        total = adding.add_input(total, label._counts(file))
    every, unseen = total
    threshold = choose_threshold(every, rule)
    band = choose_band(unseen, threshold, rule)

    standardize = task.standardize(plan.embedding)
    clusters = ClusterPerLabel(root, cluster_settings(task, standardize), seen, threads)
    sampled = in_order(lambda file: list(clusters._sample_rows(file, threshold)), files, threads)
    model = clusters._fit((0, [rows for found in sampled for _, rows in found]), threshold)
    out: dict[str, list[Any]] = defaultdict(list)
    assigned = in_order(
        lambda file: list(clusters._assign(file, threshold, band, model)), files, threads
    )
    for output in _flat(assigned):
        tagged = isinstance(output, pvalue.TaggedOutput)
        name, value = (output.tag, output.value) if tagged else (cluster_per_label.BAND, output)
        out[name].append(value)
        if name == cluster_per_label.STATS:
            out[name] = [cluster_per_label._add_totals(out[name])]
    [totals] = out[cluster_per_label.STATS]
    [overlaps] = FindOverlaps(task.overlaps.per_positive_cluster)._rank(model, totals)

    search = FindOppositePairs(search_settings(task), threads)
    parts = search._plan(model, totals, overlaps)
    near = out[cluster_per_label.BAND]
    places = _grouped(pair for block in near for pair in search._route(block, parts))
    found = _grouped(_flat(search._search(item, parts, model, overlaps) for item in places.items()))
    kept = _grouped(_flat(search._keep_nearest(item, parts) for item in found.items()))
    pool = find_opposite_pairs._pooled(
        map(find_opposite_pairs._mark_mutual, kept.items()), search.settings.max_candidates
    )
    keys = find_opposite_pairs._keys_of(pool)
    ads = list(_flat(find_opposite_pairs._rows_of(block, keys) for block in near))
    drawing = task.selection.model_copy(update={"exploration_share": plan.explored})
    wanted = base.Plan(drawing, task.seed, task.guideline(), plan.labels)
    select = SelectPairs(plan.strategy, wanted)
    sample, shown = out[cluster_per_label.SAMPLE], out[cluster_per_label.SHOWN]
    open_ads = int(unseen.sum())
    chosen, where = select._select(
        pool, ads, sample, shown, overlaps, model, totals, threshold, open_ads
    )
    assert isinstance(where, pvalue.TaggedOutput) and where.tag == select_pairs.PLACES
    fill = FillItems(root)
    texts = list(_flat(fill._read(file, where.value) for file in files))
    assert isinstance(chosen, base.Chosen)
    from pipelines.stages.fill_items import _fill

    return [item.item_id for item in _fill(chosen, texts).items]


def _flat(found: Iterable[Iterable[Any]]) -> Iterator[Any]:
    for some in found:
        yield from some


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def concat(found: Iterable[Block]) -> pa.Table:
    """Join rows that a stage gave."""
    return blocks.concat(list(found))
