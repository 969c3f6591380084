"""The table of faults: it has a row for each, without a blank; the short ones are played here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.played import FAULTS, ROOT, Fault
from tests.faults.write import HEAD, NOT_RUN, TABLE, cells, rows

SHORT = [fault for fault in FAULTS if not fault.long]


def test_table_and_faults_have_the_same_names() -> None:
    found = [name for name in rows() if name not in ("fault", "---")]
    assert found == [fault.name for fault in FAULTS]
    assert TABLE.read_text(encoding="utf-8").startswith(HEAD)


def test_no_cell_is_blank_and_every_rerun_is_equal() -> None:
    for fault in FAULTS:
        row = cells(rows()[fault.name])
        assert len(row) == 4 and all(row), row
        # What is long may wait for who has the time: it says so in the table.
        assert row[3].startswith(("yes", NOT_RUN) if fault.long else "yes"), row
        assert row[0].endswith(" †") == fault.long


def test_each_fault_has_tests_that_are_there() -> None:
    for fault in FAULTS:
        assert fault.tests or fault.long, fault.name
        for name in fault.tests:
            assert (ROOT / "tests" / name).is_file(), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # One for all: what each begins with is made once.
    made = tmp_path_factory.mktemp("faults")
    (made / "kept").mkdir()
    return made


@pytest.mark.parametrize("fault", SHORT, ids=[fault.name for fault in SHORT])
def test_a_fault_is_foreseen(fault: Fault, folder: Path) -> None:
    own = folder / str(FAULTS.index(fault))
    own.mkdir()
    (own / "kept").symlink_to(folder / "kept", target_is_directory=True)
    seen = fault.play(own)
    assert seen.equal.startswith("yes"), seen
    assert all((seen.said, seen.state))
