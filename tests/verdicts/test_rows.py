"""Verdict files as people and spreadsheets make them, and what is made of their rows."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import Rejected, ReviewItem, Verdict
from pipelines.errors import RunFailed, UsageError
from pipelines.store import files, storage
from pipelines.store.facts import VerdictsFacts
from pipelines.store.workspace import Manifest, Workspace
from pipelines.text import content_key
from pipelines.verdicts import rows as module
from pipelines.verdicts.rows import (
    LabelNames,
    RawVerdict,
    latest,
    normalize_expert,
    parse_time,
    ratings,
    read_csv,
    read_half,
    read_jsonl,
    shown_ads,
    task_definition,
    unprotected,
)
from pipelines.verdicts.spreadsheet import safe_cell
from tests import helpers

DEFINITION = {
    "seed": 3,
    "labels": {"positive": "bait", "negative": "fine"},
    "review": {"evaluation_share": 0.5},
}
HEADER = "pair_id,side,ad_id,text,label,expert,comment"


def pair_of(
    id: str, left: tuple[str, str], right: tuple[str, str], positive: str = "left"
) -> ReviewItem:
    """Return a pair whose sides are (ad id, text)."""
    labels = ("positive", "negative") if positive == "left" else ("negative", "positive")
    ads = (
        helpers.review_ad_of(ad[0], text=ad[1], label=label)
        for ad, label in zip((left, right), labels, strict=True)
    )
    return ReviewItem(id, 1, "boundary", tuple(ads))


def mined(
    root: Path, pairs: Sequence[ReviewItem], number: int = 1, version: int = 1, **definition: Any
) -> Workspace:
    """Add a mined round to a workspace, as WriteReview leaves it."""
    changes = {"version": version, **DEFINITION, **definition}
    return helpers.commit_items(root, pairs, number, **changes)


def rows(data: bytes | str, reader: Any = read_csv) -> list[RawVerdict]:
    found = list(reader(data.encode() if isinstance(data, str) else data, "f"))
    assert not [row for row in found if isinstance(row, Rejected)], found
    return found


def refused(data: bytes | str, reader: Any = read_csv) -> list[tuple[str, str, str]]:
    found = list(reader(data.encode() if isinstance(data, str) else data, "f"))
    return [(r.position, r.reason, r.detail) for r in found if isinstance(r, Rejected)]


def verdict(key: str, expert: str, label: str, time: str = "") -> Verdict:
    return Verdict(key, f"id-{key}", "p", label, expert, time, "", "f", "line 2")


# --- CSV --------------------------------------------------------------------------------------


def test_the_review_sheet_comes_back() -> None:
    sheet = (
        "\ufeff" + HEADER + '\r\np1,left,a1,"Two\r\nlines, one ad",bait,Anna,why not\r\n'
        "p1,right,a2,'=1+1,fine,Anna,\r\n"
    )
    first, second = rows(sheet)
    assert first == RawVerdict(
        "a1", "p1", "left", "Two\r\nlines, one ad", "bait", "Anna", "", "why not", "f", "line 2"
    )
    assert (second.ad_id, second.text, second.position) == ("a2", "'=1+1", "line 4")


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.encode("utf-32"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode(),
        lambda text: text.replace("\r\n", "\n").encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode("utf-16"),
        lambda text: ("sep=;\r\n" + text.replace(",", ";")).encode(),
        lambda text: text.replace("\r\n", "\r").replace(",", ";").encode(),
        lambda text: ("\r\n" + text.replace(",", "\t")).encode(),
        lambda text: text.replace("ad_id", " Ad ID ").replace("expert", "ANNOTATOR").encode(),
        lambda text: text.replace("\r\n", ",,\r\n").encode(),
        lambda text: (text + "\r\n,,,\r\n").encode(),
    ],
    ids=[
        "utf-16",
        "utf-16-be",
        "utf-32",
        "bom",
        "plain",
        "unix",
        "semicolons",
        "tabs in utf-16",
        "sep line",
        "old line ends",
        "blank first",
        "names",
        "more columns",
        "blank rows",
    ],
)
def test_spreadsheets_save_it_in_many_ways(encode: Any) -> None:
    text = "ad_id,label,expert\r\nа-1,bait,Zoë\r\na2,,Zoë\r\na3,,\r\n"
    found = [(row.ad_id, row.label, row.expert) for row in rows(encode(text))]
    assert found == [("а-1", "bait", "Zoë"), ("a2", "skip", "Zoë"), ("a3", "", "")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "ad_id,label,expert\na,caf\u00e9,b\n".encode("cp1252"),
            r"byte 24 \(0xe9\) is not UTF-8; s",
        ),
        ("ad_id,label\n".encode("utf-16-le"), "NUL: a binary file, or UTF-16 without its byte"),
        (b"\xff\xfea", "is not UTF-16"),
        (b"\x1f\x8b\x08rest", "gzip-compressed, not text; unpack"),
        (b"PK\x03\x04rest", "workbook or a zip archive, not text; save the sheet as 'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an Excel workbook"),
        (bytes(range(256)), "NUL|not UTF-8"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf \r\n\r\n", "is empty"),
        (b"ad_id,label,label,expert\na,x,y,z\n", "columns 'label' and 'label' both mean label"),
        (
            b"ad_id,label,Rater,expert\n",
            "columns 'Rater' and 'expert' both mean expert; remove one",
        ),
        (
            b"name,address\nx,y\n",
            "must name the columns: ad_id or pair_id, label and expert; found",
        ),
        (b"a1,bait,anna\na2,fine,anna\n", "must name the columns"),
        (b"ad_id,expert\na,b\n", "must name the columns"),
        (b'ad_id,"label\n', "the header is no CSV|must name the columns"),
    ],
)
def test_files_that_are_no_verdict_files_are_named(data: bytes, message: str) -> None:
    with pytest.raises(RunFailed, match=f"f: .*({message})"):
        list(read_csv(data, "f"))


def test_a_file_that_is_far_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    with pytest.raises(RunFailed, match="11 bytes, at most 10; import it in parts"):
        list(read_csv(b"ad_id,label", "f"))


def test_a_header_alone_holds_no_rows() -> None:
    assert rows("ad_id,label,expert\r\n") == []


def test_a_broken_row_costs_itself_only() -> None:
    text = 'ad_id,label,expert\na1,bait,x\na2,"never closed,x\na3,fine,x\na4,b,c,d\na5,fine,x\n'
    found = list(read_csv(text.encode(), "f"))
    kept = [row.ad_id for row in found if isinstance(row, RawVerdict)]
    assert kept == ["a1", "a3", "a5"]
    assert [item[:2] for item in refused(text)] == [
        ("line 3", "not_readable_row"),
        ("line 5", "not_readable_row"),
    ]
    assert "4 cells in the row, 3 in the header" in refused(text)[1][2]


def test_a_megabyte_in_a_cell_is_read_and_its_comment_cut() -> None:
    text = f"ad_id,label,expert,comment\na1,bait,x,{'é' * (1 << 20)}\na2,fine,x,ok\n"
    first, second = rows(text)
    assert second.ad_id == "a2"
    cut = module.cut_comment(first.comment)
    assert len(cut) < 10_100 and cut.endswith("[cut: 1,048,576 characters]")


def test_whole_pairs_in_a_row() -> None:
    left, right = rows("pair_id,label_a,label_b,annotator\np1,bait,fine,anna\n")
    assert (left.side, left.label, right.side, right.label) == ("left", "bait", "right", "fine")
    assert left.expert == right.expert == "anna"
    [one, other] = rows("pair_id,label_left,label_right,expert\np1,bait,,anna\n")
    assert (one.label, other.label) == ("bait", "")
    skipped = rows("pair_id,label_a,label_b,expert\np1,,,anna\np2,,,\n")
    assert [row.label for row in skipped] == ["skip", "skip", "", ""]
    named = rows("id_a,label_a,id_b,label_b,expert\nx,bait,y,fine,anna\n")
    assert [(row.ad_id, row.side) for row in named] == [("x", ""), ("y", "")]
    [clash] = refused("pair_id,label_a,label_left,label_b,expert\np1,bait,fine,fine,a\n")
    assert clash[1:] == ("not_readable_row", "two columns give different values for the left label")


def test_ids_of_other_tools_do_not_pass_for_ads() -> None:
    # A labeling tool numbers its own tasks in a column "id".
    [row] = rows("id,pair_id,side,label,expert\n17,p1,b,bait,anna\n")
    assert (row.ad_id, row.pair_id, row.side) == ("", "p1", "right")
    [row] = rows("id,label,expert,created_at,updated_at\na1,bait,anna,2026-01-01,2026-02-01\n")
    assert (row.ad_id, row.time) == ("a1", "2026-02-01")


@pytest.mark.parametrize(
    ("cell", "label"), [("yes", "skip"), ("TRUE", "skip"), ("0", "bait"), ("", "bait")]
)
def test_skipped_is_a_column_of_its_own(cell: str, label: str) -> None:
    [row] = rows(f"ad_id,label,expert,skipped\na1,bait,anna,{cell}\n")
    assert row.label == label


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("ad_id,label,expert,skipped\na,b,c,perhaps\n", "skipped must be yes or no"),
        ("pair_id,side,label,expert\np,middle,b,c\n", "side must be left or right"),
    ],
)
def test_cells_that_mean_nothing_are_named(text: str, detail: str) -> None:
    [(position, reason, found)] = refused(text)
    assert (position, reason) == ("line 2", "not_readable_row")
    assert detail in found


@given(st.text(max_size=30))
def test_what_the_sheet_protects_is_unprotected(text: str) -> None:
    if text != unprotected(text):
        return  # an ad that begins like a protected cell: both readings are tried
    assert unprotected(safe_cell(text)) == text


@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_a_clear_error(data: bytes) -> None:
    for reader in (read_csv, read_jsonl):
        for start in (b"", b"ad_id,label,expert\n", b'{"ad_id":"a","label":'):
            assert read_or_say(reader, start + data)


def read_or_say(reader: Any, data: bytes) -> bool:
    try:
        return all(isinstance(row, RawVerdict | Rejected) for row in reader(data, "f"))
    except RunFailed as error:
        return error.message.startswith("f: ")


# --- JSON lines -------------------------------------------------------------------------------


def test_json_lines_say_the_same() -> None:
    text = (
        '{"Ad_Id": 17, "label": "bait", "rater": "anna", "timestamp": 1763800000, "extra": [1]}\r\n'
        "\n"
        '{"pair_id": "p1", "label_a": "bait", "label_b": null, "expert": "anna"}\n'
        '{"ad_id": "a\u2028b", "label": null, "expert": "anna", "comment": null}\n'
        '{"ad_id": "a3", "label": "bait", "expert": "anna", "skipped": true}\n'
    )
    found = rows(text, read_jsonl)
    assert [(r.ad_id, r.pair_id, r.label, r.position) for r in found] == [
        ("17", "", "bait", "line 1"),
        ("", "p1", "bait", "line 3"),
        ("", "p1", "", "line 3"),
        ("a\u2028b", "", "skip", "line 4"),
        ("a3", "", "skip", "line 5"),
    ]
    assert found[0].time == "1763800000"


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("{", "Expecting"),
        ("17", "expected a JSON object, found int"),
        ('{"ad_id": "a", "label": ["bait"], "expert": "x"}', "'label' must be text, found list"),
        ('{"ad_id": true, "label": "bait"}', "'ad_id' must be text, found bool"),
        ('{"ad_id": "a", "ad_id": "b"}', "a field is given twice"),
        ('{"expert": "a", "rater": "b"}', "both mean expert"),
        ('{"a":' * 100_000, "Expecting|recursion"),
        ('{"ad_id": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_lines_that_are_no_verdicts_are_dead_letters(line: str, detail: str) -> None:
    good = '{"ad_id": "a", "label": "bait", "expert": "x"}'
    text = f"{good}\n{line}\n{good}\n"
    [letter] = [row for row in read_jsonl(text.encode(), "f") if isinstance(row, Rejected)]
    assert (letter.position, letter.reason) == ("line 2", "not_readable_row")
    assert any(part in letter.detail for part in detail.split("|")), letter.detail
    assert len([r for r in read_jsonl(text.encode(), "f") if isinstance(r, RawVerdict)]) == 2


def test_a_json_list_is_refused_as_a_whole() -> None:
    with pytest.raises(RunFailed, match="a JSON list; write one JSON object a line"):
        list(read_jsonl(b'[{"ad_id": "a"}]', "f"))


# --- names, labels, experts, times ------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "meaning"),
    [
        ("bait", "positive"),
        (" BAIT ", "positive"),
        ("Fine", "negative"),
        ("ｆｉｎｅ", "negative"),
        ("positive", "positive"),
        ("Negative", "negative"),
        ("?", "skip"),
        ("N/A", "skip"),
        ("Unsure", "skip"),
        ("yes", None),
        ("1", None),
        ("=bait", None),
        ("bait" * 26, None),
    ],
)
def test_labels_are_the_task_s_names(cell: str, meaning: str | None) -> None:
    assert LabelNames("bait", "fine").read(cell) == meaning


def test_swapping_the_label_names_swaps_the_labels() -> None:
    assert LabelNames("fine", "bait").read("bait") == "negative"
    # The task's own names go before the general ones.
    assert LabelNames("negative", "unsure").read("negative") == "positive"
    assert LabelNames("negative", "unsure").read("unsure") == "negative"
    assert LabelNames("-1", "+1").read("'-1") == "positive"
    with pytest.raises(RunFailed, match="differ only in case"):
        LabelNames("Bad", "bad ")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("  Anna\u00a0 Maria ", "anna maria"),
        ("ANNA\u200b MARIA", "anna maria"),
        ("anna\tmaria", "anna maria"),
        ("Ａnna", "anna"),
        ("an\x00na\u202e", "anna"),
        ("\u200b \ufeff", ""),
        ("'=cmd()", "=cmd()"),
        ("=cmd()", "=cmd()"),
        ("\ud800", ""),
    ],
)
def test_one_person_is_one_name(name: str, wanted: str) -> None:
    assert normalize_expert(name) == wanted


@given(st.text(max_size=30))
def test_names_are_folded_once_for_all(name: str) -> None:
    once = normalize_expert(name)
    if unprotected(once) == once:
        assert normalize_expert(once) == once
    once.encode()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("2026-11-22T14:05:09Z", "2026-11-22T14:05:09Z"),
        ("2026-11-22T14:05:09.75+02:00", "2026-11-22T12:05:09Z"),
        ("2026-11-22 14:05", "2026-11-22T14:05:00Z"),
        ("2026-11-22", "2026-11-22T00:00:00Z"),
        ("20261122", "2026-11-22T00:00:00Z"),
        ("1763800000", "2025-11-22T08:26:40Z"),
        ("1763800000.25", "2025-11-22T08:26:40Z"),
        ("1763800000123", "2025-11-22T08:26:40Z"),
    ],
)
def test_times_become_utc(text: str, wanted: str) -> None:
    assert parse_time(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["yesterday", "22/11/2026", "17", "nan", "inf", "-1763800000", "1999-12-31", "9999-01-01"],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time between 2000 and 2100; write 2026"):
        parse_time(text)


# --- last verdicts and ratings ----------------------------------------------------------------


def test_the_last_verdict_wins_by_time_where_both_have_one() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    both = [verdict("k", "a", "positive", late), verdict("k", "a", "negative", early)]
    assert [v.label for v in latest(both)] == ["positive"]
    # One time alone says nothing: the later import wins.
    half = [verdict("k", "a", "positive", late), verdict("k", "a", "negative")]
    assert [v.label for v in latest(half)] == ["negative"]
    # What comes in after that is still measured by the latest time so far.
    third = [*half, verdict("k", "a", "positive", early)]
    assert [v.label for v in latest(third)] == ["negative"]
    tie = [verdict("k", "a", "positive", late), verdict("k", "a", "negative", late)]
    assert [v.label for v in latest(tie)] == ["negative"]


def test_ratings_hold_every_expert_s_last_word() -> None:
    said = [
        verdict("k2", "bo", "negative"),
        verdict("k1", "anna", "positive"),
        verdict("k1", "bo", "negative"),
        verdict("k1", "bo", "skip"),
        verdict("k3", "bo", "skip"),
    ]
    table = ratings(said)
    assert table.keys == ("k1", "k2", "k3") and table.experts == ("anna", "bo")
    assert table.values.dtype == np.int8
    assert table.values.tolist() == [[1, -1], [-1, 0], [-1, -1]]
    # The same verdicts once more change nothing.
    assert ratings(said + said).values.tolist() == table.values.tolist()


def test_no_verdicts_are_an_empty_table() -> None:
    assert ratings([]).values.shape == (0, 0)


# --- the workspace ----------------------------------------------------------------------------


def test_what_was_shown_is_every_attempt_of_every_round(tmp_path: Path) -> None:
    one = pair_of("p1", ("a1", "one"), ("a2", "two"), positive="right")
    two = pair_of("p2", ("a1", "one"), ("a3", "three"))
    mined(tmp_path, [one], version=1)
    mined(tmp_path, [two], version=2)
    place = mined(tmp_path, [pair_of("p3", ("a4", "four"), ("a5", "five"))], number=2)
    shown = shown_ads(place)
    assert [(ad.pair_id, ad.side, ad.current) for ad in shown.by_ad["a1"]] == [
        ("p1", "left", False),
        ("p2", "left", True),
    ]
    assert {ad.ad_id: ad.side for ad in shown.by_pair["p1"]} == {"a1": "left", "a2": "right"}
    assert shown.round_of[content_key("four")] == 2
    assert set(shown.texts().values()) == {"one", "two", "three", "four", "five"}


def test_the_definition_is_the_newest_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pairs"):
        task_definition(Workspace(str(tmp_path)))
    mined(tmp_path, [])
    place = mined(tmp_path, [], number=2, seed=9)
    found = task_definition(place)
    assert (found.task, found.seed, found.evaluation_share) == ("tiny", 9, 0.5)
    assert found.labels == LabelNames("bait", "fine")


def test_reading_a_half_checks_its_files(tmp_path: Path) -> None:
    place = mined(tmp_path, [], version=2)
    attempt = place.new_attempt(1, "verdicts")
    said = [verdict("k", "anna", "positive"), verdict("k", "bo", "skip")]
    data = module.to_lines(said)
    file = files.write(place.root, f"{attempt}/evaluation-00.jsonl", data, 2)
    path = file.path
    place.commit(Manifest.of(attempt, "h", [file], 2, VerdictsFacts("tiny", 2, 0.5, 3)))
    assert read_half(place, "evaluation", 2) == said
    assert read_half(place, "fine_tuning", 2) == []
    assert read_half(place, "evaluation", 1) == []
    with pytest.raises(ValueError, match="half must be one of"):
        read_half(place, "withheld", 2)
    storage.write(place.path(path), data[:-5])
    with pytest.raises(RunFailed, match=r"evaluation-00\.jsonl: has changed since"):
        read_half(place, "evaluation", 2)
    Path(place.path(path)).unlink()
    with pytest.raises(RunFailed, match=r"evaluation-00\.jsonl: is gone; restore it"):
        read_half(place, "evaluation", 2)
