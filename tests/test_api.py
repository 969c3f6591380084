"""The loop as a notebook plays it: every command as a function, with results that can be looked at."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import api, errors
from pipelines.config import Task, load_task
from pipelines.errors import RunFailed, UsageError
from pipelines.store.workspace import Workspace
from pipelines.tools.batch import read_batch
from tests import helpers
from tests.jobs.loop import EXPERTS, GOLD, Loop, said_by, write_verdicts
from tests.tools.test_page import as_file, saved


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """Return a folder with a corpus, and a task whose learner is a head on a tiny encoder."""
    helpers.write_jsonl(tmp_path / "ads.jsonl", GOLD.ads)
    encoder = helpers.tiny_encoder(tmp_path / "encoder")
    helpers.write_task(tmp_path, helpers.head_task(encoder))
    return Loop(tmp_path)


def test_a_notebook(loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, corpus, workspace = tmp_path / "task.yaml", tmp_path / "ads.jsonl", loop.root

    mined = api.mine(task, corpus, workspace)
    shown = repr(mined)
    assert shown.startswith(
        "The first 5 review pairs (the model's label, its probability, the ad):\n"
    )
    assert "Task tiny, round 1:\n  ads read          300\n" in shown
    assert f"\nPairs:         {mined.pairs_file}\n" in shown
    assert (mined.records, mined.unique, mined.pairs, mined.notes) == (300, 300, 30, ())
    assert [item.rank for item in mined.items] == list(range(1, 31))

    exported = api.export(workspace, "page")
    assert repr(exported).startswith("30 pairs of tiny, round 1, for 2 experts each\n")
    [page] = exported.files
    assert page in repr(exported) and Path(page).is_file()

    rows = [(id, said_by(expert, id), expert) for id in loop.shown(1) for expert in EXPERTS]
    verdicts = write_verdicts(tmp_path / "verdicts.csv", rows)
    ingested = api.import_verdicts(workspace, verdicts)
    assert (ingested.verdicts, ingested.experts) == (120, ("anna", "bo"))
    assert "  verdicts          120, 0 of them skips\n" in repr(ingested)
    assert ingested.notes[0] == "120 verdicts (0 skips) of 2 experts, in rounds 1"

    trained = api.train(workspace)
    labels, evaluation = trained.labels, trained.evaluation
    kappa = evaluation.models[1].kappa.value
    assert kappa is not None and kappa > 0.6
    assert f"On the same {evaluation.ads} evaluation ads (2 experts" in repr(trained)
    assert f"{kappa:.2f} [" in repr(trained) and f"  {labels.fine_tuning}, " in repr(trained)
    assert trained.notes[-1] == evaluation.decision.reason

    standing = api.status(workspace)
    [first] = standing.rounds
    assert first.model and first.labelled
    assert first.model.evaluation == evaluation
    assert first.labelled.fine_tuning + first.labelled.evaluation == 60
    assert first.stages == {} and first.comparable
    assert re.search(r"\n\nNext: run `scout mine [^`]+` for the next round\Z", repr(standing))
    stages = api.status(workspace, stages=True).to_json()["rounds"][0]["stages"]
    assert stages["pairs"]["facts"]["origin"]["task"]["name"] == "tiny"

    again = api.mine(task, [corpus], workspace, budget=7)
    assert (again.round, again.pairs, again.scored_now) == (2, 7, 300)
    assert again.notes == ("round 2: labelling with the model of round 1",)

    report = api.report(workspace, round=1)
    assert f"Report:   {report.path}\n" in repr(report)
    assert len(report.pictures) > 3 and all(Path(path).is_file() for path in report.pictures)

    helpers.write_jsonl(tmp_path / "gold.jsonl", GOLD.labelled())
    chosen: dict[str, Any] = {"labels": [10, 20], "conditions": ["random"], "expert_kappa": 1}
    simulated = api.simulate(task, tmp_path / "gold.jsonl", tmp_path / "s", **chosen)
    assert "Cohen's kappa with the experts, mean over 1 seed\n" in repr(simulated)
    assert [(row["condition"], row["round"]) for row in simulated.rows] == [
        ("random", 1),
        ("random", 2),
    ]
    last = simulated.rows[-1]
    shown = next(line for line in repr(simulated).splitlines() if f" {last['labels']} " in line)
    assert f"{last['natural']:z.2f}" in shown
    assert f"written to {tmp_path / 's' / 'simulation.json'}" in simulated.notes

    results = (mined, exported, ingested, trained, standing, again, report, simulated)
    assert all(json.loads(json.dumps(result.to_json())) for result in results)
    assert capsys.readouterr() == ("", "")


def test_a_task_is_the_same_as_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = helpers.write_task(tmp_path)
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())
    by_file = api.mine(path, str(corpus), tmp_path / "file")
    task = Task.model_validate(
        {
            "name": "tiny",
            "version": 1,
            "policy": "Ads that promise what nobody can promise.",
            "question": "Is it misleading?",
            "prior": 0.2,
            "model": {"preset": "fake"},
            "selection": {"budget": 12},
        }
    )
    by_object = api.mine(task, corpus, tmp_path / "object", progress=True)
    assert helpers.pairs_bytes(by_file) == helpers.pairs_bytes(by_object)
    hashes = {Workspace(str(tmp_path / name)).pairs_of().config_hash for name in ("file", "object")}
    assert len(hashes) == 1
    assert by_file.items == by_object.items
    assert capsys.readouterr() == ("", "")
    # What it is about to tell anyway goes to stderr, too.
    again = api.mine(task, corpus, tmp_path / "object", progress=True)
    assert capsys.readouterr() == ("", f"scout: {again.notes[0]}\n")


CALLS: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (api.mine, {"budget": 0}, "budget: 0 is refused: input should be greater than or equal to 1"),
    (api.mine, {"budget": "many"}, "budget: 'many' is refused: input should be a valid integer"),
    (api.mine, {"max_rejected_share": 2}, "max_rejected_share: 2 is refused: input should be less"),
    (api.mine, {"task": 5}, "task: 5 is refused: input should be "),
    (api.mine, {"task": "none.yaml"}, "none.yaml: no such task file"),
    (api.mine, {"format": "xml"}, "format: no 'xml'; choose of jsonl, "),
    (api.mine, {"corpus": "b/{date}/*"}, "corpus b/{date}/*: {date} needs date"),
    (api.mine, {"date": "yesterday"}, "date: not a date like 2026-11-21: 'yesterday'"),
    (api.mine, {"corpus": "none.jsonl"}, "corpus none.jsonl: no file matches"),
    (api.status, {"workspace": "w?"}, "workspace w?: '?' has a meaning in file patterns"),
    (api.export, {"tool": "pgae"}, "tool: no 'pgae'; choose of page, csv, "),
    (api.export, {"push": "http://x", "out": "o"}, "push and out: give one of them"),
    (api.import_verdicts, {"expert": " "}, "name at least one verdict FILE, or a server with pull"),
    (api.import_verdicts, {"experts": "no--pe.json"}, "experts no--pe.json: no such file"),
    (api.explain, {"round": 0}, "round: 0 is refused: input should be greater than or equal to 1"),
    (api.explain, {"ad_id": "a"}, "workspace w: holds no pairs; start with `scout mine`"),
    (api.validate, {"task": "none.yaml"}, "none.yaml: no such task file"),
    (api.status, {}, "workspace w: no rounds here; start with `scout mine`"),
    (api.simulate, {"conditions": ["ours"]}, "conditions: no 'ours'; choose of boundary, uncertainty, "),
    (api.simulate, {"conditions": "random"}, "conditions: 'random' is refused: "),
    (api.simulate, {"learner": "svm"}, "learner: 'svm' is refused: input should be 'llm', "),
    (api.simulate, {"labels": [50, 25]}, "labels: must increase from round to round, got [50, 25]"),
    (api.simulate, {"labels": [5], "rounds": 2}, "labels names 1 rounds, rounds 2; leave rounds out"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "given", "message"), CALLS)
def test_refusals_name_arguments_as_they_are_called(
    function: Callable[..., Any], given: dict[str, Any], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    helpers.write_task(tmp_path)
    usual = {"task": "task.yaml", "corpus": "a.jsonl", "workspace": "w", "tool": "page"}
    needed = [
        name
        for name, argument in inspect.signature(function).parameters.items()
        if argument.default is inspect.Parameter.empty
    ]
    with pytest.raises(UsageError) as caught:
        function(**{name: usual[name] for name in needed} | given)
    assert str(caught.value).startswith(message)


def test_what_a_run_lacks_is_told_without_marks(tmp_path: Path) -> None:
    helpers.write_task(tmp_path)
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", [{"id": "1"}])
    with pytest.raises(RunFailed) as caught:
        api.mine(tmp_path / "task.yaml", corpus, tmp_path / "w")
    assert str(caught.value) == caught.value.message
    assert str(caught.value).startswith(
        "none of the 1 records is usable: no_text 1 (first ads.jsonl, line 1: no field 'text'; it begins "
    )


def test_a_task_that_no_file_holds_is_the_task(tmp_path: Path) -> None:
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())
    task = load_task(helpers.write_task(tmp_path))
    model = task.model.model_copy(update={"preset": "./nowhere"})
    with pytest.raises(UsageError, match=r"^the task: model: no model folder \./nowhere"):
        api.mine(task.model_copy(update={"model": model}), corpus, tmp_path / "w")
    labels = task.labels.model_copy(update={"negative": "Positive"})
    with pytest.raises(UsageError, match=r"^the task: labels: positive and negative are both"):
        api.mine(task.model_copy(update={"labels": labels}), corpus, tmp_path / "w")
    selection = task.selection.model_copy(update={"strategy": "uncertainty"})
    mined = api.mine(task.model_copy(update={"selection": selection}), corpus, tmp_path / "w")
    assert f"\n  chosen            {mined.pairs} of a budget of 12, " in repr(mined)
    assert "None" not in repr(mined)
    loop = Loop(tmp_path)
    rows = [(id, "positive", "anna") for id in loop.shown(1)]
    api.import_verdicts(loop.root, write_verdicts(tmp_path / "v.csv", rows))
    with pytest.raises(
        UsageError, match=r"^the task: is the task 'other', but the workspace holds"
    ):
        api.train(loop.root, task=task.model_copy(update={"name": "other"}))


def test_every_function_tells_of_every_argument() -> None:
    for function in (api.mine, api.export, api.import_verdicts, api.train, api.status, api.report,
                     api.simulate):  # fmt: skip
        told = re.findall(r"^    (\w+): ", inspect.getdoc(function) or "", re.M)
        assert told == list(inspect.signature(function).parameters)


def test_the_readmes_example_runs(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.yaml").rename("my_policy.yaml")
    (tmp_path / "ads").mkdir()
    (tmp_path / "ads.jsonl").rename("ads/spring.jsonl")
    names: dict[str, Any] = {}
    for line in block.splitlines():
        exec(line, names)
        if "api.export" in line:
            batch = read_batch(Workspace("runs/spring"))
            ids = [ad.id for item in batch.items for ad in item.ads]
            for file, expert in (("ann.json", "anna"), ("bob.json", "bo")):
                answers = [said_by(expert, id) for id in ids]
                Path(file).write_bytes(as_file(saved(batch, answers, expert=expert)))
    shown = capsys.readouterr().out
    assert "fine-tuning" in shown and "Next: " in shown
    assert names["mined"].pairs == 30


def test_a_plain_wheel_names_the_extra_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())
    task = Path(__file__).parent.parent / "templates" / "policies" / "clickbait.yaml"
    monkeypatch.setattr("models.backends.base._is_installed", lambda name: False)
    for call in (api.mine, api.prompts):
        places = (task, corpus) if call is api.prompts else (task, corpus, tmp_path / "w")
        with pytest.raises(UsageError, match=r"pip install 'ad-scout\[llm\]'$") as caught:
            call(*places)
        assert "\n" not in caught.value.typed


@pytest.mark.parametrize(
    ("package", "extra"), [("keras_hub", "llm"), ("openpyxl", "xlsx"), ("crowdkit", "consensus")]
)
def test_any_missing_package_of_an_extra_is_one_line(
    package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        try:
            raise ModuleNotFoundError(f"No module named '{package}.x'", name=f"{package}.x")
        except ModuleNotFoundError as error:
            raise RuntimeError("behind something") from error

    monkeypatch.setattr("pipelines.jobs.export.export", fail)
    with pytest.raises(UsageError) as caught:
        api.export(tmp_path, "page")
    assert caught.value.typed == (
        f"this needs {package}, which this Python does not have: pip install 'ad-scout[{extra}]'"
    )
    package = "yaml"
    with pytest.raises(RuntimeError, match="behind something"):
        api.export(tmp_path, "page")


def test_every_extra_is_known_by_its_packages() -> None:
    setup = (Path(__file__).parent.parent / "setup.py").read_text("utf-8")
    extras = set(re.findall(r'^        "(\w+)": ', setup, re.MULTILINE)) - {
        "all",
        "templates",
    }
    assert extras == set(errors._EXTRAS)
