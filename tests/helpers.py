"""What several tests share: tiny corpora, tasks with the fake labeler, runs in a workspace."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from pipelines.config import Task
from pipelines.contracts import Block, ReviewAd, ReviewItem, ScoredPart, UniqueAd
from pipelines.jobs.mine import Mined, MineOptions, mine
from pipelines.jobs.results import Submitted
from pipelines.numerics import agreement, stopping
from pipelines.numerics.calibration import Threshold
from pipelines.sources.base import ReadOptions
from pipelines.stages.collapse_duplicates import to_blocks
from pipelines.store import blocks, files, scores, storage
from pipelines.store.facts import (
    BoundaryFacts,
    Decided,
    Evaluation,
    LabelCounts,
    Learnt,
    ModelFacts,
    PairsFacts,
    Provenance,
    ScoredFacts,
    Statistic,
)
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import content_key

FAKE_TASK = """\
name: tiny
version: 1
policy: Ads that promise what nobody can promise.
question: Is it misleading?
prior: 0.2
model: {preset: fake}
selection: {budget: 12}
"""

_GOODS = [
    "kettle",
    "bicycle",
    "sofa",
    "lamp",
    "guitar",
    "tent",
    "raincoat",
    "notebook",
    "blender",
    "mattress",
]
_PLACES = ["Harbour Street", "the old mill", "Elm Square", "platform nine", "the covered market"]
_HONEST = (
    "A sturdy {good} from {place}, repaired for ten years, price {n} on the tag",
    "{good} lessons at {place} every second Thursday, terms at the desk, group of {n}",
    "The museum shop at {place} has one {good} left, number {n}",
    "Second-hand {good}, slightly scratched, {n} euros, pick up at {place}",
)
_LOUD = (
    "You won this {good}! Guaranteed winner number {n}, claim it free at {place}",
    "{n} shocking reasons why you need this miracle {good} from {place}!!",
    "Secret {good} trick they hide at {place}: you will not believe number {n}",
    "FREE {good}!!! Urgent, guaranteed, {n} left at {place}",
)


def tiny_ads(number: int = 200, seed: int = 7) -> list[dict[str, Any]]:
    """Return distinct ads, about a quarter of them loud."""
    rng = random.Random(seed)
    ads: dict[str, dict[str, Any]] = {}
    while len(ads) < number:
        form = rng.choice(_LOUD if rng.random() < 0.25 else _HONEST)
        text = form.format(
            good=rng.choice(_GOODS), place=rng.choice(_PLACES), n=rng.randrange(2, 400)
        )
        ads.setdefault(text, {"id": f"t{len(ads):04d}", "text": text})
    return list(ads.values())


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_task(folder: Path, text: str = FAKE_TASK) -> Path:
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def provenance(**changes: Any) -> Provenance:
    """Return the provenance of a round of the tiny task, or of one with changed keys."""
    task = Task.model_validate({**yaml.safe_load(FAKE_TASK), **changes})
    return Provenance(task, "", ("ads/*.jsonl",), "m", "p", "e", 0, "score key", {"python": "3.11"})


def pairs_facts(**changes: Any) -> PairsFacts:
    """Return the facts of a pairs attempt without a pair."""
    threshold = Threshold(0.5, n_positive=40, n_negative=160)
    return PairsFacts(provenance(**changes), threshold, {}, 0, 0, BoundaryFacts(0, 0.0, 0.0))


def commit_items(
    root: Path, items: Sequence[ReviewItem], number: int = 1, **changes: Any
) -> Workspace:
    """Add a mined round to a workspace, as WriteReview leaves it."""
    place = Workspace(str(root))
    attempt = place.new_attempt(number, "pairs")
    data = files.json_lines(items)
    file = files.write(place.root, f"{attempt}/items.jsonl", data, len(items))
    facts = dataclasses.replace(pairs_facts(**changes), ads=sum(len(item.ads) for item in items))
    place.commit(Manifest.of(attempt, f"h{number}", [file], len(items), facts))
    return place


def change_items(
    root: Path, number: int, change: Callable[[Sequence[ReviewItem]], Sequence[ReviewItem]]
) -> Sequence[ReviewItem]:
    """Put other items in the place of a round's newest ones; returns them."""
    place = Workspace(str(root))
    manifest = place.pairs_of(number)
    items = change(place.read_items(manifest))
    path = manifest.file("items.jsonl").path
    # Escaped, so that half a character is possible, too.
    lines = [json.dumps(dataclasses.asdict(item)) for item in items]
    file = files.write(place.root, path, "\n".join(lines).encode(), len(items))
    place.commit(dataclasses.replace(manifest, files=(file,)))
    return items


def evaluation(**changes: Any) -> Evaluation:
    """Return an evaluation of nothing, or one with changed fields."""
    nothing = agreement.Kappa(None, "no ads", None, None, "no ads", None, 0, 0, 0, 0, 0, None)
    no_difference = stopping.Difference(None, None, None, "no ads", None, None, 0)
    return dataclasses.replace(
        Evaluation(
            ads=0,
            experts=0,
            verdicts=0,
            positive_share=None,
            tied=0,
            expert_kappa=nothing,
            krippendorff_alpha=Statistic(None, "no ads"),
            models=(),
            gap_to_experts=no_difference,
            gain=no_difference,
            decision=Decided(False, "go on", "go on", 0),
            stopping=stopping.StoppingRule(),
        ),
        **changes,
    )


def model_facts(
    model_id: str = "m", found: Evaluation | None = None, ads: int = 20, **changes: Any
) -> ModelFacts:
    """Return the facts of a model of the tiny task, or of one with changed keys."""
    learnt = Learnt("head", model_id, "base", 0.5, 0.62, "labels", "prompt", ads, ads, ())
    labels = LabelCounts(ads, 2 * ads // 5, 2, 0)
    task = provenance(**changes).task
    return ModelFacts(task, "training", {}, learnt, labels, found or evaluation())


def options(task: Path, corpus: str | Path, workspace: Path, **changes: Any) -> MineOptions:
    settings: dict[str, Any] = {
        "task": str(task),
        "corpus": (str(corpus),),
        "workspace": str(workspace),
        "date": "",
        "budget": None,
        "read": ReadOptions(),
        "max_rejected_share": 0.01,
        "block_rows": 64,
        "range_bytes": 1 << 20,
        "beam": (),
    }
    return MineOptions(**{**settings, **changes})


def run(task: Path, corpus: str | Path, workspace: Path, **changes: Any) -> Mined:
    mined = mine(options(task, corpus, workspace, **changes), say=lambda line: None)
    assert isinstance(mined, Mined), mined
    return mined


def hand_over(task: Path, corpus: str | Path, workspace: Path, **changes: Any) -> Submitted:
    """Mine by a job that is not waited for."""
    submitted = mine(options(task, corpus, workspace, **changes), say=lambda line: None)
    assert isinstance(submitted, Submitted), submitted
    return submitted


def pairs_bytes(mined: Mined) -> bytes:
    return Path(mined.pairs_file).read_bytes()


def xlsx(*sheets: Sequence[Sequence[Any]]) -> bytes:
    """Return a workbook; each sheet is its rows."""
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, sheet in enumerate(sheets, start=1):
        page = book.create_sheet(f"Sheet {number}")
        for row in sheet:
            page.append(list(row))
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def unique_ad(text: str, id: str = "", weight: int = 1000, copies: int = 1) -> UniqueAd:
    key = content_key(text)
    exact = str(weight / 1000)
    return UniqueAd(id or f"id-{key[:8]}", text, "f", "line 1", "", key, exact, copies)


def unique_block(ads: Sequence[UniqueAd]) -> Block:
    """Return ads as `CollapseDuplicates` hands them on."""
    [block] = to_blocks(ads)
    return block


def unique_ads(block: Block) -> list[UniqueAd]:
    """Return the ads of a block."""
    columns = blocks.from_block(block).select(UniqueAd._fields).to_pydict().values()
    return [UniqueAd(*row) for row in zip(*columns, strict=True)]


# --- What is opened -----------------------------------------------------------------------------

_reads: list[str] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _reads is not None and event == "open" and "w" not in str(args[1]):
        _reads.append(str(args[0]))


sys.addaudithook(_watch)


@contextlib.contextmanager
def watched_reads() -> Iterator[list[str]]:
    """Collect the paths of all files that are opened for reading."""
    global _reads
    _reads = []
    try:
        yield _reads
    finally:
        _reads = None


def of_evaluation(paths: Iterable[str]) -> list[str]:
    """Return the names of the files with evaluation verdicts among some paths."""
    return [name for path in paths if (name := Path(path).name).startswith("evaluation-")]


@contextlib.contextmanager
def counted_blocks() -> Iterator[Counter[str]]:
    """Count the bytes that are read of scored blocks: of whole ones, and in ranges."""
    counts: Counter[str] = Counter()
    read = storage.read

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(-1 if size is None else size)
            counts["ranges"] += len(data)
            return data

    def whole(path: str) -> bytes:
        data = read(path)
        if path.endswith(".parquet"):
            counts["whole"] += len(data)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "open_ranges", Counted)
        patch.setattr(storage, "read", whole)
        yield counts


# --- Ads whose labels are known, and an encoder that can tell them apart ------------------------

_PLAIN = ("report", "minister", "budget", "terms", "museum", "library")
_BAITING = ("miracle", "secret", "shocking", "winner", "cure", "virus")
# Loud, and harmless: LLM-0 is fooled, the experts are not.
_DECOYS = ("free", "urgent", "guaranteed", "believe")


def _made_up_words(number: int) -> tuple[str, ...]:
    rng = random.Random(3)
    words: dict[str, None] = {}
    while len(words) < number:
        parts = [rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3)]
        words["".join(parts) + rng.choice("lnrst")] = None
    return tuple(words)


FILLERS = _made_up_words(300)
VOCABULARY = (*_PLAIN, *_BAITING, *_DECOYS, *FILLERS)


@dataclass(frozen=True, slots=True)
class Gold:
    """Ads and what is true of them.

    Attributes:
        ads: records with ``id`` and ``text``; no text is near another one.
        positive: id -> whether the ad is bait.
    """

    ads: list[dict[str, Any]]
    positive: dict[str, bool]

    def labelled(self, positive: str = "positive", negative: str = "negative") -> list[Any]:
        """Return the records with their labels, as a labelled corpus holds them."""
        return [
            {**ad, "label": positive if self.positive[ad["id"]] else negative} for ad in self.ads
        ]


def gold_ads(number: int = 200, seed: int = 11, share: float = 0.3) -> Gold:
    """Return ads of many distinct words, a share of them bait, some of the others only loud."""
    rng = random.Random(seed)
    ads: list[dict[str, Any]] = []
    positive: dict[str, bool] = {}
    for place in range(number):
        bait = place % 100 < 100 * share
        loud = not bait and rng.random() < 0.15
        telling = _BAITING if bait else _DECOYS if loud else _PLAIN
        words = [*rng.sample(telling, 2), *rng.sample(FILLERS, rng.randrange(6, 9))]
        rng.shuffle(words)
        ad = {"id": f"g{place:04d}", "text": " ".join(words) + "!" * (rng.randrange(3) * loud)}
        ads.append(ad)
        positive[ad["id"]] = bait
    return Gold(ads, positive)


def random_encoder(
    folder: Path, words: Sequence[str], dim: int, kinds: Mapping[str, float] | None = None
) -> str:
    """Write a random BERT of two layers that knows these words; its folder.

    Args:
        folder: a new folder.
        words: the vocabulary, beside the tokenizer's own five.
        dim: width of its vectors.
        kinds: word -> 1 or -1: words of one kind lie together, as training would have put them.
    """
    import keras_hub
    import numpy as np

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=2,
        num_heads=2,
        hidden_dim=dim,
        intermediate_dim=32,
        max_sequence_length=24,
        dtype="float32",
    )
    # Words large and places small, so that a mean of the words is left to learn from.
    rng = np.random.default_rng(1)
    for weight in backbone.weights:
        if weight.path.endswith(("kernel", "embeddings")):
            size = 1.0 if weight.path.startswith("token") else 0.1
            weight.assign(rng.normal(size=weight.shape) * size)
    if kinds:
        table = backbone.token_embedding.embeddings
        rows, direction = table.numpy(), rng.normal(size=dim)
        for place, word in enumerate(vocabulary):
            rows[place] += kinds.get(word, 0.0) * direction
        table.assign(rows)
    backbone.save_to_preset(str(folder))
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=vocabulary, lowercase=True)
    tokenizer.save_to_preset(str(folder))
    return str(folder)


def tiny_encoder(folder: Path) -> str:
    """Write a random encoder that knows the words of :func:`gold_ads`; its folder."""
    kinds = dict.fromkeys(_BAITING, 1.0) | dict.fromkeys((*_PLAIN, *_DECOYS), -1.0)
    return random_encoder(folder, VOCABULARY, 32, kinds)


def head_task(encoder: str, extra: str = "") -> str:
    """Return a task whose LLM-0 is the fake labeler and whose learner is a head on ``encoder``."""
    return (
        FAKE_TASK.replace("prior: 0.2", "prior: 0.35").replace("budget: 12", "budget: 30")
        + f"training: {{learner: head, encoder: {encoder}}}\n"
        + extra
    )


def by_label(item: ReviewItem) -> dict[str, ReviewAd]:
    """Return an item's ads by the model's label, positive first."""
    return {ad.label: ad for ad in sorted(item.ads, key=lambda ad: ad.label, reverse=True)}


def review_ad_of(id: str, **changes: Any) -> ReviewAd:
    """Return an ad as a selection makes it."""
    text = changes.get("text", f"text of {id}")
    known = {"key": content_key(text), "fields": (), "probability": 0.25, "margin": -1.0}
    known |= {"label": "negative", "cluster": 0, "copies": 1, "weight": 1.0, "truncated": False}
    return ReviewAd(**{"id": id, "text": text, **known, **changes})


def scored_table(root: Path, manifest: Manifest[ScoredFacts]) -> pa.Table:
    """Return all ads of a scored attempt."""
    found = scores.parts_of(Workspace(str(root)), manifest)
    return pa.concat_tables(scores.read(str(root), part) for part in found)


def block_of(root: Path, number: int) -> Path:
    """Return the rows' file of a block of a round's scored ads."""
    place = Workspace(str(root))
    manifest = place.scored.latest(number)
    assert manifest is not None
    return root / next(scores.parts_of(place, manifest)).block


def blocks_in(root: Path) -> list[Path]:
    """Return the rows' files of all scored blocks of a workspace."""
    return sorted(Path(root).rglob("*.rows.parquet"))


def write_scored_blocks(root: Path, tables: Iterable[pa.Table]) -> list[ScoredPart]:
    """Write scored ads into a workspace, a block a table; return the parts."""
    attempt = "rounds/0001/scored/attempt-0001-00000000"
    return [
        scores.store(str(root), "key", attempt, "", table, [""] * table.num_rows)
        for table in tables
    ]
