"""Who labels in a simulation: experts, simulated or recorded, and crowds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from models.encoder import VectorCache
from models.training import trainer
from pipelines.config import Labels, Task
from pipelines.console.progress import step
from pipelines.contracts import ReviewItem
from pipelines.errors import UsageError
from pipelines.jobs.train import training_settings
from pipelines.numerics import hashing, raters
from pipelines.numerics.agreement import MISSING
from pipelines.simulation.labelled_corpus import Corpus
from pipelines.simulation.options import Crowd, SimulateOptions
from pipelines.verdicts.rows import RawVerdict

# Directions of the embedding that the crowd's cue is drawn from: topics and style, not noise.
_CUE_DIMS = 32
_EMBED_ROWS = 1024
_CROWD_TOLERANCE = 0.05

Vectors = Callable[[], np.ndarray]


def embed(corpus: Corpus, task: Task, cache: VectorCache) -> np.ndarray:
    """Return the frozen encoder's vectors of a whole corpus, float32 (n, dim)."""
    bundle = cache.bundle(task.training.encoder)
    window = trainer.window(bundle, training_settings(task))
    encoder = cache.encoder(bundle, task.model.dtype, window)
    parts = []
    with step("embedding ads", len(corpus)) as advance:
        for start in range(0, len(corpus), _EMBED_ROWS):
            texts = corpus.texts[start : start + _EMBED_ROWS]
            parts.append(cache.vectors(encoder.embedding_id, texts, encoder.encode))
            advance(len(texts))
    return np.concatenate(parts)


def expert_verdicts(
    corpus: Corpus, options: SimulateOptions, experts: int, seed: int, vectors: Vectors
) -> np.ndarray:
    """Return what each expert of a seed would say of each ad.

    Args:
        corpus: n ads.
        options: who the experts are, and how well they agree.
        experts: who label an ad.
        seed: the seed.
        vectors: returns the encoder's vectors of the corpus, if they are needed.

    Returns:
        int8 (n, experts), or (n, seats) of recorded people; ``MISSING`` where one is silent.
    """
    if corpus.ratings is not None:
        return _draw_raters(corpus.keys, corpus.ratings, experts, seed)
    if options.expert_kappa == 1.0:
        return np.repeat(corpus.gold[:, None].astype(np.int8), experts, axis=1)
    share = corpus.gold.mean()
    balanced = np.where(corpus.gold, 0.5 / share, 0.5 / (1 - share)) / len(corpus)
    ambiguity = _ambiguity(vectors(), corpus.gold)
    return raters.expert_ratings(
        corpus.gold, ambiguity, corpus.keys, experts, options.expert_kappa, balanced, seed
    )


def _draw_raters(keys: Sequence[str], ratings: np.ndarray, experts: int, seed: int) -> np.ndarray:
    """Choose each ad's experts among the recorded people, by hash; the others stay silent."""
    table = np.full_like(ratings, MISSING)
    for row, key in enumerate(keys):
        given = np.flatnonzero(ratings[row] != MISSING)
        drawn = [hashing.unit_hash(f"{key}:{seat}", seed) for seat in given]
        chosen = given[np.argsort(drawn, kind="stable")[:experts]]
        table[row, chosen] = ratings[row, chosen]
    return table


def _ambiguity(vectors: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return how near each ad lies to the boundary between the labels, in [0, 1].

    By a logistic head fitted on all gold labels and asked out of fold: what a well-taught reader of
    the same vectors is unsure about.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    found = cross_val_predict(model, vectors, gold, cv=5, method="predict_proba")[:, 1]
    return 4.0 * found * (1.0 - found)


def answer(
    items: Iterable[ReviewItem], verdicts: np.ndarray, row_of: Mapping[str, int], names: Labels
) -> list[RawVerdict]:
    """Let the experts answer a round's items.

    Args:
        items: what they are asked.
        verdicts: int8 (n, experts), what they say of each ad of the corpus.
        row_of: content key -> row.
        names: of the labels.
    """
    found: list[RawVerdict] = []
    for ad in (ad for item in items for ad in item.ads):
        for seat, said in enumerate(verdicts[row_of[ad.key]], start=1):
            if said != MISSING:
                label = names.positive if said else names.negative
                position = f"row {len(found) + 1}"
                expert = f"expert {seat}"
                # Without item, side and text before them, time, comment and file after them.
                found.append(RawVerdict(ad.id, "", "", "", label, expert, "", "", "", position))
    return found


def crowd_cue(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Return what misleads a crowd, (n,): a random direction among the embedding's main ones."""
    from sklearn.decomposition import PCA

    dims = min(_CUE_DIMS, *vectors.shape)
    whitened = PCA(dims, whiten=True, random_state=seed).fit_transform(vectors)
    return whitened @ np.random.default_rng(seed).standard_normal(dims)


def crowd_labels(
    crowd: Crowd, gold: np.ndarray, keys: Sequence[str], seed: int, cue: Callable[[], np.ndarray]
) -> np.ndarray:
    """Return what a crowd says of each ad, int8 (n,).

    Args:
        crowd: which.
        gold: bool (n,), the truth.
        keys: n content keys.
        seed: the seed.
        cue: returns what misleads it, (n,), if its errors follow the text.

    Raises:
        UsageError: its kappa cannot be reached on these ads.
    """
    try:
        if crowd.noise == "text":
            return raters.crowd_labels(
                gold, cue(), keys, crowd.kappa, seed, tolerance=_CROWD_TOLERANCE
            )
        return raters.uniform_crowd_labels(
            gold, keys, crowd.kappa, seed, tolerance=_CROWD_TOLERANCE
        )
    except ValueError as error:
        raise UsageError(f"--crowd_kappa {crowd.kappa:g}: {error}") from error
