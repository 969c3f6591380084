"""The command line: our flags to configuration, Beam's to PipelineOptions, nothing dropped."""

from __future__ import annotations

import argparse
import datetime
import difflib
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.errors import UsageError
from pipelines.sources.base import ReadOptions
from pipelines.sources.files import FORMATS
from pipelines.strategies import registry as strategies
from pipelines.tools import registry

if TYPE_CHECKING:
    from pipelines.jobs.mine import MineOptions

CROWD = "crowd"
DEFAULT_CONDITIONS = ("boundary", "random", "uncertainty", CROWD)
# What a crowd's errors follow: the ad's text, or chance alone.
CROWD_NOISES = ("text", "uniform")


def conditions() -> tuple[str, ...]:
    """Return what ``scout simulate`` can play: any known strategy, or a crowd."""
    return (*strategies.names(), CROWD)


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that one place prints every usage error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see `{self.prog} --help`)")


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be 0 to 1, got {text}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None


def _at_least(low: int) -> Any:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"not a whole number: {text!r}") from None
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, got {value}")
        return value

    return parse


def _date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a date like 2026-11-21: {text!r}") from None


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the ``scout`` command."""
    parser = _Parser(
        prog="scout",
        description="Find the ads that a small LLM confuses, for experts to label.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print versions and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    validate = commands.add_parser(
        "validate", help="check a task file and show the rendered prompt", allow_abbrev=False
    )
    validate.add_argument("task", metavar="TASK", help="task file (YAML)")
    validate.add_argument(
        "--ad", default="Your ad stands here", help="ad to show in the prompt", metavar="TEXT"
    )
    validate.add_argument("--json", action="store_true", help="print one JSON object")

    mine = commands.add_parser(
        "mine",
        help="corpus to review pairs",
        description="Read a corpus, score it, and choose the pairs of ads to review. Beam's own "
        "flags (--runner, --project, --temp_location, ...) pass through.",
        allow_abbrev=False,
    )
    mine.add_argument("task", metavar="TASK", help="task file (YAML)")
    mine.add_argument(
        "--corpus",
        required=True,
        action="append",
        metavar="GLOB",
        help="corpus files, local or gs://; may be given several times; {date} stands for --date",
    )
    mine.add_argument("--workspace", required=True, metavar="DIR", help="local or gs:// folder")
    mine.add_argument("--date", type=_date, help="logical date of a scheduled run")
    mine.add_argument("--budget", type=_at_least(1), help="pairs, instead of the task file's")
    _add_reading(mine)
    _add_output(mine, show=5)

    demo = commands.add_parser(
        "demo",
        help="the main job on the bundled sample, with the embedded model",
        allow_abbrev=False,
    )
    demo.add_argument(
        "--workspace", default="demo_workspace", metavar="DIR", help="default: %(default)s"
    )
    _add_output(demo, show=10)

    _add_export(commands)
    _add_import(commands)

    train = commands.add_parser(
        "train",
        help="fine-tune on one half of the labels, evaluate on the other",
        description="Train from base weights on all fine-tuning labels so far, evaluate every "
        "round's model on the same evaluation ads, and decide whether to go on.",
        allow_abbrev=False,
    )
    train.add_argument("--workspace", required=True, metavar="DIR", help="local or gs:// folder")
    train.add_argument(
        "--task",
        default="",
        metavar="TASK",
        help="task file with other training or stopping settings than the pairs were mined with",
    )
    train.add_argument(
        "--export",
        default="",
        metavar="DIR",
        help="also write a TensorFlow SavedModel that takes raw strings; a new folder",
    )
    _add_plain_output(train)

    status = commands.add_parser(
        "status", help="where a workspace's rounds stand", allow_abbrev=False
    )
    status.add_argument("--workspace", required=True, metavar="DIR")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    _add_report(commands)
    _add_simulate(commands)
    return parser


def _add_export(commands: Any) -> None:
    out = commands.add_parser(
        "export",
        help="review items for a labeling tool, or a review page",
        description="Write a round's review items in a labeling tool's own format, or put them into its "
        "server. Experts see neither label nor score of the model.",
        allow_abbrev=False,
    )
    out.add_argument("--workspace", required=True, metavar="DIR", help="local or gs:// folder")
    out.add_argument(
        "--tool",
        required=True,
        choices=registry.exporting(),
        help="page: one HTML file to review in, without any tool",
    )
    out.add_argument(
        "--out", default="", metavar="DIR", help="folder for the files; default: in the workspace"
    )
    out.add_argument(
        "--round", type=_at_least(1), metavar="N", help="whose items; default: the last one's"
    )
    out.add_argument(
        "--show_predictions", action="store_true", help="let experts see what the model says"
    )
    out.add_argument(
        "--force", action="store_true", help="replace a review.csv that somebody filled in"
    )
    out.add_argument(
        "--push",
        default="",
        metavar="URL",
        help=f"put the items into the server of {' or '.join(registry.served())} instead; items that "
        f"it has are left alone; the token comes from {registry.token_names()}",
    )
    _add_plain_output(out)


def _add_import(commands: Any) -> None:
    back = commands.add_parser(
        "import",
        help="experts' verdicts into the workspace",
        description="Read verdicts into the workspace: CSV or JSON lines (columns item_id or ad_id, "
        "label, expert, and optionally time and comment), what the review page saved, or the export "
        "of a labeling tool. The same file twice changes nothing.",
        allow_abbrev=False,
    )
    back.add_argument("files", metavar="FILE", nargs="*", help="verdict files, local or gs://")
    back.add_argument("--workspace", required=True, metavar="DIR", help="local or gs:// folder")
    back.add_argument(
        "--tool",
        default="",
        metavar="TOOL",
        help=f"where the files come from: {', '.join(registry.names())}; default: CSV, JSON lines or the "
        "review page's, by each file's name",
    )
    back.add_argument(
        "--pull",
        default="",
        metavar="URL",
        help=f"fetch the answers from the server of {' or '.join(registry.served())} instead of files; "
        f"the token comes from {registry.token_names()}",
    )
    back.add_argument(
        "--expert", default="", metavar="NAME", help="who labelled, for files that name nobody"
    )
    back.add_argument(
        "--experts",
        default="",
        metavar="FILE",
        help='JSON object that names experts whom a tool numbers: {"3": "anna"}',
    )
    _add_plain_output(back)


def _add_plain_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")


def _add_report(commands: Any) -> None:
    drawn = commands.add_parser(
        "report",
        help="one HTML file with pictures of a round",
        description="Draw a round's ads, clusters, pairs, coverage and scores, and the agreement of "
        "all rounds, into one HTML file with its pictures inside; PNGs lie beside it.",
        allow_abbrev=False,
    )
    drawn.add_argument("--workspace", required=True, metavar="DIR", help="local or gs:// folder")
    drawn.add_argument(
        "--out", default="", metavar="DIR", help="default: the folder report in the workspace"
    )
    drawn.add_argument(
        "--round", type=_at_least(1), metavar="N", help="default: the newest with pairs"
    )
    drawn.add_argument(
        "--projection",
        choices=("pca", "umap"),
        default="pca",
        help="of the ads into the plane; umap needs the extra `umap` and a minute; default %(default)s",
    )
    _add_plain_output(drawn)


def _add_simulate(commands: Any) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="the whole loop on a labelled corpus",
        description="Play the rounds with recorded labels as the experts, by any selection strategy, "
        "beside crowd labels with the same learner.",
        allow_abbrev=False,
    )
    simulate.add_argument("task", metavar="TASK", help="task file (YAML)")
    simulate.add_argument(
        "--corpus", required=True, action="append", metavar="GLOB", help="labelled corpus (JSONL)"
    )
    simulate.add_argument(
        "--workspace", required=True, metavar="DIR", help="local folder; a rerun goes on there"
    )
    who = simulate.add_argument_group("experts")
    who.add_argument(
        "--experts",
        choices=("gold", "recorded"),
        default="gold",
        help="gold: simulated from the label field; recorded: people's own labels in the ratings "
        "field; default %(default)s",
    )
    who.add_argument(
        "--expert_kappa",
        type=_kappa,
        default=0.8,
        metavar="K",
        help="kappa between two simulated experts on a class-balanced sample; 1 never errs; "
        "default %(default)s",
    )
    who.add_argument("--label_field", default="label", metavar="NAME", help="default: %(default)s")
    who.add_argument(
        "--ratings_field",
        default="ratings",
        metavar="NAME",
        help="object of name to label, default: %(default)s",
    )
    who.add_argument(
        "--label_file",
        default="",
        metavar="FILE",
        help="JSON lines with id and those fields, where the corpus does not hold them",
    )
    who.add_argument(
        "--prevalence",
        type=_inner_share,
        metavar="SHARE",
        help="thin the positives out to this share, and take it as the prior; default: the corpus "
        "as it is, and the task's prior",
    )
    plan = simulate.add_argument_group("plan")
    plan.add_argument(
        "--rounds", type=_at_least(1), metavar="R", help="default: as --labels says, else 5"
    )
    plan.add_argument(
        "--labels",
        type=_numbers,
        default=(),
        metavar="N,N,...",
        help="fine-tuning labels to reach after each round; default: the task's budget each round",
    )
    plan.add_argument(
        "--conditions",
        type=_chosen_of("condition", conditions()),
        default=DEFAULT_CONDITIONS,
        metavar="NAME,...",
        help=f"selection strategies, or labels of a crowd; of {', '.join(conditions())}; default "
        f"{','.join(DEFAULT_CONDITIONS)}",
    )
    plan.add_argument("--seeds", type=_at_least(1), default=1, metavar="N", help="default 1")
    plan.add_argument("--first_seed", type=_at_least(0), default=1, metavar="N", help="default 1")
    plan.add_argument(
        "--learner",
        choices=("llm", "encoder", "head"),
        help="instead of the task's; it trains and mines",
    )
    plan.add_argument(
        "--also",
        choices=("encoder", "head"),
        action="append",
        default=[],
        help="another learner trained on the same labels",
    )
    plan.add_argument(
        "--also_from",
        type=_at_least(1),
        default=1,
        metavar="N",
        help="train the other learners from so many labels on, default %(default)s",
    )
    plan.add_argument(
        "--holdout",
        type=_inner_share,
        default=0.2,
        metavar="SHARE",
        help="share of the corpus kept as the natural-prevalence test sample, default %(default)s",
    )
    crowd = simulate.add_argument_group("crowd")
    crowd.add_argument(
        "--crowd_labels",
        type=_at_least(10),
        metavar="N",
        help="labels bought from the crowd; default: every ad that is not held out",
    )
    crowd.add_argument(
        "--crowd_kappa", type=_kappas, default=(0.59, 0.41), metavar="K,...", help="crowd-expert"
    )
    crowd.add_argument(
        "--crowd_noise",
        type=_chosen_of("crowd noise", CROWD_NOISES),
        default=CROWD_NOISES,
        metavar="NAME,...",
        help=f"what its errors follow, of {', '.join(CROWD_NOISES)}; default both",
    )
    _add_plain_output(simulate)


def _inner_share(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 1, got {text}")
    return value


def _kappa(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"a kappa to reach must be above 0, at most 1, got {text}")
    return value


def _kappas(text: str) -> tuple[float, ...]:
    return tuple(_kappa(part) for part in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(_at_least(1)(part) for part in text.split(","))
    if any(b <= a for a, b in itertools.pairwise(numbers)):
        raise argparse.ArgumentTypeError(f"must increase from round to round, got {text}")
    return numbers


def _chosen_of(what: str, known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return the reader of a comma-separated choice."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(","))
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"choose of {', '.join(known)}"
                raise argparse.ArgumentTypeError(f"no {what} {name!r}; {hint}")
        return names

    return read


def _add_reading(mine: argparse.ArgumentParser) -> None:
    reading = mine.add_argument_group("reading")
    defaults = ReadOptions()
    reading.add_argument(
        "--id_field",
        default="",
        metavar="NAME",
        help="field with the ad's id, a name or a dotted path; default: `id` "
        "where a file has it, otherwise an id made from the text; `none` for the latter always",
    )
    reading.add_argument(
        "--text_field",
        default="",
        metavar="NAME",
        help="field with the ad's text; default: `text`, or what the task file's ad.fields say",
    )
    reading.add_argument(
        "--weight_field", default="", metavar="NAME", help="field with the ad's weight"
    )
    reading.add_argument(
        "--format", default="", choices=FORMATS, help="instead of going by the file name"
    )
    reading.add_argument(
        "--max_text_chars",
        type=_at_least(1),
        default=defaults.max_text_chars,
        metavar="N",
        help="longer ads are rejected, default %(default)s",
    )
    reading.add_argument(
        "--max_rejected_share",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="fail when more of the records are unusable, default %(default)s",
    )
    reading.add_argument(
        "--block_rows",
        type=_at_least(1),
        default=1024,
        metavar="N",
        help="ads a scored block: lost at most when a run is killed, default %(default)s",
    )
    reading.add_argument(
        "--range_bytes",
        type=_at_least(1),
        default=64 << 20,
        metavar="N",
        help="large JSONL and text files are read in parts of this size, default 64 MiB",
    )


def _add_output(command: argparse.ArgumentParser, show: int) -> None:
    command.add_argument(
        "--show",
        type=_at_least(0),
        default=show,
        metavar="N",
        help="pairs printed, default %(default)s",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """Parse a command line.

    Returns:
        our arguments, and Beam's flags for the commands that run a pipeline.

    Raises:
        UsageError: an unknown flag (with the nearest known one), or a bad value.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(list(argv))
    if not rest:
        return args, ()
    known = _flags_of(parser, args.command)
    if args.command in ("mine", "demo"):
        beam_parser = _beam_parser()
        _, rest_unknown = beam_parser.parse_known_args(rest)
        known += [flag for action in beam_parser._actions for flag in action.option_strings]
    else:
        rest_unknown = rest
    if rest_unknown:
        flag = rest_unknown[0].split("=", 1)[0]
        near = difflib.get_close_matches(flag, known, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        kind = "unknown flag" if flag.startswith("-") else "unexpected argument"
        raise UsageError(f"scout {args.command}: {kind} {flag}{hint}")
    return args, tuple(rest)


def _flags_of(parser: argparse.ArgumentParser, command: str) -> list[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and command in action.choices:
            chosen = action.choices[command]
            return [flag for known in chosen._actions for flag in known.option_strings]
    return []


def _beam_parser() -> argparse.ArgumentParser:
    # What PipelineOptions.get_all_options does, except that unknown flags are not dropped.
    parser = _Parser(prog="scout", allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for options in {str(cls): cls for cls in PipelineOptions.__subclasses__()}.values():
        options._add_argparse_args(parser)
    return parser


def mine_options(args: argparse.Namespace, beam: tuple[str, ...]) -> MineOptions:
    """Return the options of ``scout mine``.

    Raises:
        UsageError: ``{date}`` without ``--date``.
    """
    # Here, for the parser alone must answer at once.
    from pipelines.jobs.mine import MineOptions

    corpus = []
    for pattern in args.corpus:
        if "{date}" in pattern and not args.date:
            raise UsageError(f"--corpus {pattern}: {{date}} needs --date")
        corpus.append(pattern.replace("{date}", args.date or ""))
    return MineOptions(
        task=args.task,
        corpus=tuple(corpus),
        workspace=args.workspace,
        date=args.date or "",
        budget=args.budget,
        read=ReadOptions(
            id_field=args.id_field,
            text_field=args.text_field,
            weight_field=args.weight_field,
            format=args.format,
            max_text_chars=args.max_text_chars,
        ),
        max_rejected_share=args.max_rejected_share,
        block_rows=args.block_rows,
        range_bytes=args.range_bytes,
        beam=beam,
    )
