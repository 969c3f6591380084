"""The command line: our flags to configuration, Beam's to PipelineOptions, nothing dropped."""

from __future__ import annotations

import argparse
import difflib
import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from pipelines import api
from pipelines.console.beam_flags import beam_parser
from pipelines.console.parser import Parser, add_command, check_order, did_you_mean, flags_of
from pipelines.errors import UsageError
from pipelines.simulation.conditions import CROWD, CROWD_NOISES, conditions
from pipelines.sources.layout import FORMATS
from pipelines.tools import registry


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
_money = _reader(float, "a number", lambda money: money > 0, "must be above 0")
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
    "Money": (_money, "MONEY"),
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
    parser = Parser(
        prog="scout",
        description="Find the ads that a small LLM confuses, for experts to label.",
        epilog="a first round:\n"
        "  scout init my_policy.yaml --corpus 'ads/*.jsonl'\n"
        "  scout mine my_policy.yaml --corpus 'ads/*.jsonl' --workspace runs/spring\n"
        "  scout export --tool page --workspace runs/spring\n"
        "  scout import verdicts-anna.json verdicts-bob.json --workspace runs/spring\n"
        "  scout train --workspace runs/spring\n"
        "  scout status --workspace runs/spring\n\n"
        "scout COMMAND --help tells of a command's flags.",
    )
    parser.add_argument("--version", action="store_true", help="print versions and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    _add_init(commands)
    validate = add_command(
        commands,
        "validate",
        "check a task file and show the rendered prompt",
        "Check a task file key by key, say which of its settings have no effect, and show the prompt with "
        "an ad in it. Reads nothing but the file.",
        "my_policy.yaml",
        "my_policy.yaml --ad 'You won a phone! Claim it today'",
    )
    validate.add_argument("task", metavar="TASK", help="task file (YAML)")
    _add(validate, api.validate, "ad", metavar="TEXT")
    validate.add_argument("--json", action="store_true", help="print one JSON object")

    mine = add_command(
        commands,
        "mine",
        "corpus to review pairs",
        "Read a corpus, score it, and choose the pairs of ads to review. Beam's own "
        "flags (--runner, --project, --temp_location, ...) pass through.",
        "my_policy.yaml --corpus 'ads/*.jsonl' --workspace runs/spring",
        "my_policy.yaml --corpus ads.csv --text_field headline --id_field ad_id --workspace runs/spring",
    )
    _add_task_and_corpus(mine)
    _add_workspace(mine)
    _add(mine, api.mine, "date", type=_date, metavar=None)
    _add(mine, api.mine, "budget", metavar=None)
    _add_reading(mine, api.mine)
    _add_output(mine, show=5)
    _add_nightly(commands)

    demo = add_command(
        commands,
        "demo",
        "the main job on the bundled sample, with the embedded model",
        "Mine the 1,980 bundled sample ads by the bundled policy on deceptive ads, write a review page and "
        "a report: what a first round looks like, without an input of your own.",
        "",
        "--workspace runs/demo --show 3",
    )
    demo.add_argument(
        "--workspace", default="demo_workspace", metavar="DIR", help="default: %(default)s"
    )
    _add_output(demo, show=10)

    _add_export(commands)
    _add_import(commands)

    train = add_command(
        commands,
        "train",
        "fine-tune on one half of the labels, evaluate on the other",
        "Train from base weights on all fine-tuning labels so far, evaluate every "
        "round's model on the same evaluation ads, and decide whether to go on.",
        "--workspace runs/spring",
        "--workspace runs/spring --task other_learner.yaml --export models/spring",
    )
    _add_workspace(train)
    _add(train, api.train, "task", metavar="TASK")
    _add(train, api.train, "export")
    _add_plain_output(train)

    status = add_command(
        commands,
        "status",
        "where a workspace's rounds stand",
        "Tell of every round how many pairs and labels it has and how model and experts agree, and what to "
        "do next. Reads what the other commands noted, and changes nothing.",
        "--workspace runs/spring",
    )
    _add_workspace(status)
    _add(status, api.status, "nights")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    _add_report(commands)
    _add_explain(commands)
    _add_audit(commands)
    _add_recheck(commands)
    _add_publish(commands)
    _add_prompts(commands)
    _add_simulate(commands)
    _add_advise(commands)
    return parser


def _add_init(commands: Any) -> None:
    init = add_command(
        commands,
        "init",
        "a task file for your policy and corpus",
        "Write a task file with comments that `scout validate` accepts, after a look at a sample of the "
        "corpus: which columns are text, id and weight, languages and scripts, lengths, copies, templates. "
        "On a terminal it asks for what no flag says.",
        "my_policy.yaml --corpus 'ads/*.jsonl'",
        "my_policy.yaml --policy policy.txt --positive scam --negative honest --prior 0.02 --corpus ads.csv",
    )
    init.add_argument("task_file", metavar="TASK", help="task file to write (YAML)")
    _add(init, api.init, "policy", metavar="TEXT")
    _add(init, api.init, "positive", "negative", "prior", "name")
    _add(init, api.init, "question", metavar="TEXT")
    _add(init, api.init, "corpus", metavar="GLOB", action="append", default=[], type=str)
    _add(init, api.init, "text_field", "id_field", "weight_field")
    _add(init, api.init, "format", choices=FORMATS, metavar=None)
    _add(init, api.init, "encoding", "delimiter")
    _add(init, api.init, "force")
    _add_plain_output(init)


def _add_export(commands: Any) -> None:
    out = add_command(
        commands,
        "export",
        "review items for a labeling tool, or a review page",
        "Write a round's review items in a labeling tool's own format, or put them into its "
        "server. Experts see neither label nor score of the model.",
        "--tool page --workspace runs/spring",
        "--tool label-studio --push http://localhost:8080 --workspace runs/spring",
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
    back = add_command(
        commands,
        "import",
        "experts' verdicts into the workspace",
        "Read verdicts into the workspace: CSV or JSON lines (columns item_id or ad_id, "
        "label, expert, and optionally time and comment), what the review page saved, or the export "
        "of a labeling tool. The same answers twice change nothing, however the file was saved.",
        "verdicts-anna.json verdicts-bob.json --workspace runs/spring",
        "review.csv --expert Anna --workspace runs/spring",
        "--tool label-studio --pull http://localhost:8080 --workspace runs/spring",
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
    _add(back, api.import_verdicts, "on_conflict", choices=("ask", "keep", "replace"), metavar=None)
    _add_plain_output(back)


def _add_nightly(commands: Any) -> None:
    nightly = add_command(
        commands,
        "nightly",
        "a night's files, mined with those of the last nights",
        "Score what is new in a night's files, choose pairs from the last nights together, and tell what "
        "changed: exit status 3 where a person should look. A night that is done is left alone, and nothing "
        "that experts were shown is shown again. Beam's own flags pass through.",
        "my_policy.yaml --corpus 'ads/dt={date}/*.jsonl' --workspace runs/nights --date 2026-11-21 --window 7",
        "my_policy.yaml --corpus 'ads/dt={date}/*.jsonl' --workspace runs/nights "
        "--backfill 2026-11-14..2026-11-20 --dry_run",
    )
    _add_task_and_corpus(nightly)
    _add_workspace(nightly)
    when = nightly.add_argument_group("which nights")
    _add(when, api.nightly, "date", type=_date, metavar=None)
    _add(when, api.nightly, "backfill", metavar="FROM..TO")
    _add(when, api.nightly, "window")
    _add(when, api.nightly, "reprocess", choices=("none", "failed", "completed"), metavar=None)
    _add(when, api.nightly, "dry_run")
    experts = nightly.add_argument_group("experts")
    _add(experts, api.nightly, "hand_out", choices=("when_labelled", "every_night"), metavar=None)
    _add(experts, api.nightly, "budget", metavar=None)
    limits = nightly.add_argument_group("limits and alerts")
    _add(limits, api.nightly, "max_ads", "max_cost", "price")
    bound = {"metavar": "NAME=VALUE", "type": str, "action": "append", "default": []}
    _add(limits, api.nightly, "alert", **bound)
    _add_reading(nightly, api.nightly)
    _add_plain_output(nightly)


def _add_reading(command: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    reading = command.add_argument_group("reading")
    _add(reading, function, "id_field", "text_field", "weight_field")
    _add(reading, function, "format", choices=FORMATS, metavar=None)
    _add(reading, function, "encoding", "delimiter")
    _add(reading, function, "max_text_chars", "max_rejected_share", "block_rows", "range_bytes")
    hint = {"metavar": "NAME=VALUE", "type": str, "action": "append", "default": []}
    _add(command, function, "scoring_hint", **hint)


def _add_task_and_corpus(command: argparse.ArgumentParser) -> None:
    command.add_argument("task", metavar="TASK", help="task file (YAML)")
    command.add_argument(
        "--corpus",
        required=True,
        action="append",
        metavar="GLOB",
        help="files, folders or globs, local or gs://; several may follow, and it may be given several "
        "times",
    )


def _add_workspace(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workspace", required=True, metavar="DIR", help="local or gs:// folder")


def _add_plain_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")


def _add_report(commands: Any) -> None:
    drawn = add_command(
        commands,
        "report",
        "one HTML file with pictures of a round",
        "Draw a round's ads, clusters, pairs, coverage and scores, and the agreement of "
        "all rounds, into one HTML file with its pictures inside; PNGs lie beside it.",
        "--workspace runs/spring",
        "--workspace runs/spring --round 1 --out reports/round-1",
    )
    _add_workspace(drawn)
    _add(drawn, api.report, "out", "round")
    _add_plain_output(drawn)


def _add_explain(commands: Any) -> None:
    explain = add_command(
        commands,
        "explain",
        "why an ad was, or was not, put before experts",
        "Show an ad of a mined corpus as the model read it: prompt, tokens, score, rank and threshold, its "
        "cluster and nearest ads of either label, why the round shows it or does not, and what experts "
        "said. Or score a text of your own with the workspace's model. Changes nothing.",
        "runs/spring ad_0123",
        "runs/spring --ad 'You won a phone! Claim it today'",
    )
    explain.add_argument("workspace", metavar="WORKSPACE", help="local or gs:// folder")
    explain.add_argument(
        "ad_id", metavar="AD_ID", nargs="?", default="", help="an ad of the corpus, by its id"
    )
    _add(explain, api.explain, "ad", metavar="TEXT")
    _add(explain, api.explain, "round")
    _add_plain_output(explain)


def _add_audit(commands: Any) -> None:
    audit = add_command(
        commands,
        "audit",
        "what can be believed about the whole corpus",
        "Draw single ads at random from all that were scored, for experts to label "
        "(`scout export --audit`), and estimate from their labels, once imported, how many ads of the "
        "corpus violate the policy and how good the model is on it. Beam's own flags pass through.",
        "my_policy.yaml --workspace runs/spring --budget 300",
    )
    audit.add_argument("task", metavar="TASK", help="task file (YAML)")
    _add_workspace(audit)
    _add(audit, api.audit, "budget", metavar=None)
    _add_plain_output(audit)


def _add_recheck(commands: Any) -> None:
    again = add_command(
        commands,
        "recheck",
        "labels that look wrong, for a second look",
        "List the labels of the fine-tuning half that a model contradicts which did not see them, that an ad "
        "has otherwise which reads nearly the same, or that an expert gave who drifts from the others; with "
        "a blind sheet to label them again. Changes no label.",
        "--workspace runs/spring",
        "--workspace runs/spring --limit 20",
    )
    _add_workspace(again)
    _add(again, api.recheck, "limit", metavar=None)
    _add_plain_output(again)


def _add_publish(commands: Any) -> None:
    out = add_command(
        commands,
        "publish",
        "a round's pairs and scores into BigQuery",
        "Load a round's pairs and scores into tables of BigQuery, for whoever joins them with what else is "
        "known of the ads. Beam's own flags pass through.",
        "--workspace gs://bucket/scout --to bq://project.ads",
        "--workspace gs://bucket/scout --to bq://project.ads --tables pairs --round 2",
    )
    _add_workspace(out)
    _add(out, api.publish, "to", required=True, metavar="DATASET")
    _add(out, api.publish, "round")
    _add(
        out,
        api.publish,
        "tables",
        type=_chosen_of("table", ("pairs", "scores")),
        metavar="NAME,...",
    )
    _add_plain_output(out)


def _add_prompts(commands: Any) -> None:
    compare = add_command(
        commands,
        "prompts",
        "which prompts rank a task's ads",
        "Ask the model about a few ads of a corpus by every prompt form that ships, and by the "
        "task's own: with labels how well each ranks them, without what can be known.",
        "my_policy.yaml --corpus 'ads/*.jsonl'",
        "my_policy.yaml --corpus 'ads/*.jsonl' --labels labelled.jsonl --write my_policy.yaml",
    )
    _add_task_and_corpus(compare)
    _add(compare, api.prompts, "labels", metavar="FILE")
    _add(compare, api.prompts, "label_field", "ads")
    _add(compare, api.prompts, "write", metavar="TASK")
    _add(compare, api.prompts, "out", metavar="FOLDER")
    _add(compare, api.prompts, "id_field", "text_field")
    _add(compare, api.prompts, "format", choices=FORMATS, metavar=None)
    _add(compare, api.prompts, "encoding", "delimiter")
    _add_plain_output(compare)


def _add_simulate(commands: Any) -> None:
    simulate = add_command(
        commands,
        "simulate",
        "the whole loop on a labelled corpus",
        "Play the rounds with recorded labels as the experts, by any selection strategy, "
        "beside crowd labels with the same learner.",
        "my_policy.yaml --corpus labelled.jsonl --workspace runs/played --learner head --labels 25,50,100",
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


def _add_advise(commands: Any) -> None:
    advise = add_command(
        commands,
        "advise",
        "which selection strategy a task should take",
        "Play the strategies that fit a task on a small labelled set, a pilot round's verdicts or a file, "
        "and say which to take, with intervals, or that they cannot be told apart. Without labels: a table "
        "of what each needs and suits. Changes nothing.",
        "my_policy.yaml",
        "my_policy.yaml --labels labelled.jsonl",
        "my_policy.yaml --workspace runs/spring --seeds 20",
    )
    advise.add_argument("task", metavar="TASK", help="task file (YAML)")
    _add(advise, api.advise, "workspace")
    _add(advise, api.advise, "labels", metavar="FILE")
    _add(advise, api.advise, "label_field")
    _add(advise, api.advise, "label_file", metavar="FILE")
    _add(advise, api.advise, "budget", "seeds")
    known = [name for name in conditions() if "+" not in name and name != CROWD]
    _add(advise, api.advise, "strategies", type=_chosen_of("strategy", known))
    _add_plain_output(advise)


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
    argv = _one_corpus_a_flag(argv)
    if argv[:1] == ["help"]:
        argv = [*argv[1:2], "--help"]
    check_order(parser, argv)
    args, rest = parser.parse_known_args(argv)
    if not rest:
        return args, ()
    known = flags_of(parser, args.command)
    if args.command in ("mine", "nightly", "demo", "audit", "publish"):
        of_beam = beam_parser()
        _, rest_unknown = of_beam.parse_known_args(rest)
        known += [flag for action in of_beam._actions for flag in action.option_strings]
    else:
        rest_unknown = rest
    if rest_unknown:
        flag = rest_unknown[0].split("=", 1)[0]
        kind = "unknown flag" if flag.startswith("-") else "unexpected argument"
        where = f"scout {args.command}: " if args.command else ""
        raise UsageError(f"{where}{kind} {flag}{did_you_mean(flag, known)}")
    return args, tuple(rest)


def _one_corpus_a_flag(argv: Sequence[str]) -> list[str]:
    """Write ``--corpus a b`` as ``--corpus=a --corpus=b``: a shell expands globs that are not quoted.

    A task file ends it, so that it may still stand last.
    """
    spread: list[str] = []
    taking = first = False
    for argument in argv:
        if argument.startswith("-") and argument != "-":
            taking = first = argument == "--corpus"
            if not taking:
                spread.append(argument)
            continue
        taking = taking and (first or not argument.lower().endswith((".yaml", ".yml")))
        spread.append(f"--corpus={argument}" if taking else argument)
        first = False
    return spread
