"""What the benchmarks share: arguments, labelled headlines and their vectors, tables, verdicts."""

import argparse
import gzip
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path(__file__).parent / ".cache"
DATA_VARIABLE = "SCOUT_BENCH_DATA"


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser for a benchmark on labelled headlines."""
    parser = _parser(description)
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get(DATA_VARIABLE),
        help=f"labelled headlines, gzipped JSONL with text and label (default: ${DATA_VARIABLE})",
    )
    return parser


def make_synthetic_parser(
    description: str | None, sizes: Sequence[int], repeats: int
) -> argparse.ArgumentParser:
    """Make a parser for a benchmark on synthetic ads, which measures in processes of its own."""
    parser = _parser(description)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(sizes))
    parser.add_argument("--repeats", type=int, default=repeats, help="default: %(default)s")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as well")
    parser.add_argument("--no_check", action="store_true", help="exit with 0 on a missed target")
    return parser


def measure_apart(benchmark: str, folder: Path, flag: str = "--measure") -> dict[str, Any]:
    """Run a benchmark's ``--measure`` in a fresh process: peak memory never falls again.

    A process begins with its parent's peak, so the parent must stay small.
    """
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", flag, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def peer_python(name: str, *requirements: str) -> str:
    """Return the Python of a peer's own environment, in the cache; it is made on first use.

    Args:
        name: of the environment.
        requirements: what pip installs into it.
    """
    home = CACHE / "peers" / name
    python = str(home / "bin" / "python")
    if not (home / "ready").is_file():
        log(f"installing {' '.join(requirements)} into {home}, once")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        (home / "ready").touch()
    return python


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments; without data, exit with status 2 and say how to give it."""
    args = parser.parse_args(argv)
    if args.data is None:
        parser.error(f"no data: give --data FILE or set {DATA_VARIABLE}")
    args.data = Path(args.data)
    if not args.data.is_file():
        parser.error(f"no such file: {args.data}")
    return args


def load_headlines(path: Path) -> tuple[list[str], np.ndarray]:
    """Read texts and whether each is clickbait, in the file's order."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [r["text"] for r in records], np.array([r["label"] == "clickbait" for r in records])


def headline_vectors(path: Path) -> np.ndarray:
    """Encode the headlines with MiniLM, float32 (n, 384) unit rows; kept in the cache."""
    from models.presets import EMBEDDED_ENCODER, identify_encoder

    name = f"{identify_encoder(EMBEDDED_ENCODER)[0]}\0".encode() + path.read_bytes()
    cached = CACHE / f"headlines-{hashlib.sha256(name).hexdigest()[:16]}.npy"
    if not cached.exists():
        from models.encoder import SentenceEncoder
        from models.presets import load_encoder

        texts, _ = load_headlines(path)
        log(f"encoding {len(texts)} headlines, once")
        vectors = SentenceEncoder(load_encoder(EMBEDDED_ENCODER)).encode(texts)
        CACHE.mkdir(exist_ok=True)
        # Written whole before it gets its name: an interrupted run leaves no half matrix.
        partial = cached.with_suffix(".partial.npy")
        np.save(partial, vectors)
        partial.replace(cached)
    return np.load(cached)


def seconds(action: Callable[[], object], repeats: int = 3) -> float:
    """Time an action: the median of `repeats` runs after one that warms up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def log(message: str) -> None:
    """Tell what takes time, on stderr."""
    print(message, file=sys.stderr, flush=True)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a Markdown table; floats with four significant digits."""

    def text(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    columns = list(rows[0])
    cells = [columns, *([text(row[column]) for column in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for number, row in enumerate(cells):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def finish(
    args: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    targets: Mapping[str, bool],
    **details: Any,
) -> int:
    """Print the table and each target's verdict, write the JSON, and give the exit status."""
    print_table(rows)
    for target, met in targets.items():
        print(f"{'met' if met else 'MISSED'}: {target}")
    if args.json:
        result = {"rows": list(rows), "targets": dict(targets), "cpus": os.cpu_count(), **details}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if args.no_check or all(targets.values()) else 1
