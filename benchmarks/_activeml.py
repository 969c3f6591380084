"""scikit-activeml and small-text as peers, in an environment of their own; also the script that runs there."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

REQUIREMENTS = (
    "scikit-activeml==1.0.1",
    "small-text==1.4.1",
    "scikit-learn==1.9.1",
    "numpy==2.4.6",
)


def picks(problem: Path) -> dict[str, list[int]]:
    """Return whose rows each of the peers' strategies picks, in their order.

    Args:
        problem: an .npz file of ``strategy_oracles.problem``.
    """
    from benchmarks import _common

    python = _common.peer_python("activeml", *REQUIREMENTS)
    command = [python, str(Path(__file__)), str(problem)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


class Given:
    """A clustering that was made before, as TypiClust asks for one."""

    def __init__(self, labels: Any = None, n_clusters: int = 0) -> None:
        self.labels, self.n_clusters = labels, n_clusters

    def fit_predict(self, rows: np.ndarray) -> np.ndarray:
        """Return the clusters."""
        assert len(self.labels) == len(rows)
        return np.asarray(self.labels)


def _picks(given: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    from skactiveml import pool
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import _badge
    from skactiveml.pool import _query_by_committee as committee
    from sklearn.linear_model import LogisticRegression
    from small_text.query_strategies.coresets import greedy_coreset

    vectors, known = given["vectors"].astype(np.float64), given["known"].astype(np.float64)
    n, wanted = len(vectors), int(given["wanted"])
    rows = np.concatenate([vectors, known])
    labels = np.concatenate([np.full(n, np.nan), given["labels"]])
    # The product's own head.
    head = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000)

    def head_of(classes: Any) -> Any:
        return SklearnClassifier(head, classes=classes)

    share = 1.0 / (1.0 + np.exp(-given["members"]))
    probabilities = np.stack([1.0 - share, share], axis=-1)
    own = 1.0 / (1.0 + np.exp(-given["margins"]))
    both = np.column_stack([1.0 - own, own])

    def best(scores: np.ndarray) -> list[int]:
        return np.argsort(-scores, kind="stable")[:wanted].tolist()

    def asked(strategy: Any, **settings: Any) -> list[int]:
        return [int(row) for row in strategy.query(rows, labels, batch_size=wanted, **settings)]

    class Badge(pool.Badge):
        """Draws from the numbers that both sides get, not from a seed of its own making."""

        def _validate_data(self, *settings: Any, **named: Any) -> Any:
            checked = super()._validate_data(*settings, **named)
            self.random_state_ = np.random.RandomState(0)
            return checked

    def badge() -> list[int]:
        return asked(Badge(random_state=0), clf=head_of([0, 1]))

    as_it_is, distance = badge(), _badge._d_2

    def from_drawn_alone(rows: np.ndarray, drawn: Any, before: Any = None) -> np.ndarray:
        lengths = np.sum(rows**2, axis=-1)
        if before is not None and np.array_equal(before, lengths):
            before = np.full(len(rows), np.inf)
        return distance(rows, drawn, before)

    _badge._d_2 = from_drawn_alone
    nearest = {"n_neighbors": 10}
    cluster = {"labels": np.concatenate([given["cluster"], given["covered"]])}
    return {
        **{
            name: best(pool.uncertainty_scores(both, method=method))
            for name, method in (
                ("least-confidence", "least_confident"),
                ("margin", "margin_sampling"),
                ("entropy", "entropy"),
            )
        },
        "committee": best(committee.vote_entropy((share >= 0.5).astype(int), classes=[0, 1])),
        "bald": best(committee.average_kl_divergence(probabilities.swapaxes(0, 1).copy())),
        "core-set": asked(pool.CoreSet(random_state=0)),
        "core-set (small-text)": greedy_coreset(
            rows, np.arange(n), np.arange(n, len(rows)), wanted, distance_metric="euclidean"
        ).tolist(),
        # It counts the origin among what was drawn; the authors' code does not, and nor do we.
        "badge, as it is": as_it_is,
        "badge, without the origin": badge(),
        "contrastive": asked(
            pool.ContrastiveAL(nearest_neighbors_dict=nearest, random_state=0), clf=head_of([0, 1])
        ),
        "discriminative": asked(
            pool.DiscriminativeAL(greedy_selection=False, random_state=0),
            discriminator=head_of([0, 1]),
        ),
        "clusters": asked(
            pool.TypiClust(cluster_algo=Given, cluster_algo_dict=cluster, k=20, random_state=0)
        ),
    }


if __name__ == "__main__":
    with np.load(sys.argv[1]) as held:
        print(json.dumps(_picks(dict(held))))
