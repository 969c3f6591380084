"""Play every fault and write docs/faults.md: ``python -m tests.faults.write [NAME...]``.

With names (or parts of them) only those are played, and the other rows stay as they are. All of them take about
half an hour; the real model's weights are fetched where they are not in the cache.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.faults.played import FAULTS, ROOT, Fault, Seen

NOT_RUN = "not run yet"
TABLE = ROOT / "docs" / "faults.md"
HEAD = """\
# Faults

What breaks, what a person then reads (the last line, paths and figures short), what is left, and whether a rerun gives what it gives without the fault.
Written by `python -m tests.faults.write`, which plays each of them; CI plays those without a mark, the others (†) are played by that program alone.

| fault | what the user sees | state after | rerun equal? |
|---|---|---|---|
"""


def rows() -> dict[str, str]:
    """Return the table's rows, by the names of their faults."""
    if not TABLE.is_file():
        return {}
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return {cells(line)[0].removesuffix(" †"): line for line in lines if line.startswith("| ")}


def cells(line: str) -> list[str]:
    """Return the cells of a row of the table."""
    return [cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|")]


def row(fault: Fault, seen: Seen) -> str:
    """Return a fault's row."""
    found = (f"{fault.name}{' †' * fault.long}", seen.said, seen.state, seen.equal)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in found)} |"


def main(wanted: list[str]) -> int:
    """Play faults and write the table; -> 1 where one of them is not as it should be."""
    unknown = Seen(NOT_RUN, NOT_RUN, NOT_RUN)
    found, failed = {fault.name: row(fault, unknown) for fault in FAULTS} | rows(), []
    for fault in FAULTS:
        if wanted and not any(name in fault.name for name in wanted):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="scout-faults-") as folder:
            try:
                seen = fault.play(Path(folder))
            except AssertionError as error:
                failed.append(fault.name)
                print(f"{fault.name}: {error}", file=sys.stderr)
                continue
        found[fault.name] = row(fault, seen)
        print(f"{fault.name}: {seen.equal} ({time.monotonic() - began:.0f} s)", flush=True)
        lines = [found[fault.name] for fault in FAULTS if fault.name in found]
        TABLE.write_text(HEAD + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
