"""What the report's tests share: a report taken apart, and workspaces whose models are made up."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import cli
from pipelines.config import load_task
from pipelines.contracts import ReviewItem
from pipelines.jobs.evaluate import Candidate, measure
from pipelines.report.output import Report
from pipelines.report.round import ReportOptions, report
from pipelines.store.facts import Evaluation
from pipelines.store.workspace import Manifest, Workspace
from pipelines.verdicts.halves import Ratings, imported_into
from tests import helpers


class Parts(HTMLParser):
    """A report's tags, its texts by the section that they are in, and its pictures."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {"": ""}
        self.style = ""
        self.ads: list[str] = []
        self._path: list[str] = []
        self._section = ""
        self._ad_depth = 0
        self.feed(data.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "section":
            self._section = str(found["id"])
            self.texts[self._section] = ""
        if tag in ("meta", "img"):
            return
        self._path.append(tag)
        if found.get("class") == "ad-text":
            self._ad_depth = len(self._path)
            self.ads.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._path.pop() == tag, "tags close in order"
        if len(self._path) < self._ad_depth:
            self._ad_depth = 0

    def handle_data(self, data: str) -> None:
        if self._path and self._path[-1] == "style":
            self.style += data
            return
        self.texts[self._section] += data
        if self._ad_depth:
            self.ads[-1] += data

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def read(found: Report) -> Parts:
    return Parts(Path(found.path).read_bytes())


def draw(root: Path, out: Path, **changes: Any) -> Report:
    return report(ReportOptions(str(root), out=str(out), **changes), lambda line: None)


def labelled(root: Path, number: int, path: Path) -> None:
    """Let two experts label the pairs of a round: who shouts is lying, and Bo errs now and then."""
    workspace = Workspace(str(root))
    manifest = workspace.latest(number, "pairs")
    assert manifest is not None
    with open(path, "w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(["ad_id", "label", "expert"])
        for place, item in enumerate(workspace.read_items(manifest)):
            for ad in item.ads:
                loud = "!" in ad.text or "You won" in ad.text
                for expert, wrong in (("anna", False), ("bo", place % 5 == 0)):
                    label = "positive" if loud != wrong else "negative"
                    writer.writerow([ad.id, label, expert])
    assert cli.main(["import", str(path), "--workspace", str(root), "--quiet"]) == 0


def evaluation(task: Path, rounds: int, experts_say: np.ndarray) -> Evaluation:
    """Return a real evaluation of made-up models that err less from round to round."""
    keys = tuple(f"{i:032x}" for i in range(len(experts_say)))
    first = experts_say[:, 0]

    def model(number: int) -> Candidate:
        wrong = np.arange(len(first)) % (2 + 3 * number) == 0
        margins = np.where((first == 1) != wrong, 1.0, -1.0)
        return Candidate(number, f"m{number}", 0.0, lambda _: margins)

    table = Ratings(keys, ("anna", "bo"), experts_say)
    candidates = [model(number) for number in range(rounds + 1)]
    return measure(load_task(str(task)), table, ["text"] * len(keys), candidates, 30)


def say_so(n: int = 60) -> np.ndarray:
    anna = (np.arange(n) % 3 == 0).astype(np.int8)
    bo = np.where(np.arange(n) % 10 == 0, 1 - anna, anna)
    return np.stack([anna, bo], axis=1).astype(np.int8)


def learn(root: Path, number: int, found: Evaluation, version: int = 1) -> None:
    """Commit a model without files, as training leaves it behind."""
    workspace = Workspace(str(root))
    attempt = workspace.new_attempt(number, "model")
    facts = dataclasses.replace(
        helpers.model_facts(f"m{number}", found, ads=20 * number, version=version),
        # It has seen all that there is, so that the report need open no verdict.
        verdicts=imported_into(workspace, version),
    )
    workspace.commit(Manifest.of(attempt, f"h{number}", [], 1, facts))


def items_of(root: Path, number: int) -> Sequence[ReviewItem]:
    workspace = Workspace(str(root))
    return workspace.read_items(workspace.pairs_of(number))


def rewrite(root: Path, number: int, items: Sequence[ReviewItem]) -> None:
    """Put other items in the place of a round's."""
    helpers.change_items(root, number, lambda _: items)


def rename(root: Path, **changes: Any) -> None:
    """Give the task of the newest pairs other words, and its corpus another path."""
    path = next((root / "rounds/0002/pairs").rglob("manifest.json"))
    manifest = json.loads(path.read_text())
    manifest["facts"]["origin"]["task"] |= changes
    manifest["facts"]["origin"]["corpus"] = ["<i>ads&.jsonl"]
    path.write_text(json.dumps(manifest))
