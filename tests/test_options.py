"""The command line: flags, Beam's flags, and what is refused."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import api, cli, options
from pipelines.console import parser
from pipelines.console.parser import flags_of
from pipelines.errors import UsageError
from pipelines.jobs.running import is_local
from pipelines.simulation.options import SimulateOptions, options_of
from tests import helpers

SIMULATE = ["simulate", "task.yaml", "--corpus", "a.jsonl", "--workspace", "w"]
MINE = ["mine", "task.yaml", "--corpus", "a.jsonl", "--workspace", "w"]


def test_defaults_and_beam_flags_pass_through() -> None:
    flags = [
        "--runner=DataflowRunner",
        "--project",
        "p",
        "--temp_location=gs://b/t",
        "--num_workers=3",
    ]
    args, beam = options.parse([*MINE, *flags])
    assert args.corpus == ["a.jsonl"]
    assert args.max_rejected_share == 0.01
    assert beam == tuple(flags)
    chosen = helpers.options(Path("t"), "a.jsonl", Path("w"), beam=beam)
    found = chosen.pipeline_options().get_all_options()
    assert (found["runner"], found["project"], found["num_workers"]) == ("DataflowRunner", "p", 3)
    assert not chosen.is_local()


def test_flags_that_only_an_engine_knows_pass_through() -> None:
    flags = [
        "--runner=FlinkRunner",
        "--max_bundle_size",
        "10",
        "--execution_mode_for_batch=BATCH_FORCED",
        "--object_reuse",
        "--dry_run",
    ]
    _, beam = options.parse([*MINE, *flags])
    assert beam == tuple(flags)


@pytest.mark.parametrize(
    ("flags", "corpus"),
    [
        # A shell expands a glob that is not quoted.
        (
            ["task.yaml", "--corpus", "a.csv", "b.csv", "c.csv", "--workspace", "w"],
            "a.csv b.csv c.csv",
        ),
        (["--corpus", "a.csv", "b.csv", "--workspace", "w", "task.yaml"], "a.csv b.csv"),
        (["--workspace", "w", "--corpus", "a.csv", "b.csv", "task.yaml"], "a.csv b.csv"),
        (
            ["task.yaml", "--corpus", "a", "--corpus=b", "--corpus", "c", "d", "--workspace", "w"],
            "a b c d",
        ),
        (["task.yaml", "--workspace", "w", "--corpus", "a.yaml", "b"], "a.yaml b"),
    ],
)
def test_several_files_may_follow_corpus(flags: list[str], corpus: str) -> None:
    args, beam = options.parse(["mine", *flags, "--runner=DirectRunner", "--project", "p"])
    assert (args.task, args.workspace, args.corpus) == ("task.yaml", "w", corpus.split())
    assert beam == ("--runner=DirectRunner", "--project", "p")


def test_a_corpus_flag_without_a_file_is_refused() -> None:
    for flags in (["--corpus", "--workspace", "w"], ["--workspace", "w", "--corpus"]):
        with pytest.raises(UsageError, match="required: --corpus"):
            options.parse(["mine", "task.yaml", *flags])


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--encoding", "klingon", "--encoding: no encoding is called 'klingon'"),
        ("--delimiter", "::", "--delimiter: one character that parts cells, or tab; not '::'"),
        ("--delimiter", '"', "--delimiter: one character"),
    ],
)
def test_encodings_and_delimiters_that_are_none(
    flag: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (MINE, ["prompts", "task.yaml", "--corpus", "a.jsonl"]):
        task = Path(__file__).parent.parent / "templates" / "policies" / "clickbait.yaml"
        argv = [str(task) if word == "task.yaml" else word for word in command]
        assert cli.main([*argv, flag, value]) == cli.WRONG_USAGE
        assert message in capsys.readouterr().err
    assert api._delimiter("tab") == api._delimiter("\\t") == "\t"


def test_the_default_runner_is_in_memory() -> None:
    _, beam = options.parse(MINE)
    assert is_local(beam)
    chosen = helpers.options(Path("t"), "a.jsonl", Path("w"), beam=beam)
    assert chosen.is_local()
    assert "FnApiRunner" in chosen.pipeline_options().get_all_options()["runner"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*MINE, "--bugdet", "3"], "scout mine: unknown flag --bugdet; did you mean --budget?"),
        ([*MINE, "--runer=DirectRunner"], "unknown flag --runer; did you mean --runner?"),
        ([*MINE, "--nonsense_at_all"], "unknown flag --nonsense_at_all"),
        ([*MINE, "extra"], "unexpected argument extra"),
        ([*MINE, "--budget", "0"], "argument --budget: must be at least 1, got 0"),
        ([*MINE, "--budget", "many"], "argument --budget: not a whole number: 'many'"),
        ([*MINE, "--max_rejected_share", "2"], "must be 0 to 1, got 2"),
        ([*MINE, "--max_rejected_share", "x"], "not a number: 'x'"),
        ([*MINE, "--date", "yesterday"], "not a date like 2026-11-21: 'yesterday'"),
        ([*MINE, "--format", "xml"], "invalid choice: 'xml'"),
        (["mine", "task.yaml", "--workspace", "w"], "required: --corpus"),
        (["mine"], "required: TASK, --corpus, --workspace"),
        (["status", "--workspace", "w", "--runner=x"], "scout status: unknown flag --runner"),
        (["min"], "invalid choice: 'min'"),
        (["min"], "; did you mean mine? (see `scout --help`)"),
        (["--hlep"], "unknown flag --hlep; did you mean --help?"),
        (["improt", "a.csv"], "; did you mean import? (see `scout --help`)"),
        (["MINE"], "; did you mean mine? (see `scout --help`)"),
        (["evaluate"], "; did you mean train? (see `scout --help`)"),
        (["backfill"], "; did you mean nightly? (see `scout --help`)"),
        (["nightly", *MINE[1:], "--hand_out", "never"], "invalid choice: 'never'"),
        (["nightly", *MINE[1:], "--price", "0"], "argument --price: must be above 0, got 0"),
        (["nightly", *MINE[1:], "--windwo", "3"], "unknown flag --windwo; did you mean --window?"),
        (["why"], "; did you mean explain? (see `scout --help`)"),
        (["--workspace", "w", "status"], "--workspace stands before the command; type scout COMMAND ... --"),
        (["export", "--workspace", "w", "--tool", "lable-studio"], "; did you mean label-studio?"),
        ([*MINE, "--format", "JSON"], "; did you mean json? (see `scout mine --help`)"),
        ([*SIMULATE, "--learner", "hed"], "; did you mean head? (see `scout simulate --help`)"),
        (["demo", "--num_workers=two"], "argument --num_workers: invalid int value: 'two'"),
        ([*MINE, "--max_bundel_size=2"], "unknown flag --max_bundel_size; did you mean --max_bundle_size?"),
    ],
)  # fmt: skip
def test_refusals(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.parse(argv)
    assert message in str(caught.value)


def test_the_program_names_itself_once(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, begins in (
        (["improt"], "argument COMMAND: invalid choice: 'improt'"),
        (["--hlep"], "unknown flag --hlep"),
        (["mine"], "scout mine: the following arguments are required"),
    ):
        assert cli.main(argv) == cli.WRONG_USAGE
        assert capsys.readouterr().err.startswith(f"scout: error: {begins}")


def test_the_way_backs_flags() -> None:
    args, rest = options.parse(
        ["import", "a.csv", "b.jsonl", "--workspace", "w", "--tool", "csv", "--expert", "Anna"]
    )
    assert (args.files, args.tool, args.expert, rest) == (["a.csv", "b.jsonl"], "csv", "Anna", ())
    args, _ = options.parse(["train", "--workspace", "w", "--task", "t.yaml", "--export", "m"])
    assert (args.task, args.export, args.json, args.quiet) == ("t.yaml", "m", False, False)
    args, _ = options.parse(["status", "--workspace", "w", "--json"])
    assert args.json


COMMANDS = list(cli._COMMANDS)


def shown_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        options.parse(argv)
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_a_command_and_shows_how_it_is_typed(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = shown_help([command, "--help"], capsys)
    described = shown.partition("\n\n")[2].partition("\n\n")[0]
    assert len(described.split()) >= 12 and described.endswith(".")
    examples = [line for line in shown.splitlines() if line.startswith(f"  scout {command}")]
    assert examples and re.search(r"^examples?:\n  scout ", shown, re.M)
    for line in examples:
        args, beam = options.parse(shlex.split(line)[1:])
        assert (args.command, beam) == (command, ())
    assert shown_help(["help", command], capsys) == shown


def test_help_shows_a_first_round(capsys: pytest.CaptureFixture[str]) -> None:
    shown = shown_help(["help"], capsys)
    assert shown == shown_help(["--help"], capsys)
    steps = [shlex.split(line)[1:] for line in shown.splitlines() if line.startswith("  scout ")]
    assert [step[0] for step in steps] == ["init", "mine", "export", "import", "train", "status"]
    assert [options.parse(step)[0].command for step in steps] == [step[0] for step in steps]


def test_every_word_for_a_command_leads_to_one() -> None:
    assert set(parser._ALSO.values()) <= set(COMMANDS)
    assert not set(parser._ALSO) & set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_of_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse([command, "--help"])
    shown = capsys.readouterr().out
    for flag in flags_of(options.build_parser(), command):
        # Two blanks or a new line part a flag from what it means.
        assert re.search(rf"^  .*{flag}\b[^\n]*?(  |\n {{20,}})\S", shown, re.M), flag


@pytest.mark.parametrize(
    ("argv", "function"),
    [
        (["init", "t.yaml"], api.init),
        (["validate", "t.yaml"], api.validate),
        (MINE, api.mine),
        (["nightly", *MINE[1:]], api.nightly),
        (["explain", "w"], api.explain),
        (["export", "--workspace", "w", "--tool", "page"], api.export),
        (["import", "--workspace", "w"], api.import_verdicts),
        (["train", "--workspace", "w"], api.train),
        (["report", "--workspace", "w"], api.report),
        (SIMULATE, api.simulate),
    ],
)
def test_defaults_are_those_of_the_api(argv: list[str], function: Callable[..., Any]) -> None:
    args, _ = options.parse(argv)
    own = inspect.signature(function).parameters
    # Beam's flags come apart; --quiet is what stands for progress.
    assert set(own) - set(vars(args)) <= {"beam", "progress"}
    for name, argument in own.items():
        if argument.default is not inspect.Parameter.empty and hasattr(args, name):
            given = getattr(args, name)
            assert (tuple(given) if isinstance(given, list) else given) == argument.default, name


def simulation(argv: list[str]) -> SimulateOptions:
    args, _ = options.parse(argv)
    names = {field.name for field in dataclasses.fields(SimulateOptions)}
    given = {name: value for name, value in vars(args).items() if name in names}
    return options_of({**given, "corpus": tuple(args.corpus)})


def test_simulations_defaults_are_those_of_its_options() -> None:
    assert simulation(SIMULATE) == SimulateOptions("task.yaml", ("a.jsonl",), "w")


def test_simulations_flags_arrive() -> None:
    flags = [
        *("--experts", "recorded", "--ratings_field", "said", "--label_field", "gold"),
        *("--label_file", "labels.jsonl", "--prevalence", "0.05", "--labels", "25,50,100"),
        *("--conditions", "boundary, crowd", "--seeds", "3", "--first_seed", "0"),
        *("--learner", "head", "--also", "encoder", "--also", "encoder", "--also_from", "50"),
        *("--holdout", "0.3", "--crowd_labels", "900", "--crowd_kappa", "0.6,0.4"),
        *("--crowd_noise", "text"),
        *("--expert_kappa", "1", "--corpus", "b.jsonl", "--quiet"),
    ]
    assert simulation([*SIMULATE, *flags]) == SimulateOptions(
        task="task.yaml",
        corpus=("a.jsonl", "b.jsonl"),
        workspace="w",
        experts="recorded",
        expert_kappa=1.0,
        label_field="gold",
        ratings_field="said",
        label_file="labels.jsonl",
        prevalence=0.05,
        rounds=3,
        labels=(25, 50, 100),
        conditions=("boundary", "crowd"),
        seeds=3,
        first_seed=0,
        learner="head",
        also=("encoder",),
        also_from=50,
        holdout=0.3,
        crowd_labels=900,
        crowd_kappa=(0.6, 0.4),
        crowd_noise=("text",),
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["export", "--workspace", "w"], "required: --tool"),
        (["import", "a.csv"], "required: --workspace"),
        (["import", "a.csv", "--workspace", "w", "--expret", "x"], "did you mean --expert?"),
        (["train"], "required: --workspace"),
        (["train", "--workspace", "w", "--runner=x"], "scout train: unknown flag --runner"),
        ([*SIMULATE, "--runner=x"], "scout simulate: unknown flag --runner"),
        ([*SIMULATE, "--lables", "3"], "unknown flag --lables; did you mean --labels?"),
        ([*SIMULATE, "--labels", "50,25"], "must increase from round to round, got 50,25"),
        ([*SIMULATE, "--labels", "25,25"], "must increase from round to round, got 25,25"),
        ([*SIMULATE, "--labels", "0,25"], "must be at least 1, got 0"),
        ([*SIMULATE, "--labels", "25,"], "not a whole number: ''"),
        ([*SIMULATE, "--rounds", "0"], "argument --rounds: must be at least 1, got 0"),
        ([*SIMULATE, "--seeds", "0"], "argument --seeds: must be at least 1, got 0"),
        ([*SIMULATE, "--expert_kappa", "0"], "a kappa to reach must be above 0, at most 1, got 0"),
        ([*SIMULATE, "--crowd_kappa", "0.5,1.5"], "must be above 0, at most 1, got 1.5"),
        ([*SIMULATE, "--prevalence", "1"], "must be above 0 and below 1, got 1"),
        ([*SIMULATE, "--holdout", "0"], "must be above 0 and below 1, got 0"),
        ([*SIMULATE, "--conditions", "ours"], "no condition 'ours'; choose of boundary, uncertain"),
        ([*SIMULATE, "--conditions", "crowd,randon"], "no condition 'randon'; did you mean 'random'?"),
        ([*SIMULATE, "--crowd_noise", "x"], "no crowd noise 'x'; choose of text, uniform"),
        ([*SIMULATE, "--learner", "svm"], "invalid choice: 'svm'"),
        ([*SIMULATE, "--experts", "mine"], "invalid choice: 'mine'"),
    ],
)  # fmt: skip
def test_refusals_of_the_way_back(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.parse(argv)
    assert message in str(caught.value)
