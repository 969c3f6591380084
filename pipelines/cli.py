"""The ``scout`` command."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import inspect
import io
import json
import logging
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from pipelines import api
from pipelines.console import progress
from pipelines.console.summary import rendered
from pipelines.console.typed import typed
from pipelines.console.visible import printable
from pipelines.errors import RunFailed, UsageError, disk_fault, without_secrets
from pipelines.jobs.calling import quiet_libraries, refusal
from pipelines.jobs.results import Mined

SAMPLES = Path(__file__).resolve().parent.parent / "templates"
OK, FAILED, WRONG_USAGE, ALERTED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
# What Ctrl-C leaves behind, by command. All that may take over two seconds are here: they show
# progress.
_KEPT = {
    "init": "no task file is written: run the same command again",
    "mine": "what is scored is kept: run the same command again to go on",
    "nightly": "what is scored is kept: run the same command again to go on",
    "demo": "what is scored is kept: run the same command again to go on",
    "export": "not everything may be written: run the same command again",
    "import": "a file counts as a whole or not at all: run the same command again",
    "train": "no half-trained model counts: run the same command again",
    "status": "nothing is changed",
    "report": "the report may be incomplete: run the same command again",
    "explain": "nothing is changed",
    "audit": "a sample is drawn as a whole or not at all: run the same command again",
    "recheck": "no label is changed: run the same command again",
    "publish": "a table is loaded as a whole or not at all: run the same command again",
    "prompts": "nothing is changed: run the same command again",
    "simulate": "finished seeds and LLM-0's answers are kept: run the same command again to go on",
    "advise": "nothing is changed: run the same command again",
}
# timeout(1) and some schedulers signal a process and then its group: that is one stop, not two.
_SAME_STOP_SEC = 1.0
_AGAIN_SEC = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; None for those of this process, which then ends with this command.

    Returns:
        0 done, 1 the run failed, 2 the arguments or the task file are wrong, 3 a person should look at a
        night, 130 interrupted, 143 terminated.
    """
    _calm_libraries(for_good=argv is None)
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
        _complain(error.typed)
        return WRONG_USAGE
    if isinstance(error, RunFailed):
        _complain(error.message)
    elif fault := disk_fault(error):
        # Where no job was at work: when its result was printed.
        _complain(fault.message)
    elif os.environ.get("SCOUT_DEBUG"):
        raise error
    else:
        last = str(error).strip().splitlines()[-1:] or [""]
        _complain(f"{type(error).__name__}: {last[0][:1000]}")
        _complain("this was not foreseen; SCOUT_DEBUG=1 shows where it happened")
    return FAILED


def _calm_libraries(for_good: bool) -> None:
    """Keep what libraries warn of off the screen: it is about their code, not about the person's ads."""
    quiet_libraries()
    if for_good and not sys.warnoptions and not os.environ.get("SCOUT_DEBUG"):
        warnings.simplefilter("ignore")
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s"
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_printing)


def _worth_printing(record: logging.LogRecord) -> bool:
    """Drop what Beam logs of a failure or Ctrl-C that ends in our own line, and libraries' warnings."""
    failed = record.exc_info and isinstance(record.exc_info[1], RunFailed)
    ours = record.name.partition(".")[0] in ("pipelines", "models") or os.environ.get("SCOUT_DEBUG")
    return not failed and not _stopping.received and bool(ours or record.levelno >= logging.ERROR)


def _complain(message: str) -> None:
    for line in message.splitlines():
        # Column names, paths and excerpts come from the corpus, which is hostile input.
        print(
            f"scout: error: {printable(without_secrets(line), 2000)}", file=sys.stderr, flush=True
        )


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


def _init(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    if sys.stdin.isatty() and not args.json:
        from pipelines.console import ask

        progress.finish()
        ask.for_task(args, lambda name, value: refusal(api.init, name, value))
    return _show(args, _call(api.init, args))


def _validate(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    return _show(args, _call(api.validate, args))


def _mine(args: argparse.Namespace, beam_flags: tuple[str, ...]) -> int:
    if beam_flags and not Path(args.task).exists():
        raise UsageError(f"{args.task}: no such task file (TASK comes before Beam's flags)")
    mined = _call(_mine_job(beam_flags), args, beam=beam_flags)
    if args.json:
        _print_json(mined.to_json())
    else:
        _print(mined.text(args.show) if isinstance(mined, Mined) else mined.text())
    return OK


def _nightly(args: argparse.Namespace, beam_flags: tuple[str, ...]) -> int:
    nights = _call(api.nightly, args, beam=beam_flags)
    _show(args, nights)
    return FAILED if nights.failed else ALERTED if nights.alerted else OK


def _demo(args: argparse.Namespace, beam_flags: tuple[str, ...]) -> int:
    task, corpus = SAMPLES / "policies" / "ads_safety.yaml", SAMPLES / "samples" / "ads.jsonl"
    mined = _call(
        _mine_job(beam_flags), args, task=task, corpus=corpus, block_rows=256, beam=beam_flags
    )
    if not isinstance(mined, Mined):
        return _show(args, mined)
    # What a person looks at first.
    page = _call(api.export, args, tool="page").files[0]
    report = _call(api.report, args).path
    if args.json:
        found = mined.to_json()
        items = found.pop("review_items")
        _print_json({**found, "review_page": page, "report": report, "review_items": items})
        return OK
    next_steps = {
        name: typed(command, workspace=str(args.workspace))
        for name, command in (("back", "import FILE"), ("train", "train"), ("status", "status"))
    }
    told = rendered("demo", {"page": page, "report": report, **next_steps})
    _print(f"{mined.text(args.show)}\n{told}")
    return OK


def _audit(args: argparse.Namespace, beam_flags: tuple[str, ...]) -> int:
    return _show(args, _call(api.audit, args, beam=beam_flags))


def _publish(args: argparse.Namespace, beam_flags: tuple[str, ...]) -> int:
    return _show(args, _call(api.publish, args, beam=beam_flags))


def _mine_job(beam_flags: tuple[str, ...]) -> Callable[..., Any]:
    """Return ``api.mine``; what runs elsewhere goes on when it is stopped here."""
    from pipelines.jobs.running import is_local

    if not is_local(beam_flags):
        _stopping.kept = f"the job may go on where it runs; {_stopping.kept}"
    return api.mine


def _status(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    return _show(args, _call(api.status, args, stages=args.json))


def _plain(function: Callable[..., Any]) -> Callable[[argparse.Namespace, tuple[str, ...]], int]:
    """Return the command that calls a function of the API and shows what comes back."""

    def command(args: argparse.Namespace, _: tuple[str, ...]) -> int:
        return _show(args, _call(function, args))

    return command


def _call(function: Callable[..., Any], args: argparse.Namespace, **more: Any) -> Any:
    """Call a function of the API with the flags that it has arguments for, and with ``more``."""
    names = inspect.signature(function).parameters
    given = {name: value for name, value in vars(args).items() if name in names}
    return function(**{**given, **more}, progress=not getattr(args, "quiet", False))


def _show(args: argparse.Namespace, result: Any) -> int:
    if args.json:
        _print_json(result.to_json())
    else:
        _print(result.text())
    return OK


_COMMANDS = {
    "init": _init,
    "validate": _validate,
    "mine": _mine,
    "nightly": _nightly,
    "demo": _demo,
    "export": _plain(api.export),
    "import": _plain(api.import_verdicts),
    "train": _plain(api.train),
    "status": _status,
    "report": _plain(api.report),
    "explain": _plain(api.explain),
    "audit": _audit,
    "recheck": _plain(api.recheck),
    "publish": _publish,
    "prompts": _plain(api.prompts),
    "simulate": _plain(api.simulate),
    "advise": _plain(api.advise),
}


if __name__ == "__main__":
    sys.exit(main())
