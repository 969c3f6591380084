"""From mined pairs to a tool's files and back, as a person at the keyboard sees it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli
from pipelines.store.workspace import Workspace
from pipelines.tools import registry
from pipelines.tools.batch import read_batch
from tests import helpers
from tests.tools.players import choices_of, studio_tasks
from tests.tools.test_page import as_file, saved

FILES = {
    "page": {"review.html"},
    "csv": {"review.csv", "instructions.txt"},
    "label-studio": {"tasks.json", "config.xml", "guidelines.md", "setup.md"},
    "argilla": {"records.jsonl", "settings.json", "setup.md"},
    "doccano": {"examples.jsonl", "labels.json", "guidelines.md", "setup.md"},
    "prodigy": {"tasks.jsonl", "prodigy.json", "instructions.html", "setup.md"},
}


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mined")
    corpus = helpers.write_jsonl(folder / "ads.jsonl", helpers.tiny_ads())
    helpers.run(helpers.write_task(folder), corpus, folder / "w")
    return folder / "w"


@pytest.fixture
def root(mined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mined, tmp_path / "w"))


def scout(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Run a command; -> its exit status, stdout and stderr."""
    capsys.readouterr()
    status = cli.main([str(word) for word in argv])
    return status, *capsys.readouterr()


def summary(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    status, out, err = scout(capsys, *argv, "--json")
    assert status == cli.OK, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("tool", registry.exporting())
def test_every_tool_gets_its_files_and_nothing_of_the_model(
    tool: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = summary(capsys, "export", "--workspace", root, "--tool", tool)
    paths = [Path(path) for path in found["files"]]
    assert {path.name for path in paths} == FILES[tool]
    assert {path.parent for path in paths} == {root / "exports" / "round-0001" / tool}
    assert (found["items"], found["blind"], found["round"]) == (12, True, 1)
    [pairs] = root.glob("rounds/0001/pairs/*/items.jsonl")
    everything = b"".join(path.read_bytes() for path in paths).decode()
    for item in map(json.loads, pairs.read_text().splitlines()):
        assert item["item_id"] in everything
        for ad in item["ads"]:
            assert f"{ad['probability']}" not in everything
    before = [path.read_bytes() for path in paths]
    assert summary(capsys, "export", "--workspace", root, "--tool", tool) == found
    assert [path.read_bytes() for path in paths] == before


def test_the_sheet_is_the_one_that_mine_wrote(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    summary(capsys, "export", "--workspace", root, "--tool", "csv", "--out", tmp_path / "out")
    for name in ("review.csv", "instructions.txt"):
        [own] = root.glob(f"rounds/0001/review/*/{name}")
        assert (tmp_path / "out" / name).read_bytes() == own.read_bytes()


def test_what_the_page_saves_comes_back(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = scout(capsys, "export", "--workspace", root, "--tool", "page")
    assert status == cli.OK and "open the page in a browser" in out
    batch = read_batch(Workspace(str(root)))
    answers = ["positive", "negative"] * len(batch.items)
    file = root.parent / "verdicts-anna.json"
    file.write_bytes(as_file(saved(batch, answers, expert="Anna")))
    found = summary(capsys, "import", file, "--workspace", root)
    assert (found["verdicts"], found["rejected"], found["experts"]) == (24, 0, ["anna"])


def test_a_tools_numbers_become_names(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = root.parent / "studio"
    summary(capsys, "export", "--workspace", root, "--tool", "label-studio", "--out", out)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    export = root.parent / "project.json"
    tasks = json.loads(files["tasks.json"])
    ids = [task["data"]["item_id"] for task in tasks]
    for number, task in enumerate(tasks):
        # The players tell an item's number by its id.
        task["data"]["item_id"] = f"pair_{number:016x}"
    labelled = studio_tasks(tasks, choices_of(files["config.xml"]), {"anna": 3, "bo": 4})
    for task, id in zip(labelled, ids, strict=True):
        task["data"]["item_id"] = id
    export.write_text(json.dumps(labelled))
    names = root.parent / "names.json"
    names.write_text('{"3": "Anna", "4": "Bo"}')
    flags = ("--tool", "label-studio", "--workspace", root)
    found = summary(capsys, "import", export, *flags, "--experts", names)
    assert found["experts"] == ["anna", "bo"] and found["verdicts"] > 0
    assert found["rejected_by_reason"] == {"half_pair": 1}
    # Without --tool it is read as JSON lines, which it is not: the error says what to do.
    status, _, err = scout(capsys, "import", export, "--workspace", root)
    assert status == cli.FAILED and "give --tool for the export of a labeling tool" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "must be one JSON object of names"),
        ('{"3": 4}', "must be one JSON object of names"),
        ('{"3": ', "is no JSON"),
        ("", "the file is empty"),
        ('{"3": " "}', "neither may be blank"),
    ],
)
def test_a_bad_file_of_names_is_refused(
    content: str, message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = root.parent / "names.json"
    names.write_text(content)
    sheet = next(root.glob("rounds/0001/review/*/review.csv"))
    status, _, err = scout(capsys, "import", sheet, "--workspace", root, "--experts", names)
    assert status == cli.WRONG_USAGE and message in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tool", "paper"), "invalid choice: 'paper'"),
        (("--tool", "page", "--round", "9"), "--round 9: has no pairs in "),
        (("--tool", "page", "--push", "http://127.0.0.1:1"), "--push: --tool page has no server"),
        (
            ("--tool", "label-studio", "--push", "http://127.0.0.1:1"),
            "LABEL_STUDIO_API_KEY: is not set",
        ),
        (
            ("--tool", "label-studio", "--push", "http://127.0.0.1:1", "--out", "x"),
            "--push and --out: give one of them",
        ),
        (("--tool", "csv", "--show_predictions"), "--tool csv has no place for what the model"),
    ],
)
def test_exports_that_cannot_be(
    flags: tuple[str, ...],
    message: str,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    status, _, err = scout(capsys, "export", "--workspace", root, *flags)
    assert status == cli.WRONG_USAGE and message in err, err


def test_nowhere_to_write(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root.parent / "file").write_text("in the way")
    for out, message in ((root.parent / "file", "is a file"), ("/proc/x", "cannot be written")):
        flags = ("--workspace", root, "--tool", "page", "--out", out)
        status, _, err = scout(capsys, "export", *flags)
        assert status == cli.WRONG_USAGE and message in err


def test_an_empty_workspace_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = scout(capsys, "export", "--workspace", tmp_path, "--tool", "page")
    assert status == cli.WRONG_USAGE and "start with `scout mine`" in err


def test_predictions_go_along_only_when_asked_for(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--workspace", root, "--tool", "doccano", "--show_predictions")
    status, out, err = scout(capsys, "export", *flags)
    assert status == cli.OK and "with what the model says" in out
    assert "experts will see what the model says" in err
    examples = (
        (root / "exports/round-0001/doccano-with-predictions/examples.jsonl")
        .read_text()
        .splitlines()
    )
    assert all("model_label" in json.loads(example) for example in examples)


def test_a_page_of_an_earlier_export_is_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("export", "--workspace", root, "--tool", "page")
    [page] = summary(capsys, *flags)["files"]
    old = Path(page).with_name("review-1-of-2.html")
    old.write_text("an earlier part")
    Path(page).with_name("saved-by-anna.html").write_text("none of ours")
    status, _, err = scout(capsys, *flags)
    assert status == cli.OK and old.exists()
    assert [line for line in err.splitlines() if "earlier export" in line] == [
        f"scout: {old}: left by an earlier export, whose pairs may have been others; delete it, "
        "lest somebody labels it"
    ]


def test_a_filled_in_sheet_is_not_wiped(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [sheet, _] = summary(capsys, "export", "--workspace", root, "--tool", "csv")["files"]
    filled = Path(sheet).read_bytes().replace(b",,,\r\n", b",positive,anna,\r\n")
    Path(sheet).write_bytes(filled)
    status, _, err = scout(capsys, "export", "--workspace", root, "--tool", "csv")
    assert status == cli.WRONG_USAGE and "somebody may have filled it in" in err
    assert Path(sheet).read_bytes() == filled
    summary(capsys, "export", "--workspace", root, "--tool", "csv", "--force")
    assert Path(sheet).read_bytes() != filled


def test_one_person_does_not_become_two(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = read_batch(Workspace(str(root)))
    file = root.parent / "ann.json"
    file.write_bytes(as_file(saved(batch, ["positive", "negative"] * 12, expert="3")))
    assert summary(capsys, "import", file, "--workspace", root)["experts"] == ["3"]
    names = root.parent / "names.json"
    names.write_text('{"3": "anna"}')
    flags = ("--workspace", root, "--experts", names)
    status, _, err = scout(capsys, "import", file, *flags)
    assert status == cli.WRONG_USAGE and "would make two experts of each of them" in err


def test_the_page_is_told_from_what_it_saves(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [page] = summary(capsys, "export", "--workspace", root, "--tool", "page")["files"]
    status, _, err = scout(capsys, "import", page, "--workspace", root)
    assert status == cli.FAILED and "is a web page, not the verdicts of one" in err
