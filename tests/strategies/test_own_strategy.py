"""A strategy of one's own goes the whole way: one class, one registration, nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines import cli
from pipelines.store.workspace import Workspace
from pipelines.strategies.base import Context, Need, Pick, Rows, RowStrategy
from pipelines.strategies.registry import registered
from tests import helpers

# Content keys of the ads whose labels the strategy was given.
TOLD: set[str] = set()


class Loudest(RowStrategy):
    """Positives far from what experts called positive, each beside the pool's surest negative."""

    name = "loudest"
    needs = frozenset({Need.VECTORS, Need.LABELS})

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        assert rows.vectors is not None
        if context.labelled is None:
            return rows.margins
        assert context.labelled.rows.vectors is not None
        TOLD.update(context.labelled.rows.keys)
        known = context.labelled.rows.vectors[context.labelled.labels == 1].astype(np.float64)
        far = np.abs(rows.vectors.astype(np.float64)[:, None] - known[None]).sum(axis=2)
        return rows.margins + (far.min(axis=1) if len(known) else 0.0)

    def pool_rows(self, selection: object) -> int:
        return 1000

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        pairs = [Pick((row, len(pool) - 1 - row)) for row in range(budget // 2)]
        return [*pairs, *(Pick((row,)) for row in range(budget // 2, budget))]


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    TOLD.clear()
    with registered(Loudest):
        yield


def scout(capsys: pytest.CaptureFixture[str], *argv: object) -> dict:
    assert cli.main([*map(str, argv), "--json"]) == cli.OK, capsys.readouterr().err
    found: dict = json.loads(capsys.readouterr().out)
    return found


def test_through_two_rounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = helpers.FAKE_TASK.replace("budget: 12", "budget: 24, strategy: loudest")
    task = helpers.write_task(tmp_path, f"{text}training: {{learner: head}}\n")
    ads = helpers.tiny_ads()
    corpus, root = helpers.write_jsonl(tmp_path / "ads.jsonl", ads), tmp_path / "w"
    mined = scout(capsys, "mine", task, "--corpus", corpus, "--workspace", root, "--quiet")
    items = mined["review_items"]
    assert len(items) == mined["pairs"] == 24
    assert {item["source"] for item in items} == {"loudest", "exploration"}
    assert {len(item["ads"]) for item in items} == {1, 2}

    for tool in ("page", "csv", "label-studio", "argilla", "doccano", "prodigy"):
        out = tmp_path / tool
        found = scout(
            capsys, "export", "--workspace", root, "--tool", tool, "--out", out, "--quiet"
        )
        assert all(Path(path).stat().st_size for path in found["files"])

    with open(tmp_path / "csv" / "review.csv", encoding="utf-8-sig", newline="") as source:
        sheet = list(csv.DictReader(source))
    shown = {ad["id"] for item in items for ad in item["ads"]}
    assert {row["ad_id"] for row in sheet} == shown
    loud = {ad["id"] for ad in ads if "!" in ad["text"]}
    for expert in ("anna", "bo"):
        path = tmp_path / f"{expert}.csv"
        with open(path, "w", encoding="utf-8", newline="") as sink:
            writer = csv.DictWriter(sink, sheet[0])
            writer.writeheader()
            for row in sheet:
                label = "positive" if row["ad_id"] in loud else "negative"
                writer.writerow({**row, "label": label, "expert": expert})
        back = scout(capsys, "import", path, "--workspace", root, "--quiet")
        assert (back["verdicts"], back["rejected"]) == (len(sheet), 0)
    state = scout(capsys, "status", "--workspace", root)
    labelled = state["rounds"][0]["labelled"]
    assert sum(labelled[half] for half in ("fine_tuning", "evaluation", "withheld")) == len(shown)
    assert cli.main(["report", "--workspace", str(root), "--quiet"]) == cli.OK
    assert (root / "report" / "report.html").stat().st_size > 10_000
    capsys.readouterr()

    # The second round asks about other ads, and the strategy is told what experts said: of the
    # fine-tuning half alone, or what trains would be chosen by what measures.
    assert not TOLD
    again = scout(capsys, "mine", task, "--corpus", corpus, "--workspace", root, "--quiet")
    assert again["round"] == 2
    assert not shown & {ad["id"] for item in again["review_items"] for ad in item["ads"]}
    assert Workspace(str(root)).current_round() == 2
    verdicts = Workspace(str(root)).verdicts.latest(1)
    assert verdicts and verdicts.facts.keys.evaluation
    assert {*verdicts.facts.keys.fine_tuning} == TOLD
