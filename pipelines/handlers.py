"""The Beam ModelHandler: a thin adapter from blocks of ads to a labeler of ``models``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler

from models.backends import usage
from models.backends.base import (
    Backend,
    BackendError,
    LabelBatch,
    Labeler,
    LabelerIdentity,
    Unavailable,
)
from models.backends.pool import LabelerPool
from models.backends.trained import Trained
from models.embedded import without_downloads
from models.proxies import registry as proxies
from models.proxies.base import Proxy
from models.trained import TrainedModelError
from pipelines.config import Task
from pipelines.console import metrics
from pipelines.contracts import AD_SCHEMA, Block, BlockFile, Rejected, scored_schema
from pipelines.errors import RunFailed
from pipelines.numerics import calibration
from pipelines.store import blocks, model_store
from pipelines.store.facts import ModelFacts
from pipelines.store.workspace import Manifest, Workspace

STAGE = "ScoreAds"
# A block in which every one of at least so many ads fails alone is no set of bad ads.
_ALL_FAILED = 8


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """What one block of ads became: scored rows, and the ads that could not be scored."""

    scored: Block
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True)
class Glanced:
    """What a cascade knows of n ads before the model is asked.

    Attributes:
        vectors, n_tokens, truncated, hint, similarity: as in ``models.backends.base.Glance``.
        features: float32 (n, d), of a proxy.
    """

    vectors: np.ndarray
    n_tokens: np.ndarray
    truncated: np.ndarray
    hint: np.ndarray
    similarity: np.ndarray
    features: np.ndarray


class _Labels(Protocol):
    def label(self, texts: Sequence[str]) -> LabelBatch: ...


# A text, or its place; a dataclass of arrays with a row a text.
_Ad = TypeVar("_Ad")
_Rows = TypeVar("_Rows")


def label_each(
    ask: Callable[[Sequence[_Ad]], _Rows], texts: Sequence[_Ad]
) -> tuple[_Rows | None, list[int], dict[int, str]]:
    """Ask about texts so that one that breaks the labeler costs itself alone.

    A failing batch is halved until the failing texts are alone: about ``2 log2(n)`` extra calls
    for one bad text among n.

    Args:
        ask: returns a dataclass of arrays with a row a text, a labeler's ``label`` for one.
        texts: what is asked about, or what stands for them.

    Returns:
        what was said of the good texts (None when there are none), the good texts' indices, and for
        each bad text's index what went wrong.

    Raises:
        RunFailed: a service does not answer, whatever the text.
        Exception: the labeler's own, when all of at least eight texts fail: then the labeler is
            broken, not the texts, and the runner should retry.
    """
    parts: list[_Rows] = []
    good: list[int] = []
    bad: dict[int, str] = {}
    last_error: Exception | None = None
    pending = [list(range(len(texts)))] if texts else []
    while pending:
        indices = pending.pop()
        try:
            part = ask([texts[i] for i in indices])
        except Unavailable as error:
            raise RunFailed(str(error)) from None
        except Exception as error:
            last_error = error
            if len(indices) == 1:
                bad[indices[0]] = f"{type(error).__name__}: {error}"
            else:
                middle = len(indices) // 2
                pending += [indices[middle:], indices[:middle]]
            continue
        parts.append(part)
        good += indices
    if last_error is not None and not good and len(texts) >= _ALL_FAILED:
        raise last_error
    if not parts:
        return None, [], bad
    kind: Any = type(parts[0])
    joined = kind(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(kind)}
    )
    return joined, good, bad


def score_block(labeler: _Labels, block: Block) -> ScoredBlock:
    """Score a block of ads (``UNSCORED_SCHEMA``); what is not finite becomes a rejection."""
    ads = blocks.from_block(block)
    return scored_block(ads, *label_each(labeler.label, ads.column("text").to_pylist()))


def scored_block(
    ads: pa.Table, labels: LabelBatch | None, good: Sequence[int], failures: Mapping[int, str]
) -> ScoredBlock:
    """Return what a block of ads became.

    Args:
        ads: of ``UNSCORED_SCHEMA``.
        labels: what was said of some of them; None of none.
        good: which of them these are.
        failures: which of them failed, and why.
    """
    reasons = {index: ("scoring_failed", detail) for index, detail in failures.items()}
    scored = AD_SCHEMA.empty_table()
    if labels is not None:
        found = np.asarray(good, dtype=np.int64)
        finite = np.isfinite(labels.margin) & np.isfinite(labels.vectors).all(axis=1)
        for index in found[~finite].tolist():
            reasons[index] = (
                "not_finite",
                "the model's score or vector for this ad is not a finite number",
            )
        order = np.argsort(found, kind="stable")
        rows = order[finite[order]]
        table = ads.select(AD_SCHEMA.names).take(pa.array(found[rows])).combine_chunks()
        columns = [
            *table.columns,
            pa.array(calibration.quantize(labels.margin[rows]), pa.float32()),
            pa.array(labels.n_tokens[rows], pa.int32()),
            pa.array(labels.truncated[rows], pa.bool_()),
            blocks.vector_array(labels.vectors[rows]),
        ]
        scored = pa.Table.from_arrays(columns, schema=scored_schema(labels.vectors.shape[1]))
    refused = ads.take(pa.array(sorted(reasons), pa.int64())).to_pylist()
    rejected = tuple(
        Rejected(
            id=ad["id"],
            stage=STAGE,
            reason=reason,
            detail=detail[:500],
            source=ad["source"],
            position=ad["position"],
            excerpt=ad["text"][:200],
            records=ad["copies"],
        )
        for ad, (_, (reason, detail)) in zip(refused, sorted(reasons.items()), strict=True)
    )
    metrics.count(STAGE, "done", len(good) + len(failures))
    metrics.count(STAGE, "scored", scored.num_rows)
    metrics.count(STAGE, "rejected", sum(item.records for item in rejected))
    return ScoredBlock(blocks.to_block(scored), rejected)


class LazyLabeler:
    """Loads the labeler when the first ad needs it: a rerun that scores nothing loads nothing."""

    def __init__(self, load: Callable[[], Labeler]) -> None:
        self._load = load
        self._labeler: Labeler | None = None
        self._proxies: dict[str, Proxy] = {}
        self._lock = threading.Lock()

    def label(self, texts: Sequence[str]) -> LabelBatch:
        """Score texts."""
        return self._loaded().label(texts)

    def glance(self, texts: Sequence[str], by: str) -> Glanced:
        """Return what is known of texts without the model, and a proxy's features."""
        labeler = self._loaded()
        if by not in self._proxies:
            self._proxies[by] = proxies.create(by, labeler)
        seen = labeler.glance(texts)
        features = self._proxies[by].features(texts, seen)
        return Glanced(
            seen.vectors, seen.n_tokens, seen.truncated, seen.hint, seen.similarity, features
        )

    def margins(self, texts: Sequence[str], similarity: np.ndarray) -> np.ndarray:
        """Score texts that were glanced at."""
        return self._loaded().margins(texts, similarity)

    def prepare(self) -> None:
        """Load the labeler if it is not yet.

        Returns nothing: where a worker's processes share it, what is returned travels between them, and
        a model cannot.
        """
        self._loaded()

    def asked(self) -> dict[str, int]:
        """Return what services were asked for since the last call, where the labeler lives."""
        return usage.drain()

    def _loaded(self) -> Labeler:
        with self._lock:
            if self._labeler is None:
                self._labeler = self._load()
            return self._labeler


@dataclass(frozen=True, slots=True)
class LoadLabeler:
    """Makes a task's labeler, on the worker; small to send there.

    Attributes:
        task: the task.
        expected: the identity that scores are stored under; other weights, another prompt or
            another embedder on a worker would otherwise pass for these.
        root: the workspace.
        model: manifest of the model that experts' labels trained, or None for LLM-0.
        pool: remembers what LLM-0 said, where a simulation asks for it.
        elsewhere: whether workers are other machines, which download no weights.
    """

    task: Task
    expected: LabelerIdentity
    root: str = ""
    model: Manifest[ModelFacts] | None = None
    pool: LabelerPool | None = None
    elsewhere: bool = False

    def look(self) -> None:
        """Look for the weights where this runs, and load none.

        Raises:
            RunFailed: they are not there, or others are.
        """
        with self._on_this_machine():
            found = self._backend().look()
        self._check(found)

    def __call__(self) -> Labeler:
        """Load the labeler.

        Raises:
            RunFailed: it is not the expected one, or a trained model cannot be used.
        """
        if self.pool and self.model is None and self.task.backend().independent:
            return self.pool.labeler(self.expected, self.load_new)
        return self.load_new()

    def load_new(self) -> Labeler:
        """Load the labeler, whatever is remembered; raises as calling does."""
        with self._on_this_machine():
            labeler = self._backend().load()
        self._check(labeler.identity)
        return labeler

    def _backend(self) -> Backend:
        if self.model is None:
            return self.task.backend()
        own = model_store.model_files(self.model)
        return trained_backend(Workspace(self.root), self.task, own, self.pool)

    @contextmanager
    def _on_this_machine(self) -> Iterator[None]:
        try:
            with without_downloads() if self.elsewhere else nullcontext():
                yield
        except TrainedModelError as error:
            raise RunFailed(str(error)) from error
        except Unavailable as error:
            raise RunFailed(str(error)) from None
        except BackendError as error:
            if not self.elsewhere:
                raise
            raise RunFailed(f"the worker on {socket.gethostname()}: {error}") from error

    def _check(self, found: LabelerIdentity) -> None:
        if found != self.expected:
            raise RunFailed(
                f"the worker has {found}, the launcher planned {self.expected}; give both the same "
                "weights and version"
            )


def trained_backend(
    workspace: Workspace,
    task: Task,
    own: Sequence[BlockFile],
    pool: LabelerPool | None = None,
) -> Trained:
    """Return a model of this workspace as what labels ads.

    Raises:
        RunFailed: it is gone or damaged.
    """
    folder = model_store.fetch(workspace, own)
    try:
        embedding = task.embedding_preset()
        return Trained(folder, embedding=embedding, cache=pool.vectors if pool else None)
    except TrainedModelError as error:
        raise RunFailed(str(error)) from error


def trained_embedding(task: Task, learner: str) -> str:
    """Return where the vectors of a trained model come from.

    An encoder's are those of its base, so that rounds lay clusters in one space.
    """
    return task.embedding_preset() if learner == "llm" else "base"


def load_trained(
    workspace: Workspace,
    task: Task,
    own: Sequence[BlockFile],
    pool: LabelerPool | None = None,
) -> Labeler:
    """Load a model of this workspace as a labeler.

    Args:
        workspace: the workspace.
        task: the task.
        own: its files.
        pool: remembers vectors, where a simulation asks for it.

    Raises:
        RunFailed: it is gone, damaged, or its base weights have changed.
    """
    backend = trained_backend(workspace, task, own, pool)
    try:
        return backend.load()
    except TrainedModelError as error:
        raise RunFailed(str(error)) from error


class LabelerHandler(ModelHandler[Block, ScoredBlock, LazyLabeler]):
    """Runs a labeler on blocks of ads.

    Elements are blocks already, so Beam's own batching is off.

    Args:
        load: returns the labeler; called once a process, on the worker.
        share_processes: whether a worker's processes share one labeler, in a process of its own;
            the in-memory runner has one process, and Ctrl-C should reach one.
    """

    def __init__(self, load: Callable[[], Labeler], share_processes: bool = True) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1, large_model=share_processes)
        self._load = load

    def load_model(self) -> LazyLabeler:
        """Return the labeler, which loads at its first ad."""
        return LazyLabeler(self._load)

    def run_inference(
        self,
        batch: Sequence[Block],
        model: LazyLabeler,
        inference_args: dict[str, Any] | None = None,
    ) -> list[ScoredBlock]:
        """Score blocks; a list, so that Beam counts failures inside."""
        # Counted here: what happens where a shared labeler lives reaches no metric.
        try:
            with metrics.timed("LoadModel"):
                model.prepare()
            return [self.score(model, element) for element in batch]
        finally:
            # Also of a block that fails: what was asked was paid for.
            for name, number in model.asked().items():
                metrics.count(STAGE, name, number)

    def score(self, labeler: LazyLabeler, element: Any) -> Any:
        """Score one element."""
        with metrics.timed(STAGE):
            return score_block(labeler, element)

    def get_metrics_namespace(self) -> str:
        """Return the namespace of RunInference's own metrics."""
        return "scout_inference"
