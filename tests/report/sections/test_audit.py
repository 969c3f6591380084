"""The report's section on the whole corpus."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pipelines.console import audit as words
from pipelines.report.data import read_round
from pipelines.report.sections.audit import audit
from pipelines.store.workspace import Workspace
from tests.console.test_audit import found
from tests.helpers import commit_items


def section(root: Path, stand: dict[str, Any] | None) -> Any:
    commit_items(root, [])
    evidence = read_round(Workspace(str(root)), None)
    return audit(dataclasses.replace(evidence, stand={**evidence.stand, "audit": stand}))


def test_without_an_audit_it_says_what_kappa_does_not(tmp_path: Path) -> None:
    made = section(tmp_path, None)
    assert made.paragraphs == (words.NONE,) and not made.tables and not made.missing


def test_an_audit_is_a_table_with_intervals(tmp_path: Path) -> None:
    made = section(tmp_path, found(left_out=24))
    [table] = made.tables
    assert table.caption == "Of 12,345 distinct ads, with 95% intervals"
    assert table.head == ("", "stratified", "prediction-powered")
    assert [row[0] for row in table.rows] == [title for _, title in words.measures(found())]
    assert table.rows[0][1:] == ("2.10% [1.30%, 3.40%]",) * 2
    assert "These labels train no model and choose no threshold." in made.paragraphs[0]
    assert made.paragraphs[1].startswith("Left out: 24 ads")


def test_an_audit_without_labels_says_so(tmp_path: Path) -> None:
    made = section(tmp_path, found(reason="no ad of it is labelled yet"))
    assert made.paragraphs[0].endswith("no ad of it is labelled yet.") and not made.tables
