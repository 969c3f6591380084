"""The ``scout`` command."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import RunFailed, UsageError
from pipelines.summary import printable

SAMPLES = Path(__file__).resolve().parent.parent / "templates"
OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 done, 1 the run failed, 2 the arguments or the task file are wrong, 130 interrupted.
    """
    _calm_libraries()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from pipelines import options

        args, beam_flags = options.parse(arguments)
        if args.version:
            _print(_versions())
            return OK
        if not args.command:
            options.build_parser().print_help(sys.stderr)
            return WRONG_USAGE
        return _COMMANDS[args.command](args, beam_flags)
    except UsageError as error:
        _complain(str(error))
        return WRONG_USAGE
    except RunFailed as error:
        _complain(error.message)
        return FAILED
    except Exception as error:
        if os.environ.get("SCOUT_DEBUG"):
            raise
        last = str(error).strip().splitlines()[-1:] or [""]
        _complain(f"{type(error).__name__}: {last[0][:1000]}")
        _complain("this was not foreseen; SCOUT_DEBUG=1 shows where it happened")
        return FAILED
    except KeyboardInterrupt:
        _say("interrupted; what is scored is kept: run the same command again to go on")
        return INTERRUPTED


def _calm_libraries() -> None:
    # TensorFlow's and gRPC's start-up notes (no GPU found, ...) would bury our own lines; what
    # really fails raises.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s"
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_printing)


def _worth_printing(record: logging.LogRecord) -> bool:
    """Drop what Beam logs of a failure or Ctrl-C that ends in our own line, and a needless note."""
    if record.exc_info and isinstance(record.exc_info[1], RunFailed):
        return False
    if record.exc_info and isinstance(record.exc_info[1], KeyboardInterrupt):
        return False
    return "Resource module is not available" not in record.getMessage()


def _say(line: str) -> None:
    print(f"scout: {line}", file=sys.stderr, flush=True)


def _complain(message: str) -> None:
    for line in message.splitlines():
        # Column names, paths and excerpts come from the corpus, which is hostile input.
        print(f"scout: error: {printable(line, 2000)}", file=sys.stderr, flush=True)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader of our output has gone (`scout ... | head`); nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_json(value: Any) -> None:
    _print(json.dumps(value, ensure_ascii=False, indent=1))


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
    from models import policy
    from pipelines.config import load_task

    task = load_task(args.task)
    spec = task.prompt_spec()
    try:
        prompt = policy.describe(spec, args.ad)
        rendered = policy.render(spec)
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
    return _report(args, options.mine_options(args, beam_flags))


def _demo(args: argparse.Namespace, beam_flags: tuple[str, ...]) -> int:
    from pipelines import options
    from pipelines.readers import ReadOptions

    task = SAMPLES / "policies" / "ads_safety.yaml"
    chosen = options.MineOptions(
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
    return _report(args, chosen)


def _report(args: argparse.Namespace, chosen: Any) -> int:
    from pipelines import summary
    from pipelines.mine import mine

    mined = mine(chosen, say=lambda line: None if args.quiet else _say(line), quiet=args.quiet)
    if args.json:
        _print_json({**mined.summary, "review_pairs": mined.pairs})
        return OK
    names = mined.task.labels.model_dump()
    if args.show:
        shown = mined.pairs[: args.show]
        _print(
            f"The first {len(shown)} review pairs (the model's label, its probability, the ad):\n"
        )
        _print(summary.describe_pairs(shown, names))
        _print("")
    _print(f"Task {mined.task.name}, round {mined.summary['round']}:")
    _print(summary.describe(mined.summary))
    _print(f"\nPairs:         {mined.summary['pairs_file']}")
    _print(f"Review sheet:  {mined.summary['review_sheet']}")
    _print(f"Overlaps:      {mined.summary['overlaps_file']}")
    for path in mined.summary["dead_letters"]:
        _print(f"Dead letters:  {path}")
    return OK


def _export(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines.export_pairs import ExportOptions, export_pairs
    from pipelines.summary import describe_export

    chosen = ExportOptions(
        workspace=args.workspace,
        tool=args.tool,
        out=args.out,
        round=args.round,
        show_predictions=args.show_predictions,
        url=args.push,
    )
    exported = export_pairs(chosen, say=lambda line: None if args.quiet else _say(line))
    if args.json:
        _print_json(exported.summary)
        return OK
    _print(describe_export(exported.summary))
    return OK


def _import(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines.ingest import IngestOptions, ingest, read_experts
    from pipelines.summary import describe_import

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
    from pipelines.rounds import TrainOptions, train
    from pipelines.summary import describe_training

    trained = train(
        TrainOptions(workspace=args.workspace, task=args.task, export=args.export),
        say=lambda line: None if args.quiet else _say(line),
        show_bar=not args.quiet and sys.stderr.isatty(),
    )
    if args.json:
        _print_json(trained.summary)
        return OK
    _print(describe_training(trained.summary))
    return OK


def _status(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines import workspace
    from pipelines.rounds import standing
    from pipelines.summary import describe_rounds

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
    from pipelines.workspace import STAGES

    found = {stage: place.latest(number, stage) for stage in STAGES}
    return {
        stage: {
            "rows": latest.rows,
            "created": latest.created,
            "attempt": latest.attempt,
            "facts": dict(latest.facts),
        }
        for stage, latest in found.items()
        if latest
    }


def _simulate(args: argparse.Namespace, _: tuple[str, ...]) -> int:
    from pipelines.simulate import describe, options_of, simulate

    outcome = simulate(
        options_of(args, show_bar=not args.quiet and sys.stderr.isatty()),
        say=lambda line: None if args.quiet else _say(line),
    )
    if args.json:
        _print_json(outcome)
        return OK
    _print(describe(outcome))
    return OK


_COMMANDS = {
    "validate": _validate,
    "mine": _mine,
    "demo": _demo,
    "export": _export,
    "import": _import,
    "train": _train,
    "status": _status,
    "simulate": _simulate,
}


if __name__ == "__main__":
    sys.exit(main())
