"""The command line: our flags to configuration, Beam's to PipelineOptions, nothing dropped."""

from __future__ import annotations

import argparse
import difflib
import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import api
from pipelines.errors import UsageError
from pipelines.simulation.conditions import CROWD_NOISES, conditions
from pipelines.sources.files import FORMATS
from pipelines.tools import registry


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that one place prints every usage error."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        # Every error begins with the program's name anyway.
        where = "" if self.prog == "scout" else f"{self.prog}: "
        raise UsageError(f"{where}{message} (see `{self.prog} --help`)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if isinstance(action, argparse._SubParsersAction):
                error.message += _did_you_mean(value, list(action.choices))
            raise


def _reader(
    kind: Callable[[str], Any],
    what: str,
    fits: Callable[[Any], bool] = lambda _: True,
    wanted: str = "",
) -> Callable[[str], Any]:
    """Return what reads a flag's text, and says what is wrong with it.

    Args:
        kind: makes a value of the text; raises ValueError where it is none.
        what: what a value is called.
        fits: tells whether a value is within its bounds.
        wanted: the bounds, as a sentence.
    """

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"not {what}: {text!r}") from None
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{wanted}, got {text}")
        return value

    return read


def _at_least(low: int) -> Callable[[str], int]:
    return _reader(int, "a whole number", lambda n: n >= low, f"must be at least {low}")


_share = _reader(float, "a number", lambda share: 0 <= share <= 1, "must be 0 to 1")
_inner_share = _reader(
    float, "a number", lambda share: 0 < share < 1, "must be above 0 and below 1"
)
_kappa = _reader(
    float, "a number", lambda kappa: 0 < kappa <= 1, "a kappa to reach must be above 0, at most 1"
)
_date = _reader(lambda text: date.fromisoformat(text).isoformat(), "a date like 2026-11-21")


def _kappas(text: str) -> tuple[float, ...]:
    return tuple(_kappa(part) for part in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    found = tuple(_at_least(1)(part) for part in text.split(","))
    if any(b <= a for a, b in itertools.pairwise(found)):
        raise argparse.ArgumentTypeError(f"must increase from round to round, got {text}")
    return found


def _chosen_of(what: str, known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(","))
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"choose of {', '.join(known)}"
                raise argparse.ArgumentTypeError(f"no {what} {name!r}; {hint}")
        return names

    return read


# How the text of a flag is read, and its name in the help, by its argument's annotation.
_KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "Count": (_at_least(1), "N"),
    "int": (_at_least(0), "N"),
    "Share": (_share, "SHARE"),
    "InnerShare": (_inner_share, "SHARE"),
    "AboveZero": (_kappa, "K"),
    "Sequence[Count]": (_numbers, "N,N,..."),
    "Sequence[AboveZero]": (_kappas, "K,..."),
    "Sequence[str]": (str, "NAME,..."),
    "Place": (str, "DIR"),
}


def _add(to: Any, function: Callable[..., Any], *names: str, **settings: Any) -> None:
    """Add flags for arguments of a function of the API: what they are, mean and default to is there."""
    arguments = inspect.signature(function).parameters
    told = re.findall(r"^    (\w+): (.+(?:\n {6}.+)*)", inspect.getdoc(function) or "", re.M)
    meanings = {name: " ".join(words.split()).rstrip(".") for name, words in told}
    for name in names:
        default, kind = arguments[name].default, arguments[name].annotation.removesuffix(" | None")
        read, metavar = _KINDS.get(kind, (str, "NAME"))
        meaning = meanings[name]
        if isinstance(default, str | int | float) and default:
            meaning += "; default: %(default)s"
        given = {"type": read, "metavar": metavar, "default": default}
        if kind == "bool":
            given = {"action": "store_true"}
        to.add_argument(f"--{name}", **{**given, "help": meaning, **settings})


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the ``scout`` command."""
    parser = _Parser(
        prog="scout",
        description="Find the ads that a small LLM confuses, for experts to label.",
    )
    parser.add_argument("--version", action="store_true", help="print versions and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    validate = commands.add_parser(
        "validate", help="check a task file and show the rendered prompt"
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
    )
    _add_task_and_corpus(mine)
    _add_workspace(mine)
    _add(mine, api.mine, "date", type=_date, metavar=None)
    _add(mine, api.mine, "budget", metavar=None)
    reading = mine.add_argument_group("reading")
    _add(reading, api.mine, "id_field", "text_field", "weight_field")
    _add(reading, api.mine, "format", choices=FORMATS, metavar=None)
    _add(reading, api.mine, "max_text_chars", "max_rejected_share", "block_rows", "range_bytes")
    _add_output(mine, show=5)

    demo = commands.add_parser(
        "demo",
        help="the main job on the bundled sample, with the embedded model",
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
    )
    _add_workspace(train)
    _add(train, api.train, "task", metavar="TASK")
    _add(train, api.train, "export")
    _add_plain_output(train)

    status = commands.add_parser("status", help="where a workspace's rounds stand")
    _add_workspace(status)
    status.add_argument("--json", action="store_true", help="print one JSON object")
    _add_report(commands)
    _add_audit(commands)
    _add_prompts(commands)
    _add_simulate(commands)
    return parser


def _add_export(commands: Any) -> None:
    out = commands.add_parser(
        "export",
        help="review items for a labeling tool, or a review page",
        description="Write a round's review items in a labeling tool's own format, or put them into its "
        "server. Experts see neither label nor score of the model.",
    )
    _add_workspace(out)
    _add(out, api.export, "tool", required=True, choices=registry.exporting(), metavar=None)
    _add(out, api.export, "out", "round", "audit", "show_predictions", "force")
    _add(
        out,
        api.export,
        "push",
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
    )
    back.add_argument("files", metavar="FILE", nargs="*", help="verdict files, local or gs://")
    _add_workspace(back)
    _add(
        back,
        api.import_verdicts,
        "tool",
        metavar="TOOL",
        help=f"where the files come from: {', '.join(registry.names())}; default: CSV, JSON lines or the "
        "review page's, by each file's name",
    )
    _add(
        back,
        api.import_verdicts,
        "pull",
        metavar="URL",
        help=f"fetch the answers from the server of {' or '.join(registry.served())} instead of files; "
        f"the token comes from {registry.token_names()}",
    )
    _add(back, api.import_verdicts, "expert")
    _add(back, api.import_verdicts, "experts", metavar="FILE")
    _add_plain_output(back)


def _add_task_and_corpus(command: argparse.ArgumentParser) -> None:
    command.add_argument("task", metavar="TASK", help="task file (YAML)")
    command.add_argument(
        "--corpus",
        required=True,
        action="append",
        metavar="GLOB",
        help="corpus files, local or gs://; may be given several times",
    )


def _add_workspace(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workspace", required=True, metavar="DIR", help="local or gs:// folder")


def _add_plain_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")


def _add_report(commands: Any) -> None:
    drawn = commands.add_parser(
        "report",
        help="one HTML file with pictures of a round",
        description="Draw a round's ads, clusters, pairs, coverage and scores, and the agreement of "
        "all rounds, into one HTML file with its pictures inside; PNGs lie beside it.",
    )
    _add_workspace(drawn)
    _add(drawn, api.report, "out", "round")
    _add_plain_output(drawn)


def _add_audit(commands: Any) -> None:
    audit = commands.add_parser(
        "audit",
        help="what can be believed about the whole corpus",
        description="Draw single ads at random from all that were scored, for experts to label "
        "(`scout export --audit`), and estimate from their labels, once imported, how many ads of the "
        "corpus violate the policy and how good the model is on it. Beam's own flags pass through.",
    )
    audit.add_argument("task", metavar="TASK", help="task file (YAML)")
    _add_workspace(audit)
    _add(audit, api.audit, "budget", metavar=None)
    _add_plain_output(audit)


def _add_prompts(commands: Any) -> None:
    compare = commands.add_parser(
        "prompts",
        help="which prompts rank a task's ads",
        description="Ask the model about a few ads of a corpus by every prompt form that ships, and by the "
        "task's own: with labels how well each ranks them, without what can be known.",
    )
    _add_task_and_corpus(compare)
    _add(compare, api.prompts, "labels", metavar="FILE")
    _add(compare, api.prompts, "label_field", "ads")
    _add(compare, api.prompts, "write", metavar="TASK")
    _add(compare, api.prompts, "out", metavar="FOLDER")
    _add(compare, api.prompts, "id_field", "text_field")
    _add(compare, api.prompts, "format", choices=FORMATS, metavar=None)
    _add_plain_output(compare)


def _add_simulate(commands: Any) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="the whole loop on a labelled corpus",
        description="Play the rounds with recorded labels as the experts, by any selection strategy, "
        "beside crowd labels with the same learner.",
    )
    _add_task_and_corpus(simulate)
    simulate.add_argument(
        "--workspace", required=True, metavar="DIR", help="local folder; a rerun goes on there"
    )
    who = simulate.add_argument_group("experts")
    _add(who, api.simulate, "experts", choices=("gold", "recorded"), metavar=None)
    _add(who, api.simulate, "expert_kappa", "label_field", "ratings_field")
    _add(who, api.simulate, "label_file", metavar="FILE")
    _add(who, api.simulate, "prevalence")
    plan = simulate.add_argument_group("plan")
    _add(plan, api.simulate, "rounds", "labels")
    _add(plan, api.simulate, "conditions", type=_chosen_of("condition", conditions()))
    _add(plan, api.simulate, "seeds", "first_seed")
    _add(plan, api.simulate, "learner", choices=("llm", "encoder", "head"), metavar=None)
    others = {"choices": ("encoder", "head"), "action": "append", "default": []}
    _add(plan, api.simulate, "also", metavar=None, **others)
    _add(plan, api.simulate, "also_from", "holdout")
    crowd = simulate.add_argument_group("crowd")
    _add(crowd, api.simulate, "crowd_labels", type=_at_least(10))
    _add(crowd, api.simulate, "crowd_kappa")
    _add(crowd, api.simulate, "crowd_noise", type=_chosen_of("crowd noise", CROWD_NOISES))
    _add_plain_output(simulate)


def _add_output(command: argparse.ArgumentParser, show: int) -> None:
    command.add_argument(
        "--show",
        type=_at_least(0),
        default=show,
        metavar="N",
        help="pairs printed, default %(default)s",
    )
    _add_plain_output(command)


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
    if args.command in ("mine", "demo", "audit"):
        beam_parser = _beam_parser()
        _, rest_unknown = beam_parser.parse_known_args(rest)
        known += [flag for action in beam_parser._actions for flag in action.option_strings]
    else:
        rest_unknown = rest
    if rest_unknown:
        flag = rest_unknown[0].split("=", 1)[0]
        kind = "unknown flag" if flag.startswith("-") else "unexpected argument"
        where = f"scout {args.command}: " if args.command else ""
        raise UsageError(f"{where}{kind} {flag}{_did_you_mean(flag, known)}")
    return args, tuple(rest)


def _did_you_mean(found: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _flags_of(parser: argparse.ArgumentParser, command: str | None) -> list[str]:
    """Return the flags of a command, or those before any command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and command:
            parser = action.choices[command]
    return [flag for known in parser._actions for flag in known.option_strings]


def _beam_parser() -> argparse.ArgumentParser:
    # What PipelineOptions.get_all_options does, except that unknown flags are not dropped.
    parser = _Parser(prog="scout", add_help=False, conflict_handler="resolve")
    for options in {str(cls): cls for cls in PipelineOptions.__subclasses__()}.values():
        options._add_argparse_args(parser)
    return parser
