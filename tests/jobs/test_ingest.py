"""From the sheet that `mine` hands out to verdicts in halves, as a person at the keyboard sees it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts import Verdict
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.ingest import Ingested, IngestOptions, ingest, ingest_verdicts
from pipelines.store import storage
from pipelines.store.workspace import Workspace
from pipelines.verdicts.commit_imports import entries_of
from pipelines.verdicts.halves import HALVES, latest, ratings, read_half
from pipelines.verdicts.rows import RawVerdict
from pipelines.verdicts.shown import shown_ads
from tests import helpers

BUDGET = 12
_opened: list[str] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and "w" not in str(args[1]):
        _opened.append(str(args[0]))


sys.addaudithook(_watch)


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a corpus, a task and a workspace whose first round is mined."""
    folder = tmp_path_factory.mktemp("mined")
    corpus = helpers.write_jsonl(folder / "ads.jsonl", helpers.tiny_ads())
    helpers.run(helpers.write_task(folder), corpus, folder / "w")
    return folder


@pytest.fixture
def root(mined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mined, tmp_path / "m")) / "w"


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Collect the paths of all files that are opened for reading."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


def sheet_of(root: Path) -> list[list[str]]:
    [path] = root.glob("rounds/0001/review/*/review.csv")
    return list(csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline="")))


def fill(
    root: Path, expert: str, choose: Callable[[int], str], encoding: str = "utf-8-sig"
) -> Path:
    """Write the review sheet as an expert gives it back; -> its path."""
    header, *rows = sheet_of(root)
    for number, row in enumerate(rows):
        row[header.index("label")] = choose(number)
        row[header.index("expert")] = expert
    path = root.parent / f"{expert.strip()}.csv"
    with open(path, "w", encoding=encoding, newline="") as sink:
        csv.writer(sink, lineterminator="\r\n").writerows([header, *rows])
    return path


def load(root: Path, *files: Path, **changes: Any) -> Ingested:
    settings = {"workspace": str(root), "files": tuple(str(f) for f in files), **changes}
    return ingest(IngestOptions(**settings), say=lambda line: None)


def alternate(number: int) -> str:
    return ("positive", "negative", "skip")[number % 3]


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_two_experts_sheets_become_two_halves(root: Path) -> None:
    said: list[str] = []
    files = (fill(root, "Anna", alternate), fill(root, " BO ", lambda _: "positive", "utf-16"))
    options = IngestOptions(str(root), tuple(map(str, files)))
    summary = ingest(options, said.append).to_json()
    assert (summary["verdicts"], summary["labels"], summary["skips"]) == (48, 40, 8)
    assert (summary["rejected"], summary["unanswered"], summary["changed_mind"]) == (0, 0, 0)
    assert (summary["experts"], summary["rounds"]) == (["anna", "bo"], [1])
    assert summary["files"] == ["Anna.csv", "BO.csv"]
    assert summary["fine_tuning_ads"] + summary["evaluation_ads"] == 24
    assert said[0] == "48 verdicts (8 skips) of 2 experts, in rounds 1"
    json.dumps(summary)
    place = Workspace(str(root))
    everything = [v for half in HALVES for v in read_half(place, half, 1)]
    table = ratings(everything)
    assert table.values.shape == (24, 2) and (table.values[:, 1] == 1).all()
    # The labels stand beside the ads that they were written beside.
    header, *rows = sheet_of(root)
    wanted = {row[header.index("ad_id")]: alternate(i) for i, row in enumerate(rows)}
    assert {v.ad_id: v.label for v in everything if v.expert == "anna"} == wanted


def test_both_names_in_one_file(root: Path) -> None:
    one, other = fill(root, "anna", alternate), fill(root, "bo", alternate)
    both = root.parent / "both.csv"
    both.write_bytes(one.read_bytes() + other.read_bytes().split(b"\r\n", 1)[1])
    summary = load(root, both).to_json()
    assert (summary["verdicts"], summary["rejected"], summary["changed_mind"]) == (48, 0, 0)


def test_the_same_file_again_changes_nothing(root: Path) -> None:
    path = fill(root, "anna", alternate)
    first = load(root, path).to_json()
    before, said = tree(root), []
    again = path.rename(path.with_name("renamed.csv"))
    summary = ingest(IngestOptions(str(root), (str(again),)), said.append).to_json()
    assert tree(root) == before
    [line] = said
    assert line.startswith(f"{again}: imported before; nothing to do (its verdicts do not overrule")
    assert (summary["verdicts"], summary["imported_before"]) == (0, [str(again)])
    assert summary["evaluation_ads"] == first["evaluation_ads"]
    # Beside a new file, too.
    assert load(root, again, fill(root, "bo", alternate)).files == ("bo.csv",)
    place = Workspace(str(root))
    assert sum(len(read_half(place, half, 1)) for half in HALVES) == 48


def test_the_same_bytes_of_two_experts_are_two_imports(root: Path) -> None:
    # Sheets without a name: two people who agree on every row hand in equal files.
    path = fill(root, "", alternate)
    assert load(root, path, expert="ann").experts == ("ann",)
    assert load(root, path, expert="bob").experts == ("bob",)
    assert load(root, path, expert="bob").files == ()
    place = Workspace(str(root))
    table = ratings([v for half in HALVES for v in read_half(place, half, 1)])
    assert table.experts == ("ann", "bob")
    assert (table.values[:, 0] == table.values[:, 1]).all()


def test_a_file_without_names_can_be_named_afterwards(root: Path) -> None:
    named, nameless = fill(root, "bob", alternate), fill(root, "", alternate)
    first = load(root, named, nameless).to_json()
    assert (first["experts"], first["unanswered"] + first["rejected"]) == (["bob"], 24)
    assert load(root, nameless, expert="ann").experts == ("ann",)


def test_nothing_but_the_evaluator_opens_the_evaluation_half(
    root: Path, opened: list[str], mined: Path
) -> None:
    load(root, fill(root, "anna", lambda _: "positive"))
    place = Workspace(str(root))
    task, corpus = mined / "task.yaml", mined / "ads.jsonl"

    def evaluation() -> list[str]:
        return [path for path in opened if "evaluation-" in path]

    del opened[:]
    load(root, fill(root, "bo", alternate))
    assert read_half(place, "fine_tuning", 1)
    shown_ads(place)
    helpers.run(task, corpus, root)
    assert place.current_round() == 2 and place.latest(2, "pairs")
    load(root, fill(root, "cy", alternate))
    assert any("fine_tuning-" in path for path in opened), "the watch must see what is opened"
    assert evaluation() == []
    assert read_half(place, "evaluation", 1)
    assert len(evaluation()) == 3


def test_what_cannot_be_used_is_named_where_it_lies(root: Path) -> None:
    path = fill(root, "anna", lambda number: "perhaps" if number == 3 else "negative")
    said: list[str] = []
    summary = ingest(IngestOptions(str(root), (str(path),)), said.append).to_json()
    assert (summary["verdicts"], summary["rejected_by_reason"]) == (23, {"unknown_label": 1})
    [letters] = summary["dead_letters"]
    example = summary["rejected_examples"]["unknown_label"]
    assert example.startswith("anna.csv, line 5: the label 'perhaps' is none of ")
    assert f"1 rows could not be used: unknown_label 1 (first {example}); see {letters}" in said
    [letter] = [json.loads(line) for line in Path(letters).read_text().splitlines()]
    assert (letter["reason"], letter["position"]) == ("unknown_label", "line 5")
    assert letter["source"] == str(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"anna\.csv: the file is empty"),
        (b"ad_id,label,expert\r\n", r"no usable verdict: the files hold no rows: anna\.csv"),
        (b"ad_id,label,expert\nzz,bait,x\n", "no usable verdict: unknown_ad 1 .*no ad 'zz' was"),
        (b"\x1f\x8b\x08\x00", "not a whole gzip file"),
        ("ad_id,label,expert\nö,x,y\n".encode() + b"\xff,x,y\n", r"byte 26 \(0xff\) is not UTF-8"),
    ],
)
def test_a_useless_file_leaves_the_workspace_whole(root: Path, data: bytes, message: str) -> None:
    path = root.parent / "anna.csv"
    path.write_bytes(data)
    before = tree(root)
    with pytest.raises(RunFailed, match=message):
        load(root, path)
    assert tree(root) == before


def test_one_bad_file_stops_the_import_before_anything_is_written(root: Path) -> None:
    bad = root.parent / "bad.jsonl"
    bad.write_bytes(b"\xff\xfe\x00")
    before = tree(root)
    with pytest.raises(RunFailed, match=r"bad\.jsonl: byte .* is not UTF-16"):
        load(root, fill(root, "anna", alternate), bad)
    assert tree(root) == before


def test_wrong_arguments_are_usage_errors(root: Path, tmp_path: Path) -> None:
    path = fill(root, "anna", alternate)
    for changes, message in (
        ({"files": ()}, "name at least one verdict FILE, or"),
        ({"files": (str(tmp_path / "none.csv"),)}, r"none\.csv: no such file"),
        ({"files": (str(tmp_path),), "tool": "csv"}, "is a folder"),
        ({"files": (str(path),), "tool": "paper"}, "--tool paper: unknown"),
        ({"files": (str(path),), "expert": "\u200b"}, "nothing is left of the name"),
        ({"files": (str(path),), "experts": {"3": " "}}, "neither may be blank"),
        ({"files": (str(path),), "workspace": str(tmp_path / "no")}, "holds no pairs"),
    ):
        with pytest.raises(UsageError, match=message):
            load(root, **changes)


def test_a_huge_file_is_not_read(root: Path) -> None:
    path = root.parent / "huge.csv"
    with open(path, "wb") as sink:
        sink.truncate((256 << 20) + 1)
    with pytest.raises(UsageError, match=r"huge\.csv: 268,435,457 bytes, at most 268,435,456"):
        load(root, path)


def test_a_kill_in_the_pipeline_and_another_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fill(root, "anna", alternate)
    real = storage.write

    def write(target: str, data: bytes) -> None:
        if target.endswith("manifest.json"):
            raise OSError(28, "No space left on device")
        real(target, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", write)
        with pytest.raises(Exception, match="No space left"):
            load(root, path)
    assert Workspace(str(root)).verdicts.by_round() == {}
    assert load(root, path).verdicts == 24


def test_each_file_is_read_once_and_no_pipeline_is_built(
    root: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [fill(root, name, alternate) for name in ("anna", "bo")]
    monkeypatch.setattr("apache_beam.Pipeline.__init__", None)
    del opened[:]
    assert load(root, *files).verdicts == 48
    assert [opened.count(str(path)) for path in files] == [1, 1]
    del opened[:]
    load(root, *files)
    assert [opened.count(str(path)) for path in files] == [1, 1]


@pytest.mark.parametrize("stop", [1, 2])
def test_an_import_killed_at_a_manifest_goes_on_with_the_rounds_that_lack_it(
    root: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One verdict closes the first round; the second shows other ads.
    load(root, fill(root, "cy", lambda number: "positive" if number < 2 else ""))
    helpers.run(root.parent / "task.yaml", root.parent / "ads.jsonl", root)
    shown = shown_ads(Workspace(str(root)))
    assert set(shown.round_of.values()) == {1, 2}
    lines = [{"ad_id": id, "label": "positive", "expert": "anna"} for id in sorted(shown.by_ad)]
    path = helpers.write_jsonl(root.parent / "anna.jsonl", lines)
    real, manifests = storage.write, 0

    def write(target: str, data: bytes) -> None:
        nonlocal manifests
        manifests += target.endswith("manifest.json")
        if manifests == stop:
            raise KeyboardInterrupt
        real(target, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", write)
        with pytest.raises(KeyboardInterrupt):
            load(root, path)
    summary = load(root, path).to_json()
    assert summary["rounds"] == [1, 2][stop - 1 :]
    entries = [e for m in Workspace(str(root)).verdicts.by_round().values() for e in entries_of(m)]
    [one, other] = [entry for entry in entries if entry.name == "anna.jsonl"]
    assert one.verdicts + other.verdicts == len(shown.by_ad)


def rows_of(root: Path, expert: str) -> list[RawVerdict]:
    shown = sorted(shown_ads(Workspace(str(root))).ads(), key=lambda ad: ad.ad_id)
    return [
        RawVerdict(
            ad.ad_id, ad.item_id, "", "", alternate(i), expert, "", "", "memory", f"row {i + 1}"
        )
        for i, ad in enumerate(shown)
    ]


def test_rows_in_memory_give_what_files_give(root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    place = Workspace(str(root))
    summary = ingest_verdicts(place, rows_of(root, "anna"), "round 1").to_json()
    lines = [
        {"ad_id": row.ad_id, "item_id": row.item_id, "label": row.label, "expert": row.expert}
        for row in rows_of(other, "anna")
    ]
    from_file = load(other, helpers.write_jsonl(tmp_path / "v.jsonl", lines)).to_json()
    counts = ("verdicts", "labels", "skips", "fine_tuning_ads", "evaluation_ads", "withheld_ads")
    assert [summary[c] for c in counts] == [from_file[c] for c in counts]
    for half in HALVES:
        found = [
            [(v.key, v.expert, v.label) for v in latest(read_half(w, half, 1))]
            for w in (place, Workspace(str(other)))
        ]
        assert found[0] == found[1]
    before = tree(root)
    again = ingest_verdicts(place, rows_of(root, "anna"), "round 1").to_json()
    assert (again["verdicts"], again["imported_before"]) == (0, ["round 1"])
    assert tree(root) == before


def test_a_sheet_of_an_older_policy_does_not_count_for_the_new_one(mined: Path, root: Path) -> None:
    # The round is still open, so its pairs are mined again for the new version: the same ads.
    old = fill(root, "anna", alternate)
    task = root.parent / "task.yaml"
    task.write_text(task.read_text().replace("version: 1", "version: 2"))
    helpers.run(task, root.parent / "ads.jsonl", root)
    ads = [
        {ad.key for item in Workspace(str(root)).read_items(m) for ad in item.ads}
        for m in Workspace(str(root)).pairs.all(1)
    ]
    assert ads[0] == ads[1]
    with pytest.raises(RunFailed, match="other_version 24"):
        load(root, old)
    [new] = sorted(root.glob("rounds/0001/review/*/review.csv"))[1:]
    again = root.parent / "new.csv"
    again.write_bytes(new.read_bytes().replace(b",,,\r\n", b",positive,anna,\r\n"))
    summary = load(root, again).to_json()
    assert (summary["verdicts"], summary["task_version"]) == (24, 2)


@pytest.mark.parametrize("later", [("lure", "plain"), ("ok", "bait")], ids=["others", "exchanged"])
def test_an_old_sheet_is_read_with_the_label_names_of_its_version(
    later: tuple[str, str], tmp_path: Path
) -> None:
    def write(version: int, positive: str, negative: str) -> Path:
        text = helpers.FAKE_TASK.replace("version: 1", f"version: {version}")
        names = f"labels: {{positive: {positive}, negative: {negative}}}\n"
        return helpers.write_task(tmp_path, text + names)

    corpus, root = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads()), tmp_path / "w"
    helpers.run(write(1, "bait", "ok"), corpus, root)
    sheets = [fill(root, name, lambda n: ("bait", "ok")[n % 2]) for name in ("anna", "bo")]
    load(root, sheets[0])
    assert helpers.run(write(2, *later), corpus, root).round == 2
    assert load(root, sheets[1]).rejected == 0
    for half in HALVES:
        found = [(v.key, v.label) for v in latest(read_half(Workspace(str(root)), half, 1))]
        assert len(found) == 2 * len(set(found)) > 0, "both said the same"
        assert len({key for key, _ in found}) == len(set(found))


def test_a_policy_that_changes_needs_a_new_version(mined: Path, root: Path) -> None:
    task, corpus = root.parent / "task.yaml", root.parent / "ads.jsonl"
    task.write_text(task.read_text().replace("nobody can promise", "no shop can promise"))
    old = fill(root, "anna", alternate)
    # Nobody has labelled yet: the round is mined again, and the old sheet counts no longer.
    helpers.run(task, corpus, root)
    with pytest.raises(RunFailed, match="other_version 24"):
        load(root, old)
    sheet = max(root.glob("rounds/0001/review/*/review.csv"))
    again = root.parent / "again.csv"
    again.write_bytes(sheet.read_bytes().replace(b",,,\r\n", b",positive,anna,\r\n"))
    assert load(root, again).verdicts == 24
    # Now they have: another policy under the same version would take over their verdicts.
    shutil.copy(mined / "task.yaml", task)
    with pytest.raises(UsageError, match=r"differ from those of round 1, .* set version: 2"):
        helpers.run(task, corpus, root)


# --- corrections, and what takes them back ----------------------------------------------------


def last_words(root: Path) -> dict[str, str]:
    """Return "expert ad" -> the label that counts."""
    place = Workspace(str(root))
    said: list[Verdict] = [v for half in HALVES for v in read_half(place, half, 1)]
    return {f"{v.expert} {v.ad_id}": v.label for v in latest(said)}


def saved(path: Path, name: str, **how: Any) -> Path:
    """Save a sheet again, as another program does."""
    rows = list(csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
    sink = io.StringIO()
    csv.writer(sink, **{"lineterminator": "\n", "quoting": csv.QUOTE_ALL, **how}).writerows(rows)
    again = path.with_name(name)
    again.write_text(sink.getvalue(), encoding="utf-8", newline="")
    return again


def versions(root: Path) -> tuple[Path, Path]:
    """Return two sheets of one expert: all positive, then every other ad negative."""
    first = fill(root, "anna", lambda _: "positive").rename(root.parent / "v1.csv")
    second = fill(root, "anna", lambda n: ("positive", "negative")[n % 2])
    return first, second.rename(root.parent / "v2.csv")


def test_an_old_sheet_that_is_saved_again_takes_no_correction_back(root: Path) -> None:
    first, second = versions(root)
    load(root, first)
    corrected = load(root, second, on_conflict="replace")
    assert (corrected.contradictions, corrected.contradictions_by_decision) == (
        12,
        {"replaced": 12},
    )
    wanted = last_words(root)
    assert sorted(wanted.values()) == ["negative"] * 12 + ["positive"] * 12
    before = tree(root)
    for again in (
        first,
        saved(first, "unix.csv"),
        saved(first, "old.csv", lineterminator="\r"),
        saved(first, "tabs.tsv", delimiter="\t", quoting=csv.QUOTE_MINIMAL),
        saved(first, "semicolons.csv", delimiter=";"),
        fill(root, " ANNA", lambda _: "Positive"),
    ):
        said: list[str] = []
        found = ingest(IngestOptions(str(root), (str(again),)), said.append)
        assert (found.imported_before, found.verdicts) == ((str(again),), 0)
        told = "imported before" if again == first else "the answers of v1.csv"
        assert said == [
            f"{again}: {told}; nothing to do (its verdicts do not overrule later ones; --on_conflict "
            "replace makes them count again)"
        ]
        assert tree(root) == before and last_words(root) == wanted


def test_what_cannot_be_used_is_told_of_known_answers_too(root: Path) -> None:
    first = fill(root, "anna", alternate)
    load(root, first)
    more = saved(first, "more.csv")
    more.write_text(more.read_text() + '"","","zz","","positive","anna",""\n')
    said: list[str] = []
    ingest(IngestOptions(str(root), (str(more),)), said.append)
    assert said[0].startswith(
        f"{more}: the answers of anna.csv, and 1 rows that cannot be used: unknown_ad 1 ({more}, line 26: "
    )


def test_contradictions_without_times_are_listed_and_asked_about(root: Path) -> None:
    first, second = versions(root)
    load(root, first)
    before = tree(root)
    with pytest.raises(UsageError) as caught:
        load(root, second)
    message = str(caught.value)
    assert message.startswith(
        "--on_conflict: 12 verdicts of anna contradict what the same experts said"
    )
    assert "nothing was imported" in message and "--on_conflict keep" in message
    [path] = {name for name in tree(root) if name not in before}
    assert path.startswith("contradictions/") and path in message
    assert {name: data for name, data in tree(root).items() if name != path} == before
    rows = list(csv.DictReader(io.StringIO((root / path).read_text("utf-8-sig"), newline="")))
    assert len(rows) == 12
    assert {(r["earlier_label"], r["later_label"], r["counts"]) for r in rows} == {
        ("positive", "negative", "undecided")
    }
    assert rows[0]["earlier_file"] == str(first) and rows[0]["later_file"] == str(second)
    assert {r["earlier_position"] for r in rows} == {r["later_position"] for r in rows}
    # Both files at once say no more about which came later than one after the other.
    with pytest.raises(UsageError, match="12 verdicts of anna contradict"):
        load(Path(shutil.copytree(root, root.parent / "fresh")), second, first)


@pytest.mark.parametrize("choice", ["keep", "replace"])
def test_a_flag_decides_and_what_else_a_file_says_is_kept(root: Path, choice: str) -> None:
    first = fill(root, "anna", lambda n: "positive" if n < 12 else "").rename(
        root.parent / "v1.csv"
    )
    second = fill(root, "anna", lambda n: "negative" if n % 2 else "positive")
    load(root, first)
    found = load(root, second, on_conflict=choice)
    assert found.contradictions == 6
    assert found.contradictions_by_decision == {"kept" if choice == "keep" else "replaced": 6}
    assert found.verdicts == (18 if choice == "keep" else 24)
    words = last_words(root)
    assert len(words) == 24
    assert list(words.values()).count("negative") == (6 if choice == "keep" else 12)
    [path] = found.contradiction_lists
    rows = list(csv.DictReader(io.StringIO(Path(path).read_text("utf-8-sig"), newline="")))
    assert {(r["counts"], r["decided_by"]) for r in rows} == {
        ("earlier" if choice == "keep" else "later", "on_conflict")
    }
    # Once it is decided the same file is an import like any other.
    before = tree(root)
    assert load(root, second).imported_before == (str(second),)
    assert tree(root) == before


def test_nothing_but_contradictions_can_be_kept_out(root: Path) -> None:
    first, second = versions(root)
    load(root, first)
    table = csv.DictReader(io.StringIO(second.read_text("utf-8-sig"), newline=""))
    # By the ads' ids: halves of pairs would be refused for that.
    rows = [
        {"ad_id": row["ad_id"], "label": "negative", "expert": "anna"}
        for row in table
        if row["label"] == "negative"
    ]
    only = helpers.write_jsonl(root.parent / "only.jsonl", rows)
    words = last_words(root)
    found = load(root, only, on_conflict="keep")
    assert (found.verdicts, found.contradictions_by_decision) == (0, {"kept": 12})
    assert last_words(root) == words and load(root, only).imported_before == (str(only),)


def test_times_decide_whatever_the_order_of_imports(root: Path) -> None:
    def timed(name: str, label: str, time: object) -> Path:
        ads = sorted(shown_ads(Workspace(str(root))).by_ad)
        rows = [{"ad_id": ad, "label": label, "expert": "anna", "time": time} for ad in ads]
        return helpers.write_jsonl(root.parent / name, rows)

    load(root, timed("new.jsonl", "negative", "2026-11-02T09:00:00+01:00"))
    for name, time in (("a", "2026-11-02 07:59"), ("b", 1793577599), ("c", 46328.3333217593)):
        older = load(root, timed(f"{name}.jsonl", "positive", time))
        assert older.contradictions_by_decision == {"earlier by time": 24}
        assert set(last_words(root).values()) == {"negative"}
    newer = load(root, timed("newer.jsonl", "skip", "2026-11-02T09:00:01+01:00"))
    assert newer.contradictions_by_decision == {"later by time": 24}
    assert set(last_words(root).values()) == {"skip"}
    with pytest.raises(
        UsageError, match=r"24 verdicts of anna contradict .* and 24 only repeat what was"
    ):
        load(root, timed("none.jsonl", "negative", None))


def test_a_file_counts_again_only_by_the_flag(root: Path) -> None:
    first, second = versions(root)
    load(root, first)
    load(root, second, on_conflict="replace")
    again = load(root, first, on_conflict="replace")
    assert again.contradictions_by_decision == {"replaced": 12} and again.verdicts == 24
    assert set(last_words(root).values()) == {"positive"}
    before = tree(root)
    assert load(root, first, on_conflict="replace").imported_before == (str(first),)
    assert load(root, first, on_conflict="keep").imported_before == (str(first),)
    assert tree(root) == before
    load(root, saved(second, "again.csv"), on_conflict="replace")
    assert sorted(last_words(root).values()) == ["negative"] * 12 + ["positive"] * 12


def test_contradictions_are_found_without_the_evaluation_half(
    root: Path, opened: list[str]
) -> None:
    first, second = versions(root)
    load(root, first)
    del opened[:]
    found = load(root, second, on_conflict="replace")
    assert found.contradictions == 12
    # The fine-tuning half is opened for its ties.
    assert not [path for path in opened if "evaluation-" in path]


def test_an_import_of_an_earlier_version_is_said_not_to_be_compared(root: Path) -> None:
    first, second = versions(root)
    load(root, first)
    place = Workspace(str(root))
    [manifest] = place.verdicts.by_round().values()
    kept = tuple(file for file in manifest.files if "/said-" not in file.path)
    assert len(kept) < len(manifest.files)
    place.commit(dataclasses.replace(manifest, files=kept))
    said: list[str] = []
    ingest(IngestOptions(str(root), (str(second),)), said.append)
    assert any("imported by an earlier version of scout" in line for line in said)


def test_experts_who_may_be_one_person_are_told(root: Path) -> None:
    said: list[str] = []
    rows = [
        {"ad_id": ad, "label": "positive", "expert": expert}
        for ad in sorted(shown_ads(Workspace(str(root))).by_ad)
        for expert in (12345678901234567, "12345678901234568", "3", "t-1-2026-11-22_10-00-00")
    ]
    path = helpers.write_jsonl(root.parent / "v.jsonl", rows)
    found = ingest(IngestOptions(str(root), (str(path),)), said.append)
    assert len(found.experts) == 4
    [line] = [line for line in said if "one rounding apart" in line]
    assert line.startswith("experts 12345678901234568 and 12345678901234567: one rounding apart")
    [line] = [line for line in said if "named after the time" in line]
    assert line.startswith("experts t-1-2026-11-22_10-00-00: ") and "--experts" in line


def test_a_kill_between_rounds_asks_nothing_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(root, fill(root, "cy", lambda number: "positive" if number < 2 else ""))
    helpers.run(root.parent / "task.yaml", root.parent / "ads.jsonl", root)
    shown = shown_ads(Workspace(str(root)))
    assert set(shown.round_of.values()) == {1, 2}

    def rows(name: str, *labels: str) -> Path:
        ads = sorted(shown.by_ad)
        lines = [{"ad_id": id, "label": word, "expert": "anna"} for word in labels for id in ads]
        return helpers.write_jsonl(root.parent / name, lines)

    load(root, rows("old.jsonl", "negative"))
    # The file itself changes its mind: what is stored of it already contradicts it no more.
    path = rows("new.jsonl", "negative", "positive")
    real, manifests = storage.write, 0

    def write(target: str, data: bytes) -> None:
        nonlocal manifests
        manifests += target.endswith("manifest.json")
        if manifests == 2:
            raise KeyboardInterrupt
        real(target, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", write)
        with pytest.raises(KeyboardInterrupt):
            load(root, path, on_conflict="replace")
    assert load(root, path, on_conflict="replace").rounds == (2,)
    words = {name: label for name, label in last_words(root).items() if name.startswith("anna")}
    assert set(words.values()) == {"positive"}
