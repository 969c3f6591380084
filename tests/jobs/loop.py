"""A whole loop as a person plays it: mine, verdicts of two experts, import, train, and again."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from models import trained
from models.backends.fake import FakeLabeler
from models.backends.trained import Trained
from pipelines import cli
from pipelines.jobs import status, train
from pipelines.jobs.train import TrainOptions
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import content_key
from tests import helpers

GOLD = helpers.gold_ads(300)
KEY_OF = {ad["id"]: content_key(ad["text"]) for ad in GOLD.ads}
ID_OF = {key: id for id, key in KEY_OF.items()}
TEXT_OF = {content_key(ad["text"]): ad["text"] for ad in GOLD.ads}
EXPERTS = ("anna", "bo")


@dataclass(frozen=True, slots=True)
class Loop:
    """A workspace with its corpus and task, as a person has them in one folder."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "w"

    @property
    def place(self) -> Workspace:
        return Workspace(str(self.root))

    def command(self, name: str, *rest: object) -> int:
        quiet = [] if name == "status" else ["--quiet"]
        return cli.main([name, *map(str, rest), "--workspace", str(self.root), *quiet])

    def mine(self) -> int:
        corpus = self.folder / "ads.jsonl"
        return self.command("mine", self.folder / "task.yaml", "--corpus", corpus, "--show", 0)

    @property
    def mining(self) -> str:
        """What mines again, as it is told: a copied workspace remembers where it was mined from."""
        origin = self.place.pairs_of().facts.origin
        [corpus] = origin.corpus
        return f"`scout mine {origin.task_file} --corpus {corpus} --workspace {self.root}`"

    def train(self, task: str = "", export: str = "") -> tuple[dict[str, Any], list[str]]:
        """Train; -> the outcome as JSON, and what was said."""
        said: list[str] = []
        summary = train.train(TrainOptions(str(self.root), task, export), said.append).to_json()
        return summary, said

    def status(self) -> dict[str, Any]:
        return status.standing(self.place).to_json()

    def manifest(self, number: int, stage: str) -> Manifest:
        found = self.place.latest(number, stage)
        assert found is not None, f"round {number} has no {stage}"
        return found

    def shown(self, number: int) -> list[str]:
        """Return the ids of the ads of a round's pairs, in review order."""
        items = self.place.read_items(self.manifest(number, "pairs"))
        return [ad.id for item in items for ad in helpers.by_label(item).values()]

    def sides(self) -> dict[str, str]:
        """Return ad id -> half, as the imports recorded it."""
        return {
            ID_OF[row["key"]]: row["side"]
            for path in self.root.rglob("sides.jsonl")
            for row in map(json.loads, path.read_text().splitlines())
        }


def said_by(expert: str, id: str) -> str:
    """Return an expert's verdict: the truth, but for 8% of the ads, each expert's own."""
    wrong = random.Random(f"{expert} {id}").random() < 0.08
    return "positive" if GOLD.positive[id] != wrong else "negative"


def write_verdicts(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as sink:
        csv.writer(sink).writerows([("ad_id", "label", "expert"), *rows])
    return path


def answer(loop: Loop, number: int, choose: Callable[[str, str], str] = said_by) -> Path:
    """Let both experts label a round's ads, in one file."""
    rows = [(id, choose(expert, id), expert) for id in loop.shown(number) for expert in EXPERTS]
    return write_verdicts(loop.folder / f"verdicts-{number}.csv", rows)


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def labels_of(manifest: Manifest, loop: Loop, ids: list[str]) -> np.ndarray:
    """Return what a round's saved model says of ads, at its saved threshold."""
    folder = loop.root / manifest.files[0].path.rsplit("/", 1)[0]
    margins = Trained(folder).load().label([TEXT_OF[KEY_OF[id]] for id in ids]).margin
    return margins >= trained.read_manifest(folder).threshold_margin


def llm0_labels(loop: Loop, ids: list[str]) -> np.ndarray:
    margins = FakeLabeler().label([TEXT_OF[KEY_OF[id]] for id in ids]).margin
    return margins >= loop.manifest(1, "clusters").facts.threshold.margin


def expected_kappas(loop: Loop, models: int, upto: int) -> tuple[float, list[float], list[str]]:
    """Recompute from the verdict files what a report must say.

    Args:
        loop: the loop.
        models: how many rounds' models.
        upto: evaluation ads of rounds up to this one.

    Returns:
        expert-expert kappa, model-expert kappas from LLM-0 on, and the evaluation ads' ids.
    """
    sides = loop.sides()
    ids = [id for n in range(1, upto + 1) for id in loop.shown(n) if sides[id] == "evaluation"]
    said = [[said_by(expert, id) == "positive" for id in ids] for expert in EXPERTS]
    calls = [llm0_labels(loop, ids)]
    calls += [labels_of(loop.manifest(n, "model"), loop, ids) for n in range(1, models + 1)]
    kappas = [float(np.mean([cohen_kappa_score(c, own) for own in said])) for c in calls]
    return float(cohen_kappa_score(*said)), kappas, ids


def check_training_set(loop: Loop, number: int) -> None:
    """Check that a model saw the agreed labels of the fine-tuning half, and nothing else."""
    sides = loop.sides()
    lines = [
        f"{KEY_OF[id]} {int(said_by('anna', id) == 'positive')}\n"
        for n in range(1, number + 1)
        for id in loop.shown(n)
        if sides[id] == "fine_tuning" and said_by("anna", id) == said_by("bo", id)
    ]
    wanted = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    manifest = loop.manifest(number, "model")
    assert manifest.facts.learnt.label_set_hash == wanted
    assert manifest.rows == len(lines)
    folder = loop.root / manifest.files[0].path.rsplit("/", 1)[0]
    assert trained.read_manifest(folder).label_set_hash == wanted


def check_kappa(loop: Loop, number: int) -> None:
    """Check that what is separable was learnt, the right way round."""
    report = loop.manifest(number, "model").facts.evaluation
    assert report.models[-1].kappa.value > 0.6


def check_second_import(loop: Loop) -> None:
    """Check that files that were imported before change nothing, nor the training after them."""
    before = tree(loop.root)
    for number in (1, 2):
        assert loop.command("import", loop.folder / f"verdicts-{number}.csv") == cli.OK
    assert tree(loop.root) == before
    _, said = loop.train()
    assert said == ["round 2 is trained already with these labels; nothing to do"]
    assert tree(loop.root) == before
