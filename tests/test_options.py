"""The command line: flags, Beam's flags, and what is refused."""

from __future__ import annotations

import pytest

from pipelines import options
from pipelines.errors import UsageError

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
    chosen = options.mine_options(args, beam)
    assert chosen.corpus == ("a.jsonl",)
    assert chosen.max_rejected_share == 0.01
    assert chosen.beam == tuple(flags)
    found = chosen.pipeline_options().get_all_options()
    assert (found["runner"], found["project"], found["num_workers"]) == ("DataflowRunner", "p", 3)
    assert not chosen.is_local()


def test_the_default_runner_is_in_memory() -> None:
    args, beam = options.parse(MINE)
    chosen = options.mine_options(args, beam)
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
        (["demo", "--num_workers=two"], "argument --num_workers: invalid int value: 'two'"),
    ],
)  # fmt: skip
def test_refusals(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.parse(argv)
    assert message in str(caught.value)


def test_the_date_fills_the_corpus_pattern() -> None:
    argv = ["mine", "t", "--corpus", "gs://b/{date}/*.jsonl", "--workspace", "w"]
    args, beam = options.parse([*argv, "--date", "2026-11-21"])
    assert options.mine_options(args, beam).corpus == ("gs://b/2026-11-21/*.jsonl",)
    args, beam = options.parse(argv)
    with pytest.raises(UsageError, match="needs --date"):
        options.mine_options(args, beam)
