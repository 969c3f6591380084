"""Where a report is written: an older one goes, everything else stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.report.round import ReportOptions, report
from tests.report.drawn import draw

DRAWN = ("map", "overlap-1", "overlap-2", "overlap-3", "pairs", "coverage", "scores")


@pytest.mark.usefixtures("undrawn")
def test_an_older_report_is_replaced_whole_and_nothing_else_is_touched(
    stages: dict[str, Path], learnt: Path
) -> None:
    found = report(ReportOptions(str(learnt)), lambda line: None)
    folder = learnt / "report"
    assert Path(found.path) == folder / "report.html"
    (folder / "mine.png").write_bytes(b"not ours")
    (folder / "report-notes.png").write_bytes(b"not ours either")
    for model in (learnt / "rounds").glob("*/model"):
        shutil.rmtree(model)
    report(ReportOptions(str(learnt)), lambda line: None)
    names = {path.name for path in folder.iterdir()}
    kept = {"report.html", "mine.png", "report-notes.png"}
    kept |= {f"report-{name}.png" for name in DRAWN}
    assert names == kept


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_cannot_be_written_is_named_first(
    stages: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"--out .*file/sub: cannot be written \("):
        draw(stages["mined"], tmp_path / "file" / "sub")
    with pytest.raises(UsageError, match=r"--out a\[b\]: '\[' has a meaning in file patterns"):
        draw(stages["mined"], Path("a[b]"))
