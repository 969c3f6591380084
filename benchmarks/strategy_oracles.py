"""Do our strategies pick what scikit-activeml's and small-text's own implementations pick?

    python -m benchmarks.strategy_oracles --json benchmarks/results/strategy_oracles.json

2,000 unit vectors, 60 labelled ones, 20 picks; whatever a method draws or clusters is given to both. The JSON
keeps the peers' picks, by which `tests/strategies/test_oracles.py` holds ours without installing them.
Target: the same picks (in the same order, except where clusters are equally large), except of BADGE as
scikit-activeml has it, which takes the origin for a row that was drawn before.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from benchmarks import _activeml, _common
from models.training.learners import fit_head
from pipelines.config import Selection
from pipelines.numerics import acquisition, kmeans
from pipelines.numerics.calibration import Threshold
from pipelines.strategies.badge import k_means_plus_plus
from pipelines.strategies.base import UNIT, Context, Labelled, Rows
from pipelines.strategies.clusters import typical
from pipelines.strategies.contrastive import Contrastive
from pipelines.strategies.core_set import k_center
from pipelines.strategies.discriminative import told_apart
from pipelines.strategies.heads import ensemble
from pipelines.strategies.uncertainty import Uncertainty
from pipelines.text import content_key

RESULT = Path(__file__).parent / "results" / "strategy_oracles.json"
ROWS, KNOWN, DIMS, WANTED, CENTRES = 2000, 60, 32, 20, 80


def problem() -> dict[str, np.ndarray]:
    """Return what both sides get: vectors, labels, members' margins, a clustering, uniform numbers."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(CENTRES, DIMS))
    raw = centres[rng.integers(CENTRES, size=ROWS + KNOWN)]
    raw = (raw + rng.normal(0, 0.7, raw.shape)).astype(np.float16)
    unit = kmeans.project(UNIT, raw)
    along = unit @ rng.normal(size=DIMS) + rng.normal(0, 0.3, len(unit))
    vectors, known = unit[:ROWS], unit[ROWS:]
    labels = (along[ROWS:] > np.quantile(along, 0.7)).astype(np.int8)
    kernel, bias = fit_head(known, labels)
    margins = acquisition.linear_margins(unit, kernel[None], np.array([bias]))[:, 0]
    members = acquisition.linear_margins(vectors, *ensemble(known, labels, 9, 3))
    cluster = ((unit[:, None] - kmeans.project(UNIT, centres)) ** 2).sum(axis=2).argmin(axis=1)
    return {
        "raw": raw,
        "vectors": vectors,
        "known": known,
        "labels": labels,
        "margins": margins[:ROWS],
        "known_margins": margins[ROWS:],
        "members": members,
        "cluster": cluster[:ROWS],
        "covered": cluster[ROWS:],
        # scikit-activeml draws from NumPy's old generator, one number a row after the first.
        "draws": np.append(0.0, np.random.RandomState(0).random_sample(WANTED - 1)),
        "wanted": np.array(WANTED),
    }


def ours(given: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Return what ours pick, by the peers' names."""
    vectors, known, wanted = given["vectors"], given["known"], int(given["wanted"])
    context = Context(
        Selection(budget=wanted),
        0,
        "policy",
        Threshold(0.0, 1, ROWS - 1),
        ROWS,
        Labelled(rows_of(given["raw"][ROWS:], given["known_margins"]), given["labels"]),
    )
    rows = rows_of(given["raw"][:ROWS], given["margins"])

    def best(scores: np.ndarray) -> list[int]:
        return np.argsort(-scores, kind="stable")[:wanted].tolist()

    doubtful, covering = best(Uncertainty().score(rows, context)), k_center(vectors, known, wanted)
    share = expit(given["margins"])
    badge = k_means_plus_plus(vectors, share - (share >= 0.5), given["draws"]).tolist()
    return {
        "least-confidence": doubtful,
        "margin": doubtful,
        "entropy": doubtful,
        "committee": best(acquisition.vote_entropy(given["members"])),
        "bald": best(acquisition.mutual_information(given["members"])),
        "core-set": covering.tolist(),
        "core-set (small-text)": covering.tolist(),
        "badge, as it is": badge,
        "badge, without the origin": badge,
        "contrastive": best(Contrastive().score(rows, context)),
        "discriminative": told_apart(vectors, known, wanted, wanted, np.inf).tolist(),
        "clusters": typical(vectors, given["cluster"], given["covered"], wanted).tolist(),
    }


def rows_of(vectors: np.ndarray, margins: np.ndarray) -> Rows:
    """Return rows with keys of their own."""
    return Rows([content_key(str(n)) for n in range(len(vectors))], margins, vectors)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = _common._parser(__doc__).parse_args(argv)
    given = problem()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(path := Path(folder) / "problem.npz", **given)  # type: ignore[arg-type]
        theirs = _activeml.picks(path)
    found = ours(given)
    rows: list[dict[str, Any]] = [
        {
            "strategy": name,
            "same picks": len({*found[name]} & {*theirs[name]}),
            "in the same order": found[name] == theirs[name],
        }
        for name in theirs
    ]
    targets = {
        f"{row['strategy']}: same picks": row["same picks"] == WANTED
        for row in rows
        if row["strategy"] != "badge, as it is"
    }
    return _common.finish(args, rows, targets, peers=_activeml.REQUIREMENTS, picks=theirs)


def recorded() -> dict[str, list[int]]:
    """Return the peers' picks as they were recorded."""
    picks: dict[str, list[int]] = json.loads(RESULT.read_text(encoding="utf-8"))["picks"]
    return picks


if __name__ == "__main__":
    sys.exit(main())
