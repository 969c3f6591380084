"""Tables of verdicts as people and spreadsheets make them: CSV and JSON lines to rows."""

from __future__ import annotations

import codecs
import csv
import datetime
import gzip
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import Rejected
from pipelines.errors import RunFailed
from pipelines.verdicts import rows as module
from pipelines.verdicts.rows import RawVerdict
from pipelines.verdicts.tables import read_csv, read_jsonl
from tests import helpers

HEADER = "item_id,side,ad_id,text,label,expert,comment"


def rows(data: bytes | str, reader: Any = read_csv) -> list[RawVerdict]:
    found = list(reader(data.encode() if isinstance(data, str) else data, "f"))
    assert not [row for row in found if isinstance(row, Rejected)], found
    return found


def refused(data: bytes | str, reader: Any = read_csv) -> list[tuple[str, str, str]]:
    found = list(reader(data.encode() if isinstance(data, str) else data, "f"))
    return [(r.position, r.reason, r.detail) for r in found if isinstance(r, Rejected)]


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
        lambda text: text.encode("utf-16-le"),
        lambda text: text.replace(",", "|").encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: ("Review of spring\r\n\r\n" + text).encode(),
        lambda text: helpers.xlsx([row.split(",") for row in text.splitlines()]),
        lambda text: helpers.xlsx([[], ["a title"], *(r.split(",") for r in text.splitlines())]),
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
        "utf-16 without its mark",
        "bars",
        "gzip",
        "a title first",
        "a workbook",
        "a workbook with a title",
    ],
)
def test_spreadsheets_save_it_in_many_ways(encode: Any) -> None:
    text = "ad_id,label,expert\r\nа-1,bait,Zoë\r\na2,,Zoë\r\na3,,\r\n"
    found = [(row.ad_id, row.label, row.expert) for row in rows(encode(text))]
    assert found == [("а-1", "bait", "Zoë"), ("a2", "skip", "Zoë"), ("a3", "", "")]


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman", "cp850"])
def test_a_sheet_saved_in_an_8_bit_encoding_comes_back(encoding: str) -> None:
    ads = ["Günstige Schuhe für Kinder", "Тапки \U0001f45f", "größer; schöner", "Łódź od £9"]
    lines = [f'p{n};left;a{n};"{ad}";bait;Zoë;möglich' for n, ad in enumerate(ads)]
    text = "\r\n".join([HEADER.replace(",", ";"), *lines, ""])
    found = rows(text.encode(encoding, "replace"))
    assert [(r.item_id, r.side, r.ad_id, r.label) for r in found] == [
        (f"p{n}", "left", f"a{n}", "bait") for n in range(len(ads))
    ]
    # What the encoding lacks is lost, and what programs put in its place says nothing.
    assert {row.text for row in found} == {""}
    if encoding == "cp1252":
        assert {(row.expert, row.comment) for row in found} == {("Zoë", "möglich")}


def test_only_what_may_be_spoilt_is_left_out() -> None:
    table = "ad_id;text;label;expert\r\na?1;Füße;gut;Zoë\r\n".encode("cp1252")
    [row] = rows(table)
    assert (row.ad_id, row.text) == ("a?1", "Füße")
    table = "item_id;text;label;expert\r\np;Füße;gut;Zoë\r\np;??? Füße;gut;Zoë\r\n".encode("cp1252")
    assert [row.text for row in rows(table)] == ["Füße", ""]
    table = (
        "item_id;side;ad_id;text;label;expert\r\np;left;a 1?;Füße;gut;Zoë\r\nq;;Füße;x;gut;Zoë\r\n"
    )
    assert [(r.ad_id, r.text) for r in rows(table.encode("cp1252"))] == [("", ""), ("", "x")]
    plain = "item_id;side;ad_id;text;label;expert\r\np;left;a?1;Füße?;gut;Zoë\r\n".encode()
    assert [(row.ad_id, row.text) for row in rows(plain)] == [("a?1", "Füße?")]


def test_cells_of_a_workbook_are_what_people_see() -> None:
    data = helpers.xlsx(
        [
            ["item_id", "side", "ad_id", "label", "expert", "skipped", "time", "comment"],
            ["p1", "left", 123, "bait", 7.0, False, datetime.datetime(2026, 11, 22, 14, 5), 1.5],
            ["p1", "right", "00124", None, 7, True, None, None],
        ]
    )
    first, second = rows(data)
    assert (first.ad_id, first.expert, first.time, first.comment, first.position) == (
        "123",
        "7",
        "2026-11-22T14:05:00",
        "1.5",
        "row 2",
    )
    assert (second.ad_id, second.label, second.expert) == ("00124", "skip", "7")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "ad_id,label,expert\na,g\u00f6\u00f6d,b\na,".encode() + b"caf\xe9,b\n",
            r"byte 35 \(0xe9\) is not UTF-8; s",
        ),
        (b"ad_id,label\na\0,b" + b"x" * 99, "NUL: a binary file"),
        (b"\xff\xfea", "is not UTF-16"),
        (b"\x1f\x8b\x08rest", "not a whole gzip file"),
        (b"PK\x03\x04rest", "the file is damaged, or no workbook; save it as CSV"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1",
            "an old Excel workbook .*, not text; save it as .xlsx or as CSV",
        ),
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
            "must name the columns: ad_id or item_id, label and expert; found",
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
    [one, other] = rows("item_id,label_left,label_right,expert\np1,bait,,anna\n")
    assert (one.label, other.label) == ("bait", "")
    skipped = rows("pair_id,label_a,label_b,expert\np1,,,anna\np2,,,\n")
    assert [row.label for row in skipped] == ["skip", "skip", "", ""]
    named = rows("id_a,label_a,id_b,label_b,expert\nx,bait,y,fine,anna\n")
    assert [(row.ad_id, row.side) for row in named] == [("x", ""), ("y", "")]
    [clash] = refused("pair_id,label_a,label_left,label_b,expert\np1,bait,fine,fine,a\n")
    assert clash[1:] == ("not_readable_row", "two columns give different values for the left label")


def test_ids_of_other_tools_do_not_pass_for_ads() -> None:
    # A labeling tool numbers its own tasks in a column "id".
    for name in ("item_id", "pair_id", "Pair"):
        [row] = rows(f"id,{name},side,label,expert\n17,p1,b,bait,anna\n")
        assert (row.ad_id, row.item_id, row.side) == ("", "p1", "right")
    [row] = rows("id,label,expert,created_at,updated_at\na1,bait,anna,2026-01-01,2026-02-01\n")
    assert (row.ad_id, row.time) == ("a1", "2026-02-01")


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("yes", "skip"),
        ("TRUE", "skip"),
        ("1.0", "skip"),
        ("0", "bait"),
        ("0.0", "bait"),
        ("", "bait"),
        ("nan", "bait"),
        ("<NA>", "bait"),
    ],
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


def test_tabs_are_quoted_as_spreadsheets_and_data_frames_write_them() -> None:
    ads = ['He said "hi"', "tab\there", "two\r\nlines", '"all of it"', "plain"]
    frame = pd.DataFrame({"ad_id": [f"a{n}" for n in range(5)], "text": ads, "label": "bait"})
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC):
        found = rows(frame.to_csv(sep="\t", index=False, quoting=quoting))
        assert [row.text for row in found] == ads and {row.label for row in found} == {"bait"}


def test_a_line_with_tabs_that_is_not_quoted_is_taken_as_it_stands() -> None:
    text = 'ad_id\ttext\tlabel\na1\t"Great" deals\tbait\na2\tfive " six\tfine\na3\t"open\tfine\n'
    found = rows(text)
    assert [(row.ad_id, row.text, row.label) for row in found] == [
        ("a1", '"Great" deals', "bait"),
        ("a2", 'five " six', "fine"),
        ("a3", '"open', "fine"),
    ]
    # With other cells than the header it is none; and with commas a quote is a quote.
    assert refused('ad_id\tlabel\na1\t"b" c\td\n')[0][:2] == ("line 2", "not_readable_row")
    assert refused('ad_id,label\na1,"b" c\n')[0][:2] == ("line 2", "not_readable_row")


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
    assert [(r.ad_id, r.item_id, r.label, r.position) for r in found] == [
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


def test_what_data_frames_write_into_json_is_read() -> None:
    text = (
        '{"ad_id": "a1", "label": "bait", "expert": 1.0, "time": NaN, "text": NaN, "pair_id": null, '
        '"item_id": "p1", "side": NaN, "skipped": 0.0}\n'
        '{"ad_id": "a2", "label": NaN, "expert": NaN, "annotator": "Bo", "skipped": NaN}\n'
        '{"label": "fine", "id_a": NaN, "ad_id": 7.0, "expert": "x", "comment": NaN, "note": "why"}\n'
    )
    one, two, three = rows(text, read_jsonl)
    assert (one.ad_id, one.item_id, one.expert, one.label) == ("a1", "p1", "1.0", "bait")
    assert (one.time, one.text, one.side) == ("", "", "")
    assert (two.label, two.expert) == ("skip", "Bo")
    assert (three.ad_id, three.comment) == ("7.0", "why")


def test_a_json_list_is_refused_as_a_whole() -> None:
    with pytest.raises(RunFailed, match="a JSON list; write one JSON object a line"):
        list(read_jsonl(b'[{"ad_id": "a"}]', "f"))
