"""The ``scout`` command."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import io
import json
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from pipelines.console import progress
from pipelines.console.summary import printable
from pipelines.errors import RunFailed, UsageError

SAMPLES = Path(__file__).resolve().parent.parent / "templates"
OK, FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
# What Ctrl-C leaves behind, by command. All that may take over two seconds are here: they show
# progress.
_KEPT = {
    "mine": "what is scored is kept: run the same command again to go on",
    "demo": "what is scored is kept: run the same command again to go on",
    "export": "not everything may be written: run the same command again",
    "import": "a file counts as a whole or not at all: run the same command again",
    "train": "no half-trained model counts: run the same command again",
    "status": "nothing is changed",
    "report": "the report may be incomplete: run the same command again",
    "simulate": "finished seeds and LLM-0's answers are kept: run the same command again to go on",
}
# timeout(1) and some schedulers signal a process and then its group: that is one stop, not two.
_SAME_STOP_SEC = 1.0
_AGAIN_SEC = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; None for those of this process, which then ends with this command.

    Returns:
        0 done, 1 the run failed, 2 the arguments or the task file are wrong, 130 interrupted, 143
        terminated.
    """
    _calm_libraries()
    for stream in (sys.stdout, sys.stderr):
        # Latin-1 terminals cannot show every ad; that must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with _stopping.watch(for_good=argv is None):
        try:
            status = _run(list(sys.argv[1:] if argv is None else argv))
        except KeyboardInterrupt:
            return _stopping.tell()
        # Some library caught the interruption for itself, and the command went on.
        return _stopping.tell() if _stopping.received else status


class _Stopping:
    """Ctrl-C and SIGTERM: the first unwinds the command, another one ends the process at once.

    Attributes:
        received: number of the signal that came, or 0.
        kept: what it leaves behind, for the person who stopped the command.
    """

    def __init__(self) -> None:
        self.received = 0
        self.kept = ""
        self._since_sec = 0.0
        # Nothing more is to be said: it was, or the command is done and Python itself ends.
        self._over = False
        # Raised where Python drops exceptions, in a destructor or a weak reference's callback.
        self._lost = False

    @contextlib.contextmanager
    def watch(self, for_good: bool) -> Iterator[None]:
        """Handle both signals while the body runs, or for good: Python's own end takes a while."""
        self.received, self.kept, self._over, self._lost = 0, "", False, False
        drop = sys.unraisablehook

        def unraisable(dropped: sys.UnraisableHookArgs) -> None:
            if dropped.exc_type is not KeyboardInterrupt or self._over or not self.received:
                drop(dropped)
                return
            self._lost = True
            # Not from here: what is raised in this function is dropped as well.
            again = threading.Timer(_AGAIN_SEC, os.kill, (os.getpid(), self.received))
            again.daemon = True
            again.start()

        sys.unraisablehook = unraisable
        before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A shell starts background jobs with Ctrl-C ignored: so it stays.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            self._over = True
            if not for_good:
                sys.unraisablehook = drop
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._lost:
            self._lost = False
            raise KeyboardInterrupt
        if not self.received:
            self.received, self._since_sec = number, now
            if not self._over:
                raise KeyboardInterrupt
        elif now - self._since_sec < _SAME_STOP_SEC:
            return
        progress.leave("" if self._over else f"scout: {self._line()}", self._status())

    def tell(self) -> int:
        """Tell the person what is kept; -> the exit status."""
        self._over = True
        # A terminal has written ^C where the line begins.
        start = "\r" if sys.stderr.isatty() else ""
        print(f"{start}scout: {self._line()}", file=sys.stderr, flush=True)
        return self._status()

    def _line(self) -> str:
        word = "terminated" if self.received == signal.SIGTERM else "interrupted"
        return f"{word}; {self.kept}" if self.kept else word

    def _status(self) -> int:
        return TERMINATED if self.received == signal.SIGTERM else INTERRUPTED


_stopping = _Stopping()


def _run(arguments: list[str]) -> int:
    try:
        from pipelines import options

        args, beam_flags = options.parse(arguments)
        if args.version:
            _print(_versions())
            return OK
        if not args.command:
            options.build_parser().print_help(sys.stderr)
            return WRONG_USAGE
        _stopping.kept = _KEPT.get(args.command, "")
        quiet = args.command not in _KEPT or getattr(args, "quiet", False)
        with progress.Reporter(quiet=quiet):
            return _COMMANDS[args.command](args, beam_flags)
    except Exception as error:
        if _stopping.received:
            # What was interrupted may end in an exception of its own.
            raise KeyboardInterrupt from error
        return _explain(error)


def _explain(error: Exception) -> int:
    """Tell the person what went wrong; -> the exit status."""
    if isinstance(error, UsageError):
        _complain(str(error))
        return WRONG_USAGE
    if isinstance(error, RunFailed):
        _complain(error.message)
    elif os.environ.get("SCOUT_DEBUG"):
        raise error
    else:
        last = str(error).strip().splitlines()[-1:] or [""]
        _complain(f"{type(error).__name__}: {last[0][:1000]}")
        _complain("this was not foreseen; SCOUT_DEBUG=1 shows where it happened")
    return FAILED


def _calm_libraries() -> None:
    # TensorFlow's and gRPC's start-up notes (no GPU found, ...) would bury our own lines; what
    # really fails raises.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s"
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_printing)


def _worth_printing(record: logging.LogRecord) -> bool:
    """Drop what Beam logs of a failure or Ctrl-C that ends in our own line, and a needless note."""
    if record.exc_info and isinstance(record.exc_info[1], RunFailed):
        return False
    if _stopping.received:
        return False
    return "Resource module is not available" not in record.getMessage()


def _say(line: str) -> None:
    progress.write(f"scout: {line}")


def _complain(message: str) -> None:
    for line in message.splitlines():
        # Column names, paths and excerpts come from the corpus, which is hostile input.
        print(f"scout: error: {printable(line, 2000)}", file=sys.stderr, flush=True)


def _print(text: str) -> None:
    progress.finish()
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader of our output has gone (`scout ... | head`); nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_json(value: Any) -> None:
    # Escaped: ads hold what a terminal obeys, such as U+009B, and JSON is the same either way.
    _print(json.dumps(value, indent=1))


def _versions() -> str:
    names = ("ad-scout", "apache-beam", "tensorflow", "keras-hub", "scann")
    shown = []
    for name in names:
        try:
            shown.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            shown.append(f"{name} (not installed)")
    return ", ".join([*shown, f"python {platform.python_version()}"])


def _validate(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from models import prompting
    from pipelines.config import load_task

    task = load_task(args.task)
    spec = task.prompt_spec()
    try:
        prompt = prompting.describe(spec, args.ad)
        rendered = prompting.render(spec)
    except ValueError as error:
        raise UsageError(f"{args.task}: prompt: {error}") from error
    if args.json:
        _print_json(
            {
                "task": task.model_dump(mode="json"),
                "prompt": prompt,
                "answers": {
                    "positive": rendered.positive_answer,
                    "negative": rendered.negative_answer,
                },
            }
        )
        return OK
    _print(f"{args.task}: valid (task {task.name}, version {task.version})\n")
    _print("The prompt, with the ad in its place:")
    _print("\n".join(f"  | {line}" for line in prompt.splitlines()))
    _print(
        f"\nThe model compares {rendered.positive_answer!r} ({task.labels.positive}) with "
        f"{rendered.negative_answer!r} ({task.labels.negative})."
    )
    if spec.form == "chat" and spec.chat_format == "auto":
        _print("Shown in ChatML; a model of another family gets its own markup.")
    return OK


def _mine(args: argparse.Namespace, beam_flags: tuple[str, ...]) -> int:
    from pipelines import options

    if beam_flags and not Path(args.task).exists():
        raise UsageError(f"{args.task}: no such task file (TASK comes before Beam's flags)")
    return _print_mined(args, options.mine_options(args, beam_flags))


def _demo(args: argparse.Namespace, beam_flags: tuple[str, ...]) -> int:
    from pipelines.jobs.mine import MineOptions
    from pipelines.sources.base import ReadOptions

    task = SAMPLES / "policies" / "ads_safety.yaml"
    chosen = MineOptions(
        task=str(task),
        corpus=(str(SAMPLES / "samples" / "ads.jsonl"),),
        workspace=args.workspace,
        date="",
        budget=None,
        read=ReadOptions(),
        max_rejected_share=0.01,
        block_rows=256,
        range_bytes=64 << 20,
        beam=beam_flags,
    )
    return _print_mined(args, chosen, then=_hand_out)


def _hand_out(args: argparse.Namespace) -> dict[str, str]:
    """Write what a person looks at first; -> its name -> its path."""
    from pipelines.jobs.export import ExportOptions, export
    from pipelines.report.round import ReportOptions, report

    def say(line: str) -> None:
        if not args.quiet:
            _say(line)

    exported = export(ExportOptions(args.workspace, "page"), say)
    with progress.step("drawing the report"):
        drawn = report(ReportOptions(args.workspace), say)
    return {"review_page": exported.summary["files"][0], "report": drawn.path}


def _print_mined(
    args: argparse.Namespace,
    chosen: Any,
    then: Callable[[argparse.Namespace], dict[str, str]] = lambda _: {},
) -> int:
    from pipelines.console import summary
    from pipelines.jobs.mine import mine

    if not chosen.is_local():
        _stopping.kept = f"the job may go on where it runs; {_stopping.kept}"
    mined = mine(chosen, say=lambda line: None if args.quiet else _say(line))
    more = then(args)
    if args.json:
        _print_json(
            {
                **mined.summary,
                **more,
                "review_items": [dataclasses.asdict(item) for item in mined.items],
            }
        )
        return OK
    names = mined.task.labels.model_dump()
    if args.show:
        shown = mined.items[: args.show]
        _print(
            f"The first {len(shown)} review pairs (the model's label, its probability, the ad):\n"
        )
        _print(summary.describe_items(shown, names))
        _print("")
    _print(f"Task {mined.task.name}, round {mined.summary['round']}:")
    _print(summary.describe(mined.summary))
    _print(f"\nPairs:         {mined.summary['pairs_file']}")
    _print(f"Review sheet:  {mined.summary['review_sheet']}")
    _print(f"Overlaps:      {mined.summary['overlaps_file']}")
    for path in mined.summary["dead_letters"]:
        _print(f"Dead letters:  {path}")
    for name, path in more.items():
        words = f"{name.replace('_', ' ').capitalize()}:"
        _print(f"{words:<14} {path}")
    if more:
        _print(
            "\nOpen the review page in a browser and label pairs; then scout import FILE, train, status"
            f" (each with --workspace {args.workspace})."
        )
    return OK


def _export(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines.console.summary import describe_export
    from pipelines.jobs.export import ExportOptions, export

    chosen = ExportOptions(
        workspace=args.workspace,
        tool=args.tool,
        out=args.out,
        round=args.round,
        show_predictions=args.show_predictions,
        force=args.force,
        url=args.push,
    )
    exported = export(chosen, say=lambda line: None if args.quiet else _say(line))
    if args.json:
        _print_json(exported.summary)
        return OK
    _print(describe_export(exported.summary))
    return OK


def _import(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines.console.summary import describe_import
    from pipelines.jobs.ingest import IngestOptions, ingest, read_experts

    chosen = IngestOptions(
        workspace=args.workspace,
        files=tuple(args.files),
        tool=args.tool,
        url=args.pull,
        expert=args.expert,
        experts=read_experts(args.experts) if args.experts else {},
    )
    ingested = ingest(chosen, say=lambda line: None if args.quiet else _say(line))
    if args.json:
        _print_json(ingested.summary)
        return OK
    _print(describe_import(ingested.summary))
    return OK


def _train(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines.console.summary import describe_training
    from pipelines.jobs.train import TrainOptions, train

    trained = train(
        TrainOptions(workspace=args.workspace, task=args.task, export=args.export),
        say=lambda line: None if args.quiet else _say(line),
    )
    if args.json:
        _print_json(trained.summary)
        return OK
    _print(describe_training(trained.summary))
    return OK


def _status(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines.console.summary import describe_rounds
    from pipelines.jobs.status import standing
    from pipelines.store import workspace

    place = workspace.Workspace(args.workspace)
    found = standing(place)
    if not found["rounds"]:
        raise UsageError(f"--workspace {args.workspace}: no rounds here; start with `scout mine`")
    if args.json:
        stages = {number: _stages(place, number) for number in place.rounds()}
        for entry in found["rounds"]:
            entry["stages"] = stages[entry["round"]]
        _print_json({"workspace": args.workspace, **found})
        return OK
    _print(describe_rounds(found))
    return OK


def _stages(place: Any, number: int) -> dict[str, Any]:
    from pipelines.store.facts import to_json
    from pipelines.store.workspace import STAGES

    found = {stage: place.latest(number, stage) for stage in STAGES}
    return {
        stage: {
            "rows": latest.rows,
            "created": latest.created,
            "attempt": latest.attempt,
            "facts": to_json(latest.facts),
        }
        for stage, latest in found.items()
        if latest
    }


def _simulate(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines.simulation.options import options_of
    from pipelines.simulation.play import simulate
    from pipelines.simulation.results import describe

    outcome = simulate(
        options_of(args),
        say=lambda line: None if args.quiet else _say(line),
    )
    if args.json:
        _print_json(outcome)
        return OK
    _print(describe(outcome))
    return OK


def _draw(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines.report.round import ReportOptions, report

    chosen = ReportOptions(args.workspace, args.out, args.round, args.projection)
    with progress.step("drawing the report"):
        drawn = report(chosen, say=lambda line: None if args.quiet else _say(line))
    if args.json:
        _print_json(drawn.summary)
        return OK
    for part, why in drawn.summary["missing"].items():
        _print(f"Missing:  {part}: {why}")
    _print(f"Report:   {drawn.path}")
    for path in drawn.pictures:
        _print(f"Picture:  {path}")
    return OK


_COMMANDS = {
    "validate": _validate,
    "mine": _mine,
    "demo": _demo,
    "export": _export,
    "import": _import,
    "train": _train,
    "status": _status,
    "report": _draw,
    "simulate": _simulate,
}


if __name__ == "__main__":
    sys.exit(main())
